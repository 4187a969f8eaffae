"""How much is taken at once, and who has to go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from entrypoint.policy.capacity import (
    MIN_AGE,
    MIN_IDLE,
    MIN_SIZE,
    Capacity,
    Sitting,
    Unfinished,
    over,
    who_goes,
)

GB, MB = 1 << 30, 1 << 20


def test_a_gigabyte_holds_4096_connections_and_128_mb_without_an_end() -> None:
    assert Capacity.of(8192, GB, 25 * MB) == Capacity(4096, 3072, 512, 128 * MB)


@pytest.mark.parametrize("descriptors", [128, 512, 8192, 32768])
@pytest.mark.parametrize("memory", [64 * MB, 256 * MB, GB, 64 * GB])
def test_logins_keep_places_whatever_there_is(descriptors: int, memory: int) -> None:
    found = Capacity.of(descriptors, memory, 25 * MB)
    assert found.total < descriptors, "the machine itself has places besides"
    logins = found.total - found.mail
    assert logins >= found.total // 4
    assert logins >= min(256, found.total // 2)
    assert found.mail >= found.total // 2
    assert found.unfinished >= 50 * MB, "two of the largest fit"


SITTING = Sitting(1, "198.51.100.1", seconds=1.0, messages=0, silent=0.0)


def test_nobody_goes_for_one_who_has_as_many() -> None:
    assert who_goes([], "198.51.100.9") is None
    assert who_goes([SITTING], "198.51.100.1") is None
    assert who_goes([SITTING], "198.51.100.9") is None


def test_who_is_many_gives_a_place_to_who_is_few() -> None:
    many = [replace(SITTING, number=number) for number in range(1, 20)]
    few = [replace(SITTING, number=100 + n, network=f"198.51.100.{n}") for n in range(20, 30)]
    assert who_goes([*few, *many], "198.51.100.250") == 1
    many[0] = replace(many[0], messages=3)
    assert who_goes([*few, *many], "198.51.100.250") == 2, "who brought a message stays longer"
    assert who_goes([*few, *many], "198.51.100.1") is None, "not for one more of the same"


def test_who_brought_nothing_for_half_a_minute_goes() -> None:
    each = [replace(SITTING, number=n, network=f"198.51.100.{n}") for n in range(1, 50)]
    assert who_goes(each, "198.51.100.250") is None
    each[7] = replace(each[7], seconds=MIN_AGE)
    assert who_goes(each, "198.51.100.250") == 8
    each[7] = replace(each[7], messages=1)
    assert who_goes(each, "198.51.100.250") is None


def test_who_is_silent_goes() -> None:
    each = [replace(SITTING, number=n, network=f"198.51.100.{n}") for n in range(1, 50)]
    each[3] = replace(each[3], messages=1, silent=MIN_IDLE)
    assert who_goes(each, "198.51.100.250") == 4


STRANGER = Unfinished(1, 24 * MB, login=False, known=False)


def test_what_fits_goes_on() -> None:
    assert over([STRANGER, replace(STRANGER, number=2)], 48 * MB) == []


def test_the_largest_goes_first_and_no_more_than_must() -> None:
    items = [replace(STRANGER, number=n, size=n * MB) for n in range(1, 11)]
    assert [item.number for item in over(items, 40 * MB)] == [10, 9]


def test_no_login_goes_before_all_strangers() -> None:
    login = replace(STRANGER, number=9, size=60 * MB, login=True, known=True)
    known = replace(STRANGER, number=8, size=40 * MB, known=True)
    items = [login, known, *(replace(STRANGER, number=n, size=MB) for n in range(1, 6))]
    assert [item.number for item in over(items, 70 * MB)] == [1, 2, 3, 4, 5, 8]
    assert [item.number for item in over(items, 10 * MB)][-1] == 9


def test_small_ones_are_left_alone() -> None:
    assert over([replace(STRANGER, size=MIN_SIZE - 1) for _ in range(100)], 1) == []


def test_the_figures() -> None:
    assert (MIN_AGE, MIN_IDLE, MIN_SIZE) == (30.0, 10.0, 65536)
    assert Capacity.of(1 << 20, 64 * MB, 25 * MB).total == 256
    assert Capacity.of(1 << 20, 4 * MB, 25 * MB) == Capacity(64, 32, 8, 50 * MB)
    assert Capacity.of(128, GB, 25 * MB).total == 112, "seven eighths of the descriptors"
    assert Capacity.of(1 << 20, 160 * MB, MB).total == 640
    assert Capacity.of(1 << 20, 160 * MB, MB).mail == 384, "logins keep 256"


def test_a_network_with_two_more_gives_a_place_and_with_one_more_keeps_it() -> None:
    three = [replace(SITTING, number=number) for number in (1, 2, 3)]
    own = replace(SITTING, number=9, network="198.51.100.9")
    assert who_goes([own, *three], own.network) == 1
    assert who_goes([own, *three[:2]], own.network) is None


def test_of_those_who_are_many_one_message_is_as_good_as_more() -> None:
    three = [replace(SITTING, number=n, messages=m) for n, m in ((1, 1), (2, 0), (3, 0))]
    assert who_goes(three, "198.51.100.9") == 2


def test_the_silence_of_the_oldest_thirty_two_alone_is_looked_at() -> None:
    each = [
        replace(SITTING, number=n, network=f"198.51.100.{n}", messages=1, silent=0.0)
        for n in range(1, 50)
    ]
    each[32] = replace(each[32], silent=MIN_IDLE)
    assert who_goes(each, "198.51.100.250") is None
    each[31] = replace(each[31], silent=MIN_IDLE)
    assert who_goes(each, "198.51.100.250") == 32


def test_one_of_64_kib_is_worth_a_session_s_end() -> None:
    assert over([replace(STRANGER, size=MIN_SIZE)], 1) == [replace(STRANGER, size=MIN_SIZE)]
