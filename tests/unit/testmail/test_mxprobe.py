"""A look at a receiver's exchanger: SMTP over pairs of sockets."""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common.names import Domain
from entrypoint.keys import certs
from entrypoint.testmail import mxprobe
from entrypoint.testmail.mxprobe import Look, look
from tests.unit.kit import put

MX = "mx.example.net"
PAIR = certs.self_signed([Domain(MX)])
V4, V6 = "203.0.113.25", "2001:db8::25"


class Receiver:
    """Answers each connection in the way that `how` says."""

    def __init__(self, folder: Path, how: str = "tls") -> None:
        self.how = how
        self.heard: list[str] = []
        self.dialled: list[str] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(
            put(folder / "chain.pem", PAIR.chain), put(folder / "key.pem", PAIR.key)
        )
        self._threads: list[threading.Thread] = []

    def dial(self, address: tuple[str, int], timeout: float = 0) -> socket.socket:
        assert timeout > 0
        self.dialled.append(address[0])
        if self.how == "hole":
            raise TimeoutError
        if self.how == "closed" or (self.how == "v4 only" and ":" in address[0]):
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = socket.socketpair()
        ours.settimeout(0.3 if self.how == "silent" else 5)
        theirs.settimeout(5)
        thread = threading.Thread(target=self._serve, args=(theirs,))
        thread.start()
        self._threads.append(thread)
        return ours

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection:
            if self.how == "silent":
                connection.recv(1000)
                return
            if self.how == "busy":
                connection.sendall(b"421 4.3.2 \x1b[2J busy\r\n")
                return
            self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.sendall(b"220 mx.example.net ESMTP\r\n")
        while line := connection.recv(1000).decode().strip():
            line = line.upper()
            self.heard.append(line)
            if line.startswith("EHLO"):
                extra = b"" if self.how == "plain" else b"250-STARTTLS\r\n"
                connection.sendall(b"250-mx.example.net\r\n" + extra + b"250 SIZE 1000\r\n")
            elif line == "STARTTLS" and self.how == "broken":
                connection.sendall(b"454 4.7.0 TLS not available\r\n")
            elif line == "STARTTLS":
                connection.sendall(b"220 go ahead\r\n")
                with self.context.wrap_socket(connection, server_side=True) as secure:
                    while secure.recv(1000):
                        secure.sendall(b"221 bye\r\n")
                return
            else:
                connection.sendall(b"221 bye\r\n")
                return

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path)
    monkeypatch.setattr(socket, "create_connection", receiver.dial)

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        if name == "gone.example.net":
            raise socket.gaierror(-2, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (V6, 25, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (V4, 25)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield receiver
    receiver.join()


def seen(*servers: str, families: tuple[int, ...] = (4, 6)) -> Look:
    return look(servers or (MX,), "smtp.example.com", families)


def test_tls_that_nobody_trusts_is_still_tls(receiver: Receiver) -> None:
    found = seen()
    assert (found.server, found.address, found.family) == (MX, V6, "IPv6")
    assert found.banner == "220 mx.example.net ESMTP"
    assert found.tls in ("TLSv1.2", "TLSv1.3")
    assert (found.offers_tls, found.trusted, found.error) == (True, False, "")
    assert "self-signed" in found.distrust
    assert receiver.heard.count("EHLO SMTP.EXAMPLE.COM") == 2
    assert not [line for line in receiver.heard if line.startswith("MAIL")], "no mail is sent"


def test_tls_that_is_trusted(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    trusting = ssl.create_default_context(cadata=PAIR.chain.decode())
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    found = seen()
    assert (found.trusted, found.distrust) == (True, "")
    assert len(receiver.dialled) == 1


def test_a_receiver_without_tls(receiver: Receiver) -> None:
    receiver.how = "plain"
    found = seen()
    assert (found.offers_tls, found.tls, found.error) == (False, "", "")


def test_a_starttls_that_fails(receiver: Receiver) -> None:
    receiver.how = "broken"
    found = seen()
    assert (found.offers_tls, found.tls) == (True, "")
    assert "454" in found.error or "not available" in found.error


def test_who_accepts_and_is_silent(receiver: Receiver) -> None:
    receiver.how = "silent"
    found = seen()
    assert found.address == V6
    assert found.error == "does not greet: no answer in time"


def test_who_is_busy(receiver: Receiver) -> None:
    receiver.how = "busy"
    found = seen()
    assert "\x1b" not in found.banner, "it moves no cursor"
    assert found.banner.startswith("421 4.3.2")
    assert found.error


def test_the_next_address_is_tried(receiver: Receiver) -> None:
    receiver.how = "v4 only"
    found = seen()
    assert (found.address, found.family) == (V4, "IPv4")
    assert found.failed == ((f"{MX} [{V6}]", "Connection refused"),)


def test_a_black_hole_is_given_up(receiver: Receiver) -> None:
    receiver.how = "hole"
    found = seen(MX, "mx2.example.net", "mx3.example.net")
    assert (found.address, found.family) == ("", "")
    assert {why for _, why in found.failed} == {"no answer in time"}
    assert len(receiver.dialled) == mxprobe._MOST
    assert mxprobe._MOST * mxprobe._TIMEOUT <= mxprobe.LONGEST


def test_a_family_that_is_not_used(receiver: Receiver) -> None:
    receiver.how = "plain"
    assert seen(families=(4,)).address == V4
    assert receiver.dialled == [V4]


def test_an_exchanger_without_an_address(receiver: Receiver) -> None:
    found = seen("gone.example.net")
    assert found.failed == (("gone.example.net", "Name or service not known"),)
    assert receiver.dialled == []


def test_words_of_errors() -> None:
    assert mxprobe._words(TimeoutError()) == "no answer in time"
    assert mxprobe._words(smtplib.SMTPResponseException(421, b"no\nway")) == "421 no\\nway"
