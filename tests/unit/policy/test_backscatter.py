"""Bounces for strangers: twenty an hour for all whom nobody vouches for, twenty for each domain."""

from __future__ import annotations

import pytest

from entrypoint.policy import backscatter
from entrypoint.policy.backscatter import MOST, UNPROVEN, WINDOW, Bounces

NOW = 1000.0
TO = ("i@example.com",)


@pytest.fixture
def bounces() -> Bounces:
    return Bounces()


def take(bounces: Bounces, name: str, whose: str = UNPROVEN, now: float = NOW) -> bool:
    """Whether it is taken, and got into the queue."""
    if not bounces.allows(whose, now):
        return False
    bounces.allow(whose, f"{name}@example.net", TO, now)
    bounces.received(name, f"{name}@example.net", TO)
    return True


def test_of_2300_refused_forwards_twenty_bounce_in_an_hour(bounces: Bounces) -> None:
    made = 0
    for number in range(2300):
        if take(bounces, f"n{number}", now=NOW + number / 10):
            bounces.bounced(f"n{number}", NOW + number / 10)
            bounces.done(f"n{number}")
            made += 1
    assert made == MOST
    assert not take(bounces, "late", now=NOW + WINDOW - 1)
    assert take(bounces, "later", now=NOW + WINDOW + 1)


def test_what_is_open_may_bounce_so_no_more_than_twenty_are_taken_at_once(bounces: Bounces) -> None:
    for number in range(MOST):
        assert bounces.allows(UNPROVEN, NOW)
        bounces.allow(UNPROVEN, f"{number}@example.net", TO, NOW)
    assert not bounces.allows(UNPROVEN, NOW), "also before they are in the queue"


def test_mail_that_is_delivered_goes_on_without_a_bound(bounces: Bounces) -> None:
    for number in range(1000):
        assert take(bounces, str(number))
        bounces.done(str(number))


def test_a_message_that_fails_for_many_makes_one_bounce(bounces: Bounces) -> None:
    take(bounces, "a")
    for _ in range(50):
        bounces.bounced("a", NOW)
    bounces.done("a")
    assert sum(take(bounces, f"b{number}") for number in range(MOST)) == MOST - 1


def test_a_deferred_message_may_bounce_yet(bounces: Bounces) -> None:
    for number in range(MOST):
        take(bounces, str(number))
        bounces.deferred(str(number))
    assert not bounces.allows(UNPROVEN, NOW + WINDOW)


def test_a_proven_domain_has_a_count_of_its_own(bounces: Bounces) -> None:
    while take(bounces, f"x{len(bounces._open)}"):
        pass
    assert take(bounces, "honest", "example.org")
    for number in range(MOST):
        take(bounces, f"p{number}", "example.org")
        bounces.bounced(f"p{number}", NOW)
    assert not bounces.allows("example.org", NOW)
    assert bounces.allows("example.edu", NOW)


def test_deferrals_of_a_proven_domain_hold_up_nothing(bounces: Bounces) -> None:
    for number in range(3 * MOST):
        assert take(bounces, str(number), "example.org")
        bounces.deferred(str(number))


def test_what_was_taken_before_a_restart_counts_as_unproven(bounces: Bounces) -> None:
    for number in range(MOST):
        bounces.received(str(number), "a@example.net", TO)
    assert not bounces.allows(UNPROVEN, NOW)


def test_what_never_came_into_the_queue_is_forgotten(bounces: Bounces) -> None:
    for _ in range(MOST):
        bounces.allow(UNPROVEN, "a@example.net", TO, NOW)
    assert bounces.allows(UNPROVEN, NOW + 61)


def test_the_figures() -> None:
    assert (MOST, WINDOW, backscatter._PENDING, backscatter._MANY) == (20, 3600.0, 60.0, 20_000)


def test_a_bounce_counts_for_an_hour_and_no_longer(bounces: Bounces) -> None:
    for number in range(MOST):
        take(bounces, str(number))
        bounces.bounced(str(number), NOW)
    assert not bounces.allows(UNPROVEN, NOW + WINDOW - 1)
    assert bounces.allows(UNPROVEN, NOW + WINDOW)


def test_what_was_allowed_counts_for_a_minute_and_no_longer(bounces: Bounces) -> None:
    for _ in range(MOST):
        bounces.allow(UNPROVEN, "a@example.net", TO, NOW)
    assert not bounces.allows(UNPROVEN, NOW + 59)
    assert bounces.allows(UNPROVEN, NOW + 60)


def test_of_three_alike_that_were_allowed_one_has_come(bounces: Bounces) -> None:
    for _ in range(3):
        bounces.allow("example.org", "a@example.net", TO, NOW)
    bounces.received("a", "a@example.net", TO)
    assert len(bounces._allowed) == 2


def test_memory_is_bounded_and_the_oldest_is_forgotten(
    bounces: Bounces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backscatter, "_MANY", 3)
    for number in range(5):
        bounces.received(str(number), "a@example.net", TO)
    assert list(bounces._open) == ["2", "3", "4"]
