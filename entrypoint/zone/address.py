"""This server's public addresses: as set, else on the interface, else as others see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from entrypoint.common import interface
from entrypoint.common.ranges import is_reachable
from entrypoint.settings.model import Settings
from entrypoint.zone.required import Addresses, Outbound

# The address that others see, by IP version; None if it is not known.
Echo = Callable[[int], IPv4Address | IPv6Address | None]
# The address that others see for one of the interface; None if it is not known.
Through = Callable[[IPv4Address | IPv6Address], IPv4Address | IPv6Address | None]


def find(
    settings: Settings, echo: Echo = lambda _: None, through: Through = lambda _: None
) -> Addresses:
    """Settings win, then the interface; `echo` and `through` are asked for what neither knows.

    Sends nothing itself: it only asks the kernel which address it would send from.
    """
    ipv4, from4 = _find(4, settings.public_ipv4, settings.outbound_ipv4, echo)
    ipv6, from6 = _find(6, settings.public_ipv6, settings.outbound_ipv6, echo)
    outbound: tuple[IPv4Address | IPv6Address, ...]
    outbound = (*settings.outbound_ipv4, *settings.outbound_ipv6)
    public = ipv4 if isinstance(ipv4, IPv4Address) else None
    return Addresses(
        ipv4=public,
        ipv6=ipv6 if isinstance(ipv6, IPv6Address) else None,
        has_ipv4=ipv4 != "none",
        has_ipv6=ipv6 != "none",
        ipv4_from=from4,
        ipv6_from=from6,
        outbound=tuple(Outbound(item, _seen(item, public, through)) for item in outbound),
    )


def _find(
    version: int,
    asked: IPv4Address | IPv6Address | Literal["none"] | None,
    outbound: Sequence[IPv4Address | IPv6Address],
    echo: Echo,
) -> tuple[IPv4Address | IPv6Address | Literal["none"] | None, str]:
    if asked is not None:
        return asked, f"as PUBLIC_IPV{version} says"
    local = interface.address(version)
    if local is not None:
        return local, "as the interface has it"
    if version == 6:  # it has no address that others reach: nobody translates IPv6
        return (outbound[0], "as OUTBOUND_IPV6 says") if outbound else ("none", "")
    seen = echo(version)
    return seen, "as a DNS echo sees it" if seen else ""


def _seen(
    local: IPv4Address | IPv6Address, public: IPv4Address | None, through: Through
) -> IPv4Address | IPv6Address | None:
    if is_reachable(local):
        return local
    if local == interface.source(interface.SOMEWHERE[4]):  # what `public` was found by, or set for
        return public
    return through(local)
