"""Do DNS's answers mean what they must? tests/cases/dns has whole outputs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from entrypoint.dns import spf
from entrypoint.dns.authoritative import Absent, Answer, Answers, Ask, Found, Unknown
from entrypoint.dns.policies import Spf
from entrypoint.dns.records import Record, RecordType, Role
from entrypoint.keys.dkim import Algorithm
from entrypoint.state.load import DomainState, State
from entrypoint.zone.judge import Status, Verdict, check, judge
from entrypoint.zone.required import Addresses, required
from tests.unit.kit import EXAMPLE_COM, asked, loaded_key

BOTH = Addresses(IPv4Address("203.0.113.10"), IPv6Address("2001:db8::10"))
STATE = State(
    domains={
        EXAMPLE_COM: DomainState(
            keys=(loaded_key(Algorithm.RSA, "t1r"), loaded_key(Algorithm.ED25519, "t1e"))
        )
    }
)
SETTINGS = asked(DKIM_KEYS="rsa2048,ed25519", DMARC_RUA="d@reports.example.net")
RECORDS = required(SETTINGS, STATE, BOTH)
SLOW = Unknown("no answer in time")


def right(name: str, kind: str) -> Answer:
    """What a zone says in which everything is as it must be."""
    values = [item.value for item in RECORDS if (item.name, item.type.value) == (name, kind)]
    return Found(tuple(value for value in values if value is not None)) if values else Absent()


def by_servers(*servers: Callable[[str, str], Answer]) -> Ask:
    def ask(name: str, kind: str) -> Answers:
        return {
            f"ns{number}.example.net": server(name, kind) for number, server in enumerate(servers)
        }

    return ask


def says(answer: Answer) -> Callable[[str, str], Answer]:
    return lambda _name, _kind: answer


def named(role: Role, name: str = "") -> Record:
    return next(item for item in RECORDS if item.role is role and name in ("", item.name))


DKIM = named(Role.DKIM)


def test_every_role_is_among_the_records() -> None:
    assert {item.role for item in RECORDS} == set(Role)


def test_a_right_zone_is_right() -> None:
    for item in check(RECORDS, BOTH, by_servers(right, right)):
        assert item.status is Status.OK, item
        assert not item.note


def test_an_empty_zone_lacks_everything() -> None:
    for item in check(RECORDS, BOTH, by_servers(says(Absent()))):
        assert item.status is Status.MISSING
        assert item.record.value
        assert item.record.value in item.fix
        assert item.is_wrong is not item.record.optional


REASONS = st.text(min_size=1, max_size=20)


@given(st.lists(REASONS, min_size=1, max_size=3), st.booleans())
def test_servers_that_cannot_be_asked_prove_nothing(reasons: list[str], every: bool) -> None:
    ask = by_servers(*(says(Unknown(reason)) for reason in reasons))
    for record in RECORDS:
        verdict = judge(record, BOTH, ask, every=every)
        assert verdict.status is Status.UNKNOWN
        assert verdict.reason in reasons
        assert not verdict.is_wrong


@given(st.sets(st.sampled_from(sorted({(item.name, item.type.value) for item in RECORDS}))))
def test_whatever_cannot_be_asked_makes_nothing_wrong(silent: set[tuple[str, str]]) -> None:
    """SPF refers to other records: if those are not known, nor is whether it is right."""

    def server(name: str, kind: str) -> Answer:
        return SLOW if (name, kind) in silent else right(name, kind)

    for item in check(RECORDS, BOTH, by_servers(server)):
        assert item.status in (Status.OK, Status.UNKNOWN)
        if (item.record.name, item.record.type.value) in silent:
            assert item.status is Status.UNKNOWN


# Texts like those that people enter, and any other.
TEXTS = st.one_of(
    st.text(max_size=60),
    st.builds(
        "{}{}".format,
        st.sampled_from(
            ["v=spf1 ", "v=spf1 include:", "v=spf1 a:%{", "v=DKIM1; p=", "v=DMARC1; p=none; rua=",
             "v=TLSRPTv1; ", "10 ", "0 1 465 ", '"v=spf1', "v=DKIM1; k=rsa; p=AAAA", "."]
        ),
        st.text(max_size=40),
    ),
)  # fmt: skip
ANSWERS = st.one_of(
    st.lists(TEXTS, min_size=1, max_size=3).map(lambda values: Found(tuple(sorted(values)))),
    st.just(Absent()),
    st.just(SLOW),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.type.value}-{record.name}")
@given(answers=st.lists(ANSWERS, min_size=1, max_size=3), others=st.booleans())
def test_any_answer_can_be_judged(record: Record, answers: list[Answer], others: bool) -> None:
    """None raises, and what is wrong says why and what to do."""

    def ask(name: str, kind: str) -> Answers:
        own = (name, kind) == (record.name, record.type.value)
        found = answers if own or not others else [right(name, kind)]
        return {f"ns{number}": answer for number, answer in enumerate(found)}

    verdict = judge(record, BOTH, ask)
    assert verdict.record == record
    if verdict.status is Status.OK:
        assert not verdict.fix
        assert any(isinstance(answer, Found) for answer in answers)
    elif verdict.status is Status.UNKNOWN:
        assert verdict.reason
    else:
        assert verdict.fix
        assert verdict.status is Status.MISSING or (verdict.found and verdict.reason)
    if all(isinstance(answer, Absent) for answer in answers):
        assert verdict.status is Status.MISSING


def test_the_same_thing_is_asked_once() -> None:
    seen: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()

    def server(name: str, kind: str) -> Answer:
        with lock:
            seen[name, kind] += 1
        return right(name, kind)

    found = check(RECORDS, BOTH, by_servers(server))
    assert [item.record for item in found] == list(RECORDS)
    # Two threads may come to ask at the same moment, not again later.
    assert max(seen.values()) <= 4
    assert sum(seen.values()) < 3 * len(RECORDS)


# Several servers


WRONG = Found(("v=DKIM1; k=rsa; p=AAAA",))


@pytest.mark.parametrize(
    ("servers", "status", "strictly"),
    [
        ((right,), Status.OK, Status.OK),
        ((right, right), Status.OK, Status.OK),
        # One lags behind: a resolver may ask it.
        ((right, says(Absent())), Status.MISSING, Status.MISSING),
        ((says(Absent()), right), Status.MISSING, Status.MISSING),
        ((right, says(WRONG)), Status.DIFFERENT, Status.DIFFERENT),
        ((says(WRONG), says(Absent()), right), Status.MISSING, Status.MISSING),
        # One cannot be asked: the others' word holds, but not where all have to be sure.
        ((right, says(SLOW)), Status.OK, Status.UNKNOWN),
        ((says(SLOW), right), Status.OK, Status.UNKNOWN),
        ((says(SLOW), says(Absent())), Status.MISSING, Status.MISSING),
        ((says(SLOW), says(WRONG)), Status.DIFFERENT, Status.DIFFERENT),
        ((says(SLOW), says(SLOW)), Status.UNKNOWN, Status.UNKNOWN),
    ],
)
def test_servers_of_many_minds(
    servers: Sequence[Callable[[str, str], Answer]], status: Status, strictly: Status
) -> None:
    assert judge(DKIM, BOTH, by_servers(*servers)).status is status
    assert judge(DKIM, BOTH, by_servers(*servers), every=True).status is strictly


def test_which_servers_differ_is_said() -> None:
    verdict = judge(DKIM, BOTH, by_servers(right, says(Absent()), says(WRONG), right, says(SLOW)))
    assert verdict.reason == (
        "right at ns0.example.net, ns3.example.net, "
        "but not at ns1.example.net, ns2.example.net"
    )  # fmt: skip
    # Nobody has it right: then that is what is wrong, not that they differ.
    verdict = judge(DKIM, BOTH, by_servers(says(WRONG), says(Absent())))
    assert "right at" not in verdict.reason


def test_a_silent_server_is_noted() -> None:
    verdict = judge(DKIM, BOTH, by_servers(right, says(SLOW)))
    assert verdict.note == "not every name server could be asked: no answer in time"


def test_spf_is_evaluated_as_each_server_has_it() -> None:
    """The first one's answer must not stand for the others'."""
    record = named(Role.SPF, "example.com")

    def old(name: str, kind: str) -> Answer:
        mine = (name, kind) == (record.name, "TXT")
        return Found(("v=spf1 -all",)) if mine else right(name, kind)

    for servers, behind in (((old, right), "ns0"), ((right, old), "ns1")):
        verdict = judge(record, BOTH, by_servers(*servers))
        assert verdict.status is Status.DIFFERENT
        assert verdict.found == ("v=spf1 -all",)
        assert verdict.reason.endswith(f"not at {behind}.example.net")


# Addresses that are not known


@pytest.mark.parametrize(
    ("addresses", "version"),
    [
        (Addresses(None, BOTH.ipv6), "4"),
        (Addresses(BOTH.ipv4, None), "6"),
    ],
)
def test_what_depends_on_an_unknown_address_is_unknown(addresses: Addresses, version: str) -> None:
    records = required(SETTINGS, STATE, addresses)
    # The rest of the zone is right, with the address that it will be found to have.
    found = check(records, addresses, by_servers(right))
    for item in found:
        address = item.record.value is None or item.record.name.startswith("(")
        if address or item.record.role is Role.SPF:
            assert item.status is Status.UNKNOWN
            assert item.fix == f"set PUBLIC_IPV{version} in .env"
        else:
            assert item.status is Status.OK


def test_a_family_that_is_not_used_does_not_matter() -> None:
    alone = Addresses(BOTH.ipv4, None, has_ipv6=False)

    def server(name: str, kind: str) -> Answer:
        return Absent() if kind == "AAAA" else right(name, kind)

    found = check(required(SETTINGS, STATE, alone), alone, by_servers(server))
    assert {item.status for item in found} == {Status.OK}


# The SPF record that is proposed

SPF = named(Role.SPF, "example.com")
OWNERS = st.lists(
    st.sampled_from(
        ["a", "mx", "-a", "?mx", "ip4:192.0.2.0/24", "-ip4:203.0.113.0/24", "~ip6:2001:db8::/32",
         "include:spf.provider.example", "?include:spf.provider.example", "include:gone.example",
         "a:slow.example", "exists:%{i}.list.example", "ptr", "exp=why.example.com",
         "include:_spf.example.com", "+include:_SPF.example.com", "-include:_spf.example.com",
         "redirect=spf.provider.example", "A:Old.example.com/24//64"]
        + [f"a:gone{number}.example" for number in range(12)]
    ),
    max_size=14,
    unique=True,
)  # fmt: skip
ENDINGS = st.sampled_from(["-all", "~all", "?all", "+all", "all", ""])
RECORDS_OF_OWNERS = st.lists(st.builds(Spf, OWNERS.map(tuple), ENDINGS), min_size=1, max_size=3)


def with_spf(*texts: str) -> Ask:
    """A zone where what our include needs is right, and others' names are as they may be."""

    def server(name: str, kind: str) -> Answer:
        if (name, kind) == (SPF.name, "TXT"):
            return Found(texts)
        if name == "slow.example":
            return SLOW
        if (name, kind) == ("spf.provider.example", "TXT"):
            return Found(("v=spf1 ip4:198.51.100.0/24 -all",))
        return right(name, kind)

    return by_servers(server)


def proposed(verdict: Verdict) -> str:
    """The text in a fix, as it would be pasted."""
    _, sign, text = verdict.fix.partition("TXT v=spf1")
    return f"v=spf1{text}" if sign else ""


@given(RECORDS_OF_OWNERS)
def test_the_merged_record_passes_our_addresses(owners: list[Spf]) -> None:
    """Whatever else stands in it: denials, names that are gone, too many look-ups."""
    texts = sorted({str(item) for item in owners})
    verdict = judge(SPF, BOTH, with_spf(*texts))
    text = proposed(verdict) if verdict.status is Status.DIFFERENT else ""
    assume(text)
    for address in (BOTH.ipv4, BOTH.ipv6):
        result, reason = spf.evaluate(str(address), SPF.name, with_spf(text))
        assert result == "pass", (text, reason)


@given(RECORDS_OF_OWNERS)
def test_the_merged_record_keeps_what_the_owner_has(owners: list[Spf]) -> None:
    texts = sorted({str(item) for item in owners})
    text = proposed(judge(SPF, BOTH, with_spf(*texts)))
    assume(text)
    parsed = [Spf.parse(item) for item in texts]
    merged = Spf.parse(text)
    lower = {term.lower().removeprefix("+") for term in merged.terms}
    for item in parsed:
        for term in item.terms:
            if term.startswith(("exp=", "redirect=")) and len(parsed) > 1:
                continue  # one of each may stand in a record
            assert term.lower().removeprefix("+") in lower
    endings = {item.all for item in parsed if item.all and not item.lets_all_in}
    if endings:
        assert merged.all in endings
    else:
        redirected = any(term.startswith("redirect=") for term in merged.terms)
        assert merged.all == ("" if redirected else "~all")
    assert sum(term.startswith("redirect=") for term in merged.terms) <= 1
    assert sum(term.startswith("exp=") for term in merged.terms) <= 1


@given(RECORDS_OF_OWNERS)
def test_what_is_proposed_is_then_found_right(owners: list[Spf]) -> None:
    """Or there is something else to do, which is said; never the same advice again."""
    texts = sorted({str(item) for item in owners})
    text = proposed(judge(SPF, BOTH, with_spf(*texts)))
    assume(text)
    verdict = judge(SPF, BOTH, with_spf(text))
    assert verdict.status is Status.OK or not proposed(verdict)


@pytest.mark.parametrize(
    ("mechanisms", "includes", "expected"),
    [
        ("", "", "v=spf1 include:_spf.example.com mx:old.example -all"),
        # What the setting adds for others is the owner's wish too; `a` and `mx` are but extras.
        (
            "a mx",
            "p.example",
            "v=spf1 include:_spf.example.com include:p.example mx:old.example -all",
        ),
    ],
)
def test_what_of_ours_is_proposed(mechanisms: str, includes: str, expected: str) -> None:
    settings = asked(SPF_MECHANISMS=mechanisms, SPF_INCLUDE=includes)
    record = next(
        item for item in required(settings, STATE, BOTH)
        if item.role is Role.SPF and item.name == "example.com"
    )  # fmt: skip
    assert proposed(judge(record, BOTH, with_spf("v=spf1 mx:old.example -all"))) == expected


def test_what_our_record_refers_to_is_to_be_mended_not_the_record() -> None:
    """The text is right as it stands: to change it would help nobody."""

    def server(name: str, kind: str) -> Answer:
        return Absent() if kind == "AAAA" else right(name, kind)

    fixes = {
        item.record.name: item.fix
        for item in check(RECORDS, BOTH, by_servers(server))
        if item.record.role is Role.SPF
    }
    leave = "leave it as it is, and mend what it refers to: the "
    assert fixes == {
        "smtp.example.com": f"{leave}addresses of smtp.example.com",
        "example.com": f"{leave}SPF record of _spf.example.com",
        "_spf.example.com": f"{leave}addresses of smtp.example.com",
    }


def test_a_pointer_has_no_zone_to_be_entered_in() -> None:
    for item in check(RECORDS, BOTH, by_servers(says(Found(("host.example.",))))):
        assert ("None" in item.fix) is False
        if item.record.type is RecordType.PTR:
            assert item.fix == ("set the reverse DNS to smtp.example.com. at the server's provider")
