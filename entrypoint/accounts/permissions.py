"""What verbs share that change data/domains/DOMAIN/senders. Their caller holds the edit lock."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import click

from entrypoint.commands.context import Context
from entrypoint.common.errors import UserError
from entrypoint.common.names import Domain
from entrypoint.converge import apply
from entrypoint.policy import grants as senders
from entrypoint.policy.grants import Grant, Sender, Senders
from entrypoint.state.load import State


class GrantType(click.ParamType[Grant]):
    name = "ADDRESS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Grant:
        try:
            return Grant.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def check_served(context: Context, grants: Iterable[Grant]) -> None:
    """Raises UserError for a domain that nothing can be signed for."""
    domains = context.settings.domains
    for item in grants:
        if item.domain not in domains:
            msg = f"{item}: {item.domain} is not one of the domains served here"
            raise UserError(msg, f"name an address of one of these: {', '.join(domains)}")


def editable(context: Context, state: State, domain: Domain) -> Senders:
    """A domain's senders; refuses to write over a file that a person must mend."""
    have = state.domain(domain)
    if "senders" in have.broken:
        path = context.paths.domain(domain) / "senders"
        reasons = [str(item) for item in state.findings if item.subject == str(path)]
        raise UserError(" ".join(reasons))
    return have.senders


def keep(context: Context, domain: Domain, found: Senders) -> None:
    path = context.paths.domain(domain) / "senders"
    text = senders.render(found)
    if text:
        apply.write(path, text.encode(), context.ids)
    elif path.exists():
        apply.remove(path)
        # Else a broken file would bring back what was taken away last.
        apply.remove(context.paths.good / domain / "senders")


def grant(context: Context, state: State, domain: Domain, name: str, more: Iterable[Grant]) -> None:
    """Let a login (`name@domain`) send as more addresses."""
    found = editable(context, state, domain)
    before = found.get(name, Sender())
    after = Sender(tuple(dict.fromkeys((*before.grants, *more))), before.limit)
    if after != before:
        keep(context, domain, {**found, name: after})


def drop(context: Context, state: State, domain: Domain, names: Collection[str]) -> None:
    """Forget all of logins that are removed: another user of that name must not inherit it."""
    found = editable(context, state, domain)
    if any(name in found for name in names):
        keep(context, domain, {name: found[name] for name in found if name not in names})
