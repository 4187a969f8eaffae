"""A look at a receiver's MX host, as a sending server sees it. No mail is sent.

chasquid does not log by which address, with which TLS and to whose certificate it delivered. So
this asks the same servers in the order in which chasquid does (internal/courier/smtp.go): the best
exchanger first, IPv6 before IPv4 as the host's resolver sorts them. It is a connection of its own,
a moment later or earlier; which one the delivery had may differ.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from entrypoint.chasquid.maillog import clean

_TIMEOUT = 8.0  # seconds for each answer
_MOST = 3  # addresses that are tried
LONGEST = 30.0  # seconds after which nobody should wait for it any more
SILENT = "no answer in time"
_MAX_WORDS = 200  # characters


@dataclass(frozen=True)
class Look:
    """What was seen of the first server that could be reached; `address` is empty if none was.

    `banner` is empty if it did not greet, `tls` if it offers no STARTTLS or that failed. `failed`
    are the addresses that could not be used, with the reason. `error` is what went wrong later.
    """

    server: str = ""
    address: str = ""
    banner: str = ""
    tls: str = ""
    offers_tls: bool = False
    trusted: bool = False
    distrust: str = ""
    error: str = ""
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def family(self) -> str:
        return "" if not self.address else "IPv6" if ":" in self.address else "IPv4"


class _Smtp(smtplib.SMTP):
    """Connects to an address, and expects the certificate of a name. Raises OSError."""

    def __init__(self, address: str, server: str, own_name: str, port: int) -> None:
        super().__init__(timeout=_TIMEOUT, local_hostname=own_name)
        self._host = server
        self.sock = socket.create_connection((address, port), timeout=_TIMEOUT)

    def greeting(self) -> str:
        code, banner = self.getreply()
        return clean(f"{code} {_text(banner)}")[:_MAX_WORDS]


def look(servers: Sequence[str], own_name: str, families: Collection[int], port: int = 25) -> Look:
    """Go through the servers until one can be reached; ends within a minute. Never raises."""
    failed: list[tuple[str, str]] = []
    for server in servers:
        for address in _addresses(server, families, failed):
            if len(failed) >= _MOST:
                return Look(failed=tuple(failed))
            found = _look_at(address, server, own_name, port)
            if isinstance(found, Look):
                return replace(found, failed=tuple(failed))
            failed.append((f"{server} [{address}]", found))
    return Look(failed=tuple(failed))


def _addresses(server: str, families: Collection[int], failed: list[tuple[str, str]]) -> list[str]:
    wanted = {4: socket.AF_INET, 6: socket.AF_INET6}
    try:
        found = socket.getaddrinfo(server, 25, type=socket.SOCK_STREAM)
    except OSError as error:
        failed.append((server, error.strerror or str(error)))
        return []
    kinds = {wanted[family] for family in families}
    return list(dict.fromkeys(str(item[4][0]) for item in found if item[0] in kinds))


def _look_at(address: str, server: str, own_name: str, port: int) -> Look | str:
    """What is seen of one address, or why there is no connection to it."""
    found = Look(server, address)
    context = ssl.create_default_context()
    for trusting in (True, False):
        try:
            smtp = _Smtp(address, server, own_name, port)
        except OSError as error:
            return _words(error)
        try:
            found = replace(found, banner=smtp.greeting())
            smtp.ehlo_or_helo_if_needed()
            if not smtp.has_extn("starttls"):
                return found
            found = replace(found, offers_tls=True)
            smtp.starttls(context=context)
            assert isinstance(smtp.sock, ssl.SSLSocket)  # noqa: S101 (it is after STARTTLS)
            return replace(found, tls=smtp.sock.version() or "", trusted=trusting)
        except ssl.SSLCertVerificationError as error:
            # Once more, to see what there is but for trust, as chasquid does not insist on it.
            found = replace(found, distrust=error.verify_message)
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        except (OSError, smtplib.SMTPException) as error:
            said = _words(error)
            return replace(found, error=said if found.banner else f"does not greet: {said}")
        finally:
            with suppress(OSError, smtplib.SMTPException):
                if smtp.sock:
                    smtp.sock.settimeout(1.0)
                smtp.quit()
            smtp.close()
    return found


def _text(raw: bytes | str) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


def _words(error: Exception) -> str:
    # smtplib makes a closed connection of a time-out.
    if isinstance(error, TimeoutError) or str(error).endswith("timed out"):
        return SILENT
    if isinstance(error, smtplib.SMTPResponseException):
        return clean(f"{error.smtp_code} {_text(error.smtp_error)}")[:_MAX_WORDS]
    if isinstance(error, OSError) and error.strerror:
        return clean(error.strerror)[:_MAX_WORDS]
    return clean(str(error))[:_MAX_WORDS]
