"""Mail from outside that says it is from here; and logins that are paused."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.image.conftest import TAMBO, Servers
from tests.support import smtp
from tests.support.container import checked, docker
from tests.support.server import DOMAIN, HOST, Server
from tests.support.wait import wait_until
from tests.world.world import World

USER, OTHER = f"i@{DOMAIN}", f"j@{DOMAIN}"


@pytest.fixture(scope="module")
def server(module_servers: Servers, world: World) -> Iterator[Server]:
    # Asked more often than in production, so that a test need not wait for Docker's opinion.
    health = {"interval": "500ms", "retries": 1, "start_period": "1s"}
    server = module_servers.make(host=TAMBO, overlay={"healthcheck": health})
    server.up()
    world.load_zone(DOMAIN, zone(server))
    yield server
    world.load_zone(DOMAIN, "")


@pytest.fixture(scope="module")
def secrets(server: Server) -> dict[str, str]:
    return {user: server.add_user(user) for user in (USER, OTHER)}


def zone(server: Server) -> str:
    return server.ok("dns", "--format", "zone")


def answer(server: Server, message: bytes, sender: str = "someone@outside.example") -> str:
    """What another mail server is answered that brings this for USER."""
    with smtp.mail_server(server.ipv4) as session:
        try:
            session.sendmail(sender, [USER], message.replace(b"\n", b"\r\n"))
        except smtplib.SMTPResponseException as error:
            return f"{error.smtp_code} {bytes(error.smtp_error or b'').decode()}"  # type: ignore[arg-type]
    return "250"


def claiming(sender: str) -> bytes:
    return smtp.message(sender, USER).as_bytes()


def kept(server: Server, subject: str) -> bool:
    return any(subject in text for text in server.kept(USER))


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("envelope", ["someone@outside.example", USER, ""])
@pytest.mark.parametrize("sender", [USER, OTHER, f"postmaster@{HOST}"])
def test_a_forged_sender_is_refused(
    server: Server, world: World, sender: str, envelope: str
) -> None:
    # SPF must not decide before, in chasquid: with ~all it does not.
    assert "~all" in world.zone(DOMAIN)
    said = answer(server, claiming(sender), envelope or "<>")
    assert said.startswith(f"554 5.7.1 From names {sender.partition('@')[2]}")


@pytest.mark.usefixtures("secrets")
def test_two_from_headers_are_refused(server: Server) -> None:
    message = b"From: someone@outside.example\n" + claiming(USER)
    said = answer(server, message)
    assert said.startswith("554 5.6.0 it is not certain who this message is from, and example.com")
    assert said.endswith("it has 2 From headers")


@pytest.mark.usefixtures("secrets")
def test_others_and_bounces_come_in(server: Server) -> None:
    assert answer(server, claiming("someone@outside.example")) == "250"
    assert answer(server, claiming("MAILER-DAEMON@outside.example"), "<>") == "250"


@pytest.mark.usefixtures("secrets")
def test_a_service_that_spf_allows_may_send_for_the_domain(server: Server, world: World) -> None:
    with smtp.mail_server(server.ipv4) as session:
        assert session.sock is not None
        address = session.sock.getsockname()[0]
    record = f'bounces.{DOMAIN}. TXT "v=spf1 ip4:{address} -all"\\n'
    world.load_zone(DOMAIN, zone(server) + record)
    try:
        assert answer(server, claiming(USER), f"b@bounces.{DOMAIN}") == "250"
        assert answer(server, claiming(USER), "b@outside.example")[:9] == "554 5.7.1"
    finally:
        world.load_zone(DOMAIN, zone(server))


def echo(server: Server, secrets: dict[str, str], world: World) -> bytes:
    """What a list gets that a user writes to, as it got it."""
    subject = smtp.submit(server.endpoint(), USER, secrets[USER], "list@example.net")
    [delivery] = world.wait_for(subject=subject, timeout=20)
    start = re.search(rb"(?m)^DKIM-Signature:", delivery.raw)
    assert start
    return delivery.raw[start.start() :].replace(b"\r\n", b"\n")


def test_a_list_s_echo_comes_back_if_the_list_changed_nothing(
    server: Server, secrets: dict[str, str], world: World
) -> None:
    message = echo(server, secrets, world)
    assert answer(server, message, "list-bounces@outside.example") == "250"
    assert answer(server, message, "<>") == "250"
    changed = message.replace(b"A line of text", b"[list] A line of text")
    assert answer(server, changed, "list-bounces@outside.example")[:9] == "554 5.7.1"
    renamed = message.replace(f"From: {USER}".encode(), f"From: {OTHER}".encode())
    assert renamed != message
    assert answer(server, renamed, "list-bounces@outside.example")[:9] == "554 5.7.1"


@contextmanager
def silent(world: World, service: str) -> Iterator[None]:
    checked(docker("pause", world.container(service)))
    try:
        yield
    finally:
        checked(docker("unpause", world.container(service)))


def test_a_silent_name_server_refuses_nothing_for_good(
    server: Server, secrets: dict[str, str], world: World
) -> None:
    message = echo(server, secrets, world)
    with silent(world, "authoritative"), smtp.mail_server(server.ipv4) as session:
        assert session.sock is not None
        session.sock.settimeout(90)
        with pytest.raises(smtplib.SMTPDataError) as refusal:
            session.sendmail(
                "list-bounces@outside.example", [USER], message.replace(b"\n", b"\r\n")
            )
    assert refusal.value.smtp_code == 451
    assert "4.7.5 DNS could not say" in str(refusal.value.smtp_error)
    wait_until(lambda: answer(server, message) == "250", "it is taken again", timeout=30)


def test_a_user_writes_to_another_and_to_itself(server: Server, secrets: dict[str, str]) -> None:
    subject = smtp.submit(server.endpoint(), OTHER, secrets[OTHER], USER)
    wait_until(lambda: kept(server, subject), "it is kept")
    subject = smtp.submit(server.endpoint(), USER, secrets[USER], USER)
    wait_until(lambda: kept(server, subject), "it is kept")


def refusal_of(server: Server, user: str, secret: str) -> str:
    try:
        smtp.submit(server.endpoint(), user, secret, "you@example.net")
    except smtplib.SMTPDataError as error:
        return f"{error.smtp_code} {error.smtp_error!r}"
    return ""


@pytest.fixture
def refusing(world: World) -> Iterator[str]:
    """A domain whose mail server refuses everything for good."""
    name = "refusing.example"
    world.load_zone(name, "@ MX 10 mx.example.net.")
    yield name
    world.load_zone(name, "")


def test_a_login_whose_mail_fails_is_paused_until_it_is_resumed(
    server: Server, refusing: str
) -> None:
    user = f"stolen@{DOMAIN}"
    secret = server.add_user(user)
    why = r"2\d of the last \d+ recipients in an hour do not exist or refuse its mail"
    server.log.expect(
        rf"policy   error: {user} is paused: {why}", rf"keeper   fail: {user} is paused: {why}"
    )
    wait_until(lambda: server.container.health == "healthy", "all is well before", timeout=20)
    with smtp.mail_program(server.endpoint()) as session:
        session.login(user, secret)
        strangers = [f"stranger{number}@{refusing}" for number in range(25)]
        session.send_message(smtp.message(user, "strangers"), user, strangers)
    wait_until(lambda: server.verb("list-senders").status == 1, "it is paused", timeout=30)
    said = refusal_of(server, user, secret)
    assert said.startswith("451 ")
    assert f"4.7.1 {user} is paused: " in said
    # The postmaster is told, by mail that is from here and has no login.
    [text] = wait_until(
        lambda: [
            text for text in server.kept(f"postmaster@{HOST}") if f"resume-user {user}" in text
        ],
        "the postmaster is told",
    )
    assert f"Subject: {user} may not send any more" in text
    wait_until(lambda: server.container.health == "unhealthy", "it is unhealthy", timeout=15)
    listed = server.verb("list-senders")
    assert listed.status == 1
    assert re.search(rf"{user}\n(.*\n)*    PAUSED +{why}", listed.stdout)
    assert f"Resumed {user}" not in listed.stdout
    assert server.ok("resume-user", user) == f"{user} may send again.\n"
    assert refusal_of(server, user, secret) == ""
    wait_until(lambda: server.container.health == "healthy", "all is well again", timeout=15)
    assert server.verb("list-senders").status == 0


def test_a_pause_by_hand_survives_a_restart_and_is_no_alarm(
    server: Server, secrets: dict[str, str]
) -> None:
    server.ok("pause-user", OTHER, "--why", "on holiday")
    assert "is paused: on holiday" in refusal_of(server, OTHER, secrets[OTHER])
    checked(server.container.docker("restart"))
    server.wait_until_it_serves()
    assert "is paused: on holiday" in wait_until(
        lambda: refusal_of(server, OTHER, secrets[OTHER]), "it serves"
    )
    wait_until(lambda: server.container.health == "healthy", "it is no alarm", timeout=20)
    server.ok("resume-user", OTHER)
    assert refusal_of(server, OTHER, secrets[OTHER]) == ""


# Verbs


def test_grants_and_limits_are_in_service_when_the_verb_returns(
    server: Server, secrets: dict[str, str]
) -> None:
    def sends_as_other() -> bool:
        mail = smtp.message(OTHER, "you@example.net")
        with smtp.mail_program(server.endpoint()) as session:
            session.login(USER, secrets[USER])
            try:
                session.send_message(mail, OTHER, ["you@example.net"])
            except smtplib.SMTPDataError as error:
                return {554: False}[error.smtp_code]
        return True

    assert not sends_as_other()
    server.ok("allow-sender", USER, OTHER)
    assert sends_as_other()
    server.ok("allow-sender", USER, OTHER, "--remove")
    assert not sends_as_other()
    server.ok("allow-sender", USER, f"*@{DOMAIN}")
    assert sends_as_other()
    server.ok("allow-sender", USER, f"*@{DOMAIN}", "--remove")
    assert not sends_as_other()
    server.ok("set-limit", USER, "1/d")
    assert "4.7.1" in refusal_of(server, USER, secrets[USER])
    server.ok("set-limit", USER, "default")
    assert refusal_of(server, USER, secrets[USER]) == ""


@pytest.mark.usefixtures("secrets")
def test_explain_policy_says_what_would_be_answered(server: Server) -> None:
    def explain(message: bytes, *options: str) -> tuple[int, str]:
        argv = ("explain-policy", "-", "--to", "you@example.net", *options)
        found = server.verb(*argv, input=message.decode())
        return found.status, found.stdout.partition("\n")[0]

    login = ("--login", USER, "--from", USER)
    assert explain(claiming(USER), *login) == (0, f"250 2.0.0 {USER} may send this")
    refused = f"554 5.7.1 {USER} may not send as {OTHER} (From)"
    assert explain(claiming(OTHER), *login) == (1, refused)
    server.ok("pause-user", USER)
    status, said = explain(claiming(USER), *login)
    assert (status, said[:9]) == (75, "451 4.7.1")
    server.ok("resume-user", USER)
    assert explain(claiming(USER))[0] == 1
    assert explain(claiming(USER), "--from", USER, "--spf-pass")[0] == 0
    assert explain(claiming("x@outside.example")) == (
        0, "250 2.0.0 it is not from here, and does not say so",
    )  # fmt: skip


def test_add_user_grants_at_once(server: Server) -> None:
    user = f"web@{DOMAIN}"
    secret = checked(
        server.verb("add-user", user, "--json", "--may-send", f"info@{DOMAIN}")
    ).json()["secret"]
    mail = smtp.message(f"info@{DOMAIN}", "you@example.net")
    with smtp.mail_program(server.endpoint()) as session:
        session.login(user, secret)
        session.send_message(mail, user, ["you@example.net"])
    server.ok("remove-user", user)
    assert user not in server.verb("list-senders").stdout
    secret = server.add_user(user)
    with smtp.mail_program(server.endpoint()) as session:
        session.login(user, secret)
        with pytest.raises(smtplib.SMTPDataError):
            session.send_message(mail, user, ["you@example.net"])
