"""How the small internet's receiver is read: what the demo and the image tests believe."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import world
from tests.world.world import NONE, Net, Verdict, WorldError, parse_delivery

SAMPLES = Path(world.__file__).parent / "samples"
NET = Net("198.51.100", "2001:db8:7")


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.eml").read_bytes()


def test_a_message_that_passed() -> None:
    found = parse_delivery(sample("pass"))
    assert (found.spf, found.dmarc) == ("pass", "pass")
    assert found.dkim == {"ed25519-sha256/t1e": "pass", "rsa-sha256/t1r": "pass"}
    assert (found.tls_version, found.tls_cipher) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    assert (found.client_name, found.helo) == ("smtp.example.com", "smtp.example.com")
    assert found.client_address == "2001:db8:7::10"
    assert (found.envelope_from, found.to) == ("alice@example.com", "bob@example.net")
    assert (found.subject, found.message_id) == ("Passed", "<Passed@example.com>")


def test_a_message_that_failed_and_claims_that_it_passed() -> None:
    """Below the receiver's own Received header stands what came with the message."""
    raw = sample("fail")
    assert b"spf=pass" in raw
    assert b"dmarc=pass" in raw
    found = parse_delivery(raw)
    assert (found.spf, found.dmarc) == ("fail", "fail")
    assert found.dkim == {"ed25519-sha256/t1e": "fail", "rsa-sha256/t1r": "fail"}
    assert found.client_name == "unknown"


def test_results_of_another_server_count_for_nothing() -> None:
    raw = sample("pass").replace(b"mx.example.net; spf=pass", b"mx.example.org; spf=pass")
    assert parse_delivery(raw).spf == NONE
    assert parse_delivery(raw, "mx.example.org").spf == "pass"


def test_a_message_without_anything() -> None:
    found = parse_delivery(b"\r\nbody")
    assert (found.spf, found.dmarc, found.subject, found.tls_version) == (NONE,) * 4
    assert found.dkim == {}


def test_of_two_signatures_with_one_key_the_worse_counts() -> None:
    raw = sample("fail").replace(b"header.b=DbGiVu5y", b"header.b=XXXXXXXX")
    assert parse_delivery(raw).dkim["rsa-sha256/t1r"] == NONE


def test_comments_hold_no_results() -> None:
    server, verdicts = world.parse_authentication_results(
        "mx.example.net; spf=fail (spf=pass; (nested) dkim=pass) smtp.mailfrom=a@example.com;"
        ' dkim=pass reason="a;b (c" header.d=example.com'
    )
    assert server == "mx.example.net"
    assert verdicts == [
        Verdict("spf", "fail", {"smtp.mailfrom": "a@example.com"}),
        Verdict("dkim", "pass", {"reason": "a;b (c", "header.d": "example.com"}),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from a.example (b.example [192.0.2.1]) by c", {
            "helo": "a.example", "client_name": "b.example", "client_address": "192.0.2.1"}),
        ("from a (unknown [IPv6:2001:db8::1]) (using TLSv1.2 with cipher X (1/1 bits)) by c", {
            "helo": "a", "client_name": "unknown", "client_address": "2001:db8::1",
            "tls_version": "TLSv1.2", "tls_cipher": "X"}),
        ("by c with LMTP", {}),
    ],
)  # fmt: skip
def test_received(text: str, found: dict[str, str]) -> None:
    assert world.parse_received(text) == found


def test_tags() -> None:
    assert world.parse_tags("v=1; a=rsa-sha256; b=AB\n CD==; s = t1") == {
        "v": "1", "a": "rsa-sha256", "b": "ABCD==", "s": "t1",
    }  # fmt: skip


def test_addresses_of_a_world() -> None:
    assert (NET.v4(25), NET.v6(25)) == ("198.51.100.25", "2001:db8:7::25")
    assert NET.reverse_zone("198.51.100.25") == "100.51.198.in-addr.arpa"
    zone = NET.reverse_zone("2001:db8:7::25")
    assert zone == "0.0.0.0.7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
    with pytest.raises(WorldError, match=r"192\.0\.2\.1 is not an address of this world"):
        NET.reverse_zone("192.0.2.1")
