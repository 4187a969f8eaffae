"""Honest mail of every kind arrives and is forwarded; what nobody vouches for is not.

The kinds are in tests/cases/honest. They are signed here with a key that the world's DNS has, and
come from this machine, which the SPF of some domains names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.image.breaches.conftest import FORWARD_TO, GENERATED, Shipped
from tests.support import honest, smtp
from tests.support.container import checked, docker
from tests.support.honest import Honest
from tests.support.server import DOMAIN, HOST
from tests.support.wait import wait_until
from tests.support.wire import Wire
from tests.world.world import World

CASES = honest.cases()
SELECTOR = "honest"
STRICT = "strict.example"


def _public(key: rsa.RSAPrivateKey) -> str:
    der = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "".join(der.decode().splitlines()[1:-1])


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    # All of it comes from one address.
    return {"RATE_STRANGERS": "none"}


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def published(shipped: Shipped, key: rsa.RSAPrivateKey) -> Iterator[Shipped]:
    """The zones of those who write, with the key and the addresses of this machine."""
    public = _public(key)
    text = f'"v=DKIM1; k=rsa; p={public[:200]}" "{public[200:]}"'
    addresses = []
    for address in (shipped.server.ipv4, shipped.server.ipv6):
        with smtp.mail_server(address) as session:
            assert session.sock is not None
            addresses.append(session.sock.getsockname()[0])
    spf = f'TXT "v=spf1 ip4:{addresses[0]} ip6:{addresses[1]} -all"\n'
    ours = f"{SELECTOR}._domainkey.{DOMAIN}. TXT {text}\n"
    ours += f"{SELECTOR}._domainkey.news.{DOMAIN}. TXT {text}\nbounces.{DOMAIN}. {spf}"
    shipped.publish(ours)
    zones = {*honest.RECORDS, *honest.WITH_SPF} - {f"bounces.{DOMAIN}"}
    for zone in zones:
        fragment = honest.RECORDS.get(zone, "")
        fragment += f"@ {spf}" if zone in honest.WITH_SPF else ""
        fragment += f"{SELECTOR}._domainkey TXT {text}\n" if zone == STRICT else ""
        shipped.world.load_zone(zone, fragment)
    yield shipped
    for zone in zones:
        shipped.world.load_zone(zone, "")


@pytest.fixture(scope="module")
def answers(published: Shipped, key: rsa.RSAPrivateKey) -> Mapping[str, str]:
    """What was answered to each case, by its name."""
    with ThreadPoolExecutor(4) as pool:
        said = pool.map(lambda case: _send(published, _prepared(published, case, key)), CASES)
        return {case.name: answer for case, answer in zip(CASES, said, strict=True)}


def _prepared(shipped: Shipped, case: Honest, key: rsa.RSAPrivateKey) -> Honest:
    message = case.message.replace(b"\n", b"\r\n")
    if case.echo:
        message = _sent_by_us(shipped, case)
    if case.sign:
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        signature = dkim.sign(
            message, SELECTOR.encode(), case.sign.encode(), pem,
            include_headers=[b"from", b"to", b"subject", b"date"],
        )  # fmt: skip
        message = bytes(signature) + message
    if case.add:
        message += case.add.encode() + b"\r\n"
    return replace(case, message=message)


def _sent_by_us(shipped: Shipped, case: Honest) -> bytes:
    """A message of a login's, as its receiver has it."""
    with smtp.mail_program(shipped.server.endpoint()) as session:
        session.login(GENERATED, shipped.secrets[GENERATED])
        session.sendmail(GENERATED, ["talk@example.net"], case.message.replace(b"\n", b"\r\n"))
    [delivery] = shipped.world.wait_for(to="talk@example.net", subject=case.subject)
    start = re.search(rb"(?m)^DKIM-Signature:", delivery.raw)
    assert start
    return delivery.raw[start.start() :].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _send(shipped: Shipped, case: Honest) -> str:
    endpoint = shipped.server.endpoint()
    if case.family == 6:
        endpoint = replace(endpoint, address=shipped.server.ipv6)

    def taken() -> str:
        """The answer, but for the one that says that others still wait: a server tries again."""
        said = deliver(Wire(endpoint), case.sender, GENERATED, case.message)
        return "" if said.startswith("451 4.7.1 too much mail that is forwarded") else said

    return wait_until(taken, f"{case.name} is answered", timeout=60, pause=2)


def deliver(wire: Wire, sender: str, to: str, message: bytes) -> str:
    with wire:
        for line in (
            "EHLO mx.outside.example", f"MAIL FROM:<{sender.strip('<>')}>", f"RCPT TO:<{to}>",
            "DATA",
        ):  # fmt: skip
            said = wire.ask(line)
            if said.code >= 400:
                return f"{line}: {said}"
        wire.send(message + b".\r\n")
        return str(wire.reply())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_honest_mail_arrives(answers: Mapping[str, str], shipped: Shipped, case: Honest) -> None:
    assert answers[case.name].startswith("250 ")
    [delivery] = shipped.world.wait_for(to=FORWARD_TO, subject=case.subject, timeout=60)
    rewritten = "<>" if case.sender == "<>" else f"i+fwd_from={case.sender.replace('@', '=')}"
    assert delivery.envelope_from.startswith(rewritten) or case.sender.endswith(
        f"@bounces.{DOMAIN}"
    )


# What nobody vouches for


def message(sender: str, subject: str = "unproven") -> bytes:
    text = f"From: {sender}\nTo: {GENERATED}\nSubject: {subject}\n\nText.\n"
    return text.replace("\n", "\r\n").encode()


def answer(shipped: Shipped, author: str, sender: str = "x@nothing.example", to: str = "") -> str:
    return deliver(Wire(shipped.server.endpoint()), sender, to or GENERATED, message(author))


@pytest.mark.parametrize("sender", ["x@nothing.example", "<>"])
@pytest.mark.parametrize("author", [f"a@{STRICT}", f"a@mail.{STRICT}", "a@six.example"])
def test_unproven_mail_of_a_strict_domain_is_not_forwarded(
    published: Shipped, author: str, sender: str
) -> None:
    said = answer(published, author, sender)
    assert said.startswith("554 5.7.1 neither SPF nor a DKIM signature vouches for this")


def test_what_stays_here_need_not_be_vouched_for(published: Shipped) -> None:
    assert answer(published, f"a@{STRICT}", to=f"rua@{DOMAIN}").startswith("250 ")
    assert published.server.kept(f"rua@{DOMAIN}")


@contextmanager
def silent(world: World) -> Iterator[None]:
    checked(docker("pause", world.container("authoritative")))
    try:
        yield
    finally:
        checked(docker("unpause", world.container("authoritative")))


@pytest.mark.alone
def test_silent_dns_puts_off_the_unproven_and_keeps_nobody_waiting(published: Shipped) -> None:
    login = published.secrets[GENERATED]
    with silent(published.world), ThreadPoolExecutor(1) as pool:
        # A bounce: SPF, for which chasquid itself waits, is not asked about.
        waiting = pool.submit(answer, published, "a@never-asked.example", "<>")
        time.sleep(1.0)
        began = time.monotonic()
        smtp.submit(published.server.endpoint(), GENERATED, login, f"postmaster@{HOST}")
        took = time.monotonic() - began
        assert waiting.result(timeout=60).startswith("451 4.7.5 DNS could not say")
    assert took < 5.0
    wait_until(lambda: answer(published, "a@never-2.example", "<>")[:3] == "250", "it is back")
