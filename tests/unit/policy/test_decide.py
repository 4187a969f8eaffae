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
from entrypoint.policy import author, decide, header
from entrypoint.policy.backscatter import UNPROVEN
from entrypoint.policy.decide import Envelope, LoginRules, Results, Room, Rules, Signature
from entrypoint.policy.routes import Route
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


def test_all_that_rules_say_survives_the_way_to_the_service() -> None:
    login = LoginRules(
        frozenset({"i@example.com"}), frozenset({"example.org"}), Limit(3), "f", chosen=True
    )
    full = Rules(
        "smtp.example.com", frozenset({"example.com"}), {"i@example.com": login}, Limit(1, 2),
        frozenset({"i+x@example.com"}), frozenset({"example.com", "example.net"}),
        {"example.com": Route({"i": True})}, True, 7, 5,
    )  # fmt: skip
    assert decide.load(decide.dump(full)) == full


def test_rules_of_the_version_before_mean_what_the_settings_do_when_unset() -> None:
    old = '{"host": "h.example", "domains": [], "limit": "none", "named": [], "logins": {}}'
    found = decide.load(old)
    assert (found.max_queue, found.mailbox_mb) == (2000, 0)
    assert found == Rules("h.example", frozenset(), {})


def test_a_login_that_is_gone_waits(rules: Rules) -> None:
    answer = decide.decide(
        rules, Envelope("gone@example.com", "gone@example.com"), b"From: a@b.c\n"
    )
    assert str(answer).startswith("451 4.7.1 'gone@example.com' is not known")
    assert not answer.counts, "it is not the login's doing"
    assert not rules.may("gone@example.com", "gone@example.com")


@pytest.mark.parametrize(
    ("mail_from", "section", "expected"),
    [
        ("i", b"", "554 5.7.1 MAIL FROM of i@example.com: 'i' is not name@domain"),
        ("i@example.com", b"Resent-Bcc: x@example.net\n", "554 5.6.0 a Resent-Bcc header"),
    ],
)
def test_submission_that_is_wrong(mail_from: str, section: bytes, expected: str) -> None:
    login = LoginRules(frozenset({"i@example.com"}))
    rules = Rules("smtp.example.com", frozenset({"example.com"}), {"i@example.com": login})
    envelope = Envelope("i@example.com", mail_from)
    message = section + b"From: i@example.com\nDate: x\n"
    assert str(decide.decide(rules, envelope, message)).startswith(expected)


def test_what_is_no_address_is_no_login() -> None:
    assert decide.login_of(Envelope("i")) == decide.login_of(Envelope()) == ""


def test_a_name_that_is_nothing_but_a_suffix_is_its_own() -> None:
    assert decide.base("+x@example.com") == "+x@example.com"
    assert decide.base("i+x+y@example.com") == "i@example.com"


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


@pytest.mark.parametrize(
    ("result", "reason", "unknown"),
    [
        ("temperror", "anything", True),
        ("permerror", "lookup example.com on 192.0.2.53:53: server misbehaving", True),
        ("permerror", "too many lookups", False),
        ("fail", "lookup example.com: not permitted", False),
    ],
)
def test_what_dns_did_not_say_of_spf_is_not_known(result: str, reason: str, unknown: bool) -> None:
    assert Results(result, reason).spf_unknown is unknown


def test_a_failed_signature_is_not_unknown_for_its_reason() -> None:
    assert not Signature("fail", "example.com", "", "lookup a: server misbehaving").unknown


def test_the_first_of_two_spf_verdicts_is_read_and_a_byte_that_is_no_text_harms_none() -> None:
    raw = b"Authentication-Results: h\r\n\t;spf=fail (\xff)\r\n\t;spf=pass (b)\n"
    assert decide.results(raw) == Results("fail", "\ufffd")


def test_a_signature_without_its_first_characters_is_read() -> None:
    raw = b"Authentication-Results: h\r\n\t;dkim=pass  header.d=example.com\n"
    assert decide.results(raw).signatures == (Signature("pass", "example.com", "", ""),)


def test_another_s_partial_signature_takes_nothing_from_a_whole_one() -> None:
    rules = Rules("smtp.example.com", frozenset({"example.com"}), {})
    section = (
        b"Authentication-Results: h\r\n\t;dkim=pass  header.b=AAAABBBB  header.d=example.com\n"
        b"DKIM-Signature: d=example.com; x=\xff; b=AAAABBBBCCCC\n"
        b"DKIM-Signature: d=example.net; l=0; b=DDDDEEEE\n"
        b"From: i@example.com\n"
    )
    assert decide.decide(rules, Envelope(), section).code == 250


def test_of_two_of_ours_in_from_both_must_be_proven_now() -> None:
    rules = Rules("smtp.example.com", frozenset({"example.com", "example.org"}), {})
    section = (
        b"Authentication-Results: h\r\n\t;dkim=pass  header.b=AAAA  header.d=example.com\r\n"
        b"\t;dkim=temperror  header.b=BBBB  header.d=example.org\n"
        b"From: i@example.com, j@example.org\n"
    )
    answer = decide.decide(rules, Envelope(), section)
    assert str(answer).startswith("451 4.7.5 DNS could not say whether this is from example.org")


def test_an_envelope_sender_that_is_no_address_proves_nothing() -> None:
    rules = Rules("smtp.example.com", frozenset({"example.com"}), {})
    for sender in ("i", "<>", "a@b@example.com"):
        envelope = Envelope(sender=sender, spf=True)
        assert decide.decide(rules, envelope, b"From: i@example.com\n").code == 554, sender
        assert decide.proven(envelope) == UNPROVEN == ""


def test_a_sender_is_proven_by_spf_for_its_organization() -> None:
    envelope = Envelope(sender="a@mail.example.com", spf=True)
    assert decide.proven(envelope) == "example.com"
    assert decide.proven(replace(envelope, spf=False)) == UNPROVEN


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


@pytest.mark.parametrize(
    ("most", "section", "text"),
    [
        (
            header.MAX_HEADER,
            b"From: x@outside.example\nX: %s\n",
            "header section is larger than 256",
        ),
        (header.MAX_VALUE, b"From:%s\nFrom:%s\n", "554 5.6.0 more than 16 KiB of From"),
        (author.MAX_DOUBTFUL, b"From:%s\nFrom:%s\n", "and more than 4 KiB of it"),
    ],
)
def test_the_largest_is_looked_at_and_one_byte_more_is_not(
    most: int, section: bytes, text: str
) -> None:
    rules = Rules("smtp.example.com", frozenset({"example.com"}), {})

    def said(size: int) -> str:
        if section.count(b"%s") == 1:
            return str(
                decide.decide(rules, Envelope(), section % (b"x" * (size - len(section) + 2)))
            )
        return str(decide.decide(rules, Envelope(), section % (b"x" * 100, b"y" * (size - 100))))

    assert text not in said(most)
    assert text in said(most + 1)
    assert said(most + 1).startswith("554 5.6.0 ")


@pytest.mark.parametrize(
    ("hosts", "said"),
    [((), "none"), (("a.example", "b.example", "c.example", "d.example"),
                    "a.example, b.example, c.example")],
)  # fmt: skip
def test_mail_for_elsewhere_is_told_at_most_three_servers(
    hosts: tuple[str, ...], said: str
) -> None:
    rules = Rules(
        "smtp.example.com", frozenset({"example.com"}), {},
        routes={"example.com": Route(exchangers=hosts)},
    )  # fmt: skip
    answer = decide.decide(rules, Envelope(recipients=("i@example.com",)), b"")
    assert str(answer).endswith(f"send it to the domain's MX: {said}")


@pytest.mark.parametrize(
    ("sender", "recipient", "expected"),
    [
        ("x@example.net", "out@example.com", True),
        ("x@example.net", "kept@example.com", False),
        ("<>", "out@example.com", False),
    ],
)
def test_what_goes_on_may_bounce(sender: str, recipient: str, expected: bool) -> None:
    routes = {"example.com": Route({"out": True, "kept": False})}
    rules = Rules("smtp.example.com", frozenset({"example.com"}), {}, routes=routes)
    assert decide.may_bounce(rules, sender, ["kept@example.com", recipient]) is expected


def test_without_rules_all_but_bounces_may_bounce() -> None:
    assert decide.may_bounce(None, "x@example.net", ["i@example.com"]) is True
    assert decide.may_bounce(None, "<>", ["i@example.com"]) is False


@pytest.mark.parametrize("name", ["rua", "ruf", "RUA", "rua+x"])
def test_report_boxes(name: str) -> None:
    assert decide.is_report_box(f"{name}@example.com")
    assert not decide.is_report_box(f"x{name}@example.com")


def test_answers_of_each_kind_count_only_where_it_is_said() -> None:
    assert not decide.accept("x").counts
    assert not decide.refuse("5.7.1", "x").counts
    assert not decide.later("4.7.1", "x").counts
    assert str(decide.BOUNCES).startswith("451 4.7.1 ")
    assert decide.NUL.counts


# Admission and words

GB, MB = 1 << 30, 1 << 20


@pytest.mark.parametrize(
    ("room", "taken"),
    [
        (Room(GB, 10**6, GB), True),
        (Room(GB, 10**6, None), True),
        (Room(128 * MB, 1000, 48 * MB), True),
        (Room(128 * MB - 1, 1000, 48 * MB), False),
        (Room(128 * MB, 999, 48 * MB), False),
        (Room(128 * MB, 1000, 48 * MB - 1), False),
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


def test_the_last_tenth_of_the_disk_is_not_for_strangers() -> None:
    assert decide.admission_of_strangers(Room(10 * GB, 10**6, None, disk_size=100 * GB)) is None
    assert decide.admission_of_strangers(Room(0, 10**6, None)) is None, "the size is not known"
    answer = decide.admission_of_strangers(Room(10 * GB - 1, 10**6, None, disk_size=100 * GB))
    assert str(answer).startswith("451 4.3.1 less than 10 % of the disk is free")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 seconds"), (1.5, "2 seconds"), (119.0, "119 seconds"), (120.0, "2 minutes"),
        (120.1, "3 minutes"), (5400.0, "90 minutes"), (7200.0, "2 hours"), (7201.0, "3 hours"),
    ],
)  # fmt: skip
def test_a_wait_is_never_said_too_short(seconds: float, text: str) -> None:
    assert decide.duration(seconds) == text


def test_what_can_never_be_sent_is_refused_for_good() -> None:
    answer = decide.over_limit("i@example.com", Over(5, "an hour", None))
    assert str(answer).startswith("554 5.5.3 more recipients than i@example.com may reach")
    assert answer.counts
    assert decide.over_limit("i@example.com", Over(5, "an hour", 9.0)).code == 451


@pytest.mark.parametrize("text", ["i", "", "a@b@example.com", "i@", "i@ex ample.com", "i@-.com"])
def test_an_envelope_without_one_meaning_has_no_canonical_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decide.canonical(text)


@pytest.mark.parametrize("text", ["i", "a@b@example.com"])
def test_an_envelope_with_no_or_two_at_signs_is_said_to_have_no_domain(text: str) -> None:
    with pytest.raises(ValueError, match="is not name@domain"):
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


def test_what_chasquid_does_not_say_is_empty() -> None:
    assert Envelope() == Envelope("", "<>", (), "", spf=False)
    assert Signature("pass", "example.com") == Signature("pass", "example.com", "", "")
    assert Results() == Results("", "", ())
    assert LoginRules().fingerprint == ""
