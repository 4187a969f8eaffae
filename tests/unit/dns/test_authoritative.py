"""Questions to DNS: an answer is found, absent, or unknown."""

from __future__ import annotations

from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import pytest

from entrypoint.dns import authoritative
from entrypoint.dns.authoritative import Absent, Found, Unknown
from tests.unit.kit import EXAMPLE_ORG

QUESTION = dns.message.make_query("example.org.", "MX")


def answer(*records: str) -> dns.resolver.Answer:
    lines = "".join(f"example.org. 60 IN MX {record}\n" for record in records)
    text = (
        "id 1\nopcode QUERY\nrcode NOERROR\nflags QR\n"
        f";QUESTION\nexample.org. IN MX\n;ANSWER\n{lines}"
    )
    return dns.resolver.Answer(
        dns.name.from_text("example.org."),
        dns.rdatatype.MX,
        dns.rdataclass.IN,
        dns.message.from_text(text),  # type: ignore[arg-type]
    )


def replies(monkeypatch: pytest.MonkeyPatch, reply: dns.resolver.Answer | Exception) -> None:
    def resolve(self: Any, name: Any, kind: Any, **_: Any) -> dns.resolver.Answer:
        assert (str(name), str(kind)) == ("example.org.", "MX"), "absolute: no search list"
        assert self.lifetime == 0.25
        if isinstance(reply, Exception):
            raise reply
        return reply

    # No resolv.conf of this machine's matters.
    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", lambda *_: None)
    monkeypatch.setattr(dns.resolver.Resolver, "resolve", resolve)


def raised(kind: Any, **details: Any) -> Exception:
    """One of dnspython's exceptions, whose constructors have no types."""
    error = kind(**details)
    assert isinstance(error, Exception)
    return error


def exchangers() -> Found[Any] | Absent | Unknown:
    return authoritative.exchangers(EXAMPLE_ORG, timeout=0.25)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (["10 mx.example.net."], Found(("mx.example.net",))),
        (
            ["20 b.example.net.", "10 c.example.net.", "10 A.example.net.", "30 c.example.net."],
            Found(("c.example.net", "a.example.net", "b.example.net")),
        ),
        (["0 ."], Absent()),  # RFC 7505: takes no mail
    ],
)
def test_exchangers_best_first(
    monkeypatch: pytest.MonkeyPatch, records: list[str], expected: Found[str] | Absent
) -> None:
    replies(monkeypatch, answer(*records))
    found = exchangers()
    if isinstance(expected, Found) and len(expected.values) == 3:
        # Two are equally good: their order is nobody's promise.
        assert isinstance(found, Found)
        assert set(found.values[:2]) == set(expected.values[:2])
        assert found.values[2:] == expected.values[2:]
    else:
        assert found == expected


def test_a_domain_without_mx_is_its_own_exchanger(monkeypatch: pytest.MonkeyPatch) -> None:
    replies(
        monkeypatch, raised(dns.resolver.NoAnswer, response=dns.message.make_response(QUESTION))
    )
    assert exchangers() == Found((EXAMPLE_ORG,))


def test_a_domain_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    replies(monkeypatch, raised(dns.resolver.NXDOMAIN, qnames=["example.org."], responses={}))
    assert exchangers() == Absent()


@pytest.mark.parametrize(
    "error",
    [
        raised(dns.resolver.NoNameservers, request=QUESTION, errors=[]),
        raised(dns.resolver.LifetimeTimeout, timeout=0.25, errors=[]),
        raised(dns.exception.FormError),
        OSError(101, "Network is unreachable"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failing_server_proves_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    replies(monkeypatch, error)
    found = exchangers()
    assert isinstance(found, Unknown)
    assert found.reason


def test_an_answer_that_is_no_name_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end in chasquid's aliases file."""
    replies(monkeypatch, answer("10 a\\032b.example.net."))
    assert isinstance(exchangers(), Unknown)


def test_a_host_without_resolver_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", fail)
    assert isinstance(exchangers(), Unknown)
