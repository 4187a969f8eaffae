"""The store of events: what is asked of it, what bounds it, what damages it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common import rpc
from entrypoint.common.paths import Paths
from entrypoint.common.rpc import UnreachableError
from entrypoint.history import client
from entrypoint.history.client import Query, Total
from entrypoint.history.store import NAME, Store, after, answer, is_damage

DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as store:
        yield store


def history(folder: Path, **asked: object) -> list[Event]:
    found = answer(folder, Query("history", **asked))["events"]  # type: ignore[arg-type]
    assert isinstance(found, list)
    return [Event.from_json(item) for item in found]


def sent(at: float, to: str = "b@example.net", id: str = "zmyCMhS89vA") -> Event:
    return Event(Kind.SENT, at, id, "i@example.com", (to,))


ALL = (
    Event(Kind.AUTH, 1.0, peer="192.0.2.1", login="I@Example.com"),
    Event(Kind.RECEIVED, 2.0, "zmyCMhS89vA", "i@example.com", ("b@example.net", "c@x"),
          "192.0.2.1", "i@example.com"),
    Event(Kind.DEFERRED, 3.0, "zmyCMhS89vA", "i@example.com", ("b@example.net",), text="450 é"),
    Event(Kind.WAITING, 4.0, "zmyCMhS89vA", "i@example.com", next=64.0),
    Event(Kind.SENT, 5.0, "zmyCMhS89vA", "i@example.com", ("B@Example.NET",)),
    Event(Kind.BOUNCED, 6.0, "zmyCMhS89vA", "i@example.com", ("c@x",), text="550 no"),
    Event(Kind.DONE, 7.0, "zmyCMhS89vA", "i@example.com"),
    Event(Kind.SENT, 8.0, "AAAAAAAAAAA", "<>", ("i@example.com",)),
    Event(Kind.AUTH, 9.0, peer="192.0.2.2", login="x@example.com", ok=False),
    Event(Kind.REFUSED, 10.0, sender="<>", recipients=("no@example.com",), peer="2001:db8::1",
          text="local user does not exist"),
)  # fmt: skip


def test_what_goes_in_comes_out(store: Store, tmp_path: Path) -> None:
    store.add("s", list(enumerate(ALL, 1)))
    assert history(tmp_path) == list(ALL)


@pytest.mark.parametrize(
    ("asked", "times"),
    [
        ({"ids": ("zmyCMhS89vA",)}, [2, 3, 4, 5, 6, 7]),
        ({"ids": ("zmyCMhS89vA", "AAAAAAAAAAA", "")}, [2, 3, 4, 5, 6, 7, 8]),
        ({"ids": ("",)}, []),
        ({"ids": ()}, []),
        ({"address": "B@example.net"}, [2, 3, 5]),
        ({"address": "i@example.com"}, [1, 2, 3, 5, 6, 8]),
        ({"address": "x@example.com"}, [9]),
        ({"address": "%"}, []),
        ({"since": 8.5}, [9, 10]),
        ({"kinds": (Kind.SENT, Kind.BOUNCED)}, [5, 6, 8]),
        ({"kinds": (Kind.SENT,), "address": "b@example.net", "since": 1.0}, [5]),
        ({"limit": 2}, [9, 10]),
        ({"limit": -5}, [10]),
    ],
)
def test_questions(
    store: Store, tmp_path: Path, asked: dict[str, object], times: list[float]
) -> None:
    store.add("s", list(enumerate(ALL, 1)))
    assert [event.at for event in history(tmp_path, **asked)] == times


def test_last_logins_outlive_the_events(store: Store, tmp_path: Path) -> None:
    store.add("s", list(enumerate(ALL, 1)))
    store.add("s", [(20, Event(Kind.AUTH, 0.5, login="i@example.com"))])
    while store.prune(since=100.0):
        pass
    assert history(tmp_path) == []
    assert answer(tmp_path, Query("logins")) == {"logins": {"i@example.com": 1.0}}


def test_totals(store: Store, tmp_path: Path) -> None:
    store.add("s", list(enumerate(ALL, 1)))
    assert answer(tmp_path, Query("totals", since=2.0))["totals"] == [
        vars(Total("example.net", 1, 1, 0)),
        vars(Total("example.com", 1, 0, 0)),
        vars(Total("x", 0, 0, 1)),
    ]
    assert answer(tmp_path, Query("totals", since=8.5))["totals"] == []


def test_what_is_sent_again_is_stored_once(store: Store, tmp_path: Path) -> None:
    store.add("s", [(1, sent(1)), (2, sent(2))])
    store.add("s", [(1, sent(1)), (2, sent(2)), (5, sent(5))])
    store.add("s", [(5, sent(5))])
    assert (store.stored("s"), store.stored("other")) == (5, 0)
    store.add("other", [(1, sent(6))])
    assert [event.at for event in history(tmp_path)] == [1, 2, 5, 6]


def test_all_or_nothing(store: Store, tmp_path: Path) -> None:
    bad = Event(Kind.SENT, 2.0, peer=object())  # type: ignore[arg-type]
    with pytest.raises(sqlite3.Error):
        store.add("s", [(1, sent(1)), (2, bad)])
    store.add("s", [(1, sent(1))])
    assert [event.at for event in history(tmp_path)] == [1]


def test_it_is_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    store.add("s", [(1, sent(1))])
    store.close()
    (tmp_path / NAME).chmod(0o644)
    with Store(tmp_path) as again:
        assert again.stored("s") == 1
        for path in tmp_path.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600, path
        again.add("t", [(1, sent(2))])
    assert [event.at for event in history(tmp_path)] == [1, 2]


def rows(folder: Path, table: str) -> int:
    db = sqlite3.connect(folder / NAME)
    try:
        [count] = db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    finally:
        db.close()
    return int(count)


def test_what_is_old_goes_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    store.add("s", [(number, sent(number)) for number in range(1, 2501)])
    rounds = 0
    while store.prune(since=2001.0):
        rounds += 1
    assert rounds == 2, "a thousand at once"
    assert rows(tmp_path, "events") == 500
    assert rows(tmp_path, "addresses") == 1000
    assert store.prune(since=9999.0)
    assert (rows(tmp_path, "events"), rows(tmp_path, "addresses")) == (0, 0)


def test_its_size_is_bounded_and_strangers_do_not_push_mail_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("entrypoint.history.store._MAX_NOISE", 5000)
    noise = [
        (n, Event(Kind.AUTH, float(n), peer="192.0.2.9", login=f"{n:06d}@x", ok=False))
        for n in range(10, 26_000)
    ]
    with Store(tmp_path, max_bytes=1_500_000) as store:
        store.add("s", [(1, sent(1.0))])
        for start in range(0, len(noise), 2000):
            store.add("s", noise[start : start + 2000])
        store.add("t", [(n, sent(n)) for n in range(30_000, 31_000)])
        assert store._bytes > 1_500_000
        while store.prune(since=0.0):
            pass
        assert store._bytes <= 1_500_000
    assert history(tmp_path, kinds=(Kind.SENT,), limit=5000)[0].at == 1.0
    with Store(tmp_path, max_bytes=1 << 19) as store:
        while store.prune(since=0.0):
            pass
        assert store._bytes <= 1 << 19
    assert rows(tmp_path, "events") > 0
    assert history(tmp_path, kinds=(Kind.SENT,))[-1].at == 30_999, "the newest stay"


@pytest.mark.parametrize(
    "content", [b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        Store(tmp_path)
    assert is_damage(caught.value)


def test_a_store_of_a_later_version(store: Store, tmp_path: Path) -> None:
    store.close()
    db = sqlite3.connect(tmp_path / NAME)
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(sqlite3.DatabaseError, match="it is of version 2") as caught:
        Store(tmp_path)
    assert is_damage(caught.value)


def test_what_waiting_mends_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(sqlite3.Error) as caught:
        Store(tmp_path)
    assert not is_damage(caught.value)


def test_one_that_was_removed_is_noticed(store: Store, tmp_path: Path) -> None:
    at_first = store.is_there
    (tmp_path / NAME).rename(tmp_path / "elsewhere")
    removed = store.is_there
    (tmp_path / NAME).write_bytes(b"")
    assert (at_first, removed, store.is_there) == (True, False, False)


def test_readers_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        answer(tmp_path, Query("history"))
    assert not list(tmp_path.iterdir())


# The way there


def test_a_question_is_one_word_and_comes_back() -> None:
    query = Query("history", ("a b\n",), address='é "%" +', since=1.5, kinds=(Kind.SENT,), limit=3)
    assert query.word.isascii()
    assert not set(query.word) & set(" \n")
    assert Query.parse(query.word) == query


def test_the_client(
    store: Store, tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add("s", list(enumerate(ALL, 1)))

    def request(path: Path, command: str, timeout: float) -> object:
        assert path == paths.holder_socket
        assert timeout > 8
        verb, word = command.split(" ")
        assert verb == "events"
        return answer(tmp_path, Query.parse(word))

    monkeypatch.setattr(rpc, "request", request)
    assert client.history(paths, address="B@EXAMPLE.net", kinds={Kind.SENT}) == [ALL[4]]
    assert client.history(paths, limit=0) == [ALL[-1]]
    assert client.history(paths, id="AAAAAAAAAAA") == [ALL[7]]
    assert client.messages(paths, ["AAAAAAAAAAA", "BBBBBBBBBBB"]) == {
        "AAAAAAAAAAA": [ALL[7]], "BBBBBBBBBBB": []
    }  # fmt: skip
    assert client.last_deliveries(paths, 0.0) == {"example.net": 5.0, "example.com": 8.0}
    assert client.last_logins(paths) == {"i@example.com": 1.0}
    assert client.totals(paths, 8.0) == [Total("example.com", 1, 0, 0)]


def test_a_client_that_gets_no_answer(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreachableError):
        client.history(paths)
    monkeypatch.setattr(rpc, "request", lambda *_: {"error": "not in time"})
    with pytest.raises(UnreachableError, match="not in time"):
        client.last_logins(paths)


_GOOD = (5.0, "sent", "zmyCMhS89vA", "i@x", "b@y", "", "", "", 1, 0.0, "y")
_HOSTILE = {
    "nulls": (None,) * 11,
    "no-time": (None, *_GOOD[1:]),
    "time-in-words": ("soon", *_GOOD[1:]),
    "no-such-year": (1e300, *_GOOD[1:]),
    "endless-time": (float("inf"), *_GOOD[1:]),
    "unknown-kind": (5.0, "x", *_GOOD[2:]),
    "bytes-as-kind": (5.0, b"\xff", *_GOOD[2:]),
    "next-in-words": (*_GOOD[:9], "x", "y"),
}


@pytest.mark.parametrize("row", _HOSTILE.values(), ids=_HOSTILE)
def test_a_hostile_row_is_passed_over(
    store: Store, tmp_path: Path, row: tuple[object, ...]
) -> None:
    """The file is chasquid's user's, who faces the internet."""
    store.add("s", [(1, sent(9.0))])
    with sqlite3.connect(tmp_path / NAME) as db:
        db.execute(f"INSERT INTO events VALUES (NULL, {', '.join('?' * 11)})", row)  # noqa: S608
        db.execute("INSERT INTO logins VALUES (?, NULL)", (f"i@{row[0]}",))
        db.execute("INSERT INTO logins VALUES ('i@example.com', 'x')")
    db.close()
    assert history(tmp_path) == [sent(9.0)]
    assert [event for _, event in after(tmp_path, 0, 0.0, list(Kind), 10)] == [sent(9.0)]
    for what in ("logins", "totals", "deliveries"):
        json.dumps(answer(tmp_path, Query(what)), allow_nan=False)
    assert answer(tmp_path, Query("logins")) == {"logins": {}}
    assert store.prune(1e9), "old ones go, whatever they are"


def test_hostile_rows_hide_nothing_behind_them(store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / NAME) as db:
        rows = [(5.0, "sent", None, None, None, None, None, None, None, "x", None)] * 30
        db.executemany(f"INSERT INTO events VALUES (NULL, {', '.join('?' * 11)})", rows)  # noqa: S608
    db.close()
    store.add("s", [(1, sent(9.0))])
    assert after(tmp_path, 0, 0.0, list(Kind), 10) == [(31, sent(9.0))]


@pytest.mark.usefixtures("store")
def test_a_row_of_other_types_is_words_that_can_be_printed(tmp_path: Path) -> None:
    row = (5.0, "refused", 7, b"\xff", "a\x1b[2J@x\n" * 5000, None, 1.5, "x" * 9000, "no", None, 0)
    with sqlite3.connect(tmp_path / NAME) as db:
        db.execute(
            f"INSERT INTO events VALUES (NULL, {', '.join('?' * 11)})",  # noqa: S608
            (*row[:9], 0.0, row[10]),
        )
        db.execute("UPDATE events SET sender = CAST(x'ff61' AS TEXT)")
    db.close()
    [event] = history(tmp_path)
    assert event.sender == "\ufffda"
    assert event.recipients == (r"a\x1b[2J@x",) * 1000
    assert len(event.text) <= 2001
    assert str(event).isprintable()
