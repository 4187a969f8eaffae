"""The lists of bad senders that large receivers ask (RFC 5782), and what their answers mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from entrypoint.common.findings import Level

_LISTED = IPv4Network("127.0.0.0/8")
# Answers that say "you may not ask", by agreement among lists.
_REFUSED = IPv4Network("127.255.255.0/24")


@dataclass(frozen=True)
class DnsList:
    """One list. `families` are the IP versions that it lists; none: it lists domains.

    `test` is an entry that is always there (RFC 5782 5): whoever does not see it sees nothing.
    `refused` are more answers that mean "you may not ask".
    """

    name: str
    zone: str
    removal: str
    families: tuple[int, ...] = ()
    test: str = "2.0.0.127"
    refused: frozenset[str] = frozenset({"127.0.0.1"})
    meanings: Mapping[str, str] = field(default_factory=dict)
    level: Level = Level.FAIL

    def entry(self, what: IPv4Address | IPv6Address | str) -> str:
        """The name to ask about an address or a domain."""
        if isinstance(what, str):
            return f"{what}.{self.zone}"
        return f"{what.reverse_pointer.rpartition('.')[0].rpartition('.')[0]}.{self.zone}"

    def is_refusal(self, answer: str) -> bool:
        return answer in self.refused or IPv4Address(answer) in _REFUSED

    def is_listing(self, answer: str) -> bool:
        """Whether an answer is one that a list gives; anything else is a stranger's, as from a
        list that has died and whose domain was sold."""
        return not self.is_refusal(answer) and IPv4Address(answer) in _LISTED


_PBL = "by policy (PBL): its network's owner says that it should not send mail"
LISTS = (
    DnsList(
        "Spamhaus ZEN", "zen.spamhaus.org", "https://check.spamhaus.org/", (4, 6),
        meanings={
            "127.0.0.2": "as a spam source (SBL)",
            "127.0.0.3": "as a recent spam source (CSS)",
            "127.0.0.4": "as a compromised machine (XBL)",
            "127.0.0.9": "as a hijacked network (DROP)",
            "127.0.0.10": _PBL,
            "127.0.0.11": _PBL,
        },
    ),
    DnsList("SpamCop", "bl.spamcop.net", "https://www.spamcop.net/bl.shtml", (4,)),
    DnsList(
        "Barracuda", "b.barracudacentral.org", "https://www.barracudacentral.org/rbl/removal-request",
        (4,),
    ),
    DnsList(
        "UCEPROTECT level 1", "dnsbl-1.uceprotect.net", "https://www.uceprotect.net/en/rblcheck.php",
        (4,), level=Level.WARN,
    ),
    DnsList("PSBL", "psbl.surriel.com", "https://psbl.org/remove", (4,), level=Level.WARN),
    DnsList(
        "DroneBL", "dnsbl.dronebl.org", "https://dronebl.org/lookup", (4, 6), test="",
        level=Level.WARN,
    ),
    DnsList(
        "Spamhaus DBL", "dbl.spamhaus.org", "https://check.spamhaus.org/", test="dbltest.com",
        # The second: it lists domains, and was asked about an address.
        refused=frozenset({"127.0.0.1", "127.0.1.255"}),
    ),
    DnsList(
        "SURBL", "multi.surbl.org", "https://surbl.org/surbl-analysis",
        test="surbl-org-permanent-test-point.com",
    ),
    DnsList("URIBL", "multi.uribl.com", "https://lookup.uribl.com/"),
)  # fmt: skip
