"""The policy service: its questions and answers, over real sockets; what it remembers."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common import rpc
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.limit import Limit
from entrypoint.common.paths import Paths
from entrypoint.history.store import Store
from entrypoint.policy import decide, header
from entrypoint.policy.abuse import FAILURES
from entrypoint.policy.decide import Envelope, LoginRules, Rules
from entrypoint.policy.queueroom import Demand
from entrypoint.policy.routes import Route
from entrypoint.services import policy
from entrypoint.services.policy import Policy
from tests.support.wait import wait_until
from tests.unit.kit import put

NOW = 1_800_014_400.0
LOGIN = "i@example.com"
MESSAGE = b"From: i@example.com\nDate: x\nMessage-ID: <x@example.com>\n\nText.\n"


def rules(limit: Limit | None = None) -> Rules:
    logins = {LOGIN: LoginRules(frozenset({LOGIN}))}
    return Rules(
        "smtp.example.com", frozenset({"example.com"}), logins, limit or Limit(),
        routes={"example.com": Route()},
    )  # fmt: skip


class Service:
    """One at work, with its log and a clock of its own."""

    def __init__(self, paths: Paths) -> None:
        self.paths, self.now, self.said = paths, NOW, list[str]()
        for folder in (paths.policy, paths.events, paths.run):
            folder.mkdir(parents=True, exist_ok=True)
        self.give(rules())
        self.policy = self.again()

    def again(self) -> Policy:
        self.policy = Policy(
            self.paths, clock=lambda: self.now, log=lambda _source, text: self.said.append(text)
        )
        return self.policy

    def give(self, wanted: Rules) -> None:
        put(self.paths.policy_rules, decide.dump(wanted))

    def send(self, recipients: int = 1, message: bytes = MESSAGE, **envelope: Any) -> str:
        """The answer to a message of LOGIN's."""
        to = tuple(f"r{number}@example.net" for number in range(recipients))
        asked = Envelope(**{"login": LOGIN, "sender": LOGIN, "recipients": to, **envelope})
        return str(self.policy.judge(asked, message[: header.end_of(message)]))


@pytest.fixture
def mine(paths: Paths) -> Service:
    return Service(paths)


# Counting


def test_the_limit_is_exact_and_says_when_there_is_room(mine: Service) -> None:
    mine.give(rules(Limit(hour=3)))
    assert [mine.send()[:3] for _ in range(5)] == ["250", "250", "250", "451", "451"]
    mine.now += 1800
    assert mine.send() == (
        "451 4.7.1 i@example.com has reached its limit of 3 recipients in an hour; try again in "
        "30 minutes"
    )
    mine.now += 1800
    assert mine.send()[:3] == "250"


def test_recipients_count_and_not_messages(mine: Service) -> None:
    mine.give(rules(Limit(hour=10)))
    assert mine.send(8)[:3] == "250"
    assert mine.send(3)[:9] == "451 4.7.1"
    assert mine.send(2)[:3] == "250"
    assert mine.send(11)[:9] == "554 5.5.3"


def test_what_is_refused_counts(mine: Service) -> None:
    mine.give(rules(Limit(hour=2)))
    forged = MESSAGE.replace(b"i@", b"j@")
    assert [mine.send(message=forged)[:3] for _ in range(2)] == ["554", "554"]
    assert mine.send()[:3] == "451"


def test_what_is_over_the_limit_does_not_count_again(mine: Service) -> None:
    mine.give(rules(Limit(hour=1)))
    for _ in range(5):
        mine.send()
    mine.now += 3600
    assert mine.send()[:3] == "250", "who only knocks is not locked out for ever"


def test_a_new_limit_holds_at_once(mine: Service) -> None:
    mine.give(rules(Limit(hour=1)))
    assert [mine.send()[:3] for _ in range(2)] == ["250", "451"]
    mine.give(rules(Limit(hour=3)))
    assert [mine.send()[:3] for _ in range(3)] == ["250", "250", "451"]


def test_counts_survive_a_restart(mine: Service) -> None:
    mine.give(rules(Limit(hour=2)))
    mine.send(2)
    mine.again()
    assert mine.send()[:3] == "451"


def test_incoming_mail_is_not_counted(mine: Service) -> None:
    message = b"From: x@outside.example\n\n"
    for _ in range(3):
        assert mine.send(login="", sender="x@outside.example", message=message)[:3] == "250"
    assert mine.policy.ledger.logins == ()


def test_what_cannot_be_counted_is_not_taken(mine: Service) -> None:
    os.close(mine.policy.ledger._fd)
    mine.policy.ledger._fd = os.open("/dev/full", os.O_WRONLY)
    assert mine.send() == "451 4.3.0 what is sent cannot be counted; try again later"
    assert mine.said == ["error: data/policy cannot be written: No space left on device"]


def test_without_message_id_the_login_is_noted_for_a_week(mine: Service) -> None:
    message = MESSAGE.replace(b"Message-ID", b"X-Other")
    assert [mine.send(message=message)[:3] for _ in range(2)] == ["250", "250"]
    note = "sends messages without Message-ID, which some receivers take for spam"
    assert mine.policy.ask("alarms\n") == {"alarms": [], "notes": [f"{LOGIN} {note}."]}
    assert mine.policy.status()["logins"][LOGIN]["notes"] == [note]
    mine.now += 7 * 86400
    assert mine.policy.noted() == []


# Rules


def test_rules_that_broke_serve_on(mine: Service) -> None:
    assert mine.send()[:3] == "250"
    put(mine.paths.policy_rules, "{")
    assert mine.send()[:3] == "250"


def test_without_rules_nothing_is_taken(mine: Service) -> None:
    mine.paths.policy_rules.unlink()
    mine.again()
    assert mine.send()[:9] == "451 4.3.0"
    assert mine.send(login="", sender="x@outside.example")[:9] == "451 4.3.0"


# Pausing


def test_a_pause_by_hand_holds_and_survives(mine: Service) -> None:
    mine.policy.ask(f"pause {LOGIN} its laptop was stolen\n")
    mine.again()
    assert mine.send() == (
        "451 4.7.1 i@example.com is paused: its laptop was stolen; the postmaster can resume it"
    )
    assert mine.policy.alarms() == [], "whoever did it knows"
    assert mine.policy.ask(f"resume {LOGIN}\n") == {"done": True, "was_paused": True}
    assert mine.send()[:3] == "250"
    assert mine.policy.ask(f"resume {LOGIN}\n") == {"done": True, "was_paused": False}


def record(mine: Service, *events: Event) -> None:
    with Store(mine.paths.events) as store:
        last = store.stored("s")
        store.add("s", list(enumerate(events, last + 1)))


def ends(kind: Kind, count: int, at: float = NOW) -> list[Event]:
    return [Event(kind, at, id="AAAAAAAAAAA", sender=LOGIN) for _ in range(count)]


RECEIVED = Event(Kind.RECEIVED, NOW, id="AAAAAAAAAAA", sender=LOGIN, login=LOGIN)


def test_a_login_whose_mail_fails_is_paused(mine: Service) -> None:
    record(mine, RECEIVED, *ends(Kind.BOUNCED, FAILURES - 1))
    mine.policy.look_at_outcomes()
    assert mine.send()[:3] == "250"
    record(mine, *ends(Kind.BOUNCED, 1))
    mine.policy.look_at_outcomes()
    assert mine.send()[:9] == "451 4.7.1"
    why = "20 of the last 20 recipients in an hour do not exist or refuse its mail"
    assert mine.policy.alarms() == [f"{LOGIN} is paused: {why}."]
    [said] = mine.said
    assert said.startswith(f"error: {LOGIN} is paused: {why}. ")
    # It goes on failing, and is not paused twice.
    record(mine, *ends(Kind.BOUNCED, 5))
    mine.policy.look_at_outcomes()
    assert len(mine.said) == 1


def test_that_a_login_was_resumed_is_forgotten_after_a_day(mine: Service) -> None:
    mine.policy.resume("old@example.com")
    mine.now += 86399
    mine.policy.resume(LOGIN)
    assert mine.again().resumed == {"old@example.com": NOW, LOGIN: NOW + 86399}
    mine.now += 1
    mine.policy.pause("j@example.com", "a test", "person")
    assert mine.policy.resumed == {LOGIN: NOW + 86399}
    assert mine.again().resumed == {LOGIN: NOW + 86399}, "nor is it in the file"


def test_what_failed_before_it_was_resumed_does_not_count(mine: Service) -> None:
    record(mine, RECEIVED, *ends(Kind.BOUNCED, FAILURES))
    mine.policy.look_at_outcomes()
    mine.now += 10
    mine.policy.resume(LOGIN)
    mine.again()
    mine.policy.look_at_outcomes()
    assert mine.send()[:3] == "250"


def test_a_store_that_is_begun_anew_is_read_from_its_start(mine: Service) -> None:
    record(mine, RECEIVED, *ends(Kind.BOUNCED, FAILURES - 1))
    mine.policy.look_at_outcomes()
    for path in mine.paths.events.iterdir():
        path.unlink()
    record(mine, RECEIVED, *ends(Kind.BOUNCED, 1))
    mine.policy.look_at_outcomes()
    assert mine.send()[:3] == "250", "nothing is counted twice"


def test_without_a_store_nobody_is_paused(mine: Service) -> None:
    mine.policy.look_at_outcomes()
    assert mine.said == []


def stranger(mine: Service, sender: str, to: str = "fwd@example.com", **more: Any) -> str:
    message = b"From: a@example.net\nDate: x\n\nText.\n"
    envelope = Envelope(
        "", sender, (to,), "198.51.100.7:4711", **{key: more[key] for key in more if key == "spf"}
    )
    demand = Demand(more.get("size", 100), more.get("size", 100))
    return str(mine.policy.judge(envelope, message[:30], demand=demand))


def forwarding() -> Rules:
    routes = {"example.com": Route({"fwd": True}, frozenset({"i", "rua"}))}
    return replace(rules(), routes=routes, forward_unproven=True)


def test_when_forwards_bounce_no_more_is_taken_that_might(mine: Service) -> None:
    mine.give(forwarding())
    answers = []
    for number in range(30):
        sender, to = f"n{number}@invented.example", ("fwd@example.com",)
        answers.append(stranger(mine, sender)[:9])
        if answers[-1].startswith("250"):
            received = Event(Kind.RECEIVED, mine.now, f"{number:011}", sender, to)
            bounced = replace(received, kind=Kind.BOUNCED, recipients=("x@gone.example",))
            record(mine, received, bounced, replace(received, kind=Kind.DONE))
            mine.policy.look_at_outcomes()
    assert answers == ["250 2.0.0"] * 20 + ["451 4.7.1"] * 10
    assert stranger(mine, "a@honest.example", spf=True)[:3] == "250", "it is proven"
    assert stranger(mine, "<>")[:3] == "250", "nothing comes of it"
    assert stranger(mine, "n@invented.example", "i@example.com")[:3] == "250", "it stays here"
    assert mine.send()[:3] == "250"
    mine.again().look_at_outcomes()
    assert stranger(mine, "n@invented.example")[:3] == "451", "a restart forgets nothing"
    mine.now += 3700
    assert stranger(mine, "n@invented.example")[:3] == "250"


def test_a_report_of_more_than_ten_megabytes_is_refused(mine: Service) -> None:
    mine.give(forwarding())
    large = {"spf": True, "size": (10 << 20) + 1}
    assert stranger(mine, "a@example.net", "rua@example.com", **large) == (
        "554 5.3.4 reports may have 10 MB"
    )
    assert stranger(mine, "a@example.net", "rua@example.com", spf=True)[:3] == "250"
    assert stranger(mine, "a@example.net", "i@example.com", **large)[:3] == "250"


def test_a_surge_pauses(mine: Service) -> None:
    for day in range(5, 1, -1):
        mine.policy.ledger.add(LOGIN, 3, NOW - day * 86400)
    answers = [mine.send()[:3] for _ in range(101)]
    assert answers == ["250"] * 99 + ["451"] * 2
    assert mine.policy.alarms() == [
        f"{LOGIN} is paused: 100 recipients within an hour, where the most was 3 before."
    ]
    mine.policy.resume(LOGIN)
    assert mine.send()[:3] == "250"


def test_a_paused_login_that_is_removed_is_no_alarm_any_more(mine: Service) -> None:
    mine.policy.pause(LOGIN, "a reason", "tambo")
    assert mine.policy.alarms() == [f"{LOGIN} is paused: a reason."]
    mine.give(Rules("smtp.example.com", frozenset({"example.com"}), {}))
    assert mine.policy.alarms() == []
    mine.give(rules())
    assert mine.send()[:9] == "451 4.7.1", "a new user of that name is still paused"


def test_the_notice_says_what_to_do(mine: Service) -> None:
    mine.policy.pause(LOGIN, "a reason", "tambo")
    mail = policy.notice("smtp.example.com", LOGIN, mine.policy.pauses[LOGIN])
    assert mail["To"] == "postmaster@smtp.example.com"
    text = mail.get_content()
    assert "a reason" in text
    assert f"docker exec mail resume-user {LOGIN}" in text


def test_pauses_that_cannot_be_read_are_told(mine: Service) -> None:
    put(mine.paths.policy / "pauses.json", "[")
    mine.again()
    assert "pauses.json cannot be read" in mine.said[0]
    assert mine.send()[:3] == "250"


# Admission


def test_a_full_disk_is_told_once_and_its_end_too(
    mine: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = decide.Room(0, 10**6, None)
    monkeypatch.setattr(policy, "look_around", lambda _path: room)
    monkeypatch.setattr(policy, "_LOOK", -1.0)
    for _ in range(2):
        assert mine.send()[:9] == "451 4.3.1"
        assert mine.send(login="", sender="x@outside.example")[:9] == "451 4.3.1"
    assert mine.policy.alarms() == ["No mail is taken: the disk is nearly full; try again later."]
    room = decide.Room(1 << 40, 10**6, None)
    assert mine.send()[:3] == "250"
    assert len(mine.said) == 2
    assert mine.policy.alarms() == []


def test_cached_memory_is_as_good_as_free(tmp_path: Path) -> None:
    assert policy.memory_left(tmp_path) is None
    put(tmp_path / "memory.max", "1000\n")
    put(tmp_path / "memory.current", "900\n")
    put(tmp_path / "memory.stat", "anon 500\ninactive_file 300\nactive_file 50\n")
    assert policy.memory_left(tmp_path) == 450
    put(tmp_path / "memory.max", "max\n")
    assert policy.memory_left(tmp_path) is None


def test_memory_of_the_older_kind_of_control_group(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    put(folder / "memory.limit_in_bytes", "1000\n")
    put(folder / "memory.usage_in_bytes", "900\n")
    put(folder / "memory.stat", "total_inactive_file 300\ntotal_active_file 50\n")
    assert policy.memory_left(tmp_path) == 450
    put(folder / "memory.limit_in_bytes", "9223372036854771712\n")
    assert policy.memory_left(tmp_path) is None


def test_this_machine_is_looked_at(tmp_path: Path) -> None:
    room = policy.look_around(tmp_path)
    assert room.disk > 0
    assert room.inodes > 0


# Who must log in again


OTHER = "i+phone@example.com"


def given(mine: Service, at: float, **fingerprints: str) -> None:
    """Rules with these secrets, served since `at`; names are i and phone."""
    names = {"i": LOGIN, "phone": OTHER, "j": "j@example.com"}
    logins = {
        names[name]: LoginRules(frozenset({LOGIN}), fingerprint=item)
        for name, item in fingerprints.items()
    }
    mine.give(Rules("smtp.example.com", frozenset({"example.com"}), logins, Limit()))
    os.utime(mine.paths.policy_rules, (at, at))
    mine.policy.rules()


class Holder:
    """Says of every connection when it logged in, or nothing."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.at: float | None = None
        self.asked: list[str] = []
        patch.setattr(rpc, "question", self._question)

    async def _question(self, _path: Path, command: str, timeout: float) -> dict[str, Any]:
        assert 0 < timeout < 5
        self.asked.append(command)
        if self.at is None:
            msg = "nobody there"
            raise rpc.UnreachableError(msg)
        return {"at": self.at, "login": LOGIN}


@pytest.fixture
def holder(monkeypatch: pytest.MonkeyPatch) -> Holder:
    return Holder(monkeypatch)


def stale(mine: Service, login: str = LOGIN) -> str:
    envelope = Envelope(login, LOGIN, ("r@example.net",), remote="198.51.100.7:4711")
    return str(asyncio.run(mine.policy.stale(envelope)) or "")


def test_after_a_change_of_the_password_a_connection_of_before_must_log_in_again(
    mine: Service, holder: Holder
) -> None:
    given(mine, NOW, i="a", phone="x")
    assert stale(mine) == ""
    assert holder.asked == [], "nothing is asked unless something changed"
    given(mine, NOW + 10, i="b", phone="x")
    mine.now = NOW + 11
    holder.at = NOW + 5
    assert stale(mine).startswith("451 4.7.0 i@example.com was changed or paused")
    assert "log in again" in stale(mine)
    assert stale(mine, OTHER) == "", "the other credential is another's"
    holder.at = NOW + 10.5
    assert stale(mine) == "", "it logged in by the new password"
    assert holder.asked[0] == "session 198.51.100.7:4711"


def test_when_nobody_knows_when_it_logged_in_it_must_do_so_again(
    mine: Service, holder: Holder
) -> None:
    holder.at = None
    given(mine, NOW, i="a")
    given(mine, NOW + 10, i="b")
    mine.now = NOW + 11
    assert stale(mine)[:9] == "451 4.7.0"
    mine.now = NOW + 10 + 1801
    assert stale(mine) == "", "no connection lives so long"


def test_a_removed_login_that_comes_back_lets_no_connection_of_before_in(
    mine: Service, holder: Holder
) -> None:
    given(mine, NOW, i="a", j="x")
    given(mine, NOW + 10, j="x")
    given(mine, NOW + 20, i="a", j="x")
    mine.now, holder.at = NOW + 30, NOW + 5
    assert stale(mine)[:9] == "451 4.7.0"


def test_who_must_log_in_again_must_so_after_a_restart_of_the_service(
    mine: Service, holder: Holder
) -> None:
    given(mine, NOW, i="a")
    given(mine, NOW + 10, i="b")
    mine.now, holder.at = NOW + 20, NOW + 5
    mine.again()
    assert stale(mine)[:9] == "451 4.7.0"
    mine.policy.rules()
    given(mine, NOW + 60, i="c")
    mine.again()
    holder.at = NOW + 30
    assert stale(mine)[:9] == "451 4.7.0", "also what changed while it was down"


def test_a_first_start_makes_nobody_log_in_again(mine: Service, holder: Holder) -> None:
    given(mine, NOW, i="a")
    mine.again()
    assert stale(mine) == ""
    assert holder.asked == []


def test_a_damaged_memory_of_changes_is_told(mine: Service, holder: Holder) -> None:
    put(mine.paths.policy / "logins.json", "{")
    mine.again()
    assert "data/policy/logins.json cannot be read" in mine.said[-1]
    assert stale(mine) == ""
    assert holder.asked == []


def test_until_chasquid_has_it_a_change_is_not_over(mine: Service, holder: Holder) -> None:
    """Between the rules and chasquid's reload somebody may log in by the old password."""
    given(mine, NOW, i="a")
    given(mine, NOW + 10, i="b")
    mine.now, holder.at = NOW + 12, NOW + 11
    assert mine.policy.ask("served\n") == {"done": True}
    mine.now += 1
    assert stale(mine)[:9] == "451 4.7.0"
    holder.at = NOW + 12.5
    mine.policy.ask("served\n")
    assert stale(mine) == "", "what is another change's does not touch it"


def test_after_a_pause_a_connection_of_before_must_log_in_again(
    mine: Service, holder: Holder
) -> None:
    given(mine, NOW, i="a", phone="x", j="y")
    mine.now = NOW + 10
    mine.policy.pause(LOGIN, "by hand", "person")
    assert mine.send().startswith("451 4.7.1 i@example.com is paused")
    mine.policy.resume(LOGIN)
    mine.now, holder.at = NOW + 20, NOW + 5
    assert stale(mine)[:9] == "451 4.7.0"
    assert stale(mine, OTHER)[:9] == "451 4.7.0"
    assert stale(mine, "j@example.com") == ""


# Logins that are guessed at


def test_while_it_is_guessed_at_a_login_sends_from_where_it_is_known(
    mine: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins = {
        LOGIN: LoginRules(frozenset({LOGIN}), chosen=True), OTHER: LoginRules(frozenset({LOGIN}))
    }  # fmt: skip
    mine.give(Rules("smtp.example.com", frozenset({"example.com"}), logins, Limit()))
    answers: dict[str, Any] = {"guessed": {"logins": [LOGIN, OTHER, "nobody"]}}

    async def question(_path: Path, command: str, timeout: float) -> dict[str, Any]:
        assert timeout < 5
        return dict(answers[command])

    async def guess(login: str, remote: str) -> str:
        with suppress(TimeoutError):
            await asyncio.wait_for(mine.policy.watch_guesses(), 0.05)
        envelope = Envelope(login, LOGIN, ("r@example.net",), remote=remote)
        return str(await mine.policy.guess(envelope) or "")

    monkeypatch.setattr(rpc, "question", question)
    answers[f"known 198.51.100.7 {LOGIN}"] = {"known": True}
    answers[f"known 2001:db8::7 {LOGIN}"] = {"known": False}
    assert asyncio.run(guess(LOGIN, "198.51.100.7:4711")) == ""
    refused = asyncio.run(guess(LOGIN, "[2001:db8::7]:4711"))
    assert refused.startswith("451 4.7.1 somebody guesses at the password of i@example.com")
    assert asyncio.run(guess(OTHER, "[2001:db8::7]:4711")) == "", "a generated secret: no guess"
    answers["guessed"] = {"logins": []}
    assert asyncio.run(guess(LOGIN, "[2001:db8::7]:4711")) == ""


# A pause of a user, and of one credential


def paused(mine: Service, login: str) -> bool:
    return mine.send(login=login)[:9] == "451 4.7.1"


def test_who_is_paused_by_a_person_is_paused_with_all_credentials(mine: Service) -> None:
    given(mine, NOW, i="a", phone="x", j="y")
    mine.policy.pause(LOGIN, "stolen", "person")
    assert paused(mine, LOGIN)
    assert paused(mine, OTHER)
    shown = mine.policy.status()["logins"]
    assert shown[OTHER]["paused"]["why"] == "stolen"
    assert shown["j@example.com"]["paused"] is None
    answer = mine.policy.ask(f"resume {OTHER}\n")
    assert answer == {"done": True, "was_paused": False, "still": True}
    assert paused(mine, OTHER), "it is its user who is paused"
    assert mine.policy.ask(f"resume {LOGIN}\n")["was_paused"]
    assert not paused(mine, OTHER)


def test_one_credential_alone_can_be_paused(mine: Service) -> None:
    given(mine, NOW, i="a", phone="x")
    mine.policy.pause(OTHER, "lost", "person")
    assert paused(mine, OTHER)
    assert not paused(mine, LOGIN)
    assert mine.policy.ask(f"resume {LOGIN}\n")["was_paused"], "with all its credentials"
    assert not paused(mine, OTHER)


def test_a_pause_by_what_one_credential_sent_is_its_own(mine: Service) -> None:
    given(mine, NOW, i="a", phone="x")
    mine.policy.pause(LOGIN, "too much", "tambo")
    assert paused(mine, LOGIN)
    assert not paused(mine, OTHER)


# On real sockets


class Running:
    """The service in a thread, on real sockets."""

    def __init__(self, mine: Service, ids: Ids) -> None:
        self.socket = mine.paths.policy_socket
        self._doors = (
            rpc.listen(mine.paths.policy_socket, ids, Owner.CHASQUID, policy.BACKLOG),
            rpc.listen(mine.paths.policy_door, ids, Owner.TAMBO, policy.BACKLOG),
        )
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._policy = mine.policy
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        hooks, verbs = self._doors

        async def serve() -> None:
            self._stop = asyncio.Event()
            servers = (
                await asyncio.start_unix_server(
                    self._policy._hook, sock=hooks, backlog=policy.BACKLOG
                ),
                await asyncio.start_unix_server(self._policy._verb, sock=verbs),
            )
            self._ready.set()
            await self._stop.wait()
            for server in servers:
                server.close()

        self._loop.run_until_complete(serve())
        self._loop.close()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)


@pytest.fixture
def running(mine: Service, ids: Ids) -> Iterator[Running]:
    found = Running(mine, ids)
    yield found
    found.end()


def preamble(**values: str) -> bytes:
    names = {"login": "", "from": "<>", "to": "r@example.net", "remote": "", "spf": "0", **values}
    return b"tambo 1\n" + "".join(f"{name}={names[name]}\n" for name in names).encode() + b"\n"


def ask(path: Path, *pieces: bytes) -> bytes:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        with suppress(BrokenPipeError):  # it has hung up already
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            return stream.read()


def test_a_question_in_any_pieces(running: Running) -> None:
    whole = preamble(**{"login": LOGIN, "from": LOGIN}) + MESSAGE
    for size in (1, 7, len(whole)):
        pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
        assert ask(running.socket, *pieces) == b"250 2.0.0 i@example.com may send this\n"


def test_more_hooks_than_there_may_be_processes_are_refused_at_once(running: Running) -> None:
    whole = preamble(**{"login": LOGIN, "from": LOGIN}) + MESSAGE
    with ExitStack() as waiting:
        for _ in range(policy._MOST):
            connection = waiting.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(running.socket))
            connection.sendall(b"tambo 1\n")
        with socket.socket(socket.AF_UNIX) as one_more:
            one_more.connect(str(running.socket))
            one_more.settimeout(10)
            assert one_more.recv(1000) == f"{policy._BUSY}\n".encode()
    wait_until(lambda: ask(running.socket, whole)[:3] == b"250", "there is room again")


def test_a_header_section_without_end_is_cut_off(running: Running, mine: Service) -> None:
    head = preamble(**{"login": LOGIN, "from": LOGIN})
    line = b"X: " + b"x" * 900 + b"\n"
    answer = ask(running.socket, head, *[line] * 1000)
    assert answer == b"554 5.6.0 the header section is larger than 256 KiB\n"
    assert mine.said == []


def test_a_nul_anywhere_in_the_body_is_seen(running: Running) -> None:
    head = preamble(**{"login": LOGIN, "from": LOGIN})
    body = [b"x" * 70_000, b"\0", b"x" * 70_000]
    assert ask(running.socket, head, MESSAGE, *body).startswith(b"554 5.6.0 the message has a NUL")
    stranger = b"From: x@outside.example\n"
    assert ask(running.socket, preamble(), stranger + b"\n", *body) == (
        b"554 5.6.0 the message has a NUL in its body (RFC 5321 2.3.7)\n"
    )
    assert ask(running.socket, preamble(), stranger + b"X: \0\n\n") == (
        b"554 5.6.0 the message has a NUL in its header (RFC 5321 2.3.7)\n"
    )
    assert ask(running.socket, preamble(), stranger + b"\n", b"Text.\n")[:3] == b"250"


@pytest.mark.parametrize(
    "raw", [b"", b"GET / HTTP/1.1\r\n\r\n", b"tambo 1\n\n", b"tambo 2\nlogin=\n\n", b"x" * 200_000]
)
def test_what_is_no_question_gets_no_answer(running: Running, mine: Service, raw: bytes) -> None:
    assert ask(running.socket, raw) == b""
    assert mine.said == ["warning: a question could not be answered: it is no question of the hook"]


def test_an_address_cannot_pass_for_another_line(running: Running) -> None:
    head = preamble(**{"from": f"x\nlogin={LOGIN}"})
    assert ask(running.socket, head, MESSAGE) == b""


def test_a_large_message_is_read_to_its_end(running: Running, mine: Service) -> None:
    head = preamble(**{"login": LOGIN, "from": LOGIN, "to": "r@example.net s@example.net"})
    assert ask(running.socket, head, MESSAGE, *[b"x" * 1_000_000] * 20)[:3] == b"250"
    assert mine.policy.ledger.usage(LOGIN).sent(NOW) == (2, 2), "both recipients"


@pytest.mark.usefixtures("running")
def test_verbs_are_answered(mine: Service) -> None:
    mine.give(rules(Limit(hour=2)))
    assert mine.send(2)[:3] == "250"
    door = mine.paths.policy_door
    item = rpc.request(door, "status")["logins"][LOGIN]
    assert item["recipients"] == {"hour": 2, "day": 2}
    assert item["messages"] == {"hour": 1, "day": 1}
    assert item["limit"] == "2/h"
    assert rpc.request(door, f"room {LOGIN} 1")["answer"][:9] == "451 4.7.1"
    assert rpc.request(door, "alarms") == {"alarms": [], "notes": []}
    assert "error" in rpc.request(door, "nonsense")
