"""SPF as a receiver evaluates it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from entrypoint.dns import spf
from entrypoint.dns.authoritative import Absent, Answer, Answers, Ask, Found, Unknown

V4, V6 = "203.0.113.10", "2001:db8::10"
Zone = Mapping[tuple[str, str], str | Answer]


def asks(zone: Zone) -> Ask:
    def ask(name: str, kind: str) -> Answers:
        said = zone.get((name, kind), Absent())
        return {"ns": Found((said,)) if isinstance(said, str) else said}

    return ask


def result(record: str, address: str = V4, zone: Zone | None = None) -> str:
    ask = asks({("example.com", "TXT"): record, **(zone or {})})
    return spf.evaluate(address, "example.com", ask)[0]


SLOW = Unknown("no answer in time")


@pytest.mark.parametrize(
    ("record", "address", "expected"),
    [
        ("v=spf1 ip4:203.0.113.10 -all", V4, "pass"),
        ("v=spf1 ip4:203.0.113.10 -all", V6, "fail"),
        ("v=spf1 ip6:2001:db8::/64 ~all", V6, "pass"),
        ("v=spf1 ip6:2001:db8::/64 ~all", V4, "softfail"),
        ("v=spf1 ?all", V4, "neutral"),
        ("v=spf1", V4, "neutral"),
        ("v=spf1 +all", V6, "pass"),
        ("something else", V4, "none"),
        ("v=spf1 nonsense", V4, "permerror"),
    ],
)
def test_results(record: str, address: str, expected: str) -> None:
    assert result(record, address) == expected


@pytest.mark.parametrize(
    ("record", "zone", "expected"),
    [
        ("v=spf1 a -all", {("example.com", "A"): V4}, "pass"),
        ("v=spf1 mx -all", {("example.com", "MX"): "10 mx.x.", ("mx.x", "A"): V4}, "pass"),
        ("v=spf1 ptr -all", {
            ("10.113.0.203.in-addr.arpa", "PTR"): "a.example.com.", ("a.example.com", "A"): V4
        }, "pass"),
        ("v=spf1 include:b.x -all", {("b.x", "TXT"): "v=spf1 ip4:203.0.113.0/24"}, "pass"),
        ("v=spf1 redirect=b.x", {("b.x", "TXT"): "v=spf1 -all"}, "fail"),
        ("v=spf1 exists:%{i}.l.x -all", {("203.0.113.10.l.x", "A"): "127.0.0.2"}, "pass"),
        # Nobody could say: never read as absent.
        ("v=spf1 a -all", {("example.com", "A"): SLOW}, "temperror"),
        ("v=spf1 include:b.x -all", {("b.x", "TXT"): SLOW}, "temperror"),
        ("v=spf1 mx -all", {("example.com", "MX"): "10 mx.x.", ("mx.x", "A"): SLOW}, "temperror"),
        # Not needed, not asked for.
        ("v=spf1 ip4:203.0.113.10 a -all", {("example.com", "A"): SLOW}, "pass"),
        # What no server answers, but a caller may.
        ("v=spf1 mx -all", {("example.com", "MX"): "nonsense"}, "fail"),
        ("v=spf1 a -all", {("example.com", "A"): "nonsense"}, "permerror"),
    ],
)  # fmt: skip
def test_look_ups(record: str, zone: Zone, expected: str) -> None:
    assert result(record, zone=zone) == expected


def test_reasons_are_without_the_library_s_own_words() -> None:
    def reason(record: str, zone: Zone) -> str:
        ask = asks({("example.com", "TXT"): record, **zone})
        return spf.evaluate(V4, "example.com", ask)[1]

    assert reason("v=spf1 a", {("example.com", "A"): SLOW}) == "no answer in time"
    assert reason("v=spf1 ipv4:1.2.3.4", {}) == "Unknown mechanism found: ipv4:1.2.3.4"


def test_ten_look_ups_are_the_limit() -> None:
    """RFC 7208 4.6.4."""
    zone = {(f"s{number}.example", "TXT"): "v=spf1 -all" for number in range(11)}
    includes = [f"include:s{number}.example" for number in range(11)]
    assert result(f"v=spf1 {' '.join(includes[:10])} ip4:{V4}", zone=zone) == "pass"
    assert result(f"v=spf1 {' '.join(includes)} ip4:{V4}", zone=zone) == "permerror"


def test_two_look_ups_may_find_nothing() -> None:
    assert result(f"v=spf1 a:x.example a:y.example ip4:{V4}") == "pass"
    assert result(f"v=spf1 a:x.example a:y.example a:z.example ip4:{V4}") == "permerror"


def test_callers_do_not_see_each_other_s_answers() -> None:
    """The library has one resolver for the whole process."""

    def evaluated(number: int) -> str:
        address = f"203.0.113.{number}"
        ask = asks({
            ("example.com", "TXT"): "v=spf1 include:b.x -all",
            ("b.x", "TXT"): f"v=spf1 ip4:{address} -all",
        })  # fmt: skip
        return spf.evaluate(address, "example.com", ask)[0]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(evaluated, range(1, 200))) == {"pass"}
