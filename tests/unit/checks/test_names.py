"""The host's names."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from entrypoint.checks import names
from entrypoint.common.findings import Level
from entrypoint.zone.required import Addresses, Outbound
from tests.unit.checks.kit import FAILED, V4, V6, Scene
from tests.unit.kit import HOST, asked

POINTER = {4: V4.reverse_pointer, 6: V6.reverse_pointer}


def test_names_that_lead_to_each_other(scene: Scene) -> None:
    assert scene.found(names.check) == []


@pytest.mark.parametrize(
    ("name", "kind", "subject"),
    [
        (HOST, "A", f"A {HOST}"), (HOST, "AAAA", f"AAAA {HOST}"),
        (POINTER[4], "PTR", f"PTR {V4}"), (POINTER[6], "PTR", f"PTR {V6}"),
    ],
)  # fmt: skip
def test_what_is_missing_and_what_is_unknown(
    scene: Scene, name: str, kind: str, subject: str
) -> None:
    scene.dns.set(name, kind)
    found = scene.only(names.check)
    assert (found.id, found.level, found.subject) == ("record-missing", Level.FAIL, subject)
    scene.dns.fail(name, kind)
    found = scene.only(names.check)
    assert (found.id, found.level, found.subject) == ("record-unknown", Level.UNKNOWN, subject)
    assert found.seen == FAILED.reason


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["203.0.113.10"], "(which leads back)"),
        (["203.0.113.99"], "(which does not lead back)"),
        ([], "(which does not lead back)"),
        (None, "(whether it leads back is not known)"),
    ],
)
def test_reverse_dns_of_another_name(scene: Scene, values: list[str] | None, words: str) -> None:
    scene.dns.set(POINTER[4], "PTR", "other.example.net.")
    if values is None:
        scene.dns.fail("other.example.net", "A")
    else:
        scene.dns.set("other.example.net", "A", *values)
    found = scene.only(names.check)
    assert (found.id, found.level, found.subject) == ("record-different", Level.FAIL, f"PTR {V4}")
    assert found.seen == f"other.example.net. {words}"


def test_a_host_that_points_elsewhere(scene: Scene) -> None:
    scene.dns.set(HOST, "A", "203.0.113.99")
    found = scene.only(names.check)
    assert (found.id, found.seen) == ("record-different", "203.0.113.99")


def test_an_address_of_a_family_that_is_not_used(scene: Scene) -> None:
    scene.addresses = Addresses(V4, None, has_ipv6=False)
    found = scene.only(names.check)
    assert (found.id, found.level, found.seen) == ("address-unused", Level.WARN, str(V6))
    for answer in ("absent", "unknown"):
        scene.dns.set(HOST, "AAAA")
        if answer == "unknown":
            scene.dns.fail(HOST, "AAAA")
        assert scene.found(names.check) == []


@pytest.mark.parametrize(
    ("banner", "expected"),
    [
        (f"220 {HOST} ESMTP chasquid", []),
        ("220 other.example.net ESMTP Exim", ["greeting-differs"]),
        ("220", ["greeting-differs"]),
        ("", ["greeting-differs"]),
        (ConnectionRefusedError(111, "Connection refused"), ["greeting-unknown"]),
    ],
)
def test_the_greeting(scene: Scene, banner: str | OSError, expected: list[str]) -> None:
    scene.box.banners["127.0.0.1"] = banner
    assert scene.ids(names.check) == expected


@pytest.mark.parametrize(
    "host",
    [
        "ip-203-0-113-10.example.com", "203.0.113.10.example.com", "10-113-0-203.example.com",
        "static.example.com", "static-99.example.com", "vps12345.example.com",
        "x203000113010.example.com", "cb00710a.example.com", "h-2001-db8-10.example.com",
        "pool7.example.com", "ec2-18-1-2-3.example.com", "dhcp.example.com",
    ],
)  # fmt: skip
def test_names_that_a_provider_makes_up(scene: Scene, host: str) -> None:
    scene.settings = asked(MAIL_HOSTNAME=host, MAIL_DOMAINS="example.com")
    scene.publish()
    scene.box.banners["127.0.0.1"] = f"220 {host} ESMTP"
    found = [item for item in scene.found(names.check) if item.id == "hostname-generic"]
    assert [item.level for item in found] == [Level.WARN]


@pytest.mark.parametrize(
    "host",
    [
        "smtp.example.com", "mail.example.com", "mx1.example.com", "mail-2.example.com",
        "server1.example.com", "vm.example.com", "node2.example.com", "post.example.com",
        "out-10.example.com", "iphost.example.com", "dynamics.example.com",
    ],
)  # fmt: skip
def test_names_that_a_person_gives(scene: Scene, host: str) -> None:
    scene.settings = asked(MAIL_HOSTNAME=host, MAIL_DOMAINS="example.com")
    scene.publish()
    scene.box.banners["127.0.0.1"] = f"220 {host} ESMTP"
    assert "hostname-generic" not in scene.ids(names.check)


def test_a_resolver_that_fails_makes_nothing_absent(scene: Scene) -> None:
    scene.dns.failing = True
    assert {item.level for item in scene.found(names.check)} == {Level.UNKNOWN}


def test_each_of_several_addresses_is_a_finding_of_its_own(scene: Scene) -> None:
    second, third = IPv4Address("203.0.113.11"), IPv4Address("203.0.113.12")
    scene.addresses = replace(
        scene.addresses, outbound=(Outbound(second, second), Outbound(third, third))
    )
    scene.publish()
    scene.dns.set(HOST, "A")
    found = [item for item in scene.found(names.check) if item.level is Level.FAIL]
    assert [item.subject for item in found] == [
        f"A {HOST}", f"A {HOST} {second}", f"A {HOST} {third}",
    ]  # fmt: skip
    assert found[1].message == f"A {HOST} {second} is missing."
