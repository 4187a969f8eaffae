"""Addresses that mail leaves from: steady for an operator, and warmed up."""

from __future__ import annotations

import json

from entrypoint.delivery.warmup import Warmup
from entrypoint.services.sources import Sources

V4 = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
V6 = ("2001:db8::1",)
DAY = 86400.0
NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def first_ceiling() -> int:
    found = Warmup(V4[0], "any").ceiling(NOW)
    assert found is not None
    return found


def test_operator_sees_one_address_and_all_are_used() -> None:
    sources = Sources(V4, warmup=False)
    chosen = {name: sources.choose(name, "198.51.100.7") for name in map(str, range(60))}
    assert set(chosen.values()) == set(V4)
    again = Sources(V4, warmup=False)
    assert all(again.choose(name, "198.51.100.8") == source for name, source in chosen.items())


def test_address_is_of_the_target_s_family() -> None:
    sources = Sources((*V4, *V6), warmup=False)
    assert sources.choose("google", "2001:db8:9::7") == V6[0]
    assert sources.choose("google", "198.51.100.7") in V4


def test_kernel_chooses_where_no_address_is_set() -> None:
    sources = Sources(V4, warmup=True)
    assert sources.choose("google", "2001:db8:9::7") == ""
    for _ in range(100_000):
        sources.sent("", "google")
    assert sources.choose("google", "2001:db8:9::7") == ""


def test_ceiling_of_a_new_address_holds_to_the_message_and_over_a_restart() -> None:
    clock = Clock()
    sources = Sources(V4[:1], warmup=True, clock=clock)
    sent = 0
    while source := sources.choose("any", "198.51.100.7"):
        sources.sent(source, "any")
        sent += 1
        if sent == first_ceiling() // 2:
            kept = json.loads(json.dumps(sources.to_json()))
            sources = Sources(V4[:1], warmup=True, clock=clock)
            sources.load(kept)
    assert sent == first_ceiling()
    assert sources.choose("another", "198.51.100.7") == V4[0]
    clock.now += DAY
    assert sources.choose("any", "198.51.100.7") == V4[0]


def test_what_came_to_nothing_does_not_count() -> None:
    sources = Sources(V4[:1], warmup=True, clock=Clock())
    for _ in range(3 * first_ceiling()):
        assert sources.choose("any", "198.51.100.7") == V4[0]
        sources.sent(V4[0], "any")
        sources.unsent(V4[0], "any")


def test_mail_past_a_ceiling_leaves_by_another_address() -> None:
    sources = Sources(V4[:2], warmup=True, clock=Clock())
    used = []
    while source := sources.choose("any", "198.51.100.7"):
        sources.sent(source, "any")
        used.append(source)
    assert len(used) == 2 * first_ceiling()
    half = first_ceiling()
    assert len(set(used[:half])) == len(set(used[half:])) == 1
    assert set(used) == set(V4[:2])


def test_people_read_how_far_an_address_has_come() -> None:
    sources = Sources(V4[:1], warmup=True, clock=Clock())
    sources.sent(V4[0], "any")
    sources.deferred("any")
    assert sources.words("any") == {
        V4[0]: f"day 1, 1 of {first_ceiling()} today, 1 put off; the ceiling stays"
    }
    assert sources.words("another") == {}


def test_without_warm_up_nothing_is_counted() -> None:
    sources = Sources(V4, warmup=False)
    sources.sent(V4[0], "any")
    sources.load([{"nonsense": True}])
    assert sources.to_json() == []
