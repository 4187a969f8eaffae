"""Who was logged in before a login changed sends nothing more over that connection (breaches.md,
11)."""

from __future__ import annotations

import smtplib
from email.policy import SMTP

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until

CHOSEN = "a choice of mine"


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make()
    server.up()
    server.log.tolerate("auth failed", "rejected", "refused")
    return server


def send(session: smtplib.SMTP, login: str) -> str:
    """The server's answer to a message over a session that has logged in."""
    mail = smtp.message(login, f"postmaster@{DOMAIN}")
    session.rset()
    session.mail(login)
    session.rcpt(f"postmaster@{DOMAIN}")
    code, text = session.data(mail.as_bytes(policy=SMTP))
    return f"{code} {text.decode()}"


@pytest.mark.parametrize("kind", ["generated", "chosen"])
def test_after_a_new_password_a_session_of_before_sends_nothing(server: Server, kind: str) -> None:
    login = f"{kind}@{DOMAIN}"
    given = [] if kind == "generated" else ["--password-stdin"]
    secret = server.verb("add-user", login, "--json", *given, input=f"{CHOSEN}\n").json()["secret"]
    with smtp.mail_program(server.endpoint()) as session:
        session.login(login, secret or CHOSEN)
        assert send(session, login).startswith("250 ")
        new = server.verb(
            "set-password", login, "--json", *given, input="another choice\n"
        ).json()["secret"]  # fmt: skip
        answer = send(session, login)
        assert "4.7.0" in answer
        assert "log in again" in answer
        # It does not forget when it starts anew.
        pid = server.process("policy").pid
        server.log.expect("the policy service had died")
        server.machine.kill(pid)
        wait_until(
            lambda: server.processes("policy") and server.process("policy").pid != pid,
            "the policy service is back",
        )
        # Not asked over the session: chasquid ends one after three refusals.
        wait_until(lambda: not server.verb("list-senders").stderr, "it answers")
        assert "4.7.0" in send(session, login)
        with smtp.mail_program(server.endpoint()) as other:
            other.login(login, new or "another choice")
            assert send(other, login).startswith("250 "), "who logs in again goes on at once"


def test_a_removed_login_sends_nothing_over_a_session_of_before(server: Server) -> None:
    login = f"gone@{DOMAIN}"
    secret = server.add_user(login)
    with smtp.mail_program(server.endpoint()) as session:
        session.login(login, secret)
        assert send(session, login).startswith("250 ")
        server.ok("remove-user", login)
        assert send(session, login).startswith("451 ")
        server.add_user(login)
        assert "4.7.0" in send(session, login), "also if one of that name comes again"


def test_a_paused_user_is_paused_with_all_credentials_and_sessions(server: Server) -> None:
    user, phone = f"i@{DOMAIN}", f"i+phone@{DOMAIN}"
    secret = server.add_user(user)
    named = server.verb("add-user", user, "--name", "phone", "--json").json()["secret"]
    endpoint = server.endpoint()
    with smtp.mail_program(endpoint) as one, smtp.mail_program(endpoint) as other:
        one.login(user, secret)
        other.login(phone, named)
        assert send(one, user).startswith("250 ")
        assert send(other, user).startswith("250 ")
        server.ok("pause-user", user, "--why", "stolen")
        assert "4.7.1" in send(one, user)
        assert "is paused: stolen" in send(other, user)
        assert server.ok("list-senders").count("PAUSED       stolen") == 2
        assert "paused still, with" in server.ok("resume-user", phone)
        server.ok("resume-user", user)
        assert "4.7.0" in send(one, user)
        assert "4.7.0" in send(other, user)
    assert smtp.submit(endpoint, user, secret, f"postmaster@{DOMAIN}")


def test_one_credential_alone_can_be_paused(server: Server) -> None:
    user, tablet = f"j@{DOMAIN}", f"j+tablet@{DOMAIN}"
    secret = server.add_user(user)
    server.ok("add-user", user, "--name", "tablet")
    server.ok("pause-user", tablet)
    assert smtp.submit(server.endpoint(), user, secret, f"postmaster@{DOMAIN}")
    assert server.ok("list-senders").count("PAUSED       by hand") == 1
    server.ok("resume-user", tablet)
