"""PID 1: a real supervisord with programs of the tests' own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.unit.kit import until

REPOSITORY = Path(__file__).parents[3]
PROGRAM = """
import sys
from pathlib import Path
from entrypoint.common.paths import Paths
from entrypoint.services import init
place = Path(sys.argv.pop(1))
init.Paths = lambda: Paths(place)
sys.exit(init.main())
"""
HEAD = """
[supervisord]
nodaemon = true
loglevel = warn
logfile = /dev/null
logfile_maxbytes = 0
pidfile = {place}/pid
"""
ONE = """
[program:{name}]
command = {command}
startsecs = 0
startretries = 0
autorestart = {again}
"""


class Init:
    def __init__(self, place: Path, style: str, programs: dict[str, tuple[str, bool]]) -> None:
        self.place = place
        lib, run = place / "usr/lib/tambo", place / "run/tambo"
        for folder in (lib, run):
            folder.mkdir(parents=True)
        text = HEAD.format(place=place)
        for name, (command, again) in programs.items():
            text += ONE.format(name=name, command=command, again=str(again).lower())
        (lib / "supervisord.conf").write_text(text)
        with (place / "log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-c", PROGRAM, place, style, "no none 1 2 3",
                 "default yes no"], cwd=REPOSITORY,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)},
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def log(self) -> list[str]:
        return (self.place / "log").read_text().splitlines()

    @property
    def states(self) -> dict[str, str]:
        with suppress(FileNotFoundError):
            content: dict[str, Any] = json.loads(
                (self.place / "run/tambo/programs.json").read_text()
            )
            assert content["started"] > 1e9
            return {name: item["state"] for name, item in content["programs"].items()}
        return {}

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


FATAL = ("/nonexistent/program", True)
FINE = ("/bin/sleep 60", True)


def test_states_are_written_down_and_an_asked_for_end_is_none_of_failure(tmp_path: Path) -> None:
    init = Init(tmp_path, "text", {"smtp": FINE, "keeper": FINE})
    until(lambda: init.states == {"smtp": "running", "keeper": "running"})
    mode = (tmp_path / "run/tambo/programs.json").stat().st_mode & 0o777
    assert mode == 0o644
    assert init.end() == 0
    assert all(re.match(r"\S+Z init     (WARN|CRIT) ", line) for line in init.log), init.log


def test_a_program_that_mail_needs_ends_it_all(tmp_path: Path) -> None:
    init = Init(tmp_path, "text", {"smtp": FATAL, "keeper": FINE})
    assert init.process.wait(10) == 70
    assert any("error: smtp cannot be kept running; its reason is above. Ending the container." in
               line for line in init.log)  # fmt: skip


def test_the_recorder_takes_nothing_along(tmp_path: Path) -> None:
    init = Init(tmp_path, "text", {"recorder": FATAL, "keeper": FINE})
    until(lambda: init.states == {"recorder": "fatal", "keeper": "running"})
    until(lambda: any("recorder cannot be kept running" in line for line in init.log))
    assert init.process.poll() is None
    assert init.end() == 0


@pytest.mark.parametrize("style", ["json", "json,short"])
def test_its_own_lines_are_json_too(tmp_path: Path, style: str) -> None:
    init = Init(tmp_path, style, {"recorder": FATAL, "smtp": ("/bin/false", True)})
    until(lambda: "smtp" in init.states and init.states.get("recorder") == "fatal")
    init.end()
    found = [json.loads(line) for line in init.log]
    assert found
    assert {item["source"] for item in found} == {"init"}
