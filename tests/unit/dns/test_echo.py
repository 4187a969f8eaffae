"""What is made of the answers of servers that say which address a question came from."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import dns.exception
import dns.message
import dns.query
import dns.rdata
import dns.resolver
import dns.rrset
import pytest
from dns.rdatatype import TXT

from entrypoint.dns import echo
from entrypoint.dns.echo import Echo, Service

FIRST, SECOND = (
    Service("first.example.", "me.example."),
    Service("other.example.", "i.example.", TXT),
)
SEEN = "203.0.113.10"

Answering = Callable[[str, list[str]], None]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Answering:
    """Say what the two services answer; an empty string: no record. A question from another address
    than the kernel's choice is answered with that address's last number plus 100."""

    def start(first: str, second: list[str]) -> None:
        def udp(
            query: dns.message.Message, server: str, *, timeout: float, source: str | None
        ) -> dns.message.Message:
            assert (server, timeout) == ("192.0.2.53", 2.0)
            answer = dns.message.make_response(query)
            name, kind = query.question[0].name, query.question[0].rdtype
            says = [f"203.0.113.{100 + int(source.rpartition('.')[2])}"] if source else second
            texts = (
                [f'"{item}"' for item in says] if kind == TXT else [says[0] if source else first]
            )
            if texts != [""]:
                answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", kind, texts))
            return dns.message.from_wire(answer.to_wire())

        monkeypatch.setattr(dns.query, "udp", udp)

    monkeypatch.setattr(echo, "SERVICES", (FIRST, SECOND))
    server = [dns.rdata.from_text("IN", "A", "192.0.2.53")]
    monkeypatch.setattr(dns.resolver.Resolver, "resolve", lambda *_: server)
    return start


def test_both_say_the_same(answering: Answering) -> None:
    answering(SEEN, [SEEN])
    assert Echo()(4) == IPv4Address(SEEN)
    answering("2001:db8::1", ["2001:db8::1"])
    assert Echo()(6) == IPv6Address("2001:db8::1")


def test_what_others_see_for_one_of_several_addresses(answering: Answering) -> None:
    answering(SEEN, [SEEN])
    assert Echo().through(IPv4Address("10.0.0.6")) == IPv4Address("203.0.113.106")


def test_one_that_has_no_answer_does_not_hinder_the_other(answering: Answering) -> None:
    answering("", ["edns0-client-subnet 198.51.100.0/24", SEEN])
    assert Echo()(4) == IPv4Address(SEEN)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (SEEN, "198.51.100.7"),  # a proxy for DNS stands between
        ("", "no address"),
        ("10.0.0.5", "192.168.0.5"),  # not the internet's
        ("", "2001:db8::1"),  # the other family
    ],
)
def test_no_answer_that_can_be_believed(answering: Answering, first: str, second: str) -> None:
    answering(first, [second])
    assert Echo()(4) is None


@pytest.mark.parametrize("error", [dns.exception.Timeout, OSError])
def test_nobody_answers(
    answering: Answering, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    answering(SEEN, [SEEN])

    def udp(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(dns.query, "udp", udp)
    assert Echo()(4) is None


def test_a_resolver_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise dns.resolver.NXDOMAIN

    monkeypatch.setattr(echo, "SERVICES", (FIRST, SECOND))
    monkeypatch.setattr(dns.resolver.Resolver, "resolve", fail)
    assert Echo()(4) is None
