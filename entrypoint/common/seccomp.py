"""Seccomp notifications: system calls of a child that this process answers (seccomp_unotify(2)).

The child installs a filter of its own before it becomes another program: the calls that a `Filter`
names stop until this process has answered, all others go on as if nothing were there. The filter
is no protection against that program: it serves to know, and to hand out, its connections. What
would lead around it (calls of 32-bit programs, io_uring) is not there for it (ENOSYS).

    child    install(filter)  → sends the listener over a socket, then execve(2)
    here     Listener.receive() → Call; Call is answered by go_on(), fail(), or hand_over()

A child has one listener for life, and so have all that it starts: another filter with a listener
is EBUSY. When the last copy of the listener is closed, the calls fail with ENOSYS.

What must never happen: a call that nobody answers (its thread stands still, though signals reach
it), and a look into the memory of a process that is not the one that called: so nothing is written
there unless the call was still waiting afterwards. Linux 5.14 or newer, x86-64 and ARM64.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38  # prctl(2)
_SECCOMP_SET_MODE_FILTER, _FLAG_NEW_LISTENER = 1, 1 << 3  # seccomp(2)
_RET_ALLOW, _RET_USER_NOTIF, _RET_ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
_ABSENT = _RET_ERRNO | errno.ENOSYS
_X32 = 0x40000000  # from here on: calls of the x32 ABI, which no kernel of ARM64's has
_FLAG_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_ADDFD_SETFD, _ADDFD_SEND = 1, 2

# struct seccomp_notif: id, pid, flags, and struct seccomp_data: nr, arch, ip, six arguments.
_NOTIF = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")  # id, val, error, flags
_ADDFD = struct.Struct("=QIIII")  # id, flags, srcfd, newfd, newfd_flags
_ID = struct.Struct("=Q")
_CHECK_WAIT = 2.0  # seconds
_CHECK_DESCRIPTOR = 255  # any that a process may have, and the child does not
_CHECK_NAME = b"any sixteen byte"


def _ioctl(direction: int, number: int, size: int) -> int:
    return (direction << 30) | (size << 16) | (ord("!") << 8) | number


_RECV, _SEND = _ioctl(3, 0, _NOTIF.size), _ioctl(3, 1, _RESPONSE.size)
_ID_VALID, _ADD = _ioctl(1, 2, _ID.size), _ioctl(1, 3, _ADDFD.size)

# BPF (linux/filter.h): load a word of seccomp_data, jump, return.
_LD, _JEQ, _JGE, _RET = 0x20, 0x15, 0x35, 0x06
_NR, _ARCH, _ARG0 = 0, 4, 16  # offsets in seccomp_data; both architectures are little-endian


@dataclass(frozen=True)
class Architecture:
    """A machine's name for itself in a filter (linux/audit.h), and its numbers of system calls."""

    audit: int
    seccomp: int
    accept: int
    accept4: int
    close: int
    connect: int
    io_uring_setup: int = 425


_ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, seccomp=317, accept=43, accept4=288, close=3, connect=42),
    "aarch64": Architecture(
        0xC00000B7, seccomp=277, accept=202, accept4=242, close=57, connect=203
    ),
}


def architecture() -> Architecture:
    """Of this machine. Raises OSError (ENOSYS) if its numbers are not known here."""
    found = _ARCHITECTURES.get(platform.machine())
    if found is None:
        raise OSError(errno.ENOSYS, f"nothing is known of system calls on {platform.machine()}")
    return found


@dataclass(frozen=True)
class Filter:
    """Which calls are told: those of `calls`, and close(2) of descriptors from `closes_from` on."""

    calls: Sequence[int]
    closes_from: int

    def program(self, machine: Architecture) -> list[tuple[int, int, int, int]]:
        """BPF: code, jump if true, jump if false, value."""
        told = [(_JEQ, 0, 1, number) for number in self.calls]
        lines = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, machine.audit), (_RET, 0, 0, _ABSENT)]
        lines += [(_LD, 0, 0, _NR), (_JGE, 0, 1, _X32), (_RET, 0, 0, _ABSENT)]
        lines += [(_JEQ, 0, 1, machine.io_uring_setup), (_RET, 0, 0, _ABSENT)]
        for line in told:
            lines += [line, (_RET, 0, 0, _RET_USER_NOTIF)]
        lines += [
            (_JEQ, 1, 0, machine.close),
            (_RET, 0, 0, _RET_ALLOW),
            (_LD, 0, 0, _ARG0),
            (_JGE, 0, 1, self.closes_from),
            (_RET, 0, 0, _RET_USER_NOTIF),
            (_RET, 0, 0, _RET_ALLOW),
        ]
        return lines


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_writev.argtypes = (
    ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong,
)  # fmt: skip
_libc.process_vm_writev.restype = ctypes.c_ssize_t
_libc.process_vm_readv.argtypes = _libc.process_vm_writev.argtypes
_libc.process_vm_readv.restype = ctypes.c_ssize_t


def _fail(what: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)


def install(wanted: Filter) -> int:
    """Filter this process from here on; returns the listener's descriptor, which execve(2) closes.

    It cannot be taken back. Also sets no-new-privileges. Raises OSError.
    """
    machine = architecture()
    lines = wanted.program(machine)
    instructions = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), instructions)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        _fail("prctl")
    fd = int(
        _libc.syscall(
            machine.seccomp, _SECCOMP_SET_MODE_FILTER, _FLAG_NEW_LISTENER, ctypes.byref(program)
        )
    )
    if fd < 0:
        _fail("seccomp")
    return fd


def install_and_send(wanted: Filter, to: socket.socket) -> None:
    """`install`, and the listener to who holds the other end of `to`; or the reason why not.

    For a child that has been forked and becomes another program now. Until then it has a copy
    itself, so its calls would wait for ever if nobody answered.
    """
    try:
        fd = install(wanted)
    except OSError as error:
        to.send(str(error.errno or errno.EINVAL).encode())
        return
    socket.send_fds(to, [b"0"], [fd])


def receive_listener(source: socket.socket, seconds: float) -> Listener:
    """What `install_and_send` sent. Raises OSError: the child's reason, or that nothing came."""
    source.settimeout(seconds)
    words, fds, _, _ = socket.recv_fds(source, 16, 1)
    if fds:
        return Listener(fds[0])
    number = int(words) if words.isdigit() else errno.EPIPE
    raise OSError(number, os.strerror(number), "seccomp")


@dataclass(frozen=True)
class Call:
    """A system call that waits. `thread` is who called (a thread's number), in this namespace."""

    id: int
    thread: int
    number: int
    arguments: tuple[int, int, int, int, int, int]


class Listener:
    """The side that answers. Not safe for several threads."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_inheritable(fd, False)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._buffer = bytearray(_NOTIF.size)
        self._zeros = bytes(_NOTIF.size)

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def receive(self) -> Call | None:
        """The next call that waits; None if there is none just now.

        Raises EOFError when all that could call have ended.
        """
        while True:
            found = self._poll.poll(0)
            if not found:
                return None
            if not found[0][1] & select.POLLIN:
                raise EOFError
            self._buffer[:] = self._zeros  # the kernel insists
            try:
                fcntl.ioctl(self.fd, _RECV, self._buffer)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue  # it was interrupted before it could be read
                raise
            id_, thread, _, number, _, _, *arguments = _NOTIF.unpack(self._buffer)
            one, two, three, four, five, six = arguments
            return Call(id_, thread, number, (one, two, three, four, five, six))

    def go_on(self, call: Call) -> None:
        """The kernel does what was asked for, as if nobody had been told."""
        self._send(_RESPONSE.pack(call.id, 0, 0, _FLAG_CONTINUE))

    def fail(self, call: Call, number: int) -> None:
        """The call returns this error (errno)."""
        self._send(_RESPONSE.pack(call.id, 0, -number, 0))

    def _send(self, response: bytes) -> None:
        try:
            fcntl.ioctl(self.fd, _SEND, response)
        except OSError as error:
            if error.errno != errno.ENOENT:  # a signal came first, or the end
                raise

    def hand_over(self, call: Call, fd: int, number: int) -> bool:
        """The call returns `number`, which is a copy of our `fd` there, closed on execve(2).

        Whatever `number` was there is closed. False if the call was interrupted: nothing was handed
        over. Raises OSError.
        """
        asked = _ADDFD.pack(call.id, _ADDFD_SETFD | _ADDFD_SEND, fd, number, os.O_CLOEXEC)
        try:
            fcntl.ioctl(self.fd, _ADD, asked)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                return False
            raise
        return True

    def is_waiting(self, call: Call) -> bool:
        """Whether the call has neither been answered nor interrupted."""
        try:
            fcntl.ioctl(self.fd, _ID_VALID, _ID.pack(call.id))
        except OSError:
            return False
        return True


def check() -> None:
    """Try all of it on a child that accepts one connection. Raises OSError if it cannot be done.

    Only for a process with one thread.
    """
    machine = architecture()
    base = _CHECK_DESCRIPTOR
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as door:
        door.bind(("127.0.0.1", 0))
        door.listen(1)
        pid = os.fork()
        if not pid:
            try:
                # What was root once is shown to nobody, until it becomes another program.
                _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
                install_and_send(Filter((machine.accept4,), base), theirs)
                status = _try_accept(machine, door.fileno(), base)
            finally:
                os._exit(status)
        theirs.close()
        try:
            listener = receive_listener(ours, _CHECK_WAIT)
            try:
                _answer_once(listener, base)
            finally:
                listener.close()
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(pid, 0)
    if status:
        raise OSError(errno.EPROTO, "a connection that was handed over did not arrive")


def _try_accept(machine: Architecture, door: int, wanted: int) -> int:
    """In the child of `check`: its exit status."""
    name, length = ctypes.create_string_buffer(len(_CHECK_NAME)), ctypes.c_uint(len(_CHECK_NAME))
    number = _libc.syscall(machine.accept4, door, name, ctypes.byref(length), 0)
    return 0 if number == wanted and name.raw == _CHECK_NAME else 1


def _answer_once(listener: Listener, number: int) -> None:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.poll(_CHECK_WAIT * 1000)
    call = listener.receive()
    if call is None:
        raise OSError(errno.ETIMEDOUT, "a call of the child was not told")
    room = int.from_bytes(read_memory(call.thread, call.arguments[2], 4), "little")
    write_memory(call.thread, call.arguments[1], _CHECK_NAME[:room])
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as any_socket:
        if not listener.hand_over(call, any_socket.fileno(), number):
            raise OSError(errno.EINTR, "a call of the child was interrupted")


def write_memory(pid: int, address: int, content: bytes) -> None:
    """Write into another process's memory. Raises OSError.

    Whoever calls must know that the process is still the one that is meant: see
    Listener.is_waiting.
    """
    local = _Vector(ctypes.cast(ctypes.c_char_p(content), ctypes.c_void_p).value, len(content))
    remote = _Vector(address, len(content))
    written = _libc.process_vm_writev(
        pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0
    )
    if written != len(content):
        _fail("process_vm_writev")


def read_memory(pid: int, address: int, size: int) -> bytes:
    """Read another process's memory. Raises OSError."""
    buffer = ctypes.create_string_buffer(size)
    local, remote = _Vector(ctypes.addressof(buffer), size), _Vector(address, size)
    if _libc.process_vm_readv(pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0) < 0:
        _fail("process_vm_readv")
    return buffer.raw
