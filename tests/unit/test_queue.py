"""chasquid's queue files."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import queue
from entrypoint.queue import Destination, Status, Summary
from tests.unit import chasquid

# As chasquid 1.19 writes it (prototext, whose spaces vary from build to build).
ITEM = """\
ID:  "KcqGlVXoFcI"
from:  "i@example.com"
To:  "you@big.example"
To:  "all@example.com"
rcpt:  {
  address:  "you@big.example"
  last_failure_message:  "451 4.7.1 later\\nand \\x1b[31mred"
  original_address:  "you@big.example"
}
rcpt:  {
  address:  "him@Large.example"
  type:  FORWARD
  status:  SENT
  original_address:  "all@example.com"
  via:  "mx1.large.example"
  via:  "mx2.large.example"
}
rcpt:  {
  address:  "/bin/true -x"
  type:  PIPE
  status:  FAILED
  last_failure_message:  "exit status 1"
  original_address:  "all@example.com"
}
data:  "Received: from x\\nSubject: hi\\n\\ndata: not a line of the file\\n"
created_at_ts:  {
  seconds:  1700000000
  nanos:  500000000
}
"""


def item(created: int, *addresses: str, answer: str = "", status: str = "PENDING") -> str:
    recipients = "".join(
        f"rcpt {{ address: {chasquid.quote(address.encode())} status: {status} "
        f"last_failure_message: {chasquid.quote(answer.encode())} }}\n"
        for address in addresses
    )
    return f'ID: "x"\n{recipients}data: "x"\ncreated_at_ts {{ seconds: {created} }}\n'


def put(folder: Path, *contents: str) -> None:
    for content in contents:
        (folder / f"m:{len(list(folder.iterdir()))}").write_text(content)


def test_an_item() -> None:
    found = queue.parse(ITEM)
    assert (found.id, found.sender, found.created) == ("KcqGlVXoFcI", "i@example.com", 1700000000.5)
    first, second, third = found.recipients
    assert (first.address, first.status, first.destination) == (
        "you@big.example", Status.PENDING, "big.example",
    )  # fmt: skip
    assert (second.status, second.destination) == (Status.SENT, "large.example")
    assert (third.status, third.destination, third.is_program) == (
        Status.FAILED, "(a program)", True,
    )  # fmt: skip


def test_what_a_remote_answered_moves_no_cursor() -> None:
    assert queue.parse(ITEM).recipients[0].answer == "451 4.7.1 later\\nand \\x1b[31mred"
    assert len(queue.parse(item(1, "a@b.example", answer="x" * 9000)).recipients[0].answer) == 300


def test_a_file_is_read_without_its_message(tmp_path: Path) -> None:
    path = tmp_path / "m:1"
    path.write_text(ITEM)
    assert queue.read(path) == queue.parse(ITEM)
    path.write_text(ITEM.replace('data:  "', f'data:  "{"x" * (30 << 20)}'))
    started = time.monotonic()
    assert queue.read(path) == queue.parse(ITEM)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "content", ["", "ID: ", "ID: 3", "nothing: 1", "\0", 'ID: "x"\nrcpt {', "users {}", "\xff"]
)
def test_what_is_no_item_is_damaged(tmp_path: Path, content: str) -> None:
    put(tmp_path, content)
    found = queue.summarise(tmp_path, 5)
    # An empty message is a message to protocol buffers.
    assert (found.depth, found.looked_at, found.damaged) == (1, 1, 0 if content == "" else 1)


@given(st.binary(max_size=200))
def test_whatever_stands_in_a_file_ends_nothing(content: bytes) -> None:
    with suppress(ValueError):
        queue.parse(content.decode(errors="replace"))


def test_a_head_that_is_too_long(tmp_path: Path) -> None:
    put(tmp_path, 'To: "x@example.com"\n' * (5 << 20 >> 4))
    with pytest.raises(ValueError, match="too long"):
        queue.read(tmp_path / "m:0")


def test_only_items_are_looked_at(tmp_path: Path) -> None:
    put(tmp_path, item(5, "a@b.example"))
    (tmp_path / ".m:9.123").write_text("half of it")
    (tmp_path / "notes").write_text("")
    assert queue.summarise(tmp_path, 5).depth == 1
    assert queue.files(tmp_path / "absent") == []


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(item(5, "a@b.example"))
    folder = tmp_path / "queue"
    folder.mkdir()
    (folder / "m:link").symlink_to(secret)
    os.mkfifo(folder / "m:pipe")
    found = queue.summarise(folder, 5)
    assert found.destinations == ()
    assert found.damaged + found.looked_at >= 2


def test_what_waits_by_destination(tmp_path: Path) -> None:
    put(
        tmp_path,
        item(300, "a@big.example", "b@BIG.example", answer="450 newer"),
        item(100, "c@big.example", answer="451 older"),
        item(200, "d@small.example"),
        item(50, "e@gone.example", status="SENT"),
    )
    found = queue.summarise(tmp_path, 5)
    assert (found.depth, found.looked_at, found.oldest) == (4, 4, 50)
    assert found.destinations == (
        Destination("big.example", 3, 100, "451 older"),
        Destination("small.example", 1, 200, ""),
    )


def test_the_answer_is_the_oldest_item_s_that_has_one(tmp_path: Path) -> None:
    put(tmp_path, item(300, "a@big.example", answer="450 newer"), item(100, "b@big.example"))
    [found] = queue.summarise(tmp_path, 5).destinations
    assert (found.oldest, found.answer) == (100, "450 newer")


def test_an_end_in_time(tmp_path: Path) -> None:
    put(tmp_path, *[item(number, "a@b.example") for number in range(50)])
    found = queue.summarise(tmp_path, -1)
    assert (found.depth, found.looked_at, found.oldest) == (50, 0, None)


def test_a_queue_at_work(tmp_path: Path) -> None:
    """Items come and go while it is looked at, as chasquid does it."""
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            aside = tmp_path / f".m:{number}"
            aside.write_text(item(number, "a@b.example"))
            aside.rename(tmp_path / f"m:{number}")
            (tmp_path / f"m:{number - 3}").unlink(missing_ok=True)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert [queue.summarise(tmp_path, 5).damaged for _ in range(50)] == [0] * 50
    finally:
        stop.set()
        worker.join()


def test_a_summary_goes_through_json(tmp_path: Path) -> None:
    put(tmp_path, ITEM)
    found = queue.summarise(tmp_path, 5)
    assert Summary.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises((KeyError, TypeError)):
        Summary.from_json({"error": "not in time"})
