"""The verb status: certificates, queue, the last hour's mail and findings on one screen."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from entrypoint.chasquid.queue import Summary
from entrypoint.chasquid.userdb import Denied
from entrypoint.checks import memory
from entrypoint.commands.context import Context
from entrypoint.common import rpc, version
from entrypoint.common.errors import Exit
from entrypoint.common.findings import Level
from entrypoint.common.rpc import UnreachableError
from entrypoint.converge.plan import served_certificates
from entrypoint.history import client
from entrypoint.services import health
from entrypoint.state.load import State

_HOUR = 3600.0
_WIDTH = 80
_DESTINATIONS = 8
_REFUSED = 5
_WAIT = 9.0  # seconds: longer than the holder waits for its reader


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
def status(as_json: bool) -> int:
    """Show on one screen how the server fares. The exit status is 1 if it is not healthy.

    Example: docker exec mail status
    """
    context = Context.enter()
    found = _look(context, time.time())
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_screen(found)))
    return Exit.OK if found["healthy"] else Exit.WRONG


def _look(context: Context, now: float) -> dict[str, Any]:
    judged = health.look(context.paths, now)
    current = context.state()
    holder = judged.holder
    return {
        "version": version.number(),
        "revision": version.revision(context.paths),
        "host": str(context.settings.mail_hostname),
        "healthy": not judged.problems,
        "problems": list(judged.problems),
        "uptime": round(now - judged.started, 1) if judged.started else None,
        "programs": [
            {"name": item.name, "state": item.state, "seconds": round(now - item.since, 1)}
            for item in judged.programs
        ],
        "chasquid": {
            "ready": bool(holder.get("ready")),
            "seconds": holder.get("seconds"),
            "starts": holder.get("starts"),
        },
        "unjudged": _unjudged(holder, now),
        "certificates": _certificates(context, current, now),
        "queue": _queue(context, now),
        "last_hour": _last_hour(context, now),
        "users": {
            str(domain): sum(
                not isinstance(secret, Denied) for secret in current.domain(domain).users.values()
            )
            for domain in context.settings.domains
        },
        "warnings": [
            *judged.notes,
            *(text for text in _findings(context) if text not in judged.problems),
        ],
        "refused_below": _refused_below(context),
        "doctor": _doctor(context),
    }


def _unjudged(holder: dict[str, Any], now: float) -> dict[str, Any]:
    """Messages refused for want of an answer of the policy service, since the holder's start.

    `count` is None if the holder does not say.
    """
    found = holder.get("unjudged") or {}
    last = found.get("last")
    seconds = None if last is None else round(max(0.0, now - float(last)), 1)
    return {"count": found.get("count"), "last_seconds": seconds}


def _refused_below(context: Context) -> list[dict[str, Any]]:
    """Strangers' mail whose From is below a domain of ours, which nothing proved: last two days."""
    try:
        found = rpc.request(context.paths.policy_door, "refusals", timeout=5.0)["refusals"]
        return [dict(item) for item in found]
    except (UnreachableError, KeyError, TypeError, ValueError):
        return []  # that it does not answer is a problem of its own


def _certificates(context: Context, current: State, now: float) -> list[dict[str, Any]]:
    moment = datetime.fromtimestamp(now, UTC)
    rows = {}
    for folder, item in served_certificates(context.settings, current).items():
        own = next((name for name, held in current.certificates.items() if held is item), None)
        rows[own or folder] = {
            "name": own or "self-signed",
            "days_left": (item.not_after - moment).days,
        }
    return list(rows.values())


def _queue(context: Context, now: float) -> dict[str, Any]:
    try:
        answer = rpc.request(context.paths.holder_socket, "queue", _WAIT)
        found = Summary.from_json(answer)
    except (UnreachableError, KeyError, TypeError) as error:
        return {"error": str(error)}
    oldest = None if found.oldest is None else round(max(0.0, now - found.oldest), 1)
    return {"depth": found.depth, "most": context.settings.max_queue, "oldest_seconds": oldest}


def _last_hour(context: Context, now: float) -> dict[str, Any]:
    try:
        return {"totals": [vars(item) for item in client.totals(context.paths, now - _HOUR)]}
    except (UnreachableError, KeyError, TypeError) as error:
        return {"error": str(error)}


def _findings(context: Context) -> list[str]:
    """What the keeper sees."""
    try:
        content = json.loads(context.paths.findings.read_text())
        return [str(item["text"]) for item in content if item["level"] != Level.INFO.value]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _doctor(context: Context) -> dict[str, Any]:
    """What the last look of the doctor's found, in numbers."""
    known = memory.load(context.paths)
    levels = [item.level for item in known.findings.values()]
    return {
        "when": f"{known.when:%Y-%m-%dT%H:%M:%SZ}" if known.when else None,
        "fail": levels.count(Level.FAIL),
        "warn": levels.count(Level.WARN),
    }


def _screen(found: dict[str, Any]) -> Iterator[str]:
    up = f", up {_age(found['uptime'])}" if found["uptime"] is not None else ""
    yield f"{found['host']}: {'healthy' if found['healthy'] else 'NOT HEALTHY'}"
    commit = f" ({found['revision']})" if found["revision"] else ""
    yield f"tambo {found['version']}{commit}{up}"
    for text in found["problems"]:
        yield from _wrapped(text)
    yield ""
    yield "Programs"
    for item in found["programs"]:
        yield f"  {item['name']:<14} {item['state']:<10} {_age(item['seconds'])}"
    chasquid = found["chasquid"]
    if chasquid["ready"]:
        starts = "" if chasquid["starts"] == 1 else f", started {chasquid['starts']} times"
        yield f"  {'chasquid':<14} {'running':<10} {_age(chasquid['seconds'])}{starts}"
    else:
        yield f"  {'chasquid':<14} down"
    unjudged = found["unjudged"]
    if unjudged["count"]:
        yield "Refused for now (451), as the policy service did not answer"
        last = _age(unjudged["last_seconds"])
        yield f"  {unjudged['count']} since the start, the last {last} ago"
    yield "Certificates"
    for item in found["certificates"]:
        yield f"  {item['name']:<40} {item['days_left']} days left"
    yield "Queue"
    yield f"  {_queue_line(found['queue'])}"
    yield from _hour_lines(found["last_hour"])
    yield "Users"
    for domain, count in found["users"].items():
        yield f"  {domain:<40} {count}"
    yield from _refused_lines(found["refused_below"])
    if found["warnings"]:
        yield "Warnings"
        for text in found["warnings"]:
            yield from _wrapped(text)
    yield from _doctor_lines(found["doctor"])


def _queue_line(queue: dict[str, Any]) -> str:
    if "error" in queue:
        return f"unknown: {queue['error']}"
    if not queue["depth"]:
        return "empty"
    oldest = queue["oldest_seconds"]
    since = f", the oldest for {_age(oldest)}" if oldest is not None else ""
    return f"{queue['depth']} of {queue['most']}{since} (docker exec mail list-queue)"


def _hour_lines(hour: dict[str, Any]) -> Iterator[str]:
    if "error" in hour:
        yield "Last hour"
        yield f"  unknown: {hour['error']}"
        return
    yield f"{'Last hour':<42} {'sent':>8} {'deferred':>9} {'bounced':>8}"
    totals = hour["totals"]
    rows = [(item["destination"], item) for item in totals[:_DESTINATIONS]]
    rest = totals[_DESTINATIONS:]
    if rest:
        added = {name: sum(item[name] for item in rest) for name in ("sent", "deferred", "bounced")}
        rows.append((f"{len(rest)} other destinations", added))
    for name, item in rows:
        yield f"  {name:<40} {item['sent']:>8} {item['deferred']:>9} {item['bounced']:>8}"
    if not rows:
        yield "  nothing"


def _refused_lines(refused: list[dict[str, Any]]) -> Iterator[str]:
    if not refused:
        return
    yield "Refused: from a name below a domain of yours, without SPF or DKIM of it (last two days)"
    for item in refused[:_REFUSED]:
        sender = f"MAIL FROM @{item['envelope_domain']}" if item["envelope_domain"] else "a bounce"
        yield f"  {item['domain']}: {item['count']} from {item['address'] or 'unknown'}, {sender}"
        for record in item["records"]:
            yield from (f"  {line}" for line in _wrapped(f"if it is yours: {record}"))
    if len(refused) > _REFUSED:
        yield f"  and {len(refused) - _REFUSED} more (docker exec mail status --json)"


def _doctor_lines(doctor: dict[str, Any]) -> Iterator[str]:
    if doctor["when"]:
        yield f"Doctor, {doctor['when']}"
        yield f"  {doctor['fail']} wrong, {doctor['warn']} to look at (docker exec mail doctor)"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _age(seconds: float | None) -> str:
    """`45 s`, `12 min`, `7 h`, `3 d`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds is not None and seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds or 0.0):.0f} s"
