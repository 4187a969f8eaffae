"""The policy service under load and in trouble: exact, small, and never in the way of mail."""

from __future__ import annotations

import smtplib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.container import checked
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.long]

CLIENTS = 50
LIMIT = 30
USER = f"i@{DOMAIN}"
HOOK = "/usr/lib/tambo/hooks/post-data"
DIED = r"policy +error: the policy service had died"
DOWN = r"policy service does not answer"


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make({"SEND_LIMIT": f"{LIMIT}/h"})
    server.up()
    return server


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(USER)


def send(server: Server, secret: str, user: str = USER, sender: str = "") -> int:
    """One message on a connection of its own; the reply code."""
    mail = smtp.message(sender or user, "you@example.net")
    with smtp.mail_program(server.endpoint()) as session:
        session.login(user, secret)
        try:
            session.send_message(mail, sender or user, ["you@example.net"])
        except smtplib.SMTPResponseException as error:
            return error.smtp_code
    return 250


def send_all(server: Server, secret: str, each: int = 1, user: str = USER) -> Counter[int]:
    """So many messages from each of fifty clients at once; how often each code came."""

    def client(_: int) -> list[int]:
        return [send(server, secret, user) for _ in range(each)]

    with ThreadPoolExecutor(CLIENTS) as pool:
        return Counter(code for codes in pool.map(client, range(CLIENTS)) for code in codes)


def answers(server: Server) -> bool:
    """Whether the service answers verbs."""
    return "note:" not in server.verb("list-senders").stderr


def kill(server: Server) -> None:
    victim = server.process("policy").pid
    server.machine.kill(victim)
    wait_until(
        lambda: server.processes("policy") and server.process("policy").pid != victim,
        "the policy service is back",
        timeout=3,
    )
    wait_until(lambda: answers(server), "it answers", timeout=5)


def test_fifty_clients_get_exactly_the_limit_also_after_a_kill(server: Server, secret: str) -> None:
    server.log.expect(DIED)
    server.log.tolerate(DOWN)
    assert send_all(server, secret) == {250: LIMIT, 451: CLIENTS - LIMIT}
    kill(server)
    assert send_all(server, secret) == {451: CLIENTS}
    server.ok("set-limit", USER, f"{LIMIT + 15}/h")
    assert send_all(server, secret) == {250: 15, 451: CLIENTS - 15}


def test_killed_amid_the_rush_it_lets_no_more_through(server: Server) -> None:
    """Those that were being judged may have been counted and not answered: never the reverse."""
    server.log.expect(DIED)
    server.log.tolerate(DOWN)
    user, limit = f"rush@{DOMAIN}", 120
    secret = server.add_user(user)
    server.ok("set-limit", user, f"{limit}/h")
    killer = threading.Timer(0.7, kill, [server])
    killer.start()
    first = send_all(server, secret, each=3, user=user)
    killer.join()
    second = send_all(server, secret, each=3, user=user)
    accepted = first[250] + second[250]
    assert limit - CLIENTS <= accepted <= limit
    assert set(first) | set(second) <= {250, 451}
    sent = checked(server.verb("list-senders", "--json")).json()[user]["recipients"]["hour"]
    assert sent == limit, "every place is taken"


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The service hangs: it is there, takes connections and says nothing."""
    pid = server.process("policy").pid
    checked(server.machine.run("kill", "-STOP", str(pid)))
    try:
        yield
    finally:
        server.machine.run("kill", "-CONT", str(pid))


def taken_in_time(server: Server) -> str:
    """The subject of a message that comes in, tried again as other servers do."""

    def once() -> str:
        try:
            return smtp.deliver(server.ipv4, USER)
        except smtplib.SMTPDataError as error:
            if error.smtp_code != 451:
                raise
            return ""

    return wait_until(once, "incoming mail is taken", timeout=60)


def test_hung_it_takes_nothing(server: Server) -> None:
    # Its watchdog may end it meanwhile, which is what that is for.
    server.log.tolerate(DIED, DOWN)
    user = f"hung@{DOMAIN}"
    secret = server.add_user(user)
    with stopped(server):
        since = time.monotonic()
        assert send(server, secret, user) == 451
        assert time.monotonic() - since < 10
        with pytest.raises(smtplib.SMTPDataError, match=r"451.*the policy service does not answer"):
            smtp.deliver(server.ipv4, USER)
    subject = taken_in_time(server)
    wait_until(lambda: [text for text in server.kept(USER) if subject in text], "mail came in")
    wait_until(lambda: answers(server), "it answers again", timeout=20)
    assert send(server, secret, user) == 250


def test_slow_it_is_waited_for_and_no_longer_than_ten_seconds(server: Server) -> None:
    server.log.tolerate(DIED, DOWN)
    user = f"slow@{DOMAIN}"
    secret = server.add_user(user)
    end = threading.Event()

    def hamper() -> None:
        while not end.is_set():
            with stopped(server):
                end.wait(1.0)
            end.wait(0.02)

    thread = threading.Thread(target=hamper)
    thread.start()
    try:
        for _ in range(3):
            since = time.monotonic()
            assert send(server, secret, user) in (250, 451)
            assert time.monotonic() - since < 12
        subject = taken_in_time(server)
    finally:
        end.set()
        thread.join()
    wait_until(lambda: [text for text in server.kept(USER) if subject in text], "mail came in")
    wait_until(lambda: answers(server), "it answers again", timeout=20)


def test_killed_again_and_again_what_was_taken_is_not_lost(server: Server) -> None:
    server.log.tolerate(DIED, DOWN)
    user = f"killed@{DOMAIN}"
    secret = server.add_user(user)
    end = threading.Event()

    def killer() -> None:
        while not end.is_set():
            for item in server.processes("policy"):
                server.machine.run("kill", "-9", str(item.pid))
            end.wait(0.3)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        codes = Counter(send(server, secret, user) for _ in range(10))
    finally:
        end.set()
        thread.join()
    subjects = [taken_in_time(server) for _ in range(10)]
    assert set(codes) <= {250, 451}
    wait_until(
        lambda: all(any(subject in text for text in server.kept(USER)) for subject in subjects),
        "all that was taken is kept",
    )
    wait_until(lambda: answers(server), "it answers again", timeout=20)


def test_its_silence_is_an_alarm(server: Server) -> None:
    server.log.expect(r"fail: The policy service does not answer")
    server.log.tolerate(DIED, DOWN)

    def healthy() -> bool:
        return server.verb("tambo", "health").status == 0

    wait_until(healthy, "all is well before", timeout=20)
    with stopped(server):
        wait_until(lambda: not healthy(), "it is unhealthy", timeout=12)
        said = server.verb("tambo", "health").stderr
        assert "The policy service does not answer" in said
        assert "no mail is taken" in said
    wait_until(healthy, "all is well again", timeout=25)


def test_two_hundred_large_messages_need_the_memory_of_none(servers: Servers) -> None:
    """Through the real hook, as chasquid starts it. No chasquid puts them into a queue, so room for
    them would be kept; without a memory limit none is counted."""
    server = servers.make({"PACE_SHARE": "none"}, overlay={"mem_limit": 0})
    server.up()
    user = f"large@{DOMAIN}"
    server.add_user(user)
    server.ok("set-limit", user, "none")
    pid = server.process("policy").pid

    def peak() -> int:
        status = server.machine.read(Path(f"/proc/{pid}/status"))
        return int(status.partition("VmHWM:")[2].split()[0])

    script = f"""
        export AUTH_AS={user} MAIL_FROM={user} RCPT_TO=you@example.net REMOTE_ADDR=192.0.2.1:4711
        export SPF_PASS=0
        head -c 20000000 /dev/zero | tr '\\0' x > /tmp/body
        for _ in $(seq $1); do
            {{ printf 'From: {user}\\nDate: x\\nMessage-ID: <x@{DOMAIN}>\\n\\n'; cat /tmp/body; }} |
                {HOOK} || exit
        done
    """

    def run(count: int) -> None:
        checked(
            server.container.exec(
                "sh", "-c", script, "sh", str(count), user="chasquid", timeout=300
            )
        )

    run(3)
    before = peak()
    run(200)
    assert peak() - before < 20_000, "kB, no more than one message has"
    sent = checked(server.verb("list-senders", "--json")).json()[user]["recipients"]["hour"]
    assert sent == 203


def refused_now(server: Server, enhanced: str) -> bool:
    try:
        smtp.deliver(server.ipv4, USER)
    except smtplib.SMTPDataError as error:
        return error.smtp_code == 451 and enhanced in str(error)
    return False


def taken(server: Server) -> bool:
    return not refused_now(server, "4.3.1")


def test_nothing_is_taken_when_the_disk_is_nearly_full(server: Server) -> None:
    server.log.expect(r"error: no mail is taken: 4\.3\.1 the disk is nearly full")
    # The small disk has nothing on it, not even the store of events.
    server.log.tolerate(r"events cannot be stored|store of events", r"fail: No mail is taken")
    pid, keeper = server.container.pid, server.process("keeper").pid
    inside = ("nsenter", "--target", str(pid), "--mount")
    checked(server.machine.run("kill", "-STOP", str(keeper)))
    checked(
        server.machine.run(
            *inside, "mount", "-t", "tmpfs", "-o", "size=100m,mode=755", "x", "/data"
        )
    )
    try:
        wait_until(lambda: refused_now(server, "4.3.1"), "mail is refused for now")
    finally:
        checked(server.machine.run(*inside, "umount", "/data"))
        checked(server.machine.run("kill", "-CONT", str(keeper)))
    wait_until(lambda: taken(server), "mail is taken again")
    assert "policy   mail is taken again" in server.container.log()


def test_nothing_is_taken_when_memory_runs_out(servers: Servers) -> None:
    server = servers.make(overlay={"mem_limit": "400m", "memswap_limit": "400m"})
    server.up()
    server.add_user(USER)
    server.log.expect(r"error: no mail is taken: 4\.3\.1 memory is nearly used up")
    server.log.tolerate(r"fail: No mail is taken")
    assert taken(server)
    # Takes all but 30 MB, by the service's own measure.
    code = """
import time
from pathlib import Path
from entrypoint.services.policy import memory_left
hold = []
while memory_left(Path("/sys/fs/cgroup")) > 30 << 20:
    hold.append(bytearray(b"x") * (1 << 20))
print("full", flush=True)
time.sleep(60)
"""
    eater = threading.Thread(
        target=server.container.exec,
        args=("timeout", "40", "/opt/tambo/bin/python", "-c", code),
        daemon=True,
    )
    eater.start()
    wait_until(lambda: refused_now(server, "4.3.1"), "mail is refused for now", timeout=20)
    for item in server.container.processes():
        if "memory_left" in item.command:
            server.machine.run("kill", "-9", str(item.pid))
    wait_until(lambda: taken(server), "mail is taken again", timeout=20)
    eater.join(10)
