"""What is made of settings and a volume: tests/cases/env."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.rdatatype
import dns.zone
import pytest
from dns.rdtypes.ANY.TXT import TXT

from entrypoint.chasquid import userdb
from entrypoint.common import interface
from entrypoint.common.paths import Paths
from entrypoint.converge import plan
from entrypoint.converge.plan import Plan
from entrypoint.dns.records import Record, RecordType
from entrypoint.settings import environment
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.zone import address, render
from entrypoint.zone.required import required
from tests.support.cases import Case, case_id, cases
from tests.unit import chasquid_reference
from tests.unit.kit import put, put_keys

GOOD = cases("env")


@pytest.fixture(params=GOOD, ids=case_id)
def case(request: pytest.FixtureRequest) -> Case:
    found = request.param
    assert isinstance(found, Case)
    return found


class Made:
    """A case, brought to its end. Its paths are those of the container."""

    def __init__(self, case: Case, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(place)
        environ, files = case.environ()
        for name, content in files.items():
            put(place / name, content)
        volume = Paths(place)
        for name, text in case.below("data").items():
            put(volume.data / name, text)
        self.settings: Settings = environment.load(environ)
        put_keys(self.settings, volume)
        self.state = load.load(volume)
        self.plan: Plan = plan.build(self.settings, self.state, Paths())
        # No kernel is asked: what is not set is not known.
        monkeypatch.setattr(interface, "source", lambda *_: None)
        self.records: tuple[Record, ...] = required(
            self.settings, self.state, address.find(self.settings)
        )

    def outputs(self) -> dict[str, str]:
        """All that is expected, by the path below `expected/`."""
        root = Paths().chasquid
        found = {
            "files": "".join(
                f"{item.path.relative_to(root)}\t{item.effect.name.lower()}\n"
                for item in sorted(self.plan.files, key=lambda item: item.path)
                if item.path.is_relative_to(root) and not item.path.is_relative_to(root / "certs")
            )
        }
        found |= {
            str(item.path.relative_to(root)): item.content.decode()
            for item in self.plan.files
            if item.path.is_relative_to(root) and item.path.suffix != ".pem"
        }
        found["dns.table"] = render.table(self.records)
        found["dns.zone"] = render.zone(self.records)
        found["dns.json"] = render.as_json(self.records) + "\n"
        return found


@pytest.fixture
def made(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(case, tmp_path, monkeypatch)


def test_there_are_enough() -> None:
    assert len(GOOD) >= 20


def test_is_as_expected(case: Case, made: Made, regenerate: bool) -> None:
    outputs = made.outputs()
    if regenerate:
        case.write({f"expected/{name}": text for name, text in outputs.items()})
    assert outputs == case.below("expected")
    assert made.state.findings == ()


def test_chasquid_would_read_it(made: Made) -> None:
    root = Paths().chasquid
    files = {item.path.relative_to(root): item for item in made.plan.files if within(item, root)}
    config = chasquid_reference.read_config(files[Path("chasquid.conf")].content.decode())
    assert config["hostname"] == made.settings.mail_hostname
    for path, item in files.items():
        text = item.content.decode()
        if path.name == "aliases":
            chasquid_reference.read_aliases(text, path.parent.name)
        elif path.name == "users":
            assert userdb.parse(text)
        else:
            assert path.suffix in {".conf", ".pem"}


def within(item: plan.File, root: Path) -> bool:
    return item.path.is_relative_to(root)


def test_table_fits_80_columns(made: Made) -> None:
    """But for a TXT's text, which is there to be copied."""
    texts = {f"      {item.value}" for item in made.records if item.type is RecordType.TXT}
    wide = {line for line in render.table(made.records).splitlines() if len(line) > 80}
    assert wide <= texts


def test_colour_changes_no_text(made: Made) -> None:
    plain, coloured = (render.table(made.records, colour=flag) for flag in (False, True))
    for code in ("\033[1m", "\033[2m", "\033[0m"):
        assert code in coloured
        coloured = coloured.replace(code, "")
    assert coloured == plain
    assert "\033" not in plain


# What a zone has besides the fragment.
HEAD = (
    "@ 3600 IN SOA ns.example.net. hostmaster.example.net. 1 2 3 4 5\n"
    "@ 3600 IN NS ns.example.net.\n"
)


def zones(text: str) -> Iterator[dns.zone.Zone]:
    """The fragments, each with a SOA and NS as its zone has, as dnspython loads them."""
    for part in text.split("$ORIGIN ")[1:]:
        origin, _, body = part.partition("\n")
        yield dns.zone.from_text(HEAD + body, origin=origin, relativize=False)


def test_zone_holds_each_record(made: Made) -> None:
    loaded = set()
    for zone in zones(render.zone(made.records)):
        for name, ttl, rdata in zone.iterate_rdatas():
            if rdata.rdtype in (dns.rdatatype.SOA, dns.rdatatype.NS):
                continue
            kind = dns.rdatatype.to_text(rdata.rdtype)
            if isinstance(rdata, TXT):
                strings = [text.decode() for text in rdata.strings]
                assert max(map(len, strings)) <= 255
                value = "".join(strings)
            else:
                value = rdata.to_text()
            loaded.add((str(name).rstrip("."), kind, ttl, value))
    wanted = {
        (item.name, item.type.value, item.ttl, item.value)
        for item in made.records
        if item.zone and item.value is not None
    }
    assert loaded == wanted


def test_zone_speaks_of_the_rest_in_comments(made: Made) -> None:
    lines = render.zone(made.records).splitlines()
    for item in made.records:
        if item.zone is None:
            assert f"; {item.name}. IN PTR {item.value}" in lines
        elif item.value is None:
            family = {"A": "IPV4", "AAAA": "IPV6"}[item.type.value]
            assert any(f"set PUBLIC_{family} in .env" in line for line in lines)


def test_json_holds_each_record(made: Made) -> None:
    found: list[dict[str, Any]] = json.loads(render.as_json(made.records))
    assert [(item["name"], item["type"], item["value"]) for item in found] == [
        (item.name, item.type.value, item.value) for item in made.records
    ]
    for item in found:
        if item["type"] == "TXT":
            assert "".join(item["strings"]) == item["value"]


def test_regenerating_is_refused_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import conftest

    class Config:
        def getoption(self, name: str) -> bool:
            return name == "--regenerate"

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.UsageError, match="not for CI"):
        conftest.pytest_configure(Config())  # type: ignore[arg-type]


def test_no_case_is_left_without_expectations() -> None:
    assert all("expected/dns.json" in case.sections for case in GOOD)
