"""The filter on a real child, whose system calls this process answers."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from entrypoint.common import seccomp
from entrypoint.common.seccomp import Call, Filter, Listener

BASE = 300  # of the child's descriptors that are told when they are closed
WAIT = 5000  # milliseconds


@dataclass
class Child:
    pid: int
    listener: Listener
    door: socket.socket

    def call(self) -> Call:
        """The next that it makes; fails the test if none comes."""
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        assert poll.poll(WAIT), "the child called"
        call = self.listener.receive()
        assert call is not None
        return call

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def filtered(does: Callable[[socket.socket], int]) -> Iterator[Child]:
    """A child that runs `does` with a listening socket; what that returns is its exit status."""
    machine = seccomp.architecture()
    wanted = Filter((machine.accept, machine.accept4), BASE)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"\0tambo-test-seccomp-{os.getpid()}")
        door.listen(1)
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            status = 99
            try:
                seccomp.install_and_send(wanted, theirs)
                status = does(door)
            finally:
                os._exit(status)
        with ours, theirs:
            listener = seccomp.receive_listener(ours, 5.0)
        try:
            yield Child(pid, listener, door)
        finally:
            listener.close()
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def answer_with_name(child: Child, call: Call, path: bytes) -> None:
    """The peer's name: a struct sockaddr_un."""
    name = struct.pack("=H", socket.AF_UNIX) + path
    seccomp.write_memory(call.thread, call.arguments[1], name)
    seccomp.write_memory(call.thread, call.arguments[2], struct.pack("=I", len(name)))
    assert child.listener.is_waiting(call)


def test_machine_can_watch_connections() -> None:
    seccomp.check()


def test_child_gets_the_connection_that_is_handed_over() -> None:
    def serve(door: socket.socket) -> int:
        connection, address = door.accept()
        connection.sendall(f"{connection.fileno()} {address!r}".encode())
        connection.detach()  # or its close would be told
        return 0

    with filtered(serve) as child:
        call = child.call()
        assert call.number in (seccomp.architecture().accept, seccomp.architecture().accept4)
        assert call.arguments[0] == child.door.fileno()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                answer_with_name(child, call, b"/peer")
                assert child.listener.hand_over(call, theirs.fileno(), BASE + 7)
            assert ours.recv(100).decode() == f"{BASE + 7} '/peer'"
        assert child.status() == 0


def test_close_of_a_connection_is_told_before_it_happens() -> None:
    def serve(door: socket.socket) -> int:
        os.close(os.open("/dev/null", os.O_RDONLY))  # low: nobody is told
        connection, _ = door.accept()
        connection.close()
        return 0

    with filtered(serve) as child:
        call = child.call()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            answer_with_name(child, call, b"/peer")
            child.listener.hand_over(call, theirs.fileno(), BASE)
            call = child.call()
            assert (call.number, call.arguments[0]) == (seccomp.architecture().close, BASE)
            assert Path(f"/proc/{child.pid}/fd/{BASE}").exists(), "it waits for the answer"
            theirs.close()
            child.listener.go_on(call)
            assert ours.recv(1) == b"", "and with both copies gone, the connection is"
        assert child.status() == 0


def test_call_that_goes_on_is_done_by_the_kernel() -> None:
    def serve(door: socket.socket) -> int:
        connection, _ = door.accept()
        return 0 if connection.recv(2) == b"hi" else 1

    with filtered(serve) as child, socket.socket(socket.AF_UNIX) as peer:
        peer.connect(child.door.getsockname())
        child.listener.go_on(child.call())
        peer.sendall(b"hi")
        assert child.status() == 0


def test_call_can_be_given_an_error() -> None:
    def serve(door: socket.socket) -> int:
        try:
            door.accept()
        except ConnectionAbortedError:
            return 0
        return 1

    with filtered(serve) as child:
        child.listener.fail(child.call(), errno.ECONNABORTED)
        assert child.status() == 0


def test_signal_takes_back_a_call_and_nothing_is_handed_over() -> None:
    def serve(door: socket.socket) -> int:
        signal.signal(signal.SIGHUP, lambda *_: None)  # Python asks again after it
        connection, _ = door.accept()
        connection.detach()
        return 0

    with filtered(serve) as child:
        first = child.call()
        os.kill(child.pid, signal.SIGHUP)
        second = child.call()
        assert second.id != first.id
        assert not child.listener.is_waiting(first)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            assert not child.listener.hand_over(first, theirs.fileno(), BASE)
            answer_with_name(child, second, b"/peer")
            assert child.listener.hand_over(second, theirs.fileno(), BASE)
        assert child.status() == 0


def test_end_of_the_child_is_the_end_of_the_calls() -> None:
    with filtered(lambda _door: 0) as child:
        child.status()
        with pytest.raises(EOFError):
            child.listener.receive()


def test_nothing_to_receive_is_none() -> None:
    def serve(door: socket.socket) -> int:
        door.accept()
        return 0

    with filtered(serve) as child:
        child.call()
        assert child.listener.receive() is None


def test_child_that_cannot_be_filtered_says_why() -> None:
    machine = seccomp.architecture()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if not pid:
            try:
                seccomp.install(Filter((machine.accept4,), BASE))
                # A second listener in the same process is refused.
                seccomp.install_and_send(Filter((machine.accept4,), BASE), theirs)
            finally:
                os._exit(0)
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            seccomp.receive_listener(ours, 5.0)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_what_would_lead_around_the_filter_is_not_there(name: str) -> None:
    machine = seccomp._ARCHITECTURES[name]
    program = Filter((machine.connect,), BASE).program(machine)
    absent = 0x00050000 | errno.ENOSYS
    i386, arm = 0x40000003, 0x40000028
    for audit in (i386, arm):
        assert run(program, audit, machine.connect, 0) == absent
    assert run(program, machine.audit, 0x40000000 | machine.connect, 0) == absent  # x32
    assert run(program, machine.audit, machine.io_uring_setup, 0) == absent
    assert run(program, machine.audit, machine.connect, 0) == seccomp._RET_USER_NOTIF


@pytest.mark.parametrize("name", ["x86_64", "aarch64"])
def test_filter_tells_accept_and_close_of_connections_alone(name: str) -> None:
    machine = seccomp._ARCHITECTURES[name]
    program = Filter((machine.accept, machine.accept4), BASE).program(machine)
    told = seccomp._RET_USER_NOTIF
    assert run(program, machine.audit, machine.accept, 3) == told
    assert run(program, machine.audit, machine.accept4, 3) == told
    assert run(program, machine.audit, machine.close, BASE) == told
    assert run(program, machine.audit, machine.close, BASE + 5000) == told
    assert run(program, machine.audit, machine.close, BASE - 1) == seccomp._RET_ALLOW
    other = {machine.accept, machine.accept4, machine.close, machine.io_uring_setup}
    for number in set(range(450)) - other:
        assert run(program, machine.audit, number, BASE) == seccomp._RET_ALLOW


def run(program: list[tuple[int, int, int, int]], audit: int, number: int, argument: int) -> int:
    """What the kernel would make of it: an interpreter of the four instructions that it has."""
    data = struct.pack("=iIQ6Q", number, audit, 0, argument, 0, 0, 0, 0, 0)
    accumulator, at = 0, 0
    for _ in range(len(program)):
        code, true, false, value = program[at]
        at += 1
        if code == seccomp._RET:
            return value
        if code == seccomp._LD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == seccomp._JEQ:
            at += true if accumulator == value else false
        else:
            assert code == seccomp._JGE
            at += true if accumulator >= value else false
    pytest.fail("it does not end")
