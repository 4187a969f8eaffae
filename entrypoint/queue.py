"""chasquid's queue (internal/queue/queue.go): one file an item. Read only, never locked.

chasquid writes a file anew at each try and removes it when the item is done, so a look at the
queue is a moment's, and a file that has gone meanwhile is no error. Only chasquid's user may look.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Self

from entrypoint import textproto
from entrypoint.maillog import clean

_PREFIX = "m:"  # others are temporary files that a killed chasquid left
_MAX_HEAD = 4 << 20  # bytes of an item without its message: 10,000 recipients
_MAX_ANSWER = 300  # characters of a remote's answer
_MAX_DESTINATIONS = 50
_PIPE = "(a program)"


class Status(Enum):
    PENDING = 0
    SENT = 1
    FAILED = 2  # for good: the sender is told when the rest is done


@dataclass(frozen=True)
class Recipient:
    """`address` is the final one, after aliases; `answer` what the last failure was."""

    address: str
    original: str
    status: Status
    answer: str
    is_program: bool = False

    @property
    def destination(self) -> str:
        """The domain that the mail goes to."""
        return _PIPE if self.is_program else self.address.rpartition("@")[2].lower()


@dataclass(frozen=True)
class Item:
    """One message with its recipients. `created` is in seconds since 1970."""

    id: str
    sender: str
    recipients: tuple[Recipient, ...]
    created: float


def parse(text: str) -> Item:
    """One file's content, with or without the message. Raises ValueError."""
    message = textproto.parse(text, textproto.QueueMessage)
    return Item(
        id=clean(message.ID),
        sender=clean(getattr(message, "from")),
        recipients=tuple(
            Recipient(
                address=clean(item.address),
                original=clean(item.original_address),
                status=_status(item.status),
                answer=clean(item.last_failure_message.strip())[:_MAX_ANSWER],
                is_program=item.type == 1,
            )
            for item in message.rcpt
        ),
        created=message.created_at_ts.seconds + message.created_at_ts.nanos / 1e9,
    )


def _status(number: int) -> Status:
    try:
        return Status(number)
    except ValueError:
        return Status.PENDING  # of a later chasquid: not known to be done


def files(folder: Path) -> list[Path]:
    """The items' files, in no order. Raises OSError, but not if there is no queue yet."""
    try:
        with os.scandir(folder) as entries:
            return [Path(item.path) for item in entries if item.name.startswith(_PREFIX)]
    except FileNotFoundError:
        return []


def read(path: Path) -> Item:
    """Raises OSError, and ValueError if it is no item."""
    return parse(_head(path).decode(errors="replace"))


def _head(path: Path) -> bytes:
    """The file without the line of the message itself, which may have a hundred megabytes."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as stream:  # noqa: PTH123 (a descriptor)
        if os.fstat(fd).st_size == 0:
            return b""
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as content:
            kept, size, start = [], 0, 0
            while start < len(content):
                end = content.find(b"\n", start)
                end = len(content) if end < 0 else end + 1
                if content[start : start + 5] != b"data:":
                    size += end - start
                    if size > _MAX_HEAD:
                        msg = f"{stream.name}: too long for an item of the queue"
                        raise ValueError(msg)
                    kept.append(content[start:end])
                start = end
            return b"".join(kept)


def items(paths: Iterable[Path], deadline: float) -> Iterator[Item | None]:
    """Each file's item, None for a damaged one; ends at `deadline` (time.monotonic)."""
    for path in paths:
        if time.monotonic() > deadline:
            return
        try:
            yield read(path)
        except FileNotFoundError:
            continue  # delivered meanwhile
        except (OSError, ValueError):
            yield None


@dataclass(frozen=True)
class Destination:
    """What waits for one domain. `oldest` is in seconds since 1970."""

    domain: str
    waiting: int
    oldest: float
    answer: str  # to the oldest item, with something to say


@dataclass(frozen=True)
class Summary:
    """`depth` counts files; `looked_at` of them were read, `damaged` of those were no items."""

    depth: int
    looked_at: int
    damaged: int
    oldest: float | None
    destinations: tuple[Destination, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises KeyError or TypeError for what to_json did not make."""
        found = tuple(Destination(**item) for item in content.pop("destinations"))
        return cls(destinations=found, **content)


def summarise(folder: Path, seconds: float) -> Summary:
    """The whole queue, or what of it can be read in that time. Raises OSError."""
    paths = files(folder)
    looked_at, damaged, oldest = 0, 0, None
    found: dict[str, Destination] = {}
    for item in items(paths, time.monotonic() + seconds):
        looked_at += 1
        if item is None:
            damaged += 1
            continue
        oldest = item.created if oldest is None else min(oldest, item.created)
        for recipient in item.recipients:
            if recipient.status is Status.PENDING:
                _count(found, recipient, item.created)
    largest = sorted(found.values(), key=lambda item: (-item.waiting, item.domain))
    return Summary(len(paths), looked_at, damaged, oldest, tuple(largest[:_MAX_DESTINATIONS]))


def _count(found: dict[str, Destination], recipient: Recipient, created: float) -> None:
    domain = recipient.destination
    before = found.get(domain)
    if before is None:
        found[domain] = Destination(domain, 1, created, recipient.answer)
        return
    older = created < before.oldest
    first, second = (
        (recipient.answer, before.answer) if older else (before.answer, recipient.answer)
    )
    found[domain] = Destination(
        domain, before.waiting + 1, min(created, before.oldest), first or second
    )
