"""All that the checks ask of the world besides DNS. A test gives answers of its own."""

from __future__ import annotations

import ctypes
import http.client
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from entrypoint.chasquid.maillog import clean
from entrypoint.common import interface, rpc, tlsprobe
from entrypoint.common.paths import Paths

_TIMEOUT = 4.0  # seconds
_STATUS_WAIT = 3.0  # seconds: it says so at once, or it hangs
_READ_WAIT = 9.0  # seconds: longer than the holder waits for its reader
_MAX_FILE = 1 << 20  # bytes of a file in /proc
_MAX_BANNER = 512  # octets (RFC 5321 4.5.3.1.5)
_STA_UNSYNC = 0x0040  # adjtimex(2)


@dataclass(frozen=True)
class Disk:
    """A file system, in bytes and in files. `device` tells one from another."""

    device: int
    size: int
    free: int
    files: int  # 0 where they are not limited
    files_free: int


def _read(path: str) -> str:
    with Path(path).open("rb") as stream:
        return stream.read(_MAX_FILE).decode(errors="replace")


def _disk(path: Path) -> Disk:
    found = os.statvfs(path)
    return Disk(
        device=path.stat().st_dev,
        size=found.f_blocks * found.f_frsize,
        free=found.f_bavail * found.f_frsize,
        files=found.f_files,
        files_free=found.f_favail,
    )


def _clock_is_kept() -> bool | None:
    """Whether something keeps the kernel's clock right (NTP); None if the kernel does not say."""
    # struct timex: a status word after modes, offset, freq, maxerror, esterror.
    buffer = (ctypes.c_long * 64)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(buffer) < 0:
        return None
    return not buffer[5] & _STA_UNSYNC


def _date_of(url: str) -> datetime:
    """The time that a web server has. Raises OSError.

    Its certificate is not looked at: it could not be judged by a clock that is wrong.
    """
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, timeout=_TIMEOUT, context=context
    )
    try:
        connection.request("HEAD", parts.path or "/", headers={"User-Agent": "tambo"})
        return parsedate_to_datetime(connection.getresponse().headers.get("Date", ""))
    except (http.client.HTTPException, ValueError) as error:
        msg = f"no date: {error}"
        raise OSError(msg) from None
    finally:
        connection.close()


def _banner(address: str, port: int, source: IPv4Address | IPv6Address | None = None) -> str:
    """What a mail server greets with, asked from `source`, else from the address that the kernel
    chooses; nothing is sent but QUIT. Raises OSError."""
    from_ = None if source is None else (str(source), 0)
    with socket.create_connection((address, port), _TIMEOUT, from_) as connection:
        with connection.makefile("rb") as stream:
            line = stream.readline(_MAX_BANNER)
        with suppress(OSError):
            connection.sendall(b"QUIT\r\n")
    return clean(line.decode(errors="replace").strip())


def _bind(address: IPv4Address | IPv6Address) -> None:
    """Take the address for the source of a connection, and give it back. Raises OSError."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((str(address), 0))


@dataclass(frozen=True)
class Machine:
    """`read`, `disk`, `date_of`, `banner`, `banner_from`, `bind` and `fingerprint` raise OSError;
    `holder` and `policy` raise control.UnreachableError. Each ends within a few seconds."""

    holder: Callable[[str], dict[str, Any]]
    policy: Callable[[str], dict[str, Any]]
    read: Callable[[str], str] = _read
    disk: Callable[[Path], Disk] = _disk
    clock_is_kept: Callable[[], bool | None] = _clock_is_kept
    date_of: Callable[[str], datetime] = _date_of
    source: Callable[[str], IPv4Address | IPv6Address | None] = interface.source
    banner: Callable[[str, int], str] = _banner
    banner_from: Callable[[str, int, IPv4Address | IPv6Address], str] = _banner
    bind: Callable[[IPv4Address | IPv6Address], None] = _bind
    fingerprint: Callable[[int, str], str] = tlsprobe.fingerprint

    @classmethod
    def real(cls, paths: Paths) -> Machine:
        def holder(command: str) -> dict[str, Any]:
            wait = _STATUS_WAIT if command == "status" else _READ_WAIT
            return rpc.request(paths.holder_socket, command, wait)

        def policy(command: str) -> dict[str, Any]:
            return rpc.request(paths.policy_door, command, _STATUS_WAIT)

        return cls(holder, policy)
