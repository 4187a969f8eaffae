"""Questions to DNS. An answer is found, absent, or unknown: a failing server proves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import dns.exception
import dns.resolver

from entrypoint.names import Domain

_T = TypeVar("_T")


@dataclass(frozen=True)
class Found(Generic[_T]):
    values: tuple[_T, ...]


@dataclass(frozen=True)
class Absent:
    """The name does not exist, or has no such record: a server said so."""


@dataclass(frozen=True)
class Unknown:
    """Nobody could say. Never to be read as absent."""

    reason: str


def exchangers(domain: Domain, timeout: float = 3.0) -> Found[Domain] | Absent | Unknown:
    """The mail exchangers of a domain, best first (RFC 5321 5.1), asked of the host's resolver.

    A domain without MX but with an address is its own exchanger; a null MX (RFC 7505) is Absent.
    `timeout` is in seconds, for all of it.
    """
    try:
        resolver = dns.resolver.Resolver()
        resolver.lifetime = timeout
        answer = resolver.resolve(f"{domain}.", "MX")
        servers = []
        for item in sorted(answer, key=lambda item: item.preference):
            name = str(item.exchange).removesuffix(".")
            if name:
                servers.append(Domain.parse(name))
        return Found(tuple(dict.fromkeys(servers))) if servers else Absent()
    except dns.resolver.NXDOMAIN:
        return Absent()
    except dns.resolver.NoAnswer:
        return Found((domain,))
    except (dns.exception.DNSException, OSError, ValueError) as error:
        return Unknown(str(error))
