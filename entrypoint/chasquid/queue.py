"""chasquid's queue (internal/queue/queue.go): one file an item. Read only, never locked.

chasquid writes a file anew at each try and removes it when the item is done, so a look at the
queue is a moment's, and a file that has gone meanwhile is no error. Only chasquid's user may look.
"""

from __future__ import annotations

import heapq
import mmap
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Self

from entrypoint.chasquid import textproto
from entrypoint.chasquid.backlog import PARKED, PREFIX, files
from entrypoint.chasquid.maillog import clean
from entrypoint.common.names import Domain

# Eleven characters of base64 (generateNewIDs); what is longer or odd was not made by chasquid.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_HEAD = 4 << 20  # bytes of an item without its message: 10,000 recipients
_MAX_ANSWER = 300  # characters of a remote's answer
_MAX_DESTINATIONS = 50
_MAX_RECIPIENTS = 20  # of a message that is listed
_MAX_NAMES = 20  # of damaged files
# nextDelay: the age of a message up to which it is tried again after so long; in seconds. To each
# is added up to a minute, by chance.
_DELAYS = ((60.0, 60.0), (300.0, 300.0), (600.0, 600.0))
_STEADY_DELAY = 1200.0
_CHANCE = 60.0
_PIPE = "(a program)"


class Status(Enum):
    """Of one recipient, with the numbers of chasquid's internal/queue/queue.proto."""

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
    """One message with its recipients.

    `created` and `written`, when chasquid wrote the file last, are in seconds since 1970. `parked`:
    chasquid knows nothing of it until there is memory for it (services/parking.py).
    """

    id: str
    sender: str
    recipients: tuple[Recipient, ...]
    created: float
    written: float = 0.0
    parked: bool = False


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


def is_id(text: str) -> bool:
    """Whether a text has the form of chasquid's ids: it is then safe as a file's name."""
    return bool(_ID.fullmatch(text))


def read(path: Path) -> Item:
    """Raises OSError, and ValueError if it is no item. What names it is the file's name."""
    parked = path.parent.name.endswith(PARKED)
    name = _id_of(path)
    if not is_id(name):
        msg = f"{clean(path.name)}: not a name that chasquid gives"
        raise ValueError(msg)
    content, written = _head(path)
    item = parse(content.decode(errors="replace"))
    return replace(item, id=name, written=written, parked=parked)


def _id_of(path: Path) -> str:
    """A parked file's name says behind a dot since when it is."""
    name = path.name.removeprefix(PREFIX)
    return name.partition(".")[0] if path.parent.name.endswith(PARKED) else name


def _head(path: Path) -> tuple[bytes, float]:
    """The file without the line of the message itself, which may have a hundred megabytes, and
    when it was written."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as stream:  # noqa: PTH123 (a descriptor)
        found = os.fstat(fd)
        if found.st_size == 0:
            return b"", found.st_mtime
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
            return b"".join(kept), found.st_mtime


@dataclass(frozen=True)
class Selection:
    """Which messages are meant: those with these ids, or to and from these; else all.

    `to` is an address or a domain, `sender` an address; a recipient is meant by its final address
    and by the one that led there.
    """

    ids: tuple[str, ...] = ()
    to: str = ""
    sender: str = ""

    def is_from(self, item: Item) -> bool:
        return not self.sender or _same(self.sender) == _same(item.sender)

    def is_to(self, recipient: Recipient) -> bool:
        if not self.to:
            return True
        wanted = _same(self.to)
        addresses = {_same(recipient.address), _same(recipient.original)}
        if "@" in self.to:
            return wanted in addresses
        return wanted in {address.rpartition("@")[2] for address in addresses if "@" in address}


def _same(text: str) -> str:
    """An address or a domain in the one form in which those that are the same compare equal."""
    local, at, domain = text.strip().rpartition("@")
    return f"{local.lower()}{at}{domain_key(domain)}"


def domain_key(domain: str) -> str:
    """chasquid writes a domain in Unicode, DNS in A-labels: this is the latter, if it is one."""
    try:
        return Domain.parse(domain)
    except ValueError:
        return domain.lower()


@dataclass(frozen=True)
class Waiting:
    """One message of a list. `recipients` are those that wait and were meant, and `more` how many
    there are besides; `others` says that some wait who were not meant."""

    id: str
    sender: str
    created: float
    written: float
    tried: bool
    recipients: tuple[Recipient, ...]
    more: int = 0
    others: bool = False
    parked: bool = False

    @classmethod
    def of(cls, item: Item, selection: Selection) -> Self | None:
        """None if it was not meant."""
        waiting = [one for one in item.recipients if one.status is Status.PENDING]
        meant = [one for one in waiting if selection.is_to(one)]
        if not selection.is_from(item) or (selection.to and not meant):
            return None
        return cls(
            item.id, item.sender, item.created, item.written,
            tried=any(one.answer or one.status is not Status.PENDING for one in item.recipients),
            recipients=tuple(meant[:_MAX_RECIPIENTS]),
            more=max(0, len(meant) - _MAX_RECIPIENTS),
            others=len(meant) < len(waiting),
            parked=item.parked,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        for one in found["recipients"]:
            one["status"] = one["status"].value
        return found

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what to_json did not make."""
        recipients = tuple(
            Recipient(**{**one, "status": Status(one["status"])}) for one in content["recipients"]
        )
        return cls(**{**content, "recipients": recipients})


@dataclass(frozen=True)
class Attempts:
    """How often a message was tried, and when it is next, in seconds since 1970.

    None: it is being tried. `exact` is false for what was derived, not seen.
    """

    tries: int
    next_try: float | None
    exact: bool = False


def estimate(item: Waiting, now: float) -> Attempts:
    """What the file tells, by chasquid's rule for the next try.

    chasquid writes neither into the file; but it writes the file anew after each try. A try that a
    new chasquid made at its start counts for none here.
    """
    if not item.tried:
        return Attempts(0, None)
    last = max(0.0, item.written - item.created)
    moments = _moments()
    tries = sum(moment <= last + _CHANCE / 2 for moment in moments)
    if tries == len(moments):
        tries += int((last + _CHANCE / 2 - moments[-1]) // (_STEADY_DELAY + _CHANCE / 2))
    following = item.written + _delay(last) + _CHANCE / 2
    return Attempts(max(1, tries), following if following > now else None)


def _delay(age: float) -> float:
    return next((delay for until, delay in _DELAYS if age < until), _STEADY_DELAY)


def _moments() -> list[float]:
    """The ages at which a message is tried, on average, until the delays grow no more."""
    found = [0.0]
    while found[-1] < _DELAYS[-1][0]:
        found.append(found[-1] + _delay(found[-1]) + _CHANCE / 2)
    return found


@dataclass(frozen=True)
class Destination:
    """What waits for one domain. `oldest` is in seconds since 1970."""

    domain: str
    waiting: int
    oldest: float
    answer: str  # to the oldest item, with something to say

    @property
    def advice(self) -> str:
        return advice(self.answer, self.domain)


def advice(answer: str, domain: str) -> str:
    """The verb that helps against what chasquid itself said of a domain; none against the rest."""
    if "security level check failed" not in answer.lower():
        return ""
    return f"docker exec mail forget-domain {domain_key(domain)}"


@dataclass(frozen=True)
class Summary:
    """`depth` counts files; `looked_at` of them were read, `damaged` of those were no items.

    The rest is of what was meant.
    """

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


@dataclass(frozen=True)
class Listing:
    """`items` are the oldest of the `meant` messages, the oldest first. `unknown` are ids that were
    asked for and are not there, `damaged` those of files that are no messages (some of them)."""

    summary: Summary
    meant: int
    items: tuple[Waiting, ...]
    unknown: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "summary": self.summary.to_json(),
            "meant": self.meant,
            "items": [item.to_json() for item in self.items],
            "unknown": self.unknown,
            "damaged": self.damaged,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what to_json did not make."""
        return cls(
            Summary.from_json(dict(content["summary"])),
            int(content["meant"]),
            tuple(Waiting.from_json(dict(item)) for item in content["items"]),
            tuple(content["unknown"]),
            tuple(content["damaged"]),
        )


def summarise(folder: Path, seconds: float) -> Summary:
    """The whole queue, or what of it can be read in that time. Raises OSError."""
    return look(folder, Selection(), 0, seconds).summary


def look(folder: Path, selection: Selection, limit: int | None, seconds: float) -> Listing:
    """What is meant, at most `limit` messages of it one by one. Raises OSError.

    It ends after so many seconds: what was not read by then is missing.
    """
    paths = [*files(folder), *files(folder.with_name(folder.name + PARKED))]
    deadline = time.monotonic() + seconds
    tally = _Tally(limit)
    for path in _selected(folder, selection, paths):
        if time.monotonic() > deadline:
            break
        name = _id_of(path)
        try:
            item = read(path)
        except FileNotFoundError:
            tally.unknown.append(name)  # or delivered meanwhile
            continue
        except (OSError, ValueError):
            tally.looked_at += 1
            tally.damaged.append(name)
            continue
        tally.looked_at += 1
        tally.add(item, selection)
    summary = Summary(
        len(paths), tally.looked_at, len(tally.damaged), tally.oldest, tally.largest()
    )
    return Listing(
        summary,
        tally.meant,
        tuple(tally.kept()),
        tuple(tally.unknown) if selection.ids else (),
        tuple(sorted(filter(is_id, tally.damaged))[: None if selection.ids else _MAX_NAMES]),
    )


def _selected(folder: Path, selection: Selection, paths: Sequence[Path]) -> Sequence[Path]:
    if not selection.ids:
        return paths
    parked = {_id_of(path): path for path in paths if path.parent != folder}
    return [parked.get(name, folder / f"{PREFIX}{name}") for name in selection.ids if is_id(name)]


@dataclass
class _Tally:
    limit: int | None
    looked_at: int = 0
    meant: int = 0
    oldest: float | None = None
    damaged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    _destinations: dict[str, Destination] = field(default_factory=dict)
    _rows: list[Waiting] = field(default_factory=list)

    def add(self, item: Item, selection: Selection) -> None:
        row = Waiting.of(item, selection)
        if row is None:
            return
        self.meant += 1
        self.oldest = item.created if self.oldest is None else min(self.oldest, item.created)
        for recipient in item.recipients:
            if recipient.status is Status.PENDING and selection.is_to(recipient):
                self._count(recipient, item.created)
        self._rows.append(row)
        if self.limit is not None and len(self._rows) > 2 * self.limit + 100:
            self._rows = list(self.kept())

    def kept(self) -> Sequence[Waiting]:
        """The oldest, as many as are wanted."""
        if self.limit is None:
            return sorted(self._rows, key=_by_age)
        return heapq.nsmallest(self.limit, self._rows, key=_by_age)

    def largest(self) -> tuple[Destination, ...]:
        """Those for which most waits."""
        found = sorted(self._destinations.values(), key=lambda one: (-one.waiting, one.domain))
        return tuple(found[:_MAX_DESTINATIONS])

    def _count(self, recipient: Recipient, created: float) -> None:
        domain = recipient.destination
        before = self._destinations.get(domain)
        if before is None:
            self._destinations[domain] = Destination(domain, 1, created, recipient.answer)
            return
        older = created < before.oldest
        first, second = (
            (recipient.answer, before.answer) if older else (before.answer, recipient.answer)
        )
        self._destinations[domain] = Destination(
            domain, before.waiting + 1, min(created, before.oldest), first or second
        )


def _by_age(item: Waiting) -> tuple[float, str]:
    return item.created, item.id
