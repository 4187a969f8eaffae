"""Killed at any step, or cut off from power: the next run completes the plan, with the same keys.

Each step that changes something on disk is one place to die at. The death is real: a child that
ends there, without any cleaning up.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common.identity import Ids
from entrypoint.common.names import Selector
from entrypoint.common.paths import Paths
from entrypoint.converge import apply, pending, reconcile
from entrypoint.converge.plan import Effect
from entrypoint.keys import certs, dkim
from entrypoint.settings.model import Settings
from tests.unit.kit import Entry, asked, forked, put, tree

pytestmark = pytest.mark.long

DONE, DEAD, UNSYNCED = 0, 9, 10
STEPS = ("open", "mkdir", "fchmod", "fchown", "chmod", "chown", "fsync", "replace", "rename",
         "unlink", "rmdir")  # fmt: skip
USERS = 'users { key: "i" value { denied {} } }\n'


def die_at(step: int, *, torn: bool) -> None:
    """End this process before its `step`th change; `torn`: a file not yet synced loses its end."""
    left = step

    def guard(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            left -= 1
            if left == 0:
                if name == "fsync" and stat.S_ISREG(os.fstat(args[0]).st_mode):
                    if torn:
                        os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                    os._exit(UNSYNCED)
                os._exit(DEAD)
            return real(*args, **kwargs)

        setattr(os, name, guarded)

    for name in STEPS:
        guard(name)


def deaths(work: Callable[[], object], before: Path, place: Path) -> Iterator[int]:
    """Yields after each possible death of `work` in `place`, which starts like `before`."""

    def die(step: int, *, torn: bool) -> int:
        shutil.rmtree(place)
        shutil.copytree(before, place, symlinks=True)

        def child() -> None:
            die_at(step, torn=torn)
            work()

        status = forked(child)
        assert status in (DEAD, UNSYNCED, DONE), "nothing but death stops it"
        return status

    for step in count(1):
        status = die(step, torn=False)
        yield step
        if status == UNSYNCED:
            die(step, torn=True)
            yield step
        if status == DONE:
            return


@pytest.fixture
def place(tmp_path: Path) -> Path:
    found = tmp_path / "place"
    found.mkdir()
    return found


@pytest.fixture
def before(tmp_path: Path) -> Path:
    found = tmp_path / "before"
    (found / "data").mkdir(parents=True)
    (found / "run").mkdir()
    return found


def shape(root: Path) -> dict[str, tuple[str, int]]:
    return {name: (item.kind, item.mode) for name, item in tree(root).items()}


def check_keys(paths: Paths) -> dict[str, bytes]:
    """DKIM keys by file name; each one that is there is whole."""
    found = {path.name: path.read_bytes() for path in paths.domains.glob("*/dkim:*")}
    for name, pem in found.items():
        dkim.load(dkim.selector_of(name) or Selector("x"), pem)
    return found


def test_the_first_boot(before: Path, place: Path, ids: Ids, tmp_path: Path) -> None:
    wanted = asked(DKIM_KEYS="ed25519", DKIM_SELECTOR="t1")
    paths = Paths(place)
    reference = tmp_path / "reference"
    shutil.copytree(before, reference)
    reconcile.reconcile(wanted, Paths(reference), ids)
    expected = shape(reference)
    seen = 0
    for _ in deaths(lambda: reconcile.reconcile(wanted, paths, ids), before, place):
        keys = check_keys(paths)
        reconcile.reconcile(wanted, paths, ids)
        assert shape(place) == expected
        after = check_keys(paths)
        assert set(after) == {"dkim:t1e.pem"}
        assert after | keys == after, "a key that was there is there still"
        folder = paths.chasquid / "domains/example.com"
        assert (folder / "dkim:t1e.pem").read_bytes() == after["dkim:t1e.pem"]
        served = paths.chasquid / "certs/zzz-self-signed"
        certs.load((served / certs.CHAIN).read_bytes(), (served / certs.KEY).read_bytes())
        _, outcome = reconcile.reconcile(wanted, paths, ids)
        assert outcome == apply.Outcome((), Effect.NONE)
        seen += 1
    assert seen > 100, "it has that many steps"


def edited(paths: Paths, wanted: Settings, ids: Ids) -> Settings:
    """A server at work whose owner edited things while it was down; returns the new settings."""
    reconcile.reconcile(wanted, paths, ids)
    folder = paths.domain(wanted.domains[0])
    put(folder / "users", USERS)
    put(folder / "aliases", "a: i\n")
    (folder / "aliases").chmod(0o666)
    (paths.chasquid / "chasquid.conf").chmod(0o600)
    return asked(DKIM_KEYS="ed25519", DKIM_SELECTOR="t1", MAX_QUEUE="10")


def test_a_change(before: Path, place: Path, ids: Ids) -> None:
    """Users, aliases and settings are new, one domain goes. Old or new, never between."""
    old = asked(DKIM_KEYS="ed25519", DKIM_SELECTOR="t1", MAIL_DOMAINS="example.com example.org")
    paths = Paths(place)
    paths.data.mkdir()
    new = edited(paths, old, ids)
    shutil.rmtree(before)
    shutil.copytree(place, before, symlinks=True)
    (before / "run/tambo/changes").unlink()  # as after it was told
    was = steady(before)
    # The pair covers one name too many, which is no reason for a new one: nothing here is random.
    reconcile.reconcile(new, paths, ids)
    expected = steady(place)
    assert expected != was
    waiting = set()
    for _ in deaths(lambda: reconcile.reconcile(new, paths, ids), before, place):
        left = pending.read(paths)
        waiting.add(left.effect if left else Effect.NONE)
        if rendered(steady(place)) != rendered(was):
            assert left, "it was noted before anything changed"
            assert left.is_abandoned()
        for name, item in steady(place).items():
            if not name.endswith(".new") and item.kind == "file":
                old_or_new = [found[name].content for found in (was, expected) if name in found]
                assert item.content in old_or_new, name
        reconcile.reconcile(new, paths, ids)
        assert steady(place) == expected
        left = pending.read(paths)
        assert left
        assert left.effect is Effect.RESTART, "whoever was killed, and whatever was left to do"
        _, outcome = reconcile.reconcile(new, paths, ids)
        assert outcome == apply.Outcome((), Effect.NONE)
    assert waiting == {Effect.NONE, Effect.RESTART}


def steady(root: Path) -> dict[str, Entry]:
    """All but what differs each time."""
    return {name: item for name, item in tree(root).items() if "changes" not in name}


def rendered(found: dict[str, Entry]) -> dict[str, bytes]:
    """What chasquid reads; owners and modes are put right after the fact."""
    return {
        name: item.content
        for name, item in found.items()
        if name.startswith("run/tambo/chasquid/") and not name.endswith(".new")
    }


def test_one_write_is_whole_or_was_not(before: Path, place: Path, ids: Ids) -> None:
    put(before / "data/file", "old")
    target = place / "data/file"
    found = []
    for step in deaths(lambda: apply.write(target, b"new" * 1000, ids), before, place):
        found.append((step, target.read_bytes()))
    contents = [content for _, content in found]
    assert set(contents) == {b"old", b"new" * 1000}
    assert contents == sorted(contents, reverse=True), "once new, it stays new"


def test_a_full_disk_leaves_the_old_file(
    before: Path, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = put(before / "data/file", "old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        apply.write(target, b"new", ids)
    assert target.read_text() == "old"
    monkeypatch.undo()
    apply.write(target, b"new", ids)
    assert sorted(path.name for path in target.parent.iterdir()) == ["file"]


def test_a_rename_is_synced_after_the_file(
    before: Path, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may leave the new name on an empty file."""
    calls: list[str] = []

    def noting(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
            calls.append("fsync folder" if is_folder else name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, noted)

    for name in ("fsync", "replace"):
        noting(name)
    apply.write(before / "data/file", b"new", ids)
    assert calls == ["fsync", "replace", "fsync folder"]
