"""The store of events: one SQLite file of chasquid's user. One process writes, others may read.

Not safe for several writers: `services/recorder.py` is the only one. Every method may raise
sqlite3.Error; `is_damage` tells what waiting mends from what it does not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

from entrypoint.chasquid.maillog import Event, Kind, clean
from entrypoint.history.client import MOST, Query, Total

NAME = "events.db"
_VERSION = 1  # PRAGMA user_version
_MAX_BYTES = 512 << 20  # of the events kept; the file is not much larger, and never shrinks
_MAX_NOISE = 20_000  # strangers' events that are kept whatever their number
_BATCH = 1000  # events removed in one go
_SESSIONS = 50  # of the holder that are remembered
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    n INTEGER PRIMARY KEY, at REAL, kind TEXT, id TEXT, sender TEXT, recipients TEXT, peer TEXT,
    login TEXT, text TEXT, ok INTEGER, next REAL, destination TEXT
);
CREATE INDEX IF NOT EXISTS events_at ON events (at);
CREATE INDEX IF NOT EXISTS events_id ON events (id) WHERE id <> '';
CREATE INDEX IF NOT EXISTS events_noise ON events (n)
    WHERE kind = 'refused' OR kind = 'auth' AND NOT ok;
CREATE TABLE IF NOT EXISTS addresses (
    address TEXT, n INTEGER, PRIMARY KEY (address, n)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS logins (login TEXT PRIMARY KEY, at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (session TEXT PRIMARY KEY, stored INTEGER, n INTEGER)
    WITHOUT ROWID;
"""
_NOISE = "(kind = 'refused' OR kind = 'auth' AND NOT ok)"
_COLUMNS = "n, at, kind, id, sender, recipients, peer, login, text, ok, next, destination"
_INSERT = f"INSERT INTO events ({_COLUMNS}) VALUES ({', '.join('?' * 12)})"  # noqa: S608 (constants)
_KINDS = frozenset(kind.value for kind in Kind)
_MAX_NAME = 400  # characters of an address that are shown, as in chasquid's log
_MAX_RECIPIENTS = 1000
_LAST_TIME = 253402300800.0  # the year 10000
_TRIES = (Kind.SENT, Kind.DEFERRED, Kind.BOUNCED)


class ForeignError(sqlite3.DatabaseError):
    """A store of another version."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is of no use, so that only a new one helps."""
    if isinstance(error, ForeignError):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


class Store:
    """For the one writer."""

    def __init__(self, folder: Path, max_bytes: int = _MAX_BYTES) -> None:
        self.path = folder / NAME
        self._max_bytes = max_bytes
        self._db = sqlite3.connect(self.path, timeout=5.0, isolation_level=None)
        try:
            self.path.chmod(0o600)  # as after a restore; its companions take its mode
            # NORMAL: a power cut may cost the last events, never the file (sqlite.org/pragma.html).
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "temp_store = MEMORY",
                           "journal_size_limit = 4194304", "cache_size = -1000"):  # fmt: skip
                self._db.execute(f"PRAGMA {pragma}")
            [version] = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                msg = f"it is of version {version}, which is not known here"
                raise ForeignError(msg)
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT")
        except BaseException:
            self._db.close()
            raise
        self._inode = self.path.stat().st_ino

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_there(self) -> bool:
        """Whether the file is still the one that was opened: somebody may have removed it."""
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def stored(self, session: str) -> int:
        """The number of the last event of a session that was stored; 0 if none was."""
        query = "SELECT stored FROM sessions WHERE session = ?"
        found = self._db.execute(query, (session,)).fetchone()
        return int(found[0]) if found else 0

    def add(self, session: str, events: Sequence[tuple[int, Event]]) -> None:
        """Store a session's events with their numbers, all or none; those that it has are left out.

        So whoever sends them may send them again, and each is stored once.
        """
        with self._transaction():
            last = self.stored(session)
            new = [(number, event) for number, event in events if number > last]
            if not new:
                return
            [n] = self._db.execute("SELECT coalesce(max(n), 0) FROM events").fetchone()
            rows, addresses, logins = [], [], []
            for n, (_, event) in enumerate(new, n + 1):  # noqa: B020 (from there on)
                rows.append(_row(n, event))
                addresses += [(address, n) for address in _addresses(event)]
                if event.kind is Kind.AUTH and event.ok:
                    logins.append((event.login.lower(), event.at))
            self._db.executemany(_INSERT, rows)
            self._db.executemany("INSERT INTO addresses VALUES (?, ?)", addresses)
            self._db.executemany(
                "INSERT INTO logins VALUES (?, ?) "
                "ON CONFLICT (login) DO UPDATE SET at = max(at, excluded.at)",
                logins,
            )
            self._db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?) "
                "ON CONFLICT (session) DO UPDATE SET stored = excluded.stored, n = excluded.n",
                (session, new[-1][0], n),
            )
            self._db.execute(
                "DELETE FROM sessions WHERE session NOT IN "
                "(SELECT session FROM sessions ORDER BY n DESC LIMIT ?)",
                (_SESSIONS,),
            )

    def prune(self, since: float) -> bool:
        """Remove some of what is older, or too much; whether there may be more to remove."""
        [first] = self._db.execute("SELECT min(n) FROM events WHERE at >= ?", (since,)).fetchone()
        old = self._remove("n < ?", first) if first else self._remove("at < ?", since)
        if old:
            return True
        if self._bytes <= self._max_bytes:
            return False
        # Strangers must not push out the history of mail by knocking often enough.
        noise = f"SELECT count(*) FROM (SELECT n FROM events WHERE {_NOISE} LIMIT ?)"  # noqa: S608
        [count] = self._db.execute(noise, (_MAX_NOISE + 1,)).fetchone()
        return self._remove(_NOISE if count > _MAX_NOISE else "TRUE")

    @property
    def _bytes(self) -> int:
        """What the events take of the file."""
        values = ("page_count", "freelist_count", "page_size")
        pages, free, size = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in values)
        return int((pages - free) * size)

    def _remove(self, where: str, *values: float) -> bool:
        """The oldest of those; whether there were any."""
        with self._transaction():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM events WHERE {where} ORDER BY n LIMIT {_BATCH}",  # noqa: S608 (constants)
                values,
            ).fetchall()
            gone = [
                (address, row[0])
                for row in rows
                if (event := _event(row)) is not None
                for address in _addresses(event)
            ]
            self._db.executemany("DELETE FROM addresses WHERE address = ? AND n = ?", gone)
            self._db.executemany("DELETE FROM events WHERE n = ?", [(row[0],) for row in rows])
        return bool(rows)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _row(n: int, event: Event) -> tuple[object, ...]:
    destination = ""
    if event.kind in _TRIES and event.recipients:
        destination = event.recipients[0].rpartition("@")[2].lower()
    return (
        n, event.at, event.kind.value, event.id, event.sender, "\n".join(event.recipients),
        event.peer, event.login, event.text, int(event.ok), event.next, destination,
    )  # fmt: skip


def _event(row: Sequence[object]) -> Event | None:
    """What a row tells; None if it is none of ours. The file is chasquid's user's: nothing in it is
    certain, neither types nor sizes nor that it can be printed."""
    _, at, kind, id_, sender, recipients, peer, login, text, ok, next_, _ = row
    when, later = _time(at), _time(next_)
    if when is None or later is None or kind not in _KINDS:
        return None
    names = tuple(clean(name, _MAX_NAME) for name in _text(recipients).split("\n") if name)
    return Event(
        kind=Kind(str(kind)),
        at=when,
        id=clean(_text(id_), _MAX_NAME),
        sender=clean(_text(sender), _MAX_NAME),
        recipients=names[:_MAX_RECIPIENTS],
        peer=clean(_text(peer), _MAX_NAME),
        login=clean(_text(login), _MAX_NAME),
        text=clean(_text(text)),
        ok=bool(ok),
        next=later,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _time(value: object) -> float | None:
    """Seconds since 1970 that a calendar has; None for what is none."""
    if isinstance(value, int | float) and 0 <= value < _LAST_TIME:
        return float(value)
    return None


def _opened(folder: Path, timeout: float) -> sqlite3.Connection:
    """For looking. Text that is not UTF-8 is text all the same. Raises sqlite3.Error."""
    db = sqlite3.connect(f"file:{folder / NAME}?mode=rw", uri=True, timeout=timeout)
    db.text_factory = lambda raw: raw.decode(errors="replace")
    db.execute("PRAGMA query_only = ON")
    return db


def _addresses(event: Event) -> set[str]:
    """By which an event is found. A message's rounds and its end are found by its id alone."""
    if event.kind in (Kind.WAITING, Kind.DONE):
        return set()
    names = (event.sender, *event.recipients, event.login)
    return {name.lower() for name in names if name and name != "<>"}


def answer(folder: Path, query: Query) -> dict[str, object]:
    """What `history/client.py` asks for. Raises sqlite3.Error, also if there is no store yet."""
    with closing(_opened(folder, 2.0)) as db:
        if query.what == "logins":
            rows = db.execute("SELECT login, at FROM logins")
            return {"logins": {name: at for name, at in rows if _is_dated(name, at)}}
        if query.what == "totals":
            return {"totals": [vars(item) for item in _totals(db, query.since)]}
        if query.what == "deliveries":
            rows = db.execute(
                "SELECT destination, max(at) FROM events WHERE at >= ? AND kind = 'sent' "
                "GROUP BY destination",
                (query.since,),
            )
            return {"deliveries": {name: at for name, at in rows if _is_dated(name, at)}}
        return {"events": [event.to_json() for event in _history(db, query)]}


def after(
    folder: Path, number: int, since: float, kinds: Sequence[Kind], limit: int
) -> list[tuple[int, Event]]:
    """Events with their numbers, from behind one that was seen; those of a store that was begun
    anew if there is none. Raises sqlite3.Error."""
    with closing(_opened(folder, 0.2)) as db:
        [last] = db.execute("SELECT coalesce(max(n), 0) FROM events").fetchone()
        number = number if number <= last else 0
        while True:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM events WHERE n > ? AND at >= ? "  # noqa: S608 (constants)
                f"AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY n LIMIT ?",
                (number, since, *(kind.value for kind in kinds), limit),
            ).fetchall()
            found = [(row[0], event) for row in rows if (event := _event(row)) is not None]
            if found or len(rows) < limit:
                return found
            number = rows[-1][0]  # rows that are none of ours must not hide those behind them


def _history(db: sqlite3.Connection, query: Query) -> list[Event]:
    where, values = ["at >= ?"], [query.since]
    given: list[object] = list(values)
    if query.ids is not None:
        # The index has no empty ones.
        where.append(f"id IN ({', '.join('?' * len(query.ids))}) AND id <> ''")
        given += query.ids
    if query.address is not None:
        where.append("n IN (SELECT n FROM addresses WHERE address = ?)")
        given.append(query.address.lower())
    if query.kinds:
        where.append(f"kind IN ({', '.join('?' * len(query.kinds))})")
        given += [kind.value for kind in query.kinds]
    limit = max(1, min(query.limit, MOST))
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(where)} "  # noqa: S608 (constants)
        f"ORDER BY n DESC LIMIT {limit}",
        given,
    ).fetchall()
    return [event for row in reversed(rows) if (event := _event(row)) is not None]


def _totals(db: sqlite3.Connection, since: float) -> Iterable[Total]:
    rows = db.execute(
        "SELECT destination, sum(kind = 'sent'), sum(kind = 'deferred'), sum(kind = 'bounced') "
        "FROM events WHERE at >= ? AND kind IN ('sent', 'deferred', 'bounced') "
        "GROUP BY destination ORDER BY count(*) DESC, destination",
        (since,),
    )
    return [
        Total(clean(_text(name), _MAX_NAME), *(int(count or 0) for count in counts))
        for name, *counts in rows
    ]


def _is_dated(name: object, at: object) -> bool:
    return isinstance(name, str) and _time(at) is not None
