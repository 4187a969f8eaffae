"""Logins at whose passwords somebody guesses, from where nobody ever logged in as them. Pure.

More than `MOST` failures in an hour, from all networks together from which nobody logged in as a
login within a week, and it counts as guessed at, until an hour has fewer. Then a password that a
person chose is tried, and a message taken, only where the login is known (services/auth.py,
services/policy.py): many guesses from many addresses end there, and the owner goes on from where
he was. What must never happen: that failures of a known network count, since an owner's forgotten
device would shut him out elsewhere; or that a log-in makes a network known while the login is
guessed at, since that is what a right guess looks like.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

HOUR = 3600.0  # seconds
MOST = 20  # failures in an hour
_MAX_LOGINS = 4096  # of which failures are remembered; the least failed is forgotten


@dataclass
class Guessed:
    """The last failures of each login; times are in seconds since 1970."""

    _failures: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def failed(self, login: str, now: float) -> bool:
        """A log-in failed from where the login is not known; whether it is guessed at from now."""
        before = self.is_guessed(login, now)
        times = [at for at in self._failures.get(login, []) if 0 <= now - at < HOUR]
        self._failures[login] = [*times, now][-MOST - 1 :]
        self._failures.move_to_end(login)
        if len(self._failures) > _MAX_LOGINS:
            oldest = [name for name, _ in zip(self._failures, range(16), strict=False)]
            del self._failures[min(oldest, key=lambda name: len(self._failures[name]))]
        return not before and self.is_guessed(login, now)

    def is_guessed(self, login: str, now: float) -> bool:
        times = self._failures.get(login, [])
        return len(times) > MOST and 0 <= now - times[0] < HOUR

    def logins(self, now: float) -> list[str]:
        return sorted(login for login in self._failures if self.is_guessed(login, now))

    def to_json(self) -> dict[str, Any]:
        """Those that failed too often: of others nothing is worth to be kept."""
        return {login: times for login, times in self._failures.items() if len(times) > MOST}

    def load(self, content: dict[str, Any]) -> None:
        """Raises ValueError, TypeError or AttributeError for what `to_json` did not make."""
        found = {str(name): [float(at) for at in times] for name, times in content.items()}
        self._failures = OrderedDict((name, times[-MOST - 1 :]) for name, times in found.items())
