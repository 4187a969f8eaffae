"""The queue: how much waits, since when, and what receivers answered last.

What needs a memory of what was delivered (the rate of deferrals, the last delivery to each large
provider) is not looked at: nothing keeps that yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from entrypoint.checks.context import CheckContext
from entrypoint.control import UnreachableError
from entrypoint.findings import Finding, Level
from entrypoint.queue import Destination, Summary

_HALF = 0.5  # of MAX_QUEUE
_PATIENCE = 3600.0  # seconds: greylisting is over by then
_SHOWN = 5  # destinations
_LIST = "docker exec mail list-queue --to"
_WHY_DEPTH = "When MAX_QUEUE messages wait, every further one is refused (451)."
_WHY_WAITING = "After GIVE_UP_AFTER it is returned to its sender as undeliverable."


def check(context: CheckContext) -> list[Finding]:
    try:
        answer = context.machine.holder("queue")
        summary = Summary.from_json(dict(answer))
    except (UnreachableError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, UnreachableError) else answer.get("error", "")
        return [
            Finding(
                "queue-unknown", Level.UNKNOWN, "The queue could not be read.",
                "see what the theme host says", seen=reason or "no sensible answer",
                why=_WHY_DEPTH,
            )
        ]  # fmt: skip
    return [*_depth(context, summary), *_destinations(context, summary)]


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
            "queue-full", Level.FAIL, "The queue is full.", fix, seen=said, why=_WHY_DEPTH
        )
    elif summary.depth >= most * _HALF:
        text = "More than half of the queue is used."
        yield Finding("queue-long", Level.WARN, text, fix, seen=said, why=_WHY_DEPTH)
    elif summary.depth:
        yield Finding("queue", Level.INFO, "Messages wait.", seen=said, why=_WHY_WAITING)
    else:
        yield Finding("queue", Level.INFO, "No message waits.", seen="empty", why=_WHY_WAITING)
    if summary.damaged:
        yield Finding(
            "queue-damaged", Level.WARN, "The queue has files that are no messages.",
            "look at them in data/chasquid/queue; chasquid leaves them alone",
            seen=f"{summary.damaged} of {summary.looked_at}", why=_WHY_WAITING,
        )  # fmt: skip


def _destinations(context: CheckContext, summary: Summary) -> Iterator[Finding]:
    now = context.now.timestamp()
    for number, item in enumerate(summary.destinations):
        if number >= _SHOWN and not item.advice:
            continue
        waits = now - item.oldest
        level = Level.WARN if waits > _PATIENCE or item.advice else Level.INFO
        yield Finding(
            "queue-waiting", level, f"{_number(item)} for {item.domain} for {age(waits)}.",
            _fix(item), item.domain, item.answer or "no answer yet", _WHY_WAITING,
        )  # fmt: skip


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
