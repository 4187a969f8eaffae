"""Decisions about senders and about mail that says it is from here."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from entrypoint.chasquid.userdb import Scrypt, render
from entrypoint.common.limit import Limit, Over
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import plan
from entrypoint.policy import decide, header
from entrypoint.policy.decide import Envelope, LoginRules, Results, Room, Rules, Signature
from tests.support import policycases
from tests.support.policycases import PolicyCase
from tests.unit.kit import asked, fresh, put

SECRET = Scrypt(1, 8, 1, b"salt", bytes(32))


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Rules:
    """What is served in the world of the cases."""
    paths = Paths(tmp_path_factory.mktemp("policy"))
    shutil.copytree(policycases.FOLDER / "data", paths.domains)
    for domain in policycases.DOMAINS:
        names = [
            item.partition("@")[0] for item in policycases.LOGINS if item.endswith(f"@{domain}")
        ]
        if names:
            put(paths.domains / domain / "users", render(dict.fromkeys(names, SECRET)))
    current = fresh(paths)
    assert not current.findings
    return plan.rules(asked(MAIL_DOMAINS=",".join(policycases.DOMAINS)), current)


def judged(rules: Rules, case: PolicyCase) -> decide.Answer:
    """As the service does it: it looks at the header section, and for a NUL behind it."""
    envelope = Envelope(case.login, case.sender, case.recipients, case.remote, case.spf)
    end = header.end_of(case.message)
    answer = decide.decide(rules, envelope, case.message if end < 0 else case.message[:end])
    if case.login and end >= 0 and b"\0" in case.message[end:] and answer.code == 250:
        return decide.NUL
    return answer


@pytest.mark.parametrize(
    "case",
    [*policycases.cases("submission"), *policycases.cases("incoming")],
    ids=policycases.case_id,
)
def test_case(rules: Rules, case: PolicyCase, regenerate: bool) -> None:
    answer = str(judged(rules, case))
    if regenerate:
        case.path.write_text(case.rewritten(answer))
        return
    assert answer == case.answer
    assert answer.isascii()
    assert len(answer) < 500, "a reply line has 512 octets (RFC 5321 4.5.3.1.5)"


def test_what_is_refused_counts_as_tried(rules: Rules) -> None:
    for case in policycases.cases("submission"):
        assert judged(rules, case).counts, case.path.name


def test_there_are_cases_enough() -> None:
    found = [case.accepted for case in policycases.cases("submission")]
    assert len(found) >= 60
    assert 20 <= sum(found) <= len(found) - 20


def test_rules_survive_the_way_to_the_service(rules: Rules) -> None:
    assert decide.load(decide.dump(rules)) == rules
    limited = replace(rules, logins={**rules.logins, "x@example.com": LoginRules(limit=Limit(1))})
    assert decide.load(decide.dump(limited)) == limited


def test_a_login_that_is_gone_waits(rules: Rules) -> None:
    answer = decide.decide(
        rules, Envelope("gone@example.com", "gone@example.com"), b"From: a@b.c\n"
    )
    assert answer.code == 451


@pytest.mark.parametrize(
    ("login", "address", "allowed"),
    [
        ("i+news@example.com", "i@example.com", True),
        ("i+news@example.com", "i+news@example.com", True),
        ("i+news@example.com", "info@example.com", True),
        ("i+news@example.com", "i+other@example.com", True),
        ("i+news@example.com", "j@example.com", False),
        ("i@example.com", "i+news@example.com", True),
    ],
)
def test_a_named_credential_sends_as_its_owner(
    paths: Paths, login: str, address: str, allowed: bool
) -> None:
    put(paths.domains / "example.com/users", render(dict.fromkeys(("i", "i+news", "j"), SECRET)))
    put(paths.domains / "example.com/aliases", "info: i\n")
    assert plan.rules(asked(), fresh(paths)).may(login, address) is allowed


def test_aliases_in_an_alias_loop_come_to_an_end(paths: Paths) -> None:
    put(paths.domains / "example.com/users", render({"i": SECRET}))
    put(paths.domains / "example.com/aliases", "a: b\nb: a, i\n")
    assert plan.rules(asked(), fresh(paths)).logins["i@example.com"].addresses == {
        "i@example.com", "a@example.com", "b@example.com",
    }  # fmt: skip


def test_a_grant_of_the_owner_s_holds_for_a_named_credential(paths: Paths) -> None:
    put(paths.domains / "example.com/users", render(dict.fromkeys(("i", "i+news"), SECRET)))
    put(
        paths.domains / "example.com/senders",
        "i may-send=*@example.com limit=5/h\ni+news limit=9/d\n",
    )
    rules = plan.rules(asked(SEND_LIMIT="7/h"), fresh(paths))
    assert rules.may("i+news@example.com", "anybody@example.com")
    assert rules.limit_of("i@example.com") == Limit(5)
    assert rules.limit_of("i+news@example.com") == Limit(None, 9)
    assert rules.limit_of("else@example.com") == Limit(7)


def test_names_that_only_receive_are_no_logins(paths: Paths) -> None:
    put(paths.domains / "example.com/users", 'users: { key: "x" value: { denied: {} } }')
    assert not plan.rules(asked(), fresh(paths)).logins


# What chasquid writes on top of a message (as seen on 1.19)

VERDICTS = (
    b"Authentication-Results: smtp.example.com\r\n\t;spf=pass (matched ip)\r\n"
    b"\t;dkim=pass  header.b=abcDEF123+/=  header.d=Example.com\r\n"
    b'\t;dkim=temperror  reason="lookup a._domainkey.example.org on 192.0.2.53:53: server misbe'
    b'having"\r\n\t  header.b=xyz  header.d=example.org\n'
    b"Received-SPF: pass (matched ip)\nReceived: from a\n\tby b\n"
)


def test_chasquid_s_verdicts_are_read() -> None:
    assert decide.results(VERDICTS) == Results(
        "pass",
        "matched ip",
        (
            Signature("pass", "example.com", "abcDEF123+/="),
            Signature(
                "temperror", "example.org", "xyz",
                "lookup a._domainkey.example.org on 192.0.2.53:53: server misbehaving",
            ),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    "section",
    [
        b"Received: from a\n" + VERDICTS,
        b"authentication-results: x\r\n\t;spf=pass (a)\n",
        b"From: a@example.com\n",
        b"",
    ],
)
def test_verdicts_in_another_place_are_the_sender_s(section: bytes) -> None:
    assert decide.results(section) == Results()


def test_a_verdict_cannot_be_smuggled_into_another() -> None:
    """A domain with a line of its own in it is no domain, and is not read as one."""
    raw = (
        b'Authentication-Results: h\r\n\t;dkim=permerror  reason="x\\r\\n\\t;dkim=pass"\r\n'
        b"\t  header.d=a.example  header.d=example.com\r\n\t;spf=none (x) ;dkim=pass\n"
    )
    assert not [item for item in decide.results(raw).signatures if item.result == "pass"]


@pytest.mark.parametrize(
    ("result", "reason", "unknown"),
    [
        ("temperror", "anything", True),
        ("permerror", "lookup a on 192.0.2.53:53: server misbehaving", True),
        ("permerror", "lookup a on 192.0.2.53:53: no such host", False),
        ("permerror", "missing required tag", False),
        ("fail", "body hash mismatch (got x)", False),
    ],
)
def test_what_dns_did_not_say_is_not_known(result: str, reason: str, unknown: bool) -> None:
    assert Signature(result, "example.com", "", reason).unknown is unknown


def test_a_signature_of_a_part_of_the_body_proves_nothing() -> None:
    rules = Rules("smtp.example.com", frozenset({"example.com"}), {})
    top = (
        b"Authentication-Results: h\r\n\t;dkim=pass  header.b=AAAABBBBCCCC  header.d=example.com\n"
    )
    signature = b"DKIM-Signature: v=1; d=example.com;%s b=AAAA\n\tBBBBCCCCDDDD\n"
    tail = b"From: i@example.com\n"
    whole = decide.decide(rules, Envelope(), top + signature % b"" + tail)
    part = decide.decide(rules, Envelope(), top + signature % b" l=0;" + tail)
    assert (whole.code, part.code) == (250, 554)


@pytest.mark.parametrize("section", [b"From: %s\n" % (b"@\xc3\xbc.\xc3\xbc " * 3000),
                                     b"From: @x.example\n" * 3000])  # fmt: skip
def test_what_would_take_long_to_read_is_refused_unread(section: bytes) -> None:
    rules = Rules("smtp.example.com", frozenset({"example.com"}), {})
    answer = decide.decide(rules, Envelope(), section)
    assert str(answer) == "554 5.6.0 more than 16 KiB of From"


# Admission and words

GB = 1 << 30


@pytest.mark.parametrize(
    ("room", "taken"),
    [
        (Room(GB, 10**6, GB), True),
        (Room(GB, 10**6, None), True),
        (Room(decide.DISK_FLOOR - 1, 10**6, None), False),
        (Room(GB, decide.INODE_FLOOR - 1, None), False),
        (Room(GB, 10**6, decide.MEMORY_FLOOR - 1), False),
        (Room(GB, 10**6, 0), False),
    ],
)
def test_nothing_is_taken_without_room(room: Room, taken: bool) -> None:
    answer = decide.admission(room)
    assert (answer is None) is taken
    assert answer is None or str(answer).startswith("451 4.3.1 ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 seconds"), (119.0, "119 seconds"), (120.1, "3 minutes"), (7201.0, "3 hours")],
)
def test_a_wait_is_never_said_too_short(seconds: float, text: str) -> None:
    assert decide.duration(seconds) == text


def test_what_can_never_be_sent_is_refused_for_good() -> None:
    assert decide.over_limit("i@example.com", Over(5, "an hour", None)).code == 554
    assert decide.over_limit("i@example.com", Over(5, "an hour", 9.0)).code == 451


@pytest.mark.parametrize("text", ["i", "", "a@b@example.com", "i@", "i@ex ample.com", "i@-.com"])
def test_an_envelope_without_one_meaning_has_no_canonical_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decide.canonical(text)


def test_relaxed_alignment() -> None:
    rules = Rules("smtp.example.com", frozenset({"example.com"}), {})
    message = b"From: i@example.com\n"
    for sender, code in (
        ("b@bounces.example.com", 250), ("i@example.com", 250), ("i@example.org", 554)
    ):  # fmt: skip
        envelope = Envelope(sender=sender, spf=True)
        assert decide.decide(rules, envelope, message).code == code, sender
    assert Domain("example.com") in rules.domains
