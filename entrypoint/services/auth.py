"""The auth service: checks the passwords that people chose, for chasquid. Nothing else does.

    auth [STYLE]        STYLE as log.configure takes it

chasquid (dovecot_auth) asks here whenever its own files of users say no: by Dovecot's protocol
(doc.dovecot.org, "Authentication Protocol"), a connection a question, five seconds at most.

    chasquid → auth    VERSION 1 1 / CPID 7
    auth → chasquid    VERSION 1 1 / SPID 9 / DONE
    chasquid → auth    AUTH 1 PLAIN service=smtp … resp=BASE64     (tabs between the words)
    auth → chasquid    OK 1 user=i@example.com   or   FAIL 1 user=…   or it hangs up: 454

On the other socket chasquid asks who exists that its files do not know: nobody (NOTFOUND).

A check costs 4 MiB or more, so their memory is bounded: what does not fit waits its turn, one login
after the other, and no longer than chasquid does. A no is given late (guessing.py), a yes at once.
What can be said without a check costs none: an unknown name, a login with a generated secret.
Passwords and hashes must never be logged, nor be in an error's text.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import resource
import secrets
import signal
import socket
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint.chasquid import passwords
from entrypoint.chasquid.passwords import Chosen
from entrypoint.common import identity, log, rpc
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.policy.guessing import Delays

BACKLOG = 4096  # questions that wait while this process is busy
AT_ONCE = 24  # units of memory (passwords.UNIT) that all checks take together: 96 MiB
PATIENCE = 4.0  # seconds from a question to its answer; chasquid waits for five
MOST_OPEN = 2048  # connections at once; one more is hung up on
MOST_WAITING = 512  # checks that wait for their turn
MOST_OF_ONE = 256  # of one login's
MOST_LATE = 1024  # no's that are held back; of more, the oldest is given early
_MAX_LINE = 16384  # bytes; chasquid takes less than 4 KB of an AUTH
_IDLE = 5.0  # seconds for a question to be put
_LOOK = 2.0  # seconds between looks at which logins are guessed at
_HOLDER_WAIT = 2.0  # seconds for the holder to answer
_WATCHDOG = 15  # seconds without a turn of the loop, after which the kernel ends this process
_NUDGE = 3.0  # seconds between turns that say it lives
_YES_LIFE = 3600.0  # seconds for which a right password need not be checked again
_MOST_YES = 1024
_TROUBLE = 60.0  # seconds between two lines of the log about the same trouble
# The folder of the sockets is not this user's, so it cannot clean them up (Python 3.13 would try).
_LEFT: Mapping[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
_GUESSED = (
    "note: somebody guesses at the password of {}: for an hour it is tried only while a connection "
    "is open from where that logged in within a week. Credentials with a generated secret go on: "
    "docker exec mail add-user ADDRESS --name NAME"
)
_GREETING = b"VERSION\t1\t1\nSPID\t%d\n"


def main() -> int:
    """Started as root: makes its sockets, drops to its own user for good, serves until SIGTERM."""
    log.configure(*sys.argv[1:2])
    paths, ids = Paths(), Ids.image()
    sockets = (
        rpc.listen(paths.auth_socket, ids, Owner.CHASQUID, BACKLOG),
        rpc.listen(paths.auth_users, ids, Owner.CHASQUID, BACKLOG),
        rpc.listen(paths.auth_door, ids, Owner.TAMBO, BACKLOG),
    )
    # The folder above is chasquid's and tambo's: this user cannot go there by its path.
    os.chdir(paths.auth)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    identity.drop(ids, Owner.AUTH)
    try:
        asyncio.run(Auth(Path(paths.passwords.name), Path(paths.auth_questions.name)).run(*sockets))
    except Exception as error:  # noqa: BLE001 (logged: the process ends here)
        log.log("auth", f"error: {type(error).__name__}: {error}. Starting again.")
        time.sleep(1.5)  # the supervisor does not wait
        return 1
    return 0


class BusyError(Exception):
    """Too much is asked for just now: neither yes nor no."""


@dataclass
class Check:
    """One password to be checked."""

    login: str
    secret: Chosen
    password: bytes = field(repr=False)
    until: float
    answer: asyncio.Future[bool]

    @property
    def units(self) -> int:
        return max(1, -(-self.secret.memory // passwords.UNIT))


@dataclass
class Turns:
    """Checks under way, and those that wait: one login after the other, so that who is guessed at
    keeps nobody else waiting. No more threads than processors: more at once would be no faster."""

    clock: Callable[[], float] = time.monotonic
    threads: int = field(default_factory=lambda: min(AT_ONCE, len(os.sched_getaffinity(0))))

    waiting: int = 0
    _queues: OrderedDict[str, deque[Check]] = field(default_factory=OrderedDict)
    _busy: int = 0  # threads
    _units: int = 0

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="check")

    async def check(self, login: str, secret: Chosen, password: bytes, until: float) -> bool:
        """Whether it is the password. Raises BusyError if its turn does not come in time."""
        queue = self._queues.get(login, ())
        if self.waiting >= MOST_WAITING or len(queue) >= MOST_OF_ONE:
            raise BusyError
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        item = Check(login, secret, password, until, answer)
        self._queues.setdefault(login, deque()).append(item)
        self.waiting += 1
        self._next()
        return await answer

    def _next(self) -> None:
        """Begin what there is room for."""
        while self._queues and self._busy < self.threads:
            login = next(iter(self._queues))
            queue = self._queues[login]
            item = queue[0]
            is_late = item.answer.cancelled() or self.clock() > item.until
            if not is_late and self._units + min(item.units, AT_ONCE) > AT_ONCE:
                return  # its turn comes when another is done
            queue.popleft()
            self.waiting -= 1
            if queue:
                self._queues.move_to_end(login)
            else:
                del self._queues[login]
            if is_late:
                if not item.answer.done():
                    item.answer.set_exception(BusyError())
            else:
                self._begin(item)

    def _begin(self, item: Check) -> None:
        units = min(item.units, AT_ONCE)
        self._busy += 1
        self._units += units
        work = asyncio.get_running_loop().run_in_executor(
            self._pool, item.secret.matches, item.password
        )

        def done(future: asyncio.Future[bool]) -> None:
            self._busy -= 1
            self._units -= units
            if not item.answer.done():
                # scrypt fails only if there is no memory, which says nothing of the password.
                if future.cancelled() or future.exception():
                    item.answer.set_exception(BusyError())
                else:
                    item.answer.set_result(future.result())
            self._next()

        work.add_done_callback(done)


@dataclass
class Auth:
    """The service. `file` is the plan's, as passwords.py has it; at `holder` it asks the holder."""

    file: Path
    holder: Path
    clock: Callable[[], float] = time.monotonic
    log: Callable[[str, str], None] = log.log

    turns: Turns = field(init=False)
    delays: Delays = field(default_factory=Delays)
    answers: dict[str, int] = field(default_factory=lambda: {"yes": 0, "no": 0, "later": 0})
    open: int = 0  # connections
    _guessed: frozenset[str] = frozenset()
    _logins: dict[str, Chosen] = field(default_factory=dict)
    _seen: tuple[int, int, int] | None = None
    _yes: OrderedDict[bytes, float] = field(default_factory=OrderedDict)
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _late: OrderedDict[object, asyncio.Event] = field(default_factory=OrderedDict)
    _said: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.turns = Turns(self.clock)

    async def run(self, checks: socket.socket, users: socket.socket, door: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        servers = await self.serve(checks, users, door)
        tasks = [asyncio.create_task(_nudge()), asyncio.create_task(self.watch())]
        await stop.wait()
        for server in servers:
            server.close()
        for task in tasks:
            task.cancel()

    async def serve(
        self, checks: socket.socket, users: socket.socket, door: socket.socket
    ) -> tuple[asyncio.Server, ...]:
        loop = asyncio.get_running_loop()
        return (
            await loop.create_unix_server(
                lambda: Asked(self), sock=checks, backlog=BACKLOG, **_LEFT
            ),
            await loop.create_unix_server(
                lambda: Existence(self), sock=users, backlog=BACKLOG, **_LEFT
            ),
            await asyncio.start_unix_server(self._verb, sock=door, **_LEFT),
        )

    # What chasquid asks

    async def judge(self, login: str, password: bytes, asked: float) -> bool | None:
        """Whether it is the password; None: it cannot be told just now. `asked`: when chasquid
        began to wait. A no takes its time."""
        due = asked + self.delays.of(login, asked)
        # Counted before it is known, as others may come meanwhile: of a hundred at once, all are
        # late, however fast the first no was found.
        self.delays.failed(login, asked)
        try:
            good = await self._is_right(login, password, asked + PATIENCE)
        except BusyError:
            self._trouble("busy", "warning: more passwords are tried than can be checked; some "
                          "get a temporary failure (454)")  # fmt: skip
            good = None
        self.answers["later" if good is None else "yes" if good else "no"] += 1
        if good is False:
            await self._hold_back(due)
        else:
            self.delays.did_not_fail(login, self.clock())
        return good

    async def _is_right(self, login: str, password: bytes, until: float) -> bool | None:
        """Raises BusyError."""
        logins = self.logins()
        if logins is None:
            return None
        secret = logins.get(login)
        if secret is None:
            return False
        if login in self._guessed and not await self._is_here(login):
            return False
        mark = self._mark(secret, password)
        now = self.clock()
        if self._yes.get(mark, 0.0) > now:
            return True
        good = await self.turns.check(login, secret, password, until)
        # It may have been changed meanwhile.
        if good and (self.logins() or {}).get(login) == secret:
            self._yes[mark] = now + _YES_LIFE
            while len(self._yes) > _MOST_YES:
                self._yes.popitem(last=False)
            return True
        return False

    async def _is_here(self, login: str) -> bool:
        """Whether somebody is connected from where he logged in as `login` before."""
        try:
            answer = await rpc.question(self.holder, f"here {login}", _HOLDER_WAIT)
        except rpc.UnreachableError as error:
            self._trouble("holder", f"warning: the holder does not say who is connected: {error}")
            raise BusyError from None
        return bool(answer.get("known", True))

    async def watch(self) -> None:
        """Which logins are guessed at."""
        while True:
            with suppress(rpc.UnreachableError):
                answer = await rpc.question(self.holder, "guessed", _HOLDER_WAIT)
                found = frozenset(map(str, answer.get("logins", ())))
                for login in sorted((found - self._guessed) & (self.logins() or {}).keys()):
                    self.log("auth", _GUESSED.format(login))
                self._guessed = found
            await asyncio.sleep(_LOOK)

    def _mark(self, secret: Chosen, password: bytes) -> bytes:
        """What a right password is known by for a while, in this process alone: its key is random
        and never leaves it. A new entry has new marks."""
        stored = secret.key if isinstance(secret, passwords.Scrypt) else b""
        return hmac.digest(self._key, stored + hashlib.sha256(password).digest(), "sha256")

    async def _hold_back(self, due: float) -> None:
        token = object()
        early = self._late[token] = asyncio.Event()
        if len(self._late) > MOST_LATE:
            self._late.popitem(last=False)[1].set()
        with suppress(TimeoutError):
            await asyncio.wait_for(early.wait(), max(0.0, due - self.clock()))
        self._late.pop(token, None)

    def logins(self) -> Mapping[str, Chosen] | None:
        """As they are served now; None if they cannot be read: then nobody is told no or yes."""
        try:
            found = self.file.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                self._logins = passwords.load(self.file.read_text())
                self._seen = seen
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._seen = None
            kind = type(error).__name__
            text = f"error: {self.file.name} cannot be read ({kind}); nobody logs in with a chosen"
            self._trouble("file", f"{text} password")
            return None
        return self._logins

    def _trouble(self, what: str, text: str) -> None:
        """To the log, at most once a minute."""
        now = self.clock()
        if now - self._said.get(what, -_TROUBLE) >= _TROUBLE:
            self._said[what] = now
            self.log("auth", text)

    # What verbs ask

    async def _verb(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await asyncio.wait_for(reader.readline(), _IDLE)).decode()
            answer = self.status() if line.strip() == "status" else {"error": "unknown command"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # whoever asked has gone
        finally:
            writer.close()

    def status(self) -> dict[str, Any]:
        logins = self.logins()
        return {
            "logins": None if logins is None else len(logins),
            "open": self.open,
            "waiting": self.turns.waiting,
            "answers": dict(self.answers),
        }


async def _nudge() -> None:
    """A loop that turns no more is ended by SIGALRM, and the supervisor starts another."""
    while True:
        signal.setitimer(signal.ITIMER_REAL, _WATCHDOG)
        await asyncio.sleep(_NUDGE)


class _Lines(asyncio.Protocol):
    """A connection of chasquid's: lines in, bounded in length and time."""

    def __init__(self, auth: Auth) -> None:
        self.auth = auth
        self.began = auth.clock()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        if self.auth.open >= MOST_OPEN:
            transport.abort()
            return
        self.auth.open += 1
        self._counted = True
        self._patience = asyncio.get_running_loop().call_later(_IDLE, transport.abort)
        self.greet()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._counted:
            self.auth.open -= 1
        if self._patience:
            self._patience.cancel()
        self._transport = None
        self.gone()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0 and self._transport:
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            self.said(line)
        if len(self._buffer) > _MAX_LINE:
            self.hang_up()

    def write(self, data: bytes) -> None:
        if self._transport:
            self._transport.write(data)

    def hang_up(self) -> None:
        self._buffer.clear()
        if self._transport:
            self._transport.close()

    def greet(self) -> None:
        raise NotImplementedError

    def said(self, line: bytes) -> None:
        raise NotImplementedError

    def gone(self) -> None:
        """The other end has hung up."""


class Existence(_Lines):
    """Who exists is in chasquid's own files; this knows nobody besides."""

    def greet(self) -> None:
        self.write(_GREETING % os.getpid())

    def said(self, line: bytes) -> None:
        words = line.split(b"\t")
        if words[0] == b"USER" and len(words) >= 3 and words[1].isdigit():
            self.write(b"NOTFOUND\t%s\n" % words[1][:10])
        elif words[0] != b"VERSION":
            self.hang_up()


class Asked(_Lines):
    """One password to be checked; a second question on the same connection is not answered."""

    _task: asyncio.Task[None] | None = None

    def greet(self) -> None:
        self.write(_GREETING % os.getpid() + b"DONE\n")

    def said(self, line: bytes) -> None:
        words = line.split(b"\t")
        if words[0] in (b"VERSION", b"CPID"):
            return
        question = parse(words)
        if question is None or self._task:
            self.hang_up()
            return
        self._task = asyncio.get_running_loop().create_task(self._answer(*question))

    async def _answer(self, number: str, login: str, password: bytes) -> None:
        good = await self.auth.judge(login, password, self.began)
        if good is not None:
            word = "OK" if good else "FAIL"
            self.write(f"{word}\t{number}\tuser={login}\n".encode())
        self.hang_up()

    def gone(self) -> None:
        if self._task:
            self._task.cancel()


def parse(words: list[bytes]) -> tuple[str, str, bytes] | None:
    """The number of the question, login and password; None for what chasquid does not ask."""
    if len(words) < 4 or words[0] != b"AUTH" or words[2] != b"PLAIN" or not words[1].isdigit():
        return None
    given = [word for word in words[3:] if word.startswith(b"resp=")]
    if len(given) != 1 or len(words[1]) > 10:
        return None
    try:
        raw = base64.b64decode(given[0].removeprefix(b"resp="), validate=True)
        as_whom, login, password = raw.split(b"\0", 2)
        name = login.decode()
    except ValueError:
        return None
    if as_whom not in (b"", login) or not name or any(char in name for char in "\t\r\n"):
        return None
    return words[1].decode(), name, password


if __name__ == "__main__":
    sys.exit(main())
