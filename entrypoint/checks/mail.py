"""How much waits, since when, what receivers answered last, and what they took of late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from entrypoint.chasquid.queue import Destination, Summary
from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.rpc import UnreachableError
from entrypoint.history.client import Query, Total, totals_of

_HALF = 0.5  # of MAX_QUEUE
_PATIENCE = 3600.0  # seconds: greylisting is over by then
_SHOWN = 5  # destinations
_DAY = 86400.0
_MONTH = 30 * _DAY
_ENOUGH = 10  # attempts, below which a rate says nothing
# The other domains of the large providers' (checks/context.py).
_ALSO = {
    "gmail.com": ("googlemail.com",),
    "outlook.com": ("hotmail.com", "live.com", "msn.com"),
    "yahoo.com": ("ymail.com", "aol.com"),
    "icloud.com": ("me.com", "mac.com"),
    "gmx.net": ("gmx.de", "web.de"),
}
_WHY_DEFERRED = "Receivers defer whom they do not know yet, or do not trust; it delays mail."
_WHY_PROVIDER = "Most mailboxes are with a few providers; each judges senders by itself."
_LIST = "docker exec mail list-queue --to"
_WHY_DEPTH = "When MAX_QUEUE messages wait, every further one is refused (451)."
_WHY_WAITING = "After GIVE_UP_AFTER it is returned to its sender as undeliverable."


def check(context: CheckContext) -> list[Finding]:
    """Asks the holder for the queue and the last month's events; unknown if it says nothing."""
    return [*_queue(context), *_history(context)]


def _queue(context: CheckContext) -> list[Finding]:
    try:
        answer = context.machine.holder("queue")
        summary = Summary.from_json(dict(answer))
    except (UnreachableError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, UnreachableError) else answer.get("error", "")
        return [
            Finding(
                id="queue-unknown",
                level=Level.UNKNOWN,
                message="The queue could not be read.",
                fix="see what the theme host says",
                seen=reason or "no sensible answer",
                why=_WHY_DEPTH,
            )
        ]
    return [*_depth(context, summary), *_destinations(context, summary)]


def _history(context: CheckContext) -> list[Finding]:
    """What the store of events tells of the last day, and of the last month."""
    now = context.now.timestamp()
    answer: dict[str, Any] = {}
    try:
        answer = context.machine.holder(f"events {Query('totals', since=now - _DAY).word}")
        totals = totals_of(answer)
        answer = context.machine.holder(f"events {Query('deliveries', since=now - _MONTH).word}")
        last = {str(name): float(at) for name, at in answer["deliveries"].items()}
    except (UnreachableError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error) if isinstance(error, UnreachableError) else answer.get("error", "")
        return [
            Finding(
                id="history-unknown",
                level=Level.UNKNOWN,
                message="The history of mail could not be read.",
                fix="see: docker exec mail status",
                seen=reason or "no sensible answer",
                why="What receivers took of late is not known.",
            )
        ]
    return [*_deferrals(totals), *_providers(context, totals, last)]


def _deferrals(totals: Sequence[Total]) -> Iterator[Finding]:
    sent, deferred, bounced = (
        sum(getattr(item, name) for item in totals) for name in ("sent", "deferred", "bounced")
    )
    tries = sent + deferred + bounced
    if not tries:
        yield Finding(
            id="deferrals",
            level=Level.INFO,
            message="Nothing was sent in the last day.",
            seen="no attempt",
            why=_WHY_DEFERRED,
        )
        return
    rate = deferred / tries
    high = tries >= _ENOUGH and rate > _HALF
    worst = max(totals, key=lambda item: item.deferred)
    yield Finding(
        id="deferrals-many" if high else "deferrals",
        level=Level.WARN if high else Level.INFO,
        message=f"{rate:.0%} of the attempts of the last day were deferred.",
        fix="read why the receivers deferred them:\ndocker exec mail list-queue" if high else "",
        seen=f"{sent} sent, {deferred} deferred, {bounced} bounced"
        + (f"; most by {worst.destination}: {worst.deferred}" if worst.deferred else ""),
        why=_WHY_DEFERRED,
    )


def _providers(
    context: CheckContext, totals: Sequence[Total], last: Mapping[str, float]
) -> Iterator[Finding]:
    """The large ones: when each took a message last, and whether one takes none any more."""
    now = context.now.timestamp()
    for provider in context.receivers:
        domains = {provider, *_ALSO.get(provider, ())}
        today = [item for item in totals if item.destination in domains]
        sent, deferred, bounced = (
            sum(getattr(item, name) for item in today) for name in ("sent", "deferred", "bounced")
        )
        at = max((last[name] for name in domains if name in last), default=None)
        seen = f"last delivery {age(now - at)} ago" if at else "no delivery in the last 30 days"
        if not sent and deferred + bounced:
            yield Finding(
                id="provider-takes-nothing",
                level=Level.WARN,
                message=f"{provider} has taken no message for a day.",
                fix="read its answers, which say why:\n"
                f"docker exec mail list-queue\ndocker logs mail 2>&1 | grep {provider}",
                subject=provider,
                seen=f"{deferred} deferred, {bounced} bounced in the last day; {seen}",
                why=_WHY_PROVIDER,
            )
        elif at:
            yield Finding(
                id="provider",
                level=Level.INFO,
                message=f"{provider} takes mail from here.",
                fix="",
                subject=provider,
                seen=seen,
                why=_WHY_PROVIDER,
            )


def _depth(context: CheckContext, summary: Summary) -> Iterator[Finding]:
    most = context.settings.max_queue
    said = f"{summary.depth} of {most}"
    if summary.oldest is not None:
        said += f", the oldest {age(context.now.timestamp() - summary.oldest)} old"
    if summary.looked_at < summary.depth:
        said += f" (of {summary.looked_at} looked at)"
    fix = "see where they go (below), and whether somebody sends too much; a larger one in .env:\n"
    fix += f"MAX_QUEUE={most * 2}"
    if summary.depth >= most:
        yield Finding(
            id="queue-full",
            level=Level.FAIL,
            message="The queue is full.",
            fix=fix,
            seen=said,
            why=_WHY_DEPTH,
        )
    elif summary.depth >= most * _HALF:
        text = "More than half of the queue is used."
        yield Finding(
            id="queue-long", level=Level.WARN, message=text, fix=fix, seen=said, why=_WHY_DEPTH
        )
    elif summary.depth:
        yield Finding(
            id="queue", level=Level.INFO, message="Messages wait.", seen=said, why=_WHY_WAITING
        )
    else:
        yield Finding(
            id="queue",
            level=Level.INFO,
            message="No message waits.",
            seen="empty",
            why=_WHY_WAITING,
        )
    if summary.damaged:
        yield Finding(
            id="queue-damaged",
            level=Level.WARN,
            message="The queue has files that are no messages.",
            fix="look at them in data/chasquid/queue; chasquid leaves them alone",
            seen=f"{summary.damaged} of {summary.looked_at}",
            why=_WHY_WAITING,
        )


def _destinations(context: CheckContext, summary: Summary) -> Iterator[Finding]:
    now = context.now.timestamp()
    for number, item in enumerate(summary.destinations):
        if number >= _SHOWN and not item.advice:
            continue
        waits = now - item.oldest
        level = Level.WARN if waits > _PATIENCE or item.advice else Level.INFO
        yield Finding(
            id="queue-waiting",
            level=level,
            message=f"{_number(item)} for {item.domain} for {age(waits)}.",
            fix=_fix(item),
            subject=item.domain,
            seen=item.answer or "no answer yet",
            why=_WHY_WAITING,
        )


def _fix(item: Destination) -> str:
    if item.advice:
        return (
            f"{item.domain} had better TLS before, and chasquid insists on it; if you know why it "
            f"has not now:\n{item.advice}"
        )
    return f"read the receivers' answers; it is tried again by itself:\n{_LIST} {item.domain}"


def _number(item: Destination) -> str:
    return "1 message waits" if item.waiting == 1 else f"{item.waiting} messages wait"


def age(seconds: float) -> str:
    """`45 s`, `12 min`, `7 h`, `3 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
