"""chasquid's queue by size and origin: how many bytes wait, and whose they are.

A look costs a stat of each file; a file is opened once in its life, since neither its size in
memory nor its origin changes. Nothing of it is trusted but what chasquid wrote on top.

Whose a message is stands in the first Received header, which chasquid adds on top of every message
that it takes (internal/smtpsrv/conn.go, addReceivedHeader; nothing that a client sends comes before
it), in its second line:

    Received: from NAME
        by HOST (chasquid) with ESMTPSA        a trailing A (RFC 3848): somebody had logged in

A bounce of chasquid's own (dsn.go) has no such header of its own; below its text, which it indents,
comes the message that bounced: the first line that begins with `Received:` is that one's, so it is
whose the message was. What cannot be told is a stranger's.
"""

from __future__ import annotations

import mmap
import os
import random
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

PARKED = ".parked"  # ends the folder, beside the queue, of what does not fit into memory
PREFIX = "m:"  # of the names of queue files; others are temporary
_HEAD = 64 << 10  # bytes of a message's text that are looked at for its origin
_SMALL = 256 << 10  # bytes of a file that is read whole
_SAMPLES = 24  # pieces of one that is larger
_SAMPLE = 8 << 10  # bytes of each
_MOST_OTHERS = 5000  # messages of another folder that are remembered
_MOST_READ = 500  # files that are opened in one look

_DATA = re.compile(rb'\ndata:\s*"')
_FROM = re.compile(rb'(?:^|\n)from:\s*"((?:[^"\\]|\\.)*)"')
_CREATED = re.compile(rb"\ncreated_at_ts:\s*\{\s*seconds:\s*(\d{1,12})")
_ESCAPE = re.compile(
    rb"\\(?:x[0-9A-Fa-f]{2}|[0-7]{3}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL
)
_RECEIVED = re.compile(rb"^Received: ", re.MULTILINE)
_HOW = re.compile(rb"Received: from [^\n]*\n\tby [^\n]* \(chasquid\) with ([A-Z]+)\r?\n")
_SPF = re.compile(rb"^Authentication-Results: [^\r\n]*\r?\n\t;spf=([a-z]+) ", re.MULTILINE)
_BOUNCE = b"From: Mail Delivery System <postmaster-dsn@"
_PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@dataclass(frozen=True)
class Origin:
    """Whose a message is. `bounce`: chasquid made it, of a message that was `login`'s or a
    stranger's. `proven`: SPF passed for its sender."""

    login: bool = False
    bounce: bool = False
    proven: bool = False


@dataclass(frozen=True)
class Message:
    """A file of the queue. `size` are the bytes of the message, `stored` those of the file.
    `created` in seconds since 1970, 0 if unknown."""

    name: str
    size: int
    stored: int
    origin: Origin = field(default_factory=Origin)
    sender: str = ""
    created: float = 0.0


def files(folder: Path) -> list[Path]:
    """The messages' files, in no order. Raises OSError, but not if there is no queue yet."""
    try:
        with os.scandir(folder) as entries:
            return [Path(item.path) for item in entries if item.name.startswith(PREFIX)]
    except FileNotFoundError:
        return []


def origin(sender: str, head: bytes) -> Origin:
    """By the beginning of a message's text in the queue."""
    bounce = sender == "<>" and head.startswith(_BOUNCE)
    found = _RECEIVED.search(head)
    if not found:
        return Origin(bounce=bounce)
    how = _HOW.match(head, found.start())
    spf = None if bounce else _SPF.search(head, 0, found.start())
    return Origin(
        login=bool(how and how[1].endswith(b"A")),
        bounce=bounce,
        proven=bool(spf and spf[1] == b"pass"),
    )


def unescaped(text: bytes) -> bytes:
    """The bytes that a string of a text protocol buffer stands for."""

    def one(match: re.Match[bytes]) -> bytes:
        code = match[0][1:]
        if code[:1] == b"x":
            return bytes([int(code[1:], 16)])
        if code[:1].isdigit():
            return bytes([int(code, 8) & 255])
        if code[:1] in b"uU":
            return chr(int(code[1:], 16)).encode(errors="replace")
        return _PLAIN.get(code, code)

    return _ESCAPE.sub(one, text)


def read(path: Path) -> Message:
    """One file. Raises OSError, also for a link. What is no message is a stranger's."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb"):  # noqa: PTH123 (a descriptor)
        stored = os.fstat(fd).st_size
        if not stored:
            return Message(path.name, 0, 0)
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as content:
            data = _DATA.search(content)
            start = data.end() if data else stored
            sender = _FROM.search(content, 0, start)
            created = _CREATED.search(content, max(0, stored - 512))
            said = unescaped(sender[1]).decode(errors="replace") if sender else ""
            return Message(
                path.name,
                _size(content, stored),
                stored,
                origin(said, unescaped(content[start : start + _HEAD])),
                said,
                float(created[1]) if created else 0.0,
            )


def _size(content: mmap.mmap, stored: int) -> int:
    """The bytes that the text stands for, estimated from pieces that nobody can foresee."""
    if stored <= _SMALL:
        return stored - _saved(content[:stored])
    pieces = (random.randrange(stored - _SAMPLE) for _ in range(_SAMPLES))  # noqa: S311
    saved = sum(_saved(content[at : at + _SAMPLE]) for at in pieces)
    return int(stored * (1 - saved / (_SAMPLES * _SAMPLE)))


def _saved(text: bytes) -> int:
    return sum(len(item) - 1 for item in _ESCAPE.findall(text))


@dataclass
class Backlog:
    """Knows the messages of one queue folder from look to look. Not for two threads."""

    folder: Path
    _known: dict[str, Message] = field(default_factory=dict)
    _others: dict[Path, Message] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many of those of the last look were read."""
        return len(self._known)

    def read(self, path: Path, name: str) -> Message:
        """A message of another folder, under its name in the queue; read once. Raises OSError and
        ValueError."""
        if path not in self._others:
            if len(self._others) > _MOST_OTHERS:
                self._others.clear()
            self._others[path] = replace(read(path), name=name)
        return self._others[path]

    def look(self) -> list[Message]:
        """What waits now. Nothing if there is no queue yet; raises OSError."""
        found: dict[str, Message] = {}
        unread: list[tuple[str, int]] = []
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if not entry.name.startswith(PREFIX):
                        continue
                    known = self._known.get(entry.name)
                    if known:
                        found[entry.name] = known
                    else:
                        unread.append((entry.name, _stored(entry)))
        except FileNotFoundError:
            return []
        counted = list(found.values())
        for number, (name, stored) in enumerate(unread):
            if number >= _MOST_READ:
                # Counted as the worst that it may be; read at the next look.
                counted.append(Message(name, stored, stored))
                continue
            try:
                found[name] = read(self.folder / name)
            except FileNotFoundError:
                continue  # delivered meanwhile
            except (OSError, ValueError):
                found[name] = Message(name, stored, stored)
            counted.append(found[name])
        self._known = found
        return counted


def _stored(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
