"""Who may do what: processes without rights, a root file system without writers, private files.

Everything is looked at from outside, as the machine's root, whom no mode hides anything from.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.machine import Entry
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until
from tests.world.world import World

TAMBO, CHASQUID, AUTH, ROOT = 10465, 10025, 10466, 0
# Bits of capabilities(7): CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, NET_BIND_SERVICE.
GIVEN = sum(1 << bit for bit in (0, 1, 5, 6, 7, 10))
CLOSED = "closed.example"  # its exchanger refuses connections
SECRET = "not-for-chasquid"


@pytest.fixture(scope="module")
def server(module_servers: Servers, world: World) -> Server:
    world.load_zone(CLOSED, "@ MX 10 ns.example.net.")
    settings = {"CF_Token": SECRET, "DKIM_KEYS": "rsa2048,ed25519"}
    server = module_servers.make(settings)
    server.up()
    # So that there is something of every kind: users, a kept message, a queued one.
    secret = server.add_user(f"i@{DOMAIN}")
    smtp.deliver(server.ipv4, f"i@{DOMAIN}")
    wait_until(lambda: server.kept(f"i@{DOMAIN}"), "a message is kept")
    server.log.expect("deferred id=")
    smtp.submit(server.endpoint(), f"i@{DOMAIN}", secret, f"you@{CLOSED}")
    wait_until(server.queued, "a message waits")
    return server


@pytest.fixture(scope="module")
def data(server: Server) -> dict[str, Entry]:
    return server.machine.tree(server.data)


@pytest.fixture(scope="module")
def run(server: Server) -> dict[str, Entry]:
    return server.machine.tree(inside(server, "/run/tambo"))


def inside(server: Server, path: str) -> PurePosixPath:
    """A path of the container's, as the machine's root reaches it."""
    return PurePosixPath(f"/proc/{server.container.pid}/root{path}")


@pytest.mark.parametrize(
    ("name", "uid", "capabilities"),
    [
        ("first", ROOT, GIVEN),
        ("holder", CHASQUID, 0),
        ("keeper", TAMBO, 0),
        ("chasquid", CHASQUID, 0),
        ("policy", CHASQUID, 0),
        ("auth", AUTH, 0),
    ],
)
def test_each_program_is_its_own_user_with_what_it_needs_and_no_more(
    server: Server, name: str, uid: int, capabilities: int
) -> None:
    status = server.machine.status(server.process(name).pid)
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(uid)] * 4
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == capabilities
    assert int(status["CapPrm"], 16) == capabilities
    assert int(status["CapInh"], 16) == 0
    assert int(status["CapAmb"], 16) == 0
    # What could be had at most is what the container was given.
    assert int(status["CapBnd"], 16) == GIVEN
    groups = {"keeper": [str(CHASQUID), str(AUTH)]}.get(name)
    if groups is not None:
        assert status["Groups"].split() == groups, "it hands files to the others"
    elif uid:
        assert status["Groups"].split() == []


def test_chasquid_s_environment_is_of_its_own(server: Server) -> None:
    environ = server.machine.environ(server.process("chasquid").pid)
    names = {"PATH", "HOME", "LANG", "TZ", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
    assert names <= set(environ) <= names | {"GOMEMLIMIT"}
    assert SECRET not in "".join(environ.values())
    assert environ["LISTEN_FDS"] == "6", "three ports on two families"


def test_chasquid_gets_no_ports_by_being_privileged(server: Server) -> None:
    """As on a host: the tests' network must not allow what a server would not."""
    found = server.container.exec("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").stdout
    assert found.strip() == "1024"


def test_the_policy_service_has_none_of_the_container_s_environment(server: Server) -> None:
    environ = server.machine.environ(server.process("policy").pid)
    assert set(environ) == {"LANG", "PYTHONUNBUFFERED"}


def test_how_chosen_passwords_are_stored_is_for_the_auth_service_alone(
    server: Server, run: dict[str, Entry]
) -> None:
    found = run["auth/passwords.json"]
    assert (found.uid, found.gid, found.mode) == (TAMBO, AUTH, 0o640)
    path = "/run/tambo/auth/passwords.json"
    assert "Permission denied" in server.container.exec("cat", path, user="chasquid").stderr
    environ = server.machine.environ(server.process("auth").pid)
    assert set(environ) == {"LANG", "PYTHONUNBUFFERED", "MALLOC_MMAP_THRESHOLD_"}


@pytest.mark.parametrize("path", ["/run/tambo/policy.json", "/run/tambo/chasquid", "/data"])
def test_the_auth_service_reads_nothing_but_its_own(server: Server, path: str) -> None:
    assert "Permission denied" in server.container.exec("ls", path, user="auth").stderr


def test_no_program_of_the_image_makes_its_user_another_one(server: Server) -> None:
    found = server.container.exec("find", "/", "-xdev", "-type", "f", "-perm", "/6000")
    assert (found.status, found.stdout) == (0, "")


def test_the_root_file_system_is_read_only(server: Server) -> None:
    lines = server.machine.read(PurePosixPath(f"/proc/{server.container.pid}/mounts")).splitlines()
    mounts = {line.split()[1]: line.split() for line in lines}
    assert "ro" in mounts["/"][3].split(",")
    for path in ("/x", "/etc/x", "/usr/bin/x", "/usr/lib/tambo/x", "/opt/tambo/x", "/var/x"):
        assert server.container.exec("touch", path).status != 0
    writable = {
        path
        for path, (_, _, _, options, *_) in mounts.items()
        if "rw" in options.split(",") and not path.startswith(("/proc", "/sys", "/dev/"))
    }
    assert writable == {"/data", "/run", "/tmp", "/dev"}  # noqa: S108


def test_what_is_tambo_s_on_the_volume_is_nobody_else_s(data: dict[str, Entry]) -> None:
    own = {
        path: entry
        for path, entry in data.items()
        if path != "." and path.split("/")[0] not in ("chasquid", "events", "mail", "policy")
    }
    assert {path.split("/")[0] for path in own} >= {"domains", "certs", "state"}
    assert f"domains/{DOMAIN}/users" in own
    assert len([path for path in own if path.endswith(".pem")]) >= 4, "DKIM keys, TLS key and chain"
    for path, entry in own.items():
        assert (entry.uid, entry.gid) == (TAMBO, TAMBO), path
        assert (entry.kind, entry.mode) in (("d", 0o700), ("f", 0o600)), path


def test_what_is_chasquid_s_on_the_volume_is_nobody_else_s(data: dict[str, Entry]) -> None:
    theirs = ("chasquid", "events", "mail", "policy")
    own = {path: data[path] for path in data if path.split("/")[0] in theirs}
    assert "events/events.db" in own
    assert any(path.startswith("chasquid/queue/m:") for path in own)
    assert any(path.startswith(f"mail/{DOMAIN}/i/new/") for path in own)
    for path, entry in own.items():
        assert (entry.uid, entry.gid) == (CHASQUID, CHASQUID), path
        assert entry.mode & 0o077 == 0, path


def test_the_volume_can_be_passed_through_by_chasquid_and_listed_by_none(
    server: Server, data: dict[str, Entry]
) -> None:
    top = data["."]
    assert (top.uid, top.gid, top.mode) == (TAMBO, CHASQUID, 0o710)
    assert server.container.exec("ls", "/data", user="chasquid").status != 0
    assert server.container.exec("ls", "/data/mail", user="chasquid").status == 0


def test_what_chasquid_reads_it_cannot_write(run: dict[str, Entry]) -> None:
    assert (run["."].uid, run["."].gid, run["."].mode) == (TAMBO, CHASQUID, 0o750)
    rendered = {path: entry for path, entry in run.items() if path.split("/")[0] == "chasquid"}
    assert f"chasquid/domains/{DOMAIN}/users" in rendered
    assert "chasquid/certs/zzz-self-signed/privkey.pem" in rendered
    rendered["policy.json"] = run["policy.json"]
    # A link is whatever it leads to: into the image, which is read-only.
    assert rendered.pop("chasquid/hooks/post-data").kind == "l"
    for path, entry in rendered.items():
        assert (entry.uid, entry.gid) == (TAMBO, CHASQUID), path
        assert (entry.kind, entry.mode) in (("d", 0o750), ("f", 0o640)), path


@pytest.mark.parametrize("name", ["holder.sock", "policy-control.sock", "auth-control.sock"])
def test_chasquid_cannot_reach_a_door_of_tambo_s(
    server: Server, run: dict[str, Entry], name: str
) -> None:
    door = run[name]
    assert (door.kind, door.uid, door.gid, door.mode) == ("s", TAMBO, TAMBO, 0o600)
    code = f"import socket; socket.socket(socket.AF_UNIX).connect('/run/tambo/{name}')"
    refused = server.container.exec("python3", "-c", code, user="chasquid")
    assert "PermissionError" in refused.stderr


@pytest.mark.parametrize(
    "path",
    [
        f"/data/domains/{DOMAIN}/users", "/data/certs/self-signed/privkey.pem",
        "/data/state/instance.lock", "/proc/1/environ",
    ],
)  # fmt: skip
def test_chasquid_cannot_read_what_is_not_for_it(server: Server, path: str) -> None:
    assert "Permission denied" in server.container.exec("cat", path, user="chasquid").stderr
    assert server.container.exec("cat", path, user="root").status in (0, 1)


def test_everything_goes_back_to_its_owner_at_a_boot(server: Server) -> None:
    """As after a restore by the host's root."""
    before = server.machine.tree(server.data)
    server.down()
    server.machine.run("chown", "-R", "0:0", str(server.data))
    server.machine.run("chmod", "-R", "a+rX", str(server.data))
    server.log.tolerate("deferred id=")
    server.up()
    wait_until(lambda: server.processes("keeper"), "all runs")
    after = server.machine.tree(server.data)
    names = {path for path in before if path in after and before[path].kind != "s"}
    assert f"domains/{DOMAIN}/users" in names

    def rights(tree: dict[str, Entry], path: str) -> tuple[int, int, int]:
        entry = tree[path]
        # What chasquid keeps for itself it may keep readable: its folders are closed.
        theirs = path.split("/")[0] in ("chasquid", "events", "mail", "policy")
        mode = entry.mode & 0o700 if theirs else entry.mode
        return entry.uid, entry.gid, mode

    assert {path: rights(after, path) for path in names} == {
        path: rights(before, path) for path in names
    }
    for name in ("chasquid", "events", "mail", "policy"):
        assert after[name].mode == 0o700
