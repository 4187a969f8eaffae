"""What may be changed in DNS, and what never."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import dns.name
import dns.resolver
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.common.names import Hostname
from entrypoint.dns.authoritative import Absent, Answer, Answers, Found, Unknown
from entrypoint.dns.records import Record, RecordType, Role
from entrypoint.keys.dkim import Algorithm
from entrypoint.settings.model import Settings
from entrypoint.state.load import DomainState, State
from entrypoint.zone import judge, lexicon, publish
from entrypoint.zone.judge import Status
from entrypoint.zone.lexicon import Held, ProviderError, TooLateError
from entrypoint.zone.providers import Account, NoAccount, driver
from entrypoint.zone.publish import Action, Outcome, Step
from entrypoint.zone.required import Addresses, Outbound, required
from tests.unit.kit import EXAMPLE_COM, HOST, asked, loaded_key

V4, V6 = IPv4Address("203.0.113.10"), IPv6Address("2001:db8::10")
ADDRESSES = Addresses(V4, V6)
KEY = loaded_key(Algorithm.RSA, "t1r")
ED25519 = str(loaded_key(Algorithm.ED25519, "t1e").record)
STATE = State(domains={EXAMPLE_COM: DomainState(keys=(KEY,))})
DKIM = ("t1r._domainkey.example.com", "TXT")
APEX, SPF, DMARC = (
    ("example.com", "TXT"),
    ("_spf.example.com", "TXT"),
    ("_dmarc.example.com", "TXT"),
)
MX, A = ("example.com", "MX"), (HOST, "A")
TLSRPT, SRV = ("_smtp._tls.example.com", "TXT"), ("_submission._tcp.example.com", "SRV")
OUR_DMARC = "v=DMARC1; p=quarantine; fo=1; rua=mailto:rua@example.com; ruf=mailto:ruf@example.com"

Key = tuple[str, str]


@dataclass
class Dns:
    """A zone as its name servers have it. A name that begins with `*` is a wildcard."""

    zone: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    servers: tuple[str, ...] = ("ns1", "ns2")
    differ: dict[Key, Mapping[str, Answer]] = field(default_factory=dict)

    def __call__(self, name: str, kind: str) -> Answers:
        if (name, kind) in self.differ:
            return self.differ[name, kind]
        answer = self._answer(name, kind)
        return dict.fromkeys(self.servers, answer)

    def _answer(self, name: str, kind: str) -> Answer:
        stands = [known for known in self.zone if known[0] == name]
        owner = name if stands else f"*.{name.partition('.')[2]}"
        alias = self.zone.get((owner, "CNAME"))
        if alias and kind != "CNAME":
            return self._answer(alias[0].removesuffix("."), kind)
        values = self.zone.get((owner, kind))
        return Found(values) if values else Absent()


def wanted(
    settings: Settings | None = None, state: State = STATE, addresses: Addresses = ADDRESSES
) -> tuple[Record, ...]:
    return required(settings or asked(), state, addresses)


def right(settings: Settings | None = None) -> dict[Key, tuple[str, ...]]:
    """A zone in which all is as it must be."""
    return {(item.name, item.type.value): (item.value,) for item in wanted(settings) if item.value}


# Mail leaves from a second IPv4 address too.
SECOND = IPv4Address("203.0.113.11")
TWO = Addresses(V4, V6, outbound=(Outbound(V4, V4), Outbound(SECOND, SECOND)))


def planned_for_two(served: Dns, name: str = "powerdns") -> list[Step]:
    """The steps for the host's A records."""
    verdicts = judge.check(wanted(addresses=TWO), TWO, served)
    steps = publish.plan(
        verdicts, Hostname(HOST), TWO, served, lambda _name: "example.com",
        lambda _domain: Account(driver(name), "ACME_DNS"),
    )  # fmt: skip
    return [step for step in steps if (step.record.name, step.record.type.value) == A]


def planned(
    served: Dns,
    *,
    settings: Settings | None = None,
    zone: str | Unknown = "example.com",
    account: Account | NoAccount | None = None,
) -> dict[Key, Step]:
    settings = settings or asked()
    verdicts = judge.check(wanted(settings), ADDRESSES, served)
    steps = publish.plan(
        verdicts,
        settings.mail_hostname,
        ADDRESSES,
        served,
        lambda _name: zone,
        lambda _domain: account or Account(driver("powerdns"), "ACME_DNS=dns_pdns"),
    )
    return {(step.record.name, step.record.type.value): step for step in steps}


def but(**changes: tuple[str, ...]) -> Dns:
    """All right, but for these; an empty tuple takes a record out."""
    zone = right()
    for name, values in changes.items():
        zone[globals()[name]] = values
    return Dns({key: values for key, values in zone.items() if values})


def test_nothing_to_do() -> None:
    assert planned(Dns(right())) == {}


def test_of_an_empty_zone_all_is_added_but_the_pointers() -> None:
    steps = planned(Dns())
    assert len(steps) == len(wanted())
    for step in steps.values():
        if step.record.type is RecordType.PTR:
            assert step.action is Action.HAND
            assert "server's provider" in step.fix
        else:
            assert (step.action, step.new) == (Action.ADD, step.verdict.record.value)
            assert (step.old, step.kept, step.zone) == ((), (), "example.com")


# What is the owner's.

FOREIGN: dict[Key, list[tuple[str, ...]]] = {
    A: [("192.0.2.9",), ("192.0.2.9", "192.0.2.8")],
    (HOST, "AAAA"): [("2001:db8::9",)],
    MX: [("10 mx.example.net.",), ("0 .",), ("5 a.example.net.", "10 b.example.net.")],
    APEX: [
        ("v=spf1 include:example.net -all",),
        ("v=spf1 -all",),
        ("v=spf1 +all",),
        ("v=spf1 include:_spf.example.com +all",),
        ("v=spf1 mx ~all", "v=spf1 include:_spf.example.com ~all"),
        ('"v=spf1 mx ~all"',),
        ("verification=1", "v=spf1 include:example.net ~all", "x" * 300),
    ],
    SPF: [
        ("v=spf1 ip4:192.0.2.1 ~all",),
        ("v=spf1 a:old.example.com ip4:192.0.2.1 ~all",),
        ("v=spf1 a:old.example.com/24 ~all",),
        ("v=spf1 -all",),
        ("V=SPF1 A:old.example.com ~ALL",),
        ("v=spf1 a:old.example.com ~all", "v=spf1 mx ~all"),
    ],
    (HOST, "TXT"): [("v=spf1 -all",), ("v=spf1 mx -all",)],
    DKIM: [("just a text",), ("verification=1", str(KEY.record)), ("v=spf1 exp=x -all",)],
    DMARC: [
        ("v=DMARC1; p=none",),
        ("v=DMARC1; p=none; rua=mailto:d@example.net",),
        ("v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com,mailto:d@example.net",),
        ("v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com; ruf=mailto:d@example.net",),
        ("v=DMARC1; p=none; sp=reject; fo=1; rua=mailto:rua@example.com",),
        ("v=DMARC1;p=none;fo=1;rua=mailto:rua@example.com",),
        ("v=DMARC1; p=none; fo=1",),
        ("v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com", "v=DMARC1; p=reject"),
        (" v=DMARC1; p=none",),
    ],
}


@pytest.mark.parametrize(
    ("key", "values"), [(key, values) for key, many in FOREIGN.items() for values in many]
)
def test_what_is_the_owner_s_is_for_the_owner_to_change(key: Key, values: tuple[str, ...]) -> None:
    served = Dns({**right(), key: values})
    step = planned(served)[key]
    assert step.action is Action.HAND
    assert (step.old, step.new) == ((), None)
    assert step.fix


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (SRV, ("0 1 587 mail.example.net.",)),
        (TLSRPT, ("v=TLSRPTv1; ruf=x",)),
    ],
)
def test_an_optional_record_of_another_s_is_left_and_nothing_is_to_do(
    key: Key, values: tuple[str, ...]
) -> None:
    step = planned(Dns({**right(), key: values}))[key]
    assert (step.action, step.old, step.new) == (Action.LEAVE, (), None)
    assert not step.verdict.is_wrong


def test_an_owner_s_spf_gets_a_merged_one_proposed() -> None:
    served = but(APEX=("v=spf1 include:example.net -all", "verification=1"))
    served.zone["example.net", "TXT"] = ("v=spf1 ip4:192.0.2.0/24 -all",)
    step = planned(served)[APEX]
    assert "include:_spf.example.com include:example.net -all" in step.fix


def test_our_spf_joins_other_texts() -> None:
    step = planned(but(APEX=("verification=1", "x" * 300)))[APEX]
    assert (step.action, step.old) == (Action.ADD, ())
    assert step.kept == ("verification=1", "x" * 300)


# What is ours.

PUBLIC = KEY.record.public
BROKEN_KEYS = [
    (f'"v=DKIM1; k=rsa; p={PUBLIC}"',),
    (f"v=DKIM1\\; k=rsa\\; p={PUBLIC}",),
    (f"v=DKIM1; k=rsa; p={PUBLIC[:200]}",),
    ("v=DKIM1; k=rsa; p=",),
    (str(KEY.record)[:255], str(KEY.record)[255:]),
    (ED25519,),
]


@pytest.mark.parametrize("values", BROKEN_KEYS)
def test_a_dkim_record_at_our_selector_is_mended(values: tuple[str, ...]) -> None:
    step = planned(but(DKIM=values))[DKIM]
    assert step.action is Action.CHANGE
    assert (step.old, step.kept, step.new) == (values, (), str(KEY.record))
    assert ("another server" in step.reason) == (values == (ED25519,))


def test_of_two_keys_at_our_selector_ours_stays() -> None:
    step = planned(but(DKIM=(ED25519, str(KEY.record))))[DKIM]
    assert (step.action, step.old, step.new) == (Action.CHANGE, (ED25519,), None)
    assert step.kept == (str(KEY.record),)


@pytest.mark.parametrize(
    "value",
    [
        "v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com; ruf=mailto:ruf@example.com",
        "v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com",
        "v=DMARC1; p=quarantine; fo=1; rua=mailto:rua@smtp.example.com",
    ],
)
def test_a_dmarc_record_that_we_wrote_follows_the_settings(value: str) -> None:
    step = planned(but(DMARC=(value, "another text")))[DMARC]
    assert step.action is Action.CHANGE
    assert (step.old, step.kept, step.new) == ((value,), ("another text",), OUR_DMARC)


def test_a_renamed_server_is_added_to_its_domain_s_senders() -> None:
    """The old name may be a server that still sends."""
    zone = right() | {
        SPF: ("v=spf1 a:old.example.com a:gone.example.com ~all",),
        ("old.example.com", "A"): ("192.0.2.7",),
    }
    step = planned(Dns(zone))[SPF]
    assert step.action is Action.CHANGE
    assert step.new == "v=spf1 a:old.example.com a:smtp.example.com ~all"
    zone.pop(("old.example.com", "A"))
    assert planned(Dns(zone))[SPF].new == "v=spf1 a:smtp.example.com ~all"


def test_a_host_of_which_nobody_can_say_stays_a_sender() -> None:
    zone = right() | {SPF: ("v=spf1 a:old.example.com ~all",)}
    unknown = dict.fromkeys(("ns1", "ns2"), Unknown("no answer"))
    served = Dns(zone, differ={("old.example.com", "A"): unknown})
    step = planned(served).get(SPF)
    assert step is None or step.action is Action.WAIT or "a:old" in (step.new or "")


# What cannot be known, or done.


def test_what_only_some_servers_have_is_waited_for() -> None:
    value = right()[DMARC]
    served = Dns(right(), differ={DMARC: {"ns1": Found(value), "ns2": Absent()}})
    assert planned(served)[DMARC].action is Action.WAIT


def test_a_server_that_fails_makes_nothing_missing() -> None:
    served = Dns(right(), differ={DMARC: {"ns1": Unknown("no answer"), "ns2": Unknown("SERVFAIL")}})
    step = planned(served)[DMARC]
    assert (step.action, step.new) == (Action.WAIT, None)


def test_an_address_that_is_not_known_is_for_the_owner_to_say() -> None:
    records = required(asked(), STATE, Addresses(None, V6))
    verdicts = judge.check(records, Addresses(None, V6), Dns())
    steps = publish.plan(
        verdicts, Hostname(HOST), Addresses(None, V6), Dns(),
        lambda _: "example.com", lambda _: Account(driver("powerdns"), "x"),
    )  # fmt: skip
    [step] = [item for item in steps if item.record.type is RecordType.A]
    assert step.action is Action.HAND
    assert "PUBLIC_IPV4" in step.fix


def test_beside_an_alias_nothing_can_stand() -> None:
    served = but(DMARC=())
    served.zone["_dmarc.example.com", "CNAME"] = ("dmarc.example.net.",)
    step = planned(served)[DMARC]
    assert step.action is Action.HAND
    assert "dmarc.example.net" in step.reason


@pytest.mark.parametrize(
    ("kind", "values"),
    [("CNAME", ("www.example.com.",)), ("TXT", ("v=spf1 -all",)), ("A", ("192.0.2.7",))],
)
def test_a_wildcard_is_nobody_s_record(kind: str, values: tuple[str, ...]) -> None:
    zone = {("*.example.com", kind): values, ("www.example.com", "A"): ("192.0.2.7",)}
    steps = planned(Dns({**zone, ("www.example.com", "TXT"): ("x=1",)}))
    for key in (DMARC, SPF, A, (HOST, "TXT")):
        assert (steps[key].action, steps[key].old, steps[key].kept) == (Action.ADD, (), ()), key


def test_what_follows_from_another_record_is_not_shown_twice() -> None:
    """Of an SPF record that refers to a missing one the text is right."""
    steps = planned(but(SPF=()))
    assert set(steps) == {SPF}
    steps = planned(but(A=("192.0.2.9",)))
    assert set(steps) == {A}, "by hand, and then the SPF records are right too"


def test_what_has_no_cause_is_shown() -> None:
    served = but(APEX=(f"v=spf1 {'a:x.example ' * 11}include:_spf.example.com ~all",))
    assert planned(served)[APEX].action is Action.HAND


@pytest.mark.parametrize("zone", [".", "com", "example.net", "le.com"])
def test_a_zone_that_dns_does_not_have(zone: str) -> None:
    step = planned(Dns(), zone=zone)[DMARC]
    assert step.action is Action.HAND
    assert step.reason == "DNS has no zone example.com"


def test_a_zone_that_nobody_can_tell() -> None:
    step = planned(Dns(), zone=Unknown("no answer"))[DMARC]
    assert step.action is Action.WAIT


@pytest.mark.parametrize("zone", ["example.com", "_dmarc.example.com"])
def test_the_zone_may_be_another_than_the_domain(zone: str) -> None:
    assert planned(Dns(), zone=zone)[DMARC].zone == zone
    sub = asked(MAIL_HOSTNAME="mx.sub.example.com", MAIL_DOMAINS="sub.example.com")
    steps = planned(Dns(), settings=sub, zone="example.com")
    assert steps["sub.example.com", "MX"].zone == "example.com"


def test_without_an_account_it_is_by_hand() -> None:
    steps = planned(Dns(), account=NoAccount("no provider is set", "set one"))
    assert {step.action for step in steps.values()} == {Action.HAND}
    step = steps[DMARC]
    assert (step.reason, step.remedy) == ("no provider is set", "set one")
    assert OUR_DMARC in step.fix


def test_a_driver_that_nobody_has_read_gets_the_least() -> None:
    account = Account(driver("somebody"), "LEXICON_PROVIDER=somebody")
    steps = planned(Dns(), account=account)
    assert {steps[key].action for key in (A, APEX, DKIM, DMARC)} == {Action.ADD}
    assert {steps[key].action for key in (MX, SRV)} == {Action.HAND}
    assert planned(but(APEX=("x=1",)), account=account)[APEX].action is Action.HAND
    assert planned(but(DKIM=(ED25519,)), account=account)[DKIM].action is Action.HAND


def test_each_question_is_asked_once() -> None:
    zone, questions = Dns(), list[tuple[str, str]]()

    def ask(name: str, kind: str) -> Answers:
        questions.append((name, kind))
        return zone(name, kind)

    verdicts = judge.check(wanted(), ADDRESSES, zone)
    publish.plan(
        verdicts, Hostname(HOST), ADDRESSES, ask, lambda _: "example.com",
        lambda _: NoAccount("", ""),
    )  # fmt: skip
    # Threads may meet in a question about what several names share.
    own = [item for item in questions if not item[0].startswith("tambo-looks")]
    assert len(own) == len(set(own))


TEXTS = st.sampled_from(
    [value for many in FOREIGN.values() for values in many for value in values]
    + [value for values in BROKEN_KEYS for value in values]
    + ["verification=1", OUR_DMARC, str(KEY.record), "v=spf1 include:_spf.example.com ~all"]
)  # fmt: skip
NAMES = [key for key in right() if key[1] == "TXT"]


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(TEXTS, max_size=3, unique=True)))
def test_whatever_stands_there(found: dict[Key, list[str]]) -> None:
    """Only a DKIM record at a selector of ours, a DMARC of ours or the `_spf` of ours ever goes;
    after what is done once there is nothing more to do."""
    served = Dns({**right(), **{key: tuple(values) for key, values in found.items() if values}})
    for key in [key for key, values in found.items() if not values]:
        del served.zone[key]
    for _ in range(2):
        steps = planned(served)
        todo = {key: step for key, step in steps.items() if step.is_ours_to_do}
        for key, step in todo.items():
            before = served.zone.get(key, ())
            assert set(step.old) <= set(before)
            assert set(step.kept) == set(before) - set(step.old)
            if step.old:
                assert step.record.role in (Role.DKIM, Role.DMARC, Role.SPF)
                assert key in (DKIM, DMARC, SPF)
            for value in step.old:
                assert "verification" not in value
                assert "example.net" not in value
            served.zone[key] = (*step.kept, *([step.new] if step.new else []))
    assert not todo


# Doing it.


@dataclass
class Provider:
    """A session that remembers."""

    zone: str
    records: dict[Key, list[Held]]
    done: list[str] = field(default_factory=list)
    fails: dict[str, ProviderError] = field(default_factory=dict)

    def held(self, record: Record) -> list[Held]:
        return list(self.records.get((record.name, record.type.value), []))

    def add(self, record: Record, ttl: int) -> None:
        self._do(f"+ {record.name} {record.type.value} {record.value} {ttl}")

    def remove(self, record: Record, held: Held) -> None:
        self._do(f"- {record.name} {record.type.value} {held.content}")

    def _do(self, what: str) -> None:
        for part, error in self.fails.items():
            if part in what:
                raise error
        self.done.append(what)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    provider = Provider("example.com", {})

    @contextmanager
    def opened(_account: Account, _zone: str, _roots: Path | None = None) -> Iterator[Provider]:
        provider._do("open")
        yield provider

    monkeypatch.setattr(lexicon, "opened", opened)
    return provider


def applied(served: Dns) -> list[Outcome]:
    return publish.apply(list(planned(served).values()), lambda _: None)


def held(value: str, ttl: int | None = None) -> Held:
    return Held(value, value, ttl, None)


def test_what_others_refer_to_comes_first_and_the_mx_last(provider: Provider) -> None:
    outcomes = applied(Dns())
    assert not any(outcome.error for outcome in outcomes)
    names = [tuple(what.split()[1:3]) for what in provider.done[1:]]
    assert names[:2] == [(HOST, "A"), (HOST, "AAAA")]
    assert names.index(SPF) < names.index(APEX)
    assert names[-1] == MX
    assert len(names) == len([item for item in wanted() if item.zone])


def test_others_keep_their_ttl(provider: Provider) -> None:
    provider.records[APEX] = [held("verification=1", 300)]
    applied(but(APEX=("verification=1",)))
    assert provider.done == ["open", f"+ example.com TXT {right()[APEX][0]} 300"]


def test_the_old_value_goes_and_no_other(provider: Provider) -> None:
    old = "v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com"
    provider.records[DMARC] = [held("another text"), held(old)]
    applied(but(DMARC=(old, "another text")))
    assert provider.done[1:] == [
        f"- _dmarc.example.com TXT {old}",
        f"+ _dmarc.example.com TXT {OUR_DMARC} 3600",
    ]


def test_what_is_there_already_is_not_added_twice(provider: Provider) -> None:
    """A minute ago it was entered, and DNS does not show it yet."""
    provider.records[DMARC] = [held(OUR_DMARC)]
    provider.records[MX] = [held("smtp.example.com")]  # some list no preference
    outcomes = applied(but(DMARC=(), MX=()))
    assert [outcome.error for outcome in outcomes] == ["", ""]
    assert provider.done == ["open"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (DMARC, "v=DMARC1; p=none"),
        (MX, "10 mx.example.net."),
        (A, "192.0.2.9"),
        (APEX, "v=spf1 -all"),
        (DKIM, ED25519),
    ],
)
def test_nothing_joins_what_the_provider_has_and_dns_does_not_show(
    provider: Provider, key: Key, value: str
) -> None:
    provider.records[key] = [held(value)]
    zone = right()
    del zone[key]
    [outcome] = applied(Dns(zone))
    assert value in outcome.error
    assert provider.done == ["open"]


def test_one_that_fails_keeps_no_other_from_being_done(provider: Provider) -> None:
    provider.fails["_dmarc"] = ProviderError("it refuses")
    outcomes = applied(Dns())
    failed = [outcome for outcome in outcomes if outcome.error]
    assert [(item.step.record.name, item.error) for item in failed] == [
        ("_dmarc.example.com", "it refuses")
    ]
    assert len(provider.done) == len(outcomes)


def test_after_no_answer_in_time_nothing_more_is_tried(provider: Provider) -> None:
    provider.fails["AAAA"] = TooLateError("no answer within 1 s")
    outcomes = applied(Dns())
    assert len(provider.done) == 2, "open, and the A before it"
    assert [outcome.error for outcome in outcomes[1:]] == ["no answer within 1 s"] * (
        len(outcomes) - 1
    )


def test_a_provider_that_lets_nobody_in(provider: Provider) -> None:
    provider.fails["open"] = ProviderError("the credentials are not accepted")
    outcomes = applied(Dns())
    assert {outcome.error for outcome in outcomes} == {"powerdns: the credentials are not accepted"}
    steps = list(planned(Dns()).values())
    assert publish.locked_out(steps) == {
        "example.com": "powerdns: the credentials are not accepted"
    }
    assert provider.done == []


def test_a_change_that_fails_halfway_is_undone(provider: Provider) -> None:
    old = "v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com"
    provider.records[DMARC] = [held(old, 300)]
    provider.fails["p=quarantine"] = ProviderError("it refuses")
    [outcome] = applied(but(DMARC=(old,)))
    assert outcome.error == "it refuses"
    assert provider.done[1:] == [
        f"- _dmarc.example.com TXT {old}",
        f"+ _dmarc.example.com TXT {old} 300",
    ]


def test_what_could_not_be_put_back_is_said(provider: Provider) -> None:
    old = "v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com"
    provider.records[DMARC] = [held(old)]
    provider.fails["+ _dmarc"] = ProviderError("it refuses")
    [outcome] = applied(but(DMARC=(old,)))
    assert outcome.error.endswith(f"could not be put back: {old}")


# Afterwards.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time passes only in sleep."""
    now = [1000.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    return now


def settled(served: Dns, done: Sequence[Step], seconds: float) -> tuple[int, list[Step]]:
    verdicts, late = publish.settle(wanted(), ADDRESSES, served, done, seconds, lambda _: None)
    return sum(verdict.status is Status.OK for verdict in verdicts), late


def test_it_is_done_when_every_server_shows_it(clock: list[float]) -> None:
    done = [step for step in planned(Dns()).values() if step.is_ours_to_do]
    assert settled(Dns(right()), done, 60) == (len(wanted()), [])
    assert clock == [1000.0], "no pause"
    one: dict[str, Answer] = {"ns1": Found(right()[DMARC]), "ns2": Absent()}
    fine, late = settled(Dns(right(), differ={DMARC: one}), done, 60)
    assert (fine, [step.record.name for step in late]) == (len(wanted()) - 1, [DMARC[0]])
    assert 1040 < clock[0] <= 1060


def test_the_old_value_must_be_gone() -> None:
    old = "v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com"
    [step] = planned(but(DMARC=(old,))).values()
    assert settled(but(DMARC=(old, OUR_DMARC)), [step], 0)[1] == [step]
    assert settled(but(DMARC=(OUR_DMARC,)), [step], 0)[1] == []


def test_a_server_that_cannot_be_asked_is_not_waited_for() -> None:
    [step] = planned(but(DMARC=())).values()
    found, unknown = Found(right()[DMARC]), Unknown("no answer")
    served = Dns(right(), differ={DMARC: {"ns1": found, "ns2": unknown}})
    assert settled(served, [step], 0)[1] == []
    served = Dns(right(), differ={DMARC: {"ns1": unknown, "ns2": unknown}})
    assert settled(served, [step], 0)[1] == [step]


def test_a_loss_is_noticed() -> None:
    [step] = planned(but(APEX=("verification=1", "x=1"))).values()
    assert publish.lost([step], but(APEX=("verification=1", "x=1", "v=spf1 ~all"))) == []
    [(record, value)] = publish.lost([step], but(APEX=("v=spf1 ~all", "x=1")))
    assert (record.name, value) == ("example.com", "verification=1")
    unknown = dict.fromkeys(("ns1", "ns2"), Unknown("no answer"))
    assert publish.lost([step], Dns(right(), differ={APEX: unknown})) == []


def test_every_role_has_its_place() -> None:
    assert set(publish._ORDER) == set(Role) - {Role.POINTER}


def test_zones_are_done_one_after_the_other() -> None:
    steps = [
        Step(
            next(iter(planned(Dns()).values())).verdict, Action.ADD, zone=zone,
            account=Account(driver("powerdns"), source),
        )
        for zone, source in itertools.product(("b.example", "a.example"), ("x", "y"))
    ]  # fmt: skip
    groups = [
        (zone, account.source if account else "") for (zone, account), _ in publish._by_zone(steps)
    ]
    assert groups == [
        ("a.example", "x"),
        ("a.example", "y"),
        ("b.example", "x"),
        ("b.example", "y"),
    ]


def test_find_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise dns.resolver.NoNameservers

    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", lambda *_: None)
    monkeypatch.setattr(dns.resolver, "zone_for_name", fail)
    assert isinstance(publish.find_zone("smtp.example.com"), Unknown)
    name = dns.name.from_text("Example.COM.")
    monkeypatch.setattr(dns.resolver, "zone_for_name", lambda *_, **__: name)
    assert publish.find_zone("smtp.example.com") == "example.com"


# Several addresses of this server at one name.


def two_with(*values: str) -> Dns:
    """All right, but for the A records of the host."""
    return Dns({key: found for key, found in {**right(), A: values}.items() if found})


def test_a_further_address_joins_those_of_this_server() -> None:
    [step] = planned_for_two(two_with(str(V4)))
    assert (step.action, step.new, step.kept) == (Action.ADD, str(SECOND), (str(V4),))
    [step] = planned_for_two(two_with(str(SECOND)))
    assert (step.action, step.new, step.kept) == (Action.ADD, str(V4), (str(SECOND),))


def test_a_further_address_never_joins_those_of_another_machine() -> None:
    [step] = planned_for_two(two_with(str(V4), "192.0.2.9"))
    assert (step.action, step.fix) == (
        Action.HAND, f"add in example.com: smtp A {SECOND}",
    )  # fmt: skip
    assert {step.action for step in planned_for_two(two_with("192.0.2.9"))} == {Action.HAND}


def test_all_addresses_are_entered_one_after_the_other(provider: Provider) -> None:
    steps = planned_for_two(two_with())
    assert [step.action for step in steps] == [Action.ADD, Action.ADD]
    provider.records[A] = [held(str(V4))]  # as it is after the first
    [first, second] = publish.apply(steps, lambda _: None)
    assert (first.error, second.error) == ("", "")
    assert provider.done == ["open", f"+ {HOST} A {SECOND} 3600"]


def test_another_machine_s_address_at_the_provider_is_still_in_the_way(provider: Provider) -> None:
    provider.records[A] = [held(str(V4)), held("192.0.2.9")]
    [outcome] = publish.apply(planned_for_two(two_with(str(V4))), lambda _: None)
    assert "192.0.2.9" in outcome.error
    assert provider.done == ["open"]


def test_several_addresses_are_entered_by_hand_where_the_driver_may_replace_them() -> None:
    steps = planned_for_two(two_with(), "cloudns")
    assert {step.action for step in steps} == {Action.HAND}
    assert "leave others beside it alone" in steps[0].reason
