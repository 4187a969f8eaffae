"""Forty-five messages of 24 MB to a domain that does not answer: the queue never ends chasquid.

The first version was killed by signal 9 with 23 to 30 of them in its queue, again at every start.
"""

from __future__ import annotations

import re
import smtplib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from tests.image.breaches.conftest import GENERATED, Shipped
from tests.support import smtp
from tests.support.server import DOMAIN
from tests.support.wait import wait_until

pytestmark = pytest.mark.alone

NUMBER = 45
DEAD = "dead.example"
ALIAS = f"dead@{DOMAIN}"
BODIES = {
    "ascii": (b"x" * 76 + b"\r\n") * (24_000_000 // 78),
    "binary": (bytes(range(128, 256)) * 7 + b"\r\n") * (24_000_000 // 898),
}
PORTS = (25, 465, 587)


@dataclass
class Watch:
    """How long each port took to greet, from outside, once and again."""

    slowest: dict[int, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    looks: int = 0


@contextmanager
def watched(shipped: Shipped) -> Iterator[Watch]:
    watch, stop = Watch(), threading.Event()
    endpoint = shipped.server.endpoint()

    def look(port: int) -> None:
        began = time.monotonic()
        try:
            if port == 465:
                smtp.tls_greeting(endpoint, timeout=10)
            else:
                smtp.greeting(shipped.server.ipv4, port, timeout=10)
        except OSError as error:
            watch.failed.append(f"{port}: {error}")
        took = time.monotonic() - began
        watch.slowest[port] = max(took, watch.slowest.get(port, 0.0))

    def work() -> None:
        while not stop.wait(0.5):
            for port in PORTS:
                look(port)
            watch.looks += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module", autouse=True)
def dead(shipped: Shipped) -> Iterator[None]:
    """A domain whose exchanger nobody is: connecting to it fails after some seconds."""
    world = shipped.world
    world.load_zone(DEAD, f"@ MX 10 mx\nmx A {world.net.v4(250)}\n")
    shipped.server.ok("add-alias", ALIAS, f"x@{DEAD}")
    yield
    world.load_zone(DEAD, "")


@pytest.fixture(autouse=True)
def waits(shipped: Shipped) -> None:
    shipped.server.log.tolerate(r" mail +deferred id=", r"do not fit into memory")


def send(shipped: Shipped, number: int, kind: str, *, login: bool) -> tuple[str, int, str]:
    """The subject, and what was answered."""
    subject = f"{kind}-{'login' if login else 'stranger'}-{number}"
    sender = GENERATED if login else "a@outside.example"
    to = f"x@{DEAD}" if login else ALIAS
    head = (
        f"From: {sender}\r\nTo: {to}\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n"
        f"Message-ID: <{subject}@{sender.partition('@')[2]}>\r\nSubject: {subject}\r\n\r\n"
    )
    with suppress(smtplib.SMTPServerDisconnected, OSError), _connected(shipped, login) as server:
        server.mail(sender)
        server.rcpt(to)
        code, text = server.data(head.encode() + BODIES[kind])
        return subject, code, text.decode()
    return subject, 0, "cut off"


@contextmanager
def _connected(shipped: Shipped, login: bool) -> Iterator[smtplib.SMTP]:
    endpoint = shipped.server.endpoint()
    if login:
        with smtp.mail_program(endpoint) as server:
            server.timeout = 300
            if server.sock:
                server.sock.settimeout(300)
            server.login(GENERATED, shipped.secrets[GENERATED])
            yield server
    else:
        with smtp.mail_server(shipped.server.ipv4) as server:
            if server.sock:
                server.sock.settimeout(300)
            server.ehlo("mx.outside.example")
            yield server


def subjects(shipped: Shipped) -> set[str]:
    """Of what waits: in the queue, or parked. Not read in the container: that needs its memory."""
    folder = shipped.server.data / "chasquid"
    found = shipped.server.machine.run(
        "sh", "-c",
        'for file in "$0"/queue/m:* "$0"/queue.parked/m:*; do head -c 8192 "$file"; echo; done'
        " 2>/dev/null | grep -aoE 'Subject: [a-z]+-[a-z]+-[0-9]+' | sort -u",
        str(folder),
    ).stdout  # fmt: skip
    return set(re.findall(r"Subject: (\S+)", found))


def kill_chasquid(shipped: Shipped) -> None:
    victim = shipped.server.process("chasquid").pid
    shipped.server.machine.kill(victim)

    def another() -> bool:
        found = shipped.server.processes("chasquid")
        return bool(
            found and found[0].pid != victim and smtp.greeting(shipped.server.ipv4, timeout=10)
        )

    wait_until(another, "another chasquid greets", timeout=90)


@pytest.mark.parametrize("login", [True, False], ids=["login", "forward"])
@pytest.mark.parametrize("kind", ["ascii", "binary"])
def test_forty_five_large_messages_to_a_dead_domain(
    shipped: Shipped, kind: str, login: bool
) -> None:
    shipped.server.ok("drop-queued", "--all", "--yes")
    before = shipped.server.container.log().count("signal 9")
    with watched(shipped) as watch, ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda n: send(shipped, n, kind, login=login), range(NUMBER)))
    accepted = {subject for subject, code, _ in answers if code == 250}
    refused = [(code, text) for _, code, text in answers if code != 250]
    assert accepted
    assert all(code == 451 and "4.3.1" in text for code, text in refused), refused
    assert any("messages up to" in text for _, text in refused), "how much would fit is said"
    assert shipped.server.container.log().count("signal 9") == before
    assert watch.looks
    assert not watch.failed
    assert max(watch.slowest.values()) < 2, watch.slowest
    assert accepted <= subjects(shipped), "nothing that was accepted is lost"


def test_a_killed_chasquid_with_a_large_queue_comes_back_and_loses_nothing(
    shipped: Shipped,
) -> None:
    shipped.server.log.tolerate(r"chasquid was killed by signal 9", r"a note|are tried again")
    shipped.server.ok("drop-queued", "--all", "--yes")
    answers = [send(shipped, n, "ascii", login=True) for n in range(8)]
    assert {code for _, code, _ in answers} == {250}
    before = {subject for subject, _, _ in answers}
    assert subjects(shipped) == before
    for _ in range(3):
        kill_chasquid(shipped)
        assert subjects(shipped) == before
    assert "parked until there is memory" in shipped.server.ok("list-queue", "--limit", "200")
