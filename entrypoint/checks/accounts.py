"""Users and aliases: every name leads somewhere, nothing goes round in circles.

Follows what is served, as chasquid does (internal/aliases/aliases.go): an alias comes before a
user, a user before the catch-all, and after ten steps it gives up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from entrypoint import plan, state
from entrypoint.aliases import CATCH_ALL, Aliases, Mailbox, Pipe, Via
from entrypoint.checks import certificates, keys
from entrypoint.checks.context import CheckContext
from entrypoint.findings import Finding, Level
from entrypoint.names import Domain
from entrypoint.plan import REPORTS, ROLES
from entrypoint.state import DomainState
from entrypoint.userdb import Denied

# Stands for the exchangers of a domain whose MX was never seen: that is another check's finding.
_NEVER_SEEN = (Domain("never-seen.invalid"),)
_LIMIT = 10  # steps (recursionLimit)
_ANYBODY = "no-such-name"  # stands for a name that only the catch-all knows
_WHY_FILE = "What cannot be read is not served: people may be missing who should be there."
_WHY_LOOP = "chasquid gives up after ten steps, and refuses the mail (451)."
_WHY_NOWHERE = "Nobody reads what is kept there, and the sender is told nothing."
_WHY_ROLE = "Every mail domain must have them (RFC 2142): complaints come there, and lists look."


def check(context: CheckContext) -> list[Finding]:
    elsewhere = (*certificates.FILES, *keys.FILES)
    files = [
        *(item for item in context.state.findings if item.id not in elsewhere),
        *state.unserved(context.state, context.settings.domains),
    ]
    return [
        *(replace(item, why=_WHY_FILE) for item in files),
        *_aliases(context),
        *_users(context),
    ]


@dataclass(frozen=True)
class _Domain:
    """What chasquid is given for one of its domains."""

    users: frozenset[str]
    rules: Aliases


@dataclass
class _Book:
    """All that chasquid resolves names by."""

    domains: Mapping[str, _Domain]
    _over: dict[tuple[str, int], str] = field(default_factory=dict)

    def exists(self, address: str) -> bool:
        """Whether mail to a local address reaches a user, an alias or the catch-all."""
        local, _, domain = address.rpartition("@")
        have = self.domains[domain]
        names = (local, local.partition("+")[0], CATCH_ALL)
        return any(name in have.rules for name in names) or names[1] in have.users

    def next(self, address: str) -> tuple[str, ...]:
        """The addresses that one more step leads to; none for a final one."""
        local, _, domain = address.rpartition("@")
        have = self.domains.get(domain)
        if have is None:
            return ()
        short = local.partition("+")[0]
        targets = have.rules.get(local) or have.rules.get(short)
        if targets is None:
            if short in have.users:
                return ()
            targets = have.rules.get(CATCH_ALL, ())
        return tuple(
            f"{local if target.local == CATCH_ALL else target.local}@{target.domain}"
            for target in targets
            if isinstance(target, Mailbox)  # programs and `via` are ends
        )

    def loop(self, address: str, step: int = 0) -> str:
        """An address at which chasquid gives up on the way from this one, or nothing."""
        if step >= _LIMIT:
            return address
        key = (address, step)
        if key not in self._over:
            found = (self.loop(item, step + 1) for item in self.next(address))
            self._over[key] = next((item for item in found if item), "")
        return self._over[key]

    def nowhere(self, address: str) -> Iterator[str]:
        """The local addresses on the way from this one that do not exist. It must not loop."""
        seen = {address}
        waiting = [address]
        while waiting:
            current = waiting.pop()
            following = self.next(current)
            if not following and current.rpartition("@")[2] in self.domains:
                if not self.exists(current):
                    yield current
                continue
            for item in following:
                if item not in seen:
                    seen.add(item)
                    waiting.append(item)


def _book(context: CheckContext) -> _Book:
    settings, current = context.settings, context.state
    domains = {}
    for domain in context.local_domains:
        have = current.domain(domain) if domain in settings.domains else DomainState()
        if domain in settings.receiving or domain == settings.mail_hostname:
            users = plan.served_users(have)
            rules = plan.served_aliases(settings, have)
        else:
            users = have.users
            servers = current.exchangers.get(domain, _NEVER_SEEN)
            rules = plan.aliases_via(domain, have, servers)
        domains[str(domain)] = _Domain(frozenset(users), rules)
    return _Book(domains)


def _aliases(context: CheckContext) -> Iterator[Finding]:
    book = _book(context)
    for domain in context.settings.domains:
        rules = book.domains[domain].rules
        for name in rules:
            yield from _alias(book, domain, name)
        if domain in context.settings.receiving:
            yield from _roles(book, domain)


def _alias(book: _Book, domain: Domain, name: str) -> Iterator[Finding]:
    address = f"{_ANYBODY if name == CATCH_ALL else name}@{domain}"
    shown = f"{name}@{domain}"
    path = f"data/domains/{domain}/aliases"
    end = book.loop(address)
    if end:
        yield Finding(
            "alias-loop", Level.FAIL, f"Mail to {shown} goes round in a circle.",
            f"end the circle in {path}; a name that is its own target is one too", shown,
            f"more than {_LIMIT} steps, the last at {end}", _WHY_LOOP,
        )  # fmt: skip
        return
    lost = sorted(set(book.nowhere(address)))
    for target in lost:
        yield Finding(
            "alias-nowhere", Level.WARN, f"Mail to {shown} leads to {target}, which is nobody.",
            f"correct the line in {path}, or add the user:\ndocker exec mail add-user {target}",
            f"{shown} {target}", "no such user or alias", _WHY_NOWHERE,
        )  # fmt: skip


def _roles(book: _Book, domain: Domain) -> Iterator[Finding]:
    """postmaster and abuse: there, and read by somebody."""
    kept = []
    for name in ROLES:
        address = f"{name}@{domain}"
        if not book.exists(address):
            yield Finding(
                "role-missing", Level.FAIL, f"{address} does not exist.",
                f"add a line to data/domains/{domain}/aliases:\n{name}: you@example.net", address,
                "no such user or alias", _WHY_ROLE,
            )  # fmt: skip
        elif not book.next(address) and not _leaves(book, domain, name):
            kept.append(name)
    if kept:
        lines = "\n".join(f"{name}: you@example.net" for name in kept)
        yield Finding(
            "role-kept", Level.INFO, f"Mail to {' and '.join(kept)}@{domain} is kept here, unread.",
            "have it forwarded, by FORWARD_TO in .env or by lines of "
            f"data/domains/{domain}/aliases:\n{lines}",
            str(domain), f"in data/mail/{domain}", _WHY_ROLE,
        )  # fmt: skip


def _leaves(book: _Book, domain: Domain, name: str) -> bool:
    targets = book.domains[domain].rules.get(name, ())
    return any(isinstance(target, (Via, Pipe)) for target in targets)


def _users(context: CheckContext) -> Iterator[Finding]:
    settings = context.settings
    senders = [
        name
        for domain in settings.domains
        for name, secret in context.state.domain(domain).users.items()
        if not isinstance(secret, Denied) and name not in (*ROLES, *REPORTS)
    ]
    if not senders:
        yield Finding(
            "no-users", Level.INFO, "Nobody may log in and send yet.",
            f"add somebody:\ndocker exec mail add-user i@{settings.domains[0]}",
            seen="no users", why="Mail programs need a user to send.",
        )  # fmt: skip
