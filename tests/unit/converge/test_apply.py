"""The only writer."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from entrypoint.common.identity import Ids, Owner
from entrypoint.common.names import Domain, Selector
from entrypoint.common.paths import Paths
from entrypoint.converge import apply
from entrypoint.converge.plan import (
    Effect,
    File,
    Folder,
    Link,
    MissingCertificate,
    MissingKey,
    Plan,
)
from entrypoint.keys import certs, dkim
from entrypoint.keys.dkim import Algorithm
from tests.unit.kit import EXAMPLE_COM, put, tree

T, C = Owner.TAMBO, Owner.CHASQUID


@pytest.fixture
def root(paths: Paths) -> Path:
    """The exclusive folder, which a plan's folders have to name too."""
    return paths.root / "run/x"


def folder(path: Path, mode: int = 0o700, effect: Effect = Effect.RESTART) -> Folder:
    return Folder(path, T, T, mode, effect)


def file(path: Path, content: bytes, mode: int = 0o600, effect: Effect = Effect.RELOAD) -> File:
    return File(path, content, T, T, mode, effect)


def plan_of(root: Path, *items: Folder | File) -> Plan:
    return Plan(
        folders=(folder(root), *(item for item in items if isinstance(item, Folder))),
        files=tuple(item for item in items if isinstance(item, File)),
        exclusive=root,
    )


def names(outcome: apply.Outcome, root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in outcome.changed)


def test_makes_what_is_planned_and_then_nothing_more(root: Path, ids: Ids) -> None:
    plan = plan_of(root, folder(root / "a", 0o750), file(root / "a/b", b"content", 0o640))
    outcome = apply.apply(plan, ids)
    assert names(outcome, root) == [".", "a", "a/b"]
    assert outcome.effect is Effect.RESTART
    found = tree(root)
    assert {name: (item.mode, item.content) for name, item in found.items()} == {
        "a": (0o750, b""), "a/b": (0o640, b"content"),
    }  # fmt: skip
    times = (root / "a/b").stat().st_mtime_ns, (root / "a/b").stat().st_ino
    assert apply.apply(plan, ids) == apply.Outcome((), Effect.NONE)
    assert ((root / "a/b").stat().st_mtime_ns, (root / "a/b").stat().st_ino) == times


@pytest.mark.parametrize("before", ["nothing", "a file", "another link", "an empty folder's link"])
def test_a_link_leads_where_it_shall_whatever_stood_there(
    root: Path, ids: Ids, before: str
) -> None:
    path, target = root / "hook", Path("/usr/lib/tambo/hooks/post-data")
    root.mkdir(parents=True)
    if before == "a file":
        put(path, "a file")
    elif before == "another link":
        path.symlink_to("/elsewhere")
    elif before != "nothing":
        path.symlink_to(root)
    made = Plan((folder(root),), (), root, (Link(path, target, T, T, Effect.NONE),))
    outcome = apply.apply(made, ids)
    assert path.readlink() == target
    assert path in outcome.changed
    assert apply.apply(made, ids) == apply.Outcome((), Effect.NONE)


def test_an_umask_changes_nothing(root: Path, ids: Ids) -> None:
    plan = plan_of(root, folder(root / "a", 0o750), file(root / "a/b", b"x", 0o640))
    before = os.umask(0o777)
    try:
        apply.apply(plan, ids)
    finally:
        os.umask(before)
    assert [item.mode for item in tree(root).values()] == [0o750, 0o640]


@pytest.mark.parametrize(
    ("one", "other", "effect"),
    [
        (Effect.NONE, Effect.NONE, Effect.NONE),
        (Effect.NONE, Effect.RELOAD, Effect.RELOAD),
        (Effect.RESTART, Effect.RELOAD, Effect.RESTART),
    ],
)
def test_the_larger_effect_wins(
    root: Path, ids: Ids, one: Effect, other: Effect, effect: Effect
) -> None:
    apply.apply(plan_of(root), ids)
    plan = plan_of(root, file(root / "a", b"", effect=one), file(root / "b", b"", effect=other))
    assert apply.apply(plan, ids).effect is effect


def test_only_what_differs_is_written(root: Path, ids: Ids) -> None:
    apply.apply(plan_of(root, file(root / "a", b"1"), file(root / "b", b"1")), ids)
    inode = (root / "a").stat().st_ino
    outcome = apply.apply(plan_of(root, file(root / "a", b"1"), file(root / "b", b"2")), ids)
    assert names(outcome, root) == ["b"]
    assert (root / "a").stat().st_ino == inode
    assert (root / "b").read_bytes() == b"2"


@pytest.mark.parametrize("mode", [0o777, 0o644, 0o000])
def test_rights_are_mended_without_writing(root: Path, ids: Ids, mode: int) -> None:
    plan = plan_of(root, folder(root / "d", 0o750), file(root / "d/a", b"x", 0o640))
    apply.apply(plan, ids)
    inode = (root / "d/a").stat().st_ino
    (root / "d/a").chmod(mode)
    if mode or os.geteuid() == 0:
        outcome = apply.apply(plan, ids)
        assert names(outcome, root) == ["d/a"]
        assert (root / "d/a").stat().st_ino == inode
        assert stat.S_IMODE((root / "d/a").stat().st_mode) == 0o640
    (root / "d").chmod(0o777)
    assert "d" in names(apply.apply(plan, ids), root)
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o750


def test_others_are_removed_from_the_exclusive_folder_alone(root: Path, ids: Ids) -> None:
    put(root.parent / "beside", "stays")
    put(root / "gone/deep/er", "x")
    put(root / "users", "x")
    put(root / ".aliases.new", "left by a killed writer")
    (root / "link").symlink_to(root.parent)
    (root / "dangling").symlink_to("/no/such")
    kept = file(root / "kept", b"x", effect=Effect.NONE)
    outcome = apply.apply(plan_of(root, kept), ids)
    assert list(tree(root)) == ["kept"]
    assert (root.parent / "beside").read_text() == "stays"
    assert outcome.effect is Effect.RESTART
    assert {"gone", "gone/deep/er", "users", "link", "dangling"} < set(names(outcome, root))


@pytest.mark.parametrize("name", ["users", "aliases"])
def test_a_removed_users_or_aliases_file_needs_a_reload(root: Path, ids: Ids, name: str) -> None:
    apply.apply(plan_of(root), ids)
    put(root / name, "x")
    assert apply.apply(plan_of(root), ids).effect is Effect.RELOAD


def test_a_link_in_a_files_place_is_replaced_and_its_target_left_alone(
    root: Path, ids: Ids
) -> None:
    target = put(root.parent / "target", "x")
    root.mkdir()
    (root / "a").symlink_to(target)
    for content in (b"x", b"y"):
        apply.apply(plan_of(root, file(root / "a", content)), ids)
        assert not (root / "a").is_symlink()
        assert (root / "a").read_bytes() == content
    assert target.read_text() == "x"


def test_a_link_left_in_the_temporary_files_place_is_not_followed(root: Path, ids: Ids) -> None:
    target = put(root.parent / "target", "precious")
    root.mkdir()
    (root / ".a.new").symlink_to(target)
    apply.apply(plan_of(root, file(root / "a", b"new")), ids)
    assert target.read_text() == "precious"
    assert list(tree(root)) == ["a"]


def test_a_link_to_a_folder_may_stand_for_it(root: Path, ids: Ids) -> None:
    """An owner may have moved data/mail to another disk. It is no change at every boot."""
    real = root.parent / "elsewhere"
    real.mkdir(mode=0o755)
    root.mkdir(mode=0o700)
    link = root.parent / "link"
    link.symlink_to(real)
    assert names(apply.apply(plan_of(root, folder(link)), ids), root.parent) == []
    assert link.is_symlink()


def test_what_a_killed_writer_left_is_written_over(root: Path, ids: Ids) -> None:
    put(root / ".a.new", "half")
    apply.apply(plan_of(root, file(root / "a", b"whole")), ids)
    assert {name: item.content for name, item in tree(root).items()} == {"a": b"whole"}


def test_a_new_file_is_never_readable_by_others_on_its_way(
    root: Path, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even before its mode is set: Synapse once wrote its secrets with the default umask."""
    modes = []
    real = os.open

    def opening(path: Path, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_CREAT:
            modes.append(mode)
            assert flags & os.O_EXCL
            assert flags & os.O_NOFOLLOW
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", opening)
    apply.apply(plan_of(root, file(root / "a", b"secret", 0o640)), ids)
    assert modes == [0o600]


def test_a_file_has_its_owner_before_its_content(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        os, "fchown", lambda fd, *owner: calls.append((os.fstat(fd).st_size, *owner))
    )
    monkeypatch.setattr("entrypoint.common.identity.give", lambda *_, **__: False)
    numbers = Ids(users={T: 10465, C: 10025}, groups={T: 20465, C: 20025})
    made = File(root / "a", b"x", T, C, 0o640)
    apply.apply(Plan((folder(root),), (made,), root), numbers)
    assert calls == [(0, 10465, 20025)]


# Key material


def key_item(paths: Paths, algorithm: Algorithm = Algorithm.ED25519) -> MissingKey:
    path = paths.domain(EXAMPLE_COM) / "dkim:t1e.pem"
    return MissingKey(EXAMPLE_COM, Selector("t1e"), algorithm, path)


def test_keys_are_made_kept_and_private(paths: Paths, ids: Ids) -> None:
    certificate = MissingCertificate((EXAMPLE_COM,), paths.certs / "self-signed")
    made = apply.make([key_item(paths), certificate], ids)
    assert [str(path.relative_to(paths.data)) for path in made] == [
        "domains/example.com/dkim:t1e.pem",
        "certs/self-signed/privkey.pem",
        "certs/self-signed/fullchain.pem",
    ]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in made)
    assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in made)
    dkim.load(Selector("t1e"), made[0].read_bytes())
    assert certs.load(made[2].read_bytes(), made[1].read_bytes()).names == (EXAMPLE_COM,)


def test_a_key_that_does_not_prove_itself_is_not_kept(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(domain: Domain, _key: dkim.DkimKey) -> None:
        msg = f"no proof for {domain}"
        raise ValueError(msg)

    monkeypatch.setattr(dkim, "prove", fail)
    with pytest.raises(ValueError, match=r"no proof for example\.com"):
        apply.make([key_item(paths)], ids)
    assert not paths.domains.exists()


def test_nothing_missing_makes_nothing(paths: Paths, ids: Ids) -> None:
    before = tree(paths.root)
    assert apply.make([], ids) == ()
    assert tree(paths.root) == before


def test_removing(paths: Paths, ids: Ids) -> None:
    path = put(paths.domains / "x", "x")
    apply.write(path, b"y", ids)
    assert path.read_bytes() == b"y"
    apply.remove(path)
    apply.remove(path)
    assert not path.exists()
