"""What is on the volume: the only reader of /data, apart from locks and Maildirs.

A file that people edit and that is broken never stops anything: its last good copy serves, and a
finding says which line is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from entrypoint import aliases, certs, dkim, userdb
from entrypoint.findings import Finding, Level
from entrypoint.names import Domain, Selector, shown
from entrypoint.paths import Paths

_T = TypeVar("_T")


@dataclass(frozen=True)
class DomainState:
    """One domain's own files, as they serve: valid, or the last good copy."""

    users: userdb.Users = field(default_factory=dict)
    aliases: aliases.Aliases = field(default_factory=dict)
    keys: tuple[dkim.DkimKey, ...] = ()
    # Selectors of key files that exist, readable or not: a damaged key is no reason for a new one.
    selectors: frozenset[str] = frozenset()
    damaged: frozenset[str] = frozenset()
    # Names of files (`users`, `aliases`) that are broken: what serves is the last good copy.
    broken: frozenset[str] = frozenset()


@dataclass(frozen=True)
class State:
    domains: Mapping[Domain, DomainState] = field(default_factory=dict)
    self_signed: certs.Certificate | None = None
    # Mail exchangers of domains that receive elsewhere; a missing domain was never looked up.
    exchangers: Mapping[Domain, tuple[Domain, ...]] = field(default_factory=dict)
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
            findings.append(Finding("domain-folder", Level.WARN, f"{folder}: {error}"))
            continue
        domains[domain] = _domain(paths, domain, findings)
    return State(
        domains=domains,
        self_signed=_self_signed(paths),
        exchangers=_exchangers(paths),
        findings=tuple(findings),
    )


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(item for item in path.iterdir() if item.is_dir() and item.name[0] != ".")


def _domain(paths: Paths, domain: Domain, findings: list[Finding]) -> DomainState:
    folder, good = paths.domain(domain), paths.good / domain

    broken = set()

    def read(name: str, parse: Callable[[str], Mapping[str, _T]]) -> Mapping[str, _T]:
        before = len(findings)
        value: Mapping[str, _T] = _edited(
            folder / name, good / name, lambda raw: parse(_text(raw)), {}, findings
        )
        if len(findings) > before:
            broken.add(name)
        return value

    keys, selectors, damaged = [], set(), set()
    for path in sorted(folder.glob("dkim:*.pem")):
        try:
            selector = dkim.selector_of(path.name)
        except ValueError as error:
            findings.append(Finding("dkim-name", Level.FAIL, f"{path}: {error}"))
            continue
        if selector is None:
            continue
        selectors.add(str(selector))

        def parse(raw: bytes, selector: Selector = selector) -> dkim.DkimKey | None:
            return dkim.load(selector, raw)

        key = _edited(path, good / path.name, parse, None, findings)
        if key:
            keys.append(key)
        else:
            damaged.add(str(selector))
    users: userdb.Users = read("users", userdb.parse)
    rules: aliases.Aliases = read("aliases", lambda text: aliases.parse(text, domain))
    return DomainState(
        users=users,
        aliases=rules,
        keys=tuple(keys),
        selectors=frozenset(selectors),
        damaged=frozenset(damaged),
        broken=frozenset(broken),
    )


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        msg = f"line {line}: not UTF-8 text"
        raise ValueError(msg) from None


def _edited(
    path: Path, good: Path, parse: Callable[[bytes], _T], empty: _T, findings: list[Finding]
) -> _T:
    """What `path` holds; if that is broken, what `good` held, and a finding."""
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return empty
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except ValueError as error:
        reason = str(error)
    try:
        fallback, serves = parse(good.read_bytes()), "the last good copy serves"
    except (OSError, ValueError):
        fallback, serves = empty, "nothing of it is served, as there is no good copy"
    findings.append(
        Finding(
            f"broken-{path.name.partition(':')[0]}",
            Level.FAIL,
            f"{path}: {reason}. Until it is mended {serves}.",
            f"mend the file, or go back with: cp {good} {path}",
        )
    )
    return fallback


def _self_signed(paths: Paths) -> certs.Certificate | None:
    folder = paths.certs / certs.SELF_SIGNED
    try:
        return certs.load((folder / certs.CHAIN).read_bytes(), (folder / certs.KEY).read_bytes())
    except (OSError, ValueError):
        return None  # it is worth nothing: a new one is made


def _exchangers(paths: Paths) -> dict[Domain, tuple[Domain, ...]]:
    try:
        content = json.loads(paths.mx.read_text())
        return {
            Domain.parse(domain): tuple(Domain.parse(server) for server in servers)
            for domain, servers in content.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # a cache: looked up again


def unserved(state: State, served: tuple[Domain, ...]) -> tuple[Finding, ...]:
    """Findings for domains that have a folder but are not among MAIL_DOMAINS."""
    return tuple(
        Finding(
            "unserved-domain",
            Level.WARN,
            f"data/domains/{domain} exists, but {shown(domain)} is not one of MAIL_DOMAINS: its "
            "users cannot log in and its mail is refused.",
            f"add {domain} to MAIL_DOMAINS in .env, or remove the folder",
        )
        for domain in state.domains
        if domain not in served
    )
