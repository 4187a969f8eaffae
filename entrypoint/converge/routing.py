"""Where mail to an address here goes: names resolved as chasquid does, with what it is given.

As internal/aliases/aliases.go has it: the whole local part's alias comes first, then that of the
part before the +, then a user, then the catch-all; after ten steps chasquid gives up. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from entrypoint.chasquid import userdb
from entrypoint.chasquid.aliases import CATCH_ALL, Aliases, Mailbox, Pipe, Target, Via
from entrypoint.common.names import Domain
from entrypoint.policy.routes import Route
from entrypoint.settings.model import Settings
from entrypoint.state.load import DomainState, State

# RFC 2142: they exist wherever mail is received.
ROLES = ("postmaster", "abuse")
# DMARC and TLS reports: kept here, never forwarded.
REPORTS = ("rua", "ruf")
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
    LOOP = "circle"  # the word of --json; 451 to the sender, for all recipients of the address
    REFUSED = "refused"  # 550


@dataclass(frozen=True)
class End:
    """`where` is an address, a command or, of an alias loop, the addresses on the way."""

    way: Way
    where: str


@dataclass
class Book:
    """All that chasquid resolves names by."""

    domains: Mapping[str, Served]
    _loops: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)

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

    def loop(self, address: str) -> tuple[str, ...]:
        """The way from an address to where chasquid gives up; empty if it arrives.

        Of an alias loop the last address stands on the way already; else the way is only too long.
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
        if key not in self._loops:
            found = (self._over(item, step + 1) for item in self.next(address))
            rest = next((item for item in found if item), ())
            self._loops[key] = (address, *rest) if rest else ()
        return self._loops[key]

    def nowhere(self, address: str) -> Iterator[tuple[str, ...]]:
        """The ways from an address, which is in no loop, to local ones that do not exist."""
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
        loop = self.loop(address)
        if loop:
            return (End(Way.LOOP, " → ".join(loop)),)
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


def served_users(have: DomainState) -> userdb.Users:
    """The owner's users, and those that must exist but never log in.

    A credential with a name, `i+phone`, makes `i` exist as well: chasquid takes such an address for
    one of its users, and keeps the mail to it under the name without the suffix.
    """
    roles = [name for name in (*ROLES, *REPORTS) if name not in have.aliases]
    return {**dict.fromkeys((*roles, *userdb.owners(have.users)), userdb.Denied()), **have.users}


def served_aliases(settings: Settings, have: DomainState) -> Aliases:
    """The owner's lines, and what FORWARD_TO adds where the owner has none.

    chasquid prefers a user to the catch-all, so each user needs a line of its own. Credentials with
    a name need none: theirs is their owner's, whose own line must hold for them too.
    """
    rules: dict[str, tuple[Target, ...]] = {}
    if settings.forward_to:
        target = Mailbox(settings.forward_to.local, settings.forward_to.domain)
        users = userdb.owners(have.users)
        names = (CATCH_ALL, *ROLES, *(name for name in users if name not in REPORTS))
        rules = dict.fromkeys(names, (target,))
    return {**rules, **have.aliases}


def aliases_via(
    domain: Domain, have: DomainState, exchangers: tuple[Domain, ...] | None
) -> Aliases:
    """All mail to a domain that receives elsewhere goes to its real exchangers.

    The owner's own lines win. No exchanger at all (the domain takes no mail): no catch-all either,
    so that chasquid refuses such mail at once. None: they were never seen. chasquid writes into a
    queued message where it goes, for good; so a name without an exchanger leads to itself, which
    chasquid answers with 451 (recursion limit): whoever sends keeps the message.
    """

    def onward(name: str) -> Target:
        mailbox = Mailbox(name, domain)
        return Via(mailbox, exchangers) if exchangers else mailbox

    catch_all = () if exchangers == () else (CATCH_ALL,)
    rules: Mapping[str, tuple[Target, ...]] = {
        name: (onward(name),) for name in (*catch_all, *userdb.owners(have.users))
    }
    return {**rules, **have.aliases}


def load(settings: Settings, state: State) -> Book:
    """What is served with these files, or would be."""
    domains = {}
    host = Domain(settings.mail_hostname)
    for domain in dict.fromkeys((*settings.domains, host)):
        have = state.domain(domain) if domain in settings.domains else DomainState()
        if domain in settings.receiving or domain == host:
            users = served_users(have)
            rules = served_aliases(settings, have)
        else:
            users = have.users
            servers = state.exchangers.get(domain, _NEVER_SEEN)
            rules = aliases_via(domain, have, servers)
        domains[str(domain)] = Served(frozenset(users), rules)
    return Book(domains)


def _maildirs(resolver: Book, alias: str, domain: Domain) -> tuple[str, ...]:
    """The mailboxes of an alias whose mail ends in Maildirs alone; nothing if it also goes
    elsewhere, or if where depends on the name that the mail is to."""
    ends = resolver.ends(probe(alias, domain))
    if any(item.way not in (Way.KEPT, Way.NOBODY) for item in ends):
        return ()
    found = tuple(sorted(item.where for item in ends))
    return () if any(item.startswith(f"{ANYBODY}@") for item in found) else found


def routes(settings: Settings, state: State) -> dict[str, Route]:
    """For the policy service: where mail to each address leaves this server, by domain.

    A program is no other server; a loop of aliases is chasquid's to refuse.
    """
    resolver = load(settings, state)
    host = Domain(settings.mail_hostname)
    found = {}
    for name, served in resolver.domains.items():
        domain = Domain(name)
        here = domain in settings.receiving or domain == host
        lines = served.rules if here else state.domain(domain).aliases
        # Of a domain that receives elsewhere, those whose mail chasquid gives to the MX.
        users = served.users if here else frozenset(served.rules) - frozenset(lines)
        found[name] = Route(
            lines={
                alias: any(end.way is Way.FORWARDED for end in resolver.ends(probe(alias, domain)))
                for alias in lines
            },
            # Only a catch-all could take their mail elsewhere.
            users=users if CATCH_ALL in lines else frozenset(),
            exchangers=None if here else tuple(state.exchangers.get(domain) or ()),
            kept={alias: ends for alias in lines if (ends := _maildirs(resolver, alias, domain))},
        )
    return found
