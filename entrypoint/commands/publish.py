"""Entering the DNS records through the provider's API."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from entrypoint.commands.context import Context
from entrypoint.common.errors import Exit
from entrypoint.dns.authoritative import Ask, Authoritative
from entrypoint.dns.echo import Echo
from entrypoint.dns.records import Record
from entrypoint.zone import address, judge, providers, publish, render
from entrypoint.zone.judge import Status, Verdict
from entrypoint.zone.publish import Action, Outcome, Step
from entrypoint.zone.required import Addresses, required

_WAIT = 300  # seconds: most providers show a change within one minute
_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")


@click.command("publish-dns")
@click.option("--apply", "do", is_flag=True, help="Do it. Without this it is only shown.")
@click.option(
    "--wait", "seconds", type=click.IntRange(0, 3600), default=_WAIT, show_default=True,
    metavar="SECONDS", help="With --apply: how long DNS may take to show the changes.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one object for programs.")
def publish_dns(do: bool, seconds: int, as_json: bool) -> int:
    """Enter the DNS records that this server needs, at the provider of the domain's DNS.

    Shows what would be added (+) or changed (old - and new +), zone by zone, and what is left to do
    by hand. Only records of tambo's own are changed. The provider is the one of ACME_DNS (a
    domain's acme.env first), or LEXICON_PROVIDER.

    The exit status is 0 if all records are right, 1 if something is to do or did not work, 75 if
    some name server could not be asked. With --apply the authoritative name servers decide.

    Example: docker exec mail publish-dns --apply
    """
    context = Context.enter()
    return _Publication(context, as_json).run(do=do, seconds=seconds)


class _Publication:
    """One run of the verb."""

    def __init__(self, context: Context, as_json: bool) -> None:
        self.settings = context.settings
        self.state = context.state()
        echo = Echo()
        self.addresses: Addresses = address.find(context.settings, echo, echo.through)
        self.records: tuple[Record, ...] = required(self.settings, self.state, self.addresses)
        self.as_json = as_json
        private = self.settings.acme_ca_bundle and context.paths.ca_bundle.exists()
        self.roots = context.paths.ca_bundle if private else _ROOTS
        self.started = time.monotonic()

    def run(self, *, do: bool, seconds: int) -> int:
        ask: Ask = Authoritative()
        verdicts = judge.check(self.records, self.addresses, ask)
        steps = publish.plan(
            verdicts,
            self.settings.mail_hostname,
            self.addresses,
            ask,
            publish.find_zone,
            lambda domain: providers.account(self.settings, self.state, domain),
        )
        if not self.as_json:
            click.echo(_plan(steps, len(verdicts), colour=sys.stdout.isatty()), color=True)
        todo = [step for step in steps if step.is_ours_to_do]
        if not do:
            errors = publish.locked_out(todo, self.roots)
            if self.as_json:
                click.echo(_dump(steps, errors=errors))
            else:
                _advise(todo, errors)
            return Exit.WRONG if todo else _status(verdicts)
        if not todo:
            if self.as_json:
                click.echo(_dump(steps, verdicts=verdicts))
            return _status(verdicts)
        outcomes = publish.apply(todo, self._tell, self.roots)
        done = [outcome.step for outcome in outcomes if not outcome.error]
        verdicts, late = publish.settle(
            self.records, self.addresses, ask, done, seconds, self._tell
        )
        lost = publish.lost(done, ask)
        if self.as_json:
            click.echo(_dump(steps, outcomes=outcomes, late=late, verdicts=verdicts, lost=lost))
        else:
            _conclude(outcomes, late, verdicts, lost)
        failed = lost or late or any(outcome.error for outcome in outcomes)
        return Exit.WRONG if failed else _status(verdicts)

    def _tell(self, text: str) -> None:
        """Progress, which is not the result."""
        click.echo(f"[{time.monotonic() - self.started:5.1f} s] {text}", err=True)


def _status(verdicts: Sequence[Verdict]) -> Exit:
    if any(item.is_wrong for item in verdicts):
        return Exit.WRONG
    if any(item.status is Status.UNKNOWN and not item.record.optional for item in verdicts):
        return Exit.TRY_AGAIN
    return Exit.OK


# --- for people -----------------------------------------------------------------------------------


def _plan(steps: Sequence[Step], total: int, *, colour: bool) -> str:
    if not steps:
        return f"nothing to publish: all {total} records are right"
    parts = []
    todo = [step for step in steps if step.is_ours_to_do]
    for zone in dict.fromkeys(step.zone for step in todo):
        group = [step for step in todo if step.zone == zone]
        source = group[0].account.source if group[0].account else ""
        parts.append("\n".join([f"{zone}, by {source}:", *_changes(group, zone, colour)]))
    hands = [step for step in steps if step.action is Action.HAND]
    parts += _could_be_done(hands)
    for title, group in (
        ("To be done by hand:", [step for step in hands if not _is_blocked(step)]),
        (
            "Not known, or on its way; look again later:",
            [step for step in steps if step.action is Action.WAIT],
        ),
        ("Left as it is (optional):", [step for step in steps if step.action is Action.LEAVE]),
    ):
        if group:
            parts.append("\n".join([title, *(line for step in group for line in _words(step))]))
    changes = sum(step.action is Action.CHANGE for step in todo)
    parts.append(
        f"{len(todo) - changes} to add, {changes} to change, {len(hands)} to be done by hand"
    )
    return "\n\n".join(parts)


def _changes(steps: Sequence[Step], zone: str, colour: bool = False) -> Iterator[str]:
    red, green, end = ("\033[31m", "\033[32m", "\033[0m") if colour else ("", "", "")
    for step in steps:
        record = step.record
        head = f"{_relative(record.name, zone)} {record.type.value}"
        optional = "  (optional)" if record.optional else ""
        for value in step.old:
            yield f"{red}  - {head} {value}{end}"
        if step.new:
            yield f"{green}  + {head} {step.new}{end}{optional}"
        if step.kept:
            count = "one other" if len(step.kept) == 1 else f"{len(step.kept)} others"
            yield f"      beside {count} of that name and type, untouched"
        if step.reason and step.is_ours_to_do:
            yield f"      note: {step.reason}"


def _is_blocked(step: Step) -> bool:
    """Whether a program could do it, if it only were let."""
    return bool(step.new)


def _could_be_done(hands: Sequence[Step]) -> Iterator[str]:
    """By zone and reason, what has to be entered by hand for no fault of the record's own."""
    groups: dict[tuple[str, str, str], list[Step]] = {}
    for step in filter(_is_blocked, hands):
        where = step.zone or str(step.record.zone)
        groups.setdefault((where, step.reason, step.remedy), []).append(step)
    for (where, reason, remedy), group in groups.items():
        lines = [f"To be entered by hand in {where}: {reason}", *_changes(group, where)]
        yield "\n".join([*lines, f"  fix: {remedy}"] if remedy else lines)


def _relative(name: str, zone: str) -> str:
    return "@" if name == zone else name.removesuffix(f".{zone}")


def _words(step: Step) -> Iterator[str]:
    record = step.verdict.record
    optional = "  (optional)" if record.optional else ""
    # Of a reverse name the purpose tells the address.
    what = record.purpose if record.zone is None else f"{record.name}{optional}"
    yield f"  {record.type.value} {what}"
    for value in step.verdict.found or step.kept:
        yield f"      found: {value}"
    if step.reason:
        yield f"      {step.reason}"
    if step.fix and step.action is not Action.LEAVE:
        yield f"      fix: {step.fix}"


def _advise(todo: Sequence[Step], errors: Mapping[str, str]) -> None:
    for zone, error in errors.items():
        click.echo(f"error: {zone}: {error}", err=True)
    if todo and not errors:
        click.echo("nothing was changed; to do it: docker exec mail publish-dns --apply")


def _conclude(
    outcomes: Sequence[Outcome],
    late: Sequence[Step],
    verdicts: Sequence[Verdict],
    lost: Sequence[tuple[Record, str]],
) -> None:
    left = [item for item in verdicts if item.status is not Status.OK]
    if all(outcome.error for outcome in outcomes):
        click.echo("\nnone of it was done")
    elif left:
        click.echo(f"\nThe authoritative name servers say, of {len(verdicts)} records:")
        click.echo(render.verdicts(left, colour=sys.stdout.isatty()), nl=False, color=True)
    click.echo(f"{len(verdicts) - len(left)} of {len(verdicts)} records are right")
    for (zone, error), failed in _failures(outcomes).items():
        click.echo(f"error: {zone}: {', '.join(failed)}: {error}", err=True)
    for record, value in lost:
        click.echo(
            f"error: {record.name} {record.type.value} no longer has a value that stood there "
            f"before; enter it again: {value}",
            err=True,
        )
    if late:
        names = ", ".join(f"{step.record.name} {step.record.type.value}" for step in late)
        click.echo(
            f"error: the provider has taken {names}, but DNS does not show it yet\n"
            "  fix: wait, and look again: docker exec mail dns --watch",
            err=True,
        )


def _failures(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[str]]:
    """What failed, by zone and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.error:
            record, zone = outcome.step.record, outcome.step.zone
            name = f"{_relative(record.name, zone)} {record.type.value}"
            found.setdefault((zone, outcome.error), []).append(name)
    return found


# --- for programs ---------------------------------------------------------------------------------


def _dump(
    steps: Sequence[Step],
    *,
    errors: Mapping[str, str] | None = None,
    outcomes: Sequence[Outcome] = (),
    late: Sequence[Step] = (),
    verdicts: Sequence[Verdict] | None = None,
    lost: Sequence[tuple[Record, str]] = (),
) -> str:
    """`result` of a step is null if it was not tried; `records` are the last verdicts."""
    results: dict[Step, dict[str, Any]] = {
        item.step: {
            "taken": not item.error,
            "served": not item.error and item.step not in late,
            "error": item.error,
        }
        for item in outcomes
    }
    return json.dumps(
        {
            "applied": verdicts is not None,
            "errors": [{"zone": zone, "error": text} for zone, text in (errors or {}).items()],
            "steps": [_step(step, results.get(step)) for step in steps],
            "lost": [
                {"name": record.name, "type": record.type.value, "value": value}
                for record, value in lost
            ],
            "records": json.loads(render.verdicts_as_json(verdicts)) if verdicts else None,
        },
        indent=2,
    )


def _step(step: Step, result: dict[str, Any] | None) -> dict[str, Any]:
    record = step.verdict.record
    return {
        "action": step.action.value,
        "zone": step.zone or record.zone,
        "name": record.name,
        "type": record.type.value,
        "optional": record.optional,
        "old": list(step.old),
        "new": step.new,
        "kept": list(step.kept),
        "found": list(step.verdict.found),
        "reason": step.reason,
        "fix": step.fix,
        "remedy": step.remedy,
        "by": step.account.source if step.account else None,
        "result": result,
    }
