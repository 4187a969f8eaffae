"""Whether there is room for one more message: what the policy service asks before it takes one.

Between the final dot and the file in the queue a message is nowhere to be seen, so what was taken
is kept in mind (`Taken`) until chasquid's log says that it is there (RECEIVED), or for so long as
chasquid may need to write it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from entrypoint.chasquid.backlog import Backlog, Message
from entrypoint.policy import queueroom
from entrypoint.policy.queueroom import Budget, Demand, Load, Shortage, Usage

_LEAST = 0.5  # seconds for which a look at the queue holds
_WRITTEN = 2.0  # seconds after which a small message is in the queue, or delivered already
_PACE = 1 << 20  # bytes a second that chasquid writes at the very least

# Of a byte of the message, what the text protocol buffer writes: one, two or four bytes.
_TWICE = b'\n\r\t"\\'
_ONCE = bytes(code for code in range(0x20, 0x7F) if code not in _TWICE)


class Source(Protocol):
    """What an asyncio.StreamReader can do of it."""

    async def read(self, n: int) -> bytes: ...


@dataclass
class Measured:
    """A reader that counts: `size` bytes went through, which are `stored` in a queue file."""

    source: Source
    size: int = 0
    stored: int = 0

    async def read(self, n: int = -1) -> bytes:
        chunk = await self.source.read(n)
        rare = chunk.translate(None, _ONCE)
        twice = len(rare) - len(rare.translate(None, _TWICE))
        self.size += len(chunk)
        self.stored += len(chunk) + twice + 3 * (len(rare) - twice)
        return chunk

    @property
    def demand(self) -> Demand:
        return Demand(self.size, self.stored)


@dataclass(frozen=True)
class Taken:
    """What was accepted at a time (monotonic seconds), by sender and recipients."""

    demand: Demand
    stranger: bool
    envelope: tuple[str, tuple[str, ...]]
    at: float

    def is_over(self, now: float) -> bool:
        return now > self.at + _WRITTEN + self.demand.size / _PACE


@dataclass
class Admission:
    """Not for two threads. `clock` gives seconds that never go back."""

    queue: Backlog
    clock: Callable[[], float] = time.monotonic

    _taken: list[Taken] = field(default_factory=list)
    _queued: Load = field(default_factory=Load)
    _strangers: Load = field(default_factory=Load)
    _due: float = 0.0

    def ask(self, have: Budget, demand: Demand, *, stranger: bool) -> Shortage | None:
        """Why a message cannot be taken; None if it can. Raises OSError."""
        return queueroom.shortage(have, self.usage(), demand, stranger=stranger)

    def take(
        self, demand: Demand, sender: str, recipients: Sequence[str], *, stranger: bool
    ) -> None:
        """Remember a message that is accepted now."""
        envelope = (sender, tuple(recipients))
        self._taken.append(Taken(demand, stranger, envelope, self.clock()))

    def received(self, sender: str, recipients: Sequence[str]) -> None:
        """A message is in the queue, or was: a look at the queue shows it from now on."""
        envelope = (sender, tuple(recipients))
        for number, item in enumerate(self._taken):
            if item.envelope == envelope:
                del self._taken[number]
                self._due = 0.0
                return

    def usage(self) -> Usage:
        """What waits and what is being written. Raises OSError."""
        now = self.clock()
        if now >= self._due:
            self._look()
            # A look at a very long queue must not take all the time that there is.
            self._due = self.clock() + max(_LEAST, 10 * (self.clock() - now))
        self._taken = [item for item in self._taken if not item.is_over(now)]
        coming = _load(item.demand.waiting for item in self._taken)
        strangers = _load(item.demand.waiting for item in self._taken if item.stranger)
        return Usage(
            self._queued + coming,
            self._strangers + strangers,
            sum(item.demand.work for item in self._taken),
        )

    def _look(self) -> None:
        found = self.queue.look()
        self._queued = _load(waiting(item) for item in found)
        self._strangers = _load(waiting(item) for item in found if not item.origin.login)


def waiting(item: Message) -> int:
    """Bytes of memory that chasquid needs for a message of its queue."""
    return Demand(item.size, item.stored).waiting


def _load(memory: Iterable[int]) -> Load:
    known = tuple(memory)
    return Load(len(known), sum(known))
