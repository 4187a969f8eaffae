"""What chasquid's user alone may read, asked for through the holder's control socket."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from entrypoint.chasquid import queue
from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common import process
from entrypoint.common.paths import Paths
from entrypoint.history.buffer import Outbox
from entrypoint.history.client import Query
from entrypoint.history.store import Store
from entrypoint.services import holder, reader
from entrypoint.services.holder import Holder


def ask(line: bytes) -> Any:
    """The holder's answer to a line at its door; None if it says nothing."""

    class Writer:
        def __init__(self) -> None:
            self.said = b""

        def write(self, data: bytes) -> None:
            self.said += data

        async def drain(self) -> None:
            pass

        def close(self) -> None:
            pass

    async def work() -> bytes:
        stream, writer = asyncio.StreamReader(), Writer()
        stream.feed_data(line)
        stream.feed_eof()
        outbox = Outbox(Path("/nonexistent"), 30)
        holder = Holder((), {}, (), outbox, Path("/nowhere"))
        await holder._answer(stream, writer)  # type: ignore[arg-type]
        return writer.said

    return json.loads(asyncio.run(work()) or "null")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The programs that were started; they print their arguments."""
    calls: list[Sequence[str]] = []

    async def output_of(
        argv: Sequence[str], environ: Mapping[str, str], *, timeout: float, input: bytes
    ) -> tuple[int, bytes]:
        assert set(environ) == {"LANG"}, "nothing of the container's own"
        assert timeout <= 30
        calls.append([*argv, input.decode()] if input else argv)
        return (124, b"") if "slow" in argv else (9, b"") if "odd" in argv else (0, b'{"depth": 3}')

    monkeypatch.setattr(process, "output_of", output_of)
    return calls


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"queue\n", ["queue"]),
        (b"events %7B%7D\n", ["events", "%7B%7D"]),
        (b"remembered example.com\n", ["remembered", "example.com"]),
        (b'look {"to": "a b"}\n', ["look", '{"to": "a b"}']),
        (b"reports rua@example.com example.com\n", ["reports", "rua@example.com", "example.com"]),
    ],
)
def test_a_look_is_a_process_of_its_own(
    started: list[Sequence[str]], line: bytes, words: list[str]
) -> None:
    assert ask(line) == {"depth": 3}
    assert [list(argv) for argv in started] == [
        [sys.executable, "-I", "-m", "entrypoint.services.reader", *words]
    ]


def test_a_look_that_fails_says_so(started: list[Sequence[str]]) -> None:
    assert ask(b"queue slow\n") == {"error": "not in time"}
    assert ask(b"queue odd\n") == {"error": "its reader ended with status 9"}
    assert len(started) == 2


def test_what_the_door_does_not_know(started: list[Sequence[str]]) -> None:
    assert ask(b"reader\n") == {"error": "unknown command"}
    assert ask(b"\n") == {"error": "unknown command"}
    assert ask(b"status\n")["ready"] is False
    assert started == []


def test_output_of_a_program() -> None:
    async def run(code: str, timeout: float = 10, input: bytes = b"") -> tuple[int, bytes]:
        return await process.output_of(
            [sys.executable, "-I", "-c", code], {"A": "b"}, timeout=timeout, input=input
        )

    code = "import os, sys; print(os.environ['A'], sys.stdin.read()); sys.exit(3)"
    assert asyncio.run(run(code)) == (3, b"b \n")
    assert asyncio.run(run("import time; time.sleep(60)", 0.2)) == (124, b"")
    code = "import sys; print(len(sys.stdin.read()))"
    assert asyncio.run(run(code, input=b"x" * 1_000_000)) == (0, b"1000000\n")
    assert asyncio.run(run("", input=b"x" * 1_000_000)) == (0, b""), "it may read nothing"
    assert asyncio.run(run("import os; os.kill(os.getpid(), 9)")) == (-9, b"")


def test_the_program_prints_one_object(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(reader.resource, "setrlimit", lambda *args: limits.append(args))  # type: ignore[attr-defined]
    monkeypatch.setattr(reader, "Paths", lambda: paths)
    folder = paths.queue / "queue"
    folder.mkdir(parents=True)
    (folder / "m:x").write_text('ID: "x"\n')
    monkeypatch.setattr(sys, "argv", ["reader", "queue"])
    assert reader.main() == 0
    assert queue.Summary.from_json(json.loads(capsys.readouterr().out)).depth == 1
    asked = {"ids": ["x", "y"], "to": "", "sender": "", "limit": None}
    monkeypatch.setattr(sys, "argv", ["reader", "look"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asked)))
    assert reader.main() == 0
    found = queue.Listing.from_json(json.loads(capsys.readouterr().out))
    assert ([item.id for item in found.items], found.unknown) == (["x"], ("y",))
    paths.domaininfo.mkdir()
    (paths.domaininfo / "s:big.example").write_text('name: "big.example"\n')
    monkeypatch.setattr(sys, "argv", ["reader", "remembered", "big.example"])
    assert reader.main() == 0
    [known] = json.loads(capsys.readouterr().out)["files"]
    assert known == {
        "file": "s:big.example", "domain": "big.example",
        "incoming": "no TLS", "outgoing": "no TLS",
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["reader", "reports", "rua@example.com", "example.com"])
    assert reader.main() == 0
    assert json.loads(capsys.readouterr().out)["reports"] == 0
    assert {resource for resource, _ in limits} == {
        reader.resource.RLIMIT_AS, reader.resource.RLIMIT_CPU, reader.resource.RLIMIT_CORE,  # type: ignore[attr-defined]
    }  # fmt: skip


def test_events(paths: Paths) -> None:
    paths.events.mkdir(parents=True)
    question = Query("history", address="b@example.net").word
    assert "store of events" in reader.stored_events(paths.events, [question])["error"]
    event = Event(Kind.SENT, 1.0, "zmyCMhS89vA", "i@example.com", ("b@example.net",))
    with Store(paths.events) as store:
        store.add("s", [(1, event)])
    assert reader.stored_events(paths.events, [question]) == {"events": [event.to_json()]}
    for words in ([], ["x"], ["%7B%7D"], ["%FF"]):
        assert "not a question" in reader.stored_events(paths.events, words)["error"]


def test_the_holder_waits_longer_than_the_reader_takes() -> None:
    assert reader._SECONDS < holder._READ_WAIT
    assert reader._LONG < holder._LOOK_WAIT
