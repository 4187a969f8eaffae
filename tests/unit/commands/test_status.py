"""status: one screen."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common import rpc, tlsprobe, version
from entrypoint.common.rpc import UnreachableError
from tests.unit.commands.conftest import Server
from tests.unit.kit import put

NOW = 1_800_000_000.0
QUEUE = {"depth": 3, "looked_at": 3, "damaged": 0, "oldest": NOW - 720, "destinations": []}
TOTALS = [
    {"destination": f"d{number}.example", "sent": 20 - number, "deferred": number, "bounced": 1}
    for number in range(11)
]
HOLDER = {
    "ready": True, "seconds": 7300.0, "starts": 3, "last_words": "x",
    "events": {"connected": True, "waiting": 0, "oldest": None, "dropped": 0},
}  # fmt: skip


@pytest.fixture
def answers(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the holder says to each question; an exception is raised."""
    found: dict[str, Any] = {
        "status": HOLDER, "queue": QUEUE, "events": {"totals": TOTALS}, "reload": {"done": True}
    }  # fmt: skip

    def request(_path: Path, command: str, timeout: float = 0) -> Mapping[str, Any]:
        assert timeout <= 12
        answer = found[command.split()[0]]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    monkeypatch.setattr(rpc, "request", request)
    monkeypatch.setattr(version, "number", lambda: "0.1.0")
    monkeypatch.setattr(tlsprobe, "greets", lambda _port, _timeout: True)
    monkeypatch.setattr(time, "time", lambda: NOW)
    paths = server.context.paths
    put(paths.problems, "[]")
    put(paths.findings, json.dumps([{"level": "warn", "text": "A renewal failed. " * 9},
                                    {"level": "info", "text": "News."}]))  # fmt: skip
    programs = {
        name: {"state": state, "since": NOW - 86400 * 3, "pid": 1}
        for name, state in (("recorder", "running"), ("smtp", "running"), ("keeper", "running"))
    }
    put(paths.programs, json.dumps({"started": NOW - 86400 * 4, "programs": programs}))
    return found


@pytest.mark.usefixtures("answers")
def test_the_screen(server: Server) -> None:
    server.run("add-user", "i@example.com")
    result = server.run("status")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[:2] == ["smtp.example.com: healthy", "tambo 0.1.0, up 4 d"]
    for line in (
        "  smtp           running    3 d",
        "  chasquid       running    2 h, started 3 times",
        "  3 of 2000, the oldest for 12 min (docker exec mail list-queue)",
        "  d0.example                                     20         0        1",
        "  3 other destinations                           33        27        3",
        "  example.com                              1",
        "  A renewal failed. A renewal failed. A renewal failed. A renewal failed. A",
    ):
        assert line in lines, line
    assert "News." not in result.out
    assert "d9.example" not in result.out
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) <= 40


def test_what_was_refused_unjudged_is_counted(server: Server, answers: dict[str, Any]) -> None:
    answers["status"] = {**HOLDER, "unjudged": {"count": 12, "last": NOW - 200}}
    lines = server.run("status").out.splitlines()
    where = lines.index("Refused for now (451), as the policy service did not answer")
    assert lines[where + 1] == "  12 since the start, the last 3 min ago"
    found = json.loads(server.run("status", "--json").out)
    assert found["unjudged"] == {"count": 12, "last_seconds": 200.0}


@pytest.mark.parametrize(
    ("said", "count"), [({}, None), ({"unjudged": {"count": 0, "last": None}}, 0)]
)
def test_without_such_refusals_there_is_no_line(
    server: Server, answers: dict[str, Any], said: dict[str, Any], count: int | None
) -> None:
    answers["status"] = {**HOLDER, **said}
    assert "did not answer" not in server.run("status").out
    found = json.loads(server.run("status", "--json").out)
    assert found["unjudged"] == {"count": count, "last_seconds": None}


def test_for_programs(server: Server, answers: dict[str, Any]) -> None:
    answers["queue"] = {**QUEUE, "depth": 0, "oldest": None}
    found = json.loads(server.run("status", "--json").out)
    assert found["healthy"] is True
    assert found["uptime"] == 86400 * 4
    assert found["queue"] == {"depth": 0, "most": 2000, "oldest_seconds": None}
    assert found["programs"][1] == {"name": "smtp", "state": "running", "seconds": 86400 * 3}
    assert found["last_hour"]["totals"] == TOTALS
    assert found["users"] == {"example.com": 0, "example.org": 0}
    assert found["warnings"] == ["A renewal failed. " * 9]
    assert found["certificates"][0]["name"] == "self-signed"


def test_when_nothing_runs(server: Server, answers: dict[str, Any]) -> None:
    for name in answers:
        answers[name] = UnreachableError("Connection refused")
    for path in (server.context.paths.programs, server.context.paths.problems):
        path.unlink()
    result = server.run("status")
    assert result.status == 1
    assert "NOT HEALTHY" in result.out
    assert "the mail server does not answer: Connection refused" in result.out
    assert "chasquid       down" in result.out
    assert result.out.count("unknown: Connection refused") == 2


@pytest.mark.usefixtures("answers")
def test_what_is_broken_is_said_once(server: Server) -> None:
    paths = server.context.paths
    put(paths.problems, json.dumps(["users: line 3"]))
    put(paths.findings, json.dumps([{"level": "fail", "text": "users: line 3"}]))
    result = server.run("status")
    assert result.status == 1
    assert result.out.count("users: line 3") == 1


@pytest.mark.parametrize(
    ("state", "events", "note"),
    [
        ("fatal", {}, "recorder cannot be kept running: no history is kept"),
        ("running", {"waiting": 7, "oldest": NOW - 100}, "7 events wait to be stored"),
        ("running", {"waiting": 7, "oldest": NOW - 1}, None),
        ("running", {"dropped": 9}, "9 events are missing from the history"),
        ("running", {}, None),
    ],
)
def test_what_mail_does_not_need_is_a_warning(
    server: Server, answers: dict[str, Any], state: str, events: dict[str, Any], note: str | None
) -> None:
    answers["status"] = {**HOLDER, "events": events}
    programs = {"recorder": {"state": state, "since": NOW, "pid": 0}}
    put(server.context.paths.programs, json.dumps({"started": NOW, "programs": programs}))
    put(server.context.paths.findings, "[]")
    found = json.loads(server.run("status", "--json").out)
    assert found["healthy"] is True
    assert [text[: len(note)] for text in found["warnings"]] == [note] if note else True
    assert len(found["warnings"]) == (1 if note else 0)
