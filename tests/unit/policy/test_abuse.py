"""When a login is paused."""

from __future__ import annotations

import pytest

from entrypoint.policy import abuse
from entrypoint.policy.abuse import FAILURES, Failing, Outcomes, Surging

NOW = 1_800_000_000.0
LOGIN = "i@example.com"


def outcomes(failed: int, sent: int, at: float = NOW) -> Outcomes:
    found = Outcomes()
    found.received("a", LOGIN)
    for number in range(failed + sent):
        found.ended(found.owner("a"), at, failed=number < failed)
    return found


@pytest.mark.parametrize(
    ("failed", "sent", "paused"),
    [
        (FAILURES, 0, True),
        (FAILURES, FAILURES, True),
        (FAILURES, FAILURES + 1, False),
        (FAILURES - 1, 0, False),
        (FAILURES - 1, 1000, False),
        (0, 1000, False),
    ],
)
def test_both_share_and_number_must_be_large(failed: int, sent: int, paused: bool) -> None:
    found = outcomes(failed, sent).failing(LOGIN, NOW)
    assert found == (Failing(failed, failed + sent) if paused else None)


def test_what_is_long_ago_does_not_count() -> None:
    assert outcomes(FAILURES, 0).failing(LOGIN, NOW + abuse.WINDOW) is None


def test_a_resumed_login_begins_anew() -> None:
    found = outcomes(FAILURES, 0)
    found.forget(LOGIN)
    assert found.failing(LOGIN, NOW) is None


def test_incoming_mail_is_nobody_s() -> None:
    assert outcomes(1, 1).owner("b") == ""


def test_only_so_many_messages_are_remembered() -> None:
    found = Outcomes()
    for number in range(20_001):
        found.received(str(number), LOGIN)
    assert (found.owner("0"), found.owner("1")) == ("", LOGIN)


def history(days: int, an_hour: int) -> dict[int, int]:
    """So many recipients in one hour of each of the days before."""
    hour = int(NOW) // 3600
    return {hour - 24 * (number + 2): an_hour for number in range(days)}


@pytest.mark.parametrize(
    ("hours", "sent", "paused"),
    [
        (history(3, 20), 201, True),
        (history(3, 20), 200, False),
        (history(14, 1), 100, True),
        (history(14, 1), 99, False),
        (history(2, 1), 500, False),
        ({}, 500, False),
        ({**history(13, 1), **history(1, 400)}, 500, False),
    ],
)
def test_a_surge_is_measured_by_the_busiest_hour(
    hours: dict[int, int], sent: int, paused: bool
) -> None:
    found = abuse.surging(hours, sent, NOW)
    assert found == (Surging(sent, max(hours.values())) if paused else None)


def test_today_is_no_history() -> None:
    hours = {**history(3, 1), int(NOW) // 3600: 150, int(NOW) // 3600 - 1: 150}
    assert abuse.surging(hours, 150, NOW) == Surging(150, 1)


def test_the_words_are_ascii_and_fit_a_reply() -> None:
    for item in (Failing(20, 40), Surging(500, 3)):
        assert str(item).isascii()
        assert len(str(item)) < 120


def test_the_figures() -> None:
    assert (abuse.WINDOW, FAILURES, abuse.SHARE, abuse.SURGE) == (3600.0, 20, 0.5, 10)
    assert (abuse.SURGE_LEAST, abuse.HISTORY_DAYS, abuse._MOST) == (100, 3, 20_000)


def test_a_message_that_is_seen_again_is_not_the_oldest() -> None:
    found = Outcomes()
    for message in ("a", "b", "a"):
        found.received(message, LOGIN)
    assert list(found._logins) == ["b", "a"]


def test_history_ends_a_day_ago_and_is_of_three_days() -> None:
    hour = int(NOW) // 3600
    assert NOW % 3600 == 0
    # Three days with mail, of which one is the hour that ended a day ago.
    days = {hour - 25: 1, hour - 24 * 3: 1, hour - 24 * 5: 1}
    assert abuse.surging(days, 100, NOW) == Surging(100, 1)
    assert abuse.surging({hour - 24: 1, hour - 24 * 3: 1, hour - 24 * 5: 1}, 100, NOW) is None
    assert abuse.surging({**days, hour - 25: 0}, 100, NOW) is None, "a day without mail is none"


def test_hours_of_one_day_are_one_day() -> None:
    day = int(NOW) // 86400 * 24
    same = {day - 240 + number: 1 for number in range(24)}
    assert abuse.surging(same, 500, NOW) is None
    apart = {day - 240: 1, day - 240 + 24: 1, day - 240 + 48: 1}
    assert abuse.surging(apart, 500, NOW) == Surging(500, 1)
    touching = {day - 240 - 1: 1, day - 240: 1, day - 240 + 24: 1}
    assert abuse.surging(touching, 500, NOW) == Surging(500, 1)
