"""Mail from outside goes on to the mailbox that is read, and the answer comes from here.

With what a receiver thinks of both, over IPv4 and over IPv6.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.image.conftest import TAMBO, Servers
from tests.support import smtp
from tests.support.server import DOMAIN, HOST, Server
from tests.world.world import Delivery, World

USER = f"i@{DOMAIN}"
OUTSIDE = "rsa-sha256/out"  # the signature of who wrote


@pytest.fixture(scope="module", params=["v4", "v6"])
def leaves(request: pytest.FixtureRequest) -> str:
    """The family by which the mailbox that mail is forwarded to can be reached."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(all_servers: Servers, world: World, leaves: str) -> Iterator[Server]:
    settings = {"DKIM_KEYS": "rsa2048,ed25519", "FORWARD_TO": f"me@{leaves}.example.net"}
    server = all_servers.make(settings, host=TAMBO)
    server.up()
    world.load_zone(DOMAIN, server.ok("dns", "--format", "zone"))
    yield server
    server.remove()
    world.load_zone(DOMAIN, "")


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(USER)


def source(server: Server, family: str) -> str:
    return server.ipv4 if family == "v4" else server.ipv6


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("local", ["i", "anything"])
@pytest.mark.usefixtures("secret")
def test_mail_from_outside_arrives_with_spf_of_ours_and_dkim_of_theirs(
    server: Server, world: World, leaves: str, local: str, family: int
) -> None:
    subject = f"forward {uuid.uuid4().hex}"
    message_id = world.send_from_outside(f"{local}@{DOMAIN}", subject, family=family)
    [delivery] = world.wait_for(message_id=message_id, timeout=30)
    assert delivery.to == f"me@{leaves}.example.net"
    assert delivery.envelope_from == f"{local}+fwd_from=v{family}=writer.example@{DOMAIN}"
    assert delivery.spf == "pass", "of the rewritten sender"
    assert delivery.dkim == {OUTSIDE: "pass"}, "whoever wrote signed it, and nothing was changed"
    assert delivery.dmarc == "pass", "the writer's domain says p=reject"
    assert delivery.client_address == source(server, leaves)
    assert (delivery.client_name, delivery.helo) == (HOST, HOST)
    came_by = {4: world.net.v4(40), 6: world.net.v6(40)}[family]
    assert f"[{'IPv6:' if family == 6 else ''}{came_by}]" in delivery.raw.decode()


def test_the_answer_passes_as_the_address(
    server: Server, secret: str, world: World, leaves: str
) -> None:
    came = world.send_from_outside(USER, f"question {uuid.uuid4().hex}")
    world.wait_for(message_id=came, timeout=30)
    # As Gmail does with "Send mail as": a log-in of this server's, From and sender the address.
    to = f"somebody@{leaves}.example.net"
    mail = smtp.message(USER, to)
    mail["In-Reply-To"] = mail["References"] = came
    with smtp.mail_program(server.endpoint(), smtp.SUBMISSION) as session:
        session.login(USER, secret)
        session.send_message(mail, from_addr=USER, to_addrs=[to])
    [delivery] = world.wait_for(subject=str(mail["Subject"]), timeout=20)
    assert passes(delivery)
    assert delivery.envelope_from == USER
    assert delivery.client_address == source(server, leaves)
    assert f"In-Reply-To: {came}" in delivery.raw.decode()


def passes(delivery: Delivery) -> bool:
    verdicts = [delivery.spf, delivery.dmarc, *delivery.dkim.values()]
    return len(verdicts) == 4 and set(verdicts) == {"pass"}
