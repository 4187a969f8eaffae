"""Receivers as verbs show them, and hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint import cli
from entrypoint.commands.context import Context
from entrypoint.common import rpc
from entrypoint.common.errors import Exit

GOOGLE: dict[str, Any] = {
    "name": "Google", "key": "google", "window": 18, "in_use": 18, "waiting": 312, "longest": 31.0,
    "a_minute": 540.0, "complaint": "421 4.7.28 unusual rate", "complained": 7200.0, "held": None,
    "warmup": {"192.0.2.1": "day 9, 120 of 200 today, none put off"},
}  # fmt: skip
OTHER: dict[str, Any] = {
    "name": "198.51.100.0/24", "key": "198.51.100.0/24", "window": 10, "in_use": 0, "waiting": 0,
    "longest": 0.0, "a_minute": 0.0, "complaint": "", "complained": None, "held": 600.0,
    "warmup": {},
}  # fmt: skip


class Gate:
    """What it is asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: dict[str, Any] = {}

    def request(self, path: Path, command: str, _timeout: float) -> dict[str, Any]:
        assert path == Path("/gate")
        self.asked.append(command)
        return self.answer


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    class _Context:
        class paths:  # noqa: N801
            gate_door = Path("/gate")

    found = Gate()
    monkeypatch.setattr(rpc, "request", found.request)
    monkeypatch.setattr(Context, "enter", lambda: _Context)
    return found


def test_receivers_are_a_table_with_the_longest_line_first(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    gate.answer = {"receivers": [OTHER, GOOGLE]}
    assert cli.run(["list-receivers"]) == Exit.OK
    assert capsys.readouterr().out.splitlines() == [
        "RECEIVER         WINDOW  IN USE  WAITING  A MINUTE  LAST COMPLAINT",
        "Google           18      18      312      540       2 h ago: 421 4.7.28 unusual rate",
        "198.51.100.0/24  10      0       0        0         held for 10 min",
        "Google, from 192.0.2.1: day 9, 120 of 200 today, none put off",
    ]


def test_receivers_are_objects_for_programs(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    gate.answer = {"receivers": [OTHER, GOOGLE]}
    assert cli.run(["list-receivers", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == [GOOGLE, OTHER]


def test_nothing_sent_yet_is_said(gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    gate.answer = {"receivers": []}
    assert cli.run(["list-receivers"]) == Exit.OK
    assert "Nothing was sent to anybody" in capsys.readouterr().err


def test_receiver_is_held_for_a_time_and_released(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    gate.answer = {"names": ["Google"]}
    assert cli.run(["hold-receiver", "Google", "--for", "2h"]) == Exit.OK
    assert cli.run(["release-receiver", "Google"]) == Exit.OK
    assert gate.asked == [
        'hold {"name": "Google", "seconds": 7200}', 'release {"name": "Google"}',
    ]  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "Nothing is sent to Google for 2 h. Its mail waits in the queue.",
        "Mail goes to Google again.",
    ]


@pytest.mark.parametrize("time", ["2", "h", "0h", "-1h", "2 weeks", "99999h"])
def test_bad_time_is_an_error_of_usage(gate: Gate, time: str) -> None:
    assert cli.run(["hold-receiver", "Google", "--for", time]) == 2
    assert gate.asked == []


def test_unknown_receiver_is_an_error_with_a_fix(
    gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    gate.answer = {"error": "no receiver is called nobody"}
    assert cli.run(["hold-receiver", "nobody"]) != Exit.OK
    said = capsys.readouterr().err
    assert "no receiver is called nobody" in said
    assert "list-receivers" in said


@pytest.mark.usefixtures("gate")
def test_gate_that_is_away_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: Any) -> dict[str, Any]:
        raise rpc.UnreachableError("nobody")

    monkeypatch.setattr(rpc, "request", fails)
    assert cli.run(["list-receivers"]) != Exit.OK
    assert "the gate does not answer" in capsys.readouterr().err
