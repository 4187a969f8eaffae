"""One form for every line in the container's log."""

from __future__ import annotations

import sys
from datetime import UTC, datetime


def log(source: str, text: str) -> None:
    """`time source text`, UTC (RFC 3339), one write: lines of several programs do not mix."""
    stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    lines = text.splitlines() or [""]
    sys.stdout.write("".join(f"{stamp} {source:<8} {line}\n" for line in lines))
    sys.stdout.flush()
