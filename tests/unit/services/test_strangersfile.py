"""data/policy/strangers.json: written by a child, whole, and by the holder itself at its end."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from entrypoint.services.strangersfile import StrangersFile
from tests.support.wait import wait_until


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path, said: list[str]) -> StrangersFile:
    return StrangersFile(tmp_path / "strangers.json", lambda _source, text: said.append(text))


def test_what_a_child_saves_is_loaded(file: StrangersFile, said: list[str]) -> None:
    async def run() -> None:
        assert file.save({"known": {"x": 1.0}})
        assert not file.save({}), "one at a time"
        for _ in range(1000):
            if file.save({"known": {"x": 2.0}}):
                break
            await asyncio.sleep(0.01)

    asyncio.run(run())
    wait_until(lambda: file.load() == {"known": {"x": 2.0}}, "the second is there")
    file.save_now({"known": {}})
    assert (file.load(), said) == ({"known": {}}, [])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_the_last_save_comes_after_a_child_that_is_at_it(file: StrangersFile) -> None:
    large = {"known": {str(number): 1.0 for number in range(200_000)}}

    async def run() -> None:
        file.save(large)
        file.save_now({"known": {"last": 1.0}})
        await asyncio.sleep(0)  # the loop sees that the child has ended, and does not wait again

    asyncio.run(run())
    assert json.loads(file.path.read_text()) == {"known": {"last": 1.0}}
    assert [path.name for path in file.path.parent.iterdir()] == ["strangers.json"]


def test_what_a_killed_one_left_aside_is_written_over(file: StrangersFile) -> None:
    (file.path.parent / ".strangers.json.new").write_text("{half")
    file.save_now({"known": {}})
    assert [path.name for path in file.path.parent.iterdir()] == ["strangers.json"]


def test_a_file_that_cannot_be_written_is_said(file: StrangersFile, said: list[str]) -> None:
    file.path.mkdir()
    file.save_now({})
    assert said == [f"error: {file.path} cannot be written: Is a directory"]


def test_a_damaged_file_is_said_and_none_is_not(file: StrangersFile, said: list[str]) -> None:
    assert (file.load(), said) == (None, [])
    file.path.write_text("{half")
    assert file.load() is None
    assert said[0].startswith(f"error: {file.path} cannot be read: ")
