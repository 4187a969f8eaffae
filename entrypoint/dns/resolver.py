"""Questions to the host's resolver, which everybody here uses who sends mail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver

from entrypoint.dns.authoritative import Absent, Answer, Found, Unknown, text

_UDP_SIZE = 1232  # octets (DNS flag day 2020)
_DIRECT_SERVERS = 2  # of a list's, that are tried

Resolve = Callable[[str, str], Answer]


class Security(Enum):
    """What a resolver makes of a zone's signatures (RFC 4035 4.3)."""

    SECURE = "secure"
    INSECURE = "insecure"  # not signed, or a resolver that does not validate
    BOGUS = "bogus"


@dataclass(frozen=True)
class Resolver:
    """Call it with a name and a type; answers are as dns.lookup's. Safe for use from threads.

    `timeout` is in seconds, for one question.
    """

    timeout: float = 3.0

    def __call__(self, name: str, kind: str) -> Answer:
        try:
            answer = self._resolver().resolve(f"{name}.", kind, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return Absent()
        except (dns.exception.DNSException, OSError) as error:
            return Unknown(_words(error))
        if answer.rrset is None:
            return Absent()
        return Found(tuple(sorted(text(item) for item in answer.rrset)))

    def direct(self, name: str, kind: str, zone: str) -> Answer:
        """The same of one of the zone's own servers: for lists that answer no shared resolver."""
        servers = self(zone, "NS")
        if not isinstance(servers, Found):
            return servers if isinstance(servers, Unknown) else Unknown(f"{zone} has no servers")
        reason = f"no server of {zone} has an address"
        for server in servers.values[:_DIRECT_SERVERS]:
            addresses = self(server.removesuffix("."), "A")
            if not isinstance(addresses, Found):
                continue
            try:
                return self._ask(addresses.values[0], name, kind)
            except (dns.exception.DNSException, OSError) as error:
                reason = f"{server}: {_words(error)}"
        return Unknown(reason)

    def _ask(self, address: str, name: str, kind: str) -> Answer:
        query = dns.message.make_query(f"{name}.", kind)
        query.flags &= ~dns.flags.RD
        answer, _ = dns.query.udp_with_fallback(query, address, timeout=self.timeout)
        code = answer.rcode()
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return Unknown(dns.rcode.to_text(code))
        wanted = dns.rdatatype.from_text(kind)
        values = [text(item) for rrset in answer.answer if rrset.rdtype == wanted for item in rrset]
        return Found(tuple(sorted(values))) if values else Absent()

    def security(self, zone: str) -> Security | Unknown:
        """Does the resolver vouch for a zone, refuse it as forged, or not say?"""
        try:
            response = self._resolver(dns.flags.RD | dns.flags.AD).resolve(
                f"{zone}.", "SOA", raise_on_no_answer=False
            )
        except dns.resolver.NoNameservers as error:
            return self._unchecked(zone, error)
        except (dns.exception.DNSException, OSError) as error:
            return Unknown(_words(error))
        vouched = response.response.flags & dns.flags.AD
        return Security.SECURE if vouched else Security.INSECURE

    def _unchecked(self, zone: str, error: Exception) -> Security | Unknown:
        """Whether an answer that was refused is there when nobody checks it (RFC 4035 3.2.2)."""
        try:
            self._resolver(dns.flags.RD | dns.flags.CD).resolve(f"{zone}.", "SOA")
        except (dns.exception.DNSException, OSError):
            return Unknown(_words(error))
        return Security.BOGUS

    def _resolver(self, flags: int = 0) -> dns.resolver.Resolver:
        resolver = dns.resolver.Resolver()
        resolver.lifetime = self.timeout
        if flags:
            resolver.use_edns(0, dns.flags.DO, _UDP_SIZE)
            resolver.flags = flags
        return resolver


def _words(error: Exception) -> str:
    if isinstance(error, dns.exception.Timeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        codes = ("REFUSED", "SERVFAIL")
        said = next((code for code in codes if code in str(error)), "no usable answer")
        return f"the resolver said {said}"
    if isinstance(error, dns.resolver.NoResolverConfiguration):
        return "no resolver is set in /etc/resolv.conf"
    return str(error).partition("\n")[0][:120] or type(error).__name__
