"""Nobody reads ours in a From that was taken without proof: other programs are asked.

Go's net/mail, Perl's Mail::Address, Python's two parsers, and OpenDMARC with Postfix before it, get
what our rule accepts of thousands of generated headers, of which half have a domain of ours in some
place.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

import pytest

from entrypoint.policy import decide
from entrypoint.policy.decide import Code, Envelope, Rules
from tests.image.breaches.test_from_forms import is_ours
from tests.support import fromforms, smtp
from tests.support.container import checked, docker
from tests.support.fromforms import Form
from tests.support.server import DOMAIN, HOST, ROOT
from tests.support.wait import wait_until
from tests.support.wire import Wire
from tests.world.world import World

IMAGE = "tambo-parsers"
READERS = ("read-go", "read.pl", "read.py")
GENERATED = 12_000
JUDGED_BY_OPENDMARC = 120
RULES = Rules(HOST, frozenset({DOMAIN}), {})


@pytest.fixture(scope="module")
def image(base_image: str) -> str:
    base = f"BASE={base_image}"
    folder = str(ROOT / "tests/parsers")
    checked(docker("build", "--quiet", "--build-arg", base, "--tag", IMAGE, folder, timeout=500))
    return IMAGE


@pytest.fixture(scope="module")
def accepted() -> list[bytes]:
    """The sections that are taken from a stranger for whom nothing vouches."""
    found = (fromforms.stranger(number).section(DOMAIN) for number in range(GENERATED))
    stranger = Envelope(sender="someone@outside.example", remote="192.0.2.1:25")
    return [item for item in found if decide.decide(RULES, stranger, item).code is Code.ACCEPT]


def read(image: str, reader: str, sections: Sequence[bytes]) -> list[list[str]]:
    """The addresses that a reader finds in each section."""
    lines = "".join(f"{section.hex()}\n" for section in sections)
    done = subprocess.run(  # noqa: S603
        ["docker", "run", "--rm", "--interactive", "--network", "none", image, reader],  # noqa: S607
        input=lines, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    found = [
        bytes.fromhex(line).decode(errors="replace").split("\n")
        for line in done.stdout.splitlines()
    ]
    assert len(found) == len(sections), done.stderr[-2000:]
    return found


def ours(addresses: Sequence[str]) -> list[str]:
    """Those with a domain of ours. What has no @ names no domain: a word of a display name, that
    a reader took for an address because a comma follows."""
    return [
        item
        for item in addresses
        if "@" in item and is_ours(item.rpartition("@")[2].strip("<> \t\"'"))
    ]


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_finds_ours_in_what_was_taken(
    image: str, accepted: list[bytes], reader: str
) -> None:
    assert len(accepted) > GENERATED // 10, "there is something to read"
    assert sum(b"example.com" in item for item in accepted) > 100, "and ours stands in it"
    found = read(image, reader, accepted)
    assert sum(any("@" in item for item in row) for row in found) > len(accepted) // 4
    assert not [
        (section, ours(row)) for section, row in zip(accepted, found, strict=True) if ours(row)
    ]


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_would_have_been_deceived(image: str, reader: str) -> None:
    """So that the test above can fail: these find ours in forms that are refused."""
    forms = [fromforms.generated(number).section(DOMAIN) for number in range(400)]
    found = read(image, reader, [*forms, b"From: ceo@accounts.example.com\n"])
    assert ours(found[-1])
    assert sum(bool(ours(row)) for row in found[:-1]) >= 20


@pytest.fixture(scope="module")
def judged(world: World, accepted: list[bytes]) -> list[str]:
    """The From domain that OpenDMARC finds in each of some of them, sent straight to it."""
    with_ours = [item for item in accepted if b"example.com" in item]
    some = [*with_ours[: JUDGED_BY_OPENDMARC // 2], *accepted[: JUDGED_BY_OPENDMARC // 2]]
    endpoint = smtp.Endpoint(world.net.v4(25), "mx.example.net", "")
    to = "readers@example.net"
    taken = 0
    for section in (*some, b"From: ceo@accounts.example.com\n"):
        with Wire(endpoint) as wire:
            for line in ("EHLO x.outside.example", "MAIL FROM:<>", f"RCPT TO:<{to}>", "DATA"):
                assert wire.ask(line).code < 400
            wire.send((section + b"\nText.\n").replace(b"\n", b"\r\n") + b".\r\n")
            taken += wire.reply().positive
    wait_until(lambda: len(world.deliveries(to=to)) >= taken, "all arrive", timeout=60)
    found = []
    for item in world.deliveries(to=to):
        head = re.sub(rb"\r?\n[ \t]+", b" ", item.raw.partition(b"\n\n")[0]).decode(
            errors="replace"
        )
        found += re.findall(r"dmarc=\S+[^;\n]*?header\.from=(\S*)", head)
    return found


def test_opendmarc_finds_ours_in_nothing_that_was_taken(judged: list[str]) -> None:
    assert len(judged) > JUDGED_BY_OPENDMARC // 2, judged
    # The last one is the control, which it does find.
    assert [item for item in judged if is_ours(item)] == ["accounts.example.com"]


def test_generated_strangers_are_many_kinds() -> None:
    forms = {fromforms.stranger(number) for number in range(500)}
    assert all(isinstance(form, Form) for form in forms)
    assert len({form.headers for form in forms}) > 450
