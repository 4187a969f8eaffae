"""Waiting: often and briefly, never blindly."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
# Workers of pytest-xdist share the machine: what is right comes, but later.
_PATIENCE = 3 if os.environ.get("PYTEST_XDIST_WORKER") else 1


def wait_until(
    condition: Callable[[], _T | None], what: str, *, timeout: float = 10.0, pause: float = 0.05
) -> _T:
    """What `condition` returns as soon as that is true; fails with `what` after `timeout` seconds.

    Where several workers share the machine it waits three times as long. An OSError counts as not
    yet: nobody listens, or a file is not there.
    """
    timeout *= _PATIENCE
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            found = condition()
            if found:
                return found
            last = found
        except OSError as error:
            last = error
        if time.monotonic() > deadline:
            msg = f"{what}: not within {timeout:.0f} s; it was {last!r}"
            raise AssertionError(msg)
        time.sleep(pause)
