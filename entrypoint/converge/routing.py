"""Where mail to an address here goes: names resolved as chasquid does, with what it is given.

As internal/aliases/aliases.go has it: the whole local part's alias comes first, then that of the
part before the +, then a user, then the catch-all; after ten steps chasquid gives up. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from entrypoint.chasquid.aliases import CATCH_ALL, Aliases, Mailbox, Pipe, Target, Via
from entrypoint.common.names import Domain
from entrypoint.converge import plan
from entrypoint.settings.model import Settings
from entrypoint.state.load import DomainState, State

LIMIT = 10  # steps (recursionLimit)
# Stands for a name that only the catch-all knows.
ANYBODY = "no-such-name"
# Stands for the exchangers of a domain whose MX was never seen: that is another check's finding.
_NEVER_SEEN = (Domain("never-seen.invalid"),)


@dataclass(frozen=True)
class Served:
    """What chasquid is given for one of its domains."""

    users: frozenset[str]
    rules: Aliases


class Way(Enum):
    """How mail to an address ends."""

    FORWARDED = "forwarded"  # to another server, by MX or `via`
    KEPT = "kept"  # in a Maildir, of somebody who exists
    NOBODY = "nobody"  # in a Maildir, of nobody: chasquid no longer refuses it then
    PROGRAM = "program"
    CIRCLE = "circle"  # 451 to the sender, for all recipients of the address
    REFUSED = "refused"  # 550


@dataclass(frozen=True)
class End:
    """`where` is an address, a command or, of a circle, the addresses on the way."""

    way: Way
    where: str


@dataclass
class Book:
    """All that chasquid resolves names by."""

    domains: Mapping[str, Served]
    _circles: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)

    def exists(self, address: str) -> bool:
        """Whether mail to a local address reaches a user, an alias or the catch-all."""
        local, _, domain = address.rpartition("@")
        have = self.domains[domain]
        names = (local, _short(local), CATCH_ALL)
        return any(name in have.rules for name in names) or names[1] in have.users

    def targets(self, address: str) -> tuple[Target, ...]:
        """What one more step leads to; nothing for a final address.

        A suffix counts when chasquid asks whether a user exists: without an alias of its own, mail
        to `i+tag` is the catch-all's, if there is one, and not i's.
        """
        local, _, domain = address.rpartition("@")
        have = self.domains.get(domain)
        if have is None:
            return ()
        found = have.rules.get(local) or have.rules.get(_short(local))
        if found is None:
            found = () if local in have.users else have.rules.get(CATCH_ALL, ())
        return tuple(_filled(target, local) for target in found)

    def next(self, address: str) -> tuple[str, ...]:
        """The addresses that one more step leads to; programs and `via` are ends."""
        return tuple(str(item) for item in self.targets(address) if isinstance(item, Mailbox))

    def circle(self, address: str) -> tuple[str, ...]:
        """The way from an address to where chasquid gives up; empty if it arrives.

        Of a circle the last address stands on the way already; else the way is only too long.
        """
        way = self._over(address, 0)
        for number, item in enumerate(way):
            if item in way[:number]:
                return way[: number + 1]
        return way

    def _over(self, address: str, step: int) -> tuple[str, ...]:
        if step >= LIMIT:
            return (address,)
        key = (address, step)
        if key not in self._circles:
            found = (self._over(item, step + 1) for item in self.next(address))
            rest = next((item for item in found if item), ())
            self._circles[key] = (address, *rest) if rest else ()
        return self._circles[key]

    def nowhere(self, address: str) -> Iterator[tuple[str, ...]]:
        """The ways from an address, which is in no circle, to local ones that do not exist."""
        for way in self._ways(address):
            if way[-1].rpartition("@")[2] in self.domains and not self.exists(way[-1]):
                yield way

    def _ways(self, address: str) -> Iterator[tuple[str, ...]]:
        """One way to each address on which no further step follows but programs and `via`."""
        seen = {address}
        waiting: list[tuple[str, ...]] = [(address,)]
        while waiting:
            way = waiting.pop()
            targets = self.targets(way[-1])
            following = [str(item) for item in targets if isinstance(item, Mailbox)]
            if not targets:
                yield way
            for item in reversed(following):
                if item not in seen:
                    seen.add(item)
                    waiting.append((*way, item))

    def ends(self, address: str) -> tuple[End, ...]:
        """Where mail to a local address ends, each place once."""
        if not self.exists(address):
            return (End(Way.REFUSED, address),)
        circle = self.circle(address)
        if circle:
            return (End(Way.CIRCLE, " → ".join(circle)),)
        found = []
        seen = {address}
        waiting = [address]
        while waiting:
            current = waiting.pop(0)
            targets = self.targets(current)
            for target in targets:
                match target:
                    case Pipe(command):
                        found.append(End(Way.PROGRAM, command))
                    case Via():
                        found.append(End(Way.FORWARDED, str(target)))
                    case Mailbox() if str(target) not in seen:
                        seen.add(str(target))
                        waiting.append(str(target))
            if not targets:
                found.append(self._final(current))
        return tuple(dict.fromkeys(found))

    def _final(self, address: str) -> End:
        local, _, domain = address.rpartition("@")
        if domain not in self.domains:
            return End(Way.FORWARDED, address)
        way = Way.KEPT if self.exists(address) else Way.NOBODY
        return End(way, f"{_short(local)}@{domain}")


def _short(local: str) -> str:
    return local.partition("+")[0]


def _filled(target: Target, local: str) -> Target:
    """`*` as a target's local part stands for the name that the mail is to."""
    match target:
        case Mailbox("*", domain):
            return Mailbox(local, domain)
        case Via(Mailbox("*", domain), servers):
            return Via(Mailbox(local, domain), servers)
    return target


def probe(name: str, domain: Domain) -> str:
    """An address that this alias answers for."""
    return f"{ANYBODY if name == CATCH_ALL else name}@{domain}"


def load(settings: Settings, state: State) -> Book:
    """What is served with these files, or would be."""
    domains = {}
    host = Domain(settings.mail_hostname)
    for domain in dict.fromkeys((*settings.domains, host)):
        have = state.domain(domain) if domain in settings.domains else DomainState()
        if domain in settings.receiving or domain == host:
            users = plan.served_users(have)
            rules = plan.served_aliases(settings, have)
        else:
            users = have.users
            servers = state.exchangers.get(domain, _NEVER_SEEN)
            rules = plan.aliases_via(domain, have, servers)
        domains[str(domain)] = Served(frozenset(users), rules)
    return Book(domains)
