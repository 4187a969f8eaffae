"""What a check returns: checks never print."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is. UNKNOWN is neither right nor wrong, and never to be counted as either."""

    INFO = "info"
    UNKNOWN = "unknown"  # nobody could say: neither right nor wrong
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing worth saying about what was looked at. `id` is stable: scripts may match it.

    `subject` says of what, where there are several: with `id` it tells a finding from another.
    `seen` is what was found, `why` a sentence on why it matters. Of a `fix` of several lines the
    first is for a person, the others are to be pasted as they stand.
    """

    id: str
    level: Level
    message: str
    fix: str = ""
    subject: str = ""
    seen: str = ""
    why: str = ""

    def __str__(self) -> str:
        fix = f" Fix: {self.fix}" if self.fix else ""
        return f"{self.message}{fix}"
