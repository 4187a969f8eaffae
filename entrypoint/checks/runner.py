"""Runs the themes side by side. One that fails or takes too long is unknown, never missing."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from entrypoint.chasquid.maillog import clean
from entrypoint.checks import (
    accounts,
    backup,
    certificates,
    dmarc,
    dnssec,
    host,
    keys,
    lists,
    mail,
    names,
    network,
    records,
    senders,
)
from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level

_SECONDS = 12.5  # for all of it; a verb's start and its output come on top
OVERRUN = "overrun"


@dataclass(frozen=True)
class Theme:
    """`about` says in a few words what is looked at."""

    name: str
    about: str
    check: Callable[[CheckContext], list[Finding]]


THEMES = (
    Theme("host", "ports, IPv6, clock, disk, memory, file limits", host.check),
    Theme("network", "resolver, addresses, port 25 out and in", network.check),
    Theme("names", "A, AAAA, reverse DNS, greeting, host name", names.check),
    Theme("records", "MX, SPF, DMARC and the rest of dns --check", records.check),
    Theme("dnssec", "signed, anchored, valid", dnssec.check),
    Theme("certificates", "renewed, served, trusted", certificates.check),
    Theme("keys", "DKIM keys here and in DNS, a test signature", keys.check),
    Theme("lists", "block lists of addresses and domains", lists.check),
    Theme("reports", "DMARC reports of the last week", dmarc.check),
    Theme("mail", "queue, deferrals, receivers' last answers", mail.check),
    Theme("accounts", "users, aliases, postmaster and abuse", accounts.check),
    Theme("senders", "who may send as whom, paused logins", senders.check),
    Theme("backup", "pushed, checked, nothing left out", backup.check),
)


@dataclass(frozen=True)
class Result:
    """What a theme found, and in how many seconds."""

    theme: Theme
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def worst(self) -> Level:
        return max((item.level for item in self.findings), key=_RANK.index, default=Level.INFO)


_RANK = (Level.INFO, Level.UNKNOWN, Level.WARN, Level.FAIL)


@dataclass(frozen=True)
class Report:
    """Everything that a run found. `seconds` is how long it took."""

    when: datetime
    results: tuple[Result, ...]
    seconds: float

    @property
    def failed(self) -> bool:
        return any(result.worst is Level.FAIL for result in self.results)

    def count(self, level: Level) -> int:
        return sum(item.level is level for result in self.results for item in result.findings)


def run(
    context: CheckContext,
    themes: Sequence[Theme] = THEMES,
    *,
    seconds: float = _SECONDS,
    on_done: Callable[[Result], None] = lambda _result: None,
) -> Report:
    """Run all themes, each in a thread; `on_done` is called with each result as it comes."""
    started = time.monotonic()
    done: queue.SimpleQueue[Result] = queue.SimpleQueue()

    def work(theme: Theme) -> None:
        try:
            found = tuple(_printable(item) for item in theme.check(context))
        except Exception as error:  # noqa: BLE001 (one check's bug must not end the others)
            found = (_broken(theme, error),)
        done.put(Result(theme, found, time.monotonic() - started))

    for theme in themes:
        threading.Thread(target=work, args=(theme,), daemon=True).start()
    results: dict[str, Result] = {}
    while len(results) < len(themes):
        try:
            result = done.get(timeout=max(0.0, started + seconds - time.monotonic()))
        except queue.Empty:
            break
        results[result.theme.name] = result
        on_done(result)
    for theme in themes:
        if theme.name not in results:
            results[theme.name] = Result(theme, (_overrun(theme, seconds),), seconds)
            on_done(results[theme.name])
    ordered = tuple(results[theme.name] for theme in themes)
    return Report(context.now, ordered, time.monotonic() - started)


def _printable(item: Finding) -> Finding:
    """What DNS and remote servers said must not move a terminal's cursor."""
    return replace(
        item,
        message=clean(item.message),
        subject=clean(item.subject),
        seen=clean(item.seen),
        fix="\n".join(clean(line) for line in item.fix.split("\n")),
    )


def _overrun(theme: Theme, seconds: float) -> Finding:
    return Finding(
        id=OVERRUN,
        level=Level.UNKNOWN,
        message=f"{theme.about}: not looked at to the end.",
        fix="run it again: docker exec mail doctor",
        seen=f"no end within {seconds:.0f} s",
        why="What was not looked at may be wrong.",
    )


def _broken(theme: Theme, error: Exception) -> Finding:
    return Finding(
        id=OVERRUN,
        level=Level.UNKNOWN,
        message=f"{theme.about}: could not be looked at.",
        fix="this is an error of tambo's: please report it",
        seen=f"{type(error).__name__}: {error}"[:300],
        why="What was not looked at may be wrong.",
    )
