"""Files change, and chasquid is told: whoever is killed in between leaves word."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common import locks, rpc
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.common.rpc import AbsentError, UnreachableError
from entrypoint.converge import pending, reconcile
from entrypoint.converge.pending import Ledger
from entrypoint.converge.plan import Effect
from tests.unit.kit import EXAMPLE_COM, asked, forked, put_domain

WANTED = asked(DKIM_KEYS="ed25519", DKIM_SELECTOR="t1")
USERS = 'users { key: "i" value { denied {} } }\n'


@pytest.fixture
def paths(paths: Paths, ids: Ids) -> Paths:
    """Of a server at work, to which nothing is pending."""
    paths.state.mkdir(parents=True)
    with locks.edit_lock(paths, ids):
        reconcile.reconcile(WANTED, paths, ids)
        pending.clear(paths)
    return paths


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def request(_path: Path, command: str) -> dict[str, Any]:
        found.append(command)
        return {"done": True}

    monkeypatch.setattr(rpc, "request", request)
    return found


def waiting(paths: Paths) -> Effect:
    left = pending.read(paths)
    return left.effect if left else Effect.NONE


def owe(paths: Paths, ids: Ids, effect: Effect) -> None:
    with locks.edit_lock(paths, ids):
        Ledger(paths, ids)(effect)


def owe_and_die(paths: Paths, ids: Ids, effect: Effect) -> None:
    assert forked(lambda: owe(paths, ids, effect)) == 0


def reconciled(paths: Paths, ids: Ids) -> Effect:
    with locks.edit_lock(paths, ids):
        return reconcile.reconcile(WANTED, paths, ids)[1].effect


def test_a_change_is_owed_until_chasquid_is_told(paths: Paths, ids: Ids, told: list[str]) -> None:
    put_domain(paths, EXAMPLE_COM, users=USERS)
    effect = reconciled(paths, ids)
    assert waiting(paths) is effect is Effect.RELOAD
    assert paths.changes.stat().st_mode & 0o777 == 0o600
    assert reconcile.serve(paths, ids, effect) == ""
    assert (waiting(paths), told) == (Effect.NONE, ["reload"])
    assert reconciled(paths, ids) is waiting(paths) is Effect.NONE


def test_what_chasquid_does_not_read_is_not_pending(paths: Paths, ids: Ids) -> None:
    (paths.good / EXAMPLE_COM / "dkim:t1e.pem").unlink()
    assert reconciled(paths, ids) is Effect.NONE
    assert not paths.changes.exists()


def test_the_larger_one_is_pending(paths: Paths, ids: Ids) -> None:
    for effect, expected in (
        (Effect.RELOAD, Effect.RELOAD), (Effect.RESTART, Effect.RESTART),
        (Effect.RELOAD, Effect.RESTART),
    ):  # fmt: skip
        owe(paths, ids, effect)
        assert waiting(paths) is expected


def test_less_than_is_owed_does_not_settle_it(paths: Paths, ids: Ids, told: list[str]) -> None:
    owe_and_die(paths, ids, Effect.RESTART)
    owe(paths, ids, Effect.RELOAD)
    assert reconcile.serve(paths, ids, Effect.RELOAD) == ""
    assert (told, waiting(paths)) == (["reload"], Effect.RESTART)
    assert reconcile.serve(paths, ids, Effect.RESTART) == ""
    assert waiting(paths) is Effect.NONE


def test_what_is_owed_since_is_not_settled(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's files change while chasquid starts: it may have read the old ones."""
    owe(paths, ids, Effect.RESTART)

    def request(_path: Path, _command: str) -> dict[str, Any]:
        owe_and_die(paths, ids, Effect.RESTART)
        return {"done": True}

    monkeypatch.setattr(rpc, "request", request)
    assert reconcile.serve(paths, ids, Effect.RESTART) == ""
    assert waiting(paths) is Effect.RESTART


def test_a_change_half_way_is_not_settled(
    paths: Paths, ids: Ids, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was pending before the lock could be had may be of files that change right now."""
    owe(paths, ids, Effect.RESTART)
    real = locks.edit_lock

    @contextmanager
    def busy(paths: Paths, ids: Ids, wait: float = 30) -> Iterator[None]:
        assert wait <= 5, "chasquid is told soon all the same"
        with real(paths, ids, 0.01):
            yield

    monkeypatch.setattr(locks, "edit_lock", busy)
    with real(paths, ids):
        assert reconcile.serve(paths, ids, Effect.RESTART) == ""
    assert (told, waiting(paths)) == (["restart"], Effect.RESTART)


@pytest.mark.parametrize(
    ("error", "left"),
    [(AbsentError("No such file"), Effect.NONE), (UnreachableError("timed out"), Effect.RELOAD)],
)
def test_nobody_there_reads_everything_when_it_starts(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch, error: Exception, left: Effect
) -> None:
    def request(_path: Path, _command: str) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(rpc, "request", request)
    owe(paths, ids, Effect.RELOAD)
    assert reconcile.serve(paths, ids, Effect.RELOAD) != ""
    assert waiting(paths) is left


def test_one_that_is_not_ready_yet_is_not_told_again(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "request", lambda *_: {"done": False, "last_words": "hm"})
    owe(paths, ids, Effect.RESTART)
    assert "it said last: hm" in reconcile.serve(paths, ids, Effect.RESTART)
    assert waiting(paths) is Effect.NONE


@pytest.mark.parametrize("effect", [Effect.RELOAD, Effect.RESTART])
def test_what_the_dead_left_pending_is_done(
    paths: Paths, ids: Ids, told: list[str], effect: Effect
) -> None:
    owe_and_die(paths, ids, effect)
    assert reconcile.serve_pending(paths, ids) is effect
    assert reconcile.serve_pending(paths, ids) is Effect.NONE
    assert told == [effect.name.lower()]


def test_the_living_pay_themselves(paths: Paths, ids: Ids, told: list[str]) -> None:
    owe(paths, ids, Effect.RESTART)
    assert reconcile.serve_pending(paths, ids) is Effect.NONE
    assert told == []
    # Unless it is a thread that met an error, of a program that lives on.
    long_ago = time.time() - 61
    os.utime(paths.changes, (long_ago, long_ago))
    assert reconcile.serve_pending(paths, ids) is Effect.RESTART
    assert told == ["restart"]


def test_what_cannot_be_paid_stays(paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(_path: Path, _command: str) -> dict[str, Any]:
        msg = "timed out"
        raise UnreachableError(msg)

    monkeypatch.setattr(rpc, "request", request)
    owe_and_die(paths, ids, Effect.RELOAD)
    assert reconcile.serve_pending(paths, ids) is Effect.NONE
    assert waiting(paths) is Effect.RELOAD


@pytest.mark.parametrize("content", ["", "x", "RESTART", "ODD 1 x", "RELOAD one x", "a b c d"])
def test_a_damaged_note_is_the_largest_change(
    paths: Paths, ids: Ids, told: list[str], content: str
) -> None:
    paths.changes.write_text(content)
    assert reconcile.serve_pending(paths, ids) is Effect.RESTART
    assert (told, waiting(paths)) == (["restart"], Effect.NONE)
    assert not paths.changes.exists()
