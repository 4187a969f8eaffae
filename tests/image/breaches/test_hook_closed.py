"""Many final dots at once: what the policy service has not judged is not taken, and is logged.

chasquid starts a process for each message that ends. There is not always one to be had, and the
service may be hung or dead; each of these is 451 for the stranger, a line in the log, and counted
in `status`. Limits are as shipped: 2,048 processes, 1 GB.
"""

from __future__ import annotations

import resource
import smtplib
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from tests.image.breaches.conftest import Shipped
from tests.support import smtp
from tests.support.container import checked
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until
from tests.support.wire import Wire

DOTS = 900
CLIENTS = 24  # threads that open connections
TO = f"i@{DOMAIN}"
FORGED = f"ceo@{DOMAIN}"
UNJUDGED = "4.3.0 the policy service "


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """All come from one address here, which stands for many."""
    return {"RATE_STRANGERS": "none"}


@pytest.fixture(scope="module", autouse=True)
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Connections that have handed over a forgery each, but for its final dot."""

    def __init__(self, server: Server, count: int) -> None:
        endpoint = server.endpoint()

        def prepare(number: int) -> Wire:
            wire = Wire(endpoint, timeout=60)
            assert wire.ask("EHLO outside.example").positive
            assert wire.ask(f"MAIL FROM:<x{number}@forger.example>").positive
            assert wire.ask(f"RCPT TO:<{TO}>").positive
            assert wire.ask("DATA").code == 354
            wire.send(
                f"From: <{FORGED}>\r\nTo: <{TO}>\r\nSubject: forged\r\n"
                f"Date: Tue, 24 Nov 2026 08:00:00 +0000\r\nMessage-ID: <{number}@x>\r\n\r\nPay.\r\n"
                .encode()
            )  # fmt: skip
            return wire

        with ThreadPoolExecutor(CLIENTS) as pool:
            self._wires = list(pool.map(prepare, range(count)))

    def __len__(self) -> int:
        return len(self._wires)

    def end(self) -> Counter[str]:
        """All final dots at once; how often each reply came."""
        for wire in self._wires:
            wire.send(b".\r\n")
        found: Counter[str] = Counter()
        for wire in self._wires:
            found[str(wire.reply())] += 1
            wire.close()
        return found


def unjudged(server: Server) -> int:
    """How many `status` counts."""
    return int(server.verb("status", "--json").json()["unjudged"]["count"])


def judged(server: Server, crowd: Crowd, ended: Callable[[], Counter[str]]) -> Counter[str]:
    """What `ended` returned, the replies to a crowd: no forgery was taken, each refusal is logged
    once, those for want of an answer are counted, and chasquid is still the same."""
    pid, before, start = (
        server.process("chasquid").pid,
        unjudged(server),
        len(server.container.log()),
    )

    def lines() -> list[str]:
        log = server.container.log()[start:].splitlines()
        return [line for line in log if "@forger.example" in line]

    found = ended()
    assert found.total() == len(crowd)
    wait_until(lambda: len(lines()) >= len(crowd), "each is logged", timeout=20)
    said = lines()
    assert len(said) == len(crowd)
    assert all(" refused from=x" in line for line in said), "no other became of any"
    assert {reply[:3] for reply in found} <= {"451", "554"}
    without = sum(f": {UNJUDGED}" in line for line in said)
    assert without == sum(count for reply, count in found.items() if reply[:3] == "451")
    wait_until(lambda: unjudged(server) - before == without, "those are counted")
    assert server.process("chasquid").pid == pid
    return found


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The policy service hangs."""
    pid = str(server.process("policy").pid)
    checked(server.machine.run("kill", "-STOP", pid))
    try:
        yield
    finally:
        server.machine.run("kill", "-CONT", pid)


def takes_mail(server: Server) -> bool:
    """Honest mail comes in."""
    with suppress(smtplib.SMTPException):
        return bool(smtp.deliver(server.ipv4, TO))
    return False


@pytest.fixture(autouse=True)
def _mail_goes_on(shipped: Shipped) -> Iterator[None]:
    server = shipped.server
    server.log.tolerate(r"policy service had died", r"policy service does not answer")
    yield
    wait_until(lambda: takes_mail(server), "mail comes in again", timeout=30, pause=0.5)


def test_nine_hundred_forgeries_that_end_at_once_are_all_refused(shipped: Shipped) -> None:
    crowd = Crowd(shipped.server, DOTS)
    found = judged(shipped.server, crowd, crowd.end)
    assert sum(count for reply, count in found.items() if reply.startswith("554 5.7.1")) > 100


def test_with_a_service_that_hangs_none_of_them_is_taken(shipped: Shipped) -> None:
    crowd = Crowd(shipped.server, DOTS)
    with stopped(shipped.server):
        found = judged(shipped.server, crowd, crowd.end)
    assert found.keys() == {
        "451 4.3.0 the policy service does not answer (time-out); try again in a minute",
        "451 4.3.0 the policy service does not answer (no connection); try again in a minute",
    }


def test_with_a_service_that_is_killed_all_the_while_none_is_taken(shipped: Shipped) -> None:
    server = shipped.server
    crowd = Crowd(server, DOTS)
    over = threading.Event()

    def kill() -> None:
        for item in server.processes("policy"):
            server.machine.run("kill", "-9", str(item.pid))

    def go_on() -> None:
        while not over.wait(0.05):
            kill()

    kill()
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        found = judged(server, crowd, crowd.end)
    finally:
        over.set()
        thread.join()
    assert any(reply.startswith(f"451 {UNJUDGED}does not answer") for reply in found)


def test_twice_as_many_as_there_may_be_processes_do_not_end_chasquid(shipped: Shipped) -> None:
    """Go ends a program that gets no further thread; each hook costs one while it runs."""
    crowd = Crowd(shipped.server, 1900)
    with stopped(shipped.server):
        judged(shipped.server, crowd, crowd.end)


# Threads count as processes do (pids_limit), and cost hardly any memory.
_EATER = """
import os, sys, threading
threading.stack_size(1 << 16)
end = threading.Event()
try:
    while True:
        threading.Thread(target=end.wait, daemon=True).start()
except RuntimeError:
    print("full", flush=True)
sys.stdin.readline()
os._exit(0)
"""


def test_where_no_process_is_to_be_had_nothing_is_taken(shipped: Shipped) -> None:
    """The hook cannot be started: chasquid has no words for that."""
    server = shipped.server
    server.log.tolerate(r"Resource temporarily unavailable", r"error")
    crowd = Crowd(server, 20)
    # chasquid has threads to spare from earlier tests of this module, or from these.
    spare = Crowd(server, 100)
    with stopped(server):
        spare.end()

    def end() -> Counter[str]:
        eater = subprocess.Popen(  # noqa: S603
            ["docker", "exec", "-i", server.name, "/opt/tambo/bin/python", "-c", _EATER],  # noqa: S607
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert eater.stdout
        assert eater.stdout.readline() == "full\n"
        try:
            return crowd.end()
        finally:
            eater.communicate("\n", timeout=30)

    found = judged(server, crowd, end)
    # A process that ends leaves room for one hook, which is refused by the service then.
    assert found["451 "] > 0
    assert f": {UNJUDGED}cannot be asked: its hook could not be run" in server.container.log()
