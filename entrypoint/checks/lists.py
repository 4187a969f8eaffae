"""Whether this server, or one of its domains, is on a list of bad senders (RFC 5782).

Only a list's own answer counts: one that fails, refuses or does not know its own test entry says
nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import organizational_domain
from entrypoint.common.parallel import every
from entrypoint.dns.authoritative import Absent, Answer, Unknown
from entrypoint.dns.blocklists import DnsList

_SECONDS = 11.0
_WHY = "Receivers that ask this list refuse mail from what is on it, or file it as spam."
_OWN_RESOLVER = (
    "lists answer no shared resolver: run one on this host, and let it be the first in "
    "/etc/resolv.conf:\nsudo apt install unbound"
)


class _Kind(Enum):
    LISTED = "listed"
    CLEAR = "not listed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class _Result:
    kind: _Kind
    seen: str = ""
    fix: str = ""


def check(context: CheckContext) -> list[Finding]:
    """Asks each list about our addresses and domains; unknown what does not answer in time."""
    asked = list(_questions(context))
    found = every(asked, lambda item: _look_up(context, *item), _SECONDS)
    late = _Result(_Kind.UNKNOWN, "no answer in time")
    return [
        finding
        for (item, what), result in zip(asked, found, strict=True)
        if (finding := _finding(item, what, result or late))
    ]


def _questions(context: CheckContext) -> Iterator[tuple[DnsList, IPv4Address | IPv6Address | str]]:
    settings = context.settings
    domains = dict.fromkeys(
        organizational_domain(name) for name in (*settings.domains, settings.mail_hostname)
    )
    for item in context.lists:
        for version in item.families:
            for address in context.addresses.sources:
                if address.version == version and version in context.families:
                    yield item, address
        if not item.families:
            for domain in domains:
                yield item, str(domain)


def _look_up(
    context: CheckContext, item: DnsList, what: IPv4Address | IPv6Address | str
) -> _Result:
    def ask(name: str) -> Answer:
        """Through the host's resolver; where that may not ask, as a resolver of our own would."""
        answer = context.resolve(name, "A")
        if _refused(item, answer):
            answer = context.direct(name, "A", item.zone)
        return answer

    answer = ask(item.entry(what))
    if isinstance(answer, Unknown):
        return _Result(_Kind.UNKNOWN, answer.reason)
    if isinstance(answer, Absent):
        return _proven(item, ask(item.entry(item.test)) if item.test else None)
    if _refused(item, answer):
        return _Result(_Kind.UNKNOWN, f"it may not be asked: {answer.values[0]}", _OWN_RESOLVER)
    listings = [value for value in answer.values if item.is_listing(value)]
    if not listings:
        return _Result(_Kind.UNKNOWN, f"{answer.values[0]}, which is no list's answer")
    meaning = next((item.meanings[value] for value in listings if value in item.meanings), "")
    return _Result(_Kind.LISTED, f"{', '.join(listings)} {meaning}".strip())


def _refused(item: DnsList, answer: Answer) -> bool:
    if isinstance(answer, (Absent, Unknown)):
        return False
    return any(item.is_refusal(value) for value in answer.values)


def _proven(item: DnsList, test: Answer | None) -> _Result:
    """What "there is no such entry" is worth."""
    if isinstance(test, Absent):
        reason = "it does not know its own test entry: something on the way hides the list"
        return _Result(_Kind.UNKNOWN, reason, _OWN_RESOLVER)
    if isinstance(test, Unknown):
        return _Result(_Kind.UNKNOWN, test.reason)
    if test and _refused(item, test):
        return _Result(_Kind.UNKNOWN, f"it may not be asked: {test.values[0]}", _OWN_RESOLVER)
    return _Result(_Kind.CLEAR)


def _finding(
    item: DnsList, what: IPv4Address | IPv6Address | str, result: _Result
) -> Finding | None:
    subject = f"{what} {item.zone}"
    if result.kind is _Kind.CLEAR:
        return None
    if result.kind is _Kind.UNKNOWN:
        return Finding(
            id="list-unknown",
            level=Level.UNKNOWN,
            message=f"Whether {what} is on {item.name} is not known.",
            fix=result.fix,
            subject=subject,
            seen=result.seen,
            why=_WHY,
        )
    return Finding(
        id="listed",
        level=item.level,
        message=f"{what} is on {item.name}.",
        fix=f"find out why, end it, then have it removed:\n{item.removal}",
        subject=subject,
        seen=result.seen,
        why=_WHY,
    )
