"""Whoever took over one user of the container has nothing of another's: files, processes, doors.

The rights of every file are in tests/image/test_rights.py; here somebody tries. Each path is there,
which the machine's root sees: a refusal is one of rights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest

from tests.image.breaches.conftest import GENERATED, Shipped
from tests.support import smtp
from tests.support.container import checked
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until

SECRET = "token-of-the-provider"
CLOSED = "closed.example"  # its exchanger refuses connections


@dataclass(frozen=True)
class Try:
    """What a user does to a path; {first}, {keeper}, {holder} and {chasquid} are processes."""

    user: str
    command: str
    path: str

    def __str__(self) -> str:
        return f"{self.user}:{self.command}:{self.path}"


TRIES = [
    # The internet faces chasquid: what it could take is what an intruder has.
    Try("chasquid", "cat", f"/data/domains/{DOMAIN}/aliases"),
    Try("chasquid", "cat", f"/data/domains/{DOMAIN}/acme.env"),
    Try("chasquid", "cat", f"/data/domains/{DOMAIN}/dkim:key.pem"),
    Try("chasquid", "cat", "/data/backup.key"),
    Try("chasquid", "cat", "/data/acme/example.com/account.conf"),
    Try("chasquid", "cat", f"/data/state/good/{DOMAIN}/aliases"),
    Try("chasquid", "ls", "/data/state"),
    Try("chasquid", "ls", "/data/domains"),
    Try("chasquid", "ls", "/data/certs"),
    Try("chasquid", "ls", "/data/reload"),
    Try("chasquid", "cat", "/proc/{keeper}/environ"),
    Try("chasquid", "cat", "/proc/{keeper}/mem"),
    # Its own user's, but started by root with the settings, which no dump may show.
    Try("chasquid", "cat", "/proc/{holder}/environ"),
    Try("chasquid", "cat", "/proc/{holder}/mem"),
    Try("chasquid", "ls", "/proc/{first}/fd"),
    Try("chasquid", "kill -0", "{keeper}"),
    Try("chasquid", "kill -0", "{first}"),
    Try("chasquid", "touch", f"/data/domains/{DOMAIN}/users"),
    Try("chasquid", "touch", "/run/tambo/policy.json"),
    Try("chasquid", "touch", f"/run/tambo/chasquid/domains/{DOMAIN}/users"),
    Try("chasquid", "touch", "/run/tambo/chasquid/chasquid.conf"),
    # The one who changes settings does not read mail.
    Try("tambo", "ls", "/data/chasquid/queue"),
    Try("tambo", "ls", "/data/chasquid/domaininfo"),
    Try("tambo", "ls", f"/data/mail/{DOMAIN}"),
    Try("tambo", "cat", "/data/events/events.db"),
    Try("tambo", "ls", "/data/policy"),
    Try("tambo", "cat", "/proc/{first}/environ"),
    Try("tambo", "cat", "/proc/{chasquid}/mem"),
    Try("tambo", "cat", "/proc/{chasquid}/environ"),
    Try("tambo", "kill -0", "{chasquid}"),
    Try("tambo", "kill -0", "{first}"),
    Try("tambo", "touch", "/usr/lib/tambo/hooks/post-data"),
    # Anybody else has nothing at all.
    Try("nobody", "ls", "/data"),
    Try("nobody", "ls", "/data/mail"),
    Try("nobody", "ls", "/run/tambo"),
    Try("nobody", "cat", "/run/tambo/policy.json"),
    Try("nobody", "cat", "/run/tambo/chasquid/certs/zzz-self-signed/privkey.pem"),
    Try("nobody", "cat", "/proc/{first}/environ"),
]
REFUSED = ("Permission denied", "not permitted", "Read-only file system")


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"CF_Token": SECRET, "FORWARD_TO": ""}


@pytest.fixture(scope="module")
def server(shipped: Shipped) -> Server:
    """With something of every kind on its volume."""
    server = shipped.server
    shipped.world.load_zone(CLOSED, "@ MX 10 ns.example.net.")
    smtp.deliver(server.ipv4, GENERATED)
    wait_until(lambda: server.kept(GENERATED), "a message is kept")
    server.log.expect("deferred id=")
    server.log.tolerate("acme.env")
    smtp.submit(server.endpoint(), GENERATED, shipped.secrets[GENERATED], f"you@{CLOSED}")
    wait_until(server.queued, "a message waits")
    server.ok("add-alias", f"team@{DOMAIN}", "you@example.net")
    script = """
        cd "$1" && mkdir -p acme/example.com reload
        echo "CF_Token=token" >acme/example.com/account.conf
        echo "CF_Token=token" >domains/example.com/acme.env
        echo key >backup.key
        chown -R 10465:10465 acme reload backup.key domains/example.com/acme.env
        chmod 600 backup.key domains/example.com/acme.env acme/example.com/account.conf
        chmod 700 acme acme/example.com reload
    """
    checked(server.machine.run("sh", "-c", script, "sh", str(server.data)))
    return server


def inside(server: Server, name: str) -> int:
    """A process's number in the container."""
    status = server.machine.status(server.process(name).pid)
    return int(status["NSpid"].split()[-1])


@pytest.mark.parametrize("attempt", TRIES, ids=str)
def test_what_is_another_user_s_stays_his(server: Server, attempt: Try) -> None:
    path = attempt.path.replace("dkim:key.pem", next(iter(server.keys())))
    for name in ("first", "keeper", "holder", "chasquid"):
        if f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", str(inside(server, name)))
    if path.startswith("/"):
        there = PurePosixPath(f"/proc/{server.container.pid}/root{path}")
        assert server.machine.run("test", "-e", str(there)).status == 0, "it is there"
    said = server.container.exec(
        "env", "-i", "LC_ALL=C", "sh", "-c", f'{attempt.command} "$1"', "sh", path,
        user=attempt.user,
    )  # fmt: skip
    assert said.status != 0, said.stdout
    assert any(word in said.stderr for word in REFUSED), said.stderr
    assert not said.stdout


@pytest.mark.parametrize("user", ["chasquid", "tambo", "nobody"])
def test_each_user_can_do_what_is_tried_on_his_own(server: Server, user: str) -> None:
    """The commands work: what is refused above is refused for whose it is."""
    own = {"chasquid": "/data/chasquid/queue", "tambo": "/data/domains", "nobody": "/usr"}[user]
    said = server.container.exec("sh", "-c", 'ls "$1" && kill -0 $$', "sh", own, user=user)
    assert said.status == 0, said.stderr
    assert said.stdout


@pytest.mark.parametrize("name", ["chasquid", "policy", "recorder"])
def test_no_credential_reaches_what_reads_strangers_mail(server: Server, name: str) -> None:
    pid = server.process(name).pid
    assert SECRET not in "".join(server.machine.environ(pid).values())
    assert SECRET not in server.machine.read(PurePosixPath(f"/proc/{pid}/cmdline"))
    open_files = checked(server.machine.run("ls", "-l", f"/proc/{pid}/fd")).stdout
    assert not [line for line in open_files.splitlines() if "/data/domains" in line]


def test_none_of_this_is_in_the_log(server: Server) -> None:
    assert SECRET not in server.container.log()
    assert "BEGIN" not in server.container.log(), "no key"
