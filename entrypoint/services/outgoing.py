"""Outgoing connections: chasquid's connect(2) to port 25 is led to the gate (services/gate.py).

chasquid runs under a seccomp filter (common/seccomp.py), and its connect(2) waits for this process.
A call to TCP port 25 gets the address of a listener of the gate's on 127.0.0.1 written over its
own, and goes on: chasquid is connected at once, and the greeting comes when there is a place. All
other calls go on at once, as they are.

The gate answers for each address over a unix socket, a JSON object a line:

    here → gate    {"connect": "198.51.100.7"}            somebody wants to reach it
                   {"event": {…}}                         what chasquid's log says of a delivery
                   {"ping": 1}
    gate → here    {"address": …, "port": 41234}          its listener; not known yet to be reached
                   {"address": …, "alive": true}          it was reached
                   {"address": …, "errno": 113}           it cannot be reached: so say to chasquid
                   {"address": …, "gone": true}           ask again
                   {"pong": 1}

An address that was never reached is tried by the gate while the call waits, so that chasquid goes
on to the next (IPv4 after IPv6, RFC 8305) as it would without the gate. A call that waits is a
thread of chasquid's, so few may, and not for long.

What must never happen: a call that nobody answers; or that mail stands still for want of the gate:
without it calls go on unchanged after two seconds, mail flows unpaced, and an alarm says so.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common.seccomp import Call, Listener, read_memory, write_memory

SMTP = 25
_AWAY = 2.0  # seconds without the gate for which calls wait
_CHECK = 5.0  # seconds for which a call waits for an address to be reached
_MOST_CHECKED = 32  # calls that wait for that at once
_MOST = 256  # calls that wait in all: each is a thread, and the container has 2,048
_MOST_ADDRESSES = 8192
_TURN = 0.1  # seconds between looks at who waits
_RETRY = 0.2  # seconds between tries to reach the gate
_PING = 1.0  # seconds
_SILENCE = 3.0  # seconds without a word, after which the gate counts as gone
_REPORT = 60.0  # seconds between lines about mail that leaves unpaced
_MOST_UNSENT = 4 << 20  # bytes of events that wait for the gate
_SOCKADDR = 28  # bytes of the longest that matters (struct sockaddr_in6)
_LOOPBACK = bytes((127, 0, 0, 1))
_MAPPED = bytes(10) + b"\xff\xff"  # an IPv4 address in an IPv6 socket (RFC 4291 2.5.5.2)
_TOLD = (Kind.RECEIVED, Kind.SENT, Kind.DEFERRED, Kind.BOUNCED)


def destination(name: bytes) -> str | None:
    """The address of a struct sockaddr whose port is 25; None for any other."""
    if len(name) < 16:  # struct sockaddr_in
        return None
    family = int.from_bytes(name[:2], "little")
    if int.from_bytes(name[2:4], "big") != SMTP:
        return None
    if family == socket.AF_INET:
        return socket.inet_ntop(family, name[4:8])
    if family == socket.AF_INET6 and len(name) >= 24:  # up to the address's end
        found = IPv6Address(name[8:24])
        return str(found.ipv4_mapped or found)
    return None


def led(name: bytes, port: int) -> bytes:
    """The same struct sockaddr with 127.0.0.1 and `port` in it."""
    head, number = name[:2], struct.pack("!H", port)
    if int.from_bytes(head, "little") == socket.AF_INET:
        return head + number + _LOOPBACK + name[8:]
    return head + number + name[4:8] + _MAPPED + _LOOPBACK + name[24:]


@dataclass
class _Address:
    """What the gate said of one. `port` 0: nothing yet. `alive` and `errno` as it says."""

    port: int = 0
    alive: bool = False
    errno: int = 0


@dataclass(frozen=True)
class _Waiting:
    """A call, the struct sockaddr that it came with, and since when it waits (monotonic)."""

    listener: Listener
    call: Call
    name: bytes
    address: str
    since: float


@dataclass
class Outgoing:
    """For one asyncio loop. `ipv6`: whether anything may leave by it."""

    path: Path
    ipv6: bool
    log: Callable[[str, str], None]
    clock: Callable[[], float] = time.monotonic

    _gate: asyncio.StreamWriter | None = None
    _since: float = field(default_factory=time.monotonic)  # when the gate came or went
    _heard: float = 0.0
    _addresses: dict[str, _Address] = field(default_factory=dict)
    _waiting: list[_Waiting] = field(default_factory=list)
    _unpaced: int = 0  # calls that went on unchanged, in all
    _reported: int = 0
    _next_report: float = 0.0
    _refused_ipv6: int = 0

    # What chasquid asks of the kernel

    def called(self, listener: Listener, call: Call) -> None:
        """Answer a connect(2), now or soon."""
        _, pointer, length, *_ = call.arguments
        try:
            name = read_memory(call.thread, pointer, min(length & 0xFFFFFFFF, _SOCKADDR))
        except OSError:
            name = b""  # it has ended, or the kernel will say that the address is none
        address = destination(name)
        if address is None:
            listener.go_on(call)
        elif ":" in address and not self.ipv6 and address != "::1":
            self._refused_ipv6 += 1
            listener.fail(call, errno.ENETUNREACH)
        else:
            one = _Waiting(listener, call, name, address, self.clock())
            if not self._answer(one):
                self._waiting.append(one)

    def forget(self) -> None:
        """chasquid has ended, and its calls with it."""
        self._waiting.clear()

    def _answer(self, one: _Waiting) -> bool:
        """Whether the call was answered: it waits no longer than there is something to wait for."""
        now = self.clock()
        crowded = len(self._waiting) >= _MOST
        if self._gate is None:
            if now - max(self._since, one.since) < _AWAY and not crowded:
                return False
            return self._go_on(one)
        known = self._known(one.address)
        if known.errno:
            one.listener.fail(one.call, known.errno)
            return True
        if not known.port:
            return self._go_on(one) if crowded or now - one.since >= _AWAY else False
        waits = not known.alive and now - one.since < _CHECK
        if waits and len(self._waiting) < _MOST_CHECKED:
            return False
        return self._lead(one, known.port)

    def _known(self, address: str) -> _Address:
        known = self._addresses.get(address)
        if known is None:
            if len(self._addresses) >= _MOST_ADDRESSES:
                self._addresses.pop(next(iter(self._addresses)))
            known = self._addresses[address] = _Address()
            self._tell({"connect": address})
        return known

    def _lead(self, one: _Waiting, port: int) -> bool:
        try:
            if one.listener.is_waiting(one.call):
                write_memory(one.call.thread, one.call.arguments[1], led(one.name, port))
        except OSError as error:
            if error.errno == errno.ESRCH:  # it has just ended
                return True
            return self._go_on(one)
        one.listener.go_on(one.call)
        return True

    def _go_on(self, one: _Waiting) -> bool:
        """To the receiver itself, at once, however many do."""
        self._unpaced += 1
        one.listener.go_on(one.call)
        return True

    def _look(self) -> None:
        """Answer what can be answered now."""
        left, self._waiting = self._waiting, []
        for one in left:
            with suppress(OSError):  # its process has ended
                if not self._answer(one):
                    self._waiting.append(one)

    # The gate

    async def run(self) -> None:
        """Keep in touch with the gate, until cancelled."""
        answers = asyncio.create_task(self._look_after())
        try:
            while True:
                # Also what the gate should not say: the next one may be better.
                with suppress(OSError, ValueError, TimeoutError, TypeError, AttributeError):
                    await self._talk()
                self._lost()
                await asyncio.sleep(_RETRY)
        finally:
            answers.cancel()
            self._lost()

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_TURN)
            now = self.clock()
            if self._gate and now - self._heard > _SILENCE:
                self._gate.close()  # it is stopped, or hangs
                self._lost()
            if self._waiting:
                self._look()
            if self._unpaced > self._reported and now >= self._next_report:
                self._next_report = now + _REPORT
                self.log("smtp", f"error: {self._unpaced - self._reported} connections went out "
                         "unpaced, since the gate does not answer. Mail flows; receivers may "
                         "refuse so many at once.")  # fmt: skip
                self._reported = self._unpaced

    def _lost(self) -> None:
        if self._gate:
            self._gate.close()
            self._gate = None
            self._since = self.clock()
        self._addresses.clear()

    async def _talk(self) -> None:
        async with asyncio.timeout(_SILENCE):
            reader, writer = await asyncio.open_unix_connection(str(self.path))
            try:
                writer.write(b'link {"ping": 1}\n')
                await reader.readline()  # a gate that is stopped is connected to, and says nothing
            except BaseException:
                writer.close()
                raise
        self._gate, self._since = writer, self.clock()
        self._heard = self.clock()
        pings = asyncio.create_task(self._ping())
        try:
            self._look()
            while line := await reader.readline():
                self._heard = self.clock()
                self._heed(json.loads(line))
        finally:
            pings.cancel()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_PING)
            self._tell({"ping": 1})

    def _heed(self, said: dict[str, Any]) -> None:
        address = str(said.get("address", ""))
        if not address:
            return
        if said.get("gone"):
            self._addresses.pop(address, None)
        else:
            port = int(said.get("port", 0))
            known = self._addresses.setdefault(address, _Address())
            known.port = port or known.port
            known.alive = bool(said.get("alive", known.alive))
            known.errno = int(said.get("errno", 0))
        self._look()

    def _tell(self, content: dict[str, Any]) -> None:
        if self._gate and self._gate.transport.get_write_buffer_size() < _MOST_UNSENT:
            self._gate.write(json.dumps(content).encode() + b"\n")

    def told(self, event: Event) -> None:
        """An event of chasquid's log, for the gate."""
        if self._gate and event.kind in _TOLD:
            self._tell({"event": event.to_json()})

    def status(self) -> dict[str, Any]:
        """`gate`: whether it answers; `seconds` since when; calls that went `unpaced`, in all."""
        return {
            "gate": self._gate is not None,
            "seconds": round(self.clock() - self._since, 1),
            "waiting": len(self._waiting),
            "unpaced": self._unpaced,
            "ipv6_refused": self._refused_ipv6,
        }
