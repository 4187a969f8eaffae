"""The keeper: what people change by hand is in service within seconds."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from entrypoint.common import identity, locks, log, rpc
from entrypoint.common.errors import UserError
from entrypoint.common.identity import Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.common.watch import Watch
from entrypoint.converge import pending, reconcile
from entrypoint.dns.authoritative import Absent, Found, Unknown
from entrypoint.services import keeper
from entrypoint.services.keeper import Keeper
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, asked, forked, put, put_domain, until

PLAIN = {"DKIM_KEYS": "ed25519", "DKIM_SELECTOR": "t1"}
USERS = 'users { key: "i" value { denied {} } }\n'
OTHER = 'users { key: "you" value { denied {} } }\n'


class KeeperAtWork:
    """A keeper at work on a server, what it said and what it told the holder."""

    def __init__(self, paths: Paths, ids: Ids, patch: pytest.MonkeyPatch, **environ: str) -> None:
        self.paths = paths
        self.said: list[str] = []
        self.told: list[str] = []
        self.now = 1000.0
        self.notes: list[str] = []
        self.auth: dict[str, object] | None = {"logins": 0}  # the auth service's answer
        self.alarms: list[str] | None = []  # what the policy service has to say; None: nothing
        patch.setattr(log, "log", lambda _source, text: self.said.append(text))
        patch.setattr(rpc, "request", self._request)
        # Its clock alone: the locks' goes on.
        patch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: self.now))
        wanted = asked(**PLAIN, **environ)
        paths.state.mkdir(parents=True)
        with locks.edit_lock(paths, ids):
            reconcile.reconcile(wanted, paths, ids)
            pending.clear(paths)  # as the boot does
        self.keeper = Keeper(wanted, paths, ids)

    def _request(self, path: Path, command: str, timeout: float = 0) -> dict[str, object]:
        if path == self.paths.policy_door:
            assert command in ("alarms", "served")
            assert timeout > 0
            if self.alarms is None:
                msg = "nobody there"
                raise rpc.UnreachableError(msg)
            return {"alarms": self.alarms, "notes": self.notes}
        if path == self.paths.auth_door:
            assert (command, timeout > 0) == ("status", True)
            if self.auth is None:
                msg = "nobody there"
                raise rpc.UnreachableError(msg)
            return self.auth
        self.told.append(command)
        return {"done": True}

    def look(self) -> list[str]:
        """One round; what was said in it."""
        before = len(self.said)
        self.keeper.look()
        return self.said[before:]

    @property
    def problems(self) -> list[str]:
        found: list[str] = json.loads(self.paths.problems.read_text())
        return found


@pytest.fixture
def watch(paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch) -> KeeperAtWork:
    return KeeperAtWork(paths, ids, monkeypatch)


def test_nothing_new_is_nothing_said(watch: KeeperAtWork) -> None:
    assert watch.look() == watch.look() == []
    assert watch.told == []
    assert watch.problems == []
    assert watch.paths.problems.stat().st_mode & 0o777 == 0o600


def test_a_round_without_news_is_cheap(
    watch: KeeperAtWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.look()
    monkeypatch.setattr(reconcile, "reconcile", lambda *_: pytest.fail("it reads everything"))
    watch.look()


def test_what_a_killed_verb_did_not_tell_is_told(watch: KeeperAtWork, ids: Ids) -> None:
    """The files are as they should be: there is nothing to see but what it left."""
    watch.look()
    put_domain(watch.paths, EXAMPLE_COM, users=USERS)

    def verb() -> None:
        with locks.edit_lock(watch.paths, ids):
            reconcile.reconcile(watch.keeper.settings, watch.paths, ids)
        os._exit(0)

    assert forked(verb) == 0
    said = watch.look()
    assert watch.told == ["reload"]
    assert said == [
        "somebody who changed chasquid's files did not tell it; now it was told to read them"
    ]
    assert watch.look() == []
    assert watch.told == ["reload"]


def test_an_edit_by_hand_is_served(watch: KeeperAtWork) -> None:
    watch.look()
    put_domain(watch.paths, EXAMPLE_COM, users=USERS)
    said = watch.look()
    assert watch.told == ["reload"]
    served = watch.paths.chasquid / "domains/example.com/users"
    assert f"changed {served}" in said
    assert 'key: "i"' in served.read_text()
    assert watch.look() == []
    assert watch.told == ["reload"]


@pytest.mark.parametrize("kind", ["content", "same size", "rights", "removed", "renamed over"])
def test_every_kind_of_edit_is_seen(watch: KeeperAtWork, kind: str) -> None:
    put_domain(watch.paths, EXAMPLE_COM, aliases="a: one\n")
    watch.look()
    path = watch.paths.domain(EXAMPLE_COM) / "aliases"
    times = path.stat()
    match kind:
        case "content":
            path.write_text("a: three\n")
        case "same size":
            # An editor that keeps the time as well; only the kernel's own time tells.
            path.write_text("a: two\n")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        case "rights":
            path.chmod(0o644)
        case "removed":
            path.unlink()
        case "renamed over":
            put(path.with_name("x"), "a: two\n").replace(path)
    before = watch.keeper._seen
    watch.look()
    assert watch.keeper._seen != before
    if kind != "rights":
        assert watch.told[-1] == "reload"


def test_a_new_domains_key_needs_a_restart(watch: KeeperAtWork) -> None:
    watch.look()
    path = watch.paths.domain(EXAMPLE_COM) / "dkim:t1e.pem"
    pem = path.read_bytes()
    put(path.with_name("dkim:t2e.pem"), pem)
    watch.look()
    assert watch.told == ["restart"]


def test_a_finding_is_said_once_and_its_mending_too(watch: KeeperAtWork) -> None:
    put_domain(watch.paths, EXAMPLE_COM, users=USERS)
    watch.look()
    put_domain(watch.paths, EXAMPLE_COM, users="users {\n")
    [said] = watch.look()
    assert said.startswith("fail: ")
    assert "example.com/users: line" in said
    assert "the last good copy serves" in said
    assert len(watch.problems) == 1
    assert said == f"fail: {watch.problems[0]}"
    # Something else changes: it is not said again.
    put_domain(watch.paths, EXAMPLE_COM, aliases="a: b\n")
    assert not [text for text in watch.look() if "fail: " in text]
    assert len(watch.problems) == 1
    put_domain(watch.paths, EXAMPLE_COM, users=OTHER)
    said_after = watch.look()
    assert [text for text in said_after if text.startswith("mended: ")]
    assert watch.problems == []
    assert watch.look() == []


def test_a_warning_is_said_but_no_reason_to_be_unhealthy(watch: KeeperAtWork) -> None:
    put_domain(watch.paths, EXAMPLE_ORG, users=USERS)
    [said] = watch.look()
    assert said.startswith("warn: data/domains/example.org exists, but")
    assert watch.problems == []


def test_an_alias_loop_is_told_and_serves_as_it_is_written(watch: KeeperAtWork) -> None:
    """As chasquid has it: 451 for that name, and everything else in the file in service."""
    watch.look()
    put_domain(watch.paths, EXAMPLE_COM, aliases="a: b\n\nb: a\ngood: me@example.net\n")
    said = [text for text in watch.look() if text.startswith("fail: ")]
    ways = ("a@example.com → b@example.com → a", "b@example.com → a@example.com → b")
    for text, line, way in zip(said, (1, 3), ways, strict=True):
        assert text.startswith(f"fail: data/domains/example.com/aliases: line {line}: mail to ")
        assert f" goes round in a loop: {way}@example.com. Fix: " in text
    assert [f"fail: {text}" for text in watch.problems] == said
    text = (watch.paths.chasquid / "domains/example.com/aliases").read_text()
    assert "good: me@example.net\n" in text
    put_domain(watch.paths, EXAMPLE_COM, aliases="a: b\nb: me@example.net\n")
    assert len([text for text in watch.look() if text.startswith("mended: ")]) == 2
    assert watch.problems == []


def test_findings_survive_a_restart_of_the_keeper(watch: KeeperAtWork, ids: Ids) -> None:
    put_domain(watch.paths, EXAMPLE_COM, users="x")
    watch.look()
    again = Keeper(watch.keeper.settings, watch.paths, ids)
    before = len(watch.said)
    again.look()
    assert len(watch.said) == before + 1, "a new log is told what is wrong"
    assert len(watch.problems) == 1


def test_an_edit_during_the_work_is_seen_the_next_time(
    watch: KeeperAtWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.look()
    real = reconcile.reconcile

    def slow(*args: object) -> object:
        result = real(*args)  # type: ignore[arg-type]
        put_domain(watch.paths, EXAMPLE_COM, aliases="late: i\n")
        return result

    monkeypatch.setattr(reconcile, "reconcile", slow)
    put_domain(watch.paths, EXAMPLE_COM, aliases="early: i\n")
    watch.look()
    monkeypatch.setattr(reconcile, "reconcile", real)
    watch.look()
    assert "late" in (watch.paths.chasquid / "domains/example.com/aliases").read_text()


def test_work_that_failed_is_tried_again(
    watch: KeeperAtWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.look()
    real = reconcile.reconcile

    def fail(*_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reconcile, "reconcile", fail)
    put_domain(watch.paths, EXAMPLE_COM, aliases="a: i\n")
    with pytest.raises(OSError, match="No space"):
        watch.look()
    monkeypatch.setattr(reconcile, "reconcile", real)
    watch.now += 61
    watch.look()
    assert "a: i" in (watch.paths.chasquid / "domains/example.com/aliases").read_text()


def test_a_busy_volume_is_left_to_who_has_it(
    watch: KeeperAtWork, monkeypatch: pytest.MonkeyPatch, ids: Ids
) -> None:
    watch.look()
    put_domain(watch.paths, EXAMPLE_COM, aliases="a: i\n")
    real = locks.edit_lock
    monkeypatch.setattr(locks, "edit_lock", lambda paths, ids: real(paths, ids, 0.02))
    with real(watch.paths, ids), pytest.raises(UserError):
        watch.look()


Answer = Found[Domain] | Absent | Unknown


def test_exchangers_are_looked_up_now_and_then(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = KeeperAtWork(paths, ids, monkeypatch, MAIL_RECEIVE="none")
    answers: list[Answer] = [
        Found((Domain("mx1.example.net"),)), Found((Domain("mx2.example.net"),)),
        Unknown("no answer"), Found((Domain("smtp.example.com"),)),
    ]  # fmt: skip
    asked_for: list[str] = []

    def ask(domain: Domain) -> Answer:
        asked_for.append(domain)
        return answers[len(asked_for) - 1]

    refresh: Callable[..., object] = reconcile.refresh_exchangers
    monkeypatch.setattr(reconcile, "refresh_exchangers", lambda *args: refresh(*args, ask))

    def served() -> str:
        return (paths.chasquid / "domains/example.com/aliases").read_text()

    watch.look()
    assert "via mx1.example.net" in served()
    watch.now += 599
    watch.look()
    assert len(asked_for) == 1
    watch.now += 2
    watch.look()
    assert "via mx2.example.net" in served()
    assert watch.told == ["reload", "reload"]
    watch.now += 601
    said = watch.look()
    assert [text for text in said if text.startswith("warn: The MX of example.com could not be")]
    assert watch.problems == []
    watch.now += 601
    said = watch.look()
    assert [text for text in said if text.startswith("fail: The MX of example.com is smtp.example")]
    assert [text for text in said if text.startswith("mended: ")]
    assert len(watch.problems) == 1
    assert "via mx2.example.net" in served(), "what was known stays"


def test_the_signature_of_a_volume(paths: Paths) -> None:
    put_domain(paths, EXAMPLE_COM, users=USERS)
    one = keeper.signature(paths)
    assert keeper.signature(paths) == one
    assert any("example.com/users" in str(item[0]) for item in one)
    (paths.domain(EXAMPLE_COM) / "dangling").symlink_to("/no/such")
    put(paths.data / "mail/example.com/i/new/1", "mail is no edit")
    assert keeper.signature(paths) == one


def test_a_look_at_files_asks_no_service_and_counts_no_silence(watch: KeeperAtWork) -> None:
    """Edits come close together: two looks without an answer are then no two seconds."""
    watch.look()
    watch.alarms = watch.auth = None
    watch.look()
    put_domain(watch.paths, EXAMPLE_COM, users=USERS)
    for _ in range(5):
        watch.keeper.look_at_files()
    assert watch.told == ["reload"]
    assert watch.problems == []


def test_a_look_at_files_keeps_what_the_services_said(watch: KeeperAtWork) -> None:
    watch.alarms = ["i@example.com is paused: 30 of 40 recipients failed."]
    watch.look()
    put_domain(watch.paths, EXAMPLE_COM, users=USERS)
    watch.keeper.look_at_files()
    assert len(watch.problems) == 1
    assert not [text for text in watch.said if text.startswith("mended: ")]


class Looks:
    """A keeper that only counts, at work in a thread on the kernel's real events."""

    def __init__(self, paths: Paths) -> None:
        self.all = self.files = 0
        self._stop = threading.Event()
        self.events = Watch((paths.domains, paths.certs))
        self._thread = threading.Thread(
            target=keeper._look, args=(self, self.events, self._stop), daemon=True
        )
        self._thread.start()

    def look(self) -> None:
        self.all += 1

    def look_at_files(self) -> None:
        self.files += 1

    def end(self) -> None:
        self._stop.set()
        self.events.wake()
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.events.close()


def test_an_edit_wakes_the_keeper_long_before_its_next_look(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_LOOK", 600.0)
    put_domain(paths, EXAMPLE_COM, users=USERS)
    put(paths.certs / "example.com/fullchain.pem", "x")
    looks = Looks(paths)
    try:
        put_domain(paths, EXAMPLE_COM, users=OTHER)
        until(lambda: looks.files == 1)
        put_domain(paths, EXAMPLE_ORG, users=USERS)
        until(lambda: looks.files == 2)
        put(paths.certs / "example.com/fullchain.pem", "y")
        until(lambda: looks.files == 3)
        assert looks.all == 0
    finally:
        looks.end()


def test_edits_all_the_time_do_not_keep_it_from_looking_at_the_rest(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_LOOK", 0.7)
    put_domain(paths, EXAMPLE_COM, users=USERS)
    looks = Looks(paths)

    def edited() -> bool:
        put_domain(paths, EXAMPLE_COM, users=USERS)
        return looks.all >= 3 and looks.files >= 3

    try:
        until(edited, seconds=30)
    finally:
        looks.end()


def test_without_inotify_it_looks_now_and_then_and_says_so_once(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "log", lambda source, text: said.append(f"{source}: {text}"))
    monkeypatch.setattr(keeper, "_LOOK", 0.05)

    def refuse(name: str, *_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), name)

    monkeypatch.setattr("entrypoint.common.watch._call", refuse)
    looks = Looks(paths)
    try:
        until(lambda: looks.all >= 5)
    finally:
        looks.end()
    [note] = said
    assert note.startswith("keeper: note: not every change by hand is told by the kernel (inotify_")
    assert "max_user_instances" in note


def test_the_program_drops_root_first_and_ends_when_told(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an error in one round is said, and is not its end."""
    calls: list[str] = []
    handlers: dict[int, Callable[[int, object], None]] = {}

    class Failing:
        def __init__(self, *_: object) -> None:
            self.rounds = 0

        def look(self) -> None:
            self.rounds += 1
            calls.append(f"look {self.rounds}")
            if self.rounds == 1:
                raise OSError(28, "No space left on device")
            if self.rounds == 2:
                raise UserError("busy")
            handlers[15](15, None)

    class Idle:
        def __init__(self, *, daemon: bool, **_: object) -> None:
            assert daemon, "it must not keep the container from ending"

        def start(self) -> None:
            calls.append("thread")

    monkeypatch.setattr(identity, "drop", lambda *_, **__: calls.append("drop"))
    monkeypatch.setattr(signal, "signal", lambda number, do: handlers.update({number: do}))
    monkeypatch.setattr(keeper, "Keeper", Failing)
    monkeypatch.setattr(keeper, "_LOOK", 0.001)
    real = threading.Thread
    monkeypatch.setattr(threading, "Thread", Idle)
    said: list[str] = []
    monkeypatch.setattr(log, "log", lambda source, text: said.append(f"{source}: {text}"))
    assert keeper.main(asked(), paths, ids) == 0
    monkeypatch.setattr(threading, "Thread", real)
    assert calls[0] == "drop"
    assert [call for call in calls if "look" in call] == ["look 1", "look 2", "look 3"]
    assert "keeper: error: [Errno 28] No space left on device" in said
    assert "keeper: error: busy" in said
    assert {2, 15} <= set(handlers)


def test_an_alarm_of_the_policy_service_is_said_once_and_is_unhealthy(watch: KeeperAtWork) -> None:
    watch.look()
    watch.alarms = ["i@example.com is paused: 30 of 40 recipients failed."]
    [said] = watch.look()
    assert said.startswith("fail: i@example.com is paused: 30 of 40 recipients failed. Fix: ")
    assert watch.look() == []
    assert len(watch.problems) == 1
    watch.alarms = []
    assert watch.look() == ["mended: i@example.com is paused: 30 of 40 recipients failed."]
    assert watch.problems == []


def test_a_note_of_the_policy_service_is_a_warning(watch: KeeperAtWork) -> None:
    watch.notes = ["i@example.com sends messages without Message-ID."]
    assert watch.look() == ["warn: i@example.com sends messages without Message-ID."]
    assert watch.look() == []
    assert watch.problems == []


@pytest.mark.parametrize("answer", [None, {"logins": None}])
def test_an_auth_service_that_cannot_work_is_an_alarm(
    watch: KeeperAtWork, answer: dict[str, object] | None
) -> None:
    watch.auth = answer
    said = [*watch.look(), *watch.look()]
    assert len(said) == 1
    assert said[0].startswith("fail: The auth service ")
    assert "Generated secrets go on" in said[0]
    assert watch.look() == []
    assert len(watch.problems) == 1
    watch.auth = {"logins": 0}
    [mended] = watch.look()
    assert mended.startswith("mended: The auth service")
    assert watch.problems == []


def test_one_silent_service_does_not_hide_the_other(watch: KeeperAtWork) -> None:
    watch.alarms = watch.auth = None
    said = [*watch.look(), *watch.look()]
    assert sorted(text.split(" does not")[0] for text in said) == [
        "fail: The auth service", "fail: The policy service",
    ]  # fmt: skip


def test_a_silent_policy_service_is_an_alarm_unless_it_just_starts(watch: KeeperAtWork) -> None:
    watch.alarms = None
    assert watch.look() == []
    [said] = watch.look()
    assert said.startswith("fail: The policy service does not answer (nobody there)")
    assert watch.look() == []
    assert len(watch.problems) == 1
    watch.alarms = []
    [said] = watch.look()
    assert said.startswith("mended: The policy service")
    assert watch.problems == []
