"""This server's address as others see it: DNS servers that answer with where a question is from.

What only they can tell is the address behind which a router translates (RFC 3022).
"""

from __future__ import annotations

import ipaddress
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import dns.exception
import dns.message
import dns.query
import dns.resolver
from dns.rdatatype import AAAA, TXT, A, RdataType

from entrypoint.common.ranges import is_reachable
from entrypoint.dns.authoritative import text


@dataclass(frozen=True)
class Service:
    """`kind` is None where the answer is an A or AAAA, as the family is."""

    server: str
    question: str
    kind: RdataType | None = None


SERVICES = (
    Service("resolver1.opendns.com.", "myip.opendns.com."),
    Service("ns1.google.com.", "o-o.myaddr.l.google.com.", TXT),
)


@dataclass(frozen=True)
class Echo:
    """Call it with an IP version (4 or 6). Safe for use from threads.

    None: nobody answered, or not all answers agree, as behind a proxy for DNS. An answer is not
    signed: whoever can change packets on the way can forge it. `timeout` is in seconds, for each of
    the two steps.
    """

    timeout: float = 2.0

    def __call__(self, version: int) -> IPv4Address | IPv6Address | None:
        return self._seen(version, None)

    def through(self, local: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address | None:
        """What others see for this address of the interface; None also where it is on none."""
        return self._seen(local.version, str(local))

    def _seen(self, version: int, source: str | None) -> IPv4Address | IPv6Address | None:
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(lambda item: self._ask(item, version, source), SERVICES))
        seen = {item for item in answers if item is not None}
        return seen.pop() if len(seen) == 1 else None

    def _ask(
        self, service: Service, version: int, source: str | None
    ) -> IPv4Address | IPv6Address | None:
        family = A if version == 4 else AAAA
        try:
            resolver = dns.resolver.Resolver()
            resolver.lifetime = self.timeout
            server = resolver.resolve(service.server, family)[0].to_text()
            query = dns.message.make_query(service.question, service.kind or family)
            answer = dns.query.udp(query, server, timeout=self.timeout, source=source)
        except (dns.exception.DNSException, OSError):
            return None
        for rrset in answer.answer:
            for item in rrset:
                try:
                    address = ipaddress.ip_address(text(item))
                except ValueError:
                    continue
                if address.version == version and is_reachable(address):
                    return address
        return None
