"""How many bytes the Maildirs below data/mail have, for MAILBOX_MB.

Measured in threads of its own, never in the event loop; again when 30 seconds have passed and
somebody asks. A measurement ends as soon as the limit is reached, or after so many files or
seconds: what it found is then less than there is. Links are not followed. What is taken is added at
once, since it is delivered later.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.services.mda import folder_name

_HOLDS = 30.0  # seconds for which a measurement holds
_WAIT = 2.0  # seconds for which a message waits for one
_MOST_FILES = 1_000_000  # of one Maildir
_MOST_SECONDS = 5.0  # for one Maildir
_MOST_KNOWN = 10_000  # Maildirs
_THREADS = 2


@dataclass
class Measured:
    """`size` in bytes, with what was taken since; None if it could not be read. `at` in seconds of
    the monotonic clock."""

    size: int | None
    at: float


@dataclass
class Mailboxes:
    """For one event loop. A mailbox is `name@domain`, the domain as A-labels."""

    mail: Path
    clock: Callable[[], float] = time.monotonic
    known: dict[str, Measured] = field(default_factory=dict)
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_THREADS, "mailboxes")
    )

    def size(self, mailbox: str) -> int | None:
        """As it was found last; None if that is unknown."""
        found = self.known.get(mailbox)
        return found.size if found else None

    def take(self, mailboxes: Collection[str], size: int) -> None:
        """A message of so many bytes goes to them."""
        for name in mailboxes:
            found = self.known.get(name)
            if found and found.size is not None:
                found.size += size

    async def measure(self, mailboxes: Collection[str], enough: int, wait: float = _WAIT) -> None:
        """Measure those that were not within 30 seconds; up to `enough` bytes. Returns after `wait`
        seconds at the latest, while the work goes on."""
        now = self.clock()
        tasks = []
        for name in mailboxes:
            found = self.known.get(name)
            if found and now - found.at < _HOLDS:
                continue
            if name not in self._under_way:
                self._under_way[name] = asyncio.create_task(self._measure(name, enough))
            tasks.append(self._under_way[name])
        if tasks:
            await asyncio.wait(tasks, timeout=wait)

    async def _measure(self, name: str, enough: int) -> None:
        size = None
        try:
            with suppress(OSError):
                loop = asyncio.get_running_loop()
                folder = self.mail / maildir(name)
                size = await loop.run_in_executor(self._threads, measure, folder, enough)
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[name] = Measured(size, self.clock())
        finally:
            self._under_way.pop(name, None)


def maildir(mailbox: str) -> Path:
    """Where the delivery agent keeps it, below data/mail."""
    local, _, domain = mailbox.rpartition("@")
    return Path(folder_name(domain), folder_name(local))


def measure(folder: Path, enough: int) -> int:
    """The bytes of all files below a folder, as du counts them, or so many that it is `enough`.
    Zero if there is no folder. Raises OSError if it cannot be read."""
    size = 0
    until = time.monotonic() + _MOST_SECONDS
    for number, found in enumerate(_files(folder)):
        size += max(found.st_size, found.st_blocks * 512)
        if size >= enough or number >= _MOST_FILES or time.monotonic() > until:
            break
    return size


def _files(top: Path) -> Iterator[os.stat_result]:
    waiting = [str(top)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # a mail program has moved or deleted it
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
                    elif stat.S_ISREG(found.st_mode):
                        yield found
        except FileNotFoundError:
            continue
