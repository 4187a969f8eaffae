"""Records as text; tests/cases/env has whole outputs."""

from __future__ import annotations

import json

from entrypoint.common.names import Domain
from entrypoint.dns.records import Record, RecordType
from entrypoint.zone import render
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG

A = Record(EXAMPLE_COM, "smtp.example.com", RecordType.A, "203.0.113.10", "The address.")
LATER = Record(EXAMPLE_ORG, "example.org", RecordType.MX, "10 smtp.example.com.", "Mail.")
AGAIN = Record(EXAMPLE_COM, "example.com", RecordType.TXT, "v=spf1 ~all", "SPF.", optional=True)
PTR = Record(None, "10.113.0.203.in-addr.arpa", RecordType.PTR, "smtp.example.com.", "Back.")
PTR6 = Record(
    None, "0.1" + ".0" * 22 + ".8.b.d.0.1.0.0.2.ip6.arpa", RecordType.PTR, "smtp.example.com.", "6."
)  # fmt: skip
NEW = Record(EXAMPLE_COM, "smtp.example.com", RecordType.AAAA, None, "The other address.")


def test_a_zone_stands_together_and_pointers_stand_last() -> None:
    table = render.table([PTR, A, LATER, AGAIN])
    heads = [line for line in table.splitlines() if line.startswith(("DNS of", "Reverse"))]
    assert heads == [
        "DNS of example.com", "DNS of example.org", "Reverse DNS, at the provider of the server",
    ]  # fmt: skip
    assert table.index("v=spf1") < table.index("DNS of example.org")


def test_a_record_in_the_table() -> None:
    assert render.table([AGAIN]) == (
        "DNS of example.com\n"
        "==================\n"
        "\n"
        f"TXT   @{'optional  TTL 3600':>73}\n"
        "      v=spf1 ~all\n"
        "      SPF.\n"
    )


def test_a_long_name_keeps_its_line_to_itself() -> None:
    name = f"{'a' * 62}.{'b' * 20}.example.com"
    lines = render.table(
        [Record(EXAMPLE_COM, name, RecordType.A, "203.0.113.1", "x.")]
    ).splitlines()
    assert lines[3] == f"A     {'a' * 62}.{'b' * 20}"
    just = Record(EXAMPLE_COM, f"{'a' * 63}.example.com", RecordType.A, "203.0.113.1", "x.")
    assert len(render.table([just]).splitlines()[3]) <= 80


def test_pointers_are_asked_for_by_address() -> None:
    table = render.table([PTR, PTR6])
    assert "PTR   203.0.113.10 " in table
    assert "PTR   2001:db8::10 " in table


def test_a_long_text_stands_whole_and_cut() -> None:
    value = "v=DKIM1; k=rsa; p=" + "A" * 392
    table = render.table([Record(EXAMPLE_COM, "s.example.com", RecordType.TXT, value, "Key.")])
    lines = table.splitlines()
    assert f"      {value}" in lines
    cut = [line.strip() for line in lines if line.startswith('      "')]
    assert "".join(part.strip('"') for part in cut) == value
    assert max(map(len, cut)) <= 74


def test_unknown_values_say_what_to_set() -> None:
    table, zone = render.table([NEW]), render.zone([NEW])
    assert "      <this server's public IPv6 address: set PUBLIC_IPV6 in .env>\n" in table
    assert "; this server's public IPv6 address: set PUBLIC_IPV6 in .env\n" in zone
    assert json.loads(render.as_json([NEW]))[0]["value"] is None


def test_zone_fragments() -> None:
    assert render.zone([A, LATER, AGAIN, PTR]) == (
        "$ORIGIN example.com.\n"
        "; The address.\n"
        "smtp\t3600\tIN\tA\t203.0.113.10\n"
        "; SPF. (optional)\n"
        '@\t3600\tIN\tTXT\t"v=spf1 ~all"\n'
        "\n"
        "$ORIGIN example.org.\n"
        "; Mail.\n"
        "@\t3600\tIN\tMX\t10 smtp.example.com.\n"
        "\n"
        "; Reverse DNS is set at the provider of the server:\n"
        "; 10.113.0.203.in-addr.arpa. IN PTR smtp.example.com.\n"
    )


def test_json_objects() -> None:
    assert json.loads(render.as_json([AGAIN, PTR])) == [
        {
            "zone": "example.com", "name": "example.com", "type": "TXT", "ttl": 3600,
            "value": "v=spf1 ~all", "strings": ["v=spf1 ~all"], "optional": True, "purpose": "SPF.",
        },
        {
            "zone": None, "name": "10.113.0.203.in-addr.arpa", "type": "PTR", "ttl": 3600,
            "value": "smtp.example.com.", "strings": None, "optional": False, "purpose": "Back.",
        },
    ]  # fmt: skip


def test_long_purposes_wrap() -> None:
    record = Record(Domain("example.com"), "example.com", RecordType.A, "203.0.113.1", "word " * 60)
    assert max(map(len, render.table([record]).splitlines())) <= 80
