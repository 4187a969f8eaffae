"""What a From may be read to name: nothing of ours is missed, and nobody else is taken for us."""

from __future__ import annotations

import time
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.policy import author, decide, header
from entrypoint.policy.decide import Code, Envelope, Rules
from tests.support import fromforms

OURS = frozenset({"example.com", "xn--bcher-kva.example"})
RULES = Rules("smtp.example.com", frozenset({"example.com", "xn--bcher-kva.example"}), {})


def answer(section: bytes, **envelope: object) -> decide.Answer:
    asked = Envelope(**{"sender": "someone@outside.example", **envelope})  # type: ignore[arg-type]
    return decide.decide(RULES, asked, section)


def wide(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


@pytest.mark.parametrize("form", fromforms.BREACHES, ids=lambda form: form.name)
def test_form_that_got_through_is_refused(form: fromforms.Form) -> None:
    assert answer(form.section("example.com")).code is Code.REFUSE


@pytest.mark.parametrize("number", range(400))
def test_generated_form_is_refused(number: int) -> None:
    form = fromforms.generated(number)
    found = answer(form.section("example.com"))
    assert found.code is Code.REFUSE, form
    assert found.text.startswith(("5.7.1 From names ", "5.6.0 ")), found


@pytest.mark.parametrize(
    "value",
    [
        b"ceo@example .com",
        b"ceo@exam ple.com",
        b"ceo@(x)example.com",
        b"ceo@exa(x(y)z)mple.com",
        rb"ceo@exa(\)x)mple.com",
        b'ceo@exa("(")mple.com(")")',
        b'ceo@"example.com"',
        rb"ceo@exa\mple.com",
        b"<Alice@example.com}outside.example>",
        b"=?utf-8?q?ceo=40example.com?=",
        b"=?utf-8?b?PGNlb0BleGFtcGxlLmNvbT4=?= <x",
        b"=?utf-8?b?PGNlb0BleGFtcGxlLmNvbT4?= <x",
        b"=?utf-8?b?PGNlb0Bl*eGFtcGxlLmNvbT4?= <x",
        b"=?utf-8?q?ceo=40exa?= =?utf-8?q?mple.com?=",
        b"ceo@=?us-ascii*en?Q?example=2ecom?=",
        b"=?utf-7?q?ceo+AEA-example.com?=",
        b"=?cp037?b?" + b64encode("<ceo@example.com>".encode("cp037")) + b"?=",
        b"=?utf-16?b?" + b64encode("<ceo@example.com>".encode("utf-16")) + b"?=",
        b"=?no-such-charset?q?ceo=40example.com?=",
        b"=?utf-8?q?=3D=3Futf-8=3Fq=3Fceo=3D40example=2Ecom=3F=3D?=",
        f"ceo@{wide('example.com')}".encode(),
        "ceo@example\u3002com <x".encode(),
        "ceo@exa\u00admple.com <x".encode(),
        "ceo@exa\u200bmple.com <x".encode(),
        "ceo@exa\u3164mple.com <x".encode(),
        "ceo@EXAMPLE.\u212aOM <x".replace("\u212a", "C").encode(),
        b"ceo@exa\xffmple.com <x",
        b"ceo@b\xfccher.example <x",
        "ceo@bu\u0308cher.example <x".encode(),
        "ceo@BÜCHER.example <x".encode(),
        b"ceo@XN--BCHER-KVA.EXAMPLE <x",
        b"ceo@example.com.",
        b"ceo@example.com_x.outside.example",
        b"ceo@a..example.com",
    ],
)  # fmt: skip
def test_what_somebody_reads_as_ours_is_found(value: bytes) -> None:
    assert author.named([value], OURS)
    assert answer(b"From: " + value + b"\n").code is Code.REFUSE


@pytest.mark.parametrize(
    "value",
    [
        b"x@notexample.com <y",
        b"x@example.com.outside.example <y",
        b"x@my-example.com <y",
        b"x@example.community <y",
        b"x@example.com-outside.example <y",
        b"Example Communication <x@outside.example",
        b"undisclosed senders:;",
        b"",
        b"M\xfcller, Hans <hans@outside.example>",
        b"=?utf-8?b?SGFucw==?= <hans@outside .example>",
    ],
)
def test_what_nobody_reads_as_ours_is_taken(value: bytes) -> None:
    assert not author.named([value], OURS)
    assert answer(b"From: " + value + b"\n").code is Code.ACCEPT


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        (b'"i@example.com via a list" <list@outside.example>', True),
        (b"'i@example.com' via list <list@outside.example>", False),
        (b"\"'i@example.com' via Group\" <group@outside.example>", True),
        (b"list@outside.example (i@example.com)", True),
        (b"example.com Support <help@outside.example>", True),
        (b"=?utf-8?q?Domain_example=2Ecom=3A_=C3=A4?= <help@outside.example>", True),
        (b"=?utf-8?q?M=C3=BCller=2C_Hans?= <hans@outside.example>", True),
        (b"=?utf-8?q?=22i=40example=2Ecom=22_=C3=A4?= <list@outside.example>", True),
        (b"=?utf-8?q?i=40example=2Ecom?= <list@outside.example>", False),
        (b"=?utf-8?b?PGFkbWluQGV4YW1wbGUuY29tPg==?= <x@outside.example>", False),
        (b'"=?utf-8?q?=22?= i@example.com =?utf-8?q?=22?=" <x@outside.example>', False),
        (b'"<i@example.com>" <x@outside.example>', False),
        (b'"a, i@example.com" <x@outside.example>', False),
        (b"x@outside.example ((i@example.com))", False),
        (b"A <a@outside.example>, Of example.com <b@outside.example>", True),
    ],
)
def test_address_of_ours_in_a_display_name(value: bytes, taken: bool) -> None:
    assert (answer(b"From: " + value + b"\n").code is Code.ACCEPT) is taken


@pytest.mark.parametrize(
    ("section", "taken"),
    [
        (b"Subject: x\n", True),
        (b"Sender: i@example.com\n", False),
        (b"Sender: x@outside.example\n", True),
        (b"From: x@outside.example\nSender: i@example.com\n", True),
        (b"From: x@outside.example\nFrom: y@outside.example\n", True),
        (b"From: x@outside.example\nFrom: i@example.com\n", False),
        (b"From: x@exam\nFrom: ple.com\n", False),
        (b"From\n : ceo@example.com\n", False),
        (b"From\xc2\xa0: ceo@accounts.example.com\n", False),
        (b"From: x@outside.example\0\n", False),
    ],
)
def test_headers_of_a_stranger(section: bytes, taken: bool) -> None:
    assert (answer(section).code is Code.ACCEPT) is taken


def test_newsletter_of_a_subdomain_passes_with_its_own_signature_or_spf() -> None:
    section = b"From: News <n@news.example.com>\n"
    top = b"Authentication-Results: h\r\n\t;dkim=pass  header.b=AAAA  header.d=%s\n"
    for signer, code in (
        (b"news.example.com", 250), (b"example.com", 250), (b"outside.example", 554),
    ):  # fmt: skip
        assert answer(top % signer + section).code == code, signer
    assert answer(section, sender="b@news.example.com", spf=True).code is Code.ACCEPT
    refused = answer(section)
    assert (refused.below, answer(b"From: x@example.com\n").below) == ("news.example.com", "")


def test_this_machine_may_say_anything_but_a_nul() -> None:
    here = "127.0.0.1:4711"
    assert answer(b"From: postmaster@example.com\n", remote=here).code is Code.ACCEPT
    assert answer(b"From: a\0@example.com\n", remote=here).code is Code.REFUSE


_INVISIBLE = st.sampled_from(
    ["", " ", "\t", "(x)", "(a(b)c)", "\\", '"', "\u200b", "\u00ad", "\x0b", "\x7f", "=", "\u2060"]
)
_LETTERS = st.lists(_INVISIBLE, min_size=11, max_size=11)


@given(_LETTERS, st.booleans(), st.booleans(), st.sampled_from(["", "sub.", "a.b."]))
def test_domain_is_found_with_anything_droppable_within(
    gaps: list[str], broad: bool, encoded: bool, below: str
) -> None:
    domain = "".join(char + gap for char, gap in zip("example.com", gaps, strict=True))
    text = f"ceo@{below}{wide(domain) if broad else domain} <x"
    raw = text.encode()
    if encoded:
        raw = b"=?utf-8?b?" + b64encode(raw) + b"?="
    assert author.named([raw], OURS)


@given(st.binary(max_size=300))
def test_nothing_makes_it_fail(raw: bytes) -> None:
    author.named([raw], OURS)
    author.shows_address([raw], OURS)
    assert answer(b"From: " + raw.replace(b"\n", b"\n ")).code in (250, 554)


@pytest.mark.parametrize(
    "section",
    [
        b"From: " + b"(" * 4000 + b"\n",
        b"From: " + b"()" * 2000 + b"<\n",
        b"From: " + b"((((((((((()" * 330 + b"\n",
        b"From: " + b'("\\' * 1300 + b"\n",
        b"From: " + b"=?utf-8?q?" * 400 + b"\n",
        b"From: " + b"=?utf-8?q?=C3=BC(?= " * 200 + b"<\n",
        b"From: " + b"=?utf-8?b?4bq/?=" * 230 + b"(example.com <\n",
        b"From: " + b"=?punycode?q?" + b"a" * 3900 + b"-aaaa?= <\n",
        b"From: " + "\ufdfa".encode() * 1300 + b"(<\n",
        b"From: " + b"@example.co" * 360 + b"\n",
        b"From: =?utf-8?q?" + b"=40example=2Eco_" * 1000 + b"?= <x@outside.example>\n",
        b"From: " + b"=?utf-8?q?=40x=2E?= " * 800 + b"<x@outside.example>\n",
        b"From: x@outside.example\n" + b"X: y\n" * 52000,
        b"From: x@outside.example\n" + b"From : y\n" * 1800 + b"A: b\n" * 40000,
        b" x\n" * 87000,
    ],
)  # fmt: skip
def test_no_header_takes_long_to_judge(section: bytes) -> None:
    assert len(section) <= header.MAX_HEADER
    answer(section)  # whatever is made once
    began = time.process_time()
    answer(section)
    assert time.process_time() - began < 0.1


def _base64(charset: str, *parts: str) -> list[bytes]:
    return [b64encode(part.encode(charset)) for part in parts]


_WHOLE = _base64("cp037", "ceo@example.com")[0]
_SEVEN, _REST = _base64("cp037", "ceo@exa", "mple.com")
_UTF_8 = _base64("utf-8", "ceo@b\u00fccher.example")[0]
_BY_ONE_READER = {
    "who-takes-all-for-utf-8-and-padding-for-nothing": (
        b"=?cp037?b?" + _UTF_8[:5] + b"=" + _UTF_8[5:] + b"?="
    ),
    "whose-charset-is-as-declared-and-padding-nothing": (
        b"=?cp037?b?" + _WHOLE[:5] + b"=" + _WHOLE[5:] + b"?="
    ),
    "who-begins-anew-behind-the-padding": b"=?cp037?b?" + _SEVEN + _REST + b"?=",
    "who-knows-a-language-behind-the-charset": b"=?cp037*en?b?" + _WHOLE + b"?=",
    "who-takes-all-for-utf-8": b"=?cp037?q?ceo=40b=C3=BCcher.example?=",
    "who-takes-all-for-latin-1": b"=?cp037?q?ceo=40b=FCcher.example?=",
    "who-drops-a-digit-too-many": b"=?x?b?" + b64encode(b"ceo@example.com") + b"A?=",
    "who-drops-what-is-not-ascii": "ceo@exa\u0436mple.com".encode(),
    "who-sees-no-filler": "ceo@b\u00fc\u3164cher.example".encode(),
    "who-composes-what-stands-together-then": "ceo@bu\u200b\u0308cher.example".encode(),
    "who-drops-a-tilde": b"ceo@exa~mple.com",
    "who-knows-no-comment-within-another": b"ceo@exa(a(b)mple.com",
    "who-knows-quotes-within-a-comment": b'ceo@exa(")x")mple.com',
}


@pytest.mark.parametrize("name", _BY_ONE_READER)
def test_what_one_reader_alone_reads_as_ours_is_found(name: str) -> None:
    assert author.named([_BY_ONE_READER[name] + b" <x"], OURS)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"@example.com <x@outside.example>", True),
        (b"=?utf-8?q?i=40exa~mple=2Ecom?= <x@outside.example>", True),
        (rb'\"i@example.com" <x@outside.example>', True),
        (b'"i@example.com via" a~b <x@outside.example>', False),
        (b"a~b <x@outside.example> (i@example.com)", False),
    ],
)
def test_address_that_a_program_may_find(value: bytes, found: bool) -> None:
    assert bool(author.shows_address([value], OURS)) is found


def test_comments_nested_deeper_than_anybody_looks_are_taken_for_ours() -> None:
    def nested(depth: int) -> bytes:
        return b"x" + b"(" * depth + b")" * depth

    deepest = author._DEPTH
    assert deepest == 12
    for read in (author.named, author.shows_address):
        assert read([nested(deepest - 1)], OURS) == ""
        assert read([nested(deepest)], OURS) == min(OURS)


def test_a_from_up_to_4096_bytes_is_looked_at_without_its_comments() -> None:
    value = b"i@exa((x))mple.com"
    assert author.MAX_DOUBTFUL == 4096
    assert author.shows_address([value + b" " * (4096 - len(value))], OURS)
    assert not author.shows_address([value + b" " * (4097 - len(value))], OURS)


def test_decoders_that_take_long_or_are_no_charsets_are_not_used() -> None:
    assert not author._CHARSETS & {"punycode", "idna", "unicode_escape", "undefined"}
    assert not author._CHARSETS & {"raw_unicode_escape", "mbcs", "oem"}
    assert {"utf_8", "latin_1", "cp037", "utf_7", "koi8_r"} <= author._CHARSETS
