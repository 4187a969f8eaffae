"""This server's public addresses: as set, else as found on the interfaces."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from entrypoint.names import is_reachable
from entrypoint.settings import Settings

# Addresses on no network of this machine, whatever runs here: unlike the documentation's, which
# demonstrations use, these are reserved (RFC 7526) and not handed out (IANA).
SOMEWHERE = {4: "192.88.99.1", 6: "2d00::1"}


@dataclass(frozen=True)
class Addresses:
    """`None`: not known. `has_*` is False when that family is not used at all."""

    ipv4: IPv4Address | None
    ipv6: IPv6Address | None
    has_ipv4: bool = True
    has_ipv6: bool = True


def find(settings: Settings) -> Addresses:
    """Settings win. Sends nothing: it only asks the kernel which address it would send from."""
    ipv4, ipv6 = settings.public_ipv4, settings.public_ipv6
    if ipv4 is None:
        found = _source(socket.AF_INET, SOMEWHERE[4])
        ipv4 = found if isinstance(found, IPv4Address) else None
    if ipv6 is None:
        found = _source(socket.AF_INET6, SOMEWHERE[6])
        ipv6 = found if isinstance(found, IPv6Address) else "none"
    return Addresses(
        ipv4=ipv4 if isinstance(ipv4, IPv4Address) else None,
        ipv6=ipv6 if isinstance(ipv6, IPv6Address) else None,
        has_ipv4=ipv4 != "none",
        has_ipv6=ipv6 != "none",
    )


def _source(family: socket.AddressFamily, target: str) -> IPv4Address | IPv6Address | None:
    """The address that the kernel would send from, if others can reach it.

    Connecting a UDP socket chooses a route and a source address; no packet leaves.
    """
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 53))
        address = ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
        if is_reachable(address):
            return address
    return None
