"""What receivers' answers mean, by the words that they really use."""

from __future__ import annotations

import re

import pytest

from entrypoint.delivery import replies
from tests.support.answers import ANSWERS, Answer

LOOKUP = 'error looking up mail servers for "example.net": lookup example.net on 192.0.2.53:53:'
# As chasquid words what it could not do (1.19's own texts).
OWN = [
    ("mx.example.net.: connection failed: dial tcp 203.0.113.25:25: i/o timeout", "port-25"),
    (("mx.example.net.: connection failed: dial tcp [2001:db8::25]:25: connect: network is "
     "unreachable"), "unreachable"),
    ("mx.example.net.: connection failed: dial tcp 203.0.113.25:25: connect: connection refused",
     "unreachable"),
    (f"{LOOKUP} read udp 127.0.0.1:39913->127.0.0.1:53: read: connection refused", "resolver"),
    (f"{LOOKUP} read udp 192.0.2.10:4713->192.0.2.53:53: i/o timeout", "resolver"),
    (f"{LOOKUP} server misbehaving", "resolver"),
    (f"{LOOKUP} no such host", "no-domain"),
    ("looking up mail servers for \"example.invalid\": lookup example.invalid: no such host",
     "no-domain"),
    ("no mail servers found for \"example.net\"", "no-domain"),
    (("mx.example.net.: security level check failed: connection is PLAIN, but we have previously "
     "seen a higher security level for \"example.net\""), "level"),
    (("mx.example.net.: connection is TLS_INSECURE, but the MTA-STS policy for \"example.net\" "
     "requires TLS with a valid certificate"), "mta-sts"),
    ("none of the mail servers for \"example.net\" are allowed by its MTA-STS policy", "mta-sts"),
    ("mx.example.net.: greeting failed: EOF", "dropped"),
    ("mx.example.net.: greeting failed: read tcp 203.0.113.10:5->203.0.113.25:25: i/o timeout",
     "dropped"),
    ("mx.example.net.: EHLO failed: read: connection reset by peer", "dropped"),
]  # fmt: skip
_ALL = "all mail servers failed temporarily, last error: "


def hints(text: str) -> list[str]:
    return [hint.id for hint in replies.explain(text)]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_the_words_of_the_providers(answer: Answer) -> None:
    assert hints(answer.reply)[:1] == [answer.hint]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)
def test_as_chasquid_passes_them_on(answer: Answer) -> None:
    """Go drops the numbers of later lines; the log joins them; a queue's item is escaped."""
    words = "\n".join(answer.lines)
    said = f"{_ALL}mx.example.net.: RCPT failed: {answer.code} {words}"
    for text in (said, said.replace("\n", " | "), said.replace("\n", "\\n")):
        assert hints(text)[:1] == [answer.hint]


@pytest.mark.parametrize(("text", "hint"), OWN)
def test_chasquid_s_own_words(text: str, hint: str) -> None:
    assert hints(text) == [hint]
    assert hints(_ALL + text) == [hint]


@pytest.mark.parametrize("text", ["", "   ", "550", "554 5.0.0 No.", "451 4.3.0 Internal error"])
def test_what_says_nothing_is_not_explained(text: str) -> None:
    assert hints(text) == []


def test_an_answer_with_two_causes_has_two_hints() -> None:
    text = "550 5.7.25 no PTR record, and 203.0.113.10 is listed by zen.spamhaus.org"
    assert hints(text) == ["ptr", "blocklist"]


def test_a_long_answer_is_explained_at_once() -> None:
    assert hints("550 " + "the user <x@example.net> " * 4000) == []


def test_every_hint_has_cause_and_fix_and_a_text_that_leads_to_it() -> None:
    covered = {answer.hint for answer in ANSWERS} | {hint for _, hint in OWN}
    for hint in replies.known():
        assert re.fullmatch(r"[a-z0-9-]+", hint.id)
        assert hint.cause.endswith(".")
        assert hint.fix[0].islower()
        assert hint.id in covered, "nobody says this"
