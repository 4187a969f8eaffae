"""What was refused because From names a domain below one of ours, and the DNS record for it. Pure.

A newsletter service, say, that the owner forgot; or a forger. Whoever sends can make any number of
these, so few are kept: those that came most often, and of these the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from entrypoint.policy.decide import Envelope

_MOST = 50  # entries
_SPAN = 2 * 86400.0  # seconds
_LONGEST = 253  # characters of a domain


@dataclass
class Refusal:
    """Messages of one From domain and one domain of MAIL FROM. `at` is that of the last one, in
    seconds since 1970; `address` where it came from."""

    domain: str
    envelope_domain: str  # empty: MAIL FROM:<>
    address: str
    at: float
    count: int = 1

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "records": list(self.records())}

    def records(self) -> tuple[str, ...]:
        """Either of them makes it pass, in zone-file form where it is known."""
        dkim = (
            f"SELECTOR._domainkey.{self.domain}. TXT: the DKIM key that the service gives, once "
            f"it signs with d={self.domain}"
        )
        aligned = self.envelope_domain == self.domain or self.envelope_domain.endswith(
            f".{self.domain}"
        )
        name = self.envelope_domain if aligned else self.domain
        kind = "ip6" if ":" in self.address else "ip4"
        spf = f'{name}. TXT "v=spf1 {kind}:{self.address} ~all"'
        if not aligned:
            spf += f", once the service sends with MAIL FROM:<…@{self.domain}>"
        return (dkim, spf) if self.address else (dkim,)


@dataclass
class Refusals:
    """The last ones. `add` what decide.Answer.below tells."""

    _found: dict[tuple[str, str], Refusal] = field(default_factory=dict)

    def add(self, domain: str, envelope: Envelope, now: float) -> None:
        sender = envelope.sender.rpartition("@")[2].strip("<>").lower()[:_LONGEST]
        address = address_of(envelope.remote)
        key = (domain, sender)
        if key in self._found:
            found = self._found[key]
            found.at, found.address, found.count = now, address, found.count + 1
            return
        self._forget(now)
        if len(self._found) >= _MOST:
            least = min(self._found, key=lambda key: (self._found[key].count, self._found[key].at))
            del self._found[least]
        self._found[key] = Refusal(domain, sender, address, now)

    def _forget(self, now: float) -> None:
        self._found = {key: item for key, item in self._found.items() if now - item.at < _SPAN}

    def listed(self, now: float) -> list[Mapping[str, Any]]:
        """Those of the last two days, the most frequent ones first."""
        self._forget(now)
        rows = sorted(self._found.values(), key=lambda item: (-item.count, -item.at))
        return [item.as_json() for item in rows]


def address_of(remote: str) -> str:
    """The IP address of a peer, which chasquid gives with its port."""
    if remote.startswith("["):
        return remote[1:].partition("]")[0]
    return remote.partition(":")[0] if remote.count(":") == 1 else remote
