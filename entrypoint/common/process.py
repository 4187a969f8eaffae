"""The only starter of processes."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

_MAX_LINE = 4 << 20  # bytes of a line of a program's output
_FIRST_FD = 3  # sd_listen_fds(3): passed sockets start here
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # prctl(2)


def replace(argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Become another program."""
    os.execvpe(argv[0], list(argv), dict(environ))  # noqa: S606 (no shell, fixed arguments)


def spawn_with_sockets(
    argv: Sequence[str],
    environ: Mapping[str, str],
    sockets: Sequence[tuple[str, int]],
    stdout: int,
    stderr: int,
    last: Callable[[], None] = lambda: None,
) -> int:
    """Start a daemon that is given (name, descriptor) listening sockets; returns its PID.

    The protocol is systemd's (sd_listen_fds(3)): it needs the child's own PID in its environment,
    which no argument of subprocess can give. The child does `last` before it becomes the daemon,
    and dies with this process. Only for a process with one thread.
    """
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid:
        return pid
    try:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        # Out of the way first: a descriptor may stand where another has to go.
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for _, fd in sockets]
        for index, fd in enumerate(moved):
            os.dup2(fd, _FIRST_FD + index)
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        environment = {
            **environ,
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in sockets),
        }
        last()
        os.execve(argv[0], list(argv), environment)  # noqa: S606 (no shell, fixed arguments)
    finally:
        os._exit(127)


async def output_of(
    argv: Sequence[str], environ: Mapping[str, str], *, timeout: float, input: bytes = b""
) -> tuple[int, bytes]:
    """Run a program to its end; returns its status, 124 on time-out, and its standard output.
    `input` is all that it can read.

    For asyncio: it needs no thread where the kernel has pidfd_open(2) (Python 3.12).
    """
    child = await asyncio.create_subprocess_exec(
        *argv,
        env=dict(environ),
        stdin=asyncio.subprocess.PIPE if input else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        output, _ = await asyncio.wait_for(child.communicate(input or None), timeout)
    except TimeoutError:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        return 124, b""
    return child.returncode or 0, output


async def lines_of(
    argv: Sequence[str], environ: Mapping[str, str], *, timeout: float
) -> AsyncIterator[bytes]:
    """Run a program to its end, or for `timeout` seconds; gives its output line by line."""
    child = await asyncio.create_subprocess_exec(
        *argv,
        env=dict(environ),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_MAX_LINE,
    )
    assert child.stdout is not None  # noqa: S101 (a pipe was asked for)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while line := await child.stdout.readline():
                    yield line
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def run(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    timeout: float,
    on_line: Callable[[str], None],
) -> int:
    """Run a program to its end, its output line by line; returns its status, 124 on time-out.

    It has no input, the environment given and nothing else, and a process group of its own: on a
    time-out (seconds) all of it is killed. It dies with the thread that called this.
    """
    with subprocess.Popen(  # noqa: S603 (no shell, arguments are checked types)
        ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", *argv],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        expired = threading.Event()

        def kill() -> None:
            expired.set()
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

        timer = threading.Timer(timeout, kill)
        timer.start()
        try:
            assert child.stdout is not None  # noqa: S101 (a pipe was asked for)
            for line in child.stdout:
                on_line(line.rstrip("\n"))
            status = child.wait()
        finally:
            timer.cancel()
            if child.poll() is None:
                kill()
    return 124 if expired.is_set() else status


@dataclass(frozen=True)
class Answer:
    """How a program ended, what it put out, and what it said on standard error. `cut`: it put out
    more than was wanted, and was killed for it."""

    status: int
    output: bytes
    words: str
    cut: bool = False


_MAX_WORDS = 64 << 10  # bytes of standard error that are kept


def exchange(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    timeout: float,
    most: int,
    input: bytes = b"",
) -> Answer:
    """Run a program to its end with `input`; at most `most` bytes of output are kept in memory.

    Environment, process group and death are as for `run`; status 124 on time-out (seconds).
    """
    with subprocess.Popen(  # noqa: S603 (no shell, arguments are checked types)
        ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--", *argv],
        env=dict(environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        expired = threading.Event()

        def kill() -> None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

        def expire() -> None:
            expired.set()
            kill()

        def feed() -> None:
            assert child.stdin is not None  # noqa: S101 (a pipe was asked for)
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(input)

        words = bytearray()

        def listen() -> None:
            assert child.stderr is not None  # noqa: S101 (a pipe was asked for)
            while chunk := os.read(child.stderr.fileno(), 1 << 16):
                words.extend(chunk[: _MAX_WORDS - len(words)])

        others = [threading.Thread(target=work, daemon=True) for work in (feed, listen)]
        timer = threading.Timer(timeout, expire)
        output, cut = bytearray(), False
        assert child.stdout is not None  # noqa: S101 (a pipe was asked for)
        try:
            for thread in (*others, timer):
                thread.start()
            while not cut and (chunk := os.read(child.stdout.fileno(), 1 << 16)):
                output += chunk
                cut = len(output) > most
            if not cut:
                child.wait()
        finally:
            timer.cancel()
            kill()
            child.wait()
            for thread in others:
                thread.join()
    status = 124 if expired.is_set() else child.returncode
    return Answer(status, bytes(output), words.decode(errors="replace"), cut)
