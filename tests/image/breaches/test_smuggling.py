r"""SMTP smuggling: what one server takes for the end of a message and another does not.

Each row is a sequence that some server once took for CRLF . CRLF, with a second message behind it,
in the body and in the header section; it comes from a stranger to be forwarded, and from a login to
be sent. One message arrives at the receiver (Postfix), or none: never the second one. Also commands
behind the end of a session, and BDAT, which chasquid does not know (RFC 3030).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.image.breaches.conftest import GENERATED, Shipped
from tests.support import smtp
from tests.support.wait import wait_until
from tests.support.wire import Reply, Wire

CLIENTS = 6
SIZE = 1 << 20  # bytes, the limit of these servers
END = b"\r\n.\r\n"
PAUSE = b"<pause>"  # here a packet ends, and the next comes later

# None of these ends a message.
SEQUENCES: Mapping[str, bytes] = {
    "lf-dot-lf": b"\n.\n",
    "lf-dot-crlf": b"\n.\r\n",
    "lf-dot-cr": b"\n.\r",
    "cr-dot-cr": b"\r.\r",
    "cr-dot-lf": b"\r.\n",
    "cr-dot-crlf": b"\r.\r\n",
    "crlf-dot-lf": b"\r\n.\n",
    "crlf-dot-cr": b"\r\n.\r",
    "crlf-dot-cr-text": b"\r\n.\rx\r\n",
    "crlf-dot-crcrlf": b"\r\n.\r\r\n",
    "crlf-dot-lfcr": b"\r\n.\n\r",
    "crcrlf-dot-crlf": b"\r\r\n.\r\n",
    "lflf-dot-lflf": b"\n\n.\n\n",
    "lfcrlf-dot-crlf": b"\n\r\n.\r\n",
    "crlf-nul-dot-crlf": b"\r\n\0.\r\n",
    "crlf-dot-nul-crlf": b"\r\n.\0\r\n",
    "cr-nul-lf-dot-crlf": b"\r\0\n.\r\n",
    "crlf-dot-dot-crlf": b"\r\n..\r\n",
    "crlf-dot-dot-lf": b"\r\n..\n",
    "crlf-dot-space-crlf": b"\r\n. \r\n",
    "crlf-dot-tab-crlf": b"\r\n.\t\r\n",
    "crlf-space-dot-crlf": b"\r\n .\r\n",
    "crlf-dot-vt-crlf": b"\r\n.\x0b\r\n",
    "vt-dot-vt": b"\x0b.\x0b",
    "ff-dot-ff": b"\x0c.\x0c",
    "nel-dot-nel": b"\xc2\x85.\xc2\x85",
    "bare-nel": b"\x85.\x85",
    "line-separator": b"\xe2\x80\xa8.\xe2\x80\xa8",
    "crlf-wide-dot-crlf": b"\r\n\xef\xbc\x8e\r\n",
    "ctrl-z": b"\r\n.\x1a\r\n",
    "backspace": b"\r\n.x\x08\r\n",
    "lf-dot-crlf-in-packets": b"\n" + PAUSE + b"." + PAUSE + b"\r\n",
    "crlf-dot-lf-in-packets": b"\r\n" + PAUSE + b"." + PAUSE + b"\n",
    "crlf-dot-cr-in-packets": b"\r\n.\r" + PAUSE + b"x\r\n",
}
ENDINGS: Mapping[str, bytes] = {
    "quit": b"QUIT\r\n",
    "http": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    "too-many-errors": b"X\r\nY\r\nZ\r\n",
    "line-too-long": b"NOOP " + b"x" * 100_000 + b"\r\n",
}
DOTS = {"one": b".", "two": b"..", "three": b"...", "before-text": b".x", "before-space": b". "}
WAYS = ("in", "out")


@dataclass(frozen=True)
class Case:
    """A sequence, from where to where, in which part of the message."""

    name: str
    way: str
    place: str

    def __str__(self) -> str:
        return f"{self.name}:{self.way}:{self.place}"


CASES = [
    Case(name, way, place)
    for name in SEQUENCES
    for way, place in (("in", "body"), ("in", "header"), ("out", "body"))
]


@dataclass
class Outcome:
    """All replies from DATA on, and the subjects of what arrived."""

    replies: list[Reply]
    arrived: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"SEND_LIMIT": "none", "MAX_MESSAGE_MB": "1", "RATE_STRANGERS": "none"}


def _envelope(case: Case, tag: str) -> tuple[str, str]:
    if case.way == "in":
        return "someone@outside.example", f"{tag}@example.com"
    return GENERATED, f"{tag}@elsewhere.example"


def _session(shipped: Shipped, way: str) -> Wire:
    port = smtp.SMTP if way == "in" else smtp.SUBMISSIONS
    wire = Wire(shipped.server.endpoint(), port)
    wire.ask("EHLO mx.outside.example")
    if way == "out":
        wire.log_in(GENERATED, shipped.secrets[GENERATED])
    return wire


def _message(sender: str, subject: str) -> bytes:
    return (
        f"From: {sender}\r\nSubject: {subject}\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
        f"Message-ID: <{subject.replace(' ', '-')}@example.com>"
    ).encode()


def _rest(wire: Wire) -> list[Reply]:
    """All replies up to the end of the connection."""
    found: list[Reply] = []
    while (answer := wire.reply()).code:
        found.append(answer)
        assert len(found) < 20, found
    return found


def smuggle(shipped: Shipped, case: Case, tag: str) -> Outcome:
    """Send the first message with the second one in it, at once."""
    sender, recipient = _envelope(case, tag)
    with _session(shipped, case.way) as wire:
        wire.ask(f"MAIL FROM:<{sender}>")
        assert wire.ask(f"RCPT TO:<{recipient}>").positive
        assert wire.ask("DATA").code == 354
        first = _message(sender, f"first {tag}")
        first += b"\r\n\r\nText." if case.place == "body" else b"\r\nX-Text: a"
        second = (
            f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
            + _message(sender, f"second {tag}")
            + b"\r\n\r\nSmuggled."
        )
        raw = first + SEQUENCES[case.name] + second + END + b"QUIT\r\n"
        head, *parts = raw.split(PAUSE)
        wire.send(head)
        for part in parts:
            time.sleep(0.3)
            wire.send(part)
        return Outcome(_rest(wire))


def _arrived(shipped: Shipped) -> list[str]:
    """The subjects and tags of what arrived, `first s001`."""
    return [
        mail.subject
        for mail in shipped.world.deliveries()
        if mail.subject.startswith(("first ", "second "))
    ]


@pytest.fixture(scope="module")
def outcomes(shipped: Shipped) -> dict[Case, Outcome]:
    """Of every case, once the queue is empty."""
    shipped.server.log.tolerate("5.6.0 Error parsing message: ")
    tags = {case: f"s{number:03}" for number, case in enumerate(CASES)}
    with ThreadPoolExecutor(CLIENTS) as pool:
        work = {case: pool.submit(smuggle, shipped, case, tag) for case, tag in tags.items()}
        found = {case: item.result() for case, item in work.items()}
    taken = {
        f"first {tags[case]}"
        for case, outcome in found.items()
        if any(reply.positive and reply.code == 250 for reply in outcome.replies)
    }
    wait_until(lambda: taken <= set(_arrived(shipped)), "what was taken arrives", timeout=60)
    wait_until(lambda: not shipped.server.queued(), "nothing waits", timeout=20)
    subjects = _arrived(shipped)
    for case, outcome in found.items():
        outcome.arrived = [item for item in subjects if item.endswith(f" {tags[case]}")]
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_second_message_comes_out_of_one(outcomes: dict[Case, Outcome], case: Case) -> None:
    outcome = outcomes[case]
    said = [str(reply) for reply in outcome.replies]
    taken = [reply for reply in outcome.replies if reply.code == 250]
    assert len(taken) <= 1, said
    assert len(outcome.replies) >= 1, "it was answered"
    assert [item.split()[0] for item in outcome.arrived] == ["first"] * len(taken), said


@pytest.mark.parametrize("way", WAYS)
def test_the_real_end_ends_a_message(shipped: Shipped, way: str) -> None:
    """With it the second message is one: what is shown above could have failed."""
    tag = f"real{way}"
    sender, recipient = _envelope(Case("", way, ""), tag)
    with _session(shipped, way) as wire:
        head = f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
        raw = b"".join(
            head + _message(sender, f"{which} {tag}") + b"\r\n\r\nText." + END
            for which in ("first", "second")
        )
        wire.send(raw + b"QUIT\r\n")
        assert [reply.code for reply in _rest(wire)] == [250, 250, 354, 250] * 2 + [221]
    wait_until(
        lambda: (
            sorted(item for item in _arrived(shipped) if item.endswith(f" {tag}"))
            == [f"first {tag}", f"second {tag}"]
        ),
        "both arrive",
        timeout=20,
    )


def _second(sender: str, recipient: str, tag: str) -> bytes:
    command = f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
    return command + _message(sender, f"second {tag}") + b"\r\n\r\nText." + END


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["quit", "http", "too-many-errors", "line-too-long"])
def test_nothing_is_taken_behind_the_end_of_a_session(
    shipped: Shipped, way: str, name: str
) -> None:
    tag = f"{name}{way}"
    sender, recipient = _envelope(Case("", way, ""), tag)
    with _session(shipped, way) as wire:
        wire.send(ENDINGS[name] + _second(sender, recipient, tag))
        assert 354 not in [reply.code for reply in _rest(wire)]
    assert not [item for item in _arrived(shipped) if item.endswith(tag)]


@pytest.mark.parametrize("way", WAYS)
def test_a_message_that_is_too_large_ends_where_it_ends(shipped: Shipped, way: str) -> None:
    """What lies behind the limit is no command."""
    tag = f"large{way}"
    sender, recipient = _envelope(Case("", way, ""), tag)
    with _session(shipped, way) as wire:
        wire.ask(f"MAIL FROM:<{sender}>")
        wire.ask(f"RCPT TO:<{recipient}>")
        assert wire.ask("DATA").code == 354
        line = b"x" * 998 + b"\r\n"
        wire.send(_message(sender, f"first {tag}") + b"\r\n\r\n" + line * (SIZE // 1000 + 100))
        smuggled = _second(sender, recipient, tag).removesuffix(END)
        wire.send(smuggled + END + b"QUIT\r\n")
        assert [reply.code for reply in _rest(wire)] == [552, 221]
    assert not [item for item in _arrived(shipped) if item.endswith(tag)]


@pytest.mark.parametrize("way", WAYS)
def test_chunks_are_neither_offered_nor_taken(shipped: Shipped, way: str) -> None:
    """RFC 3030: whoever sends BDAT without an offer gets an error for it, and sends no message."""
    sender, recipient = _envelope(Case("", way, ""), f"bdat{way}")
    with _session(shipped, way) as wire:
        assert "CHUNKING" not in wire.ask("EHLO mx.outside.example").text
        wire.ask(f"MAIL FROM:<{sender}>")
        wire.ask(f"RCPT TO:<{recipient}>")
        assert wire.ask("BDAT 0 LAST").code == 500
        assert wire.ask("BDAT 4 LAST\r\nX: y").code == 500


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DOTS)
def test_dots_arrive_as_they_were_sent(shipped: Shipped, way: str, name: str) -> None:
    """Each sender stuffs a line that begins with a dot (RFC 5321 4.5.2); it ends nothing."""
    line, tag = DOTS[name], f"dots{way}{name}"
    sender, recipient = _envelope(Case("", way, ""), tag)
    text = b"before\r\n" + line + b"\r\nMAIL FROM:<>"
    with _session(shipped, way) as wire:
        wire.ask(f"MAIL FROM:<{sender}>")
        wire.ask(f"RCPT TO:<{recipient}>")
        assert wire.ask("DATA").code == 354
        stuffed = b"\r\n".join(
            b"." + item if item.startswith(b".") else item for item in text.split(b"\r\n")
        )
        wire.send(_message(sender, f"first {tag}") + b"\r\n\r\n" + stuffed + END)
        assert wire.reply().code == 250
    [mail] = shipped.world.wait_for(subject=f"first {tag}", timeout=20)
    body = mail.raw.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
    assert body.rstrip(b"\n") == text.replace(b"\r\n", b"\n")
