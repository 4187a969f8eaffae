"""Deletes reports of DMARC and TLS (mail to rua@ and ruf@) that are older than 60 days.

The doctor and `status` read those of the last week. Anybody may send such mail and nobody reads it
by hand, so it would fill the disk. Only messages of the two Maildirs are removed, never a link, so
many at once at most that nothing else waits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

BOXES = ("rua", "ruf")
LIFE = 60 * 86400.0  # seconds
MOST = 500  # messages at once


def sweep(mail: Path, now: float) -> int:
    """How many were deleted of the Maildirs below `mail`. `now` in seconds since 1970."""
    gone = 0
    for path in _old(mail, now - LIFE):
        if gone >= MOST:
            break
        with suppress(OSError):
            path.unlink()
            gone += 1
    return gone


def _old(mail: Path, before: float) -> Iterator[Path]:
    for domain in _folders(mail):
        for box in BOXES:
            for part in ("new", "cur"):
                folder = domain / box / part
                with suppress(OSError), os.scandir(folder) as entries:
                    for entry in entries:
                        found = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(found.st_mode) and found.st_mtime < before:
                            yield Path(entry.path)


def _folders(mail: Path) -> list[Path]:
    try:
        with os.scandir(mail) as entries:
            return [Path(item.path) for item in entries if item.is_dir(follow_symlinks=False)]
    except OSError:
        return []
