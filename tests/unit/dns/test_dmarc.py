"""DMARC policy discovery: the tree walk, what DNS cannot say, and the bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.common.names import Domain
from entrypoint.dns import dmarc
from entrypoint.dns.dmarc import Answer, LookupFailedError, Policies, Policy, walk


class Names:
    """TXT records by name; a name without any is NXDOMAIN, `None` is a server that fails."""

    def __init__(self, records: Mapping[str, str | None], exist: tuple[str, ...] = ()) -> None:
        self.records, self.exist, self.asked = records, exist, list[str]()

    async def __call__(self, name: str, kind: str) -> Answer:
        self.asked.append(f"{name} {kind}")
        if kind == "A":
            return Answer(exists=name in self.exist)
        if name not in self.records:
            return Answer(exists=False, ttl=60)
        found = self.records[name]
        if found is None:
            raise LookupFailedError
        return Answer(tuple(found.split("\n")), ttl=60)


def policy(domain: str, records: Mapping[str, str | None], *exist: str) -> Policy:
    return asyncio.run(dmarc.discover(Domain(domain), Names(records, exist)))[0]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=DMARC1; p=none", Policy.NONE),
        ("v=DMARC1; p=quarantine", Policy.QUARANTINE),
        ("v=DMARC1; P=Reject; rua=mailto:a@b.example", Policy.REJECT),
        ("v=DMARC1; p=reject; t=y", Policy.QUARANTINE),
        ("v=DMARC1; p=quarantine; t=y", Policy.NONE),
        ("v=DMARC1; p=reject\nv=spf1 -all", Policy.REJECT),
        ("v=DMARC1; p=reject\nv=DMARC1; p=none", Policy.NONE),
        ("v=DMARC1; rua=mailto:a@b.example", Policy.NONE),
        ("v=DMARC1; p=nonsense", Policy.NONE),
        ("p=reject", Policy.NONE),
    ],
)
def test_record_of_the_domain_itself(record: str, expected: Policy) -> None:
    assert policy("bank.example", {"_dmarc.bank.example": record}) is expected


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ({}, Policy.NONE),
        ({"_dmarc.bank.example": "v=DMARC1; p=reject"}, Policy.REJECT),
        ({"_dmarc.bank.example": "v=DMARC1; p=reject; sp=none"}, Policy.NONE),
        ({"_dmarc.bank.example": "v=DMARC1; p=none; sp=reject"}, Policy.REJECT),
        ({"_dmarc.bank.example": "v=DMARC1; p=none; np=reject"}, Policy.REJECT),
        ({"_dmarc.bank.example": "v=DMARC1; p=reject; np=none"}, Policy.NONE),
        ({"_dmarc.a.b.bank.example": "v=DMARC1; p=none",
          "_dmarc.bank.example": "v=DMARC1; p=reject"}, Policy.NONE),
        # The highest one is the organization's, but for one that says where it begins.
        ({"_dmarc.b.bank.example": "v=DMARC1; p=none",
          "_dmarc.bank.example": "v=DMARC1; p=reject"}, Policy.REJECT),
        ({"_dmarc.b.bank.example": "v=DMARC1; p=none; psd=n",
          "_dmarc.bank.example": "v=DMARC1; p=reject"}, Policy.NONE),
        ({"_dmarc.bank.example": "v=DMARC1; p=none",
          "_dmarc.example": "v=DMARC1; p=reject; psd=y"}, Policy.NONE),
        ({"_dmarc.example": "v=DMARC1; p=reject; psd=y"}, Policy.REJECT),
    ],
)  # fmt: skip
def test_record_of_a_name_above(records: Mapping[str, str], expected: Policy) -> None:
    assert policy("a.b.bank.example", records) is expected


def test_np_is_for_names_that_do_not_exist() -> None:
    records = {"_dmarc.bank.example": "v=DMARC1; p=none; np=reject"}
    assert policy("a.bank.example", records, "a.bank.example") is Policy.NONE


def test_walk_of_a_long_name_is_short() -> None:
    assert walk("a.b.example") == ("a.b.example", "b.example", "example")
    labels = [f"l{number}" for number in range(60)]
    found = walk(".".join(labels))
    assert len(found) == 8
    assert found[1] == ".".join(labels[-7:])


@given(st.lists(st.sampled_from(["a", "bb", "c3"]), min_size=1, max_size=40))
def test_each_walk_begins_at_the_domain_and_ends_at_the_top(labels: list[str]) -> None:
    found = walk(".".join(labels))
    assert (found[0], found[-1]) == (".".join(labels), labels[-1])
    assert len(found) <= 8


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_answers_are_kept_as_long_as_dns_allows() -> None:
    names, clock = Names({"_dmarc.bank.example": "v=DMARC1; p=reject"}), Clock()

    async def ask() -> None:
        policies = Policies(names, clock)
        for _ in range(3):
            assert await policies.of(Domain("bank.example")) is Policy.REJECT
        assert len(names.asked) == 1
        clock.now += 61
        await policies.of(Domain("bank.example"))
        assert len(names.asked) == 2

    asyncio.run(ask())


def test_failing_server_is_not_asked_again_for_a_minute() -> None:
    names, clock = Names({"_dmarc.bank.example": None}), Clock()

    async def ask() -> None:
        policies = Policies(names, clock)
        for _ in range(3):
            assert await policies.of(Domain("bank.example")) is Policy.UNKNOWN
        assert len(names.asked) == 1
        clock.now += 61
        await policies.of(Domain("bank.example"))
        assert len(names.asked) == 2

    asyncio.run(ask())


def test_silent_server_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmarc, "PATIENCE", 0.05)

    async def silent(_name: str, _kind: str) -> Answer:
        await asyncio.sleep(60)
        raise AssertionError

    assert asyncio.run(Policies(silent).of(Domain("bank.example"))) is Policy.UNKNOWN


def test_one_domain_s_names_do_not_take_all_places() -> None:
    release = asyncio.Event()
    asked = set[str]()

    async def slow(name: str, _kind: str) -> Answer:
        asked.add(name)
        await release.wait()
        return Answer()

    async def ask() -> None:
        policies = Policies(slow)
        waiting = [
            asyncio.create_task(policies.of(Domain(f"a{number}.attacker.example")))
            for number in range(100)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        other = asyncio.create_task(policies.of(Domain("bank.example")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "_dmarc.bank.example" in asked
        release.set()
        found = await asyncio.gather(*waiting)
        assert found.count(Policy.UNKNOWN) == 96
        assert await other is Policy.NONE
        assert not policies._under_way
        assert not policies._each

    asyncio.run(ask())


def test_many_names_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmarc, "_KEPT", 10)

    async def ask() -> None:
        policies = Policies(Names({}))
        for number in range(50):
            await policies.of(Domain(f"d{number}.example"))
        assert len(policies._known) == 10

    asyncio.run(ask())


def test_two_who_ask_at_once_share_one_question() -> None:
    names = Names({"_dmarc.bank.example": "v=DMARC1; p=reject"})

    async def ask() -> None:
        policies = Policies(names)
        found = await asyncio.gather(*(policies.of(Domain("bank.example")) for _ in range(20)))
        assert set(found) == {Policy.REJECT}
        assert len(names.asked) == 1

    asyncio.run(ask())
