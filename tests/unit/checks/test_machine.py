"""What is asked of the machine, as far as it can be asked without a network."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoint.checks.machine import Machine
from entrypoint.common.paths import Paths
from entrypoint.common.rpc import UnreachableError


@pytest.fixture
def real(paths: Paths) -> Machine:
    return Machine.real(paths)


def test_files_are_read_up_to_a_limit(real: Machine, tmp_path: Path) -> None:
    assert real.read("/proc/meminfo").startswith("MemTotal:")
    (tmp_path / "long").write_bytes(b"\xff" * (3 << 20))
    assert len(real.read(str(tmp_path / "long"))) == 1 << 20
    with pytest.raises(FileNotFoundError):
        real.read(str(tmp_path / "absent"))


def test_a_disk(real: Machine, tmp_path: Path) -> None:
    found = real.disk(tmp_path)
    assert found.device == tmp_path.stat().st_dev
    assert 0 < found.free <= found.size
    with pytest.raises(OSError, match="No such file"):
        real.disk(tmp_path / "absent")


@pytest.mark.parametrize(
    ("answer", "status", "expected"),
    [(0, 0x2001, True), (5, 0x40, False), (5, 0x41, False), (-1, 0, None)],
)
def test_the_kernel_s_account_of_its_clock(
    real: Machine, monkeypatch: pytest.MonkeyPatch, answer: int, status: int, expected: bool | None
) -> None:
    class Libc:
        def adjtimex(self, buffer: Any) -> int:
            assert buffer[0] == 0, "it only asks"
            buffer[5] = status
            return answer

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Libc())
    assert real.clock_is_kept() is expected


def test_the_real_kernel_answers_or_not(real: Machine) -> None:
    assert real.clock_is_kept() in (True, False, None)


def test_nobody_at_the_holder_s_door(real: Machine) -> None:
    with pytest.raises(UnreachableError):
        real.holder("status")
    with pytest.raises(UnreachableError):
        real.policy("alarms")


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The other end of what create_connection connects to."""
    ours, theirs = socket.socketpair()
    monkeypatch.setattr("entrypoint.checks.machine.socket.create_connection", lambda *_, **__: ours)
    yield theirs
    theirs.close()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"220 mx.example.net ESMTP\r\n250 more", "220 mx.example.net ESMTP"),
        (b"220 \x1b[31m\xff\r\n", "220 \\x1b[31m\ufffd"),
        (b"220-" + b"x" * 5000, "220-" + "x" * 508),
        (b"", ""),
    ],
)
def test_a_banner_is_read_and_the_other_told_goodbye(
    real: Machine, peer: socket.socket, sent: bytes, expected: str
) -> None:
    peer.sendall(sent)
    if not sent:
        peer.shutdown(socket.SHUT_WR)
    assert real.banner("192.0.2.1", 25) == expected
    assert peer.recv(100) == b"QUIT\r\n"


def test_a_route_is_asked_for_without_a_packet(
    real: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, int]] = []

    class Probe:
        def __init__(self, family: int, kind: int) -> None:
            made.append((family, kind))

        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def connect(self, target: tuple[str, int]) -> None:
            if target[0] == "198.51.100.1":
                raise OSError(101, "Network is unreachable")

        def getsockname(self) -> tuple[str, int]:
            return "fe80::1%eth0", 1

    monkeypatch.setattr("entrypoint.checks.machine.socket.socket", Probe)
    assert real.source("198.51.100.1") is None
    assert str(real.source("2001:db8::1")) == "fe80::1"
    assert made == [
        (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_DGRAM),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("date", "expected"),
    [("Sun, 01 Mar 2026 12:00:00 GMT", "2026-03-01T12:00:00+00:00"), ("soon", None), (None, None)],
)
def test_a_web_server_s_time(
    real: Machine, monkeypatch: pytest.MonkeyPatch, date: str | None, expected: str | None
) -> None:
    asked: list[object] = []

    class Connection:
        def __init__(self, host: str, port: int | None, **_: object) -> None:
            asked.append((host, port))
            self.headers = {"Date": date} if date else {}

        def request(self, method: str, path: str, headers: object) -> None:
            asked.append((method, path, headers))

        def getresponse(self) -> Connection:
            return self

        def close(self) -> None:
            asked.append("closed")

    monkeypatch.setattr("http.client.HTTPSConnection", Connection)
    url = "https://acme.example.net:14000/dir"
    if expected:
        assert real.date_of(url).isoformat() == expected
    else:
        with pytest.raises(OSError, match="no date"):
            real.date_of(url)
    assert asked == [
        ("acme.example.net", 14000), ("HEAD", "/dir", {"User-Agent": "tambo"}), "closed",
    ]  # fmt: skip
