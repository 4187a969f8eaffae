import random
from typing import Literal

import pytest

from entrypoint.delivery.lines import Waiting, limit


@pytest.mark.parametrize(
    ("size", "rate", "share", "wanted"),
    [
        (10, 0.0, None, 10),
        (2, 0.1, None, 10),
        (20, 10.0, None, 50),
        (60, 10.0, None, 60),
        (20, 10.0, 3, 3),
        (20, 10.0, "none", None),
    ],
)
def test_a_login_may_have_five_seconds_worth_waiting_or_what_is_set(
    size: int, rate: float, share: int | Literal["none"] | None, wanted: int | None
) -> None:
    assert limit(size, rate, share) == wanted


def test_the_first_outcome_for_a_recipient_ends_the_oldest_of_its_messages() -> None:
    waiting = Waiting()
    waiting.add("ann@example.com", "google", "x@example.net", 1.0)
    waiting.add("bob@example.com", "google", "x@example.net", 2.0)
    waiting.over("x@example.net", 3.0)
    assert waiting.count("ann@example.com", "google") == 0
    assert waiting.count("bob@example.com", "google") == 1
    waiting.over("x@example.net", 3.0)
    waiting.over("x@example.net", 3.0)  # a forward's
    assert len(waiting) == 0


def test_what_was_never_answered_lapses_after_20_minutes() -> None:
    waiting = Waiting()
    waiting.add("ann@example.com", "google", "x@example.net", 0.0)
    waiting.add("ann@example.com", "google", "y@example.net", 1.0)
    waiting.lapse(1199.9)
    assert waiting.count("ann@example.com", "google") == 2
    waiting.lapse(1200.0)
    assert waiting.count("ann@example.com", "google") == 1
    waiting.over("x@example.net", 1200.5)
    assert waiting.count("ann@example.com", "google") == 1


def test_an_operator_that_becomes_known_takes_over_what_waits() -> None:
    waiting = Waiting()
    for number in range(3):
        waiting.add("ann@example.com", "192.0.2.0/24", f"{number}@example.net", 0.0)
    waiting.add("ann@example.com", "google", "x@example.net", 0.0)
    waiting.rename("192.0.2.0/24", "google")
    assert waiting.count("ann@example.com", "google") == 4
    assert waiting.count("ann@example.com", "192.0.2.0/24") == 0
    waiting.over("1@example.net", 1.0)
    waiting.rename("google", "google")
    waiting.rename("unknown", "google")
    assert waiting.count("ann@example.com", "google") == 3


def test_beyond_its_bound_the_oldest_go_and_nothing_is_left_behind() -> None:
    waiting = Waiting(most=100)
    for number in range(10_000):
        waiting.add("ann@example.com", f"key{number % 7}", f"{number}@example.net", 0.0)
    assert len(waiting) == 100
    assert sum(waiting.count("ann@example.com", f"key{number}") for number in range(7)) == 100
    for number in range(10_000):
        waiting.over(f"{number}@example.net", 0.0)
    assert len(waiting) == 0
    waiting.add("ann@example.com", "key", "x@example.net", 0.0)
    assert len(waiting._line) == 1
    assert not waiting._by_operator.keys() - {"key"}
    assert not waiting._by_recipient.keys() - {"x@example.net"}


def test_one_that_is_never_answered_does_not_make_the_line_grow() -> None:
    waiting = Waiting(most=100)
    waiting.add("ann@example.com", "slow", "never@example.net", 0.0)
    for _ in range(10_000):
        waiting.add("ann@example.com", "fast", "x@example.net", 0.0)
        waiting.over("x@example.net", 0.0)
    assert len(waiting._line) <= 201
    assert waiting.count("ann@example.com", "slow") == 1


def test_the_counts_agree_with_a_plain_list() -> None:
    dice = random.Random(5)  # noqa: S311 (the same case in each run)
    waiting = Waiting(most=30)
    plain: list[list[str]] = []
    for _ in range(5000):
        login, key = dice.choice("ab"), dice.choice("pqr")
        recipient = dice.choice("123456789")
        match dice.randrange(5):
            case 0 | 1:
                waiting.add(login, key, recipient, 0.0)
                plain.append([login, key, recipient])
                del plain[:-30]
            case 2 | 3:
                waiting.over(recipient, 0.0)
                if found := next((item for item in plain if item[2] == recipient), None):
                    plain.remove(found)
            case _:
                other = dice.choice("pqr")
                waiting.rename(key, other)
                for item in plain:
                    item[1] = other if item[1] == key else item[1]
        for one in "ab":
            for two in "pqr":
                wanted = sum(item[:2] == [one, two] for item in plain)
                assert waiting.count(one, two) == wanted
        assert len(waiting) == len(plain)
