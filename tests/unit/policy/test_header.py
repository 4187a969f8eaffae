"""The header section, read strictly; and From, read as a second, independent parser reads it."""

from __future__ import annotations

import random
import warnings
from email.headerregistry import HeaderRegistry

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.common.names import Domain
from entrypoint.policy import header
from entrypoint.policy.header import HeaderError, Mailbox

HEADERS = 10_000

# What From headers are made of, in good ways and bad ones.
WHOLE = (
    "i@example.com", "<i@example.com>", "John <i@example.com>", '"John, Doe" <i@example.com>',
    "i@example.com, j@example.com", "John (x) <i@example.com> (y)", '"i"@example.com',
    "=?utf-8?q?J=C3=BCrgen?= <i@example.com>", "J. Doe <i@example.com>", "(c) i@example.com",
    "Jürgen <i@bücher.example>", "=?utf-8?q?a?= =?utf-8?q?b?= <i@example.com>",
    '"A" "B" <i@example.com>', "A\n B <i@example.com>", "John Q. Public <i@example.com>",
)  # fmt: skip
PIECES = (
    *WHOLE, "i", "example.com", "@", "<", ">", ",", ";", ":", ".", "..", '"', "\\", "(", ")", "[",
    "]", " ", "\t", "\u00a0", "\u200b", "\u3000", "\u202e", "\x00", "\r", "\n ", "John",
    '"John Doe"', '"i@example.com"', "(comment)", "(a(b)c)", "=?utf-8?q?i=40example=2Ecom?=",
    "=?utf-8?q?a?=", "=?utf-8?b?PGFAYi5jPg==?=", "=?utf-8?q?=22?=", "ü", "bücher.example",
    "xn--bcher-kva.example", "boss@other.example", "Team: i@example.com;", "i+x@example.com",
    "<@relay.example:i@example.com>", "I@EXAMPLE.COM", "i@[192.0.2.1]", "undisclosed-recipients:;",
    "i@example.com.", "i @example.com", "i@ example.com", '""', '"\\""', "via", "'i@example.com'",
    "\uff45xample.com", "a=?utf-8?q?b?=c", '"=?utf-8?q?a?="',
)  # fmt: skip


def made(dice: random.Random) -> str:
    """A From header's value: put together, or a good one with a few changes."""
    if dice.random() < 0.5:
        return "".join(
            dice.choice(PIECES) + (" " if dice.random() < 0.2 else "")
            for _ in range(dice.randint(1, 6))
        )
    text = dice.choice(WHOLE)
    for _ in range(dice.randint(0, 3)):
        at, other = sorted((dice.randint(0, len(text)), dice.randint(0, len(text))))
        kind = dice.random()
        if kind < 0.3:
            text = text[:at] + dice.choice(PIECES) + text[at:]
        elif kind < 0.6:
            text = text[:at] + text[at + 1 :]
        elif kind < 0.8:
            code = dice.choice((dice.randint(0, 127), dice.randint(128, 0x2FFF)))
            text = text[:at] + chr(code) + text[at:]
        else:
            text = text[:at] + text[other:]
    return text


def second_opinion(text: str) -> list[tuple[str, str]]:
    """Python's own parser of structured headers, which shares nothing with ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = HeaderRegistry()("From", text)
    return [
        (item.username.lower(), header.domain(item.domain))
        for item in found.addresses  # type: ignore[attr-defined]
    ]


def test_a_second_parser_reads_the_same_or_it_is_refused() -> None:
    dice = random.Random(5322)  # noqa: S311 (the same headers in each run)
    accepted = 0
    for _ in range(HEADERS):
        text = made(dice).replace("\n", "")
        try:
            mine = header.mailboxes(text.encode())
        except HeaderError:
            continue
        accepted += 1
        assert [(item.local, item.domain) for item in mine] == second_opinion(text), text
    assert accepted > HEADERS / 10, "else nothing was compared"


@given(st.text(max_size=60))
def test_any_text_is_read_alike_or_refused(text: str) -> None:
    text = text.replace("\n", "").replace("\r", "")
    try:
        mine = header.mailboxes(text.encode(errors="surrogatepass"))
    except HeaderError:
        return
    assert [(item.local, item.domain) for item in mine] == second_opinion(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_refused(raw: bytes) -> None:
    for item in header.lenient(raw):
        header.domains_named(item.value)
    try:
        fields = header.strict(raw)
    except HeaderError:
        return
    # What is certain is never missed by the reader that must miss nothing.
    assert [item.name for item in header.lenient(raw)] == [item.name for item in fields]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("i@example.com", [("i", "example.com")]),
        ('I@Example.COM, "x y" <j@b\u00fccher.example>',
         [("i", "example.com"), ("j", "xn--bcher-kva.example")]),
        ('"i"@example.com (c)', [("i", "example.com")]),
        ("John Q. Public <i@example.com>", [("i", "example.com")]),
        ("=?utf-8?q?john.doe?= <i@example.com>", [("i", "example.com")]),
    ],
)  # fmt: skip
def test_mailboxes(value: str, expected: list[tuple[str, str]]) -> None:
    assert list(header.mailboxes(value.encode())) == [
        Mailbox(local, Domain(domain)) for local, domain in expected
    ]


def test_more_mailboxes_than_anybody_needs() -> None:
    with pytest.raises(HeaderError, match="more than 50"):
        header.mailboxes(b",".join([b"i@example.com"] * 51))


def test_a_value_that_would_take_long_is_not_read() -> None:
    with pytest.raises(HeaderError, match="longer than 16 KiB"):
        header.mailboxes(b"x" * 16_385)


@pytest.mark.parametrize(
    ("raw", "end"),
    [(b"A: b\n\nc", 5), (b"\nA: b\n", 0), (b"A: b\n", -1), (b"A: b\n \n\n", 7), (b"", -1)],
)
def test_where_the_header_section_ends(raw: bytes, end: int) -> None:
    assert header.end_of(raw) == end


def test_folded_lines_are_one_field() -> None:
    [one, two] = header.strict(b"From: a\n\tb\n c\nX:\n")
    assert (one.name, one.value, two.name, two.value) == ("from", b" a\tb c", "x", b"")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"i@example.com <x@outside.example>", {"example.com", "outside.example"}),
        (b"\xa0i@example.com\xe2\x80\x8b", {"example.com"}),
        (b"Team: <i@ example.com>;", {"example.com"}),
        (b"'i@example.com'", {"example.com"}),
        (b"nobody", set()),
    ],
)
def test_domains_of_what_has_no_one_meaning(value: bytes, expected: set[str]) -> None:
    assert header.domains_named(value) == expected
