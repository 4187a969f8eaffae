"""How much mail may wait here: bytes of memory and places in the queue. Pure.

chasquid keeps every queued message in memory and writes it to the disk as text (a string of a text
protocol buffer). What that costs was measured with chasquid 1.19.0 in this image, limited to 1 GB,
with messages of 24 MB, GOMEMLIMIT set so low that Go collects all it can; as multiples of the
message's size:

                                    text (ASCII)   8-bit, no UTF-8   control characters
    its file in the queue               1.00            3.02               3.99
    memory while it waits               1.0             1.0                1.0
    memory while it is taken, more      5.1             9.3               13.3
    the same, four at once, each        3.5             5.2                 -

The first line is exact: a byte that text protocol buffers escape takes two or four. The third is 2
times the message and 3 times its file (5, 11, 14), which is what is counted here. It holds from the
final dot until the file is there.

chasquid writes a message's file again after each try: where a receiver is down, and after a start,
many at one moment. So a message that waits is counted with its file, too: twice (ASCII) to five
times its size. Messages that are still coming (services/connections.py bounds them), and those
that are refused in the end, cannot be counted beforehand: a share is left for them.

Strangers, and what comes of their mail (forwards, bounces), get at most half of either.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MB = 1 << 20
OTHERS = 160 * MB  # bytes that all other programs in the container use, and an idle chasquid
QUEUED_SHARE = 0.45  # of what is left: for messages that wait
WORK_SHARE = 0.4  # for work on those that were taken; the rest is for what cannot be counted
STRANGERS_SHARE = 0.5  # of the queue, in number and in bytes
LARGE = 4 * MB  # bytes of a message: where the shortage of one that is larger is told apart


@dataclass(frozen=True)
class Load:
    """So many messages, which need so many bytes of memory while they wait."""

    number: int = 0
    memory: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(self.number + other.number, self.memory + other.memory)


@dataclass(frozen=True)
class Demand:
    """A message at the final dot: its bytes, and those that its file in the queue will have."""

    size: int = 0
    stored: int = 0

    @property
    def waiting(self) -> int:
        """Bytes of memory that chasquid needs while it waits and is tried."""
        return self.size + self.stored

    @property
    def work(self) -> int:
        """Bytes of memory that chasquid needs besides, until the file is there."""
        return 2 * self.size + 3 * self.stored


@dataclass(frozen=True)
class Budget:
    """`number` of messages in the queue; bytes `queued`, and for `work` on them. None: no limit."""

    number: int
    queued: int | None = None
    work: int | None = None


@dataclass(frozen=True)
class Usage:
    """What waits in the queue, the strangers' part of it, and what is being worked on."""

    queued: Load = field(default_factory=Load)
    strangers: Load = field(default_factory=Load)
    work: int = 0


@dataclass(frozen=True)
class Shortage:
    """Why a message does not fit. `fits` is the size, in bytes, of one that would; None if it is
    not a matter of size."""

    what: str
    fits: int | None = None


def budget(limit: int | None, number: int) -> Budget:
    """What a container with this memory limit (bytes, None without one) has for mail."""
    if limit is None:
        return Budget(number)
    left = max(0, limit - OTHERS)
    return Budget(number, int(left * QUEUED_SHARE), int(left * WORK_SHARE))


def shortage(have: Budget, usage: Usage, demand: Demand, *, stranger: bool) -> Shortage | None:
    """Why a message cannot be taken now; None if it can."""
    if usage.queued.number >= have.number:
        return Shortage(f"the queue is full ({have.number} messages wait)")
    if stranger and usage.strangers.number >= strangers_number(have):
        return Shortage("the part of the queue that is for mail from outside is full")
    waiting = demand.waiting / demand.size if demand.size else 2.0
    left = [(have.queued, usage.queued.memory, waiting, "the queue's memory")]
    if stranger:
        share = None if have.queued is None else int(have.queued * STRANGERS_SHARE)
        what = "the queue's memory for mail from outside"
        left.append((share, usage.strangers.memory, waiting, what))
    work = demand.work / demand.size if demand.size else 5.0
    left.append((have.work, usage.work, work, "memory"))
    rooms = [
        (max(0, int((most - used) / factor)), what)
        for most, used, factor, what in left
        if most is not None
    ]
    if not rooms:
        return None
    fits, what = min(rooms)
    return None if demand.size <= fits else Shortage(f"{what} is in use", fits)


def strangers_number(have: Budget) -> int:
    """Of MAX_QUEUE, as many as mail from outside may take."""
    return int(have.number * STRANGERS_SHARE)
