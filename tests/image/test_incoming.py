"""Mail that arrives: kept, forwarded or refused, and never lost."""

from __future__ import annotations

import smtplib
from email import message_from_string
from email.policy import default

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.server import DOMAIN, HOST, Server
from tests.support.wait import wait_until
from tests.world.world import World

FORWARD_TO = "me@example.net"


@pytest.fixture(scope="module")
def keeping(module_servers: Servers) -> Server:
    """A server that forwards nothing, with the user i@."""
    server = module_servers.make()
    server.up()
    server.add_user(f"i@{DOMAIN}")
    return server


@pytest.fixture(scope="module")
def forwarding(module_servers: Servers) -> Server:
    """A server that forwards what it may, with the user i@."""
    server = module_servers.make({"FORWARD_TO": FORWARD_TO})
    server.up()
    server.add_user(f"i@{DOMAIN}")
    return server


def assert_kept(server: Server, address: str) -> None:
    subject = smtp.deliver(server.ipv4, address)

    def found() -> list[str]:
        return [text for text in server.kept(address) if subject in text]

    [text] = wait_until(found, f"mail to {address} is in its Maildir")
    mail = message_from_string(text, policy=default)
    assert mail["Return-Path"] == "<someone@outside.example>"
    assert mail["Delivered-To"] == address
    assert mail.get_content() == "A line of text.\n.\n..and one with dots.\n"


@pytest.mark.parametrize("domain", [DOMAIN, HOST])
@pytest.mark.parametrize("name", ["postmaster", "abuse", "rua", "ruf"])
def test_addresses_that_must_exist_are_kept(keeping: Server, name: str, domain: str) -> None:
    assert_kept(keeping, f"{name}@{domain}")


def test_a_user_s_mail_is_kept(keeping: Server) -> None:
    assert_kept(keeping, f"i@{DOMAIN}")


@pytest.mark.parametrize("sink", ["keeping", "forwarding"])
@pytest.mark.parametrize("name", ["rua", "ruf"])
def test_reports_are_kept_also_where_mail_is_forwarded(
    request: pytest.FixtureRequest, world: World, sink: str, name: str
) -> None:
    server: Server = request.getfixturevalue(sink)
    assert_kept(server, f"{name}@{DOMAIN}")
    assert not [mail for mail in world.deliveries(to=FORWARD_TO) if name in mail.envelope_from]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (f"nobody@{DOMAIN}", 550),
        (f"nobody@{HOST}", 550),
        (f"i@{HOST}", 550),
        ("i@not-served.example", 503),
    ],
)
def test_an_unknown_recipient_is_refused_for_good(
    keeping: Server, address: str, expected: int
) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refusal:
        smtp.deliver(keeping.ipv4, address)
    [(code, _)] = refusal.value.recipients.values()
    assert code == expected


def test_mail_without_log_in_goes_nowhere_else(keeping: Server) -> None:
    """No open relay: port 25 takes mail for here alone, the others nothing without AUTH."""
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        smtp.deliver(keeping.ipv4, "you@example.net", sender=f"i@{DOMAIN}")
    for port in (smtp.SUBMISSION, smtp.SUBMISSIONS):
        with smtp.mail_program(keeping.endpoint(), port) as session:
            code, _ = session.mail(f"i@{DOMAIN}")
            assert 500 <= code < 600


@pytest.mark.parametrize("local", ["i", "postmaster", "abuse", "anything", "i+tag"])
def test_all_other_mail_is_forwarded_where_that_is_set(
    forwarding: Server, world: World, local: str
) -> None:
    subject = smtp.deliver(forwarding.ipv4, f"{local}@{DOMAIN}")
    [delivery] = world.wait_for(subject=subject, timeout=20)
    assert delivery.to == FORWARD_TO
    assert delivery.envelope_from.endswith(f"@{DOMAIN}"), "a sender that SPF can hold for"
    assert not forwarding.kept(f"{local}@{DOMAIN}")


@pytest.mark.parametrize("name", ["postmaster", "abuse"])
def test_the_host_name_s_own_addresses_are_forwarded_too(
    forwarding: Server, world: World, name: str
) -> None:
    subject = smtp.deliver(forwarding.ipv4, f"{name}@{HOST}")
    [delivery] = world.wait_for(subject=subject, timeout=20)
    assert delivery.to == FORWARD_TO
