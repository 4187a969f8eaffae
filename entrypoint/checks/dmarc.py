"""What receivers said in the DMARC reports of the last week."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import Address, Domain
from entrypoint.common.rpc import UnreachableError
from entrypoint.converge import routing
from entrypoint.history.reports import Source, Summary
from entrypoint.zone.required import report_addresses

_SHOWN = 5  # sources
_WHY = "Reports tell who sends in your name, and whose mail receivers do not believe."
_WHY_OWN = "Receivers treat this server's mail as forged, as DMARC_POLICY tells them to."
_WHY_OTHERS = "Either a service of yours sends without being named in SPF, or somebody forges."


def check(context: CheckContext) -> list[Finding]:
    """From the reports that are kept here, read through the holder; none that go elsewhere."""
    kept = list(_kept(context))
    if not kept:
        return [
            Finding(
                id="reports-elsewhere",
                level=Level.INFO,
                message="DMARC reports do not come to this server.",
                seen="no report address is kept here",
                why=_WHY,
            )
        ]
    command = " ".join(("reports", *kept, *context.settings.domains))
    try:
        answer = context.machine.holder(command)
        summary = Summary.from_json(dict(answer))
    except (UnreachableError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, UnreachableError) else answer.get("error", "")
        return [
            Finding(
                id="reports-unknown",
                level=Level.UNKNOWN,
                message="The DMARC reports could not be read.",
                fix="see what the theme host says",
                seen=reason or "no sensible answer",
                why=_WHY,
            )
        ]
    return list(_judged(context, summary))


def _kept(context: CheckContext) -> Iterator[Address]:
    """The report addresses whose mail is kept in a Maildir here."""
    settings = context.settings
    here: set[Domain] = {*settings.receiving, Domain(settings.mail_hostname)}
    addresses = dict.fromkeys(
        address
        for domain in settings.domains
        for address in report_addresses(settings.dmarc_rua, "rua", domain, settings)
    )
    for address in addresses:
        have = context.state.domain(address.domain)
        if address.domain in here and address.local not in routing.served_aliases(settings, have):
            yield address


def _judged(context: CheckContext, summary: Summary) -> Iterator[Finding]:
    count = f"{summary.reports} from {_names(summary.reporters)}"
    if not summary.reports:
        count = "none"
    total = summary.passed + summary.failed
    yield Finding(
        id="reports",
        level=Level.INFO,
        message=f"DMARC reports of the last week: {count}.",
        seen=f"{count}; {total} messages, {summary.failed} failed",
        why=_WHY,
    )
    if summary.unreadable or summary.skipped:
        yield Finding(
            id="reports-unread",
            level=Level.INFO,
            message="Some mail to the report addresses was not read.",
            seen=f"{summary.unreadable} no reports, {summary.skipped} too many at once",
            why=_WHY,
        )
    own = set(context.addresses.sources)
    failing = [source for source in summary.sources if source.failed]
    for source in failing:
        if ip_address(source.address) in own:
            yield Finding(
                id="reports-own-fail",
                level=Level.WARN,
                message=f"Mail of {source.domain} from this very server fails DMARC.",
                fix="mend what the themes records and keys say; then ask again in some days",
                subject=f"{source.domain} {source.address}",
                seen=_counts(source),
                why=_WHY_OWN,
            )
    others = [source for source in failing if ip_address(source.address) not in own]
    if others:
        shown = [f"{item.address} as {item.domain}: {_counts(item)}" for item in others[:_SHOWN]]
        more = f"; and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        yield Finding(
            id="reports-others-fail",
            level=Level.INFO,
            message="Mail from other servers in your name fails DMARC.",
            fix="name the services that are yours in SPF_INCLUDE, and have them sign with DKIM",
            seen="; ".join(shown) + more,
            why=_WHY_OTHERS,
        )


def _names(reporters: tuple[str, ...]) -> str:
    shown = ", ".join(reporters[:3])
    return f"{shown} and others" if len(reporters) > 3 else shown


def _counts(source: Source) -> str:
    return f"{source.failed} of {source.passed + source.failed} failed"
