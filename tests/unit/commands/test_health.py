"""What Docker asks every few seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint import cli
from entrypoint.commands import health
from entrypoint.common import rpc, tlsprobe
from entrypoint.common.paths import Paths
from entrypoint.common.rpc import UnreachableError
from tests.unit.kit import put


@pytest.fixture
def at(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(health, "Paths", lambda: paths)
    return paths


def answer(monkeypatch: pytest.MonkeyPatch, status: dict[str, Any] | None) -> None:
    def request(_path: Path, command: str, timeout: float) -> dict[str, Any]:
        assert command == "status"
        assert timeout <= 5, "Docker waits no longer"
        if status is None:
            raise UnreachableError("No such file or directory")
        return status

    monkeypatch.setattr(rpc, "request", request)


def run(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = cli.run(["health"])
    out, err = capsys.readouterr()
    return status, out + err


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The ports that do not greet."""
    found: set[int] = set()
    monkeypatch.setattr(tlsprobe, "greets", lambda port, _timeout: port not in found)
    return found


def test_port_that_does_not_greet_is_not_healthy(
    at: Paths,
    silent: set[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer(monkeypatch, {"ready": True})
    put(at.problems, "[]")
    silent |= {25, 587}
    assert run(capsys) == (1, "error: no greeting within 2 s on port 25, 587\n")


def test_healthy(
    at: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, {"ready": True})
    put(at.problems, "[]")
    assert run(capsys) == (0, "healthy\n")


@pytest.mark.parametrize(
    ("status", "problems", "text"),
    [
        (None, [], "error: the mail server does not answer: No such file or directory\n"),
        ({"ready": False, "last_words": "no certificates"}, [],
         "error: chasquid is not running; it said last: no certificates\n"),
        ({}, [], "error: chasquid is not running; it said last: None\n"),
        ({"ready": True}, ["users: line 3", "aliases: line 1"],
         "error: users: line 3\naliases: line 1\n"),
    ],
)  # fmt: skip
def test_not_healthy(
    at: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    status: dict[str, Any] | None, problems: list[str], text: str,
) -> None:  # fmt: skip
    answer(monkeypatch, status)
    put(at.problems, json.dumps(problems))
    assert run(capsys) == (1, text)


def test_before_the_keeper_has_looked(
    at: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, {"ready": True})
    assert not at.problems.exists()
    status, text = run(capsys)
    assert status == 1
    assert text.startswith("error: ")
