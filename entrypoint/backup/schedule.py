"""When the backup is made: soon after each change, and once in a while.

The kernel tells of changes (common/watch.py). What it does not tell of, as another machine's on a
network file system, is seen within 15 seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from entrypoint.backup.backup import Backup, Log, Signature, signature, words
from entrypoint.backup.git import GitError
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.common.watch import Watch
from entrypoint.settings.model import Settings
from entrypoint.state import load

_QUIET = 1.5  # seconds without a change after which a commit is made
_REST = 5.0  # seconds after a failure in which nothing is tried
_CHECK_REST = 600.0  # seconds after a check that could not be done
_LONGEST = 6.0  # seconds after the first change at which one is made all the same
_LOOK = 15.0  # seconds between looks that nothing asked for
_LOOK_UNTOLD = 1.0  # the same while the kernel does not tell of every change
_APART = 1.0  # seconds between two looks that only time asked for


@dataclass
class Keeping:
    """The keeper's part: a commit soon after each change, a push, a check now and then."""

    backup: Backup
    clock: Callable[[], float] = time.monotonic

    _seen: Signature | None = None
    _first: float = 0.0
    _last: float = 0.0
    _waiting: bool = True  # after a start all is looked at
    _rest_until: float = 0.0  # if a failure cannot even be noted, it is not tried in a loop
    _check_from: float = 0.0

    def rest(self) -> float:
        """Seconds from now to the next look that has a reason, if nothing changes."""
        now = self.clock()
        due = self.backup.due_in()
        if self._waiting:
            due = min(due, self._last + _QUIET - now, self._first + _LONGEST - now)
        else:
            due = min(due, max(self.backup.check_due_in(), self._check_from - now))
        return max(due, self._rest_until - now)

    def tick(self) -> None:
        """One look. Failures of the backup are logged and remembered, not raised."""
        seen, now = signature(self.backup.paths), self.clock()
        if self._seen is not None and seen != self._seen:
            self._last = now
            if not self._waiting:
                self._waiting, self._first = True, now
        self._seen = seen
        changed = self._waiting and (now - self._last >= _QUIET or now - self._first >= _LONGEST)
        if now < self._rest_until:
            return
        if changed or not self.backup.due_in():
            self._waiting = False
            self._run()
        elif not self._waiting and now >= self._check_from and not self.backup.check_due_in():
            self._check(seen)

    def _run(self) -> None:
        try:
            self.backup.run()
        except (UserError, OSError) as error:
            # Remembered: the keeper says it, and says when it is mended.
            self._rest_until = self.clock() + _REST
            # But for this: a verb was at work, and may have looked before the change.
            self._waiting = not isinstance(error, GitError) and _is_busy(error)

    def _check(self, seen: Signature) -> None:
        try:
            self.backup.log(f"checked: {self.backup.check(seen=seen)}")
        except (UserError, OSError) as error:
            self._check_from = self.clock() + _CHECK_REST
            if not _is_busy(error):
                self.backup.log(f"warn: checked: {words(error)[1]}")


def _is_busy(error: Exception) -> bool:
    """The remote is down, or somebody else is at work."""
    return isinstance(error, UserError) and error.exit_code == Exit.TRY_AGAIN


def keep(settings: Settings, paths: Paths, ids: Ids, log: Log, stop: threading.Event) -> None:
    """Work until a look finds `stop` set; returns at once if no remote is set."""
    if not settings.backup_git_remote:
        return
    keeping = Keeping(Backup(settings, paths, ids, log))
    rest = _APART
    with closing(Watch([paths.data / name for name in load.BACKED_UP], deep=True)) as watch:
        while True:
            watch.wait(min(rest, _LOOK_UNTOLD if watch.refused else _LOOK))
            if stop.is_set():
                return
            rest = _LOOK
            try:
                keeping.tick()
                rest = max(_APART, keeping.rest())
            except Exception as error:  # noqa: BLE001 (the next look may go better)
                log(f"error: {type(error).__name__}: {error}")
