"""Mail that leaves: an independent receiver accepts it, with every verdict a pass."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.image.conftest import TAMBO, Servers
from tests.support import smtp
from tests.support.server import DOMAIN, HOST, Server
from tests.support.smtp import SUBMISSION, SUBMISSIONS
from tests.world.world import Delivery, World

USER = f"i@{DOMAIN}"


@pytest.fixture(scope="module")
def server(module_servers: Servers, world: World) -> Iterator[Server]:
    server = module_servers.make({"DKIM_KEYS": "rsa2048,ed25519"}, host=TAMBO)
    server.up()
    world.load_zone(DOMAIN, server.ok("dns", "--format", "zone"))
    yield server
    world.load_zone(DOMAIN, "")


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(USER)


def dkim_verdicts(delivery: Delivery) -> dict[str, list[str]]:
    """The verdicts by the algorithm that signed."""
    found: dict[str, list[str]] = {}
    for key, value in delivery.dkim.items():
        found.setdefault(key.partition("/")[0], []).append(value)
    return found


@pytest.mark.parametrize("leaves", ["v4", "v6"])
@pytest.mark.parametrize("submitted", ["v4", "v6"])
@pytest.mark.parametrize("port", [SUBMISSION, SUBMISSIONS])
def test_submitted_mail_passes_every_check_of_the_receiver(
    server: Server, secret: str, world: World, port: int, submitted: str, leaves: str
) -> None:
    endpoint = server.endpoint({"v4": server.ipv4, "v6": server.ipv6}[submitted])
    to = f"you@{leaves}.example.net"
    subject = smtp.submit(endpoint, USER, secret, to, port)
    [delivery] = world.wait_for(subject=subject, timeout=20)
    assert delivery.to == to
    assert delivery.envelope_from == USER
    assert delivery.spf == "pass"
    assert dkim_verdicts(delivery) == {"rsa-sha256": ["pass"], "ed25519-sha256": ["pass"]}
    assert delivery.dmarc == "pass"
    assert delivery.tls_version == "TLSv1.3"
    assert delivery.client_address == {"v4": server.ipv4, "v6": server.ipv6}[leaves]
    assert delivery.client_name == HOST, "its PTR leads back to it"
    assert delivery.helo == HOST


@pytest.mark.parametrize("tag", ["rsa", "ed25519"])
def test_a_wrong_key_in_the_zone_shows_as_fail_of_that_key_alone(
    server: Server, secret: str, world: World, tag: str
) -> None:
    zone = server.ok("dns", "--format", "zone")
    # Somebody else's: the keys of RFC 8463's example.
    other = {
        "ed25519": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "rsa": "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6w"
        "y5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4h"
        "stT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
    }[tag]
    broken, count = re.subn(rf"(v=DKIM1; k={tag}; p=)[^;\n]*", rf'\g<1>{other}"', zone)
    assert count == 1, "the zone holds this key once"
    world.load_zone(DOMAIN, broken)
    try:
        subject = smtp.submit(server.endpoint(), USER, secret, "you@example.net")
        [delivery] = world.wait_for(subject=subject, timeout=20)
    finally:
        world.load_zone(DOMAIN, zone)
    verdicts = dkim_verdicts(delivery)
    [wrong], [right] = verdicts.pop(f"{tag}-sha256"), *verdicts.values()
    assert (wrong, right) == ("fail", "pass")


def test_a_missing_spf_and_ptr_do_not_pass(server: Server, secret: str, world: World) -> None:
    """The verdicts above are the receiver's, not the world's default."""
    zone = server.ok("dns", "--format", "zone")
    world.load_zone(DOMAIN, zone.replace(f"a:{HOST}", "a:other.example.com"))
    world.remove_ptr(server.ipv4)
    try:
        subject = smtp.submit(server.endpoint(), USER, secret, "you@v4.example.net")
        [delivery] = world.wait_for(subject=subject, timeout=20)
    finally:
        world.load_zone(DOMAIN, zone)
        world.set_ptr(server.ipv4, HOST)
    assert delivery.spf != "pass"
    assert delivery.client_name == "unknown"
    assert delivery.dmarc == "pass", "by DKIM"
