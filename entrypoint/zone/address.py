"""This server's public addresses: as set, else on the interface, else as others see them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from entrypoint.common.names import is_reachable
from entrypoint.settings.model import Settings
from entrypoint.zone.required import Addresses

# The address that others see, by IP version; None if it is not known.
Echo = Callable[[int], IPv4Address | IPv6Address | None]

# Addresses on no network of this machine, whatever runs here: unlike the documentation's, which
# demonstrations use, these are reserved (RFC 7526) and not handed out (IANA).
SOMEWHERE = {4: "192.88.99.1", 6: "2d00::1"}


def find(settings: Settings, echo: Echo = lambda _: None) -> Addresses:
    """Settings win, then the interface; `echo` is asked for what neither knows.

    Sends nothing itself: it only asks the kernel which address it would send from.
    """
    ipv4, from4 = _find(4, settings.public_ipv4, echo)
    ipv6, from6 = _find(6, settings.public_ipv6, echo)
    return Addresses(
        ipv4=ipv4 if isinstance(ipv4, IPv4Address) else None,
        ipv6=ipv6 if isinstance(ipv6, IPv6Address) else None,
        has_ipv4=ipv4 != "none",
        has_ipv6=ipv6 != "none",
        ipv4_from=from4,
        ipv6_from=from6,
    )


def _find(
    version: int, asked: IPv4Address | IPv6Address | Literal["none"] | None, echo: Echo
) -> tuple[IPv4Address | IPv6Address | Literal["none"] | None, str]:
    if asked is not None:
        return asked, f"as PUBLIC_IPV{version} says"
    local = source(SOMEWHERE[version])
    if local is not None and is_reachable(local):
        return local, "as the interface has it"
    if version == 6:  # it has no address that others reach: nobody translates IPv6
        return "none", ""
    seen = echo(version)
    return seen, "as a DNS echo sees it" if seen else ""


def source(target: str) -> IPv4Address | IPv6Address | None:
    """The address that the kernel would send from to another one; None without a route.

    Connecting a UDP socket chooses a route; no packet leaves.
    """
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 53))
        return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
    return None
