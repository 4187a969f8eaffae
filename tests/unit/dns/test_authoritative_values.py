"""What the authoritative servers say, and which of them say it. No packet leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.dns import authoritative
from entrypoint.dns.authoritative import Absent, Answer, Authoritative, Found, Unknown

NS1, NS2 = "198.51.100.1", "198.51.100.2"
Reply = Callable[[dns.message.Message], dns.message.Message]


def reply(*lines: str, rcode: str = "NOERROR", aa: bool = True) -> Reply:
    """A server's reply: records in zone-file form."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.from_text(rcode))
        if aa:
            response.flags |= dns.flags.AA
        for line in lines:
            name, kind, rdata = line.split(None, 2)
            rdata += "." if kind == "CNAME" else ""
            response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, rdata))
        return response

    return answer


def raises(error: Exception) -> Reply:
    def answer(_: dns.message.Message) -> dns.message.Message:
        raise error

    return answer


def error(kind: Any, **details: Any) -> Exception:
    """One of dnspython's, whose constructors have no types."""
    made = kind(**details)
    assert isinstance(made, Exception)
    return made


TIMEOUT = error(dns.exception.Timeout, timeout=3)


@dataclass
class Internet:
    """Zones with their name servers, those's addresses, and what is said at an address."""

    servers: dict[str, list[str]] = field(
        default_factory=lambda: {"example.com.": ["ns1.example.net.", "ns2.example.net."]}
    )
    addresses: dict[tuple[str, str], str] = field(
        default_factory=lambda: {
            ("ns1.example.net.", "A"): NS1,
            ("ns2.example.net.", "A"): NS2,
        }
    )
    aliases: dict[str, str] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    broken: Exception | None = None
    over_tcp: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)

    def resolve(self, name: Any, kind: str, **_: Any) -> Any:
        """The host's resolver."""
        if self.broken:
            raise self.broken
        key = str(name)
        self.resolved.append(f"{key} {kind}")
        if kind == "NS":
            owner = self.aliases.get(key, key)
            values = self.servers.get(owner)
            if owner != key and not values:
                values = None
        else:
            owner = key
            found = self.addresses.get((key, kind))
            values = [found] if found else None
        if not values:
            raise error(dns.resolver.NXDOMAIN, qnames=[key], responses={})
        rrset = dns.rrset.from_text(owner, 60, "IN", kind, *values)
        return type("Answer", (), {"rrset": rrset, "__iter__": lambda _: iter(rrset)})()

    def udp(self, query: dns.message.Message, address: str, timeout: float) -> Any:
        assert timeout == 0.5
        assert not query.flags & dns.flags.RD, "an authoritative server is not to ask others"
        return self.replies[address](query), False

    def tcp(self, query: dns.message.Message, address: str, timeout: float) -> Any:
        assert timeout == 0.5
        self.over_tcp.append(address)
        return self.replies[f"{address} tcp"](query)


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    found = Internet()
    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", lambda *_: None)
    monkeypatch.setattr(
        dns.resolver.Resolver, "resolve", lambda _, *args, **more: found.resolve(*args, **more)
    )
    monkeypatch.setattr(dns.query, "udp_with_fallback", found.udp)
    monkeypatch.setattr(dns.query, "tcp", found.tcp)
    return found


def ask(name: str = "example.com", kind: str = "TXT") -> dict[str, Answer]:
    return dict(Authoritative(timeout=0.5)(name, kind))


def at_both(internet: Internet, said: Reply) -> Answer:
    """What both servers are found to say."""
    internet.replies = {NS1: said, NS2: said}
    answers = ask()
    assert set(answers) == {"ns1.example.net", "ns2.example.net"}
    [one] = set(answers.values())
    return one


# One server's words


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (reply('example.com TXT "v=spf1 -all"'), Found(("v=spf1 -all",))),
        # Strings are joined without a space (RFC 7208 3.3), several records sorted.
        (reply('example.com TXT "b" "c"', 'example.com TXT "a"'), Found(("a", "bc"))),
        (reply('EXAMPLE.com TXT "a"'), Found(("a",))),
        (reply(), Absent()),
        (reply(rcode="NXDOMAIN"), Absent()),
        # Records of other names or types are no answer.
        (reply('www.example.com TXT "a"', "example.com A 192.0.2.1"), Absent()),
        (reply("example.com CNAME b.example.com", 'b.example.com TXT "a"'), Found(("a",))),
        (
            reply("example.com CNAME b.x", "b.x CNAME c.x", 'c.x TXT "a"'),
            Found(("a",)),
        ),
        (reply("example.com CNAME b.x", "b.x CNAME example.com"), Unknown("a loop of CNAMEs")),
    ],
)
def test_what_a_server_says(internet: Internet, said: Reply, answer: Answer) -> None:
    assert at_both(internet, said) == answer


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (reply(rcode="SERVFAIL"), "answered SERVFAIL"),
        (reply(rcode="REFUSED"), "answered REFUSED"),
        (reply(rcode="NOTIMP"), "answered NOTIMP"),
        (reply('example.com TXT "a"', aa=False), "does not serve the zone (lame delegation)"),
        (reply(aa=False), "does not serve the zone (lame delegation)"),
        (reply(rcode="NXDOMAIN", aa=False), "does not serve the zone (lame delegation)"),
        (raises(OSError(101, "Network is unreachable")), ": [Errno 101] Network is unreachable"),
        (raises(error(dns.query.BadResponse)), ": A DNS query response does not respond"),
    ],
)
def test_a_server_that_fails_proves_nothing(internet: Internet, said: Reply, words: str) -> None:
    internet.replies = {NS1: said, NS2: reply()}
    answers = ask()
    assert answers["ns2.example.net"] == Absent()
    failed = answers["ns1.example.net"]
    assert isinstance(failed, Unknown)
    assert failed.reason.startswith(f"the name server ns1.example.net ({NS1})")
    assert words in failed.reason


def test_what_does_not_get_through_by_udp_is_asked_by_tcp(internet: Internet) -> None:
    internet.replies = {
        NS1: raises(TIMEOUT), f"{NS1} tcp": reply('example.com TXT "a"'),
        NS2: raises(TIMEOUT), f"{NS2} tcp": raises(TIMEOUT),
    }  # fmt: skip
    assert ask() == {
        "ns1.example.net": Found(("a",)),
        "ns2.example.net": Unknown(
            f"the name server ns2.example.net ({NS2}): no answer in time"
        ),
    }  # fmt: skip
    assert internet.over_tcp == [NS1, NS2]


def test_a_server_that_is_silent_is_not_waited_for_again(internet: Internet) -> None:
    """Several records are looked at, and each would wait."""
    internet.replies = {
        NS1: raises(TIMEOUT), f"{NS1} tcp": raises(TIMEOUT),
        NS2: reply(rcode="SERVFAIL"),
    }  # fmt: skip
    authoritative = Authoritative(timeout=0.5)
    first = authoritative("example.com", "TXT")
    assert authoritative("example.com", "TXT") == first
    assert internet.over_tcp == [NS1]
    internet.replies[NS2] = reply()
    assert authoritative("example.com", "TXT")["ns2.example.net"] == Absent()
    # A new look is a new chance.
    internet.replies[NS1] = reply()
    assert ask()["ns1.example.net"] == Absent()


def test_a_server_is_asked_at_its_other_address_too(internet: Internet) -> None:
    six = "2001:db8:5::1"
    internet.addresses["ns1.example.net.", "AAAA"] = six
    internet.replies = {
        NS1: reply(rcode="SERVFAIL"), six: reply('example.com TXT "a"'), NS2: reply(),
    }  # fmt: skip
    assert ask()["ns1.example.net"] == Found(("a",))


def test_a_server_without_address_says_nothing(internet: Internet) -> None:
    del internet.addresses["ns2.example.net.", "A"]
    internet.replies = {NS1: reply()}
    assert ask() == {
        "ns1.example.net": Absent(),
        "ns2.example.net": Unknown(
            "the name server ns2.example.net: its address could not be found"
        ),
    }  # fmt: skip


# Which servers


def test_the_servers_are_those_of_the_zone_above_a_name(internet: Internet) -> None:
    internet.replies = {NS1: reply(), NS2: reply()}
    authoritative = Authoritative(timeout=0.5)
    for name in ("t1._domainkey.example.com", "_dmarc.example.com", "example.com"):
        assert set(authoritative(name, "TXT")) == {"ns1.example.net", "ns2.example.net"}
    assert internet.resolved.count("example.com. NS") == 1, "remembered"


def test_a_name_in_no_zone_does_not_exist(internet: Internet) -> None:
    assert ask("nowhere.example") == {"the resolver": Absent()}
    assert internet.resolved[-1] == ". NS"


@pytest.mark.parametrize(
    "broken",
    [
        error(dns.resolver.NoNameservers, request=dns.message.make_query("x.", "A"), errors=[]),
        error(dns.resolver.LifetimeTimeout, timeout=0.5, errors=[]),
        OSError(101, "Network is unreachable"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failing_resolver_proves_nothing(internet: Internet, broken: Exception) -> None:
    internet.broken = broken
    [(who, answer)] = ask().items()
    assert who == "the resolver"
    assert isinstance(answer, Unknown)
    assert answer.reason.startswith("the name servers of example.com could not be found: ")


def test_a_host_without_resolver_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", fail)
    [answer] = ask().values()
    assert isinstance(answer, Unknown)
    assert answer.reason.startswith("this host has no resolver: ")


# Hypothesis also draws strings that stand in the code, and example.com does exist here.
@given(st.text(max_size=80).filter(lambda name: "example" not in name))
def test_a_name_that_cannot_be_does_not_exist(name: str) -> None:
    """SPF records can name anything."""
    with pytest.MonkeyPatch.context() as patch:
        found = Internet()
        patch.setattr(dns.resolver.Resolver, "read_resolv_conf", lambda *_: None)
        patch.setattr(
            dns.resolver.Resolver, "resolve", lambda _, *args, **more: found.resolve(*args, **more)
        )
        assert set(ask(name).values()) == {Absent()}


# CNAMEs into other zones


@pytest.fixture
def hosted(internet: Internet) -> Internet:
    """example.com, whose names lead to key.x, which has two servers of its own."""
    internet.servers["x."] = ["a.x.", "b.x."]
    internet.addresses |= {("a.x.", "A"): "192.0.2.1", ("b.x.", "A"): "192.0.2.2"}
    alias = reply("example.com CNAME key.x")
    internet.replies = {NS1: alias, NS2: alias}
    return internet


def test_each_server_of_an_alias_s_end_counts(hosted: Internet) -> None:
    """One that lags behind must not hide behind the first."""
    hosted.replies |= {"192.0.2.1": reply('key.x TXT "a"'), "192.0.2.2": reply()}
    assert ask() == {"a.x (for key.x)": Found(("a",)), "b.x (for key.x)": Absent()}


def test_servers_that_do_not_agree_on_an_alias(hosted: Internet) -> None:
    hosted.replies |= {
        NS2: reply('example.com TXT "b"'),
        "192.0.2.1": reply('key.x TXT "a"'), "192.0.2.2": reply(rcode="SERVFAIL"),
    }  # fmt: skip
    assert ask() == {
        "ns2.example.net": Found(("b",)),
        "a.x (for key.x)": Found(("a",)),
        "b.x (for key.x)": Unknown("the name server b.x (192.0.2.2) answered SERVFAIL"),
    }


def test_an_alias_to_a_zone_is_not_served_by_that_zone_s_servers(hosted: Internet) -> None:
    """The resolver follows it, and tells the servers of its end."""
    hosted.servers = {"example.com.": hosted.servers["example.com."], "x.": ["a.x."]}
    hosted.aliases = {"www.example.com.": "x."}
    alias = reply("www.example.com CNAME x")
    hosted.replies = {NS1: alias, NS2: alias, "192.0.2.1": reply('x TXT "a"')}
    assert ask("www.example.com") == {"a.x (for x)": Found(("a",))}


def test_a_chain_without_end_is_unknown(internet: Internet) -> None:
    def longer(query: dns.message.Message) -> dns.message.Message:
        name = query.question[0].name.to_text(omit_final_dot=True)
        return reply(f"{name} CNAME a.{name}")(query)

    internet.replies = {NS1: longer, NS2: longer}
    answers = ask()
    assert answers
    assert set(answers.values()) == {Unknown("a chain of too many CNAMEs")}


# Text


@given(st.lists(st.binary(max_size=255), min_size=1, max_size=4))
def test_a_text_is_its_strings_joined(strings: list[bytes]) -> None:
    rdata = dns.rdata.from_wire(
        dns.rdataclass.IN, dns.rdatatype.TXT,
        b"".join(bytes([len(part)]) + part for part in strings), 0,
        sum(len(part) + 1 for part in strings),
    )  # fmt: skip
    found = authoritative.text(rdata)
    whole = b"".join(strings)
    assert found == whole.decode("utf-8", "backslashreplace")


def test_what_a_resolver_might_see() -> None:
    slow, found = Unknown("slow"), Found(("a",))
    assert authoritative.one({"a": slow, "b": found, "c": Absent()}) == found
    assert authoritative.one({"a": slow, "b": Absent(), "c": found}) == Absent()
    assert authoritative.one({"a": slow}) == slow
