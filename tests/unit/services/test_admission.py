"""Room for one more message: what waits in the queue, and what is not there yet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from entrypoint.chasquid.backlog import Backlog
from entrypoint.policy.queueroom import MB, Budget, Demand, Load
from entrypoint.services.admission import Admission, Measured
from tests.unit.chasquid.test_backlog import LOGIN, STRANGER, item


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(tmp_path: Path, clock: Clock) -> Admission:
    return Admission(Backlog(tmp_path), clock)


def test_a_message_counts_before_its_file_is_there_and_once_afterwards(
    admission: Admission, tmp_path: Path
) -> None:
    demand = Demand(3 * MB, 3 * MB)
    admission.take(demand, "a@example.net", ("i@example.com",), stranger=True)
    usage = admission.usage()
    assert (usage.queued, usage.strangers) == (Load(1, 6 * MB), Load(1, 6 * MB))
    assert usage.work == 15 * MB
    (tmp_path / "m:one").write_bytes(item(STRANGER + "x" * 3 * MB))
    admission.received("b@example.net", ("i@example.com",))
    assert admission.usage().work == 15 * MB, "that was another one"
    admission.received("a@example.net", ("i@example.com",))
    usage = admission.usage()
    assert (usage.queued.number, usage.strangers.number, usage.work) == (1, 1, 0)


def test_a_message_is_forgotten_in_time_where_no_history_is_kept(
    admission: Admission, clock: Clock
) -> None:
    admission.take(Demand(2000, 2100), "a@example.net", (), stranger=False)
    admission.take(Demand(10 * MB, 10 * MB), "a@example.net", (), stranger=False)
    clock.now += 3
    assert admission.usage().queued.number == 1
    clock.now += 10
    assert admission.usage().queued.number == 0


def test_logins_have_their_places_whatever_strangers_sent(
    admission: Admission, clock: Clock, tmp_path: Path
) -> None:
    have = Budget(4)
    for name in ("one", "two"):
        (tmp_path / f"m:{name}").write_bytes(item(STRANGER))
    assert admission.ask(have, Demand(1, 1), stranger=True)
    assert not admission.ask(have, Demand(1, 1), stranger=False)
    for name in ("three", "four"):
        (tmp_path / f"m:{name}").write_bytes(item(LOGIN))
    clock.now += 1
    assert admission.ask(have, Demand(1, 1), stranger=False)


def test_many_at_once_cannot_all_have_the_last_place(admission: Admission) -> None:
    have, demand = Budget(100, 100 * MB, 1000 * MB), Demand(24 * MB, 24 * MB)
    taken = 0
    for _ in range(45):
        if not admission.ask(have, demand, stranger=False):
            admission.take(demand, "a@example.net", (), stranger=False)
            taken += 1
    assert taken == 2


@pytest.mark.parametrize("kind", ["ascii", "utf-8", "bytes", "control"])
def test_what_a_message_takes_on_the_disk_is_never_underrated(kind: str) -> None:
    message = {
        "ascii": b'Text with "quotes" and \\\r\n' * 9000,
        "utf-8": "Grüße aus Köln\n".encode() * 9000,
        "bytes": bytes(range(256)) * 800,
        "control": b"\x01" * 200_000,
    }[kind]

    async def measure() -> Demand:
        reader = asyncio.StreamReader()
        reader.feed_data(message)
        reader.feed_eof()
        measured = Measured(reader)
        while await measured.read(65536):
            pass
        return measured.demand

    demand = asyncio.run(measure())
    assert demand.size == len(message)
    escaped = "".join(
        {10: r"\n", 13: r"\r", 9: r"\t", 34: r"\"", 92: r"\\"}.get(code)
        or (chr(code) if 32 <= code < 127 else rf"\{code:03o}")
        for code in message
    )
    assert demand.stored == len(escaped)
