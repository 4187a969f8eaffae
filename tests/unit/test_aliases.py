"""chasquid's aliases file."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import aliases
from entrypoint.aliases import AliasError, Mailbox, Pipe, Target, Via
from entrypoint.names import Address, Domain
from tests.unit import chasquid
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG

LINES = st.text(st.sampled_from("ab*+:,|#@. \t/via-_é\r\n\0\\\"'{}!"), max_size=30)
SHAPED = st.from_regex(
    r"\A[a-zA-Z*é+.#|]{1,8} ?: ?((\| ?)?[a-z|*#!+.]{1,6}(@[a-z]{1,4}\.example)?"
    r"( via [a-z]{1,3}\.example(/b\.example)?)?[, ]{0,2}){1,3}\Z", fullmatch=True
)  # fmt: skip
TEXTS = st.lists(LINES | SHAPED, max_size=4).map("\n".join)


def parsed(text: str) -> dict[str, tuple[Target, ...]]:
    return aliases.parse(text, EXAMPLE_COM)


def as_chasquid(targets: tuple[Target, ...]) -> list[chasquid.Recipient]:
    found = []
    for target in targets:
        match target:
            case Pipe(command):
                found.append(chasquid.Recipient(command, "pipe"))
            case Via(mailbox, servers):
                found.append(chasquid.Recipient(str(mailbox), "forward", servers))
            case Mailbox():
                found.append(chasquid.Recipient(str(target), "email"))
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
        assert chasquid.read_aliases(rendered, EXAMPLE_COM) == {
            f"{name}@example.com": as_chasquid(targets) for name, targets in found.items()
        }
        # And so does the original: strictness only refuses, it never reads otherwise.
        assert chasquid.read_aliases(text, EXAMPLE_COM) == chasquid.read_aliases(
            rendered, EXAMPLE_COM
        )
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
    assert chasquid.read_aliases(fits, EXAMPLE_COM)


def test_the_longest_line_that_chasquid_reads() -> None:
    command = "x" * (65535 - len("a: | \n"))
    text = aliases.render(parsed(f"a: | {command}"))
    assert len(text) == 65535
    assert chasquid.read_aliases(text, EXAMPLE_COM)["a@example.com"][0].address == command
    with pytest.raises(AliasError, match="too many targets"):
        parsed(f"a: | {command}x")


def test_a_long_comment_never_reaches_chasquid() -> None:
    assert aliases.render(parsed("# " + "x" * 70000 + "\na: b")) == "a: b@example.com\n"


def test_an_internationalized_target_is_in_ascii() -> None:
    [target] = parsed("a: i@bücher.example")["a"]
    assert str(target) == "i@xn--bcher-kva.example"
    assert isinstance(target, Mailbox)
    assert Address.parse(str(target)) == str(target)
