"""The domains' records."""

from __future__ import annotations

import pytest

from entrypoint.checks import keys, names, records
from entrypoint.common.findings import Level
from entrypoint.dns.records import Record
from tests.unit.checks.kit import Scene
from tests.unit.kit import EXAMPLE_COM


def own(scene: Scene) -> list[Record]:
    context = scene.context()
    return [item for item in context.records if item.role not in (*records.NAMES, *records.KEYS)]


def test_records_that_are_right(scene: Scene) -> None:
    assert scene.found(records.check) == []


def test_every_record_is_looked_at_by_one_theme(scene: Scene) -> None:
    """With nothing in DNS there is a finding for each required record, and just one."""
    scene.dns.answers.clear()
    found = [
        item
        for check in (records.check, names.check, keys.check)
        for item in scene.found(check)
        if item.id == "record-missing"
    ]
    assert len(found) == len({item.subject for item in found}) == len(scene.context().records)


def test_absent_is_a_failure_unless_the_record_is_optional(scene: Scene) -> None:
    for record in own(scene):
        scene.dns.set(record.name, record.type.value)
    found = {item.subject: item.level for item in scene.found(records.check)}
    assert found == {
        f"{item.type.value} {item.name}": Level.INFO if item.optional else Level.FAIL
        for item in own(scene)
    }


def test_unknown_is_unknown_for_each(scene: Scene) -> None:
    scene.dns.failing = True
    found = scene.found(records.check)
    assert {(item.id, item.level) for item in found} == {("record-unknown", Level.UNKNOWN)}
    assert len(found) == len(own(scene))


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("example.com", "MX", "10 mx.provider.example."),
        ("example.com", "TXT", "v=spf1 +all"),
        ("_dmarc.example.com", "TXT", "v=DMARC1; p=none"),
    ],
)
def test_different_records(scene: Scene, name: str, kind: str, value: str) -> None:
    scene.dns.set(name, kind, value)
    found = scene.only(records.check)
    assert (found.id, found.level, found.seen) == ("record-different", Level.FAIL, value)
    assert found.subject == f"{kind} {name}"


def test_a_text_to_paste_stands_on_a_line_of_its_own(scene: Scene) -> None:
    scene.dns.set("_dmarc.example.com", "TXT")
    found = scene.only(records.check)
    prose, paste = found.fix.splitlines()
    assert prose.endswith(":")
    assert paste.startswith("_dmarc TXT v=DMARC1; p=quarantine; fo=1; rua=mailto:")


def test_what_is_right_but_worth_knowing_is_news(scene: Scene) -> None:
    scene.dns.set(EXAMPLE_COM, "MX", "10 smtp.example.com.", "20 backup.example.net.")
    found = scene.only(records.check, Level.INFO)
    assert (found.id, found.subject) == ("record-note", "MX example.com")
    assert "backup.example.net" in found.message
