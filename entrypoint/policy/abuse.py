"""When a login is paused: what a stolen password looks like from here. Pure.

Two signs. Lists of strangers are full of addresses that do not exist, so a spammer's mail fails
against many recipients. And whoever sends spam sends much more than the owner ever did.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

WINDOW = 3600.0  # seconds
FAILURES = 20  # recipients who failed for good, in the window
SHARE = 0.5  # of those that came to an end
SURGE = 10  # times the busiest hour of the last two weeks
SURGE_LEAST = 100  # recipients in an hour, below which nothing is a surge
HISTORY_DAYS = 3  # days of sending that make a history
_MOST = 20_000  # messages whose login is remembered


@dataclass(frozen=True)
class Failing:
    """Why a login is paused: too many of its recipients failed for good."""

    failed: int
    tried: int

    def __str__(self) -> str:
        return (
            f"{self.failed} of the last {self.tried} recipients in an hour do not exist or refuse "
            "its mail"
        )


@dataclass(frozen=True)
class Surging:
    """Why a login is paused: recipients of the last hour against the most in an hour before."""

    sent: int
    before: int

    def __str__(self) -> str:
        return f"{self.sent} recipients within an hour, where the most was {self.before} before"


@dataclass
class Outcomes:
    """What became of each login's mail, of late. A deferral is no end, so it says nothing."""

    _logins: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _ends: dict[str, deque[tuple[float, bool]]] = field(default_factory=dict)

    def received(self, message: str, login: str) -> None:
        """A message by chasquid's id was taken from a login."""
        self._logins[message] = login
        self._logins.move_to_end(message)
        while len(self._logins) > _MOST:
            self._logins.popitem(last=False)

    def owner(self, message: str) -> str:
        """Whose message it is; an empty string for incoming mail."""
        return self._logins.get(message, "")

    def ended(self, login: str, at: float, *, failed: bool) -> None:
        """One recipient of a login's has it, or never will."""
        self._ends.setdefault(login, deque(maxlen=_MOST)).append((at, failed))

    def forget(self, login: str) -> None:
        """Begin anew, as after somebody has looked into it."""
        self._ends.pop(login, None)

    def failing(self, login: str, now: float) -> Failing | None:
        ends = self._ends.get(login)
        if not ends:
            return None
        while ends and ends[0][0] <= now - WINDOW:
            ends.popleft()
        failed = sum(item for _, item in ends)
        if failed >= FAILURES and failed >= SHARE * len(ends):
            return Failing(failed, len(ends))
        return None


def surging(hours: Mapping[int, int], sent: int, now: float) -> Surging | None:
    """`hours`: recipients by the hour (seconds since 1970 // 3600); `sent`: in the last hour.

    A login without a history may begin as it likes: SEND_LIMIT is what holds it.
    """
    yesterday = int(now - 86400) // 3600
    before = {hour: count for hour, count in hours.items() if hour < yesterday and count}
    if len({hour // 24 for hour in before}) < HISTORY_DAYS or sent < SURGE_LEAST:
        return None
    most = max(before.values())
    return Surging(sent, most) if sent > SURGE * most else None


def by_hour(items: Iterable[tuple[float, int]]) -> dict[int, int]:
    """Sums of (seconds since 1970, recipients) by hours since 1970."""
    found: dict[int, int] = {}
    for at, count in items:
        hour = int(at) // 3600
        found[hour] = found.get(hour, 0) + count
    return found
