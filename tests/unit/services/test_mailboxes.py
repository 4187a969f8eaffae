"""How large Maildirs are: real files, measured beside the loop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from entrypoint.services import mailboxes, mda
from entrypoint.services.mailboxes import Mailboxes

MB = 1 << 20
BOX = "i@example.com"


def fill(mail: Path, name: str = "new/a", size: int = MB) -> Path:
    path = mail / "example.com/i" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_all_folders_of_a_maildir_count_and_links_do_not(tmp_path: Path) -> None:
    for name in ("new/a", "cur/b", ".Old/cur/c"):
        fill(tmp_path, name, 100_000)
    big = tmp_path / "big"
    big.write_bytes(b"x" * MB)
    folder = tmp_path / "example.com/i"
    (folder / "new/link").symlink_to(big)
    (folder / "loop").symlink_to(folder)
    assert 300_000 <= mailboxes.measure(folder, 1 << 40) < 400_000


def test_a_measurement_ends_when_it_is_enough(tmp_path: Path) -> None:
    for number in range(20):
        fill(tmp_path, f"new/{number}", 100_000)
    assert 300_000 <= mailboxes.measure(tmp_path, 300_000) < 500_000


def test_a_maildir_that_is_not_there_is_empty_and_one_that_is_none_is_unknown(
    tmp_path: Path,
) -> None:
    (tmp_path / "example.com").mkdir()
    (tmp_path / "example.com/i").write_text("a file")

    async def look() -> tuple[int | None, int | None]:
        known = Mailboxes(tmp_path)
        await known.measure((BOX, "j@example.com"), MB)
        return known.size(BOX), known.size("j@example.com")

    assert asyncio.run(look()) == (None, 0)


def test_it_is_measured_again_after_half_a_minute_and_what_is_taken_counts_at_once(
    tmp_path: Path,
) -> None:
    async def look() -> None:
        now = 0.0
        known = Mailboxes(tmp_path, clock=lambda: now)
        assert known.size(BOX) is None
        await known.measure((BOX,), 2 * MB)
        assert known.size(BOX) == 0
        path = fill(tmp_path)
        known.take((BOX,), 1000)
        await known.measure((BOX,), 2 * MB)
        assert known.size(BOX) == 1000
        now = 31.0
        await known.measure((BOX,), 2 * MB)
        assert (known.size(BOX) or 0) >= MB
        path.unlink()
        now = 62.0
        await known.measure((BOX,), 2 * MB)
        assert known.size(BOX) == 0

    asyncio.run(look())


def test_a_slow_disk_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()

    def slow(_folder: Path, _enough: int) -> int:
        os.read(read, 1)
        return 5

    monkeypatch.setattr(mailboxes, "measure", slow)

    async def look() -> None:
        known = Mailboxes(tmp_path)
        await known.measure((BOX,), MB, wait=0.05)
        assert known.size(BOX) is None
        os.write(write, b"x")
        await known.measure((BOX,), MB)
        assert known.size(BOX) == 5

    asyncio.run(look())


def test_it_looks_where_the_delivery_agent_writes(tmp_path: Path) -> None:
    for address in ("o&x@example.com", ".dot@example.com"):
        path = mda.deliver(tmp_path, "<>", address, b"x")
        assert path.parent.parent == tmp_path / mailboxes.maildir(address)
