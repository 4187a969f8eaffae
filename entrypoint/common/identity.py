"""Users, groups and the drop from root. The numbers are fixed in the Dockerfile too."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path

from entrypoint.common.errors import UserError

_PR_SET_KEEPCAPS = 8  # prctl(2)
_CAPABILITY_VERSION = 0x20080522  # the third, of 64 bits (capget(2))


class Owner(Enum):
    """Users of the image, each with a group of its own: whose a file is, who runs a program."""

    TAMBO = "tambo"
    CHASQUID = "chasquid"
    AUTH = "auth"  # reads how chosen passwords are stored


@dataclass(frozen=True)
class Ids:
    """Who owns what. `current()` serves tests that are not root."""

    users: Mapping[Owner, int]
    groups: Mapping[Owner, int]

    @classmethod
    def image(cls) -> Ids:
        numbers = {Owner.TAMBO: 10465, Owner.CHASQUID: 10025, Owner.AUTH: 10466}
        return cls(users=numbers, groups=numbers)

    @classmethod
    def current(cls) -> Ids:
        return cls(
            users=dict.fromkeys(Owner, os.getuid()), groups=dict.fromkeys(Owner, os.getgid())
        )


class Capability(IntEnum):
    """Those that a program may have to keep (linux/capability.h)."""

    DAC_OVERRIDE = 1  # to read certificates that only the host's root may
    NET_BIND_SERVICE = 10  # to bind port 80


def drop(ids: Ids, owner: Owner, keep: Collection[Capability] = ()) -> None:
    """Become `owner` for good; a no-op unless root.

    tambo also joins the groups of the others, so that it may hand files to them. All capabilities
    go with the UID (capabilities(7), "effect of user ID changes") but those to `keep`, which
    `raised` makes effective; programs that are started get none, and no-new-privileges keeps them
    away.
    """
    if os.geteuid() != 0:
        return
    others = (Owner.CHASQUID, Owner.AUTH)
    extra = [ids.groups[other] for other in others] if owner is Owner.TAMBO else []
    os.setgroups(extra)
    os.setgid(ids.groups[owner])
    libc = ctypes.CDLL(None, use_errno=True)
    if keep:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setuid(ids.users[owner])
    if keep:
        _set_capabilities(permitted=keep, effective=())
    os.umask(0o077)


def run_as(ids: Ids, owner: Owner, work: Callable[[], object]) -> int:
    """Do `work` as `owner`, in a process of its own; its status, 1 if it raised. The locks that
    are held stay held. Only for a process with one thread."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        drop(ids, owner)
        work()
        status = 0
    except UserError as error:
        print(error, file=sys.stderr)
    except Exception:  # noqa: BLE001 (shown: the process ends here)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


@contextmanager
def raised(*capabilities: Capability) -> Iterator[None]:
    """Use kept capabilities for a moment, in this thread; a no-op if they were not kept."""
    permitted = _permitted()
    usable = [item for item in capabilities if item in permitted]
    if os.geteuid() == 0 or not usable:
        yield
        return
    _set_capabilities(permitted=permitted, effective=usable)
    try:
        yield
    finally:
        _set_capabilities(permitted=permitted, effective=())


def _permitted() -> tuple[Capability, ...]:
    status = Path("/proc/thread-self/status").read_text()
    bits = int(status.partition("CapPrm:")[2].split()[0], 16)
    return tuple(item for item in Capability if bits >> item & 1)


def _set_capabilities(
    *, permitted: Collection[Capability], effective: Collection[Capability]
) -> None:
    """capset(2) of the calling thread. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    masks = [sum(1 << item for item in group) for group in (effective, permitted)]
    # Two sets of effective, permitted, inheritable: the low and the high 32 bits.
    data = struct.pack("6I", *masks, 0, 0, 0, 0)
    if libc.capset(header, data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "capset")


def give(name: str | Path, uid: int, gid: int, mode: int | None, dir_fd: int | None = None) -> bool:
    """Set owner and mode (None: as it is); whether anything was changed. Follows no link's end.

    The container's root has no CAP_FOWNER: it may change the mode only of what it owns, so it
    takes a file before it changes the mode, and gives it away last.
    """
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    itself = f"/proc/self/fd/{fd}"  # what was opened, whatever has that name now (proc(5))
    try:
        found = os.fstat(fd)
        chmod = not stat.S_ISLNK(found.st_mode) and mode not in (None, stat.S_IMODE(found.st_mode))
        if chmod and mode is not None:
            if os.geteuid() == 0 and found.st_uid != 0:
                os.chown(itself, 0, -1)
            Path(itself).chmod(mode)
            found = os.fstat(fd)
        chown = (found.st_uid, found.st_gid) != (uid, gid)
        if chown:
            os.chown(itself, uid, gid)
    finally:
        os.close(fd)
    return chmod or chown


def mend(root: Path, ids: Ids, owner: Owner) -> None:
    """Give all below `root` to `owner`, as after a copy by the host's root. Only root may.

    Follows no symbolic link: parts of the volume are writable by chasquid. What is tambo's also
    loses every right of group and others.
    """
    if os.geteuid() != 0 or not root.is_dir():
        return
    for _, folders, others, fd in os.fwalk(root, follow_symlinks=False):
        for name in (".", *folders, *others):
            mode = None
            if owner is Owner.TAMBO:
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                mode = found.st_mode & 0o700
            give(name, ids.users[owner], ids.groups[owner], mode, dir_fd=fd)
