"""Files of chasquid's that go while it is down: messages of its queue, what it knows of a domain.

chasquid holds both in memory as well. What is removed while it runs it delivers all the same, or
writes again.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote_plus

from entrypoint.chasquid.backlog import PARKED
from entrypoint.chasquid.maillog import Event, Kind, clean
from entrypoint.services.parking import parked_files, sync

# A folder of chasquid's, and how its files are called (queue.go; url.QueryEscape in protoio.go).
_FOLDERS = {
    "queue": re.compile(r"m:[A-Za-z0-9_-]{1,64}"),
    "domaininfo": re.compile(r"s:[A-Za-z0-9_.%+~-]{1,253}"),
}
_MAX_NAME = 400  # characters of an address


@dataclass(frozen=True)
class Removal:
    """`files` are names, each with what is known of the message: `sender` and `recipients`."""

    folder: Path
    files: Mapping[str, Mapping[str, Any]]

    @classmethod
    def parse(cls, text: str, data: Path) -> Self:
        """From `{"folder": …, "files": {…}}`; `data` holds the folders. Raises ValueError."""
        asked = json.loads(text)
        try:
            pattern = _FOLDERS[asked["folder"]]
            files = {str(name): dict(known) for name, known in asked["files"].items()}
        except (KeyError, TypeError, AttributeError, ValueError):
            msg = "no folder, or no files"
            raise ValueError(msg) from None
        odd = next((name for name in files if not pattern.fullmatch(name)), None)
        if odd is not None:
            msg = f"not a file of chasquid's: {clean(odd)[:80]}"
            raise ValueError(msg)
        return cls(data / asked["folder"], files)

    def told(self, name: str, at: float) -> Event:
        """What is told of a file that has gone."""
        kind, _, rest = name.partition(":")
        if kind != "m":
            text = f"what chasquid knew of the TLS of {clean(unquote_plus(rest))} is forgotten"
            return Event(Kind.OTHER, at, text=text)
        known = self.files[name]
        sender = clean(str(known.get("sender", "")), _MAX_NAME)
        recipients = tuple(clean(str(one), _MAX_NAME) for one in known.get("recipients", ()))
        return Event(Kind.DROPPED, at, id=rest, sender=sender, recipients=recipients)

    def is_void(self) -> bool:
        """Whether none of the files is there. Raises OSError."""
        with self._open() as folder:
            if folder is not None and any(_is_file(name, folder) for name in self.files):
                return False
        return not self._parked()

    def carry_out(self) -> Iterator[str]:
        """Each file's name once it has gone, for good. Raises OSError, with the rest left there."""
        yield from self._carry_out_parked()
        with self._open() as folder:
            if folder is None:
                return
            try:
                for name in self.files:
                    if _is_file(name, folder):
                        os.unlink(name, dir_fd=folder)
                        yield name
            finally:
                os.fsync(folder)

    def _parked(self) -> dict[str, Path]:
        """Those of the messages that are parked (parking.py), and where."""
        if self.folder.name != "queue":
            return {}
        found = parked_files(self.folder.with_name(self.folder.name + PARKED))
        return {name: path for name, (path, _) in found.items() if name in self.files}

    def _carry_out_parked(self) -> Iterator[str]:
        for name, path in self._parked().items():
            path.unlink()
            sync(path.parent)
            yield name

    @contextmanager
    def _open(self) -> Iterator[int | None]:
        """The folder's descriptor: what is below it cannot be exchanged for another."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd: int | None = None
        with suppress(FileNotFoundError):
            fd = os.open(self.folder, flags)
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)


def _is_file(name: str, folder: int) -> bool:
    """Not for a link: whatever that is, chasquid did not make it."""
    with suppress(FileNotFoundError):
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    return False
