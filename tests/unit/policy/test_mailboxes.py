"""Which messages are refused for full mailboxes."""

from __future__ import annotations

import pytest

from entrypoint.chasquid import aliases
from entrypoint.chasquid.userdb import Denied
from entrypoint.converge import plan
from entrypoint.policy import decide, mailboxes
from entrypoint.policy.decide import Envelope
from entrypoint.state.load import DomainState, State
from tests.unit.kit import EXAMPLE_COM, asked

ALIASES = """\
sales: i, j
out: i, you@example.net
program: | /bin/true
"""
USERS = {name: Denied() for name in ("i", "j", "k")}
FULL = {"i@example.com", "j@example.com", "postmaster@example.com", "rua@example.com"}


def answer(recipients: str, extra: str = "", **settings: str) -> str:
    have = DomainState(users=USERS, aliases=aliases.parse(ALIASES + extra, EXAMPLE_COM))
    wanted = asked(**{"MAILBOX_MB": "1", **settings})
    rules = decide.load(decide.dump(plan.rules(wanted, State(domains={EXAMPLE_COM: have}))))
    envelope = Envelope(recipients=tuple(f"{name}@example.com" for name in recipients.split()))
    sizes = dict.fromkeys(FULL, 1 << 20) | {"k@example.com": (1 << 20) - 1}
    found = mailboxes.refusal(rules, envelope, sizes.get)
    return str(found) if found else "taken"


@pytest.mark.parametrize("recipients", ["i", "I", "i+tag", "i j", "sales", "sales+tag i", "rua"])
def test_mail_that_ends_in_full_mailboxes_alone_is_refused(recipients: str) -> None:
    assert answer(recipients).startswith("554 5.2.2 the mailbox"), answer(recipients)


@pytest.mark.parametrize(
    "recipients", ["k", "i k", "out", "i out", "program", "postmaster", "i abuse", "ruf", "nobody"]
)
def test_other_mail_is_taken(recipients: str) -> None:
    assert answer(recipients) == "taken"


def test_the_answer_names_the_mailboxes() -> None:
    assert answer("i") == "554 5.2.2 the mailbox i@example.com is full (over 1 MB)"
    assert answer("sales") == (
        "554 5.2.2 the mailboxes i@example.com, j@example.com are full (over 1 MB)"
    )


def test_without_a_quota_nothing_is_full() -> None:
    assert answer("i", MAILBOX_MB="none") == "taken"


def test_forwarded_mail_has_no_mailbox() -> None:
    assert answer("i j anybody", FORWARD_TO="me@example.net") == "taken"


def test_a_catch_all_s_mailbox_counts_if_it_is_one() -> None:
    assert answer("anybody", "*: i\n")[:9] == "554 5.2.2"
    assert answer("anybody", "*: *@example.net\n") == "taken"


def test_abuse_alone_is_never_refused() -> None:
    have = DomainState(users={"abuse": Denied()})
    rules = plan.rules(asked(MAILBOX_MB="1"), State(domains={EXAMPLE_COM: have}))
    envelope = Envelope(recipients=("abuse@example.com",))
    assert mailboxes.concerned(rules, envelope) == frozenset()


def test_at_most_three_mailboxes_are_named() -> None:
    names = [f"u{number}" for number in range(5)]
    have = DomainState(users={name: Denied() for name in names})
    rules = plan.rules(asked(MAILBOX_MB="1"), State(domains={EXAMPLE_COM: have}))

    def said(count: int) -> str:
        envelope = Envelope(recipients=tuple(f"{name}@example.com" for name in names[:count]))
        answer = mailboxes.refusal(rules, envelope, lambda _: 1 << 20)
        assert answer is not None
        assert answer.counts, "a login that goes on trying comes to its limit"
        return answer.text

    assert "u2@example.com are full" in said(3)
    assert "u2@example.com and 2 more are full" in said(5)


def test_what_has_no_limit_or_no_recipient_concerns_no_mailbox() -> None:
    have = DomainState(users=USERS)
    state = State(domains={EXAMPLE_COM: have})
    limited = plan.rules(asked(MAILBOX_MB="1"), state)
    assert mailboxes.concerned(limited, Envelope()) == frozenset()
    unlimited = plan.rules(asked(MAILBOX_MB="none"), state)
    envelope = Envelope(recipients=("i@example.com",))
    assert mailboxes.concerned(unlimited, envelope) == frozenset(), "so no size is looked up"
    assert mailboxes.concerned(limited, envelope) == {"i@example.com"}
    assert not mailboxes.is_full(unlimited, 1 << 40)
