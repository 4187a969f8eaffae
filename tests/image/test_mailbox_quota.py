"""MAILBOX_MB: a full mailbox takes nothing, one with room does."""

from __future__ import annotations

import smtplib

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.server import DOMAIN
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

FULL, ROOM = f"i@{DOMAIN}", f"j@{DOMAIN}"


def send(address: str, *to: str, size: int = 100) -> str:
    """The answer to a stranger's message of so many bytes."""
    mail = smtp.message("someone@outside.example", to[0])
    mail.set_content(("x" * 69 + "\n") * (size // 70 + 1))
    with smtp.mail_server(address) as session:
        try:
            session.send_message(mail, "someone@outside.example", to)
        except smtplib.SMTPDataError as error:
            return f"{error.smtp_code} {error.smtp_error!r}"
    return "taken"


def test_a_full_mailbox_takes_nothing_until_there_is_room(module_servers: Servers) -> None:
    server = module_servers.make({"MAILBOX_MB": "1", "RATE_STRANGERS": "none"})
    server.up()
    for user in (FULL, ROOM):
        server.add_user(user)
    assert [send(server.ipv4, FULL, size=600_000) for _ in range(2)] == ["taken"] * 2
    wait_until(lambda: len(server.kept(FULL)) == 2, "both are in the Maildir")
    assert "5.2.2 the mailbox i@example.com is full (over 1 MB)" in send(server.ipv4, FULL)
    assert send(server.ipv4, FULL)[:3] == "554"
    assert send(server.ipv4, FULL, ROOM) == "taken"
    assert send(server.ipv4, f"postmaster@{DOMAIN}") == "taken"
    du = f"du -xam /data/mail/{DOMAIN}/i"
    wait_until(lambda: du in " ".join(server.verb("status").stdout.split()), "status has the du")
    assert "/new/" in server.ok(*du.split()), "what is to be pasted shows the files"
    server.log.expect("The mailbox i@example.com is full")
    server.machine.delete(server.data / "mail" / DOMAIN / "i" / "new")
    wait_until(
        lambda: send(server.ipv4, FULL) == "taken", "there is room again", timeout=60, pause=1
    )
