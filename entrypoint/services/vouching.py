"""Asks DNS about a stranger's message that nobody vouches for, before it is forwarded.

The policy service goes on with other messages meanwhile. `policy.vouching` says which domains are
asked about and what follows; `dns.dmarc` bounds the questions in time and number.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from entrypoint.dns.dmarc import Policies, Policy
from entrypoint.policy import decide, vouching
from entrypoint.policy.decide import Answer, Code, Envelope, Rules
from entrypoint.policy.vouching import Asked

_MEANS = {
    Policy.NONE: Asked.NOTHING,
    Policy.QUARANTINE: Asked.STRICT,
    Policy.REJECT: Asked.STRICT,
    Policy.UNKNOWN: Asked.UNKNOWN,
}


@dataclass
class Vouching:
    """For one event loop."""

    policies: Policies = field(default_factory=Policies)

    async def refusal(
        self, rules: Rules | None, envelope: Envelope, section: bytes
    ) -> Answer | None:
        """Why a message is not forwarded; None if nothing is in the way, or something else is."""
        if rules is None:
            return None
        domains = sorted(vouching.question(rules, envelope, section))
        if not domains or decide.decide(rules, envelope, section).code is not Code.ACCEPT:
            return None
        found = await asyncio.gather(*map(self.policies.of, domains))
        asked = {name: _MEANS[policy] for name, policy in zip(domains, found, strict=True)}
        return vouching.answer(section, asked)
