"""The watcher of the queue: a message that is there for some milliseconds is seen."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from entrypoint.common import process
from entrypoint.common.paths import Paths
from entrypoint.services import holder, watcher
from tests.unit.kit import put

ITEM = (
    'ID: "abc"\nfrom: "i@example.com"\nTo: "you@example.net"\n'
    'rcpt { address: "me@example.org" original_address: "you@example.net" }\n'
    'data: "Message-ID: <token@example.com>\\n\\nHello.\\n"\n'
)


def test_it_is_seen_though_it_goes_at_once(tmp_path: Path) -> None:
    put(tmp_path / "m:old", ITEM.replace("abc", "old"))
    seen = watcher._names(tmp_path)

    def deliver() -> None:
        time.sleep(0.1)
        put(tmp_path / "m:other", ITEM.replace("token", "other"))
        put(tmp_path / ".tmp", ITEM).rename(tmp_path / "m:abc")
        time.sleep(0.05)
        (tmp_path / "m:abc").unlink()

    thread = threading.Thread(target=deliver)
    thread.start()
    found = watcher.watch(tmp_path, "token", seen, 5.0)
    thread.join()
    assert (found["id"], found["recipients"]) == ("abc", ["me@example.org"])
    assert base64.b64decode(found["message"]).endswith(b"\n\nHello.\n")


def test_a_bounce_that_quotes_it_is_not_it(tmp_path: Path) -> None:
    put(tmp_path / "m:dsn", ITEM.replace('from: "i@example.com"', 'from: "<>"'))
    assert "error" in watcher.watch(tmp_path, "token", set(), 0.05)


def test_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    assert "error" in watcher.watch(tmp_path / "nothing", "token", set(), 0.05)


@pytest.mark.parametrize("kind", ["link", "fifo", "large", "folder"])
def test_what_is_no_message_is_passed_over(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m:x"
    if kind == "link":
        path.symlink_to(put(tmp_path / "other", ITEM))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        put(path, ITEM)
        monkeypatch.setattr(watcher, "_MAX_ITEM", 10)
    assert "error" in watcher.watch(tmp_path, "token", set(), 0.05)


def test_a_damaged_file_is_said_to_be_one(tmp_path: Path) -> None:
    put(tmp_path / "m:x", "token {{{")
    assert watcher.watch(tmp_path, "token", set(), 1.0)["error"].startswith("line 1")


def test_it_says_first_that_it_looks(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(watcher.resource, "setrlimit", lambda what, _: limits.append(what))  # type: ignore[attr-defined]
    monkeypatch.setattr(watcher, "Paths", lambda: paths)
    monkeypatch.setattr(watcher, "_SECONDS", 0.01)
    monkeypatch.setattr(sys, "argv", ["watcher", "token"])
    assert watcher.main() == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"watching": True}
    assert "error" in second
    assert len(limits) == 3


def test_the_holder_waits_longer_than_the_watcher_takes() -> None:
    assert watcher._SECONDS < holder._WATCH_WAIT


def lines(code: str, timeout: float = 10) -> list[bytes]:
    async def run() -> list[bytes]:
        argv: Sequence[str] = (sys.executable, "-I", "-c", code)
        return [line async for line in process.lines_of(argv, {"A": "b"}, timeout=timeout)]

    return asyncio.run(run())


def test_a_program_s_lines_as_they_come() -> None:
    code = "import os; print(os.environ['A']); print('c' * 100_000)"
    assert lines(code) == [b"b\n", b"c" * 100_000 + b"\n"]


def test_a_program_that_does_not_end_is_ended() -> None:
    began = time.monotonic()
    assert lines("import time; print('a', flush=True); time.sleep(60)", 1.0) == [b"a\n"]
    assert time.monotonic() - began < 10
