"""The verb rotate-dkim: begins a change of DKIM keys, shows how far it is, waits for its end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from entrypoint.commands.context import Context
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.names import Domain
from entrypoint.dns.authoritative import Authoritative
from entrypoint.keys.dkim import Algorithm
from entrypoint.renewal import dkim
from entrypoint.zone import render
from entrypoint.zone.judge import Status
from entrypoint.zone.required import KEEP_RETIRED

_PAUSE = 2.0  # seconds between two looks at DNS


@click.command("rotate-dkim")
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@click.option("--status", is_flag=True, help="Only say how far the rotations are.")
@click.option(
    "--wait", "seconds", type=click.IntRange(0, 86400), default=0, metavar="SECONDS",
    help="Wait so long for DNS to show the new keys. They are taken over later all the same.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print objects for programs.")
def rotate_dkim(domains: Sequence[str], status: bool, seconds: int, as_json: bool) -> int:
    """Give DOMAIN, or every domain, new DKIM keys.

    The new keys sign only when every authoritative name server shows them; until then the old
    ones do. Enter the records that are printed, or have them entered: publish-dns --apply.

    Example: docker exec mail rotate-dkim example.com
    """
    context = Context.enter()
    chosen = _chosen(context, domains)
    if not status:
        for domain in chosen:
            dkim.begin(context.settings, context.paths, context.ids, domain)
        _wait(context, chosen, seconds)
    rows = [_row(context, domain) for domain in chosen]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for domain, row in zip(chosen, rows, strict=True):
            _show(context, domain, row)
    return Exit.OK


def _chosen(context: Context, domains: Sequence[str]) -> tuple[Domain, ...]:
    served = context.settings.domains
    chosen = tuple(domain for domain in served if not domains or domain in domains)
    unknown = [name for name in domains if name not in served]
    if unknown:
        msg = f"{', '.join(unknown)}: not one of the domains served here ({', '.join(served)})"
        raise UserError(msg, exit_code=Exit.USAGE)
    return chosen


def _wait(context: Context, domains: Sequence[Domain], seconds: int) -> None:
    """Take the keys over here, if DNS shows them soon; else the keeper does, within a minute."""
    end = time.monotonic() + seconds
    while True:
        dkim.advance(
            context.settings, context.paths, context.ids, Authoritative(),
            lambda text: click.echo(text, err=True),
        )  # fmt: skip
        current = context.state()
        if time.monotonic() >= end or not any(current.domain(name).pending for name in domains):
            return
        time.sleep(_PAUSE)


def _row(context: Context, domain: Domain) -> dict[str, Any]:
    current = context.state()
    have = current.domain(domain)
    verdicts = dkim.shown(current, domain, Authoritative())
    enabled = {Algorithm(word) for word in context.settings.dkim_keys}
    return {
        "domain": domain,
        "signing": [str(key.selector) for key in have.keys if key.algorithm in enabled],
        "pending": [
            {
                "selector": str(key.selector),
                "name": verdict.record.name,
                "value": verdict.record.value,
                "dns": verdict.status.value,
                "reason": verdict.reason,
            }
            for key, verdict in zip(have.pending, verdicts, strict=True)
        ],
        "retired": [
            {"selector": str(key.selector), "keep_until": f"{when + KEEP_RETIRED:%Y-%m-%d}"}
            for key, when in have.retired
        ],
    }


_SHOWN = {
    Status.OK.value: "every name server shows its record",
    Status.MISSING.value: "its record is not in DNS yet",
    Status.DIFFERENT.value: "its record in DNS is not right",
    Status.UNKNOWN.value: "whether its record is in DNS is not known",
}


def _show(context: Context, domain: Domain, row: dict[str, Any]) -> None:
    click.echo(f"{domain}")
    click.echo(f"  signing   {', '.join(row['signing']) or 'nothing'}")
    for item in row["pending"]:
        reason = f" ({item['reason']})" if item["reason"] else ""
        click.echo(f"  pending   {item['selector']}: {_SHOWN[item['dns']]}{reason}")
    for item in row["retired"]:
        click.echo(f"  retired   {item['selector']}: keep its record until {item['keep_until']}")
    wanting = {item["name"] for item in row["pending"] if item["dns"] != Status.OK.value}
    if wanting:
        click.echo(
            "\nEnter these records, or: docker exec mail publish-dns --apply\n"
            "When every name server shows them, the new keys take over by themselves.\n"
        )
        records = dkim.pending_records(context.state(), domain)
        records = tuple(record for record in records if record.name in wanting)
        click.echo(render.table(records, colour=sys.stdout.isatty()), color=True)
