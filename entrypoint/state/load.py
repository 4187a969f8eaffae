"""What is on the volume: the only reader of /data, apart from locks and Maildirs.

A file that people edit and that is broken never stops anything: its last good copy serves, and a
finding says which line is wrong.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from entrypoint.chasquid import aliases, userdb
from entrypoint.common.errors import shown
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import Domain, Selector
from entrypoint.common.paths import Paths
from entrypoint.keys import certs, dkim
from entrypoint.policy import grants
from entrypoint.settings import acmehooks
from entrypoint.state import edited

_T = TypeVar("_T")


@dataclass(frozen=True)
class DomainState:
    """One domain's own files, as they serve: valid, or the last good copy."""

    users: userdb.Users = field(default_factory=dict)
    aliases: aliases.Aliases = field(default_factory=dict)
    # The file of the aliases as it is written; empty if it is not what serves.
    aliases_text: str = field(default="", repr=False)
    senders: grants.Senders = field(default_factory=dict)
    keys: tuple[dkim.DkimKey, ...] = ()
    # Selectors that are taken, by usable keys or not; and those of keys that cannot be used: a
    # damaged key is no reason for a new one.
    selectors: frozenset[str] = frozenset()
    damaged: frozenset[str] = frozenset()
    # Keys that must not sign before DNS shows them, and those that did, with when they stopped.
    pending: tuple[dkim.DkimKey, ...] = ()
    retired: tuple[tuple[dkim.DkimKey, datetime], ...] = ()
    # acme.env: the DNS provider of this domain, where it is not the common one.
    provider: Mapping[str, str] = field(default_factory=dict, repr=False)
    # Names of files (`users`, `aliases`, `senders`) that are broken: what serves is the last good
    # copy. And of those that are there and valid, if only to say that there is nobody.
    broken: frozenset[str] = frozenset()
    present: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Issue:
    """What is remembered of the issuing of one certificate. Times are seconds since 1970.

    `identity` is of the request that the certificate in place answers. `begun` is of a try that
    has not ended. `asked` is a digest of the request that failed: the wait is for that one alone.
    `window` is the renewal window that the authority suggested, for the certificate
    with `fingerprint`.
    """

    identity: str = ""
    issued: float = 0.0
    begun: float = 0.0
    failures: int = 0
    next_try: float = 0.0
    asked: str = ""
    error: str = ""
    fix: str = ""
    fingerprint: str = ""
    window: tuple[float, float] | None = None
    window_asked: float = 0.0


@dataclass(frozen=True)
class State:
    """The volume at one moment. What was edited and is broken is as its last good copy has it."""

    domains: Mapping[Domain, DomainState] = field(default_factory=dict)
    # By the name of their folder.
    certificates: Mapping[Domain, certs.Certificate] = field(default_factory=dict)
    self_signed: certs.Certificate | None = None
    issues: Mapping[Domain, Issue] = field(default_factory=dict)
    # When credentials were made, by login, in seconds since 1970; none of those made by hand.
    created: Mapping[str, float] = field(default_factory=dict)
    # MX hosts of domains that receive elsewhere; a missing domain was never looked up.
    exchangers: Mapping[Domain, tuple[Domain, ...]] = field(default_factory=dict)
    # Every selector that a key ever had, also of keys that are no more: whoever has looked a name
    # up in DNS may remember the old key.
    selectors: Mapping[Domain, frozenset[str]] = field(default_factory=dict)
    # Log-ins that a verb made for itself and that have not expired: served, and never kept.
    temporary: Mapping[Domain, userdb.Users] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def domain(self, domain: Domain) -> DomainState:
        return self.domains.get(domain, DomainState())


def load(paths: Paths) -> State:
    """Never raises for the content of a file; OSError only if the volume itself cannot be read."""
    findings: list[Finding] = []
    domains = {}
    for folder in _folders(paths.domains):
        try:
            domain = Domain.parse(folder.name)
        except ValueError as error:
            findings.append(
                Finding(id="domain-folder", level=Level.WARN, message=f"{folder}: {error}")
            )
            continue
        if domain != folder.name:
            text = f"{folder} is not looked at: the folder of that domain is called {domain}."
            findings.append(
                Finding(
                    id="domain-folder", level=Level.WARN, message=text, fix=f"rename it to {domain}"
                )
            )
            continue
        domains[domain] = _domain(paths, domain, findings)
    return State(
        domains=domains,
        certificates=_certificates(paths, findings),
        self_signed=_self_signed(paths),
        issues=_issues(paths),
        created=_created(paths),
        exchangers=_exchangers(paths),
        selectors=_selectors(paths, domains),
        temporary=_temporary(paths),
        findings=tuple(findings),
    )


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(item for item in path.iterdir() if item.is_dir() and item.name[0] != ".")


def _domain(paths: Paths, domain: Domain, findings: list[Finding]) -> DomainState:
    folder = paths.domain(domain)
    broken, present = set(), set()

    def read(name: str, parse: Callable[[str], Mapping[str, _T]]) -> Mapping[str, _T]:
        before = len(findings)
        value = edited.read_entries(paths, folder / name, parse, findings)
        if len(findings) > before:
            broken.add(name)
        elif (folder / name).exists():
            present.add(name)
        return value

    keys, selectors, damaged = _active_keys(paths, folder, findings)
    pending = _keys(paths.pending(domain), findings)
    retired = _keys(paths.retired(domain), findings)
    selectors |= {str(key.selector) for key, _ in (*pending, *retired)}
    users: userdb.Users = read("users", userdb.parse)
    texts = []

    def parse_aliases(text: str) -> aliases.Aliases:
        texts.append(text)
        return aliases.parse(text, domain)

    rules: aliases.Aliases = read("aliases", parse_aliases)
    allowed: grants.Senders = read("senders", grants.parse)
    return DomainState(
        provider=_provider(folder / "acme.env", findings),
        users=users,
        aliases=rules,
        aliases_text=texts[-1] if "aliases" in present else "",
        senders=allowed,
        keys=keys,
        pending=tuple(key for key, _ in pending),
        retired=tuple((key, when) for key, when in retired if when),
        selectors=selectors,
        damaged=damaged,
        broken=frozenset(broken),
        present=frozenset(present),
    )


def _active_keys(
    paths: Paths, folder: Path, findings: list[Finding]
) -> tuple[tuple[dkim.DkimKey, ...], frozenset[str], frozenset[str]]:
    """A domain's keys that sign, the selectors of all that are meant to, and those of the damaged
    ones that have no last good copy."""
    keys: list[dkim.DkimKey] = []
    selectors, damaged = set(), set()
    good = edited.copy_of(paths, folder)
    # Also those that are gone but for their good copy: a key is given up on purpose or not at all.
    names = {path.name for place in (folder, good) for path in place.glob("dkim:*.pem")}
    for path in (folder / name for name in sorted(names)):
        try:
            selector = dkim.selector_of(path.name)
        except ValueError as error:
            findings.append(
                Finding(
                    id="dkim-name",
                    level=Level.FAIL,
                    message=f"{edited.shown(path)}: {error}",
                    fix="rename it",
                )
            )
            continue
        if selector is None:
            continue
        selectors.add(str(selector))

        def parse(raw: bytes, selector: Selector = selector) -> dkim.DkimKey | None:
            return dkim.load(selector, raw)

        key = edited.read(paths, path, parse, None, findings, needed=True)
        if key:
            keys.append(key)
        else:
            damaged.add(str(selector))
    return tuple(keys), frozenset(selectors), frozenset(damaged)


@dataclass(frozen=True)
class Temporary:
    """A log-in for a moment. `until` is in seconds of time.monotonic(), which all processes share,
    and which goes with the folder when the machine or the container starts anew."""

    domain: Domain
    users: userdb.Users
    until: float

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.until

    def dump(self) -> bytes:
        text = userdb.render(self.users)
        return json.dumps({"domain": self.domain, "users": text, "until": self.until}).encode()

    @classmethod
    def load(cls, raw: bytes) -> Temporary:
        """Raises ValueError, KeyError or TypeError for what dump did not make."""
        content = json.loads(raw)
        users = userdb.parse(content["users"])
        return cls(Domain.parse(content["domain"]), users, float(content["until"]))


def temporary_logins(paths: Paths) -> dict[Path, Temporary | None]:
    """The temporary logins, by file; None for a file that makes no sense."""
    found: dict[Path, Temporary | None] = {}
    for path in sorted(paths.temporary.glob("*.json")):
        try:
            found[path] = Temporary.load(path.read_bytes())
        except FileNotFoundError:
            continue  # taken back meanwhile
        except (OSError, ValueError, KeyError, TypeError):
            found[path] = None
    return found


def _temporary(paths: Paths) -> Mapping[Domain, userdb.Users]:
    users: dict[Domain, dict[str, userdb.Secret]] = {}
    for login in temporary_logins(paths).values():
        if login and not login.expired:
            users.setdefault(login.domain, {}).update(login.users)
    return users


# How a retired key's file is called: when, and the name that it had.
_RETIRED = re.compile(r"(?P<when>\d{8}T\d{6}Z)\.(?P<name>dkim:.+\.pem)")
_WHEN = "%Y%m%dT%H%M%SZ"


def retired_name(key: dkim.DkimKey, when: datetime) -> str:
    """The file's name among the retired: when it retired, in UTC to the second, and its own."""
    return f"{when.astimezone(UTC).strftime(_WHEN)}.{key.file_name}"


def _keys(folder: Path, findings: list[Finding]) -> list[tuple[dkim.DkimKey, datetime | None]]:
    """The keys of a rotation's folder; a damaged one is told, and counts as none."""
    found: list[tuple[dkim.DkimKey, datetime | None]] = []
    if not folder.is_dir():
        return found
    for path in sorted(folder.glob("*.pem")):
        match = _RETIRED.fullmatch(path.name)
        try:
            when = datetime.strptime(match["when"], _WHEN).replace(tzinfo=UTC) if match else None
            selector = dkim.selector_of(match["name"] if match else path.name)
            if selector:
                found.append((dkim.load(selector, path.read_bytes()), when))
        except (OSError, ValueError) as error:
            text = f"{edited.shown(path)}: {error}"
            findings.append(
                Finding(
                    id="broken-dkim",
                    level=Level.WARN,
                    message=text,
                    fix="remove it",
                    subject=str(path),
                )
            )
    return found


def _provider(path: Path, findings: list[Finding]) -> dict[str, str]:
    try:
        return acmehooks.parse_environment(edited.text(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except ValueError as error:
        reason = str(error)
    findings.append(
        Finding(
            id="broken-acme-env",
            level=Level.WARN,
            message=f"{edited.shown(path)}: {reason}. "
            "The certificate cannot be renewed until it is mended.",
            fix="mend the file",
            subject=str(path),
        )
    )
    return {}


def _certificates(paths: Paths, findings: list[Finding]) -> dict[Domain, certs.Certificate]:
    """What acme.sh, or the owner, put into certs/; a damaged pair's last good copy."""
    found = {}
    for folder in _folders(paths.certs):
        if folder.name == certs.SELF_SIGNED:
            continue
        try:
            name = Domain.parse(folder.name)
        except ValueError:
            continue
        try:
            found[name] = _pair(folder)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            serves = "nothing of it is served"
            with suppress(OSError, ValueError):
                found[name] = _pair(edited.copy_of(paths, folder))
                serves = "the last good copy serves"
            findings.append(
                Finding(
                    id="broken-certificate",
                    level=Level.FAIL,
                    message=f"{edited.shown(folder)}: {error}. Until it is mended {serves}.",
                    fix=f"have it issued again: docker exec mail renew-cert {name} --force",
                    subject=name,
                )
            )
    return found


def _pair(folder: Path) -> certs.Certificate:
    return certs.load((folder / certs.CHAIN).read_bytes(), (folder / certs.KEY).read_bytes())


def _self_signed(paths: Paths) -> certs.Certificate | None:
    try:
        return _pair(paths.certs / certs.SELF_SIGNED)
    except (OSError, ValueError):
        return None  # it is worth nothing: a new one is made


def _issues(paths: Paths) -> dict[Domain, Issue]:
    found = {}
    for path in paths.issues.glob("*.json"):
        # A memory that cannot be read is none: the worst is one try too many.
        with suppress(OSError, ValueError, TypeError):
            found[Domain.parse(path.stem)] = load_issue(path.read_text())
    return found


def load_issue(text: str) -> Issue:
    """Raises ValueError or TypeError if it is not what dump_issue wrote."""
    content = json.loads(text)
    window = content.pop("window", None)
    return Issue(**content, window=(float(window[0]), float(window[1])) if window else None)


def dump_issue(issue: Issue) -> str:
    """JSON, for `load_issue`."""
    return json.dumps(asdict(issue), indent=1)


def _exchangers(paths: Paths) -> dict[Domain, tuple[Domain, ...]]:
    try:
        content = json.loads(paths.mx.read_text())
        return {
            Domain.parse(domain): tuple(Domain.parse(server) for server in servers)
            for domain, servers in content.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # a cache: looked up again


def _selectors(paths: Paths, domains: Mapping[Domain, DomainState]) -> dict[Domain, frozenset[str]]:
    """Those of the keys that are there, and those that are remembered."""
    found = {domain: have.selectors for domain, have in domains.items()}
    try:
        for name, selectors in json.loads(paths.selectors.read_text()).items():
            domain = Domain.parse(name)
            known = frozenset(Selector.parse(selector) for selector in selectors)
            found[domain] = found.get(domain, frozenset()) | known
    except (OSError, ValueError, AttributeError, TypeError):
        pass  # damaged, or not there yet: what is left of it is written anew
    return found


def _created(paths: Paths) -> dict[str, float]:
    try:
        content = json.loads(paths.created.read_text())
        return {str(login): float(when) for login, when in content.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # a memory that cannot be read is none


@dataclass(frozen=True)
class Remembered:
    """What tambo notes and a backup keeps: as in State, but without the keys that are there."""

    selectors: Mapping[Domain, frozenset[str]] = field(default_factory=dict)
    created: Mapping[str, float] = field(default_factory=dict)


def remembered(paths: Paths) -> Remembered:
    """Never raises: what cannot be read is none."""
    return Remembered(_selectors(paths, {}), _created(paths))


def unserved(state: State, served: tuple[Domain, ...]) -> tuple[Finding, ...]:
    """Findings for domains that have a folder but are not among MAIL_DOMAINS."""
    return tuple(
        Finding(
            id="unserved-domain",
            level=Level.WARN,
            message=f"data/domains/{domain} exists, but {shown(domain)} is not one of "
            "MAIL_DOMAINS: its users cannot log in and its mail is refused.",
            fix=f"add {domain} to MAIL_DOMAINS in .env, or remove the folder",
            subject=domain,
        )
        for domain in state.domains
        if domain not in served
    )


@dataclass(frozen=True)
class Owned:
    """A file of the owner's, byte for byte."""

    content: bytes = field(repr=False)
    executable: bool = False


BACKED_UP = ("domains", "certs", "acme", "reload")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_~*+=@:,-][A-Za-z0-9_.~*+=@:,-]{0,200}")
_MAX_OWNED = 1 << 20  # bytes


@dataclass(frozen=True)
class LeftOut:
    """A file that is not in the backup, by its path below /data. `broken`: it makes no sense, or
    cannot be read, or is a DKIM key that is gone: what an earlier backup has of it stays there."""

    name: str
    reason: str
    broken: bool = False


def owned(paths: Paths) -> tuple[dict[str, Owned], tuple[LeftOut, ...]]:
    """The owner's files by their path below /data, and which are left out.

    Of what is broken the last good copy stands in, which is what serves.
    """
    found: dict[str, Owned] = {}
    left_out: list[LeftOut] = []
    for path in sorted(item for name in BACKED_UP for item in (paths.data / name).rglob("*")):
        parts = path.relative_to(paths.data).parts
        if any(part.startswith(".") for part in parts):
            continue  # what is being written, or was when something was killed
        name = "/".join(parts)
        if path.is_symlink():
            left_out.append(LeftOut(name, "it is a link"))
        elif path.is_dir():
            continue
        elif not is_plain(parts):
            reason = "its name holds a character that is none of A-Z a-z 0-9 ._~*+=@:,-"
            left_out.append(LeftOut(name, reason))
        else:
            try:
                status = path.stat()
                if status.st_size > _MAX_OWNED:
                    left_out.append(LeftOut(name, f"it is larger than {_MAX_OWNED >> 20} MB"))
                    continue
                found[name] = Owned(path.read_bytes(), bool(status.st_mode & 0o100))
            except FileNotFoundError:
                continue  # gone meanwhile
            except OSError as error:
                reason = f"it cannot be read: {error.strerror}"
                left_out.append(LeftOut(name, reason, broken=True))
    for name, reason in broken_files(found).items():
        del found[name]
        left_out.append(LeftOut(name, reason, broken=True))
    for name, content in edited.copies(paths).items():
        is_key = name.startswith("domains/") and "/dkim:" in name
        if name not in found and (is_key or any(item.name == name for item in left_out)):
            found[name] = Owned(content)
            left_out.append(LeftOut(name, "its last good copy serves", broken=True))
    return found, tuple(left_out)


def is_plain(parts: Iterable[str]) -> bool:
    """Whether a backup takes a file whose path consists of these names."""
    return all(_PLAIN_NAME.fullmatch(part) for part in parts)


def broken_files(files: Mapping[str, Owned]) -> dict[str, str]:
    """The owner's files that make no sense, and why."""
    found = {}
    for name, file in files.items():
        if reason := problem(name, file.content):
            found[name] = reason
    for name in files:
        if name.startswith("certs/") and name.endswith(f"/{certs.CHAIN}"):
            key = name.removesuffix(certs.CHAIN) + certs.KEY
            try:
                certs.load(files[name].content, files[key].content if key in files else b"")
            except ValueError as error:
                found |= {item: str(error) for item in (name, key) if item in files}
    return found


def problem(name: str, content: bytes) -> str:
    """What is wrong with an owner's file by its path below /data; an empty string if nothing."""
    parts = name.split("/")
    try:
        if parts[0] != "domains" or len(parts) < 3:
            return ""
        domain = Domain.parse(parts[1])
        if parts[2:] == ["users"]:
            userdb.parse(edited.text(content))
        elif parts[2:] == ["aliases"]:
            aliases.parse(edited.text(content), domain)
        elif parts[2:] == ["senders"]:
            grants.parse(edited.text(content))
        elif parts[2:] == ["acme.env"]:
            acmehooks.parse_environment(edited.text(content))
        else:
            match = _RETIRED.fullmatch(parts[-1])
            selector = dkim.selector_of(match["name"] if match else parts[-1])
            if selector:
                dkim.load(selector, content)
    except ValueError as error:
        return str(error)
    return ""
