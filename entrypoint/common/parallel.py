"""The same work on many items, in threads, until a deadline: what is late is given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")
_THREADS = 48


def every(items: Sequence[_T], work: Callable[[_T], _R], seconds: float) -> list[_R | None]:
    """The results in order, None for what did not end in time. An exception of `work` is raised.

    The threads are daemons: one that hangs hinders neither this nor the end of the process, as
    those of concurrent.futures would.
    """
    results: list[_R | None] = [None] * len(items)
    errors: list[Exception] = []
    waiting = list(range(len(items)))[::-1]
    left = len(items)
    done = threading.Condition()

    def run() -> None:
        nonlocal left
        while True:
            try:
                index = waiting.pop()
            except IndexError:
                return
            try:
                results[index] = work(items[index])
            except Exception as error:  # noqa: BLE001 (raised where it is waited for)
                errors.append(error)
            with done:
                left -= 1
                done.notify()

    for _ in range(min(_THREADS, len(items))):
        threading.Thread(target=run, daemon=True).start()
    deadline = time.monotonic() + seconds
    with done:
        while left and not errors:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            done.wait(remaining)
        waiting.clear()
    if errors:
        raise errors[0]
    return list(results)
