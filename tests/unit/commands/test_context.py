"""How a verb begins and ends its work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from entrypoint.commands.context import Context
from entrypoint.common import identity, locks, rpc
from entrypoint.common.errors import UserError
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.converge import reconcile
from entrypoint.converge.plan import Effect
from entrypoint.settings import environment
from entrypoint.settings.model import Settings
from tests.unit.kit import EXAMPLE_COM, HOST, asked, put_domain

USERS = 'users { key: "i" value { denied {} } }\n'


def test_settings_are_read_before_root_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME_FILE files may be readable to the host's root alone."""
    calls: list[Any] = []
    monkeypatch.setattr("os.environ", {"MAIL_HOSTNAME": HOST})
    load = environment.load

    def noted(environ: Mapping[str, str]) -> Settings:
        calls.append("load")
        return load(environ)

    monkeypatch.setattr(environment, "load", noted)
    monkeypatch.setattr(
        identity, "mend", lambda path, _ids, owner: calls.append((path.name, owner))
    )
    monkeypatch.setattr(identity, "drop", lambda _ids, owner, **_: calls.append(owner))
    context = Context.enter()
    assert calls == ["load", ("domains", Owner.TAMBO), ("certs", Owner.TAMBO), Owner.TAMBO]
    assert context == Context(asked(), Paths(), Ids.image())


def test_bad_settings_touch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {})
    for name in ("mend", "drop"):
        monkeypatch.setattr(identity, name, lambda *_: pytest.fail("went on"))
    with pytest.raises(UserError):
        Context.enter()


@pytest.fixture
def context(paths: Paths, ids: Ids) -> Context:
    found = Context(asked(DKIM_KEYS="ed25519"), paths, ids)
    paths.state.mkdir(parents=True)
    reconcile.reconcile(found.settings, paths, ids)
    return found


def test_a_change_is_served_after_the_lock_is_given_back(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart takes a moment; another change need not wait for it."""
    told: list[str] = []

    def request(_path: object, command: str) -> dict[str, bool]:
        with locks.edit_lock(context.paths, context.ids, wait=0):
            told.append(command)
        return {"done": True}

    monkeypatch.setattr(rpc, "request", request)
    with context.change() as state:
        assert state.domain(EXAMPLE_COM).users == {}
        put_domain(context.paths, EXAMPLE_COM, users=USERS)
    assert told == ["reload"]
    with context.change():
        pass
    assert told == ["reload"], "nothing changed: nobody is bothered"


def test_a_change_sees_the_state_under_the_lock(context: Context) -> None:
    put_domain(context.paths, EXAMPLE_COM, users=USERS)
    with context.change() as state:
        assert set(state.domain(EXAMPLE_COM).users) == {"i"}


def test_an_error_reconciles_nothing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "reconcile", lambda *_: pytest.fail("reconciled"))
    monkeypatch.setattr(reconcile, "serve", lambda _, __, effect: pytest.fail(f"served {effect}"))
    with pytest.raises(KeyError), context.change():
        raise KeyError
    with locks.edit_lock(context.paths, context.ids, wait=0):
        pass


def test_who_cannot_be_told_is_spoken_of(
    context: Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        reconcile, "serve", lambda _paths, _ids, effect: f"later: {Effect(effect).name}"
    )
    with context.change():
        put_domain(context.paths, EXAMPLE_COM, users=USERS)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "note: later: RELOAD\n")
