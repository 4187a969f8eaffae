"""DKIM keys."""

from __future__ import annotations

import base64
from functools import cache

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from entrypoint.common.names import Selector
from entrypoint.keys import dkim
from entrypoint.keys.dkim import Algorithm, DkimKey
from tests.unit.kit import EXAMPLE_COM, key_pem, loaded_key

S = Selector("t1r")
# Today's cryptography makes none so small: openssl genrsa 512
RSA_512 = b"""\
-----BEGIN PRIVATE KEY-----
MIIBUwIBADANBgkqhkiG9w0BAQEFAASCAT0wggE5AgEAAkEAvui+niu/vfzKMHiK
Asgd5sYpf/2z+H8zcFW/stC0nG6tqLhS2Pf+/RUP3SIIVsC7nCh6LYa5suPsagwV
mB+DOQIDAQABAkBM9t3qPG73tBL7SY0yI+VSJS+T5v8IPpfJQPigqV029wCBxmiO
INgy73ArdVaH9Lz9lc5weuSMARU05zwmkMOFAiEA9ozCK0aa4AFCYbRNdTePIu5R
62NdHV53Sc2HmsBDVRcCIQDGOgS5WeaKaSGMxXPO4eMdKD6Z0DSWnTaz5a1FaKq8
LwIgZJ1SzAhXQd0hsu+6wIA46J9rTO1S3Z5kffjjQxL9J2cCIHQytGw2j9bY88rC
QDWo4mpIGhIuI3WaqONhomWKinMPAiAqgHVS/Xw6uig0+spqXYU2P1OuoqqrrUeb
KUG0LApfSw==
-----END PRIVATE KEY-----
"""
BOTH = pytest.mark.parametrize("algorithm", list(Algorithm))


def pem_of(
    key: PrivateKeyTypes,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@BOTH
def test_a_new_key_is_pkcs8_and_of_its_kind(algorithm: Algorithm) -> None:
    pem = dkim.make(algorithm)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert pem != dkim.make(algorithm), "each is new"
    key = dkim.load(S, pem)
    assert (key.algorithm, key.selector, key.pem) == (algorithm, S, pem)
    loaded = serialization.load_pem_private_key(pem, None)
    match algorithm:
        case Algorithm.RSA:
            assert isinstance(loaded, rsa.RSAPrivateKey)
            assert loaded.key_size == 2048
        case Algorithm.ED25519:
            assert isinstance(loaded, ed25519.Ed25519PrivateKey)


@BOTH
def test_a_new_key_proves_itself(algorithm: Algorithm) -> None:
    dkim.prove(EXAMPLE_COM, dkim.load(S, dkim.make(algorithm)))


@BOTH
def test_a_key_with_another_ones_record_does_not(algorithm: Algorithm) -> None:
    right, wrong = (dkim.load(S, dkim.make(algorithm)) for _ in range(2))
    mixed = DkimKey(S, algorithm, right.pem, wrong.public)
    with pytest.raises(ValueError, match=f"the new {algorithm.value} key does not verify against"):
        dkim.prove(EXAMPLE_COM, mixed)


def test_the_record_of_an_rsa_key_is_its_public_half() -> None:
    text = str(loaded_key(Algorithm.RSA, "t1r").record)
    assert text.startswith("v=DKIM1; k=rsa; p=")
    public = serialization.load_der_public_key(base64.b64decode(text.partition("p=")[2]))
    private = serialization.load_pem_private_key(key_pem(Algorithm.RSA), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.public_numbers() == private.public_key().public_numbers()


def test_the_record_of_an_ed25519_key_is_32_bytes() -> None:
    """RFC 8463 4.2: the key itself, no ASN.1 around it."""
    text = str(loaded_key(Algorithm.ED25519, "t1e").record)
    assert text == "v=DKIM1; k=ed25519; p=dFLK2Qxx98AEJgHJB+sbyw2ClAGyqJa6fkHbrGczRdg="
    assert len(base64.b64decode(text.partition("p=")[2])) == 32


def test_a_private_key_does_not_show() -> None:
    key = loaded_key(Algorithm.ED25519, "t1e")
    secret = key.pem.splitlines()[1].decode()
    assert secret not in f"{key!r} {key} {key.record!r}"
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (b"", "not an unencrypted PKCS #8 private key"),
        (b"\0\xff" * 100, "not an unencrypted PKCS #8 private key"),
        (key_pem(Algorithm.RSA)[:-200], "the private key is damaged"),
        (key_pem(Algorithm.RSA).replace(b"M", b"A", 3), "the private key is damaged"),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "the private key is damaged",
        ),
        (pem_of(ec.generate_private_key(ec.SECP256R1())), "DKIM knows RSA and Ed25519"),
        (pem_of(x25519.X25519PrivateKey.generate()), "DKIM knows RSA and Ed25519"),
        (
            pem_of(rsa_key(2048), PrivateFormat.TraditionalOpenSSL),
            "not an unencrypted PKCS #8 private key",
        ),
        (
            pem_of(rsa_key(2048), encryption=BestAvailableEncryption(b"x")),
            "not an unencrypted PKCS #8 private key",
        ),
        (
            rsa_key(2048).public_key().public_bytes(
                Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            "not an unencrypted PKCS #8 private key",
        ),
    ],
    ids=[
        "empty", "binary", "cut", "changed", "short", "ec", "x25519", "pkcs1",
        "encrypted", "public",
    ],
)  # fmt: skip
def test_what_chasquid_would_not_start_with(pem: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        dkim.load(S, pem)
    body = pem.splitlines()[1:2]
    assert not body or body[0].decode(errors="replace") not in str(caught.value)


def test_the_smallest_rsa_key() -> None:
    assert dkim.load(S, pem_of(rsa_key(1024))).algorithm is Algorithm.RSA
    with pytest.raises(ValueError, match="an RSA key of 512 bits; receivers want 1024 or more"):
        dkim.load(S, RSA_512)


def test_what_chasquid_gets_is_the_key_alone() -> None:
    """chasquid takes the first PEM block of a file for the key, whatever it is."""
    pem = key_pem(Algorithm.ED25519)
    other = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    key = dkim.load(S, b"# mine\r\n" + other + pem.replace(b"\n", b"\r\n") + b"\ntrailing\n")
    assert key.pem == pem
    one_line = key_pem(Algorithm.RSA).replace(b"\n", b"", 3)
    assert dkim.load(S, one_line).pem == key_pem(Algorithm.RSA)


@pytest.mark.parametrize(
    ("name", "selector"),
    [
        ("dkim:t1r.pem", "t1r"),
        (f"dkim:{'s' * 63}.pem", "s" * 63),
        ("dkim:.pem", None),
        ("dkim:t1r.pem.bak", None),
        (".dkim:t1r.pem.new", None),
        ("users", None),
    ],
)
def test_selectors_in_file_names(name: str, selector: str | None) -> None:
    assert dkim.selector_of(name) == selector
    if selector:
        assert dkim.selector_of(dkim.file_name(Selector(selector))) == selector


def test_a_bad_selector_in_a_file_name() -> None:
    with pytest.raises(ValueError, match=r"'mail\.2026' is not a selector"):
        dkim.selector_of("dkim:mail.2026.pem")
    with pytest.raises(ValueError, match="a selector is written in lower case: t1r"):
        dkim.selector_of("dkim:T1R.pem")


def test_the_letters_that_end_selectors_differ() -> None:
    assert {item.letter for item in Algorithm} == {"r", "e"}
