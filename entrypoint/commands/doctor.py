"""The verb doctor: runs the checks of `checks/`, and prints their findings by theme."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import click

from entrypoint import checks
from entrypoint.checks import memory
from entrypoint.checks.context import CheckContext
from entrypoint.checks.memory import Changes
from entrypoint.commands.context import Context
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.findings import Finding, Level

_WIDTH = 80
_LABEL = 9  # columns of a level
_SEEN = 2  # of what was seen, where many findings have one cause
_MARKS = {
    Level.INFO: ("ok", "\033[32m"),
    Level.UNKNOWN: ("unknown", "\033[33m"),
    Level.WARN: ("warn", "\033[33m"),
    Level.FAIL: ("FAIL", "\033[31m"),
}


@click.command("doctor")
@click.option("--changes", is_flag=True, help="Show only what differs from the last run.")
@click.option("--verbose", "-v", is_flag=True, help="Show all that was found, also what is fine.")
@click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
def doctor(changes: bool, verbose: bool, as_json: bool) -> int:
    """Look for all that could keep mail from arriving, and say how to mend it.

    Takes up to 15 seconds. The exit status is 1 if anything is at FAIL; what could not be seen is
    `unknown`, and changes nothing.

    Example: docker exec mail doctor
    """
    context = Context.enter()
    themes = checks.THEMES
    progress = _Progress(len(themes), shown=sys.stderr.isatty())
    before = memory.load(context.paths)
    looked_at = CheckContext.real(context.settings, context.state(), context.paths)
    report = checks.run(looked_at, themes, on_done=progress.done)
    progress.end()
    news, after = memory.compare(before, report)
    if as_json:
        click.echo(json.dumps(_as_json(report, news if changes else None), indent=2))
    elif changes:
        _echo(_changes(news, report))
    else:
        _echo(_report(report, verbose=verbose))
    try:
        memory.remember(after, context.paths, context.ids)
    except (OSError, UserError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        click.echo(f"note: what was found cannot be kept for --changes: {reason}", err=True)
    return Exit.WRONG if report.failed else Exit.OK


@dataclass
class _Progress:
    """One line on a terminal's standard error: what is still being looked at."""

    total: int
    shown: bool
    _ready: int = 0
    _left: list[str] = field(default_factory=lambda: [theme.name for theme in checks.THEMES])

    def done(self, result: checks.Result) -> None:
        self._ready += 1
        self._left.remove(result.theme.name)
        if self.shown and self._left:
            text = f"{self._ready} of {self.total} done; looking at {', '.join(self._left)}"
            click.echo(f"\r\033[K{_cut(text, _WIDTH - 1)}", err=True, nl=False)

    def end(self) -> None:
        if self.shown:
            click.echo("\r\033[K", err=True, nl=False)


def _echo(lines: Iterator[str]) -> None:
    click.echo("\n".join(lines), color=True)


# --- as text -------------------------------------------------------------------------------------


def _report(report: checks.Report, *, verbose: bool) -> Iterator[str]:
    for result in report.results:
        yield from _theme(result, verbose=verbose)
    counts = [
        f"{report.count(level)} {label}"
        for level, label in (
            (Level.FAIL, "FAIL"), (Level.WARN, "warn"), (Level.UNKNOWN, "unknown"),
            (Level.INFO, "info"),
        )
        if report.count(level)
    ]  # fmt: skip
    yield f"\n{', '.join(counts) or 'nothing to say'}; {report.seconds:.1f} s"


def _theme(result: checks.Result, *, verbose: bool) -> Iterator[str]:
    said = [item for item in result.findings if verbose or item.level is not Level.INFO]
    fine = [item.seen for item in result.findings if item.level is Level.INFO and item.seen]
    text = result.theme.about
    if result.worst is Level.INFO and fine and not verbose:
        text = "; ".join(fine)
    yield _mark(result.worst) + _cut(f"{result.theme.name:<13}{text}", _WIDTH - _LABEL)
    for group in _together(said):
        yield from _finding(group)
    if said:
        yield ""


def _together(findings: Sequence[Finding]) -> Iterator[list[Finding]]:
    """Findings with one cause, such as a resolver that does not answer, are one."""
    order = sorted(findings, key=lambda item: -_RANK.index(item.level))

    def cause(item: Finding) -> tuple[str, ...]:
        if item.level is not Level.UNKNOWN:
            return (item.id, item.subject, item.message)
        return (item.id, item.fix)

    for _, group in groupby(order, key=cause):
        yield list(group)


_RANK = (Level.INFO, Level.UNKNOWN, Level.WARN, Level.FAIL)


def _finding(group: Sequence[Finding]) -> Iterator[str]:
    first, *others = group
    label = "info" if first.level is Level.INFO else ""
    yield from _wrapped(first.message, f"  {_mark(first.level, label)}")
    if others:
        yield from _wrapped(", ".join(item.subject for item in others), _indent("and"))
    if first.seen:
        seen = list(dict.fromkeys(item.seen for item in group))
        more = ["…"] if len(seen) > _SEEN else []
        yield from _wrapped("; ".join(seen[:_SEEN] + more), _indent("seen"))
    if first.why:
        yield from _wrapped(first.why, _indent("why"))
    if first.fix:
        prose, *paste = first.fix.split("\n")
        yield from _wrapped(prose, _indent("fix"))
        yield from (f"    {line}" for line in paste)


def _mark(level: Level, label: str = "") -> str:
    text, colour = _MARKS[level]
    start, end = (colour, "\033[0m") if sys.stdout.isatty() else ("", "")
    return f"{start}{label or text}{end}{' ' * (_LABEL - len(label or text))}"


def _indent(label: str) -> str:
    return f"{' ' * (2 + _LABEL)}{label + ':':<6}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 2]} …"


def _wrapped(text: str, start: str) -> Iterator[str]:
    """Lines of at most 80 columns behind `start`; what has no spaces is left whole."""
    width = len(start) - (9 if "\033" in start else 0)
    lines = textwrap.wrap(
        text, max(20, _WIDTH - width), break_long_words=False, break_on_hyphens=False
    ) or [""]
    yield start + lines[0]
    yield from (" " * width + line for line in lines[1:])


def _changes(news: Changes, report: checks.Report) -> Iterator[str]:
    since = f"{news.since:%Y-%m-%d %H:%M} UTC" if news.since else ""
    if not (news.new or news.mended or news.known_again):
        yield f"Nothing has changed since {since}."
    else:
        yield f"Since {since}:" if since else "The first run: everything is new."
        yield ""
        for group in _together(news.new):
            yield from _finding(group)
        for known in news.mended:
            yield from _wrapped(known.message, f"  {_mark(Level.INFO, 'mended')}")
        if news.known_again:
            text = f"{len(news.known_again)} that could not be seen the last time"
            yield from _wrapped(text, f"  {_mark(Level.INFO, 'known')}")
    failing = report.count(Level.FAIL)
    if failing:
        yield f"\n{failing} at FAIL now; all of it: docker exec mail doctor"


# --- as JSON -------------------------------------------------------------------------------------


def _as_json(report: checks.Report, news: Changes | None) -> dict[str, Any]:
    wanted = None if news is None else {id(item) for item in news.new}
    content: dict[str, Any] = {
        "time": f"{report.when:%Y-%m-%dT%H:%M:%SZ}",
        "seconds": round(report.seconds, 2),
        "failed": report.failed,
        "counts": {level.value: report.count(level) for level in Level},
        "themes": [
            {
                "theme": result.theme.name,
                "worst": result.worst.value,
                "seconds": round(result.seconds, 2),
                "findings": [
                    _finding_as_json(item)
                    for item in result.findings
                    if wanted is None or id(item) in wanted
                ],
            }
            for result in report.results
        ],
    }
    if news is not None:
        content["since"] = f"{news.since:%Y-%m-%dT%H:%M:%SZ}" if news.since else None
        for name, gone in (("mended", news.mended), ("known_again", news.known_again)):
            content[name] = [
                {"level": known.level.value, "message": known.message} for known in gone
            ]
    return content


def _finding_as_json(item: Finding) -> dict[str, str]:
    return {
        "id": item.id,
        "level": item.level.value,
        "subject": item.subject,
        "message": item.message,
        "seen": item.seen,
        "why": item.why,
        "fix": item.fix,
    }
