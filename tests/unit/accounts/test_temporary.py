"""A log-in for a moment: served at once, kept nowhere, and gone whatever happens."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from entrypoint.accounts import temporary
from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import Denied, Scrypt
from entrypoint.common import locks, log, rpc
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids
from entrypoint.common.names import Address
from entrypoint.common.paths import Paths
from entrypoint.converge import reconcile
from entrypoint.converge.plan import Effect
from entrypoint.services.keeper import Keeper
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import Temporary
from tests.unit.kit import EXAMPLE_COM, asked, put, put_domain, tree

SENDER = Address("i@example.com")
PLAIN = {"DKIM_KEYS": "ed25519", "DKIM_SELECTOR": "t1"}
USERS = 'users { key: "i" value { denied {} } }\n'


@pytest.fixture
def settings(paths: Paths, ids: Ids) -> Settings:
    """A server that is set up."""
    wanted = asked(**PLAIN)
    paths.state.mkdir(parents=True)
    put_domain(paths, EXAMPLE_COM, users=USERS)
    with locks.edit_lock(paths, ids):
        reconcile.reconcile(wanted, paths, ids)
    return wanted


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Effect]:
    """What chasquid was told; it does it."""
    effects: list[Effect] = []

    def serve(_paths: Paths, _ids: Ids, effect: Effect) -> str:
        effects.append(effect)
        return ""

    monkeypatch.setattr(reconcile, "serve", serve)
    return effects


def served(paths: Paths) -> userdb.Users:
    return userdb.parse((paths.chasquid / "domains/example.com/users").read_text())


def test_it_is_served_while_it_lasts(
    settings: Settings, paths: Paths, ids: Ids, told: list[Effect]
) -> None:
    before = tree(paths.data)
    with temporary.login(settings, paths, ids, SENDER) as login:
        local, _, domain = login.name.partition("@")
        assert domain == "example.com"
        assert local.startswith("i+test-"), "one of the sender's own, by its purpose"
        secret = served(paths)[local]
        assert isinstance(secret, Scrypt)
        assert secret.matches(login.password)
        assert "i" in served(paths)
        assert tree(paths.data) == before, "nothing of it on the volume"
        assert told == [Effect.RELOAD]
    assert local not in served(paths)
    assert told == [Effect.RELOAD, Effect.RELOAD]
    assert list(paths.temporary.iterdir()) == []


def test_its_secret_is_written_nowhere(
    settings: Settings, paths: Paths, ids: Ids, told: list[Effect]
) -> None:
    with temporary.login(settings, paths, ids, SENDER) as login:
        assert login.password not in repr(login)
        for name, item in tree(paths.root).items():
            assert login.password.encode() not in item.content, name
        [path] = paths.temporary.iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
    assert told


def test_two_at_once_do_not_disturb_each_other(
    settings: Settings, paths: Paths, ids: Ids, told: list[Effect]
) -> None:
    with temporary.login(settings, paths, ids, SENDER) as one:
        with temporary.login(settings, paths, ids, SENDER) as two:
            assert one.name != two.name
        assert one.name.partition("@")[0] in served(paths)
    assert set(served(paths)) == {"i", "postmaster", "abuse", "rua", "ruf"}
    assert len(told) == 4


def test_an_error_takes_it_back(
    settings: Settings, paths: Paths, ids: Ids, told: list[Effect]
) -> None:
    with pytest.raises(KeyboardInterrupt), temporary.login(settings, paths, ids, SENDER):
        raise KeyboardInterrupt
    assert list(paths.temporary.iterdir()) == []
    assert not [name for name in served(paths) if "+" in name]
    assert told


def test_a_chasquid_that_does_not_run_is_no_place_to_test(
    settings: Settings, paths: Paths, ids: Ids
) -> None:
    with (
        pytest.raises(UserError, match="not running") as error,
        temporary.login(settings, paths, ids, SENDER),
    ):
        pass
    assert error.value.exit_code is Exit.TRY_AGAIN
    assert list(paths.temporary.iterdir()) == []


def killed(settings: Settings, paths: Paths, ids: Ids, *, until: float) -> Path:
    """What a killed verb leaves."""
    users = {"i+test-x": Scrypt.of("secret", 1)}
    path = put(paths.temporary / "x.json", Temporary(EXAMPLE_COM, users, until).dump())
    with locks.edit_lock(paths, ids):
        reconcile.reconcile(settings, paths, ids)
    return path


def test_after_its_time_every_change_takes_it_back(
    settings: Settings, paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = time.monotonic() + 100
    killed(settings, paths, ids, until=until)
    assert "i+test-x" in served(paths)
    monkeypatch.setattr(load.time, "monotonic", lambda: until)  # type: ignore[attr-defined]
    with locks.edit_lock(paths, ids):
        reconcile.reconcile(settings, paths, ids)
    assert "i+test-x" not in served(paths)


def test_the_keeper_takes_back_what_a_killed_verb_left(
    settings: Settings, paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "log", lambda *_: None)
    said: list[str] = []

    def request(path: Path, command: str, **_options: float) -> dict[str, bool]:
        if path == paths.holder_socket:
            said.append(command)
        return {"done": True}

    monkeypatch.setattr(rpc, "request", request)
    path = killed(settings, paths, ids, until=time.monotonic() + 100)
    keeper = Keeper(settings, paths, ids)
    keeper.look()
    assert "i+test-x" in served(paths), "it may be in use"
    put(path, Temporary(EXAMPLE_COM, {"i+test-x": Denied()}, 0.0).dump())
    said.clear()
    keeper.look()
    assert not path.exists()
    assert "i+test-x" not in served(paths)
    assert said == ["reload"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"domain": "example.com"}', b"\xff",
                                     b'{"domain": "-", "users": "", "until": 1}'])  # fmt: skip
def test_a_file_that_makes_no_sense_lends_nothing_and_goes(
    settings: Settings, paths: Paths, ids: Ids, content: bytes
) -> None:
    path = put(paths.temporary / "x.json", content)
    assert load.load(paths).temporary == {}
    assert temporary.sweep(paths, ids)
    assert not path.exists()
    assert not temporary.sweep(paths, ids)
    assert settings.domains


def test_a_user_of_that_name_is_not_shadowed(settings: Settings, paths: Paths, ids: Ids) -> None:
    """A temporary login never changes the log-in of a user who exists."""
    login = Temporary(EXAMPLE_COM, {"i": Scrypt.of("secret", 1)}, time.monotonic() + 100)
    put(paths.temporary / "x.json", login.dump())
    with locks.edit_lock(paths, ids):
        reconcile.reconcile(settings, paths, ids)
    assert served(paths)["i"] == Denied()


def test_what_is_dumped_is_loaded() -> None:
    login = Temporary(EXAMPLE_COM, {"i+test-x": Scrypt.of("secret", 1)}, 12.5)
    assert Temporary.load(login.dump()) == login
    assert json.loads(login.dump())["until"] == 12.5
