"""PID 1 after the boot: supervisord, and an exit status that tells whether it was asked to end.

supervisord exits 0 however it ends; monitoring and `restart: on-failure` want to know.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from supervisor import poller, supervisord

_CONFIGURATION = "/usr/lib/tambo/supervisord.conf"
_FATAL = Path("/run/tambo/fatal")  # made by end-on-fatal
_SOFTWARE = 70  # EX_SOFTWARE
# Seconds between its looks at what to start, restart or stop. Its own one second would pass before
# the first program starts, and again before a killed one is back.
_PATIENCE = 0.1


class _Poller(poller.Poller):  # type: ignore[misc]
    def poll(self, timeout: float) -> Any:
        return super().poll(min(timeout, _PATIENCE))


def main() -> int:
    _FATAL.unlink(missing_ok=True)
    poller.Poller = _Poller
    supervisord.main(["-c", _CONFIGURATION])
    return _SOFTWARE if _FATAL.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
