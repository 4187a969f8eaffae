"""Mail that waits: seen, dropped, and sent on after a receiver lost its TLS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.knocks import Knocks
from tests.support.peers import Mailbox, Neighbourhood
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until
from tests.world.world import World

USER = f"i@{DOMAIN}"
GREY = "4.7.1 Greylisted, see https://mailbox.example/why"
FAR = "faraway.example"
_HOSTS = (60, 61)  # theirs in the world


@pytest.fixture(scope="module")
def where(client: DockerClient, world: World, resolv_conf: Path) -> Neighbourhood:
    return Neighbourhood(client, world, resolv_conf)


@pytest.fixture
def mailbox(where: Neighbourhood, tmp_path: Path) -> Iterator[Mailbox]:
    mailbox = Mailbox(where, "mailbox.example", _HOSTS[0], tmp_path / "mailbox")
    yield mailbox
    mailbox.remove()


@pytest.fixture
def server(servers: Servers) -> Server:
    server = servers.make()
    server.log.tolerate(r" mail +deferred id=")
    server.up()
    return server


@pytest.fixture
def secret(server: Server) -> str:
    return server.add_user(USER)


def send(server: Server, secret: str, *recipients: str) -> dict[str, str]:
    """Each subject by its recipient, once chasquid has tried all of them."""
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(smtp.submit, server.endpoint(), USER, secret, to) for to in recipients]
        sent = dict(zip((item.result() for item in work), recipients, strict=True))
    wait_until(lambda: deferred(server) >= len(recipients), "all were tried", timeout=30)
    return sent


def deferred(server: Server) -> int:
    found = server.verb("list-queue", "--json", "--limit", "1000").json()
    return sum(bool(item["to"][0]["answer"]) for item in found["messages"])


def ids(server: Server, *filters: str) -> list[str]:
    found = server.verb("list-queue", "--json", "--limit", "1000", *filters).json()
    return [item["id"] for item in found["messages"]]


def test_some_of_fifty_are_dropped_and_the_others_arrive_once(
    server: Server, secret: str, mailbox: Mailbox
) -> None:
    mailbox.defer(GREY)
    sent = send(server, secret, *[f"you{number}@{mailbox.domain}" for number in range(50)])
    out = server.ok("list-queue")
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"^50 messages wait, for up to .*; the 20 oldest are shown", out, re.MULTILINE)
    assert re.search(rf"^ +50  .* {mailbox.domain}: .*", out, re.MULTILINE)
    assert "450 4.7.1 <" in out or "Greylisted" in out
    first = server.process("chasquid").pid
    doomed = [*ids(server, "--to", f"you7@{mailbox.domain}"), *ids(server)[:9]]
    doomed = list(dict.fromkeys(doomed))
    knocks = Knocks(server)
    with knocks.going_on():
        out = server.ok("drop-queued", *doomed)
    assert set(knocks.outcomes) <= {"greeted", "connected", "cut off"}, "nobody was refused"
    assert knocks.outcomes["greeted"] > 5
    assert knocks.outcomes["cut off"] <= 3
    assert server.process("chasquid").pid != first
    assert out.endswith(f"{len(doomed)} messages dropped\n")
    log = server.container.log()
    for name in doomed:
        [said] = [line for line in out.splitlines() if f" id={name} " in line]
        assert re.fullmatch(rf"dropped id={name} from={USER} to=you\d+@{mailbox.domain}", said)
        assert re.search(rf"Z mail +{re.escape(said)}$", log, re.MULTILINE)
    assert "dropped by drop-queued" in server.ok("show-message", doomed[0])
    dropped = set(re.findall(r"to=(\S+)", out))
    assert len(ids(server)) == 50 - len(doomed)
    assert not set(doomed) & set(ids(server))
    mailbox.accept()
    server.control("restart")
    wait_until(lambda: not ids(server), "all were sent", timeout=30)
    arrived = mailbox.subjects()
    assert sorted(sent[subject] for subject in arrived) == sorted(set(sent.values()) - dropped)
    assert f"you7@{mailbox.domain}" in dropped
    assert server.ok("list-queue") == "No message waits.\n"


def test_what_is_said_of_tries_is_what_chasquid_does(
    server: Server, secret: str, mailbox: Mailbox
) -> None:
    """The rule is chasquid's, and stands in none of its files; the log has what became of it."""

    def listed() -> Any:
        [found] = server.verb("list-queue", "--json").json()["messages"]
        return found

    mailbox.defer(GREY)
    send(server, secret, f"you@{mailbox.domain}")
    known = wait_until(lambda: (found := listed())["exact"] and found, "the log has told")
    assert known["tries"] == 1
    server.machine.delete(server.data / "events")
    guess = wait_until(lambda: not (found := listed())["exact"] and found, "it is derived")
    assert guess["tries"] == 1
    moments = [datetime.fromisoformat(found["next_try"]) for found in (known, guess)]
    assert abs((moments[0] - moments[1]).total_seconds()) < 35, "by chance it adds up to a minute"


def test_an_unknown_id_drops_nothing_and_restarts_nothing(
    server: Server, secret: str, mailbox: Mailbox
) -> None:
    mailbox.defer(GREY)
    send(server, secret, f"a@{mailbox.domain}", f"b@{mailbox.domain}")
    before, pid = ids(server), server.process("chasquid").pid
    for words in (["AAAAAAAAAAA"], [before[0], "AAAAAAAAAAA"], [before[0], "../../../etc/passwd"]):
        done = server.verb("drop-queued", *words)
        assert done.status == 1
        assert f"no such message waits: {words[-1].strip()}" in done.stderr.replace("'", "")
    assert server.verb("drop-queued", "--all").status == 1, "without --yes"
    assert (ids(server), server.process("chasquid").pid) == (before, pid)
    done = server.verb("drop-queued", "--to", mailbox.domain, "--yes", "--json")
    assert sorted(item["id"] for item in done.json()["dropped"]) == sorted(before)
    assert ids(server) == []
    assert mailbox.subjects() == []


def test_two_who_drop_at_once(server: Server, secret: str, mailbox: Mailbox) -> None:
    mailbox.defer(GREY)
    sent = send(server, secret, *[f"you{number}@{mailbox.domain}" for number in range(12)])
    names = ids(server)
    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(lambda part: server.verb("drop-queued", *part), [names[:4], names[4:8]])
        )
    assert [item.status for item in done] == [0, 0]
    dropped = {to for item in done for to in re.findall(r"to=(\S+)", item.stdout)}
    assert len(dropped) == 8
    assert sorted(ids(server)) == sorted(names[8:])
    mailbox.accept()
    server.control("restart")
    wait_until(lambda: not ids(server), "the rest was sent", timeout=30)
    assert {sent[subject] for subject in mailbox.subjects()} == set(sent.values()) - dropped
    assert len(mailbox.subjects()) == 4


def test_mail_goes_on_when_a_receiver_s_tls_is_forgotten(
    server: Server, secret: str, mailbox: Mailbox
) -> None:
    smtp.submit(server.endpoint(), USER, secret, f"first@{mailbox.domain}")
    wait_until(mailbox.subjects, "it arrives, over TLS")
    mailbox.offer_tls(False)
    send(server, secret, f"second@{mailbox.domain}")
    out = server.ok("list-queue")
    assert "security level check failed: connection is" in " ".join(out.split())
    hint = f"docker exec mail forget-domain {mailbox.domain}"
    assert out.endswith(f"  {hint}\n")
    doctor = server.verb("doctor", "--json", "--verbose").json()
    assert hint in json.dumps(doctor)
    server.control("restart")
    wait_until(lambda: deferred(server) == 1, "a new chasquid insists, too")
    assert len(mailbox.subjects()) == 1
    out = server.ok(*hint.split()[3:])
    assert out == (
        f"Remembered of {mailbox.domain}: mail to it went over TLS with any certificate, mail from "
        "it came over no TLS.\nIt is forgotten; what waits is being tried again.\n"
    )
    wait_until(lambda: len(mailbox.subjects()) == 2, "it arrives, without TLS")
    assert f"of the TLS of {mailbox.domain} is forgotten\n" in server.container.log()
    assert server.ok("forget-domain", FAR) == f"Nothing was remembered of {FAR}.\n"
