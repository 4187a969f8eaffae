"""hook/post-data.c against services of every kind: it takes a message on one answer alone.

It runs twice: as it is in the image, and with the compiler's checks of memory and arithmetic, which
end it with another status and a report.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from entrypoint.services.policy import parse_preamble
from tests.support.wait import wait_until

ROOT = Path(__file__).resolve().parents[2]
BUILDS = {
    "as shipped": ("-static-pie", "-s"),
    "checked": (
        "-g", "-U_FORTIFY_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    ),
}  # fmt: skip
MESSAGE = b"From: i@example.com\r\n\r\nHello\r\n"
ENVELOPE = {
    "AUTH_AS": "i@example.com",
    "MAIL_FROM": "i@example.com",
    "RCPT_TO": "you@example.net they@example.net",
    "REMOTE_ADDR": "[2001:db8::7]:4711",
    "SPF_PASS": "0",
}
PREAMBLE = (
    b"tambo 1\nlogin=i@example.com\nfrom=i@example.com\nto=you@example.net they@example.net\n"
    b"remote=[2001:db8::7]:4711\nspf=0\n\n"
)
UNANSWERED = b"4.3.0 the policy service "
MOST = 506  # bytes of a reply's text


@pytest.fixture(scope="session", params=BUILDS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hook, compiled with the image's own options; the compiler is one that the tests need."""
    path = tmp_path_factory.mktemp("hook") / "post-data"
    compiler = start(ROOT / "hook/build.sh", *BUILDS[request.param], "-o", path)
    _, said = compiler.communicate(timeout=60)
    if compiler.returncode:
        pytest.fail(f"the hook does not compile; for a compiler: tools/compiler.sh\n{said!r}")
    return path


@dataclass(frozen=True)
class Verdict:
    status: int
    printed: bytes

    @property
    def is_put_off(self) -> bool:
        """Whether it is the one for want of an answer."""
        return (
            self.status == 75
            and self.printed.startswith(UNANSWERED)
            and self.printed.endswith(b"; try again in a minute\n")
            and self.printed.count(b"\n") == 1
        )


def read_all(client: socket.socket) -> bytes:
    chunks = []
    while chunk := client.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def answer_with(raw: bytes) -> Callable[[socket.socket], bytes]:
    """What a service does that reads all of a question, and answers."""

    def serve(client: socket.socket) -> bytes:
        heard = read_all(client)
        client.sendall(raw)
        return heard

    return serve


ACCEPT = answer_with(b"250 2.0.0 ok\n")


@dataclass
class Service:
    """Listens on a unix socket, and treats each hook as `serve` does; keeps what it returned."""

    path: Path
    serve: Callable[[socket.socket], bytes] = ACCEPT
    heard: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Service:
        self.path.unlink(missing_ok=True)
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(self.path))
        self._door.listen(16)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._door.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            with client, suppress(OSError):
                self.heard.append(self.serve(client))


def environment(
    path: Path, changed: Mapping[str, str | bytes] = MappingProxyType({})
) -> dict[bytes, bytes]:
    given: dict[str, str | bytes] = {**ENVELOPE, "TAMBO_POLICY": str(path), **changed}
    return {os.fsencode(name): os.fsencode(value) for name, value in given.items()}


def start(
    *argv: str | Path, env: Mapping[bytes, bytes] | None = None, **keys: Any
) -> subprocess.Popen[bytes]:
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(argv, env=env, **{**pipes, **keys})  # noqa: S603 (what is tested)


def finish(hook: subprocess.Popen[bytes], message: bytes = MESSAGE) -> Verdict:
    printed, checks = hook.communicate(message, timeout=20)
    assert not checks, "the checks found nothing"
    return Verdict(hook.returncode, printed)


def run(
    program: Path,
    path: Path,
    message: bytes = MESSAGE,
    changed: Mapping[str, str | bytes] = MappingProxyType({}),
) -> Verdict:
    return finish(start(program, env=environment(path, changed)), message)


def asked(program: Path, path: Path, raw: bytes, message: bytes = MESSAGE) -> Verdict:
    with Service(path, answer_with(raw)):
        return run(program, path, message)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.sock"


# What it says


def test_the_question_is_the_envelope_and_the_message_as_it_came(program: Path, path: Path) -> None:
    message = bytes(range(256)) * 5000
    with Service(path) as service:
        assert run(program, path, message) == Verdict(0, b"")
    assert service.heard == [PREAMBLE + message]


def test_an_empty_message_is_asked_about_too(program: Path, path: Path) -> None:
    with Service(path) as service:
        assert run(program, path, b"") == Verdict(0, b"")
    assert service.heard == [PREAMBLE]


def test_nothing_is_printed_for_what_is_taken_as_it_would_become_a_header(
    program: Path, path: Path
) -> None:
    assert asked(program, path, b"250 X-Evil: yes\n") == Verdict(0, b"")


def test_a_refusal_for_good_has_its_words(program: Path, path: Path) -> None:
    assert asked(program, path, b"554 5.7.1 not as j@example.com\n") == Verdict(
        20, b"5.7.1 not as j@example.com\n"
    )


def test_a_refusal_for_now_has_its_words(program: Path, path: Path) -> None:
    assert asked(program, path, b"451 4.7.1 room in 12 minutes\n") == Verdict(
        75, b"4.7.1 room in 12 minutes\n"
    )


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("5.7.1 ü € 😀".encode(), "5.7.1 ü € 😀".encode()),
        (b"5.7.1 a\rb\x1b[2Jc\x7f\0d\te", b"5.7.1 a?b?[2Jc??d?e"),
        (b"\xc2\x85 \xc0\xaf \xe0\x80\xaf \xed\xa0\x80 \xf8 \xe2\x82", b"?? ?? ??? ??? ? ??"),
        (b"5.7.1 " + b"x" * 3000, (b"5.7.1 " + b"x" * 3000)[:MOST]),
        (b"x" * (MOST - 1) + b"\xc3\xbc", b"x" * (MOST - 1)),
    ],
)  # fmt: skip
def test_the_words_are_one_short_line_without_controls(
    program: Path, path: Path, text: bytes, printed: bytes
) -> None:
    assert asked(program, path, b"554 " + text + b"\n") == Verdict(20, printed + b"\n")


# No answer


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\n", b"2", b"250", b"250\n", b"250 ", b"250 2.0.0 ok", b"250 2.0.0 ok\r",
        b"250-ok\n",
        b"2500 ok\n", b"251 ok\n", b"550 5.7.1 no\n", b" 250 ok\n", b"\n250 ok\n", b"\0250 ok\n",
        b"250 ok\n250 ok\n", b"250 ok\n554 no\n", b"554 5.7.1 no", b"554\n", b"451\n", b"OK\n",
        b"250 " + b"x" * 5000 + b"\n", b"554 " + b"x" * 5000, b"\xff" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_proper_answer_takes_nothing(program: Path, path: Path, raw: bytes) -> None:
    assert asked(program, path, raw).is_put_off


def test_without_a_service_nothing_is_taken(program: Path, path: Path) -> None:
    assert run(program, path).is_put_off
    for kind in ("incoming", "submission"):
        login = "" if kind == "incoming" else "i@example.com"
        assert run(program, path, changed={"AUTH_AS": login}).is_put_off


def test_a_dead_service_s_socket_takes_nothing(program: Path, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
    assert run(program, path).is_put_off


def test_where_too_many_wait_already_it_does_not(program: Path, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(path))
        since = time.monotonic()
        with waiting:
            assert run(program, path).is_put_off
        assert time.monotonic() - since < 2


@pytest.mark.parametrize("name", ["x" * 200, "missing/policy.sock", "file"])
def test_a_socket_that_cannot_be_takes_nothing(program: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    assert run(program, tmp_path / name).is_put_off


def hang_up(client: socket.socket) -> bytes:
    client.recv(10)
    return b""


def reset(client: socket.socket) -> bytes:
    """Closed with what was not read, at once."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return b""


@pytest.mark.parametrize("serve", [hang_up, reset])
@pytest.mark.parametrize("size", [10, 10_000_000])
def test_a_service_that_hangs_up_takes_nothing(
    program: Path, path: Path, serve: Callable[[socket.socket], bytes], size: int
) -> None:
    with Service(path, serve):
        assert run(program, path, b"x" * size).is_put_off


def test_a_service_that_says_nothing_is_waited_for_nine_seconds(program: Path, path: Path) -> None:
    """Also if it does not even read, or says half of an answer and goes on reading."""
    end = threading.Event()

    def wait(client: socket.socket) -> bytes:
        client.sendall(b"250 2.0.0 o")
        end.wait(15)
        return b""

    since = time.monotonic()
    with Service(path, wait):
        hooks = [start(program, env=environment(path)) for _ in range(2)]
        big = threading.Thread(target=hooks[0].communicate, args=(b"x" * 30_000_000,))
        big.start()
        printed, _ = hooks[1].communicate(MESSAGE, timeout=12)
        took = time.monotonic() - since
        big.join(5)
        end.set()
    assert [hook.returncode for hook in hooks] == [75, 75]
    assert (
        printed == b"4.3.0 the policy service does not answer (time-out); try again in a minute\n"
    )
    assert 8.9 < took < 10


def test_a_slow_service_is_heard(program: Path, path: Path) -> None:
    """In single bytes, both ways."""

    def serve(client: socket.socket) -> bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        heard = b""
        while chunk := client.recv(1000):
            heard += chunk
        for byte in b"554 5.7.1 no\n":
            client.sendall(bytes([byte]))
            time.sleep(0.005)
        return heard

    message = b"x" * 500_000
    with Service(path, serve) as service:
        assert run(program, path, message) == Verdict(20, b"5.7.1 no\n")
    assert service.heard == [PREAMBLE + message]


# Before it has the message


def early(raw: bytes) -> Callable[[socket.socket], bytes]:
    """What a service does that answers before it has read all."""

    def serve(client: socket.socket) -> bytes:
        heard = client.recv(100)
        client.sendall(raw)
        client.recv(1)  # until the hook has gone, or there is more
        return heard

    return serve


def test_a_refusal_that_comes_early_is_taken_at_once(program: Path, path: Path) -> None:
    with Service(path, early(b"554 5.3.4 too large\n")):
        assert run(program, path, b"x" * 30_000_000) == Verdict(20, b"5.3.4 too large\n")


def test_an_acceptance_that_comes_early_is_of_another_message(program: Path, path: Path) -> None:
    with Service(path, early(b"250 2.0.0 ok\n")):
        assert run(program, path, b"x" * 30_000_000).is_put_off


# What it is given


@pytest.mark.parametrize("variable", ENVELOPE)
@pytest.mark.parametrize("value", ["x\nlogin=i@example.com", "\n", "a\rb", "\x01", "a\tb", "\x7f"])
def test_a_control_character_cannot_add_a_line(
    program: Path, path: Path, variable: str, value: str
) -> None:
    with Service(path) as service:
        assert run(program, path, changed={variable: value}).is_put_off
    assert [text for text in service.heard if text] == []


@pytest.mark.parametrize("variable", ENVELOPE)
def test_an_envelope_with_a_part_missing_is_not_asked_about(
    program: Path, path: Path, variable: str
) -> None:
    environ = environment(path)
    del environ[variable.encode()]
    with Service(path) as service:
        assert finish(start(program, env=environ)).is_put_off
    assert [text for text in service.heard if text] == []


def test_a_hundred_long_recipients_fit_and_too_many_take_nothing(program: Path, path: Path) -> None:
    with Service(path):
        assert run(program, path, changed={"RCPT_TO": " ".join(["x" * 256] * 100)}) == Verdict(
            0, b""
        )
        assert run(program, path, changed={"RCPT_TO": "x" * 65_500}).is_put_off
        assert run(program, path, changed={"RCPT_TO": "x" * 100_000}).is_put_off


def test_a_message_that_cannot_be_read_is_not_taken(program: Path, path: Path) -> None:
    folder = os.open("/", os.O_RDONLY)
    try:
        with Service(path):
            hook = start(program, env=environment(path), stdin=folder)
            assert finish(hook, b"").is_put_off
    finally:
        os.close(folder)


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_without_a_standard_file_nothing_is_taken(program: Path, path: Path, closed: int) -> None:
    with Service(path):
        hook = start("/bin/sh", "-c", f'exec "$0" {closed}<&-', program, env=environment(path))
        assert finish(hook).status == 75


def test_a_refusal_is_one_though_nobody_reads_its_words(program: Path, path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with Service(path, answer_with(b"554 5.7.1 no\n")):
        hook = start(program, env=environment(path), stdout=write)
        assert finish(hook).status == 20
    os.close(write)


def test_stopped_and_continued_it_goes_on(program: Path, path: Path) -> None:
    hook: subprocess.Popen[bytes]
    started = threading.Event()

    def serve(client: socket.socket) -> bytes:
        heard = client.recv(1000)
        assert started.wait(5)
        for _ in range(5):
            hook.send_signal(signal.SIGSTOP)
            time.sleep(0.05)
            hook.send_signal(signal.SIGCONT)
            time.sleep(0.05)
        return heard + ACCEPT(client)

    with Service(path, serve) as service:
        hook = start(program, env=environment(path))
        started.set()
        assert finish(hook) == Verdict(0, b"")
    assert service.heard == [PREAMBLE + MESSAGE]


def test_the_size_of_a_message_is_nothing_to_it(program: Path, path: Path) -> None:
    """50 MB need the memory of 50 bytes."""

    def peak(message: bytes) -> int:
        """Kilobytes; the most that a process that was waited for has had (getrusage(2))."""
        code = (
            "import resource, subprocess, sys\n"
            "done = subprocess.run(sys.argv[1:], capture_output=True)\n"
            "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        hook = start(sys.executable, "-I", "-S", "-c", code, program, env=environment(path))
        status, size = map(int, finish(hook, message).printed.split())
        assert status == 0
        return size

    with Service(path) as service:
        assert peak(b"x" * 50_000_000) - peak(MESSAGE) < 500
    assert len(service.heard[0]) == len(PREAMBLE) + 50_000_000


# By chance, the same in each run


def test_answers_by_chance_are_understood_as_the_protocol_says(program: Path, path: Path) -> None:
    chance = random.Random(20261124)  # noqa: S311 (no secret)
    raws: list[bytes] = []
    for _ in range(1000):
        code = chance.choice(
            [b"250", b"250", b"554", b"554", b"451", b"550", b"25", b"\xff54", b""]
        )
        text = bytes(chance.choice(ALPHABET) for _ in range(chance.choice([0, 1, 3, 40, 600])))
        raws.append(
            code + chance.choice([b" ", b" ", b" ", b"-", b""]) + text
            + chance.choice([b"\n", b"\n", b"\n", b"", b"\r\n", b"\nx", b"\n\n"])
        )  # fmt: skip
    answers = iter(raws)
    taken = refused = 0
    with Service(path, lambda client: answer_with(next(answers))(client)):
        for raw in raws:
            found, expected = run(program, path), understood(raw)
            assert found == expected if expected else found.is_put_off, raw
            taken += found.status == 0
            refused += found.status == 20
    assert taken > 50
    assert refused > 50


ALPHABET = [*b"abc \r\t\0\x1b\x7f\x80\x85\xa0\xc2\xc3\xe0\xed\xf0\xf4\xff"]


def understood(raw: bytes) -> Verdict | None:
    """What comes of an answer; None for none. Not as the program does it: by Python's decoder."""
    line, newline, rest = raw.partition(b"\n")
    code, space, text = line[:3], line[3:4], line[4:]
    if not newline or rest or space != b" " or not text or code not in (b"250", b"554", b"451"):
        return None
    if code == b"250":
        return Verdict(0, b"")
    printed = b""
    while text:
        for size in (1, 2, 3, 4):
            with suppress(UnicodeDecodeError):
                char = text[:size].decode()
                if len(char) == 1 and not ("\x7f" <= char <= "\x9f" or char < " "):
                    shown = text[:size]
                    break
        else:
            size, shown = 1, b"?"
        if len(printed) + len(shown) > MOST:
            break
        printed += shown
        text = text[size:]
    return Verdict(20 if code == b"554" else 75, printed + b"\n")


def test_envelopes_by_chance_arrive_as_they_are_or_not_at_all(program: Path, path: Path) -> None:
    chance = random.Random(4711)  # noqa: S311 (no secret)
    taken = 0
    with Service(path) as service:
        for _ in range(800):
            values = {
                name: bytes(
                    chance.choice(b"abc@= \xc3\xbc\xff;\"'\\$`" + (b"\n\r\x01" if evil else b""))
                    for _ in range(chance.choice([0, 1, 5, 80]))
                )
                for name in ENVELOPE
                for evil in [chance.random() < 0.15]
            }
            service.heard.clear()
            found = run(program, path, MESSAGE, values)
            if any(byte < 32 or byte == 127 for value in values.values() for byte in value):
                assert found.is_put_off
                continue
            taken += 1
            assert found == Verdict(0, b"")
            [heard] = wait_until(lambda: service.heard, "it was heard", pause=0.001)
            preamble, _, message = heard.partition(b"\n\n")
            envelope = parse_preamble(preamble)
            assert message == MESSAGE
            assert os.fsencode(envelope.login) == values["AUTH_AS"]
            assert os.fsencode(envelope.sender) == values["MAIL_FROM"]
            assert b" ".join(map(os.fsencode, envelope.recipients)) == values["RCPT_TO"]
            assert envelope.spf == (values["SPF_PASS"] == b"1")
    assert taken > 100
