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


def test_reading_what_is_whole_changes_nothing(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    mine.add(LOGIN, 1, NOON)
    [path] = tmp_path.iterdir()
    before = path.read_bytes()
    assert before == b"1800014400.000 i@example.com 1\n"
    again = ledger(tmp_path, NOON + 1)
    assert path.read_bytes() == before
    again.load(NOON + 1)
    assert path.read_bytes() == before
    assert again.hours(LOGIN) == {int(NOON) // 3600: 1}, "and is counted once"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_that_was_torn_off_is_ended(tmp_path: Path) -> None:
    (tmp_path / "2027-01-15.log").write_bytes(b"1800014400.0 i@example.com 1\n1800014400.0 i@ex")
    ledger(tmp_path)
    assert (tmp_path / "2027-01-15.log").read_bytes().endswith(b"i@ex\n")


def test_a_line_is_three_words_and_has_an_end(tmp_path: Path) -> None:
    content = b"1800014400.0 i@example.com 1 1\n1800014400.0 i@example.com 7"
    (tmp_path / "2027-01-14.log").write_bytes(content)
    assert ledger(tmp_path).usage(LOGIN).sent(NOON) == (0, 0)
    assert ledger(tmp_path).hours(LOGIN) == {}


def test_what_is_a_day_old_is_in_no_window(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    mine.add(LOGIN, 1, NOON)
    assert ledger(tmp_path, NOON + DAY).logins == ()
    assert ledger(tmp_path, NOON + DAY - 1).logins == (LOGIN,)


def test_a_clock_that_is_an_hour_back_still_counts_by_the_later_time(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    mine.add(LOGIN, 1, NOON)
    assert mine.now(NOON - 3600.0) == NOON
    assert mine.now(NOON - 3600.5) == NOON - 3600.5
    assert mine.now(0.25) == 0.25


def test_a_new_day_leaves_no_file_open(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    first = os.fstat(mine._fd).st_ino
    mine.add(LOGIN, 1, NOON + DAY)
    ours = Path("/proc/self/fd")
    open_ = {item.name for item in ours.iterdir() if str(tmp_path) in str(os.path.realpath(item))}
    assert open_ == {str(mine._fd)}
    assert os.fstat(mine._fd).st_ino != first


def test_a_file_of_a_later_day_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "2027-02-01.log").write_text("1801483200.0 i@example.com 1\n")
    ledger(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2027-01-15.log", "2027-02-01.log"]


def test_fifteen_days_are_kept_on_disk_and_in_memory(tmp_path: Path) -> None:
    mine = ledger(tmp_path)
    mine.add(LOGIN, 1, NOON)
    mine.add(LOGIN, 2, NOON + 3600.0)
    mine.add("j@example.com", 1, NOON + 15 * DAY)
    hour = int(NOON) // 3600
    assert mine.hours(LOGIN) == {hour: 1, hour + 1: 2}
    assert (tmp_path / "2027-01-15.hours").exists(), "of the fifteenth day before"
    mine.add("j@example.com", 1, NOON + 16 * DAY)
    assert mine.hours(LOGIN) == {}
    assert not (tmp_path / "2027-01-15.hours").exists()


def test_a_short_write_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ledger(tmp_path)
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, line: whole(fd, line[:5]))
    with pytest.raises(OSError, match="could not be written to its end"):
        mine.add(LOGIN, 1, NOON)
    monkeypatch.undo()
    assert mine.usage(LOGIN).sent(NOON) == (0, 0)
