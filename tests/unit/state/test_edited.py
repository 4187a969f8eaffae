"""Files that people edit and their last good copies: what serves, and what a verb leaves behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from entrypoint.common.findings import Finding
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.state import edited
from tests.unit.kit import EXAMPLE_COM, forked, put


def entries(text: str) -> dict[str, str]:
    """A line `name: target` an entry; other lines are comments, or wrong."""
    found = {}
    for line in text.splitlines():
        if line and line[0] != "#":
            name, colon, target = line.partition(": ")
            if not colon:
                msg = f"{line!r} has no colon"
                raise ValueError(msg)
            found[name] = target
    return found


@pytest.fixture
def path(paths: Paths) -> Path:
    return put(paths.domain(EXAMPLE_COM) / "aliases", "i: new\n")


def serves(paths: Paths, path: Path) -> tuple[dict[str, str], list[Finding]]:
    findings: list[Finding] = []
    return dict(edited.read_entries(paths, path, entries, findings)), findings


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("domains/example.com/users", "good/example.com/users"),
        ("domains/example.com", "good/example.com"),
        ("certs/example.com/privkey.pem", "good/certs/example.com/privkey.pem"),
        ("certs", "good/certs"),
    ],
)
def test_a_copy_is_below_state_good(paths: Paths, name: str, copy: str) -> None:
    assert edited.copy_of(paths, paths.data / name) == paths.state / copy


def test_copies_are_known_by_what_they_are_copies_of(paths: Paths) -> None:
    for name in ("domains/example.com/users", "certs/example.com/privkey.pem"):
        put(edited.copy_of(paths, paths.data / name), name)
    put(paths.good / "example.com/.users.new", "half")
    assert edited.copies(paths) == {
        name: name.encode()
        for name in ("domains/example.com/users", "certs/example.com/privkey.pem")
    }


def test_a_file_that_is_fine_serves_whatever_its_copy_says(paths: Paths, path: Path) -> None:
    put(edited.copy_of(paths, path), "i: old\n")
    assert serves(paths, path) == ({"i": "new"}, [])


@pytest.mark.parametrize(
    ("content", "reason", "fix"),
    [
        ("wrong\n", "'wrong' has no colon", "mend the file, or go back: cp data/state/good/"),
        ("", "the file is empty", "mend the file, or go back: cp data/state/good/"),
        (" \n", "the file is empty", "mend the file, or go back: cp data/state/good/"),
        (None, "is gone", "put it back: cp data/state/good/"),
    ],
)
def test_what_is_broken_emptied_or_gone_serves_as_it_was(
    paths: Paths, path: Path, content: str | None, reason: str, fix: str
) -> None:
    put(edited.copy_of(paths, path), "i: old\n")
    if content is None:
        path.unlink()
    else:
        put(path, content)
    found, [finding] = serves(paths, path)
    assert found == {"i": "old"}
    assert finding.message.startswith(f"data/domains/example.com/aliases: {reason}")
    assert finding.fix.startswith(fix)
    assert finding.subject == str(path)


@pytest.mark.parametrize("content", ["", None], ids=["empty", "not there"])
def test_what_never_held_anything_is_no_damage(
    paths: Paths, path: Path, content: str | None
) -> None:
    put(edited.copy_of(paths, path), "# none\n")
    if content is None:
        path.unlink()
    else:
        put(path, content)
    assert serves(paths, path) == ({}, [])


@pytest.mark.parametrize("copy", [None, "wrong too\n"], ids=["none", "broken"])
def test_without_a_good_copy_nothing_of_a_broken_file_serves(
    paths: Paths, path: Path, copy: str | None
) -> None:
    put(path, "wrong\n")
    if copy:
        put(edited.copy_of(paths, path), copy)
    found, [finding] = serves(paths, path)
    assert found == {}
    assert finding.message.endswith("nothing of it is served, as there is no good copy.")
    assert finding.fix == "mend the file"


def test_a_file_that_nobody_may_read_or_that_is_none_is_broken(paths: Paths, path: Path) -> None:
    put(edited.copy_of(paths, path), "i: old\n")
    path.unlink()
    os.mkfifo(path)
    found, [finding] = serves(paths, path)
    assert (found, "is not a plain file" in finding.message) == ({"i": "old"}, True)
    path.unlink()
    path.symlink_to("nowhere")
    found, [finding] = serves(paths, path)
    assert (found, "is a link to nothing" in finding.message) == ({"i": "old"}, True)


def test_replace_writes_for_its_owner_alone_and_leaves_the_copy(
    paths: Paths, ids: Ids, path: Path
) -> None:
    """Until the new one has served, the copy is what is good."""
    copy = put(edited.copy_of(paths, path), "i: old\n")
    path.chmod(0o644)
    edited.replace(paths, ids, path, b"i: newer\n")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("i: newer\n", 0o600)
    assert copy.read_text() == "i: old\n"


@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_replace_with_nothing_takes_the_file_and_its_copy(
    paths: Paths, ids: Ids, path: Path, content: bytes
) -> None:
    copy = put(edited.copy_of(paths, path), "i: old\n")
    edited.replace(paths, ids, path, content)
    assert (path.exists(), copy.exists()) == (False, False)
    assert serves(paths, path) == ({}, [])


def test_remove_minds_neither_a_file_nor_a_copy_that_is_not_there(paths: Paths, path: Path) -> None:
    assert not paths.good.exists()
    edited.remove(paths, path)
    edited.remove(paths, path)
    assert not path.exists()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_remove_that_is_killed_anywhere_brings_nothing_old_back(
    paths: Paths, path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    put(edited.copy_of(paths, path), "i: old\n")
    real, left = os.unlink, [steps]

    def unlink(name: str, *, dir_fd: int) -> None:
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        real(name, dir_fd=dir_fd)

    def killed() -> None:
        monkeypatch.setattr(os, "unlink", unlink)
        edited.remove(paths, path)

    assert forked(killed) == (9 if steps < 2 else 0)
    assert serves(paths, path) == ({} if steps == 2 else {"i": "new"}, [])
