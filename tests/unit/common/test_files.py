"""Files by descriptor: what somebody plants leads nowhere."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.common import files, rpc
from entrypoint.common.identity import Ids, Owner
from tests.unit.kit import put, tree

ME = (os.getuid(), os.getgid())


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that somebody else may write to."""
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    return put(tmp_path / "elsewhere/victim", "as it was")


WRITERS: dict[str, Callable[[Path], object]] = {
    "write": lambda path: files.write(path, b"new"),
    "link": lambda path: files.link(path, Path("/x"), ME),
    "remove": files.remove,
    "move": lambda path: files.move(put(path.parent.parent / "source", "moved"), path),
    "listen": lambda path: rpc.listen(path, Ids.current(), Owner.TAMBO, 1).close(),
}


@pytest.mark.parametrize("name", ["file", ".file.new"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_planted_link_is_replaced_and_not_followed(
    shared: Path, victim: Path, writer: str, name: str
) -> None:
    (shared / name).symlink_to(victim)
    WRITERS[writer](shared / "file")
    assert victim.read_text() == "as it was"
    assert not (shared / "file").is_symlink() or writer == "link" or name == ".file.new"
    assert {item.name for item in victim.parent.iterdir()} == {"victim"}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_planted_folder_leads_nowhere(shared: Path, victim: Path, writer: str) -> None:
    (shared / "folder").symlink_to(victim.parent)
    with pytest.raises(NotADirectoryError, match="somebody's symbolic link"):
        WRITERS[writer](shared / "folder/victim")
    with pytest.raises(NotADirectoryError):
        files.make_folder(shared / "folder/new")
    with pytest.raises(NotADirectoryError):
        files.read(shared / "folder/victim")
    assert victim.read_text() == "as it was"
    assert {item.name for item in victim.parent.iterdir()} == {"victim"}


def test_a_link_of_the_caller_s_own_is_followed_where_nobody_else_may_write(
    tmp_path: Path, victim: Path
) -> None:
    """An owner may have moved data/mail to another disk."""
    (tmp_path / "folder").symlink_to(victim.parent)
    tmp_path.chmod(0o755)
    files.write(tmp_path / "folder/new", b"new")
    assert (victim.parent / "new").read_text() == "new"


@pytest.mark.parametrize("kind", ["link", "nothing"])
def test_what_cannot_be_read_by_itself_is_nothing(shared: Path, victim: Path, kind: str) -> None:
    if kind == "link":
        (shared / "file").symlink_to(victim)
    assert files.read(shared / "file") is None


def test_a_pipe_does_not_hold_up_who_reads(shared: Path) -> None:
    os.mkfifo(shared / "file")
    assert files.read(shared / "file") == b""


def test_a_file_is_whole_with_its_mode(shared: Path) -> None:
    before = os.umask(0o777)
    try:
        files.write(shared / "file", b"one", mode=0o640)
        files.write(shared / "file", b"two", mode=0o640)
    finally:
        os.umask(before)
    assert {name: (item.mode, item.content) for name, item in tree(shared).items()} == {
        "file": (0o640, b"two")
    }


def test_folders_are_made_once(tmp_path: Path) -> None:
    assert files.make_folder(tmp_path / "a/b")
    assert not files.make_folder(tmp_path / "a/b")
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700


def test_a_socket_hears_as_soon_as_it_is_there_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "run/x"
    folder.mkdir(parents=True)
    put(folder / "door", "what a dead one left")
    put(folder.with_name(".door.new") / "door", "what a killed one left")
    folder.with_name(".door.new").chmod(0o700)
    with rpc.listen(folder / "door", Ids.current(), Owner.TAMBO, 1):
        assert stat.S_IMODE((folder / "door").stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "door"))
    assert [item.name for item in folder.parent.iterdir()] == [folder.name]
    assert [item.name for item in folder.iterdir()] == ["door"]
