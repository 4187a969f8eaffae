"""DMARC aggregate reports, most of them hostile."""

from __future__ import annotations

import gzip
import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.history import reports
from entrypoint.history.reports import Report, Row, Source, Summary
from entrypoint.services import mda, reader

NOW = 1_800_000_000.0


def record(source: str, count: int | str, dkim: str = "pass", spf: str = "pass") -> str:
    return (
        f"<record><row><source_ip>{source}</source_ip><count>{count}</count><policy_evaluated>"
        f"<disposition>none</disposition><dkim>{dkim}</dkim><spf>{spf}</spf></policy_evaluated>"
        "</row><identifiers><header_from>example.com</header_from></identifiers><auth_results>"
        "<dkim><domain>example.com</domain><result>pass</result></dkim></auth_results></record>"
    )


def feedback(
    *records: str, name: str = "big", number: str = "1", domain: str = "example.com"
) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<feedback><report_metadata>'
        f"<org_name>{name}</org_name><report_id>{number}</report_id></report_metadata>"
        f"<policy_published><domain>{domain}</domain><p>none</p></policy_published>"
        f"{''.join(records)}</feedback>"
    )


def zipped(xml: str, name: str = "report.xml", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr(name, xml)
    return stream.getvalue()


def mail(content: bytes, subtype: str = "gzip") -> bytes:
    message = EmailMessage()
    message["From"] = "dmarc@big.example"
    message["To"] = "rua@example.com"
    message["Subject"] = "Report domain: example.com"
    message.set_content("A report is attached.\n")
    message.add_attachment(content, maintype="application", subtype=subtype, filename="r")
    return message.as_bytes()


PLAIN = feedback(record("203.0.113.10", 7), record("2001:DB8::1", 2, "fail", "fail"))
EXPECTED = Report(
    "big", "1", "example.com",
    (Row("203.0.113.10", 7, True, True), Row("2001:db8::1", 2, False, False)),
)  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        mail(gzip.compress(PLAIN.encode())),
        mail(zipped(PLAIN), "zip"),
        mail(zipped(PLAIN, method=zipfile.ZIP_STORED), "zip"),
        mail(PLAIN.encode(), "xml"),
        mail(b"\xef\xbb\xbf" + PLAIN.encode(), "xml"),
        mail(b"\r\n " + PLAIN.encode().partition(b"?>\n")[2], "xml"),
        mail(gzip.compress(PLAIN.encode()), "octet-stream"),
        mail(PLAIN.encode(), "octet-stream"),
        mail(PLAIN.replace("<feedback", '<feedback xmlns="urn:ietf:params:xml:ns:x"').encode()),
        mail(PLAIN.replace("<", "<d:").replace("<d:/", "</d:").replace("<d:?", "<?").encode()),
    ],
)  # fmt: skip
def test_every_way_in_which_reports_come(content: bytes) -> None:
    assert reports.read(content) == (EXPECTED,)


def test_a_report_that_is_the_whole_message() -> None:
    message = EmailMessage()
    message.set_content(gzip.compress(PLAIN.encode()), maintype="application", subtype="gzip")
    assert reports.read(message.as_bytes()) == (EXPECTED,)


@pytest.mark.parametrize(
    ("dkim", "spf", "passed"),
    [("pass", "fail", True), ("fail", "pass", True), ("fail", "fail", False), ("", "", False)],
)
def test_dmarc_passes_by_either(dkim: str, spf: str, passed: bool) -> None:
    [row] = reports.parse(feedback(record("192.0.2.1", 1, dkim, spf)).encode()).rows
    assert row.passed is passed


BOMB = gzip.compress(b"<feedback>" + b" " * (200 << 20))
ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(
        f'<!ENTITY {one} "{f"&{other};" * 10}">'
        for other, one in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]><feedback><report_metadata><org_name>&i;</org_name></report_metadata></feedback>"
)
SHORT = "<record><row><source_ip>192.0.2.1</source_ip><count>1</count></row></record>"
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><feedback/>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no report is attached"),
        (b"Subject: hello\n\nbuy this\n", "no report is attached"),
        (mail(b"MZ\x90 a program"), "no report is attached"),
        (mail(BOMB), "larger than 32 MB"),
        (mail(zipped("<feedback>" + " " * (40 << 20)), "zip"), "larger than 32 MB"),
        (mail(zipped(PLAIN, "report.exe"), "zip"), "no XML file"),
        (mail(zipped(PLAIN, method=zipfile.ZIP_LZMA), "zip"), "no XML file"),
        (mail(zipped(PLAIN, method=zipfile.ZIP_BZIP2), "zip"), "no XML file"),
        (mail(b"PK\x03\x04 half a zip", "zip"), "cannot be unpacked: BadZipFile"),
        (mail(b"\x1f\x8b half a gzip"), "cannot be unpacked: error"),
        (mail(gzip.compress(PLAIN.encode())[:80]), "it is not XML"),
        (mail(ENTITIES.encode(), "xml"), "document type"),
        (mail(EXTERNAL.encode(), "xml"), "document type"),
        (mail(b"<?xml version='1.0' encoding='utf-7'?><feedback/>", "xml"), "not supported"),
        (mail(b"<?xml version='1.0' encoding='x-odd'?><feedback/>", "xml"), "it is not XML"),
        (mail(b"<feedback>" + b"<a/>" * 1_000_001, "xml"), "too many"),
        (mail(("<feedback>" + "<a>" * 5000).encode(), "xml"), "nested too deeply"),
        (mail(feedback(*[SHORT] * 20_001).encode(), "xml"), "more than 20000 records"),
        (mail(feedback(record("not an address", 1)).encode(), "xml"), "no source address"),
        (mail(feedback(record("192.0.2.1", "many")).encode(), "xml"), "no source address"),
        (mail(feedback(record("192.0.2.1", -1)).encode(), "xml"), "no sensible count"),
        (mail(feedback(record("192.0.2.1", 10**12)).encode(), "xml"), "no sensible count"),
        (mail(feedback(record("192.0.2.1", "9" * 5000)).encode(), "xml"), "count"),
        (mail(b"<feedback></feedback>", "xml"), "there is no reporter"),
        (b"x" * (21 << 20), "too large"),
    ],
)  # fmt: skip
def test_what_is_no_report_is_refused_quickly(content: bytes, words: str) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=words):
        reports.read(content)
    assert time.monotonic() - started < 30


def test_texts_are_cut_and_move_no_cursor() -> None:
    found = reports.parse(feedback(name="x" * 5000, number="a&#10;b&#155;c").encode())
    assert len(found.reporter) == 200
    assert found.id == "a\\nb\\x9bc"


@given(st.binary(max_size=300))
def test_whatever_comes_ends_nothing(content: bytes) -> None:
    for attempt in (reports.read, reports.parse, reports.unpack):
        with suppress(ValueError):
            attempt(content)


@given(st.text(st.sampled_from('<>/&;!"[]abc feedback\n')))
def test_whatever_looks_like_xml_ends_nothing(text: str) -> None:
    with suppress(ValueError):
        reports.parse(f"<feedback>{text}".encode())


# Counting


def test_counts_by_source() -> None:
    messages = [
        mail(feedback(record("192.0.2.1", 5), record("192.0.2.2", 1, "fail", "fail")).encode()),
        mail(feedback(record("192.0.2.1", 5), number="2").encode()),
        mail(feedback(record("192.0.2.1", 5), number="2").encode()),  # came twice
        mail(feedback(record("192.0.2.1", 1, "fail", "fail"), name="large").encode()),
        mail(feedback(record("192.0.2.9", 9), domain="example.org").encode()),  # nobody asked
        b"no report",
    ]
    found = reports.summarise(messages, ["example.com"])
    assert found == Summary(
        messages=6, unreadable=1, skipped=0, reports=3, reporters=("big", "large"),
        sources=(
            Source("example.com", "192.0.2.1", 10, 1), Source("example.com", "192.0.2.2", 0, 1),
        ),
        passed=10, failed=2,
    )  # fmt: skip
    assert Summary.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_summary_is_short_whatever_comes() -> None:
    rows = [record(f"192.0.2.{number % 256}", number, "fail", "fail") for number in range(300)]
    messages = [mail(feedback(*rows, name=f"org {number}").encode()) for number in range(30)]
    found = reports.summarise(messages, ["example.com"])
    assert (len(found.sources), len(found.reporters)) == (50, 20)
    assert found.failed == 30 * sum(range(300))


def test_messages_on_which_the_e_mail_package_fails() -> None:
    deep = "".join(
        f'Content-Type: multipart/mixed; boundary="{number}"\n\n--{number}\n'
        for number in range(3000)
    ).encode()
    assert reports.summarise([deep], ["example.com"]).unreadable == 1


# The reader of the Maildirs


@pytest.fixture
def keep(tmp_path: Path) -> Callable[..., None]:
    def deliver(address: str, content: bytes, age: float = 60) -> None:
        path = mda.deliver(tmp_path, "dmarc@big.example", address, content)
        os.utime(path, (NOW - age, NOW - age))

    return deliver


def test_reports_of_the_last_week_are_read(tmp_path: Path, keep: Callable[..., None]) -> None:
    keep("rua@example.com", mail(feedback(number="1").encode()))
    keep("rua@example.com", mail(feedback(number="2").encode()), age=8 * 86400)
    keep("rua@example.org", mail(feedback(number="3", domain="example.org").encode()))
    keep("i@example.com", mail(feedback(number="4").encode()))
    found = reader.kept_reports(tmp_path, ["rua@example.com", "example.com"], NOW, 5)
    assert (found.messages, found.reports) == (1, 1)
    words = ["rua@example.com", "rua@example.org", "example.com", "example.org"]
    assert reader.kept_reports(tmp_path, words, NOW, 5).reports == 2


def test_nothing_is_kept_yet(tmp_path: Path) -> None:
    found = reader.kept_reports(tmp_path, ["rua@example.com", "example.com"], NOW, 5)
    assert (found.messages, found.reports) == (0, 0)


def test_an_address_leads_out_of_no_folder(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/x").write_bytes(mail(PLAIN.encode()))
    inner = tmp_path / "mail"
    inner.mkdir()
    for word in ("@..", "..@..", "a/../..@example.com", "@"):
        assert reader.kept_reports(inner, [word, "example.com"], 0, 5).messages == 0


def test_reading_ends_in_time(tmp_path: Path, keep: Callable[..., None]) -> None:
    for number in range(5):
        keep("rua@example.com", mail(feedback(number=str(number)).encode()))
    found = reader.kept_reports(tmp_path, ["rua@example.com", "example.com"], NOW, -1)
    assert (found.messages, found.skipped) == (0, 5)
