"""DNSSEC of each domain."""

from __future__ import annotations

import pytest

from entrypoint.checks import dnssec
from entrypoint.common.findings import Level
from entrypoint.dns.authoritative import Absent, Answer, Found, Unknown
from entrypoint.dns.resolver import Security
from tests.unit.checks.kit import FAILED, Scene
from tests.unit.kit import asked

KEY, DS = Found(("257 3 13 abcd",)), Found(("1 13 2 abcd",))


@pytest.mark.parametrize(
    ("keys", "parent", "security", "expected", "level"),
    [
        (Absent(), Absent(), Security.INSECURE, "dnssec-unsigned", Level.INFO),
        (KEY, Absent(), Security.INSECURE, "dnssec-no-ds", Level.INFO),
        (KEY, DS, Security.SECURE, "dnssec-valid", Level.INFO),
        (KEY, DS, Security.INSECURE, "dnssec-unproven", Level.INFO),
        (KEY, DS, Security.BOGUS, "dnssec-broken", Level.FAIL),
        (Absent(), DS, Security.INSECURE, "dnssec-broken", Level.FAIL),
        (KEY, DS, FAILED, "dnssec-unknown", Level.UNKNOWN),
        (FAILED, DS, Security.SECURE, "dnssec-unknown", Level.UNKNOWN),
        (KEY, FAILED, Security.SECURE, "dnssec-unknown", Level.UNKNOWN),
        (Absent(), FAILED, Security.INSECURE, "dnssec-unknown", Level.UNKNOWN),
        (FAILED, Absent(), Security.INSECURE, "dnssec-unknown", Level.UNKNOWN),
    ],
)  # fmt: skip
def test_states(
    scene: Scene,
    keys: Answer,
    parent: Answer,
    security: Security | Unknown,
    expected: str,
    level: Level,
) -> None:
    scene.dns.answers["example.com", "DNSKEY"] = keys
    scene.dns.answers["example.com", "DS"] = parent
    scene.dns.secure = security
    [found] = scene.found(dnssec.check)
    assert (found.id, found.level, found.subject) == (expected, level, "example.com")


def test_every_zone_once(scene: Scene) -> None:
    scene.settings = asked(
        MAIL_HOSTNAME="smtp.hosting.example", MAIL_DOMAINS="example.com,example.org"
    )
    subjects = [item.subject for item in scene.found(dnssec.check)]
    assert subjects == ["example.com", "example.org", "hosting.example"]
