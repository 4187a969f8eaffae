"""Files that people edit by hand: taken up within seconds, and harmless when broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.container import checked
from tests.support.server import DOMAIN, ROOT, Server
from tests.support.wait import wait_until

USER = f"i@{DOMAIN}"
# The keeper looks every two seconds, and when the kernel tells of a change.
SOON = 10.0
# A keeper that looks by itself every ten minutes only.
RUN_KEEPER = "command = /usr/local/bin/tambo run-keeper\n"
PATIENT_KEEPER = (
    "command = /opt/tambo/bin/python -I -c 'import sys;from entrypoint import cli;"
    "from entrypoint.services import keeper;keeper._LOOK = 600.0;"
    "sys.exit(cli.run(sys.argv[1:]))' run-keeper\n"
)


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    # Asked more often than in production, so that a test need not wait for Docker's opinion.
    health = {"interval": "500ms", "retries": 1, "start_period": "1s"}
    server = module_servers.make(overlay={"healthcheck": health})
    server.up()
    return server


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(USER)


@pytest.fixture(scope="module")
def folder(server: Server) -> Path:
    folder = server.data / "domains" / DOMAIN
    server.machine.write(folder / "aliases", "info: i\n")
    wait_until(lambda: accepts(server, "info"), "an alias added by hand is served", timeout=SOON)
    return folder


@pytest.fixture
def mended(server: Server, folder: Path) -> Iterator[Callable[[str], None]]:
    """Call it with a file's name: the file is as it was before the test, and all is well again."""
    good = {name: server.machine.read(folder / name) for name in ("users", "aliases")}
    wait_until(lambda: server.container.health == "healthy", "all is well before", timeout=SOON)

    def mend(name: str) -> None:
        # As by cp: whatever stands there is written over.
        server.machine.write(folder / name, good[name])

    yield mend
    for name in good:
        mend(name)
    wait_until(lambda: server.container.health == "healthy", "all is well again", timeout=SOON)


def accepts(server: Server, local: str) -> bool:
    with smtp.mail_server(server.ipv4) as session:
        session.mail("someone@outside.example")
        code, _ = session.rcpt(f"{local}@{DOMAIN}")
        return code == 250


def unhealthy(server: Server, words: str) -> bool:
    health = server.container.state["Health"]
    return health["Status"] == "unhealthy" and words in health["Log"][-1]["Output"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("users", "", "the file is empty"),
        ("users", '# mine\nusers: {\n  key: "i"\n', "line"),
        ("users", 'users: { key: "i" value: { scrypt: { logN: 60 } } }\n', "'i'"),
        ("aliases", "info: i\nno colon here\n", "line 2"),
        ("aliases", "info: i\n\n# two\ninfo: other\n", "line 4"),
        ("aliases", "info: i via\n", "line 1"),
    ],
    ids=["users-empty", "users-cut-off", "users-too-dear", "no-colon", "twice", "via-nothing"],
)
def test_a_broken_file_changes_nothing_but_is_told_until_it_is_mended(
    server: Server,
    secret: str,
    folder: Path,
    mended: Callable[[str], None],
    name: str,
    content: str,
    words: str,
) -> None:
    chasquid = server.process("chasquid").pid
    path = f"data/domains/{DOMAIN}/{name}"
    server.log.expect(f"fail: {path}: .*{words}.*the last good copy serves.* Fix: ")
    server.machine.write(folder / name, content)
    wait_until(lambda: unhealthy(server, f"{path}: "), "it shows as unhealthy", timeout=SOON)
    assert unhealthy(server, words)
    assert smtp.can_log_in(server.endpoint(), USER, secret)
    assert accepts(server, "info")
    assert not accepts(server, "nobody")
    if name == "users":
        refused = server.verb("add-user", f"another@{DOMAIN}")
        assert refused.status == 1
        assert path in refused.stderr, "a verb does not write over what a person must mend"
        assert server.machine.read(folder / name) == content
    mended(name)
    wait_until(lambda: server.container.health == "healthy", "it is mended", timeout=SOON)
    assert f"mended: {path}" in server.container.log()
    assert server.process("chasquid").pid == chasquid, "it went on all the time"


@pytest.mark.usefixtures("mended")
def test_broken_files_change_nothing_at_a_restart_of_the_container_either(
    server: Server, secret: str, folder: Path
) -> None:
    server.log.expect(*(f"fail: data/domains/{DOMAIN}/{name}: " for name in ("users", "aliases")))
    server.machine.write(folder / "users", "{ { {\n")
    server.machine.write(folder / "aliases", "{ { {\n")
    server.compose("restart", "--timeout", "5")
    server.wait_until_it_serves()
    assert smtp.can_log_in(server.endpoint(), USER, secret)
    assert accepts(server, "info")
    for name in ("users", "aliases"):
        words = f"data/domains/{DOMAIN}/{name}: "
        wait_until(lambda words=words: unhealthy(server, words), "it is told", timeout=SOON)  # type: ignore[misc]


def test_a_file_that_its_owner_cannot_read_is_like_a_broken_one(
    server: Server, secret: str, folder: Path, mended: Callable[[str], None]
) -> None:
    """What an editor of the host's root may leave: a new file, root's alone."""
    path = folder / "aliases"
    server.log.expect(f"fail: data/domains/{DOMAIN}/aliases: cannot be read")
    checked(
        server.machine.run("sh", "-c", f"chown 0:0 '{path}'; chmod 600 '{path}'; touch '{path}'")
    )
    wait_until(lambda: unhealthy(server, "cannot be read"), "it shows", timeout=SOON)
    assert accepts(server, "info")
    assert smtp.can_log_in(server.endpoint(), USER, secret)
    # Any verb, as it starts as root, gives the file to whom it belongs.
    server.ok("list-users")
    wait_until(lambda: server.container.health == "healthy", "it is mended", timeout=SOON)
    mended("aliases")


def test_a_good_edit_is_served_within_seconds_without_a_restart(
    server: Server, folder: Path, mended: Callable[[str], None]
) -> None:
    chasquid = server.process("chasquid").pid
    assert not accepts(server, "sales")
    server.machine.write(folder / "aliases", "info: i\nsales: i\n")
    wait_until(lambda: accepts(server, "sales"), "the new alias is served", timeout=SOON)
    assert server.process("chasquid").pid == chasquid
    mended("aliases")
    wait_until(lambda: not accepts(server, "sales"), "it is gone again", timeout=SOON)


@pytest.mark.usefixtures("mended")
def test_a_damaged_key_goes_on_signing_and_is_not_replaced(server: Server, folder: Path) -> None:
    """Never a new key in silence: nothing would verify until DNS is changed."""
    [(name, key)] = server.keys().items()
    records = server.ok("dns", "--json")
    server.log.expect(rf"fail: data/domains/{DOMAIN}/{name}: .*the last good copy serves")
    server.machine.write(folder / name, key[: len(key) // 2])
    try:
        wait_until(lambda: unhealthy(server, name), "it shows as unhealthy", timeout=SOON)
        assert list(server.keys()) == [name]
        assert server.ok("dns", "--json") == records
    finally:
        server.machine.write(folder / name, key)


def watches(server: Server) -> bool:
    [pid] = [process.pid for process in server.processes("keeper")] or [0]
    script = f"cat /proc/{pid}/fdinfo/*"
    return "inotify wd:" in server.machine.run("sh", "-c", script).stdout


def test_an_edit_is_served_when_the_kernel_tells_of_it(servers: Servers, base: Path) -> None:
    """From another container, as from the host: what is bound into both is one file system."""
    programs = (ROOT / "rootfs/usr/lib/tambo/supervisord.conf").read_text()
    assert RUN_KEEPER in programs
    conf = base / "patient-supervisord.conf"
    conf.write_text(programs.replace(RUN_KEEPER, PATIENT_KEEPER))
    server = servers.make(mounts=[f"{conf}:/usr/lib/tambo/supervisord.conf:ro"])
    server.up()
    path = server.data / "domains" / DOMAIN / "aliases"
    wait_until(lambda: watches(server), "the keeper is there", timeout=SOON)
    server.machine.write(path, "info: me@outside.example\n")
    wait_until(lambda: accepts(server, "info"), "a new file is served", timeout=SOON)
    server.machine.write(path, "sales: me@outside.example\n")
    wait_until(lambda: accepts(server, "sales"), "an edit is served", timeout=SOON)
    server.machine.write(path.with_name("aliases.new"), "desk: me@outside.example\n")
    checked(server.machine.run("mv", str(path.with_name("aliases.new")), str(path)))
    wait_until(lambda: accepts(server, "desk"), "a renamed file is served", timeout=SOON)
    # A folder that came is watched, whatever it is called.
    strange = server.data / "domains/a\nb"
    checked(server.machine.run("mkdir", str(strange)))
    server.machine.write(strange / "users", "# none\n")
    words = "is not a domain name"
    server.log.expect("warn: /data/domains/a$")
    wait_until(lambda: words in server.container.log(), "the folder is seen", timeout=SOON)
    server.compose("stop", "--timeout", "9")
    assert server.container.state["ExitCode"] == 0
