"""The recorder: writes what the holder hands it into the store of events.

    recorder STYLE        STYLE as log.configure takes it

A process of its own, so that a slow disk, a full one or a damaged store holds up nothing else. It
is small: it imports no settings, and has none of their values in its environment.

The protocol, a line each: the holder says {"session": …, "keep_days": …}; the answer is the number
of the last event of that session that is stored, {"stored": n}; then come events, [n, {…}], and
after each transaction another {"stored": n}. What was not confirmed is sent again.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint.chasquid.maillog import Event
from entrypoint.common import identity, log, rpc
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.history.client import Query
from entrypoint.history.store import NAME, Store, answer, is_damage

_GATHER = 0.1  # seconds that the first event waits for others, to share a transaction
_CHUNK = 1 << 18  # bytes read at once
_MAX_LINE = 1 << 20  # bytes without a newline, after which it cannot be the holder
_MAX_BATCH = 4 << 20  # bytes of events in one transaction
_BACKLOG = 4  # there is one holder
_RETRY = 2.0  # seconds between tries to store
_PRUNE = 60.0  # seconds between looks for what is too old
_PRUNED = 20  # steps of that in one go
_DAY = 86400.0


def main() -> int:
    """Started as root: binds, drops to chasquid's user for good, works until SIGTERM."""
    log.configure(sys.argv[1], "recorder")
    paths, ids = Paths(), Ids.image()
    try:
        door = rpc.listen(paths.recorder_socket, ids, Owner.CHASQUID, _BACKLOG)
    except OSError as error:
        log.complain(f"error: cannot listen at {paths.recorder_socket}: {error.strerror}")
        return 1
    identity.drop(ids, Owner.CHASQUID)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    Recorder(paths.events, door, wake_read).run()
    return 0


@dataclass
class Recorder:
    """`stop` becomes readable when it shall end."""

    folder: Path
    door: socket.socket
    stop: int
    log: Callable[[str, str], None] = log.log

    _store: Store | None = None
    _holder: socket.socket | None = None
    _session: str = ""
    _since: float = 0.0  # days that events are kept
    _owes: bool = False  # whether the holder waits for the answer to its greeting
    _buffer: bytes = b""
    _batch: list[tuple[int, Event]] = field(default_factory=list)
    _last: int = 0  # the number of the last event of the batch, understood or not
    _trouble: str = ""
    _next_prune: float = 0.0

    def run(self) -> None:
        stopping = False
        while not stopping:
            # What cannot be stored is not read either: it waits with the holder.
            full = bool(self._batch) or self._owes
            sources: list[Any] = [self.stop, self.door]
            if self._holder and not full:
                sources.append(self._holder)
            ready, _, _ = select.select(sources, [], [], _RETRY if full else _PRUNE)
            stopping = self.stop in ready
            if self.door in ready:
                self._accept()
            elif self._holder and (self._holder in ready or stopping) and not full:
                self._read()
            self._save()
            self._prune()
        if self._store:
            self._store.close()

    def _accept(self) -> None:
        """The newest one is the holder: one that died may leave its connection to nobody."""
        self._hang_up()
        self._holder, _ = self.door.accept()
        self._holder.setblocking(False)

    def _hang_up(self) -> None:
        if self._holder:
            self._holder.close()
        self._holder, self._session, self._buffer = None, "", b""
        self._owes, self._batch, self._last = False, [], 0

    def _read(self) -> None:
        time.sleep(_GATHER)
        size, ended = 0, False
        while size < _MAX_BATCH and not ended:
            try:
                assert self._holder is not None  # noqa: S101 (the caller looked)
                chunk = self._holder.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            ended, size = not chunk, size + len(chunk)
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            if len(self._buffer) > _MAX_LINE:
                ended = True
            for line in lines:
                self._take(line)
        if ended:
            self._save()
            self._hang_up()

    def _take(self, line: bytes) -> None:
        try:
            content = json.loads(line)
            if not self._session:
                self._session = str(content["session"])[:100]
                self._since = float(content["keep_days"])
                self._owes = True
                return
            number, fields = int(content[0]), content[1]
            if not 0 < number < 1 << 62:
                raise ValueError  # SQLite takes no more
        except (ValueError, KeyError, TypeError, IndexError, OverflowError):
            self.log("recorder", "error: a line is not the holder's")
            return
        self._last = number
        try:
            self._batch.append((number, Event.from_json(fields)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.log("recorder", f"error: an event is not understood: {error!r}")

    def _save(self) -> None:
        """Store what was read, and say so; or keep it for the next try."""
        if not self._owes and not self._last:
            return
        try:
            store = self._open()
            if self._batch:
                store.add(self._session, self._batch)
            stored = max(self._last, store.stored(self._session))
        except sqlite3.Error as error:
            self._fail(error)
            return
        except OSError as error:
            self._say(error.strerror or str(error))
            return
        self._say("")
        self._owes, self._batch, self._last = False, [], 0
        if self._holder:
            try:
                self._holder.sendall(json.dumps({"stored": stored}).encode() + b"\n")
            except OSError:
                self._hang_up()

    def _open(self) -> Store:
        if self._store and not self._store.is_there:
            self._store.close()
            self._store = None
        if not self._store:
            self._store = Store(self.folder)
        return self._store

    def _fail(self, error: sqlite3.Error) -> None:
        if not is_damage(error):
            self._say(str(error))
            return
        if self._store:
            self._store.close()
            self._store = None
        aside = self.folder / f"{NAME}.damaged"
        try:
            for suffix in ("-wal", "-shm"):
                (self.folder / f"{NAME}{suffix}").unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                (self.folder / NAME).replace(aside)
        except OSError as trouble:
            self._say(trouble.strerror or str(trouble))
            return
        self.log(
            "recorder",
            f"error: the store of events is damaged ({error}): a new one is begun, and the old one "
            f"is {aside}",
        )

    def _say(self, trouble: str) -> None:
        """A trouble when it comes, and that it has gone."""
        if trouble and not self._trouble:
            self.log("recorder", f"error: events cannot be stored: {trouble}. Tried again.")
        elif self._trouble and not trouble:
            self.log("recorder", "events are stored again")
        self._trouble = trouble

    def _prune(self) -> None:
        if not self._store or time.monotonic() < self._next_prune:
            return
        more = True
        try:
            # As a reader sees it: what is open here lives on in memory, however the file fares.
            answer(self.folder, Query("history", limit=1))
            for _ in range(_PRUNED):
                more = more and self._store.prune(time.time() - self._since * _DAY)
        except sqlite3.Error as error:
            more = False
            if is_damage(error):
                self._fail(error)
        self._next_prune = time.monotonic() + (0 if more else _PRUNE)


if __name__ == "__main__":
    sys.exit(main())
