"""The addresses of this machine's interfaces, as the kernel would send from them.

Nothing here sends anything: connecting a UDP socket chooses a route, and no packet leaves.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from entrypoint.common.ranges import is_reachable

# Addresses on no network of this machine, whatever runs here: unlike the documentation's, which
# demonstrations use, these are reserved (RFC 7526) and not handed out (IANA).
SOMEWHERE = {4: "192.88.99.1", 6: "2d00::1"}


def address(version: int) -> IPv4Address | IPv6Address | None:
    """The interface's address by which the internet reaches this machine; None if it has none."""
    found = source(SOMEWHERE[version])
    return found if found is not None and is_reachable(found) else None


def source(target: str) -> IPv4Address | IPv6Address | None:
    """The address that the kernel would send from to another one; None without a route."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 53))
        return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
    return None
