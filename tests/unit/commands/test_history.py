"""show-message: what happened to a message, readable."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common import rpc
from entrypoint.common.rpc import UnreachableError
from entrypoint.history.client import Query
from entrypoint.history.store import Store, answer
from tests.unit.commands.conftest import Server

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
ONE, TWO, DSN = "zmyCMhS89vA", "LO1Cc07jink", "-8AF8HxiF78"
ME, BOB = "i@example.com", "bob@example.net"
WORDS = "198.51.100.25: MAIL/RCPT failed: 550 5.1.1 The email account that you tried to reach does"
EVENTS = (
    Event(Kind.AUTH, AT, peer="192.0.2.1", login=ME),
    Event(Kind.RECEIVED, AT + 1, ONE, ME, ("nick@example.com",), "192.0.2.1", ME),
    Event(Kind.DEFERRED, AT + 2, ONE, ME, (BOB,), text="450 4.2.0 Greylisted"),
    Event(Kind.WAITING, AT + 3, ONE, ME, next=AT + 63),
    Event(Kind.SENT, AT + 64, ONE, ME, (BOB,)),
    Event(Kind.DONE, AT + 65, ONE, ME),
    # A try may be told of before the message is.
    Event(Kind.BOUNCED, AT + 70, TWO, ME, ("carol@example.net",), text=f"{WORDS} not exist. " * 3),
    Event(Kind.RECEIVED, AT + 71, TWO, ME, ("carol@example.net", "d@x", "nick@example.com"),
          "2001:db8::7"),
    Event(Kind.DEFERRED, AT + 72, TWO, ME, (BOB,), text="450 later"),
    Event(Kind.WAITING, AT + 73, TWO, ME, next=AT + 133),
    Event(Kind.SENT, AT + 74, DSN, "<>", (ME,)),
    Event(Kind.DONE, AT + 75, DSN, "<>"),
    Event(Kind.AUTH, AT + 80, peer="192.0.2.9", login=ME, ok=False),
    Event(Kind.REFUSED, AT + 81, sender="x@outside.example", recipients=("no@example.com",),
          peer="192.0.2.9", text="local user does not exist"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A real store behind the door; the questions that were asked."""
    folder = tmp_path / "store"
    folder.mkdir()
    with Store(folder) as store:
        store.add("s", list(enumerate(EVENTS, 1)))
    questions: list[str] = []

    def request(_path: Path, command: str, _timeout: float) -> Mapping[str, Any]:
        questions.append(command)
        return answer(folder, Query.parse(command.split(" ")[1]))

    monkeypatch.setattr(rpc, "request", request)
    monkeypatch.setenv("COLUMNS", "80")
    return questions


def test_one_message(server: Server) -> None:
    result = server.run("show-message", ONE)
    assert (result.status, result.err) == (0, "")
    assert result.out == (
        "zmyCMhS89vA  from i@example.com\n"
        "  2026-01-02 03:04:06  received, logged in as i@example.com, from 192.0.2.1\n"
        "                       for nick@example.com\n"
        "  to bob@example.net, an alias of nick@example.com\n"
        "  2026-01-02 03:04:07  deferred  450 4.2.0 Greylisted\n"
        "  2026-01-02 03:05:09  sent\n"
        "  2026-01-02 03:05:10  done.\n\n"
    )


def test_one_that_waits_and_one_that_bounced(server: Server) -> None:
    text = server.run("show-message", TWO).out
    assert "  to carol@example.net\n  2026-01-02 03:05:15  bounced   198.51.100.25:" in text
    assert "  to bob@example.net, by an alias\n" in text, "of which of the two, nobody can tell"
    assert "waits; the next try is at 2026-01-02 03:06:18" in text
    assert " ".join(text.split()).count("does not exist.") == 3, "all of the words"
    assert all(len(line) <= 80 for line in text.splitlines())


def test_all_of_an_address(server: Server, history: list[str]) -> None:
    text = server.run("show-message", "I@Example.com").out
    assert re.findall(r"^(\S{11})  from", text, re.MULTILINE) == [ONE, TWO, DSN], "the last at last"
    assert "made here: it tells a sender" in text
    assert "Without a message\n  2026-01-02 03:04:05  i@example.com logged in" in text
    assert "i@example.com failed to log in, from 192.0.2.9" in text
    assert len(history) == 2, "whatever the number of messages"
    text = server.run("show-message", "no@example.com").out
    assert "refused: from x@outside.example to no@example.com, by" in text


def test_limits(server: Server) -> None:
    text = server.run("show-message", ME, "--limit", "1").out
    assert DSN in text
    assert ONE not in text
    assert "logged in" not in text
    assert "failed to log in" in text
    assert server.run("show-message", ONE, "--days", "1").status == 1


def test_for_programs(server: Server) -> None:
    found = json.loads(server.run("show-message", BOB, "--json").out)
    assert [item["id"] for item in found["messages"]] == [ONE, TWO]
    assert found["messages"][0]["events"][2] == {
        "kind": "waiting", "at": "2026-01-02T03:04:08Z", "id": ONE, "sender": ME,
        "next": "2026-01-02T03:05:08Z",
    }  # fmt: skip
    assert found["others"] == []


def test_what_is_not_known(server: Server) -> None:
    result = server.run("show-message", "AAAAAAAAAAA")
    assert result.status == 1
    assert "Events are kept for 30 days" in result.out
    result = server.run("show-message", "stranger@example.net", "--json")
    assert (result.status, json.loads(result.out)) == (1, {"messages": [], "others": []})


@pytest.mark.parametrize("what", ["", "AAA", "example.com", "AAAAAAAAAAAA", "AAAAAAAAAA "])
def test_what_is_neither(server: Server, what: str) -> None:
    result = server.run("show-message", what)
    assert result.status == 2
    assert "neither an id" in result.err


def test_an_id_that_begins_like_an_option(server: Server) -> None:
    assert server.run("show-message", DSN).status == 0


def test_without_a_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: object) -> Mapping[str, Any]:
        raise UnreachableError("Connection refused")

    monkeypatch.setattr(rpc, "request", request)
    result = server.run("show-message", ONE)
    assert result.status == 75
    assert "Connection refused" in result.err
