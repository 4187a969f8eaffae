"""The modules whose tests failed in pytest's last run, for one more run with nothing beside them.

Several workers share a machine, and what waits for a bounded time may then wait in vain. What is
wrong fails again by itself. More than a few modules at once are no coincidence: then nothing is
printed, and the status is 1; so it is if a test was skipped, which no second run makes up for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

_CACHE = Path(".pytest_cache/v")
_FEW = 8


def main() -> int:
    """Prints the modules, one a line. Status 1 and nothing printed if there are none, or many."""
    modules = sorted({name.partition("::")[0] for name in _read("cache/lastfailed")})
    not_run = _read("tambo/not-run")  # by tests/conftest.py
    if not_run:
        print("not run, so nothing is run once more:", *not_run, file=sys.stderr)
        return 1
    if not 0 < len(modules) <= _FEW:
        print(f"{len(modules)} modules failed: they are not run once more", file=sys.stderr)
        return 1
    print("once more, with nothing beside them:", *modules, file=sys.stderr)
    print("\n".join(modules))
    return 0


def _read(name: str) -> Iterable[str]:
    """Names that pytest's last run noted."""
    try:
        found: Iterable[str] = json.loads((_CACHE / name).read_text())
    except (OSError, ValueError):
        found = ()
    return found


if __name__ == "__main__":
    sys.exit(main())
