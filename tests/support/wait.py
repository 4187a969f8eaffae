"""Waiting: often and briefly, never blindly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def wait_until(
    condition: Callable[[], _T | None], what: str, *, timeout: float = 10.0, pause: float = 0.05
) -> _T:
    """What `condition` returns as soon as that is true; fails with `what` after `timeout` seconds.

    An OSError counts as not yet: nobody listens, or a file is not there.
    """
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
