"""The table of connections: which chasquid has, whose, since when, and how much came over each.

chasquid runs under a seccomp filter (common/seccomp.py). Its accept4(2) waits for this process,
which accepts on the same listening socket, decides by the peer's address, and hands the connection
over as a descriptor from `base` on, or refuses it. It keeps a copy of each, so that it can look at
it and end it; chasquid's close(2) of such a descriptor is told too, and the copy goes first. So the
table is exact. Without the filter (an old kernel, a profile that forbids it) chasquid accepts by
itself: mail flows, and nothing is bounded by address.

    RFC 5321 3.1 and 3.8: a server may greet with 421 and close.

What must never happen: that chasquid's accept4 returns an error, since chasquid ends on any; or
that a close is answered before the copy here is closed, since the peer would wait for the end.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import socket
import struct
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common import seccomp
from entrypoint.common.seccomp import Call, Listener
from entrypoint.policy.strangers import Strangers, network_of

_AT_ONCE = 64  # calls answered, or connections refused, before others get a turn
_TCP_ESTABLISHED = 1
_TCP_INFO_SIZE = 136  # bytes of struct tcp_info up to tcpi_bytes_received (linux/tcp.h)
_LAST_DATA_RECV, _BYTES_RECEIVED = 52, 128  # offsets in it: u32 in ms, u64
_MAX_LOGINS = 8192  # connections whose log-in is remembered when there is no table
_LOGIN_LIFE = 1260.0  # seconds; chasquid closes a connection after 20 minutes (server.go)
_UNKNOWN_USER = "local user does not exist"  # maillog's words (conn.go, RCPT)
_POLL = 0.05  # seconds between looks for a log line that may still be on its way
_POLLS = 4


def key_of(address: str, port: int) -> str:
    """A connection's peer as chasquid's log writes it, without a zone."""
    host = address.partition("%")[0]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_key(text: str) -> str:
    """`198.51.100.7:4711` or `[2001:db8::7%eth0]:4711`, as `key_of` writes it."""
    host, _, port = text.strip().rpartition(":")
    return key_of(host.strip("[]"), int(port) if port.isdigit() else 0)


@dataclass(eq=False)
class Connection:
    """One that was accepted. `number` is chasquid's descriptor, 0 while it waits for its greeting.

    `since` is monotonic, `login_at` in seconds since 1970. `begun` is how many bytes had come when
    the last message was done.
    """

    peer: str
    network: str
    name: bytes  # the peer's struct sockaddr
    port: int
    copy: socket.socket
    since: float
    stranger: bool
    number: int = 0
    login: str = ""
    login_at: float = 0.0
    messages: int = 0
    begun: int = 0
    ended: bool = False  # by us: chasquid has yet to close it

    def info(self) -> bytes:
        try:
            return self.copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        except OSError:
            return bytes(_TCP_INFO_SIZE)

    def received(self) -> int:
        """Bytes that came over it."""
        return int.from_bytes(self.info()[_BYTES_RECEIVED:_TCP_INFO_SIZE], "little")

    def under_way(self) -> int:
        """Bytes that came since its last message was done."""
        return max(0, self.received() - self.begun)

    def idle(self) -> float:
        """Seconds since something came over it."""
        found = self.info()[_LAST_DATA_RECV : _LAST_DATA_RECV + 4]
        return int.from_bytes(found, "little") / 1000

    def is_open(self) -> bool:
        """Whether the peer has not closed it."""
        return self.info()[0] == _TCP_ESTABLISHED

    def end(self) -> None:
        """chasquid reads the end of it, and closes it."""
        self.ended = True
        with suppress(OSError):
            self.copy.shutdown(socket.SHUT_RDWR)


@dataclass(eq=False)
class Port:
    """A listening socket. `call` is chasquid's accept4 that waits, `ready` what it gets next."""

    name: str
    socket: socket.socket
    number: int = 0
    inode: int = 0
    call: Call | None = None
    watched: bool = False  # whether the loop looks at it
    ready: deque[Connection] = field(default_factory=deque)


class Connections:
    """The table. For one asyncio loop. `log` takes the program's name and a line."""

    def __init__(
        self,
        sockets: Sequence[tuple[str, socket.socket]],
        strangers: Strangers,
        log: Callable[[str, str], None],
    ) -> None:
        self.strangers = strangers
        self.log = log
        self.trouble = ""  # why there is no table
        self._ports = [
            Port(name, item, _port_of(item), os.fstat(item.fileno()).st_ino)
            for name, item in sockets
        ]
        self._by_descriptor: dict[int, Port | None] = {}  # chasquid's own numbers
        self._machine = seccomp.architecture()
        self._listener: Listener | None = None
        self._pid = 0
        self._free: list[int] = []  # a heap
        self._open: dict[int, Connection] = {}
        self._by_peer: OrderedDict[str, Connection] = OrderedDict()  # the oldest first
        self._strangers: Counter[str] = Counter()  # connections by network, of who is a stranger
        self._logins: OrderedDict[str, tuple[float, str]] = OrderedDict()

    # chasquid comes and goes

    def filter(self, base: int) -> seccomp.Filter:
        return seccomp.Filter((self._machine.accept, self._machine.accept4), base)

    def attach(self, pid: int, listener: Listener, base: int, count: int) -> None:
        """A new chasquid calls; its connections get the descriptors from `base` on."""
        self._pid, self._listener = pid, listener
        self._free = list(range(base, base + count))
        asyncio.get_running_loop().add_reader(listener, self._called)

    def detach(self) -> None:
        """chasquid has ended, and with it its connections."""
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        self._listener, self._pid = None, 0
        self._by_descriptor.clear()
        for port in self._ports:
            port.call = None
            self._look_away(port)
        for connection in list(self._open.values()):
            self._forget(connection)
        self._logins.clear()

    # What chasquid asks of the kernel

    def _called(self) -> None:
        listener = self._listener
        for _ in range(_AT_ONCE):
            if listener is None or listener is not self._listener:
                return
            try:
                call = listener.receive()
            except EOFError:  # its end is told otherwise
                asyncio.get_running_loop().remove_reader(listener)
                return
            if call is None:
                return
            if call.number == self._machine.close:
                connection = self._open.get(call.arguments[0])
                if connection and self._is_chasquid(call.thread):
                    self._forget(connection)
                listener.go_on(call)
            elif port := self._port_of_call(call):
                port.call = call
                self._serve(port)
            else:
                listener.go_on(call)

    def _is_chasquid(self, thread: int) -> bool:
        """Not one of its children, which have the filter too."""
        return os.path.exists(f"/proc/{self._pid}/task/{thread}")  # noqa: PTH110 (often)

    def _port_of_call(self, call: Call) -> Port | None:
        """The listening socket that chasquid accepts on; None for any other."""
        if not self._is_chasquid(call.thread):
            return None
        number = call.arguments[0]
        if number not in self._by_descriptor:
            found = ""
            with suppress(OSError):
                found = os.readlink(f"/proc/{self._pid}/fd/{number}")  # noqa: PTH115
            ports = (port for port in self._ports if found == f"socket:[{port.inode}]")
            self._by_descriptor[number] = next(ports, None)
        return self._by_descriptor[number]

    def _serve(self, port: Port) -> None:
        """Answer chasquid's accept4 with what is ready or comes; without, look out for it."""
        for _ in range(_AT_ONCE):
            if port.call is None:
                return
            connection = port.ready.popleft() if port.ready else self._accept(port)
            if connection is None:
                self._look_out(port)
                return
            if connection.ended:
                continue
            self._hand_over(port, connection)
        asyncio.get_running_loop().call_soon(self._serve, port)

    def _look_out(self, port: Port) -> None:
        if not port.watched:
            port.watched = True
            asyncio.get_running_loop().add_reader(port.socket, self._arrived, port)

    def _look_away(self, port: Port) -> None:
        if port.watched:
            port.watched = False
            asyncio.get_running_loop().remove_reader(port.socket)

    def _arrived(self, port: Port) -> None:
        if port.call is None:
            self._look_away(port)  # it waits in the kernel's queue until chasquid accepts again
        else:
            self._serve(port)

    def _accept(self, port: Port) -> Connection | None:
        """The next that chasquid may have; None if nothing is there."""
        try:
            copy, address = port.socket.accept()
        except OSError:
            return None  # nothing there, or it went, or no descriptor is left: chasquid waits
        copy.setblocking(False)
        network = network_of(address[0])
        connection = Connection(
            peer=key_of(address[0], address[1]),
            network=network,
            name=_sockaddr(copy.family, address),
            port=port.number,
            copy=copy,
            since=time.monotonic(),
            stranger=self.strangers.is_stranger(network, time.time()),
        )
        self._take(connection)
        return connection

    def _take(self, connection: Connection) -> None:
        self._by_peer[connection.peer] = connection
        self._logins.pop(connection.peer, None)
        if connection.stranger:
            self._strangers[connection.network] += 1

    def _hand_over(self, port: Port, connection: Connection) -> None:
        call, listener = port.call, self._listener
        assert call is not None  # noqa: S101 (the caller looked)
        assert listener is not None  # noqa: S101
        number = self._free_number()
        try:
            if not number:
                raise OSError(0, "no descriptor is left")
            if not self._tell_name(call, connection.name) or not listener.hand_over(
                call, connection.copy.fileno(), number
            ):
                port.call = None  # a signal came first: it will ask again
                port.ready.appendleft(connection)
                heapq.heappush(self._free, number)
                return
        except OSError as error:
            self.log("smtp", f"error: a connection of {connection.peer} could not be handed over: "
                     f"{error.strerror}")  # fmt: skip
            if number:
                heapq.heappush(self._free, number)
            self._forget(connection)
            return
        port.call = None
        connection.number = number
        self._open[number] = connection

    def _free_number(self) -> int:
        """A descriptor that chasquid does not have; 0 without one.

        One that it closed may still be there for a moment, since its close goes on after it was
        told; and chasquid's own could reach so far up.
        """
        taken = []
        found = 0
        while self._free and not found:
            number = heapq.heappop(self._free)
            if os.path.lexists(f"/proc/{self._pid}/fd/{number}"):
                taken.append(number)
                if len(taken) >= _AT_ONCE:
                    break
            else:
                found = number
        for number in taken:
            heapq.heappush(self._free, number)
        return found

    def _tell_name(self, call: Call, name: bytes) -> bool:
        """Write the peer's address where accept4 wants it; False if the call was interrupted."""
        listener = self._listener
        assert listener is not None  # noqa: S101 (the caller looked)
        _, address, length, *_ = call.arguments
        if not address or not length:
            return listener.is_waiting(call)
        try:
            room = int.from_bytes(seccomp.read_memory(call.thread, length, 4), "little")
            if not listener.is_waiting(call):
                return False
            seccomp.write_memory(call.thread, address, name[:room])
            seccomp.write_memory(call.thread, length, struct.pack("=I", len(name)))
        except ProcessLookupError:
            return False  # chasquid has just ended
        return True

    def _forget(self, connection: Connection) -> None:
        """It has ended."""
        if self._open.get(connection.number) is connection:
            del self._open[connection.number]
            heapq.heappush(self._free, connection.number)
        if self._by_peer.get(connection.peer) is connection:
            del self._by_peer[connection.peer]
        self._logins.pop(connection.peer, None)
        self._no_stranger(connection)
        connection.ended = True
        connection.copy.close()

    def _no_stranger(self, connection: Connection) -> None:
        if not connection.stranger:
            return
        connection.stranger = False
        self._strangers[connection.network] -= 1
        if self._strangers[connection.network] <= 0:
            del self._strangers[connection.network]

    # What chasquid's log tells

    def told(self, event: Event, peer: str) -> None:
        """An event of the log, and the connection that it is of (chasquid's words for it)."""
        if event.kind not in (Kind.AUTH, Kind.RECEIVED, Kind.REFUSED) or not peer:
            return
        key = parse_key(peer)
        connection = self._by_peer.get(key)
        if event.kind is Kind.AUTH:
            if event.ok:
                self._logged_in(key, connection, event)
        elif connection and event.text != _UNKNOWN_USER:
            connection.messages += event.kind is Kind.RECEIVED
            connection.begun = connection.received()

    def _logged_in(self, key: str, connection: Connection | None, event: Event) -> None:
        self.strangers.logged_in(network_of(event.peer), event.login, event.at)
        if connection:
            connection.login, connection.login_at = event.login, event.at
            self._no_stranger(connection)
        elif self._listener is None:
            self._logins[key] = (event.at, event.login)
            self._logins.move_to_end(key)
            while len(self._logins) > _MAX_LOGINS:
                self._logins.popitem(last=False)

    # Questions

    async def session(self, peer: str) -> dict[str, Any]:
        """When the connection from ADDRESS:PORT logged in (seconds since 1970), and as whom."""
        key = parse_key(peer)
        for _ in range(_POLLS):
            connection = self._by_peer.get(key)
            if connection and connection.login:
                return {"at": connection.login_at, "login": connection.login}
            at, login = self._logins.get(key, (0.0, ""))
            if login and time.time() - at < _LOGIN_LIFE:
                return {"at": at, "login": login}
            await asyncio.sleep(_POLL)  # the log line may be on its way
        return {"unknown": True}

    def known(self, address: str, login: str) -> dict[str, Any]:
        """Whether somebody logged in as `login` from the network of `address` within a week.

        Without a login, whether anybody did.
        """
        try:
            network = network_of(address)
        except ValueError:
            return {"error": "that is no address"}
        now = time.time()
        if login:
            return {"known": self.strangers.has_logged_in(network, login.lower(), now)}
        return {"known": not self.strangers.is_stranger(network, now)}

    def sessions(self) -> dict[str, Any]:
        """All connections. `watched` is False where there is no table: then nothing is known."""
        now = time.monotonic()
        found = [
            {
                "peer": item.peer,
                "port": item.port,
                "login": item.login,
                "seconds": round(now - item.since, 1),
                "bytes": item.under_way(),
            }
            for item in self._open.values()
            if not item.ended
        ]
        return {
            "watched": self._listener is not None,
            "sessions": found,
            "under_way": sum(int(item["bytes"]) for item in found),  # type: ignore[call-overload]
        }

    def status(self) -> dict[str, Any]:
        """In numbers."""
        ports = Counter(item.port for item in self._open.values())
        return {
            "watched": self._listener is not None,
            "why": self.trouble,
            "open": {str(port.number): ports[port.number] for port in self._ports},
            "logged_in": sum(bool(item.login) for item in self._open.values()),
        }


def _port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _sockaddr(family: int, address: tuple[Any, ...]) -> bytes:
    """struct sockaddr_in or sockaddr_in6 (ip(7), ipv6(7))."""
    host, port, *rest = address
    if family == socket.AF_INET:
        return (
            struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
        )
    flow, scope = rest
    return (
        struct.pack("=H", family)
        + struct.pack("!HI", port, flow)
        + socket.inet_pton(family, host.partition("%")[0])
        + struct.pack("=I", scope)
    )
