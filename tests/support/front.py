"""Stands before Pebble as an ACME server that is at times down or in trouble. Runs in a container.

    python3 front.py CHAIN KEY PEBBLE MODES

Each file of the folder MODES is called like a port, and says what the port does, from now on:
`up` (Pebble answers), `down` (nobody listens), `broken` (500 to each order), `limited` (429 to each
order). A line on standard output for each order that comes: `order PORT STATUS`. Standard library
only.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NEW_ORDER = "/order-plz"  # Pebble's
_LIMIT = (
    "too many certificates (5) already issued for this exact set of identifiers in the last "
    "168h0m0s, retry after 2030-01-01 00:00:00 UTC"
)
_PROBLEMS = {
    "broken": (500, "serverInternal", "Error creating new order"),
    "limited": (429, "rateLimited", _LIMIT),
}


def main(chain: str, key: str, pebble: str, modes: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    servers: dict[int, ThreadingHTTPServer] = {}
    while True:
        for path in modes.iterdir():
            port, mode = int(path.name), path.read_text().strip()
            if mode == "down" and port in servers:
                server = servers.pop(port)
                server.shutdown()
                server.server_close()
            elif mode not in ("", "down") and port not in servers:
                servers[port] = start(port, context, pebble, path)
        time.sleep(0.1)


def start(port: int, context: ssl.SSLContext, pebble: str, mode: Path) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            problem = _PROBLEMS.get(mode.read_text().strip())
            if problem and self.path == NEW_ORDER:
                status, kind, detail = problem
                self.send(status, {}, problem_document(status, kind, detail))
            else:
                self.pass_on(body)

        do_GET = do_HEAD = do_POST = answer  # noqa: N815 (http.server's names)

        def pass_on(self, body: bytes) -> None:
            inner = ssl.create_default_context()
            inner.check_hostname = False
            inner.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection(pebble, 14000, context=inner, timeout=30)
            # Pebble makes its URLs of the Host that it is asked for.
            headers = {name: value for name, value in self.headers.items() if name != "Connection"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            self.send(answer.status, dict(answer.getheaders()), answer.read())
            connection.close()

        def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            if self.path == NEW_ORDER:
                print("order", port, status, flush=True)
            self.send_response_only(status)
            passed = {name: value for name, value in headers.items() if name != "Transfer-Encoding"}
            for name, value in {"Content-Type": "application/problem+json", **passed}.items():
                self.send_header(name, value)
            if "Content-Length" not in headers and self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def problem_document(status: int, kind: str, detail: str) -> bytes:
    """RFC 7807, RFC 8555 6.7."""
    content = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}
    return json.dumps(content).encode()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
