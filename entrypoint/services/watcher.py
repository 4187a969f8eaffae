"""Waits for one message to come into chasquid's queue, and shows it as chasquid made it.

    watcher TOKEN       a text that stands in the message, and in no other

It prints {"watching": true} as soon as it looks, then one object with the message's queue id, its
bytes (base64) and its recipients, or with an error. A message may be in the queue for some
milliseconds only, so the caller submits it once it is told that somebody looks.

A process of its own, started by the socket holder: see reader.py.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import stat
import sys
import time
from pathlib import Path
from typing import Any

from entrypoint.chasquid import textproto
from entrypoint.common.paths import Paths

_SECONDS = 5.0  # for the message to come
_PAUSE = 0.002  # seconds between looks
_MEMORY = 512 << 20  # bytes of address space
_MAX_ITEM = 256 << 10  # bytes of a file that may be the one
_PREFIX = "m:"
_BOUNCE = re.compile(rb'^from: *"<>"', re.MULTILINE)


def main() -> int:
    """A line of JSON when it watches, another with what came. Bounded in memory and CPU time."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (15, 15))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    [token] = sys.argv[1:]
    folder = Paths().queue / "queue"
    seen = _names(folder)
    _say({"watching": True})
    _say(watch(folder, token, seen, _SECONDS))
    return 0


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def watch(folder: Path, token: str, seen: set[str], seconds: float) -> dict[str, Any]:
    """The first message with `token` among the files of `folder` that are not in `seen`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = _names(folder)
        for name in now - seen:
            raw = _content(folder / name)
            # A message that is refused at once comes back in the bounce of chasquid's own.
            if token.encode() in raw and not _BOUNCE.search(raw):
                return _shown(raw)
        seen = now
        time.sleep(_PAUSE)
    return {"error": "the message was not seen in the queue"}


def _names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {item.name for item in entries if item.name.startswith(_PREFIX)}
    except FileNotFoundError:
        return set()  # chasquid makes the folder


def _content(path: Path) -> bytes:
    """Nothing for what is gone, or cannot be a small message."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as stream:  # noqa: PTH123 (a descriptor)
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_ITEM:
                return b""
            return stream.read(_MAX_ITEM)
    except OSError:
        return b""


def _shown(raw: bytes) -> dict[str, Any]:
    try:
        item = textproto.parse(raw.decode(errors="replace"), textproto.QueueMessage)
    except ValueError as error:
        return {"error": str(error)}
    return {
        "id": item.ID,
        "message": base64.b64encode(item.data).decode(),
        "recipients": [recipient.address for recipient in item.rcpt],
    }


if __name__ == "__main__":
    sys.exit(main())
