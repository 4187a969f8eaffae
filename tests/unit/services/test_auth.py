"""The auth service: chasquid's questions over real sockets, floods, and hostile ones."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from entrypoint.chasquid import passwords
from entrypoint.chasquid.passwords import Plain, Scrypt
from entrypoint.common import rpc
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.policy.guessing import FLOOR
from entrypoint.services import auth
from entrypoint.services.auth import Auth
from tests.unit.kit import put

LOGIN, OLD, OTHER = "i@example.com", "old@example.com", "j@example.com"
PASSWORD = "correct horse"
HASHES: dict[str, passwords.Chosen] = {
    LOGIN: Scrypt.chosen(PASSWORD), OLD: Scrypt.of(PASSWORD, 14), OTHER: Scrypt.chosen(PASSWORD),
    "plain@example.com": Plain(PASSWORD.encode()),
}  # fmt: skip
VERSION = b"VERSION\t1\t1\n"


class Running:
    """The service in a thread, on real sockets; what it says, and how many checks it makes."""

    def __init__(self, paths: Paths, ids: Ids) -> None:
        paths.auth.mkdir(parents=True)
        self.paths, self.said = paths, list[str]()
        self.give(HASHES)
        self.auth = Auth(
            paths.passwords, paths.auth_questions, log=lambda _source, text: self.said.append(text)
        )
        self._doors = (
            rpc.listen(paths.auth_socket, ids, Owner.CHASQUID, auth.BACKLOG),
            rpc.listen(paths.auth_users, ids, Owner.CHASQUID, auth.BACKLOG),
            rpc.listen(paths.auth_door, ids, Owner.TAMBO, auth.BACKLOG),
        )
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(5)

    def give(self, logins: dict[str, passwords.Chosen]) -> None:
        aside = put(self.paths.auth / "aside", passwords.dump(logins))
        aside.replace(self.paths.passwords)

    def _run(self) -> None:
        async def serve() -> None:
            self._stop = asyncio.Event()
            servers = await self.auth.serve(*self._doors)
            self._ready.set()
            await self._stop.wait()
            for server in servers:
                server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._loop.run_until_complete(serve())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self.auth.turns._pool.shutdown()

    def ask(self, login: str, password: str | bytes) -> bytes:
        """What chasquid is told: b"OK", b"FAIL" or b"" (it is hung up on)."""
        raw = password if isinstance(password, bytes) else password.encode()
        words = base64.b64encode(b"%b\0%b\0%b" % (login.encode(), login.encode(), raw))
        line = b"AUTH\t1\tPLAIN\tservice=smtp\tsecured\tno-penalty\tnologin\tresp=%b\n" % words
        answer = self.raw(VERSION + b"CPID\t7\n", line)
        assert answer.startswith(b"VERSION\t1\t1\nSPID\t")
        after = answer.partition(b"\nDONE\n")[2]
        assert after == b"" or after.split(b"\t")[1] == b"1"
        return after.split(b"\t")[0]

    def raw(self, *pieces: bytes, path: Path | None = None) -> bytes:
        """All that is answered until it hangs up."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.settimeout(10)
            connection.connect(str(path or self.paths.auth_socket))
            with suppress(BrokenPipeError, ConnectionResetError):  # it has hung up already
                for piece in pieces:
                    connection.sendall(piece)
            found = bytearray()
            with suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    found += chunk
            return bytes(found)


@pytest.fixture
def running(paths: Paths, ids: Ids) -> Iterator[Running]:
    found = Running(paths, ids)
    yield found
    found.end()


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Scrypt]:
    """Every scrypt that is made."""
    made: list[Scrypt] = []
    derive = Scrypt._derive

    def noted(self: Scrypt, password: bytes) -> bytes:
        made.append(self)
        return derive(self, password)

    monkeypatch.setattr(Scrypt, "_derive", noted)
    return made


def timed(what: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    found = what()
    return found, time.monotonic() - began


@pytest.mark.parametrize("login", HASHES)
def test_the_password_is_let_in_and_no_other(running: Running, login: str) -> None:
    assert running.ask(login, PASSWORD) == b"OK"
    assert running.ask(login, f"{PASSWORD}x") == b"FAIL"
    assert running.ask(login, "") == b"FAIL"


@pytest.mark.parametrize("password", [b"\0", b"a\0b", b"a\tb", b"a\nb", b"\xff\xfe", b"x" * 512])
def test_a_password_of_any_bytes(running: Running, password: bytes) -> None:
    assert running.ask(LOGIN, password) == b"FAIL"
    running.give({LOGIN: Scrypt.chosen(password.decode("latin1"))})
    assert running.ask(LOGIN, password.decode("latin1").encode()) == b"OK"


@pytest.mark.parametrize(
    "login", ["nobody@example.com", "i", "i@", "@", "I@EXAMPLE.COM", "i@example.com ",
              "ü@bücher.example", "%s%n", "a" * 3000, "i@example.com\u202e", "../../etc/passwd"],
)  # fmt: skip
def test_who_is_not_there_is_told_no_without_a_check(
    running: Running, checks: list[Scrypt], login: str
) -> None:
    assert running.ask(login, PASSWORD) == b"FAIL"
    assert checks == []


def test_a_no_takes_as_long_for_a_name_that_is_nobody_s(running: Running) -> None:
    known = timed(lambda: running.ask(LOGIN, "wrong"))[1]
    unknown = timed(lambda: running.ask("nobody@example.com", "wrong"))[1]
    assert FLOOR <= known < unknown < FLOOR + 0.35, "the second no of all is a little later"


def test_a_yes_is_not_delayed_by_the_failures_before_it(running: Running) -> None:
    with ThreadPoolExecutor(30) as pool:
        assert {*pool.map(lambda n: running.ask(LOGIN, f"wrong-{n}"), range(30))} == {b"FAIL"}
    answer, seconds = timed(lambda: running.ask(LOGIN, PASSWORD))
    assert answer == b"OK"
    assert seconds < FLOOR


def test_a_right_password_is_checked_once(running: Running, checks: list[Scrypt]) -> None:
    assert [running.ask(LOGIN, PASSWORD) for _ in range(3)] == [b"OK"] * 3
    assert len(checks) == 1
    assert running.ask(LOGIN, "wrong") == b"FAIL"
    assert len(checks) == 2


def test_a_new_password_holds_at_once_and_the_old_one_no_longer(running: Running) -> None:
    assert running.ask(LOGIN, PASSWORD) == b"OK"
    running.give({**HASHES, LOGIN: Scrypt.chosen("another one")})
    assert running.ask(LOGIN, PASSWORD) == b"FAIL"
    assert running.ask(LOGIN, "another one") == b"OK"
    running.give({OTHER: HASHES[OTHER]})
    assert running.ask(LOGIN, "another one") == b"FAIL"


@pytest.mark.parametrize("text", ["", "{", '{"logins": 7}', None])
def test_without_its_file_it_says_neither_yes_nor_no(running: Running, text: str | None) -> None:
    assert running.ask(LOGIN, PASSWORD) == b"OK"
    if text is None:
        running.paths.passwords.unlink()
    else:
        put(running.paths.passwords, text)
    assert running.ask(LOGIN, PASSWORD) == b""
    assert running.ask("nobody@example.com", PASSWORD) == b""
    [said] = running.said
    assert "passwords.json cannot be read" in said
    running.give(HASHES)
    assert running.ask(LOGIN, PASSWORD) == b"OK"


# Logins that are guessed at


@pytest.mark.parametrize(
    ("answer", "expected"), [({"known": True}, b"OK"), ({"known": False}, b"FAIL"), (None, b"")]
)
def test_a_login_that_is_guessed_at_is_checked_only_while_somebody_known_is_there(
    running: Running,
    checks: list[Scrypt],
    monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, bool] | None,
    expected: bytes,
) -> None:
    asked: list[str] = []

    async def question(path: Path, command: str, timeout: float) -> dict[str, bool]:
        assert path == running.paths.auth_questions
        assert timeout < 3
        asked.append(command)
        if answer is None:
            msg = "nobody there"
            raise rpc.UnreachableError(msg)
        return answer

    monkeypatch.setattr(rpc, "question", question)
    running.auth._guessed = frozenset({LOGIN})
    assert running.ask(LOGIN, PASSWORD) == expected
    assert len(checks) == (expected == b"OK")
    assert asked == [f"here {LOGIN}"]
    assert running.ask(OTHER, PASSWORD) == b"OK", "others are not concerned"
    assert len(asked) == 1


def test_it_learns_which_logins_are_guessed_at_and_says_so_once(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def question(*_: Any) -> dict[str, list[str]]:
        return {"logins": [LOGIN, "made-up@example.com"]}

    monkeypatch.setattr(rpc, "question", question)

    async def for_a_moment() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(running.auth.watch(), 0.1)

    asyncio.run(for_a_moment())
    asyncio.run(for_a_moment())
    [said] = running.said
    assert said.startswith(f"note: somebody guesses at the password of {LOGIN}: for an hour")
    assert running.auth._guessed == {LOGIN, "made-up@example.com"}


# Floods


def test_no_more_memory_than_24_units_and_no_login_waits_for_another(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.auth.turns.threads = 64
    running.auth.turns._pool = ThreadPoolExecutor(64)
    lock, now, most = threading.Lock(), [0], [0]

    def slow(self: Scrypt, password: str | bytes) -> bool:
        units = self.memory // passwords.UNIT
        with lock:
            now[0] += units
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= units
        return password == PASSWORD.encode()

    monkeypatch.setattr(Scrypt, "matches", slow)
    with ThreadPoolExecutor(121) as pool:
        flood = [pool.submit(running.ask, OLD, f"wrong-{number}") for number in range(120)]
        time.sleep(0.1)
        answer, seconds = timed(lambda: running.ask(OTHER, PASSWORD))
        assert {item.result() for item in flood} == {b"FAIL"}
    assert answer == b"OK"
    assert seconds < 0.3, "its turn comes next, and not after 120 others"
    assert 4 < most[0] <= auth.AT_ONCE


def test_what_cannot_be_checked_in_time_is_told_so(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.auth.turns.threads = 1
    monkeypatch.setattr(auth, "PATIENCE", 0.5)
    monkeypatch.setattr(Scrypt, "matches", lambda *_: time.sleep(0.4))
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda number: running.ask(LOGIN, f"wrong-{number}"), range(8))]
    assert b"" in found
    assert b"OK" not in found
    assert any("more passwords are tried than can be checked" in text for text in running.said)


def test_no_more_wait_than_there_is_room_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.auth.turns.threads = 1
    monkeypatch.setattr(auth, "MOST_OF_ONE", 3)
    monkeypatch.setattr(Scrypt, "matches", lambda *_: time.sleep(0.3))
    with ThreadPoolExecutor(20) as pool:
        found = [*pool.map(lambda number: running.ask(LOGIN, f"wrong-{number}"), range(20))]
    assert found.count(b"") >= 16, "one is checked, three wait"


def test_no_more_answers_are_held_back_than_there_is_room_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MOST_LATE", 5)
    with ThreadPoolExecutor(60) as pool:
        began = time.monotonic()
        ends = [
            *pool.map(lambda _: (running.ask("x@example.com", "y"), time.monotonic()), range(60))
        ]
    early = [at - began for _, at in ends if at - began < 2.0]
    assert {answer for answer, _ in ends} == {b"FAIL"}
    assert len(early) >= 50, "the oldest are told early"


def test_a_thousand_connections_that_say_nothing_keep_nobody_out(running: Running) -> None:
    idle = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(400)]
    try:
        for item in idle:
            item.connect(str(running.paths.auth_socket))
        assert running.ask(LOGIN, PASSWORD) == b"OK"
    finally:
        for item in idle:
            item.close()


def test_of_too_many_connections_the_last_is_hung_up_on(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MOST_OPEN", 3)
    idle = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(3)]
    for item in idle:
        item.connect(str(running.paths.auth_socket))
        assert item.recv(7) == b"VERSION"
    assert running.raw(VERSION) == b""
    for item in idle:
        item.close()
    time.sleep(0.1)
    assert running.ask(LOGIN, PASSWORD) == b"OK"


def test_who_hangs_up_is_not_checked(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.auth.turns.threads = 1
    made: list[Any] = []

    def slow(*words: Any) -> bool:
        made.append(words)
        time.sleep(0.3)
        return False

    monkeypatch.setattr(Scrypt, "matches", slow)
    line = b"AUTH\t1\tPLAIN\tresp=%b\n" % base64.b64encode(b"\0%b\0x" % LOGIN.encode())
    for _ in range(10):
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.connect(str(running.paths.auth_socket))
            connection.sendall(VERSION + line)
            time.sleep(0.02)
    time.sleep(1.0)
    assert len(made) <= 2
    assert running.auth.turns.waiting == 0


# Hostile


@pytest.mark.parametrize(
    "raw",
    [
        b"\n", b"GET / HTTP/1.1\r\n\r\n", b"AUTH\n", b"AUTH\t1\n", b"AUTH\t1\tPLAIN\n",
        b"AUTH\t1\tPLAIN\tresp=\n", b"AUTH\t1\tPLAIN\tresp=!!\n", b"AUTH\t1\tPLAIN\tresp=aGk=\n",
        b"AUTH\tx\tPLAIN\tresp=AGkAeA==\n", b"AUTH\t1\tLOGIN\tresp=AGkAeA==\n",
        b"AUTH\t1\tPLAIN\tresp=AGkAeA==\tresp=AGkAeA==\n", b"AUTH\t1\tPLAIN\tresp=AAB4\n",
        b"AUTH\t1\tPLAIN\tresp=" + base64.b64encode(b"you\0i\0x") + b"\n",
        b"AUTH\t1\tPLAIN\tresp=" + base64.b64encode(b"\0a\tb\0x") + b"\n",
        b"AUTH\t1\tPLAIN\tresp=" + base64.b64encode(b"\0\xff\0x") + b"\n",
        b"AUTH\t99999999999999\tPLAIN\tresp=AGkAeA==\n", b"CONT\t1\tx\n", b"\0" * 100 + b"\n",
        b"x" * 20_000, b"AUTH\t1\tPLAIN\tresp=" + b"A" * 200_000 + b"\n",
    ],
)  # fmt: skip
def test_what_chasquid_does_not_ask_is_hung_up_on(running: Running, raw: bytes) -> None:
    answer = running.raw(VERSION, raw)
    assert answer.partition(b"\nDONE\n")[2] == b""
    assert running.ask(LOGIN, PASSWORD) == b"OK", "and the next one is answered"
    assert running.auth.open <= 1


def test_a_question_in_single_bytes(running: Running) -> None:
    words = base64.b64encode(f"\0{LOGIN}\0{PASSWORD}".encode())
    whole = VERSION + b"CPID\t7\nAUTH\t7\tPLAIN\tresp=" + words + b"\r\n"
    answer = running.raw(*(whole[at : at + 1] for at in range(len(whole))))
    assert answer.endswith(b"\nDONE\nOK\t7\tuser=i@example.com\n")


def test_a_second_question_on_a_connection_is_none(running: Running) -> None:
    line = b"AUTH\t1\tPLAIN\tresp=%b\n" % base64.b64encode(b"\0x@example.com\0x")
    assert running.raw(VERSION, line, line).partition(b"\nDONE\n")[2] == b""


def test_silence_is_ended(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_IDLE", 0.2)
    answer, seconds = timed(lambda: running.raw(VERSION, b"AUTH\t1"))
    assert answer.endswith(b"DONE\n")
    assert seconds < 2


def test_nobody_exists_but_in_chasquid_s_own_files(running: Running) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(5)
        connection.connect(str(running.paths.auth_users))
        with connection.makefile("rwb") as stream:
            assert stream.readline() == VERSION
            assert stream.readline() == b"SPID\t%d\n" % os.getpid()
            stream.write(VERSION + b"USER\t1\ti@example.com\tservice=smtp\n")
            stream.flush()
            assert stream.readline() == b"NOTFOUND\t1\n"
            stream.write(b"x" * 50 + b"\n")
            stream.flush()
            assert stream.read() == b""


def test_nothing_secret_is_said_or_logged(running: Running) -> None:
    running.ask(LOGIN, PASSWORD)
    running.ask(LOGIN, f"{PASSWORD}!")
    put(running.paths.passwords, '{"logins": {"i": {"scrypt": "hunter2"}}}')
    running.ask(LOGIN, PASSWORD)
    status = rpc.request(running.paths.auth_door, "status")
    for text in (*running.said, str(status), repr(running.auth)):
        assert PASSWORD not in text
        assert "hunter2" not in text
        assert str(HASHES[OLD]) not in text or "key=" not in text


def test_it_says_how_it_fares(running: Running) -> None:
    running.ask(LOGIN, PASSWORD)
    running.ask(LOGIN, "wrong")
    status = rpc.request(running.paths.auth_door, "status")
    assert status["logins"] == 4
    assert status["answers"] == {"yes": 1, "no": 1, "later": 0}
    assert "error" in rpc.request(running.paths.auth_door, "nonsense")
