"""Writing where somebody else may write too: everything goes by descriptor, and follows no link.

What root writes, or gives away, in a folder that belongs to tambo or chasquid must end there, and
not where a symbolic link of theirs leads. So a folder is opened component by component
(O_NOFOLLOW; a link is followed where only root and the caller can write), and what is done in it
is done by names relative to that descriptor (openat(2)).

A file is the old one or the new one, never half of it: written aside (O_EXCL), with mode and owner
set by descriptor, fsynced, renamed. One name aside: what a killed writer left is written over by
the next, so writers of one file need a lock. All functions raise OSError; ENOTDIR is also what a
symbolic link gives where a folder should be.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# O_PATH: a folder that may be entered need not be one that may be read, as /data is to chasquid.
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def folder(path: Path) -> Iterator[int]:
    """A descriptor of a folder. A symbolic link in its path is refused, unless nobody but root and
    the caller could have put it there."""
    fd = _open(path, make=False)
    try:
        yield fd
    finally:
        os.close(fd)


def make_folder(path: Path) -> bool:
    """Make a folder, 0700, and those above it; whether it was not there yet."""
    with suppress(FileNotFoundError), folder(path):
        return False
    os.close(_open(path, make=True))
    with folder(path.parent) as fd:
        _sync(fd)
    return True


def _open(path: Path, *, make: bool) -> int:
    parts = Path(os.path.abspath(path)).parts  # noqa: PTH100 (resolve() would follow links)
    fd = os.open(parts[0], _FOLDER)
    for number, name in enumerate(parts[1:], 2):
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700 if number == len(parts) else 0o777, dir_fd=fd)
            flags = _FOLDER & ~os.O_NOFOLLOW if _is_trusted_link(name, fd) else _FOLDER
            below = os.open(name, flags, dir_fd=fd)
        except OSError as error:
            where = str(Path(*parts[:number]))
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise NotADirectoryError(
                    errno.ENOTDIR, "it is somebody's symbolic link, or no folder", where
                ) from None
            raise OSError(error.errno, error.strerror, where) from None
        finally:
            os.close(fd)
        fd = below
    return fd


def _is_trusted_link(name: str, dir_fd: int) -> bool:
    """A link that only root or the caller can have put there: data/mail on another disk, say."""
    found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        return False
    holder = os.fstat(dir_fd)
    trusted = (0, os.geteuid())
    return found.st_uid in trusted and holder.st_uid in trusted and not holder.st_mode & 0o022


def read(path: Path) -> bytes | None:
    """What a file holds; None if there is none, or something else stands there."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with folder(path.parent) as fd:
            found = os.open(path.name, flags, dir_fd=fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    with open(found, "rb") as stream:  # noqa: PTH123 (a descriptor)
        return stream.read()


def write(
    path: Path, content: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Put a file in place, whole. `owner`: UID and GID, for root; None is the caller."""
    aside = _aside(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with folder(path.parent) as fd:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=fd)
        with open(os.open(aside, flags, 0o600, dir_fd=fd), "wb") as stream:  # noqa: PTH123
            os.fchmod(stream.fileno(), mode)  # before its owner: root may not afterwards
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path.name, src_dir_fd=fd, dst_dir_fd=fd)
        _sync(fd)


def link(path: Path, target: Path, owner: tuple[int, int]) -> None:
    """Put a symbolic link in place; there is one, the old or the new, at every moment."""
    aside = _aside(path)
    with folder(path.parent) as fd:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=fd)
        os.symlink(target, aside, dir_fd=fd)
        if os.geteuid() == 0:
            os.chown(aside, *owner, dir_fd=fd, follow_symlinks=False)
        os.replace(aside, path.name, src_dir_fd=fd, dst_dir_fd=fd)


def remove(path: Path) -> None:
    """Remove a file for good, or a link and not where it leads; it may have gone already."""
    with folder(path.parent) as fd:
        with suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=fd)
        _sync(fd)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder within a file system, for good."""
    with folder(source.parent) as old, folder(target.parent) as new:
        os.replace(source.name, target.name, src_dir_fd=old, dst_dir_fd=new)
        _sync(new)
        _sync(old)


def sync(path: Path) -> None:
    """Make what was renamed or removed in a folder survive a power cut."""
    with folder(path) as fd:
        _sync(fd)


def _sync(dir_fd: int) -> None:
    """Make what was renamed or removed in a folder survive a power cut."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _aside(path: Path) -> str:
    return f".{path.name}.new"
