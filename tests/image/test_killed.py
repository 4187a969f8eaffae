"""kill -9: of any program, at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.container import checked
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

BACK_WITHIN = 3.0  # seconds
# Seconds after the start at which a first boot is killed: closest where keys are made.
MOMENTS = [*(number * 0.03 for number in range(14)), 0.5, 0.65, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8]


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make()
    server.up()
    return server


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(f"i@{DOMAIN}")


def assert_mail_is_back_in_time(server: Server, kill: Callable[[], None]) -> None:
    """The best of three: a machine that is busy with something else is slow at everything."""
    seconds = []
    for _ in range(3):
        since = time.monotonic()
        kill()
        server.wait_until_it_serves()
        seconds.append(time.monotonic() - since)
        if seconds[-1] < BACK_WITHIN:
            return
    raise AssertionError(seconds)


def kill_and_see_it_dead(server: Server, name: str) -> None:
    victim = server.process(name).pid
    server.machine.kill(victim)
    wait_until(lambda: victim not in pids(server), f"{name} is dead", pause=0.01)


def assert_one_of_each(server: Server) -> None:
    wait_until(lambda: server.processes("keeper"), "all of it runs again")
    for name in ("first", "holder", "keeper", "chasquid"):
        assert len(server.processes(name)) == 1, name
    assert server.process("chasquid").parent == server.process("holder").pid


def pids(server: Server) -> set[int]:
    if not server.container.running:
        return set()
    return {process.pid for process in server.container.processes()}


@pytest.mark.alone
@pytest.mark.parametrize("name", ["chasquid", "holder", "keeper", "first"])
def test_mail_is_back_in_three_seconds_after_kill_9_of(
    server: Server, secret: str, name: str
) -> None:
    if name == "chasquid":
        server.log.expect("error: chasquid was killed by signal 9")
    restarts = server.container.restarts
    assert_mail_is_back_in_time(server, lambda: kill_and_see_it_dead(server, name))
    assert smtp.can_log_in(server.endpoint(), f"i@{DOMAIN}", secret)
    assert_one_of_each(server)
    assert (server.container.restarts > restarts) == (name == "first")


@pytest.mark.alone
def test_mail_is_back_in_three_seconds_after_docker_kill_and_start(
    server: Server, secret: str
) -> None:
    def kill() -> None:
        checked(server.container.docker("kill", "--signal", "KILL"))
        checked(server.container.docker("start"))

    assert_mail_is_back_in_time(server, kill)
    assert smtp.can_log_in(server.endpoint(), f"i@{DOMAIN}", secret)
    assert_one_of_each(server)


@pytest.mark.alone
def test_chasquid_killed_again_and_again_comes_back_each_time(server: Server, secret: str) -> None:
    server.log.expect("error: chasquid was killed by signal 9")
    for _ in range(4):
        assert_mail_is_back_in_time(server, lambda: kill_and_see_it_dead(server, "chasquid"))
    assert smtp.can_log_in(server.endpoint(), f"i@{DOMAIN}", secret)
    assert_one_of_each(server)


@pytest.mark.usefixtures("secret")
def test_a_message_taken_before_the_kill_is_delivered_after_it(server: Server) -> None:
    server.log.expect("error: chasquid was killed by signal 9")
    with smtp.mail_server(server.ipv4) as session:
        mail = smtp.message("someone@outside.example", f"i@{DOMAIN}")
        session.send_message(mail, from_addr="someone@outside.example", to_addrs=[f"i@{DOMAIN}"])
        server.machine.kill(server.process("chasquid").pid)
    found = wait_until(
        lambda: [text for text in server.kept(f"i@{DOMAIN}") if mail["Subject"] in text],
        "it is kept",
    )
    assert len(found) in (1, 2), "never none"


@pytest.fixture
def fresh(servers: Servers) -> Server:
    return make(servers)


def make(servers: Servers) -> Server:
    """Made, not started."""
    server = servers.make({"DKIM_KEYS": "rsa2048,ed25519", "DKIM_SELECTOR": "k"})
    server.compose("create", "--no-build")
    return server


def assert_the_next_boot_completes(server: Server, keys: dict[str, str]) -> None:
    checked(server.container.docker("start"))
    server.wait_until_it_serves()
    complete = server.keys()
    assert keys.items() <= complete.items(), "what there was has not changed"
    assert set(complete) == {"dkim:kr.pem", "dkim:ke.pem"}
    wait_until(
        lambda: not [path for path in server.machine.tree(server.data) if path.endswith(".new")],
        "nothing is left aside: what was being written then is written anew",
    )
    names = {item["name"] for item in server.verb("dns", "--json").json()}
    assert {f"kr._domainkey.{DOMAIN}", f"ke._domainkey.{DOMAIN}"} <= names


def test_a_first_boot_killed_at_any_moment_is_completed_by_the_next_with_the_same_key(
    fresh: Server,
) -> None:
    keys: dict[str, str] = {}
    seen = []
    for moment in MOMENTS:
        checked(fresh.container.docker("start"))
        time.sleep(moment)
        checked(fresh.container.docker("kill", "--signal", "KILL"))
        now = fresh.keys()
        assert keys.items() <= now.items(), f"killed after {moment} s: a key changed"
        keys = now
        seen.append(len(keys))
    assert seen[0] == 0, "the first kill came before any key"
    assert_the_next_boot_completes(fresh, keys)


def test_a_first_boot_killed_at_each_of_its_steps_is_completed_with_the_same_key(
    servers: Servers,
) -> None:
    between = f"domains/{DOMAIN}/dkim:kr.pem"
    seen = []
    for _ in range(4):  # on a busy machine the kill may come after the second key, too
        seen.append(killed_at_each_step(make(servers))[between])
        if seen[-1] == 1:
            return
    pytest.fail(f"it was never killed between the two keys: there were {seen}")


def killed_at_each_step(fresh: Server) -> dict[str, int]:
    """How many keys there were after each kill."""
    steps = [
        "state/instance.lock",
        "state/edit.lock",
        f"domains/{DOMAIN}/.dkim:kr.pem.new",
        f"domains/{DOMAIN}/dkim:kr.pem",
        f"domains/{DOMAIN}/.dkim:ke.pem.new",
        f"domains/{DOMAIN}/dkim:ke.pem",
        "certs/self-signed/.privkey.pem.new",
        "certs/self-signed/privkey.pem",
        "certs/self-signed/fullchain.pem",
        "mail",
        f"state/good/{DOMAIN}/dkim:kr.pem",
        "chasquid/queue",
    ]
    # Slower, so that there is time to watch for the first step.
    checked(fresh.container.docker("update", "--cpus", "0.5"))
    keys: dict[str, str] = {}
    found = {}
    for step in steps:
        checked(fresh.container.docker("start"))
        # A file that is written aside is there for a moment; if that is missed, at the next.
        path = fresh.data / step
        final = path.with_name(path.name.removeprefix(".").removesuffix(".new"))
        fresh.machine.kill_when([path, final], fresh.container.pid)
        # The policy starts again what was not killed by docker.
        checked(fresh.container.docker("stop", "--time", "0"))
        now = fresh.keys()
        assert keys.items() <= now.items(), f"killed at {step}: a key changed"
        keys = now
        found[step] = len(keys)
    assert_the_next_boot_completes(fresh, keys)
    return found
