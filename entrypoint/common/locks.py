"""The four locks of a volume: flock(2) on files of tambo's, which a process that dies lets go of.

- `edit_lock`: who changes something that the plan is made from, for moments.
- `acme_lock`: who has a certificate issued, for minutes.
- `backup_lock`: who works in data/backup.
- `hold_instance`: the server itself, for its life.

Not safe between threads that expect to share one: each call opens the file anew. A lock must never
be waited for without an end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from entrypoint.common import files
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths

_WAIT = 30.0  # seconds
_LOOK = 0.02  # seconds between tries
# The lock's descriptor in PID 1: supervisord closes 5 and up when it reloads itself.
_INSTANCE_FD = 3


@contextmanager
def locked(path: Path, ids: Ids, wait: float, busy: UserError | None) -> Iterator[bool]:
    """Hold a lock for a block, which another may hold for `wait` seconds more.

    Raises `busy` then, or yields False where that is None. Raises OSError if the file cannot be
    opened.
    """
    fd = _open(path, ids)
    try:
        deadline = time.monotonic() + wait
        while not (free := _try(fd)) and time.monotonic() < deadline:
            time.sleep(_LOOK)
        if busy and not free:
            raise busy
        yield free
    finally:
        os.close(fd)


@contextmanager
def edit_lock(paths: Paths, ids: Ids, wait: float = _WAIT) -> Iterator[None]:
    """Hold the lock for one change. Raises UserError (TRY_AGAIN) after `wait` seconds."""
    busy = UserError(
        f"another change has been going on for {wait:.0f} seconds",
        "try again; if it stays so: docker compose restart",
        exit_code=Exit.TRY_AGAIN,
    )
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(paths.edit_lock, ids, wait, busy))
        except OSError as error:
            msg = f"{paths.state} is not ready: {error.strerror}"
            raise UserError(
                msg,
                "wait until the container has started, and look at: docker logs mail",
                exit_code=Exit.TRY_AGAIN,
            ) from None
        yield


@contextmanager
def acme_lock(paths: Paths, ids: Ids) -> Iterator[bool]:
    """Hold the lock of certificate issuing; yields whether it was free."""
    with locked(paths.acme_lock, ids, 0.0, None) as free:
        yield free


@contextmanager
def backup_lock(paths: Paths, ids: Ids, wait: float) -> Iterator[None]:
    """Hold the lock of data/backup. Raises UserError (TRY_AGAIN) after `wait` seconds."""
    busy = UserError(
        f"another backup has been going on for {wait:.0f} seconds",
        "try again later",
        exit_code=Exit.TRY_AGAIN,
    )
    with locked(paths.backup_lock, ids, wait, busy):
        yield


def hold_instance(paths: Paths, ids: Ids) -> None:
    """Lock the volume for the life of this process and of what it execs.

    Two servers on one queue would deliver everything twice. Raises UserError if another has it.
    """
    files.make_folder(paths.state)
    fd = _open(paths.instance_lock, ids)
    if not _try(fd):
        os.close(fd)
        msg = f"another tambo is running on this data folder ({paths.data} in the container)"
        raise UserError(
            msg,
            "stop it first (docker ps shows it), or give this one a folder of its own",
            exit_code=Exit.TRY_AGAIN,
        )
    if fd != _INSTANCE_FD:
        os.dup2(fd, _INSTANCE_FD)
        os.close(fd)
    os.set_inheritable(_INSTANCE_FD, True)


def _open(path: Path, ids: Ids) -> int:
    """The lock's descriptor. Whoever makes the file, root or not, it is tambo's."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with files.folder(path.parent) as folder:
        fd = os.open(path.name, flags, 0o600, dir_fd=folder)
    if os.geteuid() == 0:
        os.fchown(fd, ids.users[Owner.TAMBO], ids.groups[Owner.TAMBO])
    return fd


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
