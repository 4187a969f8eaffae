"""The verb dns: the records that must be in DNS; with --check, whether they are."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Sequence

import click

from entrypoint.commands.context import Context
from entrypoint.common.errors import Exit
from entrypoint.dns.authoritative import Authoritative
from entrypoint.dns.echo import Echo
from entrypoint.dns.records import Record
from entrypoint.zone import address, judge, render
from entrypoint.zone.judge import Status, Verdict
from entrypoint.zone.required import required

_WATCH_PAUSE = 10.0  # seconds between two rounds
_WATCH_END = 3600.0  # seconds: nobody watches longer


@click.command("dns")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "zone", "json"]),
    default="table",
    show_default=True,
    help="For people, for a zone file, or for programs.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--check", is_flag=True, help="Ask the authoritative name servers what is there.")
@click.option("--watch", is_flag=True, help="Check again and again until all is right.")
def dns(form: str, as_json: bool, check: bool, watch: bool) -> int:
    """Print the DNS records that this server needs, or check them.

    With --check the exit status is 0 if all is right, 1 if something is missing or wrong, 75 if
    something could not be found out.

    Example: docker exec mail dns --check
    """
    context = Context.enter()
    as_json = as_json or form == "json"
    if check or watch:
        return (_watch if watch else _check)(context, as_json=as_json)
    echo = Echo()
    found = address.find(context.settings, echo, echo.through)
    records = required(context.settings, context.state(), found)
    if as_json:
        click.echo(render.as_json(records))
    elif form == "zone":
        click.echo(render.zone(records), nl=False)
    else:
        click.echo(render.table(records, colour=sys.stdout.isatty()), nl=False, color=True)
        click.echo()
        click.echo(render.origins(found), nl=False)
    return Exit.OK


def _verdicts(context: Context, echo: address.Echo, through: address.Through) -> list[Verdict]:
    found = address.find(context.settings, echo, through)
    records = required(context.settings, context.state(), found)
    return judge.check(records, found, Authoritative())


def _check(context: Context, *, as_json: bool) -> int:
    echo = Echo()
    found = _verdicts(context, echo, echo.through)
    if as_json:
        click.echo(render.verdicts_as_json(found))
    else:
        _show(found)
    return _status(found)


def _watch(context: Context, *, as_json: bool) -> int:
    """Show each round's news until nothing is left to do; as JSON, the last round alone."""
    end = time.monotonic() + _WATCH_END
    before: dict[Record, Verdict] = {}
    echo = Echo()
    public, through = functools.cache(echo), functools.cache(echo.through)
    while True:
        found = _verdicts(context, public, through)
        now = {item.record: item for item in found}  # one name may have several addresses
        news = [item for record, item in now.items() if before.get(record) != item]
        if news and not as_json:
            _show(news, total=found)
        before = now
        if _status(found) == Exit.OK or time.monotonic() > end:
            if as_json:
                click.echo(render.verdicts_as_json(found))
            return _status(found)
        time.sleep(_WATCH_PAUSE)


def _show(news: Sequence[Verdict], total: Sequence[Verdict] = ()) -> None:
    click.echo(render.verdicts(news, colour=sys.stdout.isatty()), nl=False, color=True)
    total = total or news
    counts = [(sum(item.status is status for item in total), status.value) for status in Status]
    click.echo(f"{len(total)} records: {', '.join(f'{many} {word}' for many, word in counts)}")
    if any(item.status is Status.UNKNOWN for item in news):
        click.echo("unknown: it could not be found out, which says nothing about the record itself")


def _status(found: Sequence[Verdict]) -> Exit:
    if any(item.is_wrong for item in found):
        return Exit.WRONG
    if any(item.status is Status.UNKNOWN and not item.record.optional for item in found):
        return Exit.TRY_AGAIN
    return Exit.OK
