"""Rates by address: what a network may do here from which nobody has logged in. Pure.

A network is an IPv4 address, or an IPv6 /64, which is what one customer gets. It is a stranger's
unless somebody logged in from it within a week; the machine itself never is one. For a stranger
there is a limit to connections at once, to messages in an hour, and to recipients in an hour that
do not exist here (RATE_STRANGERS); beyond the latter two it is blocked until the hour is over.
Failed log-ins block for a minute at first and for an hour at most; a network that somebody logged
in from may fail twenty times as often: its owner mistypes.

What must never happen: that the machine itself is blocked, or that memory grows with the number of
networks that knock.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from entrypoint.common.errors import shown
from entrypoint.common.rates import Rates
from entrypoint.policy.guessed import Guessed

HOUR = 3600.0  # seconds
KNOWN_FOR = 7 * 86400.0  # seconds after a log-in
TYPOS = 20  # times as many log-ins may fail from where somebody logged in
_FIRST_BLOCK = 60.0  # seconds; twice as long for each failure more
_MOST_BLOCK = HOUR
_MAX_NETWORKS = 20_000  # of which something is remembered, by kind: the oldest are forgotten
_MAX_LOGINS = 50  # remembered of one network


def network_of(address: str) -> str:
    """`198.51.100.7`, or `2001:db8:1:2::/64`. Raises ValueError for what is no address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        if not found.is_loopback:
            return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def is_loopback(network: str) -> bool:
    """Whether `network` (see `network_of`) is the machine itself."""
    return network.startswith("127.") or network == "::1"


class Entry(Enum):
    """What becomes of a connection that has just come."""

    TAKE = "take"
    WAIT = "wait"  # for its greeting, until another one of its network ends
    BLOCKED = "blocked"
    MANY = "many"  # at once


@dataclass(frozen=True)
class Block:
    """No connection is taken from `network` until then (seconds since 1970)."""

    network: str
    reason: str
    since: float
    until: float


@dataclass
class _Tally:
    """How often something happened in the hour that began with the first time."""

    since: float = 0.0
    count: int = 0

    def add(self, now: float) -> int:
        if not self.since <= now < self.since + HOUR:
            self.since, self.count = now, 0
        self.count += 1
        return self.count


@dataclass
class _Deeds:
    """What a network did lately; `failures` are times and logins."""

    messages: _Tally = field(default_factory=_Tally)
    unknown: _Tally = field(default_factory=_Tally)
    failures: list[tuple[float, str]] = field(default_factory=list)


@dataclass
class Strangers:
    """Who is known, who is blocked, and who soon will be. Times are in seconds since 1970."""

    rates: Rates

    guessed: Guessed = field(default_factory=Guessed)
    changed: bool = False  # whether there is something to keep; whoever keeps it sets it back
    _known: OrderedDict[str, dict[str, float]] = field(default_factory=OrderedDict)
    _blocks: OrderedDict[str, Block] = field(default_factory=OrderedDict)
    _deeds: OrderedDict[str, _Deeds] = field(default_factory=OrderedDict)

    # What is known

    def is_stranger(self, network: str, now: float) -> bool:
        return not is_loopback(network) and not self._logins(network, now)

    def has_logged_in(self, network: str, login: str, now: float) -> bool:
        """Whether somebody logged in as `login` from there within a week."""
        return login in self._logins(network, now)

    def _logins(self, network: str, now: float) -> dict[str, float]:
        found = self._known.get(network)
        if found is None:
            return {}
        if any(now - at >= KNOWN_FOR for at in found.values()):
            found = {login: at for login, at in found.items() if now - at < KNOWN_FOR}
            self._known[network] = found
            if not found:
                del self._known[network]
        return found

    def block_of(self, network: str, now: float) -> Block | None:
        block = self._blocks.get(network)
        if block and block.until <= now:
            del self._blocks[network]
            self.changed = True
            return None
        return block

    def entry(self, network: str, connections: int, waiting: int, now: float) -> Entry:
        """Of one more, when the network has so many, and so many that wait for a greeting."""
        if is_loopback(network):
            return Entry.TAKE
        if self.block_of(network, now):
            return Entry.BLOCKED
        most = self.rates.connections
        if most is None or connections < most or not self.is_stranger(network, now):
            return Entry.TAKE
        return Entry.MANY if waiting else Entry.WAIT

    def blocks(self, now: float) -> list[Block]:
        """What is blocked now, the newest last."""
        return [item for item in list(self._blocks.values()) if self.block_of(item.network, now)]

    # What happens

    def logged_in(self, network: str, login: str, now: float) -> None:
        """Somebody logged in from there. While the login is guessed at, that alone makes no network
        known."""
        if is_loopback(network):
            return
        if deeds := self._deeds.get(network):
            deeds.failures = [item for item in deeds.failures if item[1] != login]
        if self.guessed.is_guessed(login, now) and not self.has_logged_in(network, login, now):
            return
        known = self._known.setdefault(network, {})
        self._known.move_to_end(network)
        # It is kept whenever it has become an hour newer: not at every log-in.
        self.changed = self.changed or now - known.get(login, 0.0) > HOUR
        known[login] = now
        if len(known) > _MAX_LOGINS:
            del known[min(known, key=known.__getitem__)]
        _trim(self._known)

    def failed(self, network: str, login: str, now: float) -> Block | None:
        """A log-in failed; the block that it leads to, if it does."""
        if not is_loopback(network) and not self.has_logged_in(network, login, now):
            self.changed = self.guessed.failed(login, now) or self.changed
        if self.rates.failures is None or is_loopback(network):
            return None
        deeds = self._deeds_of(network)
        deeds.failures = [item for item in deeds.failures if now - item[0] < HOUR]
        deeds.failures.append((now, login))
        bound = self.rates.failures * (1 if self.is_stranger(network, now) else TYPOS)
        count = len(deeds.failures)
        del deeds.failures[: -2 * TYPOS * self.rates.failures]
        if count < bound:
            return None
        seconds = min(_MOST_BLOCK, _FIRST_BLOCK * 2.0 ** min(count - bound, 10))
        return self._block(network, f"{count} failed log-ins within an hour", now, now + seconds)

    def received(self, network: str, now: float) -> Block | None:
        """A stranger's message was taken; the block that it leads to, if it does."""
        if self.rates.messages is None or not self.is_stranger(network, now):
            return None
        tally = self._deeds_of(network).messages
        if tally.add(now) < self.rates.messages:
            return None
        reason = f"{self.rates.messages} messages within an hour"
        return self._block(network, reason, now, tally.since + HOUR)

    def unknown_recipient(self, network: str, now: float) -> Block | None:
        """A stranger named a recipient that does not exist; the block that it leads to."""
        if self.rates.unknown is None or not self.is_stranger(network, now):
            return None
        tally = self._deeds_of(network).unknown
        if tally.add(now) < self.rates.unknown:
            return None
        reason = f"{self.rates.unknown} unknown recipients within an hour"
        return self._block(network, reason, now, tally.since + HOUR)

    def _deeds_of(self, network: str) -> _Deeds:
        deeds = self._deeds.setdefault(network, _Deeds())
        self._deeds.move_to_end(network)
        _trim(self._deeds)
        return deeds

    def _block(self, network: str, reason: str, now: float, until: float) -> Block | None:
        before = self._blocks.pop(network, None)
        if before and before.until >= until:
            self._blocks[network] = before
            return None
        block = Block(network, reason, now, until)
        self._blocks[network] = block
        self.changed = True
        _trim(self._blocks)
        return block

    def unblock(self, network: str | None) -> list[Block]:
        """Let one in again, or all, and forget what led to it; what had been blocked."""
        names = [network] if network else list(self._blocks)
        gone = [block for name in names if (block := self._blocks.pop(name, None))]
        for name in names:
            self._deeds.pop(name, None)
        self.changed = self.changed or bool(gone)
        return gone

    # What is kept

    def to_json(self) -> dict[str, Any]:
        return {
            "guessed": self.guessed.to_json(),
            "known": dict(self._known),
            "blocks": [asdict(block) for block in self._blocks.values()],
        }

    def load(self, content: dict[str, Any], now: float) -> None:
        """Raises ValueError, KeyError, TypeError or AttributeError for what `to_json` did not
        make; then nothing is taken from it."""
        known = OrderedDict(
            (network_key(network), {str(login): float(at) for login, at in logins.items()})
            for network, logins in content["known"].items()
        )
        blocks = [Block(**item) for item in content["blocks"]]
        kept = OrderedDict(
            (network_key(block.network), block) for block in blocks if float(block.until) > now
        )
        self.guessed.load(content.get("guessed", {}))
        self._known, self._blocks = known, kept
        _trim(self._known)
        _trim(self._blocks)


def network_key(text: str) -> str:
    """A network as `network_of` writes it, from an address or from itself. Raises ValueError."""
    address, slash, bits = text.strip().partition("/")
    if slash and (bits != "64" or ":" not in address):
        msg = f"{shown(text)} is neither an address nor an IPv6 /64"
        raise ValueError(msg)
    return network_of(address)


def _trim(items: OrderedDict[str, Any]) -> None:
    while len(items) > _MAX_NETWORKS:
        items.popitem(last=False)
