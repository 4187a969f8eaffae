"""Questions to the host's resolver."""

from __future__ import annotations

from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.resolver
import pytest

from entrypoint.dns.authoritative import Absent, Found, Unknown
from entrypoint.dns.resolver import Resolver, Security

ASKED = dns.message.make_query("example.com.", "A")


def error(kind: Any, **details: Any) -> Exception:
    """One of dnspython's exceptions, whose constructors have no types."""
    made = kind(**details)
    assert isinstance(made, Exception)
    return made


def failure(code: str) -> Exception:
    errors = [("198.51.100.53", False, 53, f"{code}", None)]
    return error(dns.resolver.NoNameservers, request=ASKED, errors=errors)


NXDOMAIN = error(dns.resolver.NXDOMAIN, qnames=[ASKED.question[0].name], responses={})
TIMEOUT = error(dns.resolver.LifetimeTimeout, timeout=3.0, errors=[])


class Reply:
    """What a resolver gives back, as far as it is looked at."""

    def __init__(self, *records: str, kind: str = "A", flags: int = 0) -> None:
        query = dns.message.make_query("example.com.", kind)
        self.response = dns.message.make_response(query)
        self.response.flags |= flags
        self.rrset = (
            dns.rrset.from_text("example.com.", 60, "IN", kind, *records) if records else None
        )


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the resolver say things, one after the other."""
    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", lambda *_: None)

    def prepare(*replies: Reply | Exception) -> list[tuple[str, str, int]]:
        asked: list[tuple[str, str, int]] = []
        waiting = list(replies)

        def resolve(self: Any, name: str, kind: str, **_: Any) -> Reply:
            asked.append((name, kind, self.flags or 0))
            assert self.lifetime == 0.5
            reply = waiting.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply

        monkeypatch.setattr(dns.resolver.Resolver, "resolve", resolve)
        return asked

    return prepare


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply("192.0.2.2", "192.0.2.1"), Found(("192.0.2.1", "192.0.2.2"))),
        (Reply('"v=spf1" " -all"', kind="TXT"), Found(("v=spf1 -all",))),
        (Reply(), Absent()),
        (NXDOMAIN, Absent()),
        (failure("SERVFAIL"), Unknown("the resolver said SERVFAIL")),
        (failure("REFUSED"), Unknown("the resolver said REFUSED")),
        (failure("[Errno 111]"), Unknown("the resolver said no usable answer")),
        (TIMEOUT, Unknown("no answer in time")),
        (
            error(dns.resolver.NoResolverConfiguration),
            Unknown("no resolver is set in /etc/resolv.conf"),
        ),
        (OSError(101, "Network is unreachable"), Unknown("[Errno 101] Network is unreachable")),
    ],
)  # fmt: skip
def test_found_absent_and_unknown(says: Any, reply: Reply | Exception, expected: object) -> None:
    asked = says(reply)
    assert Resolver(0.5)("example.com", "A") == expected
    assert asked == [("example.com.", "A", 0)], "absolute: no search list"


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([Reply(flags=dns.flags.AD)], Security.SECURE),
        ([Reply()], Security.INSECURE),
        ([failure("SERVFAIL"), Reply()], Security.BOGUS),
        ([failure("SERVFAIL"), failure("SERVFAIL")], Unknown("the resolver said SERVFAIL")),
        ([failure("SERVFAIL"), TIMEOUT], Unknown("the resolver said SERVFAIL")),
        ([TIMEOUT], Unknown("no answer in time")),
    ],
)
def test_security(says: Any, replies: list[Reply | Exception], expected: object) -> None:
    asked = says(*replies)
    assert Resolver(0.5).security("example.com") == expected
    assert asked[0] == ("example.com.", "SOA", dns.flags.RD | dns.flags.AD)
    if len(asked) > 1:
        assert asked[1][2] == dns.flags.RD | dns.flags.CD, "nobody is to check it"


def test_a_zone_s_own_server(says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def ask(codes: list[int | Exception]) -> object:
        says(Reply("ns1.example.net.", "ns2.example.net.", kind="NS"), Reply("192.0.2.1"),
             Reply("192.0.2.2"))  # fmt: skip
        waiting = list(codes)

        def exchange(query: dns.message.Message, address: str, timeout: float) -> Any:
            assert timeout == 0.5
            assert not query.flags & dns.flags.RD
            sent.append(address)
            code = waiting.pop(0)
            if isinstance(code, Exception):
                raise code
            answer = dns.message.make_response(query)
            answer.set_rcode(dns.rcode.Rcode(code))
            if code == dns.rcode.NOERROR:
                answer.answer = [
                    dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "127.0.0.2")
                ]
            return answer, False

        monkeypatch.setattr(dns.query, "udp_with_fallback", exchange)
        return Resolver(0.5).direct("x.zen.example", "A", "zen.example")

    assert ask([dns.rcode.NOERROR]) == Found(("127.0.0.2",))
    assert ask([dns.rcode.NXDOMAIN]) == Absent()
    assert ask([dns.rcode.REFUSED]) == Unknown("REFUSED")
    sent.clear()
    assert ask([error(dns.exception.Timeout), dns.rcode.NXDOMAIN]) == Absent()
    assert sent == ["192.0.2.1", "192.0.2.2"]
    assert isinstance(ask([OSError(101, "x"), error(dns.exception.Timeout)]), Unknown)


def test_a_zone_without_servers_is_unknown(says: Any) -> None:
    says(NXDOMAIN)
    assert isinstance(Resolver(0.5).direct("x.zen.example", "A", "zen.example"), Unknown)
    says(TIMEOUT)
    assert isinstance(Resolver(0.5).direct("x.zen.example", "A", "zen.example"), Unknown)
