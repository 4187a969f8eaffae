"""Which IP addresses can be the internet's. Pure, and small enough for every program."""

from __future__ import annotations

import ipaddress

_UNREACHABLE = tuple(
    ipaddress.ip_network(net)
    for net in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
                "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3", "::/16", "fc00::/7",
                "fe80::/9", "ff00::/8")
)  # fmt: skip
# RFC 1918, and RFC 6598 between a provider and its customers.
_TRANSLATED = tuple(
    ipaddress.ip_network(net)
    for net in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")
)


def is_translated(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether a router translates it on the way to the internet, if anything reaches that."""
    return any(address in net for net in _TRANSLATED if net.version == address.version)


def is_reachable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address can be one of the internet's (RFC 6890), documentation ranges included."""
    return not any(address in net for net in _UNREACHABLE if net.version == address.version)
