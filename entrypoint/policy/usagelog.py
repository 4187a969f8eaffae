"""What each login sent, on the volume: an append-only file a day, one line a message.

A line is one write(2), made before the message is accepted: a killed process forgets nothing. There
is no fsync, which would cost more than the mail: a power cut may forget some seconds.

    1782300000.123 i@example.com 3          three recipients

Of days before yesterday only sums by the hour are kept, for two weeks, in the same form.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from entrypoint.common import files
from entrypoint.common.limit import DAY, Usage
from entrypoint.policy import abuse

_KEPT = 15  # days


class Ledger:
    """Counts of all logins. For one thread. Times are in seconds since 1970."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._day = ""
        self._last = 0.0
        self._usages: dict[str, Usage] = {}
        self._hours: dict[str, dict[int, int]] = {}

    def load(self, now: float) -> None:
        """Read what is there. Raises OSError."""
        self._turn(now)
        self._usages.clear()
        self._hours.clear()
        for path in sorted(self._folder.glob("????-??-??.*")):
            for at, login, count in _lines(path):
                if at <= now:  # else the clock was wrong
                    self._remember(at, login, count, now)

    def _remember(self, at: float, login: str, count: int, now: float) -> None:
        self._last = max(self._last, at)
        if at > now - DAY:
            self._usages.setdefault(login, Usage()).add(at, count)
        hours = self._hours.setdefault(login, {})
        hour = int(at) // 3600
        hours[hour] = hours.get(hour, 0) + count

    def add(self, login: str, recipients: int, now: float) -> None:
        """Raises OSError: then it is not counted, and must not be accepted."""
        now = self.now(now)
        if _day(now) != self._day:
            self._turn(now)
        line = f"{now:.3f} {login} {recipients}\n".encode()
        if os.write(self._fd, line) != len(line):
            msg = "the line could not be written to its end"
            raise OSError(msg)
        self._remember(now, login, recipients, now)

    def usage(self, login: str) -> Usage:
        return self._usages.get(login) or Usage()

    def hours(self, login: str) -> dict[int, int]:
        """Recipients by the hour (seconds since 1970 // 3600)."""
        return self._hours.get(login, {})

    @property
    def logins(self) -> tuple[str, ...]:
        return tuple(sorted(self._usages))

    def now(self, clock: float) -> float:
        """The time to count by: a clock that is set back a little must not open the windows. One
        that was far ahead was wrong."""
        if self._last > clock + 3600.0:
            self._last = 0.0
            self.load(clock)
        return max(clock, self._last)

    def _turn(self, now: float) -> None:
        """Begin the file of a new day; sum up what is older than yesterday; forget the oldest."""
        today = _day(now)
        path = self._folder / f"{today}.log"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")  # what a power cut has torn off
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._day = fd, today
        recent = {today, _day(now - DAY)}
        for old in self._folder.glob("????-??-??.log"):
            if old.stem not in recent and old.stem < today:
                self._sum_up(old)
        oldest = _day(now - _KEPT * DAY)
        for old in self._folder.glob("????-??-??.*"):
            if old.stem < oldest:
                old.unlink(missing_ok=True)
        before = int(now - _KEPT * DAY) // 3600
        for login, hours in self._hours.items():
            self._hours[login] = {hour: count for hour, count in hours.items() if hour >= before}

    def _sum_up(self, path: Path) -> None:
        sums: dict[str, list[tuple[float, int]]] = {}
        for at, login, count in _lines(path):
            sums.setdefault(login, []).append((at, count))
        text = "".join(
            f"{hour * 3600} {login} {count}\n"
            for login, items in sorted(sums.items())
            for hour, count in sorted(abuse.by_hour(items).items())
        )
        files.write(path.with_suffix(".hours"), text.encode())
        path.unlink()


def _lines(path: Path) -> Iterator[tuple[float, str, int]]:
    """What is no line of ours is passed over."""
    if path.suffix not in (".log", ".hours"):
        return
    with path.open(encoding="ascii", errors="replace") as stream:
        for line in stream:
            words = line.split()
            with suppress(ValueError, IndexError):
                if len(words) == 3 and line.endswith("\n"):
                    yield float(words[0]), words[1], int(words[2])


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
