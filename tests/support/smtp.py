"""A mail program, and another mail server, as tambo meets them."""

from __future__ import annotations

import base64
import smtplib
import socket
import ssl
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate

from tests.support.wait import PATIENCE

SMTP, SUBMISSIONS, SUBMISSION = 25, 465, 587
_TIMEOUT = 15.0 * PATIENCE  # seconds for each answer


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, under which name, and what vouches for its certificate."""

    address: str
    name: str
    trusted: str  # PEM

    def context(self) -> ssl.SSLContext:
        """Verifies the chain and the name."""
        return ssl.create_default_context(cadata=self.trusted)


class _Tls(smtplib.SMTP_SSL):
    """Connects to an address, and expects the certificate of a name."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._host = endpoint.name
        super().__init__(timeout=_TIMEOUT, context=endpoint.context(), local_hostname="client.test")
        self._host = endpoint.name
        self.connect(endpoint.address, SUBMISSIONS)


class _StartTls(smtplib.SMTP):
    def __init__(self, endpoint: Endpoint, port: int) -> None:
        super().__init__(timeout=_TIMEOUT, local_hostname="client.test")
        self._host = endpoint.name
        self.connect(endpoint.address, port)
        self.ehlo()
        self.starttls(context=endpoint.context())


@contextmanager
def mail_program(endpoint: Endpoint, port: int = SUBMISSIONS) -> Iterator[smtplib.SMTP]:
    """A session inside verified TLS: on 465 from the start, else by STARTTLS."""
    smtp = _Tls(endpoint) if port == SUBMISSIONS else _StartTls(endpoint, port)
    try:
        yield smtp
    finally:
        _leave(smtp)


@contextmanager
def mail_server(address: str, name: str = "mx.outside.example") -> Iterator[smtplib.SMTP]:
    """A plain session on port 25, after EHLO."""
    smtp = smtplib.SMTP(address, SMTP, local_hostname=name, timeout=_TIMEOUT)
    try:
        smtp.ehlo()
        yield smtp
    finally:
        _leave(smtp)


def _leave(smtp: smtplib.SMTP) -> None:
    with suppress(smtplib.SMTPException, OSError):
        smtp.quit()
    smtp.close()


def encoded(user: str, secret: str) -> str:
    """The initial response of AUTH PLAIN (RFC 4616)."""
    return base64.b64encode(f"\0{user}\0{secret}".encode()).decode()


def can_log_in(endpoint: Endpoint, user: str, secret: str, port: int = SUBMISSIONS) -> bool:
    """Whether AUTH succeeds; anything but a yes and a no is an error."""
    with mail_program(endpoint, port) as smtp:
        smtp.ehlo_or_helo_if_needed()
        code, text = smtp.docmd("AUTH", f"PLAIN {encoded(user, secret)}")
        assert code in (235, 535), text
        return code == 235


def message(sender: str, to: str, subject: str = "") -> EmailMessage:
    """A message like any other; its subject is its own if none is given."""
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = to
    mail["Subject"] = subject or f"test {uuid.uuid4().hex}"
    mail["Date"] = formatdate()
    mail["Message-ID"] = f"<{uuid.uuid4().hex}@{sender.rpartition('@')[2]}>"
    mail.set_content("A line of text.\n.\n..and one with dots.\n")
    return mail


def submit(endpoint: Endpoint, user: str, secret: str, to: str, port: int = SUBMISSIONS) -> str:
    """Send one message as a mail program does; returns its subject, which is unique."""
    mail = message(user, to)
    with mail_program(endpoint, port) as smtp:
        smtp.login(user, secret)
        smtp.send_message(mail, from_addr=user, to_addrs=[to])
    return str(mail["Subject"])


def deliver(address: str, to: str, sender: str = "someone@outside.example") -> str:
    """Hand over one message as another mail server does; returns its subject.

    A refusal is an smtplib.SMTPException.
    """
    mail = message(sender, to)
    with mail_server(address) as smtp:
        smtp.send_message(mail, from_addr=sender, to_addrs=[to])
    return str(mail["Subject"])


def greeting(address: str, port: int = SMTP, timeout: float = 1.0) -> str:
    """The first line that a plain port says. Raises OSError if there is none in time."""
    with socket.create_connection((address, port), timeout=timeout) as connection:
        return _first_line(connection)


def tls_greeting(endpoint: Endpoint, timeout: float = 5.0) -> str:
    """The first line on port 465."""
    raw = socket.create_connection((endpoint.address, SUBMISSIONS), timeout=timeout)
    with closing(raw), endpoint.context().wrap_socket(raw, server_hostname=endpoint.name) as tls:
        return _first_line(tls)


def _first_line(connection: socket.socket) -> str:
    with connection.makefile("rb") as stream:
        return stream.readline().decode(errors="replace").strip()
