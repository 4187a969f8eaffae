"""Where mail goes that is not simply kept for a user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.common import rpc
from entrypoint.common.names import Domain
from entrypoint.dns import authoritative
from entrypoint.dns.authoritative import Absent, Found, Unknown
from entrypoint.state import load
from tests.unit.commands.conftest import Server
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, put, put_domain, tree

OWN = "# Mine.\n\nteam:  i,Bob@Example.net\r\n\n# The rest:\n*: me@example.net"
USERS = 'users { key: "i" value { denied {} } }\nusers { key: "you" value { denied {} } }\n'
NO_LINE = "has no line in data/domains/example.com/aliases"
LOOP = (
    "mail to i@example.com would go round in a loop: i@example.com → team@example.com → "
    "i@example.com\n  fix: choose a target that does not lead back; nothing was changed\n"
)
NO_DOMAIN, SILENT = Domain("nobody.example"), Domain("silent.example")


@pytest.fixture(autouse=True)
def world(server: Server) -> list[str]:
    """The server has users and a file; the list is of the domains that DNS is asked about."""
    asked: list[str] = []

    def exchangers(domain: Domain) -> Found[Domain] | Absent | Unknown:
        asked.append(domain)
        if domain == SILENT:
            return Unknown("no answer")
        return Absent() if domain == NO_DOMAIN else Found((domain,))

    server.patch.setattr(authoritative, "exchangers", exchangers)
    server.patch.setattr(rpc, "request", lambda *_: {"done": True})
    put_domain(server.context.paths, EXAMPLE_COM, users=USERS, aliases=OWN)
    return asked


@pytest.fixture
def text(server: Server) -> Callable[[], str]:
    return lambda: path(server).read_bytes().decode()


def path(server: Server, domain: Domain = EXAMPLE_COM) -> Path:
    return server.context.paths.domain(domain) / "aliases"


def test_a_first_alias_makes_the_file(server: Server) -> None:
    done = server.run("add-alias", "*@example.org", "me@example.net", "you@example.net")
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "Added: *@example.org → me@example.net, you@example.net\n"
        "Mail to *@example.org is now\n"
        "    forwarded to me@example.net\n"
        "    forwarded to you@example.net\n"
    )
    found = path(server, EXAMPLE_ORG)
    assert found.read_text() == "*: me@example.net, you@example.net\n"
    assert found.stat().st_mode & 0o777 == 0o600
    served = server.context.paths.chasquid / "domains/example.org/aliases"
    assert served.read_text() == "*: me@example.net, you@example.net\n"


def test_a_target_more_on_the_owner_s_line(server: Server, text: Callable[[], str]) -> None:
    done = server.run("add-alias", "Team@example.com", "bob@example.net, you")
    assert done.status == 0
    assert done.out == (
        "Added: team@example.com → you@example.com\n"
        "There already: team@example.com → bob@example.net\n"
        "Mail to team@example.com is now\n"
        "    kept in data/mail for i@example.com\n"
        "    forwarded to bob@example.net\n"
        "    kept in data/mail for you@example.com\n"
    )
    assert text() == OWN.replace("Bob@Example.net", "Bob@Example.net, you@example.com")


def test_what_is_there_is_left_alone(server: Server) -> None:
    before = tree(server.context.paths.data / "domains")
    done = server.run("add-alias", "team@example.com", "I@example.com")
    assert (done.status, done.out) == (0, "There already: team@example.com → i@example.com\n")
    assert tree(server.context.paths.data / "domains") == before


def test_what_no_longer_happens_is_said(server: Server) -> None:
    done = server.run("add-alias", "i@example.com", "archive@example.net")
    assert done.out.endswith("and no longer\n    kept in data/mail for i@example.com\n")


def test_a_target_whose_domain_does_not_exist_is_warned_of(
    server: Server, world: list[str], text: Callable[[], str]
) -> None:
    targets = ("a@nobody.example", "b@nobody.example", "c@silent.example", "you", "d@example.net")
    done = server.run("add-alias", "all@example.com", *targets)
    assert done.status == 0
    assert done.err == "".join(
        "warning: DNS says that nobody.example does not exist, or takes no mail: what goes to "
        f"{name}@nobody.example will be returned\n"
        for name in "ab"
    )
    assert "c@silent.example" in text(), "a name server that fails says nothing about a domain"
    assert world == [NO_DOMAIN, SILENT, "example.net"], "each once, and none of ours"


def test_removing_an_alias(server: Server, text: Callable[[], str]) -> None:
    done = server.run("remove-alias", "team@example.com")
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "Removed: team@example.com → i@example.com, bob@example.net\n"
        "Mail to team@example.com is now\n"
        "    forwarded to me@example.net\n"
        "and no longer\n"
        "    kept in data/mail for i@example.com\n"
        "    forwarded to bob@example.net\n"
    )
    assert text() == OWN.replace("team:  i,Bob@Example.net\r\n", "")
    done = server.run("remove-alias", "*@example.com")
    assert "Mail to *@example.com is now\n    refused, as there is no *@example.com\n" in done.out
    assert text() == "# Mine.\n\n\n# The rest:\n"


def test_removing_a_target(server: Server, text: Callable[[], str]) -> None:
    assert server.run("remove-alias", "team@example.com", "i").status == 0
    assert text() == OWN.replace("i,Bob", "Bob")
    assert server.run("remove-alias", "team@example.com", "bob@example.net").status == 0
    assert text() == OWN.replace("team:  i,Bob@Example.net\r\n", "")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("add-alias a@example.com a", 1,
         "mail to a@example.com would go round in a loop: a@example.com → a@example.com\n"),
        ("add-alias you@example.com team", 1, None),
        ("add-alias i@example.com team", 1,
         LOOP),
        ("add-alias i@example.com me@example.net,team", 1, "mail to i@example.com would go round"),
        ("add-alias *@example.com who", 1,
         "mail to *@example.com would go round in a loop: *@example.com → who@example.com → "),
        ("add-alias a@example.org who@example.org", 1,
         "who@example.org does not exist here: a@example.org → who@example.org\n"),
        ("add-alias a@example.com who@smtp.example.com", 1,
         "who@smtp.example.com does not exist here: a@example.com → who@smtp.example.com\n"),
        ("add-alias *@example.com *@example.org", 1,
         "*@example.org does not exist here: *@example.com → *@example.org\n"),
        ("add-alias run@example.com | /bin/true", 2, "TARGET: '|' is a program, and a verb only"),
        ("add-alias a@example.net i@example.com", 1, "example.net is not one of the domains serve"),
        ("add-alias a i@example.com", 2, "Invalid value for 'NAME@DOMAIN': 'a' is not an e-mail"),
        ("add-alias a@example.com", 2, "Missing argument 'TARGET…'"),
        ("add-alias a@example.com two@@example.net", 2, "TARGET: 'two@@example.net' has more than"),
        ("add-alias a@example.com ,", 2, "TARGET: an address is missing"),
        ("remove-alias a@example.com", 1, f"a@example.com {NO_LINE}\n"),
        ("remove-alias i@example.com", 1, f"i@example.com {NO_LINE}; it is there as a user\n"),
        ("remove-alias abuse@example.com", 1,
         f"abuse@example.com {NO_LINE}; it is there by tambo itself\n"),
        ("remove-alias team@example.com you", 1,
         "data/domains/example.com/aliases: line 3: team does not lead to you@example.com\n"),
        ("remove-alias a@example.net", 1, "example.net is not one of the domains served"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_message_and_status(
    server: Server, arguments: str, status: int, message: str | None
) -> None:
    before = tree(server.context.paths.data / "domains")
    verb, name, *targets = arguments.split(" ")
    done = server.run(verb, name, *targets)
    if message is None:
        assert done.status == 0, "team leads to i and Bob, not back"
        return
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith(f"error: {message}")
    assert tree(server.context.paths.data / "domains") == before


def test_a_line_that_another_leads_through_stays(server: Server) -> None:
    """Without it that mail would be kept for nobody, or go round in a loop."""
    put_domain(server.context.paths, EXAMPLE_ORG, aliases="a: b\nb: me@example.net\n")
    done = server.run("remove-alias", "b@example.org")
    assert done.status == 1
    assert done.err.startswith(
        "error: b@example.org does not exist here: a@example.org → b@example.org\n"
    )
    put_domain(server.context.paths, EXAMPLE_ORG, aliases="*: b\nb: me@example.net\n")
    done = server.run("remove-alias", "b@example.org")
    assert "would go round in a loop: " in done.err
    assert "no-such-name" not in done.err


def test_what_was_wrong_before_is_not_in_the_way(server: Server, text: Callable[[], str]) -> None:
    before = "x: y\ny: x\nlost: who\n"
    put_domain(server.context.paths, EXAMPLE_COM, aliases=before)
    assert server.run("add-alias", "new@example.com", "i").status == 0
    assert text() == f"{before}new: i@example.com\n"
    assert server.run("remove-alias", "x@example.com").status == 1, "y would lead to nobody"
    assert server.run("add-alias", "y@example.com", "i").status == 1, "it is in the loop still"
    assert server.run("remove-alias", "lost@example.com").status == 0


@pytest.mark.parametrize("verb", [("add-alias", "a@example.com", "i"),
                                  ("remove-alias", "team@example.com")])  # fmt: skip
def test_a_broken_file_is_a_person_s_to_mend(server: Server, verb: tuple[str, ...]) -> None:
    put(path(server), OWN + "\nno colon\n")
    before = tree(server.context.paths.data / "domains")
    done = server.run(*verb)
    assert (done.status, done.out) == (1, "")
    assert "aliases: line 7: 'no colon' has no colon; write it as name: address." in done.err
    assert "Fix: mend the file" in done.err
    assert tree(server.context.paths.data / "domains") == before


def test_a_link_is_left_alone(server: Server, tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere", "a: i\n")
    path(server).unlink()
    path(server).symlink_to(elsewhere)
    done = server.run("add-alias", "b@example.com", "i")
    assert done.status == 1
    assert "is a link to another file" in done.err
    assert path(server).is_symlink()
    assert elsewhere.read_text() == "a: i\n"


def test_a_line_that_grows_too_long_is_not_written(server: Server) -> None:
    many = ", ".join(f"u{number}@example.net" for number in range(3400))
    put(path(server), f"all: {many}\n")
    before = path(server).read_bytes()
    more = ",".join(f"v{number}@example.net" for number in range(300))
    done = server.run("add-alias", "all@example.com", more)
    assert done.status == 1
    assert "aliases would be wrong: line 1: 'all' has too many targets" in done.err
    assert path(server).read_bytes() == before


LONG = "b" * 60


def test_listing(server: Server) -> None:
    put_domain(
        server.context.paths, EXAMPLE_COM,
        aliases=f"zeta: i, {LONG}@example.net\n*: *@example.net\nrun: | /usr/bin/tool --flag\n",
    )  # fmt: skip
    done = server.run("list-aliases")
    assert (done.status, done.err) == (0, "")
    mine = done.out.partition("abuse@example.org")[0]
    assert mine == (
        "*@example.com  (by your line 2)\n"
        "    forwarded to *@example.net\n"
        "abuse@example.com  (by tambo itself)\n"
        "    kept in data/mail for abuse@example.com\n"
        "i@example.com  (as a user)\n"
        "    kept in data/mail for i@example.com\n"
        "postmaster@example.com  (by tambo itself)\n"
        "    kept in data/mail for postmaster@example.com\n"
        "rua@example.com  (by tambo itself)\n"
        "    kept in data/mail for rua@example.com\n"
        "ruf@example.com  (by tambo itself)\n"
        "    kept in data/mail for ruf@example.com\n"
        "run@example.com  (by your line 3)\n"
        "    given to the program /usr/bin/tool --flag\n"
        "you@example.com  (as a user)\n"
        "    kept in data/mail for you@example.com\n"
        "zeta@example.com  (by your line 1)\n"
        "    kept in data/mail for i@example.com\n"
        f"    forwarded to\n        {LONG}@example.net\n"
    )
    assert max(map(len, done.out.splitlines())) <= 80


def test_listing_for_programs(server: Server) -> None:
    done = server.run("list-aliases", "--json")
    found = {item.pop("address"): item for item in json.loads(done.out)}
    assert found["team@example.com"] == {
        "source": "file", "line": 3, "targets": ["i@example.com", "bob@example.net"],
        "ends": [{"kind": "kept", "where": "i@example.com"},
                 {"kind": "forwarded", "where": "bob@example.net"}],
    }  # fmt: skip
    assert found["rua@example.org"] == {
        "source": "tambo", "ends": [{"kind": "kept", "where": "rua@example.org"}],
    }  # fmt: skip


def test_a_listing_of_what_is_wrong(server: Server) -> None:
    put_domain(server.context.paths, EXAMPLE_COM, aliases="a: b\nb: a\nlost: who\n")
    done = server.run("list-aliases")
    assert done.status == 1
    assert (
        "a@example.com  (by your line 1)\n"
        "    refused for now (451), as it goes round in a loop: a@example.com →\n"
        "        b@example.com → a@example.com\n"
    ) in done.out
    assert "    kept unread, as nobody is who@example.com\n" in done.out
    put_domain(server.context.paths, EXAMPLE_COM, aliases="oops")
    done = server.run("list-aliases", "--json")
    assert done.status == 1
    assert json.loads(done.out)
    assert done.err.startswith("warning: data/domains/example.com/aliases: line 1: 'oops' has no")


def test_as_json(server: Server) -> None:
    done = server.run("add-alias", "team@example.com", "you", "i", "x@nobody.example", "--json")
    found = json.loads(done.out)
    assert done.err == ""
    [warning] = found.pop("warnings")
    assert "x@nobody.example" in warning
    ends = found.pop("ends")
    assert {"kind": "kept", "where": "you@example.com"} in ends
    assert found == {
        "address": "team@example.com", "added": ["you@example.com", "x@nobody.example"],
        "there": ["i@example.com"],
    }  # fmt: skip
    found = json.loads(server.run("remove-alias", "team@example.com", "you", "--json").out)
    assert len(found.pop("ends")) == 3
    assert found == {"address": "team@example.com", "removed": ["you@example.com"], "whole": False}
    found = json.loads(server.run("remove-alias", "team@example.com", "--json").out)
    assert found["whole"] is True


def test_the_last_line_takes_the_file_with_it(server: Server, text: Callable[[], str]) -> None:
    """An empty one would be taken for damage, and its good copy for what is wanted."""
    for content in ("a: me@example.net", "\n\na: me@example.net\n\n"):
        put(path(server, EXAMPLE_ORG), content)
        assert server.run("add-alias", "a@example.org", "b@example.net").status == 0
        assert server.run("remove-alias", "a@example.org").status == 0
        assert not path(server, EXAMPLE_ORG).exists()
        current = load.load(server.context.paths)
        assert current.findings == ()
        assert current.domain(EXAMPLE_ORG).aliases == {}
    assert text() == OWN
