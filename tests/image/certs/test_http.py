"""TLS=http: a responder on port 80 of both families, while it is needed and no longer."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.image.certs.conftest import CertServers
from tests.image.conftest import PROJECT
from tests.support.certserver import PORTS, CertServer, openssl_says
from tests.support.container import Container, checked, docker
from tests.support.wait import wait_until
from tests.world.world import ACME_DIRECTORY, IMAGE, World

FAMILIES = {"v4": "A", "v6": "AAAA"}
WEBROOT = "webroot"
CHALLENGES = "/.well-known/acme-challenge"
NOT_THERE = (
    "/", "/index.html", CHALLENGES, f"{CHALLENGES}/", f"{CHALLENGES}/none", f"{CHALLENGES}/../..",
    f"{CHALLENGES}/..%2f..%2f..%2fetc%2fpasswd", f"{CHALLENGES}/../../../../etc/passwd",
    "/data/acme", f"{CHALLENGES}/none?x=y", f"{CHALLENGES}//etc/passwd",
)  # fmt: skip


def host(name: str) -> str:
    return f"smtp.{name}.example"


@dataclass
class Watch:
    """Asks port 80 of a server again and again; what it answered, by address and path."""

    server: CertServer
    answers: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(stop,))
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def _work(self, stop: threading.Event) -> None:
        while not stop.wait(0.02):
            for address in (self.server.ipv4, self.server.ipv6):
                for path in NOT_THERE:
                    try:
                        status = get(address, path)
                    except OSError:
                        self.refused.add(address)
                        break
                    self.answers.setdefault((address, path), set()).add(status)


def get(address: str, path: str) -> int:
    """The status of a GET request for exactly this path."""
    with closing(socket.create_connection((address, 80), timeout=5)) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status


def is_open(address: str) -> bool:
    try:
        socket.create_connection((address, 80), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture(scope="module")
def servers(module_cert_servers: CertServers, base: Path) -> Iterator[dict[str, CertServer]]:
    """One whose name has an IPv4 address alone, one whose has an IPv6 address alone, and one with
    another web server, which serves the folder of ACME_WEBROOT."""
    webroot = base / "webroot"
    webroot.mkdir()
    webroot.chmod(0o777)
    (webroot / "index.html").write_text("somebody else's")
    made = {}
    with ExitStack() as stack:
        for name, kind in {**FAMILIES, WEBROOT: "A"}.items():
            settings = {"TLS": "http", "MAIL_HOSTNAME": host(name), "ACME_SERVER": ACME_DIRECTORY}
            mounts = []
            if name == WEBROOT:
                settings["ACME_WEBROOT"] = "/webroot"
                mounts = [f"{webroot}:/webroot"]
            server = module_cert_servers.make(settings, mounts=mounts)
            address = server.ipv6 if kind == "AAAA" else server.ipv4
            zone = host(name).partition(".")[2]
            stack.enter_context(module_cert_servers.zone(zone, f"smtp {kind} {address}"))
            made[name] = server
        yield made


@pytest.fixture(scope="module")
def watches(servers: dict[str, CertServer], base: Path) -> dict[str, Watch]:
    """What their ports 80 answered from the boot until the certificate was there."""
    watches = {name: Watch(server) for name, server in servers.items()}
    with ExitStack() as stack:
        for name, watch in watches.items():
            watch.server.up(wait=False)
            if name == WEBROOT:
                stack.enter_context(web_server(watch.server, base / "webroot"))
            stack.enter_context(watch.watching())
        for name, watch in watches.items():
            watch.server.wait_until_issued(host(name))
    return watches


@contextmanager
def web_server(server: CertServer, folder: Path) -> Iterator[None]:
    """A web server of somebody else's on a server's port 80."""
    name = f"{PROJECT}-web"
    options = ("--network", f"container:{server.name}", "--volume", f"{folder}:/web")
    command = ("python3", "-m", "http.server", "80", "--bind", "::", "--directory", "/web")
    wait_until(lambda: server.container.running, "it runs")
    checked(docker("run", "--detach", "--name", name, *options, IMAGE, *command))
    try:
        wait_until(lambda: is_open(server.ipv4), "the web server is up")
        yield
    finally:
        Container(server.container.client, name).remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_authority_reaches_it_over_each_family_alone(
    watches: dict[str, Watch], world: World, roots: str, family: str
) -> None:
    server = watches[family].server
    for port in PORTS:
        said = openssl_says(world, server.ipv4, port, host(family), roots)
        assert "Verification: OK" in said, said
    assert server.listed(host(family))["names"] == [host(family)]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_404_to_all_else_on_both_families(
    watches: dict[str, Watch], family: str
) -> None:
    watch = watches[family]
    for address in (watch.server.ipv4, watch.server.ipv6):
        for path in NOT_THERE:
            assert watch.answers[address, path] == {404}, (address, path)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_up_only_while_it_is_needed(watches: dict[str, Watch], family: str) -> None:
    server = watches[family].server
    assert watches[family].refused == {server.ipv4, server.ipv6}, "it was not there all the time"
    wait_until(lambda: not is_open(server.ipv4), "port 80 is closed")
    assert not is_open(server.ipv6)


def test_the_keeper_holds_the_right_to_bind_in_reserve_only(watches: dict[str, Watch]) -> None:
    server = watches["v4"].server
    status = server.machine.status(server.process("keeper").pid)
    bind = 1 << 10
    assert int(status["CapPrm"], 16) & bind
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0


def test_a_taken_port_is_named_with_its_owner(watches: dict[str, Watch], base: Path) -> None:
    server, name = watches["v4"].server, host("v4")
    old = server.installed(name)
    with web_server(server, base / "webroot"):
        result = server.verb("renew-cert", "--force")
    assert result.status == 1
    assert "port 80 of " in result.stdout
    assert "cannot be used for the challenge: Address already in use" in result.stdout
    assert "it is held by a web server that calls itself 'SimpleHTTP/" in result.stdout
    assert "user id 0" in result.stdout
    assert "ACME_WEBROOT" in result.stdout, "the fix"
    assert server.serves(old, name)
    row = server.listed(name)
    assert "it is held by a web server" in row["error"]
    server.log.tolerate(f"The certificate of {name} could not be issued")
    wait_until(lambda: "could not be issued" in server.container.log(), "the keeper tells it")


def test_when_the_port_is_free_the_next_try_succeeds(watches: dict[str, Watch]) -> None:
    server, name = watches["v4"].server, host("v4")
    old = server.installed(name)
    said = server.ok("renew-cert", "--force")
    assert "the new certificate is served on ports 25, 465, 587" in said
    assert server.installed(name) != old
    assert server.listed(name)["error"] == ""


def test_with_acme_webroot_another_web_server_answers(watches: dict[str, Watch]) -> None:
    watch = watches[WEBROOT]
    for address in (watch.server.ipv4, watch.server.ipv6):
        assert watch.answers[address, "/"] == {200}
    assert watch.server.listed(host(WEBROOT))["served"] is True
