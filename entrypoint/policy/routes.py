"""Whether mail to a recipient stays here or goes on to another server, for each domain. Pure.

    {"example.com": {"lines": {"i": true, "*": true, "sales": false}, "users": ["rua"],
                     "exchangers": null, "kept": {"sales": ["j@example.com"]}}}

`converge.routing` finds it out, as chasquid resolves names; the policy service gets the result. A
domain that receives elsewhere has `exchangers`, its MX hosts, and only the owner's own `lines`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from entrypoint.policy import header

_CATCH_ALL = "*"
_SUFFIX = "+"


@dataclass(frozen=True)
class Route:
    """One domain's. `lines` are the aliases, and whether mail to each leaves; `users` have none.

    `exchangers` is None where mail is received here; else the users' mail goes there. `kept` has
    the aliases whose mail ends in Maildirs here and nowhere else, with the mailboxes.
    """

    lines: Mapping[str, bool] = field(default_factory=dict)
    users: frozenset[str] = frozenset()
    exchangers: tuple[str, ...] | None = None
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def line(self, local: str) -> str | None:
        """The alias that answers for a name, by chasquid's order: the whole name, the part before
        the suffix, a user, the catch-all. None: a user's own mailbox, or nobody."""
        for name in (local, local.partition(_SUFFIX)[0]):
            if name in self.lines:
                return name
        # Here chasquid asks for a user by the whole name. Of what is received elsewhere each has a
        # line to the MX, which holds for suffixes too.
        user = local if self.exchangers is None else local.partition(_SUFFIX)[0]
        if user in self.users or _CATCH_ALL not in self.lines:
            return None
        return _CATCH_ALL

    def leaves(self, local: str) -> bool:
        line = self.line(local)
        return line is not None and self.lines[line]

    def dump(self) -> dict[str, Any]:
        return {
            "lines": dict(sorted(self.lines.items())),
            "users": sorted(self.users),
            "exchangers": None if self.exchangers is None else list(self.exchangers),
            "kept": {name: list(ends) for name, ends in sorted(self.kept.items())},
        }

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> Route:
        """Raises KeyError, TypeError or AttributeError for what `dump` did not make."""
        exchangers = content["exchangers"]
        return cls(
            {str(name): bool(leaves) for name, leaves in content["lines"].items()},
            frozenset(content["users"]),
            None if exchangers is None else tuple(exchangers),
            # A file of the version before has none of it until the next reconcile.
            {str(name): tuple(ends) for name, ends in content.get("kept", {}).items()},
        )


def leaves(routes: Mapping[str, Route], recipient: str) -> bool:
    """Whether mail to an address goes on to another server; also if nobody can say.

    chasquid takes nothing from strangers for a domain that is in no route.
    """
    local, _, name = recipient.lower().rpartition("@")
    try:
        route = routes.get(header.domain(name))
    except ValueError:
        return True
    return not routes if route is None else route.leaves(local)


def mailboxes(routes: Mapping[str, Route], recipient: str) -> tuple[str, ...]:
    """The mailboxes here in which mail to an address ends, if it ends nowhere else; else nothing.

    Nothing too for an address of which nobody can say.
    """
    local, _, name = recipient.lower().rpartition("@")
    try:
        domain = header.domain(name)
    except ValueError:
        return ()
    route = routes.get(domain)
    if route is None:
        return ()
    line = route.line(local)
    if line is not None:
        return route.kept.get(line, ())
    return () if route.exchangers is not None else (f"{local.partition(_SUFFIX)[0]}@{domain}",)


def received_elsewhere(routes: Mapping[str, Route], recipient: str) -> tuple[str, ...] | None:
    """The MX hosts to which mail to this address belongs, if that is not here; None if it is."""
    local, _, name = recipient.lower().rpartition("@")
    try:
        route = routes.get(header.domain(name))
    except ValueError:
        return None
    if route is None or route.exchangers is None or route.line(local) is not None:
        return None
    return route.exchangers
