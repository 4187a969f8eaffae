"""DNSSEC of each domain: signed, anchored at its parent, valid."""

from __future__ import annotations

from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import Domain
from entrypoint.common.parallel import every
from entrypoint.dns.authoritative import Absent, Unknown, one
from entrypoint.dns.resolver import Security

_SECONDS = 10.0
_WHY = "A signed domain's records cannot be forged on the way; without, mail works all the same."
_WHY_BROKEN = "Whoever validates, as large receivers do, finds the whole domain gone."


def check(context: CheckContext) -> list[Finding]:
    """A finding for each zone of ours, unknown for one that was not answered in time."""
    settings = context.settings
    zones = list(dict.fromkeys((*settings.domains, settings.host_zone)))
    found = every(zones, lambda zone: _zone(context, zone), _SECONDS)
    return [
        item or _unknown(zone, "no answer in time") for zone, item in zip(zones, found, strict=True)
    ]


def _zone(context: CheckContext, zone: Domain) -> Finding:
    keys, parent = one(context.ask(zone, "DNSKEY")), context.resolve(zone, "DS")
    for answer in (keys, parent):
        if isinstance(answer, Unknown):
            return _unknown(zone, answer.reason)
    if isinstance(parent, Absent):
        if isinstance(keys, Absent):
            return Finding(
                id="dnssec-unsigned",
                level=Level.INFO,
                message=f"{zone} is not signed.",
                fix="switch DNSSEC on at its DNS provider, if it offers that",
                subject=zone,
                seen="not signed",
                why=_WHY,
            )
        return Finding(
            id="dnssec-no-ds",
            level=Level.INFO,
            message=f"{zone} is signed, but its parent does not say so.",
            fix=f"enter the DS record that the DNS provider shows at the registrar of {zone}",
            subject=zone,
            seen="signed, no DS",
            why=_WHY,
        )
    security = context.security(zone)
    if isinstance(keys, Absent) or security is Security.BOGUS:
        seen = "DS, but no key" if isinstance(keys, Absent) else "signatures that do not hold"
        return Finding(
            id="dnssec-broken",
            level=Level.FAIL,
            message=f"DNSSEC of {zone} is broken.",
            fix="remove the DS record at the registrar, or have the DNS provider sign the zone "
            "again",
            subject=zone,
            seen=seen,
            why=_WHY_BROKEN,
        )
    if isinstance(security, Unknown):
        return _unknown(zone, security.reason)
    if security is Security.SECURE:
        return Finding(
            id="dnssec-valid",
            level=Level.INFO,
            message=f"{zone} is signed and validates.",
            fix="",
            subject=zone,
            seen="valid",
            why=_WHY,
        )
    return Finding(
        id="dnssec-unproven",
        level=Level.INFO,
        message=f"{zone} is signed and anchored; this host's resolver does not validate.",
        fix="",
        subject=zone,
        seen="signed, with DS",
        why=_WHY,
    )


def _unknown(zone: Domain, reason: str) -> Finding:
    return Finding(
        id="dnssec-unknown",
        level=Level.UNKNOWN,
        message=f"Whether {zone} is signed is not known.",
        fix="",
        subject=zone,
        seen=reason,
        why=_WHY,
    )
