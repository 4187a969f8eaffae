"""DKIM keys change hands, and no message is ever without a signature that verifies."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common import locks, rpc
from entrypoint.common.identity import Ids
from entrypoint.common.names import Selector
from entrypoint.common.paths import Paths
from entrypoint.converge import apply, pending, plan, reconcile
from entrypoint.converge.plan import Effect
from entrypoint.dns.authoritative import Absent, Answer, Answers, Ask, Found, Unknown
from entrypoint.keys.dkim import Algorithm
from entrypoint.renewal import dkim
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import DomainState, State
from entrypoint.zone.judge import Status
from entrypoint.zone.required import Addresses, required
from tests.unit.converge.test_crash import deaths
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, asked, forked, key_pem, loaded_key, put

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WEEK = timedelta(days=7)
ONE = {"DKIM_KEYS": "ed25519", "DKIM_SELECTOR": "k"}
NOWHERE = Addresses(None, None)
SLOW = Unknown("no answer in time")


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the socket holder."""
    found: list[str] = []

    def request(_path: Path, command: str) -> dict[str, Any]:
        found.append(command)
        return {"done": True}

    monkeypatch.setattr(rpc, "request", request)
    return found


def booted(wanted: Settings, paths: Paths, ids: Ids) -> None:
    paths.state.mkdir(parents=True, exist_ok=True)
    with locks.edit_lock(paths, ids):
        reconcile.reconcile(wanted, paths, ids)
        pending.clear(paths)


@pytest.fixture
def server(paths: Paths, ids: Ids) -> Settings:
    """Settings of a server that has booted, with a key `ke`."""
    wanted = asked(**ONE)
    booted(wanted, paths, ids)
    return wanted


def have(paths: Paths) -> DomainState:
    return load.load(paths).domain(EXAMPLE_COM)


def selectors(paths: Paths) -> tuple[list[str], list[str], list[str]]:
    """Those that sign, are pending, are retired."""
    found = have(paths)
    return (
        [key.selector for key in found.keys],
        [key.selector for key in found.pending],
        [key.selector for key, _ in found.retired],
    )


def served(paths: Paths) -> dict[str, bytes]:
    """The keys that chasquid would sign with."""
    folder = paths.chasquid / "domains" / EXAMPLE_COM
    return {path.name: path.read_bytes() for path in folder.glob("dkim:*.pem")}


def published(paths: Paths, wanted: Settings) -> Ask:
    """A zone, on two servers, with every record that is asked for now."""
    values = {
        (item.name, item.type.value): item.value
        for item in required(wanted, load.load(paths), NOWHERE)
    }

    def ask(name: str, kind: str) -> Answers:
        value = values.get((name, kind))
        answer: Answer = Found((value,)) if value else Absent()
        return {"ns1.example.net": answer, "ns2.example.net": answer}

    return ask


def quiet(_text: str) -> None:
    """Nobody reads it."""


def nobody(_name: str, _kind: str) -> Answers:
    return {"the resolver": SLOW}


# The beginning


def test_a_next_key_is_made_and_signs_nothing(server: Settings, paths: Paths, ids: Ids) -> None:
    before = served(paths)
    [key] = dkim.begin(server, paths, ids, EXAMPLE_COM)
    assert key.selector == "k2e"
    assert selectors(paths) == (["ke"], ["k2e"], [])
    assert served(paths) == before
    path = paths.pending(EXAMPLE_COM) / "dkim:k2e.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_to_begin_twice_is_to_begin_once(server: Settings, paths: Paths, ids: Ids) -> None:
    first = dkim.begin(server, paths, ids, EXAMPLE_COM)
    assert dkim.begin(server, paths, ids, EXAMPLE_COM) == first


def test_one_that_was_begun_for_one_algorithm_is_completed(
    server: Settings, paths: Paths, ids: Ids
) -> None:
    [first] = dkim.begin(server, paths, ids, EXAMPLE_COM)
    both = asked(DKIM_KEYS="rsa2048,ed25519", DKIM_SELECTOR="k")
    found = dkim.begin(both, paths, ids, EXAMPLE_COM)
    assert first in found
    assert [key.algorithm for key in found] == [Algorithm.ED25519, Algorithm.RSA]


def test_each_domain_by_itself(paths: Paths, ids: Ids, requests: list[str]) -> None:
    wanted = asked(**ONE, MAIL_DOMAINS="example.com example.org")
    booted(wanted, paths, ids)
    dkim.begin(wanted, paths, ids, EXAMPLE_ORG)
    assert selectors(paths) == (["ke"], [], [])
    dkim.advance(wanted, paths, ids, published(paths, wanted), quiet, NOW)
    assert selectors(paths) == (["ke"], [], [])
    assert [key.selector for key in load.load(paths).domain(EXAMPLE_ORG).keys] == ["k2e"]
    assert requests == ["restart"]


# The selectors


def next_selectors(wanted: Settings, **known: Any) -> list[str]:
    current = State(domains={EXAMPLE_COM: DomainState(**known)})
    found = plan.next_keys(wanted, current, Paths(), EXAMPLE_COM, date(2026, 3, 1))
    for item in found:
        assert item.path == Paths().pending(EXAMPLE_COM) / f"dkim:{item.selector}.pem"
    return [str(item.selector) for item in found]


BOTH = {"DKIM_KEYS": "rsa2048,ed25519"}


@pytest.mark.parametrize(
    ("settings", "taken", "expected"),
    [
        (BOTH, (), ["t20260301r", "t20260301e"]),
        (BOTH, ("t20250101r", "t20250101e"), ["t20260301r", "t20260301e"]),
        # Twice on one day.
        (BOTH, ("t20260301r", "t20260301e"), ["t202603012r", "t202603012e"]),
        ({**BOTH, "DKIM_SELECTOR": "mail"}, ("mailr", "maile"), ["mail2r", "mail2e"]),
        ({"DKIM_SELECTOR": "mail"}, ("mailr", "mail2r"), ["mail3r"]),
        # The highest is followed, whatever is free below.
        ({"DKIM_SELECTOR": "mail"}, ("mail7r",), ["mail8r"]),
        ({"DKIM_SELECTOR": "mail"}, ("mail2r", "mail99r", "mailr"), ["mail100r"]),
        ({"DKIM_SELECTOR": "mail"}, ("mail12345678r", "mailxr", "xmail9r", "mail9e"), ["mailr"]),
        ({"DKIM_SELECTOR": "mail"}, ("other",), ["mailr"]),
    ],
)
def test_a_next_key_has_a_selector_of_its_own(
    settings: dict[str, str], taken: tuple[str, ...], expected: list[str]
) -> None:
    assert next_selectors(asked(**settings), selectors=frozenset(taken)) == expected


def test_what_is_pending_is_not_made_again() -> None:
    wanted = asked(**BOTH)
    rsa = loaded_key(Algorithm.RSA, "n1r")
    assert next_selectors(wanted, pending=(rsa,)) == ["t20260301e"]
    edward = loaded_key(Algorithm.ED25519, "n1e")
    assert next_selectors(wanted, pending=(rsa, edward)) == []


def test_selectors_of_every_key_on_the_volume_are_taken(paths: Paths) -> None:
    """Also of damaged ones, and of those that sign no more: their records still stand."""
    folder = paths.domain(EXAMPLE_COM)
    pem = key_pem(Algorithm.ED25519)
    put(folder / "dkim:ke.pem", pem)
    put(folder / "dkim:k2e.pem", "damaged")
    put(folder / "dkim/pending/dkim:k3r.pem", key_pem(Algorithm.RSA))
    put(folder / "dkim/retired/20260228T000000Z.dkim:k4e.pem", pem)
    assert have(paths).selectors >= {"ke", "k2e", "k3r", "k4e"}
    [made] = plan.next_keys(
        asked(**ONE), load.load(paths), paths, EXAMPLE_COM, date(2026, 3, 1)
    )  # fmt: skip
    assert made.selector == "k5e"


def test_the_selector_of_a_forgotten_key_is_not_used_again(
    server: Settings, paths: Paths, ids: Ids
) -> None:
    """With DKIM_SELECTOR every key has the same prefix; DNS may still show the old record."""
    seen = ["ke"]
    now = NOW
    for _ in range(4):
        [key] = dkim.begin(server, paths, ids, EXAMPLE_COM)
        dkim.advance(server, paths, ids, published(paths, server), quiet, now)
        now += timedelta(days=30)
        dkim.advance(server, paths, ids, nobody, quiet, now)
        assert selectors(paths) == ([key.selector], [], []), "the old one is history"
        assert key.selector not in seen
        seen.append(key.selector)
    assert seen == ["ke", "k2e", "k3e", "k4e", "k5e"]


def test_nor_of_one_that_its_owner_gave_up(server: Settings, paths: Paths, ids: Ids) -> None:
    for expected in ("k2e", "k3e"):
        for place in (paths.domain(EXAMPLE_COM), paths.good / EXAMPLE_COM):
            for path in place.glob("dkim:*.pem"):
                path.unlink()
        booted(server, paths, ids)
        assert selectors(paths) == ([expected], [], [])


@pytest.mark.parametrize("content", ["", "x", "[]", '{"example.com": 3}', '{"../x": ["a"]}'])
def test_a_damaged_memory_of_selectors_is_written_anew(
    server: Settings, paths: Paths, ids: Ids, content: str
) -> None:
    put(paths.selectors, content)
    booted(server, paths, ids)
    assert json.loads(paths.selectors.read_text()) == {"example.com": ["ke"]}


# What DNS shows


def test_the_records_of_all_keys_are_asked_for(
    server: Settings, paths: Paths, ids: Ids, requests: list[str]
) -> None:
    def names() -> list[str]:
        records = required(server, load.load(paths), NOWHERE)
        return [item.name.partition("._domainkey")[0] for item in records if "._dom" in item.name]

    assert names() == ["ke"]
    dkim.begin(server, paths, ids, EXAMPLE_COM)
    assert names() == ["ke", "k2e"]
    dkim.advance(server, paths, ids, published(paths, server), quiet, NOW)
    assert requests == ["restart"]
    assert names() == ["k2e", "ke"], "the old one for a week more"
    purposes = [item.purpose for item in required(server, load.load(paths), NOWHERE)]
    assert any("keep it until 2026-03-08" in text for text in purposes)
    dkim.advance(server, paths, ids, published(paths, server), quiet, NOW + WEEK)
    assert names() == ["k2e"]


def test_what_is_shown(server: Settings, paths: Paths, ids: Ids) -> None:
    assert dkim.shown(load.load(paths), EXAMPLE_COM, nobody) == ()
    [key] = dkim.begin(server, paths, ids, EXAMPLE_COM)

    def status(ask: Ask) -> Status:
        [verdict] = dkim.shown(load.load(paths), EXAMPLE_COM, ask)
        assert verdict.record.name == "k2e._domainkey.example.com"
        assert verdict.record.value == str(key.record)
        return verdict.status

    assert status(nobody) is Status.UNKNOWN
    assert status(lambda *_: {"ns": Absent()}) is Status.MISSING
    assert status(lambda *_: {"ns": Found(("v=DKIM1; p=AAAA",))}) is Status.DIFFERENT
    assert status(published(paths, server)) is Status.OK


def servers(*answers: Answer | None) -> Callable[[Ask], Ask]:
    """One name server for each answer to whatever is asked of a new key; None: it is right."""

    def with_right(right: Ask) -> Ask:
        def ask(name: str, kind: str) -> Answers:
            [good, _] = right(name, kind).values()
            return {f"ns{number}": item or good for number, item in enumerate(answers)}

        return ask

    return with_right


NOT_YET = [
    servers(Absent()),
    servers(SLOW),
    servers(Found(("v=DKIM1; k=ed25519; p=AAAA",))),
    # One of several is enough to wait for: receivers may ask it.
    servers(None, Absent()),
    servers(Absent(), None),
    servers(None, None, SLOW),
    servers(SLOW, None),
    servers(None, Found(("v=DKIM1; k=ed25519; p=",))),
]


@pytest.mark.parametrize("dns", NOT_YET)
def test_the_old_key_signs_until_every_server_shows_the_new_one(
    server: Settings, paths: Paths, ids: Ids, requests: list[str], dns: Callable[[Ask], Ask]
) -> None:
    dkim.begin(server, paths, ids, EXAMPLE_COM)
    before = served(paths)
    right = published(paths, server)
    said: list[str] = []
    dkim.advance(server, paths, ids, dns(right), said.append, NOW)
    assert selectors(paths) == (["ke"], ["k2e"], [])
    assert served(paths) == before
    assert (said, requests) == ([], [])
    dkim.advance(server, paths, ids, right, said.append, NOW)
    assert selectors(paths) == (["k2e"], [], ["ke"])
    assert said == [
        "example.com: every name server shows the new DKIM key; from now on mail is signed with k2e"
    ]


def test_all_new_keys_take_over_together_or_none(
    paths: Paths, ids: Ids, requests: list[str]
) -> None:
    wanted = asked(DKIM_KEYS="rsa2048,ed25519", DKIM_SELECTOR="k")
    booted(wanted, paths, ids)
    dkim.begin(wanted, paths, ids, EXAMPLE_COM)
    right = published(paths, wanted)

    def half(name: str, kind: str) -> Answers:
        return {"ns1": Absent()} if name.startswith("k2r") else right(name, kind)

    dkim.advance(wanted, paths, ids, half, quiet, NOW)
    assert selectors(paths)[0] == ["ke", "kr"]
    dkim.advance(wanted, paths, ids, right, quiet, NOW)
    assert selectors(paths) == (["k2e", "k2r"], [], ["ke", "kr"])
    assert set(served(paths)) == {"dkim:k2e.pem", "dkim:k2r.pem"}
    assert requests == ["restart"], "once, for both"


def test_a_key_that_came_after_the_look_at_dns_waits(
    paths: Paths, ids: Ids, requests: list[str]
) -> None:
    both = asked(DKIM_KEYS="rsa2048,ed25519", DKIM_SELECTOR="k")
    booted(both, paths, ids)
    dkim.begin(asked(**ONE), paths, ids, EXAMPLE_COM)
    right = published(paths, both)

    def meanwhile(name: str, kind: str) -> Answers:
        dkim.begin(both, paths, ids, EXAMPLE_COM)
        return right(name, kind)

    dkim.advance(both, paths, ids, meanwhile, quiet, NOW)
    assert selectors(paths) == (["k2e", "kr"], ["k2r"], ["ke"])
    assert requests == ["restart"]


def test_what_another_has_done_meanwhile_is_not_done_again(
    server: Settings, paths: Paths, ids: Ids, requests: list[str]
) -> None:
    """The keeper and a verb that waits may see it at the same moment."""
    dkim.begin(server, paths, ids, EXAMPLE_COM)
    right = published(paths, server)
    said: list[str] = []
    busy = False

    def meanwhile(name: str, kind: str) -> Answers:
        nonlocal busy
        if not busy:
            busy = True
            dkim.advance(server, paths, ids, right, said.append, NOW)
        return right(name, kind)

    dkim.advance(server, paths, ids, meanwhile, said.append, NOW)
    assert selectors(paths) == (["k2e"], [], ["ke"])
    assert len(said) == 1
    assert requests == ["restart"]


def test_a_key_of_another_algorithm_stays(paths: Paths, ids: Ids, requests: list[str]) -> None:
    both = asked(DKIM_KEYS="rsa2048,ed25519", DKIM_SELECTOR="k")
    booted(both, paths, ids)
    one = asked(**ONE)
    dkim.begin(one, paths, ids, EXAMPLE_COM)
    dkim.advance(both, paths, ids, published(paths, both), quiet, NOW)
    assert selectors(paths) == (["k2e", "kr"], [], ["ke"])
    assert requests == ["restart"]


def test_keys_of_every_selector_are_replaced(
    server: Settings, paths: Paths, ids: Ids, requests: list[str]
) -> None:
    """The owner's own among them."""
    put(paths.domain(EXAMPLE_COM) / "dkim:mine.pem", key_pem(Algorithm.ED25519))
    dkim.begin(server, paths, ids, EXAMPLE_COM)
    dkim.advance(server, paths, ids, published(paths, server), quiet, NOW)
    assert selectors(paths) == (["k2e"], [], ["ke", "mine"])
    assert requests


# Afterwards


def test_a_retired_key_is_kept_for_a_week(
    server: Settings, paths: Paths, ids: Ids, requests: list[str]
) -> None:
    dkim.begin(server, paths, ids, EXAMPLE_COM)
    old = have(paths).keys[0].pem
    dkim.advance(server, paths, ids, published(paths, server), quiet, NOW)
    path = paths.retired(EXAMPLE_COM) / "20260301T120000Z.dkim:ke.pem"
    assert path.read_bytes() == old
    assert path.stat().st_mode & 0o777 == 0o600
    said: list[str] = []
    dkim.advance(server, paths, ids, nobody, said.append, NOW + WEEK - timedelta(seconds=1))
    assert path.exists()
    assert said == []
    dkim.advance(server, paths, ids, nobody, said.append, NOW + WEEK)
    assert not path.exists()
    [text] = said
    assert text == (
        "example.com: the DKIM key ke is history; its record ke._domainkey.example.com may be "
        "removed from DNS"
    )
    dkim.advance(server, paths, ids, nobody, said.append, NOW + 2 * WEEK)
    assert len(said) == 1
    assert requests == ["restart"], "to forget changes nothing for chasquid"


def test_keys_may_change_again_within_the_week(
    server: Settings, paths: Paths, ids: Ids, requests: list[str]
) -> None:
    for number in range(3):
        dkim.begin(server, paths, ids, EXAMPLE_COM)
        now = NOW + timedelta(days=number)
        dkim.advance(server, paths, ids, published(paths, server), quiet, now)
    assert selectors(paths) == (["k4e"], [], ["ke", "k2e", "k3e"])
    dkim.advance(server, paths, ids, nobody, quiet, NOW + WEEK + timedelta(days=1))
    assert selectors(paths) == (["k4e"], [], ["k3e"])
    assert requests == ["restart"] * 3


def test_nothing_to_do_writes_nothing(
    server: Settings, paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((apply, "write"), (apply, "remove"), (locks, "edit_lock")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("it wrote"))
    dkim.advance(server, paths, ids, nobody, quiet, NOW)


# Killed, at each step


def check_between(paths: Paths, keys: dict[str, bytes]) -> None:
    """At no moment is the domain without a key, and no key is missed that was given up."""
    current = load.load(paths)
    signing = current.domain(EXAMPLE_COM).keys
    assert signing
    assert not current.findings
    for key in signing:
        assert key.pem == keys[key.selector]


def check_complete(paths: Paths, keys: dict[str, bytes]) -> None:
    assert selectors(paths) == (["k2e"], [], ["ke"])
    assert served(paths) == {"dkim:k2e.pem": keys["k2e"]}
    assert [path.name for path in (paths.good / EXAMPLE_COM).glob("dkim:*")] == ["dkim:k2e.pem"]
    [(old, _)] = have(paths).retired
    assert old.pem == keys["ke"]
    assert load.load(paths).findings == ()
    assert not list(paths.data.rglob("*.new"))


@pytest.fixture
def begun(server: Settings, paths: Paths, ids: Ids) -> dict[str, bytes]:
    """A rotation that waits for DNS; the two keys by selector."""
    dkim.begin(server, paths, ids, EXAMPLE_COM)
    return {str(key.selector): key.pem for key in (*have(paths).keys, *have(paths).pending)}


@pytest.mark.long
@pytest.mark.parametrize("first_the_boot", [False, True])
def test_killed_at_each_step_it_completes(
    server: Settings,
    paths: Paths,
    ids: Ids,
    begun: dict[str, bytes],
    tmp_path: Path,
    first_the_boot: bool,
) -> None:
    """Killed for real, before each change on the disk; then again where that left off."""
    before = tmp_path / "before"
    shutil.copytree(paths.root / "data", before / "data", symlinks=True)
    shutil.copytree(paths.root / "run", before / "run", symlinks=True)
    place = tmp_path / "place"
    place.mkdir()
    there = Paths(place)
    right = published(paths, server)
    steps = 0
    for _ in deaths(lambda: dkim.advance(server, there, ids, right, quiet, NOW), before, place):
        check_between(there, begun)
        if first_the_boot:
            shutil.rmtree(there.run)  # a tmpfs
            booted(server, there, ids)
            check_between(there, begun)
        dkim.advance(server, there, ids, right, quiet, NOW + timedelta(minutes=1))
        check_complete(there, begun)
        steps += 1
    assert steps > 20


class KilledError(Exception):
    """Here it ended."""


@dataclass
class Failing:
    """Writing or removing a file fails at the `left`th time."""

    left: int

    def instead_of(self, real: Callable[..., None]) -> Callable[..., None]:
        def guarded(*args: Any) -> None:
            self.left -= 1
            if self.left == 0:
                raise KilledError
            real(*args)

        return guarded


def test_failing_again_and_again_it_completes_in_the_end(
    server: Settings,
    paths: Paths,
    ids: Ids,
    begun: dict[str, bytes],
    requests: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the same volume: at the first step, then at the second, …"""
    right = published(paths, server)
    said: list[str] = []
    steps = 0
    while have(paths).pending:
        steps += 1
        failing = Failing(steps)
        with monkeypatch.context() as patch, suppress(KilledError):
            for name in ("write", "remove"):
                patch.setattr(apply, name, failing.instead_of(getattr(apply, name)))
            dkim.advance(server, paths, ids, right, said.append, NOW)
        check_between(paths, begun)
    assert steps > 3
    check_complete(paths, begun)
    assert len(said) == 1
    assert requests
    assert set(requests) == {"restart"}


def test_killed_before_chasquid_was_told_it_is_told_by_the_next(
    server: Settings,
    paths: Paths,
    ids: Ids,
    begun: dict[str, bytes],
    requests: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it would sign with the old key until its next restart, perhaps for weeks."""

    right = published(paths, server)
    with monkeypatch.context() as patch:
        patch.setattr(rpc, "request", lambda *_: os._exit(7))
        assert forked(lambda: dkim.advance(server, paths, ids, right, quiet, NOW)) == 7
    assert requests == []
    with locks.edit_lock(paths, ids):  # the keeper's own look: nothing is left to change
        _, outcome = reconcile.reconcile(server, paths, ids)
    assert outcome.effect is Effect.NONE
    dkim.advance(server, paths, ids, right, quiet, NOW)
    assert requests == ["restart"]
    check_complete(paths, begun)


def test_killed_at_the_beginning_it_has_begun_or_not(
    server: Settings, paths: Paths, ids: Ids, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    for name in ("data", "run"):
        shutil.copytree(paths.root / name, before / name, symlinks=True)
    place = tmp_path / "place"
    place.mkdir()
    there = Paths(place)
    for _ in deaths(lambda: dkim.begin(server, there, ids, EXAMPLE_COM), before, place):
        assert not load.load(there).findings
        pending = have(there).pending
        found = dkim.begin(server, there, ids, EXAMPLE_COM)
        assert [key.selector for key in found] == ["k2e"]
        assert pending in ((), found), "a key that was made is not made again"
        assert [key.selector for key in have(there).keys] == ["ke"]


def test_a_damaged_pending_key_is_made_again(
    server: Settings, paths: Paths, ids: Ids, begun: dict[str, bytes]
) -> None:
    """Under another name: its record may be in DNS already, and remembered by resolvers."""
    put(paths.pending(EXAMPLE_COM) / "dkim:k2e.pem", "damaged")
    [finding] = load.load(paths).findings
    assert finding.id == "broken-dkim"
    [key] = dkim.begin(server, paths, ids, EXAMPLE_COM)
    assert key.selector == Selector("k3e")
    assert key.pem != begun["k2e"]
