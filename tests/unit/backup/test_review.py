"""What a restore would change, in words that a hostile backup cannot bend."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from entrypoint.backup import review
from entrypoint.backup.tree import Item
from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import Denied, Scrypt
from entrypoint.keys.dkim import Algorithm
from entrypoint.state.load import Owned
from tests.unit.kit import key_pem

D = "domains/example.com"
SECRET = Scrypt.of("secret-one", 1)


def users(**secrets: userdb.Secret) -> bytes:
    return userdb.render(secrets).encode()


def lines(before: dict[str, bytes], after: dict[str, bytes]) -> dict[str, list[str]]:
    old = {name: Owned(content) for name, content in before.items()}
    new = {name if name.startswith("settings") else f"data/{name}": Item(content)
           for name, content in after.items()}  # fmt: skip
    return {kind.title: list(kind.lines) for kind in review.changes(old, new)}


def test_logins_that_come_go_and_differ() -> None:
    old = users(i=SECRET, gone=Denied(), same=SECRET)
    new = users(i=Scrypt.of("secret-two", 1), mallory=SECRET, same=SECRET)
    assert lines({f"{D}/users": old}, {f"{D}/users": new}) == {
        "Logins": ["- gone@example.com", "~ i@example.com", "+ mallory@example.com"]
    }
    assert lines({f"{D}/users": old}, {f"{D}/users": old}) == {}


def test_aliases_by_target_and_permissions_to_send() -> None:
    old = {f"{D}/aliases": b"sales: i, you\n"}
    new = {f"{D}/aliases": b"# x\nsales: i, |sh\n", f"{D}/senders": b"i may-send=*@example.org\n"}
    new[f"{D}/aliases"] = b"sales: i\nall: |sh -c x\n"
    assert lines(old, new) == {
        "Aliases": ["+ all@example.com: | sh -c x", "- sales@example.com: you@example.com"],
        "Permissions to send": ["+ i@example.com may send as *@example.org"],
    }


def test_every_other_file_is_named_once() -> None:
    new = {
        f"{D}/dkim:k1r.pem": key_pem(Algorithm.RSA), f"{D}/acme.env": b"CF_Token=x\n",
        f"{D}/strange": b"x", "certs/example.com/privkey.pem": b"x",
        "acme/example.com/account.conf": b"x", "reload/tell": b"x",
    }  # fmt: skip
    assert lines({}, new) == {
        "Programs": ["+ reload/tell"],
        "DKIM keys": [f"+ {D}/dkim:k1r.pem"],
        "Certificates": ["+ certs/example.com/privkey.pem"],
        "DNS providers and ACME accounts": ["+ acme/example.com/account.conf", f"+ {D}/acme.env"],
        "Other files": [f"+ {D}/strange"],
    }


def test_settings_in_clear_and_the_names_of_the_others() -> None:
    new = {
        "settings.env": b"# head\nFORWARD_TO=x@example.org\n",
        "settings.secrets": b"T=hunter2\n",
    }
    [(title, found)] = lines({}, new).items()
    assert title == "Settings, for restored.env"
    assert found == ["+ FORWARD_TO=x@example.org", "+ T: secret"]


@given(st.text(max_size=400))
def test_nothing_that_is_printed_moves_a_cursor_or_turns_a_line(text: str) -> None:
    shown = review.plain(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 163
    hostile = {"settings.env": text.encode(errors="replace")}
    for kind in lines({}, hostile).values():
        assert all(line.isascii() and line.isprintable() for line in kind)


def test_an_alias_in_hebrew_is_spelled_out() -> None:
    [found] = lines({}, {f"{D}/aliases": "\u05d0: i\n".encode()})["Aliases"]
    assert found == r"+ \u05d0@example.com: i@example.com"


def named(tree: dict[str, Item], *, encrypted: bool = True) -> dict[str, str]:
    return review.by_name(tree, encrypted=encrypted)


def test_what_runs_has_to_be_accepted_by_name() -> None:
    tree = {
        f"data/{D}/aliases": Item(b"sales: |sh -c x\nteam: i\n"),
        f"data/{D}/users": Item(b"", secret=True, executable=True),
        "data/reload/tell": Item(b"#!/bin/sh\n", secret=True),
        "data/acme/example.com/account.conf": Item(b"x", secret=True),
        "data/acme/example.com/ca/x.cer": Item(b"x"),
        "data/acme/example.org/x.cer": Item(b"x"),
        "settings.env": Item(b""), "README.md": Item(b""),
    }  # fmt: skip
    assert set(named(tree)) == {
        "sales@example.com", f"{D}/users", "reload/tell", "acme/example.com",
    }  # fmt: skip
    assert named(tree)["sales@example.com"] == "mail to it goes to a program: | sh -c x"


def test_in_an_encrypted_backup_no_file_is_in_clear_that_is_a_secret() -> None:
    tree = {
        f"data/{D}/users": Item(users(i=SECRET)),
        f"data/{D}/acme.env": Item(b"CF_Token=x\n"),
        f"data/{D}/aliases": Item(b"sales: i\n"),
        "data/certs/example.com/privkey.pem": Item(b"x"),
        "data/certs/example.com/fullchain.pem": Item(b"x"),
        "settings.secrets": Item(b"T=x\n"), "settings.env": Item(b""), "backup.json": Item(b""),
        "overview/example.com/users": Item(b""),
    }  # fmt: skip
    assert set(named(tree)) == {
        f"data/{D}/users", f"data/{D}/acme.env", "data/certs/example.com/privkey.pem",
        "settings.secrets",
    }  # fmt: skip
    assert named(tree, encrypted=False) == {}
