"""The gate: outgoing connections wait here until the receiver has a place for them.

chasquid dials once for each message and recipient, all at once. The holder leads these connections
to a listener here, one for each address (services/outgoing.py). They wait in a line for each
operator of exchangers, all of whose servers share one window (delivery/windows.py). When there is a
place, the gate dials the receiver, reads its greeting, hands that over, and from then on passes
bytes; TLS stays between chasquid and the receiver.

    gate STYLE OPTIONS        STYLE as log.configure takes it; OPTIONS as `Options.words`

A receiver that refuses at the greeting (421, 450; RFC 5321 3.1, 3.8) is tried again from here, in
the same line. Who has waited for five minutes, or would, is answered 421 4.3.2 with the length of
the line: chasquid keeps the message, and the ten minutes that it has for a delivery are left for
the delivery.

What must never happen: more connections to an operator than its window has; a connection that
holds others up because its receiver hangs; a byte that is not passed as it came; mail that goes to
another address than chasquid asked for. (Which addresses are one exchanger's cannot be told from an
address: anybody may name somebody else's beside his own as his exchanger's.)
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from entrypoint.chasquid.maillog import Event, Kind, clean
from entrypoint.common import files, identity, log, rpc
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.delivery import operators
from entrypoint.delivery.windows import Window
from entrypoint.services.exchangers import Exchangers
from entrypoint.services.pipe import Pipe
from entrypoint.services.sources import Sources
from entrypoint.services.submissions import Submissions, form

_SMTP = 25
_BACKLOG = 4096  # connections of chasquid's to one address that are not accepted yet
_ASKED = 256  # questions that wait
_DIAL = 30.0  # seconds for a receiver to take a connection; chasquid's own would be 60
_GREETING = 300.0  # seconds for its greeting (RFC 5321 4.5.3.2.1)
_MAX_GREETING = 8192  # bytes; RFC 5321 4.5.3.1.5 has 512 for a line
_PATIENCE = 300.0  # seconds in a line: chasquid gives up a delivery after 600
_DEAD = 30.0  # seconds for which an address that was not reached counts as such
_SPARE = 5.0  # seconds for chasquid to come for a connection that was made as a check
_LINGER = 10.0  # seconds for which a forgotten listener stays
_IDLE = 600.0  # seconds after which an address that nobody wants is forgotten
_MOST = 4096  # addresses, the least wanted of which go; and windows that are kept
_FEW_LINES = 500  # receivers of which all is kept in memory
_TURN = 1.0  # seconds between looks at who waits
_SAVE = 30.0  # seconds between writes of what is known of receivers
_MINUTE, _HOUR = 60.0, 3600.0
_QUIET = 60.0  # seconds between lines about one receiver
_FIRST_LINE = 200  # characters of what a receiver said
_BIND_ADDRESS_NO_PORT = 24  # ip(7)
_LEFT: Mapping[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


@dataclass(frozen=True)
class Options:
    """What the gate needs of the settings: words of its command line, set by the boot.

    `share` is PACE_SHARE (delivery/lines.py). `ipv6`: whether anything may leave by it. `sources`:
    the addresses that mail leaves from, of both families; of one without any the kernel chooses.
    `warmup`: whether these start at a daily ceiling.
    """

    share: int | Literal["none"] | None = None
    ipv6: bool = True
    sources: tuple[str, ...] = ()
    warmup: bool = False

    def words(self) -> str:
        share = "default" if self.share is None else self.share
        flags = ("yes" if item else "no" for item in (self.ipv6, self.warmup))
        return " ".join((str(share), *flags, *self.sources))

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """Raises ValueError."""
        said, ipv6, warmup, *sources = words
        share: int | Literal["none"] | None = None
        if said != "default":
            share = "none" if said == "none" else int(said)
        return cls(share, ipv6 == "yes", tuple(sources), warmup == "yes")


def main() -> int:
    """Started as root: makes its sockets, drops to chasquid's user for good, serves until
    SIGTERM."""
    log.configure(sys.argv[1], "gate")
    options = Options.parse(sys.argv[2:])
    paths, ids = Paths(), Ids.image()
    doors = (
        rpc.listen(paths.gate_socket, ids, Owner.CHASQUID, _ASKED),
        rpc.listen(paths.gate_door, ids, Owner.TAMBO, _ASKED),
    )
    identity.drop(ids, Owner.CHASQUID)
    try:
        asyncio.run(Gate(options, paths.receivers).run(*doors))
    except Exception as error:  # noqa: BLE001 (logged: the process ends here)
        log.log("gate", f"error: {type(error).__name__}: {error}. Starting again.")
        time.sleep(1.0)  # the supervisor does not wait
        return 1
    return 0


@dataclass(eq=False)
class Delivery:
    """A connection of chasquid's. `since` it waits (monotonic); `last` words of the receiver."""

    client: socket.socket
    address: str
    since: float
    last: str = ""
    gone: bool = False
    task: asyncio.Task[None] | None = None  # at work to get its greeting
    begun: bool = False  # whether that task runs: before, it could not give its place back

    def stop_watching(self) -> None:
        if not self.gone:
            asyncio.get_running_loop().remove_reader(self.client)


@dataclass(eq=False)
class Line:
    """Those that wait for one operator: one that is known by name, else all exchangers below one
    organizational domain, else one network."""

    key: str
    title: str
    window: Window
    waiting: deque[Delivery] = field(default_factory=deque)
    wake: asyncio.TimerHandle | None = None
    told: float = float("-inf")  # when its complaints were last logged
    minute: deque[tuple[int, int]] = field(default_factory=deque)  # seconds, and how many ended

    def ended(self, now: float) -> None:
        """A connection that was passed on has ended."""
        second = int(now)
        if self.minute and self.minute[-1][0] == second:
            self.minute[-1] = (second, self.minute[-1][1] + 1)
        else:
            self.minute.append((second, 1))
            self.last_minute(now)

    def last_minute(self, now: float) -> int:
        """Connections that ended in the last 60 seconds."""
        while self.minute and now - self.minute[0][0] >= _MINUTE:
            self.minute.popleft()
        return sum(number for _, number in self.minute)


@dataclass(eq=False)
class Place:
    """One of a line's window, from before the dial to the end of the connection. `source` is the
    address that it is dialled from, empty if the kernel chooses."""

    line: Line
    source: str = ""


@dataclass(eq=False)
class Destination:
    """An address that chasquid wants to reach. `reached`: None until it was tried.

    `spare` is a connection that was made as a check, with its place, for who comes first.
    """

    address: str
    listener: socket.socket
    line: Line
    reached: bool | None = None
    checking: bool = False
    tried: float = 0.0
    wanted: float = 0.0
    spare: tuple[socket.socket, Place] | None = None

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])


class Gate:
    """The service; for one asyncio loop. `clock` is monotonic; `port` is where receivers listen."""

    def __init__(
        self,
        options: Options,
        file: Path,
        exchangers: Exchangers | None = None,
        clock: Callable[[], float] = time.monotonic,
        port: int = _SMTP,
    ) -> None:
        self.options = options
        self.file = file
        self.clock = clock
        self.port = port
        self.exchangers = exchangers or Exchangers(self._found)
        self.lines: dict[str, Line] = {}
        self.submissions = Submissions(options.share, self._pace_of, clock)
        self._destinations: dict[str, Destination] = {}
        self.stop = asyncio.Event()
        self.failure: BaseException | None = None
        self._pipes: set[Pipe] = set()  # connections to receivers
        self._links: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: dict[str, float] = {}  # when each address was last said to be of no use
        self._kept_windows: dict[str, Any] = {}
        self._saved = json.dumps({"windows": {}, "warmups": []})  # as good as no file
        self.sources = Sources(options.sources, warmup=options.warmup)
        self._load()

    async def run(self, *doors: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        servers = [
            await asyncio.start_unix_server(self._serve, sock=door, backlog=_ASKED, **_LEFT)
            for door in doors
        ]
        self._spawn(self._look_after())
        self._spawn(self.exchangers.run())
        await self.stop.wait()
        self._save()
        for server in servers:
            server.close()
        await self._close()
        if self.failure:
            raise self.failure

    async def _close(self) -> None:
        """Everything ends: chasquid sees it, and tries again."""
        for found in list(self._destinations.values()):
            self._forget(found)
            found.listener.close()
        for line in self.lines.values():
            if line.wake:
                line.wake.cancel()
            for delivery in line.waiting:
                delivery.stop_watching()
                delivery.client.close()
            line.waiting.clear()
        for pipe in list(self._pipes):
            pipe.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        """What is not foreseen ends the gate, so that no place is held for ever: it starts anew."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.failure = error
            self.stop.set()

    # Who asks

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                command, _, content = line.decode().strip().partition(" ")
                if command == "link":
                    await self._link(reader, writer)
                    return
                answer = await self._question(command, content)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # whoever asked has gone
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.log("gate", f"warning: a question could not be answered: {clean(str(error))}")
        finally:
            writer.close()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The holder's."""
        self._links.add(writer)
        try:
            writer.write(b'{"pong": 1}\n')
            while line := await reader.readline():
                said = json.loads(line)
                if "ping" in said:
                    writer.write(b'{"pong": 1}\n')
                elif "connect" in said:
                    self._wanted(str(said["connect"]))
                elif "event" in said:
                    self._heard(Event.from_json(said["event"]))
        finally:
            self._links.discard(writer)

    def _tell(self, content: dict[str, Any]) -> None:
        line = json.dumps(content).encode() + b"\n"
        for link in self._links:
            link.write(line)

    async def _question(self, command: str, content: str) -> dict[str, Any]:
        if command == "admit":
            asked = json.loads(content)
            domains = {form(str(item)).rpartition("@")[2] for item in asked["to"]}
            for domain in domains:
                self.exchangers.want(domain)
            return await self.submissions.admit(str(asked["login"]), asked["to"], self.key_of)
        if command == "withdraw":
            for recipient in json.loads(content)["to"]:
                self.submissions.over(str(recipient))
            return {}
        if command == "receivers":
            return self.status()
        if command in ("hold", "release"):
            return self._hold(command, json.loads(content))
        return {"error": "unknown command"}

    # Addresses

    def _wanted(self, address: str) -> None:
        """The holder asks for an address: tell it a listener, and try whether it can be reached."""
        now = self.clock()
        found = self._destinations.get(address)
        if found is None:
            try:
                found = self._destination(address)
            except OSError as error:
                log.log("gate", f"error: no listener for {address}: {error.strerror}")
                return  # the holder waits no longer than it has to
        found.wanted = now
        if found.reached is False and now - found.tried < _DEAD:
            self._tell({"address": address, "errno": errno.EHOSTUNREACH})
            return
        self._tell({"address": address, "port": found.port, "alive": bool(found.reached)})
        if not found.reached:
            self._check(found)

    def _destination(self, address: str) -> Destination:
        if len(self._destinations) >= _MOST:
            self._forget(min(self._destinations.values(), key=lambda item: item.wanted))
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.bind(("127.0.0.1", 0))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            found = Destination(address, listener, self._line_of(address))
            asyncio.get_running_loop().add_reader(listener, self._accept, found)
        except OSError:
            listener.close()
            raise
        self._destinations[address] = found
        return found

    def _forget(self, found: Destination) -> None:
        del self._destinations[found.address]
        self._tell({"address": found.address, "gone": True})
        loop = asyncio.get_running_loop()
        loop.remove_reader(found.listener)
        # Not at once: its port could be another address's before the holder has heard.
        loop.call_later(_LINGER, found.listener.close)
        self._drop_spare(found)

    def _line_of(self, address: str) -> Line:
        operator = self.exchangers.operator_of(address)
        if operator:
            return self._line(operator.id)
        return self._line(self.exchangers.owner_of(address) or operators.network(address))

    def _line(self, key: str) -> Line:
        found = self.lines.get(key)
        if found is None:
            operator = operators.get(key)
            title = operator.title if operator else key
            window = self._window(key, operator)
            found = self.lines[key] = Line(key, title, window)
        return found

    def _window(self, key: str, operator: operators.Operator | None) -> Window:
        return Window.from_json(
            self._kept_windows.pop(key, None),
            operator.connections if operator else operators.DEFAULT_CONNECTIONS,
            operator.hourly if operator else None,
        )

    def _found(self, address: str) -> None:
        """A look-up says whose an address is."""
        found = self._destinations.get(address)
        if found and found.line is not (line := self._line_of(address)):
            self._move(found, line)

    def _move(self, found: Destination, line: Line) -> None:
        """Those that wait for an address join the line of its operator."""
        old, found.line = found.line, line
        moved = [item for item in old.waiting if item.address == found.address]
        old.waiting = deque(item for item in old.waiting if item.address != found.address)
        line.waiting.extend(moved)
        self.submissions.renamed(old.key, line.key)
        self._pump(line)

    def _check(self, found: Destination) -> None:
        """Try to reach it, in a place of its operator's window."""
        if found.checking or found.spare:
            return
        if place := self._take(found.line, found.address):
            found.checking = True
            self._spawn(self._checked(found, place))

    def _take(self, line: Line, address: str) -> Place | None:
        """A place for a connection to an address, if the window has one, and a source its day."""
        source = self.sources.choose(line.key, address)
        if source is None or not line.window.take(self.clock()):
            return None
        self.sources.sent(source, line.key)
        return Place(line, source)

    def _give_back(self, place: Place) -> None:
        """It was had for nothing."""
        place.line.window.failed(self.clock())
        self.sources.unsent(place.source, place.line.key)

    async def _checked(self, found: Destination, place: Place) -> None:
        try:
            connection = await self._dial(found.address, place.source)
        except OSError as error:
            self._give_back(place)
            self._not_reached(found, error)
            return
        finally:
            found.checking = False
        if self._destinations.get(found.address) is not found:  # forgotten meanwhile
            connection.close()
            self._give_back(place)
            return
        self._reached(found)
        found.spare = (connection, place)
        asyncio.get_running_loop().call_later(_SPARE, self._drop_spare, found)
        self._pump(found.line)

    def _drop_spare(self, found: Destination) -> None:
        if found.spare:
            connection, place = found.spare
            found.spare = None
            connection.close()
            self._give_back(place)
            self._pump(place.line)

    def _reached(self, found: Destination) -> None:
        found.tried = self.clock()
        if not found.reached:
            found.reached = True
            self._tell({"address": found.address, "port": found.port, "alive": True})

    def _not_reached(self, found: Destination, error: OSError) -> None:
        """Say so to chasquid's next calls, which go on to the next address, and to who waits."""
        found.tried = self.clock()
        found.reached = False
        number = error.errno or errno.ETIMEDOUT
        self._tell({"address": found.address, "errno": number})
        asyncio.get_running_loop().call_later(_DEAD, self._try_again, found)
        words = f"{found.address}: {os.strerror(number)}"
        line = found.line
        waiting = [item for item in line.waiting if item.address == found.address]
        line.waiting = deque(item for item in line.waiting if item.address != found.address)
        for item in waiting:
            if not item.gone:
                _refuse(item, f"421 4.4.1 tambo: {words}")
        self._pump(line)

    def _try_again(self, found: Destination) -> None:
        """It has been taken to be dead for long enough: the next call asks."""
        if found.reached is False:
            found.reached = None
            self._tell({"address": found.address, "gone": True})

    # chasquid's connections

    def _accept(self, found: Destination) -> None:
        for _ in range(_ASKED):
            try:
                client, _ = found.listener.accept()
            except OSError:
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.wanted = self.clock()
            self._join(Delivery(client, found.address, self.clock()), found)

    def _join(self, delivery: Delivery, found: Destination) -> None:
        line = found.line
        asyncio.get_running_loop().add_reader(delivery.client, self._spoke, delivery)
        rate = line.window.rate(self.clock())
        if rate and len(line.waiting) / rate > _PATIENCE:
            _refuse(delivery, _long(line, delivery))
            return
        if found.spare:
            connection, place = found.spare
            found.spare = None
            delivery.task = self._spawn(self._deliver(delivery, place, connection))
            return
        line.waiting.append(delivery)
        self._pump(line)

    def _spoke(self, delivery: Delivery) -> None:
        """chasquid says nothing before the greeting: it has gone."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(delivery.client)
        try:
            delivery.gone = not delivery.client.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            loop.add_reader(delivery.client, self._spoke, delivery)
        except OSError:
            delivery.gone = True
        if delivery.gone:
            delivery.client.close()  # it is skipped when its turn comes
            if delivery.task and delivery.begun:
                delivery.task.cancel()

    def _pump(self, line: Line) -> None:
        """Let in who waits, as many as there are places."""
        now = self.clock()
        while line.waiting:
            if line.waiting[0].gone:
                line.waiting.popleft()
                continue
            place = self._take(line, line.waiting[0].address)
            if place is None:
                self._wake_later(line, now)
                return
            delivery = line.waiting.popleft()
            delivery.task = self._spawn(self._deliver(delivery, place))

    def _wake_later(self, line: Line, now: float) -> None:
        if line.wake is None and (seconds := line.window.wake(now)) is not None:
            loop = asyncio.get_running_loop()
            line.wake = loop.call_later(max(0.01, seconds), self._woken, line)

    def _woken(self, line: Line) -> None:
        line.wake = None
        self._pump(line)

    async def _deliver(
        self, delivery: Delivery, place: Place, connection: socket.socket | None = None
    ) -> None:
        """Dial, read the greeting, hand it over; or back into the line."""
        delivery.begun = True
        try:
            if delivery.gone:
                raise asyncio.CancelledError
            if connection is None:
                try:
                    connection = await self._dial(delivery.address, place.source)
                except OSError as error:
                    self._give_back(place)
                    self._failed(delivery, error)
                    return
                if found := self._destinations.get(delivery.address):
                    self._reached(found)
            greeting = await _read_greeting(connection)
        except asyncio.CancelledError:  # chasquid has gone, or this ends
            if connection:
                connection.close()
            if delivery.gone:
                self._give_back(place)
                self._pump(place.line)
            else:
                delivery.stop_watching()
                delivery.client.close()
            raise
        delivery.task, delivery.begun = None, False
        delivery.stop_watching()
        if _is_refusal(greeting):
            connection.close()
            self._refused(delivery, place, greeting)
        else:
            self._begin(delivery, place, connection, greeting)
        self._pump(place.line)

    def _failed(self, delivery: Delivery, error: OSError) -> None:
        """It could not be dialled."""
        found = self._destinations.get(delivery.address)
        words = f"{delivery.address}: {os.strerror(error.errno or errno.ETIMEDOUT)}"
        if found and found.reached is not False:
            self._not_reached(found, error)
        _refuse(delivery, f"421 4.4.1 tambo: {words}")

    def _refused(self, delivery: Delivery, place: Place, greeting: bytes) -> None:
        words = _words(greeting) or "it closed the connection without a greeting"
        delivery.last = words
        place.line.window.refused(self.clock(), words)
        self.sources.unsent(place.source, place.line.key)
        self._say(place.line, words)
        if delivery.gone:
            return
        place.line.waiting.appendleft(delivery)
        asyncio.get_running_loop().add_reader(delivery.client, self._spoke, delivery)

    def _begin(
        self, delivery: Delivery, place: Place, connection: socket.socket, greeting: bytes
    ) -> None:
        """Hand the greeting over, and pass on what follows."""
        place.line.window.accepted(self.clock())
        self.exchangers.greeted(delivery.address, _words(greeting))
        try:
            sent = delivery.client.send(greeting)
        except OSError:
            sent = 0
        if delivery.gone or sent < len(greeting):
            delivery.client.close()
            connection.close()
            place.line.window.done(self.clock())
            return
        pipe = Pipe(delivery.client, connection, lambda: self._ended(pipe, place))
        self._pipes.add(pipe)

    def _ended(self, pipe: Pipe, place: Place) -> None:
        self._pipes.discard(pipe)
        place.line.ended(self.clock())
        place.line.window.done(self.clock())
        self._pump(place.line)

    async def _dial(self, address: str, source: str) -> socket.socket:
        """A connection to a receiver. Raises OSError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source:
                # Its port is chosen with the destination's: else all could be used up.
                with suppress(OSError):
                    connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                try:
                    connection.bind((source, 0))
                except OSError as error:  # it is not this machine's: mail flows, by another
                    self._say_unusable(source, error)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(_DIAL):
                await loop.sock_connect(connection, (address, self.port))
        except TimeoutError:
            connection.close()
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _say_unusable(self, source: str, error: OSError) -> None:
        now = self.clock()
        if now - self._told.get(source, float("-inf")) >= _HOUR:
            self._told[source] = now
            said = f"error: mail cannot leave from {source} ({error.strerror}), and goes by the "
            log.log("gate", f"{said}address that the kernel chooses. See: docker exec mail doctor")

    # What becomes of deliveries

    def _heard(self, event: Event) -> None:
        """An event of chasquid's log."""
        if event.kind is Kind.RECEIVED or not event.recipients:
            return
        recipient = form(event.recipients[0])
        self.submissions.over(recipient)
        if event.kind is Kind.SENT or _OWN in event.text:
            return
        line = self.lines.get(self.key_of(recipient))
        if line and event.kind is Kind.DEFERRED:
            self.sources.deferred(line.key)
        if line and is_throttling(event.text):
            line.window.complained(self.clock(), event.text[:_FIRST_LINE])
            self._say(line, event.text)

    def key_of(self, recipient: str) -> str:
        """The line that mail to a recipient waits in; its domain while that is not known, or is
        several: else a domain's owner could speak for everybody whose addresses he names."""
        domain = recipient.rpartition("@")[2]
        addresses = self.exchangers.addresses_for(domain)
        keys = {self._line_of(address).key for address in addresses}
        return keys.pop() if len(keys) == 1 else domain

    def _pace_of(self, key: str) -> tuple[str, int, float]:
        """What it is called, its places, and messages a second."""
        line = self.lines.get(key)
        if line is None:
            return key, operators.DEFAULT_CONNECTIONS, 0.0
        return line.title, line.window.size, line.window.rate(self.clock())

    def _say(self, line: Line, words: str) -> None:
        now = self.clock()
        if now - line.told >= _QUIET:
            line.told = now
            log.log("gate", f"note: {line.title} takes {line.window.size} connections at once for "
                    f"now: {clean(words)[:_FIRST_LINE]}")  # fmt: skip

    # Housekeeping

    async def _look_after(self) -> None:
        saved = self.clock()
        while True:
            await asyncio.sleep(_TURN)
            now = self.clock()
            for line in [line for line in self.lines.values() if line.waiting]:
                self._end_waits(line, now)
                self._pump(line)
            for found in list(self._destinations.values()):
                if now - found.wanted > _IDLE and not self._is_wanted(found):
                    self._forget(found)
            self.submissions.look()
            self._forget_lines(now)
            if now - saved >= _SAVE:
                saved = now
                self._save()

    def _forget_lines(self, now: float) -> None:
        """Those that nobody needs; what was learned of them is kept for a while."""
        if len(self.lines) <= _FEW_LINES:
            return
        needed = {found.line.key for found in self._destinations.values()}
        for line in list(self.lines.values()):
            window = line.window
            idle = not line.waiting and not window.in_use and not line.last_minute(now)
            if idle and line.key not in needed and (window.held_until or 0.0) <= now:
                del self.lines[line.key]
                if _has_learned(line):
                    self._kept_windows[line.key] = window.to_json()
        while len(self._kept_windows) > _MOST:
            self._kept_windows.pop(next(iter(self._kept_windows)))

    def _is_wanted(self, found: Destination) -> bool:
        return any(item.address == found.address for item in found.line.waiting)

    def _end_waits(self, line: Line, now: float) -> None:
        """Who has waited for too long is told; they stand in the order of their coming, but for
        those that were sent back to the front."""
        while line.waiting and (line.waiting[0].gone or now - line.waiting[0].since > _PATIENCE):
            delivery = line.waiting.popleft()
            if not delivery.gone:
                _refuse(delivery, _long(line, delivery))

    def _save(self) -> None:
        windows = {
            key: line.window.to_json() for key, line in self.lines.items() if _has_learned(line)
        }
        content = {
            "windows": {**self._kept_windows, **windows},
            "warmups": self.sources.to_json(),
        }
        text = json.dumps(content)
        if text == self._saved:
            return
        try:
            files.write(self.file, text.encode())
            self._saved = text
        except OSError as error:
            log.log("gate", f"error: {self.file} cannot be written: {error.strerror}")

    def _load(self) -> None:
        try:
            text = self.file.read_text()
            content = json.loads(text)
            self._kept_windows = dict(content["windows"])
            self.sources.load(content["warmups"])
            self._saved = text
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.log("gate", f"error: {self.file} cannot be read: {error}; windows start anew")

    def _hold(self, command: str, content: dict[str, Any]) -> dict[str, Any]:
        """`hold {"name": …, "seconds": …}` and `release {"name": …}`."""
        name = str(content["name"])
        wanted = [
            line
            for line in self.lines.values()
            if name.lower() in (line.key.lower(), line.title.lower())
        ]
        if operator := operators.get(name.lower()):
            wanted = [self._line(operator.id)]
        if not wanted:
            return {"error": f"no receiver is called {name}"}
        for line in wanted:
            if command == "hold":
                line.window.hold(self.clock() + float(content["seconds"]))
            else:
                line.window.release()
            self._pump(line)
        return {"names": [line.title for line in wanted]}

    def status(self) -> dict[str, Any]:
        """Every receiver: who, its places, who waits, a minute's messages, its last complaint."""
        now = self.clock()
        found = []
        for line in self.lines.values():
            window = line.window
            waiting = [item for item in line.waiting if not item.gone]
            ago = None if window.complained_at is None else round(now - window.complained_at, 1)
            held = window.held_until
            found.append(
                {
                    "name": line.title,
                    "key": line.key,
                    "window": window.size,
                    "in_use": window.in_use,
                    "waiting": len(waiting),
                    "longest": round(max((now - item.since for item in waiting), default=0.0), 1),
                    "a_minute": line.last_minute(now),
                    "complaint": window.complaint,
                    "complained": ago,
                    "held": round(held - now, 1) if held and held > now else None,
                    "warmup": self.sources.words(line.key),
                }
            )
        return {
            "receivers": found,
            "open": len(self._pipes),
            "addresses": len(self._destinations),
            "linked": bool(self._links),
        }


_OWN = " tambo: "  # in what is answered here: no complaint of a receiver's


_THROTTLING = re.compile(r"\b421[ -]|\b4\.7\.\d|\btoo many\b", re.IGNORECASE)
_GREYLISTING = re.compile(r"gr[ea]y-?list", re.IGNORECASE)  # that is asked of everybody, once


def is_throttling(text: str) -> bool:
    """Whether a receiver's answer asks for less at a time: 421, 4.7.x, too many (RFC 3463 3.8)."""
    return bool(_THROTTLING.search(text)) and not _GREYLISTING.search(text)


def _has_learned(line: Line) -> bool:
    """Whether its window is another than at first."""
    operator = operators.get(line.key)
    start = operator.connections if operator else operators.DEFAULT_CONNECTIONS
    window = line.window
    return window.size != start or window.ceiling is not None or bool(window.complaint)


def _long(line: Line, delivery: Delivery) -> str:
    number = len(line.waiting) + 1
    said = f"; its last word: {delivery.last}" if delivery.last else ""
    return f"421 4.3.2 tambo: {number} messages wait for {line.title}{said}"


def _refuse(delivery: Delivery, words: str) -> None:
    """Answer instead of the receiver: chasquid keeps the message and tries again."""
    delivery.stop_watching()
    with suppress(OSError):
        delivery.client.send(words.encode(errors="replace")[:500] + b"\r\n")
    delivery.client.close()


async def _read_greeting(connection: socket.socket) -> bytes:
    """All that came with the reply's last line (RFC 5321 4.2.1); what there is if it ends, or does
    not come in time."""
    loop = asyncio.get_running_loop()
    found = b""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_GREETING):
            while len(found) < _MAX_GREETING and not _is_whole(found):
                chunk = await loop.sock_recv(connection, _MAX_GREETING)
                if not chunk:
                    break
                found += chunk
    return found


def _is_whole(reply: bytes) -> bool:
    lines = reply.split(b"\n")
    return any(line[3:4] != b"-" for line in lines[:-1])


def _is_refusal(greeting: bytes) -> bool:
    """Whether it is to be tried again from here: nothing, half a line, or a refusal for now."""
    return not _is_whole(greeting) or greeting[:1] == b"4"


def _words(greeting: bytes) -> str:
    return clean(greeting.decode(errors="replace").strip())[:_FIRST_LINE]


if __name__ == "__main__":
    sys.exit(main())
