"""Logins that are guessed at."""

from __future__ import annotations

import json

from entrypoint.policy import guessed
from entrypoint.policy.guessed import HOUR, MOST, Guessed

LOGIN = "i@example.com"


def attacked(now: float = 1000.0) -> Guessed:
    found = Guessed()
    told = [found.failed(LOGIN, now) for _ in range(MOST + 5)]
    assert told.index(True) == MOST
    assert told.count(True) == 1, "it is said once"
    return found


def test_a_few_slips_are_no_attack() -> None:
    found = Guessed()
    for _ in range(MOST):
        assert not found.failed(LOGIN, 1000.0)
    assert found.logins(1000.0) == []


def test_more_than_twenty_an_hour_are_and_an_hour_later_no_more() -> None:
    found = attacked()
    assert found.logins(1000.0) == [LOGIN]
    assert found.is_guessed(LOGIN, 1000.0 + HOUR - 1)
    assert not found.is_guessed(LOGIN, 1000.0 + HOUR)
    assert not found.is_guessed("j@example.com", 1000.0)


def test_a_slow_guesser_is_none() -> None:
    found = Guessed()
    assert not any(found.failed(LOGIN, 1000.0 + 200.0 * number) for number in range(100))


def test_it_survives_a_restart() -> None:
    again = Guessed()
    again.load(json.loads(json.dumps(attacked().to_json())))
    assert again.logins(1000.0) == [LOGIN]


def test_memory_is_bounded_and_made_up_names_push_none_out_that_is_guessed_at() -> None:
    found = attacked()
    for number in range(3 * guessed._MAX_LOGINS):
        found.failed(f"{number}@example.com", 1000.0)
    assert len(found._failures) == guessed._MAX_LOGINS
    assert found.logins(1000.0) == [LOGIN]


def test_a_failure_of_an_hour_ago_counts_no_more_and_one_of_the_future_neither() -> None:
    found = Guessed()
    for _ in range(MOST):
        found.failed(LOGIN, 1000.0)
    assert not found.failed(LOGIN, 1000.0 + HOUR)
    assert found._failures[LOGIN] == [1000.0 + HOUR]
    assert not found.failed(LOGIN, 900.0)
    assert found._failures[LOGIN] == [900.0]


def test_the_oldest_of_the_last_failures_decides() -> None:
    found = Guessed()
    for number in range(MOST + 1):
        found.failed(LOGIN, 1000.0 + number)
    assert found.is_guessed(LOGIN, 1000.0 + HOUR - 1)
    assert not found.is_guessed(LOGIN, 1000.0 + HOUR)
    for _ in range(5):
        found.failed(LOGIN, 1100.0)
    assert len(found._failures[LOGIN]) == MOST + 1


def test_only_what_failed_too_often_is_kept() -> None:
    found = Guessed()
    for _ in range(MOST):
        found.failed(LOGIN, 1000.0)
    assert found.to_json() == {}
    found.failed(LOGIN, 1000.0)
    assert found.to_json() == {LOGIN: [1000.0] * (MOST + 1)}
    found.load({LOGIN: [float(number) for number in range(MOST + 9)]})
    assert len(found._failures[LOGIN]) == MOST + 1


def test_who_failed_again_is_not_the_oldest() -> None:
    found = Guessed()
    found.failed(LOGIN, 1000.0)
    found.failed("j@example.com", 1000.0)
    found.failed(LOGIN, 1000.0)
    assert list(found._failures) == ["j@example.com", LOGIN]


def test_the_figures() -> None:
    assert (HOUR, MOST, guessed._MAX_LOGINS) == (3600.0, 20, 4096)


def test_failures_are_counted_by_the_time_between_them() -> None:
    assert attacked(1_800_000_000.0).is_guessed(LOGIN, 1_800_000_000.0)
