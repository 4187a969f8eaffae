"""Waiting for changes in folders, told by the kernel: inotify(7).

A `Watch` covers each of its roots and the folders directly in it, as data/domains and one folder a
domain; if it is `deep`, all folders below. None whose name begins with a dot is covered. What
happened is not read from the events: an event means that the caller should look. So lost ones do no
harm (IN_Q_OVERFLOW is an event too), nor do names that somebody chose, and after each event the
folders are listed anew, which covers those that came. IN_MODIFY is left out: a file is worth a look
when its writer has closed it, not when it is half written.

The kernel tells what this machine does, on the host or in any container of it. It does not tell
what another machine does on a network file system, what is written through another name of a file
(a hard link, a link's target), or anything when its limits are used up. So `wait` always has an
end, and the caller looks then too.

What must never happen: a caller that spins because a file is written a thousand times a second
(`wait` returns at most twice a second for events); all watches of the user used up by folders that
somebody made (_MOST); a watch on what a link leads to, where the caller's own writes may wake it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

SETTLE = 0.2  # seconds from an event to its look: an editor writes, renames, sets the mode
APART = 0.5  # seconds between two looks that events asked for
_MOST = 1024  # folders; the kernel may allow a user no more than 8192 (max_user_watches)
_CHUNK = 64 << 10  # bytes of events
_CHUNKS = 128  # all that a full queue holds: max_queued_events of 16384, 272 bytes at most each

# linux/inotify.h
_ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x4, 0x8, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_ONLYDIR, _DONT_FOLLOW = 0x1000000, 0x2000000
_EVENTS = (
    _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
)
_MASK = _EVENTS | _ONLYDIR | _DONT_FOLLOW
# The limits that are used up: of watches, of instances or descriptors, of memory; or no inotify.
_REFUSED = (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSYS, errno.EPERM)

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Of `roots` and the folders in them (`deep`: at any depth, the upper ones first).

    For one thread; only `wake` is safe from anywhere. `refused` is why not all is watched,
    for the log; empty if it is.
    """

    def __init__(self, roots: Sequence[Path], *, deep: bool = False) -> None:
        self.refused = ""
        self._roots, self._deep = roots, deep
        self._inotify = -1  # a descriptor
        self._woken = os.eventfd(0)
        self._watches: frozenset[int] = frozenset()
        self._last = -APART  # time.monotonic()
        self._cover()

    def close(self) -> None:
        os.close(self._woken)
        if self._inotify >= 0:
            os.close(self._inotify)

    def wake(self) -> None:
        """`wait` returns at once, now and from now on. For signal handlers."""
        os.eventfd_write(self._woken, 1)

    def wait(self, seconds: float) -> bool:
        """Whether something changed; False after `seconds`, or when woken.

        What happened before it returned, a look that follows it sees; what happens later, the next
        `wait` tells.
        """
        self._cover()
        told = _readable([fd for fd in (self._woken, self._inotify) if fd >= 0], seconds)
        if self._inotify not in told:
            return False
        pause = max(SETTLE, self._last + APART - time.monotonic())
        if _readable([self._woken], pause):
            return False
        self._drain()
        self._cover()
        self._last = time.monotonic()
        return True

    def _cover(self) -> None:
        """Watch each folder, which changes nothing for one that is watched; and forget others."""
        refused, found = "", set()
        try:
            if self._inotify < 0:
                self._inotify = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.refused = _words(error, "fs.inotify.max_user_instances")
            return
        folders = _folders(self._roots, deep=self._deep)
        for folder in islice(folders, _MOST):
            try:
                name = os.fsencode(folder)
                found.add(_call("inotify_add_watch", self._inotify, name, _MASK))
            except OSError as error:
                # Any other: it is gone, a link, or nothing that the caller may read either.
                if error.errno in _REFUSED:
                    refused = _words(error, "fs.inotify.max_user_watches")
        if next(folders, None):
            refused = f"there are more than {_MOST} folders"
        for watch in self._watches - found:
            with suppress(OSError):  # those of folders that are no more went with them
                _call("inotify_rm_watch", self._inotify, watch)
        self._watches, self.refused = frozenset(found), refused

    def _drain(self) -> None:
        """Take what was told so far; more than a full queue is left for the next time."""
        with suppress(BlockingIOError):
            for _ in range(_CHUNKS):
                os.read(self._inotify, _CHUNK)


def _folders(roots: Sequence[Path], *, deep: bool) -> Iterator[str]:
    yield from map(str, roots)
    below = deque(str(root) for root in roots if not root.is_symlink())
    while below:
        with suppress(OSError), os.scandir(below.popleft()) as entries:
            for entry in entries:
                if entry.name[0] != "." and entry.is_dir(follow_symlinks=False):
                    yield entry.path
                    if deep:
                        below.append(entry.path)


def _readable(descriptors: Sequence[int], seconds: float) -> list[int]:
    poll = select.poll()
    for fd in descriptors:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)]


def _call(name: str, *arguments: int | bytes) -> int:
    """A function of the C library; raises OSError."""
    found = int(getattr(_libc, name)(*arguments))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return found


def _words(error: OSError, limit: str) -> str:
    """With the limit that a person may raise, if it is one."""
    fix = f" (the host's {limit})" if error.errno in (errno.ENOSPC, errno.EMFILE) else ""
    return f"{error.filename}: {error.strerror}{fix}"
