"""What is run once more after tests failed beside others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import failed


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pytest notes what failed."""
    monkeypatch.setattr(failed, "_CACHE", tmp_path)
    for name in ("cache", "tambo"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_the_modules_that_failed_are_printed_once_each(
    note: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (note / "cache/lastfailed").write_text(
        json.dumps({"b.py::x": True, "a.py": True, "b.py::y": 1})
    )
    (note / "tambo/not-run").write_text("[]")
    assert failed.main() == 0
    assert capsys.readouterr().out == "a.py\nb.py\n"


@pytest.mark.parametrize("modules", [0, 9])
def test_none_and_many_are_not_run_once_more(
    note: Path, capsys: pytest.CaptureFixture[str], modules: int
) -> None:
    found = {f"{number}.py::x": True for number in range(modules)}
    (note / "cache/lastfailed").write_text(json.dumps(found))
    assert failed.main() == 1
    assert capsys.readouterr().out == ""


def test_no_second_run_makes_up_for_a_test_that_was_skipped(
    note: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (note / "cache/lastfailed").write_text(json.dumps({"a.py::x": True}))
    (note / "tambo/not-run").write_text(json.dumps(["skipped: b.py::y"]))
    assert failed.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "skipped: b.py::y" in said.err
