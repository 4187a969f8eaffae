"""Addresses that mail leaves from (OUTBOUND_IPV4, OUTBOUND_IPV6), and their warm-up.

Operators are spread over the addresses, each by its name: one operator sees a steady address. While
an address is new to an operator it has a daily ceiling there (WARMUP=on, delivery/warmup.py); what
is past it leaves by another that has room, or waits.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from entrypoint.delivery.warmup import Warmup

_MOST = 20_000  # pairs of address and operator that are remembered


class Sources:
    """Not for two threads. `clock` gives seconds since 1970."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        warmup: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._addresses = {
            ":": tuple(item for item in addresses if ":" in item),
            ".": tuple(item for item in addresses if ":" not in item),
        }
        self._warming = warmup
        self._clock = clock
        self._warmups: dict[tuple[str, str], Warmup] = {}

    def choose(self, operator: str, target: str) -> str | None:
        """The address to dial `target` from, which is of `operator`; empty if the kernel chooses,
        None if none may send there any more today."""
        found = self._addresses[":" if ":" in target else "."]
        if found:
            first = zlib.crc32(operator.encode()) % len(found)
            found = found[first:] + found[:first]
        now = self._clock()
        for source in found or ("",):
            if not self._is_warming(source) or self._warmup(source, operator).may_send(now):
                return source
        return None

    def sent(self, source: str, operator: str) -> None:
        """A connection is begun, and a message with it."""
        if self._is_warming(source):
            self._warmup(source, operator).sent(self._clock())

    def unsent(self, source: str, operator: str) -> None:
        """It came to nothing."""
        if self._is_warming(source):
            self._warmup(source, operator).unsent(self._clock())

    def deferred(self, operator: str) -> None:
        """A message to an operator was put off; from which address is not told, so it counts for
        all that mail went there from."""
        for (_, name), warmup in self._warmups.items():
            if name == operator:
                warmup.deferred(self._clock())

    def _is_warming(self, source: str) -> bool:
        return self._warming and bool(source)

    def _warmup(self, source: str, operator: str) -> Warmup:
        found = self._warmups.get((source, operator))
        if found is None:
            if len(self._warmups) >= _MOST:
                self._warmups.pop(next(iter(self._warmups)))
            found = self._warmups[source, operator] = Warmup(source, operator)
        return found

    def words(self, operator: str) -> dict[str, str]:
        """How far each address has come with an operator, for people."""
        now = self._clock()
        return {
            source: warmup.words(now)
            for (source, name), warmup in self._warmups.items()
            if name == operator
        }

    def to_json(self) -> list[dict[str, Any]]:
        return [warmup.to_json() for warmup in self._warmups.values()]

    def load(self, content: Sequence[object]) -> None:
        """Raises KeyError, TypeError or ValueError for what to_json did not make."""
        if not self._warming:
            return
        for item in content:
            warmup = Warmup.from_json(item)
            self._warmups[warmup.address, warmup.operator] = warmup
