"""What every verb works with, and how it stops being root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import click

from entrypoint.common import identity, locks
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.converge import reconcile
from entrypoint.renewal import renewer
from entrypoint.settings import environment
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import State


@dataclass(frozen=True)
class Context:
    """Settings as they were when the verb began; `state()` reads the volume anew each time."""

    settings: Settings
    paths: Paths
    ids: Ids

    @classmethod
    def enter(cls) -> Context:
        """Read the settings (root may: their files are the host's), then become tambo for good."""
        context = cls(environment.load(os.environ), Paths(), Ids.image())
        for folder in (context.paths.domains, context.paths.certs):
            identity.mend(folder, context.ids, Owner.TAMBO)
        identity.drop(context.ids, Owner.TAMBO, keep=renewer.capabilities(context.settings))
        return context

    def state(self) -> State:
        return load.load(self.paths)

    @contextmanager
    def change(self) -> Iterator[State]:
        """One change of the volume: locked, brought into service at its end.

        Yields the state as it is under the lock; an exception leaves everything as it was.
        """
        with locks.edit_lock(self.paths, self.ids):
            yield load.load(self.paths)
            _, outcome = reconcile.reconcile(self.settings, self.paths, self.ids)
        note = reconcile.serve(self.paths, self.ids, outcome.effect)
        if note:
            click.echo(f"note: {note}", err=True)


class TakesIds(click.Command):
    """An id may begin with `-`: there is no option of one letter, and what is none is an id."""

    SETTINGS: ClassVar[dict[str, Any]] = {
        "ignore_unknown_options": True,
        "help_option_names": ["--help"],
    }

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--help"] if args == ["-h"] else args)
