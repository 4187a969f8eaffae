"""What publish-dns says; what it may do is tested in tests/unit/dns."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from entrypoint.dns.authoritative import Absent, Answers, Found, Unknown
from entrypoint.dns.records import Record
from entrypoint.state import load
from entrypoint.zone import address, lexicon, providers, publish
from entrypoint.zone.lexicon import Held, ProviderError
from entrypoint.zone.providers import Account, driver
from entrypoint.zone.required import required
from tests.unit.commands.conftest import Server

POWERDNS = Account(driver("powerdns"), "ACME_DNS=dns_pdns")


@dataclass
class Zone:
    """A provider, and the name servers that show what it has, unless they are late."""

    records: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    shown: dict[tuple[str, str], tuple[str, ...]] | None = None
    fails: str = ""
    silent: bool = False

    def __call__(self, name: str, kind: str) -> Answers:
        if self.silent:
            return {"ns1": Unknown("no answer in time")}
        values = (self.records if self.shown is None else self.shown).get((name, kind))
        return {"ns1": Found(values) if values else Absent()}

    @contextmanager
    def opened(self, _account: Account, _zone: str, _roots: Path | None) -> Iterator[Zone]:
        if self.fails:
            raise ProviderError(self.fails)
        yield self

    def held(self, record: Record) -> list[Held]:
        values = self.records.get((record.name, record.type.value), ())
        return [Held(value, value, None, None) for value in values]

    def add(self, record: Record, _ttl: int) -> None:
        key = (record.name, record.type.value)
        self.records[key] = (*self.records.get(key, ()), record.value or "")

    @property
    def zone(self) -> str:
        return "example.com"


@pytest.fixture
def zone(server: Server, monkeypatch: pytest.MonkeyPatch) -> Zone:
    """Reverse DNS is right, and nothing else."""
    zone = Zone()
    wanted = server.context.settings
    for item in required(wanted, load.load(server.context.paths), address.find(wanted)):
        if item.zone is None and item.value:
            zone.records[item.name, "PTR"] = (item.value,)
    monkeypatch.setattr("entrypoint.commands.publish.Authoritative", lambda: zone)
    monkeypatch.setattr(providers, "account", lambda *_: POWERDNS)
    monkeypatch.setattr(publish, "find_zone", lambda name: ".".join(name.split(".")[-2:]))
    monkeypatch.setattr(lexicon, "opened", zone.opened)
    return zone


def test_the_plan_the_deed_and_nothing_more(server: Server, zone: Zone) -> None:
    before = dict(zone.records)
    plan = server.run("publish-dns")
    assert plan.status == 1
    assert plan.err == ""
    first, *rest = plan.out.split("\n\n")
    assert first.startswith("example.com, by ACME_DNS=dns_pdns:\n  + smtp A 203.0.113.10\n")
    assert "  + _submission._tcp SRV 0 1 587 smtp.example.com.  (optional)" in first
    assert rest[0].startswith("example.org, by ACME_DNS=dns_pdns:\n  + @ MX 10")
    assert plan.out.endswith(
        "nothing was changed; to do it: docker exec mail publish-dns --apply\n"
    )
    assert zone.records == before

    done = server.run("publish-dns", "--apply")
    assert done.status == 0
    assert "example.com: smtp A: added" in done.err
    assert done.out.endswith("records are right\n")

    again = server.run("publish-dns")
    assert (again.status, again.err) == (0, "")
    assert again.out.startswith("nothing to publish: all ")
    assert server.run("publish-dns", "--apply").out == again.out


@pytest.mark.usefixtures("zone")
def test_for_programs(server: Server) -> None:
    plan = server.run("publish-dns", "--json")
    assert (plan.status, plan.err) == (1, "")
    content = json.loads(plan.out)
    assert (content["applied"], content["errors"], content["records"]) == (False, [], None)
    assert content["steps"][0] == {
        "action": "add", "zone": "example.com", "name": "smtp.example.com", "type": "A",
        "optional": False, "old": [], "new": "203.0.113.10", "kept": [], "found": [],
        "reason": "", "fix": "", "remedy": "",
        "by": "ACME_DNS=dns_pdns", "result": None,
    }  # fmt: skip
    done = json.loads(server.run("publish-dns", "--apply", "--json").out)
    assert done["applied"]
    assert {item["status"] for item in done["records"]} == {"ok"}
    results = [item["result"] for item in done["steps"]]
    assert results == [{"taken": True, "served": True, "error": ""}] * len(results)
    again = server.run("publish-dns", "--apply", "--json")
    assert (again.status, json.loads(again.out)["steps"]) == (0, [])


def test_a_provider_that_lets_nobody_in(server: Server, zone: Zone) -> None:
    zone.fails = "the credentials are not accepted"
    plan = server.run("publish-dns")
    assert plan.status == 1
    assert "error: example.com: powerdns: the credentials are not accepted\n" in plan.err
    assert "to do it" not in plan.out
    done = server.run("publish-dns", "--apply")
    assert done.status == 1
    assert "none of it was done" in done.out
    assert done.err.count("the credentials are not accepted") == 2, "once a zone"
    content = json.loads(server.run("publish-dns", "--json").out)
    assert [item["zone"] for item in content["errors"]] == ["example.com", "example.org"]


def test_name_servers_that_are_late(server: Server, zone: Zone) -> None:
    zone.shown = {key: value for key, value in zone.records.items() if key[1] == "PTR"}
    done = server.run("publish-dns", "--apply", "--wait", "0")
    assert done.status == 1
    assert "DNS does not show it yet" in done.err
    assert "dns --watch" in done.err
    again = server.run("publish-dns", "--apply", "--wait", "0", "--json")
    results = [item["result"] for item in json.loads(again.out)["steps"]]
    assert results
    assert not any(item["served"] for item in results)
    assert all(len(values) == 1 for values in zone.records.values()), "nothing twice"


def test_name_servers_that_cannot_be_asked(server: Server, zone: Zone) -> None:
    zone.silent = True
    plan = server.run("publish-dns")
    assert plan.status == 75
    assert "Not known, or on its way; look again later:" in plan.out
    assert server.run("publish-dns", "--apply").status == 75


def test_a_value_that_got_lost(server: Server, zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    zone.records["example.com", "TXT"] = ("verification=1",)

    def replace(record: Record, _ttl: int) -> None:
        zone.records[record.name, record.type.value] = (record.value or "",)

    monkeypatch.setattr(zone, "add", replace)
    done = server.run("publish-dns", "--apply")
    assert done.status == 1
    assert "example.com TXT no longer has a value that stood there before" in done.err
    assert "enter it again: verification=1" in done.err


def test_what_is_left_for_the_owner(server: Server, zone: Zone) -> None:
    zone.records["example.com", "MX"] = ("10 mx.example.net.",)
    done = server.run("publish-dns", "--apply")
    assert done.status == 1
    assert "To be done by hand:\n  MX example.com\n      found: 10 mx.example.net.\n" in done.out
    assert "The authoritative name servers say" in done.out
    assert zone.records["example.com", "MX"] == ("10 mx.example.net.",)


@pytest.mark.usefixtures("zone")
def test_colour_is_for_terminals(server: Server) -> None:
    assert "\033" not in server.run("publish-dns").out
    server.patch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert "\033[32m  + smtp A" in server.run("publish-dns").out
