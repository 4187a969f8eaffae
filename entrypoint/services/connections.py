"""The table of connections: which chasquid has, whose, since when, and how much came over each.

chasquid runs under a seccomp filter (common/seccomp.py). Its accept4(2) waits for this process,
which accepts on the same listening socket, decides by the peer's address, and hands the connection
over as a descriptor from `base` on, or refuses it. It keeps a copy of each, so that it can look at
it and end it; chasquid's close(2) of such a descriptor is told too, and the copy goes first. So the
table is exact, and what it says bounds what strangers may (policy/strangers.py), and how much is
taken at once (policy/capacity.py). Without the filter (an old kernel, a profile that forbids it)
chasquid accepts by itself: mail flows, and nothing is bounded by address.

    RFC 5321 3.1 and 3.8: a server may greet with 421 and close.

What must never happen: that chasquid's accept4 returns an error, since chasquid ends on any; that a
close is answered before the copy here is closed, since the peer would wait for the end; or that a
line is logged for each of what a stranger does.
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
from dataclasses import asdict, dataclass, field
from typing import Any

from entrypoint.chasquid.maillog import Event, Kind, iso
from entrypoint.common import seccomp
from entrypoint.common.seccomp import Call, Listener
from entrypoint.policy.capacity import Capacity, Sitting, Unfinished, over, who_goes
from entrypoint.policy.strangers import (
    Block,
    Entry,
    Strangers,
    is_loopback,
    network_key,
    network_of,
)
from entrypoint.services.outgoing import Outgoing
from entrypoint.services.strangersfile import StrangersFile

_MAIL, _SUBMISSIONS = 25, 465
_AT_ONCE = 64  # calls answered, or connections refused, before others get a turn
_TCP_ESTABLISHED = 1
_TCP_INFO_SIZE = 136  # bytes of struct tcp_info up to tcpi_bytes_received (linux/tcp.h)
_LAST_DATA_RECV, _BYTES_RECEIVED = 52, 128  # offsets in it: u32 in ms, u64
_MAX_LOGINS = 8192  # connections whose log-in is remembered when there is no table
_LOGIN_LIFE = 1260.0  # seconds; chasquid closes a connection after 20 minutes (server.go)
_UNKNOWN_USER = "local user does not exist"  # maillog's words (conn.go, RCPT)
_POLL = 0.05  # seconds between looks for a log line that may still be on its way
_POLLS = 4
_TURN = 0.5  # seconds between looks at unfinished messages
_QUICK_TURN = 0.1  # and when there is much of them
_HOUSEKEEPING = 1.0  # seconds between looks at who waits
_SUMMARY = 60.0  # seconds between lines about what was refused
_LINES = 20  # lines about blocks and sessions that were ended, in that time
_SAVE = 10.0  # seconds between writes of what is known of networks
_MAX_WAIT = 120.0  # seconds for a greeting; RFC 5321 4.5.3.2.1 lets clients go after 300
_GRACE = 1.0  # seconds for the answer to the last message to reach its sender
_MB = 1 << 20


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
        capacity: Capacity,
        file: StrangersFile,
        log: Callable[[str, str], None],
        outgoing: Outgoing | None = None,
    ) -> None:
        self.outgoing = outgoing
        self.strangers = strangers
        self.capacity = capacity
        self.file = file
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
        self._waiting: dict[str, tuple[Port, Connection]] = {}  # one of a network
        self._on_port: Counter[int] = Counter()
        self._refused: Counter[str] = Counter()  # why, since the last summary
        self._refused_networks: Counter[str] = Counter()
        self._lines = 0
        self._under_way = 0

    async def run(self) -> None:
        """Bound unfinished messages, look after who waits, keep what is known, until cancelled."""
        housekeeping = summary = saved = time.monotonic()
        while True:
            quick = self.bound_unfinished() > self.capacity.unfinished // 4
            await asyncio.sleep(_QUICK_TURN if quick else _TURN)
            now = time.monotonic()
            if now - housekeeping >= _HOUSEKEEPING:
                housekeeping = now
                self._look_after_waiting(now)
            if now - summary >= _SUMMARY:
                summary = now
                self._summarise()
            if self.strangers.changed and now - saved >= _SAVE:
                saved = now
                self.strangers.changed = not self.file.save(self.strangers.to_json())

    @property
    def is_watching(self) -> bool:
        """Whether the chasquid that there is asks here."""
        return self._listener is not None

    def close(self) -> None:
        """Keep what is known, at the end."""
        if self.strangers.changed:
            self.file.save_now(self.strangers.to_json())

    # chasquid comes and goes

    def filter(self, base: int) -> seccomp.Filter:
        machine = self._machine
        out = (machine.connect,) if self.outgoing else ()
        return seccomp.Filter((machine.accept, machine.accept4, *out), base)

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
        if self.outgoing:
            self.outgoing.forget()
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
            if call.number == self._machine.connect and self.outgoing:
                self.outgoing.called(listener, call)
            elif call.number == self._machine.close:
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
            if not port.ready and not self._accept(port):
                self._look_out(port)
                return
            if port.ready:
                self._hand_over(port, port.ready.popleft())
        self._serve_soon(port)

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

    def _accept(self, port: Port) -> bool:
        """Decide on the next connection that came; False if there is none."""
        try:
            copy, address = port.socket.accept()
        except OSError:
            return False  # nothing there, or it went, or no descriptor is left: it waits
        copy.setblocking(False)
        network = network_of(address[0])
        now = time.time()
        connection = Connection(
            peer=key_of(address[0], address[1]),
            network=network,
            name=_sockaddr(copy.family, address),
            port=port.number,
            copy=copy,
            since=time.monotonic(),
            stranger=self.strangers.is_stranger(network, now),
        )
        entry = self.strangers.entry(
            network, self._strangers[network], self._has_waiting(network), now
        )
        if entry is Entry.BLOCKED:
            block = self.strangers.block_of(network, now)
            why = f"{block.reason}; not before {iso(block.until)}" if block else "blocked"
            self._refuse(connection, entry.value, f"{network}: {why}")
        elif entry is Entry.MANY or (
            entry is Entry.WAIT and len(self._waiting) >= self.capacity.waiting
        ):
            most = self.strangers.rates.connections
            self._refuse(connection, Entry.MANY.value, f"{network} has {most} connections, and may "
                         "have no more at once; try again later")  # fmt: skip
        elif entry is Entry.WAIT:
            self._waiting[network] = (port, connection)
        elif is_loopback(network) or self._has_room(connection):
            self._take(port, connection)
        else:
            self._refuse(connection, "full", "no more connections can be had just now; try again "
                         "later")  # fmt: skip
        return True

    def _has_waiting(self, network: str) -> int:
        """Whether somebody waits for a greeting, and has not gone."""
        found = self._waiting.get(network)
        if found and not found[1].is_open():
            self._waiting.pop(network)
            found[1].copy.close()
            return 0
        return int(found is not None)

    def _take(self, port: Port, connection: Connection) -> None:
        """chasquid shall have it."""
        self._by_peer[connection.peer] = connection
        self._logins.pop(connection.peer, None)
        self._on_port[connection.port] += 1
        if connection.stranger:
            self._strangers[connection.network] += 1
        port.ready.append(connection)

    def _has_room(self, connection: Connection) -> bool:
        """Whether there is room for one more, perhaps since somebody else has to go."""
        mail = self._on_port[_MAIL]
        in_all = sum(self._on_port.values())
        if connection.port == _MAIL:
            if mail < self.capacity.mail and in_all < self.capacity.total:
                return True
            return self._make_room(connection.network, mail=True)
        if in_all < self.capacity.total:
            return True
        logins = in_all - mail
        room = self._make_room(connection.network, mail=logins <= in_all - self.capacity.mail)
        return room or self._make_room(connection.network, mail=True)

    def _make_room(self, newcomer: str, *, mail: bool) -> bool:
        """End a stranger's connection to port 25, or to one for logins; whether one was found."""
        now = time.monotonic()
        sitting: list[Sitting] = []
        for item in self._by_peer.values():
            if item.stranger and item.number and not item.ended and (item.port == _MAIL) == mail:
                silent = item.idle() if len(sitting) < _AT_ONCE else 0.0
                seconds = now - item.since
                sitting.append(Sitting(item.number, item.network, seconds, item.messages, silent))
        number = who_goes(sitting, newcomer)
        if number is None:
            return False
        self._refused["ended to make room for others"] += 1
        self._end(self._open[number])
        return True

    def _end(self, connection: Connection) -> None:
        """chasquid reads the end of it, and closes it; until then it counts no more."""
        if not connection.ended:
            connection.end()
            self._count_out(connection)

    def _refuse(self, connection: Connection, why: str, words: str) -> None:
        self._refused[why] += 1
        if (
            len(self._refused_networks) < _MAX_LOGINS
            or connection.network in self._refused_networks
        ):
            self._refused_networks[connection.network] += 1
        with suppress(OSError):
            if connection.port != _SUBMISSIONS:  # there, TLS would come first
                connection.copy.send(f"421 4.7.0 {words}\r\n".encode())
                connection.copy.shutdown(socket.SHUT_WR)
        connection.copy.close()

    def _admit_waiting(self, network: str) -> None:
        """A place of its network has become free."""
        if network not in self._waiting:
            return
        most = self.strangers.rates.connections
        now = time.time()
        if (
            most is None
            or self._strangers[network] < most
            or not self.strangers.is_stranger(network, now)
        ):
            port, connection = self._waiting.pop(network)
            if not connection.is_open():
                connection.copy.close()
            elif self.strangers.block_of(network, now) or not self._has_room(connection):
                self._refuse(connection, "full", "try again later")
            else:
                connection.stranger = self.strangers.is_stranger(network, now)
                self._take(port, connection)
                self._serve_soon(port)

    def _serve_soon(self, port: Port) -> None:
        asyncio.get_running_loop().call_soon(self._serve, port)

    def _look_after_waiting(self, now: float) -> None:
        for network, (_, connection) in list(self._waiting.items()):
            if not connection.is_open():
                del self._waiting[network]
                connection.copy.close()
            elif now - connection.since >= _MAX_WAIT:
                del self._waiting[network]
                most = self.strangers.rates.connections
                self._refuse(connection, Entry.MANY.value, f"{network} has {most} connections, and "
                             "none of them ended; try again later")  # fmt: skip

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
        if not connection.ended:
            connection.ended = True
            self._count_out(connection)
        connection.copy.close()

    def _count_out(self, connection: Connection) -> None:
        self._on_port[connection.port] -= 1
        self._no_stranger(connection)
        self._admit_waiting(connection.network)

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
        network = network_of(event.peer)
        block = None
        if event.kind is Kind.AUTH:
            if event.ok:
                self._logged_in(key, connection, event)
            else:
                block = self.strangers.failed(network, event.login, event.at)
        elif event.text == _UNKNOWN_USER:
            if not event.login:
                block = self.strangers.unknown_recipient(network, event.at)
        else:
            if connection:
                connection.messages += event.kind is Kind.RECEIVED
                connection.begun = connection.received()
            if event.kind is Kind.RECEIVED and not event.login:
                block = self.strangers.received(network, event.at)
        if block:
            self._blocked(block, _GRACE if event.kind is Kind.RECEIVED else 0.0)

    def _logged_in(self, key: str, connection: Connection | None, event: Event) -> None:
        network = network_of(event.peer)
        was_stranger = self.strangers.is_stranger(network, event.at)
        self.strangers.logged_in(network, event.login, event.at)
        if connection:
            connection.login, connection.login_at = event.login, event.at
        elif self._listener is None:
            self._logins[key] = (event.at, event.login)
            self._logins.move_to_end(key)
            while len(self._logins) > _MAX_LOGINS:
                self._logins.popitem(last=False)
        if was_stranger:
            for item in self._by_peer.values():
                if item.network == network:
                    self._no_stranger(item)
            self._admit_waiting(network)

    def _blocked(self, block: Block, grace: float) -> None:
        """Nobody of that network who has not logged in stays; after so many seconds."""
        self._say(f"note: {block.network} is blocked until {iso(block.until)}: {block.reason}. "
                  f"To let it in: docker exec mail unblock {block.network}")  # fmt: skip
        asyncio.get_running_loop().call_later(grace, self._end_all, block.network)

    def _end_all(self, network: str) -> None:
        if not self.strangers.block_of(network, time.time()):
            return
        for item in list(self._open.values()):
            if item.network == network and not item.login:
                self._end(item)

    def _say(self, line: str) -> None:
        """A line of the log, unless there were too many of them."""
        self._lines += 1
        if self._lines <= _LINES:
            self.log("smtp", line)

    def _summarise(self) -> None:
        """What was refused since the last time, in a line; and how much was not said."""
        if self._refused:
            found = ", ".join(f"{number} {why}" for why, number in sorted(self._refused.items()))
            most = self._refused_networks.most_common(1)
            who = f"; most from {most[0][0]}" if most else ""
            self.log("smtp", f"note: connections refused in a minute, and why: {found}{who}")
        if self._lines > _LINES:
            self.log("smtp", f"note: and {self._lines - _LINES} lines like the last ones")
        self._refused.clear()
        self._refused_networks.clear()
        self._lines = 0

    # Unfinished messages

    def bound_unfinished(self) -> int:
        """End sessions whose unfinished messages are too much for the memory; the bytes before."""
        now = time.time()
        found = []
        for number, item in self._open.items():
            if not item.ended and (size := item.under_way()):
                known = not item.stranger or not self.strangers.is_stranger(item.network, now)
                found.append(Unfinished(number, size, bool(item.login), known))
        self._under_way = total = sum(item.size for item in found)
        if total > self.capacity.unfinished:
            for gone in over(found, self.capacity.unfinished):
                connection = self._open[gone.number]
                self._say(
                    f"note: the session of {connection.peer} was ended: {gone.size // _MB} MB of a "
                    f"message without an end; of all, {total // _MB} MB are under way, and "
                    f"{self.capacity.unfinished // _MB} MB may be"
                )
                self._end(connection)
                self._under_way -= gone.size
        return total

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

    def guessed(self) -> dict[str, Any]:
        """The logins that are guessed at: see policy/guessed.py."""
        return {"logins": self.strangers.guessed.logins(time.time())}

    def here(self, login: str) -> dict[str, Any]:
        """Whether some connection comes from where `login` is known. Without a table that cannot
        be told, and then it is taken to: nobody is to be locked out."""
        if self._listener is None:
            return {"known": True}
        now = time.time()
        return {
            "known": any(
                is_loopback(item.network) or self.strangers.has_logged_in(item.network, login, now)
                for item in self._open.values()
                if not item.ended
            )
        }

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

    def blocked(self) -> dict[str, Any]:
        """The blocks, the oldest first."""
        return {"blocked": [asdict(block) for block in self.strangers.blocks(time.time())]}

    def unblock(self, network: str) -> dict[str, Any]:
        """Let a network in again, or `all`; says which had been blocked."""
        try:
            gone = self.strangers.unblock(None if network == "all" else network_key(network))
        except ValueError as error:
            return {"error": str(error)}
        for block in gone:
            self._say(f"note: {block.network} is not blocked any more")
        return {"unblocked": [block.network for block in gone]}

    def status(self) -> dict[str, Any]:
        """In numbers. `under_way` and `most_under_way` are bytes of unfinished messages."""
        ports = Counter(item.port for item in self._open.values())
        return {
            "watched": self._listener is not None,
            "why": self.trouble,
            "open": {str(port.number): ports[port.number] for port in self._ports},
            "logged_in": sum(bool(item.login) for item in self._open.values()),
            "waiting": len(self._waiting),
            "most": self.capacity.total,
            "most_on_25": self.capacity.mail,
            "under_way": self._under_way,
            "most_under_way": self.capacity.unfinished,
            "blocked": len(self.strangers.blocks(time.time())),
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
