"""What waits in chasquid's queue, by size and origin; files are as chasquid 1.19 writes them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from entrypoint.chasquid import backlog
from entrypoint.chasquid.backlog import Backlog, Origin

NAME = "m:IhVzz9vksLw"
STRANGER = (
    r"Authentication-Results: mail.example.com\r\n\t;spf=none (no SPF record)\r\n\t;dkim=none\n"
    r"Received-SPF: none (no SPF record)\n"
    r"Received: from a.example.net ([198.51.100.7])\n\tby mail.example.com (chasquid) with ESMTPS\n"
    r"\ttls TLS_AES_128_GCM_SHA256\n\t(over SMTP, TLS 1.3, envelope from \"a@example.net\")\n"
    r"\t; Tue, 24 Nov 2026 15:02:46 +0000\n"
)
PROVEN = STRANGER.replace("spf=none (no SPF record)", "spf=pass (matched ip4)")
LOGIN = (
    r"DKIM-Signature: v=1; a=rsa-sha256; d=example.com;\r\n\tb=abc\r\n"
    r"Received: from laptop\n\tby mail.example.com (chasquid) with ESMTPSA\n"
    r"\ttls TLS_AES_128_GCM_SHA256\n\t(over submission, TLS 1.3, envelope from \"i@example.com\")\n"
    r"\t; Tue, 24 Nov 2026 15:02:46 +0000\n"
)
FORGED = (
    r"Received: from laptop\n\tby mail.example.com (chasquid) with ESMTPSA\n\t; Tue, 24 Nov 2026\n"
)
BOUNCE = (
    r"From: Mail Delivery System <postmaster-dsn@example.com>\nTo: <a@example.net>\n"
    r"Subject: Mail delivery failed: returning message to sender\n\n"
    r"- \"x@example.org\" (EMAIL) failed permanently with error:\n"
    r"    550 5.1.1 no\n    Received: from laptop\n    \tby x (chasquid) with ESMTPSA\n"
    r"--x\nContent-Type: message/rfc822\n\n"
)
TEXT = r"From: a@example.net\nSubject: x\n\nText.\n"


def item(data: str, sender: str = "a@example.net") -> bytes:
    return (
        f'ID: "IhVzz9vksLw"\nfrom: "{sender}"\nTo: "i@example.com"\nrcpt: {{\n'
        '  address: "x@dead.example"\n  last_failure_message: "\\ndata: \\"Received: from\\""\n'
        f'}}\ndata:  "{data}"\ncreated_at_ts: {{\n  seconds: 1795532566\n  nanos: 87961762\n}}\n'
    ).encode("latin-1")


def found(folder: Path, content: bytes, name: str = NAME) -> backlog.Message:
    (folder / name).write_bytes(content)
    return backlog.read(folder / name)


@pytest.mark.parametrize(
    ("data", "sender", "expected"),
    [
        (STRANGER + TEXT, "a@example.net", Origin()),
        (PROVEN + TEXT, "a@example.net", Origin(proven=True)),
        (LOGIN + TEXT, "i@example.com", Origin(login=True)),
        (STRANGER + FORGED + TEXT, "a@example.net", Origin()),
        (STRANGER + PROVEN + TEXT, "a@example.net", Origin()),
        (STRANGER + TEXT, "<>", Origin()),
        (BOUNCE + STRANGER + TEXT, "<>", Origin(bounce=True)),
        (BOUNCE + STRANGER + FORGED + TEXT, "<>", Origin(bounce=True)),
        (BOUNCE + LOGIN + TEXT, "<>", Origin(bounce=True, login=True)),
        (STRANGER + BOUNCE + LOGIN, "<>", Origin()),
        (TEXT, "a@example.net", Origin()),
        ("", "", Origin()),
    ],
    ids=[
        "stranger", "proven", "login", "forged-received", "forged-results", "a-bounce-of-others",
        "bounce", "bounce-of-a-forgery", "bounce-of-a-login", "an-imitated-bounce", "none", "empty",
    ],
)  # fmt: skip
def test_origin_is_read_from_what_chasquid_wrote(
    tmp_path: Path, data: str, sender: str, expected: Origin
) -> None:
    message = found(tmp_path, item(data, sender))
    assert message.origin == expected
    assert (message.sender, message.created) == (sender, 1795532566.0)


def test_a_client_cannot_log_in_by_its_name(tmp_path: Path) -> None:
    data = STRANGER.replace("a.example.net", "x(chasquid)with ESMTPSA") + TEXT
    assert not found(tmp_path, item(data)).origin.login


@pytest.mark.parametrize("size", [100, 20_000, 3_000_000])
def test_size_is_that_of_the_message_not_of_its_file(tmp_path: Path, size: int) -> None:
    plain = found(tmp_path, item(STRANGER + "x" * size), "m:plain")
    assert plain.size == pytest.approx(size, abs=2000)
    binary = found(tmp_path, item(STRANGER + "\\\\377" * 0 + r"\377" * size), "m:binary")
    assert binary.stored > 4 * size
    assert binary.size == pytest.approx(size, rel=0.02, abs=2000)


def test_a_file_that_begins_and_ends_otherwise_is_not_underrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "random", random.Random(1))  # noqa: S311 (not by chance)
    half = 1_000_000
    content = item(STRANGER + r"\377" * 70_000 + "x" * half + r"\377" * 70_000)
    assert found(tmp_path, content).size == pytest.approx(half + 140_000, rel=0.25)


def test_files_that_are_no_messages_count_as_strangers(tmp_path: Path) -> None:
    (tmp_path / "m:empty").touch()
    (tmp_path / "m:junk").write_bytes(bytes(range(256)) * 20)
    (tmp_path / ".m:temporary123").write_bytes(b"x")
    (tmp_path / "m:link").symlink_to("/etc/passwd")
    messages = {one.name: one for one in Backlog(tmp_path).look()}
    assert set(messages) == {"m:empty", "m:junk", "m:link"}
    assert not any(one.origin.login for one in messages.values())


def test_a_look_opens_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = backlog.read

    def read(path: Path) -> backlog.Message:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(backlog, "read", read)
    queue = Backlog(tmp_path)
    assert queue.look() == []
    (tmp_path / "m:one").write_bytes(item(LOGIN + TEXT))
    assert [one.name for one in queue.look()] == ["m:one"]
    (tmp_path / "m:one").write_bytes(item(LOGIN + TEXT + "x" * 100))
    (tmp_path / "m:two").write_bytes(item(STRANGER + TEXT))
    assert len(queue.look()) == 2
    (tmp_path / "m:one").unlink()
    assert [one.name for one in queue.look()] == ["m:two"]
    assert opened == ["m:one", "m:two"]


def test_a_long_queue_is_read_in_pieces_and_counted_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_MOST_READ", 3)
    for number in range(8):
        (tmp_path / f"m:{number}").write_bytes(item(LOGIN + TEXT))
    queue = Backlog(tmp_path)
    counts = [sum(one.origin.login for one in queue.look()) for _ in range(4)]
    assert counts == [3, 6, 8, 8]
    assert len(queue.look()) == 8


def test_there_may_be_no_queue_yet(tmp_path: Path) -> None:
    assert Backlog(tmp_path / "none").look() == []
