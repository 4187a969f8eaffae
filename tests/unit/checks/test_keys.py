"""DKIM keys here and out there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from entrypoint.checks import keys
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import Selector
from entrypoint.dns.authoritative import Answer, Answers, Found
from entrypoint.keys import dkim
from entrypoint.keys.dkim import Algorithm
from entrypoint.state.load import DomainState
from tests.unit.checks.kit import FAILED, Scene
from tests.unit.kit import EXAMPLE_COM, asked, loaded_key

NAME = "t1r._domainkey.example.com"


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_keys_that_match_and_verify(scene: Scene, algorithm: Algorithm) -> None:
    scene.settings = asked(DKIM_KEYS=algorithm.value)
    scene.with_domain(keys=(loaded_key(algorithm, "t2x"),))
    scene.publish()
    assert scene.found(keys.check) == []
    assert scene.dns.asked.count(("t2x._domainkey.example.com", "TXT")) == 2, "a signature, too"


def test_absent_different_and_unknown(scene: Scene) -> None:
    scene.dns.set(NAME, "TXT")
    assert scene.only(keys.check).id == "record-missing"
    other = dkim.load(Selector("t1r"), dkim.make(Algorithm.ED25519))
    scene.dns.set(NAME, "TXT", str(other.record))
    found = scene.only(keys.check)
    assert (found.id, found.level) == ("record-different", Level.FAIL)
    scene.dns.fail(NAME, "TXT")
    found = scene.only(keys.check)
    assert (found.id, found.level, found.seen) == ("record-unknown", Level.UNKNOWN, FAILED.reason)


def test_a_signature_that_does_not_verify(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkim, "verifies", lambda _message, _txt: False)
    found = scene.only(keys.check)
    assert (found.id, found.level, found.subject) == ("signature-fails", Level.FAIL, NAME)


def test_a_signature_whose_key_cannot_be_looked_up_is_unknown(scene: Scene) -> None:
    """The record was there for the first question, and nobody answers the second."""
    answers: Iterator[Answer] = iter(
        [Found((str(loaded_key(Algorithm.RSA, "t1r").record),)), FAILED]
    )

    def ask(name: str, kind: str) -> Answers:
        assert (name, kind) == (NAME, "TXT")
        return {"ns": next(answers)}

    found = keys.check(replace(scene.context(), ask=ask))
    assert [(item.id, item.level) for item in found] == [("signature-unknown", Level.UNKNOWN)]


def test_a_domain_whose_mail_nobody_signs(scene: Scene) -> None:
    scene.with_domain(keys=())
    found = scene.only(keys.check)
    assert (found.id, found.level, found.subject) == ("no-key", Level.FAIL, EXAMPLE_COM)


def test_a_damaged_key_file(scene: Scene) -> None:
    broken = Finding(
        id="broken-dkim",
        level=Level.FAIL,
        message="data/x: damaged.",
        fix="mend the file",
        subject="x",
    )
    other = Finding(
        id="broken-users",
        level=Level.FAIL,
        message="data/y: damaged.",
        fix="mend the file",
        subject="y",
    )
    scene.state = replace(scene.state, findings=(broken, other))
    assert [item.id for item in keys.check(scene.context())] == ["broken-dkim"]


def test_a_pending_key_that_dns_does_not_show_yet_is_no_failure(scene: Scene) -> None:
    scene.with_domain(pending=(loaded_key(Algorithm.RSA, "t3r"),))
    found = scene.only(keys.check)
    assert (found.id, found.level) == ("record-missing", Level.WARN)


def test_a_retired_key_must_stay_for_a_while(scene: Scene) -> None:
    when = datetime(2026, 2, 27, tzinfo=UTC)
    scene.with_domain(retired=((loaded_key(Algorithm.RSA, "t0r"), when),))
    assert scene.only(keys.check).subject == "TXT t0r._domainkey.example.com"


def test_keys_that_do_not_sign_are_not_looked_at(scene: Scene) -> None:
    both = (loaded_key(Algorithm.RSA, "t1r"), loaded_key(Algorithm.ED25519, "t1e"))
    scene.state = replace(scene.state, domains={EXAMPLE_COM: DomainState(keys=both)})
    assert scene.found(keys.check) == []
