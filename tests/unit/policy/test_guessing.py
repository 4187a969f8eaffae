"""How guessing is slowed down."""

from __future__ import annotations

import pytest

from entrypoint.policy import guessing
from entrypoint.policy.guessing import Delays


def test_a_first_slip_costs_next_to_nothing() -> None:
    assert Delays().of("i@example.com", 0.0) == guessing.FLOOR


def test_each_no_is_later_than_the_one_before_up_to_a_bound() -> None:
    delays, seen = Delays(), []
    for _ in range(50):
        seen.append(delays.of("i@example.com", 0.0))
        delays.failed("i@example.com", 0.0)
    assert seen == sorted(seen)
    assert seen[0] < seen[5] < seen[10]
    assert seen[-1] == guessing.MOST < 4.5, "chasquid waits for five seconds"


def test_another_login_is_delayed_by_what_all_do_but_less() -> None:
    delays = Delays()
    for _ in range(20):
        delays.failed("i@example.com", 0.0)
    other = delays.of("j@example.com", 0.0)
    assert guessing.FLOOR < other < delays.of("i@example.com", 0.0)


def test_names_that_are_made_up_slow_all_names_down() -> None:
    delays = Delays()
    for number in range(1000):
        delays.failed(f"{number}@example.com", 0.0)
    assert delays.of("never-tried@example.com", 0.0) == guessing.MOST


def test_it_is_forgotten_again() -> None:
    delays = Delays()
    for _ in range(50):
        delays.failed("i@example.com", 0.0)
    assert delays.of("i@example.com", 4 * 3600.0) < guessing.FLOOR + 0.01


def test_a_right_password_is_held_against_nobody() -> None:
    delays = Delays()
    for _ in range(100):
        delays.failed("i@example.com", 0.0)
        delays.did_not_fail("i@example.com", 0.0)
    assert delays.of("i@example.com", 0.0) == guessing.FLOOR
    delays.did_not_fail("i@example.com", 0.0)
    assert delays.of("i@example.com", 0.0) == guessing.FLOOR, "and nobody has credit"


def test_a_clock_that_goes_back_harms_nothing() -> None:
    delays = Delays()
    delays.failed("i@example.com", 100.0)
    delays.failed("i@example.com", 50.0)
    assert guessing.FLOOR <= delays.of("i@example.com", 50.0) <= guessing.MOST


def test_memory_is_bounded_and_made_up_names_push_out_none_that_is_under_attack() -> None:
    delays = Delays()
    for _ in range(10):
        delays.failed("i@example.com", 0.0)
    for number in range(3 * guessing.MOST_NAMES):
        delays.failed(f"{number}@example.com", 0.0)
    assert len(delays._logins) == guessing.MOST_NAMES
    assert "i@example.com" in delays._logins


def test_the_figures() -> None:
    assert (guessing.LOGIN_LIFE, guessing.ALL_LIFE, guessing.MOST_NAMES) == (600.0, 60.0, 4096)
    delays = Delays()
    assert delays.of("i@example.com", 50.0) == 0.4
    delays.failed("i@example.com", 50.0)
    assert delays.of("i@example.com", 50.0) == pytest.approx(0.62)
    assert delays.of("j@example.com", 50.0) == pytest.approx(0.42)
    assert delays.of("j@example.com", 110.0) == pytest.approx(0.41), "half after a minute"
    assert delays.of("i@example.com", 650.0) == pytest.approx(0.5, abs=1e-3), "after ten minutes"


def test_what_was_no_failure_takes_one_back_and_no_more() -> None:
    delays = Delays()
    for _ in range(3):
        delays.failed("i@example.com", 0.0)
    delays.did_not_fail("i@example.com", 0.0)
    assert delays.of("i@example.com", 0.0) == pytest.approx(0.4 + 2 * 0.22)
    assert delays.of("j@example.com", 0.0) == pytest.approx(0.4 + 2 * 0.02)


def test_who_failed_again_is_not_the_oldest() -> None:
    delays = Delays()
    for login in ("i", "j", "i"):
        delays.failed(login, 0.0)
    assert list(delays._logins) == ["j", "i"]
