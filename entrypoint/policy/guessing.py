"""How guessing at passwords is slowed down: when a *no* is given. Pure.

A no comes later the more of them there were, for that login and for all; a right password is never
delayed. The time depends on nothing but counts of failures, which are kept alike for logins that
exist and for names that do not: so it tells nobody who is there.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

FLOOR = 0.4  # seconds: longer than a check of a password takes on a machine that is not busy
MOST = 4.0  # seconds; chasquid waits for five
BY_LOGIN = 0.2  # seconds more for each failure of that login
BY_ALL = 0.02  # seconds more for each failure of anybody
LOGIN_LIFE = 600.0  # seconds in which a login's failures lose half their weight
ALL_LIFE = 60.0  # the same for all together
MOST_NAMES = 4096  # logins whose failures are remembered; the least failed one is forgotten


@dataclass
class _Count:
    """A count that halves every `life` seconds."""

    life: float
    value: float = 0.0
    at: float = 0.0

    def now(self, now: float) -> float:
        return float(self.value * 0.5 ** (max(0.0, now - self.at) / self.life))

    def add(self, number: float, now: float) -> None:
        self.value, self.at = max(0.0, self.now(now) + number), max(now, self.at)


@dataclass
class Delays:
    """Counts of failures; times are monotonic seconds."""

    _logins: OrderedDict[str, _Count] = field(default_factory=OrderedDict)
    _all: _Count = field(default_factory=lambda: _Count(ALL_LIFE))

    def of(self, login: str, now: float) -> float:
        """Seconds from a question to its no."""
        own = self._logins.get(login)
        count = own.now(now) if own else 0.0
        return min(MOST, FLOOR + BY_LOGIN * count + BY_ALL * self._all.now(now))

    def failed(self, login: str, now: float) -> None:
        self._all.add(1.0, now)
        self._logins.setdefault(login, _Count(LOGIN_LIFE)).add(1.0, now)
        self._logins.move_to_end(login)
        if len(self._logins) > MOST_NAMES:
            self._forget(now)

    def did_not_fail(self, login: str, now: float) -> None:
        """Take back one of `failed`, which was too early."""
        self._all.add(-1.0, now)
        if login in self._logins:
            self._logins[login].add(-1.0, now)

    def _forget(self, now: float) -> None:
        """The least failed of the oldest few: names that are made up do not push out one that is
        under attack."""
        oldest = [name for name, _ in zip(self._logins, range(16), strict=False)]
        del self._logins[min(oldest, key=lambda name: self._logins[name].now(now))]
