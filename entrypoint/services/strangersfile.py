"""data/policy/strangers.json: who logged in from where, and who is blocked, over restarts.

A JSON object: `known` has the time of the last log-in by network and login, `blocks` are those of
policy/strangers.py. A damaged file is as good as none, and is said so once.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entrypoint.common import files

_MAX_FILE = 64 << 20  # bytes


class StrangersFile:
    """For a process with one thread, which must not wait for a disk: a child of its own does."""

    def __init__(self, path: Path, log: Callable[[str, str], None]) -> None:
        self.path = path
        self.log = log
        self._child = 0

    def load(self) -> dict[str, Any] | None:
        """None if there is nothing, or nothing that can be read."""
        try:
            with self.path.open("rb") as stream:
                found = json.loads(stream.read(_MAX_FILE))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.complain(str(error))
            return None
        return found if isinstance(found, dict) else None

    def complain(self, why: str) -> None:
        """Tell that what was kept is lost."""
        self.log("smtp", f"error: {self.path} cannot be read: {why}. Nobody is blocked, and nobody "
                 "is known to have logged in")  # fmt: skip

    def save(self, content: dict[str, Any]) -> bool:
        """Begin to write it; False if the last one is still being written."""
        if self._child:
            return False
        pid = os.fork()
        if not pid:
            status = 1
            try:
                self.save_now(content)
                status = 0
            finally:
                os._exit(status)
        self._child = pid
        watch = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(watch, self._saved, watch)
        return True

    def _saved(self, watch: int) -> None:
        asyncio.get_running_loop().remove_reader(watch)
        os.close(watch)
        self._wait()

    def _wait(self) -> None:
        if self._child:
            os.waitpid(self._child, 0)
            self._child = 0

    def save_now(self, content: dict[str, Any]) -> None:
        """Write it, after a child that is at it has ended. A failure is logged."""
        self._wait()
        try:
            files.write(self.path, json.dumps(content).encode())
        except OSError as error:
            self.log("smtp", f"error: {self.path} cannot be written: {error.strerror}")
