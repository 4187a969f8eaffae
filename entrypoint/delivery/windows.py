"""How many connections may be open at once to one operator: grows while it takes them. Pure.

In the manner of TCP (RFC 5681): one place more for each windowful of connections that ended well,
fewer at once when the receiver says that it is too many. No clock of its own: `now` is seconds on a
monotonic clock, and never goes back.
"""

from __future__ import annotations

from collections import deque
from typing import Any

MOST = 200  # connections at once to one operator, whatever it takes
PROBE = 60.0  # seconds before one connection more than a known ceiling is tried
PROBE_MOST = 3600.0  # it doubles up to here, each time that the ceiling proves true
PAUSE = 1.0  # seconds before the next try at a receiver that refuses though nothing is open to it
PAUSE_MOST = 60.0
SETTLE = 10.0  # seconds in which complaints inside sessions count as one, and nothing grows
RATE_SPAN = 30  # seconds with a connection open, over which the rate is taken
HOUR = 3600.0
_MINUTE = 60.0
_WORDS = 300  # characters kept of what a receiver said


class Window:
    """The places for connections to one operator.

    A connection goes `take`, then `accepted` or `refused` or `failed`, then, if accepted, `done`.
    A connection that chasquid gives up before its greeting has `failed`. Each of these may have
    made room for another: try `take` again after each. Which of several connections is meant is not
    told: they are taken to be answered in the order of their taking.
    ValueError: an end is told of a connection that was not open.
    """

    def __init__(self, start: int, hourly: int | None = None, most: int = MOST) -> None:
        """`start`: places at first; `hourly`: messages that may be begun in any hour (None: no
        limit is known); `most`: places that it never grows beyond. ValueError: less than 1."""
        if start < 1 or most < 1 or (hourly is not None and hourly < 1):
            raise ValueError(f"a window needs 1 or more: start {start}, hourly {hourly}, {most=}")
        self.size = min(start, most)
        self.ceiling: int | None = None  # connections at which the receiver last refused one more
        self.complained_at: float | None = None
        self.complaint = ""
        self.held_until: float | None = None  # by whoever runs the server
        self.backed_off_until: float | None = None  # because of what the receiver said
        self._most = most
        self._pending = 0  # taken, not greeted yet
        self._open = 0  # greeted well, not ended
        # The last shrink: those that were taken before it tell nothing new.
        self._old = 0  # how many of the pending ones were taken before it
        self._measuring = False  # whether it set the size to what was accepted: old ones add to it
        self._level = 0  # how many were accepted, 0 included
        self._proven = True  # whether a connection that was taken after it was accepted
        self._shrunk_at: float | None = None  # by a complaint inside a session
        # Growth.
        self._full = 0  # connections that may still end and count as of a window that was full
        self._ended = 0  # of these, since the last growth
        self._ceiling_at: float | None = None
        self._probe = PROBE
        # A receiver that refuses everything.
        self._pauses = 0
        self._paused_until: float | None = None
        self._budget = _Budget(hourly)
        self._pace = _Pace()

    @property
    def in_use(self) -> int:
        """Connections that hold a place: being dialled, or open."""
        return self._pending + self._open

    def take(self, now: float) -> bool:
        """Whether a connection may be dialled now; if so, it holds a place."""
        if not self._has_place() or self._wait(now) > 0:
            return False
        self._pace.tick(now, self.in_use)
        self._pending += 1
        self._budget.spend(now)
        if self.in_use >= self.size:
            self._full = self.size
        return True

    def accepted(self, now: float) -> None:
        """A greeting was good: 220."""
        was_old = self._answered(now)
        self._open += 1
        self._paused_until = None
        self._pauses = max(0, self._pauses - 1)
        if not was_old:
            self._proven = True
        elif self._measuring:
            self._measured(self._level + 1, now)

    def done(self, now: float) -> None:
        """A connection that had been accepted ended."""
        if not self._open:
            raise ValueError("done: no connection is open")
        self._pace.tick(now, self.in_use)
        self._open -= 1
        self._pace.count()
        if self._full:
            self._full -= 1
            self._ended += 1
            self._grow(now)

    def refused(self, now: float, words: str) -> None:
        """A greeting was a refusal for now (421, 450 about connections), or a reset. The place is
        free, and the window smaller."""
        was_old = self._answered(now)
        self._budget.give_back()
        self._note(now, words)
        if was_old:
            return
        if self._open:
            self._paused_until = None
        else:
            self._paused_until = now + min(PAUSE * 2**self._pauses, PAUSE_MOST)
            self._pauses = min(self._pauses + 1, 6)
        if self.ceiling is not None and self.size > self.ceiling:
            self._probed_in_vain(self.ceiling, now)
        elif self._proven:
            self._probe = PROBE
            self._measured(self._open, now)
            self._shrunk(measuring=True)
        else:
            self._probe = PROBE
            self._measured(self._open, now, min(self.size // 2, self._open))
            self._shrunk(measuring=False)

    def failed(self, now: float) -> None:
        """It could not be dialled at all, or was given up before its greeting: that says nothing
        about how many the receiver takes. The place is free."""
        self._answered(now)
        self._budget.give_back()

    def complained(self, now: float, words: str) -> None:
        """A reply inside a session was about too much mail (421, 4.7.x, "too many"), as told by the
        log, later than the session. It holds no place. Greylisting is no complaint."""
        self._note(now, words)
        self._full = self._ended = 0
        if self._shrunk_at is not None and now - self._shrunk_at < SETTLE:
            return
        self._shrunk_at = now
        self.size = max(1, self.size // 2)
        self._shrunk(measuring=False)

    def hold(self, until: float) -> None:
        """Nothing is taken before `until` (math.inf: before `release`); what is open goes on."""
        self.held_until = until

    def release(self) -> None:
        """Ends a hold, a back-off and the pause after a refusal."""
        self.held_until = self.backed_off_until = self._paused_until = None

    def back_off(self, now: float, seconds: float, words: str) -> None:
        """The receiver says that it blocks us: nothing is taken for so long. A longer back-off that
        is under way stays."""
        self._note(now, words)
        self.backed_off_until = max(self.backed_off_until or now, now + seconds)

    def wake(self, now: float) -> float | None:
        """Seconds after which `take` may succeed though nothing else has happened: 0.0 is now.
        None: only a greeting, the end of a connection, or `release` can free a place."""
        if not self._has_place():
            return None
        wait = self._wait(now)
        return None if wait == float("inf") else wait

    def rate(self, now: float) -> float:
        """Messages a second lately, over the last 30 s in which connections were open; 0.0 if
        nothing is known."""
        return self._pace.rate(now, self.in_use)

    def to_json(self) -> dict[str, Any]:
        """What is worth keeping over a restart."""
        return {
            "size": self.size,
            "ceiling": self.ceiling,
            "probe": self._probe,
            "complaint": self.complaint,
        }

    @classmethod
    def from_json(
        cls, kept: object, start: int, hourly: int | None = None, most: int = MOST
    ) -> Window:
        """A window as it was kept. What is missing or makes no sense is as in a new one."""
        window = cls(start, hourly, most)
        if not isinstance(kept, dict):
            return window
        size, ceiling = _whole(kept.get("size")), _whole(kept.get("ceiling"))
        window.size = min(size or window.size, most)
        window.ceiling = None if ceiling is None else min(ceiling, most)
        probe, words = kept.get("probe"), kept.get("complaint")
        if isinstance(probe, int | float) and PROBE <= probe <= PROBE_MOST:
            window._probe = float(probe)
        if isinstance(words, str):
            window.complaint = words[:_WORDS]
        return window

    def _has_place(self) -> bool:
        """After a shrink one connection tries whether the new size is right, before others do."""
        return self.in_use < self.size and (self._proven or self._pending == self._old)

    def _wait(self, now: float) -> float:
        """Seconds until nothing but the places stands in the way."""
        ends = (self.held_until, self.backed_off_until, self._paused_until)
        waits = [end - now for end in ends if end is not None]
        return max(0.0, self._budget.wait(now), *waits)

    def _answered(self, now: float) -> bool:
        """A pending connection has its answer. Whether it was taken before the last shrink."""
        if not self._pending:
            raise ValueError("accepted, refused or failed: no connection is being dialled")
        self._pace.tick(now, self.in_use)
        self._pending -= 1
        if not self._old:
            return False
        self._old -= 1
        return True

    def _note(self, now: float, words: str) -> None:
        self.complained_at = now
        self.complaint = words[:_WORDS]

    def _measured(self, level: int, now: float, size: int | None = None) -> None:
        """So many the receiver took, and refused one more. None at all says nothing about how many
        it takes when it takes some."""
        self._level = min(level, self._most)
        self.size = max(1, self._level if size is None else size)
        self.ceiling = self._level or None
        self._ceiling_at = now

    def _probed_in_vain(self, ceiling: int, now: float) -> None:
        """The ceiling is still true; or it is lower by now."""
        self._probe = min(self._probe * 2, PROBE_MOST)
        # One that ended a moment ago may still have counted with the receiver.
        if self._open + self._pending >= ceiling - max(1, ceiling // 10):
            self.size = ceiling
            self._ceiling_at = now
            self._shrunk(measuring=False)
        else:
            self._measured(self._open, now)
            self._shrunk(measuring=True)

    def _shrunk(self, *, measuring: bool) -> None:
        self._old = self._pending
        self._measuring = measuring
        self._proven = False
        self._full = self._ended = 0

    def _grow(self, now: float) -> None:
        """One place more, if a windowful has ended since the last and nothing speaks against it."""
        if self._ended < self.size or self.size >= self._most:
            return
        if self._shrunk_at is not None and now - (self.complained_at or 0.0) < SETTLE:
            return
        if self.ceiling is not None:
            if self.size > self.ceiling:  # a windowful beyond it: it is no more
                self.ceiling = self._ceiling_at = None
                self._probe = PROBE
            elif self.size == self.ceiling:
                if self._ceiling_at is None:  # it was kept over a restart
                    self._ceiling_at = now
                if now - self._ceiling_at < self._probe:
                    return
        self.size += 1
        self._ended = 0


class _Budget:
    """Messages in an hour: never more than the limit in any 3600 s. Counted by the minute."""

    def __init__(self, hourly: int | None) -> None:
        self._hourly = hourly
        self._minutes: deque[list[int]] = deque()  # [minute, messages], the oldest first
        self._spent = 0

    def wait(self, now: float) -> float:
        """Seconds until one more may be sent."""
        if self._hourly is None:
            return 0.0
        while self._minutes and self._over(self._minutes[0]) <= now:
            self._spent -= self._minutes.popleft()[1]
        if self._spent < self._hourly:
            return 0.0
        first = next(minute for minute in self._minutes if minute[1])
        return self._over(first) - now

    def spend(self, now: float) -> None:
        if self._hourly is None:
            return
        minute = int(now // _MINUTE)
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append([minute, 0])
        self._minutes[-1][1] += 1
        self._spent += 1

    def give_back(self) -> None:
        """One that was spent came to nothing."""
        for minute in reversed(self._minutes):
            if minute[1]:
                minute[1] -= 1
                self._spent -= 1
                return

    @staticmethod
    def _over(minute: list[int]) -> float:
        return (minute[0] + 1) * _MINUTE + HOUR


class _Pace:
    """Messages a second, on a clock that runs only while connections are open."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._busy = 0.0  # seconds with a connection open
        self._seconds: deque[list[int]] = deque(maxlen=RATE_SPAN + 1)  # [busy second, messages]

    def tick(self, now: float, in_use: int) -> None:
        """To be called before `in_use` changes."""
        if self._at is not None and in_use:
            self._busy += max(0.0, now - self._at)
        self._at = now

    def count(self) -> None:
        second = int(self._busy)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0])
        self._seconds[-1][1] += 1

    def rate(self, now: float, in_use: int) -> float:
        self.tick(now, in_use)
        first = int(self._busy) - RATE_SPAN
        messages = sum(count for second, count in self._seconds if second >= first)
        return messages / min(max(self._busy, 1.0), self._busy - first)


def _whole(value: object) -> int | None:
    """A number of places; None if it is none."""
    return value if type(value) is int and value >= 1 else None
