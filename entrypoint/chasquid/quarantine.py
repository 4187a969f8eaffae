"""Queue files at which chasquid would end or hang when it starts: put aside before it reads.

chasquid reads every `m:*` of its queue before it listens (internal/queue/queue.go, Load). Of a file
without `created_at_ts` (an empty one too: it is a valid message of protocol buffers) it takes the
time of a null pointer and ends, each time anew; at a pipe it waits for ever. A file that does not
parse it only complains of, so that stays. Only while chasquid is down, and as its own user.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from entrypoint.chasquid.backlog import files

FOLDER = "queue.damaged"  # beside the queue
_CREATED = b"created_at_ts"


def put_aside(data: Path) -> list[tuple[str, str]]:
    """Move what chasquid would not survive from `data`/queue to `data`/queue.damaged.

    The names of what was moved, with the reason. Raises OSError if one could not be moved.
    """
    moved = []
    for path in files(data / "queue"):
        if why := trouble(path):
            (data / FOLDER).mkdir(mode=0o700, exist_ok=True)
            path.rename(data / FOLDER / path.name)
            moved.append((path.name, why))
    return moved


def trouble(path: Path) -> str:
    """Why chasquid must not read this; empty if it may."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError:
        return "it is a link, or cannot be opened"
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return "it is no file"
        if found.st_size == 0:
            return "it is empty"
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as content:
            # Text of a message holds no raw line end, so this is a field at the top level.
            has_time = content.rfind(b"\n" + _CREATED) >= 0 or content[: len(_CREATED)] == _CREATED
    finally:
        os.close(fd)
    return "" if has_time else "it does not say when its message was taken"
