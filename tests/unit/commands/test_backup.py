"""The verbs of backup and restore; what they do is tested beside what does it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from entrypoint.backup.git import Access
from entrypoint.commands import backup as module
from entrypoint.common import age, identity
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.converge import apply
from tests.unit.backup.test_backup import FIRST, PRIVATE, PUBLIC, Box, address, users
from tests.unit.commands.conftest import Server
from tests.unit.kit import EXAMPLE_COM, put
from tests.unit.settings.test_model import HOST_KEY, KEY

__all__ = ["address"]  # the fixture
REMOTE = "git@git.example.com:me/backup.git"


@pytest.fixture
def box(
    server: Server, tmp_path: Path, address: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> Box:
    """The server of the verbs, with a remote beside it."""
    assert address.remote
    context = server.context
    settings = context.settings.model_copy(
        update={"backup_git_remote": REMOTE, "backup_age_recipient": (PUBLIC,)}
    )
    object.__setattr__(context, "settings", settings)
    box = Box(tmp_path, Paths(tmp_path / "unused"), context.ids)
    box.paths, box.settings = context.paths, settings
    monkeypatch.setattr(module, "Paths", lambda: context.paths)
    monkeypatch.setattr(Ids, "image", classmethod(lambda _cls: context.ids))
    # It would take descriptor 3, which is the tests' runner's.
    monkeypatch.setattr(apply, "hold_instance", lambda *_: None)
    monkeypatch.setattr(identity, "mend", lambda *_: None)
    monkeypatch.setattr(identity, "drop", lambda *_: None)
    monkeypatch.setattr(os, "environ", {})
    return box


def test_a_backup_by_hand(server: Server, box: Box) -> None:
    done = server.run("backup")
    assert done.status == 0
    assert FIRST in done.out
    assert f"Pushed to {REMOTE}." in done.out
    assert f"all of it is at {REMOTE}." in server.run("backup").out
    put(box.paths.domain(EXAMPLE_COM) / "users", users("i"))
    report = json.loads(server.run("backup", "--json").out)
    assert [item["subject"] for item in report["commits"]] == ["users: add i@example.com"]


def test_the_check(server: Server, box: Box, tmp_path: Path) -> None:
    server.run("backup")
    assert box.subjects
    assert "by their digests" in server.run("backup", "--check").out
    path = put(tmp_path / "identity", f"# mine\n{PRIVATE}\n")
    assert "were decrypted" in server.run("backup", "--check", "--identity", str(path)).out
    given = server.run("backup", "--check", "--json", "--identity", "-", stdin=PRIVATE.encode())
    assert json.loads(given.out)["ok"]
    wrong = server.run("backup", "--check", "--identity", "-", stdin=b"hunter2")
    assert wrong.status == 2
    assert "standard input: holds no private half" in wrong.err
    assert "hunter2" not in wrong.err
    put(box.paths.domain(EXAMPLE_COM) / "users", users("i"))
    failed = server.run("backup", "--check")
    assert failed.status == 75
    assert "users is missing there" in failed.err


def test_a_new_key_needs_no_settings_and_is_shown_once(
    capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    done = server.run("backup", "--new-key")
    [private] = age.identities(done.out)
    assert f"BACKUP_AGE_RECIPIENT={age.recipient_of(private)}\n" in done.out
    other = json.loads(server.run("backup", "--new-key", "--json").out)
    assert age.recipient_of(other["identity"]) == other["recipient"]
    assert other["identity"] != private
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--check", "--new-key"], "exclude each other"),
        (["--identity", "x"], "--identity goes with --check"),
        (["--check", "--identity", "/nowhere"], "cannot read '/nowhere'"),
    ],
)
def test_usage_of_backup(server: Server, options: list[str], text: str) -> None:
    done = server.run("backup", *options)
    assert done.status == 2
    assert text in done.err


def test_the_list(server: Server, box: Box) -> None:
    assert "There is no backup yet." in server.run("list-backups").err
    server.run("backup")
    listed = server.run("list-backups").out
    assert listed.endswith(f"{FIRST}\n")
    rows = json.loads(server.run("list-backups", "--json").out)
    assert [row["commit"] for row in rows] == [box.remote.head]
    there = json.loads(server.run("list-backups", str(box.remote.path), "--json").out)
    assert there == rows


def test_a_restore(server: Server, box: Box, tmp_path: Path) -> None:
    put(box.paths.domain(EXAMPLE_COM) / "users", users("i"))
    server.run("backup")
    wanted = (box.paths.domain(EXAMPLE_COM) / "users").read_bytes()
    remote = str(box.remote.path)
    full = server.run("restore", remote, "--yes", "--identity", "-", stdin=PRIVATE.encode())
    assert full.status == 1
    assert "the data folder is not empty" in full.err
    put(box.paths.domain(EXAMPLE_COM) / "users", users("other"))
    path = put(tmp_path / "identity", PRIVATE)
    arguments = ("restore", remote, "--replace", "--identity", str(path))
    asked = server.run(*arguments)
    assert asked.status == 2
    assert "there is no terminal to ask at" in asked.err
    assert "example.com: 1 users, no aliases, 1 DKIM keys" in asked.out
    refused = server.run(*arguments, stdin=b"n\n", terminal=True)
    assert refused.status == 1
    assert "Nothing was changed." in refused.err
    assert (box.paths.domain(EXAMPLE_COM) / "users").read_bytes() != wanted
    done = server.run(*arguments, stdin=b"y\n", terminal=True)
    assert done.status == 0, done
    assert "What was there before is in data/replaced/" in done.out
    assert "mv data/restored.env .env" in done.out
    assert "Point A and AAAA of smtp.example.com" in done.out
    assert (box.paths.domain(EXAMPLE_COM) / "users").read_bytes() == wanted


def test_a_restore_without_the_identity(server: Server, box: Box) -> None:
    server.run("backup")
    done = server.run("restore", str(box.remote.path), "--replace", "--yes")
    assert done.status == 2
    assert f"the backup is encrypted to {PUBLIC}" in done.err
    assert not box.paths.restoring.exists()


def test_an_interrupted_restore_is_completed_first(server: Server, box: Box) -> None:
    server.run("backup")
    put(box.paths.restored / "plan.json", '{"aside": "20260301T000000Z"}')
    put(box.paths.restored / "new/reload/tell", "x")
    done = server.run("restore", str(box.remote.path), "--yes")
    assert "Completing a restore that was interrupted." in done.err
    assert (box.paths.reload / "tell").read_text() == "x"
    assert not box.paths.restored.exists()


# --- the door


def door(paths: Paths, environ: dict[str, str], **given: Any) -> Access:
    values = {"remote": None, "key": None, "host_key": None, "token_file": None, **given}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", environ)
        return module._access(paths=paths, **values)


def test_the_door_is_what_is_given_then_what_is_set(paths: Paths, tmp_path: Path) -> None:
    key = put(tmp_path / "key", f"{KEY}\n")
    environ = {
        "BACKUP_GIT_REMOTE": REMOTE, "BACKUP_GIT_KEY_FILE": str(key),
        "BACKUP_GIT_HOST_KEY": HOST_KEY,
    }  # fmt: skip
    assert door(paths, environ) == Access(REMOTE, KEY, (HOST_KEY,))
    other = "ssh-ed25519 " + "B" * 68
    assert door(paths, environ, host_key=other).host_keys == (other,)
    put(paths.data / "backup.key", KEY.replace("c2VjcmV0", "b3RoZXI="))
    assert "c2VjcmV0" in door(paths, environ).key
    assert "b3RoZXI=" in door(paths, {}, remote=REMOTE, host_key=HOST_KEY).key
    token = put(tmp_path / "token", "tok3n\n")
    found = door(paths, {}, remote="https://git.example.com/x.git", token_file=str(token))
    assert found.token == "tok3n"
    assert door(paths, {}, remote="/data/backup") == Access("/data/backup")
