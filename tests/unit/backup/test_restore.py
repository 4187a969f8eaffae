"""A restore: everything or nothing, whenever it is killed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from entrypoint.backup import restore
from entrypoint.backup.git import Access
from entrypoint.backup.restore import Found
from entrypoint.chasquid import userdb
from entrypoint.common.errors import UserError
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.converge import apply
from tests.unit.backup.test_backup import PRIVATE, VERIFY, Box, address, users
from tests.unit.kit import EXAMPLE_COM, put, tree

__all__ = ["address"]  # the fixture
NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@pytest.fixture
def box(tmp_path: Path, ids: Ids, address: object) -> Box:
    """A server with a history of three backups."""
    assert address is not None
    old = Paths(tmp_path / "old")
    (old.root / "data").mkdir(parents=True)
    (old.root / "run").mkdir()
    box = Box(tmp_path, old, ids)
    box.run()
    box.put("users", users("i", "you"))
    box.put("aliases", "sales: i\n")
    put(old.reload / "tell", "#!/bin/sh\n").chmod(0o700)
    box.run()
    box.put("aliases", "sales: you\n")
    box.run()
    return box


@pytest.fixture
def look(box: Box, paths: Paths, ids: Ids) -> Callable[[str], Found]:
    def found(at: str = "") -> Found:
        access = Access(str(box.remote.path))
        return restore.look(restore.fetch(access, paths, ids), at, [PRIVATE], [VERIFY])

    return found


def put_in_place(box: Box, found: Found, paths: Paths, ids: Ids) -> Path | None:
    restore.stage(found, Access(str(box.remote.path)), paths, ids, NOW)
    return restore.complete(paths, ids)


def contents(paths: Paths) -> dict[str, bytes]:
    """All of the owner's files."""
    return {
        f"{name}/{path}": entry.content
        for name in ("domains", "certs", "acme", "reload")
        for path, entry in (tree(paths.data / name) if (paths.data / name).is_dir() else {}).items()
        if entry.kind == "file"
    }


def test_a_new_machine(box: Box, paths: Paths, ids: Ids, look: Callable[[str], Found]) -> None:
    assert restore.is_empty(paths)
    assert put_in_place(box, look(""), paths, ids) is None
    assert contents(paths) == contents(box.paths)
    assert (paths.reload / "tell").stat().st_mode & 0o777 == 0o700
    assert (paths.domain(EXAMPLE_COM) / "users").stat().st_mode & 0o777 == 0o600
    assert "MAIL_HOSTNAME=smtp.example.com\n" in paths.restored_env.read_text()
    assert not paths.restoring.exists()
    assert not paths.restored.exists()
    assert not restore.is_empty(paths)
    # It goes on: nothing to commit, and the next change is one commit.
    new = Box.__new__(Box)
    new.__dict__ |= {**box.__dict__, "paths": paths}
    new.work = new.worker(box.settings)
    assert new.run() == []
    new.put("users", users("i", "you", "third"))
    assert [subject.partition(",")[0] for subject in new.run()] == ["users: add third@example.com"]
    assert new.memory().server != box.memory().server


def test_no_selector_comes_back_and_credentials_keep_their_times(
    box: Box, paths: Paths, ids: Ids, look: Callable[[str], Found]
) -> None:
    put(box.paths.selectors, json.dumps({"example.com": ["old", "t1e"]}))
    put(box.paths.created, json.dumps({"i@example.com": 12.5}))
    box.put("users", users("i"))
    [subject] = [item for item in box.run() if item.startswith("users")]
    assert "remove you@example.com" in subject
    # One that this machine had after that backup.
    put(paths.selectors, json.dumps({"example.com": ["later"], "example.org": ["k"]}))
    put(paths.created, json.dumps({"gone@example.com": 1.0}))
    put_in_place(box, look(""), paths, ids)
    assert json.loads(paths.selectors.read_text()) == {
        "example.com": ["later", "old", "t1e"], "example.org": ["k"],
    }  # fmt: skip
    assert json.loads(paths.created.read_text()) == {"i@example.com": 12.5}


def test_what_it_says_beforehand(look: Callable[[str], Found]) -> None:
    found = look("")
    assert found.host == "smtp.example.com"
    assert restore.contents(found) == [
        "example.com: 2 users, with aliases, 1 DKIM keys", "certificates: self-signed",
    ]  # fmt: skip
    assert restore.mounts(found) == []
    assert found.chosen == found.newest


def test_an_earlier_one(box: Box, paths: Paths, ids: Ids, look: Callable[[str], Found]) -> None:
    entries = box.remote.log(box.remote.head)
    chosen = entries[1]
    assert look(chosen.oid[:8]).chosen == chosen
    moment = datetime.fromtimestamp(chosen.when + 1, UTC)
    found = look(moment.isoformat())
    assert found.chosen == chosen
    put_in_place(box, found, paths, ids)
    aliases = (paths.domain(EXAMPLE_COM) / "aliases").read_text()
    assert aliases in ("sales: i\n", "sales: you\n")
    new = Box.__new__(Box)
    new.__dict__ |= {**box.__dict__, "paths": paths}
    new.work = new.worker(box.settings)
    new.run()
    assert re.match(rf"restore: back to {chosen.oid[:10]} of ", new.subjects[-1])
    assert len(new.subjects) == len(entries) + 1


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("2001-01-01", "there is no backup from before 2001-01-01"),
        ("beef", "no commit of this backup"),
        ("yesterday", "neither a commit nor a date"),
        ("../x", "neither a commit nor a date"),
    ],
)
def test_what_cannot_be_chosen(look: Callable[[str], Found], at: str, text: str) -> None:
    with pytest.raises(UserError, match=re.escape(text)):
        look(at)


def test_a_date_is_its_end(box: Box) -> None:
    entries = box.remote.log(box.remote.head)
    day = f"{datetime.fromtimestamp(entries[0].when, UTC):%Y-%m-%d}"
    assert restore.choose(box.remote, box.remote.head, day) == entries[0]


def test_what_was_there_is_kept_aside(
    box: Box, paths: Paths, ids: Ids, look: Callable[[str], Found]
) -> None:
    put(paths.domain(EXAMPLE_COM) / "users", userdb.render({}) or "x")
    put(paths.good / EXAMPLE_COM / "dkim:old.pem", "old")
    put(paths.queue / "m:1", "mail")
    aside = put_in_place(box, look(""), paths, ids)
    assert aside == paths.replaced / "20260301T000000Z"
    assert (aside / "domains/example.com/users").exists()
    assert (aside / "state/good/example.com/dkim:old.pem").read_text() == "old"
    assert not paths.good.exists(), "an old good copy would bring the old key back"
    assert (paths.queue / "m:1").read_text() == "mail"
    assert contents(paths) == contents(box.paths)


@pytest.mark.long
def test_killed_at_each_step_it_is_all_or_nothing(
    box: Box, paths: Paths, ids: Ids, look: Callable[[str], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write, folder and rename is a step; the process dies before it."""
    old = userdb.render({"old": next(iter(userdb.parse(users("old")).values()))})
    wanted = contents(box.paths)
    ended = set()
    for step in range(1000):
        for path in paths.data.iterdir():
            restore.remove(path)
        put(paths.domain(EXAMPLE_COM) / "users", old)
        put(paths.state / "backup.json", "{}")
        before = contents(paths)
        left = [step]

        def counted(real: Callable[..., object], left: list[int] = left) -> Callable[..., object]:
            def call(*args: object, **more: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return real(*args, **more)

            return call

        done = False
        with monkeypatch.context() as patch:
            found = look("")
            for name in ("write", "own_folder", "move", "sync_tree"):
                patch.setattr(apply, name, counted(getattr(apply, name)))
            try:
                put_in_place(box, found, paths, ids)
                done = True
            except Killed:
                pass
        # What the next start does.
        restore.complete(paths, ids)
        now = contents(paths)
        assert now in (before, wanted), f"killed at step {step}"
        ended.add(now == wanted)
        assert not paths.restored.exists()
        assert not paths.restoring.exists()
        if now == wanted:
            aside = paths.replaced / "20260301T000000Z"
            assert (aside / "domains/example.com/users").read_text() == old
            assert json.loads(paths.backup_memory.read_text())["server"]
        if done:
            break
    assert ended == {True, False}
    assert step > 10


@pytest.mark.parametrize(
    "plan",
    [
        b"", b"\xff", b"[]", b"{}", b'{"aside": 7}', b'{"aside": ""}', b'{"aside": "../../etc"}',
        b'{"aside": "/etc"}', b'{"aside": "20260301T000000Z/.."}', b'{"aside": "2026031T000000Z"}',
    ],
)  # fmt: skip
def test_a_plan_that_nothing_of_ours_wrote_moves_nothing(
    paths: Paths, ids: Ids, plan: bytes
) -> None:
    put(paths.reload / "tell", "mine")
    put(paths.restored / "new/reload/tell", "x")
    put(paths.restored / "plan.json", plan)
    with pytest.raises(UserError, match=r"plan\.json is damaged"):
        restore.complete(paths, ids)
    assert (paths.reload / "tell").read_text() == "mine"
    assert not paths.replaced.exists()


def test_a_full_disk_changes_nothing(
    box: Box, paths: Paths, ids: Ids, look: Callable[[str], Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = look("")

    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(apply, "write_owned", full)
    with pytest.raises(OSError, match="No space") as caught:
        put_in_place(box, found, paths, ids)
    restore.discard(paths)
    assert contents(paths) == {}
    assert "the disk is full" in str(restore.failed(caught.value))
    assert "nothing was restored" in str(restore.failed(PermissionError(13, "no", "x")))


def test_a_remote_without_a_backup(tmp_path: Path, paths: Paths, ids: Ids, box: Box) -> None:
    from entrypoint.backup.git import Repository

    empty = Repository(tmp_path / "empty.git")
    empty.prepare()
    with pytest.raises(UserError, match="holds no backup"):
        restore.fetch(Access(str(empty.path)), paths, ids)
    assert box.remote.head
