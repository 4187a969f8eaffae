"""Queue files at which chasquid would end or hang."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from entrypoint.chasquid import quarantine

GOOD = 'ID: "x"\nFrom: "i@example.com"\ndata: "x"\ncreated_at_ts: {\n  seconds: 1\n}\n'


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    folder = tmp_path / "queue"
    folder.mkdir()
    return folder


def test_good_files_and_those_that_are_only_complained_of_stay(tmp_path: Path, queue: Path) -> None:
    (queue / "m:good").write_text(GOOD)
    (queue / "m:noise").write_text("\x00noise\ncreated_at_ts: {")
    (queue / ".m:temporary").write_text("")
    (queue / "m:first").write_text("created_at_ts: {}\n")
    assert quarantine.put_aside(tmp_path) == []
    assert len(list(queue.iterdir())) == 4
    assert [item.name for item in tmp_path.iterdir()] == ["queue"]


def test_what_chasquid_would_not_survive_is_put_aside(tmp_path: Path, queue: Path) -> None:
    (queue / "m:empty").write_text("")
    (queue / "m:timeless").write_text('ID: "x"\ndata: "\\ncreated_at_ts: {}"\n')
    os.mkfifo(queue / "m:pipe")
    (queue / "m:folder").mkdir()
    (queue / "m:link").symlink_to("m:pipe")
    (queue / "m:good").write_text(GOOD)
    moved = dict(quarantine.put_aside(tmp_path))
    assert moved == {
        "m:empty": "it is empty",
        "m:timeless": "it does not say when its message was taken",
        "m:pipe": "it is no file",
        "m:folder": "it is no file",
        "m:link": "it is a link, or cannot be opened",
    }
    assert [item.name for item in queue.iterdir()] == ["m:good"]
    aside = tmp_path / quarantine.FOLDER
    assert {item.name for item in aside.iterdir()} == set(moved)
    assert aside.stat().st_mode & 0o777 == 0o700
    assert quarantine.put_aside(tmp_path) == [], "once"


def test_without_a_queue_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert quarantine.put_aside(tmp_path) == []
