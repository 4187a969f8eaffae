"""What must be on disk, and what is missing. Whole outputs are in tests/cases/env."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from entrypoint.chasquid import passwords, userdb
from entrypoint.chasquid.aliases import Mailbox, Pipe
from entrypoint.chasquid.userdb import Denied, Plain, Scrypt
from entrypoint.common.identity import Owner
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import plan
from entrypoint.converge.plan import Effect, File, Folder, MissingCertificate, MissingKey, Plan
from entrypoint.keys import certs
from entrypoint.keys.dkim import Algorithm
from entrypoint.settings.model import Settings
from entrypoint.state.load import DomainState, State
from tests.unit import chasquid_reference
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, HOST, TODAY, asked, loaded_key

PATHS = Paths()
RSA, ED25519 = loaded_key(Algorithm.RSA, "t1r"), loaded_key(Algorithm.ED25519, "t1e")
PAIR = certs.self_signed([Domain(HOST), EXAMPLE_COM, EXAMPLE_ORG])
TWO = asked(MAIL_DOMAINS="example.com example.org")


def keys_missing(wanted: Settings, **domains: DomainState) -> list[tuple[str, str]]:
    state = State(
        domains={Domain(name.replace("_", ".")): have for name, have in domains.items()},
        self_signed=PAIR,
    )
    return [
        (item.domain, item.selector)
        for item in plan.missing(wanted, state, PATHS, TODAY)
        if isinstance(item, MissingKey)
    ]


# What is missing


def test_on_the_first_boot() -> None:
    found = plan.missing(asked(), State(), PATHS, TODAY)
    assert found == (
        MissingKey(
            EXAMPLE_COM, found[0].selector, Algorithm.RSA,  # type: ignore[union-attr]
            Path("/data/domains/example.com/dkim:t20260101r.pem"),
        ),
        MissingCertificate((Domain(HOST), EXAMPLE_COM), Path("/data/certs/self-signed")),
    )  # fmt: skip


def test_one_key_a_domain_and_algorithm() -> None:
    wanted = asked(MAIL_DOMAINS="example.com example.org", DKIM_KEYS="rsa2048,ed25519")
    assert keys_missing(wanted) == [
        ("example.com", "t20260101r"),
        ("example.com", "t20260101e"),
        ("example.org", "t20260101r"),
        ("example.org", "t20260101e"),
    ]


def test_the_selector_that_was_asked_for() -> None:
    assert keys_missing(asked(DKIM_SELECTOR="mail")) == [("example.com", "mailr")]
    longest = "s" * 40
    assert keys_missing(asked(DKIM_SELECTOR=longest)) == [("example.com", f"{longest}r")]


def test_new_keys_follow_those_that_exist() -> None:
    """So a first boot that was killed half way ends with one prefix."""
    assert keys_missing(
        TWO, example_com=DomainState(keys=(RSA,), selectors=frozenset({"t1r"}))
    ) == [("example.org", "t1r")]
    both = asked(DKIM_KEYS="rsa2048,ed25519")
    assert keys_missing(both, example_com=DomainState(keys=(RSA,))) == [("example.com", "t1e")]


def test_a_key_of_any_name_will_do() -> None:
    own = loaded_key(Algorithm.RSA, "google")
    assert keys_missing(asked(), example_com=DomainState(keys=(own,))) == []
    assert keys_missing(asked(DKIM_SELECTOR="new"), example_com=DomainState(keys=(own,))) == []


@pytest.mark.parametrize(
    ("damaged", "made"),
    [
        ("t1r", ["t1e"]),
        ("t1e", ["t1r"]),
        # Of which kind these were, nobody knows.
        ("mail", []),
        ("google", []),
        ("mailer", []),
    ],
)
def test_a_damaged_key_is_never_made_anew(damaged: str, made: list[str]) -> None:
    wanted = asked(DKIM_KEYS="rsa2048,ed25519", DKIM_SELECTOR="t1")
    names = frozenset({damaged})
    have = DomainState(selectors=names, damaged=names)
    assert [selector for _, selector in keys_missing(wanted, example_com=have)] == made


def test_a_new_key_takes_no_name_that_another_has() -> None:
    """An Ed25519 key called t1r.pem by its owner would be written over by the new RSA key."""
    odd = loaded_key(Algorithm.ED25519, "t1r")
    have = DomainState(keys=(odd,), selectors=frozenset({"t1r"}))
    assert keys_missing(asked(DKIM_SELECTOR="t1"), example_com=have) == [("example.com", "t12r")]
    have = DomainState(keys=(odd,), selectors=frozenset({"t1r", "t12r"}))
    assert keys_missing(asked(DKIM_SELECTOR="t1"), example_com=have) == [("example.com", "t13r")]


def test_keys_of_other_domains_do_not_count() -> None:
    assert keys_missing(asked(), example_org=DomainState(keys=(RSA,))) == [("example.com", "t1r")]


@pytest.mark.parametrize(
    ("pair", "is_missing"),
    [
        (PAIR, False),
        (None, True),
        (certs.self_signed([Domain(HOST)]), True),
        (certs.self_signed([Domain(HOST), EXAMPLE_COM]), False),
        (certs.self_signed([EXAMPLE_COM, Domain("*.example.com")]), False),
    ],
)
def test_a_certificate_that_covers_all(pair: certs.Certificate | None, is_missing: bool) -> None:
    state = State(domains={EXAMPLE_COM: DomainState(keys=(RSA,))}, self_signed=pair)
    found = plan.missing(asked(), state, PATHS, TODAY)
    assert [type(item) for item in found] == ([MissingCertificate] if is_missing else [])


@pytest.mark.parametrize(("days", "is_missing"), [(31, False), (30, True), (0, True), (-1, True)])
def test_a_self_signed_certificate_does_not_run_out(days: int, is_missing: bool) -> None:
    state = State(domains={EXAMPLE_COM: DomainState(keys=(RSA,))}, self_signed=PAIR)
    today = PAIR.not_after.date() - timedelta(days=days)
    found = plan.missing(asked(), state, PATHS, today)
    assert [type(item) for item in found] == ([MissingCertificate] if is_missing else [])


# What must be


def state_of(**domains: DomainState) -> State:
    return State(
        domains={Domain(name.replace("_", ".")): have for name, have in domains.items()},
        self_signed=PAIR,
    )


FULL = state_of(
    example_com=DomainState(
        users={"i": Plain(b"x")}, aliases={"a": (Mailbox("i", EXAMPLE_COM),)}, keys=(RSA, ED25519)
    ),
    example_org=DomainState(keys=(RSA,)),
)


def items(made: Plan) -> list[Folder | File]:
    return [*made.folders, *made.files]


def files(made: Plan) -> dict[str, File]:
    return {str(item.path): item for item in made.files}


def served(made: Plan, domain: str = "example.com") -> tuple[set[str], dict[str, list[str]]]:
    """Users and aliases as chasquid reads them: local parts, and addresses by local part."""
    folder = PATHS.chasquid / "domains" / domain
    found = files(made)
    users = found.get(str(folder / "users"))
    rules = chasquid_reference.read_aliases(found[str(folder / "aliases")].content.decode(), domain)
    return set(userdb.parse(users.content.decode()) if users else {}), {
        name.partition("@")[0]: [item.address for item in targets]
        for name, targets in rules.items()
    }


def test_chasquid_s_hook_is_a_link_into_the_image() -> None:
    """Docker mounts tmpfs without the right to execute."""
    [link] = plan.build(TWO, FULL, PATHS).links
    assert link.path == PATHS.chasquid / "hooks/post-data"
    assert link.target == PATHS.lib / "hooks/post-data"
    assert link.effect is Effect.NONE


def test_who_may_read_what() -> None:
    made = plan.build(TWO, FULL, PATHS)
    chasquids = {PATHS.queue, PATHS.mail, PATHS.events, PATHS.policy}
    for item in items(made):
        is_folder = isinstance(item, Folder)
        if item.path == PATHS.data:
            expected = (Owner.TAMBO, Owner.CHASQUID, 0o710)
        elif item.path in chasquids:
            expected = (Owner.CHASQUID, Owner.CHASQUID, 0o700)
        elif item.path.is_relative_to(PATHS.data):
            expected = (Owner.TAMBO, Owner.TAMBO, 0o700 if is_folder else 0o600)
        elif item.path in (PATHS.auth, PATHS.passwords):
            expected = (Owner.TAMBO, Owner.AUTH, 0o750 if is_folder else 0o640)
        else:
            expected = (Owner.TAMBO, Owner.CHASQUID, 0o750 if is_folder else 0o640)
        assert (item.owner, item.group, item.mode) == expected, item.path


def test_every_file_has_its_folder_before_it_and_none_stands_twice() -> None:
    made = plan.build(TWO, FULL, PATHS)
    folders = [item.path for item in made.folders]
    for path, times in Counter([*folders, *(item.path for item in made.files)]).items():
        assert times == 1, path
    for item in made.files:
        assert item.path.parent in folders
    for index, path in enumerate(folders):
        if path.parent not in (Path("/"), Path("/run")):
            assert path.parent in folders[:index], path


def test_what_needs_which_effect() -> None:
    made = plan.build(TWO, FULL, PATHS)
    for item in items(made):
        if not item.path.is_relative_to(PATHS.chasquid):
            expected = Effect.NONE
        elif item.path.name in ("users", "aliases"):
            expected = Effect.RELOAD
        else:
            expected = Effect.RESTART
        assert item.effect is expected, item.path
    assert Effect.NONE < Effect.RELOAD < Effect.RESTART


def test_only_chasquids_folder_is_cleaned() -> None:
    assert plan.build(TWO, FULL, PATHS).exclusive == PATHS.chasquid


def test_keys_that_sign() -> None:
    def signing(wanted: Settings) -> set[str]:
        found = files(plan.build(wanted, FULL, PATHS))
        root = f"{PATHS.chasquid}/domains/"
        return {path.removeprefix(root) for path in found if "dkim:" in path and root in path}

    assert signing(TWO) == {"example.com/dkim:t1r.pem", "example.org/dkim:t1r.pem"}
    assert signing(asked(DKIM_KEYS="ed25519")) == {"example.com/dkim:t1e.pem"}


def test_all_keys_have_a_copy_also_those_that_do_not_sign() -> None:
    found = files(plan.build(TWO, FULL, PATHS))
    assert found["/data/state/good/example.com/dkim:t1e.pem"].content == ED25519.pem
    assert found["/data/state/good/example.com/dkim:t1r.pem"].content == RSA.pem
    copy = found["/data/state/good/example.com/users"].content.decode()
    assert userdb.parse(copy) == {"i": Plain(b"x")}, "the owner's users, not those added"
    assert found["/data/state/good/example.com/aliases"].content == b"a: i@example.com\n"


def test_credentials_with_a_name_go_where_their_user_does() -> None:
    """`i+phone` is a user to chasquid, and `you+web` one of somebody who has nothing else."""
    users = {name: Plain(b"x") for name in ("i", "i+phone", "you+web", "rua+x")}
    state = state_of(example_com=DomainState(users=users, keys=(ED25519,)))
    found, rules = served(plan.build(asked(FORWARD_TO="me@example.net"), state, PATHS))
    assert found == {*users, "you", "postmaster", "abuse", "rua", "ruf"}
    assert rules == {name: ["me@example.net"] for name in ("*", "i", "you", "postmaster", "abuse")}
    copy = files(plan.build(asked(), state, PATHS))["/data/state/good/example.com/users"]
    assert set(userdb.parse(copy.content.decode())) == set(users), "the owner's alone"


def test_that_there_is_nobody_is_kept_too() -> None:
    """Else the copy of what was there before would come back on the day of a broken edit."""
    have = DomainState(keys=(ED25519,), present=frozenset({"users", "aliases", "senders"}))
    found = files(plan.build(asked(), State(domains={EXAMPLE_COM: have}), PATHS))
    copies = {name: found[f"/data/state/good/example.com/{name}"].content.decode()
              for name in ("users", "aliases", "senders")}  # fmt: skip
    assert copies == {"users": "# none\n", "aliases": "", "senders": ""}
    assert userdb.parse(copies["users"]) == {}


def test_a_domain_that_is_taken_out_of_the_settings() -> None:
    made = plan.build(asked(), FULL, PATHS)
    assert not any("example.org" in str(item.path) for item in items(made))


def test_the_host_is_a_domain_that_nobody_logs_in_at() -> None:
    stranger = DomainState(users={"i": Plain(b"x")}, aliases={"x": (Pipe("y"),)}, keys=(RSA,))
    made = plan.build(asked(), state_of(smtp_example_com=stranger), PATHS)
    users, rules = served(made, HOST)
    assert users == {"postmaster", "abuse", "rua", "ruf"}
    assert rules == {}
    assert f"{PATHS.chasquid}/domains/{HOST}/dkim:t1r.pem" not in files(made)


def test_roles_exist_and_never_log_in() -> None:
    made = plan.build(asked(), state_of(), PATHS)
    content = files(made)[f"{PATHS.chasquid}/domains/example.com/users"].content.decode()
    assert userdb.parse(content) == dict.fromkeys(("abuse", "postmaster", "rua", "ruf"), Denied())


def test_the_owners_own_roles_win() -> None:
    have = DomainState(
        users={"postmaster": Plain(b"x")}, aliases={"abuse": (Mailbox("i", EXAMPLE_ORG),)}
    )
    made = plan.build(asked(), state_of(example_com=have), PATHS)
    users, rules = served(made)
    assert users == {"postmaster", "rua", "ruf"}
    assert rules == {"abuse": ["i@example.org"]}
    content = files(made)[f"{PATHS.chasquid}/domains/example.com/users"].content.decode()
    assert userdb.parse(content)["postmaster"] == Denied(), "chasquid asks the auth service"
    content = files(made)[str(PATHS.passwords)].content.decode()
    assert passwords.load(content) == {"postmaster@example.com": Plain(b"x")}


def test_chosen_passwords_are_the_auth_services_and_generated_ones_chasquids() -> None:
    """Else 120 guesses at once would take 1.9 GB of chasquid's process."""
    users: dict[str, userdb.Secret] = {
        "made": Scrypt.of("generated", userdb.GENERATED_LOG_N), "new": Scrypt.chosen("chosen one"),
        "old": Scrypt.of("chosen one", 14), "clear": Plain(b"x"), "never": Denied(),
    }  # fmt: skip
    name = Domain("xn--bcher-kva.example")
    wanted = asked(MAIL_DOMAINS=str(name))
    made = plan.build(wanted, State(domains={name: DomainState(users=users)}), PATHS)
    content = files(made)[f"{PATHS.chasquid}/domains/{name}/users"].content.decode()
    theirs = {user: secret for user, secret in userdb.parse(content).items() if user in users}
    assert theirs == {
        **dict.fromkeys(("new", "old", "clear", "never"), Denied()), "made": users["made"]
    }  # fmt: skip
    content = files(made)[str(PATHS.passwords)].content.decode()
    assert passwords.load(content) == {
        f"{user}@bücher.example": users[user] for user in ("new", "old", "clear")
    }, "by the name that chasquid asks with"


def test_forwarding_covers_each_user_but_not_the_reports() -> None:
    wanted = asked(FORWARD_TO="me@example.net")
    have = DomainState(users={"i": Denied(), "rua": Denied()})
    users, rules = served(plan.build(wanted, state_of(example_com=have), PATHS))
    assert users == {"i", "postmaster", "abuse", "rua", "ruf"}
    assert rules == {name: ["me@example.net"] for name in ("*", "i", "postmaster", "abuse")}


def test_nothing_is_forwarded_that_was_not_asked_to_be() -> None:
    assert served(plan.build(asked(), FULL, PATHS))[1] == {"a": ["i@example.com"]}


@pytest.mark.parametrize(
    ("known", "servers"),
    [
        ({EXAMPLE_ORG: (Domain("mx1.example.net"), Domain("mx2.example.net"))},
         ("mx1.example.net", "mx2.example.net")),
        ({}, ()),  # never seen: in an alias loop, which chasquid answers with 451
        ({EXAMPLE_ORG: ()}, None),
    ],
)  # fmt: skip
def test_mail_to_a_domain_that_receives_elsewhere(
    known: dict[Domain, tuple[Domain, ...]], servers: tuple[str, ...] | None
) -> None:
    have = DomainState(users={"i": Denied()}, aliases={"own": (Mailbox("i", EXAMPLE_COM),)})
    state = State(domains={EXAMPLE_ORG: have}, self_signed=PAIR, exchangers=known)
    wanted = asked(
        MAIL_DOMAINS="example.com example.org",
        MAIL_RECEIVE="example.com",
        FORWARD_TO="me@example.net",
    )
    made = files(plan.build(wanted, state, PATHS))
    folder = f"{PATHS.chasquid}/domains/example.org"
    rules = chasquid_reference.read_aliases(
        made[f"{folder}/aliases"].content.decode(), "example.org"
    )
    expected = {"own@example.org": [chasquid_reference.Recipient("i@example.com", "email")]}
    kind = "forward" if servers else "email"
    # Without any MX host the users alone go in a loop: others are unknown, and refused at once.
    for name in ("i",) if servers is None else ("*", "i"):
        address = f"{name}@example.org"
        expected[address] = [chasquid_reference.Recipient(address, kind, servers or ())]
    assert rules == expected
    assert set(userdb.parse(made[f"{folder}/users"].content.decode())) == {"i"}, "no roles here"


def test_a_send_only_domain_without_users_has_no_users_file() -> None:
    made = files(plan.build(asked(MAIL_RECEIVE="none"), state_of(), PATHS))
    assert f"{PATHS.chasquid}/domains/example.com/users" not in made
    assert f"{PATHS.chasquid}/domains/{HOST}/users" in made


def test_without_a_certificate_chasquid_would_not_start_but_a_plan_can_be_made() -> None:
    """`missing` comes first; a pure function still must not fail."""
    assert plan.build(asked(), State(), PATHS).files


def test_contents_do_not_show() -> None:
    assert "PRIVATE" not in repr(plan.build(TWO, FULL, PATHS))


def test_pure() -> None:
    assert plan.build(TWO, FULL, PATHS) == plan.build(TWO, FULL, PATHS)
