"""kill -9 at any step, and what a kill or a full disk leaves behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.image.certs.conftest import FIRST_KEY, CertServers
from tests.image.conftest import PROJECT
from tests.support.certserver import ACME, CertServer
from tests.support.container import checked, docker
from tests.support.peers import Front
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

KILLED = "killed.example"
PORT = 14005  # of the front: it counts the orders
# Seconds after acme.sh's start: before it has an account, an order, an answer, a certificate.
MOMENTS = (0.3, 2.5, 4.5)


@pytest.fixture(scope="module")
def volume() -> Iterator[str]:
    """A Docker volume with room for little more than what is on it."""
    name = f"{PROJECT}-small"
    options = ("type=tmpfs", "device=tmpfs", "o=size=3m")
    words = [word for option in options for word in ("--opt", option)]
    checked(docker("volume", "create", *words, name))
    yield name
    docker("volume", "rm", name)


@pytest.fixture(scope="module")
def server(volume: str, module_cert_servers: CertServers, front: Front) -> Iterator[CertServer]:
    settings = module_cert_servers.dns(KILLED, ACME_SERVER=front.open(PORT))
    server = module_cert_servers.make(settings, volume=volume)
    server.is_in_trouble()
    with module_cert_servers.zone(KILLED):
        server.up()
        # What is on the volume is nowhere else to be seen.
        server.data = Path(f"/proc/{server.container.pid}/root/data")
        yield server


@pytest.fixture(autouse=True)
def _nearly_full(server: CertServer) -> None:
    """The volume has less room than mail needs, as the server says again and again."""
    server.log.tolerate("the disk is nearly full")


def test_the_keeper_killed_again_and_again_does_not_have_it_issued_for_ever(
    server: CertServer, front: Front
) -> None:
    for number, moment in enumerate(MOMENTS, start=1):
        wait_until(server.acme_processes, "acme.sh runs", timeout=20)
        assert server.attempts() == number
        time.sleep(moment)
        server.machine.kill(server.process("keeper").pid)
        # What it had started dies with it.
        wait_until(lambda: not server.acme_processes(), "acme.sh is gone", timeout=2)
        assert server.greets()
    words = "the last tries were interrupted, as if the container had been killed"
    wait_until(lambda: server.memory(KILLED)["error"] == words, "it gives up for now", timeout=20)
    memory = server.memory(KILLED)
    assert memory["failures"] == len(MOMENTS)
    assert 1800 < memory["next_try"] - time.time() <= 3600
    assert front.orders(PORT) <= len(MOMENTS)
    assert (
        f"no new certificate: {words}; the self-signed one serves. Fix: " in server.container.log()
    )


def test_when_asked_it_is_tried_at_once_whatever_files_are_left_empty(server: CertServer) -> None:
    """As acme.sh leaves them when it is killed between opening and writing."""
    home = server.data / "acme" / KILLED
    found = server.machine.run("find", str(home), "-type", "f").stdout
    assert "account.key" in found
    assert f"{KILLED}.key" in found
    empty = ("find", str(home), "-type", "f", "-exec", "truncate", "-s0", "{}", "+")
    checked(server.machine.run(*empty))
    assert "in place, valid until" in server.ok("renew-cert")
    assert server.serves(server.installed(KILLED), KILLED)
    assert server.memory(KILLED)["failures"] == 0


@pytest.mark.parametrize("moment", [0.2, 1.0])
def test_acme_sh_killed_leaves_the_old_one_in_service(server: CertServer, moment: float) -> None:
    old = server.installed(KILLED)
    with ThreadPoolExecutor(1) as pool:
        renewal = pool.submit(server.verb, "renew-cert", "--force")
        first = wait_until(server.acme_processes, "acme.sh runs")[0]
        time.sleep(moment)
        server.machine.kill(first)
        result = renewal.result()
    assert result.status == 1
    words = "acme.sh was killed by signal 9; the one in place stays in service. Fix: see that"
    assert f"{KILLED}: no new certificate: {words}" in result.stdout
    memory = server.memory(KILLED)
    assert 800 < memory["next_try"] - time.time() <= 900 * 2 ** (memory["failures"] - 1)
    assert server.serves(old, KILLED)
    assert server.installed(KILLED) == old


# --- a full disk ---------------------------------------------------------------------------------

MARK = "/run/mark"
# Fills the disk as soon as acme.sh has the new certificate.
_FILLER = """
until [ "$0" -nt /run/mark ]; do :; done
cat /dev/zero >/data/filler
"""


def test_a_disk_that_is_full_while_installing(server: CertServer) -> None:
    old = server.installed(KILLED)
    checked(server.container.exec("touch", MARK))
    chain = f"/data/acme/{KILLED}/{KILLED}_ecc/fullchain.cer"
    checked(docker("exec", "--detach", server.name, "sh", "-c", _FILLER, chain))
    result = server.verb("renew-cert", "--force")
    assert result.status == 1
    assert "No space left on device" in result.stdout
    assert "the one in place stays in service. Fix: make room on the volume's disk" in result.stdout
    assert server.installed(KILLED) == old
    assert server.serves(old, KILLED)


def test_on_a_full_disk_the_authority_is_not_asked_again_and_again(
    server: CertServer, front: Front
) -> None:
    """As nobody could count such tries."""
    orders = front.orders(PORT)
    # What the last try has given back, too.
    server.container.exec("sh", "-c", "cat /dev/zero >>/data/filler")
    assert "No space left on device" in server.verb("renew-cert", "--force").stdout
    assert front.orders(PORT) == orders


def test_when_there_is_room_again_the_next_try_succeeds(server: CertServer) -> None:
    old = server.installed(KILLED)
    checked(server.container.exec("rm", "/data/filler"))
    with server.command_lines() as seen:
        server.ok("renew-cert", "--force")
    assert server.installed(KILLED) != old
    assert server.serves(server.installed(KILLED), KILLED)
    # acme.sh updates its files at a renewal, by scripts that hold the values.
    assert any(ACME in line and "--issue" in line for line in seen)
    assert not [line for line in seen if FIRST_KEY in line]
