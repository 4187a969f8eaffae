"""IPv4 and IPv6: what leaves by which."""

from __future__ import annotations

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.server import DOMAIN, Server
from tests.world.world import World

USER = f"i@{DOMAIN}"


@pytest.fixture(scope="module")
def without_ipv6(module_servers: Servers) -> Server:
    """On a dual-stack network, where only PUBLIC_IPV6=none keeps it from using IPv6."""
    server = module_servers.make({"PUBLIC_IPV6": "none"})
    server.up()
    return server


def test_with_ipv6_a_dual_stack_receiver_is_reached_by_it(servers: Servers, world: World) -> None:
    server = servers.make()
    server.up()
    secret = server.add_user(USER)
    subject = smtp.submit(server.endpoint(), USER, secret, "you@example.net")
    [delivery] = world.wait_for(subject=subject, timeout=20)
    assert delivery.client_address == server.ipv6


def test_public_ipv6_none_sends_nothing_by_ipv6(without_ipv6: Server, world: World) -> None:
    secret = without_ipv6.add_user(USER)
    for _ in range(3):
        subject = smtp.submit(without_ipv6.endpoint(), USER, secret, "you@example.net")
        [delivery] = world.wait_for(subject=subject, timeout=20)
        assert delivery.client_address == without_ipv6.ipv4


def test_public_ipv6_none_asks_for_no_ipv6_record(without_ipv6: Server) -> None:
    records = without_ipv6.verb("dns", "--json").json()
    assert "A" in {record["type"] for record in records}
    assert "AAAA" not in {record["type"] for record in records}
    assert not [record for record in records if record["name"].endswith("ip6.arpa")]
