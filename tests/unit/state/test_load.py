"""The volume, read: what is broken never stops anything."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from entrypoint.chasquid.aliases import Mailbox
from entrypoint.chasquid.userdb import Denied
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.keys import certs
from entrypoint.keys.dkim import Algorithm
from entrypoint.state import load
from tests.unit import chasquid_reference
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, key_pem, put, put_domain

NOTHING = "nothing of it is served, as there is no good copy"
USERS = 'users { key: "i" value { denied {} } }\n'
OTHER = 'users { key: "you" value { denied {} } }\n'
RSA = "dkim:t1r.pem"


def broken(paths: Paths, name: str, content: str | bytes, good: str | bytes | None) -> Finding:
    """The one finding of a broken file."""
    put(paths.domain(EXAMPLE_COM) / name, content)
    if good is not None:
        put(paths.good / EXAMPLE_COM / name, good)
    [finding] = load.load(paths).findings
    return finding


def test_an_empty_volume(paths: Paths) -> None:
    found = load.load(paths)
    assert found == load.State()
    assert found.domain(EXAMPLE_COM) == load.DomainState()
    shutil.rmtree(paths.data)
    assert load.load(paths) == load.State()


def test_a_volume_that_is_fine(paths: Paths) -> None:
    put_domain(paths, EXAMPLE_COM, users=USERS, aliases="sales: i\n")
    put(paths.domain(EXAMPLE_COM) / RSA, key_pem(Algorithm.RSA))
    put(paths.domain(EXAMPLE_COM) / "dkim:t1e.pem", key_pem(Algorithm.ED25519))
    put(paths.domain(EXAMPLE_COM) / ".users.new", "half")
    put(paths.domain(EXAMPLE_COM) / "notes.txt", "mine")
    put(paths.domains / "README", "no folder")
    put(paths.domains / ".hidden/users", "not looked at")
    put(paths.mx, json.dumps({"example.org": ["MX.example.net"], "example.net": []}))
    pair = certs.self_signed([EXAMPLE_COM])
    put(paths.certs / "self-signed/fullchain.pem", pair.chain)
    put(paths.certs / "self-signed/privkey.pem", pair.key)
    found = load.load(paths)
    assert found.findings == ()
    assert list(found.domains) == [EXAMPLE_COM]
    have = found.domain(EXAMPLE_COM)
    assert have.users == {"i": Denied()}
    assert have.aliases == {"sales": (Mailbox("i", EXAMPLE_COM),)}
    assert [key.selector for key in have.keys] == ["t1e", "t1r"]
    assert have.selectors == {"t1e", "t1r"}
    assert have.damaged == have.broken == frozenset()
    assert found.self_signed == pair
    assert found.exchangers == {"example.org": ("mx.example.net",), "example.net": ()}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("users", "users { s3cret }", "line 1: not in chasquid's text format"),
        ("users", USERS + "\nusers {\n  key: 3\n}\n", "line 4: not in chasquid's text format"),
        ("users", USERS + USERS, "line 2: user 'i' stands twice"),
        ("users", "", "the file is empty; if it shall hold nothing, write a comment"),
        ("users", USERS.encode() + b"\n# \xff\n", "line 3: not UTF-8 text"),
        (
            "users",
            chasquid_reference.write_users({"a:b": {}}),
            "line 2: user 'a:b': a name has no *, # or + first",
        ),
        ("aliases", "a: b\n\nsales\n", "line 3: 'sales' has no colon; write it as name: address"),
        ("aliases", "a: b\na: c", "line 2: 'a' stands twice"),
        ("aliases", b"a: b\n\xfe", "line 2: not UTF-8 text"),
        ("aliases", "\ufeffa: b\n", "line 1: it begins with a byte order mark; save it as UTF-8"),
        ("users", f"\ufeff{USERS}", "line 1: it begins with a byte order mark; save it as UTF-8"),
        ("aliases", "a: b\nc\0d: b\n", "line 2: 'c\\x00d' is not a name"),
    ],
)
def test_a_broken_file_is_named_by_line_and_its_good_copy_serves(
    paths: Paths, name: str, content: str | bytes, reason: str
) -> None:
    finding = broken(paths, name, content, OTHER if name == "users" else "old: i\n")
    assert (finding.id, finding.level) == (f"broken-{name}", Level.FAIL)
    assert f"domains/example.com/{name}: {reason}" in finding.message
    assert finding.message.endswith("Until it is mended the last good copy serves.")
    assert "cp " in finding.fix
    assert f"good/example.com/{name} " in finding.fix
    assert "s3cret" not in f"{finding}"
    have = load.load(paths).domain(EXAMPLE_COM)
    assert have.broken == {name}
    assert have.users == ({"you": Denied()} if name == "users" else {})
    assert have.aliases == ({"old": (Mailbox("i", EXAMPLE_COM),)} if name == "aliases" else {})


@pytest.mark.parametrize("good", [None, "also broken", b"\xff", ""])
def test_a_broken_file_without_a_good_copy(paths: Paths, good: str | bytes | None) -> None:
    finding = broken(paths, "users", "x", good)
    assert "nothing of it is served, as there is no good copy" in finding.message
    assert "cp " not in finding.fix
    have = load.load(paths).domain(EXAMPLE_COM)
    assert have.users == {}
    assert have.broken == {"users"}


def test_a_file_that_never_was_is_no_damage(paths: Paths) -> None:
    put_domain(paths, EXAMPLE_COM, aliases="a: b\n")
    found = load.load(paths)
    assert found.findings == ()
    assert found.domain(EXAMPLE_COM).users == {}
    assert found.domain(EXAMPLE_COM).present == {"aliases"}


@pytest.mark.parametrize("name", ["users", "aliases"])
def test_a_file_that_is_gone_is_damage(paths: Paths, name: str) -> None:
    """Some editors remove a file before they write it anew; meanwhile everybody goes on."""
    put(paths.good / EXAMPLE_COM / name, USERS if name == "users" else "old: i\n")
    paths.domain(EXAMPLE_COM).mkdir(parents=True)
    found = load.load(paths)
    [finding] = found.findings
    assert f"domains/example.com/{name}: is gone. Until it is mended the last" in finding.message
    assert finding.fix.startswith("put it back: cp ")
    have = found.domain(EXAMPLE_COM)
    assert have.users or have.aliases
    assert have.broken == {name}
    assert have.present == frozenset()
    # And what the fix says of an intended end is one.
    put_domain(paths, EXAMPLE_COM, **{name: "# none\n"})
    found = load.load(paths)
    assert found.findings == ()
    have = found.domain(EXAMPLE_COM)
    assert not have.users
    assert not have.aliases
    assert have.present == {name}


def test_a_file_that_holds_nothing_is_damage_where_it_held_something(paths: Paths) -> None:
    put_domain(paths, EXAMPLE_COM, aliases="")
    assert load.load(paths).findings == ()
    put(paths.good / EXAMPLE_COM / "aliases", "")
    assert load.load(paths).findings == (), "nothing was there before, either"
    put(paths.good / EXAMPLE_COM / "aliases", "old: i\n")
    for content in ("", "\n \n"):
        put_domain(paths, EXAMPLE_COM, aliases=content)
        found = load.load(paths)
        [finding] = found.findings
        assert "aliases: the file is empty; if it shall hold nothing, write a" in finding.message
        assert set(found.domain(EXAMPLE_COM).aliases) == {"old"}
    (paths.domain(EXAMPLE_COM) / "aliases").unlink()
    put(paths.good / EXAMPLE_COM / "aliases", "")
    assert load.load(paths).findings == (), "it is gone, and with it nothing"


def test_what_is_no_plain_file_is_damage_and_is_not_waited_for(paths: Paths) -> None:
    folder = paths.domain(EXAMPLE_COM)
    folder.mkdir(parents=True)
    os.mkfifo(folder / "users")
    (folder / "aliases").symlink_to("/dev/zero")
    assert (
        sorted(item.message.partition(": ")[2] for item in load.load(paths).findings)
        == [f"is not a plain file. Until it is mended {NOTHING}."] * 2
    )


def test_a_file_without_an_end(paths: Paths) -> None:
    folder = paths.domain(EXAMPLE_COM)
    folder.mkdir(parents=True)
    with (folder / "aliases").open("wb") as stream:
        stream.truncate(10 * 1024**3)
    [finding] = load.load(paths).findings
    assert "aliases: is larger than 16 MB." in finding.message


def test_a_link_to_nothing_is_damage(paths: Paths) -> None:
    paths.domain(EXAMPLE_COM).mkdir(parents=True)
    (paths.domain(EXAMPLE_COM) / "users").symlink_to("/no/such/file")
    put(paths.good / EXAMPLE_COM / "users", USERS)
    found = load.load(paths)
    [finding] = found.findings
    assert "users: is a link to nothing." in finding.message
    assert found.domain(EXAMPLE_COM).users == {"i": Denied()}


def test_a_folder_in_a_files_place(paths: Paths) -> None:
    (paths.domain(EXAMPLE_COM) / "aliases").mkdir(parents=True)
    [finding] = load.load(paths).findings
    assert "aliases: cannot be read: Is a directory." in finding.message


def test_one_broken_file_leaves_the_others_alone(paths: Paths) -> None:
    put_domain(paths, EXAMPLE_COM, users="x", aliases="a: b\n")
    put_domain(paths, EXAMPLE_ORG, users=USERS)
    found = load.load(paths)
    assert len(found.findings) == 1
    assert found.domain(EXAMPLE_COM).aliases == {"a": (Mailbox("b", EXAMPLE_COM),)}
    assert found.domain(EXAMPLE_ORG).users == {"i": Denied()}


@pytest.mark.parametrize("content", [b"", b"x", key_pem(Algorithm.RSA)[:-100]])
def test_a_damaged_key_is_known_to_be_there(paths: Paths, content: bytes) -> None:
    finding = broken(paths, RSA, content, None)
    assert (finding.id, finding.level) == ("broken-dkim", Level.FAIL)
    assert "nothing of it is served" in finding.message
    have = load.load(paths).domain(EXAMPLE_COM)
    assert have.keys == ()
    assert have.selectors == have.damaged == {"t1r"}


def test_a_damaged_keys_good_copy_signs(paths: Paths) -> None:
    finding = broken(paths, RSA, "x", key_pem(Algorithm.RSA))
    assert "the last good copy serves" in finding.message
    have = load.load(paths).domain(EXAMPLE_COM)
    assert [key.pem for key in have.keys] == [key_pem(Algorithm.RSA)]
    assert have.damaged == frozenset()


def test_a_key_in_capitals_is_to_be_renamed(paths: Paths) -> None:
    finding = broken(paths, "dkim:T1R.pem", key_pem(Algorithm.RSA), None)
    assert "dkim:T1R.pem: a selector is written in lower case: t1r" in finding.message


def test_a_key_under_a_longest_selector_is_read(paths: Paths) -> None:
    """A selector as long as DKIM_SELECTOR allows, and its letter."""
    put(paths.domain(EXAMPLE_COM) / f"dkim:{'s' * 40}r.pem", key_pem(Algorithm.RSA))
    found = load.load(paths)
    assert found.findings == ()
    assert found.domain(EXAMPLE_COM).selectors == {"s" * 40 + "r"}


def test_a_key_with_a_name_that_is_no_selector(paths: Paths) -> None:
    finding = broken(paths, "dkim:mail.2026.pem", key_pem(Algorithm.RSA), None)
    assert (finding.id, finding.level) == ("dkim-name", Level.FAIL)
    assert "dkim:mail.2026.pem: 'mail.2026' is not a selector" in finding.message


@pytest.mark.parametrize("name", ["exa_mple.com", "example", "a b.example"])
def test_a_folder_that_is_no_domain(paths: Paths, name: str) -> None:
    put(paths.domains / name / "users", USERS)
    [finding] = load.load(paths).findings
    assert (finding.id, finding.level) == ("domain-folder", Level.WARN)
    assert name in finding.message


@pytest.mark.parametrize(
    ("name", "proper"),
    [("Example.COM", "example.com"), ("bücher.example", "xn--bcher-kva.example")],
)
def test_a_folder_with_a_domains_other_spelling(paths: Paths, name: str, proper: str) -> None:
    """It would be looked for under its proper name, in vain and in silence."""
    put(paths.domains / name / "users", USERS)
    found = load.load(paths)
    assert found.domains == {}
    [finding] = found.findings
    assert finding.id == "domain-folder"
    assert finding.fix == f"rename it to {proper}"


@pytest.mark.parametrize("harm", ["chain", "key", "gone", "other"])
def test_a_broken_self_signed_pair_is_worth_nothing(paths: Paths, harm: str) -> None:
    pair = certs.self_signed([EXAMPLE_COM])
    folder = paths.certs / "self-signed"
    put(folder / "fullchain.pem", pair.chain[:50] if harm == "chain" else pair.chain)
    if harm != "gone":
        other = certs.self_signed([EXAMPLE_COM]).key
        put(folder / "privkey.pem", {"key": b"x", "other": other}.get(harm, pair.key))
    found = load.load(paths)
    assert found.self_signed is None
    assert found.findings == ()


@pytest.mark.parametrize(
    "content",
    [
        "", "x", "[]", "3", "null", '"a"', '{"a": 1}', '{"example.org": "mx.example.net"}',
        '{"example.org": [3]}', '{"example.org": null}', '{"exa mple.org": []}',
        '{"example.org": ["mx.example.net; *: | reboot"]}', '{"example.org": ["a\\nb.example"]}',
    ],
)  # fmt: skip
def test_a_broken_cache_of_exchangers_is_no_cache(paths: Paths, content: str) -> None:
    put(paths.mx, content)
    assert load.load(paths).exchangers == {}


def test_folders_that_nobody_serves(paths: Paths) -> None:
    put_domain(paths, EXAMPLE_COM, users=USERS)
    put_domain(paths, EXAMPLE_ORG, users=USERS)
    found = load.load(paths)
    [finding] = load.unserved(found, (EXAMPLE_COM, Domain("example.net")))
    assert finding.id == "unserved-domain"
    assert "example.org" in finding.message
    assert "add example.org to MAIL_DOMAINS" in finding.fix
    assert load.unserved(found, (EXAMPLE_COM, EXAMPLE_ORG)) == ()


def test_reading_changes_nothing(paths: Paths) -> None:
    from tests.unit.kit import tree

    put_domain(paths, EXAMPLE_COM, users="x", aliases="y")
    before = tree(paths.root)
    load.load(paths)
    assert tree(paths.root) == before


def test_secrets_do_not_show(paths: Paths) -> None:
    put_domain(
        paths, EXAMPLE_COM, users='users { key: "i" value { plain { password: "s3cret" } } }'
    )
    put(paths.domain(EXAMPLE_COM) / RSA, key_pem(Algorithm.RSA))
    shown = repr(load.load(paths))
    assert "s3cret" not in shown
    assert "PRIVATE" not in shown


def test_the_root_is_all_that_tests_move() -> None:
    assert Paths(Path("/x")).domain(EXAMPLE_COM) == Path("/x/data/domains/example.com")
    assert Paths().chasquid == Path("/run/tambo/chasquid")
