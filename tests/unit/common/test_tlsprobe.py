"""Which certificate is served: a real TLS handshake, over a pair of unix sockets."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common import tlsprobe
from entrypoint.common.names import Domain
from entrypoint.keys import certs
from tests.unit.kit import put

HOST = Domain("smtp.example.com")
PAIR = certs.self_signed([HOST])
GREETING = b"220-smtp.example.com\r\n220 ESMTP\r\n"
EHLO = b"250-smtp.example.com\r\n250-STARTTLS\r\n250 HELP\r\n"


class Server:
    """Answers one connection: with `script` before TLS, (what it sends, what it then expects)."""

    def __init__(
        self, folder: Path, script: list[tuple[bytes, bytes]], *, tls: bool = True
    ) -> None:
        self.asked_for: list[str | None] = []
        self.heard: list[bytes] = []
        self.errors: list[BaseException] = []
        self._script, self._tls = script, tls
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(
            put(folder / "chain.pem", PAIR.chain), put(folder / "key.pem", PAIR.key)
        )
        self._context.sni_callback = lambda _socket, name, _context: self.asked_for.append(name)
        self.client, self._socket = socket.socketpair()
        self.client.settimeout(5)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            with self._socket as connection:
                for said, expected in self._script:
                    connection.sendall(said)
                    if expected:
                        self.heard.append(connection.recv(1000))
                if self._tls:
                    with self._context.wrap_socket(connection, server_side=True) as secure:
                        secure.recv(1)
        except OSError as error:
            self.errors.append(error)

    def close(self) -> None:
        self.client.close()
        self._thread.join()


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Whoever connects anywhere reaches this server."""
    servers: list[Server] = []

    def start(*script: tuple[bytes, bytes], tls: bool = True) -> Server:
        server = Server(tmp_path, list(script), tls=tls)
        servers.append(server)

        def connect(address: tuple[str, int], timeout: float) -> Any:
            assert address[0] == "127.0.0.1"
            assert timeout == 5.0, "a server that hangs is no reason to hang"
            return server.client

        monkeypatch.setattr(socket, "create_connection", connect)
        return server

    yield start
    for server in servers:
        server.close()


def test_on_465_tls_comes_first(serve: Callable[..., Server]) -> None:
    server = serve()
    assert tlsprobe.fingerprint(465, HOST) == PAIR.fingerprint
    assert server.asked_for == [HOST]


@pytest.mark.parametrize("port", [25, 587])
def test_on_the_others_it_comes_after_starttls(serve: Callable[..., Server], port: int) -> None:
    server = serve((GREETING, b"EHLO"), (EHLO, b"STARTTLS"), (b"220 go\r\n", b""))
    assert tlsprobe.fingerprint(port, HOST) == PAIR.fingerprint
    assert server.heard == [b"EHLO localhost\r\n", b"STARTTLS\r\n"]
    assert server.asked_for == [HOST]


def test_trust_is_not_asked_for(serve: Callable[..., Server]) -> None:
    """A self-signed certificate for another name is an answer too."""
    serve()
    assert tlsprobe.fingerprint(465, "other.example.org") == PAIR.fingerprint


@pytest.mark.parametrize(
    "script",
    [
        [(b"554 go away\r\n", b"")],
        [(b"", b"")],
        [(b"220", b"")],
        [(GREETING, b"EHLO"), (b"502 no\r\n", b"")],
        [(GREETING, b"EHLO"), (EHLO, b"STARTTLS"), (b"454 not now\r\n", b"")],
        [(b"2" * 2000, b"")],
        [(b"SSH-2.0-OpenSSH\r\n", b"")],
    ],
    ids=["refuses", "closes", "half", "no-ehlo", "no-starttls", "endless", "another"],
)
def test_what_is_no_answer_is_an_error(
    serve: Callable[..., Server], script: list[tuple[bytes, bytes]]
) -> None:
    serve(*script, tls=False)
    with pytest.raises(OSError, match=r"unexpected answer|closed|reset"):
        tlsprobe.fingerprint(25, HOST)


def test_no_tls_is_an_error(serve: Callable[..., Server]) -> None:
    serve((b"220 plain\r\n", b"x"), tls=False)
    with pytest.raises(OSError):  # noqa: PT011 (OpenSSL's words)
        tlsprobe.fingerprint(465, HOST)


def test_the_ports_are_chasquid_s() -> None:
    assert tlsprobe.PORTS == (25, 465, 587)
