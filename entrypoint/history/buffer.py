"""What the holder hands to the recorder, without ever waiting for it."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common import log

_MAX_BYTES = 8 << 20  # of events that wait in memory: some 40,000
_OVERHEAD = 200  # bytes that Python needs for each, besides its own
_RETRY = 0.5  # seconds between tries to reach the recorder
_REPORT = 60.0  # seconds between lines on what is dropped


@dataclass
class Outbox:
    """Events in their order, each kept until the recorder has confirmed it. Single-threaded.

    When it is full, new events are dropped and counted; those that wait are older, and whole.
    """

    path: Path
    keep_days: int
    log: Callable[[str, str], None] = log.log
    max_bytes: int = _MAX_BYTES
    session: str = field(default_factory=lambda: secrets.token_hex(8))

    _waiting: deque[tuple[int, bytes, float]] = field(default_factory=deque)
    _sent: deque[tuple[int, bytes, float]] = field(default_factory=deque)  # not confirmed yet
    _bytes: int = 0
    _number: int = 0
    _dropped: int = 0  # in all
    _reported: int = 0
    _next_report: float = 0.0
    _connected: bool = False
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _empty: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, event: Event) -> None:
        """Never waits, never fails."""
        if event.kind is Kind.OTHER:
            return
        line = json.dumps([self._number + 1, event.to_json()]).encode() + b"\n"
        if self._bytes + len(line) + _OVERHEAD > self.max_bytes:
            self._dropped += 1
            self._report()
            return
        self._number += 1
        self._bytes += len(line) + _OVERHEAD
        self._waiting.append((self._number, line, event.at))
        self._more.set()
        self._empty.clear()

    def status(self) -> dict[str, Any]:
        """`oldest`: the time of the oldest event that is not stored yet, in seconds since 1970."""
        first = self._sent or self._waiting
        return {
            "connected": self._connected,
            "waiting": len(self._sent) + len(self._waiting),
            "oldest": first[0][2] if first else None,
            "dropped": self._dropped,
        }

    async def run(self) -> None:
        """Hand events over until cancelled."""
        while True:
            with suppress(OSError, ValueError, KeyError, TypeError):
                await self._talk()
            self._connected = False
            await asyncio.sleep(_RETRY)

    async def flush(self, seconds: float) -> None:
        """Wait until all is stored, but no longer than that."""
        if self._waiting or self._sent:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)

    async def _talk(self) -> None:
        """One connection, as long as it lasts."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            greeting = {"session": self.session, "keep_days": self.keep_days}
            writer.write(json.dumps(greeting).encode() + b"\n")
            # What the last connection did not confirm goes again, if the recorder has not got it.
            self._waiting.extendleft(reversed(self._sent))
            self._sent.clear()
            self._confirm(self._waiting, await _confirmation(reader))
            self._connected = True
            sending = asyncio.create_task(self._send(writer))
            try:
                while not sending.done():
                    self._confirm(self._sent, await _confirmation(reader))
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        while True:
            while self._waiting:
                item = self._waiting.popleft()
                self._sent.append(item)
                writer.write(item[1])
                await writer.drain()
            self._more.clear()
            await self._more.wait()

    def _confirm(self, events: deque[tuple[int, bytes, float]], number: int) -> None:
        while events and events[0][0] <= number:
            _, line, _ = events.popleft()
            self._bytes -= len(line) + _OVERHEAD
        if not self._sent and not self._waiting:
            self._empty.set()
            self._report(at_end=True)

    def _report(self, *, at_end: bool = False) -> None:
        """Say what was dropped: when it begins, each minute, and when it is over."""
        new = self._dropped - self._reported
        now = time.monotonic()
        if not new or (now < self._next_report and not at_end):
            return
        self._reported, self._next_report = self._dropped, now + _REPORT
        count = "1 event is" if new == 1 else f"{new} events are"
        self.log(
            "smtp",
            f"error: the recorder does not take events: {count} missing from the history; "
            "the log has them",
        )


async def _confirmation(reader: asyncio.StreamReader) -> int:
    """Raises ConnectionError when the recorder has gone."""
    line = await reader.readline()
    if not line.endswith(b"\n"):
        msg = "the recorder has gone"
        raise ConnectionError(msg)
    return int(json.loads(line)["stored"])
