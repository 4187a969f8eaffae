"""SMTP by the byte (RFC 5321), for what no mail library would send.

A connection that the other side closes is an answer too: `CLOSED`. Not safe for several threads.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType

from tests.support import smtp
from tests.support.smtp import Endpoint

_TIMEOUT = 20.0  # seconds for each reply
_MOST = 1 << 16  # bytes of one reply


@dataclass(frozen=True)
class Reply:
    """`text` is that of all lines, without the codes."""

    code: int
    text: str = ""

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 300

    def __str__(self) -> str:
        return f"{self.code} {self.text}" if self.code else "connection closed"


CLOSED = Reply(0)


class Wire:
    """A connection, after the greeting. Port 465 is TLS from the start; elsewhere see `starttls`.

    Raises OSError if there is no connection; TimeoutError where an answer does not come.
    """

    def __init__(self, endpoint: Endpoint, port: int = smtp.SMTP, *, timeout: float = _TIMEOUT):
        self._endpoint = endpoint
        self._socket = socket.create_connection((endpoint.address, port), timeout=timeout)
        self._left = b""
        if port == smtp.SUBMISSIONS:
            self.wrap()
        self.greeting = self.reply()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, raw: bytes) -> None:
        """These bytes. Whether the other side has gone shows at the next reply."""
        try:
            self._socket.sendall(raw)
        except TimeoutError:
            raise
        except OSError:
            return

    def reply(self) -> Reply:
        """The next reply, of one line or several."""
        lines: list[str] = []
        while True:
            line = self._line()
            if not line.endswith(b"\n"):
                return CLOSED
            text = line.decode(errors="replace").rstrip("\r\n")
            lines.append(text[4:])
            if text[3:4] != "-":
                return Reply(int(text[:3]), " ".join(lines))

    def ask(self, command: str | bytes) -> Reply:
        """The reply to a command, to which CRLF is added."""
        raw = command.encode() if isinstance(command, str) else command
        self.send(raw + b"\r\n")
        return self.reply()

    def starttls(self) -> None:
        """From here on inside TLS, the certificate verified."""
        answer = self.ask("STARTTLS")
        assert answer.code == 220, answer
        self.wrap()

    def log_in(self, user: str, secret: str) -> None:
        answer = self.ask(f"AUTH PLAIN {smtp.encoded(user, secret)}")
        assert answer.code == 235, answer

    def wrap(self) -> None:
        """Begin TLS here, whatever was said."""
        context = self._endpoint.context()
        self._left = b""
        self._socket = context.wrap_socket(self._socket, server_hostname=self._endpoint.name)

    def _line(self) -> bytes:
        while b"\n" not in self._left and len(self._left) < _MOST:
            try:
                chunk = self._socket.recv(4096)
            except TimeoutError:
                raise
            except OSError:
                chunk = b""
            if not chunk:
                break
            self._left += chunk
        line, end, self._left = self._left.partition(b"\n")
        return line + end
