"""Tests in several processes at once (pytest-xdist): which run together, in which order, and locks.

A worker runs a module's tests in their order, as the servers of a module are shared. Each worker
that has image tests has a world of its own; what exists once on a machine is used under a lock.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from xdist.scheduler import LoadFileScheduling

# The longest modules, by a run with --junitxml: what is begun first is not what
# all others wait for in the end. One that is missing here costs some time and nothing else.
LONGEST_FIRST = (
    "tests/image/certs/test_trouble.py",
    "tests/image/test_clients.py",
    "tests/image/backup/test_restore.py",
    "tests/image/test_policy_limits.py",
    "tests/image/certs/test_first_boot.py",
    "tests/image/backup/test_trouble.py",
    "tests/image/test_rotation.py",
    "tests/image/test_events.py",
    "tests/image/backup/test_backup.py",
    "tests/image/test_demo.py",
    "tests/image/test_breakage.py",
    "tests/image/test_send_test.py",
    "tests/image/test_publish.py",
)

# More than one a core wait for each other: what takes the time is to start containers and verbs. A
# world with its servers takes about half a GB.
WORKERS_PER_CORE = 1.0
BYTES_PER_WORKER = 1 << 30


def rank(nodeid: str) -> int:
    """Where a test's module stands: the longest, the other image tests, the rest."""
    module = nodeid.partition("::")[0]
    if module in LONGEST_FIRST:
        return LONGEST_FIRST.index(module)
    return len(LONGEST_FIRST) + (not module.startswith("tests/image/"))


def workers(cores: int, memory: int, *, image: bool) -> int:
    """How many workers are best on a machine; `memory` in bytes, `image`: with image tests."""
    if not image:
        return cores + 1
    return max(1, min(round(cores * WORKERS_PER_CORE), memory // BYTES_PER_WORKER))


def workers_here(*, image: bool) -> int:
    """How many workers are best on this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return workers(len(os.sched_getaffinity(0)), memory, image=image)


class ByModule(LoadFileScheduling):  # type: ignore[misc]
    """Gives workers whole modules, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False


# --- Locks ---------------------------------------------------------------------------------------


def _open(name: str) -> IO[str]:
    folder = Path(tempfile.gettempdir(), f"tambo-tests-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return (folder / f"{name}.lock").open("w")


@contextmanager
def lock(name: str) -> Iterator[None]:
    """One process of this user's at a time; the kernel frees what a dead one had."""
    with _open(name) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def taken(name: str) -> IO[str] | None:
    """The lock, held until this is closed or the process ends; None if another has it."""
    file = _open(name)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
