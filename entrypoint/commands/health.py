"""The container's health, asked by Docker every few seconds: cheap, so it reads no settings."""

from __future__ import annotations

import time

import click

from entrypoint.common.errors import UserError
from entrypoint.common.paths import Paths
from entrypoint.services.health import look


@click.command("health", hidden=True)
def health() -> None:
    """Exit status 0 if mail is served and nothing that is served is broken."""
    found = look(Paths(), time.time())
    if found.problems:
        raise UserError("\n".join(found.problems))
    click.echo("\n".join(("healthy", *(f"note: {text}" for text in found.notes))))
