"""What happens to mail: in the log, in the history, and when the history is in trouble."""

from __future__ import annotations

import json
import re
import smtplib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from tests.image.conftest import TAMBO, Servers
from tests.support import smtp
from tests.support.container import checked
from tests.support.peers import Liar, Neighbourhood
from tests.support.server import DOMAIN, HOST, Server
from tests.support.wait import wait_until
from tests.world.world import World

USER = f"i@{DOMAIN}"
CLOSED = "closed.example"  # nobody listens there
REFUSING = "refusing.example"  # its MX does not know it
LYING = "liar.example"
MAIL = re.compile(r"^\S+Z mail +((\w+).*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def lying(
    client: DockerClient, world: World, resolv_conf: Path, base: Path, world_image: str
) -> Iterator[Liar]:
    assert world_image
    liar = Liar(Neighbourhood(client, world, resolv_conf), LYING, 90, base / "liar")
    yield liar
    liar.remove()
    world.load_zone(LYING, "")


@pytest.fixture(scope="module", autouse=True)
def zones(world: World) -> Iterator[None]:
    world.load_zone(CLOSED, "@ MX 10 ns.example.net.")
    world.load_zone(REFUSING, "@ MX 10 mx.example.net.")
    yield
    for name in (CLOSED, REFUSING):
        world.load_zone(name, "")


@pytest.fixture(autouse=True)
def tries_again(all_servers: Servers) -> None:
    """What an earlier test could not deliver is tried again after a minute."""
    for server in all_servers.living:
        server.log.tolerate(rf"deferred id=\S+ .*@{re.escape(CLOSED)}")


def started(servers: Servers, **settings: str) -> Server:
    server = servers.make(settings)
    server.log.tolerate("deferred id=")
    server.up()
    return server


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    return started(module_servers)


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(USER)


def lines(server: Server, kind: str = "") -> list[str]:
    """What `mail` said, of one kind."""
    found = MAIL.findall(server.container.log())
    return [line for line, word in found if word == kind or not kind]


def shown(server: Server, what: str) -> dict[str, Any]:
    """What show-message knows; nothing is no error here."""
    found = server.verb("show-message", what, "--json").json()
    assert isinstance(found, dict)
    return found


def rows(server: Server, what: str, kind: str) -> list[dict[str, Any]]:
    found = shown(server, what)
    events = [event for message in found["messages"] for event in message["events"]]
    return [event for event in (*events, *found["others"]) if event["kind"] == kind]


def both(server: Server, address: str, kind: str) -> tuple[str, dict[str, Any]]:
    """The one line and the one row of a kind in which an address takes part."""
    wait_until(lambda: rows(server, address, kind), f"{address} {kind} is stored")
    [line] = [line for line in lines(server, kind) if address in line]
    [row] = rows(server, address, kind)
    return line, row


def submit(server: Server, secret: str, to: str) -> None:
    server.log.tolerate("deferred id=")
    smtp.submit(server.endpoint(), USER, secret, to)


# One line and one row


def test_a_message_that_is_sent(server: Server, secret: str) -> None:
    submit(server, secret, "sent@example.net")
    line, row = both(server, "sent@example.net", "sent")
    assert line == f"sent id={row['id']} from={USER} to=sent@example.net"
    line, row = both(server, "sent@example.net", "received")
    assert (row["login"], row["sender"], row["recipients"]) == (USER, USER, ["sent@example.net"])
    assert line.startswith(f"received id={row['id']} from={USER} to=sent@example.net login={USER} ")
    [message] = shown(server, row["id"])["messages"]
    assert [event["kind"] for event in message["events"]] == ["received", "sent", "done"]


@pytest.mark.usefixtures("secret")
def test_a_message_that_comes_in(server: Server) -> None:
    smtp.deliver(server.ipv4, USER, sender="in@outside.example")
    line, row = both(server, "in@outside.example", "received")
    assert "login" not in row
    assert row["peer"] in line
    _, row = both(server, "in@outside.example", "sent")
    assert row["recipients"] == [USER]


def test_one_that_is_deferred(server: Server, secret: str) -> None:
    submit(server, secret, f"later@{CLOSED}")
    line, row = both(server, f"later@{CLOSED}", "deferred")
    assert "connection refused" in row["text"]
    assert line.endswith(f"to=later@{CLOSED}: {row['text']}")
    wait_until(lambda: rows(server, row["id"], "waiting"), "the round is over")
    [waiting] = rows(server, row["id"], "waiting")
    assert waiting["next"] > waiting["at"]
    assert f"next try is at {waiting['next'][:10]}" in server.ok("show-message", row["id"])


def test_one_that_is_bounced_with_the_remote_s_own_words(server: Server, secret: str) -> None:
    submit(server, secret, f"never@{REFUSING}")
    line, row = both(server, f"never@{REFUSING}", "bounced")
    words = f"554 5.7.1 <never@{REFUSING}>: Relay access denied"
    assert row["text"].endswith(words)
    assert line.endswith(words)
    wait_until(lambda: rows(server, row["id"], "done"), "it is over")
    text = server.ok("show-message", f"NEVER@{REFUSING}")
    assert "Relay access denied" in " ".join(text.split())
    assert "The sender was told." in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_one_that_is_refused(server: Server) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        smtp.deliver(server.ipv4, f"nobody@{DOMAIN}")
    line, row = both(server, f"nobody@{DOMAIN}", "refused")
    assert (row["text"], row["sender"]) == ("local user does not exist", "someone@outside.example")
    assert line.endswith(f"peer={row['peer']}: local user does not exist")


def test_a_log_in_that_fails_and_one_that_does_not(server: Server, secret: str) -> None:
    assert not smtp.can_log_in(server.endpoint(), f"stranger@{DOMAIN}", "wrong")
    line, row = both(server, f"stranger@{DOMAIN}", "auth")
    assert row["ok"] is False
    assert line == f"auth failed login=stranger@{DOMAIN} peer={row['peer']}"
    assert smtp.can_log_in(server.endpoint(), USER, secret)
    assert f"auth ok login={USER} peer={row['peer']}" in lines(server, "auth")


def test_an_alias_and_where_it_leads(server: Server) -> None:
    server.machine.write(server.data / f"domains/{DOMAIN}/aliases", "nick: goal@example.net\n")
    server.ok("list-users")  # gives the file to its owner
    server.machine.run("touch", str(server.data / f"domains/{DOMAIN}/aliases"))
    wait_until(lambda: "aliases" in server.container.log(), "it is in service")
    wait_until(lambda: _delivered(server, f"nick@{DOMAIN}"), "the alias is in service")
    wait_until(lambda: rows(server, "goal@example.net", "done"), "it is over")
    text = server.ok("show-message", "goal@example.net")
    assert f"to goal@example.net, an alias of nick@{DOMAIN}" in text


def _delivered(server: Server, address: str) -> bool:
    try:
        smtp.deliver(server.ipv4, address)
    except smtplib.SMTPRecipientsRefused:
        return False
    return True


def test_what_is_not_known(server: Server) -> None:
    result = server.verb("show-message", "AAAAAAAAAAA")
    assert result.status == 1
    assert "Nothing is known" in result.stdout
    assert server.verb("show-message", "AAA").status == 2


@pytest.mark.usefixtures("lying")
def test_a_remote_server_s_words_are_never_an_event(server: Server, secret: str) -> None:
    submit(server, secret, f"forge@{LYING}")
    _, row = both(server, f"forge@{LYING}", "bounced")
    assert "AAAAAAAAAAA" in row["text"]
    submit(server, secret, f"long@{LYING}")
    submit(server, secret, f"other@{LYING}")
    both(server, f"other@{LYING}", "bounced")
    assert shown(server, "AAAAAAAAAAA") == {"messages": [], "others": []}
    assert not shown(server, "forged@example.com")["messages"]
    for line in server.container.log().splitlines():
        assert len(line.encode()) <= 4096
        assert not line.startswith("2026-01-02")


# The history's own life


def test_down_and_up_keep_the_history(server: Server, secret: str) -> None:
    submit(server, secret, "before@example.net")
    # The last moment's too.
    server.down()
    server.up()
    _, row = (
        rows(server, "before@example.net", "received"),
        rows(server, "before@example.net", "sent"),
    )
    assert len(row) == 1
    submit(server, secret, "after@example.net")
    both(server, "after@example.net", "received")


def flood(server: Server, secret: str, count: int, meanwhile: Callable[[int], None]) -> list[str]:
    """So many messages over one connection; their recipients."""
    names = [f"flood{number:04d}@example.net" for number in range(count)]
    with smtp.mail_program(server.endpoint()) as session:
        session.login(USER, secret)
        for number, name in enumerate(names):
            session.send_message(smtp.message(USER, name), from_addr=USER, to_addrs=[name])
            meanwhile(number)
    return names


def stored_recipients(server: Server) -> set[str]:
    code = (
        "import json, sys; from entrypoint.history import client;"
        "from entrypoint.common.paths import Paths;"
        "from entrypoint.chasquid.maillog import Kind;"
        "found = client.history(Paths(), kinds=[Kind.RECEIVED], limit=10000);"
        "print(json.dumps([name for item in found for name in item.recipients]))"
    )
    result = server.container.exec("/opt/tambo/bin/python", "-c", code, user="tambo")
    # For a moment there may be no store at all.
    return set(result.json()) if result.status == 0 else set()


def test_a_recorder_killed_under_load_loses_nothing(server: Server, secret: str) -> None:
    kills = 0

    def kill(number: int) -> None:
        nonlocal kills
        if number % 60 == 30 and (found := server.processes("recorder")):
            server.machine.kill(found[0].pid)
            kills += 1

    names = flood(server, secret, 240, kill)
    assert kills >= 2
    wait_until(lambda: set(names) <= stored_recipients(server), "all of it is stored", timeout=30)
    for name in (names[0], names[-1]):
        assert len(rows(server, name, "received")) == 1
    assert "missing from the history" not in server.container.log()


def test_a_store_that_is_damaged_while_mail_flows(server: Server, secret: str) -> None:
    server.log.expect("recorder error: the store of events is damaged")
    store = server.data / "events/events.db"

    def damage(number: int) -> None:
        if number == 10:
            server.machine.kill(server.process("recorder").pid)
            server.machine.delete(Path(f"{store}-wal"))
            server.machine.write(store, "x" * 100_000)

    names = flood(server, secret, 40, damage)
    wait_until(lambda: names[-1] in stored_recipients(server), "it goes on", timeout=30)
    assert set(names[15:]) <= stored_recipients(server)
    assert server.machine.read(Path(f"{store}.damaged")).startswith("xxxx")
    wait_until(lambda: server.container.health == "healthy", "it is healthy")


def test_a_store_that_cannot_be_written_while_mail_flows(
    server: Server, secret: str, world: World
) -> None:
    server.log.expect("recorder error: events cannot be stored")
    events = server.data / "events"
    aside = server.data / "events.aside"
    server.machine.run("sh", "-c", f"mv {events} {aside} && touch {events}")
    flood(server, secret, 20, lambda _: None)
    subject = smtp.submit(server.endpoint(), USER, secret, "you@example.net")
    assert world.wait_for(subject=subject, timeout=20), "mail flows"
    wait_until(lambda: "events cannot be stored" in server.container.log(), "it is said")
    assert server.control("status")["events"]["waiting"] > 20
    server.machine.run("sh", "-c", f"rm {events} && mv {aside} {events}")
    wait_until(lambda: server.control("status")["events"]["waiting"] == 0, "it is mended")
    assert "flood0019@example.net" in stored_recipients(server)


def test_a_recorder_that_hangs_holds_nothing_up(server: Server, secret: str, world: World) -> None:
    pid = server.process("recorder").pid
    server.machine.run("kill", "-STOP", str(pid))
    subject = smtp.submit(server.endpoint(), USER, secret, "you@example.net")
    assert world.wait_for(subject=subject, timeout=20)
    server.machine.run("kill", "-CONT", str(pid))
    wait_until(lambda: server.control("status")["events"]["waiting"] == 0, "all is stored")


def test_the_recorder_has_nothing_of_the_container_s_environment(server: Server) -> None:
    pid = server.process("recorder").pid
    environ = server.machine.read(Path(f"/proc/{pid}/environ")).split("\0")
    assert sorted(item for item in environ if item) == ["LANG=C.UTF-8", "PYTHONUNBUFFERED=1"]
    status = server.machine.read(Path(f"/proc/{pid}/status"))
    assert re.search(r"^Uid:\s+10025\s+10025", status, re.MULTILINE)
    assert re.search(r"^CapPrm:\s+0+$", status, re.MULTILINE)


# Status


@pytest.mark.usefixtures("secret")
def test_status(server: Server) -> None:
    text = server.ok("status")
    assert text.startswith(f"{HOST}: healthy\n")
    for words in ("recorder       running", "keeper         running", "self-signed", "example.net"):
        assert words in text
    assert all(len(line) <= 80 for line in text.splitlines())
    found = checked(server.verb("status", "--json")).json()
    assert {item["name"]: item["state"] for item in found["programs"]} == {
        "smtp": "running", "keeper": "running", "recorder": "running", "policy": "running",
        "auth": "running", "gate": "running",
    }  # fmt: skip
    assert found["users"] == {DOMAIN: 1}
    totals = {item["destination"]: item for item in found["last_hour"]["totals"]}
    assert totals["example.net"]["sent"] >= 20


def test_status_when_it_is_not_healthy(server: Server) -> None:
    path = server.data / f"domains/{DOMAIN}/users"
    good = server.machine.read(path)
    server.log.expect("fail: .*users")
    server.machine.write(path, "x")
    wait_until(lambda: server.verb("status").status == 1, "it is seen")
    assert "NOT HEALTHY" in server.verb("status").stdout
    server.machine.write(path, good)
    wait_until(lambda: server.verb("status").status == 0, "it is mended")


def test_a_recorder_that_cannot_run_takes_nothing_along(servers: Servers, world: World) -> None:
    server = started(servers, LOG_FORMAT="json")
    secret = server.add_user(USER)
    server.log.expect("error: recorder cannot be kept running")
    # It cannot make its socket any more.
    run = "rm -f /run/tambo/recorder.sock; mkdir -p /run/tambo/recorder.sock/x"
    checked(server.container.exec("sh", "-c", run))
    server.log.expect("error: cannot listen at /run/tambo/recorder.sock: Is a directory")
    server.machine.kill(server.process("recorder").pid)
    wait_until(lambda: "cannot be kept running" in server.container.log(), "it is given up",
               timeout=30)  # fmt: skip
    assert server.container.running
    subject = smtp.submit(server.endpoint(), USER, secret, "you@example.net")
    assert world.wait_for(subject=subject, timeout=20)
    text = server.ok("status")
    assert "recorder       fatal" in text
    assert "recorder cannot be kept running" in text
    found = checked(server.container.exec("tambo", "health")).stdout
    assert "healthy\nnote: recorder cannot be kept running" in found
    for line in server.container.log().splitlines():
        json.loads(line)


# The log's form


@pytest.mark.usefixtures("lying")
@pytest.mark.parametrize("style", ["json", "text"])
def test_privacy_and_json(servers: Servers, style: str) -> None:
    server = started(servers, LOG_FORMAT=style, LOG_PRIVACY="on", FORWARD_TO="owner@example.net")
    secret = server.add_user(USER)
    server.log.tolerate("deferred", "error")
    for to in ("out@example.net", f"later@{CLOSED}", f"never@{REFUSING}", f"words@{LYING}"):
        smtp.submit(server.endpoint(), USER, secret, to)
    smtp.deliver(server.ipv4, f"any.body+tag@{DOMAIN}", sender="a.stranger@outside.example")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        smtp.deliver(server.ipv4, "elsewhere@not-served.example")
    assert not smtp.can_log_in(server.endpoint(), f"guess@{DOMAIN}", "wrong")
    path = server.data / f"domains/{DOMAIN}/aliases"
    server.machine.write(path, "loop: broken.name@x@y\n")
    server.ok("list-users")
    server.machine.run("touch", str(path))
    server.log.tolerate("fail:")
    wait_until(lambda: "fail: " in server.container.log(), "the keeper complains")
    wait_until(lambda: rows(server, f"words@{LYING}", "bounced"), "all is tried")
    server.machine.kill(server.process("keeper").pid)
    wait_until(lambda: "exited: keeper" in server.container.log(), "supervisord says so")
    log = server.container.log()
    assert not re.findall(r"[\w.+]*[\w.+]{2,}@\w", log)
    assert f"i…@{DOMAIN}" in log
    if style == "json":
        found = [json.loads(line) for line in log.splitlines()]
        assert {item["source"] for item in found} >= {"boot", "mail", "keeper", "init"}
        [bounced] = [item for item in found if item.get("event") == "bounced"
                     and LYING in item["to"][0]]  # fmt: skip
        assert bounced["to"] == [f"w…@{LYING}"]
        assert f"<w…@{LYING}>: nobody here, ask p…@{LYING}" in bounced["text"]
    # In the history they are whole.
    assert rows(server, f"words@{LYING}", "bounced")[0]["recipients"] == [f"words@{LYING}"]


def test_wrong_settings_in_json(servers: Servers) -> None:
    server = servers.make(
        {"LOG_FORMAT": "json", "MAX_QUEUE": "many"}, overlay={"restart": "no"}, host=TAMBO + 1
    )
    server.log.expect("MAX_QUEUE")
    server.up(wait=False)
    assert server.container.wait_exit(10) == 64
    [line] = server.container.log().splitlines()
    assert "MAX_QUEUE" in json.loads(line)["text"]
