"""Answers to the ACME HTTP-01 challenge (RFC 8555 8.3) on port 80, while they are needed.

Serves files of /.well-known/acme-challenge/ and nothing else. Not safe as a web server.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from entrypoint.common import identity
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Capability

PORT = 80
_TOKEN = re.compile(r"/\.well-known/acme-challenge/([A-Za-z0-9_-]{1,128})")


@contextmanager
def responder(root: Path) -> Iterator[None]:
    """Serve the challenges below `root` on both families. Raises UserError if 80 is taken."""
    with ExitStack() as stack:
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
            if family == socket.AF_INET6 and not _has_ipv6():
                continue
            server = stack.enter_context(_server(family, address, root))
            thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        yield


def _has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def _server(family: socket.AddressFamily, address: str, root: Path) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = family
        daemon_threads = True

        def server_bind(self) -> None:
            # Connections of the last time, minutes ago, are no reason to fail.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.socket.bind(self.server_address)

        def handle_error(self, *_args: object) -> None:
            """Say nothing: clients come and go as they like."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10
        server_version, sys_version = "tambo", ""

        def do_GET(self) -> None:
            match = _TOKEN.fullmatch(self.path)
            content = None
            if match:
                with suppress(OSError):
                    path = root / ".well-known/acme-challenge" / match[1]
                    content = path.read_bytes()
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            """Say nothing: scanners would fill the log."""

    try:
        with identity.raised(Capability.NET_BIND_SERVICE):
            return Server((address, PORT), Handler)
    except OSError as error:
        msg = (
            f"port {PORT} of {address} cannot be used for the challenge: {error.strerror}{_owner()}"
        )
        raise UserError(
            msg,
            "stop that program, or let it serve a folder and set ACME_WEBROOT, or use TLS=dns",
            exit_code=Exit.WRONG,
        ) from None


def _owner() -> str:
    """Who has the port, as far as a container can tell: what answers there, under which user.

    The host's processes are not visible here, but its sockets are, and web servers say their name.
    """
    said = []
    # A listener of the second table may serve both families.
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError, IndexError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[1].endswith(f":{PORT:04X}") and words[3] == "0A":
                    said.append(f"user id {words[7]}")
    with suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("localhost", PORT, timeout=2)
        connection.request("HEAD", "/")
        server = connection.getresponse().getheader("Server", "")
        if server:
            said.insert(0, f"a web server that calls itself {server[:60]!a}")
        connection.close()
    return f"; it is held by {', '.join(dict.fromkeys(said))}" if said else ""
