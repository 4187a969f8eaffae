"""Domains that mail is sent from, but whose mailboxes are at another provider."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until
from tests.world.world import World

ELSEWHERE = "elsewhere.example"
SETTINGS = {"MAIL_DOMAINS": f"{DOMAIN},{ELSEWHERE}", "MAIL_RECEIVE": DOMAIN}
# Received by IPv6 at the one, by IPv4 alone at the other: so one sees which was used.
MX = """
@   MX   10 mx
mx  A    {net4}.26
mx  AAAA {net6}::26
"""
NOBODY = "192.0.2.53"  # no route leads there from the world
LOOKED_UP_IN_VAIN = f"warn: The MX of {ELSEWHERE} could not be looked up"
OTHER_MX = "@   MX   10 mx4.example.net.\n"


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make(SETTINGS)
    server.up()
    return server


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    server.add_user(f"i@{ELSEWHERE}")
    return server.add_user(f"i@{DOMAIN}")


@pytest.fixture
def zone(world: World) -> Iterator[World]:
    """For tests that change the domain's zone."""
    yield world
    load_mx(world, MX)


def load_mx(world: World, fragment: str) -> None:
    world.load_zone(ELSEWHERE, fragment.format(net4=world.net.net4, net6=world.net.net6))


def family_of_arrival(world: World, subject: str) -> int:
    [delivery] = world.wait_for(subject=subject, timeout=20)
    return ip_address(delivery.client_address).version


def look_again(server: Server) -> None:
    """The keeper's first look-up of exchangers is at its start; the next comes ten minutes on."""
    keeper = server.process("keeper").pid
    server.machine.kill(keeper)
    wait_until(lambda: server.processes("keeper"), "the keeper is back")


def set_resolver(resolv_conf: Path, address: str) -> None:
    # In place: the container keeps the file that it was given.
    resolv_conf.write_text(f"nameserver {address}\noptions timeout:1 attempts:1\n")


def served_aliases(server: Server) -> str:
    path = f"/run/tambo/chasquid/domains/{ELSEWHERE}/aliases"
    return server.container.exec("cat", path).stdout


def exchangers(server: Server) -> str:
    return server.machine.read(server.data / "state/mx.json")


@pytest.mark.parametrize("local", ["anyone", "postmaster", "i"])
def test_mail_from_here_arrives_at_the_domain_s_own_mx(
    server: Server, secret: str, world: World, local: str
) -> None:
    to = f"{local}@{ELSEWHERE}"
    subject = smtp.submit(server.endpoint(), f"i@{DOMAIN}", secret, to)
    [delivery] = world.wait_for(subject=subject, timeout=20)
    assert delivery.to == to
    assert delivery.envelope_from == f"i@{DOMAIN}"
    assert not server.kept(to)


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("sender", ["someone@outside.example", "<>"])
@pytest.mark.parametrize("local", ["i", "anyone", "postmaster"])
def test_mail_from_outside_belongs_to_the_domain_s_own_mx(
    server: Server, sender: str, local: str
) -> None:
    mail = smtp.message("someone@outside.example", f"{local}@{ELSEWHERE}")
    with smtp.mail_server(server.ipv4) as session, pytest.raises(smtplib.SMTPDataError) as refusal:
        session.send_message(mail, sender, [f"{local}@{ELSEWHERE}"])
    assert refusal.value.smtp_code == 554
    assert f"5.7.1 mail to {local}@{ELSEWHERE} is not received here" in str(
        refusal.value.smtp_error
    )
    assert "mx.elsewhere.example" in str(refusal.value.smtp_error)


@pytest.mark.usefixtures("secret")
def test_mail_from_outside_to_an_alias_of_the_owner_s_is_taken(
    server: Server, world: World
) -> None:
    server.ok("add-alias", f"info@{ELSEWHERE}", f"boss@{ELSEWHERE}")
    try:
        subject = smtp.deliver(server.ipv4, f"info@{ELSEWHERE}")
        [delivery] = world.wait_for(subject=subject, timeout=20)
        assert delivery.to == f"boss@{ELSEWHERE}"
    finally:
        server.ok("remove-alias", f"info@{ELSEWHERE}")


def test_no_mx_record_is_asked_for(server: Server) -> None:
    zone = server.ok("dns", "--format", "zone")
    ours, theirs = zone.split(f"$ORIGIN {ELSEWHERE}.")
    assert "\tMX\t" in ours
    assert "\tMX\t" not in theirs


def test_a_changed_mx_is_followed(server: Server, secret: str, zone: World) -> None:
    def send() -> str:
        return smtp.submit(server.endpoint(), f"i@{DOMAIN}", secret, f"i@{ELSEWHERE}")

    assert family_of_arrival(zone, send()) == 6
    load_mx(zone, OTHER_MX)
    look_again(server)
    wait_until(lambda: "mx4.example.net" in exchangers(server), "the keeper saw the new MX")
    wait_until(lambda: "mx4" in served_aliases(server), "it is in service")
    assert family_of_arrival(zone, send()) == 4


def test_mail_waits_while_dns_is_down_at_a_boot(servers: Servers, base: Path, world: World) -> None:
    """What was known of the exchangers serves; nothing bounces, and it arrives afterwards."""
    resolv_conf = base / "resolv.conf.later-down"
    set_resolver(resolv_conf, world.net.v4(53))
    server = servers.make(SETTINGS, resolv_conf=resolv_conf)
    server.up()
    secret = server.add_user(f"i@{DOMAIN}")
    server.down()
    set_resolver(resolv_conf, NOBODY)
    server.log.expect(LOOKED_UP_IN_VAIN, "deferred id=")
    server.up()
    subject = smtp.submit(server.endpoint(), f"i@{DOMAIN}", secret, f"i@{ELSEWHERE}")
    wait_until(lambda: "deferred id=" in server.container.log(), "it was tried in vain")
    assert len(server.queued()) == 1
    wait_until(lambda: LOOKED_UP_IN_VAIN in server.container.log(), "the keeper looked")
    set_resolver(resolv_conf, world.net.v4(53))
    # A new chasquid tries what waits at once; this one would in a minute.
    server.control("restart")
    [delivery] = world.wait_for(subject=subject, timeout=20)
    assert delivery.to == f"i@{ELSEWHERE}"
    wait_until(lambda: not server.queued(), "the queue is empty")
    assert not server.kept(f"i@{DOMAIN}"), "no bounce came back"


def test_while_an_mx_was_never_seen_the_sender_is_asked_to_try_again(
    servers: Servers, base: Path, world: World
) -> None:
    """Whatever were queued now would be stuck with a wrong server, and bounce after days."""
    resolv_conf = base / "resolv.conf.down"
    set_resolver(resolv_conf, NOBODY)
    server = servers.make(SETTINGS, resolv_conf=resolv_conf)
    server.log.expect(LOOKED_UP_IN_VAIN)
    server.up()
    wait_until(lambda: LOOKED_UP_IN_VAIN in server.container.log(), "the keeper looked")
    secret = server.add_user(f"i@{DOMAIN}")
    server.add_user(f"i@{ELSEWHERE}")
    for to in (f"i@{ELSEWHERE}", f"anyone@{ELSEWHERE}"):
        with pytest.raises(smtplib.SMTPResponseException) as refusal:
            smtp.submit(server.endpoint(), f"i@{DOMAIN}", secret, to)
        assert refusal.value.smtp_code == 451
    assert not server.queued()
    set_resolver(resolv_conf, world.net.v4(53))
    look_again(server)
    wait_until(lambda: "mx.elsewhere" in exchangers(server), "the keeper saw the MX")
    wait_until(lambda: "via" in served_aliases(server), "it is in service")
    for to in (f"i@{ELSEWHERE}", f"anyone@{ELSEWHERE}"):
        subject = smtp.submit(server.endpoint(), f"i@{DOMAIN}", secret, to)
        [delivery] = world.wait_for(subject=subject, timeout=20)
        assert delivery.to == to
    assert not server.kept(f"i@{DOMAIN}"), "no bounce came back"
