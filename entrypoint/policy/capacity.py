"""How much chasquid takes at once: connections, and bytes of unfinished messages. Pure.

Connections are bounded by descriptors and by memory, and port 25 gets no more than three quarters
of them: a flood there leaves places for log-ins. Where port 25 is full, somebody has to go: who is
many before who is few, and who has sat there longest without a message.

What must never happen: that a login's session is ended while a stranger's could be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

_MEMORY_OF_CONNECTION = 64 << 10  # bytes, with TLS and its buffers
_MEMORY_SHARE = 4  # connections may use a quarter of the memory
_UNFINISHED_SHARE = 8  # and unfinished messages, which chasquid copies as they grow, an eighth
_LEAST = 64  # connections, however little there is
_FEW = 256  # places that logins keep at least, where there are twice as many
_WAITING_SHARE = 8  # of all connections, those that wait for their greeting
MIN_AGE = 30.0  # seconds after which who has brought no message may have to go
MIN_IDLE = 10.0  # seconds of silence after which he may
_SILENT = 32  # of the oldest, whose silence is looked at
MIN_SIZE = 64 << 10  # bytes of an unfinished message that are worth a session's end


@dataclass(frozen=True)
class Capacity:
    """Connections in all, on port 25, and waiting for a greeting; bytes of unfinished messages."""

    total: int
    mail: int
    waiting: int
    unfinished: int

    @classmethod
    def of(cls, descriptors: int, memory: int, largest: int) -> Self:
        """`descriptors` that connections may have; `memory` and the `largest` message in bytes."""
        total = max(_LEAST, memory // _MEMORY_SHARE // _MEMORY_OF_CONNECTION)
        total = min(total, descriptors * 7 // 8)  # the machine's own connections come on top
        logins = max(total // 4, min(_FEW, total // 2))
        return cls(
            total=total,
            mail=total - logins,
            waiting=total // _WAITING_SHARE,
            # Below two of the largest, nobody could bring one while somebody else does.
            unfinished=max(memory // _UNFINISHED_SHARE, 2 * largest),
        )


@dataclass(frozen=True)
class Sitting:
    """A stranger's connection: who has it, and for how many seconds. `number` is its own."""

    number: int
    network: str
    seconds: float
    messages: int
    silent: float  # seconds since something came; only of the oldest is it asked


def who_goes(sitting: Sequence[Sitting], newcomer: str) -> int | None:
    """Whose place a newcomer from that network gets; None if nobody's. The oldest are first.

    A network with two more than the newcomer's has to give one; else who has brought nothing for
    half a minute, or has been silent for ten seconds.
    """
    counts = Counter(item.network for item in sitting)
    if counts:
        most, number = counts.most_common(1)[0]
        if number >= counts[newcomer] + 2:
            of_most = [item for item in sitting if item.network == most]
            return min(of_most, key=lambda item: item.messages > 0).number
    for item in sitting:
        if item.messages == 0 and item.seconds >= MIN_AGE:
            return item.number
    for item in sitting[:_SILENT]:
        if item.silent >= MIN_IDLE:
            return item.number
    return None


@dataclass(frozen=True)
class Unfinished:
    """A connection and the bytes of its unfinished message."""

    number: int
    size: int
    login: bool
    known: bool  # from a network that somebody logged in from


def over(unfinished: Iterable[Unfinished], bound: int) -> list[Unfinished]:
    """Whose sessions end so that the rest fits: the largest, strangers before all others."""
    items = list(unfinished)
    total = sum(item.size for item in items)
    order = sorted(items, key=lambda item: (item.login, item.known, -item.size))
    found = []
    for item in order:
        if total <= bound:
            break
        if item.size >= MIN_SIZE:
            found.append(item)
            total -= item.size
    return found
