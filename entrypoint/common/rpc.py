"""The socket holder's door: one request, one answer, each a line, over a unix socket."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

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
