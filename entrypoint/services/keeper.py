"""The keeper: what people change by hand is in service within seconds, what ages is renewed."""

from __future__ import annotations

import json
import signal
import threading
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType

from entrypoint import apply, backup, keeping, output, reconcile, renewal, rights, rotation, state
from entrypoint.checks import daily
from entrypoint.dns.lookup import Authoritative
from entrypoint.errors import UserError
from entrypoint.findings import Finding, Level
from entrypoint.paths import Paths
from entrypoint.renewal import Renewer
from entrypoint.rights import Ids, Owner
from entrypoint.settings import Settings
from entrypoint.state import State

_LOOK = 2.0  # seconds between looks at /data/domains
_TICK = 5.0  # seconds between looks at what certificates are due
_ROTATE = 30.0  # seconds between looks at whether DNS shows a pending DKIM key
_DOCTOR = 3600.0  # seconds before the first look at whether the daily one is due, and between them
_FINDINGS = 60.0  # seconds after which what only time changes is looked at again
_EXCHANGERS = 600.0  # seconds between look-ups of the MX of domains that receive elsewhere

Signature = tuple[tuple[str, int, int, int], ...]


def main(settings: Settings, paths: Paths, ids: Ids) -> int:
    """Started as root: reads settings, drops to tambo for good, works until SIGTERM."""
    rights.drop(ids, Owner.TAMBO, keep=renewal.capabilities(settings))
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    keeper = Keeper(settings, paths, ids)
    renewer = Renewer(settings, paths, ids, lambda text: output.log("certs", text))
    # A thread of its own: issuing takes minutes, and edits by hand must not wait for it. A daemon:
    # acme.sh dies with the thread, and what it was at is done again.
    threading.Thread(target=_renew, args=(renewer, stop), daemon=True).start()
    threading.Thread(target=_rotate, args=(settings, paths, ids, stop), daemon=True).start()
    threading.Thread(target=_look_daily, args=(settings, paths, ids, stop), daemon=True).start()
    threading.Thread(target=_back_up, args=(settings, paths, ids, stop), daemon=True).start()
    while not stop.wait(_LOOK):
        try:
            keeper.look()
        except (OSError, UserError) as error:
            output.log("keeper", f"error: {error}")
        except Exception:
            output.log("keeper", f"error: {traceback.format_exc()}")
    return 0


def _rotate(settings: Settings, paths: Paths, ids: Ids, stop: threading.Event) -> None:
    while not stop.wait(_ROTATE):
        try:
            rotation.advance(
                settings, paths, ids, Authoritative(), lambda text: output.log("dkim", text)
            )
        except (OSError, UserError) as error:
            output.log("dkim", f"error: {error}")
        except Exception:
            output.log("dkim", f"error: {traceback.format_exc()}")


def _look_daily(settings: Settings, paths: Paths, ids: Ids, stop: threading.Event) -> None:
    while not stop.wait(_DOCTOR):
        try:
            daily.look_if_due(settings, paths, ids, lambda text: output.log("doctor", text))
        except OSError as error:
            output.log("doctor", f"error: {error}")
        except Exception:
            output.log("doctor", f"error: {traceback.format_exc()}")


def _back_up(settings: Settings, paths: Paths, ids: Ids, stop: threading.Event) -> None:
    keeping.keep(settings, paths, ids, lambda text: output.log("backup", text), stop)


def _renew(renewer: Renewer, stop: threading.Event) -> None:
    while True:
        try:
            renewer.tick()
        except (OSError, UserError) as error:
            output.log("certs", f"error: {error}")
        except Exception:
            output.log("certs", f"error: {traceback.format_exc()}")
        if stop.wait(_TICK):
            return


@dataclass
class Keeper:
    settings: Settings
    paths: Paths
    ids: Ids

    _seen: Signature = ()
    _next_exchangers: float = 0.0
    _next_findings: float = 0.0
    _said: dict[tuple[str, str], Finding] = field(default_factory=dict)
    _news: tuple[Finding, ...] = ()

    def look(self) -> None:
        """One round: cheap when nothing has changed."""
        if time.monotonic() >= self._next_exchangers:
            self._next_exchangers = time.monotonic() + _EXCHANGERS
            self._news = reconcile.refresh_exchangers(self.settings, self.paths, self.ids)
            self._seen = ()
        seen = signature(self.paths)
        if seen == self._seen and time.monotonic() < self._next_findings:
            return
        self._next_findings = time.monotonic() + _FINDINGS
        # Taken before the work: an edit during it is seen the next time.
        self._seen = seen
        with apply.edit_lock(self.paths, self.ids):
            current, outcome = reconcile.reconcile(self.settings, self.paths, self.ids)
        for path in outcome.changed:
            output.log("keeper", f"changed {path}")
        reconcile.serve(self.paths, outcome.effect)
        self._say(current)

    def _say(self, current: State) -> None:
        """Log each finding when it appears and when it goes; tell the health check."""
        found = (
            *current.findings,
            *state.unserved(current, self.settings.domains),
            *self._news,
            *renewal.findings(self.settings, current, datetime.now(UTC)),
            *backup.findings(self.settings, self.paths, datetime.now(UTC)),
        )
        now = {(finding.id, finding.subject): finding for finding in found}
        for key, finding in now.items():
            if finding != self._said.get(key):
                output.log("keeper", f"{finding.level.value}: {finding}")
        for key, finding in self._said.items():
            if key not in now:
                output.log("keeper", f"mended: {finding.message}")
        self._said = now
        problems = [str(item) for item in found if item.level is Level.FAIL]
        apply.write(self.paths.problems, json.dumps(problems).encode(), self.ids)


def signature(paths: Paths) -> Signature:
    """Names, sizes and times of the files that are served or say how certificates and backup
    fare."""
    seen = []
    files = (
        *paths.domains.glob("*/*"),
        *paths.certs.glob("*/*"),
        *paths.issues.glob("*.json"),
        paths.backup_memory,
    )
    for path in sorted(files):
        try:
            found = path.stat()
        except OSError:
            continue  # gone meanwhile, or a broken link
        seen.append((str(path), found.st_size, found.st_ctime_ns, found.st_ino))
    return tuple(seen)
