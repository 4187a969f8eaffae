"""What every check is given: settings, state, and all that it may ask of the world."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

from entrypoint.checks.machine import Machine
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.dns.authoritative import Answer, Ask, Authoritative, Unknown
from entrypoint.dns.blocklists import LISTS, DnsList
from entrypoint.dns.echo import Echo
from entrypoint.dns.records import Record
from entrypoint.dns.resolver import Resolve, Resolver, Security
from entrypoint.settings.model import Settings
from entrypoint.state.load import State
from entrypoint.zone import address
from entrypoint.zone.required import Addresses, required

# Where most of the world's mailboxes are: whoever reaches these reaches nearly everybody.
RECEIVERS = ("gmail.com", "outlook.com", "yahoo.com", "icloud.com", "gmx.net")

_LISTEN = "0A"  # a socket's state in /proc/net/tcp


@dataclass(frozen=True)
class CheckContext:
    """`ask` asks the authoritative servers, `resolve` the host's resolver, `direct` one server of
    the zone that it is given last, `security` whether a zone validates, `echo` which address others
    see."""

    settings: Settings
    state: State
    paths: Paths
    addresses: Addresses
    machine: Machine
    ask: Ask
    resolve: Resolve
    direct: Callable[[str, str, str], Answer]
    security: Callable[[str], Security | Unknown]
    echo: Callable[[int], IPv4Address | IPv6Address | None]
    now: datetime
    receivers: tuple[str, ...] = RECEIVERS
    lists: tuple[DnsList, ...] = LISTS

    @classmethod
    def real(cls, settings: Settings, state: State, paths: Paths) -> CheckContext:
        resolver = Resolver()
        seen = Echo()
        echo = functools.cache(seen)
        return cls(
            settings=settings,
            state=state,
            paths=paths,
            addresses=address.find(settings, echo, seen.through),
            machine=Machine.real(paths),
            ask=Authoritative(timeout=2.0),
            resolve=resolver,
            direct=resolver.direct,
            security=resolver.security,
            echo=echo,
            now=datetime.now(UTC),
        )

    @property
    def records(self) -> tuple[Record, ...]:
        return required(self.settings, self.state, self.addresses)

    @property
    def families(self) -> tuple[int, ...]:
        """The IP versions that mail is sent and received by."""
        used = {4: self.addresses.has_ipv4, 6: self.addresses.has_ipv6}
        return tuple(version for version in used if used[version])

    def public(self, version: int) -> IPv4Address | IPv6Address | None:
        """This server's public address, if it is known and that family is used."""
        return self.addresses.ipv4 if version == 4 else self.addresses.ipv6

    def listening(self, *files: str) -> set[int]:
        """The ports that anybody listens on, by `tcp` and `tcp6` of /proc/net (proc(5))."""
        found = set()
        for name in files:
            try:
                lines = self.machine.read(f"/proc/net/{name}").splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                words = line.split()
                if words[3:4] == [_LISTEN]:
                    found.add(int(words[1].rpartition(":")[2], 16))
        return found

    @property
    def local_domains(self) -> tuple[Domain, ...]:
        """The domains that chasquid takes for its own; bounces come back to the host's name."""
        host = Domain(self.settings.mail_hostname)
        return tuple(dict.fromkeys((*self.settings.domains, host)))
