"""Who may send as whom, over the wire: the cases, and what happens to what is refused."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator

import pytest

from tests.image.conftest import TAMBO, Servers
from tests.support import policycases, smtp
from tests.support.container import checked
from tests.support.policycases import PolicyCase
from tests.support.server import Server
from tests.support.wait import wait_until
from tests.world.world import World

CASES = policycases.cases("submission")
RULES = "/run/tambo/policy.json"


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    """The three logins and the domains of the cases."""
    server = module_servers.make(
        {"MAIL_DOMAINS": ",".join(policycases.DOMAINS), "SEND_LIMIT": "none"}, host=TAMBO
    )
    server.up()
    return server


@pytest.fixture(autouse=True)
def _is_told_later(server: Server) -> None:
    """Some cases have no Message-ID, and the keeper says so within a minute."""
    server.log.tolerate("without Message-ID")


@pytest.fixture(scope="module")
def secrets(server: Server, world: World) -> Iterator[dict[str, str]]:
    """By login; with the aliases and grants of the cases, and the zones of both domains."""
    found = {login: server.add_user(login) for login in policycases.LOGINS}
    for folder in (policycases.FOLDER / "data").iterdir():
        for path in folder.iterdir():
            place = server.data / "domains" / folder.name / path.name
            server.machine.write(place, path.read_text())
    wait_until(
        lambda: all(
            word in server.container.exec("cat", RULES).stdout
            for word in ("sales@example.org", 'xn--bcher-kva.example"\n', "chain@", "hello@")
        ),
        "what was edited by hand is in service",
        timeout=15,
    )
    _, *parts = re.split(r"(?m)^\$ORIGIN (\S+)\.\n", server.ok("dns", "--format", "zone"))
    zones = dict(zip(parts[::2], parts[1::2], strict=True))
    for domain in ("example.com", "example.org"):
        world.load_zone(domain, zones[domain])
    yield found
    for domain in ("example.com", "example.org"):
        world.load_zone(domain, "")


def sent(server: Server, secret: str, case: PolicyCase) -> str:
    """What the server answers in the end, one line."""
    with smtp.mail_program(server.endpoint()) as session:
        session.login(case.login, secret)
        options = ["SMTPUTF8"] if not case.sender.isascii() else []
        code, text = session.mail(case.sender.strip("<>"), options)
        for recipient in case.recipients:
            if code == 250:
                code, text = session.rcpt(recipient)
        if code == 250:
            code, text = session.docmd("DATA")
            assert code == 354
            raw = re.sub(rb"(?m)^\.", b"..", case.message.replace(b"\n", b"\r\n"))
            session.send(raw + b".\r\n")
            code, text = session.getreply()
        return f"{code} {text.decode()}"


@pytest.mark.parametrize("case", CASES, ids=policycases.case_id)
def test_case(server: Server, secrets: dict[str, str], case: PolicyCase) -> None:
    answer = sent(server, secrets[case.login], case)
    if case.accepted:
        assert answer.startswith("250 2.0.0 "), answer
    else:
        assert answer == (case.wire or case.answer)


def test_what_was_refused_was_neither_signed_nor_sent(
    server: Server, secrets: dict[str, str], world: World
) -> None:
    """Runs after the cases; the receiver has those that were accepted and no other."""
    accepted = {case for case in CASES if case.accepted}
    last = smtp.submit(
        server.endpoint(), "i@example.com", secrets["i@example.com"], "you@example.net"
    )
    world.wait_for(subject=last, timeout=20)
    subjects = {f"case {case.path.name.partition('-')[0]}": case for case in CASES}

    def arrived() -> dict[str, str]:
        return {
            item.subject: ",".join(sorted(set(item.dkim.values())))
            for item in world.deliveries(to="you@example.net")
            if item.subject in subjects
        }

    wait_until(lambda: len(arrived()) >= len(accepted), "all that was accepted is delivered")
    found = arrived()
    assert {subjects[name] for name in found} == accepted
    for name, verdict in found.items():
        if subjects[name].sender.endswith(("@example.com", "@example.org")):
            assert verdict == "pass", name
    assert not [text for text in server.queued() if "case " in text]


def test_a_message_without_message_id_is_taken_and_told(
    server: Server, secrets: dict[str, str]
) -> None:
    [case] = [item for item in CASES if item.path.name.endswith("-no-message-id")]
    assert sent(server, secrets[case.login], case).startswith("250 ")
    told = "i@example.com sends messages without Message-ID"
    wait_until(lambda: told in server.ok("status"), "status tells it", timeout=10)
    assert f"keeper   warn: {told}" in server.container.log()
    listed = checked(server.verb("list-senders", "--json")).json()
    assert listed["i@example.com"]["notes"][0].startswith("sends messages without Message-ID")


def test_a_login_on_port_587_is_held_to_the_same(server: Server, secrets: dict[str, str]) -> None:
    mail = smtp.message("boss@example.org", "you@example.net")
    with smtp.mail_program(server.endpoint(), smtp.SUBMISSION) as session:
        session.login("i@example.com", secrets["i@example.com"])
        with pytest.raises(smtplib.SMTPDataError) as refusal:
            session.send_message(mail, "i@example.com", ["you@example.net"])
    assert refusal.value.smtp_code == 554
    assert (
        b"5.7.1 i@example.com may not send as boss@example.org (From)" in refusal.value.smtp_error
    )
