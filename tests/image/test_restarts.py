"""A new chasquid, and a stop, as those see it who connect meanwhile."""

from __future__ import annotations

import time

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.knocks import RATE, Knocks
from tests.support.server import DOMAIN, Server

pytestmark = [pytest.mark.alone, pytest.mark.long]

RESTARTS = 10


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make()
    server.up()
    return server


def test_ten_restarts_under_fifty_connections_a_second_refuse_none(server: Server) -> None:
    load = Knocks(server)
    pids = [server.process("chasquid").pid]
    since = time.monotonic()
    with load.going_on():
        time.sleep(0.5)
        for _ in range(RESTARTS):
            assert server.control("restart")["done"] is True
            pids.append(server.process("chasquid").pid)
            time.sleep(0.3)
    seconds = time.monotonic() - since
    assert len(set(pids)) == RESTARTS + 1, "each was a new one"
    total = sum(load.outcomes.values())
    assert total > 0.9 * RATE * seconds, "the load was as heavy as it should be"
    assert load.outcomes["refused"] == 0
    assert load.outcomes["timed out"] == 0
    # chasquid ends without a farewell: who had connected to the old one just then tries again.
    assert load.outcomes["cut off"] <= RESTARTS
    assert load.longest < 2.0


def test_a_reload_cuts_nobody_off(server: Server) -> None:
    load = Knocks(server)
    with load.going_on():
        for _ in range(5):
            assert server.control("reload")["done"] is True
    assert set(load.outcomes) == {"greeted", "connected"}


def test_a_session_that_is_open_survives_a_new_user(server: Server) -> None:
    with smtp.mail_server(server.ipv4) as session:
        server.add_user(f"meanwhile@{DOMAIN}")
        assert session.noop()[0] == 250


def test_docker_stop_takes_at_most_five_seconds_and_exits_0(server: Server) -> None:
    with smtp.mail_server(server.ipv4):
        since = time.monotonic()
        server.compose("stop")
        assert time.monotonic() - since < 5.0
    assert server.container.state["ExitCode"] == 0
    assert not server.container.running
    server.compose("start")
    server.wait_until_it_serves()
