"""What must stand in DNS."""

from __future__ import annotations

import sys

import click

from entrypoint import addresses
from entrypoint.context import Context
from entrypoint.dns import render
from entrypoint.dns.required import required


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
def dns(form: str, as_json: bool) -> None:
    """Print the DNS records that this server needs.

    Example: docker exec mail dns --format zone
    """
    context = Context.enter()
    records = required(context.settings, context.state(), addresses.find(context.settings))
    if as_json or form == "json":
        click.echo(render.as_json(records))
    elif form == "zone":
        click.echo(render.zone(records), nl=False)
    else:
        click.echo(render.table(records, colour=sys.stdout.isatty()), nl=False, color=True)
