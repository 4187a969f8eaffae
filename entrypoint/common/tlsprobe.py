"""Which certificate is really served: asked by a TLS handshake, as a client would."""

from __future__ import annotations

import hashlib
import socket
import ssl

_TIMEOUT = 5.0  # seconds
PORTS = (25, 465, 587)


def fingerprint(port: int, name: str, address: str = "127.0.0.1") -> str:
    """SHA-256 of the leaf that `port` serves for the server name `name`, hexadecimal.

    Port 465 speaks TLS from the start, the others after STARTTLS. Proves nothing about trust.
    Raises OSError (ssl.SSLError is one).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, port), timeout=_TIMEOUT) as plain:
        if port != 465:
            _starttls(plain)
        with context.wrap_socket(plain, server_hostname=name) as secure:
            leaf = secure.getpeercert(binary_form=True)
    return hashlib.sha256(leaf or b"").hexdigest()


def greets(port: int, timeout: float, address: str = "127.0.0.1") -> bool:
    """Whether a mail server greets on `port` within `timeout` seconds; on 465 within TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((address, port), timeout=timeout) as plain:
            if port != 465:
                _expect(plain, b"220")
                plain.sendall(b"QUIT\r\n")
                return True
            with context.wrap_socket(plain) as secure:
                _expect(secure, b"220")
                secure.sendall(b"QUIT\r\n")
                return True
    except OSError:
        return False


def _starttls(connection: socket.socket) -> None:
    _expect(connection, b"220")
    connection.sendall(b"EHLO localhost\r\n")
    _expect(connection, b"250")
    connection.sendall(b"STARTTLS\r\n")
    _expect(connection, b"220")


def _expect(connection: socket.socket, code: bytes) -> None:
    """Read one reply (RFC 5321 4.2) and no byte more: TLS begins right behind it."""
    line = b""
    while len(line) < 1000:
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
        if byte == b"\n":
            if not line.startswith(code):
                break
            if line[3:4] != b"-":
                return
            line = b""
    msg = f"unexpected answer {line[:60]!a}"
    raise OSError(msg)
