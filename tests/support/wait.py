"""Waiting: often and briefly, never blindly.

The bounds in the tests are those of a test that has the machine to itself. Among several workers
(pytest-xdist) all takes longer, and so may the waiting: PATIENCE times. What is asserted to be
quick is asserted by tests that are marked `alone`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

PATIENCE = 4 if "PYTEST_XDIST_WORKER" in os.environ else 1
# Each look may start a process in a container: many at once would be all that the machine does.
PAUSE = 0.05 if PATIENCE == 1 else 0.25  # seconds


def wait_until(
    condition: Callable[[], _T | None], what: str, *, timeout: float = 10.0, pause: float = PAUSE
) -> _T:
    """What `condition` returns as soon as that is true; fails with `what` after `timeout` seconds.

    PATIENCE times as many, among several workers. An OSError counts as not yet: nobody listens, or
    a file is not there.
    """
    timeout *= PATIENCE
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
