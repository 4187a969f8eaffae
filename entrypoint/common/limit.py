"""How much a login may send: limits, and the counting against them. Pure.

Every recipient counts one, so a limit on recipients is one on messages too. The windows slide: what
counts is what was sent in the last 3600 and 86400 seconds.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic_core import CoreSchema, core_schema

from entrypoint.common.errors import shown

HOUR, DAY = 3600.0, 86400.0  # seconds
_MOST = 10_000_000


@dataclass(frozen=True)
class Limit:
    """Recipients in an hour and in a day; None: as many as they like."""

    hour: int | None = None
    day: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`500/h,5000/d`, either of them alone, or `none`. Raises ValueError."""
        word = text.strip().lower()
        if word == "none":
            return cls()
        found: dict[str, int] = {}
        for part in re.split(r"[,\s]+", word):
            match = re.fullmatch(r"([0-9]{1,8})/([hd])", part)
            if not match or match[2] in found or not 1 <= int(match[1]) <= _MOST:
                msg = f"{shown(text)} is not a limit; write it as 500/h,5000/d, or none"
                raise ValueError(msg)
            found[match[2]] = int(match[1])
        limit = cls(found.get("h"), found.get("d"))
        if limit.hour and limit.day and limit.hour > limit.day:
            msg = f"{shown(text)} lets more through in an hour than in a day"
            raise ValueError(msg)
        return limit

    def __str__(self) -> str:
        parts = [f"{self.hour}/h"] if self.hour else []
        parts += [f"{self.day}/d"] if self.day else []
        return ",".join(parts) or "none"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        parsed = core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())
        return core_schema.union_schema([core_schema.is_instance_schema(cls), parsed])


@dataclass(frozen=True)
class Over:
    """Which limit is reached, and in how many seconds there is room again; None: never."""

    most: int
    span: str
    wait: float | None


@dataclass
class _Window:
    """What happened in the last `seconds`, the oldest first."""

    seconds: float
    items: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def add(self, at: float, count: int) -> None:
        self.items.append((at, count))
        self.total += count

    def forget(self, now: float) -> None:
        while self.items and self.items[0][0] <= now - self.seconds:
            self.total -= self.items.popleft()[1]

    def wait(self, now: float, room: int) -> float:
        """Seconds until so many have left it."""
        for at, count in self.items:
            room -= count
            if room <= 0:
                return max(0.0, at + self.seconds - now)
        return self.seconds


@dataclass
class Usage:
    """What one login sent. Times are in seconds since 1970 and never go back."""

    hour: _Window = field(default_factory=lambda: _Window(HOUR))
    day: _Window = field(default_factory=lambda: _Window(DAY))

    def add(self, at: float, recipients: int) -> None:
        self.hour.add(at, recipients)
        self.day.add(at, recipients)

    def sent(self, now: float) -> tuple[int, int]:
        """Recipients in the last hour and in the last day."""
        self.hour.forget(now)
        self.day.forget(now)
        return self.hour.total, self.day.total

    def messages(self, now: float) -> tuple[int, int]:
        """Messages in the last hour and in the last day."""
        self.sent(now)
        return len(self.hour.items), len(self.day.items)

    def over(self, limit: Limit, now: float, recipients: int) -> Over | None:
        """Why a message to so many recipients is too much; None if it is not."""
        self.sent(now)
        worst: Over | None = None
        for window, most, span in (
            (self.hour, limit.hour, "an hour"),
            (self.day, limit.day, "a day"),
        ):
            if most is None or window.total + recipients <= most:
                continue
            if recipients > most:
                return Over(most, span, None)
            wait = window.wait(now, window.total + recipients - most)
            if worst is None or worst.wait is None or wait > worst.wait:
                worst = Over(most, span, wait)
        return worst
