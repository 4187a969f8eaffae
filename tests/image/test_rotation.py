"""DKIM keys change hands while mail goes out: every message verifies, whoever is killed when."""

from __future__ import annotations

import re
import smtplib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from docker import DockerClient

from tests.image.conftest import PROJECT, TAMBO, Servers
from tests.support import smtp
from tests.support.container import Result, checked
from tests.support.nameserver import NameServer
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until
from tests.world.world import Delivery, World

pytestmark = pytest.mark.long

RATE = 5  # messages a second
KEEPER = 45.0  # seconds in which the keeper sees what DNS shows
USER = f"i@{DOMAIN}"
FOLDER = f"domains/{DOMAIN}"
# What the keeper does each half minute, at once.
ADVANCE = (
    "from entrypoint.renewal import dkim; from entrypoint.commands.context import Context;"
    "from entrypoint.dns.authoritative import Authoritative; c = Context.enter();"
    "dkim.advance(c.settings, c.paths, c.ids, Authoritative(), print)"
)


@pytest.fixture(scope="module")
def server(module_servers: Servers, world: World) -> Iterator[Server]:
    server = module_servers.make(
        {"DKIM_KEYS": "rsa2048,ed25519", "DKIM_SELECTOR": "k"}, host=TAMBO
    )  # fmt: skip
    server.up()
    publish(server, world)
    yield server
    world.load_zone(DOMAIN, "")


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(USER)


@pytest.fixture
def second(client: DockerClient, world: World) -> Iterator[NameServer]:
    found = NameServer(client, f"{PROJECT}-other-nameserver", world)
    yield found
    found.remove()


def publish(server: Server, world: World, more: str = "") -> str:
    zone = server.ok("dns", "--format", "zone") + more
    world.load_zone(DOMAIN, zone)
    return zone


def status(server: Server) -> dict[str, Any]:
    [row] = checked(server.verb("rotate-dkim", "--status", "--json")).json()
    assert isinstance(row, dict)
    return row


def advance(server: Server) -> Result:
    return server.container.exec("/opt/tambo/bin/python", "-c", ADVANCE)


def pending(server: Server) -> list[str]:
    return [item["selector"] for item in status(server)["pending"]]


@dataclass
class Stream:
    """Messages at a steady rate; what is refused or cut off is tried again, as programs do."""

    server: Server
    secret: str
    world: World
    subjects: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def _submit(self) -> None:
        for _ in range(200):
            try:
                endpoint = self.server.endpoint()
                self.subjects.append(smtp.submit(endpoint, USER, self.secret, "you@example.net"))
            except (smtplib.SMTPException, OSError) as error:
                self.failures.append(repr(error))
                time.sleep(0.1)
            else:
                return
        pytest.fail(f"not taken: {self.failures[-1]}")

    @contextmanager
    def going_on(self) -> Iterator[None]:
        stop = threading.Event()
        sent: list[Future[None]] = []

        def run(pool: ThreadPoolExecutor) -> None:
            due = time.monotonic()
            while not stop.is_set():
                sent.append(pool.submit(self._submit))
                due += 1 / RATE
                time.sleep(max(0.0, due - time.monotonic()))

        with ThreadPoolExecutor(4 * RATE) as pool:
            runner = threading.Thread(target=run, args=(pool,))
            runner.start()
            try:
                yield
            finally:
                stop.set()
                runner.join()
        for item in sent:
            item.result()

    def arrived(self) -> list[Delivery]:
        """Each message that was taken, once all have arrived."""

        def found() -> list[Delivery]:
            wanted = set(self.subjects)
            here = [item for item in self.world.deliveries() if item.subject in wanted]
            return here if {item.subject for item in here} == wanted else []

        return wait_until(found, "every message arrives", timeout=90, pause=1)


def selectors(delivery: Delivery) -> tuple[str, ...]:
    return tuple(sorted(key.partition("/")[2] for key in delivery.dkim))


def assert_all_verify(deliveries: list[Delivery]) -> set[tuple[str, ...]]:
    """Every signature of every message; the sets of selectors that were seen."""
    for item in deliveries:
        assert set(item.dkim.values()) == {"pass"}, item.dkim
        assert len({key.partition("/")[0] for key in item.dkim}) == 2, "both algorithms"
        assert (item.spf, item.dmarc) == ("pass", "pass")
    return {selectors(item) for item in deliveries}


def test_every_message_verifies_before_during_and_after(
    server: Server, secret: str, world: World
) -> None:
    stream = Stream(server, secret, world)
    with stream.going_on():
        time.sleep(2)
        done = server.ok("rotate-dkim", DOMAIN)
        assert status(server)["signing"] == ["ke", "kr"]
        for selector in ("k2e", "k2r"):
            assert f"pending   {selector}: its record is not in DNS yet" in done
            assert f"TXT   {selector}._domainkey" in done
        time.sleep(2)
        zone = publish(server, world)
        for selector in ("ke", "kr", "k2e", "k2r"):
            assert re.search(rf"(?m)^{selector}\._domainkey\t", zone)
        # The keeper takes them over by itself.
        wait_until(lambda: not pending(server), "the new keys sign", timeout=KEEPER, pause=0.5)
        time.sleep(2)
    assert status(server)["signing"] == ["k2e", "k2r"]
    assert re.search(
        f"{DOMAIN}: every name server shows the new DKIM key; from now on mail is signed with k2e "
        "and k2r", server.container.log()
    )  # fmt: skip
    found = stream.arrived()
    assert assert_all_verify(found) == {("ke", "kr"), ("k2e", "k2r")}
    assert len(stream.subjects) > 10 * RATE
    # chasquid ends without a farewell: who was in the middle tries again, and what was just
    # delivered may be so once more. None was refused.
    assert len(found) - len(stream.subjects) <= 3
    assert len(stream.failures) <= 3
    assert not any("refused" in text for text in stream.failures)
    assert server.verb("dns", "--check").status == 0


def test_afterwards_the_old_records_are_still_asked_for(server: Server, world: World) -> None:
    row = status(server)
    assert [item["selector"] for item in row["retired"]][-2:] == ["ke", "kr"]
    zone = publish(server, world)
    assert re.search(r"(?m)^kr\._domainkey\t", zone)
    assert "the last public key; keep it until" in zone
    assert server.verb("dns", "--check").status == 0


def test_keys_that_are_already_published_take_over_within_the_wait(
    server: Server, secret: str, world: World
) -> None:
    server.ok("rotate-dkim", DOMAIN)
    first, last = pending(server)
    publish(server, world)
    done = checked(server.verb("rotate-dkim", DOMAIN, "--wait", "30"))
    assert f"signed with {first} and {last}" in done.stderr
    assert f"signing   {first}, {last}\n" in done.stdout
    subject = smtp.submit(server.endpoint(), USER, secret, "you@example.net")
    found = world.wait_for(subject=subject, timeout=20)
    assert assert_all_verify(found) == {(first, last)}


def test_the_old_keys_sign_while_one_of_two_name_servers_lags_behind(
    server: Server, secret: str, world: World, second: NameServer
) -> None:
    def sent() -> Delivery:
        subject = smtp.submit(server.endpoint(), USER, secret, "you@example.net")
        [delivery] = world.wait_for(subject=subject, timeout=20)
        assert_all_verify([delivery])
        return delivery

    old = publish(server, world, second.delegation)
    second.load_zone(DOMAIN, old)
    before = status(server)["signing"]
    server.ok("rotate-dkim", DOMAIN)
    publish(server, world, second.delegation)
    checked(advance(server))
    row = status(server)
    assert row["signing"] == before
    assert {item["dns"] for item in row["pending"]} == {"missing"}
    assert "not at second." in row["pending"][0]["reason"]
    assert selectors(sent()) == tuple(before)
    # Nor does its silence count as a yes.
    checked(second.docker("pause"))
    checked(advance(server))
    assert {item["dns"] for item in status(server)["pending"]} == {"unknown"}
    checked(second.docker("unpause"))
    second.load_zone(DOMAIN, server.ok("dns", "--format", "zone") + second.delegation)
    said = checked(advance(server)).stdout
    assert "every name server shows the new DKIM key" in said
    assert not pending(server)
    publish(server, world)
    assert selectors(sent()) == tuple(status(server)["signing"]) != tuple(before)


@pytest.mark.parametrize("step", ["first key aside", "first key", "all keys", "retired"])
def test_killed_in_the_middle_it_completes_and_every_message_verifies(
    server: Server, secret: str, world: World, step: str
) -> None:
    before = status(server)["signing"]
    server.ok("rotate-dkim", DOMAIN)
    first, last = pending(server)
    retired = server.machine.names(server.data / FOLDER / "dkim/retired")
    # What is written aside is there for a moment; if that is missed, the kill comes at the next.
    names = {
        "first key aside": (f".dkim:{first}.pem.new", f"dkim:{first}.pem"),
        "first key": (f"dkim:{first}.pem",),
        "all keys": (f"dkim:{last}.pem",),
        "retired": (f"dkim/retired/*.dkim:{before[0]}.pem",),
    }[step]
    patterns = [str(server.data / FOLDER / name) for name in names]
    stream = Stream(server, secret, world)
    with stream.going_on():
        time.sleep(1)
        restarts = server.container.restarts
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(kill_when, server, *patterns)
            time.sleep(0.5)
            publish(server, world)
            advance(server)
            killing.result()
        # Docker starts it again, as after any death.
        wait_until(lambda: server.container.running, "it is started again", timeout=20)
        server.wait_until_it_serves()
        assert server.container.restarts == restarts + 1
        assert set(status(server)["signing"]) & {*before, first, last}
        wait_until(lambda: advance(server).status == 0, "it can go on", timeout=20)
        assert not pending(server)
        time.sleep(1)
    assert status(server)["signing"] == [first, last]
    now = server.machine.names(server.data / FOLDER / "dkim/retired")
    assert len(now) == len(retired) + 2, "each of the old ones once"
    assert not [name for name in now if name.endswith(".new")]
    seen = assert_all_verify(stream.arrived())
    assert (first, last) in seen
    assert {name for names in seen for name in names} <= {*before, first, last}
    assert server.verb("dns", "--check").status == 0


def kill_when(server: Server, *patterns: str) -> None:
    """With signal 9, as soon as a file of a pattern exists."""
    script = (
        'until for file in $0; do [ -e "$file" ] && break; done; do :; done; kill -9 '
        f"{server.container.pid}"
    )
    # Before all others: some files are there for less than a turn of a busy machine's processor.
    first = ("nice", "-n", "-20", "timeout", "30")
    checked(server.machine.run(*first, "sh", "-c", script, " ".join(patterns)))
