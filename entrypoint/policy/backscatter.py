"""How many bounces may come of strangers' mail: bounded before it is taken. Pure.

chasquid takes mail for an address that is forwarded, the next server refuses it, and chasquid sends
a bounce (RFC 3464) to whoever MAIL FROM named: backscatter, if that was forged. The bounce leaves
within the same second and passes no hook, so it cannot be stopped, but each message makes at most
one. So of mail that is forwarded no more is taken than may bounce: those whose fate is open, and
those that bounced within the hour, are at most 20 together.

Senders whom SPF proves get no backscatter, only answers to their own mail. They are counted for
each organizational domain by itself, so nobody else can use up what is theirs; a deferral of theirs
is no longer counted. All others share one count, deferrals included.

What must never happen: that a message whose bounce could be one too many is taken. A null sender
gets no bounce, and what stays here does not fail: neither is counted.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST = 20  # bounces in an hour, and messages whose fate is open, together
WINDOW = 3600.0  # seconds
UNPROVEN = ""  # whose domain SPF does not prove
_PENDING = 60.0  # seconds for chasquid to put a message into its queue after it was allowed
_MANY = 20_000  # messages that are remembered


@dataclass
class Bounces:
    """By whose mail it is: a proven organizational domain, or UNPROVEN. Times are in seconds."""

    _allowed: list[tuple[tuple[str, tuple[str, ...]], str, float]] = field(default_factory=list)
    _open: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _made: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_MANY))

    def allows(self, whose: str, now: float) -> bool:
        """Whether one more message may be taken that might bounce."""
        self._allowed = [item for item in self._allowed if now - item[2] < _PENDING]
        while self._made and self._made[0][0] <= now - WINDOW:
            self._made.popleft()
        used = sum(item == whose for _, item, _ in self._allowed)
        used += sum(item == whose for item in self._open.values())
        used += sum(item == whose for _, item in self._made)
        return used < MOST

    def allow(self, whose: str, sender: str, recipients: Sequence[str], now: float) -> None:
        """Such a message is taken now."""
        self._allowed.append(((sender, tuple(recipients)), whose, now))

    def received(self, message: str, sender: str, recipients: Sequence[str]) -> None:
        """It has an id now. One that was not allowed by this object is taken for unproven."""
        whose = UNPROVEN
        for number, (envelope, item, _) in enumerate(self._allowed):
            if envelope == (sender, tuple(recipients)):
                whose = item
                del self._allowed[number]
                break
        self._open[message] = whose
        while len(self._open) > _MANY:
            self._open.popitem(last=False)

    def deferred(self, message: str) -> None:
        """It waits for one of its recipients."""
        if self._open.get(message, UNPROVEN) != UNPROVEN:
            del self._open[message]

    def bounced(self, message: str, at: float) -> None:
        """One of its recipients failed for good; however many do, it makes one bounce."""
        whose = self._open.pop(message, None)
        if whose is not None:
            self._made.append((at, whose))

    def done(self, message: str) -> None:
        """Nothing is left to do for it."""
        self._open.pop(message, None)
