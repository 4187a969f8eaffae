"""What does not fit into memory at chasquid's start waits beside the queue, and is never lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from entrypoint.chasquid import queue
from entrypoint.chasquid.backlog import Message, Origin
from entrypoint.services import parking
from entrypoint.services.parking import Parking
from tests.unit.chasquid.test_backlog import BOUNCE, LOGIN, STRANGER, item

NOW = 1_795_600_000.0
MB = 1 << 20


@pytest.fixture
def mine(tmp_path: Path) -> Parking:
    (tmp_path / "queue").mkdir()
    return Parking(tmp_path / "queue", tmp_path / "queue.parked")


def put(mine: Parking, name: str, size: int = 100, *, login: bool = True) -> bytes:
    content = item((LOGIN if login else STRANGER) + "x" * size)
    (mine.queue / f"m:{name}").write_bytes(content)
    return content


def names(folder: Path) -> set[str]:
    return {path.name.split(".")[0] for path in folder.iterdir()} if folder.exists() else set()


def message(name: str, size: int, *, login: bool = False) -> Message:
    return Message(name, size, size, Origin(login=login))


def test_small_messages_are_kept_first_then_those_of_logins_then_the_smaller_ones() -> None:
    large = 10 * MB
    items = [
        message("login", large, login=True), message("small", 1000), message("big", large),
        message("bigger", 2 * large),
    ]  # fmt: skip
    assert parking.chosen(items, 0) == set()
    assert parking.chosen(items, 2 * 1000) == {"small"}
    assert parking.chosen(items, 2 * large + 2000) == {"small", "login"}
    assert parking.chosen(items, 4 * large + 2000) == {"small", "login", "big"}
    assert parking.chosen(items, 9 * large) == {"small", "login", "big", "bigger"}


def test_each_death_halves_what_the_next_chasquid_reads_down_to_nothing() -> None:
    allowed = [parking.allowance(1000, deaths) for deaths in range(12)]
    assert allowed[:4] == [1000, 500, 250, 125]
    assert allowed[10:] == [0, 0]


def test_a_queue_that_fits_is_left_alone(mine: Parking) -> None:
    put(mine, "one")
    before = (mine.queue / "m:one").stat()
    assert mine.settle(MB, NOW) == parking.Moved()
    assert (mine.queue / "m:one").stat() == before
    assert not mine.parked.exists()


def test_what_does_not_fit_is_parked_whole_and_shown(mine: Parking) -> None:
    put(mine, "small", login=False)
    content = put(mine, "large", 2 * MB)
    assert mine.settle(MB, NOW).parked == ("m:large",)
    assert names(mine.queue) == {"m:small"}
    assert (mine.parked / f"m:large.{int(NOW)}").read_bytes() == content
    assert mine.waiting() == 1
    listed = {one.id: one.parked for one in queue.look(mine.queue, queue.Selection(), 9, 5).items}
    assert listed == {"small": False, "large": True}
    chosen = queue.look(mine.queue, queue.Selection(("large",)), 9, 5)
    assert [(one.id, one.parked) for one in chosen.items] == [("large", True)]


def test_parked_time_does_not_count_against_a_message(mine: Parking) -> None:
    content = put(mine, "large", 2 * MB)
    mine.settle(MB, NOW)
    assert not mine.room_for_more(MB)
    assert mine.room_for_more(5 * MB)
    assert mine.settle(5 * MB, NOW + 7200).fed == ("m:large",)
    found = (mine.queue / "m:large").read_bytes()
    assert found == content.replace(b"seconds: 1795532566", b"seconds: 1795539766")
    assert (names(mine.queue), names(mine.parked)) == ({"m:large"}, set())


def test_without_a_limit_everything_comes_back(mine: Parking) -> None:
    put(mine, "large", 2 * MB)
    mine.settle(0, NOW)
    assert mine.settle(None, NOW).fed == ("m:large",)


def test_in_both_folders_the_one_in_the_queue_wins(mine: Parking) -> None:
    put(mine, "large", 2 * MB)
    mine.settle(0, NOW)
    put(mine, "large", 300)
    mine.settle(MB, NOW)
    assert (names(mine.queue), names(mine.parked)) == ({"m:large"}, set())
    assert (mine.queue / "m:large").stat().st_size < MB


def test_bounces_are_given_up_after_six_hours_and_nothing_else(mine: Parking) -> None:
    created = 1_795_532_566.0
    for name, data in (("bounce", BOUNCE + STRANGER), ("others", STRANGER)):
        (mine.queue / f"m:{name}").write_bytes(item(data, "<>"))
    assert mine.old_bounces(created + 6 * 3600) == []
    old = mine.old_bounces(created + 6 * 3600 + 1)
    assert [one.name for one in old] == ["m:bounce"]
    assert list(mine.give_up(old)) == old
    assert list(mine.give_up(old)) == [], "it may have gone by itself"
    assert names(mine.queue) == {"m:others"}


class Killed(BaseException):
    """Nothing may catch it, as nothing catches signal 9."""


class Mortal:
    """Ends the process, so to speak, at the n-th change of a folder or call of fsync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        for target, name in ((os, "fsync"), (Path, "rename"), (Path, "unlink")):
            real = getattr(target, name)

            def step(*args: Any, real: Any = real, **kwargs: Any) -> Any:
                self.left -= 1
                if self.left == 0:
                    raise Killed
                return real(*args, **kwargs)

            monkeypatch.setattr(target, name, step)


@pytest.mark.parametrize("at", range(1, 40))
def test_killed_at_any_point_no_message_is_lost_and_none_is_there_twice(
    mine: Parking, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    content = {f"m:{number}": put(mine, str(number), 2 * MB) for number in range(3)}
    mortal = Mortal(monkeypatch)
    budgets = (9 * MB, 0, 13 * MB)
    mortal.left = at
    for budget in budgets:
        try:
            mine.settle(budget, NOW)
        except Killed:
            break
    mortal.left = -1
    assert names(mine.queue) | names(mine.parked) >= set(content), "each is somewhere"
    again = Parking(mine.queue, mine.parked)
    again.settle(9 * MB, NOW)
    assert not names(mine.queue) & names(mine.parked)
    assert len(names(mine.queue)) == 2
    again.settle(None, NOW)
    assert {path.name: path.read_bytes() for path in mine.queue.iterdir()} == content
    assert names(mine.parked) == set()


def test_what_chasquid_would_not_read_is_not_moved(mine: Parking) -> None:
    (mine.queue / ".m:temporary").write_bytes(b"x" * 100)
    (mine.queue / "m:odd.name").write_bytes(b"x" * 100)
    (mine.queue / "m:link").symlink_to("/etc/hostname")
    mine.settle(0, NOW)
    assert {".m:temporary", "m:odd.name"} <= {path.name for path in mine.queue.iterdir()}
