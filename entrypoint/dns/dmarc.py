"""What the owner of a From domain asks of receivers: DMARC policy discovery (RFC 9989 4.10).

Asked of the host's resolver, while a sender waits for the answer to its message: so each look-up
has an end, few run at once, what was found is kept as long as DNS allows, and a domain whose
servers do not answer is not asked again for a while. All of that is bounded, whoever asks for how
many names. For one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum

import dns.asyncresolver
import dns.exception
import dns.resolver

from entrypoint.common.names import Domain, organizational_domain
from entrypoint.dns.authoritative import text
from entrypoint.dns.policies import Dmarc, tags

PATIENCE = 5.0  # seconds for all questions about one domain; the hook waits nine
_AT_ONCE = 64  # look-ups
_AT_ONCE_EACH = 4  # of names below one organizational domain
_KEPT = 4096  # domains
_LONGEST = 3600.0  # seconds for which an answer is kept
_SHORTEST = 5.0
_SILENT = 60.0  # seconds for which a domain whose DNS failed is not asked again
_MAX_LABELS = 8  # of a name; of longer ones the last seven (RFC 9989 4.10)


class Policy(Enum):
    """What receivers are asked to do with mail that fails DMARC."""

    NONE = "none"  # or there is no record
    QUARANTINE = "quarantine"
    REJECT = "reject"
    UNKNOWN = "unknown"  # DNS could not say


@dataclass(frozen=True)
class Answer:
    """The TXT records of a name; `exists` is False for NXDOMAIN. `ttl` is in seconds."""

    values: tuple[str, ...] = ()
    exists: bool = True
    ttl: float = 300.0


class LookupFailedError(Exception):
    """DNS gave no answer, which is none: it may be another one in a minute."""


Ask = Callable[[str, str], Awaitable[Answer]]


async def resolve(name: str, kind: str) -> Answer:
    """One question. Raises LookupFailedError."""
    try:
        resolver = dns.asyncresolver.Resolver()
        found = await resolver.resolve(
            f"{name}.", kind, raise_on_no_answer=False, lifetime=PATIENCE
        )
    except dns.resolver.NXDOMAIN:
        return Answer(exists=False)
    except (dns.exception.DNSException, OSError, ValueError) as error:
        raise LookupFailedError(str(error)) from None
    ttl = max(0.0, found.expiration - time.time())
    values = tuple(text(item) for item in found.rrset) if found.rrset is not None else ()
    return Answer(values, ttl=ttl)


@dataclass
class Policies:
    """Looks policies up, and remembers them."""

    ask: Ask = resolve
    clock: Callable[[], float] = time.monotonic
    _known: OrderedDict[str, tuple[Policy, float]] = field(default_factory=OrderedDict)
    _under_way: dict[str, asyncio.Task[Policy]] = field(default_factory=dict)
    _each: Counter[str] = field(default_factory=Counter)

    async def of(self, domain: Domain) -> Policy:
        """A domain's policy, in PATIENCE at most. Never raises but for being cancelled."""
        known = self._known.get(domain)
        if known and known[1] > self.clock():
            return known[0]
        task = self._under_way.get(domain)
        if task is None:
            zone = organizational_domain(domain)
            if len(self._under_way) >= _AT_ONCE or self._each[zone] >= _AT_ONCE_EACH:
                return Policy.UNKNOWN
            task = asyncio.create_task(self._look_up(domain))
            self._under_way[domain] = task
            self._each[zone] += 1
            task.add_done_callback(lambda _: self._done(domain, zone))
        # Who asked may go away; others may wait for the same answer.
        return await asyncio.shield(task)

    def _done(self, domain: Domain, zone: Domain) -> None:
        del self._under_way[domain]
        self._each -= Counter({zone: 1})

    async def _look_up(self, domain: Domain) -> Policy:
        try:
            async with asyncio.timeout(PATIENCE):
                found, ttl = await discover(domain, self.ask)
            kept = min(max(ttl, _SHORTEST), _LONGEST)
        except (TimeoutError, LookupFailedError):
            found, kept = Policy.UNKNOWN, _SILENT
        self._known[domain] = (found, self.clock() + kept)
        self._known.move_to_end(domain)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return found


async def discover(domain: Domain, ask: Ask) -> tuple[Policy, float]:
    """The policy that applies to mail whose From has this domain, and the seconds for which that
    may be kept. Raises LookupFailedError."""
    found: list[tuple[str, Dmarc]] = []
    ttl = _LONGEST
    for name in walk(domain):
        answer = await ask(f"_dmarc.{name}", "TXT")
        ttl = min(ttl, answer.ttl)
        record = the_record(answer.values)
        if record is None:
            continue
        found.append((name, record))
        if name == domain or record.public_suffix in ("y", "n"):
            break
    if not found:
        return Policy.NONE, ttl
    name, record = _applicable(found)
    if name == domain:
        return _asked(record, record.policy), ttl
    if record.nonexistent and not (await ask(domain, "A")).exists:
        return _asked(record, record.nonexistent), ttl
    return _asked(record, record.subdomains or record.policy), ttl


def walk(domain: str) -> tuple[str, ...]:
    """The names at which a record is looked for: the domain and those above it."""
    labels = domain.split(".")
    names = [domain]
    labels = labels[1:] if len(labels) < _MAX_LABELS else labels[-_MAX_LABELS + 1 :]
    while labels:
        names.append(".".join(labels))
        labels = labels[1:]
    return tuple(names)


def the_record(values: tuple[str, ...]) -> Dmarc | None:
    """The one record among a name's TXT; several are none (RFC 9989 4.10.1)."""
    found = [value for value in values if Dmarc.is_one(value)]
    if len(found) != 1:
        return None
    try:
        return Dmarc.parse(found[0])
    except ValueError:
        # A record whose p is missing or odd asks for reports alone, if it does (RFC 9989 4.7).
        try:
            return Dmarc("none") if tags(found[0]).get("rua") else None
        except ValueError:
            return None


def _applicable(found: list[tuple[str, Dmarc]]) -> tuple[str, Dmarc]:
    """The record of the domain itself or of its organizational domain, which is the highest one
    that was found; a public suffix (psd=y) has its own only where the name below it has none."""
    name, record = found[-1]
    if record.public_suffix == "y" and len(found) > 1:
        below, other = found[-2]
        if below.partition(".")[2] == name:
            return below, other
    return name, record


def _asked(record: Dmarc, policy: str) -> Policy:
    """With t=y a policy is taken for the next weaker one (RFC 9989 4.7)."""
    if record.testing:
        policy = {"reject": "quarantine"}.get(policy, "none")
    return Policy(policy)
