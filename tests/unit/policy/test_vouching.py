"""What nobody vouches for is not forwarded; and where mail to an address goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.chasquid.aliases import Mailbox
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import plan
from entrypoint.converge.routing import Book, Served, load
from entrypoint.dns.dmarc import Answer, LookupFailedError, Policies
from entrypoint.policy import author, decide, header, routes, vouching
from entrypoint.policy.decide import Envelope, Rules
from entrypoint.policy.refusals import Refusals
from entrypoint.policy.routes import Route
from entrypoint.services.vouching import Vouching
from tests.unit.kit import asked, fresh, put

RULES = Rules(
    "smtp.example.com", frozenset({"example.com"}), {},
    routes={"example.com": Route({"i": True, "kept": False})},
)  # fmt: skip
TOP = b"Authentication-Results: h\r\n\t;spf=%s (x)\r\n\t;dkim=%s  header.b=AA  header.d=%s\n"
FROM = b"From: x@bank.example\n"
RECORDS = {
    "bank.example": "v=DMARC1; p=reject", "soft.example": "v=DMARC1; p=quarantine",
    "open.example": "v=DMARC1; p=none",
}  # fmt: skip


async def ask(name: str, _kind: str) -> Answer:
    if name == "_dmarc.down.example":
        raise LookupFailedError
    found = RECORDS.get(name.removeprefix("_dmarc."))
    return Answer((found,) if found else (), exists=bool(found))


def answer(section: bytes = FROM, rules: Rules = RULES, **envelope: object) -> str:
    given = {"sender": "x@bank.example", "recipients": ("i@example.com",), **envelope}
    found = asyncio.run(
        Vouching(Policies(ask)).refusal(rules, Envelope(**given), section)  # type: ignore[arg-type]
    )
    return str(found) if found else "taken"


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (FROM, "554 5.7.1 neither SPF nor a DKIM signature vouches"),
        (b"From: x@soft.example\n", "554 5.7.1"),
        (b"From: x@news.bank.example\n", "554 5.7.1"),
        (b"From: x@open.example\n", "taken"),
        (b"From: x@none.example\n", "taken"),
        (b"From: x@down.example\n", "451 4.7.5 DNS could not say what the DMARC policy"),
        (b"From: x@none.example, y@bank.example\n", "554"),
        (b"From: x@bank .example, y@bank.example\n", "554"),
        (b"Subject: no From at all\n", "taken"),
        (TOP % (b"pass", b"fail", b"bank.example") + FROM, "taken"),
        (TOP % (b"none", b"pass", b"list.example") + FROM, "taken"),
        (TOP % (b"temperror", b"fail", b"bank.example") + FROM, "451 4.7.5"),
        (TOP % (b"none", b"temperror", b"bank.example") + FROM, "451 4.7.5"),
        (TOP % (b"temperror", b"fail", b"x.example") + b"From: x@open.example\n", "taken"),
        (TOP % (b"softfail", b"fail", b"bank.example") + FROM, "554"),
    ],
)
def test_unproven(section: bytes, expected: str) -> None:
    assert answer(section).startswith(expected)


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        ({"recipients": ("kept@example.com",)}, "taken"),
        ({"recipients": ("kept@example.com", "i@example.com")}, "554"),
        ({"recipients": ("i+tag@example.com",)}, "554"),
        ({"recipients": ("nobody@example.com",)}, "taken"),
        ({"sender": "<>"}, "554"),
        ({"spf": True}, "taken"),
        ({"login": "i@example.com"}, "taken"),
        ({"remote": "127.0.0.1:4711"}, "taken"),
    ],
)
def test_unproven_by_envelope(envelope: Mapping[str, object], expected: str) -> None:
    assert answer(FROM, RULES, **envelope).startswith(expected)


def test_owner_may_have_everything_forwarded(paths: Paths) -> None:
    assert answer(rules=replace(RULES, forward_unproven=True)) == "taken"
    assert plan.rules(asked(FORWARD_UNPROVEN="forward"), fresh(paths)).forward_unproven
    assert not plan.rules(asked(), fresh(paths)).forward_unproven


@given(
    st.dictionaries(st.sampled_from(["i", "i+x", "*", "a.b", "rua"]), st.booleans()),
    st.sets(st.sampled_from(["i", "rua", "u"])).map(frozenset),
    st.none() | st.just(("mx.example.net",)) | st.just(()),
    st.sampled_from(["i", "i+x", "i+y", "rua", "u", "u+x", "nobody"]),
)
def test_route_survives_the_way_to_the_service_and_resolves_as_chasquid(
    lines: dict[str, bool], users: frozenset[str], exchangers: tuple[str, ...] | None, local: str
) -> None:
    route = Route(lines, users, exchangers)
    assert Route.load(json.loads(json.dumps(route.dump()))) == route
    to, onward = (Mailbox(name, Domain("example.net")) for name in ("to", "mx"))
    rules = dict.fromkeys(lines, (to,))
    if exchangers is not None:  # chasquid has a line to the MX for each user
        rules = {**dict.fromkeys(users, (onward,)), **rules}
    found = Book({"example.com": Served(users, rules)}).targets(f"{local}@example.com")
    assert (route.line(local) is not None) is (found == (to,))


def test_what_is_refused_anyhow_asks_nobody() -> None:
    assert answer(b"From: ceo@example.com\n") == "taken", "that is the sender rule's to refuse"
    assert not vouching.question(RULES, Envelope(), FROM)


def test_rules_of_the_version_before_forward_nothing_unproven() -> None:
    old = replace(RULES, routes={})
    assert answer(rules=old).startswith("554")
    text = decide.dump(RULES)
    assert decide.load(text) == RULES
    content = {"host": "smtp.example.com", "domains": ["example.com"], "limit": "none",
               "named": [], "logins": {}}  # fmt: skip

    loaded = decide.load(json.dumps(content))
    assert loaded.organizations == {"example.com"}
    assert not loaded.forward_unproven


# Where mail goes


def test_routes_are_as_chasquid_resolves_names(paths: Paths) -> None:
    put(
        paths.domains / "example.com/aliases",
        "away: me@example.net\nkept: postmaster\nboth: kept, me@example.net\nchain: away\n"
        "prog: | /bin/true\n",
    )
    found = plan.rules(asked(), fresh(paths)).routes
    for name, leaves in {
        "away": True, "away+x": True, "kept": False, "both": True, "chain": True, "prog": False,
        "postmaster": False, "rua": False, "nobody": False,
    }.items():  # fmt: skip
        assert routes.leaves(found, f"{name}@example.com") is leaves, name
        assert routes.leaves(found, f"{name.upper()}@EXAMPLE.com") is leaves, name
    assert not routes.leaves(found, "postmaster@smtp.example.com")


def test_with_forward_to_all_but_reports_leave(paths: Paths) -> None:
    found = plan.rules(asked(FORWARD_TO="me@example.net"), fresh(paths)).routes
    for name, leaves in {"anybody": True, "postmaster": True, "rua": False, "ruf": False}.items():
        assert routes.leaves(found, f"{name}@example.com") is leaves, name


def test_domain_that_receives_elsewhere_takes_only_what_an_alias_takes(paths: Paths) -> None:
    put(paths.domains / "example.org/aliases", "info: i@example.com\n")
    state = replace(fresh(paths), exchangers={Domain("example.org"): (Domain("mx.example.net"),)})
    rules = plan.rules(
        asked(MAIL_DOMAINS="example.com,example.org", MAIL_RECEIVE="example.com"), state
    )

    def said(to: str, **envelope: object) -> str:
        given = {"sender": "x@outside.example", "recipients": (to,), **envelope}
        return str(decide.decide(rules, Envelope(**given), b"From: x@outside.example\n"))  # type: ignore[arg-type]

    assert said("info@example.org").startswith("250")
    assert said("i@example.com").startswith("250")
    refused = "554 5.7.1 mail to boss@example.org is not received here; send it to the domain's MX"
    assert said("boss@example.org") == f"{refused}: mx.example.net"
    assert said("boss@example.org", sender="<>").startswith("554")
    assert said("postmaster@example.org").startswith("554")
    assert said("boss@example.org", remote="127.0.0.1:99").startswith("250")


def test_a_user_of_a_domain_that_receives_elsewhere_is_not_its_catch_all_s(paths: Paths) -> None:
    put(paths.domains / "example.org/aliases", "*: i@example.com\n")
    put(paths.domains / "example.org/users", 'users: { key: "u+phone" value: { denied: {} } }')
    state = replace(fresh(paths), exchangers={Domain("example.org"): (Domain("mx.example.net"),)})
    settings = asked(MAIL_DOMAINS="example.com,example.org", MAIL_RECEIVE="example.com")
    rules, book = plan.rules(settings, state), load(settings, state)
    for name in ("u", "u+tag"):
        [end] = book.ends(f"{name}@example.org")
        assert end.where.endswith("via mx.example.net")
        assert routes.received_elsewhere(rules.routes, f"{name}@example.org") == ("mx.example.net",)
    assert routes.received_elsewhere(rules.routes, "anybody@example.org") is None


# What was refused for a name below


def test_refusals_say_which_record_helps() -> None:
    refusals = Refusals()
    for sender in ("b@news.example.com", "b@bounce.news.example.com", "b@service.example", "<>"):
        refusals.add("news.example.com", Envelope(sender=sender, remote="192.0.2.7:25"), 1.0)
    found = {item["envelope_domain"]: item["records"][1] for item in refusals.listed(1.0)}
    assert found["news.example.com"] == 'news.example.com. TXT "v=spf1 ip4:192.0.2.7 ~all"'
    assert found["bounce.news.example.com"].startswith("bounce.news.example.com. TXT")
    assert found["service.example"].endswith(
        "once the service sends with MAIL FROM:<…@news.example.com>"
    )
    assert refusals.listed(3 * 86400.0) == []


def test_refusals_that_come_often_outlive_a_flood() -> None:
    refusals = Refusals()
    for _ in range(3):
        refusals.add(
            "news.example.com", Envelope(sender="a@b.example", remote="[2001:db8::1]:9"), 1
        )
    for number in range(1000):
        refusals.add(f"x{number}.example.com", Envelope(sender="a@b.example"), 2.0)
    found = refusals.listed(3.0)
    assert len(found) == 50
    assert (found[0]["domain"], found[0]["count"]) == ("news.example.com", 3)
    assert "ip6:2001:db8::1" in found[0]["records"][1]


def test_a_submission_is_asked_of_nobody() -> None:
    assert vouching.question(RULES, Envelope(recipients=("i@example.com",)), FROM)
    assert not vouching.question(
        RULES, Envelope(login="i@example.com", recipients=("i@example.com",)), FROM
    )


def test_of_one_from_four_domains_are_asked_for() -> None:
    names = [f"{char}.example" for char in "abcdef"]
    section = f"From: {', '.join(f'x@{name}' for name in names)}\n".encode()
    envelope = Envelope(recipients=("i@example.com",))
    assert vouching.question(RULES, envelope, section) == set(names[:4])


def test_the_largest_that_is_read_is_asked_for_and_what_is_larger_is_not() -> None:
    envelope = Envelope(recipients=("i@example.com",))
    filler = b"X: " + b"x" * (header.MAX_HEADER - len(FROM) - 4) + b"\n"
    assert vouching.question(RULES, envelope, FROM + filler) == {"bank.example"}
    assert vouching.question(RULES, envelope, FROM + b"x" + filler) == frozenset()
    # Two From headers have not one meaning.
    doubtful = b"From:x@bank.example\nFrom:" + b"y" * (author.MAX_DOUBTFUL - 14)
    assert vouching.question(RULES, envelope, doubtful + b"\n") == {"bank.example"}
    assert vouching.question(RULES, envelope, doubtful + b"y\n") == frozenset()


def test_what_dns_did_not_say_is_put_off_by_its_code() -> None:
    said = answer(TOP % (b"temperror", b"fail", b"bank.example") + FROM)
    assert said.startswith("451 4.7.5 DNS could not say whether anybody vouches")
    assert answer(b"From: x@down.example\n").startswith("451 4.7.5 DNS could not say what")
