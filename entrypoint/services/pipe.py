"""Bytes passed between two connected sockets, both ways, unchanged, until both ends have ended.

An end of file is passed on by itself (shutdown(2)), so that each side may finish what it says. What
one side cannot take yet is kept, at most a chunk each way, and the other is not read meanwhile.
One that goes on for long after the other has ended is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 65536  # bytes
_LINGER = 30.0  # seconds for one side to end after the other has


class Pipe:
    """For one asyncio loop; owns both sockets, which must not block. `ended` is called once, when
    both are closed."""

    def __init__(self, one: socket.socket, other: socket.socket, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._other = {one: other, other: one}
        self._unsent: dict[socket.socket, memoryview] = {}  # for whom it is
        self._silent: set[socket.socket] = set()  # those that have said all
        self._is_open = True
        self._last: asyncio.TimerHandle | None = None
        self.passed = {one: 0, other: 0}  # bytes that each said
        for item in (one, other):
            self._loop.add_reader(item, self._read, item)

    def _read(self, source: socket.socket) -> None:
        try:
            chunk = source.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset, and with it what was under way
            self.close()
            return
        if chunk:
            self.passed[source] += len(chunk)
            self._send(memoryview(chunk), source)
        else:
            self._end_of(source)

    def _send(self, content: memoryview, source: socket.socket) -> None:
        target = self._other[source]
        try:
            sent = target.send(content)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(content):
            self._unsent[target] = content[sent:]
            self._loop.remove_reader(source)
            self._loop.add_writer(target, self._write, target)

    def _write(self, target: socket.socket) -> None:
        source = self._other[target]
        self._loop.remove_writer(target)
        self._loop.add_reader(source, self._read, source)
        self._send(self._unsent.pop(target), source)

    def _end_of(self, source: socket.socket) -> None:
        self._loop.remove_reader(source)
        self._silent.add(source)
        with suppress(OSError):
            self._other[source].shutdown(socket.SHUT_WR)
        if len(self._silent) == len(self._other):
            self.close()
        else:
            self._last = self._loop.call_later(_LINGER, self.close)

    def close(self) -> None:
        """Both at once."""
        if not self._is_open:
            return
        self._is_open = False
        if self._last:
            self._last.cancel()
        for item in self._other:
            self._loop.remove_reader(item)
            self._loop.remove_writer(item)
            item.close()
        self._ended()
