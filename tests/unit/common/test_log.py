"""One form for every line in the container's log."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.common import log


@pytest.mark.parametrize(
    ("text", "lines"),
    [("one", ["one"]), ("one\ntwo", ["one", "two"]), ("", [""]), ("one\n", ["one"])],
)
def test_each_line_has_time_and_source(
    capsys: pytest.CaptureFixture[str], text: str, lines: list[str]
) -> None:
    log.log("smtp", text)
    out, err = capsys.readouterr()
    found = out.splitlines()
    assert [line.partition("smtp     ")[2] for line in found] == lines
    for line in found:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z smtp     ", line)
    assert out.endswith("\n")
    assert err == ""


def test_lines_of_several_programs_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """One write: what is below a pipe's buffer arrives whole."""
    writes: list[str] = []

    class Out:
        def write(self, text: str) -> None:
            writes.append(text)

        def flush(self) -> None:
            writes.append("flush")

    monkeypatch.setattr("sys.stdout", Out())
    log.log("boot", "one\ntwo")
    assert len(writes) == 2
    assert writes[0].count("\n") == 2
    assert writes[1] == "flush"


@pytest.fixture
def style() -> Iterator[Callable[[str], None]]:
    """Configures this process as a program of the container is."""
    before = sys.excepthook
    yield lambda words: log.configure(words, "keeper")
    log.configure()
    sys.excepthook = before


def printed(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_has_an_object_a_line(
    capsys: pytest.CaptureFixture[str], style: Callable[[str], None]
) -> None:
    style("json")
    log.log("smtp", 'said "é\x1b"\nand more')
    log.log("mail", "not this", at=1767323045.5, fields={"event": "sent", "to": ["a@x"]})
    first, second = printed(capsys)
    assert first.pop("time").endswith("Z")
    assert first == {"source": "smtp", "text": 'said "é\x1b"\nand more'}
    assert second == {
        "time": "2026-01-02T03:04:05.500Z", "source": "mail", "event": "sent", "to": ["a@x"]
    }  # fmt: skip


def test_what_ends_a_program_is_an_object_too(
    capsys: pytest.CaptureFixture[str], style: Callable[[str], None]
) -> None:
    style("json")
    log.complain("error: no")
    error = ValueError("odd")
    sys.excepthook(ValueError, error, None)
    first, second = printed(capsys)
    assert (first["source"], first["text"]) == ("keeper", "error: no")
    assert second["text"] == "error: ValueError: odd\n"


@pytest.mark.parametrize("words", ["text", "json", "json,short"])
@pytest.mark.parametrize("size", [1, 3000, 100_000])
def test_no_line_is_longer_than_what_a_pipe_takes_at_once(
    capsys: pytest.CaptureFixture[str], style: Callable[[str], None], words: str, size: int
) -> None:
    style(words)
    log.log("mail", "例" * size)
    log.log("mail", "one\n" * size)
    log.log("mail", "", fields={"to": ["somebody@example.com"] * size, "text": "é" * size})
    out = capsys.readouterr().out
    for line in out.splitlines():
        assert len(line.encode()) < 4096
        if "json" in words:
            json.loads(line)
    if "json" in words and size > 100:
        last = json.loads(out.splitlines()[-1])
        assert last["more"] + len(last["to"]) == size


def test_what_is_no_text_is_shown_all_the_same(
    capsys: pytest.CaptureFixture[str], style: Callable[[str], None]
) -> None:
    """A file's name may be any octets."""
    log.log("keeper", "changed \udcff")
    assert capsys.readouterr().out.endswith("changed \\udcff\n")
    style("json")
    log.log("keeper", "changed \udcff")
    assert printed(capsys)[0]["text"] == "changed \udcff"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("i@example.com", "i…@example.com"),
        ("from=bob@x.example to=a@y,carol.d+tag@z", "from=b…@x.example to=a…@y,c…@z"),
        ("550 <bob@example.net>: no", "550 <b…@example.net>: no"),
        ("rfc822;bob@example.net mailto:bob@x", "rfc822;b…@example.net mailto:b…@x"),
        ('"odd name"@example.net', '"…"@example.net'),
        ("i+fwd_from=bob=x.example@example.com", "i…@example.com"),
        ("https://x.example/?who=bob%40example.net&a", "https://x.example/?who=b…%40example.net&a"),
        ("'/data/mail/example.com/bob/tmp/1'", "'/data/mail/example.com/b…/tmp/1'"),
        ("jürgen@münchen.example", "j…@münchen.example"),
        ("no address @ all, 5 % of 40", "no address @ all, 5 % of 40"),
    ],
)  # fmt: skip
def test_addresses_are_shortened(text: str, shown: str) -> None:
    assert log.shortened(text) == shown


@given(st.text(max_size=200), st.from_regex(r"[a-z]{2,20}([.+][a-z0-9]{1,9}){0,2}", fullmatch=True))
def test_no_local_part_is_left_whatever_is_around_it(around: str, local: str) -> None:
    for before, after in ((around, ""), ("", around), (around, around)):
        shown = log.shortened(f"{before} <{local}@example.net> {after}")
        assert f"{local}@" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * 200_000, "x…@data/mail/%40"),
        ("@" * 200_000, "@" * 200_001 + "data/mail/%40"),
        ('a"' * 100_000, 'a"' * 99_999 + '…"@data/mail/%40'),
        ("a%40" * 50_000, "a…@data/mail/%40"),
    ],
    ids=["one word", "at signs", "quotes", "encoded at signs"],
)
def test_a_long_text_is_shortened_in_time(text: str, shown: str) -> None:
    """Each of them would take hours with a pattern that looks again from every character."""
    assert log.shortened(f"{text}@data/mail/%40") == shown


def test_privacy_covers_whatever_is_logged(
    capsys: pytest.CaptureFixture[str], style: Callable[[str], None]
) -> None:
    for words in ("text,short", "json,short"):
        style(words)
        log.log("keeper", "fail: bob@example.net")
        log.log("mail", "sent to=bob@example.net", fields={"to": ["bob@example.net"], "n": 1})
        log.complain("error: bob@example.net")
        out, err = capsys.readouterr()
        assert (out + err).count("b…@example.net") == 3
        assert "bob@" not in out + err
