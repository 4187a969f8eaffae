"""One form for every line in the container's log."""

from __future__ import annotations

import re

import pytest

from entrypoint import output


@pytest.mark.parametrize(
    ("text", "lines"),
    [("one", ["one"]), ("one\ntwo", ["one", "two"]), ("", [""]), ("one\n", ["one"])],
)
def test_each_line_has_time_and_source(
    capsys: pytest.CaptureFixture[str], text: str, lines: list[str]
) -> None:
    output.log("smtp", text)
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
    output.log("boot", "one\ntwo")
    assert len(writes) == 2
    assert writes[0].count("\n") == 2
    assert writes[1] == "flush"
