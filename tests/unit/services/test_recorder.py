"""The recorder and the holder's outbox: two real ends of a socket, and all that may go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common import rpc
from entrypoint.common.identity import Ids, Owner
from entrypoint.history.buffer import Outbox
from entrypoint.history.client import Query
from entrypoint.history.store import NAME, Store, answer
from entrypoint.services import recorder
from entrypoint.services.recorder import Recorder
from tests.unit.kit import until

REPOSITORY = Path(__file__).parents[3]
PROGRAM = """
import os, sys
from pathlib import Path
from entrypoint.common import rpc
from entrypoint.common.identity import Ids, Owner
from entrypoint.services import recorder
place = Path(sys.argv[1])
recorder._RETRY = 0.1
door = rpc.listen(place / "door", Ids.current(), Owner.CHASQUID, 4)
recorder.Recorder(place, door, os.pipe()[0]).run()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_GATHER", 0.01)
    monkeypatch.setattr(recorder, "_RETRY", 0.05)
    monkeypatch.setattr("entrypoint.history.buffer._RETRY", 0.05)


def event(number: int) -> Event:
    return Event(Kind.SENT, time.time(), f"{number:011d}", "i@example.com", ("b@example.net",))


def stored(folder: Path) -> list[int]:
    query = Query("history", limit=10_000)
    found = answer(folder, query)["events"]
    assert isinstance(found, list)
    return [int(item["id"]) for item in found]


@dataclass
class Said:
    lines: list[str] = field(default_factory=list)

    def __call__(self, _source: str, text: str) -> None:
        self.lines.append(text)


@contextmanager
def recording(folder: Path, said: Said | None = None) -> Iterator[Recorder]:
    """A recorder in a thread of this process."""
    door = rpc.listen(folder / "door", Ids.current(), Owner.CHASQUID, 4)
    stop_read, stop_write = os.pipe()
    found = Recorder(folder, door, stop_read, said or Said())
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        yield found
    finally:
        os.write(stop_write, b"x")
        thread.join(10)
        assert not thread.is_alive()
        for item in (door, found._holder):
            if item:
                item.close()
        os.close(stop_read)
        os.close(stop_write)


def process(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", PROGRAM, folder], cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    )  # fmt: skip


async def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def with_outbox(box: Outbox, work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        running = asyncio.create_task(box.run())
        await work()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_events_are_stored_in_their_order(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "door", 30)

    async def work() -> None:
        for number in range(500):
            box.put(event(number))
        await box.flush(10)
        status = box.status()
        assert (status["waiting"], status["dropped"], status["oldest"]) == (0, 0, None)
        assert status["connected"]

    with recording(tmp_path):
        with_outbox(box, work)
    assert stored(tmp_path) == list(range(500))
    assert box._bytes == 0


def test_what_is_no_event_of_mail_is_not_stored(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "door", 30)
    box.put(Event(Kind.OTHER, 1.0, text="daemon listening on [::]:25"))
    assert box.status()["waiting"] == 0


def test_events_wait_for_a_recorder_that_comes_later(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "door", 30)

    async def work() -> None:
        box.put(event(1))
        await asyncio.sleep(0.2)
        assert box.status()["waiting"] == 1
        with recording(tmp_path):
            await box.flush(10)
        assert stored(tmp_path) == [1]

    with_outbox(box, work)


def test_a_recorder_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    """Nor is anything stored twice."""
    box = Outbox(tmp_path / "door", 30)

    async def work() -> None:
        number = 0
        for round_ in range(5):
            child = process(tmp_path)
            # The last round is let be, the others are killed while they store.
            for _ in range(1000):
                box.put(event(number))
                number += 1
                if number % 50 == 0:
                    await asyncio.sleep(0.01)
            if round_ < 4:
                await eventually(lambda: box.status()["connected"])
                await asyncio.sleep(0.05 * round_)
                child.kill()
            else:
                await box.flush(20)
                child.terminate()
            await asyncio.to_thread(child.communicate)
        assert box.status()["waiting"] == 0

    with_outbox(box, work)
    assert stored(tmp_path) == list(range(5000))


def test_a_recorder_that_hangs_holds_nothing_up_and_what_is_dropped_is_counted(
    tmp_path: Path,
) -> None:
    said = Said()
    box = Outbox(tmp_path / "door", 30, said, max_bytes=200_000)

    async def work() -> None:
        child = process(tmp_path)
        await eventually(lambda: bool(box.status()["connected"]))
        os.kill(child.pid, signal.SIGSTOP)
        await eventually(lambda: " T " in Path(f"/proc/{child.pid}/stat").read_text())
        for number in range(3000):
            box.put(event(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        dropped = box.status()["dropped"]
        assert 1000 < dropped < 3000
        assert box._bytes <= 200_000
        assert len(said.lines) == 1, "not a line an event"
        os.kill(child.pid, signal.SIGCONT)
        await box.flush(10)
        assert stored(tmp_path) == list(range(3000 - dropped))
        assert len(said.lines) == 2
        assert f"{dropped - 1} events are missing from the history" in said.lines[1]
        box.put(event(9999))
        await box.flush(10)
        assert stored(tmp_path)[-1] == 9999
        child.kill()
        await asyncio.to_thread(child.communicate)

    with_outbox(box, work)


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, box, full = Said(), Outbox(tmp_path / "door", 30), True
    add = Store.add

    def failing(self: Store, session: str, events: Sequence[tuple[int, Event]]) -> None:
        if full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        add(self, session, events)

    monkeypatch.setattr(Store, "add", failing)

    async def work() -> None:
        nonlocal full
        for number in range(10):
            box.put(event(number))
        await eventually(lambda: bool(said.lines))
        await asyncio.sleep(0.3)
        assert box.status()["waiting"] == 10
        full = False
        await box.flush(10)

    with recording(tmp_path, said):
        with_outbox(box, work)
    assert stored(tmp_path) == list(range(10))
    assert said.lines == [
        "error: events cannot be stored: database or disk is full. Tried again.",
        "events are stored again",
    ]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    said, box, folder = Said(), Outbox(tmp_path / "door", 30), tmp_path / "events"
    folder.write_text("in the way")

    async def work() -> None:
        box.put(event(1))
        await eventually(lambda: bool(said.lines))
        folder.unlink()
        folder.mkdir()
        await box.flush(10)

    with recording(tmp_path, said) as found:
        found.folder = folder
        with_outbox(box, work)
    assert stored(folder) == [1]
    assert [line.partition(":")[0] for line in said.lines] == ["error", "events are stored again"]


@pytest.mark.parametrize("while_open", [True, False])
def test_a_damaged_store_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, while_open: bool
) -> None:
    monkeypatch.setattr(recorder, "_PRUNE", 0.05)
    said, box = Said(), Outbox(tmp_path / "door", 30)
    garbage = b"\0garbage" * 20_000

    async def work() -> None:
        if while_open:
            box.put(event(1))
            await box.flush(10)
            (tmp_path / f"{NAME}-wal").write_bytes(b"")
            with (tmp_path / NAME).open("r+b") as file:
                file.write(garbage)
            await eventually(lambda: bool(said.lines))
        else:
            (tmp_path / NAME).write_bytes(garbage)
        for number in range(2, 5):
            box.put(event(number))
            await box.flush(10)
            await asyncio.sleep(0.1)

    with recording(tmp_path, said):
        with_outbox(box, work)
    assert stored(tmp_path) == [2, 3, 4]
    [line] = [line for line in said.lines if "damaged" in line]
    assert line.startswith("error: the store of events is damaged (")
    assert str(tmp_path / f"{NAME}.damaged") in line
    assert (tmp_path / f"{NAME}.damaged").stat().st_size >= len(garbage)


def test_a_store_that_is_removed_while_it_is_open_is_made_again(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "door", 30)

    async def work() -> None:
        box.put(event(1))
        await box.flush(10)
        for path in tmp_path.glob(f"{NAME}*"):
            path.unlink()
        box.put(event(2))
        await box.flush(10)

    with recording(tmp_path):
        with_outbox(box, work)
    assert stored(tmp_path) == [2]


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "door", 30)
    with Store(tmp_path) as store:
        old = Event(Kind.SENT, time.time() - 31 * 86400, "1", recipients=("a@x",))
        young = Event(Kind.SENT, time.time() - 29 * 86400, "2", recipients=("a@x",))
        store.add("before", [(1, old), (2, young)])

    async def work() -> None:
        box.put(event(3))
        await box.flush(10)

    with recording(tmp_path):
        with_outbox(box, work)
        until(lambda: stored(tmp_path) == [2, 3])


@pytest.mark.parametrize(
    "raw",
    [b"\n", b"{}\n", b'{"session": "x", "keep_days": "many"}\n', b"\xff\xfe\n", b"[1]\n",
     b'{"session": "x", "keep_days": 30}\n[1, 2]\n[]\nnull\n[2, {"kind": "odd", "at": 1}]\n',
     b'{"session": "x", "keep_days": 1e999}\n[9999999999999999999999, {"kind": "done", "at": 1}]\n',
     b"x" * (2 << 20)],
)  # fmt: skip
def test_what_is_not_the_holder_does_no_harm(tmp_path: Path, raw: bytes) -> None:
    box = Outbox(tmp_path / "door", 30)

    async def work() -> None:
        box.put(event(1))
        await box.flush(10)

    with recording(tmp_path), socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(tmp_path / "door"))
        stranger.settimeout(5)
        with suppress(OSError):
            stranger.sendall(raw)
        time.sleep(0.1)
        with_outbox(box, work)
    assert stored(tmp_path) == [1]


def test_an_event_that_is_not_understood_is_left_out(tmp_path: Path) -> None:
    said = Said()
    with recording(tmp_path, said), socket.socket(socket.AF_UNIX) as holder:
        holder.connect(str(tmp_path / "door"))
        holder.settimeout(5)
        holder.sendall(b'{"session": "x", "keep_days": 30}\n')
        assert json.loads(holder.recv(100)) == {"stored": 0}
        lines = [[7, {"kind": "new", "at": 1.0}], [8, event(8).to_json()]]
        holder.sendall("".join(f"{json.dumps(line)}\n" for line in lines).encode())
        assert json.loads(holder.recv(100)) == {"stored": 8}
    assert stored(tmp_path) == [8]
    assert "an event is not understood" in said.lines[0]


def test_the_door_is_private(tmp_path: Path) -> None:
    for _ in range(2):  # a dead one's is in the way
        rpc.listen(tmp_path / "door", Ids.current(), Owner.CHASQUID, 4).close()
    assert stat.S_IMODE((tmp_path / "door").stat().st_mode) == 0o600
