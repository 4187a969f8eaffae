"""When open sessions lose the right to send."""

from __future__ import annotations

import json

from entrypoint.policy.revocation import WINDOW, Changes

NOW = 1_800_000_000.0


def changed() -> Changes:
    found = Changes()
    found.saw({"i": "1", "j": "1"}, NOW - 9)
    found.saw({"i": "2", "j": "1"}, NOW)
    return found


def test_a_new_password_counts_from_then_for_half_an_hour() -> None:
    found = changed()
    assert found.since("i", NOW + 1800.0 - 1) == NOW
    assert found.since("i", NOW + 1800.0) is None
    assert found.since("j", NOW) is None


def test_what_was_seen_first_or_is_the_same_is_no_change() -> None:
    found = Changes()
    assert found.saw({"i": "1"}, NOW)
    assert found.saw({"i": "1"}, NOW + 1) is False
    assert found.since("i", NOW) is None


def test_a_login_that_is_gone_has_changed_and_a_new_one_has_not() -> None:
    found = Changes()
    found.saw({"i": "1"}, NOW - 1)
    found.saw({"j": "1"}, NOW)
    assert found.since("i", NOW) == NOW
    assert found.since("j", NOW) is None


def test_when_chasquid_has_been_told_it_counts_from_that_moment() -> None:
    found = changed()
    assert found.settle(NOW + 5) is True
    assert found.since("i", NOW + 6) == NOW + 5
    assert found.settle(NOW + 7) is False
    assert found.since("i", NOW + 8) == NOW + 5


def test_an_earlier_time_does_not_take_a_later_one_back() -> None:
    found = changed()
    found.note(["i"], NOW - 60)
    assert found.since("i", NOW) == NOW


def test_it_survives_a_restart_while_it_counts() -> None:
    again = Changes()
    again.load(json.loads(json.dumps(changed().to_json(NOW + WINDOW - 1))))
    assert again.since("i", NOW) == NOW
    assert again.fingerprints == {"i": "2", "j": "1"}
    assert changed().to_json(NOW + WINDOW)["changed"] == {}


def test_what_never_saw_a_fingerprint_is_kept_as_that() -> None:
    again = Changes(fingerprints={"i": "1"})
    again.load(json.loads(json.dumps(Changes().to_json(NOW))))
    assert again.fingerprints is None
