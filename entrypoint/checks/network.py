"""The way out and the way in: resolver, addresses, outgoing port 25, our ports from outside."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from entrypoint.checks import ipv6
from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.interface import SOMEWHERE
from entrypoint.common.parallel import every
from entrypoint.common.ranges import is_reachable
from entrypoint.dns.authoritative import Absent, Found, Unknown

_SECONDS = 10.0
_ECHO_SECONDS = 4.0
_WHY_RESOLVER = (
    "Without answers no mail leaves; and a resolver that says REFUSED makes chasquid return mail "
    "at once, as undeliverable."
)
_WHY_PORT = "Mail servers take mail on port 25 alone: without it nothing can be delivered."
_WHY_REFUSED = "A receiver that greets with a refusal takes no mail from this address."
_WHY_SOURCE = "SPF, reverse DNS and block lists go by the address that mail really comes from."
_WHY_OUTBOUND = "Mail leaves from each of these addresses: without it what is to leave there waits."
_WHY_INSIDE = "What a firewall outside of this machine lets through can only be seen from outside."


def check(context: CheckContext) -> list[Finding]:
    """Greets port 25 of large receivers, and quits: no mail is sent."""
    # Whether IPv6 is there at all is said by the theme host.
    versions = [item for item in context.families if item == 4 or ipv6.is_up(context)]
    all_tries = _outgoing(context, versions)
    tries = {
        version: [item for item in all_tries if item.version == version and item.source is None]
        for version in versions
    }
    not_ours = list(_outbound(context))
    unusable = {item.subject for item in not_ours if item.id != "outbound-unseen"}
    seen = dict(zip(versions, every(versions, context.echo, _ECHO_SECONDS), strict=True))
    return [
        *_resolver(context),
        *(
            finding
            for version in versions
            for finding in _source(context, version, tries[version], seen[version])
        ),
        *not_ours,
        *_from_each(item for item in all_tries if str(item.source) not in unusable),
        *(finding for version in versions for finding in _judged(context, version, tries[version])),
        _incoming(context),
    ]


def _resolver(context: CheckContext) -> Iterator[Finding]:
    answer = context.resolve("", "NS")
    if not isinstance(answer, Found):
        seen = answer.reason if isinstance(answer, Unknown) else "no name servers of the root"
        yield Finding(
            id="resolver",
            level=Level.FAIL,
            message="This host's DNS resolver does not answer.",
            fix="see which one is set, and ask it:\ncat /etc/resolv.conf\ndig NS .",
            seen=seen,
            why=_WHY_RESOLVER,
        )


# --- outgoing port 25 ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Try:
    """What became of one receiver over one family. `banner` is empty if nobody was reached."""

    receiver: str
    version: int
    address: str = ""
    banner: str = ""
    error: str = ""
    routed: bool = True  # whether packets could leave at all
    unknown: str = ""  # why it could not even be tried
    absent: bool = False  # the receiver has no address of that family
    source: IPv4Address | IPv6Address | None = None  # where it was tried from; None: the kernel's


def _outgoing(context: CheckContext, versions: Sequence[int]) -> list[_Try]:
    """Each receiver from the address that the kernel chooses, and the first of them from each of
    OUTBOUND_IPV4 and OUTBOUND_IPV6."""
    asked = [_Try(receiver, version) for version in versions for receiver in context.receivers]
    asked += [
        _Try(receiver, item.local.version, source=item.local)
        for item in context.addresses.outbound
        for receiver in context.receivers[:1]
        if item.local.version in versions
    ]
    found = every(asked, lambda item: _reach(context, item), _SECONDS)
    return [
        done or replace(item, error="no answer in time")
        for item, done in zip(asked, found, strict=True)
        if not (done and done.absent)
    ]


def _reach(context: CheckContext, wanted: _Try) -> _Try:
    """Greet a receiver's best MX host; no mail, no more than QUIT."""
    receiver = wanted.receiver
    mx = context.resolve(receiver, "MX")
    if isinstance(mx, Unknown):
        return replace(wanted, unknown=mx.reason)
    if isinstance(mx, Absent):
        return replace(wanted, unknown=f"{receiver} has no MX")
    best = min(mx.values, key=lambda value: int(value.partition(" ")[0]))
    host = best.partition(" ")[2].removesuffix(".")
    answer = context.resolve(host, "A" if wanted.version == 4 else "AAAA")
    if isinstance(answer, Unknown):
        return replace(wanted, unknown=answer.reason)
    if isinstance(answer, Absent):
        return replace(wanted, absent=True)
    address = answer.values[0]
    try:
        if wanted.source is None:
            banner = context.machine.banner(address, 25)
        else:
            banner = context.machine.banner_from(address, 25, wanted.source)
    except OSError as error:
        routed = error.errno not in (errno.ENETUNREACH, errno.EADDRNOTAVAIL)
        reason = error.strerror or str(error)
        return replace(wanted, address=address, error=reason, routed=routed)
    return replace(wanted, address=address, banner=banner or "(nothing)")


def _judged(context: CheckContext, version: int, tries: Sequence[_Try]) -> Iterator[Finding]:
    family = f"IPv{version}"
    reached = [item for item in tries if item.banner]
    missed = [item for item in tries if item.error]
    if not reached and not missed:
        reason = next((item.unknown for item in tries if item.unknown), "no receiver was found")
        yield Finding(
            id="port-25-unknown",
            level=Level.UNKNOWN,
            message=f"Outgoing port 25 could not be tried over {family}.",
            fix="",
            subject=family,
            seen=reason,
            why=_WHY_PORT,
        )
        return
    if not reached:
        names = ", ".join(item.receiver for item in missed)
        seen = f"none of {names} answers: {missed[0].error}"
        if not any(item.routed for item in missed):
            fix = ipv6.netplan(context) if version == 6 else "see the network's settings:\nip route"
            yield Finding(
                id="port-25-no-route",
                level=Level.FAIL,
                message=f"This host has no way out over {family}.",
                fix=fix,
                subject=family,
                seen=seen,
                why=_WHY_PORT,
            )
            return
        yield Finding(
            id="port-25-blocked",
            level=Level.FAIL,
            message=f"Outgoing port 25 is blocked over {family}.",
            fix="ask the server's provider to open outgoing port 25 (many do on request); until "
            "then nothing can be sent",
            subject=family,
            seen=seen,
            why=_WHY_PORT,
        )
        return
    for item in missed:
        yield Finding(
            id="port-25-silent",
            level=Level.WARN,
            message=f"{item.receiver} was not reached over {family}.",
            fix="look again later; others were reached, so port 25 is open",
            subject=f"{family} {item.receiver}",
            seen=f"{item.address}: {item.error}",
            why=_WHY_PORT,
        )
    for item in reached:
        if not item.banner.startswith("220"):
            yield Finding(
                id="port-25-refused",
                level=Level.WARN,
                message=f"{item.receiver} refuses us over {family}.",
                fix="read its answer: it often names the list or the form that helps",
                subject=f"{family} {item.receiver}",
                seen=item.banner[:200],
                why=_WHY_REFUSED,
            )


def _source(
    context: CheckContext,
    version: int,
    tries: Sequence[_Try],
    seen: IPv4Address | IPv6Address | None,
) -> Iterator[Finding]:
    """The address that mail leaves with, and that others see, against the one they are told."""
    public = context.public(version)
    target = next((item.address for item in tries if item.address), SOMEWHERE[version])
    source = context.machine.source(target)
    name, setting = f"IPv{version}", f"PUBLIC_IPV{version}"
    if public is None:
        yield Finding(
            id="address-unknown",
            level=Level.UNKNOWN,
            message=f"The public {name} address is not known.",
            fix=f"set it in .env:\n{setting}=ADDRESS",
            subject=name,
            seen=f"the interface has {source}" if source else "no route",
            why=_WHY_SOURCE,
        )
        return
    is_local = source is not None and is_reachable(source)
    # The interface's own address says more than an echo, whose question may take another way.
    leaves_as = source if is_local else seen
    if leaves_as not in (None, public, *context.addresses.further):
        yield Finding(
            id="address-differs",
            level=Level.WARN,
            message=f"Mail leaves from {leaves_as}, not from {public}.",
            fix="give mail the address that has SPF and reverse DNS, or set the other in .env:\n"
            f"{setting}={leaves_as}",
            subject=name,
            seen=f"{leaves_as}, as {'the interface has it' if is_local else 'others see it'}",
            why=_WHY_SOURCE,
        )
    elif source is not None and not is_local:
        yield Finding(
            id="address-nat",
            level=Level.INFO,
            message=f"This server is behind address translation ({name}).",
            fix=f"see that ports 25, 465 and 587 of {public} are passed on to {source}",
            subject=name,
            seen=f"{source} here, {public} outside",
            why=_WHY_SOURCE,
        )
    elif seen not in (None, public, *context.addresses.further):
        yield Finding(
            id="address-echo-differs",
            level=Level.WARN,
            message=f"Others see {seen} where this server has {public}.",
            fix="if a router translates all that leaves, tell receivers that address:\n"
            f"{setting}={seen}",
            subject=name,
            seen=f"{seen}, by a DNS echo",
            why=_WHY_SOURCE,
        )


def _outbound(context: CheckContext) -> Iterator[Finding]:
    """Whether mail can leave from each of OUTBOUND_IPV4 and OUTBOUND_IPV6."""
    for item in context.addresses.outbound:
        setting = f"OUTBOUND_IPV{item.local.version}"
        try:
            context.machine.bind(item.local)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                length = 32 if item.local.version == 4 else 128
                seen = f"no interface has it: {error.strerror}"
                yield Finding(
                    id="outbound-not-here",
                    level=Level.FAIL,
                    message=f"This machine has no address {item.local}.",
                    fix=f"take it out of {setting} in .env; or, if the provider has given it to "
                    "this machine, add it, and to the network's settings too, for the next start:\n"
                    f"sudo ip address add {item.local}/{length} dev {ipv6.interface(context)}",
                    subject=str(item.local),
                    seen=seen,
                    why=_WHY_OUTBOUND,
                )
            else:
                yield Finding(
                    id="outbound-unknown",
                    level=Level.UNKNOWN,
                    message=f"Whether mail can leave from {item.local} is not known.",
                    fix="",
                    subject=str(item.local),
                    seen=error.strerror or str(error),
                    why=_WHY_OUTBOUND,
                )
            continue
        if item.seen is None:
            yield Finding(
                id="outbound-unseen",
                level=Level.UNKNOWN,
                message=f"Which public address others see for {item.local} is not known.",
                fix="see in the provider's panel which one it is translated to, and whether the "
                "way out is open; its PTR is to name this server",
                subject=str(item.local),
                seen="no DNS echo answers, or not all the same",
                why=_WHY_SOURCE,
            )


def _from_each(tries: Iterable[_Try]) -> Iterator[Finding]:
    """Receivers that answer this machine, but not from one of its outbound addresses."""
    tries = list(tries)
    ways = {(item.receiver, item.version): item for item in tries if item.source is None}
    for item in tries:
        usual = ways.get((item.receiver, item.version))
        if item.source is None or usual is None or not usual.banner.startswith("220"):
            continue
        if item.error:
            yield Finding(
                id="outbound-blocked",
                level=Level.FAIL,
                message=f"{item.receiver} is not reached from {item.source}, but from the usual "
                "address.",
                fix="ask the server's provider to open outgoing port 25 for this address too, "
                "and to route it to this machine",
                subject=str(item.source),
                seen=f"{item.address}: {item.error}",
                why=_WHY_PORT,
            )
        elif item.banner and not item.banner.startswith("220"):
            yield Finding(
                id="outbound-refused",
                level=Level.WARN,
                message=f"{item.receiver} refuses us from {item.source}.",
                fix="read its answer: it often names the list or the form that helps",
                subject=str(item.source),
                seen=item.banner[:200],
                why=_WHY_REFUSED,
            )


# --- incoming ------------------------------------------------------------------------------------


def _incoming(context: CheckContext) -> Finding:
    host = context.settings.mail_hostname
    command = "\n".join(
        f"for port in 25 465 587; do nc -{version} -vz {host} $port; done"
        for version in context.families
    )
    return Finding(
        id="ports-from-outside",
        level=Level.UNKNOWN,
        message="Whether ports 25, 465 and 587 can be reached from outside is not known.",
        fix=f"try from another machine:\n{command}",
        seen="no connection from outside is on record",
        why=_WHY_INSIDE,
    )
