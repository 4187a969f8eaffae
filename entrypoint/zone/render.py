"""Records as text: for people, for zone files, for programs."""

from __future__ import annotations

import ipaddress
import json
import textwrap
from collections.abc import Sequence
from itertools import groupby

from entrypoint.common.names import Domain
from entrypoint.dns.records import Record, RecordType
from entrypoint.zone.judge import Status, Verdict
from entrypoint.zone.required import Addresses

WIDTH = 80


def table(records: Sequence[Record], *, colour: bool = False) -> str:
    """For a person with a DNS console in the next window.

    80 columns, but for a TXT's text: it stands whole on a line of its own, to be copied.
    """
    bold, dim, end = ("\033[1m", "\033[2m", "\033[0m") if colour else ("", "", "")
    out: list[str] = []
    for zone, group in _zones(records):
        title = f"DNS of {zone}" if zone else "Reverse DNS, at the provider of the server"
        out += [f"{bold}{title}{end}", "=" * len(title), ""]
        for record in group:
            name = record.name if zone is None else record.relative_name
            flags = ["optional"] if record.optional else []
            head = f"{record.type.value:<5} {_pointed_at(record) or name}"
            ttl = f"TTL {record.ttl}"
            note = "  ".join([*flags, ttl])
            # A name too long for the line keeps the line to itself.
            gap = WIDTH - len(head) - len(note)
            out.append(f"{bold}{head}{end}" + (f"{' ' * gap}{dim}{note}{end}" if gap > 1 else ""))
            out.append(f"      {_value(record)}")
            if record.type is RecordType.TXT and len(record.strings) > 1:
                out.append(f"{dim}      in a zone file, as strings of at most 255:{end}")
                out += [f'      "{part}"' for text in record.strings for part in _cut(text)]
            out += [
                f"{dim}{line}{end}"
                for line in textwrap.wrap(
                    record.purpose, WIDTH, initial_indent="      ", subsequent_indent="      "
                )
            ]
            out.append("")
    return "\n".join(out).rstrip() + "\n"


def origins(addresses: Addresses) -> str:
    """Where this server's addresses are known from, a line each; what is not known is left out."""
    known = ((addresses.ipv4, addresses.ipv4_from), (addresses.ipv6, addresses.ipv6_from))
    lines = [
        f"This server's IPv{address.version} address: {address}, {said}."
        for address, said in known
        if address is not None and said
    ]
    for item in addresses.outbound:
        setting = f"as OUTBOUND_IPV{item.local.version} says"
        seen = "an address that is not known" if item.seen is None else item.seen
        others = "" if item.seen == item.local else f"; others see {seen}"
        lines.append(f"Mail leaves from {item.local}, {setting}{others}.")
    return "".join(f"{line}\n" for line in lines)


def _cut(text: str) -> list[str]:
    """A string as shorter ones that fit a screen; a TXT is the same however it is cut."""
    return [text[start : start + 70] for start in range(0, len(text), 70)]


def zone(records: Sequence[Record]) -> str:
    """One fragment a domain, without SOA and NS, to be included in its zone file (RFC 1035 5)."""
    out: list[str] = []
    for name, group in _zones(records):
        if name is None:
            out.append("; Reverse DNS is set at the provider of the server:")
            out += [f"; {record.name}. IN PTR {record.value}" for record in group]
            continue
        out.append(f"$ORIGIN {name}.")
        for record in group:
            optional = " (optional)" if record.optional else ""
            out.append(f"; {record.purpose}{optional}")
            out.append(record.zone_line if record.value is not None else f"; {_unknown(record)}")
        out.append("")
    return "\n".join(out) + "\n"


def as_json(records: Sequence[Record]) -> str:
    """A list of objects; `value` is null while an address is not known."""
    return json.dumps(
        [
            {
                "zone": record.zone,
                "name": record.name,
                "type": record.type.value,
                "ttl": record.ttl,
                "value": record.value,
                "strings": list(record.strings) if record.type is RecordType.TXT else None,
                "optional": record.optional,
                "purpose": record.purpose,
            }
            for record in records
        ],
        indent=2,
    )


_MARKS = {
    Status.OK: ("ok", "\033[32m"),
    Status.MISSING: ("MISSING", "\033[31m"),
    Status.DIFFERENT: ("DIFFERENT", "\033[31m"),
    Status.UNKNOWN: ("unknown", "\033[33m"),
}


def verdicts(found: Sequence[Verdict], *, colour: bool = False) -> str:
    """What a check of DNS found, a line for each record, more where something is to be done."""
    out: list[str] = []
    for verdict in found:
        record = verdict.record
        mark, start = _MARKS[verdict.status]
        if record.optional and verdict.status in (Status.MISSING, Status.DIFFERENT):
            mark, start = mark.lower(), ""
        end = "\033[0m" if colour and start else ""
        optional = "  (optional)" if record.optional else ""
        shown = _pointed_at(record) or record.name
        out.append(
            f"{start if colour else ''}{mark:<9}{end}  {record.type.value:<4}  {shown}{optional}"
        )
        lines = []
        if verdict.status is not Status.OK:
            lines += [f"found: {value}" for value in verdict.found]
        lines += [f"{verdict.reason}."] if verdict.reason else []
        lines += [f"note: {verdict.note}."] if verdict.note else []
        if verdict.fix and verdict.status is not Status.OK:
            lines.append(f"fix: {verdict.fix}")
        out += [f"           {_printable(line)}" for line in lines]
    return "\n".join(out) + "\n"


def _printable(text: str) -> str:
    """What others have written into DNS may hold what a terminal obeys."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def verdicts_as_json(found: Sequence[Verdict]) -> str:
    """The verdicts as a list of objects. Its keys are an interface: scripts read them."""
    return json.dumps(
        [
            {
                "name": verdict.record.name,
                "type": verdict.record.type.value,
                "status": verdict.status.value,
                "optional": verdict.record.optional,
                "expected": verdict.record.value,
                "found": list(verdict.found),
                "reason": verdict.reason,
                "fix": verdict.fix,
                "note": verdict.note,
            }
            for verdict in found
        ],
        indent=2,
    )


def _zones(records: Sequence[Record]) -> list[tuple[Domain | None, list[Record]]]:
    """Records by zone; zones in the order of their first record, PTRs last."""
    order = {record.zone: index for index, record in reversed(list(enumerate(records)))}
    ordered = sorted(records, key=lambda record: (record.zone is None, order[record.zone]))
    return [(key, list(group)) for key, group in groupby(ordered, key=lambda record: record.zone)]


def _pointed_at(record: Record) -> str:
    """A PTR's address, which is what providers ask for."""
    if record.type is not RecordType.PTR or not record.name.endswith(".arpa"):
        return ""
    labels = record.name.split(".")[:-2][::-1]
    if record.name.endswith(".in-addr.arpa"):
        return ".".join(labels)
    return str(ipaddress.IPv6Address(int("".join(labels), 16)))


def _value(record: Record) -> str:
    return f"<{_unknown(record)}>" if record.value is None else record.value


def _unknown(record: Record) -> str:
    family = "IPv6" if record.type is RecordType.AAAA else "IPv4"
    return f"this server's public {family} address: set PUBLIC_{family.upper()} in .env"
