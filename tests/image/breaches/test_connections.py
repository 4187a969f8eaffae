"""Floods: whoever fills ports, memory or patience keeps nobody else out.

Another machine attacks, from one address or from many. Meanwhile a login, and a mail server at an
address of its own, must get their mail taken within two seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.image.breaches.conftest import GENERATED, Shipped
from tests.support import attack, smtp
from tests.support.peers import Neighbourhood, Peer
from tests.support.server import DOMAIN
from tests.support.wait import wait_until

pytestmark = pytest.mark.alone

SOON = 2.0  # seconds
HOST = 60
_LONG = 240.0  # seconds for an attack to end


class Attacker(Peer):
    """A machine of the world's that runs tests/support/attack.py."""

    def __init__(self, where: Neighbourhood, folder: Path) -> None:
        (folder / "attack.py").write_text(Path(attack.__file__).read_text())
        super().__init__(
            where, "attacker", HOST, ("sleep", "infinity"), folder=folder,
            options=("--cap-add", "NET_ADMIN", "--ulimit", "nofile=20000"),
        )  # fmt: skip

    def run(self, *words: object) -> dict[str, Any]:
        """Attack to the end; what came of it."""
        argv = ("python3", "/peer/attack.py", *map(str, words))
        result = self.container.exec(*argv, timeout=_LONG)
        assert result.status == 0, result
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    @contextmanager
    def attacking(self, *words: object) -> Iterator[Future[dict[str, Any]]]:
        """Attack meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.run, *words)
            yield future
            future.result()


@pytest.fixture(scope="module")
def attacker(where: Neighbourhood, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    found = Attacker(where, tmp_path_factory.mktemp("attacker"))
    yield found
    found.remove()


@pytest.fixture
def mail(shipped: Shipped) -> Iterator[Shipped]:
    """The server; chasquid must be the same one afterwards, and healthy."""
    pid = shipped.server.process("chasquid").pid
    yield shipped
    assert shipped.server.process("chasquid").pid == pid, "chasquid lives"
    shipped.server.wait_until_healthy()


def send(shipped: Shipped, port: int) -> float:
    """A message of a login's; the seconds until it was taken."""
    since = time.monotonic()
    with smtp.mail_program(shipped.server.endpoint(), port) as session:
        session.login(GENERATED, shipped.secrets[GENERATED])
        session.send_message(smtp.message(GENERATED, "me@example.net"))
    return time.monotonic() - since


def come_in(shipped: Shipped) -> float:
    """A message from an honest server; the seconds until it was taken."""
    since = time.monotonic()
    with smtp.mail_server(shipped.server.ipv4) as session:
        session.send_message(smtp.message("you@outside.example", GENERATED))
    return time.monotonic() - since


def open_on_25(shipped: Shipped) -> int:
    return int(shipped.server.control("status")["connections"]["open"]["25"])


def test_8300_idle_connections_from_one_address_keep_nobody_out(
    mail: Shipped, attacker: Attacker
) -> None:
    server = mail.server
    with attacker.attacking("idle", server.ipv4, 8300, 20, attacker.ipv4) as attack:
        wait_until(lambda: open_on_25(mail) == 20, "it has what it may have", timeout=30)
        while not attack.done():
            assert come_in(mail) < SOON
            assert send(mail, smtp.SUBMISSIONS) < SOON
            assert send(mail, smtp.SUBMISSION) < SOON
            assert open_on_25(mail) <= 22
    said = attack.result()
    assert said["220"] == 20
    assert said["421"] >= 8200


def test_60_messages_without_an_end_neither_end_chasquid_nor_keep_a_login_out(
    mail: Shipped, attacker: Attacker
) -> None:
    net = mail.world.net
    addresses = [attacker.ipv4, net.v4(61), net.v4(62)]
    most = 0
    with attacker.attacking("data", mail.server.ipv4, 20, 20, *addresses) as attack:
        wait_until(lambda: open_on_25(mail) >= 60, "all are there", timeout=30)
        while not attack.done():
            assert send(mail, smtp.SUBMISSIONS) < 4 * SOON
            most = max(most, mail.server.control("status")["connections"]["under_way"])
    assert attack.result()["220"] == 60
    assert attack.result()["ended"] >= 5
    assert 64 << 20 < most < 200 << 20
    assert "of a message without an end" in mail.server.container.log()
    assert "signal 9" not in mail.server.container.log()


def test_wrong_passwords_block_their_address_until_it_is_unblocked(
    shipped: Shipped, attacker: Attacker
) -> None:
    server = shipped.server
    said = attacker.run("guess", server.ipv4, 8, GENERATED)
    assert said == {"535": 5, "closed": 3}
    listed = server.ok("list-blocked")
    assert attacker.ipv4 in listed
    assert "5 failed log-ins within an hour" in listed
    line = attacker.run("greet", server.ipv4)["line"]
    assert line.startswith(f"421 4.7.0 {attacker.ipv4}: 5 failed log-ins")
    assert send(shipped, smtp.SUBMISSIONS) < SOON, "the owner gets in"
    server.compose("restart")
    server.wait_until_it_serves()
    assert attacker.ipv4 in server.ok("list-blocked"), "it outlasts a restart"
    assert attacker.run("greet", server.ipv4)["line"].startswith("421")
    assert server.ok("unblock", attacker.ipv4) == f"Not blocked any more: {attacker.ipv4}\n"
    assert attacker.run("greet", server.ipv4)["line"].startswith("220")
    assert server.verb("list-blocked").stdout == ""


def test_who_logged_in_may_mistype(shipped: Shipped) -> None:
    endpoint = shipped.server.endpoint()
    assert send(shipped, smtp.SUBMISSIONS) < SOON
    for _ in range(7):
        with smtp.mail_program(endpoint) as session:
            code, _ = session.docmd("AUTH", f"PLAIN {smtp.encoded(GENERATED, 'wrong')}")
            assert code == 535
    assert send(shipped, smtp.SUBMISSIONS) < SOON


def test_log_in_from_an_address_is_known_to_services(shipped: Shipped) -> None:
    server = shipped.server
    with smtp.mail_program(server.endpoint()) as session:
        session.login(GENERATED, shipped.secrets[GENERATED])
        assert session.sock is not None
        host, port = session.sock.getsockname()[:2]
        found = server.control(f"session {host}:{port}")
        assert found["login"] == GENERATED
        assert abs(found["at"] - time.time()) < 60
        peers = {item["peer"]: item for item in server.control("sessions")["sessions"]}
        assert peers[f"{host}:{port}"]["port"] == 465
    assert server.control(f"known {host} {GENERATED}") == {"known": True}
    assert server.control(f"known {host} other@{DOMAIN}") == {"known": False}
    assert server.control(f"session {host}:1") == {"unknown": True}
