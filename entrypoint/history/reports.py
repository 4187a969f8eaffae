"""DMARC aggregate reports (RFC 7489 7.2 and appendix C): from a message to counts by source.

Anybody may write to a report address, so all of it is taken for hostile: sizes are bounded before
and after unpacking, a document type (and with it every entity) is refused, texts are cut and made
printable. What a report says is a claim of its sender's.
"""

from __future__ import annotations

import io
import ipaddress
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from email import message_from_bytes, policy
from typing import Any, Self
from xml.parsers import expat

from entrypoint.chasquid.maillog import clean

MAX_MESSAGE = 20 << 20  # bytes
_MAX_XML = 32 << 20  # bytes, unpacked
_MAX_PARTS = 20  # of a message
_MAX_FILES = 20  # of a zip archive
_MAX_ROWS = 20_000
_MAX_ELEMENTS = 1_000_000
_MAX_DEPTH = 12  # of elements; the schema needs seven
_MAX_TEXT = 200  # characters
_MAX_COUNT = 10**9
_MAX_SOURCES = 50
_MAX_REPORTERS = 20
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_BEGINNINGS = (_GZIP, _ZIP, b"<?xml", b"\xef\xbb\xbf<?xml", b"<feedback")


@dataclass(frozen=True)
class Row:
    """So many messages from one address. Passed: DMARC, by DKIM or by SPF."""

    source: str
    count: int
    dkim: bool
    spf: bool

    @property
    def passed(self) -> bool:
        return self.dkim or self.spf


@dataclass(frozen=True)
class Report:
    """One receiver's account of one domain's mail."""

    reporter: str
    id: str
    domain: str
    rows: tuple[Row, ...]


def read(raw: bytes) -> tuple[Report, ...]:
    """The reports in a message. Raises ValueError if there is none, or if one is damaged."""
    if len(raw) > MAX_MESSAGE:
        msg = "the message is too large for a report"
        raise ValueError(msg)
    reports = tuple(parse(unpack(blob)) for blob in _attachments(raw))
    if not reports:
        msg = "no report is attached"
        raise ValueError(msg)
    return reports


def _attachments(raw: bytes) -> Iterator[bytes]:
    """What may be a report, known by its first bytes: senders name the type as they like."""
    message = message_from_bytes(raw, policy=policy.compat32)
    for number, part in enumerate(message.walk()):
        if number >= _MAX_PARTS:
            return
        if part.is_multipart():
            continue
        content = part.get_payload(decode=True)
        if isinstance(content, bytes) and content[:100].lstrip().startswith(_BEGINNINGS):
            yield content


def unpack(blob: bytes) -> bytes:
    """The XML: as it is, or out of gzip or zip. Raises ValueError, also if it is too large."""
    try:
        if blob.startswith(_GZIP):
            content = zlib.decompressobj(wbits=31).decompress(blob, _MAX_XML + 1)
        elif blob.startswith(_ZIP):
            content = _unzip(blob)
        else:
            content = blob.lstrip()
    except (zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        msg = f"it cannot be unpacked: {type(error).__name__}"
        raise ValueError(msg) from None
    if len(content) > _MAX_XML:
        msg = f"it is larger than {_MAX_XML >> 20} MB, unpacked"
        raise ValueError(msg)
    return content


def _unzip(blob: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        for entry in archive.infolist()[:_MAX_FILES]:
            # Other methods may take any amount of memory.
            plain = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if plain and entry.filename.lower().endswith(".xml"):
                with archive.open(entry) as stream:
                    return stream.read(_MAX_XML + 1)
    msg = "there is no XML file in the archive"
    raise ValueError(msg)


def parse(xml: bytes) -> Report:
    """Raises ValueError for what is no report, or none that could be meant well."""
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(xml, True)
    except (expat.ExpatError, LookupError) as error:  # an encoding that nobody knows
        msg = f"it is not XML: {clean(str(error))}"
        raise ValueError(msg) from None
    return reader.report()


@dataclass
class _Reader:
    """Keeps the few texts that are wanted; the tree is never built."""

    _elements: int = 0
    _path: list[str] = field(default_factory=list)
    _text: str = ""
    _header: dict[str, str] = field(default_factory=dict)
    _row: dict[str, str] = field(default_factory=dict)
    _rows: list[Row] = field(default_factory=list)

    def doctype(self, *_args: object) -> None:
        msg = "it has a document type, as an attack would"
        raise ValueError(msg)

    def start(self, name: str, _attributes: object) -> None:
        self._path.append(name.rpartition(":")[2])
        self._text = ""
        self._elements += 1
        if len(self._path) > _MAX_DEPTH or self._elements > _MAX_ELEMENTS:
            msg = "its elements are too many, or nested too deeply"
            raise ValueError(msg)

    def text(self, text: str) -> None:
        if len(self._text) < _MAX_TEXT:
            self._text += text

    def end(self, _name: str) -> None:
        path = "/".join(self._path[1:])
        value = clean(self._text.strip())[:_MAX_TEXT]
        self._text = ""
        self._path.pop()
        if path in _HEADER:
            self._header[_HEADER[path]] = value
        elif path in _ROW:
            self._row[_ROW[path]] = value
        elif path == "record":
            self._rows.append(_row(self._row))
            self._row = {}
            if len(self._rows) > _MAX_ROWS:
                msg = f"it has more than {_MAX_ROWS} records"
                raise ValueError(msg)

    def report(self) -> Report:
        try:
            return Report(
                reporter=self._header["reporter"],
                id=self._header["id"],
                domain=self._header["domain"].lower().removesuffix("."),
                rows=tuple(self._rows),
            )
        except KeyError as error:
            msg = f"it is no report: there is no {error.args[0]}"
            raise ValueError(msg) from None


_HEADER = {
    "report_metadata/org_name": "reporter",
    "report_metadata/report_id": "id",
    "policy_published/domain": "domain",
}
_ROW = {
    "record/row/source_ip": "source",
    "record/row/count": "count",
    "record/row/policy_evaluated/dkim": "dkim",
    "record/row/policy_evaluated/spf": "spf",
}


def _row(found: dict[str, str]) -> Row:
    try:
        source = str(ipaddress.ip_address(found["source"]))
        count = int(found["count"])
    except (KeyError, ValueError):
        msg = "a record has no source address or no count"
        raise ValueError(msg) from None
    if not 0 <= count <= _MAX_COUNT:
        msg = "a record has no sensible count"
        raise ValueError(msg)
    return Row(source, count, found.get("dkim") == "pass", found.get("spf") == "pass")


@dataclass(frozen=True)
class Source:
    """What receivers saw come from one address under one domain's name."""

    domain: str
    address: str
    passed: int
    failed: int


@dataclass(frozen=True)
class Summary:
    """`messages` were looked at and `unreadable` of them held no report; `skipped` were too many.

    `sources` has the worst, those that failed most, first.
    """

    messages: int
    unreadable: int
    skipped: int
    reports: int
    reporters: tuple[str, ...]
    sources: tuple[Source, ...]
    passed: int
    failed: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises KeyError or TypeError for what to_json did not make."""
        sources = tuple(Source(**item) for item in content.pop("sources"))
        reporters = tuple(content.pop("reporters"))
        return cls(sources=sources, reporters=reporters, **content)


def summarise(messages: Iterable[bytes], domains: Collection[str]) -> Summary:
    """Count what is said of these domains; a report that came twice counts once."""
    seen: set[tuple[str, str, str]] = set()
    counts: dict[tuple[str, str], list[int]] = {}
    reporters: dict[str, None] = {}
    looked_at = unreadable = 0
    for raw in messages:
        looked_at += 1
        try:
            reports = read(raw)
        except (ValueError, LookupError, RecursionError):  # what the e-mail package may raise
            unreadable += 1
            continue
        for report in reports:
            key = (report.reporter, report.id, report.domain)
            if key in seen or report.domain not in domains:
                continue
            seen.add(key)
            reporters[report.reporter] = None
            for row in report.rows:
                count = counts.setdefault((report.domain, row.source), [0, 0])
                count[0 if row.passed else 1] += row.count
    worst = sorted(counts, key=lambda key: (-counts[key][1], -counts[key][0], key))
    return Summary(
        messages=looked_at,
        unreadable=unreadable,
        skipped=0,
        reports=len(seen),
        reporters=tuple(reporters)[:_MAX_REPORTERS],
        sources=tuple(Source(*key, *counts[key]) for key in worst[:_MAX_SOURCES]),
        passed=sum(count[0] for count in counts.values()),
        failed=sum(count[1] for count in counts.values()),
    )
