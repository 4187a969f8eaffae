"""Certificates: renewed, served, trusted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from entrypoint.checks import certificates
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import Domain
from entrypoint.keys import certs
from entrypoint.state.load import Issue
from tests.unit.checks.kit import NOW, Scene
from tests.unit.kit import EXAMPLE_COM, HOST, asked

REAL = replace(
    certs.self_signed([EXAMPLE_COM, Domain(HOST)]),
    issuer="CN=authority",
    not_before=NOW - timedelta(days=10),
    not_after=NOW + timedelta(days=80),
)


@pytest.fixture
def trusted(scene: Scene) -> Scene:
    scene.settings = asked(TLS="http")
    scene.state = replace(scene.state, certificates={Domain(HOST): REAL})
    scene.box.served = REAL.fingerprint
    return scene


def test_a_certificate_in_place(trusted: Scene) -> None:
    assert trusted.found(certificates.check) == []


def test_the_self_signed_one(scene: Scene) -> None:
    found = scene.only(certificates.check)
    assert (found.id, found.level) == ("self-signed", Level.WARN)
    assert found.fix.splitlines()[-1] == "TLS=http"


def test_the_self_signed_one_until_the_first_is_issued(scene: Scene) -> None:
    scene.settings = asked(TLS="http")
    assert "list-certs" in scene.only(certificates.check).fix


def test_another_one_is_served(trusted: Scene) -> None:
    trusted.box.served = "00" * 32
    found = trusted.found(certificates.check)
    assert {(item.id, item.level) for item in found} == {("certificate-not-served", Level.FAIL)}
    assert [item.subject for item in found] == [
        f"{REAL.host} port {port}" for port in (25, 465, 587)
    ]


def test_a_port_that_does_not_answer_is_unknown(trusted: Scene) -> None:
    trusted.box.served = ConnectionRefusedError(111, "Connection refused")
    found = trusted.found(certificates.check)
    assert {(item.id, item.level, item.seen) for item in found} == {
        ("certificate-unknown", Level.UNKNOWN, "Connection refused")
    }


def test_what_renewal_and_state_say_is_passed_on(trusted: Scene) -> None:
    broken = Finding(
        id="broken-certificate",
        level=Level.FAIL,
        message="data/certs/x: damaged.",
        fix="mend it",
        subject="x",
    )
    other = Finding(
        id="broken-users", level=Level.FAIL, message="data/y: damaged.", fix="mend it", subject="y"
    )
    issue = Issue(failures=1, error="no answer", fix="wait", next_try=NOW.timestamp() + 60)
    trusted.state = replace(trusted.state, findings=(broken, other), issues={Domain(HOST): issue})
    found = certificates.check(trusted.context())
    assert [(item.id, item.level) for item in found] == [
        ("broken-certificate", Level.FAIL), ("certificate-error", Level.WARN),
    ]  # fmt: skip
    assert all(item.why for item in found)
