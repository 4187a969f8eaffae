"""The policy service: answers chasquid's post-data hook. May this be sent, by whom, now?

    hook → policy    tambo 1 / login=… / from=… / to=… / remote=… / spf=… / an empty line / message
    policy → hook    554 5.7.1 i@example.com may not send as j@example.com (From)

    policy [STYLE]        STYLE as log.configure takes it

The message is read to its end, but only its header section is kept. One thread, and no
pause between a look at a counter and its change: two messages cannot both have the last place.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import smtplib
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid
from pathlib import Path
from typing import Any

from entrypoint.chasquid.backlog import Backlog
from entrypoint.chasquid.maillog import Event, Kind, clean
from entrypoint.common import files, identity, log, rpc
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.history import store
from entrypoint.policy import abuse, decide, header, mailboxes, queueroom
from entrypoint.policy.abuse import Outcomes
from entrypoint.policy.backscatter import Bounces
from entrypoint.policy.decide import Answer, Code, Envelope, Room, Rules
from entrypoint.policy.queueroom import Demand
from entrypoint.policy.refusals import Refusals
from entrypoint.policy.revocation import Changes
from entrypoint.policy.usagelog import Ledger
from entrypoint.services import oldreports
from entrypoint.services.admission import Admission, Measured
from entrypoint.services.mailboxes import Mailboxes, maildir
from entrypoint.services.pacing import Pacing
from entrypoint.services.vouching import Vouching

# Hooks that wait until this one looks, and hooks that it listens to; more are refused at once. Each
# is a process and a thread of chasquid's, and chasquid ends if it gets no further thread: all have
# to fit into the container's pids_limit (2,048), however long this one hangs.
BACKLOG = 256
_MOST = 256
_BUSY = decide.later("4.3.0", "the policy service is asked too much; try again in a minute")
_CHUNK = 65536  # bytes
_MAX_PREAMBLE = 65536  # bytes; chasquid takes 100 recipients of 256 bytes
_PATIENCE = 60.0  # seconds for a hook to hand over its message; chasquid gives it as many
_LOOK = 0.5  # seconds for which a look at disk and memory holds
_WATCHDOG = 15  # seconds without a turn of the loop, after which the kernel ends this process
_NUDGE = 3.0  # seconds between turns that say it lives
_TELL = 30.0  # seconds before the postmaster is written to again, if it could not be done
_LOOK_SOON = 0.1  # seconds between such looks when there is no room
_OUTCOMES = 2.0  # seconds between looks at what became of mail
_SESSION_WAIT = 3.0  # seconds for the holder to say when a connection logged in
_MANY = 1000  # events of one look
_ENDS = (Kind.RECEIVED, Kind.SENT, Kind.BOUNCED)
_FATES = (*_ENDS, Kind.DEFERRED, Kind.DONE, Kind.DROPPED)
REPORT_MOST = 10 << 20  # bytes of a message to rua@ or ruf@
_FORGIVEN = 86400.0  # seconds for which a resumed login is not paused for what it sends
_NOTED = 7 * 86400.0  # seconds for which a login is warned about what it does
# The folder of the sockets is not this user's, so it cannot clean them up (Python 3.13 would try).
_LEFT: Mapping[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
_GREETING = "tambo 1"
_SWEEP = 3600.0  # seconds between looks for old reports
_SWEEP_ON = 10.0  # seconds, while there are more of them
_MAILBOXES = 30.0  # seconds between looks at mailboxes that are full
_MAX_QUEUE = 2000  # messages, while the rules are not known


def main() -> int:
    """Started as root: makes its sockets, drops to chasquid's user for good, serves until
    SIGTERM."""
    log.configure(*sys.argv[1:2])
    paths, ids = Paths(), Ids.image()
    doors = (
        rpc.listen(paths.policy_socket, ids, Owner.CHASQUID, BACKLOG),
        rpc.listen(paths.policy_door, ids, Owner.TAMBO, BACKLOG),
    )
    identity.drop(ids, Owner.CHASQUID)
    os.umask(0o077)
    try:
        asyncio.run(Policy(paths).run(*doors))
    except Exception as error:  # noqa: BLE001 (logged: the process ends here)
        log.log("policy", f"error: {type(error).__name__}: {error}. Starting again.")
        time.sleep(1.5)  # the supervisor does not wait
        return 1
    return 0


@dataclass
class Pause:
    """Why a login may not send just now. `by` is `person` or `tambo`; `told`: the postmaster
    knows."""

    why: str
    at: float
    by: str
    told: bool = False


@dataclass
class Policy:
    """The service. `clock` gives seconds since 1970."""

    paths: Paths
    clock: Callable[[], float] = time.time
    log: Callable[[str, str], None] = log.log

    ledger: Ledger = field(init=False)
    admission: Admission = field(init=False)
    mailboxes: Mailboxes = field(init=False)
    pacing: Pacing = field(init=False)
    outcomes: Outcomes = field(default_factory=Outcomes)
    bounces: Bounces = field(default_factory=Bounces)
    pauses: dict[str, Pause] = field(default_factory=dict)
    resumed: dict[str, float] = field(default_factory=dict)
    notes: dict[tuple[str, str], float] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=Refusals)
    vouching: Vouching = field(default_factory=Vouching)
    changes: Changes = field(default_factory=Changes)
    _rules: Rules | None = None
    _rules_seen: tuple[int, int, int] = (0, 0, 0)
    _room: tuple[float, Room | None] = (0.0, None)
    _closed: tuple[str, ...] = ()  # what is not taken now, and why: alarms
    _guessed: frozenset[str] = frozenset()
    _seen: int = 0  # the number of the last event
    _asked: int = 0  # by so many hooks just now
    _looked: float = 0.0  # when events were looked at for want of room; monotonic seconds

    def __post_init__(self) -> None:
        self.mailboxes = Mailboxes(self.paths.mail)
        self.pacing = Pacing(self.paths.gate_socket)
        self.admission = Admission(Backlog(self.paths.waiting))
        self.ledger = Ledger(self.paths.policy)
        self.ledger.load(self.clock())
        self._load_pauses()
        self._load_changes()

    # Life

    async def run(self, hooks: socket.socket, verbs: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self._say_if_it_had_died()
        servers = (
            await asyncio.start_unix_server(self._hook, sock=hooks, backlog=BACKLOG, **_LEFT),
            await asyncio.start_unix_server(self._verb, sock=verbs, **_LEFT),
        )
        works = (
            self._nudge,
            self._tell,
            self._watch,
            self._sweep,
            self.watch_guesses,
            self._watch_mailboxes,
        )
        tasks = [asyncio.create_task(work()) for work in works]
        await stop.wait()
        for server in servers:
            server.close()
        for task in tasks:
            task.cancel()
        self._alive.unlink(missing_ok=True)

    @property
    def _alive(self) -> Path:
        """Is there while this runs, and after a death; the boot removes it."""
        return self.paths.policy / "running"

    def _say_if_it_had_died(self) -> None:
        if self._alive.exists():
            self.log("policy", "error: the policy service had died, and is back; meanwhile no mail "
                     "was taken")  # fmt: skip
        self._alive.touch()

    async def _nudge(self) -> None:
        """A loop that turns no more is ended by SIGALRM, and the supervisor starts another."""
        while True:
            signal.setitimer(signal.ITIMER_REAL, _WATCHDOG)
            await asyncio.sleep(_NUDGE)

    # The hook

    async def _hook(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._asked += 1
        try:
            if self._asked > _MOST:
                writer.write(f"{_BUSY}\n".encode())
                return
            async with asyncio.timeout(_PATIENCE):
                measured = Measured(reader)
                envelope, section, has_nul = await read_message(measured)
            answer = await self.stale(envelope) or await self.guess(envelope)
            if not answer and not has_nul:
                answer = await self.vouching.refusal(self.rules(), envelope, section)
            if not answer:
                await self._measure(envelope)
                answer = await self.pacing.refusal(self.rules(), envelope)
            if not answer:
                answer = self.judge(envelope, section, has_nul=has_nul, demand=measured.demand)
                if answer.code is not Code.ACCEPT:
                    await self.pacing.withdraw(self.rules(), envelope)
            writer.write(f"{answer}\n".encode())
            await writer.drain()
        except ConnectionError:
            pass  # the hook has waited for long enough, refused the message itself, and said so
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            self.log("policy", f"warning: a question could not be answered: {clean(str(error))}")
        finally:
            self._asked -= 1
            writer.close()

    async def stale(self, envelope: Envelope) -> Answer | None:
        """That the connection logged in before its login changed, or it is not known whether."""
        login = decide.login_of(envelope)
        if not login or self.rules() is None:
            return None
        since = self.changes.since(login, self.clock())
        if since is None or self._pause_of(login):
            return None
        session: Mapping[str, Any] = {}
        with suppress(rpc.UnreachableError):
            question = f"session {envelope.remote}"
            session = await rpc.question(self.paths.sessions_socket, question, _SESSION_WAIT)
        at = session.get("at")
        if isinstance(at, int | float) and at > since:
            return None
        return decide.log_in_again(login)

    async def guess(self, envelope: Envelope) -> Answer | None:
        """That the login may have been guessed, as others try to, from where nobody knows it."""
        login, rules = decide.login_of(envelope), self.rules()
        if login not in self._guessed or rules is None:
            return None
        if login not in rules.logins or not rules.logins[login].chosen:
            return None
        answer: Mapping[str, Any] = {}
        with suppress(rpc.UnreachableError):
            address = envelope.remote.rpartition(":")[0].strip("[]")
            question = f"known {address} {envelope.login}"
            answer = await rpc.question(self.paths.sessions_socket, question, _SESSION_WAIT)
        if answer.get("known") or envelope.from_here:
            return None
        return decide.guessed_at(login)

    async def watch_guesses(self) -> None:
        """Which logins are guessed at, by their canonical names."""
        while True:
            with suppress(rpc.UnreachableError):
                answer = await rpc.question(self.paths.sessions_socket, "guessed", _SESSION_WAIT)
                names = (Envelope(str(login)) for login in answer.get("logins", ()))
                self._guessed = frozenset(map(decide.login_of, names)) - {""}
            await asyncio.sleep(_OUTCOMES)

    def judge(
        self,
        envelope: Envelope,
        section: bytes,
        *,
        has_nul: bool = False,
        demand: Demand = Demand(),  # noqa: B008 (frozen)
    ) -> Answer:
        """The answer, counted and noted."""
        stranger = not (envelope.login or envelope.from_here)
        if full := self._admission(demand, stranger=stranger):
            return full
        answer = self._judge(envelope, section, has_nul=has_nul)
        if answer.code is Code.ACCEPT and stranger:
            answer = self._bounded(envelope, demand) or answer
        if answer.code is Code.ACCEPT:
            self.admission.take(demand, envelope.sender, envelope.recipients, stranger=stranger)
            if rules := self.rules():
                self.mailboxes.take(mailboxes.concerned(rules, envelope), demand.size)
        return answer

    def _judge(self, envelope: Envelope, section: bytes, *, has_nul: bool) -> Answer:
        rules = self.rules()
        if rules is None:
            return decide.later("4.3.0", "the rules for senders cannot be read")
        login = decide.login_of(envelope)
        if login and (pause := self._pause_of(login)):
            return decide.paused(login, pause.why)
        answer = decide.decide(rules, envelope, section)
        if has_nul and answer.code is Code.ACCEPT:
            answer = decide.NUL
        if answer.code is Code.ACCEPT:
            answer = mailboxes.refusal(rules, envelope, self.mailboxes.size) or answer
        if answer.below:
            self.refusals.add(answer.below, envelope, self.clock())
        if login in rules.logins and answer.counts:
            return self._count(rules, login, len(envelope.recipients), answer)
        return answer

    def _count(self, rules: Rules, login: str, recipients: int, answer: Answer) -> Answer:
        """The answer, or that there is no room for it; what is refused has been tried too."""
        try:
            now = self.ledger.now(self.clock())
            usage = self.ledger.usage(login)
            if answer.code is Code.ACCEPT and (
                over := usage.over(rules.limit_of(login), now, recipients)
            ):
                return decide.over_limit(login, over)
            self.ledger.add(login, recipients, now)
        except OSError as error:
            self.log("policy", f"error: data/policy cannot be written: {error.strerror}")
            return decide.later("4.3.0", "what is sent cannot be counted; try again later")
        for note in answer.notes:
            self._note(login, note, now)
        if not self._forgiven(login, now):
            sent, _ = self.ledger.usage(login).sent(now)
            surge = abuse.surging(self.ledger.hours(login), sent, now)
            if surge:
                self.pause(login, str(surge), "tambo")
                return decide.paused(login, str(surge))
        return answer

    def _note(self, login: str, note: str, now: float) -> None:
        """Keep what is not worth a refusal: the keeper tells it, and `status` shows it."""
        self.notes[login, note] = now

    def rules(self) -> Rules | None:
        """As they are served now; the last good ones if they cannot be read."""
        try:
            found = self.paths.policy_rules.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._rules_seen:
                self._rules = decide.load(self.paths.policy_rules.read_text())
                self._rules_seen = seen
                prints = {login: item.fingerprint for login, item in self._rules.logins.items()}
                if self.changes.saw(prints, found.st_mtime):
                    self._keep_changes()
        except (OSError, ValueError, KeyError, TypeError) as error:
            if self._rules is None:
                self.log("policy", f"error: the rules cannot be read: {error}")
        return self._rules

    def _admission(self, demand: Demand, *, stranger: bool) -> Answer | None:
        """Why there is no room for a message; None if there is."""
        room = self._look_around()
        if full := decide.admission(room):
            return full
        if stranger and (full := decide.admission_of_strangers(room)):
            return full
        try:
            short = self.admission.ask(self._budget(room), demand, stranger=stranger)
            if short and self._look_soon():
                short = self.admission.ask(self._budget(room), demand, stranger=stranger)
        except OSError as error:
            self.log("policy", f"error: data/chasquid/queue cannot be read: {error.strerror}")
            return decide.later("4.3.0", "the queue cannot be read; try again later")
        return decide.short(short) if short else None

    def _bounded(self, envelope: Envelope, demand: Demand) -> Answer | None:
        """Why a stranger's message is not taken for what it may come to: a report that is too
        large, a bounce too many."""
        if demand.size > REPORT_MOST and any(
            decide.is_report_box(to) for to in envelope.recipients
        ):
            return decide.refuse("5.3.4", f"reports may have {REPORT_MOST >> 20} MB")
        rules = self.rules()
        if rules is None or not decide.may_bounce(rules, envelope.sender, envelope.recipients):
            return None
        whose, now = decide.proven(envelope), self.clock()
        if not self.bounces.allows(whose, now):
            self._look_soon()
            if not self.bounces.allows(whose, now):
                return decide.BOUNCES
        self.bounces.allow(whose, envelope.sender, envelope.recipients, now)
        return None

    def _look_soon(self) -> bool:
        """Take up what happened since the last look, but for one that was just now; whether."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SOON:
            return False
        self._looked = now
        self.look_at_outcomes()
        return True

    def _budget(self, room: Room) -> queueroom.Budget:
        rules = self.rules()
        return queueroom.budget(room.memory_limit, rules.max_queue if rules else _MAX_QUEUE)

    def _look_around(self) -> Room:
        """Disk and memory; what is closed for want of them is said once, and when it ends."""
        at, room = self._room
        now = time.monotonic()
        if room is None or now - at > _LOOK:
            room = look_around(self.paths.data)
            self._room = (now, room)
            self._say_what_is_closed(room)
        return room

    def _say_what_is_closed(self, room: Room) -> None:
        closed = []
        with suppress(OSError):  # whoever brings a message is told that
            budget = self._budget(room)
            for stranger, whose in ((False, "mail"), (True, "mail from outside")):
                short = self.admission.ask(budget, Demand(), stranger=stranger)
                full = decide.admission(room)
                if stranger and not full:
                    full = decide.admission_of_strangers(room)
                if full := full or (decide.short(short) if short else None):
                    text = f"No {whose} is taken: {full.text.partition(' ')[2]}."
                    if text not in self._closed:
                        said = f"no {whose} is taken: {full.text}. Fix: {closed_fix(text)}"
                        self.log("policy", f"error: {said}")
                    closed.append(text)
                    break
        if self._closed and not closed:
            self.log("policy", "mail is taken again")
        self._closed = tuple(closed)

    # Pausing

    def pause(self, login: str, why: str, by: str) -> None:
        """One that a person pauses is paused with all its credentials: `i@` with `i+phone@`."""
        self.pauses[login] = Pause(why, self.clock(), by, told=by == "person")
        self._keep_pauses()
        known = self._rules.logins if self._rules else ()
        self.changes.note({login, *(item for item in known if self._pause_of(item))}, self.clock())
        self._keep_changes()
        level = "error" if by == "tambo" else "note"
        self.log("policy", f"{level}: {login} is paused: {why}. To let it send again: docker exec "
                 f"mail resume-user {login}")  # fmt: skip

    def resume(self, login: str) -> bool:
        """Whether it, or a credential of it, was paused. What was held against them is gone."""
        known = {login, *self.pauses, *(self._rules.logins if self._rules else ())}
        was = False
        for item in sorted(name for name in known if login in (name, decide.base(name))):
            if self.pauses.pop(item, None):
                self.log("policy", f"note: {item} may send again")
                was = True
            self.resumed[item] = self.clock()
            self.outcomes.forget(item)
        self._keep_pauses()
        return was

    def _pause_of(self, login: str) -> Pause | None:
        """Its own, or the one of its user by a person."""
        if own := self.pauses.get(login):
            return own
        shared = self.pauses.get(decide.base(login))
        return shared if shared and shared.by == "person" else None

    @property
    def _changes_file(self) -> Path:
        return self.paths.policy / "logins.json"

    def _load_changes(self) -> None:
        try:
            self.changes.load(json.loads(self._changes_file.read_text()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.log("policy", f"error: data/policy/logins.json cannot be read: {error}; "
                     "connections from before a change may go on")  # fmt: skip

    def _keep_changes(self) -> None:
        try:
            content = json.dumps(self.changes.to_json(self.clock()), indent=1)
            files.write(self._changes_file, content.encode())
        except OSError as error:
            self.log("policy", f"error: data/policy/logins.json: {error.strerror}")

    def _forgiven(self, login: str, now: float) -> bool:
        return now - self.resumed.get(login, 0.0) < _FORGIVEN

    @property
    def _pauses_file(self) -> Path:
        return self.paths.policy / "pauses.json"

    def _load_pauses(self) -> None:
        try:
            content = json.loads(self._pauses_file.read_text())
            self.pauses = {login: Pause(**item) for login, item in content["pauses"].items()}
            self.resumed = {login: float(at) for login, at in content["resumed"].items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.log("policy", f"error: data/policy/pauses.json cannot be read: {error}; nobody is "
                     "paused")  # fmt: skip

    def _keep_pauses(self) -> None:
        now = self.clock()
        self.resumed = {
            login: at for login, at in self.resumed.items() if self._forgiven(login, now)
        }
        content = {
            "pauses": {login: asdict(item) for login, item in self.pauses.items()},
            "resumed": self.resumed,
        }
        try:
            files.write(self._pauses_file, json.dumps(content, indent=1).encode())
        except OSError as error:
            self.log("policy", f"error: data/policy/pauses.json: {error.strerror}")

    async def _tell(self) -> None:
        """Write to the postmaster about each pause, until it is taken."""
        while True:
            for login, item in list(self.pauses.items()):
                if item.told:
                    continue
                host = self._rules.host if self._rules else "localhost"
                message = notice(host, login, item)
                with suppress(OSError, smtplib.SMTPException):
                    await asyncio.to_thread(deliver, message, f"postmaster@{host}")
                    item.told = True
                    self._keep_pauses()
            await asyncio.sleep(1.0 if all(item.told for item in self.pauses.values()) else _TELL)

    async def _sweep(self) -> None:
        """Old reports go, a few hundred at a time."""
        while True:
            gone = oldreports.sweep(self.paths.mail, self.clock())
            if gone:
                self.log("policy", f"{gone} reports of more than 60 days are deleted")
            await asyncio.sleep(_SWEEP if gone < oldreports.MOST else _SWEEP_ON)

    async def _measure(self, envelope: Envelope) -> None:
        """The mailboxes that decide on a message."""
        if rules := self.rules():
            wanted = mailboxes.concerned(rules, envelope)
            await self.mailboxes.measure(wanted, rules.mailbox_mb << 20)

    async def _watch_mailboxes(self) -> None:
        """Those that are full, so that what is said of them ends when there is room."""
        while True:
            if rules := self.rules():
                await self.mailboxes.measure(self._full(), rules.mailbox_mb << 20)
            await asyncio.sleep(_MAILBOXES)

    def _full(self) -> dict[str, str]:
        """What is said of each full mailbox that mail came for, by its name."""
        rules = self.rules()
        if rules is None or not rules.mailbox_mb:
            return {}
        return {
            name: f"The mailbox {name} is full: it has more than MAILBOX_MB={rules.mailbox_mb}."
            for name, found in sorted(self.mailboxes.known.items())
            if mailboxes.is_full(rules, found.size)
        }

    async def _watch(self) -> None:
        """What becomes of mail, from the store of events."""
        while True:
            self.rules()  # so that a change has its own time, and not that of the next message
            self.look_at_outcomes()
            await asyncio.sleep(_OUTCOMES)

    def look_at_outcomes(self) -> None:
        """Take up what happened since the last look, and pause whose mail fails too often."""
        now = self.clock()
        try:
            while True:
                found = store.after(
                    self.paths.events, self._seen, now - abuse.WINDOW, _FATES, _MANY
                )
                if found and found[0][0] <= self._seen:  # a store that was begun anew
                    self.outcomes = Outcomes()
                for number, event in found:
                    self._seen = number
                    self._take(event, now)
                if len(found) < _MANY:
                    break
        except sqlite3.Error:
            pass  # there is none yet, or it is being written to, or the recorder makes a new one

    def _take(self, event: Event, now: float) -> None:
        if event.kind is Kind.RECEIVED:
            self.admission.received(event.sender, event.recipients)
            if login := decide.login_of(Envelope(event.login)):
                self.outcomes.received(event.id, login)
            elif decide.may_bounce(self.rules(), event.sender, event.recipients):
                self.bounces.received(event.id, event.sender, event.recipients)
            return
        self._bounce(event)
        if event.kind not in _ENDS:
            return
        login = self.outcomes.owner(event.id)
        if not login or event.at <= self.resumed.get(login, 0.0):
            return
        self.outcomes.ended(login, event.at, failed=event.kind is Kind.BOUNCED)
        failing = self.outcomes.failing(login, now)
        if failing and login not in self.pauses:
            self.pause(login, str(failing), "tambo")

    def _bounce(self, event: Event) -> None:
        match event.kind:
            case Kind.BOUNCED:
                self.bounces.bounced(event.id, event.at)
            case Kind.DEFERRED:
                self.bounces.deferred(event.id)
            case Kind.DONE | Kind.DROPPED:
                self.bounces.done(event.id)

    # What verbs ask

    async def _verb(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await asyncio.wait_for(reader.readline(), 5.0)).decode()
            writer.write(json.dumps(self.ask(line)).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # whoever asked has gone
        finally:
            writer.close()

    def ask(self, line: str) -> dict[str, Any]:
        """`status`, `alarms`, `pause LOGIN WHY`, `resume LOGIN`, `room LOGIN RECIPIENTS`,
        `refusals`, `served` (chasquid has taken over the users)."""
        command, _, rest = line.strip().partition(" ")
        if command == "status":
            return self.status()
        if command == "alarms":
            self._look_around()  # the keeper asks every two seconds: an alarm ends with its cause
            found: dict[str, Any] = {"alarms": self.alarms(), "notes": self.noted()}
            fixes = self.fixes()
            return {**found, "fixes": fixes} if fixes else found
        if command == "pause":
            login, _, why = rest.partition(" ")
            self.pause(login, why, "person")
            return {"done": True}
        if command == "resume":
            was = self.resume(rest)
            answer = {"done": True, "was_paused": was}
            return {**answer, "still": True} if self._pause_of(rest) else answer
        if command == "served":
            self.rules()
            if self.changes.settle(self.clock()):
                self._keep_changes()
            return {"done": True}
        if command == "room":
            login, _, number = rest.partition(" ")
            return {"answer": self._room_for(login, int(number))}
        if command == "refusals":
            return {"refusals": self.refusals.listed(self.clock())}
        return {"error": "unknown command"}

    def _room_for(self, login: str, recipients: int) -> str:
        """What would be answered but for the message itself; empty if nothing is in the way."""
        if full := self._admission(Demand(), stranger=False):
            return str(full)
        if pause := self._pause_of(login):
            return str(decide.paused(login, pause.why))
        rules = self.rules()
        now = self.ledger.now(self.clock())
        over = rules and self.ledger.usage(login).over(rules.limit_of(login), now, recipients)
        return str(decide.over_limit(login, over)) if over else ""

    def alarms(self) -> list[str]:
        """What the owner should look at now; nothing of a login that was removed."""
        rules = self.rules()
        found = [
            f"{login} is paused: {item.why}."
            for login, item in sorted(self.pauses.items())
            if item.by == "tambo" and (rules is None or login in rules.logins)
        ]
        return [*found, *self._closed]

    def fixes(self) -> dict[str, str]:
        """What to do about an alarm or a full mailbox, by its text; the rest is about logins."""
        full = {text: mailbox_fix(name) for name, text in self._full().items()}
        return {**{text: closed_fix(text) for text in self._closed}, **full}

    def noted(self) -> list[str]:
        """What should be mended some day."""
        now = self.clock()
        self.notes = {key: at for key, at in self.notes.items() if now - at < _NOTED}
        said = sorted(f"{login} {note}." for login, note in self.notes)
        return [*said, *self._full().values()]

    def status(self) -> dict[str, Any]:
        """What each login sent, and what is to be said of it."""
        self.noted()
        rules = self.rules()
        now = self.ledger.now(self.clock())
        logins = {}
        for login in sorted({*self.ledger.logins, *self.pauses, *(rules.logins if rules else ())}):
            usage = self.ledger.usage(login)
            hour, day = usage.sent(now)
            message_hour, message_day = usage.messages(now)
            pause = self._pause_of(login)
            logins[login] = {
                "recipients": {"hour": hour, "day": day},
                "messages": {"hour": message_hour, "day": message_day},
                "limit": str(rules.limit_of(login)) if rules else "",
                "paused": asdict(pause) if pause else None,
                "notes": [note for whose, note in self.notes if whose == login],
            }
        return {"logins": logins, "alarms": self.alarms()}


async def read_message(reader: Measured | asyncio.StreamReader) -> tuple[Envelope, bytes, bool]:
    """The envelope, the header section, and whether there is a NUL behind it.

    The section is cut off behind header.MAX_HEADER bytes; the rest is read, and not kept. Raises
    ValueError for what is no question of the hook.
    """
    buffer = bytearray()
    while (end := buffer.find(b"\n\n")) < 0:
        chunk = await reader.read(_CHUNK)
        if not chunk or len(buffer) > _MAX_PREAMBLE:
            msg = "it is no question of the hook"
            raise ValueError(msg)
        buffer += chunk
    envelope = parse_preamble(bytes(buffer[:end]))
    del buffer[: end + 2]
    looked = 0
    while (end := header.end_of(buffer, max(0, looked - 1))) < 0:
        if len(buffer) > header.MAX_HEADER:
            break
        looked = len(buffer)
        chunk = await reader.read(_CHUNK)
        if not chunk:
            break
        buffer += chunk
    if end < 0:
        section, has_nul = bytes(buffer), False
    else:
        section, has_nul = bytes(buffer[:end]), buffer.find(0, end) >= 0
    buffer.clear()
    while chunk := await reader.read(_CHUNK):
        has_nul = has_nul or b"\0" in chunk
    return envelope, section, has_nul


def parse_preamble(raw: bytes) -> Envelope:
    """Raises ValueError."""
    greeting, *lines = raw.decode(errors="surrogateescape").split("\n")
    pairs = [line.partition("=") for line in lines]
    if greeting != _GREETING or [name for name, _, _ in pairs] != _NAMES:
        msg = "it is no question of the hook"
        raise ValueError(msg)
    values: Mapping[str, str] = {name: value for name, _, value in pairs}
    return Envelope(
        login=values["login"],
        sender=values["from"],
        recipients=tuple(values["to"].split(" ")) if values["to"] else (),
        remote=values["remote"],
        spf=values["spf"] == "1",
    )


_NAMES = ["login", "from", "to", "remote", "spf"]


def closed_fix(text: str) -> str:
    """What to paste when something is not taken for want of room."""
    if "disk" in text:
        return f"see what takes the room: {_DU}"
    if "queue" in text:
        return "see what waits: docker exec mail list-queue"
    return "a higher mem_limit in compose.yaml; see what waits: docker exec mail list-queue"


def mailbox_fix(name: str) -> str:
    """What to paste when a mailbox is full."""
    folder = f"/data/mail/{maildir(name)}"
    return (
        "delete or move what is old, or raise MAILBOX_MB; see what takes the room: "
        f"docker exec mail du -xam {shlex.quote(folder)}"
    )


_DU = "docker exec mail sh -c 'du -xm /data | sort -n | tail -20'"


def look_around(data: Path) -> Room:
    """Room in bytes and inodes for what is not root's, of `data`'s file system and the cgroup."""
    disk = os.statvfs(data)
    inodes = disk.f_favail if disk.f_files else decide.INODE_FLOOR  # btrfs counts none
    return Room(
        disk.f_bavail * disk.f_frsize,
        inodes,
        memory_left(_CGROUP),
        disk.f_blocks * disk.f_frsize,
        memory_limit(_CGROUP),
    )


# By version: the files of limit and use, and the counters of what is but cached (cgroups(7)).
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", ("inactive_file", "active_file")),
    (
        "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
        ("total_inactive_file", "total_active_file"),
    ),
)  # fmt: skip
_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # what the first version says where there is no limit is more


def memory_left(cgroup: Path) -> int | None:
    """Bytes that the container may still use; what is only cached is as good as free. None without
    a limit."""
    for limit, usage, counters, cached in _CGROUPS:
        with suppress(OSError, ValueError):
            most = int((cgroup / limit).read_text())
            used = int((cgroup / usage).read_text())
            text = (cgroup / counters).read_text()
            stat = dict(line.split() for line in text.splitlines())
            free = sum(int(stat.get(name, 0)) for name in cached)
            return most - used + free if most < _UNLIMITED else None
    return None


def memory_limit(cgroup: Path) -> int | None:
    """Bytes that the container may use; None without a limit."""
    for limit, *_ in _CGROUPS:
        with suppress(OSError, ValueError):
            most = int((cgroup / limit).read_text())
            return most if most < _UNLIMITED else None
    return None


def notice(host: str, login: str, item: Pause) -> EmailMessage:
    """What the postmaster is told of a paused login. No auto-reply answers it (RFC 3834)."""
    mail = EmailMessage()
    mail["From"] = f"tambo <postmaster@{host}>"
    mail["To"] = f"postmaster@{host}"
    mail["Subject"] = f"{login} may not send any more"
    mail["Date"] = format_datetime(localtime())
    mail["Message-ID"] = make_msgid(domain=host)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(
        f"{login} is paused: {item.why}.\n\n"
        "Its mail is refused for now (451); mail programs keep it. Perhaps its password is in\n"
        "other hands. If so, give it a new one:\n\n"
        f"    docker exec mail set-password {login}\n\n"
        "Then, or if all is well, let it send again:\n\n"
        f"    docker exec mail resume-user {login}\n"
    )
    return mail


def deliver(message: EmailMessage, to: str) -> None:
    """To chasquid, as mail that arrives, which asks this service about it. Raises OSError and
    smtplib.SMTPException."""
    with smtplib.SMTP("127.0.0.1", 25, local_hostname="localhost", timeout=20) as smtp:
        smtp.send_message(message, from_addr="<>", to_addrs=[to])


if __name__ == "__main__":
    sys.exit(main())
