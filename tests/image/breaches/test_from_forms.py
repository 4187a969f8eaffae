"""A stranger's From that somebody may read as ours ends nowhere as mail of ours.

Each form that got through once, and 240 generated ones, sent over the wire to a server that
forwards all its mail: refused, or at the world's receiver (Postfix, OpenDKIM, an SPF policy daemon,
OpenDMARC) not dmarc=pass for a domain of ours.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import pytest

from tests.image.breaches.conftest import FORWARD_TO, GENERATED, Shipped
from tests.support import fromforms, smtp
from tests.support.container import checked
from tests.support.fromforms import Form
from tests.support.server import DOMAIN
from tests.support.wait import wait_until
from tests.support.wire import Wire
from tests.world.world import Delivery

GENERATED_FORMS = 240
CLIENTS = 6
DATE = "Date: Tue, 24 Nov 2026 08:00:00 +0000"
FORMS = (
    *fromforms.BREACHES,
    *fromforms.NULS,
    *(fromforms.generated(number) for number in range(GENERATED_FORMS)),
)
# SPF: nothing, softfail of ours, and the HELO name for a bounce.
SENDERS = ("<someone@outside.example>", f"<{GENERATED}>", "<>")


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    # All of it comes from one address.
    return {"RATE_STRANGERS": "none"}


@pytest.fixture(scope="module")
def answers(shipped: Shipped) -> Mapping[str, str]:
    """What was answered to each form, by its number."""
    numbered = [(str(number), form) for number, form in enumerate(FORMS)]
    shares = [numbered[start::CLIENTS] for start in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        parts = list(pool.map(lambda share: _send(shipped, share), shares))
    return {number: said for part in parts for number, said in part.items()}


def _send(shipped: Shipped, share: Sequence[tuple[str, Form]]) -> dict[str, str]:
    found = {}
    for (number, form), sender in zip(share, cycle(SENDERS), strict=False):
        with Wire(shipped.server.endpoint()) as wire:
            wire.ask("EHLO mx.outside.example")
            found[number] = _deliver(wire, form, number, sender)
    return found


def _deliver(wire: Wire, form: Form, subject: str, sender: str) -> str:
    for line in (f"MAIL FROM:{sender}", f"RCPT TO:<{GENERATED}>", "DATA"):
        said = wire.ask(line)
        if said.code >= 400:
            return str(said)
    rest = f"Subject: form {subject}\nTo: {GENERATED}\n{DATE}\n\nText.\n"
    raw = (form.section(DOMAIN) + rest.encode()).replace(b"\n", b"\r\n")
    wire.send(raw + b".\r\n")
    return str(wire.reply())


def is_ours(domain: str) -> bool:
    name = domain.lower().rstrip(".")
    return name == DOMAIN or name.endswith(f".{DOMAIN}")


def passes_as_ours(delivery: Delivery) -> bool:
    """Whether the receiver's DMARC passes for a domain of ours."""
    head = delivery.raw.partition(b"\n\n")[0].partition(b"\r\n\r\n")[0].decode(errors="replace")
    verdicts = re.findall(r"dmarc=pass[^;]*?header\.from=(\S+)", re.sub(r"\r?\n[ \t]+", " ", head))
    return any(is_ours(domain) for domain in verdicts)


@pytest.mark.parametrize("number", range(len(FORMS)), ids=lambda n: FORMS[n].name)
def test_form_is_refused(answers: Mapping[str, str], number: int) -> None:
    assert answers[str(number)].startswith("554 "), FORMS[number]


def test_none_passes_as_ours_at_the_receiver(shipped: Shipped, answers: Mapping[str, str]) -> None:
    wait_until(lambda: not shipped.server.queued(), "all that was taken is delivered", timeout=120)
    arrived = [
        item for item in shipped.world.deliveries(to=FORWARD_TO) if item.subject.startswith("form ")
    ]
    assert not [item.subject for item in arrived if passes_as_ours(item)]
    taken = [said for said in answers.values() if said.startswith("250")]
    assert len(arrived) >= len(taken), "what is taken arrives, and is looked at"


def test_receiver_would_have_been_deceived(shipped: Shipped) -> None:
    """The same forgery from the machine itself, which may: so the test above can fail."""
    subject = f"control {uuid.uuid4().hex}"
    script = (
        "import smtplib; s = smtplib.SMTP('127.0.0.1', 25, local_hostname='localhost'); "
        f"s.sendmail('someone@outside.example', ['{GENERATED}'], "
        f"'From: ceo@accounts.{DOMAIN}\\r\\nSubject: {subject}\\r\\n\\r\\nText.\\r\\n')"
    )
    checked(shipped.server.container.exec("/opt/tambo/bin/python", "-c", script))
    [delivery] = shipped.world.wait_for(subject=subject, timeout=30)
    assert delivery.to == FORWARD_TO
    assert passes_as_ours(delivery)


def test_status_says_which_record_a_subdomain_lacks(
    shipped: Shipped, answers: Mapping[str, str]
) -> None:
    assert answers
    mail = smtp.message(f"news@news.{DOMAIN}", GENERATED)
    with (
        smtp.mail_server(shipped.server.ipv4) as session,
        pytest.raises(Exception, match=r"5\.7\.1"),
    ):
        session.send_message(mail, f"b@news.{DOMAIN}", [GENERATED])
    found = shipped.server.verb("status", "--json").json()["refused_below"]
    [row] = [item for item in found if item["envelope_domain"] == f"news.{DOMAIN}"]
    assert row["domain"] == f"news.{DOMAIN}"
    assert f'news.{DOMAIN}. TXT "v=spf1 ip4:{row["address"]} ~all"' in row["records"]
    assert f"news.{DOMAIN}: 1 from" in shipped.server.verb("status").stdout
