"""PID 1 after the boot: supervisord, and an exit status that tells whether it was asked to end.

supervisord exits 0 however it ends; monitoring and `restart: on-failure` want to know.
"""

from __future__ import annotations

import sys
from pathlib import Path

from supervisor import supervisord

_CONFIGURATION = "/usr/lib/tambo/supervisord.conf"
_FATAL = Path("/run/tambo/fatal")  # made by end-on-fatal
_SOFTWARE = 70  # EX_SOFTWARE


def main() -> int:
    _FATAL.unlink(missing_ok=True)
    supervisord.main(["-c", _CONFIGURATION])
    return _SOFTWARE if _FATAL.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
