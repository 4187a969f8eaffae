"""The host's names: address and reverse DNS that lead to each other, the greeting, the name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from entrypoint.checks import verdicts
from entrypoint.checks.context import CheckContext
from entrypoint.checks.records import NAMES
from entrypoint.common.findings import Finding, Level
from entrypoint.common.parallel import every
from entrypoint.dns.authoritative import Found, Unknown, one
from entrypoint.dns.records import Role
from entrypoint.zone.judge import Status, Verdict

_SECONDS = 10.0
_WHY_ADDRESS = "Receivers look the host's name up, and want to find the address that connects."
_WHY_POINTER = (
    "Large receivers refuse mail from an address whose reverse DNS does not lead to a name and "
    "back."
)
_WHY_HELO = "Receivers compare the name that a server greets with to its address's name."
_WHY_GENERIC = (
    "Filters take such names for rented machines and home lines, and give them spam marks."
)
_WHY_STALE = "Other servers try that address first, and wait for nothing."
# What providers call machines that nobody has named.
_GENERIC = re.compile(
    r"(^|[.-])(ip|host|client|customer|cust|vps|vm|kvm|server|srv|node|ec2|compute)-?\d[\d-]{2,}"
    r"|(^|[.-])(static|dynamic|dyn|dhcp|a?dsl|pool|ppp|dialup|cable|unassigned|rev|reverse)\d*([.-]|$)"
)


def check(context: CheckContext) -> list[Finding]:
    """Asks DNS for this host's names, and our port 25 for its greeting."""
    own = [record for record in context.records if record.role in NAMES]
    found = [_finding(context, item) for item in verdicts.ask(context, own)]
    return [
        *(item for item in found if item),
        *_unused(context),
        *_greeting(context),
        *_generic(context),
    ]


def _finding(context: CheckContext, verdict: Verdict) -> Finding | None:
    record = verdict.record
    pointer = record.role is Role.POINTER
    found = verdicts.finding(verdict, _WHY_POINTER if pointer else _WHY_ADDRESS)
    if found and not pointer and record.value in {str(item) for item in context.addresses.further}:
        # The host has several of that type: each is a finding of its own.
        named = f"{found.subject} {record.value}"
        message = found.message.replace(found.subject, named, 1)
        return replace(found, subject=named, message=message)
    if not found or not pointer or verdict.status is not Status.DIFFERENT:
        return found
    return replace(found, seen=", ".join(_and_back(context, verdict)))


def _and_back(context: CheckContext, verdict: Verdict) -> Iterator[str]:
    """Each name that the address has, and whether it leads back (RFC 8601 2.7.3, iprev)."""
    address = verdicts.pointed_at(verdict.record)
    kind = "AAAA" if ":" in address else "A"
    for name in verdict.found:
        answer = one(context.ask(name.removesuffix("."), kind))
        if isinstance(answer, Unknown):
            yield f"{name} (whether it leads back is not known)"
        elif isinstance(answer, Found) and address in answer.values:
            yield f"{name} (which leads back)"
        else:
            yield f"{name} (which does not lead back)"


def _unused(context: CheckContext) -> Iterator[Finding]:
    """Addresses in DNS of a family that this server does not use."""
    host = context.settings.mail_hostname
    kinds = [kind for version, kind in ((4, "A"), (6, "AAAA")) if version not in context.families]
    answers = every(kinds, lambda kind: one(context.ask(host, kind)), _SECONDS)
    for kind, answer in zip(kinds, answers, strict=True):
        if isinstance(answer, Found):
            family = "IPv6" if kind == "AAAA" else "IPv4"
            yield Finding(
                id="address-unused",
                level=Level.WARN,
                message=f"{host} has an {kind} record, but mail is not served over {family}.",
                fix=f"remove the {kind} record of {host}, or give the server {family}",
                subject=kind,
                seen=", ".join(answer.values),
                why=_WHY_STALE,
            )


def _greeting(context: CheckContext) -> Iterator[Finding]:
    host = context.settings.mail_hostname
    try:
        banner = context.machine.banner("127.0.0.1", 25)
    except OSError as error:
        yield Finding(
            id="greeting-unknown",
            level=Level.UNKNOWN,
            message="The server's own greeting could not be heard.",
            fix="see what the theme host says",
            seen=str(error),
            why=_WHY_HELO,
        )
        return
    if banner.split()[1:2] != [host]:
        yield Finding(
            id="greeting-differs",
            level=Level.FAIL,
            message=f"The server does not greet as {host}.",
            fix="docker compose restart; if another program answers on port 25, stop it",
            seen=banner or "nothing",
            why=_WHY_HELO,
        )


def _generic(context: CheckContext) -> Iterator[Finding]:
    host = context.settings.mail_hostname
    sign = next((part for part in _forms(context) if part in host), "")
    match = _GENERIC.search(host)
    if sign or match:
        seen = sign or (match[0].strip(".-") if match else "")
        yield Finding(
            id="hostname-generic",
            level=Level.WARN,
            message=f"{host} looks like a name that a provider made up.",
            fix=f"set MAIL_HOSTNAME to a name such as smtp.{context.settings.domains[0]} in "
            ".env, and A, AAAA and reverse DNS to the same",
            seen=f"{seen} in the name",
            why=_WHY_GENERIC,
        )


def _forms(context: CheckContext) -> Iterator[str]:
    """The ways in which providers put an address into a name."""
    for version in context.families:
        match context.public(version):
            case IPv4Address() as address:
                octets = str(address).split(".")
                for sign in ".-":
                    yield sign.join(octets)
                    yield sign.join(octets[::-1])
                yield "".join(f"{int(octet):03d}" for octet in octets)
                yield f"{int(address):08x}"
            case IPv6Address() as address:
                yield str(address).replace("::", "-").replace(":", "-")
                yield address.exploded.replace(":", "-")
