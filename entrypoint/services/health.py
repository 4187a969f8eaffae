"""Whether mail is served: for Docker's health check and for `status`. Reads no settings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from entrypoint.common import rpc, tlsprobe
from entrypoint.common.parallel import every
from entrypoint.common.paths import Paths
from entrypoint.common.tlsprobe import PORTS

_TIMEOUT = 3.0  # seconds; Docker waits for five
_GREETING = 1.8  # seconds, for three ports side by side after what the holder took
_AWAY = 10.0  # seconds without the gate, which starts anew within one
_BEHIND = 60.0  # seconds that an event may wait to be stored


@dataclass(frozen=True)
class Program:
    """A program that PID 1 keeps running; `since` when it is in that state, seconds since 1970."""

    name: str
    state: str  # in supervisord's words, lower case: running, starting, backoff, fatal …
    since: float


@dataclass(frozen=True)
class Health:
    """`problems`: mail is not served, or something that is served is broken. `notes` say what
    else is wrong, which mail does not need. `holder` is the socket holder's answer, empty without
    one. `started` is PID 1's start in seconds since 1970, 0 if that is not known."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    holder: dict[str, Any] = field(default_factory=dict)
    programs: tuple[Program, ...] = ()
    started: float = 0.0


def look(paths: Paths, now: float) -> Health:
    """Asks the holder, and each port for its greeting. `now` is in seconds since 1970."""
    started, programs = _programs(paths)
    problems: list[str] = []
    holder: dict[str, Any] = {}
    try:
        holder = rpc.request(paths.holder_socket, "status", timeout=_TIMEOUT)
    except rpc.UnreachableError as error:
        problems.append(f"the mail server does not answer: {error}")
    else:
        if not holder.get("ready"):
            problems.append(f"chasquid is not running; it said last: {holder.get('last_words')}")
        elif silent := _silent_ports():
            problems.append(
                f"no greeting within {_GREETING:.0f} s on port {', '.join(map(str, silent))}"
            )
    try:
        problems += [str(text) for text in json.loads(paths.problems.read_text())]
    except FileNotFoundError:
        problems.append("starting: the keeper has not looked yet")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        problems.append(f"what the keeper found cannot be read: {error!r}")
    return Health(
        problems=tuple(problems),
        notes=(
            *_notes(programs, holder.get("events") or {}, now),
            *_pace(holder.get("outgoing") or {}, holder.get("connections") or {}),
        ),
        holder=holder,
        programs=programs,
        started=started,
    )


def _silent_ports() -> list[int]:
    found = every(PORTS, lambda port: tlsprobe.greets(port, _GREETING), _GREETING)
    return [port for port, greeted in zip(PORTS, found, strict=True) if not greeted]


def _programs(paths: Paths) -> tuple[float, tuple[Program, ...]]:
    try:
        content = json.loads(paths.programs.read_text())
        return float(content["started"]), tuple(
            Program(name, str(item["state"]), float(item["since"]))
            for name, item in content["programs"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0.0, ()


def _notes(programs: tuple[Program, ...], events: dict[str, Any], now: float) -> list[str]:
    """What is wrong with the history of mail."""
    notes = [
        f"{item.name} cannot be kept running: no history is kept (docker logs mail has the reason)"
        for item in programs
        if item.state == "fatal" and item.name == "recorder"
    ]
    oldest = events.get("oldest")
    if not notes and oldest is not None and now - oldest > _BEHIND:
        notes.append(
            f"{events.get('waiting')} events wait to be stored, the oldest since "
            f"{now - oldest:.0f} s (docker logs mail has the reason)"
        )
    if events.get("dropped"):
        notes.append(f"{events['dropped']} events are missing from the history; the log has them")
    return notes


def _pace(outgoing: dict[str, Any], connections: dict[str, Any]) -> list[str]:
    """That mail leaves as fast as chasquid dials, and why."""
    if outgoing.get("paced") is False:
        why = connections.get("why") or "docker logs mail has the reason"
        said = f"mail leaves unpaced, as connections cannot be watched here ({why}): "
        return [said + "docker exec mail doctor"]
    if outgoing.get("gate") is False and outgoing.get("seconds", 0) > _AWAY:
        said = (
            f"mail leaves unpaced, since the gate has not answered for {outgoing['seconds']:.0f} s "
        )
        return [said + "(docker logs mail has the reason)"]
    return []
