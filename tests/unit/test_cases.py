"""The form of the golden cases: what is not of it is refused, and nothing is changed in passing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cases import EXPECTED, Case, cases, parse
from tests.unit.kit import put

GOOD = b"-- env --\nA=1\n\n-- data/a/users --\n-- expected/b --\n x \n--\n"


def test_a_section_is_its_lines_as_they_stand() -> None:
    assert parse(GOOD, "env") == {
        "env": "A=1\n\n",
        "data/a/users": "",
        "expected/b": " x \n--\n",
    }


NO_SECTION = "begins no section of env, which has env, data/, expected/"
BAD = {
    "text-above": (b"A=1\n-- env --\n", "'A=1' is above the first section"),
    "empty-line-above": (b"\n-- env --\n", "'' is above the first section"),
    "byte-order-mark": (b"\xef\xbb\xbf-- env --\n", "is above the first section"),
    "unknown": (b"-- env --\n-- environ --\n", NO_SECTION),
    "of-another-kind": (b"-- env --\n-- findings --\n", NO_SECTION),
    "path-below-a-file": (b"-- env --\n-- env/a --\n", NO_SECTION),
    "folder": (b"-- env --\n-- data --\n", NO_SECTION),
    "folder-with-slash": (b"-- env --\n-- data/ --\n", NO_SECTION),
    "without-end": (b"-- env --\n-- data/a\n", NO_SECTION),
    "space-behind": (b"-- env -- \n", NO_SECTION),
    "two-spaces": (b"--  env --\n", NO_SECTION),
    "dashes-alone": (b"-- env --\n-- \n", NO_SECTION),
    "twice": (b"-- env --\n-- data/a --\n-- env --\n", "'-- env --' is there twice"),
    "last-line-without-end": (b"-- env --\nA=1", "every line has to end with LF"),
    "last-section-without-end": (b"-- env --", "every line has to end with LF"),
    "cr-lf": (b"-- env --\r\nA=1\r\n", "none may hold CR"),
    "cr": (b"-- env --\nA=1\rB=2\n", "none may hold CR"),
    "not-utf-8": (b"-- env --\nA=\xff\n", "'utf-8' codec can't decode byte 0xff"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_of_the_form_is_refused_by_file_and_reason(tmp_path: Path, name: str) -> None:
    content, reason = BAD[name]
    case = Case(put(tmp_path / "env" / "01-bad", content))
    with pytest.raises(ValueError, match=reason) as caught:
        _ = case.sections
    assert str(case.path) in str(caught.value)


def test_what_is_expected_is_replaced_in_its_place_and_what_is_given_stays(tmp_path: Path) -> None:
    case = Case(put(tmp_path / "env" / "01-good", GOOD + b"-- expected/c --\nold\n"))
    case.write({"expected/a": "new\n", "expected/b": ""})
    assert case.path.read_bytes() == (
        b"-- env --\nA=1\n\n-- data/a/users --\n-- expected/b --\n-- expected/a --\nnew\n"
    )


UNWRITABLE = {
    "without-end": ("no end", "would not be read again"),
    "cr-lf": ("CR LF\r\n", "none may hold CR"),
    "dashes": ("-- \n", NO_SECTION),
    "section-that-is-there": ("-- expected/z --\n", "is there twice"),
    "section-that-is-new": ("-- expected/y --\n", "would not be read again"),
    "not-utf-8": ("\udcff\n", "can't encode"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_text_that_would_not_be_read_again_is_not_written(tmp_path: Path, name: str) -> None:
    text, reason = UNWRITABLE[name]
    before = b"-- env --\n-- expected/a --\nold\n"
    case = Case(put(tmp_path / "env" / "01-case", before))
    with pytest.raises(ValueError, match=reason):
        case.write({"expected/a": text, "expected/z": ""})
    assert case.path.read_bytes() == before


@pytest.mark.parametrize("kind", EXPECTED)
def test_writing_what_is_there_changes_no_byte(kind: str, tmp_path: Path) -> None:
    for case in cases(kind):
        copy = Case(put(tmp_path / kind / case.path.name, case.path.read_bytes()))
        copy.write(case.sections)
        assert copy.path.read_bytes() == case.path.read_bytes()
