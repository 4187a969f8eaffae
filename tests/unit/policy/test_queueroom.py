"""How much mail may wait: bytes of memory, places in the queue, the strangers' share of both."""

from __future__ import annotations

import pytest

from entrypoint.policy import decide, queueroom
from entrypoint.policy.queueroom import MB, Budget, Demand, Load, Usage

GB = 1024 * MB
ASCII = Demand(24 * MB, 24 * MB)
BINARY = Demand(24 * MB, 96 * MB)


def answer(have: Budget, usage: Usage, demand: Demand, *, stranger: bool = False) -> str:
    short = queueroom.shortage(have, usage, demand, stranger=stranger)
    return str(decide.short(short)) if short else ""


def test_a_container_as_shipped_holds_some_messages_of_the_largest_size() -> None:
    have = queueroom.budget(GB, 2000)
    assert have.queued is not None
    assert 15 * 25 * MB < have.queued < 20 * 25 * MB, "it died with 23 (8-bit) to 30 (ASCII)"
    assert answer(have, Usage(), BINARY) == answer(have, Usage(), ASCII) == ""


def test_nothing_is_refused_where_no_limit_is_set() -> None:
    have = queueroom.budget(None, 2000)
    assert answer(have, Usage(Load(1999, 900 * GB)), BINARY) == ""


def test_what_does_not_fit_is_told_how_much_would() -> None:
    have = queueroom.budget(GB, 2000)
    assert have.queued is not None
    usage = Usage(Load(15, have.queued - 20 * MB))
    assert answer(have, usage, ASCII) == (
        "451 4.3.1 the queue's memory is in use; messages up to 10 MB are taken now; "
        "try again in a few minutes"
    )
    assert answer(have, usage, Demand(10 * MB, 10 * MB)) == ""


@pytest.mark.parametrize("left", [0, 1, 99, MB // 2, 3 * MB // 2, 33 * MB + 1])
def test_what_is_said_to_fit_fits(left: int) -> None:
    have = Budget(2000, 100 * MB, 10 * GB)
    usage = Usage(Load(1, 100 * MB - 2 * left))
    short = queueroom.shortage(have, usage, Demand(99 * MB, 99 * MB), stranger=False)
    assert short is not None
    assert short.fits == left
    assert queueroom.shortage(have, usage, Demand(left, left), stranger=False) is None
    said = str(decide.short(short)).partition("up to ")[2].partition(" MB")[0]
    assert float(said) * MB <= left


def test_a_binary_message_needs_more_memory_while_it_is_taken() -> None:
    have = Budget(2000, GB, 300 * MB)
    assert answer(have, Usage(), ASCII) == ""
    assert "memory is in use; messages up to 21 MB" in answer(have, Usage(), BINARY)
    assert "memory is in use" in answer(have, Usage(work=200 * MB), ASCII)


def test_strangers_get_half_of_the_places_and_logins_the_rest() -> None:
    have = Budget(100)
    usage = Usage(Load(50, 0), Load(50, 0))
    assert answer(have, usage, Demand(), stranger=True).startswith(
        "451 4.3.1 the part of the queue"
    )
    assert answer(have, usage, Demand()) == ""
    assert answer(have, Usage(Load(49, 0), Load(49, 0)), Demand(), stranger=True) == ""
    full = Usage(Load(100, 0), Load(50, 0))
    assert answer(have, full, Demand()) == (
        "451 4.3.1 the queue is full (100 messages wait); try again in a few minutes"
    )


def test_strangers_get_half_of_the_bytes() -> None:
    have = Budget(2000, 100 * MB, 10 * GB)
    usage = Usage(Load(2, 46 * MB), Load(2, 46 * MB))
    assert "for mail from outside is in use; messages up to 2.0 MB" in answer(
        have, usage, ASCII, stranger=True
    )
    assert answer(have, usage, ASCII) == ""


def test_a_container_too_small_for_all_that_runs_takes_nothing() -> None:
    have = queueroom.budget(64 * MB, 2000)
    assert "messages up to 0.0 MB" in answer(have, Usage(), Demand(1, 1))


def test_the_figures() -> None:
    assert (queueroom.OTHERS, queueroom.LARGE) == (160 * MB, 4 * MB)
    assert queueroom.budget(1160 * MB, 9) == Budget(9, 450 * MB, 400 * MB)
    assert queueroom.budget(160 * MB, 9) == Budget(9, 0, 0)
    assert (Usage().work, Load(), Demand()) == (0, Load(0, 0), Demand(0, 0))


def test_loads_add_up() -> None:
    assert Load(1, 2) + Load(3, 5) == Load(4, 7)


def test_of_a_message_without_a_size_it_is_said_what_fits_of_plain_text() -> None:
    short = queueroom.shortage(Budget(9, 0, 0), Usage(Load(0, 1)), Demand(0, 0), stranger=False)
    assert short is None, "nothing always fits"
    assert ASCII.waiting / ASCII.size == 2.0
    assert ASCII.work / ASCII.size == 5.0
