"""This server's public addresses."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from entrypoint.zone import address, render
from entrypoint.zone.required import Addresses, Outbound
from tests.unit.kit import asked

V4, V6 = IPv4Address("203.0.113.10"), IPv6Address("2001:db8::10")


def interfaces(monkeypatch: pytest.MonkeyPatch, v4: str | None, v6: str | None) -> list[Any]:
    """What the kernel would send from; every address that was asked about."""
    asked_about: list[Any] = []

    class Probe:
        def __init__(self, family: socket.AddressFamily, kind: socket.SocketKind) -> None:
            assert kind is socket.SOCK_DGRAM, "no packet leaves"
            self.source = v4 if family is socket.AF_INET else v6

        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def connect(self, target: tuple[str, int]) -> None:
            asked_about.append(target)
            if self.source is None:
                raise OSError(101, "Network is unreachable")

        def getsockname(self) -> tuple[str | None, int]:
            return self.source, 12345

    monkeypatch.setattr(socket, "socket", Probe)
    return asked_about


def test_what_is_set_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_about = interfaces(monkeypatch, "198.51.100.1", "2001:db8::1")
    found = address.find(asked(PUBLIC_IPV4=str(V4), PUBLIC_IPV6=str(V6)))
    assert found == Addresses(V4, V6)
    assert asked_about == []


def test_what_is_found_on_the_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_about = interfaces(monkeypatch, str(V4), str(V6))
    assert address.find(asked()) == Addresses(V4, V6)
    assert len(asked_about) == 2


@pytest.mark.parametrize("private", ["10.0.0.5", "192.168.1.5", "127.0.0.1", None])
def test_an_address_behind_nat_is_not_the_public_one(
    monkeypatch: pytest.MonkeyPatch, private: str | None
) -> None:
    interfaces(monkeypatch, private, None)
    assert address.find(asked()) == Addresses(None, None, has_ipv4=True, has_ipv6=False)


@pytest.mark.parametrize("local", ["fe80::1%eth0", "fd00::1", "::1", None])
def test_without_a_global_ipv6_there_is_none(
    monkeypatch: pytest.MonkeyPatch, local: str | None
) -> None:
    interfaces(monkeypatch, str(V4), local)
    assert address.find(asked()) == Addresses(V4, None, has_ipv6=False)


def test_none_is_none_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces(monkeypatch, str(V4), str(V6))
    assert address.find(asked(PUBLIC_IPV6="none")) == Addresses(V4, None, has_ipv6=False)
    assert address.find(asked(PUBLIC_IPV4="none")) == Addresses(None, V6, has_ipv4=False)


def test_an_echo_is_asked_for_what_nobody_here_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces(monkeypatch, "10.0.0.5", None)
    questions: list[int] = []

    def echo(version: int) -> IPv4Address:
        questions.append(version)
        return V4

    found = address.find(asked(), echo)
    assert found == Addresses(V4, None, has_ipv6=False)
    assert (found.ipv4_from, found.ipv6_from) == ("as a DNS echo sees it", "")
    assert questions == [4], "nobody translates IPv6"
    found = address.find(asked(PUBLIC_IPV4="203.0.113.77"), echo)
    assert (str(found.ipv4), found.ipv4_from) == ("203.0.113.77", "as PUBLIC_IPV4 says")
    assert questions == [4]


def test_an_echo_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces(monkeypatch, "10.0.0.5", None)
    found = address.find(asked(), lambda _version: None)
    assert (found, found.ipv4_from) == (Addresses(None, None, has_ipv6=False), "")


def test_the_interface_is_believed_before_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces(monkeypatch, str(V4), str(V6))
    found = address.find(asked(), lambda version: pytest.fail(f"asked for {version}"))
    assert found.ipv4_from == found.ipv6_from == "as the interface has it"


def test_outbound_addresses_are_what_others_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a private one: the public address if the kernel sends from it anyway, else an echo's."""
    interfaces(monkeypatch, "10.0.0.5", None)
    second, third = IPv4Address("203.0.113.11"), IPv4Address("203.0.113.12")
    echoes = {IPv4Address("10.0.0.6"): third}
    wanted = asked(
        PUBLIC_IPV4=str(V4), OUTBOUND_IPV4=f"{second} 10.0.0.5 10.0.0.6 10.0.0.7",
        OUTBOUND_IPV6="2001:db8::11 2001:db8::12",
    )  # fmt: skip
    found = address.find(wanted, through=lambda local: echoes.get(local))  # type: ignore[arg-type]
    assert [item.seen for item in found.outbound][:4] == [second, V4, third, None]
    sixth = IPv6Address("2001:db8::11")
    assert (found.ipv6, found.has_ipv6) == (sixth, True), "no other IPv6 address is known"
    assert found.further == (second, third, IPv6Address("2001:db8::12"))
    assert found.unseen == (IPv4Address("10.0.0.7"),)
    assert found.sources == (V4, sixth, *found.further)


def test_where_mail_leaves_from_is_said() -> None:
    items = (Outbound(V4, V4), Outbound(IPv4Address("10.0.0.6"), None))
    assert render.origins(Addresses(V4, V6, outbound=items)) == (
        "Mail leaves from 203.0.113.10, as OUTBOUND_IPV4 says.\n"
        "Mail leaves from 10.0.0.6, as OUTBOUND_IPV4 says; others see an address that is not "
        "known.\n"
    )
