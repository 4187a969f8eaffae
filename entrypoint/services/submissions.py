"""Fairness between logins: of one, only so many messages may wait for one operator.

More of them are held for up to six seconds, and then put off (451 4.7.1), while others' mail to the
same operator goes in at once. What a login has waiting is counted from the policy service's
question to the first outcome in chasquid's log (delivery/lines.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import idna

from entrypoint.delivery.lines import Waiting, limit

_HOLD = 6.0  # seconds; the hook waits for nine for the policy service's answer (hook/post-data.c)
_MOST_HELD = 64  # submissions, of all logins


def form(recipient: str) -> str:
    """One writing of an address, whoever wrote it: a client, or chasquid's log (case, U-labels)."""
    local, _, domain = recipient.rpartition("@")
    if not domain.isascii():
        with suppress(UnicodeError):
            domain = idna.encode(domain, uts46=True).decode("ascii")
    return f"{local}@{domain}".lower()


@dataclass(eq=False)
class _Held:
    """A submission that waits. `keys`: each recipient's line. `admitted`: whether it got in."""

    login: str
    keys: Mapping[str, str]
    admitted: asyncio.Future[bool]


@dataclass
class Submissions:
    """For one asyncio loop. `pace_of` a line's key: its title, places, and messages a second."""

    share: int | Literal["none"] | None
    pace_of: Callable[[str], tuple[str, int, float]]
    clock: Callable[[], float]

    waiting: Waiting = field(default_factory=Waiting)
    _held: deque[_Held] = field(default_factory=deque)

    async def admit(
        self, login: str, recipients: Sequence[str], key_of: Callable[[str], str]
    ) -> dict[str, Any]:
        """`{"admitted": true}`, at once or in a while; or where too much waits, and `seconds`."""
        keys = {form(item): key_of(form(item)) for item in recipients}
        lines = set(keys.values())
        # Nobody overtakes who is held already.
        held = any(item.login == login and lines & set(item.keys.values()) for item in self._held)
        if not held and not self._crowded(login, lines):
            self._add(login, keys)
        elif not await self._hold(_Held(login, keys, asyncio.Future())):
            return self._refusal(login, self._crowded(login, lines) or min(lines))
        return {"admitted": True}

    def _add(self, login: str, keys: Mapping[str, str]) -> None:
        now = self.clock()
        for recipient, key in keys.items():
            self.waiting.add(login, key, recipient, now)

    def _crowded(self, login: str, keys: Collection[str]) -> str:
        """A line that has as many of the login's as may wait there; empty if none has."""
        for key in keys:
            _, size, rate = self.pace_of(key)
            most = limit(size, rate, self.share)
            if most is not None and self.waiting.count(login, key) >= most:
                return key
        return ""

    async def _hold(self, held: _Held) -> bool:
        """Whether it got in, in time."""
        if len(self._held) >= _MOST_HELD:
            return False
        self._held.append(held)
        try:
            async with asyncio.timeout(_HOLD):
                return await held.admitted
        except TimeoutError:
            return False
        finally:
            with suppress(ValueError):
                self._held.remove(held)

    def _refusal(self, login: str, key: str) -> dict[str, Any]:
        title, _, rate = self.pace_of(key)
        number = self.waiting.count(login, key)
        seconds = min(600.0, max(10.0, number / rate / 2 if rate else 60.0))
        return {"admitted": False, "receiver": title, "waiting": number, "seconds": seconds}

    def over(self, recipient: str) -> None:
        """A recipient's delivery was tried: whoever is held may have a place now."""
        self.waiting.over(form(recipient), self.clock())
        self.look()

    def renamed(self, old: str, new: str) -> None:
        self.waiting.rename(old, new)

    def look(self) -> None:
        """Let in who is held for want of a place, and has one: the longest held first."""
        self.waiting.lapse(self.clock())
        for held in list(self._held):
            if not self._crowded(held.login, set(held.keys.values())):
                self._held.remove(held)
                if not held.admitted.done():
                    self._add(held.login, held.keys)
                    held.admitted.set_result(True)
