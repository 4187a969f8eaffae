"""What differs from the last time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from entrypoint.checks import Report, Result, memory
from entrypoint.checks.context import CheckContext
from entrypoint.checks.memory import Memory
from entrypoint.checks.runner import THEMES
from entrypoint.common.findings import Finding, Level
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.services import doctor
from tests.unit.checks.kit import NOW, Scene
from tests.unit.kit import asked

LISTED = Finding(id="listed", level=Level.FAIL, message="on a list.", subject="203.0.113.10 zen")
DOUBT = Finding(
    id="list-unknown", level=Level.UNKNOWN, message="not known.", subject="203.0.113.10 zen"
)
OTHER_DOUBT = Finding(
    id="list-unknown", level=Level.UNKNOWN, message="not known.", subject="example.com dbl"
)
NEWS = Finding(id="queue", level=Level.INFO, message="messages wait.")


def report(*findings: Finding, theme: int = 0) -> Report:
    return Report(NOW, (Result(THEMES[theme], findings, 0.1),), 0.1)


def after(*reports: Report) -> tuple[memory.Changes, Memory]:
    """The changes at the last of several runs."""
    known = Memory()
    for item in reports:
        changes, known = memory.compare(known, item)
    return changes, known


def test_the_first_time_everything_is_new() -> None:
    changes, known = after(report(LISTED, NEWS))
    assert changes.new == (LISTED, NEWS)
    assert (changes.since, changes.mended) == (None, ())
    assert known.when == NOW


def test_nothing_has_changed() -> None:
    changes, _ = after(report(LISTED, NEWS), report(LISTED, NEWS))
    assert (changes.new, changes.mended, changes.known_again) == ((), (), ())
    assert changes.since == NOW


def test_what_is_mended() -> None:
    changes, known = after(report(LISTED, NEWS), report())
    assert [item.message for item in changes.mended] == ["on a list."], "news is not mended"
    assert known.findings == {}


def test_another_level_is_new() -> None:
    low = Finding(id="disk-low", level=Level.WARN, message="nearly full.", subject="data")
    worse = Finding(id="disk-low", level=Level.FAIL, message="full.", subject="data")
    assert after(report(low), report(worse))[0].new == (worse,)


def test_what_nobody_could_say_is_neither_mended_nor_forgotten() -> None:
    changes, known = after(report(LISTED), report(DOUBT))
    assert (changes.new, changes.mended) == ((DOUBT,), ())
    changes, _ = memory.compare(known, report(LISTED))
    assert (changes.new, changes.mended) == ((), ())
    assert [item.message for item in changes.known_again] == ["not known."]
    changes, _ = memory.compare(known, report())
    assert [item.message for item in changes.mended] == ["on a list."]


def test_a_doubt_about_something_else_hides_nothing() -> None:
    changes, _ = after(report(LISTED), report(OTHER_DOUBT))
    assert [item.message for item in changes.mended] == ["on a list."]
    elsewhere = Report(NOW, (Result(THEMES[0], (), 0.1), Result(THEMES[1], (DOUBT,), 0.1)), 0.1)
    assert after(report(LISTED), elsewhere)[0].mended
    inside = Finding(id="ports-from-outside", level=Level.UNKNOWN, message="not known.")
    assert after(report(LISTED), report(inside))[0].mended


def test_a_doubt_about_the_whole_hides_its_parts() -> None:
    blocked = Finding(
        id="port-25-refused", level=Level.WARN, message="refused.", subject="IPv4 big.example"
    )
    doubt = Finding(id="port-25-unknown", level=Level.UNKNOWN, message="not known.", subject="IPv4")
    assert after(report(blocked), report(doubt))[0].mended == ()
    other = Finding(id="port-25-unknown", level=Level.UNKNOWN, message="not known.", subject="IPv6")
    assert after(report(blocked), report(other))[0].mended
    waiting = Finding(id="queue-waiting", level=Level.WARN, message="waits.", subject="big.example")
    doubt = Finding(id="queue-unknown", level=Level.UNKNOWN, message="not known.")
    assert after(report(waiting), report(doubt))[0].mended == ()
    overrun = Finding(id="overrun", level=Level.UNKNOWN, message="not looked at.")
    assert after(report(waiting, blocked), report(overrun))[0].mended == ()


def test_it_is_kept(paths: Paths, ids: Ids) -> None:
    _, known = after(report(LISTED, NEWS, DOUBT))
    paths.state.mkdir(parents=True)
    memory.remember(known, paths, ids)
    assert memory.load(paths) == known
    assert paths.doctor.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{}",
        '{"when": 1e99, "findings": []}',
        '{"when": 1, "findings": [3]}',
        '{"when": 1, "findings": [{"theme": "a", "id": "b", "subject": "", "level": "?"}]}',
    ],
)
def test_a_memory_that_cannot_be_read_is_none(paths: Paths, content: str | None) -> None:
    paths.state.mkdir(parents=True)
    if content is not None:
        paths.doctor.write_text(content)
    assert memory.load(paths) == Memory()


# The daily look


@pytest.fixture
def real(scene: Scene, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """What a real context would be."""
    paths.state.mkdir(parents=True)
    monkeypatch.setattr(CheckContext, "real", lambda *_: scene.context())
    return scene


def look(paths: Paths, ids: Ids) -> list[str]:
    lines: list[str] = []
    doctor.look(asked(), paths, ids, lines.append)
    return lines


def test_the_log_has_what_is_new_and_what_is_mended(real: Scene, paths: Paths, ids: Ids) -> None:
    first = look(paths, ids)
    assert [line.partition(":")[0] for line in first] == ["unknown", "warn"], "no news"
    assert look(paths, ids) == []
    real.dns.set("example.com", "MX")
    assert look(paths, ids) == ["fail: MX example.com is missing. (docker exec mail doctor)"]
    real.dns.failing = True
    assert not [line for line in look(paths, ids) if line.startswith("mended")]
    real.dns.failing = False
    real.publish()
    assert sorted(look(paths, ids)) == [
        "mended: MX example.com is missing.",
        "mended: This host's DNS resolver does not answer.",
    ]


@pytest.mark.usefixtures("real")
def test_it_is_due_once_a_day(paths: Paths, ids: Ids) -> None:
    assert doctor.is_due(paths, NOW)
    look(paths, ids)
    assert not doctor.is_due(paths, NOW)
    assert not doctor.is_due(paths, NOW + timedelta(hours=23))
    assert doctor.is_due(paths, NOW + timedelta(hours=25))
    assert doctor.is_due(paths, NOW - timedelta(hours=1)), "noted by a clock that was wrong"


@pytest.mark.usefixtures("real")
def test_a_full_disk_ends_nothing(paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory, "remember", full)
    assert look(paths, ids)[-1].startswith("error: cannot keep what was found")
