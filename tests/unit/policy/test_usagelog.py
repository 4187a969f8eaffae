"""What each login sent, on the volume."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from entrypoint.common.limit import DAY
from entrypoint.policy.usagelog import Ledger
from tests.unit.kit import forked

NOON = 1_800_014_400.0  # 2027-01-15 12:00 UTC
LOGIN = "i@example.com"


def ledger(folder: Path, now: float = NOON) -> Ledger:
    found = Ledger(folder)
    found.load(now)
    return found


def test_what_was_counted_is_there_after_a_restart(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    first.add(LOGIN, 3, NOON)
    first.add("j@example.com", 1, NOON + 1)
    first.add(LOGIN, 2, NOON + 2)
    again = ledger(tmp_path, NOON + 3)
    assert again.usage(LOGIN).sent(NOON + 3) == (5, 5)
    assert again.usage(LOGIN).messages(NOON + 3) == (2, 2)
    assert again.logins == (LOGIN, "j@example.com")
    assert again.usage("nobody@example.com").sent(NOON) == (0, 0)


def test_a_killed_process_forgets_nothing(tmp_path: Path) -> None:
    def work() -> None:
        mine = ledger(tmp_path)
        for _ in range(100):
            mine.add(LOGIN, 1, NOON)
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(work) == -signal.SIGKILL
    assert ledger(tmp_path).usage(LOGIN).sent(NOON) == (100, 100)


def test_the_day_turns_and_the_window_stays(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    mine.add(LOGIN, 4, NOON)
    midnight = NOON + DAY / 2
    mine.add(LOGIN, 1, midnight + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2027-01-15.log", "2027-01-16.log",
    ]  # fmt: skip
    assert mine.usage(LOGIN).sent(midnight + 1) == (1, 5)
    assert ledger(tmp_path, midnight + 2).usage(LOGIN).sent(midnight + 2) == (1, 5)


def test_old_days_are_summed_up_and_the_oldest_go(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    for number in range(5):
        mine.add(LOGIN, 2, NOON + number * 1000)
    later = NOON + 2 * DAY
    again = ledger(tmp_path, later)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "2027-01-15.hours", "2027-01-17.log",
    ]  # fmt: skip
    hours = {int(NOON) // 3600: 8, int(NOON) // 3600 + 1: 2}
    assert again.hours(LOGIN) == mine.hours(LOGIN) == hours
    assert again.usage(LOGIN).sent(later) == (0, 0)
    ledger(tmp_path, NOON + 18 * DAY)
    assert [path.name for path in tmp_path.iterdir()] == ["2027-02-02.log"]


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    mine.add(LOGIN, 1, NOON)
    [path] = tmp_path.iterdir()
    with path.open("ab") as stream:
        stream.write(b"\xff nonsense\n1800014400.0 i@exam")
    again = ledger(tmp_path)
    again.add(LOGIN, 1, NOON + 1)
    assert ledger(tmp_path, NOON + 2).usage(LOGIN).sent(NOON + 2) == (2, 2)


def test_a_clock_that_is_set_back_opens_no_window(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    mine.add(LOGIN, 5, NOON)
    now = mine.now(NOON - 600)
    assert now == NOON
    mine.add(LOGIN, 1, NOON - 600)
    assert mine.usage(LOGIN).sent(now) == (6, 6)


def test_a_clock_that_was_days_ahead_is_forgotten(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    mine.add(LOGIN, 1, NOON)
    mine.add(LOGIN, 5, NOON + 3 * DAY)
    assert mine.now(NOON + 60) == NOON + 60
    assert mine.usage(LOGIN).sent(NOON + 60) == (1, 1)


def test_what_cannot_be_written_is_not_counted(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    os.close(mine._fd)
    mine._fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="descriptor"):
        mine.add(LOGIN, 1, NOON)
    assert mine.usage(LOGIN).sent(NOON) == (0, 0)
