"""Messages that chasquid must not read at its start, since they do not fit into memory: parked.

chasquid reads its whole queue before it listens, and holds it in memory. So before each start what
waits is counted, and what does not fit is moved to `queue.parked/` beside `queue/`, by rename:

    queue/m:ID                chasquid's
    queue.parked/m:ID.SECONDS parked since then, in seconds since 1970

A message that is fed back is written anew, as chasquid gives up by age and parked time must not
count: under a name that chasquid does not read, synced, then renamed to `queue/m:ID`, and only then
the parked file goes. So a kill leaves it in one folder or in both; if in both, the one in the queue
is whole, and wins. All of it is done while there is no chasquid: nothing can be delivered between
two of these steps. What must never happen: a message in neither folder, or delivered from both.

Kept in memory are small messages first, then those of logins, then the smaller ones: so a few large
ones wait, and almost nobody notices. A chasquid that was killed halves what it gets at the next
start, down to nothing: there is no endless loop.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.chasquid.backlog import PREFIX, Backlog, Message
from entrypoint.services.admission import waiting

SMALL = 256 << 10  # bytes: such messages are never worth parking before others
BOUNCE_LIFE = 6 * 3600.0  # seconds for which a bounce of chasquid's own is tried
STEADY = 3600.0  # seconds that chasquid lives for one death to be forgotten
_NAME = re.compile(r"(m:[A-Za-z0-9_-]{1,64})\.([0-9]{1,11})")
_CREATED = re.compile(rb"\ncreated_at_ts:\s*\{\s*seconds:\s*(\d{1,12})")
_TAIL = 4096  # bytes at the end of a file, where chasquid writes when it was created
_CHUNK = 1 << 20


def chosen(messages: Iterable[Message], budget: int) -> set[str]:
    """The names of those that go into memory. Pure."""
    kept, used = set(), 0
    for item in sorted(messages, key=_priority):
        if used + waiting(item) <= budget:
            kept.add(item.name)
            used += waiting(item)
    return kept


def _priority(item: Message) -> tuple[bool, bool, int, str]:
    return item.size > SMALL, not item.origin.login, item.size, item.name


def allowance(budget: int, deaths: float) -> int:
    """Bytes for the next chasquid when so many were killed of late. Pure."""
    return 0 if deaths >= 10 else int(budget / 2 ** max(0, int(deaths)))


@dataclass(frozen=True)
class Moved:
    """What a start changed: the names of messages."""

    parked: tuple[str, ...] = ()
    fed: tuple[str, ...] = ()


def parked_files(folder: Path) -> dict[str, tuple[Path, int]]:
    """By the message's name: where it is, and since when. Nothing if none ever was. Raises
    OSError."""
    found = {}
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                found[match[1]] = (Path(entry.path), int(match[2]))
    return found


@dataclass
class Parking:
    """`queue` and `parked` are folders of one file system. Only while there is no chasquid, but
    for `waiting` and `room_for_more`."""

    queue: Path
    parked: Path
    _known: Backlog = field(init=False)

    def __post_init__(self) -> None:
        self._known = Backlog(self.queue)

    def waiting(self) -> int:
        """How many messages are parked."""
        try:
            return len(parked_files(self.parked))
        except OSError:
            return 0

    def room_for_more(self, budget: int) -> bool:
        """Whether a start now would feed one back. Raises OSError."""
        parked = self._parked()
        return bool(chosen((*self._queued(), *parked), budget) & {item.name for item in parked})

    def old_bounces(self, now: float) -> list[Message]:
        """Bounces that chasquid made and could not deliver for six hours. Raises OSError."""
        return [
            item
            for item in self._known.look()
            if item.origin.bounce and item.created and now - item.created > BOUNCE_LIFE
        ]

    def give_up(self, bounces: Iterable[Message]) -> Iterator[Message]:
        """Remove them; says which have gone. Raises OSError."""
        for item in bounces:
            with suppress(FileNotFoundError):
                (self.queue / item.name).unlink()
                yield item
        sync(self.queue)

    def settle(self, budget: int | None, now: float) -> Moved:
        """Make the queue one that fits. Raises OSError, with every message in one of the folders.

        `budget` in bytes, None if there is no limit; `now` in seconds since 1970.
        """
        self._clean_up()
        away = parked_files(self.parked)
        if budget is None:
            return Moved(fed=tuple(self._feed(away, away, now)))
        if not away and 2 * self._stored() <= budget:  # a file is no smaller than its message
            return Moved()
        queued = self._queued()
        kept = chosen((*queued, *self._parked()), budget)
        gone = [item.name for item in queued if item.name not in kept]
        moved = tuple(self._park(gone, now))
        return Moved(moved, tuple(self._feed(away, [name for name in away if name in kept], now)))

    def _stored(self) -> int:
        total = 0
        with suppress(FileNotFoundError), os.scandir(self.queue) as entries:
            for entry in entries:
                if entry.name.startswith(PREFIX):
                    with suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
        return total

    def _queued(self) -> list[Message]:
        """All of the queue, each file read."""
        found = self._known.look()
        while len(self._known) < len(found):
            before = len(self._known)
            found = self._known.look()
            if len(self._known) == before:
                break
        return found

    def _parked(self) -> list[Message]:
        found = []
        for name, (path, _) in parked_files(self.parked).items():
            with suppress(OSError, ValueError):
                found.append(self._known.read(path, name))
        return found

    def _clean_up(self) -> None:
        """Complete what a kill left: a message in both folders is the queue's."""
        done = False
        for name, (path, _) in parked_files(self.parked).items():
            if (self.queue / name).exists():
                path.unlink()
                done = True
        for left in self.queue.glob(".parked.*"):
            left.unlink(missing_ok=True)
        if done:
            sync(self.parked)

    def _park(self, names: Sequence[str], now: float) -> Iterator[str]:
        if not names:
            return
        self.parked.mkdir(mode=0o700, exist_ok=True)
        sync(self.parked.parent)
        for name in names:
            if not _NAME.fullmatch(f"{name}.0"):
                continue  # not a name of chasquid's; it reads it all the same
            (self.queue / name).rename(self.parked / f"{name}.{int(now)}")
            yield name
        sync(self.parked)
        sync(self.queue)

    def _feed(
        self, away: dict[str, tuple[Path, int]], names: Iterable[str], now: float
    ) -> Iterator[str]:
        for name in names:
            path, since = away[name]
            aside = self.queue / f".parked.{name}"
            later(path, aside, max(0, int(now) - since))
            aside.rename(self.queue / name)
            sync(self.queue)
            path.unlink()
            yield name
        if away:
            sync(self.parked)


def later(source: Path, target: Path, seconds: int) -> None:
    """Copy a message, made so many seconds younger; it is on the disk when this returns.

    Raises OSError. One that does not say when it was created is copied as it is.
    """
    # Not files.write: a message has many MB, and is copied piece by piece.
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    to = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(fd, "rb") as reader, open(to, "wb") as writer:  # noqa: PTH123 (descriptors)
        whole = os.fstat(fd).st_size - _TAIL
        while whole > 0 and (chunk := reader.read(min(_CHUNK, whole))):
            writer.write(chunk)
            whole -= len(chunk)
        tail = reader.read()
        found = _CREATED.search(tail)
        if found:
            shifted = str(int(found[1]) + seconds).encode()
            tail = tail[: found.start(1)] + shifted + tail[found.end(1) :]
        writer.write(tail)
        writer.flush()
        os.fsync(to)


def sync(folder: Path) -> None:
    """What was renamed or removed there stays so. Raises OSError.

    Not files.sync: that refuses a queue that is a link, which chasquid takes.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
