"""dns --check and --watch; what is judged how is tested in tests/cases/dns."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import pytest

from entrypoint.commands import dns
from entrypoint.dns.authoritative import Absent, Answer, Answers, Found, Unknown
from entrypoint.dns.records import Record
from entrypoint.state import load
from entrypoint.zone import address, judge, render
from entrypoint.zone.required import required
from tests.unit.commands.conftest import Server

SLOW = Unknown("the name server ns1.example.net (198.51.100.53): no answer in time")
Zone = Callable[[Record | None], Answer]
Say = Callable[[Zone], None]


def records_of(server: Server) -> tuple[Record, ...]:
    wanted = server.context.settings
    return required(wanted, load.load(server.context.paths), address.find(wanted))


@pytest.fixture
def dns_says(server: Server) -> Say:
    """Sets what is said of each record that is asked for, and of anything else (None)."""
    records = {(item.name, item.type.value): item for item in records_of(server)}

    def says(zone: Zone) -> None:
        def ask(name: str, kind: str) -> Answers:
            return {"ns1.example.net": zone(records.get((name, kind)))}

        server.patch.setattr(dns, "Authoritative", lambda: ask)

    return says


def right(record: Record | None) -> Answer:
    return Found((record.value,)) if record and record.value else Absent()


def all_but(is_one: Callable[[Record], bool], answer: Answer) -> Zone:
    return lambda record: answer if record and is_one(record) else right(record)


def is_dmarc(record: Record) -> bool:
    return record.name == "_dmarc.example.com"


def is_mx(record: Record) -> bool:
    return record.type.value == "MX"


@pytest.mark.parametrize(
    ("zone", "status", "counts"),
    [
        (right, 0, "21 records: 21 ok, 0 missing, 0 different, 0 unknown"),
        (lambda _: Absent(), 1, "21 records: 0 ok, 21 missing, 0 different, 0 unknown"),
        (lambda _: SLOW, 75, "21 records: 0 ok, 0 missing, 0 different, 21 unknown"),
        (
            all_but(is_dmarc, Found(("v=DMARC1; p=none",))), 1,
            "21 records: 20 ok, 0 missing, 1 different, 0 unknown",
        ),
        (all_but(is_dmarc, SLOW), 75, "21 records: 20 ok, 0 missing, 0 different, 1 unknown"),
        # What is optional may be missing, or may not be known.
        (
            all_but(lambda record: record.optional, Absent()), 0,
            "21 records: 15 ok, 6 missing, 0 different, 0 unknown",
        ),
        (
            all_but(lambda record: record.optional, SLOW), 0,
            "21 records: 15 ok, 0 missing, 0 different, 6 unknown",
        ),
        # What is wrong is wrong, whatever else is not known.
        (lambda record: Absent() if record and is_mx(record) else SLOW, 1, ""),
    ],
)  # fmt: skip
def test_the_exit_status(
    server: Server, dns_says: Say, zone: Zone, status: int, counts: str
) -> None:
    dns_says(zone)
    done = server.run("dns", "--check")
    assert (done.status, done.err) == (status, "")
    assert counts in done.out


def test_what_is_said(server: Server, dns_says: Say) -> None:
    dns_says(all_but(is_dmarc, Absent()))
    records = {(item.name, item.type.value): item for item in records_of(server)}
    zone = all_but(is_dmarc, Absent())
    found = judge.check(
        records_of(server),
        address.find(server.context.settings),
        lambda name, kind: {"ns1.example.net": zone(records.get((name, kind)))},
    )
    assert server.run("dns", "--check").out == (
        render.verdicts(found) + "21 records: 20 ok, 1 missing, 0 different, 0 unknown\n"
    )


def test_unknown_is_explained(server: Server, dns_says: Say) -> None:
    dns_says(all_but(is_dmarc, SLOW))
    assert server.run("dns", "--check").out.endswith(
        "1 unknown\n"
        "unknown: it could not be found out, which says nothing about the record itself\n"
    )


@pytest.mark.parametrize("option", [("--json",), ("--format", "json")])
def test_json(server: Server, dns_says: Say, option: tuple[str, ...]) -> None:
    dns_says(all_but(is_dmarc, Absent()))
    done = server.run("dns", "--check", *option)
    assert done.status == 1
    rows = json.loads(done.out)
    assert len(rows) == 21
    assert [row["name"] for row in rows if row["status"] != "ok"] == ["_dmarc.example.com"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_colour_is_for_terminals(server: Server, dns_says: Say, is_terminal: bool) -> None:
    dns_says(right)
    server.patch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    assert ("\033[32m" in server.run("dns", "--check").out) is is_terminal


@pytest.fixture
def rounds(server: Server, dns_says: Say) -> list[Zone]:
    """What DNS says, one pause after the other; the last one stays."""
    found: list[Zone] = []

    def sleep(seconds: float) -> None:
        assert seconds == 10
        dns_says(found.pop(0))

    server.patch.setattr(time, "sleep", sleep)
    return found


def test_watching_tells_the_news_and_ends_when_all_is_right(
    server: Server, dns_says: Say, rounds: list[Zone]
) -> None:
    dns_says(all_but(lambda record: is_dmarc(record) or is_mx(record), Absent()))
    rounds += [
        all_but(lambda record: is_dmarc(record) or is_mx(record), Absent()),  # no news
        all_but(is_mx, Absent()),
        right,
    ]
    done = server.run("dns", "--watch")
    assert (done.status, rounds) == (0, [])
    first, second, third, rest = done.out.split(" unknown\n")
    assert rest == ""
    assert len([line for line in first.splitlines() if line.startswith("ok")]) == 18
    assert "3 missing" in first
    assert second.splitlines() == [
        "ok         TXT   _dmarc.example.com",
        "21 records: 19 ok, 2 missing, 0 different, 0",
    ]
    assert third.splitlines() == [
        "ok         MX    example.com",
        "ok         MX    example.org",
        "21 records: 21 ok, 0 missing, 0 different, 0",
    ]


def test_watching_goes_on_while_something_is_unknown(
    server: Server, dns_says: Say, rounds: list[Zone]
) -> None:
    dns_says(lambda _: SLOW)
    rounds += [all_but(is_mx, SLOW), right]
    assert server.run("dns", "--watch").status == 0


def test_watching_ends_after_an_hour(
    server: Server, dns_says: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns_says(all_but(is_mx, Absent()))
    clock = iter(range(0, 100_000, 1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert server.run("dns", "--watch").status == 1
    assert len(pauses) == 3


def test_watching_for_programs_says_how_it_ended(
    server: Server, dns_says: Say, rounds: list[Zone]
) -> None:
    dns_says(lambda _: Absent())
    rounds.append(right)
    done = server.run("dns", "--watch", "--json")
    assert done.status == 0
    assert {row["status"] for row in json.loads(done.out)} == {"ok"}
