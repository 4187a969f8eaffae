import json

import pytest

from entrypoint.delivery import operators
from entrypoint.delivery.warmup import COMMON, PLANS, WARM, Warmup

DAY = 86400.0
START = 20_000 * DAY + 3600.0


def send(warmup: Warmup, now: float, wanted: int) -> int:
    """How many of so many go."""
    gone = 0
    for _ in range(wanted):
        if warmup.may_send(now):
            warmup.sent(now)
            gone += 1
    return gone


def test_the_ceiling_holds_to_the_message_and_doubles_every_third_day() -> None:
    warmup = Warmup("192.0.2.1", "google")
    days = [send(warmup, START + day * DAY, 100_000) for day in range(9)]
    assert days == [50, 50, 50, 100, 100, 100, 200, 200, 200]


def test_the_ceiling_holds_over_a_restart() -> None:
    warmup = Warmup("192.0.2.1", "google")
    assert send(warmup, START, 30) == 30
    again = Warmup.from_json(json.loads(json.dumps(warmup.to_json())))
    assert send(again, START + 60, 100) == 20
    assert again.to_json() == {**warmup.to_json(), "sent": 50}


def test_it_does_not_advance_where_more_than_half_a_percent_is_put_off() -> None:
    warmup = Warmup("192.0.2.1", "google")
    for day in range(6):
        send(warmup, START + day * DAY, 1000)
    now = START + 6 * DAY
    assert send(warmup, now, 1000) == 200
    warmup.deferred(now)
    assert warmup.deferred_share(now) == 0.005
    assert warmup.words(now) == "day 7, 200 of 200 today, 1 put off"
    assert warmup.words(now + DAY) == "day 8, 0 of 200 today, none put off"
    send(warmup, now + DAY, 200)
    warmup.deferred(now + DAY)
    warmup.deferred(now + DAY)
    assert warmup.words(now + DAY) == "day 8, 200 of 200 today, 2 put off; the ceiling stays"
    assert warmup.words(now + 2 * DAY) == "day 8, 0 of 200 today, none put off"


def test_a_day_without_mail_does_not_count() -> None:
    warmup = Warmup("192.0.2.1", "google")
    send(warmup, START, 1)
    assert warmup.words(START + 40 * DAY) == "day 2, 0 of 50 today, none put off"
    warmup.deferred(START + 40 * DAY)  # yesterday's, told today
    assert warmup.words(START + 41 * DAY).startswith("day 2,")


def test_the_day_begins_at_midnight_of_utc_and_a_clock_set_back_begins_none() -> None:
    warmup = Warmup("192.0.2.1", "google")
    midnight = 20_001 * DAY
    assert send(warmup, midnight - 1, 100) == 50
    assert send(warmup, midnight, 100) == 50
    assert send(warmup, midnight - 1, 100) == 0
    assert send(warmup, midnight + 1, 100) == 0


def test_what_never_reached_the_operator_is_given_back() -> None:
    warmup = Warmup("192.0.2.1", "google")
    assert send(warmup, START, 50) == 50
    warmup.unsent(START)
    assert send(warmup, START, 50) == 1


def test_it_is_warm_after_a_month() -> None:
    warmup = Warmup("192.0.2.1", "google")
    for day in range(WARM):
        send(warmup, START + day * DAY, 1)
    now = START + WARM * DAY
    assert warmup.ceiling(now) is None
    assert send(warmup, now, 1000) == 1000
    assert warmup.words(now) == "warm, 1000 today, none put off"


def test_every_plan_is_of_an_operator_that_exists_and_names_its_source() -> None:
    assert all(operators.get(name) for name in PLANS)
    assert all(plan.source for plan in (COMMON, *PLANS.values()))
    assert Warmup("192.0.2.1", "qq").ceiling(START) == 20
    assert Warmup("192.0.2.1", "198.51.100.0/24").ceiling(START) == 50


@pytest.mark.parametrize(
    "kept",
    [
        None,
        {},
        {"address": "192.0.2.1", "operator": "google"},
        {"address": "192.0.2.1", "operator": 1, "day": 1, "sent": 0, "deferred": 0},
        {"address": "192.0.2.1", "operator": "google", "day": 0, "sent": 0, "deferred": 0},
        {"address": "192.0.2.1", "operator": "google", "day": True, "sent": 0, "deferred": 0},
        {"address": "192.0.2.1", "operator": "google", "day": 1, "sent": -5, "deferred": 0},
    ],
)
def test_what_is_no_warm_up_is_refused(kept: object) -> None:
    with pytest.raises(ValueError, match="a warm-up"):
        Warmup.from_json(kept)
