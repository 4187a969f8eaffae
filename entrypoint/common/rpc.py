"""Control sockets of the programs: one request, one answer, each a line, over a unix socket."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

from entrypoint.common import files
from entrypoint.common.identity import Ids, Owner

_TIMEOUT = 20.0  # seconds; a restart takes 0.3


class UnreachableError(Exception):
    """Nobody answers at the socket."""


class AbsentError(UnreachableError):
    """There is nobody: no holder, and so no chasquid."""


def request(path: Path, command: str, timeout: float = _TIMEOUT) -> dict[str, Any]:
    """`reload`, `restart` and `status` answer when it is done. Raises UnreachableError.

    `timeout` is in seconds. What has more to say than words: see `ask`.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(f"{command}\n".encode())
            with connection.makefile("r") as stream:
                answer = json.loads(stream.readline() or "null")
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise AbsentError(str(error)) from None
    except (OSError, ValueError) as error:
        raise UnreachableError(str(error)) from None
    if not isinstance(answer, dict):
        msg = "no answer"
        raise UnreachableError(msg)
    return answer


def ask(path: Path, command: str, content: Any, timeout: float = _TIMEOUT) -> dict[str, Any]:
    """A request that is more than words: `content` goes along as JSON. Raises UnreachableError."""
    return request(path, f"{command} {json.dumps(content)}", timeout)


def follow(path: Path, command: str, timeout: float) -> Generator[dict[str, Any], None, None]:
    """The answers, one after the other, to a command that has several, such as `watch`.

    `timeout` (seconds) is for all of them. Raises UnreachableError.
    """
    deadline = time.monotonic() + timeout
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(f"{command}\n".encode())
            with connection.makefile("r") as stream:
                while line := stream.readline():
                    answer = json.loads(line)
                    if not isinstance(answer, dict):
                        msg = "no sensible answer"
                        raise UnreachableError(msg)
                    yield answer
                    connection.settimeout(max(0.01, deadline - time.monotonic()))
    except (OSError, ValueError) as error:
        raise UnreachableError(str(error)) from None


async def question(path: Path, command: str, timeout: float) -> dict[str, Any]:
    """As `request`, for who must not wait (asyncio). Raises UnreachableError."""
    import asyncio  # whoever asks has it already; the recorder does without its 10 MB

    writer = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(f"{command}\n".encode())
            await writer.drain()
            answer = json.loads(await reader.readline() or "null")
    except (OSError, ValueError, TimeoutError) as error:
        raise UnreachableError(str(error) or "no answer in time") from None
    finally:
        if writer is not None:
            writer.close()
    if not isinstance(answer, dict):
        msg = "no answer"
        raise UnreachableError(msg)
    return answer


def listen(path: Path, ids: Ids, owner: Owner, backlog: int) -> socket.socket:
    """A unix socket that `owner` alone may connect to (and root); a dead one's is replaced.

    Its folder is another user's, who could put something else in its place before it is given away.
    So it is made beside that folder, in one that the caller alone may enter, and moved. Raises
    OSError.
    """
    aside = path.parent.with_name(f".{path.name}.new")
    with suppress(FileExistsError):  # a killed one's
        aside.mkdir(0o700)
    with files.folder(aside) as own, files.folder(path.parent) as folder:
        if os.fstat(own).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it is somebody else's", str(aside))
        door = _bound(path.name, own)
        try:
            os.chown(
                path.name, ids.users[owner], ids.groups[owner], dir_fd=own, follow_symlinks=False
            )
            door.listen(backlog)
            os.rename(path.name, path.name, src_dir_fd=own, dst_dir_fd=folder)
        except OSError:
            door.close()
            raise
    with suppress(OSError):  # it is empty, and made anew by the next
        aside.rmdir()
    return door


def _bound(name: str, folder: int) -> socket.socket:
    """A socket in an open folder, for its owner alone."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        door.bind(f"/proc/self/fd/{folder}/{name}")  # short: 107 bytes at most
    except OSError:
        door.close()
        raise
    finally:
        os.umask(before)
    return door
