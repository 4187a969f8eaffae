"""The policies in TXT records: as text, and back again."""

from __future__ import annotations

import base64
import string
from typing import Any, TypeVar

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from entrypoint.common.names import Address
from entrypoint.dns.policies import DkimRecord, Dmarc, Spf, TlsRpt, tags

_T = TypeVar("_T")

A, B = Address("a@example.com"), Address("b!c@example.org")

ANY = st.text(max_size=80)
# What a local part may hold here, down to what a URI has to encode.
LOCAL = st.from_regex(r"[a-z0-9!#&'+=?^_{}~-]{1,12}(\.[a-z0-9+]{1,4})?", fullmatch=True)
ADDRESSES = st.lists(
    st.builds(
        lambda local, domain: Address.parse(f"{local}@{domain}"),
        LOCAL,
        st.sampled_from(["example.com", "reports.example.net", "xn--bcher-kva.example"]),
    ),
    max_size=3,
    unique=True,
).map(tuple)
ENDINGS = st.sampled_from(["~all", "-all", "?all", "+all", "all", ""])
TERMS = st.sampled_from(
    ["a", "mx", "+a", "-mx", "?ip4:192.0.2.0/24", "ip6:2001:db8::/32", "a:all.example", "ptr",
     "include:all", "exists:%{i}.example.com", "exp=a.example.com", "redirect=_spf.example.org"]
)  # fmt: skip
# What nobody meant, and what begins like something.
NONSENSE = st.one_of(
    ANY,
    st.builds("{}{}".format, st.sampled_from(["v=spf1 ", "v=DMARC1; ", "v=DKIM1; p="]), ANY),
    st.builds(
        "{};{}".format,
        st.sampled_from(
            ["v=DMARC1; p=none", "v=DMARC1; p=reject", "v=TLSRPTv1; rua=mailto:tls@example.com"]
        ),
        ANY,
    ),
)


def parsed_or_none(kind: type[_T], text: str) -> _T | None:
    """What `text` is, if it is one; a refusal has to say why."""
    try:
        found: _T = kind.parse(text)  # type: ignore[attr-defined]
    except ValueError as refusal:
        if not str(refusal):
            raise
        return None
    return found


@pytest.mark.parametrize("kind", [Spf, DkimRecord, Dmarc, TlsRpt])
def test_some_nonsense_is_one(kind: type[Any]) -> None:
    """Else the test below would look at nothing."""
    assert find(NONSENSE, lambda text: parsed_or_none(kind, text) is not None)


@pytest.mark.parametrize("kind", [Spf, DkimRecord, Dmarc, TlsRpt])
@given(text=NONSENSE)
def test_any_text_is_one_or_is_refused(kind: type[Any], text: str) -> None:
    parsed = parsed_or_none(kind, text)
    if parsed is not None:
        assert kind.parse(str(parsed)) == parsed


def spaced(text: str) -> st.SearchStrategy[str]:
    """The same with white space around its signs."""
    return st.lists(st.sampled_from(["", " ", "\t", "  "]), min_size=2, max_size=2).map(
        lambda pads: text.replace(";", f"{pads[0]};{pads[1]}").replace("=", f"{pads[1]}={pads[0]}")
    )


# SPF


def test_spf() -> None:
    assert str(Spf(("a", "include:_spf.example.net"))) == "v=spf1 a include:_spf.example.net ~all"
    assert str(Spf((), "-all")) == "v=spf1 -all"
    assert str(Spf(("redirect=_spf.example.net",), "")) == "v=spf1 redirect=_spf.example.net"


@given(st.builds(Spf, st.lists(TERMS, max_size=6).map(tuple), ENDINGS))
def test_spf_is_parsed_as_it_was_written(record: Spf) -> None:
    assert Spf.parse(str(record)) == record


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("v=spf1", Spf((), "")),
        ("V=SPF1 A:Smtp.example.com ~ALL", Spf(("A:Smtp.example.com",), "~all")),
        ("v=spf1  a   mx -all ", Spf(("a", "mx"), "-all")),
        # RFC 7208 5.1: the first one counts, what stands behind it has no effect.
        ("v=spf1 +all -all", Spf((), "+all")),
        ("v=spf1 -all mx", Spf(("mx",), "-all")),
        ("v=spf1 a include:all redirect=all", Spf(("a", "include:all", "redirect=all"), "")),
        ("v=spf1 --all", Spf(("--all",), "")),
    ],
)
def test_spf_records_as_people_write_them(text: str, record: Spf) -> None:
    assert Spf.parse(text) == record


@pytest.mark.parametrize(
    "text", ["v=spf10 a", "v=spf1a", " v=spf1 a", '"v=spf1 a"', "v=spf1,a", ""]
)
def test_no_spf_records(text: str) -> None:
    assert not Spf.is_one(text)
    with pytest.raises(ValueError, match="does not start with v=spf1"):
        Spf.parse(text)


@pytest.mark.parametrize(
    ("ending", "open_"), [("+all", True), ("all", True), ("?all", False), ("", False)]
)
def test_who_lets_all_in(ending: str, open_: bool) -> None:
    assert Spf((), ending).lets_all_in is open_


# tags

NAMES = st.text(string.ascii_letters, min_size=1, max_size=4)
VALUES = st.text(
    st.characters(codec="ascii", exclude_characters=";", exclude_categories=["C"]), max_size=12
).map(str.strip)


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.sampled_from([";", "; ", " ;\t"]))
def test_tags(wanted: dict[str, str], sign: str) -> None:
    text = sign.join(f"{name}={value}" for name, value in wanted.items())
    assert tags(text) == wanted
    assert list(tags(text)) == list(wanted)
    assert tags(f" {text} ; ") == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=1; a=2", "the tag a stands twice"),
        ("a=1; b", "'b' is not tag=value"),
        ("=1", "'=1' is not tag=value"),
        ("a b=1", "'a b=1' is not tag=value"),
    ],
)
def test_tags_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tags(text)


# DKIM


def test_dkim() -> None:
    assert str(DkimRecord("ed25519", "AAAA")) == "v=DKIM1; k=ed25519; p=AAAA"


KEYS = st.builds(
    DkimRecord,
    st.sampled_from(["rsa", "ed25519"]),
    st.binary(max_size=300).map(lambda raw: base64.b64encode(raw).decode()),
)


@given(KEYS, st.data())
def test_dkim_is_parsed_as_it_was_written(record: DkimRecord, data: st.DataObject) -> None:
    assert DkimRecord.parse(str(record)) == record
    head = data.draw(spaced(f"v=DKIM1;k={record.key_type};p="))
    assert DkimRecord.parse(head + record.public) == record
    # Folding white space may stand anywhere in a key (RFC 6376 3.6.1).
    cut = data.draw(st.integers(0, len(record.public)))
    folded = f"{record.public[:cut]} \t{record.public[cut:]}"
    assert DkimRecord.parse(f"v=DKIM1; k={record.key_type}; p={folded}") == record


@pytest.mark.parametrize(
    "text",
    [
        "p=AAAA",  # v and k have defaults
        "v=DKIM1; p=AAAA",
        "v=DKIM1; k=RSA; p=AAAA",
        "v=DKIM1; h=sha1 : sha256; s=*; t=s; n=a note; p=AAAA",
        "v=DKIM1; s=tlsrpt:email; unheard=of; p=AAAA;",
    ],
)
def test_the_same_key_written_otherwise(text: str) -> None:
    assert DkimRecord.parse(text) == DkimRecord("rsa", "AAAA")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v=DKIM2; p=AAAA", "v='DKIM2' is not v=DKIM1"),
        ("v=dkim1; p=AAAA", "v='dkim1' is not v=DKIM1"),
        ("k=rsa; v=DKIM1; p=AAAA", "v=DKIM1 does not stand first"),
        ("v=DKIM1; k=rsa", "the tag p, the key, is missing"),
        ("v=DKIM1; P=AAAA", "the tag p, the key, is missing"),  # RFC 6376 3.2: tags have a case
        ("v=DKIM1; p=AAA", r"the key \(p=\) is not base64"),
        ("v=DKIM1; p=AAAä", r"the key \(p=\) is not base64"),
        ("v=DKIM1; h=sha1; p=AAAA", "h='sha1' does not allow sha256"),
        ("v=DKIM1; s=tlsrpt; p=AAAA", "s='tlsrpt' says that the key is not for e-mail"),
    ],
)
def test_keys_that_no_verifier_takes(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DkimRecord.parse(text)


# DMARC


def test_dmarc() -> None:
    assert str(Dmarc("none", "1", (A,), (A,))) == (
        "v=DMARC1; p=none; fo=1; rua=mailto:a@example.com; ruf=mailto:a@example.com"
    )
    assert str(Dmarc("reject", "1:d:s", (), (B,))) == (
        "v=DMARC1; p=reject; fo=1:d:s; ruf=mailto:b%21c@example.org"
    )


def test_what_would_end_a_uri_is_encoded() -> None:
    """RFC 7489 6.2: an exclamation mark would begin a size limit. RFC 6068 2: others, headers."""
    text = str(Dmarc("none", rua=(A, B, Address("d?e&f#g@example.com"))))
    assert text.endswith(
        "rua=mailto:a@example.com,mailto:b%21c@example.org,mailto:d%3Fe%26f%23g@example.com"
    )


@given(
    st.builds(
        Dmarc,
        st.sampled_from(["none", "quarantine", "reject"]),
        st.sampled_from(["0", "1", "d", "s", "1:d:s"]),
        ADDRESSES,
        ADDRESSES,
    ),
    st.data(),
)
def test_dmarc_is_parsed_as_it_was_written(record: Dmarc, data: st.DataObject) -> None:
    assert Dmarc.parse(str(record)) == record
    # Behind the version order, case of tags and white space are free (RFC 7489 6.4).
    version, *rest = str(record).split("; ")
    rest = data.draw(st.permutations(rest))
    free = "; ".join([version, *(f"{name.upper()}={value}" for name, value in split(rest))])
    assert Dmarc.parse(free) == record
    assert Dmarc.parse(f"{version} ;{' ; '.join(rest)} ;") == record


def split(parts: list[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (part.partition("=") for part in parts)]


@pytest.mark.parametrize(
    ("rua", "found"),
    [
        ("mailto:a@example.com!10m", (A,)),
        ("MAILTO:A@Example.com , mailto:b%21c@example.org", (A, B)),
        ("https://example.org/r, mailto:a@example.com", (A,)),
        # No business of ours, and no reason to call the record unreadable.
        ('mailto:"odd one"@example.net,mailto:a@example.com', (A,)),
        ("a@example.com", ()),
        ("", ()),
    ],
)
def test_where_reports_go(rua: str, found: tuple[Address, ...]) -> None:
    assert Dmarc.parse(f"v=DMARC1; p=none; rua={rua}").rua == found


@pytest.mark.parametrize(
    "text",
    ["v=DMARC1", "v = DMARC1 ;p=none", "V=DMARC1; p=none", "v=DMARC1\t; p=none"],
)
def test_dmarc_records(text: str) -> None:
    assert Dmarc.is_one(text)


@pytest.mark.parametrize(
    "text",
    [
        "v=DMARC10; p=none",
        "v=dmarc1; p=none",
        " v=DMARC1; p=none",
        "v=DMARC1 p=none",
        "p=none; v=DMARC1",
    ],
)
def test_no_dmarc_records(text: str) -> None:
    assert not Dmarc.is_one(text)
    with pytest.raises(ValueError, match="must begin with v=DMARC1"):
        Dmarc.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v=DMARC1; p=nonsense", "p='nonsense' is none of none, quarantine and reject"),
        ("v=DMARC1; rua=mailto:a@example.com", "p='' is none of"),
        ("v=DMARC1; p=none; p=reject", "the tag p stands twice"),
        ("v=DMARC1; p=none; rua", "'rua' is not tag=value"),
    ],
)
def test_dmarc_records_that_no_receiver_takes(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Dmarc.parse(text)


# TLS-RPT


def test_tls_rpt() -> None:
    assert str(TlsRpt((A, B))) == "v=TLSRPTv1; rua=mailto:a@example.com,mailto:b%21c@example.org"


@given(st.builds(TlsRpt, ADDRESSES))
def test_tls_rpt_is_parsed_as_it_was_written(record: TlsRpt) -> None:
    assert TlsRpt.is_one(str(record))
    assert TlsRpt.parse(str(record)) == record


def test_tls_reports_may_go_to_a_web_server() -> None:
    assert TlsRpt.parse("v=TLSRPTv1;rua=https://example.org/r").rua == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v=TLSRPTv2; rua=mailto:a@example.com", "must begin with v=TLSRPTv1"),
        ("rua=mailto:a@example.com; v=TLSRPTv1", "must begin with v=TLSRPTv1"),
        ("v=TLSRPTv1", "the tag rua, where reports go, is missing"),
        ("v=TLSRPTv1; rua", "'rua' is not tag=value"),
    ],
)
def test_no_tls_rpt_records(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TlsRpt.parse(text)
