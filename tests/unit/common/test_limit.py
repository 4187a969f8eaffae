"""How much a login may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.common.limit import DAY, HOUR, Limit, Usage

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("500/h,5000/d", Limit(500, 5000)),
        (" 5000/d 500/H ", Limit(500, 5000)),
        ("1/h", Limit(1)),
        ("7/d", Limit(None, 7)),
        ("none", Limit()),
    ],
)
def test_a_limit_is_read(text: str, limit: Limit) -> None:
    assert Limit.parse(text) == limit
    assert Limit.parse(str(limit)) == limit


@pytest.mark.parametrize(
    "text",
    ["", "500", "0/h", "5/m", "5/h,6/h", "6/h,5/d", "-1/h", "1e3/h", "99999999/h", "\u0665/h"],
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"limit|hour"):
        Limit.parse(text)


def test_the_window_slides() -> None:
    usage, limit = Usage(), Limit(hour=3)
    for seconds in (0.0, 100.0, 200.0):
        assert usage.over(limit, NOW + seconds, 1) is None
        usage.add(NOW + seconds, 1)
    over = usage.over(limit, NOW + 300, 1)
    assert over is not None
    assert over.wait == HOUR - 300
    over = usage.over(limit, NOW + 300, 2)
    assert over is not None
    assert over.wait == HOUR - 200, "two must have left for two"
    assert usage.over(limit, NOW + HOUR, 1) is None


def test_the_day_is_a_limit_of_its_own() -> None:
    usage, limit = Usage(), Limit(hour=10, day=10)
    usage.add(NOW, 10)
    over = usage.over(limit, NOW + HOUR, 1)
    assert over is not None
    assert (over.span, over.wait) == ("a day", DAY - HOUR)


def test_more_recipients_than_the_limit_never_fit() -> None:
    over = Usage().over(Limit(hour=3), NOW, 4)
    assert over is not None
    assert over.wait is None


def test_no_limit_is_never_reached() -> None:
    usage = Usage()
    usage.add(NOW, 10**9)
    assert usage.over(Limit(), NOW, 10**9) is None


@given(
    st.lists(st.tuples(st.floats(0, 2 * HOUR), st.integers(1, 5)), max_size=60),
    st.integers(1, 20),
)
def test_never_more_in_any_hour_and_the_wait_is_right(
    tries: list[tuple[float, int]], most: int
) -> None:
    usage, limit, taken = Usage(), Limit(hour=most), list[tuple[float, int]]()
    at = NOW
    for pause, recipients in tries:
        at += pause
        over = usage.over(limit, at, recipients)
        if over is None:
            usage.add(at, recipients)
            taken.append((at, recipients))
        elif over.wait is not None:
            then = at + over.wait + 0.001
            left = sum(count for when, count in taken if when > then - HOUR)
            assert left + recipients <= most
    for start, _ in taken:
        assert sum(count for when, count in taken if start <= when < start + HOUR) <= most
