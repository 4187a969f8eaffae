"""Renewal of certificates: what is due (RFC 9773), issue, install, prove, run deploy hooks.

Decisions are functions of (settings, state, now); `Renewer` acts on them.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from entrypoint.common import locks, tlsprobe
from entrypoint.common.errors import UserError
from entrypoint.common.findings import Finding, Level
from entrypoint.common.identity import Capability, Ids, raised
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import apply, reconcile
from entrypoint.converge.plan import DEFAULT, Wanted, served_certificates, wanted
from entrypoint.keys import certs
from entrypoint.renewal import acmesh, http01
from entrypoint.renewal.deployhooks import Reloads
from entrypoint.settings import acmehooks
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import Issue, State

_FIRST_BACK_OFF = 15 * 60.0  # seconds; doubles with each failure
_LAST_BACK_OFF = 24 * 3600.0  # seconds
_ASK_WINDOW = 24 * 3600.0  # seconds between questions for the renewal window
_MIN_INTERVAL = 3600.0  # seconds between two certificates of one name, whatever the reason
_FREE_INTERRUPTIONS = 2  # tries in a row that may be killed before that counts as a failure
_LOOK = 10.0  # seconds between looks at what is due
_SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
_SHOWN_LINES = 12  # of acme.sh's output, in the log, when it fails

# Lines of the certificate itself, which acme.sh prints too.
_PEM = re.compile(r"-----.*-----|[A-Za-z0-9+/=]{30,64}")

Log = Callable[[str], None]


# --- decisions -----------------------------------------------------------------------------------


def request(settings: Settings, current: State, want: Wanted, paths: Paths) -> acmesh.Request:
    """What to ask acme.sh for. Raises ValueError, with the fix, if the domain's settings are off.

    A domain's acme.env wins; the common credentials reach another provider's hook never.
    """
    for finding in current.findings:
        if finding.subject == str(paths.domain(want.zone) / "acme.env"):
            raise ValueError(finding.message)
    override = dict(current.domain(want.zone).provider)
    hook = override.pop("ACME_DNS", None) or settings.acme_dns or ""
    alias = override.pop("ACME_CHALLENGE_ALIAS", None) or settings.acme_challenge_alias or ""
    sleep = override.pop("ACME_DNS_SLEEP", None) or settings.acme_dns_sleep
    common: Mapping[str, str] = {}
    if hook == settings.acme_dns:
        common = {name: value.get_secret_value() for name, value in settings.provider.items()}
    webroot = ""
    if settings.tls_mode == "http":
        hook, common, override = "", {}, {}
        webroot = str(settings.acme_webroot or paths.challenges)
    eab = None
    if settings.acme_eab_kid and settings.acme_eab_hmac_key:
        eab = (settings.acme_eab_kid, settings.acme_eab_hmac_key.get_secret_value())
    try:
        seconds = int(sleep) if sleep else None
    except ValueError:
        msg = f"ACME_DNS_SLEEP in acme.env of {want.zone} is not a number of seconds"
        raise ValueError(msg) from None
    return acmesh.Request(
        names=want.names,
        home=paths.acme / want.name,
        server=settings.acme_server,
        hook=hook,
        webroot=webroot,
        email=settings.acme_email or "",
        eab=eab,
        challenge_alias=Domain.parse(alias) if alias else "",
        dns_sleep=seconds,
        ca_bundle=paths.ca_bundle if settings.acme_ca_bundle else None,
        credentials={**common, **override},
    )


def renew_at(certificate: certs.Certificate, issue: Issue) -> datetime:
    """When to renew: within the window that the authority suggests, else with a third of the
    lifetime left, a little earlier by a share that is each certificate's own."""
    share = int(hashlib.sha256(certificate.chain).hexdigest()[:8], 16) / 0xFFFFFFFF
    if issue.window and issue.fingerprint == certificate.fingerprint:
        start, end = issue.window
        return datetime.fromtimestamp(start + (end - start) * share, UTC)
    latest = certificate.not_after - certificate.lifetime / 3
    return latest - certificate.lifetime / 30 * share


def reason(
    want: Wanted, identity: str, certificate: certs.Certificate | None, issue: Issue, now: datetime
) -> str:
    """Why a certificate must be issued now; an empty string if it need not be."""
    if certificate is None:
        why = "there is none yet"
    elif not set(want.names) <= set(certificate.names):
        why = "it does not cover all names"
    elif issue.identity and issue.identity != identity:
        why = "the settings have changed"
    elif now >= renew_at(certificate, issue):
        why = "it is due for renewal"
    else:
        return ""
    # Issued in the future: the clock was set back meanwhile, and what it said is worth nothing.
    if certificate and 0 <= now.timestamp() - issue.issued < _MIN_INTERVAL:
        return ""
    return "" if waits(issue, now) else why


def waits(issue: Issue, now: datetime) -> bool:
    """Whether the waiting time after a failure is not over.

    A longer one than there is was set by a clock that was wrong.
    """
    return 0 < issue.next_try - now.timestamp() <= _LAST_BACK_OFF


def back_off(failures: int, left: timedelta | None) -> float:
    """Seconds to wait after so many failures in a row; shorter when little lifetime is left."""
    wait = min(_FIRST_BACK_OFF * 2.0 ** min(failures - 1, 10), _LAST_BACK_OFF)
    if left is not None:
        wait = min(wait, max(_FIRST_BACK_OFF, left.total_seconds() / 10))
    return wait


def findings(settings: Settings, current: State, now: datetime) -> tuple[Finding, ...]:
    """What the owner should know about the certificates; FAIL only if clients are turned away."""
    found: list[Finding] = []
    for want in wanted(settings):
        issue = current.issues.get(want.name, Issue())
        certificate = current.certificates.get(want.name)
        if issue.error:
            again = datetime.fromtimestamp(issue.next_try, UTC)
            found.append(
                Finding(
                    id="certificate-error",
                    level=Level.WARN,
                    message=f"The certificate of {want.name} could not be issued: {issue.error}. "
                    f"Tries that failed: {issue.failures}; next: {again:%Y-%m-%d %H:%M} UTC.",
                    fix=issue.fix,
                    subject=want.name,
                )
            )
        if certificate:
            fix = f"docker exec mail renew-cert {want.name}"
            found += _age(want.name, certificate, renew_at(certificate, issue), now, fix)
    fix = "docker exec mail renew-cert"
    if settings.tls_mode == "files":
        fix = "put a new one into the folder of TLS_FILES"
        for name, certificate in current.certificates.items():
            found += _age(name, certificate, renew_at(certificate, Issue()), now, fix)
    default = served_certificates(settings, current).get(DEFAULT)
    if default and default.not_after < now:
        found.append(
            Finding(
                id="certificate-expired",
                level=Level.FAIL,
                message=f"The certificate of {settings.mail_hostname} expired on "
                f"{default.not_after:%Y-%m-%d}: mail programs refuse to connect.",
                fix=fix,
            )
        )
    return tuple(found)


def _age(
    name: Domain, certificate: certs.Certificate, due: datetime, now: datetime, fix: str
) -> Iterator[Finding]:
    left = certificate.not_after - now
    expires = f"expires on {certificate.not_after:%Y-%m-%d %H:%M} UTC"
    if left < min(timedelta(days=1), certificate.lifetime / 12):
        yield Finding(
            id="certificate-last-day",
            level=Level.WARN,
            message=f"The certificate of {name} {expires}.",
            fix=fix,
            subject=name,
        )
    elif left < certificate.lifetime / 6:
        text = f"The certificate of {name} {expires}: less than a sixth of its life is left."
        yield Finding(id="certificate-late", level=Level.WARN, message=text, fix=fix, subject=name)
    elif now > due + certificate.lifetime / 15:
        text = f"The certificate of {name} has been due for renewal since {due:%Y-%m-%d %H:%M} UTC."
        yield Finding(
            id="certificate-overdue", level=Level.WARN, message=text, fix=fix, subject=name
        )


# --- acts ----------------------------------------------------------------------------------------


def capabilities(settings: Settings) -> tuple[Capability, ...]:
    """What a process that issues certificates must keep of root's rights."""
    kept = []
    if settings.tls_mode == "http" and not settings.acme_webroot:
        kept.append(Capability.NET_BIND_SERVICE)
    if settings.tls_mode == "files" or settings.acme_ca_bundle:
        kept.append(Capability.DAC_OVERRIDE)
    return tuple(kept)


class Result(Enum):
    """What became of an attempt."""

    NOT_DUE = "not due"
    BUSY = "busy"  # another process is issuing
    DONE = "done"
    FAILED = "failed"


@dataclass
class Renewer:
    """Acts on what is due. One at a time on a volume: `acme_lock` sees to it."""

    settings: Settings
    paths: Paths
    ids: Ids
    log: Log
    now: Callable[[], float] = time.time
    progress: bool = False  # whether acme.sh's lines are logged as they come
    reloads: Reloads = field(init=False)
    _files_seen: dict[str, tuple[float, float]] = field(default_factory=dict)
    _next_look: float = 0.0
    # What could not be written: on a full disk too the waiting times are kept.
    _unwritten: dict[Domain, Issue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reloads = Reloads(self.paths, self.ids, self.log, self.now)

    def tick(self) -> None:
        """Issue what is due, copy what was mounted, run what has yet to run."""
        if self.settings.tls_mode == "files":
            self.copy_files()
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK
            current = load.load(self.paths)
            for want in wanted(self.settings):
                if not self._is_quiet(current, want):
                    self.attempt(want)
        self.reloads.run()

    def _is_quiet(self, current: State, want: Wanted) -> bool:
        """Whether there is nothing to do for a certificate; cheap."""
        issue, certificate = self._known(current, want), current.certificates.get(want.name)
        now = datetime.fromtimestamp(self.now(), UTC)
        if self._is_held_back(current, want, issue, now):
            return True
        try:
            identity = request(self.settings, current, want, self.paths).identity
        except ValueError:
            return False
        if reason(want, identity, certificate, replace(issue, next_try=0.0), now):
            return False
        return not certificate or self._knows_window(certificate, issue)

    def _is_held_back(self, current: State, want: Wanted, issue: Issue, now: datetime) -> bool:
        """Whether a failure is waited out. What was mended in the settings is tried at once."""
        return waits(issue, now) and issue.asked in ("", self._digest(current, want))

    def _digest(self, current: State, want: Wanted) -> str:
        try:
            return request(self.settings, current, want, self.paths).digest
        except ValueError as error:
            return hashlib.sha256(str(error).encode()).hexdigest()

    def _known(self, current: State, want: Wanted) -> Issue:
        return self._unwritten.get(want.name) or current.issues.get(want.name, Issue())

    def attempt(self, want: Wanted, *, force: bool = False, patient: bool = True) -> Result:
        """Issue one certificate if it is due, or anyway.

        Not `patient`: the waiting time after a failure is not kept. A failure is remembered and
        logged, never raised.
        """
        with locks.acme_lock(self.paths, self.ids) as free:
            if not free:
                return Result.BUSY
            current = load.load(self.paths)
            issue = self._known(current, want)
            certificate = current.certificates.get(want.name)
            now = datetime.fromtimestamp(self.now(), UTC)
            if patient and self._is_held_back(current, want, issue, now):
                return Result.NOT_DUE
            try:
                asked = request(self.settings, current, want, self.paths)
                issue = self._ask_window(asked, certificate, issue, want)
                why = "it was asked for"
                if not force:
                    memory = replace(issue, next_try=0.0)
                    why = reason(want, asked.identity, certificate, memory, now)
                if not why:
                    return Result.NOT_DUE
                issue = self._begin(want, issue, patient=patient)
                self.log(f"{want.name}: having a certificate issued: {why}")
                # After a failure in full: what acme.sh noted may be what is wrong.
                same = issue.identity == asked.identity and not issue.failures
                new = self._issue(asked, renew=same)
                self._install(want, new)
            except (ValueError, UserError, OSError, _IssueError) as error:
                issue = replace(issue, asked=self._digest(current, want))
                self._failed(want, certificate, issue, error)
                return Result.FAILED
            self._remember(
                want, Issue(identity=asked.identity, issued=self.now(), fingerprint=new.fingerprint)
            )
            self.log(
                f"{want.name}: certificate for {', '.join(new.names)} in place, valid until "
                f"{new.not_after:%Y-%m-%d %H:%M} UTC"
            )
        self.prove(want.name)
        return Result.DONE

    def _begin(self, want: Wanted, issue: Issue, *, patient: bool) -> Issue:
        """Note that a try begins: what cannot be noted is not tried, as it could be tried for ever.

        Tries that were killed count too, for the same reason.
        """
        if issue.begun:
            issue = replace(issue, begun=0.0, failures=issue.failures + 1)
            if patient and issue.failures > _FREE_INTERRUPTIONS:
                msg = "the last tries were interrupted, as if the container had been killed"
                raise _IssueError(msg, "see that it has memory enough: docker inspect mail, dmesg")
        self._note(want, replace(issue, begun=self.now()))
        return issue

    def _issue(self, asked: acmesh.Request, *, renew: bool) -> certs.Certificate:
        self._prepare(asked)
        in_home = renew and asked.chain.exists()
        with self._responder(asked):
            status, lines = acmesh.run(asked, renew=in_home, on_line=self._acme_said)
            if status != 0 and acmesh.account_is_lost(lines):
                self.log(f"{asked.name}: the authority has forgotten our account; making a new one")
                shutil.rmtree(asked.home / "ca", ignore_errors=True)
                self._prepare(asked)
                status, lines = acmesh.run(asked, renew=in_home, on_line=self._acme_said)
            if status != 0 and in_home and acmesh.replaced_is_unknown(lines):
                self.log(f"{asked.name}: the authority does not know the certificate in place; "
                         "asking for one that replaces none")  # fmt: skip
                status, lines = acmesh.run(asked, renew=False, on_line=self._acme_said)
        if status != 0:
            if not self.progress:
                for line in lines[-_SHOWN_LINES:]:
                    self.log(f"acme.sh: {line}")
            hook = acmehooks.load(asked.hook) if asked.hook else None
            missing = hook.missing(frozenset(asked.credentials)) if hook else ""
            message, fix = acmesh.explain(status, lines, missing)
            raise _IssueError(message, fix)
        try:
            return certs.load(asked.chain.read_bytes(), asked.key.read_bytes())
        except (OSError, ValueError) as error:
            msg = f"acme.sh reported success, but {asked.folder}: {error}"
            raise _IssueError(msg, "try again: docker exec mail renew-cert --force") from None

    def _acme_said(self, line: str) -> None:
        if self.progress and not _PEM.fullmatch(line):
            self.log(f"acme.sh: {line}")

    def _prepare(self, asked: acmesh.Request) -> None:
        """What acme.sh needs to find: its home, the account's key, the trusted roots."""
        if asked.hook:
            hook = acmehooks.load(asked.hook)  # acme.env may name one that is not there
            strange = sorted(set(asked.credentials) - hook.variables)
            if strange:
                msg = f"{', '.join(strange)}: not a variable of {hook.name}, which reads "
                raise ValueError(msg + ", ".join(sorted(hook.variables)))
        with locks.edit_lock(self.paths, self.ids):
            apply.own_folder(asked.home, self.ids)
            # acme.sh takes a file for done once it is there: what a full disk or a kill left.
            for path in asked.home.rglob("*"):
                if path.is_file() and path.stat().st_size == 0:
                    path.unlink()
            account = acmesh.account_file(asked)
            if account:
                path, text = account
                apply.own_folder(path.parent, self.ids)
                before = path.read_text() if path.exists() else ""
                other = [line for line in before.splitlines() if not line.startswith("CA_EAB_")]
                content = text + "".join(f"{line}\n" for line in other)
                apply.write(path, content.encode(), self.ids)
        self._roots()

    def _roots(self) -> Path:
        """The trusted roots: the public ones and, if there is one, the private authority's."""
        if not self.settings.acme_ca_bundle:
            return _SYSTEM_ROOTS
        with raised(Capability.DAC_OVERRIDE):
            private = Path(self.settings.acme_ca_bundle).read_bytes()
        with locks.edit_lock(self.paths, self.ids):
            roots = _SYSTEM_ROOTS.read_bytes() + b"\n" + private
            apply.write(self.paths.ca_bundle, roots, self.ids)
        return self.paths.ca_bundle

    @contextmanager
    def _responder(self, asked: acmesh.Request) -> Iterator[None]:
        ours = asked.webroot == str(self.paths.challenges)
        if ours:
            apply.own_folder(self.paths.challenges, self.ids)
        with http01.responder(self.paths.challenges) if ours else nullcontext():
            yield

    def _install(self, want: Wanted, new: certs.Certificate) -> None:
        missing = set(want.names) - set(new.names)
        if missing:
            msg = f"the new certificate does not cover {', '.join(sorted(missing))}"
            raise _IssueError(msg, "try again: docker exec mail renew-cert --force")
        self._put(want.name, new)

    def _put(self, name: Domain, new: certs.Certificate) -> None:
        self.reloads.want(name)  # already now: tambo may be killed right after the installation
        with locks.edit_lock(self.paths, self.ids):
            apply.install_pair(self.paths.certs / name, new.chain, new.key, self.ids)
            _, outcome = reconcile.reconcile(self.settings, self.paths, self.ids)
        note = reconcile.serve(self.paths, self.ids, outcome.effect)
        if note:
            self.log(note)
        self.reloads.want(name)

    def _failed(
        self, want: Wanted, certificate: certs.Certificate | None, issue: Issue, error: Exception
    ) -> None:
        message, fix = _words(error)
        left = None
        if certificate:
            left = certificate.not_after - datetime.fromtimestamp(self.now(), UTC)
        failures = issue.failures + 1
        next_try = self.now() + back_off(failures, left)
        new = replace(issue, failures=failures, next_try=next_try, error=message, fix=fix)
        self._remember(want, replace(new, begun=0.0))
        serves = (
            "the one in place stays in service" if certificate else "the self-signed one serves"
        )
        self.log(f"warn: {want.name}: no new certificate: {message}; {serves}. Fix: {fix}")

    def _note(self, want: Wanted, issue: Issue) -> None:
        with locks.edit_lock(self.paths, self.ids):
            path = self.paths.issues / f"{want.name}.json"
            apply.write(path, load.dump_issue(issue).encode(), self.ids)
        self._unwritten.pop(want.name, None)

    def _remember(self, want: Wanted, issue: Issue) -> None:
        try:
            self._note(want, issue)
        except OSError as error:
            self._unwritten[want.name] = issue
            self.log(f"warn: {want.name}: cannot note the next try: {error}")

    def _ask_window(
        self,
        asked: acmesh.Request,
        certificate: certs.Certificate | None,
        issue: Issue,
        want: Wanted,
    ) -> Issue:
        """Ask the authority once a day when it would like a renewal."""
        if not certificate or self._knows_window(certificate, issue):
            return issue
        window = acmesh.renewal_window(asked, certificate, self._roots())
        updated = replace(
            issue,
            fingerprint=certificate.fingerprint,
            window=(window.start.timestamp(), window.end.timestamp()) if window else None,
            window_asked=self.now(),
        )
        self._remember(want, updated)
        return updated

    def _knows_window(self, certificate: certs.Certificate, issue: Issue) -> bool:
        fresh = issue.fingerprint == certificate.fingerprint
        return fresh and 0 <= self.now() - issue.window_asked < _ASK_WINDOW

    def prove(self, name: Domain) -> bool:
        """See by a TLS handshake on each port that the certificate in place is the one served."""
        certificate = load.load(self.paths).certificates.get(name)
        if not certificate:
            return False
        wrong = []
        for port in tlsprobe.PORTS:
            try:
                if tlsprobe.fingerprint(port, certificate.host) != certificate.fingerprint:
                    wrong.append(f"port {port} serves another one")
            except OSError as error:
                wrong.append(f"port {port}: {error}")
        if wrong:
            self.log(f"warn: {name}: the new certificate is not served: {'; '.join(wrong)}")
        else:
            ports = ", ".join(str(port) for port in tlsprobe.PORTS)
            self.log(f"{name}: the new certificate is served on ports {ports}")
        return not wrong

    # --- TLS=files

    def copy_files(self) -> None:
        """Take over certificates that the owner mounts, when they have changed and are whole."""
        root = Path(self.settings.tls_files or "/")
        with raised(Capability.DAC_OVERRIDE):
            try:
                folders = [root, *(item for item in sorted(root.iterdir()) if item.is_dir())]
            except OSError as error:
                self._once(str(root), f"warn: TLS_FILES: {root}: {error.strerror}")
                return
            pairs = [found for folder in folders if (found := self._changed_pair(folder))]
        for folder, pair in pairs:
            name = _folder_name(pair)
            have = load.load(self.paths).certificates.get(name)
            if have and (have.chain, have.key) == (pair.chain, pair.key):
                continue
            self._put(name, pair)
            self.log(f"{name}: certificate taken from {folder}")
            self.prove(name)

    def _changed_pair(self, folder: Path) -> tuple[Path, certs.Certificate] | None:
        chain, key = folder / certs.CHAIN, folder / certs.KEY
        try:
            seen = (chain.stat().st_mtime, key.stat().st_mtime)
            if self._files_seen.get(str(folder)) == seen:
                return None
            pair = certs.load(chain.read_bytes(), key.read_bytes())
            _folder_name(pair)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            # Perhaps half-way through a copy: looked at again the next time.
            self._once(
                str(folder), f"TLS_FILES: {folder}: {error}; what was there stays in service"
            )
            return None
        self._files_seen[str(folder)] = seen
        return folder, pair

    def _once(self, key: str, text: str) -> None:
        """Log a text about `key`, unless it was the last one."""
        mark = (float(hash(text) % 1e9), -1.0)
        if self._files_seen.get(f"said {key}") != mark:
            self._files_seen[f"said {key}"] = mark
            self.log(text)


def _folder_name(pair: certs.Certificate) -> Domain:
    """The folder of data/certs for a mounted certificate. Raises ValueError if it is of no use."""
    for name in pair.names:
        with suppress(ValueError):
            return Domain.parse(name.removeprefix("*."))
    msg = "the certificate is for no domain"
    raise ValueError(msg)


class _IssueError(Exception):
    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def _words(error: Exception) -> tuple[str, str]:
    """An error's message and its fix."""
    if isinstance(error, _IssueError):
        return str(error), error.fix
    if isinstance(error, UserError):
        return error.message, error.fix
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "make room on the volume's disk" if full else "see that it is there and readable"
        return f"{error.strerror or error}{where}", fix
    return str(error), "correct it in .env or in the domain's acme.env"
