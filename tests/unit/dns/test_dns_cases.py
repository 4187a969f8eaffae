"""What `dns --check` says of what DNS says: tests/cases/dns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from entrypoint.common import interface
from entrypoint.common.paths import Paths
from entrypoint.dns.records import Record, Role
from entrypoint.settings import environment
from entrypoint.state import load
from entrypoint.zone import address, judge, render
from entrypoint.zone.judge import Status
from entrypoint.zone.required import required
from tests.support.cases import CASES, Case, case_id, cases
from tests.unit.dns import answers
from tests.unit.kit import put, put_keys

ALL = cases("dns")
KEYS = CASES / "keys"


class Checked:
    """A case, checked. Nothing in it changes."""

    def __init__(self, case: Case, place: Path) -> None:
        self.case = case
        paths = Paths(place)
        environ, _ = case.environ()
        wanted = environment.load(environ)
        put_keys(wanted, paths)
        for line in case.sections.get("keys", "").splitlines():
            name, key = line.split()
            put(paths.domains / name, (KEYS / f"{key}.pem").read_bytes())
        with pytest.MonkeyPatch.context() as patch:
            # No kernel is asked: what is not set is not known.
            patch.setattr(interface, "source", lambda *_: None)
            found = address.find(wanted)
        self.records = required(wanted, load.load(paths), found)
        self.asked = answers.parse(case.sections["answers"], self.records)
        self.verdicts = judge.check(self.records, found, self.asked)


@pytest.fixture(scope="module")
def all_checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checked]:
    return {case_id(case): Checked(case, tmp_path_factory.mktemp(case_id(case))) for case in ALL}


@pytest.fixture(params=ALL, ids=case_id)
def checked(request: pytest.FixtureRequest, all_checked: dict[str, Checked]) -> Checked:
    return all_checked[case_id(request.param)]


def test_there_are_enough() -> None:
    assert len(ALL) >= 50


def test_is_as_expected(checked: Checked, regenerate: bool) -> None:
    text = render.verdicts(checked.verdicts)
    if regenerate:
        checked.case.write({"findings": text})
    assert text == checked.case.sections["findings"]


def test_every_line_of_the_case_is_asked_for(checked: Checked) -> None:
    """Else it tests nothing: a name is misspelt."""
    assert checked.asked.never_asked == set()


def test_what_is_wrong_has_a_reason_and_a_fix(checked: Checked) -> None:
    for item in checked.verdicts:
        if item.status is Status.MISSING:
            assert item.fix
        elif item.status is Status.DIFFERENT:
            assert item.reason
            assert item.fix
            assert item.found
        elif item.status is Status.UNKNOWN:
            assert item.reason
        else:
            assert not item.fix
            assert item.found


def test_says_it_in_plain_words(checked: Checked) -> None:
    """Sentences that end once, in signs that no terminal obeys."""
    text = render.verdicts(checked.verdicts)
    assert all(line.isprintable() for line in text.splitlines())
    ours = [line for line in text.splitlines() if "found:" not in line and "fix:" not in line]
    for line in ours:
        assert not re.search(r"[.?!:,;]\.$| \.|\{|Error|None", line)


def test_colour_changes_no_text(checked: Checked) -> None:
    coloured = render.verdicts(checked.verdicts, colour=True)
    assert re.sub(r"\033\[\d+m", "", coloured) == render.verdicts(checked.verdicts)


def test_json_says_the_same(checked: Checked) -> None:
    rows = json.loads(render.verdicts_as_json(checked.verdicts))
    assert [(row["name"], row["status"], row["fix"]) for row in rows] == [
        (item.record.name, item.status.value, item.fix) for item in checked.verdicts
    ]
    assert [row["expected"] for row in rows] == [item.value for item in checked.records]


def requirement(record: Record) -> str:
    """What a record is one of; DNS has to have one of each."""
    match record.role:
        case Role.ADDRESS | Role.EXCHANGER | Role.SERVICE:
            return record.type.value
        case Role.POINTER:
            return "PTR6" if "ip6" in record.name else "PTR4"
        case Role.SPF if record.name.startswith("_spf."):
            return "SPF of _spf"
        case Role.SPF:
            return "SPF of the domain" if record.name == record.zone else "SPF of the host"
        case Role.DKIM:
            return "DKIM ed25519" if "k=ed25519" in (record.value or "") else "DKIM rsa"
        case role:
            return str(role.value)


REQUIREMENTS = (
    "A", "AAAA", "PTR4", "PTR6", "MX", "SPF of the domain", "SPF of _spf", "SPF of the host",
    "DKIM rsa", "DKIM ed25519", "dmarc", "reports", "tlsrpt", "SRV",
)  # fmt: skip


def test_every_requirement_meets_every_verdict(all_checked: dict[str, Checked]) -> None:
    seen = {
        (requirement(item.record), item.status)
        for checked in all_checked.values()
        for item in checked.verdicts
    }
    possible = {(name, status) for name in REQUIREMENTS for status in Status}
    # Any record of that name is a consent: there is no wrong one.
    assert possible - seen == {("reports", Status.DIFFERENT)}
    assert seen <= possible


def test_the_findings_of_two_cases_differ() -> None:
    """But where all is right: there are many ways of being right."""
    texts = [case.sections["findings"] for case in ALL]
    wrong = [text for text in texts if re.search("^ *fix:", text, re.MULTILINE)]
    assert len(set(wrong)) == len(wrong)
