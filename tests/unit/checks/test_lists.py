"""Lists of bad senders."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from entrypoint.checks import lists
from entrypoint.common.findings import Level
from entrypoint.dns.authoritative import Absent, Found
from entrypoint.dns.blocklists import LISTS, DnsList
from entrypoint.zone.required import Addresses, Outbound
from tests.unit.checks.kit import FAILED, V4, V6, Scene
from tests.unit.kit import asked

ZEN = next(item for item in LISTS if item.zone == "zen.spamhaus.org")
DBL = next(item for item in LISTS if item.zone == "dbl.spamhaus.org")
URIBL = next(item for item in LISTS if item.zone == "multi.uribl.com")
DRONE = next(item for item in LISTS if item.zone == "dnsbl.dronebl.org")


def test_on_no_list(scene: Scene) -> None:
    assert scene.found(lists.check) == []


def test_the_names_that_are_asked(scene: Scene) -> None:
    scene.found(lists.check)
    asked_for = {name for name, kind in scene.dns.asked if kind == "A"}
    nibbles = "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
    assert f"10.113.0.203.{ZEN.zone}" in asked_for
    assert f"{nibbles}.{ZEN.zone}" in asked_for
    assert f"example.com.{DBL.zone}" in asked_for
    assert f"{nibbles}.bl.spamcop.net" not in asked_for, "it lists no IPv6"
    assert f"example.com.{ZEN.zone}" not in asked_for


@pytest.mark.parametrize(
    ("item", "what"),
    [(item, V4) for item in LISTS if 4 in item.families]
    + [(item, V6) for item in LISTS if 6 in item.families]
    + [(item, "example.com") for item in LISTS if not item.families],
    ids=lambda value: value.zone if isinstance(value, DnsList) else str(value),
)  # fmt: skip
def test_found_absent_and_unknown_on_each_list(scene: Scene, item: DnsList, what: str) -> None:
    entry = item.entry(what)
    subject = f"{what} {item.zone}"
    scene.dns.set(entry, "A", "127.0.0.2")
    found = scene.only(lists.check)
    assert (found.id, found.level, found.subject) == ("listed", item.level, subject)
    assert item.removal in found.fix.splitlines()
    scene.dns.set(entry, "A")
    assert scene.found(lists.check) == []
    scene.dns.fail(entry, "A")
    found = scene.only(lists.check)
    assert (found.id, found.level, found.subject) == ("list-unknown", Level.UNKNOWN, subject)
    assert found.seen == FAILED.reason


@pytest.mark.parametrize(
    ("item", "answer"),
    [
        (ZEN, "127.255.255.254"), (ZEN, "127.255.255.252"), (ZEN, "127.255.255.255"),
        (ZEN, "127.0.0.1"), (DBL, "127.255.255.254"), (DBL, "127.0.1.255"), (URIBL, "127.0.0.1"),
    ],
)  # fmt: skip
def test_you_may_not_ask_is_unknown(scene: Scene, item: DnsList, answer: str) -> None:
    scene.dns.set(item.entry(V4 if item.families else "example.com"), "A", answer)
    found = scene.only(lists.check)
    assert (found.id, found.level) == ("list-unknown", Level.UNKNOWN)
    assert answer in found.seen
    assert "unbound" in found.fix


def test_a_list_that_answers_no_shared_resolver_is_asked_itself(scene: Scene) -> None:
    """As the resolver of one's own would do, which such lists ask for."""
    entry, test = ZEN.entry(V4), ZEN.entry(ZEN.test)
    for name in (entry, test):
        scene.dns.set(name, "A", "127.255.255.254")
    scene.dns.own = {(entry, "A"): Found(("127.0.0.3",)), (test, "A"): Found(("127.0.0.2",))}
    assert scene.only(lists.check, Level.FAIL).seen == "127.0.0.3 as a recent spam source (CSS)"
    scene.dns.own = {(entry, "A"): Absent(), (test, "A"): Found(("127.0.0.2",))}
    assert scene.found(lists.check) == []
    scene.dns.own[entry, "A"] = FAILED
    assert scene.only(lists.check, Level.UNKNOWN).seen == FAILED.reason


def test_not_listed_is_believed_only_of_a_list_that_knows_its_test_entry(scene: Scene) -> None:
    """Some resolvers answer NXDOMAIN for whatever list one asks."""
    test = ZEN.entry(ZEN.test)
    scene.dns.set(test, "A")
    assert scene.ids(lists.check) == ["list-unknown", "list-unknown"]  # IPv4 and IPv6
    scene.dns.fail(test, "A")
    assert scene.ids(lists.check) == ["list-unknown", "list-unknown"]
    scene.dns.set(test, "A", "127.255.255.254")
    assert scene.ids(lists.check) == ["list-unknown", "list-unknown"]
    scene.dns.set(ZEN.entry(V4), "A", "127.0.0.2")
    assert scene.ids(lists.check, Level.FAIL) == ["listed"], "a listing needs no proof"


def test_a_dead_list_that_answers_everything(scene: Scene) -> None:
    scene.dns.set(ZEN.entry(V4), "A", "192.0.2.80")
    found = scene.only(lists.check)
    assert (found.id, found.level) == ("list-unknown", Level.UNKNOWN)
    assert "192.0.2.80" in found.seen


def test_a_list_without_test_entry_is_believed(scene: Scene) -> None:
    assert not DRONE.test
    assert scene.found(lists.check) == []


def test_a_resolver_that_fails_makes_nothing_not_listed(scene: Scene) -> None:
    scene.dns.failing = True
    found = scene.found(lists.check)
    assert {item.level for item in found} == {Level.UNKNOWN}
    assert len(found) == sum(len(item.families) or 1 for item in LISTS), "not one is said clear"


def test_what_is_not_known_or_not_used_is_not_asked(scene: Scene) -> None:
    scene.addresses = Addresses(V4, V6, has_ipv6=False)
    scene.found(lists.check)
    assert not [name for name, _ in scene.dns.asked if name.startswith("0.1.0.0.0.0")]
    scene.addresses = Addresses(None, None)
    assert scene.found(lists.check) == []


def test_domains_are_asked_as_their_owners_register_them(scene: Scene) -> None:
    scene.settings = asked(
        MAIL_HOSTNAME="smtp.hosting.example", MAIL_DOMAINS="mail.example.com,example.org"
    )
    for name in ("example.com", "example.org", "hosting.example"):
        scene.dns.set(DBL.entry(name), "A", "127.0.1.2")
    subjects = [item.subject.split()[0] for item in scene.found(lists.check)]
    assert subjects == ["example.com", "example.org", "hosting.example"]


def test_each_address_that_mail_leaves_from_is_looked_for(scene: Scene) -> None:
    second = IPv4Address("203.0.113.11")
    scene.addresses = Addresses(V4, V6, outbound=(Outbound(V4, V4), Outbound(second, second)))
    scene.dns.set(ZEN.entry(second), "A", "127.0.0.2")
    found = scene.only(lists.check)
    assert (found.id, found.subject) == ("listed", f"{second} {ZEN.zone}")
