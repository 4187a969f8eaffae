"""What `dns --check` says of a record, as findings."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import cache

from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.parallel import every
from entrypoint.dns.records import Record, RecordType
from entrypoint.zone import judge
from entrypoint.zone.judge import Status, Verdict

_SECONDS = 10.0
_LATE = "no answer in time"
_WHY_UNKNOWN = "It may be right or wrong: nobody could say."


def ask(context: CheckContext, records: Sequence[Record]) -> list[Verdict]:
    """A verdict for each, in order; unknown for those that take too long."""

    asked = cache(context.ask)  # SPF records lead to each other

    def one(record: Record) -> Verdict:
        return judge.judge(record, context.addresses, asked)

    found = every(records, one, _SECONDS)
    return [
        verdict or Verdict(record, Status.UNKNOWN, reason=_LATE)
        for record, verdict in zip(records, found, strict=True)
    ]


def subject(record: Record) -> str:
    """`MX example.com`; a PTR is named by its address."""
    return f"{record.type.value} {pointed_at(record) or record.name}"


def pointed_at(record: Record) -> str:
    """A PTR's address."""
    if record.type is not RecordType.PTR or not record.name.endswith(".arpa"):
        return ""
    labels = record.name.split(".")[:-2][::-1]
    if record.name.endswith(".in-addr.arpa"):
        return ".".join(labels)
    return str(ipaddress.IPv6Address(int("".join(labels), 16)))


def finding(verdict: Verdict, why: str = "") -> Finding | None:
    """What is worth saying; nothing for a record that is as it must be. `why`: else its purpose."""
    record, what = verdict.record, subject(verdict.record)
    why = why or record.purpose
    seen = ", ".join(verdict.found) if verdict.found else ""
    match verdict.status:
        case Status.UNKNOWN:
            return Finding(
                id="record-unknown",
                level=Level.UNKNOWN,
                message=f"{what} could not be looked up.",
                fix=verdict.fix,
                subject=what,
                seen=verdict.reason,
                why=_WHY_UNKNOWN,
            )
        case Status.OK if verdict.note:
            return Finding(
                id="record-note",
                level=Level.INFO,
                message=f"{what}: {verdict.note}.",
                fix="",
                subject=what,
                seen=seen,
                why=why,
            )
        case Status.OK:
            return None
    level = Level.INFO if record.optional else Level.FAIL
    optional = " (optional)" if record.optional else ""
    if verdict.status is Status.MISSING:
        return Finding(
            id="record-missing",
            level=level,
            message=f"{what} is missing{optional}.",
            fix=_fix(verdict),
            subject=what,
            seen=seen or "nothing",
            why=why,
        )
    return Finding(
        id="record-different",
        level=level,
        message=f"{what} is not right{optional}: {verdict.reason}.",
        fix=_fix(verdict),
        subject=what,
        seen=seen,
        why=why,
    )


def _fix(verdict: Verdict) -> str:
    """The fix with what is to be pasted on a line of its own."""
    prose, colon, rest = verdict.fix.partition(": ")
    return f"{prose}:\n{rest}" if colon and "v=" in rest else verdict.fix
