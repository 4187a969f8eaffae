"""chasquid's log, made one printable line an event."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# 2006-01-02 15:04:05.000000, with which chasquid starts each event.
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ")
_MAX_LINE = 2000  # characters of an event that are shown


@dataclass
class Joiner:
    """Joins the lines of an event: a remote's answer may span several."""

    _pending: list[str] = field(default_factory=list)

    def feed(self, line: str) -> str | None:
        """The event that `line` ends, if it begins a new one."""
        if self._pending and not _STAMP.match(line):
            self._pending.append(line)
            return None
        done = self.flush()
        self._pending = [line]
        return done

    def flush(self) -> str | None:
        """The event under way, when nothing more of it is expected."""
        if not self._pending:
            return None
        first, *rest = self._pending
        self._pending = []
        return clean(" | ".join([_STAMP.sub("", first), *rest]))


def clean(text: str) -> str:
    """What a remote may have said, without a way to move a terminal's cursor."""
    text = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return text if len(text) <= _MAX_LINE else f"{text[:_MAX_LINE]}…"
