"""A verb that is killed after its change, before chasquid knows of it."""

from __future__ import annotations

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until

USER = f"i@{DOMAIN}"
# Runs one verb that is killed where it would tell the holder.
_DIES = """
import os, signal, sys
from entrypoint import cli
from entrypoint.common import rpc
rpc.request = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
cli.run(sys.argv[1:])
"""
# Changes a file that chasquid reads at its start alone, as rotate-dkim and renew-cert do.
_NEW_KEY = """
import os, signal
from entrypoint.common import rpc
from entrypoint.converge import apply
from entrypoint.keys import dkim
from entrypoint.commands.context import Context
from entrypoint.common.names import Domain, Selector
rpc.request = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
context = Context.enter()
with context.change():
    path = context.paths.domain(Domain("example.com")) / "dkim:another.pem"
    apply.write(path, dkim.make(dkim.Algorithm.ED25519), context.ids)
"""


@pytest.fixture
def server(servers: Servers) -> Server:
    server = servers.make({"DKIM_KEYS": "rsa2048,ed25519"})
    server.up()
    return server


def run_and_die(server: Server, code: str, *words: str) -> None:
    done = server.container.exec("/opt/tambo/bin/python", "-c", code, *words)
    assert done.status == 137, done.stderr


def waiting(server: Server) -> str:
    return server.container.exec("cat", "/run/tambo/changes").stdout


def pids(server: Server) -> set[int]:
    """Of chasquid: none, for a moment, while it starts again."""
    return {item.pid for item in server.processes("chasquid")}


def test_the_keeper_tells_chasquid_of_a_user(server: Server) -> None:
    secret = server.add_user(USER)
    assert waiting(server) == ""
    assert smtp.can_log_in(server.endpoint(), USER, secret)
    pid = server.process("chasquid").pid
    run_and_die(server, _DIES, "remove-user", USER)
    # Within seconds: chasquid by itself reads users again after half a minute.
    wait_until(
        lambda: not smtp.can_log_in(server.endpoint(), USER, secret), "it is out", timeout=10
    )
    wait_until(lambda: not waiting(server), "it is done")
    assert "did not tell it; now it was told to read them" in server.container.log()
    assert server.process("chasquid").pid == pid


def test_the_keeper_has_chasquid_started_again_for_a_key(server: Server) -> None:
    pid = server.process("chasquid").pid
    run_and_die(server, _NEW_KEY)
    wait_until(
        lambda: {item.pid for item in server.processes("chasquid")} - {pid},
        "another chasquid",
        timeout=10,
    )
    wait_until(lambda: not waiting(server), "it is done")
    assert "did not tell it; now it was told to start again" in server.container.log()
    secret = server.add_user(USER)
    smtp.submit(server.endpoint(), USER, secret, f"postmaster@{DOMAIN}")
    [text] = wait_until(lambda: server.kept(f"postmaster@{DOMAIN}"), "it is kept")
    assert "s=another;" in "".join(text.split()), "signed with the new key as well"


def test_without_a_keeper_the_next_one_pays(server: Server) -> None:
    """All killed at once, but for the holder and its chasquid."""
    secret = server.add_user(USER)
    pid = server.process("chasquid").pid
    run_and_die(server, _NEW_KEY)
    server.machine.kill(*(item.pid for item in server.processes("keeper")))
    wait_until(
        lambda: {item.pid for item in server.processes("chasquid")} - {pid},
        "another chasquid",
        timeout=15,
    )
    wait_until(lambda: not waiting(server), "it is done")
    assert smtp.can_log_in(server.endpoint(), USER, secret)


def test_nothing_is_owed_after_a_start(server: Server) -> None:
    assert waiting(server) == ""
    before = server.control("status")["starts"]
    server.compose("restart")
    server.wait_until_it_serves()
    wait_until(lambda: server.control("status")["ready"], "chasquid is there")
    assert waiting(server) == ""
    assert server.control("status")["starts"] == before == 1
