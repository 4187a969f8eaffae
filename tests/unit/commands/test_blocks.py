"""Seeing who is blocked, and letting them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint import cli
from entrypoint.commands.context import Context
from entrypoint.common import rpc
from entrypoint.common.errors import Exit

BLOCK = {
    "network": "198.51.100.7", "reason": "5 failed log-ins within an hour",
    "since": 1_800_000_000.0, "until": 1_800_000_060.0,
}  # fmt: skip


class Door:
    """The holder: what it is asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, dict[str, Any]] = {}

    def request(self, _path: Path, command: str, _timeout: float) -> dict[str, Any]:
        self.asked.append(command)
        return self.answers[command]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    class _Context:
        class paths:  # noqa: N801
            holder_socket = Path("/nowhere")

    found = Door()
    monkeypatch.setattr(rpc, "request", found.request)
    monkeypatch.setattr(Context, "enter", lambda: _Context)
    return found


def test_blocked_address_is_shown_with_reason_and_end(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    door.answers["blocked"] = {"blocked": [BLOCK]}
    assert cli.run(["list-blocked"]) == Exit.OK
    said = capsys.readouterr().out
    assert said == "198.51.100.7  until 2027-01-15T08:01:00Z  5 failed log-ins within an hour\n"


def test_blocked_address_is_an_object_for_programs(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    door.answers["blocked"] = {"blocked": [BLOCK]}
    assert cli.run(["list-blocked", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == [
        {
            "address": "198.51.100.7", "reason": "5 failed log-ins within an hour",
            "since": "2027-01-15T08:00:00Z", "until": "2027-01-15T08:01:00Z",
        }
    ]  # fmt: skip


def test_nobody_blocked_is_said(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    door.answers["blocked"] = {"blocked": []}
    assert cli.run(["list-blocked"]) == Exit.OK
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "Nobody is blocked.\n")


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("all", "all"),
    ],
)
def test_unblock_asks_for_the_network(
    door: Door, capsys: pytest.CaptureFixture[str], given: str, asked: str
) -> None:
    door.answers[f"unblock {asked}"] = {"unblocked": ["198.51.100.7"]}
    assert cli.run(["unblock", given]) == Exit.OK
    assert capsys.readouterr().out == "Not blocked any more: 198.51.100.7\n"


def test_address_that_was_not_blocked_is_said(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    door.answers["unblock 198.51.100.7"] = {"unblocked": []}
    assert cli.run(["unblock", "198.51.100.7"]) == Exit.OK
    assert capsys.readouterr().out == "198.51.100.7 was not blocked.\n"


def test_what_is_no_address_is_not_asked_for(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["unblock", "everybody"]) == 2
    assert "everybody" in capsys.readouterr().err
    assert door.asked == []


def test_holder_without_a_table_is_an_error(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    door.answers["blocked"] = {"error": "connections are not watched"}
    assert cli.run(["list-blocked"]) == Exit.WRONG
    assert "doctor" in capsys.readouterr().err
