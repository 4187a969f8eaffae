"""What was refused for a name below one of ours, and for how long it is told."""

from __future__ import annotations

import pytest

from entrypoint.policy import refusals
from entrypoint.policy.decide import Envelope
from entrypoint.policy.refusals import Refusals, address_of

DAY = 86400.0
NEWS = "news.example.com"


def test_it_is_told_for_two_days_and_no_longer() -> None:
    found = Refusals()
    found.add(NEWS, Envelope(), 10 * DAY)
    assert len(found.listed(12 * DAY - 1)) == 1
    assert found.listed(12 * DAY) == []
    found.add(NEWS, Envelope(), 20 * DAY)
    found.add("else.example.com", Envelope(), 22 * DAY)
    assert [domain for domain, _ in found._found] == ["else.example.com"], "also without a look"


def test_the_last_of_those_that_came_as_often_is_first() -> None:
    found = Refusals()
    for at, name in enumerate(("a.example.com", "b.example.com", "c.example.com")):
        found.add(name, Envelope(), float(at))
    found.add("a.example.com", Envelope(), 9.0)
    assert [item["domain"][0] for item in found.listed(9.0)] == ["a", "c", "b"]


def test_a_sender_s_domain_is_cut_at_the_longest_that_there_is() -> None:
    found = Refusals()
    found.add(NEWS, Envelope(sender=f"<x@{'a' * 300}>"), 1.0)
    [item] = found.listed(1.0)
    assert item["envelope_domain"] == "a" * 253


def test_the_least_of_fifty_goes_for_another() -> None:
    found = Refusals()
    for number in range(refusals._MOST + 1):
        found.add(f"n{number}.example.com", Envelope(), float(number))
    names = [item["domain"] for item in found.listed(60.0)]
    assert len(names) == 50
    assert "n0.example.com" not in names


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("192.0.2.7:25", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:db8::1]:25", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("", ""),
    ],
)
def test_an_address_is_read_without_its_port(remote: str, address: str) -> None:
    assert address_of(remote) == address
