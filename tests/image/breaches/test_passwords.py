"""Guessing at passwords: neither ends chasquid nor keeps a login out (breaches.md, 7)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import Scrypt
from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until

CHOSEN = "a choice of mine"
AT_ONCE = 120
SOON = 2.0  # seconds within which a login gets in, whatever else is tried


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    # Without a limit by address: who guesses has as many addresses as it takes.
    server = module_servers.make({"RATE_STRANGERS": "none"})
    server.up()
    return server


@pytest.fixture(scope="module")
def generated(server: Server) -> str:
    return server.add_user(f"made@{DOMAIN}")


@pytest.fixture(scope="module")
def chosen(server: Server) -> str:
    for name in ("chosen", "victim"):
        server.ok("add-user", f"{name}@{DOMAIN}", "--password-stdin", input=f"{CHOSEN}\n")
    return CHOSEN


@pytest.fixture(scope="module")
def old(server: Server, chosen: str, generated: str) -> str:
    """A login from before: scrypt with logN 14, 16 MiB a check."""
    assert chosen
    assert generated
    path = server.data / f"domains/{DOMAIN}/users"
    users = userdb.parse(server.machine.read(path))
    server.machine.write(path, userdb.render({**users, "old": Scrypt.of(CHOSEN, 14)}))
    endpoint = server.endpoint()
    wait_until(lambda: smtp.can_log_in(endpoint, f"old@{DOMAIN}", CHOSEN), "it is taken up")
    return f"old@{DOMAIN}"


@contextmanager
def guesses(server: Server, login: str) -> Iterator[Counter[int]]:
    """Wrong passwords for one login, all sent in the same moment; the answers, complete behind."""
    endpoint, answers = server.endpoint(), Counter[int]()
    ready, go = threading.Semaphore(0), threading.Event()

    def guess(number: int) -> None:
        try:
            with smtp.mail_program(endpoint) as session:
                session.ehlo()
                ready.release()
                go.wait(120)
                word = smtp.encoded(login, f"wrong-{number}")
                answers[session.docmd("AUTH", f"PLAIN {word}")[0]] += 1
        finally:
            ready.release()

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert ready.acquire(timeout=60)
    go.set()
    try:
        yield answers
    finally:
        for thread in threads:
            thread.join(60)


def seconds_to_log_in(server: Server, login: str, password: str) -> float:
    """From AUTH to 235, as it is seen by a program that has connected."""
    with smtp.mail_program(server.endpoint()) as session:
        session.ehlo()
        began = time.monotonic()
        code, _ = session.docmd("AUTH", f"PLAIN {smtp.encoded(login, password)}")
        assert code == 235
        return time.monotonic() - began


def peak(server: Server) -> int:
    """The most memory that the container ever had, in bytes (cgroups(7), version 2 or 1)."""
    names = ("memory.peak", "memory/memory.max_usage_in_bytes")
    paths = [f"/sys/fs/cgroup/{name}" for name in names]
    return int(server.container.exec("cat", *paths).stdout)


@pytest.mark.alone
@pytest.mark.parametrize("name", ["victim", "old", "made", "nobody"])
def test_120_wrong_passwords_at_once(
    server: Server, generated: str, chosen: str, old: str, name: str
) -> None:
    assert old
    # On a busy machine.
    server.log.tolerate("more passwords are tried")
    pid = server.process("chasquid").pid
    with guesses(server, f"{name}@{DOMAIN}") as answers:
        took = [
            seconds_to_log_in(server, f"made@{DOMAIN}", generated),
            seconds_to_log_in(server, f"chosen@{DOMAIN}", chosen),
        ]
    print(name, took, dict(answers), peak(server) >> 20)
    assert answers.total() == AT_ONCE
    assert set(answers) <= {535, 454}, "no is no"
    assert answers[535] >= 1
    assert max(took) < SOON
    assert server.process("chasquid").pid == pid, "the same chasquid goes on"
    assert peak(server) < 700 << 20
