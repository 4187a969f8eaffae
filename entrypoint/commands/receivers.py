"""Receivers of mail, by who operates their exchangers: how fast each takes it, and holding them."""

from __future__ import annotations

import json
from typing import Any

import click

from entrypoint.commands.context import Context
from entrypoint.commands.options import SECONDS
from entrypoint.common import rpc
from entrypoint.common.errors import UserError

_WAIT = 10.0  # seconds for the gate to answer
_FOREVER = 10 * 365 * 86400
_HEAD = ("RECEIVER", "WINDOW", "IN USE", "WAITING", "A MINUTE", "LAST COMPLAINT")


@click.command("list-receivers")
@click.option("--json", "as_json", is_flag=True, help="Print an array for programs.")
def list_receivers(as_json: bool) -> None:
    """List whom mail went to of late: connections at once (WINDOW, of which so many are IN USE),
    messages that wait for one, those sent A MINUTE, and what the receiver complained about. With
    WARMUP=on, how far each address has come with each.

    Example: docker exec mail list-receivers
    """
    found = _ask(Context.enter(), "receivers")["receivers"]
    found.sort(key=lambda item: (-int(item["waiting"]), str(item["name"])))
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif not found:
        click.echo("Nothing was sent to anybody since the gate was started.", err=True)
    else:
        rows = [_HEAD, *(_row(item) for item in found)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
        for row in rows:
            cells = (f"{text:{width}}" for text, width in zip(row, [*widths, 0], strict=True))
            click.echo("  ".join(cells).rstrip())
        for item in found:
            for source, words in item["warmup"].items():
                click.echo(f"{item['name']}, from {source}: {words}")


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    said = ""
    if item["complained"] is not None:
        said = f"{_age(float(item['complained']))} ago: {item['complaint']}"
    if item["held"]:
        said = f"held for {_age(float(item['held']))}" + (f"; {said}" if said else "")
    numbers = (item["window"], item["in_use"], item["waiting"], f"{item['a_minute']:g}")
    return (str(item["name"]), *map(str, numbers), said)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@click.command("hold-receiver")
@click.argument("name")
@click.option("--for", "seconds", type=SECONDS, help="How long, as 2h. Default: until released.")
def hold_receiver(name: str, seconds: int | None) -> None:
    """Send nothing to the receiver NAME, as list-receivers has it, for a while. Its mail waits.

    Example: docker exec mail hold-receiver Google --for 2h
    """
    asked = json.dumps({"name": name, "seconds": seconds or _FOREVER})
    names = _ask(Context.enter(), f"hold {asked}")["names"]
    until = f"for {_age(seconds)}" if seconds else "until release-receiver"
    click.echo(f"Nothing is sent to {', '.join(names)} {until}. Its mail waits in the queue.")


@click.command("release-receiver")
@click.argument("name")
def release_receiver(name: str) -> None:
    """Send to the receiver NAME again, as list-receivers has it.

    Example: docker exec mail release-receiver Google
    """
    names = _ask(Context.enter(), f"release {json.dumps({'name': name})}")["names"]
    click.echo(f"Mail goes to {', '.join(names)} again.")


def _ask(context: Context, command: str) -> dict[str, Any]:
    try:
        answer = rpc.request(context.paths.gate_door, command, _WAIT)
    except rpc.UnreachableError as error:
        msg = f"the gate does not answer: {error}"
        raise UserError(
            msg, "mail leaves unpaced meanwhile; see: docker exec mail status"
        ) from None
    if "error" in answer:
        raise UserError(str(answer["error"]), "see: docker exec mail list-receivers")
    return answer
