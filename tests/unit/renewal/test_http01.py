"""Answers to the HTTP-01 challenge, over a pair of unix sockets; port 80 in tests/image."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from entrypoint.common.errors import Exit, UserError
from entrypoint.renewal import http01
from tests.unit.kit import put

FOLDER = ".well-known/acme-challenge"
TOKEN = "Abc-123_xyz"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """Bound to any port of the loopback, where nobody asks it."""
    put(tmp_path / FOLDER / TOKEN, "the answer")
    put(tmp_path / FOLDER / "folder/inside", "secret")
    put(tmp_path / "secret", "secret")
    monkeypatch.setattr(http01, "PORT", 0)
    with http01._server(socket.AF_INET, "127.0.0.1", tmp_path) as server:
        yield server


def ask(server: ThreadingHTTPServer, request: bytes) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the answer."""
    client, end = socket.socketpair()
    with client, end:
        thread = Thread(target=server.finish_request, args=(end, ("client", 1)))
        client.settimeout(5)
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        thread.start()
        answer = http.client.HTTPResponse(client, method=request.split()[0].decode())
        answer.begin()
        body = answer.read()
        thread.join()
        return answer.status, body, dict(answer.getheaders())


def get(server: ThreadingHTTPServer, path: str) -> tuple[int, bytes]:
    status, body, _ = ask(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return status, body


def test_a_challenge_is_answered(server: ThreadingHTTPServer) -> None:
    request = f"GET /{FOLDER}/{TOKEN} HTTP/1.1\r\nHost: smtp.example.com\r\n\r\n"
    status, body, headers = ask(server, request.encode())
    assert (status, body) == (200, b"the answer")
    assert headers["Content-Length"] == "10"
    assert headers["Server"].strip() == "tambo", "and not which Python"


@pytest.mark.parametrize(
    "path",
    [
        "/", "/secret", f"/{FOLDER}", f"/{FOLDER}/", f"/{FOLDER}/none", f"/{FOLDER}/folder",
        f"/{FOLDER}/folder/inside", f"/{FOLDER}/../../secret", f"/{FOLDER}/..%2f..%2fsecret",
        f"/{FOLDER}//{TOKEN}", f"/{FOLDER}/{TOKEN}/", f"/x/{FOLDER}/{TOKEN}",
        f"/{FOLDER}/{TOKEN}?x=y", f"/{FOLDER}/{TOKEN}#x", f"/{FOLDER}/.{TOKEN}",
        f"/{FOLDER}/{'a' * 129}", f"/{FOLDER}/{TOKEN}%00", f"http://x/{FOLDER}/{TOKEN}",
    ],
)  # fmt: skip
def test_nothing_else_is_there(server: ThreadingHTTPServer, path: str) -> None:
    status, body = get(server, path)
    assert status == 404
    assert b"secret" not in body
    assert b"the answer" not in body


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "X"])
def test_no_other_method_is_known(server: ThreadingHTTPServer, method: str) -> None:
    request = f"{method} /{FOLDER}/{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    status, body, _ = ask(server, request.encode())
    assert status == 501
    assert b"the answer" not in body


def test_it_tells_the_log_nothing(
    server: ThreadingHTTPServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """Scanners come to every port 80, and leave as they like."""
    get(server, "/")
    assert ask(server, b"GET / HTTP/1.1\r\nno header\r\n\r\n")[0] == 404
    client, end = socket.socketpair()
    client.close()
    server.process_request(end, ("client", 1))
    server.handle_error(end, ("client", 1))
    end.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("owner", ["", "; it is held by a web server that calls itself 'x'"])
def test_a_taken_port_is_the_owner_s_to_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    monkeypatch.setattr(http01, "_owner", lambda: owner)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(http01, "PORT", port)
        with pytest.raises(UserError) as raised:
            http01._server(socket.AF_INET, "127.0.0.1", tmp_path)
    assert raised.value.message == (
        f"port {port} of 127.0.0.1 cannot be used for the challenge: Address already in use{owner}"
    )
    assert "ACME_WEBROOT" in raised.value.fix
    assert raised.value.exit_code is Exit.WRONG


def test_what_remains_of_earlier_connections_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They keep the port for a minute from whoever does not say that it may be shared."""
    monkeypatch.setattr(http01, "PORT", 0)
    with http01._server(socket.AF_INET, "127.0.0.1", tmp_path) as server:
        assert server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1


def test_the_families_do_not_take_each_other_s_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http01, "PORT", 0)
    with http01._server(socket.AF_INET6, "::1", tmp_path) as server:
        assert server.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
