"""A login speaks for itself: header forms and envelope forms that pretend to be another.

The policy's own cases (tests/cases/policy, over the wire in tests/image/test_policy.py) say what is
answered to which form. Here the receiver says what became of it: a form is refused, or it arrives,
and then neither DMARC nor a parser finds anybody else's address in From, Sender or the envelope.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from email.utils import getaddresses

import pytest

from tests.image.breaches.conftest import CHOSEN, GENERATED, Shipped
from tests.support import smtp
from tests.support.server import DOMAIN
from tests.support.wait import wait_until
from tests.support.wire import Reply, Wire
from tests.world.world import Delivery, parse_authentication_results

OTHER = "example.org"  # served too
OWN, COLLEAGUE, BOSS, BANK = GENERATED, CHOSEN, f"boss@{OTHER}", "ceo@bank.example"
CLIENTS = 6


def _wide(text: str) -> str:
    """As full-width characters."""
    return "".join(chr(ord(character) - 0x21 + 0xFF01) for character in text)


def _base64(text: str) -> str:
    return f"=?utf-8?b?{b64encode(text.encode()).decode()}?="


# {own}, {colleague}, {boss} and {bank} are addresses. Lines are put on top of the rest of a header
# section that has no From.
HEADERS: Mapping[str, str] = {
    "colleague": "From: {colleague}",
    "boss-of-another-domain": "From: {boss}",
    "foreign-domain": "From: {bank}",
    "both": "From: {own}, {colleague}",
    "both-turned-around": "From: {colleague}, {own}",
    "two-fields": "From: {own}\r\nFrom: {colleague}",
    "two-fields-turned-around": "From: {colleague}\r\nFrom: {own}",
    "two-fields-upper-case": "FROM: {colleague}\r\nFrom: {own}",
    "two-fields-space-before-colon": "From: {own}\r\nFrom : {colleague}",
    "two-fields-space-first": "From : {colleague}\r\nFrom: {own}",
    "two-fields-tab-before-colon": "From\t: {colleague}\r\nFrom: {own}",
    "two-fields-far-apart": "From: {own}\r\nX-A: b\r\nComments: c\r\nFrom: {boss}",
    "mbox-line-first": "From {colleague} Mon Jan  1 00:00:00 2024\r\nFrom: {own}",
    "mbox-line-escaped": ">From: {colleague}\r\nFrom: {own}",
    "folded": "From:\r\n {colleague}",
    "folded-empty-then-other": "From: {own}\r\n \r\n , {colleague}",
    "tab": "From:\t{colleague}",
    "no-space": "From:{colleague}",
    "own-as-quoted-name": 'From: "{own}" <{colleague}>',
    "own-as-name": "From: {own} <{colleague}>",
    "other-as-quoted-name": 'From: "{boss}" <{own}>',
    "other-as-name": "From: {boss} <{own}>",
    "other-as-encoded-name": "From: =?utf-8?q?boss=40example.org?= <{own}>",
    "other-as-encoded-brackets": f"From: {_base64(f'<{BOSS}>')} <{{own}}>",
    "encoded-line-end-in-name": "From: =?utf-8?q?x=0D=0AFrom:_boss=40example.org?= <{own}>",
    "encoded-address": "From: =?utf-8?q?boss=40example.org?=",
    "encoded-address-and-own": f"From: {_base64(f'<{BOSS}>')}, {{own}}",
    "encoded-local-part": "From: <=?utf-8?q?j?=@example.com>",
    "encoded-domain": "From: <i@=?utf-8?q?example.org?=>",
    "turned-around-name": 'From: "\u202egro.elpmaxe@ssob" <{own}>',
    "two-brackets": "From: <{own}> <{colleague}>",
    "two-brackets-turned-around": "From: <{colleague}> <{own}>",
    "behind-the-bracket": "From: <{own}>{colleague}",
    "before-the-bracket": "From: {colleague}<{own}>",
    "two-in-one-bracket": "From: <{own},{colleague}>",
    "brace": "From: <i@example.com}}example.org>",
    "semicolon": "From: {own};{colleague}",
    "bar": "From: {own}|{colleague}",
    "comment-own": "From: {colleague} ({own})",
    "comment-own-first": "From: ({own}) {colleague}",
    "comment-other": "From: {own} ({colleague})",
    "comment-within-the-domain": "From: j@(x)example.com",
    "comment-without-end": "From: {own} ({colleague}",
    "space-within-the-domain": "From: j@example .com",
    "space-behind-the-at": "From: j@ example.com",
    "space-before-the-at": "From: j @example.com",
    "route": "From: <@example.com:{boss}>",
    "quoted-local-part": 'From: "j"@example.com',
    "quoted-own-address": 'From: "i@example.com"@example.org',
    "two-at": "From: i@example.com@example.org",
    "escaped-at": r"From: boss\@example.org@example.com",
    "literal": "From: i@[198.51.100.1]",
    "final-dot": "From: j@example.com.",
    "upper-case": "From: J@EXAMPLE.COM",
    "own-below-the-domain": "From: i@sub.example.com",
    "postmaster": "From: postmaster@example.com",
    "host": "From: postmaster@smtp.example.com",
    "suffix-of-another": "From: j+i@example.com",
    "group": "From: x:{colleague};",
    "group-and-own": "From: x:{colleague};, {own}",
    "group-empty": "From: undisclosed:;",
    "empty": "From:",
    "none": "X-From: {own}",
    "none-but-sender": "Sender: {own}",
    "in-the-body": "\r\nFrom: {own}",
    "sender-of-another": "From: {own}\r\nSender: {colleague}",
    "two-senders": "From: {own}\r\nSender: {own}\r\nSender: {colleague}",
    "nul-between": "From: {own}\0, {colleague}",
    "nul-in-address": "From: <{colleague}\0>, <{own}>",
    "vertical-tab": "From: {own}\x0b, {colleague}",
    "bare-cr": "From: {own}\rFrom: {colleague}",
    "bare-lf": "From: {own}\nFrom: {colleague}",
    "wide-letters": f"From: j@{_wide('example')}.com",
    "wide-at": f"From: j{_wide('@')}example.com",
    "soft-hyphen": "From: j@exam\u00adple.com",
    "zero-width": "From: j\u200b@example.com",
    "longer-than-a-line": "From: {own}" + " (x)" * 300 + ", {colleague}",
    "resent": "From: {own}\r\nResent-From: {boss}\r\nResent-Sender: {boss}",
    "reply-to": "From: {own}\r\nReply-To: {boss}",
    "return-path": "Return-Path: <{boss}>\r\nFrom: {own}",
    "verdict-of-the-receiver": "Authentication-Results: mx.example.net; dmarc=pass "
    "header.from=example.org\r\nFrom: {own}",
    "signature-of-another": "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=x; h=from; "
    "bh=AAAA; b=AAAA\r\nFrom: {own}",
}
# Forms in which the sender says nothing wrong: they must arrive, or nothing above proves anything.
HONEST = ("comment-other", "other-as-quoted-name", "other-as-encoded-name", "reply-to", "resent")

ENVELOPES: Mapping[str, str] = {
    "colleague": "FROM:<{colleague}>",
    "boss-of-another-domain": "FROM:<{boss}>",
    "foreign-domain": "FROM:<{bank}>",
    "null": "FROM:<>",
    "postmaster": "FROM:<postmaster@example.com>",
    "host": "FROM:<postmaster@smtp.example.com>",
    "anybody-of-the-domain": "FROM:<anybody@example.com>",
    "below-the-domain": "FROM:<i@sub.example.com>",
    "upper-case": "FROM:<J@EXAMPLE.COM>",
    "suffix-of-another": "FROM:<j+i@example.com>",
    "quoted": 'FROM:<"j"@example.com>',
    "quoted-own-address": 'FROM:<"i@example.com"@example.org>',
    "two-at": "FROM:<i@example.com@example.org>",
    "route": "FROM:<@example.com:{colleague}>",
    "display-name": 'FROM:"{own}"<{colleague}>',
    "wide-letters": f"FROM:<j@{_wide('example')}.com>",
    "auth-parameter": "FROM:<{own}> AUTH=<{boss}>",
    "two-senders": "FROM:<{own}>,<{colleague}>",
    "nul": "FROM:<i@example.com\0@example.org>",
    "second-mail": "FROM:<{own}>\r\nMAIL FROM:<{boss}>",
}


@dataclass(frozen=True)
class Form:
    """A header form or an envelope form; the other one is the login's own."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


FORMS = [
    *(Form("header", name) for name in HEADERS),
    *(Form("envelope", name) for name in ENVELOPES),
]


@dataclass(frozen=True)
class Outcome:
    """The last reply, and what arrived."""

    reply: Reply
    arrived: tuple[Delivery, ...]


def _filled(text: str) -> bytes:
    words = {"own": OWN, "colleague": COLLEAGUE, "boss": BOSS, "bank": BANK}
    return text.format(**words).encode()


def attack(shipped: Shipped, form: Form, tag: str) -> Reply:
    """Submit one form; the reply that ended it."""
    top = HEADERS[form.name] if form.kind == "header" else "From: {own}"
    sender = ENVELOPES[form.name] if form.kind == "envelope" else "FROM:<{own}>"
    with Wire(shipped.server.endpoint(), smtp.SUBMISSIONS) as wire:
        wire.ask("EHLO client.example")
        wire.log_in(OWN, shipped.secrets[OWN])
        wire.send(b"MAIL " + _filled(sender) + b"\r\n")
        replies = [wire.reply() for _ in range(_filled(sender).count(b"\r\n") + 1)]
        for command in (f"RCPT TO:<{tag}@elsewhere.example>", "DATA"):
            if not (replies[-1].positive or replies[-1].code == 354):
                return replies[-1]
            replies.append(wire.ask(command))
        if replies[-1].code != 354:
            return replies[-1]
        rest = (
            f"Subject: pretend {tag}\r\nTo: x@elsewhere.example\r\n"
            "Date: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
            f"Message-ID: <{tag}@example.com>\r\n\r\nText.\r\n.\r\n"
        )
        wire.send(_filled(top) + b"\r\n" + rest.encode())
        return wire.reply()


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"MAIL_DOMAINS": f"{DOMAIN},{OTHER}", "SEND_LIMIT": "none"}


@pytest.fixture(scope="module")
def outcomes(shipped: Shipped) -> dict[Form, Outcome]:
    """Of every form, once all that was taken has arrived."""
    shipped.server.add_user(BOSS)
    shipped.server.log.tolerate("without Message-ID")
    tags = {form: f"p{number:03}" for number, form in enumerate(FORMS)}
    with ThreadPoolExecutor(CLIENTS) as pool:
        work = {form: pool.submit(attack, shipped, form, tag) for form, tag in tags.items()}
        replies = {form: item.result() for form, item in work.items()}
    taken = {tags[form] for form, reply in replies.items() if reply.positive}

    def found() -> dict[str, list[Delivery]]:
        by_tag: dict[str, list[Delivery]] = {}
        for mail in shipped.world.deliveries():
            local, _, domain = mail.to.partition("@")
            if domain == "elsewhere.example" and local in tags.values():
                by_tag.setdefault(local, []).append(mail)
        return by_tag

    wait_until(lambda: taken <= set(found()), "what was taken arrives", timeout=60)
    wait_until(lambda: not shipped.server.queued(), "nothing waits", timeout=20)
    arrived = found()
    return {form: Outcome(replies[form], tuple(arrived.get(tag, ()))) for form, tag in tags.items()}


def _named(mail: Delivery) -> set[str]:
    """Every address that Python's parsers find in From and Sender, by the letter."""
    found: set[str] = set()
    for message in (message_from_bytes(mail.raw), message_from_bytes(mail.raw, policy=default)):
        for name in ("from", "sender"):
            values = [str(value) for value in message.get_all(name, [])]
            found |= {address.lower() for _, address in getaddresses(values)}
    return found


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_no_form_speaks_for_another(outcomes: dict[Form, Outcome], form: Form) -> None:
    outcome = outcomes[form]
    if not outcome.reply.positive:
        assert outcome.reply.code // 100 in (0, 5), outcome.reply
        assert not outcome.arrived, outcome.reply
        return
    [mail] = outcome.arrived
    assert _named(mail) == {OWN}
    assert mail.envelope_from == OWN
    [value] = re.findall(r"(?mi)^From:", mail.raw.partition(b"\n\n")[0].decode(errors="replace"))
    assert value == "From:"
    top = message_from_bytes(mail.raw)["authentication-results"]
    server, verdicts = parse_authentication_results(re.sub(r"\r?\n", "", str(top)))
    assert server == "mx.example.net"
    assert {item.result for item in verdicts if item.method == "dmarc"} <= {"pass"}
    domains = {item.properties.get("header.from") for item in verdicts if item.method == "dmarc"}
    assert domains <= {DOMAIN}
    assert mail.dmarc == "pass"


@pytest.mark.parametrize("name", HONEST)
def test_what_names_another_beside_the_sender_arrives(
    outcomes: dict[Form, Outcome], name: str
) -> None:
    assert outcomes[Form("header", name)].reply.positive


def test_there_are_as_many_forms_as_were_tried() -> None:
    assert len(HEADERS) >= 58
    assert len(ENVELOPES) >= 13
