"""The only starter of processes, with real ones."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from entrypoint.common import process
from tests.unit.kit import ends, forked

SH = "/bin/sh"
# What a program is given, as it sees it itself.
REPORT = """
import json, os, sys
fds = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        pass  # the listing's own
status = dict(line.split(":\\t") for line in open("/proc/self/status") if ":\\t" in line)
found = {"pid": os.getpid(), "environ": dict(os.environ), "fds": fds, "status": status}
json.dump(found, sys.stdout)
sys.stderr.write("to stderr\\n")
"""


@contextmanager
def spawned(
    argv: Sequence[str],
    environ: Mapping[str, str] | None = None,
    sockets: Sequence[tuple[str, int]] = (),
) -> Iterator[tuple[int, int, int]]:
    """The child's PID, and the reading ends of its output."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    with warnings.catch_warnings():
        # pytest may have threads; the child uses none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = process.spawn_with_sockets(argv, environ or {}, sockets, out_write, err_write)
    for fd in (out_write, err_write):
        os.close(fd)
    try:
        yield pid, out_read, err_read
    finally:
        for fd in (out_read, err_read):
            os.close(fd)


def read_all(fd: int) -> str:
    found = b""
    while True:
        assert select.select([fd], [], [], 10)[0], "it says nothing and does not end"
        piece = os.read(fd, 65536)
        if not piece:
            return found.decode()
        found += piece


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[list[tuple[str, socket.socket]]]:
    made = []
    for name in ("smtp", "smtp", "submission"):
        made.append((name, socket.socket(socket.AF_UNIX)))
        made[-1][1].bind(str(tmp_path / f"s{len(made)}"))
        made[-1][1].listen()
    yield made
    for _, item in made:
        item.close()


def inheritable() -> set[str]:
    """Descriptors that this process was itself started with: the tests' runner has some."""
    found = set()
    for path in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            if os.get_inheritable(int(path.name)):
                found.add(path.name)
    return found


def test_what_a_daemon_is_given(
    listeners: list[tuple[str, socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAMBO_SECRET", "s3cret")
    monkeypatch.setenv("LISTEN_FDS", "9")
    sockets = [(name, item.fileno()) for name, item in listeners]
    argv = [sys.executable, "-I", "-S", "-c", REPORT]
    with spawned(argv, {"A": "b c", "LC_ALL": "C.UTF-8"}, sockets) as (pid, out, err):
        found, errors = json.loads(read_all(out)), read_all(err)
        assert status_of(pid) == 0
    assert errors == "to stderr\n"
    assert found["pid"] == pid
    assert found["environ"] == {
        "A": "b c",
        "LC_ALL": "C.UTF-8",
        "LISTEN_PID": str(pid),  # sd_listen_fds(3): meant for this very process
        "LISTEN_FDS": "3",
        "LISTEN_FDNAMES": "smtp:smtp:submission",
    }
    inodes = [os.fstat(item.fileno()).st_ino for _, item in listeners]
    assert [found["fds"][number] for number in "345"] == [f"socket:[{it}]" for it in inodes]
    assert set(found["fds"]) <= {*"012345", *inheritable()}, "none of ours is left"
    status = {name: text.strip() for name, text in found["status"].items()}
    assert status["NoNewPrivs"] == "1"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert not int(status["SigIgn"], 16) >> (number - 1) & 1, number


def test_descriptors_that_stand_where_others_have_to_go(
    listeners: list[tuple[str, socket.socket]],
) -> None:
    """Sockets passed in the order 4, 3 must not overwrite each other."""

    def work() -> None:
        ends = [os.dup(item.fileno()) for _, item in listeners[:2]]
        wanted = [os.fstat(fd).st_ino for fd in ends]
        high = [os.dup2(fd, number) for fd, number in zip(ends, (204, 203), strict=True)]
        os.dup2(high[0], 4)
        os.dup2(high[1], 3)
        sockets = [("a", 4), ("b", 3)]
        script = "readlink /proc/$$/fd/3; readlink /proc/$$/fd/4"
        with spawned([SH, "-c", script], {"PATH": "/usr/bin:/bin"}, sockets) as (pid, out, _):
            assert read_all(out).split() == [f"socket:[{inode}]" for inode in wanted]
            assert status_of(pid) == 0

    assert forked(work) == 0


def test_a_program_that_is_not_there() -> None:
    with spawned(["/no/such/program"]) as (pid, out, _):
        assert read_all(out) == ""
        assert status_of(pid) == 127


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    """However that dies: a chasquid that is left behind holds the ports and the queue."""
    number = tmp_path / "pid"
    ready, told = os.pipe()

    def parent() -> None:
        with spawned([SH, "-c", "trap '' TERM HUP INT; echo up; sleep 100 & wait"]) as (
            pid,
            out,
            _,
        ):
            os.read(out, 3)
            number.write_text(str(pid))
            os.write(told, b"x")
            signal.pause()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        holder = os.fork()
    if holder == 0:
        try:
            parent()
        finally:
            os._exit(99)
    assert select.select([ready], [], [], 10)[0]
    pid = int(number.read_text())
    watch = os.pidfd_open(pid)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        assert select.select([watch], [], [], 10)[0], "it outlives its parent"
    finally:
        for fd in (watch, ready, told):
            os.close(fd)


def test_it_may_be_ended(listeners: list[tuple[str, socket.socket]]) -> None:
    """Signals that Python ignores are not ignored there."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with spawned([SH, "-c", "echo up; exec sleep 100"], {"PATH": "/usr/bin:/bin"}) as child:
            pid, out, _ = child
            assert os.read(out, 3) == b"up\n"
            os.kill(pid, signal.SIGTERM)
            assert ends(pid)
            assert status_of(pid) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert listeners[0][1].fileno() >= 0, "and our sockets are still ours"


def test_becoming_another_program(tmp_path: Path) -> None:
    """The same process, with the environment given and no other."""
    out = tmp_path / "out"

    def work() -> None:
        script = f"import os; open({str(out)!r}, 'w').write(f'{{os.getpid()}} {{os.environ}}')"
        (tmp_path / "pid").write_text(str(os.getpid()))
        process.replace([sys.executable, "-S", "-c", script], {"ONLY": "this"})

    assert forked(work) == 0
    pid, _, environ = out.read_text().partition(" ")
    assert pid == (tmp_path / "pid").read_text()
    assert "'ONLY': 'this'" in environ
    assert "HOME" not in environ


# Exchanges: input in, output back


def test_an_exchange_gives_input_and_keeps_output_apart() -> None:
    answer = process.exchange(
        [SH, "-c", 'cat; echo "$A" >&2; exit 3'],
        {"A": "b\u00e9"},
        timeout=10,
        most=2,
        input=b"\0\xff",
    )
    assert (answer.status, answer.output, answer.words) == (3, b"\0\xff", "b\u00e9\n")


def test_an_exchange_that_reads_nothing_is_no_error() -> None:
    answer = process.exchange([SH, "-c", "exit 0"], {}, timeout=10, most=0, input=b"x" * 1_000_000)
    assert answer.status == 0


def test_an_exchange_that_does_not_end_is_killed_with_all_its_children() -> None:
    answer = process.exchange(
        [SH, "-c", "sleep 60 & echo $!; wait"], {"PATH": "/usr/bin:/bin"}, timeout=0.5, most=100
    )
    assert answer.status == 124
    with suppress(ProcessLookupError):  # it may be gone already
        assert ends(int(answer.output))


def test_an_exchange_that_puts_out_more_than_is_wanted_is_killed() -> None:
    answer = process.exchange(
        [SH, "-c", "while :; do echo a lot; echo much >&2; done"], {}, timeout=30, most=100_000
    )
    assert answer.cut
    assert 100_000 < len(answer.output) < 300_000
    assert len(answer.words) <= 64 << 10
    enough = process.exchange([SH, "-c", "printf abc"], {}, timeout=30, most=3)
    assert (enough.status, enough.output, enough.cut) == (0, b"abc", False)
