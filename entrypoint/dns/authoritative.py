"""Questions to DNS. An answer is found, absent, or unknown: a failing server proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
from dns.rdtypes.txtbase import TXTBase

from entrypoint.common.names import Domain

_T = TypeVar("_T")
_UDP_SIZE = 1232  # octets (DNS flag day 2020): more comes over TCP
_MAX_CHAIN = 8  # CNAMEs
_SILENT = "no answer in time"


@dataclass(frozen=True)
class Found(Generic[_T]):
    """What a server said: at least one value, in no order that means anything."""

    values: tuple[_T, ...]


@dataclass(frozen=True)
class Absent:
    """The name does not exist, or has no such record: a server said so."""


@dataclass(frozen=True)
class Unknown:
    """Nobody could say. Never to be read as absent."""

    reason: str


Answer = Found[str] | Absent | Unknown
# What each server that is authoritative for a name says; never empty.
Answers = Mapping[str, Answer]
Ask = Callable[[str, str], Answers]


def one(answers: Answers) -> Answer:
    """What a resolver might see: the first answer that says something."""
    known = [item for item in answers.values() if not isinstance(item, Unknown)]
    return known[0] if known else next(iter(answers.values()))


@dataclass
class Authoritative:
    """Asks the authoritative servers themselves: caches tell yesterday's news.

    Call it with a name and a type; the answers' values are as in a zone file, but a TXT's strings
    are joined. Safe for use from several threads. `timeout` is in seconds, for one server. One that
    is silent once is not asked again: each run wants one of its own.
    """

    timeout: float = 3.0
    _servers: dict[dns.name.Name, Mapping[str, tuple[str, ...]] | Unknown | Absent] = field(
        default_factory=dict
    )
    _silent: set[str] = field(default_factory=set)

    def __call__(self, name: str, kind: str) -> Answers:
        try:
            absolute = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            return {"the rules for names": Absent()}  # SPF records name what cannot exist
        return self._follow(absolute, kind, _MAX_CHAIN)

    def _follow(self, name: dns.name.Name, kind: str, left: int) -> Answers:
        servers = self._servers_of(name)
        if not isinstance(servers, Mapping):
            return {"the resolver": servers}
        answers: dict[str, Answer] = {}
        targets: list[dns.name.Name] = []
        for server, addresses in servers.items():
            answer = self._ask_server(server, addresses, name, kind)
            if not isinstance(answer, dns.name.Name):
                answers[server] = answer
            elif left == 0:
                answers[server] = Unknown("a chain of too many CNAMEs")
            elif answer not in targets:
                targets.append(answer)
        for target in targets:  # each of its servers counts, as those of the name itself
            for server, found in self._follow(target, kind, left - 1).items():
                answers[f"{server} (for {target.to_text(omit_final_dot=True)})"] = found
        return answers

    def _servers_of(self, name: dns.name.Name) -> Mapping[str, tuple[str, ...]] | Unknown | Absent:
        """The name servers of the zone that a name is in, with their addresses."""
        try:
            resolver = _resolver(self.timeout)
        except (dns.exception.DNSException, OSError) as error:
            return Unknown(f"this host has no resolver: {_words(error)}")
        zone = name
        while True:
            if zone in self._servers:
                return self._servers[zone]
            try:
                answer = resolver.resolve(zone, "NS", raise_on_no_answer=False)
            except dns.resolver.NXDOMAIN:
                answer = None
            except (dns.exception.DNSException, OSError) as error:
                where = zone.to_text(omit_final_dot=True)
                return Unknown(f"the name servers of {where} could not be found: {_words(error)}")
            # Those of another name are a CNAME's end, not of this zone.
            if answer is not None and answer.rrset is not None and answer.rrset.name == zone:
                break
            if zone == dns.name.root:
                return Absent()
            zone = zone.parent()
        found: dict[str, tuple[str, ...]] = {}
        for item in answer.rrset:
            server = item.target.to_text(omit_final_dot=True)
            found[server] = tuple(
                address for kind in ("A", "AAAA") for address in _addresses(resolver, server, kind)
            )
        self._servers[zone] = found
        return found

    def _ask_server(
        self, server: str, addresses: tuple[str, ...], name: dns.name.Name, kind: str
    ) -> Answer | dns.name.Name:
        """One server's answer, at the first of its addresses that gives one; or a CNAME's end."""
        reason = f"the name server {server}: its address could not be found"
        for address in addresses:
            place = f"the name server {server} ({address})"
            if address in self._silent:
                reason = f"{place}: {_SILENT}"
                continue
            query = dns.message.make_query(name, kind, payload=_UDP_SIZE)
            query.flags &= ~dns.flags.RD
            try:
                answer = self._exchange(query, address)
            except (dns.exception.DNSException, OSError) as error:
                if isinstance(error, dns.exception.Timeout):
                    self._silent.add(address)
                reason = f"{place}: {_words(error)}"
                continue
            code = answer.rcode()
            if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                reason = f"{place} answered {dns.rcode.to_text(code)}"
            elif not answer.flags & dns.flags.AA:
                reason = f"{place} does not serve the zone (lame delegation)"
            elif code == dns.rcode.NXDOMAIN:
                return Absent()
            else:
                return _values(answer, name, kind)
        return Unknown(reason)

    def _exchange(self, query: dns.message.Message, address: str) -> dns.message.Message:
        """Over UDP, over TCP if the answer is long or UDP does not get through."""
        try:
            answer, _ = dns.query.udp_with_fallback(query, address, timeout=self.timeout)
        except dns.exception.Timeout:
            answer = dns.query.tcp(query, address, timeout=self.timeout)
        return answer


def _values(answer: dns.message.Message, name: dns.name.Name, kind: str) -> Answer | dns.name.Name:
    wanted = dns.rdatatype.from_text(kind)
    for _ in range(_MAX_CHAIN + 1):
        values = [
            text(item)
            for rrset in answer.answer
            if rrset.name == name and rrset.rdtype == wanted
            for item in rrset
        ]
        if values:
            return Found(tuple(sorted(values)))
        aliases = [
            item.target
            for rrset in answer.answer
            if rrset.name == name and rrset.rdtype == dns.rdatatype.CNAME
            for item in rrset
        ]
        if not aliases:
            return Absent()
        name = aliases[0]
        if not any(rrset.name == name for rrset in answer.answer):
            return name
    return Unknown("a loop of CNAMEs")


def text(item: dns.rdata.Rdata) -> str:
    """RDATA as text; a TXT's strings joined, as SPF and DKIM readers do (RFC 7208 3.3)."""
    if isinstance(item, TXTBase):
        return b"".join(item.strings).decode("utf-8", "backslashreplace")
    return item.to_text()


def _resolver(timeout: float) -> dns.resolver.Resolver:
    """The host's resolver."""
    resolver = dns.resolver.Resolver()
    resolver.lifetime = timeout
    return resolver


def _addresses(resolver: dns.resolver.Resolver, server: str, kind: str) -> list[str]:
    try:
        return [item.address for item in resolver.resolve(f"{server}.", kind)]
    except (dns.exception.DNSException, OSError):
        return []


def _words(error: Exception) -> str:
    """An error in a few words; dnspython's own name every try."""
    if isinstance(error, dns.exception.Timeout):
        return _SILENT
    if isinstance(error, dns.resolver.NoNameservers):
        return "the resolver could not say"
    return str(error).partition("\n")[0][:120] or type(error).__name__


def exchangers(domain: Domain, timeout: float = 3.0) -> Found[Domain] | Absent | Unknown:
    """The MX hosts of a domain, best first (RFC 5321 5.1), asked of the host's resolver.

    A domain without MX but with an address is its own exchanger; a null MX (RFC 7505) is Absent.
    `timeout` is in seconds, for all of it.
    """
    try:
        resolver = dns.resolver.Resolver()
        resolver.lifetime = timeout
        answer = resolver.resolve(f"{domain}.", "MX")
        servers = []
        for item in sorted(answer, key=lambda item: item.preference):
            name = str(item.exchange).removesuffix(".")
            if name:
                servers.append(Domain.parse(name))
        return Found(tuple(dict.fromkeys(servers))) if servers else Absent()
    except dns.resolver.NXDOMAIN:
        return Absent()
    except dns.resolver.NoAnswer:
        return Found((domain,))
    except (dns.exception.DNSException, OSError, ValueError) as error:
        return Unknown(str(error))
