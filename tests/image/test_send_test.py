"""`send-test` against receivers of every kind: what it says is right, and it ends by itself."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from tests.image.conftest import TAMBO, Servers
from tests.support import smtp
from tests.support.answers import ANSWERS, Answer
from tests.support.container import Result
from tests.support.peers import Difficult, Neighbourhood
from tests.support.server import DOMAIN, HOST, Server
from tests.support.wait import PATIENCE, wait_until
from tests.world.world import World

USER = f"i@{DOMAIN}"
SERVERS = ("postfix", "exim")  # not providers; the unit tests have their words too
ZONE = Difficult.ZONE


@pytest.fixture(scope="module")
def difficult(
    client: DockerClient, world: World, resolv_conf: Path, base: Path
) -> Iterator[Difficult]:
    where = Neighbourhood(client, world, resolv_conf)
    peer = Difficult(where, base / "difficult", [answer.reply for answer in ANSWERS])
    yield peer
    peer.remove()
    world.exec("authoritative", "pdnsutil", "delete-zone", ZONE)


@pytest.fixture(scope="module")
def server(difficult: Difficult, module_servers: Servers, world: World) -> Iterator[Server]:
    # After the receivers, so that it is gone when they go.
    assert difficult.container.running
    server = module_servers.make({"DKIM_KEYS": "rsa2048,ed25519"}, host=TAMBO)
    server.up()
    world.load_zone(DOMAIN, server.ok("dns", "--format", "zone"))
    server.add_user(USER)
    yield server
    world.load_zone(DOMAIN, "")


@pytest.fixture(autouse=True)
def _provoked(server: Server) -> None:
    """The answers of receivers, which the log repeats, hold all the words of trouble."""
    server.log.tolerate(r"^\S+Z mail ", r"^\S+Z gate +note: ")


def probe(server: Server, *argv: str) -> tuple[int, dict[str, Any]]:
    """The status and the object of one test."""
    done = server.verb("send-test", *argv, "--json")
    assert done.stdout, done.stderr
    found: dict[str, Any] = done.json()
    return done.status, found


def read(server: Server, *argv: str) -> Result:
    """What a person sees."""
    return server.verb("send-test", *argv)


# --- It arrives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_delivered_one_is_all_that_it_says(server: Server, world: World, family: str) -> None:
    to = f"st-{family}@{family}.example.net"
    status, found = probe(server, to)
    assert (status, found["result"], found["wrong"], found["hints"]) == (0, "delivered", [], [])
    assert found["from"] == USER, "the first user"
    [fate] = found["recipients"]
    assert (fate["address"], fate["state"], fate["tries"]) == (to, "sent", 1)
    assert [(item["port"], item["logged_in"]) for item in found["ports"]] == [
        (465, True), (587, True),
    ]  # fmt: skip
    assert {item["certificate"] for item in found["ports"]} == {"self-signed"}
    assert {item["algorithm"]: item["verifies"] for item in found["dkim"]} == {
        "rsa-sha256": True, "ed25519-sha256": True,
    }  # fmt: skip
    seen = found["exchanger"]
    assert seen["address"] == world.net.v4(27) if family == "v4" else world.net.v6(28)
    assert (seen["tls"], seen["trusted"]) == ("TLSv1.3", False)
    assert "self-signed" in seen["distrust"]

    [delivery] = world.wait_for(to=to, message_id=found["message_id"], timeout=20)
    assert (delivery.spf, delivery.dmarc) == ("pass", "pass")
    assert set(delivery.dkim.values()) == {"pass"}
    assert delivery.client_address == {"v4": server.ipv4, "v6": server.ipv6}[family]
    message = message_from_bytes(delivery.raw, policy=default)
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative", "text/plain", "text/html",
    ]  # fmt: skip
    assert message["Message-ID"].endswith(f"@{DOMAIN}>")
    assert message["Date"].datetime.timestamp() == pytest.approx(time.time(), abs=60)
    assert "<img" not in str(message)
    assert "http" not in message.get_body(("html",)).get_content()  # type: ignore[union-attr]


def test_a_person_reads_the_same(server: Server) -> None:
    done = read(server, "st-person@example.net", "--from", USER)
    assert (done.status, done.stderr) == (0, "")
    assert re.search(r"^  465 +TLSv1.3; its certificate is self-signed", done.stdout, re.MULTILINE)
    assert re.search(r"^  queued +as \S{11}, over port 465$", done.stdout, re.MULTILINE)
    assert " ".join(done.stdout.split()).count("verifies with the key in DNS") == 2
    assert re.search(r"^  sent +st-person@example.net, after \d", done.stdout, re.MULTILINE)
    assert "\nDelivered: the server of example.net has taken it." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_without_users_it_is_postmaster_who_sends(servers: Servers) -> None:
    other = servers.make({"MAIL_HOSTNAME": "smtp.example.org"})
    other.up()
    status, found = probe(other, "st-nobody@example.net")
    assert found["from"] == "postmaster@example.org"
    assert (found["result"], status) == ("delivered", 1), "DNS has no record of example.org"
    assert [item["why"] for item in found["dkim"]] == ["DNS has no such record"]
    assert "DKIM" in found["wrong"][0]


def test_a_wrong_key_in_dns_is_noticed(server: Server, world: World) -> None:
    zone = server.ok("dns", "--format", "zone")
    other = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # of RFC 8463's example
    world.load_zone(DOMAIN, re.sub(r"(k=ed25519; p=)[^;\n]*", rf'\g<1>{other}"', zone))
    try:
        status, found = probe(server, "st-key@example.net")
    finally:
        world.load_zone(DOMAIN, zone)
    assert (found["result"], status) == ("delivered", 1)
    assert {item["algorithm"]: item["verifies"] for item in found["dkim"]} == {
        "rsa-sha256": True, "ed25519-sha256": False,
    }  # fmt: skip
    assert len(found["wrong"]) == 1


def test_loop_stays_here_and_says_so(server: Server) -> None:
    status, found = probe(server, "--loop")
    assert (status, found["result"], found["to"]) == (0, "delivered", USER)
    assert [item["address"] for item in found["recipients"]] == [USER]
    assert found["exchanger"] is None
    kept = wait_until(lambda: server.kept(USER), "it is kept")
    assert any(found["message_id"] in text for text in kept)
    assert "did not leave this machine" in " ".join(read(server, "--loop").stdout.split())


def test_what_this_server_refuses_itself(server: Server) -> None:
    status, found = probe(server, f"nobody@{DOMAIN}", "--loop")
    assert (status, found["result"]) == (1, "unsent")
    assert "user does not exist" in found["refusal"]
    assert found["hints"][0]["id"] == "no-mailbox"


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        ((), 2, "to whom?"),
        (("nonsense",), 2, "is not an e-mail address"),
        (("you@example.net", "--from", "i@other.example"), 2, "not one of the domains"),
        (("you@example.net", "--loop"), 2, "does not come to this server"),
    ],
)
def test_what_cannot_be_tested(
    server: Server, argv: tuple[str, ...], status: int, words: str
) -> None:
    done = read(server, *argv)
    assert done.status == status
    assert words in done.stderr


# --- It does not ----------------------------------------------------------------------------------


def test_greylisting_is_deferred_and_taken_on_the_second_try(
    server: Server, difficult: Difficult
) -> None:
    to = f"you@grey.{ZONE}"
    status, found = probe(server, to)
    assert (status, found["result"]) == (75, "deferred")
    [fate] = found["recipients"]
    assert "Greylisted" in fate["answer"]
    assert found["hints"][0]["id"] == "greylisting"
    next_try = time.mktime(time.strptime(fate["next"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert 30 < next_try - time.time() < 125, "chasquid's first retry is after one to two minutes"
    time.sleep(1.0)  # the receiver's patience
    assert server.control("restart")["done"], "a restart tries again at once"
    pattern = rf" sent id={re.escape(found['id'])} "
    wait_until(
        lambda: re.search(pattern, server.container.log()), "the second try is taken", timeout=20
    )
    assert to in difficult.container.log()


def test_a_receiver_without_tls(server: Server, difficult: Difficult) -> None:
    status, found = probe(server, f"you@plain.{ZONE}")
    assert (status, found["result"]) == (0, "delivered")
    seen = found["exchanger"]
    assert (seen["offers_tls"], seen["tls"], seen["error"]) == (False, "", "")
    assert "offers no TLS" in read(server, f"me@plain.{ZONE}").stdout
    assert difficult.container.running


def test_each_provider_s_answer_is_shown_and_explained(server: Server) -> None:
    def test(index: int) -> list[str]:
        return judge(ANSWERS[index], *probe(server, f"a{index}@answers.{ZONE}"))

    chosen = [
        index
        for index, answer in enumerate(ANSWERS)
        if answer.provider not in SERVERS and (answer.code >= 500 or answer.hint == "rate")
    ]
    with ThreadPoolExecutor(3) as pool:
        wrong = [text for texts in pool.map(test, chosen) for text in texts]
    assert not wrong, "\n".join(wrong)


def judge(answer: Answer, status: int, found: dict[str, Any]) -> list[str]:
    """What is not right about a report."""
    name, state = answer.name, "deferred" if answer.code < 500 else "refused"
    wrong = []
    if (found["result"], status) != (state, 75 if state == "deferred" else 1):
        wrong.append(f"{name}: {found['result']}, status {status}")
    hints = [hint["id"] for hint in found["hints"]]
    if hints[:1] != [answer.hint]:
        wrong.append(f"{name}: explained as {hints}")
    [fate] = found["recipients"]
    said = re.sub(r"\s+", " ", fate["answer"] or f"nothing: {found}")
    wrong += [
        f"{name}: {line!r} is not in {said!r}"
        for line in answer.lines
        if re.sub(r"^[45]\.\d+\.\d+ +|\s+", " ", line).strip() not in said
    ]
    return wrong


def test_a_person_reads_words_cause_and_fix(server: Server) -> None:
    number = next(i for i, item in enumerate(ANSWERS) if item.hint == "ptr" and item.code == 550)
    done = read(server, f"a{number}@answers.{ZONE}")
    text = " ".join(done.stdout.split())
    assert done.status == 1
    assert "does not have a" in text
    assert "means The address that the mail left from has no reverse DNS (PTR)" in text
    assert "fix set the PTR of each of the server's addresses" in text
    assert re.search(r"docker exec mail show-message (-- -)?\S{10,11}", text)


@pytest.mark.parametrize(
    ("domain", "seen"), [("silent", "does not greet: no answer in time"), ("hole", "")]
)
def test_a_receiver_that_never_answers_is_not_waited_for(
    server: Server, domain: str, seen: str
) -> None:
    began = time.monotonic()
    status, found = probe(server, f"you@{domain}.{ZONE}", "--wait", "3")
    assert time.monotonic() - began < 40 * PATIENCE
    assert (status, found["result"]) == (75, "pending")
    assert found["exchanger"]["error"] == seen
    if domain == "hole":
        assert {why for _, why in found["exchanger"]["failed"]} == {"no answer in time"}
        assert [hint["id"] for hint in found["hints"]] == ["port-25"]


# --- The log-in for a moment ----------------------------------------------------------------------


def served_users(server: Server) -> str:
    return server.container.exec("cat", f"/run/tambo/chasquid/domains/{DOMAIN}/users").stdout


def test_nothing_is_left_of_the_log_in(server: Server) -> None:
    before = served_users(server)
    probe(server, "st-left@example.net")
    assert "+test-" not in before
    assert served_users(server) == before
    listing = server.container.exec("find", "/run/tambo/temporary", "/data", "-name", "*test-*")
    assert "json" not in listing.stdout
    assert "+test-" not in server.ok("list-users")


def test_a_killed_test_leaves_no_log_in_behind(server: Server) -> None:
    script = (
        "import os, signal, sys\n"
        "from entrypoint.accounts import temporary\n"
        "from entrypoint.commands.context import Context\n"
        "from entrypoint.common.names import Address\n"
        "temporary.LIFE = 4.0\n"
        "context = Context.enter()\n"
        f"with temporary.login(context.settings, context.paths, context.ids, Address('{USER}')) "
        "as login:\n"
        "    print(login.name, login.password, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = server.container.exec("/opt/tambo/bin/python", "-c", script)
    name, password = done.stdout.split()
    assert done.status == 137
    assert smtp.can_log_in(server.endpoint(), name, password), "for as long as it lasts"
    wait_until(lambda: "+test-" not in served_users(server), "it is taken back", timeout=15)
    wait_until(lambda: not smtp.can_log_in(server.endpoint(), name, password), "it logs in no more")


def test_the_secret_is_nowhere_to_be_seen(server: Server) -> None:
    done = read(server, "st-secret@example.net")
    pattern = r"[a-hjkmnp-z2-9]{7}(-[a-hjkmnp-z2-9]{7}){3}"
    assert not re.search(pattern, done.stdout + done.stderr)
    assert not re.search(pattern, server.container.log())


# --- mail-settings --------------------------------------------------------------------------------


def test_mail_settings(server: Server) -> None:
    done = server.verb("mail-settings", USER, "--json")
    found = json.loads(done.stdout)
    assert done.status == 1, "nothing forwards Gmail's code"
    assert (found["host"], found["user"], found["is_user"]) == (HOST, USER, True)
    assert found["kept"]
