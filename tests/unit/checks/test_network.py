"""The way out and the way in."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from entrypoint.checks import network
from entrypoint.checks.machine import Machine
from entrypoint.common.findings import Level
from entrypoint.common.paths import Paths
from entrypoint.zone.required import Addresses, Outbound
from tests.unit.checks.kit import FAILED, RECEIVER4, RECEIVER6, RECEIVERS, V4, V6, Scene

NO_ROUTE = OSError(101, "Network is unreachable")
TIMEOUT = TimeoutError(110, "Connection timed out")
INCOMING = "ports-from-outside"


def test_a_healthy_network_whose_way_in_nobody_has_seen(scene: Scene) -> None:
    found = scene.only(network.check)
    assert (found.id, found.level) == (INCOMING, Level.UNKNOWN)
    assert found.fix.splitlines()[1:] == [
        "for port in 25 465 587; do nc -4 -vz smtp.example.com $port; done",
        "for port in 25 465 587; do nc -6 -vz smtp.example.com $port; done",
    ]


# The resolver


def test_a_resolver_that_fails_is_said_once_and_the_rest_is_unknown(scene: Scene) -> None:
    scene.dns.failing = True
    found = {item.id: item for item in scene.found(network.check) if item.subject != "IPv6"}
    assert {name: item.level for name, item in found.items()} == {
        "resolver": Level.FAIL, "port-25-unknown": Level.UNKNOWN, INCOMING: Level.UNKNOWN,
    }  # fmt: skip
    assert found["resolver"].seen == "no answer in time"


def test_a_resolver_that_knows_no_root(scene: Scene) -> None:
    scene.dns.set("", "NS")
    assert "resolver" in scene.ids(network.check, Level.FAIL)


# Outgoing port 25


@pytest.mark.parametrize(("address", "family"), [(RECEIVER4, "IPv4"), (RECEIVER6, "IPv6")])
def test_port_25_blocked_in_one_family(scene: Scene, address: str, family: str) -> None:
    scene.box.banners[address] = TIMEOUT
    found = scene.only(network.check, Level.FAIL)
    assert (found.id, found.subject) == ("port-25-blocked", family)
    assert "Connection timed out" in found.seen
    assert all(receiver in found.seen for receiver in RECEIVERS)


def test_one_receiver_that_does_not_answer_is_no_blocked_port(scene: Scene) -> None:
    scene.dns.set(f"mx.{RECEIVERS[0]}", "A", "198.51.100.99")
    assert scene.ids(network.check, Level.FAIL) == []
    found = scene.only(network.check, Level.WARN)
    assert (found.id, found.subject) == ("port-25-silent", f"IPv4 {RECEIVERS[0]}")


def test_a_receiver_that_refuses(scene: Scene) -> None:
    scene.dns.set(f"mx.{RECEIVERS[0]}", "A", "198.51.100.99")
    scene.box.banners["198.51.100.99"] = "554 5.7.1 your address is on a list"
    found = scene.only(network.check, Level.WARN)
    assert (found.id, found.seen) == ("port-25-refused", "554 5.7.1 your address is on a list")


@pytest.mark.parametrize(("address", "word"), [(RECEIVER4, "ip route"), (RECEIVER6, "netplan")])
def test_no_way_out_is_no_blocked_port(scene: Scene, address: str, word: str) -> None:
    scene.box.banners[address] = NO_ROUTE
    found = scene.only(network.check, Level.FAIL)
    assert found.id == "port-25-no-route"
    assert word in found.fix


def test_receivers_without_ipv6_prove_nothing_about_ipv6(scene: Scene) -> None:
    for receiver in RECEIVERS:
        scene.dns.set(f"mx.{receiver}", "AAAA")
    found = [item for item in scene.found(network.check) if item.id == "port-25-unknown"]
    assert [(item.subject, item.level) for item in found] == [("IPv6", Level.UNKNOWN)]
    scene.dns.set(f"mx.{RECEIVERS[1]}", "AAAA", RECEIVER6)
    assert scene.ids(network.check) == [INCOMING], "one is enough"


@pytest.mark.parametrize("kind", ["MX", "A"])
def test_receivers_that_cannot_be_looked_up_are_unknown(scene: Scene, kind: str) -> None:
    for receiver in RECEIVERS:
        scene.dns.fail(receiver if kind == "MX" else f"mx.{receiver}", kind)
    found = [item for item in scene.found(network.check) if item.subject == "IPv4"]
    assert [(item.id, item.level) for item in found] == [("port-25-unknown", Level.UNKNOWN)]
    assert found[0].seen == FAILED.reason


def test_receivers_that_are_not_there_are_unknown(scene: Scene) -> None:
    for receiver in RECEIVERS:
        scene.dns.set(receiver, "MX")
    assert scene.ids(network.check) == ["port-25-unknown", "port-25-unknown", INCOMING]


def test_the_best_exchanger_is_asked(scene: Scene) -> None:
    scene.found(network.check)
    assert ("mx.big.example", "A") in scene.dns.asked
    assert ("other.big.example", "A") not in scene.dns.asked


def test_ipv6_that_is_off_is_not_tried(scene: Scene) -> None:
    scene.box.files["/proc/sys/net/ipv6/conf/all/disable_ipv6"] = "1\n"
    scene.box.banners[RECEIVER6] = NO_ROUTE
    assert scene.ids(network.check) == [INCOMING], "the theme host has it"


def test_a_family_that_is_not_used_is_not_tried(scene: Scene) -> None:
    scene.addresses = Addresses(V4, None, has_ipv6=False)
    scene.box.banners[RECEIVER6] = TIMEOUT
    found = scene.only(network.check)
    assert found.id == INCOMING
    assert "nc -6" not in found.fix


# Addresses


def test_translated_addresses_are_news(scene: Scene) -> None:
    scene.box.sources[4] = IPv4Address("10.0.0.5")
    found = scene.only(network.check, Level.INFO)
    assert (found.id, found.seen) == ("address-nat", f"10.0.0.5 here, {V4} outside")


def test_an_address_that_mail_does_not_leave_from(scene: Scene) -> None:
    scene.box.sources[6] = IPv6Address("2001:db8::abcd")
    found = scene.only(network.check, Level.WARN)
    assert (found.id, found.subject) == ("address-differs", "IPv6")
    assert found.fix.splitlines()[-1] == "PUBLIC_IPV6=2001:db8::abcd"


def test_an_address_that_is_not_known(scene: Scene) -> None:
    scene.addresses = Addresses(None, None)
    scene.box.sources[4] = IPv4Address("10.0.0.5")
    found = [item for item in scene.found(network.check) if item.id == "address-unknown"]
    assert [(item.subject, item.level) for item in found] == [
        ("IPv4", Level.UNKNOWN), ("IPv6", Level.UNKNOWN),
    ]  # fmt: skip
    assert found[0].seen == "the interface has 10.0.0.5"
    assert found[0].fix.splitlines()[-1] == "PUBLIC_IPV4=ADDRESS"


def test_others_see_another_address_than_the_interface(scene: Scene) -> None:
    scene.box.seen[4] = IPv4Address("198.51.100.99")
    found = scene.only(network.check, Level.WARN)
    assert (found.id, found.subject) == ("address-echo-differs", "IPv4")
    assert found.seen == "198.51.100.99, by a DNS echo"
    assert found.fix.splitlines()[-1] == "PUBLIC_IPV4=198.51.100.99"


def test_what_is_set_is_not_what_others_see_behind_a_router(scene: Scene) -> None:
    scene.box.sources[4] = IPv4Address("10.0.0.5")
    scene.box.seen[4] = IPv4Address("198.51.100.99")
    found = scene.only(network.check, Level.WARN)
    assert (found.id, found.seen) == ("address-differs", "198.51.100.99, as others see it")
    assert found.fix.splitlines()[-1] == "PUBLIC_IPV4=198.51.100.99"


def test_an_echo_that_agrees_is_no_news(scene: Scene) -> None:
    scene.box.seen = {4: V4, 6: V6}
    assert scene.ids(network.check) == [INCOMING]


def outbound(scene: Scene, local: str, seen: str | None) -> Outbound:
    item = Outbound(IPv4Address(local), IPv4Address(seen) if seen else None)
    scene.addresses = replace(scene.addresses, outbound=(*scene.addresses.outbound, item))
    scene.publish()
    return item


def test_mail_leaves_from_one_of_the_outbound_addresses(scene: Scene) -> None:
    scene.box.sources[4] = IPv4Address("203.0.113.11")
    outbound(scene, "203.0.113.11", "203.0.113.11")
    assert scene.ids(network.check) == [INCOMING]


def test_an_outbound_address_that_no_interface_has(scene: Scene) -> None:
    outbound(scene, "203.0.113.11", "203.0.113.11")
    item = outbound(scene, "203.0.113.12", "203.0.113.12")
    scene.box.unbound[item.local] = OSError(99, "Cannot assign requested address")
    found = scene.only(network.check, Level.FAIL)
    assert (found.id, found.subject) == ("outbound-not-here", "203.0.113.12")
    assert "OUTBOUND_IPV4" in found.fix
    assert found.fix.splitlines()[-1] == "sudo ip address add 203.0.113.12/32 dev ens3"


def test_an_outbound_address_that_could_not_be_tried(scene: Scene) -> None:
    item = outbound(scene, "203.0.113.11", "203.0.113.11")
    scene.box.unbound[item.local] = OSError(24, "Too many open files")
    assert scene.ids(network.check) == ["outbound-unknown", INCOMING]


def test_a_translated_outbound_address_of_which_others_see_nobody_knows_what(scene: Scene) -> None:
    outbound(scene, "10.0.0.6", None)
    assert scene.ids(network.check) == ["outbound-unseen", INCOMING]


def test_binding_is_what_the_kernel_says() -> None:
    bind = Machine.real(Paths()).bind
    bind(IPv4Address("127.0.0.1"))
    with pytest.raises(OSError, match="Cannot assign requested address"):
        bind(IPv4Address("203.0.113.11"))


def test_port_25_that_is_closed_for_an_outbound_address_alone(scene: Scene) -> None:
    item = outbound(scene, "203.0.113.11", "203.0.113.11")
    scene.box.banners_from[item.local] = TIMEOUT
    found = scene.only(network.check, Level.FAIL)
    assert (found.id, found.subject) == ("outbound-blocked", "203.0.113.11")
    scene.box.banners[RECEIVER4] = TIMEOUT
    assert scene.ids(network.check, Level.FAIL) == ["port-25-blocked"], "said once"


def test_a_receiver_that_refuses_an_outbound_address_alone(scene: Scene) -> None:
    item = outbound(scene, "203.0.113.11", "203.0.113.11")
    scene.box.banners_from[item.local] = "554 no reverse DNS"
    found = scene.only(network.check, Level.WARN)
    assert (found.id, found.seen) == ("outbound-refused", "554 no reverse DNS")


def test_a_greeting_is_asked_for_from_the_source_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_for: list[object] = []
    ours, theirs = socket.socketpair()
    theirs.sendall(b"220 mx.example.net ESMTP\r\n")

    def connect(address: object, _timeout: float, source: object) -> socket.socket:
        asked_for.append((address, source))
        return ours

    monkeypatch.setattr(socket, "create_connection", connect)
    banner = Machine.real(Paths()).banner_from(RECEIVER4, 25, IPv4Address("203.0.113.11"))
    with theirs:
        assert (banner, theirs.recv(100)) == ("220 mx.example.net ESMTP", b"QUIT\r\n")
    assert asked_for == [((RECEIVER4, 25), ("203.0.113.11", 0))]
