"""The socket holder's control socket, from outside."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.common import rpc
from entrypoint.common.rpc import UnreachableError


def answering(path: Path, reply: Callable[[socket.socket], None]) -> threading.Thread:
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen()

    def serve() -> None:
        with door:
            connection, _ = door.accept()
            with connection:
                reply(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def says(raw: bytes) -> Callable[[socket.socket], None]:
    def reply(connection: socket.socket) -> None:
        assert connection.recv(100) == b"status\n"
        connection.sendall(raw)

    return reply


def test_a_question_and_its_answer(tmp_path: Path) -> None:
    thread = answering(tmp_path / "door", says(b'{"ready": true, "pid": 3}\n'))
    assert rpc.request(tmp_path / "door", "status") == {"ready": True, "pid": 3}
    thread.join(10)


@pytest.mark.parametrize("raw", [b"", b"\n", b"null\n", b"[1]\n", b"{", b"\xff\n", b'"x"\n'])
def test_no_sense_is_no_answer(tmp_path: Path, raw: bytes) -> None:
    thread = answering(tmp_path / "door", says(raw))
    with pytest.raises(UnreachableError):
        rpc.request(tmp_path / "door", "status")
    thread.join(10)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="No such file"):
        rpc.request(tmp_path / "door", "status")
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(tmp_path / "door"))
    door.close()
    with pytest.raises(UnreachableError, match="Connection refused"):
        rpc.request(tmp_path / "door", "status")


def test_an_answer_that_does_not_come(tmp_path: Path) -> None:
    end = threading.Event()
    thread = answering(tmp_path / "door", lambda _: (end.wait(10), None)[1])
    with pytest.raises(UnreachableError, match="timed out"):
        rpc.request(tmp_path / "door", "status", timeout=0.05)
    end.set()
    thread.join(10)


def test_several_answers_as_they_come(tmp_path: Path) -> None:
    def reply(connection: socket.socket) -> None:
        assert connection.recv(100) == b"watch token\n"
        connection.sendall(b'{"watching": true}\n')
        connection.sendall(b'{"id": "x"}\n')

    thread = answering(tmp_path / "door", reply)
    answers = rpc.follow(tmp_path / "door", "watch token", 5.0)
    assert list(answers) == [{"watching": True}, {"id": "x"}]
    thread.join(10)


@pytest.mark.parametrize("raw", [b"null\n", b"{\n", b"[]\n"])
def test_an_answer_without_sense_ends_the_following(tmp_path: Path, raw: bytes) -> None:
    def reply(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(raw)

    thread = answering(tmp_path / "door", reply)
    with pytest.raises(UnreachableError):
        list(rpc.follow(tmp_path / "door", "watch token", 5.0))
    thread.join(10)


def test_following_ends_in_time(tmp_path: Path) -> None:
    end = threading.Event()
    thread = answering(tmp_path / "door", lambda _: (end.wait(10), None)[1])
    with pytest.raises(UnreachableError, match="timed out"):
        list(rpc.follow(tmp_path / "door", "watch token", 0.05))
    end.set()
    thread.join(10)
