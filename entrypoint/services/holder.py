"""The socket holder: owns ports 25, 465 and 587, and runs chasquid on them.

chasquid takes certificates, keys and domains only at its start, and has no privilege to bind a
port. So this process binds them once and keeps them for its life: a connection that comes while
chasquid restarts waits in the kernel's queue instead of being refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from entrypoint.chasquid import quarantine
from entrypoint.chasquid.maillog import Event, Kind, Reader, clean, iso
from entrypoint.common import identity, interface, log, process, rpc, seccomp
from entrypoint.common.errors import UserError
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.common.rates import Rates
from entrypoint.history.buffer import Outbox
from entrypoint.policy import queueroom
from entrypoint.policy.capacity import Capacity
from entrypoint.policy.strangers import Strangers
from entrypoint.services import parking
from entrypoint.services.connections import Connections
from entrypoint.services.outgoing import Outgoing
from entrypoint.services.parking import Parking
from entrypoint.services.removal import Removal
from entrypoint.services.strangersfile import StrangersFile

# chasquid's names for its sockets (chasquid.go, systemd.Listeners).
PORTS = (("smtp", 25), ("submission", 587), ("submission_tls", 465))
_CHASQUID = "/usr/bin/chasquid"
_BACKLOG = 4096  # connections that wait while chasquid restarts; the kernel caps it at somaxconn
_DOOR_BACKLOG = 64  # verbs that wait
_QUESTION_BACKLOG = 4096  # questions of services that wait: one for each message or log-in
_QUESTIONS = ("session", "sessions", "known", "guessed", "here")  # all that services may ask
_LISTENER_WAIT = 5.0  # seconds for a new chasquid to say how it can be watched
_MOST_DESCRIPTORS = 65536  # a fork copies the table of descriptors up to the highest one
_BACK_OFF = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds before each try after a death
_STEADY = 10.0  # seconds of life after which a death counts as the first again
_STOP_WAIT = 3.0  # seconds between SIGTERM and SIGKILL
_READY_WAIT = 15.0  # seconds for chasquid to load and listen
_RELOAD_WAIT = 5.0  # seconds for chasquid to read users and aliases
_WATCH_WAIT = 20.0  # seconds for a message to come into the queue
_READ_WAIT = 8.0  # seconds for a look at the queue, at reports or at events
_LOOK_WAIT = 30.0  # seconds for one at its messages
_MAX_REQUEST = 64 << 20  # bytes of a line at the control socket: 100,000 messages to drop
_NO_LIMIT = 1 << 60  # bytes: version 1 of cgroups says a very large number
_MAX_EVENT = 1 << 20  # bytes; the kernel takes no more of one than half of that
_AUTH_WAIT = 3.0  # seconds for the auth service to start
_FEED = 600.0  # seconds between starts of chasquid for the sake of parked messages
_FEED_LOOK = 30.0  # seconds between looks whether there is room for them
_FOR_MEMORY = (-signal.SIGKILL, 2)  # how chasquid ends without memory: by the kernel, by Go itself
# This user may not enter the folder of every socket, so it cannot clean up (Python 3.13 would try).
_LEFT: Mapping[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
_LAST_EVENTS = 1.0  # seconds at the end for the recorder to store what it has not yet


@dataclass(frozen=True)
class Options:
    """What the holder needs of the settings: words of its command line, set by the boot.

    `ipv6`: whether there is such an address, None if the interface tells. `largest` message in
    bytes; how many messages may wait (`queue`), and for how many days events are kept (`keep`).
    """

    ipv6: bool | None
    rates: Rates
    largest: int
    queue: int
    keep: int

    def words(self) -> str:
        ipv6 = {True: "yes", False: "no", None: "interface"}[self.ipv6]
        return f"{ipv6} {self.rates} {self.largest} {self.queue} {self.keep}"

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """Raises ValueError."""
        ipv6, rates, largest, queue, keep = words
        return cls(
            {"yes": True, "no": False}.get(ipv6),
            Rates.parse(rates),
            int(largest),
            int(queue),
            int(keep),
        )

    @property
    def has_ipv6(self) -> bool:
        return interface.address(6) is not None if self.ipv6 is None else self.ipv6


def main() -> int:
    """holder STYLE OPTIONS: the style of the log, and `Options.words`."""
    log.configure(sys.argv[1], "smtp")
    try:
        run(Options.parse(sys.argv[2:]), Paths(), Ids.image())
    except UserError as error:
        log.complain(f"error: {error}")
        return error.exit_code
    return 0


def run(options: Options, paths: Paths, ids: Ids) -> None:
    """Started as root: binds, drops to chasquid's user for good, serves until SIGTERM.

    Raises UserError if a port is taken.
    """
    sockets = bind()
    # tambo's verbs may connect, chasquid itself may not.
    door = rpc.listen(paths.holder_socket, ids, Owner.TAMBO, _DOOR_BACKLOG)
    questions = (
        rpc.listen(paths.sessions_socket, ids, Owner.CHASQUID, _QUESTION_BACKLOG),
        # In a folder that the auth service may enter.
        rpc.listen(paths.auth_questions, ids, Owner.AUTH, _QUESTION_BACKLOG),
    )
    identity.drop(ids, Owner.CHASQUID)
    holder = Holder(
        argv=(_CHASQUID, f"-config_dir={paths.chasquid}"),
        environ=environment(options.has_ipv6, _memory_limit()),
        sockets=sockets,
        outbox=Outbox(paths.recorder_socket, options.keep),
        data=paths.queue,
        connections=connections(
            sockets,
            options.rates,
            paths,
            options.largest,
            Outgoing(paths.gate_socket, options.has_ipv6, log.log),
        ),
        parking=Parking(paths.waiting, paths.parked),
        budget=queueroom.budget(_memory_limit(), options.queue).queued,
    )
    _await(paths.auth_socket, paths.auth_users)
    asyncio.run(holder.run(door, *questions))


def connections(
    sockets: Sequence[tuple[str, socket.socket]],
    rates: Rates,
    paths: Paths,
    largest: int,
    outgoing: Outgoing | None = None,
) -> Connections:
    """The table of connections, after a look whether there can be one here.

    `largest` is the largest message in bytes.
    """
    strangers = Strangers(rates)
    file = StrangersFile(paths.strangers, log.log)
    if content := file.load():
        try:
            strangers.load(content, time.time())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            file.complain(repr(error))
    _, count = descriptors()
    memory = _memory_limit() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    capacity = Capacity.of(count, memory, largest)
    found = Connections(sockets, strangers, capacity, file, log.log, outgoing)
    try:
        seccomp.check()
    except OSError as error:
        found.trouble = error.strerror or str(error)
        log.log(
            "smtp",
            f"warning: connections cannot be watched here ({found.trouble}): mail flows, but "
            "nothing is bounded by address, and it leaves unpaced. The doctor says what it takes.",
        )
    return found


def _await(*sockets: Path) -> None:
    """chasquid looks at its start whether the auth service is there, and complains."""
    end = time.monotonic() + _AUTH_WAIT
    while not all(path.exists() for path in sockets) and time.monotonic() < end:
        time.sleep(0.02)


def bind() -> list[tuple[str, socket.socket]]:
    """The listening sockets of both families. Raises UserError that names what is in the way."""
    bound = []
    families = [(socket.AF_INET, "0.0.0.0")]  # noqa: S104 (a mail server listens everywhere)
    if _has_ipv6():
        families.append((socket.AF_INET6, "::"))
    for name, port in PORTS:
        for family, address in families:
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind((address, port))
                listener.listen(_BACKLOG)
            except OSError as error:
                msg = f"cannot listen on port {port} of {address}: {error.strerror}"
                raise UserError(
                    msg,
                    f"see which program has it, and stop it: ss -ltnp 'sport = :{port}' "
                    "(often exim4 or postfix: systemctl disable --now exim4)",
                ) from None
            bound.append((name, listener))
    return bound


def _has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def environment(has_ipv6: bool, memory_limit: int | None) -> dict[str, str]:
    """chasquid's whole environment: nothing of the container's own gets there."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8", "TZ": "UTC"}
    if not has_ipv6:
        # Nothing may leave by an address that has neither SPF nor PTR (resolv.conf(5)).
        environ["RES_OPTIONS"] = "no-aaaa"
    if memory_limit:
        # Queued messages live in memory: collect before the container's limit kills the process.
        environ["GOMEMLIMIT"] = str(memory_limit * 3 // 4)
    return environ


def _memory_limit() -> int | None:
    """The container's memory limit in bytes, if it has one (cgroups(7), version 2 or 1)."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            limit = int(Path("/sys/fs/cgroup", name).read_text())
            return limit if limit < _NO_LIMIT else None
    return None


def descriptors() -> tuple[int, int]:
    """The first of chasquid's descriptors that are connections, and how many there may be.

    Half of what a process may have, the upper half: what it opens itself gets the lowest. Also
    lets this process have as many as it may.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        most = _MOST_DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    half = min(most, _MOST_DESCRIPTORS) // 2
    return half, half


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass
class Holder:
    """Keeps one chasquid running on `sockets`. Single-threaded: see process.spawn_with_sockets.

    Without `connections` chasquid accepts by itself.
    `data` is chasquid's folder on the volume; `budget` the bytes of messages that it may hold, None
    without a limit.
    """

    argv: Sequence[str]
    environ: Mapping[str, str]
    sockets: Sequence[tuple[str, socket.socket]]
    outbox: Outbox
    data: Path
    connections: Connections | None = None
    parking: Parking | None = None
    budget: int | None = None
    log: Callable[[str, str], None] = log.log

    _reader: Reader = field(default_factory=Reader)
    _pid: int = 0
    _started: float = 0.0
    _starts: int = 0
    _deaths: int = 0
    _killed: float = 0.0  # deaths for want of memory, of late; see parking.allowance
    _fed: float = 0.0  # when parked messages were fed back, or could have been; monotonic
    _stopping: bool = False
    _expected: bool = False  # whether the next death is our own doing
    _listening: int = 0
    _hangups: int = 0
    _last_words: str = ""
    _unjudged: int = 0  # messages refused for want of an answer of the policy service
    _unjudged_at: float | None = None  # the last of them
    _mourning: asyncio.Task[None] | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _respawn: asyncio.Event = field(default_factory=asyncio.Event)
    _may_start: asyncio.Event = field(default_factory=_set_event)

    @property
    def ready(self) -> bool:
        return self._pid != 0 and self._listening >= len(self.sockets)

    async def run(self, door: socket.socket, *questions: socket.socket) -> None:
        """Serve until SIGTERM. At `questions` services may ask what `_QUESTIONS` has."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = await asyncio.start_unix_server(
            self._answer, sock=door, limit=_MAX_REQUEST, **_LEFT
        )
        for item in questions:
            await asyncio.start_unix_server(
                self._answer_service, sock=item, backlog=_QUESTION_BACKLOG, **_LEFT
            )
        works = [self._keep(), self.outbox.run(), self._feed_back()]
        if self.connections:
            works.append(self.connections.run())
            if self.connections.outgoing and not self.connections.trouble:
                works.append(self.connections.outgoing.run())
        tasks = [asyncio.create_task(work) for work in works]
        await stop.wait()
        self._stopping = True
        server.close()
        await self._end()
        if self.connections:
            self.connections.close()
        await self.outbox.flush(_LAST_EVENTS)
        for task in tasks:
            task.cancel()

    async def _keep(self) -> None:
        """Start chasquid, and start it again whenever it ends."""
        while not self._stopping:
            await self._live_once()

    async def _live_once(self) -> None:
        """Start chasquid when it may start, unless it has to stop by then; wait for its end."""
        delay = _BACK_OFF[min(self._deaths, len(_BACK_OFF) - 1)]
        if delay:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._respawn.wait(), delay)
        self._respawn.clear()
        await self._may_start.wait()
        if self._stopping:
            return
        self._settle()
        self._start()
        await self._ended.wait()

    def _allowance(self) -> int | None:
        if self.budget is None:
            return None
        return parking.allowance(self.budget, self._killed)

    def _settle(self) -> None:
        """Before chasquid reads its queue: what does not fit into memory is put aside."""
        if self.parking is None:
            return
        self._fed = time.monotonic()
        try:
            moved = self.parking.settle(self._allowance(), time.time())
        except OSError as error:
            self.log("smtp", f"error: the queue cannot be counted: {error}")
            return
        if moved.parked:
            self.log("smtp", f"warning: {len(moved.parked)} messages of the queue do not fit into "
                     "memory and wait in queue.parked: docker exec mail list-queue")  # fmt: skip
        if moved.fed:
            self.log("smtp", f"note: {len(moved.fed)} messages that were parked are tried again")

    async def _feed_back(self) -> None:
        """Start chasquid again for parked messages when there is room, every ten minutes at most.

        Its start takes them up; no connection is refused, but open ones end.
        """
        while self.parking is not None:
            await asyncio.sleep(_FEED_LOOK)
            with suppress(OSError):
                await self._give_up_bounces(self.parking)
            if self.ready and self._killed and time.monotonic() - self._started > parking.STEADY:
                self._killed = 0.0
            if time.monotonic() - self._fed < _FEED or not self.parking.waiting():
                continue
            allowance = self._allowance()
            with suppress(OSError):
                if allowance is None or self.parking.room_for_more(allowance):
                    await self.restart()
                    continue
            self._fed = time.monotonic()  # nothing fits: look again later

    async def _give_up_bounces(self, queue: Parking) -> None:
        """Bounces that nobody took for six hours go, while there is no chasquid; every ten minutes
        at most."""
        old = queue.old_bounces(time.time())
        if not old or time.monotonic() - self._fed < _FEED:
            return

        def carry_out() -> None:
            for item in queue.give_up(old):
                name = item.name.partition(":")[2]
                self._tell(Event(Kind.DROPPED, time.time(), id=name, sender="<>"))

        async with self._turn:
            await self._renew(carry_out)
        self.log("smtp", f"note: {len(old)} bounces that nobody took for six hours are given up")

    def _start(self) -> None:
        self._ended.clear()
        self._listening = self._hangups = 0
        self._started = time.monotonic()
        self._starts += 1
        self._put_aside()
        # Each event is one write(2), and is read as one: text in it cannot pass for another.
        out_read, out_write = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        out_write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_EVENT)
        out_read.setblocking(False)
        err_read, err_write = os.pipe()
        self._pid = self._spawn(out_write.fileno(), err_write)
        out_write.close()
        os.close(err_write)
        pumps = (
            asyncio.create_task(self._read_events(out_read)),
            asyncio.create_task(self._read_words(err_read)),
        )
        watch = os.pidfd_open(self._pid)
        asyncio.get_running_loop().add_reader(watch, self._reap, watch, self._pid, pumps)

    def _put_aside(self) -> None:
        """What chasquid would end or hang at goes out of its way."""
        try:
            for name, why in quarantine.put_aside(self.data):
                self.log(
                    "smtp",
                    f"error: a file of the queue is damaged ({why}), and was put aside: "
                    f"data/chasquid/{quarantine.FOLDER}/{clean(name)}. Its message is not sent.",
                )
        except OSError as error:
            self.log("smtp", f"error: the queue cannot be looked through: {error.strerror}")

    def _spawn(self, stdout: int, stderr: int) -> int:
        """Another chasquid, whose connections are watched if that can be."""
        sockets = [(name, listener.fileno()) for name, listener in self.sockets]
        if self.connections is None or self.connections.trouble:
            return process.spawn_with_sockets(self.argv, self.environ, sockets, stdout, stderr)
        base, count = descriptors()
        wanted = self.connections.filter(base)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pid = process.spawn_with_sockets(
                self.argv,
                self.environ,
                sockets,
                stdout,
                stderr,
                lambda: seccomp.install_and_send(wanted, theirs),
            )
            theirs.close()
            try:
                listener = seccomp.receive_listener(ours, _LISTENER_WAIT)
            except OSError as error:
                self.log("smtp", f"error: this chasquid's connections are not watched: {error}")
                return pid
        self.connections.attach(pid, listener, base, count)
        return pid

    def _reap(self, watch: int, pid: int, pumps: Sequence[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(watch)
        os.close(watch)
        _, status = os.waitpid(pid, 0)
        self._pid = 0  # from here on the number may be another process's
        if self.connections:
            self.connections.detach()
        self._mourning = loop.create_task(self._after_death(status, pumps))

    async def _after_death(self, status: int, pumps: Sequence[asyncio.Task[None]]) -> None:
        # What it said last says why it died; its pipes may outlive it in a delivery agent.
        await asyncio.wait(pumps, timeout=1.0)
        code = os.waitstatus_to_exitcode(status)
        lived = time.monotonic() - self._started
        if self._expected:
            self._deaths = 0
        elif not self._stopping:
            self._deaths = 0 if lived > _STEADY else self._deaths + 1
            if code in _FOR_MEMORY:
                self._killed += 1
            why = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            said = f"; it said last: {self._last_words}" if self._last_words else ""
            self.log("smtp", f"error: chasquid {why} after {lived:.1f} s{said}. Starting it again.")
        self._expected = False
        self._ended.set()
        await self._notify()

    async def _read_events(self, source: socket.socket) -> None:
        """chasquid's mail log: to the container's, and to the recorder."""
        loop = asyncio.get_running_loop()
        buffer = bytearray(_MAX_EVENT)
        with source:
            while size := await loop.sock_recv_into(source, buffer):
                for event in self._reader.feed(bytes(buffer[:size]), time.time()):
                    self._tell(event)
                    if self.connections:
                        self.connections.told(event, self._reader.connection)
                        if self.connections.outgoing:
                            self.connections.outgoing.told(event)

    def _tell(self, event: Event) -> None:
        log.log("mail", str(event), at=event.at, fields=_fields(event))
        self.outbox.put(event)
        if event.is_unjudged:
            self._unjudged += 1
            self._unjudged_at = event.at

    async def _read_words(self, fd: int) -> None:
        """chasquid's own log, a line at a time."""
        reader = asyncio.StreamReader(limit=1 << 20)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
        )
        try:
            while raw := await _line(reader):
                await self._daemon_said(clean(raw.decode(errors="replace").rstrip("\r\n")))
        finally:
            transport.close()

    async def _daemon_said(self, text: str) -> None:
        """The daemon's own log: only what it says of trouble is worth a line; the rest is state."""
        self._last_words = text
        if "Server listening on" in text:
            self._listening += 1
            await self._notify()
        elif "Received SIGHUP" in text:
            self._hangups += 1
            await self._notify()
        if _is_trouble(text):
            self.log("chasquid", text)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, condition: Callable[[], bool], timeout: float) -> bool:
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            return False
        return True

    async def _end(self) -> None:
        """End chasquid; it exits at once on SIGTERM."""
        if not self._pid:
            return
        self._expected = True
        os.kill(self._pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended.wait(), _STOP_WAIT)
        except TimeoutError:
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)
            await self._ended.wait()

    async def _renew(self, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Another chasquid, and `meanwhile` done while there was none. Caller has the turn.

        Whether the new one is ready. What `meanwhile` raises, this does, but chasquid is started.
        """
        starts = self._starts
        self._respawn.set()  # if it is waiting to be started again, it need not wait longer
        self._may_start.clear()
        try:
            await self._end()
            meanwhile()
        finally:
            self._may_start.set()
        return await self._until(lambda: self._starts > starts and self.ready, _READY_WAIT)

    async def restart(self) -> dict[str, Any]:
        """A new chasquid on the same sockets: reads certificates, keys, domains, everything."""
        async with self._turn:
            done = await self._renew()
            self.log("smtp", "chasquid restarted" if done else "error: chasquid does not start")
            return {"done": done, **self.status()}

    async def remove(self, text: str) -> dict[str, Any]:
        """Files of chasquid's go while it is down: see removal.py. Says which have gone.

        Whoever asked may be gone when it is done, and this process may be killed at any moment: a
        file is there or not, and the chasquid that comes next takes what is there.
        """
        try:
            removal = Removal.parse(text, self.data)
        except ValueError as error:
            return {"error": str(error)}
        gone: list[str] = []
        problem = ""

        def carry_out() -> None:
            nonlocal problem
            try:
                gone.extend(removal.carry_out())
            except OSError as error:
                problem = f"{error.filename}: {error.strerror}"
            for name in gone:
                self._tell(removal.told(name, time.time()))

        async with self._turn:
            try:
                if removal.is_void():
                    return {"removed": [], "done": True, **self.status()}
            except OSError as error:
                return {"error": f"{error.filename}: {error.strerror}"}
            done = await self._renew(carry_out)
            self.log("smtp", "chasquid restarted" if done else "error: chasquid does not start")
            answer = {"removed": gone, "done": done, **self.status()}
            return {**answer, "error": problem} if problem else answer

    async def reload(self) -> dict[str, Any]:
        """Users and aliases are read again when this returns.

        chasquid does not say when a reload is over, but it handles signals one after the other:
        that it takes up a second one proves that the first is done.
        """
        async with self._turn:
            done = await self._until(lambda: self.ready, _READY_WAIT)
            for _ in range(2):
                if not done or not self._pid:
                    break
                hangups = self._hangups
                os.kill(self._pid, signal.SIGHUP)
                done = await self._until(
                    lambda hangups=hangups: self._hangups > hangups or not self.ready,  # type: ignore[misc]
                    _RELOAD_WAIT,
                )
            # A chasquid that a reload ended has read everything when it is ready again.
            done = done and await self._until(lambda: self.ready, _READY_WAIT)
            return {"done": done, **self.status()}

    def status(self) -> dict[str, Any]:
        return {
            "ready": self.ready,
            "pid": self._pid,
            "seconds": round(time.monotonic() - self._started, 1),
            "starts": self._starts,
            "last_words": self._last_words,
            "unjudged": {"count": self._unjudged, "last": self._unjudged_at},
            "parked": self.parking.waiting() if self.parking else 0,
            "events": self.outbox.status(),
            "connections": self.connections.status() if self.connections else {"watched": False},
            "outgoing": self._outgoing(),
        }

    def _outgoing(self) -> dict[str, Any]:
        if self.connections is None or self.connections.outgoing is None:
            return {"paced": False}
        # A chasquid that could not be watched dials by itself.
        paced = not self.connections.trouble and (self.connections.is_watching or not self._pid)
        return {"paced": paced, **self.connections.outgoing.status()}

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await asyncio.wait_for(reader.readline(), 5.0)).decode()
            command, _, content = line.strip().partition(" ")
            if command == "restart":
                answer = await self.restart()
            elif command == "reload":
                answer = await self.reload()
            elif command == "status":
                answer = self.status()
            elif command in ("queue", "reports", "remembered", "events"):
                answer = await _read_mail(command, *content.split())
            elif command == "look":
                answer = await _read_mail(command, asked=content, timeout=_LOOK_WAIT)
            elif command == "remove":
                answer = await self.remove(content)
            elif command == "watch":
                return await _watch(writer, *content.split())
            elif command in _QUESTIONS:
                answer = await self._question(command, content)
            elif command in ("blocked", "unblock"):
                answer = self._blocks(command, content)
            else:
                answer = {"error": "unknown command"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.CancelledError):
            pass  # whoever asked has gone, or this process ends
        finally:
            writer.close()

    def _blocks(self, command: str, content: str) -> dict[str, Any]:
        """`blocked`, and `unblock NETWORK|all`."""
        if self.connections is None:
            return {"error": "connections are not watched"}
        return (
            self.connections.blocked()
            if command == "blocked"
            else self.connections.unblock(content)
        )

    async def _answer_service(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """What a service asks, which is chasquid's user's as chasquid is."""
        try:
            line = (await asyncio.wait_for(reader.readline(), 5.0)).decode()
            command, _, content = line.strip().partition(" ")
            writer.write(json.dumps(await self._question(command, content)).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, OSError, ValueError, asyncio.CancelledError):
            pass  # whoever asked has gone, or this process ends
        finally:
            writer.close()

    async def _question(self, command: str, content: str) -> dict[str, Any]:
        """`session ADDRESS:PORT`, `sessions`, `known ADDRESS [LOGIN]`, `guessed`,
        `here LOGIN`: see connections.py."""
        if self.connections is None:
            return {"error": "connections are not watched"}
        if command == "session":
            return await self.connections.session(content)
        if command == "sessions":
            return self.connections.sessions()
        if command == "guessed":
            return self.connections.guessed()
        if command == "here":
            return self.connections.here(content)
        if command == "known":
            address, _, login = content.partition(" ")
            return self.connections.known(address, login)
        return {"error": "unknown command"}


async def _read_mail(*words: str, asked: str = "", timeout: float = _READ_WAIT) -> dict[str, Any]:
    """What chasquid's user alone may read; by a process of its own, as it is anybody's mail."""
    argv = (sys.executable, "-I", "-m", "entrypoint.services.reader", *words)
    status, output = await process.output_of(
        argv, {"LANG": "C.UTF-8"}, timeout=timeout, input=asked.encode()
    )
    if status != 0:
        why = "not in time" if status == 124 else f"its reader ended with status {status}"
        return {"error": why}
    found = json.loads(output)
    return found if isinstance(found, dict) else {}


async def _watch(writer: asyncio.StreamWriter, *words: str) -> None:
    """Pass on what the watcher of the queue says, as it says it."""
    argv = (sys.executable, "-I", "-m", "entrypoint.services.watcher", *words)
    async for line in process.lines_of(argv, {"LANG": "C.UTF-8"}, timeout=_WATCH_WAIT):
        writer.write(line)
        await writer.drain()


def _fields(event: Event) -> dict[str, Any]:
    """An event as JSON in the log: by the names that a line of text has too."""
    found = event.to_json()
    found.pop("at")
    if event.next:
        found["next"] = iso(event.next)
    names = {"kind": "event", "sender": "from", "recipients": "to"}
    return {names.get(name, name): value for name, value in found.items()}


async def _line(reader: asyncio.StreamReader) -> bytes:
    """A line, or the first megabyte of one."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await reader.readexactly(error.consumed)


def _is_trouble(text: str) -> bool:
    """Whether a line of the daemon's own log is more than news: its level comes first."""
    return not text.startswith(("_ ", ". "))


if __name__ == "__main__":
    sys.exit(main())
