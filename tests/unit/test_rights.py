"""Owners, modes, and the drop from root."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from entrypoint import rights
from entrypoint.rights import Ids, Owner
from tests.unit.kit import put, tree

NUMBERS = Ids(
    users={Owner.TAMBO: 10465, Owner.CHASQUID: 10025},
    groups={Owner.TAMBO: 20465, Owner.CHASQUID: 20025},
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would change owners or this process, noted instead of done."""
    found: list[tuple[Any, ...]] = []
    for name in ("setgroups", "setgid", "setuid", "umask"):
        monkeypatch.setattr(os, name, lambda *args, name=name: found.append((name, *args)))

    def chown(path: Any, uid: int, gid: int, **_: Any) -> None:
        found.append(("chown", str(path), uid, gid))

    monkeypatch.setattr(os, "chown", chown)
    return found


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_the_image_has_two_users_and_root_is_neither() -> None:
    ids = Ids.image()
    assert len(set(ids.users.values())) == 2
    assert 0 not in {*ids.users.values(), *ids.groups.values()}
    dockerfile = (Path(__file__).parents[2] / "Dockerfile").read_text()
    for owner in Owner:
        assert str(ids.users[owner]) in dockerfile, "the Dockerfile makes the same"


def test_groups_go_before_the_user(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    """The other way round the groups would stay root's."""
    as_user(monkeypatch, 0)
    rights.drop(NUMBERS, Owner.CHASQUID)
    assert calls == [("setgroups", []), ("setgid", 20025), ("setuid", 10025), ("umask", 0o077)]


def test_tambo_may_hand_files_to_chasquid(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    as_user(monkeypatch, 0)
    rights.drop(NUMBERS, Owner.TAMBO)
    assert calls[:3] == [("setgroups", [20025]), ("setgid", 20465), ("setuid", 10465)]


def test_who_is_not_root_has_nothing_to_drop(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    as_user(monkeypatch, 10465)
    rights.drop(NUMBERS, Owner.TAMBO)
    assert calls == []


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_giving_says_whether_it_changed_anything(tmp_path: Path) -> None:
    path = put(tmp_path / "a", "x")
    path.chmod(0o644)
    me = (os.getuid(), os.getgid())
    assert rights.give(path, *me, 0o600)
    assert mode_of(path) == 0o600
    assert not rights.give(path, *me, 0o600)
    assert not rights.give(path, *me, None)


def test_root_takes_a_file_before_it_changes_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    """It has no CAP_FOWNER: it may change the mode only of what it owns."""
    path = put(tmp_path / "a", "x")
    path.chmod(0o644)
    as_user(monkeypatch, 0)
    real = os.stat

    def of_somebody(*args: Any, **kwargs: Any) -> os.stat_result:
        found = list(real(*args, **kwargs))
        found[4:6] = [777, 777]
        return os.stat_result(found)

    monkeypatch.setattr(os, "stat", of_somebody)
    chmod = os.chmod

    def noted(name: Path, mode: int, **kwargs: Any) -> None:
        calls.append(("chmod", str(name), mode))
        chmod(name, mode, **kwargs)

    monkeypatch.setattr(os, "chmod", noted)
    assert rights.give(path, 10465, 20465, 0o600)
    assert calls == [
        ("chown", str(path), 0, -1),
        ("chmod", str(path), 0o600),
        ("chown", str(path), 10465, 20465),
    ]


def test_a_links_target_is_left_alone(tmp_path: Path) -> None:
    target = put(tmp_path / "target", "x")
    target.chmod(0o644)
    (tmp_path / "link").symlink_to(target)
    assert not rights.give(tmp_path / "link", os.getuid(), os.getgid(), 0o600), "no news each time"
    assert mode_of(target) == 0o644


def test_mending_takes_all_below_and_follows_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    outside = put(tmp_path / "outside/secret", "x")
    outside.chmod(0o644)
    root = tmp_path / "root"
    put(root / "a/b", "x").chmod(0o666)
    (root / "a").chmod(0o777)
    (root / "run.sh").touch(0o755)
    (root / "link").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    as_user(monkeypatch, 0)
    rights.mend(root, NUMBERS, Owner.TAMBO)
    assert {name: item.mode for name, item in tree(root).items() if item.kind != "link"} == {
        "a": 0o700, "a/b": 0o600, "run.sh": 0o700,
    }  # fmt: skip
    assert mode_of(outside) == 0o644
    given = {Path(name).name for kind, name, uid, _ in calls if kind == "chown" and uid == 10465}
    assert given == {"", "a", "b", "run.sh", "link", "folder"}, "links themselves, not their ends"


def test_mending_chasquids_part_leaves_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    put(tmp_path / "a", "x").chmod(0o640)
    as_user(monkeypatch, 0)
    rights.mend(tmp_path, NUMBERS, Owner.CHASQUID)
    assert mode_of(tmp_path / "a") == 0o640
    assert ("chown", "a", 10025, 20025) in calls


def test_only_root_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    put(tmp_path / "a", "x").chmod(0o666)
    as_user(monkeypatch, 10465)
    rights.mend(tmp_path, NUMBERS, Owner.TAMBO)
    assert mode_of(tmp_path / "a") == 0o666
    as_user(monkeypatch, 0)
    rights.mend(tmp_path / "absent", NUMBERS, Owner.TAMBO)
    assert calls == []
