"""Users and aliases, followed as chasquid follows them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from entrypoint.chasquid import aliases, userdb
from entrypoint.checks import accounts
from entrypoint.common.findings import Finding, Level
from entrypoint.state.load import DomainState
from tests.unit.checks.kit import Scene
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, asked

USERS = {"i": userdb.Scrypt.of("a long secret", 1)}
LOUD = (Level.UNKNOWN, Level.WARN, Level.FAIL)


@pytest.fixture
def served(scene: Scene) -> Scene:
    scene.settings = asked(MAIL_DOMAINS="example.com,example.org")
    scene.with_domain(users=USERS)
    return scene


def rules(scene: Scene, text: str) -> None:
    scene.with_domain(aliases=aliases.parse(text, EXAMPLE_COM))


def said(scene: Scene) -> list[tuple[str, str]]:
    return [(item.id, item.subject) for item in scene.found(accounts.check) if item.level in LOUD]


def test_a_plain_server(served: Scene) -> None:
    assert said(served) == []
    kept = [item for item in served.found(accounts.check) if item.id == "role-kept"]
    assert [item.subject for item in kept] == ["example.com", "example.org"]


def test_nobody_may_send_yet(scene: Scene) -> None:
    assert "no-users" in scene.ids(accounts.check, Level.INFO)
    scene.with_domain(users={"rua": userdb.Denied(), "postmaster": USERS["i"]})
    assert "no-users" in scene.ids(accounts.check, Level.INFO), "these are no senders"


@pytest.mark.parametrize(
    "text",
    [
        "sales: i\n",
        "sales: i, you@example.net\n",
        "*: me@example.net\n",
        "*: *@example.net\n",
        "*: i\n",
        "sales: support\nsupport: i\n",
        "sales: i+sales\n",
        "sales: | /bin/true\n",
        "sales: nobody-here@example.org via mx.example.net\n",
        "sales: you@example.net via mx.example.net\n",
        "i: me@example.net\n",
        "sales: postmaster@example.org\n",
        "chain: " + "a1\n" + "".join(f"a{n}: a{n + 1}\n" for n in range(1, 8)) + "a8: i\n",
    ],
)
def test_aliases_that_lead_somewhere(served: Scene, text: str) -> None:
    rules(served, text)
    assert said(served) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i: i\n", ["i"]),
        ("sales: support\nsupport: sales\n", ["sales", "support"]),
        ("sales: support, you@example.net\nsupport: sales\n", ["sales", "support"]),
        ("*: *@example.com\n", ["*"]),
        ("*: nobody-here\n", ["*"]),  # which is the catch-all's again
        ("sales: sales+x\n", ["sales"]),
        # chasquid gives up at the tenth step, also where there is no loop.
        ("".join(f"a{n}: a{n + 1}\n" for n in range(9)) + "a9: i\n", ["a0"]),
    ],
)
def test_alias_loops(served: Scene, text: str, expected: list[str]) -> None:
    rules(served, text)
    assert said(served) == [("alias-loop", f"{name}@example.com") for name in expected]
    assert {item.level for item in served.found(accounts.check)} >= {Level.FAIL}


def test_an_alias_loop_through_two_domains(served: Scene) -> None:
    rules(served, "sales: sales@example.org\n")
    have = DomainState(aliases=aliases.parse("sales: sales@example.com\n", EXAMPLE_ORG))
    served.state = replace(served.state, domains={**served.state.domains, EXAMPLE_ORG: have})
    assert said(served) == [
        ("alias-loop", "sales@example.com"), ("alias-loop", "sales@example.org"),
    ]  # fmt: skip


def test_an_alias_loop_is_shown_with_its_line(served: Scene) -> None:
    text = "# mine\n\nsales: support\nsupport: desk\ndesk: support\n"
    served.with_domain(aliases=aliases.parse(text, EXAMPLE_COM), aliases_text=text)
    first = next(item for item in served.found(accounts.check) if item.id == "alias-loop")
    chain = " → ".join(f"{name}@example.com" for name in ("sales", "support", "desk", "support"))
    assert first.message == (
        "data/domains/example.com/aliases: line 3: mail to sales@example.com goes round in a "
        f"loop: {chain}."
    )
    assert first.seen == chain


def test_an_alias_loop_that_the_owner_s_forward_ends(served: Scene) -> None:
    served.settings = asked(FORWARD_TO="me@example.net")
    rules(served, "sales: nobody-here\n")
    assert said(served) == [], "the catch-all forwards it"
    assert served.ids(accounts.check, Level.INFO) == [], "postmaster is read"


def test_many_branches_are_followed_once(served: Scene) -> None:
    """Each of ten steps to ten names would be ten thousand million ways."""
    everybody = ", ".join(f"n{n}" for n in range(10))
    rules(served, "".join(f"n{n}: {everybody}\n" for n in range(10)))
    assert len(said(served)) == 10


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("sales: nobody-here\n", "nobody-here@example.com"),
        ("sales: i, nobody-here@example.org\n", "nobody-here@example.org"),
        ("sales: support\nsupport: nobody-here\n", "nobody-here@example.com"),
        ("sales: someone@smtp.example.com\n", "someone@smtp.example.com"),
    ],
)
def test_aliases_to_nobody(served: Scene, text: str, target: str) -> None:
    rules(served, text)
    found = said(served)
    assert ("alias-nowhere", f"sales@example.com {target}") in found
    assert {name for name, _ in found} == {"alias-nowhere"}


def test_domains_that_receive_elsewhere(served: Scene) -> None:
    served.settings = asked(MAIL_DOMAINS="example.com,example.org", MAIL_RECEIVE="example.com")
    rules(served, "sales: anybody@example.org\n")
    assert said(served) == [], "it goes on to the real exchangers"
    kept = [item.subject for item in served.found(accounts.check) if item.id == "role-kept"]
    assert kept == ["example.com"], "the other's postmaster is the provider's"


def test_roles_with_an_alias_are_read_by_somebody(served: Scene) -> None:
    rules(served, "postmaster: me@example.net\nabuse: | /bin/true\n")
    kept = [item for item in served.found(accounts.check) if item.id == "role-kept"]
    assert [item.subject for item in kept] == ["example.org"]


def test_broken_files_and_unserved_domains(served: Scene) -> None:
    served.state = replace(
        served.state,
        findings=(
            Finding(
                id="broken-users",
                level=Level.FAIL,
                message="data/x: line 3 is wrong.",
                fix="mend it",
                subject="x",
            ),
            Finding(
                id="broken-dkim",
                level=Level.FAIL,
                message="data/y: damaged.",
                fix="mend it",
                subject="y",
            ),
            Finding(
                id="broken-certificate",
                level=Level.FAIL,
                message="data/z: damaged.",
                fix="mend it",
                subject="z",
            ),
        ),
    )
    served.settings = asked(MAIL_DOMAINS="example.org")
    found = [item for item in accounts.check(served.context()) if item.level in LOUD]
    assert [item.id for item in found] == ["broken-users", "unserved-domain"]
    assert all(item.why for item in found)


def test_passwords_of_before_are_to_be_set_again(served: Scene) -> None:
    chosen = userdb.Scrypt.chosen("a choice of mine")
    served.with_domain(users={**USERS, "new": chosen})
    assert "password-old" not in served.ids(accounts.check, Level.WARN)
    old = userdb.Scrypt.of("a choice of mine", 14)
    served.with_domain(users={**USERS, "new": chosen, "j+phone": old, "k": userdb.Plain(b"x")})
    [found] = [item for item in served.found(accounts.check) if item.id == "password-old"]
    assert "j+phone@example.com, k@example.com" in found.message
    assert "set-password j@example.com --name phone --prompt" in found.fix
