"""chasquid's aliases file."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.chasquid import aliases
from entrypoint.chasquid.aliases import AliasError, Mailbox, Pipe, Target, Via
from entrypoint.common.names import Address, Domain
from tests.unit import chasquid_reference
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG

LINES = st.text(st.sampled_from("ab*+:,|#@. \t/via-_é\r\n\0\\\"'{}!"), max_size=30)
SHAPED = st.from_regex(
    r"\A[a-zA-Z*é+.#|]{1,8} ?: ?((\| ?)?[a-z|*#!+.]{1,6}(@[a-z]{1,4}\.example)?"
    r"( via [a-z]{1,3}\.example(/b\.example)?)?[, ]{0,2}){1,3}\Z", fullmatch=True
)  # fmt: skip
TEXTS = st.lists(LINES | SHAPED, max_size=4).map("\n".join)


def parsed(text: str) -> dict[str, tuple[Target, ...]]:
    return aliases.parse(text, EXAMPLE_COM)


def as_chasquid(targets: tuple[Target, ...]) -> list[chasquid_reference.Recipient]:
    found = []
    for target in targets:
        match target:
            case Pipe(command):
                found.append(chasquid_reference.Recipient(command, "pipe"))
            case Via(mailbox, servers):
                found.append(chasquid_reference.Recipient(str(mailbox), "forward", servers))
            case Mailbox():
                found.append(chasquid_reference.Recipient(str(target), "email"))
    return found


@given(TEXTS)
def test_what_is_accepted_means_the_same_to_chasquid(text: str) -> None:
    try:
        found = parsed(text)
    except ValueError as error:
        caught = error
    else:
        rendered = aliases.render(found)
        assert parsed(rendered) == found
        assert chasquid_reference.read_aliases(rendered, EXAMPLE_COM) == {
            f"{name}@example.com": as_chasquid(targets) for name, targets in found.items()
        }
        # And so does the original: strictness only refuses, it never reads otherwise.
        assert chasquid_reference.read_aliases(
            text, EXAMPLE_COM
        ) == chasquid_reference.read_aliases(rendered, EXAMPLE_COM)
        return
    assert type(caught) is AliasError
    assert re.fullmatch(r"line \d+: .+", str(caught))


def test_every_form() -> None:
    text = (
        "# comment\r\n\n  Sales : i, you@Example.org ,\n*: *@example.org\nbox+tag: i+tag\n"
        "run: |  /usr/bin/tool --flag \nout: i@example.org via mx1.example.net/MX2.example.net\n"
        "here: i via mx.example.net, you\nall: * via mx.example.net"
    )
    net = Domain("mx.example.net")
    assert parsed(text) == {
        "sales": (Mailbox("i", EXAMPLE_COM), Mailbox("you", EXAMPLE_ORG)),
        "*": (Mailbox("*", EXAMPLE_ORG),),
        "box+tag": (Mailbox("i+tag", EXAMPLE_COM),),
        "run": (Pipe("/usr/bin/tool --flag"),),
        "out": (Via(Mailbox("i", EXAMPLE_ORG), ("mx1.example.net", "mx2.example.net")),),
        "here": (Via(Mailbox("i", EXAMPLE_COM), (net,)), Mailbox("you", EXAMPLE_COM)),
        "all": (Via(Mailbox("*", EXAMPLE_COM), (net,)),),
    }
    assert aliases.render(parsed(text)) == (
        "*: *@example.org\n"
        "all: *@example.com via mx.example.net\n"
        "box+tag: i+tag@example.com\n"
        "here: i@example.com via mx.example.net, you@example.com\n"
        "out: i@example.org via mx1.example.net/mx2.example.net\n"
        "run: | /usr/bin/tool --flag\n"
        "sales: i@example.com, you@example.org\n"
    )


def test_an_empty_file_has_no_aliases() -> None:
    assert parsed("") == parsed("\n# nothing\n") == {}
    assert aliases.render({}) == ""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("sales", "'sales' has no colon; write it as name: address"),
        ("sales@example.com: i", "left of the colon stands the part before the @ alone"),
        (": i", "'' is not a name; it is 1 to 64 characters without spaces or commas"),
        ("a b: i", "'a b' is not a name"),
        ("a,b: i", "'a,b' is not a name"),
        ("a" * 65 + ": i", "is not a name"),
        ("sales:", "sales: no address after the colon"),
        ("sales: ,,", "sales: no address after the colon"),
        ("sales: |", "sales: the command after | is missing or not printable"),
        ("sales: | a\x1b[2J", "sales: the command after | is missing or not printable"),
        ("sales: i@example", "'example' has no dot"),
        ("sales: i i@example.com", "has a part before the @"),
        ("sales: you, |reboot@example.net", "has a part before the @"),
        ("sales: ,|reboot", "has a part before the @"),
        ("sales: i@example.org via ", "'example.org via' is not a domain name"),
        ("sales: i@example.org via a.example//b.example", "a domain name is missing"),
        ("sales: i@example.org via 192.0.2.1", "is an IP address or ends in a number"),
        ("sales: i@example.org via localhost", "'localhost' has no dot"),
        ("i: a@example.com", "'i' stands twice; put all its targets on one line"),
        ("I: a@example.com", "'i' stands twice"),
        ("sales: \u202ei@example.com", "has a part before the @"),
    ],
)
def test_each_error_by_its_line(line: str, reason: str) -> None:
    with pytest.raises(AliasError, match=re.escape(reason)) as caught:
        parsed(f"# first\n\ni: you\n{line}\nno colon either\n")
    assert caught.value.line == 4
    assert str(caught.value).startswith("line 4: ")
    assert str(caught.value).replace("…", "").isascii()


def test_a_line_is_measured_as_chasquid_will_read_it() -> None:
    """Names get their domain, so a line grows; chasquid ends at 64 KiB."""
    many = ", ".join(f"u{number}" for number in range(3000))
    text = f"all: {many}"
    assert len(text) < 64 * 1024 / 2
    with pytest.raises(
        AliasError, match="line 1: 'all' has too many targets: more than 65535 byte"
    ):
        aliases.parse(text, Domain("a-rather-long-domain-name.example.com"))
    fits = aliases.render(parsed("all: " + ", ".join(f"u{number}" for number in range(3000))))
    assert chasquid_reference.read_aliases(fits, EXAMPLE_COM)


def test_the_longest_line_that_chasquid_reads() -> None:
    command = "x" * (65535 - len("a: | \n"))
    text = aliases.render(parsed(f"a: | {command}"))
    assert len(text) == 65535
    assert chasquid_reference.read_aliases(text, EXAMPLE_COM)["a@example.com"][0].address == command
    with pytest.raises(AliasError, match="too many targets"):
        parsed(f"a: | {command}x")


def test_a_long_comment_never_reaches_chasquid() -> None:
    assert aliases.render(parsed("# " + "x" * 70000 + "\na: b")) == "a: b@example.com\n"


def test_an_internationalized_target_is_in_ascii() -> None:
    [target] = parsed("a: i@bücher.example")["a"]
    assert str(target) == "i@xn--bcher-kva.example"
    assert isinstance(target, Mailbox)
    assert Address.parse(str(target)) == str(target)


# Edits.

OWN = (
    "# Mine, in an order of its own.\r\n"
    "\n"
    "  Sales :  i,you@Example.net ,\n"
    "\t# sales: not a line\n"
    "zeta: a@example.net\n"
    "run: | /usr/bin/tool --flag \n"
    "*: me@example.net\r\n"
    "\n"
    "last: b@example.net, c@example.net , b@EXAMPLE.net"
)  # fmt: skip


def to(*texts: str) -> list[Mailbox | Via]:
    return [aliases.parse_target(text, EXAMPLE_COM) for text in texts]


@pytest.mark.parametrize(
    ("name", "targets", "line", "changed"),
    [
        ("sales", ["b@example.net"], 3, "  Sales :  i,you@Example.net , b@example.net"),
        ("zeta", ["i", "a@example.net"], 5, "zeta: a@example.net, i@example.com"),
        ("*", ["x@example.net", "x@example.net"], 7, "*: me@example.net, x@example.net\r"),
        ("last", ["d@example.net via mx.example.net"], 9,
         "last: b@example.net, c@example.net , b@EXAMPLE.net, d@example.net via mx.example.net"),
    ],
)  # fmt: skip
def test_adding_changes_one_line(name: str, targets: list[str], line: int, changed: str) -> None:
    lines = OWN.split("\n")
    lines[line - 1] = changed
    assert aliases.add(OWN, name, to(*targets), EXAMPLE_COM) == "\n".join(lines)


def test_what_is_there_is_not_added_again() -> None:
    for name, target in (
        ("sales", "i@example.com"),
        ("sales", "you@example.NET"),
        ("*", "me@example.net"),
    ):
        assert aliases.add(OWN, name, to(target), EXAMPLE_COM) == OWN


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "new: i@example.com\n"),
        ("# mine", "# mine\nnew: i@example.com\n"),
        ("a: b\r\n", "a: b\r\nnew: i@example.com\r\n"),
        (OWN, OWN + "\nnew: i@example.com\n"),
    ],
)
def test_a_new_name_gets_a_line_at_the_end(text: str, expected: str) -> None:
    assert aliases.add(text, "new", to("i"), EXAMPLE_COM) == expected


def test_nothing_stands_beside_a_program() -> None:
    with pytest.raises(aliases.EditError, match=r"^line 6: run runs a program, beside which"):
        aliases.add(OWN, "run", to("i"), EXAMPLE_COM)


@pytest.mark.parametrize(
    ("name", "targets", "line", "changed"),
    [
        ("sales", ["i@example.com"], 3, "  Sales :  you@Example.net ,"),
        ("sales", ["you@example.net"], 3, "  Sales :  i,"),
        ("sales", ["i", "you@example.net"], 3, None),
        ("sales", [], 3, None),
        ("zeta", ["a@example.net"], 5, None),
        ("run", [], 6, None),
        ("last", ["b@example.net"], 9, "last: c@example.net"),
        ("last", ["c@example.net"], 9, "last: b@example.net, b@EXAMPLE.net"),
        ("last", [], 9, None),
    ],
)
def test_removing_takes_that_alone(
    name: str, targets: list[str], line: int, changed: str | None
) -> None:
    lines = OWN.split("\n")
    lines[line - 1 : line] = [] if changed is None else [changed]
    expected = "\n".join(lines)
    if changed is None and line == 9:
        expected += "\n"
    assert aliases.remove(OWN, name, to(*targets), EXAMPLE_COM) == expected


def test_removing_what_is_not_there() -> None:
    with pytest.raises(aliases.EditError, match=r"^line 5: zeta does not lead to i@example.com$"):
        aliases.remove(OWN, "zeta", to("a@example.net", "i"), EXAMPLE_COM)


@given(
    TEXTS, st.sampled_from(["a", "b", "*", "new"]), st.sampled_from(["x@a.example", "*@b.example"])
)
def test_no_edit_touches_another_line(text: str, name: str, target: str) -> None:
    try:
        before = parsed(text)
    except ValueError:
        return
    try:
        added = aliases.add(text, name, to(target), EXAMPLE_COM)
    except aliases.EditError:
        assert isinstance(before[name][0], Pipe)
        return
    after = parsed(added)
    have = before.get(name, ())
    wanted = to(target)[0]
    assert after == {**before, name: have if wanted in have else (*have, wanted)}
    old, new = text.split("\n"), added.split("\n")
    assert len([line for line, other in zip(old, new, strict=False) if line != other]) <= 1
    assert all(
        new[number] == line
        for number, line in enumerate(old)
        if number + 1 != aliases.line_of(added, name)
    )
    assert aliases.line_of(added, name) > 0
    less = aliases.remove(added, name, [wanted], EXAMPLE_COM)
    left = tuple(item for item in have if item != wanted)
    rest = {key: value for key, value in before.items() if key != name}
    assert parsed(less) == ({**rest, name: left} if left else rest)
    assert parsed(aliases.remove(added, name, [], EXAMPLE_COM)) == rest


def test_lines_are_found_in_files_that_are_not_valid_too() -> None:
    text = "\n# a: b\nA: b\nno colon\nb:\na: c\n"
    assert [aliases.line_of(text, name) for name in ("a", "b", "no colon", "c")] == [3, 5, 0, 0]
