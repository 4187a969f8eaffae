"""Reports are deleted after 60 days; no other mail is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from entrypoint.services import oldreports

NOW = 1_800_000_000.0
DAY = 86400.0


def put(mail: Path, name: str, age: float) -> Path:
    path = mail / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_only_old_reports_are_deleted(tmp_path: Path) -> None:
    old = [put(tmp_path, f"example.com/{box}/{part}/a", 61 * DAY)
           for box in ("rua", "ruf") for part in ("new", "cur")]  # fmt: skip
    kept = [
        put(tmp_path, "example.com/rua/new/b", 59 * DAY),
        put(tmp_path, "example.com/i/new/a", 900 * DAY),
        put(tmp_path, "example.com/rua/tmp/a", 900 * DAY),
    ]
    assert oldreports.sweep(tmp_path, NOW) == 4
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)


def test_what_a_link_leads_to_is_left_alone(tmp_path: Path) -> None:
    target = put(tmp_path, "else/file", 900 * DAY)
    (tmp_path / "mail/example.com/rua").mkdir(parents=True)
    (tmp_path / "mail/example.com/rua/new").mkdir()
    (tmp_path / "mail/example.com/rua/new/link").symlink_to(target)
    (tmp_path / "mail/linked").symlink_to(target.parent)
    assert oldreports.sweep(tmp_path / "mail", NOW) == 0
    assert target.exists()


def test_one_sweep_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oldreports, "MOST", 3)
    for number in range(8):
        put(tmp_path, f"example.com/rua/new/{number}", 61 * DAY)
    assert [oldreports.sweep(tmp_path, NOW) for _ in range(4)] == [3, 3, 2, 0]


def test_there_may_be_no_mail_yet(tmp_path: Path) -> None:
    assert oldreports.sweep(tmp_path / "mail", NOW) == 0
