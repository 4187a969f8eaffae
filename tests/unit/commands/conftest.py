"""A server on a temporary root, and its verbs as `docker exec` runs them."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import pytest

from entrypoint import cli
from entrypoint.chasquid.userdb import Users
from entrypoint.commands.context import Context
from entrypoint.common import locks
from entrypoint.common.identity import Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import reconcile
from entrypoint.state import load
from tests.unit.kit import EXAMPLE_COM, asked

SETTINGS = {"DKIM_KEYS": "ed25519", "DKIM_SELECTOR": "t1",
            "MAIL_DOMAINS": "example.com example.org", "PUBLIC_IPV4": "203.0.113.10",
            "PUBLIC_IPV6": "2001:db8::10"}  # fmt: skip


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


class Input(io.TextIOWrapper):
    is_terminal = False

    def isatty(self) -> bool:
        return self.is_terminal


@dataclass
class Server:
    context: Context
    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def run(self, *arguments: str, stdin: bytes = b"", terminal: bool = False) -> Result:
        """One verb."""
        given = Input(io.BytesIO(stdin))
        given.is_terminal = terminal
        self.patch.setattr(sys, "stdin", given)
        self.capture.readouterr()
        status = cli.run(list(arguments))
        out, err = self.capture.readouterr()
        return Result(status, out, err)

    def users(self, domain: Domain = EXAMPLE_COM) -> Users:
        return load.load(self.context.paths).domain(domain).users


@pytest.fixture
def server(
    paths: Paths, ids: Ids, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Server:
    context = Context(asked(**SETTINGS), paths, ids)
    paths.state.mkdir(parents=True)
    with locks.edit_lock(paths, ids):
        reconcile.reconcile(context.settings, paths, ids)
    monkeypatch.setattr(Context, "enter", classmethod(lambda _cls: context))
    return Server(context, capsys, monkeypatch)
