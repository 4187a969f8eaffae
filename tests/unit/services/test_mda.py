"""The mail delivery agent: on the disk for good, or tried again. Never anything else."""

from __future__ import annotations

import io
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.services import mda
from tests.unit.kit import tree

REPOSITORY = Path(__file__).parents[3]
MESSAGE = b"From: <a@example.org>\r\nSubject: x\r\n\r\nbody\r\n"


def deliver(root: Path, recipient: str = "i@example.com", sender: str = "a@example.org") -> Path:
    return mda.deliver(root, sender, recipient, MESSAGE)


def test_a_message_in_a_maildir(tmp_path: Path) -> None:
    path = deliver(tmp_path)
    assert path.parent == tmp_path / "example.com/i/new"
    assert path.read_bytes() == (
        b"Return-Path: <a@example.org>\nDelivered-To: i@example.com\n"
        b"From: <a@example.org>\nSubject: x\n\nbody\n"
    )
    assert sorted(tree(tmp_path)) == [
        "example.com", "example.com/i", "example.com/i/cur", "example.com/i/new",
        f"example.com/i/new/{path.name}", "example.com/i/tmp",
    ]  # fmt: skip


def test_names_are_maildir_names(tmp_path: Path) -> None:
    """maildir(5) of Courier: seconds, what makes it unique, the host; then flags of its size."""
    path = deliver(tmp_path)
    match = re.fullmatch(r"(\d+)\.M(\d+)P(\d+)R[0-9a-f]{16}\.(.+),S=(\d+)", path.name)
    assert match
    assert int(match[3]) == os.getpid()
    assert match[4] == socket.gethostname()
    assert int(match[5]) == path.stat().st_size
    assert abs(int(match[1]) - path.stat().st_mtime) < 60


def test_a_host_name_cannot_make_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "../a:b")
    path = deliver(tmp_path)
    assert path.parent == tmp_path / "example.com/i/new"
    assert "..\\057a\\072b" in path.name


def test_many_at_once_all_arrive(tmp_path: Path) -> None:
    threads = [threading.Thread(target=deliver, args=(tmp_path,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(list((tmp_path / "example.com/i/new").iterdir())) == 20
    assert list((tmp_path / "example.com/i/tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("recipient", "folder"),
    [
        ("I@example.com", "example.com/I"),
        ("john.smith+tag@example.com", "example.com/john.smith+tag"),
        ("..@example.com", "example.com/%2E."),
        (".@example.com", "example.com/%2E"),
        (".hidden@example.com", "example.com/%2Ehidden"),
        ("../../etc/cron.d/x@example.com", "example.com/%2E.%2F..%2Fetc%2Fcron.d%2Fx"),
        ("/etc/passwd@example.com", "example.com/%2Fetc%2Fpasswd"),
        ("a@b@example.com", "example.com/a@b"),
        ("@example.com", "example.com/%00"),
        ("a\0b@example.com", "example.com/a%00b"),
        ("a b\n@example.com", "example.com/a%20b%0A"),
        ("é@example.com", "example.com/%C3%A9"),
        ("\udcff@example.com", "example.com/%FF"),
        ("i@..", "%2E./i"),
        ("i@../x", "%2E.%2Fx/i"),
        ("i", "i/%00"),
        ("i@bücher.example", "xn--bcher-kva.example/i"),
        ("i@straße.example", "xn--strae-oqa.example/i"),  # not strasse.example's
    ],
)
def test_no_recipient_leaves_the_mail_folder(tmp_path: Path, recipient: str, folder: str) -> None:
    root = tmp_path / "mail"
    root.mkdir()
    path = deliver(root, recipient)
    assert str(path.parent.relative_to(root)) == f"{folder}/new"
    assert [item.name for item in tmp_path.iterdir()] == ["mail"]


@given(st.text(max_size=60))
def test_a_folders_name_is_one_folder_and_tells_others_apart(text: str) -> None:
    name = mda.folder_name(text)
    assert re.fullmatch(r"[A-Za-z0-9%+=_@.~-]+", name)
    assert name[0] != "."
    assert mda.folder_name(text + "x") != name


@pytest.mark.parametrize(
    ("sender", "line"),
    [
        ("<>", b"Return-Path: <>\n"),
        ("", b"Return-Path: <>\n"),
        ("a@b.example\nX-Spam: no", b"Return-Path: <a@b.example?X-Spam: no>\n"),
        ("a\r\n\r\nbody", b"Return-Path: <a????body>\n"),
        ("é@b.example", "Return-Path: <é@b.example>\n".encode()),
        ("\udcff@b.example", b"Return-Path: <\xff@b.example>\n"),
    ],
)
def test_no_sender_adds_a_header(tmp_path: Path, sender: str, line: bytes) -> None:
    content = deliver(tmp_path, sender=sender).read_bytes()
    assert content.startswith(line + b"Delivered-To: i@example.com\nFrom: ")


def test_no_recipient_adds_a_header(tmp_path: Path) -> None:
    content = deliver(tmp_path, "a\nX: y@example.com").read_bytes()
    assert b"Delivered-To: a?X: y@example.com\nFrom: " in content


def test_the_body_is_not_touched_but_for_line_ends(tmp_path: Path) -> None:
    message = b"A: b\r\n\r\n\xff\x00 lone \r and \n stay\r\n.\r\n"
    path = mda.deliver(tmp_path, "a@b.example", "i@example.com", message)
    assert path.read_bytes().endswith(b"A: b\n\n\xff\x00 lone \r and \n stay\n.\n")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        deliver(tmp_path)
    assert not [name for name, item in tree(tmp_path).items() if item.kind == "file"]


def test_it_is_on_the_disk_before_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file before it gets its name, then each folder that is new."""
    calls: list[str] = []
    real, rename = os.fsync, Path.rename

    def fsync(fd: int) -> None:
        calls.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        assert stat.S_ISDIR(os.fstat(fd).st_mode) or os.fstat(fd).st_size > 0
        real(fd)

    def renamed(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    path = deliver(tmp_path)
    folder = path.parent.parent
    assert calls == [
        str(folder / "tmp" / path.name.partition(",S=")[0]), "rename", str(folder / "new"),
        str(folder), str(folder.parent), str(tmp_path),
    ]  # fmt: skip


# The program


@pytest.fixture
def mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/data/mail, elsewhere."""
    monkeypatch.setattr(mda, "Path", lambda _: tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mda", *arguments])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MESSAGE)))
    before = os.umask(0)
    try:
        return mda.main()
    finally:
        os.umask(before)


def test_delivered_for_the_owner_alone(mail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "a@example.org", "i@example.com") == 0
    assert len(list((mail / "example.com/i/new").iterdir())) == 1
    for name, item in tree(mail).items():
        assert item.mode == (0o600 if item.kind == "file" else 0o700), name


@pytest.mark.parametrize("arguments", [(), ("a",), ("a", "b", "c")])
def test_other_arguments_are_tried_again(
    mail: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(monkeypatch, *arguments) == 75
    assert "delivery failed: ValueError" in capsys.readouterr().out
    assert tree(mail) == {}


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), ValueError("odd"), MemoryError(), RuntimeError("odd")]
)
def test_any_error_is_tried_again(
    mail: Path, monkeypatch: pytest.MonkeyPatch, error: Exception,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """chasquid bounces at any other status, and the mail is lost."""
    mail.rmdir()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(mda, "deliver", fail)
    assert run(monkeypatch, "a@example.org", "i@example.com") == 75
    assert capsys.readouterr().out.startswith(f"delivery failed: {type(error).__name__}: ")


def test_a_domain_that_is_none_is_tried_again(mail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "a@example.org", "i@é\u200d.example") == 75
    assert tree(mail) == {}


AS_A_PROGRAM = """
import sys
from pathlib import Path
root, repository = sys.argv[1:3]
sys.path.insert(0, repository)
sys.argv[:3] = ["mda"]
from entrypoint.services import mda
mda.Path = lambda _: Path(root)
sys.exit(mda.main())
"""


def test_as_chasquid_runs_it(tmp_path: Path) -> None:
    """Arguments are bytes: a remote's address need not be UTF-8."""
    arguments: list[str | bytes | Path] = [
        tmp_path, REPOSITORY, "a@example.org", b"\xff@example.com",
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", AS_A_PROGRAM, *arguments],
        input=MESSAGE, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    [path] = (tmp_path / "example.com/%FF/new").iterdir()
    assert b"Delivered-To: \xff@example.com\n" in path.read_bytes()


def test_the_wrapper_has_no_third_status() -> None:
    script = (REPOSITORY / "rootfs/usr/lib/tambo/mda").read_text()
    assert script.startswith("#!/bin/sh\n")
    assert re.search(r'entrypoint\.services\.mda "\$@" \|\| exit 75\n\Z', script)
    done = subprocess.run(  # noqa: S603
        ["/bin/sh", REPOSITORY / "rootfs/usr/lib/tambo/mda", "a", "b"],
        input=MESSAGE, capture_output=True, timeout=60, check=False, env={"PATH": "/nowhere"},
    )  # fmt: skip
    assert done.returncode == 75, "no interpreter: the mail waits"
