"""Checked names: what is let through, and that it is safe wherever it goes."""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath

import pytest
from hypothesis import example, find, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from entrypoint.common import errors, names
from entrypoint.common.names import Address, Domain, Hostname, Login, Selector

# Texts that are nearly names, since random ones never are.
NEARLY = st.text(
    st.sampled_from("abzXN019-_.@+ /\\\0\n\t:'\"*|#éßİ\u202e\u200d。\uff0e\ufeff"), max_size=24
)
SHAPED = st.from_regex(
    r"\A(xn--)?[A-Za-z0-9é_-]{1,70}(\.[A-Za-z0-9ü-]{1,63}){0,5}\.?\Z", fullmatch=True
)
TEXTS = st.text(max_size=30) | NEARLY | SHAPED
ADDRESSES = st.builds("{}@{}".format, NEARLY | st.text(max_size=10), SHAPED) | TEXTS


def parsed(kind: type[Domain | Address | Selector], text: str) -> str | None:
    try:
        return kind.parse(text)
    except ValueError as error:
        caught = error
    # The only error there is, and fit to be shown.
    assert type(caught) is ValueError
    assert re.fullmatch(r"[ -~…]+", str(caught))
    assert len(str(caught)) < 400
    return None


@pytest.mark.parametrize(
    ("kind", "texts"),
    [(Domain, TEXTS), (Address, ADDRESSES), (Login, ADDRESSES), (Selector, TEXTS)],
)
def test_some_of_the_texts_are_names(
    kind: type[Domain | Address | Selector], texts: st.SearchStrategy[str]
) -> None:
    """Else the tests below would look at nothing."""
    assert find(texts, lambda text: parsed(kind, text) is not None)


@given(TEXTS)
@example("xn--9ca.example")
@example("A.EXAMPLE.")
def test_a_domain_is_canonical_and_safe(text: str) -> None:
    name = parsed(Domain, text)
    if name is not None:
        assert Domain.parse(name) == name
        assert re.fullmatch(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+", name)
        assert len(name) <= 253
        assert PurePosixPath(name).parts == (name,)


@given(ADDRESSES)
def test_an_address_is_canonical_and_safe(text: str) -> None:
    name = parsed(Address, text)
    if name is not None:
        assert Address.parse(name) == name
        local, at, domain = name.rpartition("@")
        assert at
        assert re.fullmatch(r"[!-~]{1,64}", local)
        assert not set(local) & set('/\\"(),:;<>@[]`$%|* ')
        assert domain == Domain.parse(domain)
        assert PurePosixPath(name).parts == (name,)


@given(ADDRESSES)
def test_a_login_is_an_address_that_chasquid_leaves_whole(text: str) -> None:
    name = parsed(Login, text)
    if name is not None:
        assert Address.parse(name) == name
        assert re.fullmatch(r"[a-z0-9_.-]+@[a-z0-9.-]+", name)


@given(TEXTS)
def test_a_selector_is_one_label(text: str) -> None:
    name = parsed(Selector, text)
    if name is not None:
        assert Selector.parse(name) == name
        assert re.fullmatch(r"[a-z0-9-]{1,63}", name)


@given(st.text(max_size=300))
@example("'" * 70)
@example("\U0001f4e7" * 20)
def test_shown_is_printable_and_short(text: str) -> None:
    shown = errors.shown(text)
    assert re.fullmatch(r"[ -~…]+", shown)
    assert len(shown) < 100
    quoted = re.fullmatch(r"(['\"])(.*)\1( \(\d+ characters\))?", shown)
    assert quoted, "it stands in quotes, closed"
    if len(ascii(text)) <= 60:
        assert shown == ascii(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com", "example.com"),
        ("  Example.COM.\n", "example.com"),
        ("a-b.c--d.example", "a-b.c--d.example"),
        ("1.2.3.example", "1.2.3.example"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),  # IDNA 2008; 2003 made strasse of it
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("a." * 124 + "abcde", "a." * 124 + "abcde"),
    ],
)
def test_domains_that_are_fine(text: str, name: str) -> None:
    assert Domain.parse(text) == name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a domain name is missing"),
        (" . ", "a domain name is missing"),
        ("example", "'example' has no dot; a full domain name is needed, such as example.com"),
        ("i@example.com", "'i@example.com' is not a domain name; write it as example.com"),
        ("example.com:25", "'example.com:25' is not a domain name; write it as example.com"),
        ("example.com/a", "'example.com/a' is not a domain name; write it as example.com"),
        ("192.0.2.1", "'192.0.2.1' is an IP address or ends in a number; a domain name is needed"),
        ("example.com..", "the label '' must be 1 to 63 letters, digits or hyphens"),
        ("-a.example", "the label '-a' must be"),
        ("a-.example", "the label 'a-' must be"),
        ("a_b.example", "the label 'a_b' must be"),
        ("a b.example", "the label 'a b' must be"),
        ("*.example.com", r"the label '\*' must be"),
        ("a" * 64 + ".example", "the label 'a{59}…' .64 characters. must be"),
        ("a." * 124 + "abcdef", "is longer than a domain name's 253 characters"),
        ("xn--a.example", "'xn--a' is not the xn-- form of any name"),
        ("xn--.example", "the label 'xn--' must be"),
        ("a\u200db.example", r"is not a valid internationalized domain name \(IDNA 2008\)"),
        ("☕.example", "is not a valid internationalized domain name"),
    ],
)
def test_domains_that_are_not(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Domain.parse(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I@Example.com", "i@example.com"),
        (" o'brien+x@example.com ", "o'brien+x@example.com"),
        ("a.b_c-d@example.com", "a.b_c-d@example.com"),
        ("#!&=?^{}~@example.com", "#!&=?^{}~@example.com"),
        ("i@bücher.example", "i@xn--bcher-kva.example"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_addresses_that_are_fine(text: str, name: str) -> None:
    address = Address.parse(text)
    assert address == name
    assert f"{address.local}@{address.domain}" == name
    assert isinstance(address.domain, Domain)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not an e-mail address; write it as i@example.com"),
        ("i", "'i' is not an e-mail address"),
        ("@example.com", "'@example.com' is not an e-mail address"),
        ("i@you@example.com", "has more than one @; one address is needed"),
        ("i@", "a domain name is missing"),
        ("i@example", "'example' has no dot"),
        ("a..b@example.com", "has a part before the @ that this server does not take"),
        (".a@example.com", "has a part before the @"),
        ("a.@example.com", "has a part before the @"),
        ("a b@example.com", "has a part before the @"),
        ('"a b"@example.com', "has a part before the @"),
        ("é@example.com", "has a part before the @"),
        ("|a@example.com", "has a part before the @"),
        ("*@example.com", "has a part before the @"),
        ("a/b@example.com", "has a part before the @"),
        ("$a@example.com", "has a part before the @"),
        ("`a@example.com", "has a part before the @"),
        ("a%b@example.com", "has a part before the @"),
        ("a" * 65 + "@example.com", "has a part before the @"),
    ],
)
def test_addresses_that_are_not(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a+b@example.com", "has a + before the @. Mail to name+anything@ reaches name@ already"),
        ("o'brien@example.com", "a sender's name is made of letters, digits and . _ -"),
        ("a", "is not an e-mail address"),
    ],
)
def test_logins_that_are_not(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        Login.parse(text)


def test_login_keeps_dots() -> None:
    assert Login.parse("John.Smith_2-x@Example.com") == "john.smith_2-x@example.com"


@pytest.mark.parametrize("text", ["", "a.b", "-a", "a-", "a_b", "a/b", "a" * 64, "é", "a b"])
def test_selectors_that_are_not(text: str) -> None:
    with pytest.raises(ValueError, match="is not a selector: 1 to 63 letters"):
        Selector.parse(text)


def test_names_validate_in_pydantic_as_they_parse() -> None:
    found = TypeAdapter(Hostname).validate_python("SMTP.example.com")
    assert type(found) is Hostname
    assert found == "smtp.example.com"


def test_relations_of_domains() -> None:
    name = Domain.parse("a.b.example.com")
    assert name.parent == "b.example.com"
    assert name.is_within("example.com")
    assert name.is_within("a.b.example.com")
    assert not name.is_within("xample.com")
    assert not Domain.parse("notexample.com").is_within("example.com")


@pytest.mark.parametrize(
    ("text", "version", "address"),
    [
        (" 203.0.113.10 ", 4, "203.0.113.10"),
        ("8.8.8.8", 4, "8.8.8.8"),
        ("2001:DB8::A", 6, "2001:db8::a"),
        ("2001:0db8:0000:0000:0000:0000:0000:0010", 6, "2001:db8::10"),
        ("2001:db8::192.0.2.1", 6, "2001:db8::c000:201"),
    ],
)
def test_public_addresses(text: str, version: int, address: str) -> None:
    assert names.public_ip(text, version) == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    ("text", "version", "reason"),
    [
        ("", 4, "'' is not an IP address"),
        ("203.0.113.256", 4, "is not an IP address"),
        ("203.0.113.010", 4, "is not an IP address"),
        ("203.0.113.1/32", 4, "is not an IP address"),
        ("0x7f.1", 4, "is not an IP address"),
        ("smtp.example.com", 4, "is not an IP address"),
        ("2001:db8::1", 4, "is an IPv6 address; an IPv4 one is needed"),
        ("203.0.113.1", 6, "is an IPv4 address; an IPv6 one is needed"),
        ("2001:db8::1%eth0", 6, "names an interface (after %); only the address is needed"),
        ("::ffff:203.0.113.1", 6, "is an IPv4 address written as IPv6"),
    ]
    + [
        (text, 6 if ":" in text else 4, "cannot be reached from the internet")
        for text in (
            "0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.1.1", "172.31.255.255",
            "192.168.1.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1",
            "::203.0.113.1", "fc00::1", "fdff::1", "fe80::1", "fec0::1", "ff02::1",
        )
    ],
)  # fmt: skip
def test_addresses_that_nobody_reaches(text: str, version: int, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        names.public_ip(text, version)


@pytest.mark.parametrize(
    ("name", "is_suffix"),
    [
        ("com", True), ("co.uk", True), ("github.io", True), ("invented", True),
        ("example.com", False), ("example.co.uk", False), ("mail.example", False),
    ],
)  # fmt: skip
def test_public_suffixes(name: str, is_suffix: bool) -> None:
    assert names.is_public_suffix(name) is is_suffix


@pytest.mark.parametrize(
    ("name", "above"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("a.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),  # nothing above: the name itself
    ],
)
def test_organizational_domains(name: str, above: str) -> None:
    assert names.organizational_domain(Domain.parse(name)) == above
