"""Looks at what chasquid's user alone may read, and says in numbers what is there.

    reader queue
    reader look                         at messages of the queue: standard input says at which
    reader remembered DOMAIN            of the TLS that a domain had
    reader reports ADDRESS… DOMAIN…     of the last week, sent to these, about these
    reader events QUERY                 of the store: see entrypoint/history/client.py

Prints one JSON object. A process of its own, started by the socket holder for one look: what it
reads came from anybody, so its memory and its time are limited, and its user can do nothing else.
"""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from entrypoint.chasquid import domaininfo, queue
from entrypoint.common.paths import Paths
from entrypoint.history import client, reports, store
from entrypoint.services.mda import folder_name

_SECONDS = 5.0  # for the look itself
# For one that somebody waits for, perhaps while chasquid tries ten thousand messages at once.
_LONG = 15.0  # seconds
_MEMORY = 512 << 20  # bytes of address space
_WEEK = 7 * 86400.0
_MAX_MESSAGES = 2000


def main() -> int:
    """One question in argv, one JSON answer on standard output. Bounded in memory and CPU time."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    paths = Paths()
    what, *words = sys.argv[1:]
    found: dict[str, Any]
    if what == "queue":
        found = queue.summarise(paths.waiting, _SECONDS).to_json()
    elif what == "look":
        found = look(paths.waiting, json.load(sys.stdin), _LONG).to_json()
    elif what == "remembered":
        files = domaininfo.find(paths.domaininfo, words[0])
        found = {"files": [asdict(item) for item in files]}
    elif what == "events":
        found = stored_events(paths.events, words)
    else:
        found = kept_reports(paths.mail, words, time.time(), _SECONDS).to_json()
    sys.stdout.write(json.dumps(found))
    return 0


def stored_events(folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """The answer to a `client.Query`, or {"error": why}: of SQLite, or no question at all."""
    try:
        return store.answer(folder, client.Query.parse(words[0]))
    except (IndexError, ValueError, KeyError, TypeError) as error:
        return {"error": f"not a question: {error!r}"}
    except sqlite3.Error as error:
        return {"error": f"the store of events: {error}"}


def look(folder: Path, asked: dict[str, Any], seconds: float) -> queue.Listing:
    """`asked`: ids, to, sender as in queue.Selection, and limit. Raises KeyError or TypeError."""
    selection = queue.Selection(tuple(asked["ids"]), asked["to"], asked["sender"])
    return queue.look(folder, selection, asked["limit"], seconds)


def kept_reports(mail: Path, words: Sequence[str], now: float, seconds: float) -> reports.Summary:
    """The reports among the mail of the addresses among `words`, about the domains among them."""
    files = [path for word in words if "@" in word for path in _messages(mail, word, now - _WEEK)]
    files.sort(reverse=True)  # the newest first, should there be too many
    wanted = [path for _, path in files[:_MAX_MESSAGES]]
    deadline = time.monotonic() + seconds
    looked_at = 0

    def contents() -> Iterator[bytes]:
        nonlocal looked_at
        for path in wanted:
            if time.monotonic() > deadline:
                return
            looked_at += 1
            yield _content(path)

    summary = reports.summarise(contents(), [word for word in words if "@" not in word])
    return replace(summary, skipped=len(files) - looked_at)


def _messages(mail: Path, address: str, since: float) -> Iterator[tuple[float, Path]]:
    """The messages of an address's Maildir that came since then, with their times."""
    local, _, domain = address.rpartition("@")
    maildir = mail / folder_name(domain) / folder_name(local)
    for folder in (maildir / "new", maildir / "cur"):
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for item in entries:
                found = item.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_mtime >= since:
                    yield found.st_mtime, Path(item.path)


def _content(path: Path) -> bytes:
    """Nothing for a file that has gone meanwhile: it counts as unreadable."""
    try:
        with path.open("rb") as stream:
            return stream.read(reports.MAX_MESSAGE + 1)
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
