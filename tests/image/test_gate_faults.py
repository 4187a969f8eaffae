"""The gate under load and in trouble: nothing is lost, and no receiver gets more than it takes."""

from __future__ import annotations

import json
import re
import signal
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.peers import Limited, Neighbourhood
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.long]

USER = f"i@{DOMAIN}"
SLOW, FAST = "slowly.example", "fast.example"
ACKNOWLEDGED = 5000
ROUNDS = 10  # of each fault
NAMES = ("gate", "holder", "chasquid")


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make(
        {"SEND_LIMIT": "none", "PACE_SHARE": "none", "MAX_QUEUE": "12000"},
        overlay={"mem_limit": "2g"},
    )
    server.up()
    return server


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(USER)


@pytest.fixture(scope="module")
def place(module_servers: Servers) -> Neighbourhood:
    found = module_servers
    return Neighbourhood(found.client, found.world, found.resolv_conf)


@pytest.fixture(scope="module")
def slow(place: Neighbourhood, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    folder = tmp_path_factory.mktemp("slowly") / "peer"
    peer = Limited(place, SLOW, 64, folder, most=20, seconds=0.5)
    yield peer
    peer.remove()


@pytest.fixture(scope="module")
def fast(place: Neighbourhood, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    folder = tmp_path_factory.mktemp("fast") / "peer"
    peer = Limited(place, FAST, 65, folder, most=100, seconds=0.0)
    yield peer
    peer.remove()


@pytest.fixture(autouse=True)
def provoked(server: Server) -> None:
    server.log.tolerate(
        r"deferred id=", r" gate ", r" smtp .*(unpaced|chasquid|queue)", r" init ", r" policy ",
        r"exited: ", r" keeper ", r"terminated by",
    )  # fmt: skip


class Sender:
    """Submits until so many messages are acknowledged, whatever becomes of its connections."""

    def __init__(self, server: Server, secret: str, domain: str, prefix: str) -> None:
        self.server, self.secret, self.domain, self.prefix = server, secret, domain, prefix
        self.acknowledged: list[str] = []
        self._lock = threading.Lock()
        self._next = 0

    def run(self, number: int, clients: int = 8, seconds: float = 600) -> list[str]:
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as pool:
            for item in [pool.submit(self._client, number, end) for _ in range(clients)]:
                item.result()
        return self.acknowledged

    def _client(self, number: int, end: float) -> None:
        while len(self.acknowledged) < number and time.monotonic() < end:
            with suppress(OSError, smtplib.SMTPException):
                self._session(number, end)
            time.sleep(0.05)

    def _session(self, number: int, end: float) -> None:
        with smtp.mail_program(self.server.endpoint()) as session:
            if session.sock:
                session.sock.settimeout(20)
            session.login(USER, self.secret)
            while time.monotonic() < end:
                with self._lock:
                    if self._next >= number:
                        self._next = len(self.acknowledged)
                    if len(self.acknowledged) >= number:
                        return
                    self._next += 1
                    subject = f"{self.prefix}-{self._next}-{time.monotonic_ns()}"
                mail = smtp.message(USER, f"x@{self.domain}", subject)
                session.send_message(mail, USER, [f"x@{self.domain}"])
                with self._lock:
                    self.acknowledged.append(subject)


def all_arrive(receiver: Limited, subjects: list[str], timeout: float) -> None:
    wanted = set(subjects)
    wait_until(
        lambda: wanted <= set(receiver.set()["subjects"]), "all are in", timeout=timeout, pause=1.0
    )


def lines(server: Server, kind: str) -> list[str]:
    return re.findall(rf" mail +{kind} .*", server.last_boot())


def test_killed_and_stopped_programs_lose_nothing(
    server: Server, secret: str, fast: Limited
) -> None:
    stop = threading.Event()

    def trouble() -> None:
        for turn in range(ROUNDS):
            for name in NAMES:
                for number in (signal.SIGKILL, signal.SIGSTOP):
                    if stop.wait(1.0):
                        return
                    with suppress(ValueError, AssertionError):
                        victim = server.process(name).pid
                        server.machine.kill(victim, signal=number)
                        if number == signal.SIGSTOP:
                            stop.wait(0.5 + turn % 3)
                            server.machine.kill(victim, signal=signal.SIGCONT)

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        sender = Sender(server, secret, FAST, "killed")
        acknowledged = sender.run(ACKNOWLEDGED)
        thread.join()
    finally:
        stop.set()
        thread.join()
    server.wait_until_it_serves()
    assert len(acknowledged) >= ACKNOWLEDGED
    for _ in range(2):  # what was put off is tried at once by a new chasquid
        server.control("restart")
        time.sleep(5)
    all_arrive(fast, acknowledged, timeout=420)
    assert lines(server, "bounced") == []
    found = Counter(fast.set()["subjects"])
    twice = sum(number - 1 for number in found.values())
    print(f"{len(acknowledged)} acknowledged, {twice} came twice")


def test_limit_that_drops_half_way_is_found(server: Server, secret: str, slow: Limited) -> None:
    before = slow.set(most=20)
    sender = Sender(server, secret, SLOW, "drops")
    subjects = sender.run(600)
    half = len(before["subjects"]) + 300
    wait_until(lambda: len(slow.set()["subjects"]) >= half, "half are in", timeout=60)
    slow.set(most=5)
    all_arrive(slow, subjects, timeout=120)
    refused = slow.set(most=20)["refused"] - before["refused"]
    print(f"{refused} refused")
    assert refused <= 25


def test_a_start_with_a_thousand_waiting(server: Server, secret: str, slow: Limited) -> None:
    slow.set(most=20, reply="451 4.3.0 try again later")
    sender = Sender(server, secret, SLOW, "waits")
    subjects = sender.run(1000)
    wait_until(lambda: len(lines(server, "deferred")) >= 1000, "all are put off", timeout=180)
    before = slow.set(reply="")
    began = time.monotonic()
    server.control("restart")
    all_arrive(slow, subjects, timeout=180)
    took = time.monotonic() - began
    found = slow.set()
    print(f"{took:.1f} s, {found['refused'] - before['refused']} refused")
    assert found["refused"] - before["refused"] <= 5
    assert took < 60


def test_four_thousand_waiting_and_a_small_gate(server: Server, secret: str, slow: Limited) -> None:
    slow.set(most=20, seconds=0.1)
    server.ok("hold-receiver", SLOW, "--for", "1h")
    subjects = Sender(server, secret, SLOW, "many").run(4000)

    def waiting() -> int:
        found = json.loads(server.ok("list-receivers", "--json"))
        return sum(item["waiting"] for item in found if item["name"] == SLOW)

    wait_until(lambda: waiting() >= 3900, "nearly all wait in the gate", timeout=60)
    status = server.machine.run("cat", f"/proc/{server.process('gate').pid}/status").stdout
    found = re.search(r"VmHWM:\s+([0-9]+) kB", status)
    assert found
    print(f"gate: {int(found[1]) / 1024:.1f} MB at most")
    assert int(found[1]) < 60 * 1024
    server.ok("release-receiver", SLOW)
    all_arrive(slow, subjects, timeout=400)
    assert lines(server, "bounced") == []
