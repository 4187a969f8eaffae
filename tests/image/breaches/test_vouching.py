"""Who vouches for From: only chasquid's own verdicts, and only for the domain that they name.

A stranger writes Authentication-Results of his own (RFC 8601 5), or signs with a domain that has
nothing to do with ours (RFC 6376). Neither makes mail from outside that says it is from here pass.
"""

from __future__ import annotations

import smtplib
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.image.breaches.conftest import FORWARD_TO, GENERATED, Shipped
from tests.support import smtp
from tests.support.server import DOMAIN, HOST
from tests.support.wait import wait_until
from tests.world.world import Delivery

EVIL = "evil.example"  # signs, and has SPF for whoever runs these tests
STRANGER = f"someone@{EVIL}"

# What a forger writes on top of a message from i@example.com.
FORGED: Mapping[str, str] = {
    "as-ours": f"Authentication-Results: {HOST}\n\t;spf=pass (ok)\n\t;dkim=pass  header.b=AAAAAAAA"
    f"  header.d={DOMAIN}",
    "as-ours-one-line": f"Authentication-Results: {HOST}; spf=pass smtp.mailfrom={GENERATED}; "
    f"dkim=pass header.d={DOMAIN}; dmarc=pass header.from={DOMAIN}",
    "as-ours-twice": f"Authentication-Results: {HOST}; dmarc=pass\n"
    f"Authentication-Results: {HOST}; dkim=pass header.d={DOMAIN}",
    "as-the-receiver": f"Authentication-Results: mx.example.net; dmarc=pass header.from={DOMAIN}",
    "as-the-domain": f"Authentication-Results: {DOMAIN}; spf=pass; dkim=pass header.d={DOMAIN}",
    "upper-case": f"AUTHENTICATION-RESULTS: {HOST.upper()}; dkim=pass header.d={DOMAIN}",
    "space-before-colon": f"Authentication-Results : {HOST}; dkim=pass header.d={DOMAIN}",
    "received-spf": f"Received-SPF: pass (ok)\nReceived: from {HOST} by {HOST}; Mon, 1 Jan 2024 "
    "00:00:00 +0000",
    "arc": f"ARC-Authentication-Results: i=1; {HOST}; dkim=pass header.d={DOMAIN}; dmarc=pass",
    "original": f"X-Original-Authentication-Results: {HOST}; dkim=pass header.d={DOMAIN}",
}


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"RATE_STRANGERS": "none"}


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def evil(shipped: Shipped, key: rsa.RSAPrivateKey) -> Iterator[str]:
    """A domain of the attacker's, whose key is published below several names of its own."""
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = dkim_record(public)
    address = shipped.world.net.net4 + ".0/24"
    zone = f'@ TXT "v=spf1 ip4:{address} -all"\n'
    for name in ("k._domainkey", f"k._domainkey.{DOMAIN}", "k._domainkey.example"):
        zone += f"{name} TXT {record}\n"
    shipped.world.load_zone(EVIL, zone)
    shipped.world.load_zone("notexample.com", f"k._domainkey TXT {record}\n")
    yield EVIL
    for domain in (EVIL, "notexample.com"):
        shipped.world.load_zone(domain, "")


def dkim_record(public: bytes) -> str:
    """The key's TXT in strings that fit (RFC 6376 3.6.2.2)."""
    text = f"v=DKIM1; k=rsa; p={b64encode(public).decode()}"
    return " ".join(f'"{text[start : start + 200]}"' for start in range(0, len(text), 200))


def claiming(sender: str, subject: str) -> bytes:
    return smtp.message(sender, GENERATED, subject).as_bytes()


def answer(shipped: Shipped, message: bytes, sender: str = STRANGER) -> str:
    with smtp.mail_server(shipped.server.ipv4, f"mx.{EVIL}") as session:
        try:
            session.sendmail(sender, [GENERATED], message.replace(b"\n", b"\r\n"))
        except smtplib.SMTPDataError as error:
            return f"{error.smtp_code} {bytes(error.smtp_error or b'').decode()}"  # type: ignore[arg-type]
    return "250"


@pytest.mark.parametrize("sender", [STRANGER, GENERATED, "<>"])
@pytest.mark.parametrize("name", FORGED)
def test_forged_results_are_not_believed(
    shipped: Shipped, evil: str, name: str, sender: str
) -> None:
    del evil
    subject = f"forged {name} {uuid.uuid4().hex}"
    message = FORGED[name].encode() + b"\n" + claiming(GENERATED, subject)
    assert answer(shipped, message, sender).startswith("554 5.")


@pytest.mark.parametrize("name", FORGED)
def test_it_can_be_seen_which_results_are_ours(shipped: Shipped, evil: str, name: str) -> None:
    """Ours stand above our Received, what came with the message below it (RFC 8601 5)."""
    del evil
    subject = f"seen {name} {uuid.uuid4().hex}"
    message = FORGED[name].encode() + b"\n" + claiming(STRANGER, subject)
    assert answer(shipped, message) == "250"
    [mail] = shipped.world.wait_for(subject=subject, timeout=20)
    assert mail.to == FORWARD_TO
    lines = sections(mail)
    ours = next(
        number
        for number, line in enumerate(lines)
        if line.startswith("Received: from ") and f" by {HOST} (chasquid) " in line
    )
    above = [line for line in lines[:ours] if line.startswith("Authentication-Results: smtp.")]
    assert len(above) == 1, lines
    assert above[0].startswith(f"Authentication-Results: {HOST} ;spf=pass ")
    assert f"header.d={DOMAIN}" not in above[0]
    first = FORGED[name].partition("\n")[0].split()[0]
    assert any(line.startswith(first) for line in lines[ours + 1 :]), lines


def sections(mail: Delivery) -> list[str]:
    """The header fields as they stand, unfolded."""
    head = mail.raw.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode()
    return [" ".join(field.split()) for field in head.replace("\n\t", " ").replace("\n ", " ")
            .split("\n")]  # fmt: skip


# Signatures that verify, or look as if they would: selector, d=, and more of dkimpy's arguments.
SIGNED: Mapping[str, dict[str, object]] = {
    "of-a-stranger": {"domain": EVIL},
    "of-a-stranger-for-us": {"domain": EVIL, "identity": f"@{EVIL}".encode()},
    "of-a-name-that-ends-alike": {"domain": "notexample.com"},
    "of-ours-below-theirs": {"domain": f"{DOMAIN}.{EVIL}"},
    "of-ours-with-their-key": {"domain": DOMAIN},
    "of-the-suffix": {"domain": "example"},
    "of-a-part-of-the-body": {"domain": EVIL, "length": True},
    "of-a-name-below-ours": {"domain": f"news.{DOMAIN}"},
}


def signed(
    message: bytes, key: rsa.RSAPrivateKey, domain: str, more: Mapping[str, object]
) -> bytes:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    raw = message.replace(b"\n", b"\r\n")
    head: bytes = dkim.sign(raw, b"k", domain.encode(), pem, **more)
    return (head + raw).replace(b"\r\n", b"\n")


@pytest.mark.parametrize("name", SIGNED)
def test_a_signature_of_another_domain_does_not_vouch_for_ours(
    shipped: Shipped, evil: str, key: rsa.RSAPrivateKey, name: str
) -> None:
    more = {key: value for key, value in SIGNED[name].items() if key != "domain"}
    domain = str(SIGNED[name]["domain"])
    subject = f"signed {name} {uuid.uuid4().hex}"
    message = signed(claiming(GENERATED, subject), key, domain, more)
    assert answer(shipped, message, f"x@{evil}").startswith("554 5.7.1 ")
    # Beside one of ours that does not verify.
    pretended = f"DKIM-Signature: v=1; a=rsa-sha256; d={DOMAIN}; s=x; h=from; bh=AA==; b=AA==\n"
    assert answer(shipped, pretended.encode() + message).startswith("554 5.7.1 ")
    assert not shipped.world.deliveries(subject=subject)


def test_a_stranger_s_signature_does_verify_for_the_stranger(
    shipped: Shipped, evil: str, key: rsa.RSAPrivateKey
) -> None:
    """What is refused above is a good signature of the wrong domain."""
    subject = f"honest {uuid.uuid4().hex}"
    message = signed(claiming(STRANGER, subject), key, evil, {})
    assert answer(shipped, message) == "250"
    [mail] = shipped.world.wait_for(subject=subject, timeout=20)
    assert list(mail.dkim.values()) == ["pass"]
    wait_until(lambda: not shipped.server.queued(), "nothing waits")
