"""What a network may do from which nobody has logged in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.common.rates import Rates
from entrypoint.policy import strangers
from entrypoint.policy.strangers import (
    HOUR,
    KNOWN_FOR,
    TYPOS,
    Block,
    Entry,
    Strangers,
    is_loopback,
    network_key,
    network_of,
)

FAILURES, FAILURES_KNOWN = 5, 5 * TYPOS
NOW = 1_800_000_000.0
NET, OTHER, LOGIN = "198.51.100.7", "2001:db8:1:2::/64", "i@example.com"


def fresh(rates: str = "20/conn,60/h,100/unknown,5/auth") -> Strangers:
    return Strangers(Rates.parse(rates))


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("20/conn,60/h,100/unknown,5/auth", Rates(20, 60, 100, 5)),
        (" 100/UNKNOWN 20/conn ", Rates(20, None, 100)),
        ("1/h", Rates(None, 1)),
        ("none", Rates()),
    ],
)
def test_rates_are_read(text: str, rates: Rates) -> None:
    assert Rates.parse(text) == rates
    assert Rates.parse(str(rates)) == rates


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20",
        "0/conn",
        "20/conns",
        "5/h,6/h",
        "-1/h",
        "99999999/h",
        "5/d",
        "\u0665/h",
        "none,5/h",
    ],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no rate"):
        Rates.parse(text)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_network_is_an_ipv4_address_or_an_ipv6_64(address: str, network: str) -> None:
    assert network_of(address) == network
    assert network_key(network) == network


@pytest.mark.parametrize("text", ["", "all", "198.51.100.0/24", "2001:db8::/48", "x/64"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|64"):
        network_key(text)


def test_machine_itself_is_no_stranger_and_is_never_blocked() -> None:
    found = fresh("1/conn,1/h,1/unknown,1/auth")
    for network in ("127.0.0.1", "127.9.9.9", "::1"):
        assert is_loopback(network)
        assert not found.is_stranger(network, NOW)
        for _ in range(500):
            assert found.failed(network, LOGIN, NOW) is None
            assert found.received(network, NOW) is None
            assert found.unknown_recipient(network, NOW) is None
    assert not found.blocks(NOW)


def test_log_in_makes_its_network_known_for_a_week() -> None:
    found = fresh()
    assert found.is_stranger(NET, NOW)
    found.logged_in(NET, LOGIN, NOW)
    assert not found.is_stranger(NET, NOW + KNOWN_FOR - 1)
    assert found.has_logged_in(NET, LOGIN, NOW + KNOWN_FOR - 1)
    assert not found.has_logged_in(NET, "you@example.com", NOW)
    assert not found.has_logged_in(OTHER, LOGIN, NOW)
    assert found.is_stranger(NET, NOW + KNOWN_FOR)


def test_five_failed_log_ins_block_for_a_minute_and_then_twice_as_long_each_time() -> None:
    found = fresh()
    lengths = []
    for number in range(FAILURES + 8):
        block = found.failed(NET, f"{number}@example.com", NOW + number)
        lengths.append(block.until - block.since if block else None)
    assert lengths[: FAILURES - 1] == [None] * (FAILURES - 1)
    assert lengths[FAILURES - 1 :] == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert found.block_of(NET, NOW + FAILURES + 7 + HOUR - 1)
    assert found.block_of(NET, NOW + FAILURES + 7 + HOUR) is None
    assert found.block_of(OTHER, NOW) is None


def test_failures_of_an_hour_ago_count_no_more() -> None:
    found = fresh()
    for number in range(100):
        assert found.failed(NET, LOGIN, NOW + number * HOUR / (FAILURES - 1)) is None


def test_where_somebody_logged_in_typos_do_not_block() -> None:
    found = fresh()
    found.logged_in(NET, LOGIN, NOW)
    for _ in range(FAILURES_KNOWN - 1):
        assert found.failed(NET, LOGIN, NOW) is None
    block = found.failed(NET, LOGIN, NOW)
    assert block
    assert block.until == NOW + 60


def test_log_in_forgives_the_failures_of_that_login_alone() -> None:
    found = fresh()
    found.logged_in(NET, "own@example.com", NOW)
    for _ in range(FAILURES_KNOWN - 1):
        found.failed(NET, LOGIN, NOW)
    found.logged_in(NET, "own@example.com", NOW)
    assert found.failed(NET, LOGIN, NOW), "one's own log-in pays for no guesses at another's"
    found.logged_in(NET, LOGIN, NOW)
    assert found.failed(NET, LOGIN, NOW) is None


def test_sixtieth_message_blocks_until_the_hour_is_over() -> None:
    found = fresh()
    blocks = [found.received(NET, NOW + number) for number in range(60)]
    assert blocks[:59] == [None] * 59
    assert blocks[59] == Block(NET, "60 messages within an hour", NOW + 59, NOW + HOUR)
    assert found.received(NET, NOW + 60) is None, "it is said once"
    assert found.block_of(NET, NOW + HOUR) is None
    assert found.received(NET, NOW + HOUR) is None


def test_hundredth_unknown_recipient_blocks_until_the_hour_is_over() -> None:
    found = fresh()
    blocks = [found.unknown_recipient(NET, NOW) for _ in range(100)]
    assert blocks[:99] == [None] * 99
    assert blocks[99] == Block(NET, "100 unknown recipients within an hour", NOW, NOW + HOUR)


def test_who_is_known_has_no_limit_of_messages_or_recipients() -> None:
    found = fresh()
    found.logged_in(NET, LOGIN, NOW)
    for _ in range(1000):
        assert found.received(NET, NOW) is None
        assert found.unknown_recipient(NET, NOW) is None


def test_without_rates_nobody_is_blocked() -> None:
    found = fresh("none")
    for _ in range(1000):
        assert found.received(NET, NOW) is None
        assert found.unknown_recipient(NET, NOW) is None
        assert found.failed(NET, LOGIN, NOW) is None


def test_shorter_block_does_not_end_a_longer_one() -> None:
    found = fresh()
    for _ in range(60):
        found.received(NET, NOW)
    for _ in range(FAILURES):
        found.failed(NET, LOGIN, NOW)
    block = found.block_of(NET, NOW)
    assert block
    assert block.until == NOW + HOUR


def test_unblocking_forgets_what_led_to_it() -> None:
    found = fresh()
    for _ in range(FAILURES + 3):
        found.failed(NET, LOGIN, NOW)
        found.failed(OTHER, LOGIN, NOW)
    assert [block.network for block in found.unblock(NET)] == [NET]
    assert found.block_of(NET, NOW) is None
    assert found.failed(NET, LOGIN, NOW) is None, "and the next mistake is the first"
    assert found.unblock("192.0.2.1") == []
    assert [block.network for block in found.unblock(None)] == [OTHER]
    assert not found.blocks(NOW)


def test_what_is_kept_comes_back() -> None:
    found = fresh()
    found.logged_in(NET, LOGIN, NOW)
    for _ in range(FAILURES):
        found.failed(OTHER, LOGIN, NOW)
    assert found.changed
    again = fresh()
    again.load(json.loads(json.dumps(found.to_json())), NOW + 1)
    assert again.has_logged_in(NET, LOGIN, NOW + 1)
    assert again.blocks(NOW + 1) == found.blocks(NOW + 1)
    later = fresh()
    later.load(found.to_json(), NOW + HOUR)
    assert later.blocks(NOW + HOUR) == []


@pytest.mark.parametrize(
    "content",
    [
        {}, {"known": {}}, {"known": [], "blocks": []}, {"known": {"x": {}}, "blocks": []},
        {"known": {NET: {"i": "x"}}, "blocks": []}, {"known": {}, "blocks": [{"network": NET}]},
        {"known": {}, "blocks": [{"network": "x", "reason": "", "since": 0, "until": 1e12}]},
    ],
)  # fmt: skip
def test_what_is_not_understood_is_not_taken_in_part(content: dict[str, object]) -> None:
    found = fresh()
    found.logged_in(NET, LOGIN, NOW)
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        found.load(content, NOW)
    assert found.has_logged_in(NET, LOGIN, NOW)


def test_memory_does_not_grow_with_the_networks_that_knock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "_MAX_NETWORKS", 10)
    found = fresh()
    for number in range(100):
        network = f"198.51.100.{number}"
        found.logged_in(f"198.18.0.{number}", LOGIN, NOW)
        for _ in range(FAILURES):
            found.failed(network, f"{number}@example.com", NOW)
    assert len(found.blocks(NOW)) == 10
    assert found.block_of("198.51.100.99", NOW), "the oldest are forgotten first"
    assert len(found.to_json()["known"]) == 10
    assert len(found._deeds) == 10


def test_memory_does_not_grow_with_the_failures_of_one_network() -> None:
    found = fresh()
    for _ in range(10_000):
        found.failed(NET, LOGIN, NOW)
    assert len(found._deeds[NET].failures) <= 2 * FAILURES_KNOWN


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 4000)), max_size=200))
def test_no_block_lasts_longer_than_an_hour(deeds: list[tuple[int, float]]) -> None:
    found = fresh("1/conn,3/h,3/unknown,5/auth")
    now = NOW
    for what, seconds in deeds:
        now += seconds
        if what == 0:
            found.failed(NET, LOGIN, now)
        elif what == 1:
            found.received(NET, now)
        elif what == 2:
            found.unknown_recipient(NET, now)
        for block in found.blocks(now):
            assert now < block.until <= now + HOUR


def test_twenty_connections_are_taken_one_waits_and_the_rest_is_too_many() -> None:
    found = fresh()
    assert found.entry(NET, 19, 0, NOW) is Entry.TAKE
    assert found.entry(NET, 20, 0, NOW) is Entry.WAIT
    assert found.entry(NET, 20, 1, NOW) is Entry.MANY
    assert fresh("none").entry(NET, 8300, 1, NOW) is Entry.TAKE
    assert found.entry("127.0.0.1", 8300, 1, NOW) is Entry.TAKE
    found.logged_in(NET, LOGIN, NOW)
    assert found.entry(NET, 8300, 1, NOW) is Entry.TAKE


def test_who_is_blocked_is_not_taken_even_with_room() -> None:
    found = fresh()
    for _ in range(FAILURES):
        found.failed(NET, LOGIN, NOW)
    assert found.entry(NET, 0, 0, NOW) is Entry.BLOCKED
    assert found.entry(NET, 0, 0, NOW + 60) is Entry.TAKE


# Logins that are guessed at


def guessed_at() -> Strangers:
    """Many networks guess at i@example.com, which is known in one."""
    found = Strangers(Rates())
    found.logged_in("198.51.100.1", "i@example.com", 1000.0)
    for number in range(21):
        found.failed(f"198.18.0.{number}", "i@example.com", 1000.0)
    return found


def test_many_networks_that_fail_little_are_seen_by_the_login() -> None:
    found = guessed_at()
    assert found.guessed.logins(1000.0) == ["i@example.com"]
    assert found.has_logged_in("198.51.100.1", "i@example.com", 1000.0)


def test_a_right_guess_does_not_make_its_network_known() -> None:
    found = guessed_at()
    found.logged_in("198.18.0.3", "i@example.com", 1000.0)
    assert not found.has_logged_in("198.18.0.3", "i@example.com", 1000.0)
    found.logged_in("198.51.100.1", "i@example.com", 2000.0)
    assert found.has_logged_in("198.51.100.1", "i@example.com", 2000.0), "where it was known, it is"
    found.logged_in("198.18.0.3", "i@example.com", 1000.0 + 3600.0)
    assert found.has_logged_in("198.18.0.3", "i@example.com", 1000.0 + 3600.0), "it is over"


def test_what_fails_where_the_login_is_known_is_no_attack() -> None:
    found = Strangers(Rates())
    found.logged_in("198.51.100.1", "i@example.com", 1000.0)
    for network in ("198.51.100.1", "127.0.0.1"):
        for _ in range(50):
            found.failed(network, "i@example.com", 1000.0)
    assert found.guessed.logins(1000.0) == []


def test_what_is_guessed_at_is_kept_and_a_file_of_before_is_read() -> None:
    again = Strangers(Rates())
    again.load(guessed_at().to_json(), 1000.0)
    assert again.guessed.logins(1000.0) == ["i@example.com"]
    again.load({"known": {}, "blocks": []}, 1000.0)
    assert again.guessed.logins(1000.0) == []


# Figures, and what has to be kept


def has_to_be_kept(found: Strangers) -> bool:
    return found.changed


def test_the_figures() -> None:
    assert (HOUR, KNOWN_FOR, TYPOS) == (3600.0, 604_800.0, 20)
    assert (strangers._MAX_NETWORKS, strangers._MAX_LOGINS) == (20_000, 50)


def test_an_address_with_its_interface_is_of_its_network() -> None:
    assert network_of("fe80::1%eth0") == network_of("fe80::2%eth1")


def test_what_was_known_a_week_ago_is_forgotten_and_what_is_newer_is_not() -> None:
    found = fresh()
    found.logged_in(NET, "old@example.com", NOW)
    found.logged_in(NET, LOGIN, NOW + 10)
    assert found.has_logged_in(NET, LOGIN, NOW + KNOWN_FOR)
    assert found.to_json()["known"] == {NET: {LOGIN: NOW + 10}}
    assert found.is_stranger(NET, NOW + 10 + KNOWN_FOR)
    assert found.to_json()["known"] == {}


def test_the_end_of_a_block_is_to_be_kept() -> None:
    found = fresh()
    for _ in range(FAILURES):
        found.failed(NET, LOGIN, NOW)
    assert has_to_be_kept(found)
    found.changed = False
    assert found.block_of(NET, NOW + 59)
    assert not has_to_be_kept(found)
    assert found.block_of(NET, NOW + 60) is None
    assert has_to_be_kept(found)
    assert found.to_json()["blocks"] == []


def test_nothing_is_to_be_kept_at_first_and_a_log_in_is_once_an_hour() -> None:
    found = fresh()
    assert not has_to_be_kept(found)
    found.logged_in(NET, LOGIN, NOW)
    assert has_to_be_kept(found)
    found.logged_in(NET, LOGIN, NOW + 1)
    assert has_to_be_kept(found), "it has not been kept yet"
    found.changed = False
    found.logged_in(NET, LOGIN, NOW + 1 + HOUR)
    assert not has_to_be_kept(found)
    found.logged_in(NET, LOGIN, NOW + 2 + 2 * HOUR)
    assert has_to_be_kept(found)


def test_a_login_that_is_known_there_stays_known_while_it_is_guessed_at() -> None:
    found = guessed_at()
    found.logged_in("198.51.100.1", "i@example.com", 1000.0 + KNOWN_FOR - 1)
    for number in range(21):
        found.failed(f"198.18.0.{number}", "i@example.com", 1000.0 + KNOWN_FOR - 1)
    found.logged_in("198.51.100.1", "i@example.com", 1000.0 + KNOWN_FOR)
    assert found.has_logged_in("198.51.100.1", "i@example.com", 999.0 + 2 * KNOWN_FOR)


def test_fifty_logins_of_a_network_are_known_and_the_oldest_goes() -> None:
    found = fresh()
    for number in range(51):
        found.logged_in(NET, f"{number}@example.com", NOW + number)
        if number == 49:
            assert len(found._known[NET]) == 50
    assert not found.has_logged_in(NET, "0@example.com", NOW + 51)
    assert found.has_logged_in(NET, "1@example.com", NOW + 51)


def test_who_logged_in_again_is_not_the_oldest() -> None:
    found = fresh()
    for network in (NET, OTHER, NET):
        found.logged_in(network, LOGIN, NOW)
    assert list(found._known) == [OTHER, NET]


def test_who_failed_again_is_not_the_oldest() -> None:
    found = fresh()
    for network in (NET, OTHER, NET):
        found.failed(network, LOGIN, NOW)
    assert list(found._deeds) == [OTHER, NET]


def test_a_block_is_to_be_kept_and_its_end_by_hand_too() -> None:
    found = fresh()
    for _ in range(60):
        found.received(NET, NOW)
    assert has_to_be_kept(found)
    found.changed = False
    assert found.unblock("192.0.2.1") == []
    assert not has_to_be_kept(found)
    found.unblock(NET)
    assert has_to_be_kept(found)
    found.unblock(NET)
    assert has_to_be_kept(found), "it has not been kept yet"


def test_what_was_to_be_kept_still_is_after_a_failure() -> None:
    found = fresh("none")
    found.changed = True
    found.failed(NET, LOGIN, NOW)
    assert has_to_be_kept(found)


def test_a_block_that_ends_now_does_not_come_back() -> None:
    found = fresh()
    for _ in range(FAILURES):
        found.failed(NET, LOGIN, NOW)
    again = fresh()
    again.load(found.to_json(), NOW + 60)
    assert again._blocks == {}


def test_no_more_than_it_may_hold_is_taken_from_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "_MAX_NETWORKS", 3)
    known = {f"198.51.100.{number}": {LOGIN: NOW} for number in range(9)}
    blocks = [
        {"network": f"198.18.0.{number}", "reason": "", "since": NOW, "until": NOW + 9}
        for number in range(9)
    ]
    found = fresh()
    found.load({"known": known, "blocks": blocks}, NOW)
    assert list(found._known) == [f"198.51.100.{number}" for number in (6, 7, 8)]
    assert list(found._blocks) == [f"198.18.0.{number}" for number in (6, 7, 8)]


def test_an_ipv4_address_has_no_64() -> None:
    with pytest.raises(ValueError, match="neither an address nor an IPv6 /64"):
        network_key("198.51.100.7/64")
