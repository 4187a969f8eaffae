"""Changes that chasquid has yet to take up: recorded before its files change, until it has.

Whoever changes them may be killed before chasquid is told. The files are as planned then, so nobody
else would see that chasquid still serves the old ones. It is remembered on the tmpfs: a new
container starts a new chasquid, which reads everything.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.converge import apply
from entrypoint.converge.plan import Effect

_PATIENCE = 60.0  # seconds; telling the holder takes 20 at most


@dataclass(frozen=True)
class Pending:
    """`pid` is who changed the files last, `token` which change that was; `since` is in seconds
    since 1970."""

    effect: Effect
    pid: int
    token: str
    since: float

    def is_abandoned(self) -> bool:
        """True if the process that made the change has died, or has not told chasquid for 60 s."""
        return not Path(f"/proc/{self.pid}").exists() or time.time() - self.since > _PATIENCE


@dataclass
class Ledger:
    """For one reconcile: call it before a file changes that chasquid reads."""

    paths: Paths
    ids: Ids
    _noted: Effect = Effect.NONE

    def __call__(self, effect: Effect) -> None:
        """Caller holds the edit lock."""
        if effect <= self._noted:
            return
        self._noted = effect
        known = read(self.paths)
        effect = max(effect, known.effect) if known else effect
        text = f"{effect.name} {os.getpid()} {secrets.token_hex(4)}\n"
        apply.write(self.paths.changes, text.encode(), self.ids)


def read(paths: Paths) -> Pending | None:
    """What is pending, if anything is. Raises OSError."""
    try:
        text, since = paths.changes.read_text(), paths.changes.stat().st_mtime
        name, pid, token = text.split()
        return Pending(Effect[name], int(pid), token, since)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError):  # nothing of tambo's; but a restart covers whatever it was
        return Pending(Effect.RESTART, 0, "", 0.0)


def settle(paths: Paths, left: Pending | None, served: Effect) -> None:
    """Strike out what was read before chasquid was told, unless more is pending since.

    Caller holds the edit lock, and held it when reading: so nobody was half way through a change.
    """
    now = read(paths)
    if left and now and left.effect <= served and now == left:
        apply.remove(paths.changes)


def clear(paths: Paths) -> None:
    """For the boot, which starts chasquid after all changes. Caller holds the edit lock."""
    if read(paths):
        apply.remove(paths.changes)
