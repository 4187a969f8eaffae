"""chasquid's queue files."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.chasquid import backlog, queue
from entrypoint.chasquid.queue import (
    Attempts,
    Destination,
    Listing,
    Selection,
    Status,
    Summary,
    Waiting,
)
from tests.unit import chasquid_reference

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
        f"rcpt {{ address: {chasquid_reference.quote(address.encode())} status: {status} "
        f"last_failure_message: {chasquid_reference.quote(answer.encode())} }}\n"
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
    path = tmp_path / "m:KcqGlVXoFcI"
    path.write_text(ITEM)
    os.utime(path, (0, 1700000099.5))
    whole = replace(queue.parse(ITEM), written=1700000099.5)
    assert queue.read(path) == whole
    path.write_text(ITEM.replace('data:  "', f'data:  "{"x" * (30 << 20)}'))
    os.utime(path, (0, 1700000099.5))
    started = time.monotonic()
    assert queue.read(path) == whole
    assert time.monotonic() - started < 1


def test_a_message_is_called_as_its_file_is(tmp_path: Path) -> None:
    """That is what goes when it is dropped."""
    path = tmp_path / "m:other"
    path.write_text(ITEM)
    assert queue.read(path).id == "other"
    for name in ("m:", "m:a b", "m:\x1b[31m", "m:a.b", f"m:{'x' * 65}"):
        odd = tmp_path / name
        odd.write_text(ITEM)
        with pytest.raises(ValueError, match="not a name that chasquid gives"):
            queue.read(odd)


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
    assert backlog.files(tmp_path / "absent") == []


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


# Messages one by one


def message(
    folder: Path, name: str, created: int, *recipients: tuple[str, str], sender: str = "i@e.example"
) -> None:
    """`recipients` are final and original addresses."""
    waiting = "".join(
        f'rcpt {{ address: "{address}" original_address: "{original}" }}\n'
        for address, original in recipients
    )
    text = f'ID: "{name}"\nfrom: "{sender}"\n{waiting}created_at_ts {{ seconds: {created} }}\n'
    (folder / f"m:{name}").write_text(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four messages, the oldest last."""
    message(tmp_path, "plain", 400, ("a@big.example", "a@big.example"))
    message(tmp_path, "both", 300, ("b@big.example", "b@big.example"), ("c@other.example", ""))
    message(tmp_path, "alias", 200, ("me@Gmail.example", "Info@e.example"), sender="X@else.example")
    message(tmp_path, "-unicode", 100, ("d@münchen.example", ""), sender="<>")
    return tmp_path


def ids(found: Listing) -> list[str]:
    return [item.id for item in found.items]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), ["-unicode", "alias", "both", "plain"]),
        (Selection(to="big.example"), ["both", "plain"]),
        (Selection(to="BIG.example"), ["both", "plain"]),
        (Selection(to="example"), []),
        (Selection(to="b@big.example"), ["both"]),
        (Selection(to="info@E.example"), ["alias"]),
        (Selection(to="e.example"), ["alias"]),
        (Selection(to="me@gmail.example"), ["alias"]),
        (Selection(to="xn--mnchen-3ya.example"), ["-unicode"]),
        (Selection(to="d@München.example"), ["-unicode"]),
        (Selection(sender="i@e.example"), ["both", "plain"]),
        (Selection(sender="x@ELSE.example"), ["alias"]),
        (Selection(sender="<>"), ["-unicode"]),
        (Selection(sender="i@e.example", to="other.example"), ["both"]),
        (Selection(sender="<>", to="other.example"), []),
        (Selection(ids=("plain", "-unicode")), ["-unicode", "plain"]),
    ],
)
def test_which_messages_are_meant(folder: Path, selection: Selection, expected: list[str]) -> None:
    found = queue.look(folder, selection, None, 5)
    assert ids(found) == expected
    assert (found.meant, found.summary.depth) == (len(expected), 4)


def test_only_those_recipients_who_were_meant(folder: Path) -> None:
    found = queue.look(folder, Selection(to="big.example"), None, 5)
    assert [[one.address for one in item.recipients] for item in found.items] == [
        ["b@big.example"], ["a@big.example"],
    ]  # fmt: skip
    assert [item.others for item in found.items] == [True, False]
    assert found.summary.destinations == (Destination("big.example", 2, 300, ""),)
    assert found.summary.oldest == 300


def test_who_has_the_message_waits_no_more(tmp_path: Path) -> None:
    (tmp_path / "m:x").write_text(
        'rcpt { address: "a@b.example" status: SENT } rcpt { address: "c@b.example" }'
        'rcpt { address: "d@e.example" status: FAILED }'
    )
    [found] = queue.look(tmp_path, Selection(), None, 5).items
    assert [one.address for one in found.recipients] == ["c@b.example"]
    assert (found.others, found.tried) == (False, True)
    assert queue.look(tmp_path, Selection(to="e.example"), None, 5).items == ()


def test_ids_that_are_not_there(folder: Path) -> None:
    found = queue.look(folder, Selection(ids=("plain", "gone", "../plain", "")), None, 5)
    assert ids(found) == ["plain"]
    assert found.unknown == ("gone",)


def test_the_oldest_are_listed_and_the_totals_are_of_all(tmp_path: Path) -> None:
    for number in range(500):
        message(tmp_path, f"n{number}", 1000 + number * 7 % 500, (f"{number}@b.example", ""))
    found = queue.look(tmp_path, Selection(), 3, 5)
    assert [item.created for item in found.items] == [1000, 1001, 1002]
    assert (found.meant, found.summary.destinations[0].waiting) == (500, 500)
    assert queue.look(tmp_path, Selection(), 0, 5).items == ()


def test_many_recipients_are_counted(tmp_path: Path) -> None:
    message(tmp_path, "x", 1, *[(f"{number}@b.example", "") for number in range(300)])
    [found] = queue.look(tmp_path, Selection(), None, 5).items
    assert (len(found.recipients), found.more) == (20, 280)


def test_damaged_files_have_names(folder: Path) -> None:
    (folder / "m:broken").write_text("}")
    (folder / "m:a b").write_text("}")
    found = queue.look(folder, Selection(), 1, 5)
    assert (found.summary.damaged, found.damaged) == (2, ("broken",))
    found = queue.look(folder, Selection(ids=("broken",)), 1, 5)
    assert (found.damaged, found.items, found.unknown) == (("broken",), (), ())


def test_a_listing_goes_through_json(folder: Path) -> None:
    (folder / "m:broken").write_text("}")
    found = queue.look(folder, Selection(), 3, 5)
    assert Listing.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises((KeyError, TypeError)):
        Listing.from_json({"error": "not in time"})


# Tries


def waits(age: float, since: float, *, tried: bool = True) -> Waiting:
    """A message of that age, whose file was written so many seconds ago; now is 1e9."""
    return Waiting("x", "", 1e9 - age, 1e9 - since, tried, ())


@pytest.mark.parametrize(
    ("age", "since", "tries", "following"),
    [
        # chasquid's delays: 1, 5, 10 and then 20 minutes, and half a minute by chance.
        (30, 29, 1, 61),
        (100, 5, 2, 325),
        (100, 95, 1, None),
        (430, 10, 3, 620),
        (1060, 10, 4, 1220),
        (2300, 15, 5, 1215),
        (2300 + 10 * 1230, 15, 15, 1215),
        (5 * 86400, 1200, 353, 30),
        (1e9, 0, 813011, 1230),
        (10, 20, 1, 70),  # a clock that was set
    ],
)
def test_tries_by_chasquids_rule(
    age: float, since: float, tries: int, following: float | None
) -> None:
    found = queue.estimate(waits(age, since), 1e9)
    assert found == Attempts(tries, None if following is None else 1e9 + following)


def test_a_first_try_under_way() -> None:
    assert queue.estimate(waits(30, 30, tried=False), 1e9) == Attempts(0, None)


# Advice


def test_the_verb_that_helps() -> None:
    answer = "all mail servers failed temporarily, last error: security level check failed: x"
    assert queue.advice(answer, "münchen.example") == (
        "docker exec mail forget-domain xn--mnchen-3ya.example"
    )
    assert Destination("b.example", 1, 1, answer).advice.endswith("forget-domain b.example")
    old = "all MXs returned transient failures (last: Security level check failed (level:PLAIN))"
    assert queue.advice(old, "b.example").endswith(" b.example"), "before chasquid 1.19"
    assert queue.advice("451 later", "b.example") == ""
