"""Addresses that are blocked for what came from there: seeing them, and letting them in again."""

from __future__ import annotations

import json
from typing import Any

import click

from entrypoint.chasquid.maillog import iso
from entrypoint.commands.context import Context
from entrypoint.common import rpc
from entrypoint.common.errors import UserError
from entrypoint.policy.strangers import network_key

_WAIT = 10.0  # seconds for the holder to answer


@click.command("list-blocked")
@click.option("--json", "as_json", is_flag=True, help="Print an array for programs.")
def list_blocked(as_json: bool) -> None:
    """List the addresses from which no connection is taken just now: why, and until when.

    Example: docker exec mail list-blocked
    """
    blocks = _ask(Context.enter(), "blocked")["blocked"]
    if as_json:
        found = [
            {
                "address": block["network"], "reason": block["reason"],
                "since": iso(block["since"]), "until": iso(block["until"]),
            }
            for block in blocks
        ]  # fmt: skip
        click.echo(json.dumps(found, indent=2))
    elif not blocks:
        click.echo("Nobody is blocked.", err=True)
    else:
        width = max(len(block["network"]) for block in blocks)
        for block in blocks:
            click.echo(
                f"{block['network']:{width}}  until {iso(block['until'])}  {block['reason']}"
            )


@click.command("unblock")
@click.argument("address", metavar="ADDRESS|all")
def unblock(address: str) -> None:
    """Let ADDRESS connect again, or all that are blocked. What led to the block is forgotten.

    An IPv6 address stands for its /64.

    Example: docker exec mail unblock 198.51.100.7
    """
    if address != "all":
        try:
            address = network_key(address)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    gone = _ask(Context.enter(), f"unblock {address}")["unblocked"]
    if gone:
        click.echo(f"Not blocked any more: {', '.join(gone)}")
    else:
        click.echo("Nobody was blocked." if address == "all" else f"{address} was not blocked.")


def _ask(context: Context, command: str) -> dict[str, Any]:
    try:
        answer = rpc.request(context.paths.holder_socket, command, _WAIT)
    except rpc.UnreachableError as error:
        msg = f"the mail server does not answer: {error}"
        raise UserError(msg, "is it running? docker compose ps") from None
    if "error" in answer:
        raise UserError(str(answer["error"]), "see: docker exec mail doctor")
    return answer
