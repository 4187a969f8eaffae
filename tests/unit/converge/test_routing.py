"""Names, resolved as chasquid does."""

from __future__ import annotations

import pytest

from entrypoint.chasquid import aliases, userdb
from entrypoint.chasquid.userdb import Denied
from entrypoint.common.names import Domain
from entrypoint.converge import routing
from entrypoint.converge.routing import Book, End, Way
from entrypoint.state.load import DomainState, State
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, HOST, asked


def resolver(
    com: str = "", org: str = "", users: str = "i i+news", forward_to: str = "", receive: str = ""
) -> Book:
    environ = {"MAIL_DOMAINS": "example.com example.org"}
    if forward_to:
        environ["FORWARD_TO"] = forward_to
    if receive:
        environ["MAIL_RECEIVE"] = receive
    have: userdb.Users = dict.fromkeys(users.split(), Denied())
    return routing.load(
        asked(**environ),
        State(
            domains={
                EXAMPLE_COM: DomainState(users=have, aliases=aliases.parse(com, EXAMPLE_COM)),
                EXAMPLE_ORG: DomainState(aliases=aliases.parse(org, EXAMPLE_ORG)),
            },
            exchangers={EXAMPLE_ORG: (Domain("mx.example.net"),)},
        ),
    )


@pytest.mark.parametrize(
    ("text", "address", "ends"),
    [
        ("", "i@example.com", "kept i@example.com"),
        ("", "i+tag@example.com", "kept i@example.com"),
        ("", "i+news@example.com", "kept i@example.com"),
        ("", "who@example.com", "refused who@example.com"),
        ("", "rua@example.com", "kept rua@example.com"),
        ("", "abuse@example.com", "kept abuse@example.com"),
        ("*: me@example.net", "who@example.com", "forwarded me@example.net"),
        ("*: *@example.net", "who+tag@example.com", "forwarded who+tag@example.net"),
        ("*: me@example.net", "i@example.com", "kept i@example.com"),
        # chasquid looks for a user by the whole name: a suffix is the catch-all's then.
        ("*: me@example.net", "i+tag@example.com", "forwarded me@example.net"),
        ("*: me@example.net", "i+news@example.com", "kept i@example.com"),
        ("i: me@example.net", "i+news@example.com", "forwarded me@example.net"),
        ("i: me@example.net\n*: x@example.net", "i+tag@example.com", "forwarded me@example.net"),
        ("i+tag: me@example.net", "i+tag@example.com", "forwarded me@example.net"),
        ("a: i, b@example.net, i+x", "a@example.com",
         "forwarded b@example.net, kept i@example.com"),
        ("a: who", "a@example.com", "nobody who@example.com"),
        ("a: | /bin/true", "a@example.com", "program /bin/true"),
        ("a: b@example.net via mx.example.net", "a@example.com",
         "forwarded b@example.net via mx.example.net"),
        ("*: *@example.net via mx.example.net", "x@example.com",
         "forwarded x@example.net via mx.example.net"),
        ("a: b\nb: a", "a@example.com", "circle a@example.com → b@example.com → a@example.com"),
        ("a: b, me@example.net\nb: c\nc: b", "a@example.com",
         "circle a@example.com → b@example.com → c@example.com → b@example.com"),
        ("a: postmaster@smtp.example.com", "a@example.com", "kept postmaster@smtp.example.com"),
        ("a: i@smtp.example.com", "a@example.com", "nobody i@smtp.example.com"),
    ],
)  # fmt: skip
def test_where_mail_ends(text: str, address: str, ends: str) -> None:
    found = resolver(text).ends(address)
    assert sorted(f"{end.way.value} {end.where}" for end in found) == ends.split(", ")


def test_the_owner_s_forward() -> None:
    found = resolver("sales: i", forward_to="me@example.net")
    for name in ("i", "i+news", "i+tag", "anybody", "postmaster", "sales"):
        assert found.ends(f"{name}@example.com") == (End(Way.FORWARDED, "me@example.net"),)
    assert found.ends("ruf@example.com") == (End(Way.KEPT, "ruf@example.com"),)


def test_a_user_s_own_line_holds_for_each_of_its_credentials() -> None:
    found = resolver("i: you@example.net", forward_to="me@example.net")
    assert found.ends("i+news@example.com") == (End(Way.FORWARDED, "you@example.net"),)


@pytest.mark.parametrize("receive", ["", "example.org"])
def test_one_who_has_only_named_credentials_exists(receive: str) -> None:
    """Else mail to `i+news@`, which chasquid takes for a user, were kept for nobody."""
    found = resolver(users="i+news", receive=receive)
    ends = {found.ends(f"{name}@example.com") for name in ("i", "i+news")}
    [(end,)] = ends
    assert end.way is (Way.FORWARDED if receive else Way.KEPT)


def test_a_domain_that_receives_elsewhere() -> None:
    found = resolver("a: who@example.org", receive="example.com")
    assert found.ends("a@example.com") == (
        End(Way.FORWARDED, "who@example.org via mx.example.net"),
    )


def test_a_chain_that_is_only_too_long() -> None:
    text = "".join(f"a{n}: a{n + 1}\n" for n in range(10))
    found = resolver(f"{text}a10: i")
    way = found.loop("a0@example.com")
    assert way == tuple(f"a{n}@example.com" for n in range(11))
    assert found.loop("a2@example.com") == ()


def test_the_ways_to_nobody() -> None:
    found = resolver("a: b, c\nb: who\nc: i, you@example.org")
    assert sorted(found.nowhere("a@example.com")) == [
        ("a@example.com", "b@example.com", "who@example.com"),
        ("a@example.com", "c@example.com", "you@example.org"),
    ]
    assert [way[-1] for way in found.nowhere("c@example.com")] == ["you@example.org"]
    assert list(found.nowhere("i@example.com")) == []


def test_what_leaves_this_server_is_no_way_to_nobody() -> None:
    found = resolver("a: me@example.net, b\nb: who")
    assert [way[-1] for way in found.nowhere("a@example.com")] == ["who@example.com"]


def test_two_ways_to_the_same_nobody_are_one() -> None:
    found = resolver("a: b, c\nb: who\nc: who")
    assert list(found.nowhere("a@example.com")) == [
        ("a@example.com", "b@example.com", "who@example.com")
    ]


def test_a_domain_whose_mx_was_never_seen_sends_mail_to_no_server_at_all() -> None:
    settings = asked(MAIL_DOMAINS="example.com example.org", MAIL_RECEIVE="example.com")
    found = routing.load(settings, State()).ends("x@example.org")
    # A name that exists nowhere (RFC 2606 2).
    assert found == (End(Way.FORWARDED, "x@example.org via never-seen.invalid"),)
    routes = routing.routes(settings, State())
    assert routes["example.org"].exchangers == ()
    assert routes["example.com"].exchangers is None
    assert routes[HOST].exchangers is None, "the server's own name receives here"
