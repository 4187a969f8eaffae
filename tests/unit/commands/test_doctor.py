"""What the doctor prints; what it finds is tested in tests/unit/checks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from entrypoint import checks
from entrypoint.checks.context import CheckContext
from entrypoint.checks.runner import Theme
from entrypoint.common.findings import Finding, Level
from tests.unit.checks.kit import Scene
from tests.unit.commands.conftest import Result, Server

BAD = Finding(
    id="listed",
    level=Level.FAIL,
    message="203.0.113.10 is on a list.",
    fix="find out why, end it, then have it removed:\nhttps://list.example/" + "x" * 80,
    subject="203.0.113.10 list.example",
    seen="127.0.0.2",
    why="Receivers that ask this list refuse mail. " * 3,
)
DOUBTS = tuple(
    Finding(
        id="x-unknown",
        level=Level.UNKNOWN,
        message=f"{name} is not known.",
        fix="",
        subject=name,
        seen=f"{name} failed",
        why="Why.",
    )
    for name in ("a.example", "b.example", "c.example", "d.example")
)
NEWS = Finding(id="queue", level=Level.INFO, message="No message waits.", seen="empty", why="So.")
LATER = Finding(
    id="warned", level=Level.WARN, message="Something is odd.", fix="mend it", seen="odd", why="So."
)


@pytest.fixture
def doctor(server: Server, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the verb with themes that find what they are told to."""
    monkeypatch.setattr(CheckContext, "real", lambda *_: scene.context())

    def run(*arguments: str, **themes: tuple[Finding, ...]) -> Result:
        if themes:
            found = tuple(
                Theme(name, f"about {name}", lambda _context, said=said: list(said))  # type: ignore[misc]
                for name, said in themes.items()
            )
            monkeypatch.setattr(checks, "THEMES", found)
        return server.run("doctor", *arguments)

    return run


@pytest.fixture
def scene(server: Server) -> Scene:
    return Scene(server.context.paths)


def test_themes_that_are_fine_take_a_line_each(doctor: Callable[..., Result]) -> None:
    done = doctor(mail=(NEWS,), names=())
    assert done.status == 0
    assert done.out.splitlines()[:2] == [
        "ok       mail         empty", "ok       names        about names",
    ]  # fmt: skip
    assert "1 info" in done.out
    assert done.err == "", "no progress where there is no terminal"


def test_a_failure_with_all_that_belongs_to_it(doctor: Callable[..., Result]) -> None:
    done = doctor(lists=(NEWS, LATER, BAD))
    assert done.status == 1
    lines = done.out.splitlines()
    assert lines[0] == "FAIL     lists        about lists"
    assert lines[1] == "  FAIL     203.0.113.10 is on a list."
    assert lines[2] == "           seen: 127.0.0.2"
    assert lines[3].startswith("           why:  Receivers that ask this list")
    assert "           fix:  find out why, end it, then have it removed:" in lines
    assert f"    https://list.example/{'x' * 80}" in lines, "what is to be pasted is not cut"
    assert [line for line in lines if len(line) > 80] == [f"    https://list.example/{'x' * 80}"]
    assert lines.index("  warn     Something is odd.") > lines.index(lines[1]), "the worst first"
    assert "No message waits" not in done.out
    assert "No message waits." in doctor("--verbose").out


def test_doubts_with_one_cause_are_one(doctor: Callable[..., Result]) -> None:
    done = doctor(lists=DOUBTS)
    assert done.status == 0, "not known is no failure"
    assert done.out.splitlines()[:5] == [
        "unknown  lists        about lists",
        "  unknown  a.example is not known.",
        "           and:  b.example, c.example, d.example",
        "           seen: a.example failed; b.example failed; …",
        "           why:  Why.",
    ]


def test_what_differs_from_the_last_time(doctor: Callable[..., Result]) -> None:
    assert "The first run" in doctor("--changes", lists=(BAD,)).out
    done = doctor("--changes", lists=(BAD,))
    assert "Nothing has changed since 2026-03-01 12:00 UTC." in done.out
    assert "1 at FAIL now" in done.out
    assert done.status == 1
    done = doctor("--changes", lists=(LATER, *DOUBTS[:1]))
    assert "  warn     Something is odd." in done.out
    assert "  mended   203.0.113.10 is on a list." in done.out
    assert done.status == 0
    done = doctor("--changes", lists=(LATER,))
    assert "  known    1 that could not be seen the last time" in done.out
    assert "Something is odd" not in done.out


def test_for_programs(doctor: Callable[..., Result]) -> None:
    found = json.loads(doctor("--json", lists=(BAD, NEWS), mail=()).out)
    assert found["failed"] is True
    assert found["counts"] == {"info": 1, "unknown": 0, "warn": 0, "fail": 1}
    assert [theme["theme"] for theme in found["themes"]] == ["lists", "mail"]
    assert found["themes"][0]["worst"] == "fail"
    assert found["themes"][0]["findings"][0] == {
        "id": "listed", "level": "fail", "subject": BAD.subject, "message": BAD.message,
        "seen": BAD.seen, "why": BAD.why, "fix": BAD.fix,
    }  # fmt: skip
    found = json.loads(doctor("--json", "--changes", lists=(NEWS,)).out)
    assert found["since"] == "2026-03-01T12:00:00Z"
    assert found["themes"][0]["findings"] == []
    assert found["mended"] == [{"level": "fail", "message": BAD.message}]
    assert found["known_again"] == []


def test_all_real_themes_on_a_healthy_server(doctor: Callable[..., Result]) -> None:
    done = doctor()
    assert done.status == 0
    lines = done.out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    for theme in checks.THEMES:
        assert [line for line in lines if line[9:].startswith(f"{theme.name} ")]


def test_progress_and_colour_are_for_terminals(
    doctor: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    done = doctor(lists=(BAD,), mail=())
    assert "\033[31mFAIL\033[0m     lists" in done.out
    assert done.err.startswith("\r\033[K1 of 2 done; looking at ")
    assert done.err.endswith("\r\033[K"), "it leaves nothing behind"


def test_a_disk_that_is_full_does_not_hide_what_was_found(
    doctor: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("entrypoint.checks.memory.remember", full)
    done = doctor(lists=(BAD,))
    assert done.status == 1
    assert "203.0.113.10 is on a list." in done.out
    assert "note: what was found cannot be kept for --changes: No space left" in done.err
