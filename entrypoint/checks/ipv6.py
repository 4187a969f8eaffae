"""IPv6 on this host: switched on, with an address, served."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv6Address

from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.ranges import is_reachable

_WHY = (
    "Large receivers are reached over IPv6 and judge it; an address in DNS that nothing answers at "
    "costs mail."
)


def check(context: CheckContext, *, serves: bool) -> Iterator[Finding]:
    """`serves`: whether the server runs, so that it ought to listen."""
    asked = context.settings.public_ipv6
    if asked == "none":
        yield Finding(
            id="ipv6-unused",
            level=Level.INFO,
            message="IPv6 is not used, as PUBLIC_IPV6=none says.",
            seen="PUBLIC_IPV6=none",
            why=_WHY,
        )
        return
    # An address that the world is told, and that does not work, loses mail.
    level = Level.FAIL if asked else Level.WARN
    off = _switched_off(context)
    if off:
        yield Finding(
            id="ipv6-off",
            level=level,
            message="IPv6 is switched off on this host.",
            fix=_switch_on(context),
            seen=off,
            why=_WHY,
        )
        return
    held = _addresses(context)
    if held is None:
        yield Finding(
            id="ipv6-unknown",
            level=Level.UNKNOWN,
            message="Whether this host has IPv6 could not be read.",
            seen="/proc/net/if_inet6 cannot be read",
            why=_WHY,
        )
    elif not held:
        yield Finding(
            id="ipv6-no-address",
            level=level,
            message="No network interface has a public IPv6 address.",
            fix=netplan(context),
            seen="no address of global scope",
            why=_WHY,
        )
    elif serves and 25 not in context.listening("tcp6"):
        yield Finding(
            id="ipv6-not-served",
            level=Level.FAIL,
            message="The server does not listen on IPv6.",
            fix="IPv6 came up after it had started:\ndocker compose restart",
            seen=f"{held[0]}, nothing on its port 25",
            why=_WHY,
        )


def is_up(context: CheckContext) -> bool:
    """Whether it is worth trying: else `check` has said why not."""
    return not _switched_off(context) and _addresses(context) != []


def _switched_off(context: CheckContext) -> str:
    """Why there is no IPv6 at all; empty if there may be."""
    for name in ("all", interface(context)):
        try:
            value = context.machine.read(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").strip()
        except FileNotFoundError:
            if name == "all":
                return "the kernel runs without IPv6 (ipv6.disable=1 on its command line)"
        except OSError:
            continue
        else:
            if value == "1":
                return f"net.ipv6.conf.{name}.disable_ipv6 = 1"
    return ""


def interface(context: CheckContext) -> str:
    """The network interface of the IPv4 default route (/proc/net/route)."""
    try:
        lines = context.machine.read("/proc/net/route").splitlines()[1:]
    except OSError:
        lines = []
    names = (line.split()[0] for line in lines if line.split()[1:2] == ["00000000"])
    found = next(names, "")
    return found if re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", found) else "eth0"


def _addresses(context: CheckContext) -> list[IPv6Address] | None:
    """Those of global scope that others can reach; None if the kernel does not say."""
    try:
        lines = context.machine.read("/proc/net/if_inet6").splitlines()
    except FileNotFoundError:
        return []
    except OSError:
        return None
    found = [IPv6Address(int(line.split()[0], 16)) for line in lines if line.split()[3:4] == ["00"]]
    return [address for address in found if is_reachable(address)]


def _switch_on(context: CheckContext) -> str:
    return (
        "switch it on; if it has no address then, the provider's panel names one and its gateway "
        "for netplan:\n"
        "printf 'net.ipv6.conf.%s.disable_ipv6 = 0\\n' all default lo |\n"
        "  sudo tee /etc/sysctl.d/60-ipv6.conf\n"
        "sudo sysctl --system\n"
        f"{_netplan_lines(context)}"
    )


def netplan(context: CheckContext) -> str:
    """The fix for a host without a way out over IPv6."""
    return (
        "enter the address and the gateway that the provider's panel names (often fe80::1), for "
        "netplan:\n"
        f"{_netplan_lines(context)}"
    )


def _netplan_lines(context: CheckContext) -> str:
    """No here-document: its end must not be indented, and what is shown is."""
    asked = context.settings.public_ipv6
    address = str(asked) if isinstance(asked, IPv6Address) else "ADDRESS"
    return (
        f"printf '%s\\n' network: '  version: 2' '  ethernets:' '    {interface(context)}:' \\\n"
        f"  '      addresses: [\"{address}/64\"]' \\\n"
        '  \'      routes: [{to: "::/0", via: "GATEWAY"}]\' |\n'
        "  sudo tee /etc/netplan/60-ipv6.yaml\n"
        "sudo chmod 600 /etc/netplan/60-ipv6.yaml\n"
        "sudo netplan apply"
    )
