"""list-queue, drop-queued and forget-domain. Behind the door stands what the holder does there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from entrypoint.chasquid import domaininfo
from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common import rpc
from entrypoint.common.paths import Paths
from entrypoint.common.rpc import UnreachableError
from entrypoint.history import client
from entrypoint.services import reader
from entrypoint.services.removal import Removal
from tests.unit import chasquid_reference
from tests.unit.commands.conftest import Server
from tests.unit.kit import put

CHECK_FAILED = (
    "all mail servers failed temporarily, last error: mx.big.example.: "
    "security level check failed: connection is PLAIN"
)


@dataclass
class Door:
    """The holder's answers, without a chasquid."""

    paths: Paths
    asked: list[str] = field(default_factory=list)
    before_removal: Callable[[], object] = lambda: None
    says: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[Event]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def request(self, path: Path, line: str, timeout: float = 20) -> dict[str, Any]:
        assert path == self.paths.holder_socket
        assert "\n" not in line
        assert timeout >= 12
        command, _, content = line.partition(" ")
        self.asked.append(command)
        if command == "look":
            return reader.look(self.paths.waiting, json.loads(content), 600).to_json()
        if command == "remembered":
            found = domaininfo.find(self.paths.domaininfo, content)
            return {"files": [asdict(item) for item in found]}
        if command == "events":
            wanted = client.Query.parse(content).ids or ()
            known = [event for name in wanted for event in self.history.get(name, ())]
            return {"events": [event.to_json() for event in known]}
        assert command == "remove"
        self.before_removal()
        removal = Removal.parse(content, self.paths.queue)
        gone = list(removal.carry_out())
        self.log = [str(removal.told(name, 0)) for name in gone]
        return {"removed": gone, "done": True, **self.says}


@pytest.fixture
def door(server: Server, monkeypatch: pytest.MonkeyPatch) -> Door:
    door = Door(server.context.paths)
    monkeypatch.setattr(rpc, "request", door.request)
    return door


def message(
    door: Door,
    name: str,
    *to: str,
    sender: str = "i@example.com",
    age: float = 600,
    answer: str = "",
    original: str = "",
) -> Path:
    def quoted(text: str) -> str:
        return chasquid_reference.quote(text.encode())

    recipients = "".join(
        f"rcpt {{ address: {quoted(address)} original_address: {quoted(original or address)} "
        f"last_failure_message: {quoted(answer)} }}\n"
        for address in to
    )
    created = int(time.time() - age)
    text = f'ID: "{name}"\nfrom: "{sender}"\n{recipients}created_at_ts {{ seconds: {created} }}\n'
    path = put(door.paths.waiting / f"m:{name}", text)
    written = time.time() - 10
    os.utime(path, (written, written))
    return path


def waiting(door: Door) -> set[str]:
    return {path.name.removeprefix("m:") for path in door.paths.waiting.iterdir()}


def assert_fits(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80


# list-queue


@pytest.mark.usefixtures("door")
def test_an_empty_queue(server: Server) -> None:
    done = server.run("list-queue")
    assert (done.status, done.out, done.err) == (0, "No message waits.\n", "")
    found = json.loads(server.run("list-queue", "--json").out)
    assert found == {
        "in_queue": 0, "looked_at": 0, "waiting": 0, "oldest": None, "messages": [],
        "destinations": [], "damaged": {"number": 0, "ids": []},
    }  # fmt: skip


def test_one_message(server: Server, door: Door) -> None:
    message(door, "KcqGlVXoFcI", "you@big.example", answer="451 4.7.1 Greylisted", age=430)
    done = server.run("list-queue")
    assert done.out == (
        "KcqGlVXoFcI  7 min old, tried about 3 times, next in about 10 min\n"
        "    from  i@example.com\n"
        "    to    you@big.example\n"
        "          451 4.7.1 Greylisted\n"
        "\n"
        "1 message waits, for up to 7 min.\n"
        "\n"
        "waiting  oldest  for\n"
        "      1  7 min   big.example: 451 4.7.1 Greylisted\n"
    )
    assert (done.status, done.err) == (0, "")


def test_what_an_alias_led_to(server: Server, door: Door) -> None:
    message(door, "a", "me@big.example", original="info@example.com", sender="x@else.example")
    out = server.run("list-queue").out
    assert "a  10 min old, being tried for the first time\n" in out
    assert "    to    me@big.example, by way of info@example.com\n" in out


def test_a_try_under_way(server: Server, door: Door) -> None:
    path = message(door, "a", "me@big.example", answer="451 later", age=200)
    os.utime(path, (time.time() - 150, time.time() - 150))
    out = server.run("list-queue").out
    assert "a  3 min old, tried about once, and just now\n" in out


def test_tries_that_the_log_told_of(server: Server, door: Door) -> None:
    now = time.time()
    received = Event(Kind.RECEIVED, now - 430, "a", "i@example.com", ("me@big.example",))
    rounds = [Event(Kind.WAITING, now - 400, "a", next=now + at) for at in (-300, -200, 100, 200)]
    message(door, "a", "me@big.example", answer="451 later", age=430)
    door.history["a"] = [received, *rounds]
    assert "a  7 min old, tried 4 times, next in 3 min\n" in server.run("list-queue").out
    [found] = json.loads(server.run("list-queue", "--json").out)["messages"]
    assert (found["tries"], found["exact"]) == (4, True)
    # After a restart: it is tried at once.
    door.history["a"] = [received, *rounds[:2]]
    assert "a  7 min old, tried twice, and just now\n" in server.run("list-queue").out
    door.history["a"] = [received]
    assert "a  7 min old, being tried for the first time\n" in server.run("list-queue").out
    # The beginning of it is not known any more.
    door.history["a"] = rounds
    assert "a  7 min old, tried about 3 times, next in about 10 min" in server.run("list-queue").out


@pytest.mark.parametrize("number", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_long_queues(server: Server, door: Door, number: int) -> None:
    for count in range(number):
        message(
            door, f"{count:011}", f"you{count}@big{count % 30}.example", age=count,
            answer=f"451 4.7.1 Greylisted for {count} reasons, " + "which need many words; " * 20,
        )  # fmt: skip
    out = server.run("list-queue").out
    assert_fits(out)
    assert len(out.splitlines()) < 150
    assert f"{number} messages wait, for up to " in out
    assert "; the 20 oldest are shown (--limit).\n" in out
    assert out.startswith(f"{number - 1:011}  "), "the oldest first"
    assert out.count("\n    to    ") == 20
    assert "and 10 destinations more (--json)\n" in out
    assert server.run("list-queue", "--limit", "0").out.startswith(f"{number} messages wait")
    found = json.loads(server.run("list-queue", "--json", "--limit", "30").out)
    assert (found["waiting"], len(found["messages"]), len(found["destinations"])) == (
        number, 30, 30,
    )  # fmt: skip
    assert sum(item["waiting"] for item in found["destinations"]) == number


def test_long_words_fit(server: Server, door: Door) -> None:
    message(
        door, "a", f"{'x' * 64}@{'long-' * 40}y.example", original=f"{'y' * 64}@example.com",
        sender=f"{'z' * 64}@{'b' * 60}.example", answer="4" * 290,
    )  # fmt: skip
    out = server.run("list-queue").out
    assert_fits(out)


def test_many_recipients(server: Server, door: Door) -> None:
    message(door, "a", *[f"{number}@big.example" for number in range(100)])
    out = server.run("list-queue").out
    assert "    and to 80 more\n" in out
    assert "\n    100  10 min  big.example\n" in out


def test_a_part_of_the_queue(server: Server, door: Door) -> None:
    message(door, "a", "you@big.example", "you@other.example")
    message(door, "b", "you@other.example", sender="<>", age=300)
    out = server.run("list-queue", "--to", "big.example").out
    assert "    to    you@big.example\n    and to others\n" in out
    assert "1 message waits of 2 in the queue, for up to 10 min.\n" in out
    assert "other.example" not in out
    out = server.run("list-queue", "--from", "<>").out
    assert out.startswith("b  ")
    assert server.run("list-queue", "--to", "none.example").out == "No such message waits.\n"
    assert server.run("list-queue", "--to", "@big.example").out.startswith("a  ")


def test_the_verb_that_helps_is_named(server: Server, door: Door) -> None:
    for number in range(3):
        message(door, f"a{number}", "you@big.example", answer=CHECK_FAILED)
    message(door, "b", "you@other.example", answer="451 later")
    out = server.run("list-queue").out
    assert_fits(out)
    assert out.endswith(
        "\n\nsecurity level check failed: the receiver had better TLS before, and chasquid\n"
        "insists on it. If you know why it has not now, forget that it had:\n"
        "  docker exec mail forget-domain big.example\n"
    )
    found = json.loads(server.run("list-queue", "--json").out)
    fixes = {item["domain"]: item["fix"] for item in found["destinations"]}
    assert fixes == {
        "big.example": "docker exec mail forget-domain big.example", "other.example": "",
    }  # fmt: skip


def test_damaged_files_are_named(server: Server, door: Door) -> None:
    put(door.paths.waiting / "m:torn", "}")
    out = server.run("list-queue").out
    assert out == (
        "No message waits.\n\n1 files are no messages; chasquid leaves them alone:\n"
        "  docker exec mail drop-queued torn\n"
    )
    assert server.run("drop-queued", "torn").out == "dropped id=torn\n1 message dropped\n"
    assert waiting(door) == set()


def test_as_json(server: Server, door: Door) -> None:
    message(door, "a", "you@big.example", answer="451 later", age=430)
    [found] = json.loads(server.run("list-queue", "--json").out)["messages"]
    for name in ("created", "gives_up", "next_try"):
        assert found.pop(name).endswith("+00:00")
    assert found == {
        "id": "a", "from": "i@example.com",
        "to": [
            {
                "address": "you@big.example", "original": "you@big.example",
                "answer": "451 later", "fix": "",
            }
        ],
        "to_more": 0, "parked": False, "tries": 3, "exact": False,
    }  # fmt: skip


def test_what_was_not_read_in_time(
    server: Server, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    message(door, "a", "you@big.example")
    look = reader.look
    monkeypatch.setattr(reader, "look", lambda folder, asked, _seconds: look(folder, asked, -1))
    assert "Only 0 of 1 files could be read in time.\n" in server.run("list-queue").out


# drop-queued


def test_messages_by_their_ids(server: Server, door: Door) -> None:
    for age, name in ((300, "a"), (200, "-b-"), (100, "c")):
        message(door, name, "you@big.example", age=age)
    done = server.run("drop-queued", "a", "-b-", "a")
    assert done.out == (
        "dropped id=a from=i@example.com to=you@big.example\n"
        "dropped id=-b- from=i@example.com to=you@big.example\n"
        "2 messages dropped\n"
    )
    assert (done.status, done.err) == (0, "")
    assert waiting(door) == {"c"}
    assert sorted(door.log) == sorted(done.out.splitlines()[:2]), "the log says the same"


@pytest.mark.parametrize(
    "words",
    [["gone"], ["a", "gone"], ["../a"], ["a", "m:a"], ["a", ""], ["a", "b c"], ["a\x1b[31m"],
     ["a", "--to-all"]],
)  # fmt: skip
def test_an_unknown_id_drops_nothing(server: Server, door: Door, words: list[str]) -> None:
    message(door, "a", "you@big.example")
    done = server.run("drop-queued", *words)
    assert done.status == 1
    assert done.err.startswith("error: no such message waits: ")
    assert ascii(words[-1]).strip("'") in done.err
    assert "Nothing was dropped." in done.err
    assert done.err.isprintable() or "\x1b" not in done.err
    assert waiting(door) == {"a"}
    assert "remove" not in door.asked


def test_thousands_of_ids(server: Server, door: Door) -> None:
    names = [f"{number:011}" for number in range(5000)]
    for name in names:
        message(door, name, "you@big.example")
    message(door, "other", "you@big.example")
    done = server.run("drop-queued", *names)
    assert done.out.endswith("5000 messages dropped\n")
    assert waiting(door) == {"other"}
    assert door.asked == ["look", "remove"]


def test_one_that_was_delivered_meanwhile(server: Server, door: Door) -> None:
    message(door, "a", "you@big.example")
    path = message(door, "b", "you@big.example", age=500)
    door.before_removal = path.unlink
    done = server.run("drop-queued", "a", "b")
    assert done.out == (
        "dropped id=a from=i@example.com to=you@big.example\n"
        "b has gone by itself meanwhile\n"
        "1 message dropped\n"
    )
    assert done.status == 0


def test_without_yes_it_only_shows(server: Server, door: Door) -> None:
    message(door, "a", "you@big.example")
    message(door, "b", "you@other.example")
    done = server.run("drop-queued", "--to", "big.example")
    assert done.out == (
        "id=a from=i@example.com to=you@big.example\n1 message would be dropped. To do it, add "
        "--yes\n"
    )
    assert done.status == 1
    found = json.loads(server.run("drop-queued", "--all", "--json").out)
    assert (found["dropped"], [item["id"] for item in found["not_dropped"]]) == ([], ["a", "b"])
    assert waiting(door) == {"a", "b"}
    done = server.run("drop-queued", "--to", "none.example", "--yes")
    assert (done.status, done.out) == (0, "0 messages dropped\n")
    assert "remove" not in door.asked


def test_all_that_is_for_a_domain(server: Server, door: Door) -> None:
    message(door, "a", "you@big.example", "me@BIG.example")
    message(door, "both", "you@big.example", "you@other.example", age=400)
    message(door, "c", "you@other.example")
    done = server.run("drop-queued", "--to", "big.example", "--yes")
    assert done.out == (
        "dropped id=a from=i@example.com to=you@big.example,me@BIG.example\n"
        "both waits for others, too: left alone; to drop it for all, name its id\n"
        "1 message dropped\n"
    )
    assert waiting(door) == {"both", "c"}
    assert server.run("drop-queued", "both").status == 0
    assert waiting(door) == {"c"}


def test_all_that_somebody_sent(server: Server, door: Door) -> None:
    """As after a password was stolen."""
    message(door, "a", "you@big.example", "you@other.example", sender="thief@example.com")
    message(door, "b", "you@big.example")
    found = json.loads(
        server.run("drop-queued", "--from", "thief@example.com", "--yes", "--json").out
    )
    assert [item["id"] for item in found["dropped"]] == ["a"]
    assert (found["not_dropped"], found["waits_for_others"], found["note"]) == ([], [], "")
    assert waiting(door) == {"b"}


def test_all(server: Server, door: Door) -> None:
    message(door, "a", "you@big.example", "you@other.example")
    message(door, "b", *[f"{number}@big.example" for number in range(30)], age=500)
    put(door.paths.waiting / "m:torn", "}")
    done = server.run("drop-queued", "--all", "--yes")
    assert done.out == (
        "dropped id=a from=i@example.com to=you@big.example,you@other.example\n"
        "dropped id=b from=i@example.com to=0@big.example,1@big.example,2@big.example,"
        "3@big.example,4@big.example and 25 more\n"
        "dropped id=torn\n"
        "3 messages dropped\n"
    )
    assert waiting(door) == set()


@pytest.mark.parametrize(
    "words", [[], ["--yes"], ["a", "--all"], ["--all", "--to", "a.example"], ["a", "--from", "<>"]]
)
def test_what_is_meant_must_be_clear(server: Server, door: Door, words: list[str]) -> None:
    message(door, "a", "you@big.example")
    done = server.run("drop-queued", *words)
    assert done.status == 2
    assert "say which: ids, or --to and --from, or --all" in done.err
    assert door.asked == []


def test_what_went_wrong_is_said(server: Server, door: Door) -> None:
    message(door, "a", "you@big.example")
    door.says = {"done": False, "last_words": "☠ no domains"}
    done = server.run("drop-queued", "a")
    assert (done.status, done.err) == (
        1, "note: chasquid has not come back yet; it said last: ☠ no domains\n",
    )  # fmt: skip
    message(door, "a", "you@big.example")
    door.says = {"error": "m:b: Read-only file system"}
    done = server.run("drop-queued", "a")
    assert (done.status, done.err) == (
        1, "note: the rest is still there: m:b: Read-only file system\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "command"),
    [(["list-queue"], "look"), (["drop-queued", "a"], "look"),
     (["forget-domain", "big.example"], "remembered")],
)  # fmt: skip
def test_a_holder_that_is_not_there_or_does_not_know(
    server: Server, monkeypatch: pytest.MonkeyPatch, words: list[str], command: str
) -> None:
    def nobody(*_: object) -> dict[str, Any]:
        msg = "Connection refused"
        raise UnreachableError(msg)

    monkeypatch.setattr(rpc, "request", nobody)
    done = server.run(*words)
    assert done.status == 75
    assert done.err.startswith("error: the mail server does not answer: Connection refused")

    def error(_path: Path, line: str, _timeout: float) -> dict[str, Any]:
        assert line.startswith(f"{command} ")
        return {"error": "not in time"}

    monkeypatch.setattr(rpc, "request", error)
    done = server.run(*words)
    assert done.status == 1
    assert done.err.startswith("error: the mail server could not do it: not in time")


# forget-domain


def test_a_domain_is_forgotten(server: Server, door: Door) -> None:
    put(
        door.paths.domaininfo / "s:big.example",
        'name: "big.example" incoming_sec_level: TLS_CLIENT outgoing_sec_level: TLS_SECURE',
    )
    put(door.paths.domaininfo / "s:other.example", 'name: "other.example"')
    done = server.run("forget-domain", "Big.Example")
    assert done.out == (
        "Remembered of big.example: mail to it went over TLS with a valid certificate, mail from "
        "it came over TLS.\nIt is forgotten; what waits is being tried again.\n"
    )
    assert (done.status, done.err) == (0, "")
    assert [path.name for path in door.paths.domaininfo.iterdir()] == ["s:other.example"]
    assert door.log == ["what chasquid knew of the TLS of big.example is forgotten"]


def test_nothing_is_remembered(server: Server, door: Door) -> None:
    done = server.run("forget-domain", "big.example")
    assert (done.status, done.out) == (0, "Nothing was remembered of big.example.\n")
    found = json.loads(server.run("forget-domain", "big.example", "--json").out)
    assert found == {"domain": "big.example", "forgotten": [], "note": ""}
    assert "remove" not in door.asked


def test_a_domain_in_unicode_and_damaged(server: Server, door: Door) -> None:
    put(door.paths.domaininfo / "s:m%C3%BCnchen.example", "}")
    found = json.loads(server.run("forget-domain", "München.example", "--json").out)
    assert found == {
        "domain": "xn--mnchen-3ya.example",
        "forgotten": [
            {
                "file": "s:m%C3%BCnchen.example", "domain": "münchen.example",
                "incoming": "", "outgoing": "",
            }
        ],
        "note": "",
    }  # fmt: skip
    assert list(door.paths.domaininfo.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../x", "big", "a b.example", "you@big.example"])
def test_what_is_no_domain(server: Server, door: Door, name: str) -> None:
    assert server.run("forget-domain", name).status == 2
    assert door.asked == []
