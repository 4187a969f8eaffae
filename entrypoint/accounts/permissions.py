"""Permissions to send: changes of data/domains/DOMAIN/senders. Callers hold the edit lock."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from entrypoint.common.errors import UserError
from entrypoint.common.identity import Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.policy.grants import Grant, Sender, Senders, render
from entrypoint.settings.model import Settings
from entrypoint.state import edited
from entrypoint.state.load import State


def check_served(settings: Settings, grants: Iterable[Grant]) -> None:
    """Raises UserError for a domain that nothing can be signed for."""
    domains = settings.domains
    for item in grants:
        if item.domain not in domains:
            msg = f"{item}: {item.domain} is not one of the domains served here"
            raise UserError(msg, f"name an address of one of these: {', '.join(domains)}")


def editable(paths: Paths, state: State, domain: Domain) -> Senders:
    """A domain's senders; refuses to write over a file that a person must mend."""
    have = state.domain(domain)
    if "senders" in have.broken:
        path = paths.domain(domain) / "senders"
        reasons = [str(item) for item in state.findings if item.subject == str(path)]
        raise UserError(" ".join(reasons))
    return have.senders


def keep(paths: Paths, ids: Ids, domain: Domain, found: Senders) -> None:
    """Write a domain's senders. Not safe without the edit lock. Raises OSError."""
    edited.replace(paths, ids, paths.domain(domain) / "senders", render(found).encode())


def grant(
    paths: Paths, ids: Ids, state: State, domain: Domain, name: str, more: Iterable[Grant]
) -> None:
    """Let a login (`name@domain`) send as more addresses."""
    found = editable(paths, state, domain)
    before = found.get(name, Sender())
    after = Sender(tuple(dict.fromkeys((*before.grants, *more))), before.limit)
    if after != before:
        keep(paths, ids, domain, {**found, name: after})


def drop(paths: Paths, ids: Ids, state: State, domain: Domain, names: Collection[str]) -> None:
    """Forget all of logins that are removed: another user of that name must not inherit it."""
    found = editable(paths, state, domain)
    if any(name in found for name in names):
        keep(paths, ids, domain, {name: found[name] for name in found if name not in names})
