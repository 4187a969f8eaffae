"""Whether anybody vouches for a stranger's message that would be forwarded. Pure.

What is forwarded goes out by this server's address, so its receivers hold it against this server.
Mail for which neither SPF nor a DKIM signature of any domain passes, and whose From domain asks
receivers to reject or quarantine such mail (DMARC, RFC 9989 4.7), is refused: they would do so.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from entrypoint.common.names import Domain
from entrypoint.policy import author, decide, header, routes
from entrypoint.policy.decide import Answer, Envelope, Rules

MAX_DOMAINS = 4  # domains of one From that are asked about


class Asked(Enum):
    """What the owner of a domain asks for mail that fails DMARC."""

    NOTHING = "none"  # no policy, or p=none
    STRICT = "reject or quarantine"
    UNKNOWN = "DNS could not say"


def question(rules: Rules, envelope: Envelope, section: bytes) -> frozenset[Domain]:
    """The domains whose policy decides on a message; none if it does not depend on one."""
    if rules.forward_unproven or envelope.login or envelope.from_here or envelope.spf:
        return frozenset()
    if len(section) > header.MAX_HEADER:
        return frozenset()
    if not any(routes.leaves(rules.routes, address) for address in envelope.recipients):
        return frozenset()
    found = decide.results(section)
    if found.spf == "pass" or any(item.result == "pass" for item in found.signatures):
        return frozenset()
    said = author.read(header.lenient(section, author.FIELDS))
    if not said.doubt:
        return frozenset(sorted(said.domains)[:MAX_DOMAINS])
    if sum(map(len, said.values)) > author.MAX_DOUBTFUL:
        return frozenset()  # it is refused for that
    domains = {name for value in said.values for name in header.domains_named(value)}
    return frozenset(sorted(domains)[:MAX_DOMAINS])


def answer(section: bytes, policies: Mapping[Domain, Asked]) -> Answer | None:
    """Why a message of which `question` asked is not taken; None if nothing is in the way."""
    strict = sorted(name for name, asked in policies.items() if asked is Asked.STRICT)
    unknown = sorted(name for name, asked in policies.items() if asked is Asked.UNKNOWN)
    if not strict and not unknown:
        return None
    found = decide.results(section)
    if found.spf_unknown or any(item.unknown for item in found.signatures):
        return decide.later("4.7.5", "DNS could not say whether anybody vouches for this; try "
                            "again later")  # fmt: skip
    if strict:
        return decide.refuse(
            "5.7.1",
            f"neither SPF nor a DKIM signature vouches for this, and the DMARC policy of "
            f"{strict[0]} asks to refuse such mail, so it is not forwarded",
        )
    return decide.later(
        "4.7.5", f"DNS could not say what the DMARC policy of {unknown[0]} is; try again later"
    )
