"""Users and aliases: every name leads somewhere, nothing goes round in alias loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from entrypoint.chasquid import aliases, passwords, userdb
from entrypoint.chasquid.aliases import Pipe, Via
from entrypoint.chasquid.userdb import Denied
from entrypoint.checks import certificates, keys
from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import Domain
from entrypoint.converge import routing
from entrypoint.converge.routing import LIMIT, REPORTS, ROLES, Book
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import State

_WHY_FILE = "What cannot be read is not served: people may be missing who should be there."
_WHY_LOOP = "chasquid gives up after ten steps, and refuses the mail (451)."
_WHY_NOWHERE = "Nobody reads what is kept there, and the sender is told nothing."
_WHY_AGAIN = (
    "Each try at it, also a wrong one, takes 16 MiB or more where 4 do, so fewer are checked at "
    "once; and one in clear is known to whoever reads the file."
)
_WHY_ROLE = "Every mail domain must have them (RFC 2142): complaints come there, and lists look."


def check(context: CheckContext) -> list[Finding]:
    """From settings and state alone: nothing is asked. A loop or a dead end is each a finding."""
    elsewhere = (*certificates.FILES, *keys.FILES)
    files = [
        *(item for item in context.state.findings if item.id not in elsewhere),
        *load.unserved(context.state, context.settings.domains),
    ]
    resolver = routing.load(context.settings, context.state)
    return [
        *(replace(item, why=_WHY_FILE) for item in files),
        *loops(context.settings, context.state),
        *_aliases(context, resolver),
        *_users(context),
    ]


def loops(settings: Settings, current: State) -> Iterator[Finding]:
    """Aliases that lead back to themselves.

    They serve as they are written, and not as in the last good copy: a loop is seldom one file's.
    It may run through two domains, or a user or FORWARD_TO may have ended it until they went. The
    copy would hold back every other line of the edit, such as an end to a forwarding, and would
    hide what is written. And nothing is lost: chasquid answers 451 for that one name, so that
    whoever sends keeps the message and tries again.
    """
    resolver = routing.load(settings, current)
    for domain in settings.domains:
        # A name of a domain elsewhere whose exchangers were never seen leads to itself on purpose.
        mine = current.domain(domain).aliases
        for name in mine:
            way = resolver.loop(routing.probe(name, domain))
            if not way:
                continue
            path = f"data/domains/{domain}/aliases"
            line = aliases.line_of(current.domain(domain).aliases_text, name)
            where = f"{path}: line {line}: " if line else f"{path}: "
            chain = " → ".join(way)
            wrong = "goes round in a loop" if way[-1] in way[:-1] else f"takes over {LIMIT} steps"
            yield Finding(
                id="alias-loop",
                level=Level.FAIL,
                message=f"{where}mail to {name}@{domain} {wrong}: {chain}.",
                fix=f"end the loop in {path}; a name that is its own target is one too",
                subject=f"{name}@{domain}",
                seen=chain,
                why=_WHY_LOOP,
            )


def _aliases(context: CheckContext, resolver: Book) -> Iterator[Finding]:
    for domain in context.settings.domains:
        for name in resolver.domains[domain].rules:
            yield from _alias(resolver, domain, name)
        if domain in context.settings.receiving:
            yield from _roles(resolver, domain)


def _alias(resolver: Book, domain: Domain, name: str) -> Iterator[Finding]:
    address = routing.probe(name, domain)
    shown = f"{name}@{domain}"
    path = f"data/domains/{domain}/aliases"
    if resolver.loop(address):
        return
    lost = sorted({way[-1] for way in resolver.nowhere(address)})
    for target in lost:
        yield Finding(
            id="alias-nowhere",
            level=Level.WARN,
            message=f"Mail to {shown} leads to {target}, which is nobody.",
            fix=f"correct the line in {path}, or add the user:\ndocker exec mail add-user {target}",
            subject=f"{shown} {target}",
            seen="no such user or alias",
            why=_WHY_NOWHERE,
        )


def _roles(resolver: Book, domain: Domain) -> Iterator[Finding]:
    """postmaster and abuse: there, and read by somebody."""
    kept = []
    for name in ROLES:
        address = f"{name}@{domain}"
        if not resolver.exists(address):
            yield Finding(
                id="role-missing",
                level=Level.FAIL,
                message=f"{address} does not exist.",
                fix=f"add a line to data/domains/{domain}/aliases:\n{name}: you@example.net",
                subject=address,
                seen="no such user or alias",
                why=_WHY_ROLE,
            )
        elif not resolver.next(address) and not _leaves(resolver, domain, name):
            kept.append(name)
    if kept:
        lines = "\n".join(f"{name}: you@example.net" for name in kept)
        yield Finding(
            id="role-kept",
            level=Level.INFO,
            message=f"Mail to {' and '.join(kept)}@{domain} is kept here, unread.",
            fix="have it forwarded, by FORWARD_TO in .env or by lines of "
            f"data/domains/{domain}/aliases:\n{lines}",
            subject=str(domain),
            seen=f"in data/mail/{domain}",
            why=_WHY_ROLE,
        )


def _leaves(resolver: Book, domain: Domain, name: str) -> bool:
    targets = resolver.domains[domain].rules.get(name, ())
    return any(isinstance(target, (Via, Pipe)) for target in targets)


def _users(context: CheckContext) -> Iterator[Finding]:
    settings = context.settings
    senders = [
        name
        for domain in settings.domains
        for name, secret in context.state.domain(domain).users.items()
        if not isinstance(secret, Denied) and userdb.owner(name) not in (*ROLES, *REPORTS)
    ]
    old = sorted(
        f"{name}@{domain}"
        for domain in settings.domains
        for name, secret in context.state.domain(domain).users.items()
        if passwords.is_outdated(secret)
    )
    if old:
        verbs = "\n".join(
            f"docker exec -it mail set-password {_words(login)} --prompt" for login in old
        )
        yield Finding(
            id="password-old",
            level=Level.WARN,
            message=f"The password of {', '.join(old)} is stored as it was before, or in clear.",
            fix=f"set it again; it may be the same:\n{verbs}",
            subject=" ".join(old),
            seen="more than 4 MiB a check, or in clear",
            why=_WHY_AGAIN,
        )
    if not senders:
        yield Finding(
            id="no-users",
            level=Level.INFO,
            message="Nobody may log in and send yet.",
            fix=f"add somebody:\ndocker exec mail add-user i@{settings.domains[0]}",
            seen="no users",
            why="Mail programs need a user to send.",
        )


def _words(login: str) -> str:
    """A login as a verb's arguments."""
    local, _, domain = login.rpartition("@")
    name = userdb.purpose(local)
    return f"{userdb.owner(local)}@{domain}" + (f" --name {name}" if name else "")
