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


def test_the_bounds() -> None:
    assert (header.MAX_HEADER, header.MAX_LINE, header.MAX_VALUE) == (262_144, 998, 16_384)
    assert len(header.mailboxes(b",".join([b"i@example.com"] * 50))) == 50
    padded = b"i@example.com" + b" " * (16_384 - 13)
    assert header.mailboxes(padded) == (Mailbox("i", Domain("example.com")),)


@pytest.mark.parametrize(
    ("value", "local"),
    [
        ("a~b@example.com", "a~b"),
        ("~b@example.com", "~b"),
        (r'"\i"@example.com', "i"),
        ('"i.j"@example.com', "i.j"),
        (r"(\)) i@example.com", "i"),
        (r"(a\(b) i@example.com", "i"),
        ("(J\u00fcrgen \u00a0 ~) i@example.com", "i"),
        ('"J\u00fcrgen~" <i@example.com>', "i"),
        ("J. Doe<i@example.com>", "i"),
        ("Doe. <i@example.com>", "i"),
        ('"=?x" <i@example.com>', "i"),
        ('=?utf-8?q?a?= "b"c <i@example.com>', "i"),
        ('"b"=?utf-8?q?a?= <i@example.com>', "i"),
    ],
)
def test_what_mail_programs_write_is_taken(value: str, local: str) -> None:
    assert header.mailboxes(value.encode()) == (Mailbox(local, Domain("example.com")),)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("(\x01) i@example.com", "no place in a comment"),
        ("(\\\x01) i@example.com", "does not end"),
        ("(\\", "does not end"),
        ('"a\\', "quoted string"),
        ('"a', "does not end"),
        ("i@example.com,", "an empty place"),
        ("i@example.com,,j@example.com", "an empty place"),
        ("John <i@example.com", "angle brackets"),
        ("i@example.com>", "angle brackets"),
        ("John <<i@example.com>", "angle brackets"),
        ("<i@example.com >", "within the angle brackets"),
        ("< i@example.com>", "within the angle brackets"),
        ('"J". Doe <i@example.com>', "a dot in a display name"),
        ("J . Doe <i@example.com>", "a dot in a display name"),
        ("Doe.<i@example.com>", "a dot in a display name"),
        ("a?= <i@example.com>", "no encoded word"),
        ("a=? <i@example.com>", "no encoded word"),
        ("=?x@example.com", "in the place of an address"),
        ("x?=@example.com", "in the place of an address"),
        ('".i"@example.com', "with the name"),
        ('"i..j"@example.com', "with the name"),
        ('"i j"@example.com', "with the name"),
    ],
)
def test_what_is_doubtful_is_refused_by_its_reason(value: str, reason: str) -> None:
    with pytest.raises(HeaderError, match=reason):
        header.mailboxes(value.encode())


@pytest.mark.parametrize("name", ["example.com.", "bu\u0308cher.example", "exa mple.com"])
def test_a_domain_is_taken_as_it_stands_or_not_at_all(name: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        header.domain(name)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (b"X!: a~b\n", [("x!", b" a~b")]),
        (b"Fr\x7fom: a\n", [("from", b" a")]),
        (b"From : a\n", [("from", b" a")]),
        (b" From: a\nB: c\n", [("b", b" c")]),
        (b"\tFrom: a\nB: c\n", [("b", b" c")]),
        (b"nothing\n", []),
        (b"A: b\rC: d\n", [("a", b" b"), ("c", b" d")]),
    ],
)
def test_fields_that_any_reader_might_see(
    section: bytes, expected: list[tuple[str, bytes]]
) -> None:
    assert [(item.name, item.value) for item in header.lenient(section)] == expected


def test_fields_of_other_names_are_passed_over() -> None:
    found = header.lenient(b"A: b\nFrom: c\nsender: d\nfrom\n", ("from", "sender"))
    assert [(item.name, item.value) for item in found] == [("from", b" c"), ("sender", b" d")]


def test_a_domain_behind_what_does_not_show_is_named() -> None:
    for gap in ("\u200b", "\u00a0", "\x01", "\ufeff"):
        assert header.domains_named(f"i@{gap}example.com".encode()) == {"example.com"}, gap
