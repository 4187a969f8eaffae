"""No open relay: whoever has not logged in gets mail to nobody but to addresses of ours.

Every form of a recipient that some server once took for another one, over each kind of session.
All are tried by one fixture; each row has a test of its own. A recipient is answered 2xx only if it
is an address of ours, and what is taken then reaches FORWARD_TO and nobody else.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.image.breaches.conftest import FORWARD_TO, GENERATED, Shipped
from tests.support import smtp
from tests.support.server import DOMAIN, HOST
from tests.support.smtp import Endpoint
from tests.support.wait import wait_until
from tests.support.wire import CLOSED, Reply, Wire

ELSEWHERE = "elsewhere.example"  # the world's receiver takes all mail for it
STRANGER = "someone@outside.example"
CLIENTS = 8


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """The attempts all come from one address: what is judged is each, not their number."""
    return {"RATE_STRANGERS": "none"}


def _wide(text: str) -> str:
    """The same as full-width characters, which NFKC takes for the same."""
    return "".join(chr(ord(character) - 0x21 + 0xFF01) for character in text)


# Recipients that are no address of ours, however they are read. {v}@{d} is the one that is meant,
# {ip} is the server's address, {mx} and {mx6} those of the receiver.
FOREIGN: Mapping[str, str] = {
    "plain": "TO:<{v}@{d}>",
    "no-brackets": "TO:{v}@{d}",
    "space-before": "TO: <{v}@{d}>",
    "tab-before": "TO:\t<{v}@{d}>",
    "tab-behind": "TO:<{v}@{d}>\t",
    "spaces-inside": "TO:< {v}@{d} >",
    "lower-case-verb": "to:<{v}@{d}>",
    "upper-case": "TO:<{v}@ELSEWHERE.EXAMPLE>",
    "final-dot": "TO:<{v}@{d}.>",
    "two-final-dots": "TO:<{v}@{d}..>",
    "display-name": 'TO:"i@example.com" <{v}@{d}>',
    "display-name-glued": 'TO:"i@example.com"<{v}@{d}>',
    "comment-behind": "TO:<{v}@{d}(@example.com)>",
    "comment-within": "TO:<{v}@(example.com){d}>",
    "source-route": "TO:<@example.com:{v}@{d}>",
    "source-route-host": "TO:<@smtp.example.com:{v}@{d}>",
    "source-route-two": "TO:<@example.com,@smtp.example.com:{v}@{d}>",
    "source-route-literal": "TO:<@[{ip}]:{v}@{d}>",
    "two-at-theirs-last": "TO:<{v}@example.com@{d}>",
    "two-recipients": "TO:<{v}@{d}>,<i@example.com>",
    "two-recipients-one-bracket": "TO:<{v}@{d},i@example.com>",
    "group": "TO:x:{v}@{d};",
    "uucp-alone": "TO:<{d}!{v}>",
    "uucp-through-us": "TO:<example.com!{d}!{v}>",
    "percent-at-their-domain": "TO:<i%example.com@{d}>",
    "percent-literal": "TO:<{v}%{d}@[{ip}]>",
    "quoted-literal": 'TO:<"{v}@{d}"@[{ip}]>',
    "literal-of-ours": "TO:<{v}@[{ip}]>",
    "literal-of-loopback": "TO:<{v}@[127.0.0.1]>",
    "literal-of-theirs": "TO:<{v}@[{mx}]>",
    "literal-of-theirs-6": "TO:<{v}@[IPv6:{mx6}]>",
    "bare-address-of-theirs": "TO:<{v}@{mx}>",
    "localhost": "TO:<{v}@localhost>",
    "below-ours": "TO:<{v}@sub.example.com>",
    "ours-below-theirs": "TO:<{v}@example.com.{d}>",
    "ours-as-an-ending": "TO:<{v}@notexample.com>",
    "forwarding-domain": "TO:<{v}@example.com.forward.invalid>",
    "nul-in-domain": "TO:<{v}@{d}\0.example.com>",
    "nul-behind-theirs": "TO:<{v}@{d}\0@example.com>",
    "nul-behind-ours": "TO:<i@example.com\0{v}@{d}>",
    "wide-letters": f"TO:<{{v}}@{_wide('elsewhere')}.example>",
    "wide-dot": "TO:<{v}@elsewhere。example>",
    "wide-at": f"TO:<{{v}}{_wide('@')}example.com@{{d}}>",
    "soft-hyphen": "TO:<{v}@else\u00adwhere.example>",
    "a-label-that-is-none": "TO:<{v}@xn--elsewhere.example>",
    "no-domain": "TO:<{v}>",
    "no-local-part": "TO:<@{d}>",
    "nobody": "TO:<>",
    "parameters": "TO:<{v}@{d}> NOTIFY=SUCCESS ORCPT=rfc822;i@example.com",
    "equals": "TO=<{v}@{d}>",
    "no-to": "<{v}@{d}>",
    "from": "FROM:<{v}@{d}>",
}

# Recipients that are ours by the letter, with another's address in them. They may be taken, and are
# not led on to it.
OURS: Mapping[str, str] = {
    "percent": "TO:<{v}%{d}@example.com>",
    "percent-host": "TO:<{v}%{d}@smtp.example.com>",
    "percent-twice": "TO:<{v}%{d}%example.com@example.com>",
    "percent-quoted": 'TO:<"{v}%{d}"@example.com>',
    "quoted-at": 'TO:<"{v}@{d}"@example.com>',
    "quoted-at-and-space": 'TO:<"{v}@{d} "@example.com>',
    "quoted-brackets": 'TO:<"<{v}@{d}>"@example.com>',
    "backslash-at": r"TO:<{v}\@{d}@example.com>",
    "two-at-ours-last": "TO:<{v}@{d}@example.com>",
    "uucp": "TO:<{d}!{v}@example.com>",
    "uucp-quoted": 'TO:<"{d}!{v}"@example.com>',
    "encoded-word": "TO:<=?utf-8?q?{v}=40{d}?=@example.com>",
    "suffix": "TO:<i+{v}={d}@example.com>",
    "rewritten-sender": "TO:<i+fwd_from={v}={d}@example.com>",
    "rewritten-sender-of-nobody": "TO:<+fwd_from={v}={d}@example.com>",
    "srs": "TO:<SRS0=abcd=xy={d}={v}@example.com>",
    "program": 'TO:<"|/usr/bin/true"@example.com>',
    "include": "TO:<:include:/etc/passwd@example.com>",
    "second-behind-a-space": "TO:<i@example.com> <{v}@{d}>",
    "second-behind-a-comma": "TO:<i@example.com>, <{v}@{d}>",
    "original-recipient": "TO:<i@example.com> ORCPT=rfc822;{v}@{d}",
    "comment": "TO:<i@example.com(@{d})>",
    "wide-letters-of-ours": f"TO:<{{v}}%{{d}}@{_wide('example')}.com>",
    "pipelined-second": "TO:<i@example.com>\r\nRCPT TO:<{v}@{d}>",
    "bare-lf": "TO:<i@example.com>\nRCPT TO:<{v}@{d}>",
    "bare-cr": "TO:<i@example.com>\rRCPT TO:<{v}@{d}>",
    "bare-cr-inside": "TO:<i@example.com\r{v}@{d}>",
}

SENDERS: Mapping[str, str] = {
    "stranger": f"FROM:<{STRANGER}>",
    "ours": f"FROM:<{GENERATED}>",
    "null": "FROM:<>",
    "postmaster": f"FROM:<postmaster@{HOST}>",
}
MORE_SENDERS: Mapping[str, str] = {
    "postmaster-alone": "FROM:<postmaster>",
    "ours-by-auth-parameter": f"FROM:<{STRANGER}> AUTH=<{GENERATED}>",
    "ours-with-parameter": f"FROM:<{GENERATED}> AUTH=<{GENERATED}>",
    "route": f"FROM:<@{DOMAIN}:{STRANGER}>",
    "literal": "FROM:<i@[{ip}]>",
    "loopback": "FROM:<root@localhost>",
    "theirs": "FROM:<{v}@{d}>",
    "two-at": f"FROM:<i@{DOMAIN}@outside.example>",
    "rewritten": "FROM:<i+fwd_from={v}={d}@example.com>",
    "upper-case": "FROM:<I@EXAMPLE.COM>",
    "nul": "FROM:<i@example.com\0@outside.example>",
}

# What goes before MAIL, on which port. `tls` is STARTTLS at that place; no reply of these matters.
SESSIONS: Mapping[str, tuple[int, Sequence[str]]] = {
    "25": (smtp.SMTP, ["EHLO out.example"]),
    "25-starttls": (smtp.SMTP, ["EHLO out.example", "tls", "EHLO out.example"]),
    "25-helo": (smtp.SMTP, ["HELO out.example"]),
    "25-no-helo": (smtp.SMTP, []),
    "25-our-name": (smtp.SMTP, [f"EHLO {HOST}"]),
    "25-our-domain": (smtp.SMTP, [f"EHLO {DOMAIN}"]),
    "25-localhost": (smtp.SMTP, ["EHLO localhost"]),
    "25-loopback": (smtp.SMTP, ["EHLO [127.0.0.1]"]),
    "25-our-literal": (smtp.SMTP, ["EHLO [{ip}]"]),
    "25-shell": (smtp.SMTP, ["EHLO $(id);AUTH_AS=i@example.com"]),
    "25-reset": (smtp.SMTP, ["EHLO out.example", f"MAIL FROM:<{GENERATED}>", "RSET"]),
    "25-other-sender-first": (smtp.SMTP, ["EHLO out.example", f"MAIL FROM:<{GENERATED}>",
                                          f"RCPT TO:<{GENERATED}>"]),
    "25-auth-in-the-clear": (smtp.SMTP, ["EHLO out.example", "AUTH PLAIN AGkAaQ=="]),
    "25-auth-failed": (smtp.SMTP, ["EHLO out.example", "tls", "EHLO out.example",
                                   f"AUTH PLAIN {smtp.encoded(GENERATED, 'wrong')}"]),
    "25-auth-external": (smtp.SMTP, ["EHLO out.example", "tls", "EHLO out.example",
                                     "AUTH EXTERNAL aQ=="]),
    "25-auth-broken-off": (smtp.SMTP, ["EHLO out.example", "tls", "EHLO out.example",
                                       "AUTH PLAIN", "*"]),
    "25-auth-of-nobody": (smtp.SMTP, ["EHLO out.example", "tls", "EHLO out.example",
                                      f"AUTH PLAIN {smtp.encoded('', '')}"]),
    "25-auth-of-a-keeper": (smtp.SMTP, ["EHLO out.example", "tls", "EHLO out.example",
                                        f"AUTH PLAIN {smtp.encoded(f'postmaster@{DOMAIN}', '')}"]),
    "25-xclient": (smtp.SMTP, ["EHLO out.example", f"XCLIENT ADDR=127.0.0.1 LOGIN={GENERATED}"]),
    "25-xforward": (smtp.SMTP, ["EHLO out.example", "XFORWARD ADDR=127.0.0.1 SOURCE=LOCAL"]),
    "25-proxy": (smtp.SMTP, ["PROXY TCP4 127.0.0.1 {ip} 4711 25", "EHLO localhost"]),
    "25-proxy-2": (smtp.SMTP, ["\r\n\r\n\0\r\nQUIT\n!\x11", "EHLO localhost"]),
    "25-behind-starttls": (smtp.SMTP, [
        "EHLO out.example",
        "STARTTLS\r\nEHLO x\r\nMAIL FROM:<i@example.com>\r\nRCPT TO:<{v}@{d}>", "tls!",
        "EHLO out.example"]),
    "587": (smtp.SUBMISSION, ["EHLO out.example"]),
    "587-starttls": (smtp.SUBMISSION, ["EHLO out.example", "tls", "EHLO out.example"]),
    "587-auth-failed": (smtp.SUBMISSION, ["EHLO out.example", "tls", "EHLO out.example",
                                          f"AUTH PLAIN {smtp.encoded(GENERATED, 'wrong')}"]),
    "587-xclient": (smtp.SUBMISSION, ["EHLO out.example", f"XCLIENT LOGIN={GENERATED}"]),
    "465": (smtp.SUBMISSIONS, ["EHLO out.example"]),
    "465-auth-failed": (smtp.SUBMISSIONS, ["EHLO out.example",
                                           f"AUTH PLAIN {smtp.encoded(GENERATED, 'wrong')}"]),
    "465-auth-broken-off": (smtp.SUBMISSIONS, ["EHLO out.example", "AUTH PLAIN", "*"]),
}  # fmt: skip
MAIN = ("25", "25-starttls")
SUBMISSION = ("587-starttls", "465")
# Forms that are worth a try on the ports that take nothing without AUTH.
TRICKS = ("plain", "source-route", "no-brackets", "pipelined-second", "bare-lf", "quoted-at")


@dataclass(frozen=True)
class Attempt:
    """One row: a session, a sender, a recipient."""

    session: str
    sender: str
    form: str

    @property
    def name(self) -> str:
        return f"{self.session}:{self.sender}:{self.form}"

    @property
    def port(self) -> int:
        return SESSIONS[self.session][0]


def _attempts() -> Iterator[Attempt]:
    forms = {**FOREIGN, **OURS}
    for session in MAIN:
        for form in forms:
            yield Attempt(session, "stranger", form)
    for sender in ("ours", "null"):
        for form in forms:
            yield Attempt("25", sender, form)
    for session in SESSIONS:
        for sender in ("stranger", "ours"):
            if session not in MAIN:
                yield Attempt(session, sender, "plain")
    for sender in (*MORE_SENDERS, "postmaster"):
        yield Attempt("25", sender, "plain")
    for session in SUBMISSION:
        for form in TRICKS:
            if form != "plain":
                yield Attempt(session, "ours", form)


ATTEMPTS = list(_attempts())


@dataclass
class Outcome:
    """What was answered to each RCPT of an attempt, and to the message; where it went."""

    replies: list[Reply] = field(default_factory=list)
    data: Reply = CLOSED
    tag: str = ""
    went_to: list[str] = field(default_factory=list)


def attack(endpoint: Endpoint, attempt: Attempt, tag: str, words: Mapping[str, str]) -> Outcome:
    """Go as far as the server lets us, and try DATA whatever was answered before."""
    outcome = Outcome(tag=tag)
    words = {**words, "v": tag, "d": ELSEWHERE}

    def filled(text: str) -> bytes:
        for name, value in words.items():
            text = text.replace(f"{{{name}}}", value)
        return text.encode()

    with Wire(endpoint, attempt.port) as wire:
        for line in SESSIONS[attempt.session][1]:
            if line == "tls":
                wire.starttls()
            elif line == "tls!":
                wire.wrap()
            else:
                wire.ask(filled(line))
        sender = {**SENDERS, **MORE_SENDERS}[attempt.sender]
        wire.send(b"RSET\r\nMAIL " + filled(sender) + b"\r\nHELP\r\n")
        _until_help(wire)
        wire.send(b"RCPT " + filled({**FOREIGN, **OURS}[attempt.form]) + b"\r\nHELP\r\n")
        outcome.replies = _until_help(wire)
        if wire.ask("DATA").code == 354:
            text = (
                f"From: {STRANGER}\r\nTo: {tag}@{ELSEWHERE}\r\nSubject: relay {tag}\r\n"
                f"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <{tag}@outside.example>\r\n"
                "\r\nrelayed\r\n.\r\n"
            )
            wire.send(text.encode())
            outcome.data = wire.reply()
    return outcome


def _until_help(wire: Wire) -> list[Reply]:
    """The replies up to that of HELP (214), or to the end of the connection."""
    found: list[Reply] = []
    while len(found) < 10:
        answer = wire.reply()
        if answer.code in (0, 214):
            return found
        found.append(answer)
    msg = f"no end of replies: {found}"
    raise AssertionError(msg)


@pytest.fixture(scope="module")
def outcomes(shipped: Shipped) -> dict[str, Outcome]:
    """Of every attempt, once the last message that was taken has been delivered."""
    server, world = shipped.server, shipped.world
    net = world.net
    words = {"ip": server.ipv4, "mx": net.v4(25), "mx6": net.v6(25)}
    endpoint = server.endpoint()

    def run(numbered: tuple[int, Attempt]) -> tuple[str, Outcome]:
        number, attempt = numbered
        try:
            return attempt.name, attack(endpoint, attempt, f"v{number:03}", words)
        except (ssl.SSLError, AssertionError) as error:
            error.add_note(attempt.name)
            raise

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = dict(pool.map(run, enumerate(ATTEMPTS)))
    taken = {item.tag for item in found.values() if item.data.positive}

    def subjects() -> dict[str, list[str]]:
        arrived: dict[str, list[str]] = {}
        for mail in world.deliveries():
            if mail.subject.startswith("relay "):
                arrived.setdefault(mail.subject.removeprefix("relay "), []).append(mail.to)
        return arrived

    last = smtp.submit(endpoint, GENERATED, shipped.secrets[GENERATED], f"last@{ELSEWHERE}")
    world.wait_for(subject=last, timeout=30)
    wait_until(lambda: taken <= set(subjects()), "all that was taken is delivered", timeout=60)
    wait_until(lambda: not server.queued(), "nothing waits any more", timeout=20)
    arrived = subjects()
    for item in found.values():
        item.went_to = arrived.get(item.tag, [])
    return found


def test_there_are_at_least_245_attempts() -> None:
    assert len({item.name for item in ATTEMPTS}) == len(ATTEMPTS) >= 245


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda item: item.name)
def test_nothing_is_relayed(outcomes: dict[str, Outcome], attempt: Attempt) -> None:
    outcome = outcomes[attempt.name]
    said = f"{[str(reply) for reply in outcome.replies]}; DATA: {outcome.data}"
    taken = [reply for reply in outcome.replies if reply.positive]
    if attempt.form in FOREIGN or attempt.port != smtp.SMTP:
        assert not taken, said
        assert not outcome.data.positive, said
    else:
        # Two commands in one: the second names an address elsewhere.
        assert len(taken) <= 1, said
    assert outcome.went_to == ([FORWARD_TO] if outcome.data.positive else []), said


def test_the_attempts_could_have_succeeded(shipped: Shipped, outcomes: dict[str, Outcome]) -> None:
    """The recipients exist: who logs in reaches them."""
    tag = next(iter(outcomes.values())).tag
    subject = smtp.submit(
        shipped.server.endpoint(), GENERATED, shipped.secrets[GENERATED], f"{tag}@{ELSEWHERE}"
    )
    [mail] = shipped.world.wait_for(subject=subject, timeout=20)
    assert mail.to == f"{tag}@{ELSEWHERE}"
    assert sum(item.data.positive for item in outcomes.values()) > 20, "forms of ours are taken"
