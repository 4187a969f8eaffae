"""The keeper: what people change by hand is in service at once, what ages is renewed.

A change in data/domains or data/certs wakes it (common/watch.py). It looks every two seconds all
the same: not every file system tells, and much that it looks at is not in these files.
"""

from __future__ import annotations

import json
import signal
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType

from entrypoint.accounts import temporary
from entrypoint.backup import backup, schedule
from entrypoint.checks import accounts
from entrypoint.common import identity, locks, log, rpc
from entrypoint.common.errors import UserError
from entrypoint.common.findings import Finding, Level
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.common.watch import Watch
from entrypoint.converge import apply, reconcile
from entrypoint.converge.plan import Effect
from entrypoint.dns.authoritative import Authoritative
from entrypoint.renewal import dkim, renewer
from entrypoint.services import doctor
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import State

_LOOK = 2.0  # seconds between looks that nothing asked for
_START = 15.0  # seconds that the mail server may take to start
_POLL = 0.2  # seconds
_TICK = 5.0  # seconds between looks at what certificates are due
_ROTATE = 30.0  # seconds between looks at whether DNS shows a pending DKIM key
_DOCTOR = 3600.0  # seconds before the first look at whether the daily one is due, and between them
_FINDINGS = 60.0  # seconds after which what only time changes is looked at again
_POLICY_WAIT = 2.0  # seconds
_SILENT = 2  # looks without an answer, after which it is down and not just starting
_EXCHANGERS = 600.0  # seconds between look-ups of the MX of domains that receive elsewhere

Signature = tuple[tuple[str, int, int, int], ...]


def main(settings: Settings, paths: Paths, ids: Ids) -> int:
    """Started as root: reads settings, drops to tambo for good, works until SIGTERM."""
    identity.drop(ids, Owner.TAMBO, keep=renewer.capabilities(settings))
    stop = threading.Event()
    watch = Watch((paths.domains, paths.certs))

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        watch.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    keeper = Keeper(settings, paths, ids)
    certs = renewer.Renewer(settings, paths, ids, lambda text: log.log("certs", text))
    # A thread of its own: issuing takes minutes, and edits by hand must not wait for it. A daemon:
    # acme.sh dies with the thread, and what it was at is done again.
    threading.Thread(target=_renew, args=(certs, paths, stop), daemon=True).start()
    threading.Thread(target=_rotate, args=(settings, paths, ids, stop), daemon=True).start()
    threading.Thread(target=_look_daily, args=(settings, paths, ids, stop), daemon=True).start()
    threading.Thread(target=_back_up, args=(settings, paths, ids, stop), daemon=True).start()
    _look(keeper, watch, stop)
    return 0


def _look(keeper: Keeper, watch: Watch, stop: threading.Event) -> None:
    """At the files when they change, and at everything every _LOOK seconds, however many change."""
    due, said = time.monotonic() + _LOOK, False
    while True:
        if watch.refused and not said:
            said = True
            log.log(
                "keeper",
                f"note: not every change by hand is told by the kernel ({watch.refused}): it may "
                f"take {_LOOK:.0f} seconds more until one is in service",
            )
        changed = watch.wait(due - time.monotonic())
        if stop.is_set():
            return
        is_due = time.monotonic() >= due
        try:
            if is_due:
                keeper.look()
            elif changed:
                keeper.look_at_files()
        except (OSError, UserError) as error:
            log.log("keeper", f"error: {error}")
        except Exception:  # noqa: BLE001 (the next look may go better)
            log.log("keeper", f"error: {traceback.format_exc()}")
        if is_due:
            due = time.monotonic() + _LOOK


def _rotate(settings: Settings, paths: Paths, ids: Ids, stop: threading.Event) -> None:
    while not stop.wait(_ROTATE):
        try:
            dkim.advance(settings, paths, ids, Authoritative(), lambda text: log.log("dkim", text))
        except (OSError, UserError) as error:
            log.log("dkim", f"error: {error}")
        except Exception:  # noqa: BLE001 (the next look may go better)
            log.log("dkim", f"error: {traceback.format_exc()}")


def _look_daily(settings: Settings, paths: Paths, ids: Ids, stop: threading.Event) -> None:
    while not stop.wait(_DOCTOR):
        try:
            doctor.look_if_due(settings, paths, ids, lambda text: log.log("doctor", text))
        except OSError as error:
            log.log("doctor", f"error: {error}")
        except Exception:  # noqa: BLE001 (the next look may go better)
            log.log("doctor", f"error: {traceback.format_exc()}")


def _back_up(settings: Settings, paths: Paths, ids: Ids, stop: threading.Event) -> None:
    schedule.keep(settings, paths, ids, lambda text: log.log("backup", text), stop)


def _await_mail(paths: Paths, stop: threading.Event) -> None:
    """What is put into service is proven by a handshake: give the mail server time to start."""
    end = time.monotonic() + _START
    while time.monotonic() < end:
        with suppress(rpc.UnreachableError):
            if rpc.request(paths.holder_socket, "status", timeout=_START).get("ready"):
                return
        if stop.wait(_POLL):
            return


def _renew(certs: renewer.Renewer, paths: Paths, stop: threading.Event) -> None:
    _await_mail(paths, stop)
    while True:
        try:
            certs.tick()
        except (OSError, UserError) as error:
            log.log("certs", f"error: {error}")
        except Exception:  # noqa: BLE001 (the next look may go better)
            log.log("certs", f"error: {traceback.format_exc()}")
        if stop.wait(_TICK):
            return


@dataclass
class Keeper:
    """Compares the volume with how it was at the last look, and puts changes in service.

    Not safe for concurrent use: one thread looks.
    """

    settings: Settings
    paths: Paths
    ids: Ids

    _seen: Signature = ()
    _next_exchangers: float = 0.0
    _next_findings: float = 0.0
    _said: dict[tuple[str, str], Finding] = field(default_factory=dict)
    _news: tuple[Finding, ...] = ()
    _alarms: tuple[Finding, ...] = ()
    _silent: int = 0  # looks in a row at which the policy service said nothing
    _auth_silent: int = 0  # the same of the auth service

    def look(self) -> None:
        """One round: cheap when nothing has changed."""
        if time.monotonic() >= self._next_exchangers:
            self._next_exchangers = time.monotonic() + _EXCHANGERS
            self._news = reconcile.refresh_exchangers(self.settings, self.paths, self.ids)
            self._seen = ()
        self._serve_pending()
        if temporary.sweep(self.paths, self.ids):
            self._seen = ()
        self._take_up((*self._policy_alarms(), *self._auth_alarms()))

    def look_at_files(self) -> None:
        """What an edit needs. No service is asked: one that is silent would hold the edit up, and
        looks close together are no measure of how long it has been."""
        self._take_up(self._alarms)

    def _take_up(self, alarms: tuple[Finding, ...]) -> None:
        seen = signature(self.paths)
        if seen == self._seen and alarms == self._alarms and time.monotonic() < self._next_findings:
            return
        self._alarms = alarms
        self._next_findings = time.monotonic() + _FINDINGS
        # Taken before the work: an edit during it is seen the next time.
        self._seen = seen
        with locks.edit_lock(self.paths, self.ids):
            current, outcome = reconcile.reconcile(self.settings, self.paths, self.ids)
        for path in outcome.changed:
            log.log("keeper", f"changed {path}")
        reconcile.serve(self.paths, self.ids, outcome.effect)
        if outcome.changed:
            reconcile.settle(self.paths)
        self._say(current)

    def _serve_pending(self) -> None:
        served = reconcile.serve_pending(self.paths, self.ids)
        if served is not Effect.NONE:
            log.log(
                "keeper",
                "somebody who changed chasquid's files did not tell it; now it was told to "
                + ("start again" if served is Effect.RESTART else "read them"),
            )

    def _policy_alarms(self) -> tuple[Finding, ...]:
        """What the policy service has to say, and that it says nothing, if that lasts."""
        try:
            answer = rpc.request(self.paths.policy_door, "alarms", timeout=_POLICY_WAIT)
            alarms, notes = map(str, answer.get("alarms", ())), map(str, answer.get("notes", ()))
            fixes = dict(answer.get("fixes", {}))
        except rpc.UnreachableError as error:
            self._silent += 1
            if self._silent < _SILENT:
                return tuple(item for item in self._alarms if item.id.startswith("policy-"))
            text = f"The policy service does not answer ({error}): no mail is taken."
            fix = "it starts again by itself; if it does not: docker compose restart"
            return (Finding(id="policy-down", level=Level.FAIL, message=text, fix=fix),)
        self._silent = 0
        fix = "see why, and then: docker exec mail list-senders"
        return (
            *(
                Finding(
                    id="policy-alarm",
                    level=Level.FAIL,
                    message=text,
                    fix=fixes.get(text, fix),
                    subject=text,
                )
                for text in alarms
            ),
            *(
                Finding(
                    id="policy-note",
                    level=Level.WARN,
                    message=text,
                    fix=fixes.get(text, ""),
                    subject=text,
                )
                for text in notes
            ),
        )

    def _auth_alarms(self) -> tuple[Finding, ...]:
        """That the auth service says nothing, if that lasts, or cannot do its work."""
        try:
            answer = rpc.request(self.paths.auth_door, "status", timeout=_POLICY_WAIT)
        except rpc.UnreachableError as error:
            self._auth_silent += 1
            if self._auth_silent < _SILENT:
                return tuple(item for item in self._alarms if item.id == "auth-down")
            text = f"The auth service does not answer ({error})"
        else:
            self._auth_silent = 0
            if answer.get("logins") is not None:
                return ()
            text = f"The auth service cannot read {self.paths.passwords}"
        said = (
            f"{text}: nobody can log in with a password of his own choice (454), and mail to names "
            "that are no user's waits elsewhere (451). Generated secrets go on."
        )
        fix = "it starts again by itself; if it does not: docker compose restart"
        return (Finding(id="auth-down", level=Level.FAIL, message=said, fix=fix),)

    def _say(self, current: State) -> None:
        """Log each finding when it appears and when it goes; tell the health check."""
        found = (
            *current.findings,
            *load.unserved(current, self.settings.domains),
            *accounts.loops(self.settings, current),
            *self._news,
            *self._alarms,
            *renewer.findings(self.settings, current, datetime.now(UTC)),
            *backup.findings(self.settings, self.paths, datetime.now(UTC)),
        )
        now = {(finding.id, finding.subject): finding for finding in found}
        for key, finding in now.items():
            if finding != self._said.get(key):
                log.log("keeper", f"{finding.level.value}: {finding}")
        for key, finding in self._said.items():
            if key not in now:
                log.log("keeper", f"mended: {finding.message}")
        self._said = now
        problems = [str(item) for item in found if item.level is Level.FAIL]
        apply.write(self.paths.problems, json.dumps(problems).encode(), self.ids)
        said = [{"level": item.level.value, "text": str(item)} for item in found]
        apply.write(self.paths.findings, json.dumps(said).encode(), self.ids)


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
