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
