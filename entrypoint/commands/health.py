"""The container's health, asked by Docker every few seconds: cheap, so it reads no settings."""

from __future__ import annotations

import json

import click

from entrypoint import control
from entrypoint.errors import UserError
from entrypoint.paths import Paths


@click.command("health", hidden=True)
def health() -> None:
    """Exit status 0 if mail is served and nothing that is served is broken."""
    paths = Paths()
    try:
        status = control.request(paths.holder_socket, "status", timeout=3.0)
    except control.UnreachableError as error:
        msg = f"the mail server does not answer: {error}"
        raise UserError(msg) from None
    if not status.get("ready"):
        msg = f"chasquid is not running; it said last: {status.get('last_words')}"
        raise UserError(msg)
    try:
        problems = json.loads(paths.problems.read_text())
    except FileNotFoundError:
        msg_0 = "starting: the keeper has not looked yet"
        raise UserError(msg_0) from None
    if problems:
        raise UserError("\n".join(problems))
    click.echo("healthy")
