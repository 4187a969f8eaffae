"""Mail leaves as fast as each receiver takes it: the gate between chasquid and real receivers."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.peers import Limited, Neighbourhood
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until

USER, OTHER = f"i@{DOMAIN}", f"j@{DOMAIN}"
SLOW, QUICK = "slow.example", "quick.example"
GATE = "entrypoint.services.gate"


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make({"SEND_LIMIT": "none"})
    server.up()
    return server


@pytest.fixture(scope="module")
def secrets(server: Server) -> dict[str, str]:
    return {user: server.add_user(user) for user in (USER, OTHER)}


@pytest.fixture(scope="module")
def slow(
    servers_place: Neighbourhood, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Limited]:
    """Takes 20 at once, two seconds each."""
    folder = tmp_path_factory.mktemp("slow")
    peer = Limited(servers_place, SLOW, 62, folder, most=20, seconds=2.0)
    yield peer
    peer.remove()


@pytest.fixture(scope="module")
def quick(
    servers_place: Neighbourhood, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Limited]:
    folder = tmp_path_factory.mktemp("quick")
    peer = Limited(servers_place, QUICK, 63, folder, most=100, seconds=0.0)
    yield peer
    peer.remove()


@pytest.fixture(scope="module")
def servers_place(module_servers: Servers) -> Neighbourhood:
    found = module_servers
    return Neighbourhood(found.client, found.world, found.resolv_conf)


def send(server: Server, secrets: dict[str, str], number: int, user: str, domain: str) -> None:
    """Messages one after the other, on one connection."""
    with smtp.mail_program(server.endpoint()) as session:
        session.login(user, secrets[user])
        for index in range(number):
            mail = smtp.message(user, f"x{index}@{domain}", f"{user}-{index}")
            session.send_message(mail, user, [f"x{index}@{domain}"])


def send_all(server: Server, secrets: dict[str, str], number: int, clients: int = 10) -> None:
    with ThreadPoolExecutor(clients) as pool:
        work = [
            pool.submit(send, server, secrets, number // clients, USER, SLOW)
            for _ in range(clients)
        ]
        for item in work:
            item.result()


def arrives(receiver: Limited, number: int) -> None:
    """So many messages in all, within twenty seconds."""
    wait_until(lambda: len(receiver.set()["subjects"]) >= number, "it arrives", timeout=20)


def receivers(server: Server) -> dict[str, Any]:
    """What list-receivers says, by name."""
    return {item["name"]: item for item in json.loads(server.ok("list-receivers", "--json"))}


def deferred(server: Server) -> list[str]:
    return re.findall(r" mail +deferred .*", server.last_boot())


def test_mail_goes_through_the_gate_and_is_seen(
    server: Server, secrets: dict[str, str], quick: Limited
) -> None:
    send(server, secrets, 5, USER, QUICK)
    wait_until(lambda: len(quick.set()["subjects"]) == 5, "all arrive")
    assert server.control("status")["outgoing"]["paced"] is True
    assert server.control("status")["outgoing"]["unpaced"] == 0
    # Its connections end a moment after their messages; the first ones may have begun before the
    # look-up told whose they are, and count for the network.
    wait_until(
        lambda: sum(item["a_minute"] for item in receivers(server).values()) >= 5, "all are counted"
    )
    assert receivers(server)[QUICK]["window"] >= 10
    assert QUICK in server.ok("list-receivers")


@pytest.mark.long
@pytest.mark.alone
def test_a_thousand_messages_to_a_receiver_that_takes_twenty(
    server: Server, secrets: dict[str, str], slow: Limited, quick: Limited
) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(send_all, server, secrets, 1000)
        time.sleep(20)
        # Another receiver's mail, and another login's to the same.
        before = len(quick.set()["subjects"])
        asked = time.monotonic()
        send(server, secrets, 1, OTHER, QUICK)
        wait_until(lambda: len(quick.set()["subjects"]) > before, "another's mail is there")
        assert time.monotonic() - asked < 3
        asked = time.monotonic()
        send(server, secrets, 1, OTHER, SLOW)
        wait_until(lambda: f"{OTHER}-0" in slow.set()["subjects"], "another login's is there")
        assert time.monotonic() - asked < 10
        load.result()
    wait_until(lambda: len(slow.set()["subjects"]) >= 1001, "all are in", timeout=120)
    found = slow.set()
    took = time.monotonic() - began
    assert len(found["subjects"]) == 1001, "none came twice"
    assert found["peak"] <= 20
    assert found["refused"] <= 5, found["refused"]
    assert deferred(server) == []
    assert took < 100 * 1.15 + 5, took


def test_killed_gate_comes_back_and_mail_goes_on(
    server: Server, secrets: dict[str, str], quick: Limited
) -> None:
    server.log.tolerate(r"gate", r" mail +deferred id=")
    before = len(quick.set()["subjects"])
    victim = server.process("gate").pid
    server.machine.kill(victim)
    send(server, secrets, 3, USER, QUICK)
    wait_until(lambda: len(quick.set()["subjects"]) == before + 3, "all arrive", timeout=30)
    wait_until(lambda: server.control("status")["outgoing"]["gate"], "it is back", timeout=20)
    assert server.process("gate").pid != victim


def test_dead_ipv6_address_does_not_delay_mail(
    server: Server, secrets: dict[str, str], quick: Limited
) -> None:
    """As chasquid does without a gate: IPv4 at the first attempt (RFC 8305)."""
    net = quick.world.net
    for name, dead in (("refuses.example", net.v6(200)), ("drops.example", net.v6(250))):
        records = f"@ MX 10 mx.{name}.\nmx A {quick.ipv4}\nmx AAAA {dead}\n"
        quick.world.load_zone(name, records)
        before = len(quick.set()["subjects"])
        asked = time.monotonic()
        send(server, secrets, 1, USER, name)
        arrives(quick, before + 1)
        assert time.monotonic() - asked < 15
        quick.world.load_zone(name, "")


def test_first_exchanger_dead_second_alive(
    server: Server, secrets: dict[str, str], quick: Limited
) -> None:
    net, name = quick.world.net, "second.example"
    records = f"@ MX 10 one.{name}.\n@ MX 20 two.{name}.\none A {net.v4(250)}\ntwo A {quick.ipv4}\n"
    quick.world.load_zone(name, records)
    before = len(quick.set()["subjects"])
    send(server, secrets, 1, USER, name)
    wait_until(lambda: len(quick.set()["subjects"]) > before, "it arrives", timeout=30)
    quick.world.load_zone(name, "")
    assert [line for line in deferred(server) if name in line] == []


def test_held_receiver_gets_its_mail_when_it_is_released(
    server: Server, secrets: dict[str, str], quick: Limited
) -> None:
    send(server, secrets, 1, USER, QUICK)
    wait_until(lambda: QUICK in receivers(server), "it is known by name")
    wait_until(lambda: not server.queued(), "nothing is under way")
    before = len(quick.set()["subjects"])
    server.ok("hold-receiver", QUICK, "--for", "1h")
    send(server, secrets, 2, USER, QUICK)
    time.sleep(2)
    assert len(quick.set()["subjects"]) == before
    server.ok("release-receiver", QUICK)
    wait_until(lambda: len(quick.set()["subjects"]) == before + 2, "both arrive")


@pytest.mark.long
def test_where_the_kernel_may_not_be_asked_mail_leaves_unpaced_and_it_is_said(
    servers: Servers, quick: Limited, tmp_path: Path
) -> None:
    """Under a profile that forbids seccomp(2), as some runtimes have."""
    profile = tmp_path / "profile.json"
    rule = {"names": ["seccomp"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    server = servers.make(overlay={"security_opt": [f"seccomp:{profile}"]})
    server.log.tolerate(r"connections cannot be watched here")
    server.up()
    secrets = {USER: server.add_user(USER)}
    before = len(quick.set()["subjects"])
    send(server, secrets, 5, USER, QUICK)
    arrives(quick, before + 5)
    assert server.control("status")["outgoing"]["paced"] is False
    said = " ".join(server.verb("status").stdout.split())
    assert "mail leaves unpaced" in said
    assert "Operation not permitted" in said
    found = json.loads(server.verb("doctor", "--json").stdout)
    assert "connections-unwatched" in json.dumps(found)
