"""Themes run side by side, each with an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from entrypoint.checks import THEMES, Result, Theme, runner
from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.parallel import every
from tests.unit.checks.kit import SELF_SIGNED, Scene

FINE = Finding(id="fine", level=Level.INFO, message="fine.")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def test_a_healthy_server_fails_in_nothing(scene: Scene) -> None:
    seen: list[Result] = []
    report = runner.run(scene.context(), on_done=seen.append)
    assert not report.failed
    assert {result.theme.name: result.worst for result in report.results} == {
        "host": Level.INFO, "network": Level.UNKNOWN, "names": Level.INFO, "records": Level.INFO,
        "dnssec": Level.INFO, "certificates": Level.WARN, "keys": Level.INFO, "lists": Level.INFO,
         "reports": Level.INFO, "mail": Level.INFO, "accounts": Level.INFO,
         "senders": Level.INFO, "backup": Level.INFO,
    }  # fmt: skip
    assert [result.theme for result in report.results] == list(THEMES)
    assert sorted(seen, key=id) == sorted(report.results, key=id)
    assert scene.box.served == SELF_SIGNED.fingerprint


def test_a_resolver_that_fails_makes_nothing_absent_anywhere(scene: Scene) -> None:
    scene.dns.failing = True
    report = runner.run(scene.context())
    failing = [item.id for result in report.results for item in result.findings
               if item.level is Level.FAIL]  # fmt: skip
    assert failing == ["resolver"]
    for result in report.results:
        assert not [item for item in result.findings if "missing" in item.id or "listed" in item.id]


def test_one_that_hangs_is_unknown_and_hinders_nobody(scene: Scene, gate: threading.Event) -> None:
    def hang(_context: CheckContext) -> list[Finding]:
        gate.wait()
        return []

    themes = (
        Theme("slow", "what is slow", hang),
        Theme("quick", "what is quick", lambda _: [FINE]),
    )
    started = time.monotonic()
    report = runner.run(scene.context(), themes, seconds=0.2)
    assert time.monotonic() - started < 2
    slow, quick = report.results
    assert [(item.id, item.level) for item in slow.findings] == [("overrun", Level.UNKNOWN)]
    assert quick.findings == (FINE,)
    assert not report.failed


def test_one_that_fails_is_unknown(scene: Scene) -> None:
    def fail(_context: CheckContext) -> list[Finding]:
        found: dict[str, Finding] = {}
        return [found["surprise"]]

    report = runner.run(scene.context(), (Theme("odd", "what is odd", fail),))
    [found] = report.results[0].findings
    assert (found.id, found.level, found.seen) == ("overrun", Level.UNKNOWN, "KeyError: 'surprise'")


def test_what_a_stranger_wrote_moves_no_cursor(scene: Scene) -> None:
    scene.dns.set("example.com", "TXT", "v=spf1 \x1b[2J +all")
    report = runner.run(scene.context())
    texts = [
        text
        for result in report.results
        for item in result.findings
        for text in (item.message, item.seen, item.subject, *item.fix.split("\n"))
    ]
    assert all(text.isprintable() for text in texts)
    assert any("\\x1b[2J" in text for text in texts)


def test_the_worst_level_of_a_theme() -> None:
    def worst(*levels: Level) -> Level:
        found = tuple(Finding(id=level.value, level=level, message="x.") for level in levels)
        return Result(THEMES[0], found, 0.0).worst

    assert worst() is Level.INFO
    assert worst(Level.INFO, Level.UNKNOWN) is Level.UNKNOWN
    assert worst(Level.WARN, Level.UNKNOWN) is Level.WARN
    assert worst(Level.WARN, Level.FAIL, Level.UNKNOWN) is Level.FAIL


# every


def test_every_result_in_order() -> None:
    assert every(range(200), lambda number: number * 2, 10) == list(range(0, 400, 2))
    assert every([], str, 10) == []


def test_what_is_late_is_none_and_is_not_waited_for(gate: threading.Event) -> None:
    def work(number: int) -> int:
        if number == 1:
            gate.wait()
        return number

    started = time.monotonic()
    assert every([0, 1, 2], work, 0.3) == [0, None, 2]
    assert time.monotonic() - started < 2


def test_an_exception_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        every([1, 0, 2], lambda number: 1 // number, 10)
