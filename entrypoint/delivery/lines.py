"""Fairness: how many messages of one login wait for one operator. Pure.

Counted from the moment a message is taken from its author to the first answer for its recipient,
good or bad: whoever sends many to one operator shall not stand before everybody else's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

LAPSE = 1200.0  # seconds after which an entry is forgotten: its outcome was never told
MOST = 50_000  # entries; beyond it the oldest go
FEWEST = 10  # waiting messages that a login may always have
AHEAD = 5.0  # seconds' worth of what the operator takes that may wait


def limit(window_size: int, rate: float, share: int | Literal["none"] | None) -> int | None:
    """How many messages of one login may wait for one operator; None: any number.

    `share` is PACE_SHARE as the settings hold it: None (not set) is as many as the operator takes
    in 5 s at `rate` messages a second, but never fewer than its window of `window_size`, nor than
    10; "none" is no limit; a number is that number.
    """
    if share is None:
        return max(FEWEST, window_size, int(rate * AHEAD))
    return None if share == "none" else share


@dataclass(slots=True, eq=False)
class _Entry:
    login: str
    operator: str
    recipient: str
    at: float  # monotonic seconds
    waits: bool = True


class Waiting:
    """The messages that wait, one entry for each message and recipient.

    Each method is O(1), spread over the entries; `rename` is O(what waits for that operator). `now`
    is monotonic seconds.
    """

    def __init__(self, most: int = MOST) -> None:
        """`most`: entries that are held at once."""
        self._most = most
        self._held = 0
        self._line: deque[_Entry] = deque()  # all, the oldest first; also some that wait no more
        self._by_recipient: dict[str, deque[_Entry]] = {}
        self._by_operator: dict[str, dict[int, _Entry]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        return self._held

    def add(self, login: str, operator_key: str, recipient: str, now: float) -> None:
        """A message of `login` to `recipient` was taken, and goes to that operator."""
        self.lapse(now)
        entry = _Entry(login, operator_key, recipient, now)
        self._line.append(entry)
        self._by_recipient.setdefault(recipient, deque()).append(entry)
        self._by_operator.setdefault(operator_key, {})[id(entry)] = entry
        self._count(login, operator_key, 1)
        self._held += 1
        if self._held > self._most:
            self._drop_oldest()
        elif len(self._line) > 2 * self._most:
            self._line = deque(kept for kept in self._line if kept.waits)

    def over(self, recipient: str, now: float) -> None:
        """The first outcome of a message to the recipient: of several, the oldest waits no more. A
        recipient that nothing waits for (a forward, a bounce, a later try) is passed over."""
        self.lapse(now)
        if entries := self._by_recipient.get(recipient):
            self._end(entries[0])

    def count(self, login: str, operator_key: str) -> int:
        """How many messages of the login wait for the operator, as of the last call with a time."""
        return self._counts.get((login, operator_key), 0)

    def rename(self, old_key: str, new_key: str) -> None:
        """What waits for one key waits for the other: its operator is known by now."""
        if old_key == new_key:
            return
        moved = self._by_operator.pop(old_key, {})
        for entry in moved.values():
            self._count(entry.login, old_key, -1)
            entry.operator = new_key
            self._count(entry.login, new_key, 1)
        if moved:
            self._by_operator.setdefault(new_key, {}).update(moved)

    def lapse(self, now: float) -> None:
        """Forgets what has waited for 20 minutes: its first outcome cannot be still to come."""
        while self._line and (not self._line[0].waits or now - self._line[0].at >= LAPSE):
            entry = self._line.popleft()
            if entry.waits:
                self._end(entry)

    def _drop_oldest(self) -> None:
        while self._line:
            entry = self._line.popleft()
            if entry.waits:
                self._end(entry)
                return

    def _end(self, entry: _Entry) -> None:
        """Of one recipient's entries the oldest always ends first: all lines are in one order."""
        entry.waits = False
        self._held -= 1
        entries = self._by_recipient[entry.recipient]
        entries.popleft()
        if not entries:
            del self._by_recipient[entry.recipient]
        same = self._by_operator[entry.operator]
        del same[id(entry)]
        if not same:
            del self._by_operator[entry.operator]
        self._count(entry.login, entry.operator, -1)

    def _count(self, login: str, operator_key: str, change: int) -> None:
        key = (login, operator_key)
        count = self._counts.get(key, 0) + change
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]
