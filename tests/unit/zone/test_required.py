"""What must stand in DNS."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from entrypoint.dns.records import Record, RecordType
from entrypoint.keys.dkim import Algorithm
from entrypoint.settings import environment
from entrypoint.settings.model import Settings
from entrypoint.state.load import DomainState, State
from entrypoint.zone.required import Addresses, report_addresses, required
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, HOST, asked, loaded_key

V4, V6 = IPv4Address("203.0.113.10"), IPv6Address("2001:db8::10")
BOTH = Addresses(V4, V6)
KEYS = (loaded_key(Algorithm.ED25519, "t1e"), loaded_key(Algorithm.RSA, "t1r"))


def made(wanted: Settings, state: State | None = None, addresses: Addresses = BOTH) -> list[Record]:
    return list(required(wanted, state or State(), addresses))


def named(records: list[Record], name: str, kind: str) -> list[str | None]:
    return [item.value for item in records if (item.name, item.type.value) == (name, kind)]


def only(records: list[Record], name: str, kind: str) -> str | None:
    [value] = named(records, name, kind)
    return value


def test_of_a_plain_server() -> None:
    state = State(domains={EXAMPLE_COM: DomainState(keys=KEYS)})
    records = made(asked(DKIM_KEYS="rsa2048,ed25519"), state)
    assert [(item.type.value, item.name, item.optional) for item in records] == [
        ("A", HOST, False),
        ("AAAA", HOST, False),
        ("TXT", HOST, False),
        ("MX", "example.com", False),
        ("TXT", "example.com", False),
        ("TXT", "_spf.example.com", False),
        ("TXT", "t1e._domainkey.example.com", False),
        ("TXT", "t1r._domainkey.example.com", False),
        ("TXT", "_dmarc.example.com", False),
        ("TXT", "_smtp._tls.example.com", True),
        ("SRV", "_submissions._tcp.example.com", True),
        ("SRV", "_submission._tcp.example.com", True),
        ("PTR", "10.113.0.203.in-addr.arpa", False),
        ("PTR", "0.1" + ".0" * 22 + ".8.b.d.0.1.0.0.2.ip6.arpa", False),
    ]
    assert only(records, HOST, "A") == "203.0.113.10"
    assert only(records, HOST, "AAAA") == "2001:db8::10"
    assert only(records, "example.com", "MX") == "10 smtp.example.com."
    assert only(records, "_submissions._tcp.example.com", "SRV") == "0 1 465 smtp.example.com."
    assert only(records, "_submission._tcp.example.com", "SRV") == "0 1 587 smtp.example.com."
    assert {item.value for item in records if item.zone is None} == {"smtp.example.com."}
    for item in records:
        assert item.purpose.endswith(".")
        assert item.ttl > 0


def test_unknown_addresses_have_no_value_yet() -> None:
    records = made(asked(), addresses=Addresses(None, None))
    assert named(records, HOST, "A") == [None]
    assert named(records, HOST, "AAAA") == [None]
    pointers = [item for item in records if item.type is RecordType.PTR]
    assert [item.name for item in pointers] == [
        "(this server's IPv4 address)", "(this server's IPv6 address)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("addresses", "kinds"),
    [
        (Addresses(V4, None, has_ipv6=False), ["A", "PTR"]),
        (Addresses(None, V6, has_ipv4=False), ["AAAA", "PTR"]),
        (Addresses(V4, V6), ["A", "AAAA", "PTR", "PTR"]),
    ],
)
def test_a_family_that_is_not_used_has_no_record(addresses: Addresses, kinds: list[str]) -> None:
    records = made(asked(), addresses=addresses)
    found = [item.type.value for item in records if item.type.value in ("A", "AAAA", "PTR")]
    assert found == kinds


def test_only_what_is_received_here_has_an_mx() -> None:
    records = made(asked(MAIL_DOMAINS="example.com example.org", MAIL_RECEIVE="example.org"))
    assert [item.name for item in records if item.type is RecordType.MX] == ["example.org"]
    records = made(asked(MAIL_RECEIVE="none"))
    assert not any(item.type is RecordType.MX for item in records)


def test_spf_of_every_name_that_sends() -> None:
    records = made(
        asked(
            SPF_INCLUDE="_spf.example.net a.example",
            SPF_MECHANISMS="a mx",
            SPF_ALL="-all",
        )
    )
    assert only(records, "example.com", "TXT") == (
        "v=spf1 a mx include:_spf.example.com include:_spf.example.net include:a.example -all"
    )
    assert only(records, "_spf.example.com", "TXT") == "v=spf1 a:smtp.example.com -all"
    assert only(records, HOST, "TXT") == "v=spf1 a -all", "bounces come from the host"


def test_a_host_that_is_a_domain_has_one_spf_record() -> None:
    """Two at one name are a permanent error (RFC 7208 4.5)."""
    wanted = environment.load({"MAIL_HOSTNAME": "example.com", "MAIL_DOMAINS": "example.com"})
    records = made(wanted)
    assert only(records, "example.com", "TXT") == "v=spf1 include:_spf.example.com ~all"


def test_only_keys_that_sign_are_published() -> None:
    state = State(domains={EXAMPLE_COM: DomainState(keys=KEYS), EXAMPLE_ORG: DomainState()})
    records = made(asked(MAIL_DOMAINS="example.com example.org"), state)
    assert [item.name for item in records if "_domainkey" in item.name] == [
        "t1r._domainkey.example.com"
    ]
    assert only(records, "t1r._domainkey.example.com", "TXT") == str(KEYS[1].record)


def test_reports_come_here_unless_said_otherwise() -> None:
    records = made(asked(DMARC_POLICY="reject", DMARC_FO="1:d:s"))
    assert only(records, "_dmarc.example.com", "TXT") == (
        "v=DMARC1; p=reject; fo=1:d:s; rua=mailto:rua@example.com; ruf=mailto:ruf@example.com"
    )
    assert only(records, "_smtp._tls.example.com", "TXT") == (
        "v=TLSRPTv1; rua=mailto:rua@example.com"
    )
    assert not any("_report" in item.name for item in records)


def test_reports_to_none() -> None:
    records = made(asked(DMARC_RUA="none", DMARC_RUF="none"))
    text = only(records, "_dmarc.example.com", "TXT") or ""
    assert text.startswith("v=DMARC1; p=quarantine")
    assert "rua" not in text
    assert "ruf" not in text
    # TLS-RPT without an address would be no record.
    assert only(records, "_smtp._tls.example.com", "TXT") == (
        "v=TLSRPTv1; rua=mailto:rua@example.com"
    )


def test_another_organization_has_to_agree_to_reports() -> None:
    """RFC 7489 7.1."""
    wanted = asked(
        MAIL_DOMAINS="example.com example.org",
        DMARC_RUA="a@reports.example.net, b@lists.example.com",
        DMARC_RUF="c@reports.example.net",
    )
    consents = [item for item in made(wanted) if "_report" in item.name]
    assert {(item.name, item.zone, item.value) for item in consents} == {
        ("example.com._report._dmarc.reports.example.net", "example.net", "v=DMARC1"),
        ("example.org._report._dmarc.reports.example.net", "example.net", "v=DMARC1"),
        ("example.org._report._dmarc.lists.example.com", "example.com", "v=DMARC1"),
    }
    assert len(consents) == 3, "each once"


def test_reports_of_a_domain_that_receives_elsewhere_come_to_the_host() -> None:
    wanted = asked(MAIL_DOMAINS="example.com example.org", MAIL_RECEIVE="example.com")
    assert report_addresses(None, "rua", EXAMPLE_COM, wanted) == ("rua@example.com",)
    assert report_addresses(None, "rua", EXAMPLE_ORG, wanted) == ("rua@smtp.example.com",)
    assert report_addresses((), "rua", EXAMPLE_ORG, wanted) == ()
    names = [item.name for item in made(wanted) if "_report" in item.name]
    assert names == ["example.org._report._dmarc.smtp.example.com"]


def test_the_host_is_entered_where_its_zone_is() -> None:
    wanted = environment.load(
        {"MAIL_HOSTNAME": "smtp.hosting.example", "MAIL_DOMAINS": "example.com"}
    )
    zones = {item.zone for item in made(wanted) if item.name == "smtp.hosting.example"}
    assert zones == {"hosting.example"}


def test_each_record_is_below_its_zone() -> None:
    wanted = asked(
        MAIL_DOMAINS="example.com sub.example.com example.org", DMARC_RUA="a@x.example.net"
    )
    for item in made(wanted, State(domains={EXAMPLE_COM: DomainState(keys=KEYS)})):
        if item.zone:
            assert item.name == item.zone or item.name.endswith(f".{item.zone}")


def test_pure() -> None:
    """The same in, the same out: printing, checking and publishing rely on it."""
    state = State(domains={EXAMPLE_COM: DomainState(keys=KEYS)})
    assert made(asked(), state) == made(asked(), state)
