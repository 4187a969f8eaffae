"""2,300 forwards from invented senders that the mailbox refuses: twenty bounces, and mail flows."""

from __future__ import annotations

import smtplib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.image.breaches.conftest import GENERATED, Shipped
from tests.support import smtp
from tests.support.peers import Mailbox, Neighbourhood
from tests.support.server import DOMAIN

NUMBER, CLIENTS = 2300, 20
VICTIM = "victim.example"
FULL = "full.example"
HONEST = "honest.example"  # SPF proves its senders; their mail is forwarded, too


@pytest.fixture(scope="module")
def settings() -> Mapping[str, str]:
    return {"FORWARD_UNPROVEN": "forward", "RATE_STRANGERS": "none"}


@pytest.fixture(scope="module")
def victim(where: Neighbourhood, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    """Whose addresses are invented as senders: gets the bounces."""
    mailbox = Mailbox(where, VICTIM, 60, tmp_path_factory.mktemp("victim") / "mailbox")
    yield mailbox
    mailbox.remove()


@pytest.fixture(scope="module")
def full(where: Neighbourhood, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    """Where mail is forwarded to: refuses everything."""
    mailbox = Mailbox(where, FULL, 61, tmp_path_factory.mktemp("full") / "mailbox")
    mailbox.container.exec(
        "postconf", "-e", "smtpd_recipient_restrictions=check_client_access static:{550 no}"
    )
    mailbox.container.exec("postfix", "reload")
    yield mailbox
    mailbox.remove()


def attack(shipped: Shipped, client: int) -> Counter[int]:
    """The answers to one client's share of the messages."""
    found: Counter[int] = Counter()
    for number in range(client, NUMBER, CLIENTS):
        try:
            with smtp.mail_server(shipped.server.ipv4) as server:
                sender = f"invented{number}@{VICTIM}"
                server.mail(sender)
                server.rcpt(f"full@{DOMAIN}")
                code, _ = server.data(
                    f"From: {sender}\r\nSubject: {number}\r\n\r\nSpam.\r\n".encode()
                )
                found[code] += 1
        except (smtplib.SMTPException, OSError):
            found[0] += 1
    return found


@pytest.mark.alone
@pytest.mark.usefixtures("full")
def test_twenty_bounces_leave_and_ordinary_mail_is_taken_meanwhile(
    shipped: Shipped, victim: Mailbox
) -> None:
    server = shipped.server
    server.log.tolerate(r" mail +(bounced|deferred) id=")
    server.ok("add-alias", f"full@{DOMAIN}", f"me@{FULL}")
    shipped.world.load_zone(HONEST, '@ MX 10 mx\nmx A 198.51.100.9\n@ TXT "v=spf1 +all"\n')
    took: list[float] = []
    stop = threading.Event()

    def ordinary() -> None:
        while not stop.wait(1.0):
            began = time.monotonic()
            smtp.submit(server.endpoint(), GENERATED, shipped.secrets[GENERATED], "me@example.net")
            took.append(time.monotonic() - began)
            began = time.monotonic()
            smtp.deliver(server.ipv4, GENERATED, sender=f"a@{HONEST}")
            took.append(time.monotonic() - began)

    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        other = pool.submit(ordinary)
        answers = sum(pool.map(lambda n: attack(shipped, n), range(CLIENTS)), Counter[int]())
        stop.set()
        other.result()
    assert answers[250] <= 20, answers
    assert answers[250] + answers[451] == NUMBER, answers
    assert took
    assert max(took) < 2, took
    time.sleep(5)
    assert 0 < len(victim.subjects()) <= 20
