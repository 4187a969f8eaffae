"""Owners, modes, and the drop from root."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common import identity
from entrypoint.common.errors import UserError
from entrypoint.common.identity import Capability, Ids, Owner
from tests.unit.kit import put, tree

NUMBERS = Ids(
    users={Owner.TAMBO: 10465, Owner.CHASQUID: 10025, Owner.AUTH: 10466},
    groups={Owner.TAMBO: 20465, Owner.CHASQUID: 20025, Owner.AUTH: 20466},
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would change owners or this process, noted instead of done."""
    found: list[tuple[Any, ...]] = []
    for name in ("setgroups", "setgid", "setuid", "umask"):
        monkeypatch.setattr(os, name, lambda *args, name=name: found.append((name, *args)))

    def chown(path: Any, uid: int, gid: int, **_: Any) -> None:
        found.append(("chown", what(path), uid, gid))

    monkeypatch.setattr(os, "chown", chown)
    return found


def what(path: Any) -> str:
    """What a call is about; by a descriptor, what that was opened for."""
    name = str(path)
    return str(Path(name).readlink()) if name.startswith("/proc/self/fd/") else name


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_the_image_has_three_users_and_root_is_none_of_them() -> None:
    ids = Ids.image()
    assert len(set(ids.users.values())) == 3
    assert 0 not in {*ids.users.values(), *ids.groups.values()}
    dockerfile = (Path(__file__).parents[3] / "Dockerfile").read_text()
    for owner in Owner:
        assert str(ids.users[owner]) in dockerfile, "the Dockerfile makes the same"


def test_groups_go_before_the_user(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    """The other way round the groups would stay root's."""
    as_user(monkeypatch, 0)
    identity.drop(NUMBERS, Owner.CHASQUID)
    assert calls == [("setgroups", []), ("setgid", 20025), ("setuid", 10025), ("umask", 0o077)]


def test_tambo_may_hand_files_to_the_others(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    as_user(monkeypatch, 0)
    identity.drop(NUMBERS, Owner.TAMBO)
    assert calls[:3] == [("setgroups", [20025, 20466]), ("setgid", 20465), ("setuid", 10465)]


def test_the_auth_service_is_in_nobody_elses_group(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    as_user(monkeypatch, 0)
    identity.drop(NUMBERS, Owner.AUTH)
    assert calls[:3] == [("setgroups", []), ("setgid", 20466), ("setuid", 10466)]


def test_who_is_not_root_has_nothing_to_drop(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    as_user(monkeypatch, 10465)
    identity.drop(NUMBERS, Owner.TAMBO)
    assert calls == []


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_giving_says_whether_it_changed_anything(tmp_path: Path) -> None:
    path = put(tmp_path / "a", "x")
    path.chmod(0o644)
    me = (os.getuid(), os.getgid())
    assert identity.give(path, *me, 0o600)
    assert mode_of(path) == 0o600
    assert not identity.give(path, *me, 0o600)
    assert not identity.give(path, *me, None)


def test_root_takes_a_file_before_it_changes_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    """It has no CAP_FOWNER: it may change the mode only of what it owns."""
    path = put(tmp_path / "a", "x")
    path.chmod(0o644)
    as_user(monkeypatch, 0)
    real = os.fstat

    def of_somebody(*args: Any, **kwargs: Any) -> os.stat_result:
        found = list(real(*args, **kwargs))
        found[4:6] = [777, 777]
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", of_somebody)
    chmod = os.chmod

    def noted(name: Path, mode: int, **kwargs: Any) -> None:
        calls.append(("chmod", what(name), mode))
        chmod(name, mode, **kwargs)

    monkeypatch.setattr(os, "chmod", noted)
    assert identity.give(path, 10465, 20465, 0o600)
    assert calls == [
        ("chown", str(path), 0, -1),
        ("chmod", str(path), 0o600),
        ("chown", str(path), 10465, 20465),
    ]


def test_a_links_target_is_left_alone(tmp_path: Path) -> None:
    target = put(tmp_path / "target", "x")
    target.chmod(0o644)
    (tmp_path / "link").symlink_to(target)
    assert not identity.give(tmp_path / "link", os.getuid(), os.getgid(), 0o600), (
        "no news each time"
    )
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
    identity.mend(root, NUMBERS, Owner.TAMBO)
    assert {name: item.mode for name, item in tree(root).items() if item.kind != "link"} == {
        "a": 0o700, "a/b": 0o600, "run.sh": 0o700,
    }  # fmt: skip
    assert mode_of(outside) == 0o644
    given = {Path(name).name for kind, name, uid, _ in calls if kind == "chown" and uid == 10465}
    assert given == {"root", "a", "b", "run.sh", "link", "folder"}, (
        "links themselves, not their ends"
    )


def test_mending_chasquids_part_leaves_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    put(tmp_path / "a", "x").chmod(0o640)
    as_user(monkeypatch, 0)
    identity.mend(tmp_path, NUMBERS, Owner.CHASQUID)
    assert mode_of(tmp_path / "a") == 0o640
    assert ("chown", str(tmp_path / "a"), 10025, 20025) in calls


def test_only_root_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    put(tmp_path / "a", "x").chmod(0o666)
    as_user(monkeypatch, 10465)
    identity.mend(tmp_path, NUMBERS, Owner.TAMBO)
    assert mode_of(tmp_path / "a") == 0o666
    as_user(monkeypatch, 0)
    identity.mend(tmp_path / "absent", NUMBERS, Owner.TAMBO)
    assert calls == []


# --- capabilities: what really holds is looked at in tests/image ---------------------------------

DAC, BIND = Capability.DAC_OVERRIDE, Capability.NET_BIND_SERVICE


class Libc:
    """Notes what the kernel would be asked for; `permitted` is what it would then say."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self._calls = calls
        self.status = 0

    def prctl(self, option: int, value: int, *_: int) -> int:
        self._calls.append(("prctl", option, value))
        return 0

    def capset(self, header: bytes, data: bytes) -> int:
        assert struct.unpack("Ii", header) == (0x20080522, 0), "this thread, 64 bits"
        effective, permitted, inheritable, *high = struct.unpack("6I", data)
        assert (inheritable, high) == (0, [0, 0, 0]), "a program that is started gets none"
        self._calls.append(("capset", effective, permitted))
        return self.status


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]) -> Libc:
    libc = Libc(calls)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_kwargs: libc)
    return libc


@pytest.mark.usefixtures("libc")
def test_what_is_kept_over_the_drop_is_permitted_and_not_effective(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    as_user(monkeypatch, 0)
    identity.drop(NUMBERS, Owner.TAMBO, keep=(DAC, BIND))
    keep_capabilities = 8
    assert calls[2:5] == [
        ("prctl", keep_capabilities, 1), ("setuid", 10465), ("capset", 0, 1 << DAC | 1 << BIND),
    ]  # fmt: skip


@pytest.mark.usefixtures("libc")
def test_nothing_is_kept_unasked(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    as_user(monkeypatch, 0)
    identity.drop(NUMBERS, Owner.TAMBO)
    assert not {name for name, *_ in calls} & {"prctl", "capset"}


@pytest.mark.usefixtures("libc")
def test_a_right_is_there_for_the_moment_in_which_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, ...]]
) -> None:
    as_user(monkeypatch, 10465)
    monkeypatch.setattr(identity, "_permitted", lambda: (DAC, BIND))
    both = 1 << DAC | 1 << BIND
    raised = identity.raised(BIND)
    raised.__enter__()
    assert calls == [("capset", 1 << BIND, both)]
    assert not raised.__exit__(KeyError, KeyError(), None)
    assert calls[1:] == [("capset", 0, both)], "after an error too"


@pytest.mark.usefixtures("libc")
@pytest.mark.parametrize(("uid", "permitted"), [(10465, ()), (10465, (DAC,)), (0, (DAC, BIND))])
def test_a_right_that_was_not_kept_or_is_there_anyway_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    calls: list[tuple[Any, ...]],
    uid: int,
    permitted: tuple[Capability, ...],
) -> None:
    as_user(monkeypatch, uid)
    monkeypatch.setattr(identity, "_permitted", lambda: permitted)
    with identity.raised(BIND):
        assert calls == []
    assert calls == []


def test_a_kernel_that_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch, libc: Libc) -> None:
    as_user(monkeypatch, 10465)
    monkeypatch.setattr(identity, "_permitted", lambda: (BIND,))
    monkeypatch.setattr(ctypes, "get_errno", lambda: 1)
    libc.status = -1
    with pytest.raises(PermissionError), identity.raised(BIND):
        pass


def test_what_this_thread_may_have_is_read_from_the_kernel() -> None:
    assert set(identity._permitted()) <= set(Capability)


def test_work_as_another_user_tells_how_it_ended(
    ids: Ids, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert identity.run_as(ids, Owner.TAMBO, lambda: (tmp_path / "x").touch()) == 0
    assert (tmp_path / "x").exists()

    def fails(error: Exception) -> None:
        raise error

    assert identity.run_as(ids, Owner.TAMBO, lambda: fails(UserError("why", "do this"))) == 1
    said = capfd.readouterr().err
    assert said == "why\n  fix: do this\n"
    assert identity.run_as(ids, Owner.TAMBO, lambda: fails(OSError(13, "no"))) == 1
    assert "no" in capfd.readouterr().err
