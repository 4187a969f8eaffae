"""One DNS record."""

from __future__ import annotations

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from dns.rdtypes.ANY.TXT import TXT
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.common.names import Domain
from entrypoint.dns.records import Record, RecordType
from tests.unit.kit import EXAMPLE_COM

VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=1200)


def txt(value: str | None, name: str = "example.com", zone: Domain | None = EXAMPLE_COM) -> Record:
    return Record(zone, name, RecordType.TXT, value, "For tests.")


@given(VALUES)
def test_a_text_is_whole_in_a_zone_file(value: str) -> None:
    """Quotes, backslashes and semicolons included: what dnspython reads is what was meant."""
    record = txt(value)
    assert all(len(text) <= 255 for text in record.strings)
    assert "".join(record.strings) == value
    read = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, record.rdata)
    assert isinstance(read, TXT)
    assert [text.decode() for text in read.strings] == list(record.strings)


def test_a_text_of_exactly_one_string() -> None:
    assert [len(text) for text in txt("x" * 255).strings] == [255]
    assert [len(text) for text in txt("x" * 256).strings] == [255, 1]
    assert txt("").strings == ("",)
    assert txt("").rdata == '""'


@pytest.mark.parametrize(
    ("name", "zone", "relative"),
    [
        ("example.com", EXAMPLE_COM, "@"),
        ("_dmarc.example.com", EXAMPLE_COM, "_dmarc"),
        ("a.b.example.com", EXAMPLE_COM, "a.b"),
        ("10.113.0.203.in-addr.arpa", None, "10.113.0.203.in-addr.arpa"),
    ],
)
def test_names_as_consoles_want_them(name: str, zone: Domain | None, relative: str) -> None:
    assert txt("x", name, zone).relative_name == relative


def test_zone_lines() -> None:
    assert txt("v=spf1 ~all").zone_line == '@\t3600\tIN\tTXT\t"v=spf1 ~all"'
    mx = Record(EXAMPLE_COM, "example.com", RecordType.MX, "10 smtp.example.com.", "", ttl=60)
    assert mx.zone_line == "@\t60\tIN\tMX\t10 smtp.example.com."


def test_an_unknown_value_has_no_rdata() -> None:
    with pytest.raises(ValueError, match=r"example\.com TXT: the value is not known yet"):
        assert txt(None).rdata
