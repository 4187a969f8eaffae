"""Certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from entrypoint.common.names import Domain
from entrypoint.keys import certs
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG

HOST = Domain("smtp.example.com")
PAIR = certs.self_signed([HOST, EXAMPLE_COM, EXAMPLE_ORG])
OTHER = certs.self_signed([HOST])


def without_names() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_a_self_signed_certificate_serves_every_name() -> None:
    leaf = x509.load_pem_x509_certificate(PAIR.chain)
    assert PAIR.names == (HOST, EXAMPLE_COM, EXAMPLE_ORG)
    assert leaf.subject == leaf.issuer
    assert leaf.subject.rfc4514_string() == f"CN={HOST}"
    leaf.verify_directly_issued_by(leaf)
    now = datetime.now(UTC)
    assert leaf.not_valid_before_utc < now - timedelta(hours=23), "a client's clock may be behind"
    assert PAIR.not_after == leaf.not_valid_after_utc
    assert timedelta(days=3640) < PAIR.not_after - now < timedelta(days=3660)
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca
    assert PAIR.chain != certs.self_signed([HOST]).chain


def test_a_long_first_name_still_fits() -> None:
    name = Domain("a" * 60 + ".example.com")
    pair = certs.self_signed([name])
    assert pair.names == (name,)


def test_what_was_made_can_be_loaded() -> None:
    assert certs.load(PAIR.chain, PAIR.key) == PAIR
    assert certs.load(PAIR.chain + OTHER.chain, PAIR.key).names == PAIR.names, "the leaf is first"


@pytest.mark.parametrize(
    ("name", "is_covered"),
    [
        ("example.com", True),
        ("smtp.example.com", True),
        ("www.example.com", False),
        ("example.net", False),
    ],
)
def test_coverage_of_plain_names(name: str, is_covered: bool) -> None:
    assert PAIR.covers(Domain(name)) is is_covered


@pytest.mark.parametrize(
    ("name", "is_covered"),
    [("a.example.com", True), ("example.com", False), ("a.b.example.com", False)],
)
def test_coverage_of_a_wildcard(name: str, is_covered: bool) -> None:
    assert certs.self_signed([Domain("*.example.com")]).covers(Domain(name)) is is_covered


@pytest.mark.parametrize(
    ("chain", "key", "reason"),
    [
        (b"", PAIR.key, "not a PEM certificate chain with its unencrypted PEM key"),
        (PAIR.chain, b"", "not a PEM certificate chain with its unencrypted PEM key"),
        (PAIR.chain[:-60], PAIR.key, "not a PEM certificate chain"),
        (PAIR.chain, PAIR.key[:-60], "not a PEM certificate chain"),
        (PAIR.key, PAIR.chain, "not a PEM certificate chain"),
        (b"\0\xff", b"\0\xff", "not a PEM certificate chain"),
        (PAIR.chain, OTHER.key, "the private key does not belong to the certificate"),
        (OTHER.chain + PAIR.chain, PAIR.key, "the private key does not belong"),
        (*without_names(), "the certificate names no host"),
    ],
    ids=[
        "no-chain",
        "no-key",
        "cut-chain",
        "cut-key",
        "swapped",
        "binary",
        "other",
        "order",
        "san",
    ],
)
def test_what_chasquid_would_not_start_with(chain: bytes, key: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        certs.load(chain, key)


def test_an_encrypted_key_is_refused() -> None:
    key = serialization.load_pem_private_key(PAIR.key, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    with pytest.raises(ValueError, match="unencrypted PEM key"):
        certs.load(PAIR.chain, locked)


def test_the_key_does_not_show() -> None:
    assert PAIR.key.splitlines()[1].decode() not in repr(PAIR)
