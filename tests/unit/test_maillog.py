"""chasquid's log, made one printable line an event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.maillog import Joiner, clean

STAMP = "2026-01-02 03:04:05.000006 "


def events(*lines: str) -> list[str]:
    joiner = Joiner()
    found = [joiner.feed(line) for line in lines]
    return [item for item in (*found, joiner.flush()) if item is not None]


def test_an_event_loses_its_stamp() -> None:
    """The container's log has its own."""
    assert events(f"{STAMP}abc from=i@example.com all done") == ["abc from=i@example.com all done"]


def test_each_stamp_begins_an_event() -> None:
    assert events(f"{STAMP}one", f"{STAMP}two") == ["one", "two"]


def test_a_remotes_answer_of_several_lines_is_one_event() -> None:
    first, last = events(
        f"{STAMP}x from=i@example.com to=you@example.net failed (permanent): 550-5.7.1 Your mail",
        "550-5.7.1 was refused.",
        "550 5.7.1 See example.net",
        f"{STAMP}x from=i@example.com all done",
    )
    assert first.endswith(
        "550-5.7.1 Your mail | 550-5.7.1 was refused. | 550 5.7.1 See example.net"
    )
    assert last == "x from=i@example.com all done"


def test_a_stamp_inside_a_line_begins_nothing() -> None:
    assert events(f"{STAMP}one", f" {STAMP}two") == [f"one |  {STAMP}two"]


def test_lines_before_the_first_stamp() -> None:
    assert events("no stamp", f"{STAMP}one") == ["no stamp", "one"]


def test_nothing_is_held_back_after_a_flush() -> None:
    joiner = Joiner()
    assert joiner.flush() is None
    assert joiner.feed(f"{STAMP}one") is None
    assert joiner.flush() == "one"
    assert joiner.flush() is None
    assert joiner.feed("late") is None
    assert joiner.flush() == "late"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é 例 📧", "é 例 📧"),
        ("\x1b[2J\x1b[31m", r"\x1b[2J\x1b[31m"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\u202e\u2028\x85\x7f", r"\u202e\u2028\x85\x7f"),
        ("\ufffd", "\ufffd"),
        ("x" * 2000, "x" * 2000),
        ("x" * 2001, "x" * 2000 + "…"),
    ],
)
def test_nothing_moves_a_terminals_cursor(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_an_event_is_one_printable_line_and_bounded(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert len(shown) <= 2001


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_no_event_is_lost(lines: list[str]) -> None:
    found = events(*(STAMP + line for line in lines))
    assert found == [clean(line) for line in lines]
