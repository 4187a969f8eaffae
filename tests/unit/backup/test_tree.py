"""What a backup holds, what is a secret, and what a change is called."""

from __future__ import annotations

import json

import pytest

from entrypoint.backup.tree import (
    Change,
    Group,
    Item,
    build,
    env_file,
    files_of,
    group_of,
    parse_about,
    problems,
    remembered_in,
    subject,
)
from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import Denied, Scrypt
from entrypoint.common.errors import UserError
from entrypoint.common.names import Domain, Selector
from entrypoint.keys.dkim import Algorithm
from entrypoint.settings import environment
from entrypoint.settings.model import Given
from entrypoint.state.load import Owned, Remembered
from tests.unit.kit import asked, key_pem

D = "domains/example.com"
USERS = userdb.render({"i": Scrypt.of("secret-one", 1), "you": Denied()}).encode()
FILES = {
    f"{D}/users": Owned(USERS),
    f"{D}/aliases": Owned(b"# mine\nsales: i\n"),
    f"{D}/acme.env": Owned(b"CF_Token=hunter2\n"),
    f"{D}/dkim:k1r.pem": Owned(key_pem(Algorithm.RSA)),
    f"{D}/dkim/pending/dkim:k2e.pem": Owned(key_pem(Algorithm.ED25519)),
    f"{D}/dkim/retired/20260101T000000Z.dkim:k0r.pem": Owned(key_pem(Algorithm.RSA)),
    "acme/example.com/account.conf": Owned(b"SAVED_CF_Token='hunter2'\n"),
    "acme/example.com/example.com_ecc/fullchain.cer": Owned(b"-----BEGIN CERTIFICATE-----\n"),
    "acme/example.com/ca/x/strange.cer": Owned(b"-----BEGIN EC PRIVATE KEY-----\n"),
    "reload/tell": Owned(b"#!/bin/sh\n", executable=True),
}
RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


REMEMBERED = Remembered(
    {Domain.parse("example.com"): frozenset({Selector.parse("k0r"), Selector.parse("old")})},
    {"i@example.com": 1_767_225_600.5, "i+phone@example.com": 1.0, "x@example.org": 2.0},
)


@pytest.fixture
def tree() -> dict[str, Item]:
    asked_for = asked(DMARC_POLICY="reject")
    return build(asked_for, FILES, recipients=[RECIPIENT], remembered=REMEMBERED)


def test_what_is_not_known_to_be_harmless_is_a_secret(tree: dict[str, Item]) -> None:
    clear = {path for path, item in tree.items() if not item.secret}
    assert clear == {
        f"data/{D}/aliases", "data/acme/example.com/example.com_ecc/fullchain.cer",
        "overview/example.com/users", "overview/example.com/dkim",
        "settings.env", "backup.json", "README.md", "state/example.com/selectors",
    }  # fmt: skip
    for path in clear:
        for secret in (b"hunter2", b"PRIVATE KEY", b"scrypt"):
            assert secret not in tree[path].content


def test_the_overview_is_for_people(tree: dict[str, Item]) -> None:
    users = tree["overview/example.com/users"].content.decode()
    assert users == "i@example.com\nyou@example.com\n"
    lines = tree["overview/example.com/dkim"].content.decode().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["active", "k1r"], ["pending", "k2e"], ["retired", "k0r"],
    ]  # fmt: skip
    assert all("v=DKIM1" in line for line in lines)


def test_it_goes_back_as_it_was(tree: dict[str, Item]) -> None:
    assert files_of(tree) == FILES
    assert problems(tree) == []
    about = parse_about(tree["backup.json"].content)
    assert (about.host, about.recipients) == ("smtp.example.com", (RECIPIENT,))


def test_what_tambo_remembers_goes_back_as_it_was(tree: dict[str, Item]) -> None:
    assert tree["state/example.com/selectors"].content == b"k0r\nold\n"
    assert tree["state/example.com/credentials"].secret
    assert remembered_in(tree) == REMEMBERED
    assert remembered_in({}) == Remembered()


def test_what_makes_no_sense_of_it_is_left_out() -> None:
    strange = {"x/../y@example.com": 1.0, "no address": 1.0, "I@example.com": 1.0,
               "i@example.com": float("nan"), "j@example.com": -1.0}  # fmt: skip
    made = build(asked(), {}, recipients=(), remembered=Remembered({}, strange))
    assert not [path for path in made if path.startswith("state/")]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("state/example.com/selectors", b"../x\n"), ("state/../selectors", b"k\n"),
        ("state/example.com/credentials", b"i@example.com\n"),
        ("state/example.com/credentials", b"i@example.org 1\n"),
        ("state/example.com/credentials", b"i@example.com nan\n"),
        ("state/example.com/credentials", b"i@example.com 1 2\n"),
        ("state/example.com/selectors", b"\xff"),
    ],
)  # fmt: skip
def test_a_damaged_memory_is_told(path: str, content: bytes) -> None:
    with pytest.raises(UserError, match="in the backup is damaged"):
        remembered_in({path: Item(content)})


def test_what_is_wrong_is_told_all_at_once(tree: dict[str, Item]) -> None:
    tree[f"data/{D}/aliases"] = Item(b"a: b: c\n")
    tree[f"data/{D}/dkim:k1r.pem"] = Item(key_pem(Algorithm.ED25519))
    tree["data/certs/x.example/fullchain.pem"] = Item(b"junk")
    found = problems(tree)
    assert [text.partition(": ")[0] for text in found[:2]] == [
        "data/certs/x.example/fullchain.pem", f"data/{D}/aliases",
    ]  # fmt: skip
    assert "overview/example.com/dkim does not agree" in found[2]


@pytest.mark.parametrize(
    "path",
    [
        "data/../etc/passwd", "data/state/x", "data/domains/../../x", "data/domains", "data",
        "data/domains//x", "data/reload/.hidden", "data/reload/a b", "data/reload/\u202egpj",
        "data/reload/\x1b[2J", "data/reload/-x/..", "data/reload/" + "x" * 202, "data/backup.key/x",
    ],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="in no folder that a backup has"):
        files_of({path: Item(b"")})


def test_a_file_that_is_a_folder_too_is_refused() -> None:
    tree = {f"data/{D}/users": Item(b""), f"data/{D}/users/x": Item(b"")}
    with pytest.raises(UserError, match="is a file and a folder"):
        files_of(tree)


def about(**values: object) -> bytes:
    found = {"format": 1, "host": "smtp.example.com", "secrets": "age", "recipients": [RECIPIENT]}
    return json.dumps({**found, **values}).encode()


@pytest.mark.parametrize("host", ["a\nb", "../x", "\x1b[2J", "x" * 300, 7, None, "a b", ""])
def test_a_hosts_name_that_is_none_is_refused(host: object) -> None:
    assert parse_about(about()).host == "smtp.example.com"
    with pytest.raises(UserError, match="is damaged"):
        parse_about(about(host=host))


@pytest.mark.parametrize(
    "content",
    [
        None, b"", b"{}", b"[]", b'{"format": 2}', b"\xff", about(recipients=["\x1b[2J"]),
        about(recipients=[7]), about(secrets="none"), about(format="\x1b[2J"), b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_backup(content: bytes | None) -> None:
    with pytest.raises(UserError) as caught:
        parse_about(content)
    assert "\x1b" not in str(caught.value)


# --- subjects


def users(before: bytes, after: bytes, *parts: str) -> str:
    return subject(
        Group("users", "example.com"),
        [
            Change("overview/example.com/users", before, after),
            Change(f"data/{D}/users", None, None, parts=parts),
        ],
    )


def test_subjects_of_users() -> None:
    one, two = b"i@example.com\n", b"i@example.com\nyou@example.com\n"
    assert users(one, two, "you") == "users: add you@example.com"
    assert users(two, one) == "users: remove you@example.com"
    only = [Change(f"data/{D}/users", None, None, parts=("i",))]
    group = Group("users", "example.com")
    assert subject(group, only) == "users: new password for i@example.com"
    assert users(two, one, "i") == "users: remove you@example.com, new password for i@example.com"
    many = b"".join(b"u%d@example.com\n" % number for number in range(9))
    assert users(b"", many).endswith("add u5@example.com and 3 more")


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (b"", b"a: i\n", "add a@example.com"),
        (b"a: i\n", b"", "remove a@example.com"),
        (b"a: i\n", b"a: you\nb: i\n", "add b@example.com, change a@example.com"),
        (b"a: i\n", b"# a word\na: i\n", "change example.com"),
        (None, b"*: i\n", "add *@example.com"),
    ],
)
def test_subjects_of_aliases(before: bytes | None, after: bytes, what: str) -> None:
    change = Change(f"data/{D}/aliases", before, after)
    group = Group("aliases", "example.com")
    assert subject(group, [change]) == f"aliases: {what}"


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("active a x", "active a x\npending b x", "new key b of example.com waits for DNS"),
        (
            "active a x\npending b x", "active b x\nretired a x",
            "a of example.com retired, b of example.com signs",
        ),
        ("active b x\nretired a x", "active b x", "remove a of example.com"),
        ("", "active a x", "new key a of example.com signs"),
    ],
)  # fmt: skip
def test_subjects_of_keys(before: str, after: str, what: str) -> None:
    change = Change("overview/example.com/dkim", before.encode(), after.encode())
    assert subject(Group("dkim", "example.com"), [change]) == f"dkim: {what}"


def test_subjects_of_certificates() -> None:
    group = Group("certs", "example.com")
    chain = "data/certs/example.com/fullchain.pem"
    home = Change("data/acme/example.com/account.conf", None, None)
    assert subject(group, [home]) == "certs: ACME account of example.com"
    assert subject(group, [home, Change(chain, b"1", b"2")]) == "certs: renew example.com"
    added = [Change(chain, None, b"2", added=True)]
    assert subject(group, added) == "certs: add example.com"


def test_subjects_of_settings() -> None:
    before = b"# The settings\nA=1\nB=2\n# T: secret\n"
    after = b"# The settings\nA=1\nB=3\n# T: secret\n# U: secret\n"
    clear = Change("settings.env", before, after)
    assert subject(Group("settings"), [clear]) == "settings: set B, set U"
    secret = Change("settings.secrets", None, None, parts=("T",))
    assert subject(Group("settings"), [secret]) == "settings: new T"
    gone = Change("settings.env", after, before)
    assert subject(Group("settings"), [gone]) == "settings: set B, remove U"


def test_every_path_of_a_tree_has_a_noun(tree: dict[str, Item]) -> None:
    nouns = {group_of(path).noun for path in tree}
    assert nouns == {"users", "aliases", "acme", "dkim", "certs", "reload", "settings", "backup"}


# --- the settings, back


def given(**values: str) -> tuple[Given, ...]:
    return tuple(Given(name, value, secret=False) for name, value in values.items())


def test_an_env_file_for_a_new_machine() -> None:
    asked_for = asked(
        PUBLIC_IPV4="203.0.113.10", PUBLIC_IPV6="none",
        OUTBOUND_IPV4="203.0.113.11, 203.0.113.12", MAIL_DOMAINS="example.com example.org",
        ACME_EAB_KID="kid-1", ACME_EAB_HMAC_KEY="c2VjcmV0",
    )  # fmt: skip
    door = Given("BACKUP_GIT_KEY", "x", secret=True, file="/data/backup.key", kept=False)
    inline = Given("BACKUP_GIT_TOKEN", "x", secret=True, kept=False)
    asked_for = asked_for.model_copy(update={"given": (*asked_for.given, door, inline)})
    tree = build(asked_for, {}, recipients=[RECIPIENT])
    assert "c2VjcmV0" not in tree["settings.env"].content.decode()
    text = env_file(tree, "smtp.example.com")
    assert "\n#PUBLIC_IPV4=203.0.113.10\n" in text
    assert "\n#OUTBOUND_IPV4='203.0.113.11, 203.0.113.12'\n" in text
    environ = dict(
        line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#")
    )
    assert environ == {
        "MAIL_HOSTNAME": "smtp.example.com", "PUBLIC_IPV6": "none",
        "MAIL_DOMAINS": "'example.com example.org'", "ACME_EAB_KID": "kid-1",
        "ACME_EAB_HMAC_KEY": "c2VjcmV0", "BACKUP_GIT_KEY_FILE": "/data/backup.key",
        "BACKUP_GIT_TOKEN_FILE": "/data/backup.token",
    }  # fmt: skip
    environ["MAIL_DOMAINS"] = environ["MAIL_DOMAINS"].strip("'")
    del environ["BACKUP_GIT_KEY_FILE"], environ["BACKUP_GIT_TOKEN_FILE"]
    assert environment.load(environ).domains == asked_for.domains


def test_values_are_quoted_for_docker_compose() -> None:
    values = given(A="plain", B="a $b", C="it's $5", D="a\nb")
    found = asked().model_copy(update={"given": values})
    text = build(found, {}, recipients=())["settings.env"].content.decode()
    assert text.splitlines()[1:] == ["A=plain", "B='a $b'", 'C="it\'s \\$5"', "D=a,b"]
