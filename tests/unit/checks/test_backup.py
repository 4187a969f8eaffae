"""The doctor's word on the backup."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from entrypoint.backup import index
from entrypoint.backup.index import Checked, Memory, Trouble
from entrypoint.checks import backup
from entrypoint.common import age, signing
from entrypoint.common.findings import Level
from entrypoint.state.load import LeftOut
from tests.unit.checks.kit import NOW, Scene
from tests.unit.kit import asked, put
from tests.unit.settings.test_model import ssh_backup

WHEN = NOW.timestamp()
_, PUBLIC = age.new_identity()
FINE = replace(
    Memory.new(), pushed="1" * 40, pushed_at=WHEN - 3600, checked=Checked(WHEN - 86400, "1" * 40)
)


@pytest.fixture
def scene(scene: Scene, tmp_path: Path) -> Scene:
    scene.settings = asked(
        **ssh_backup(tmp_path), BACKUP_AGE_RECIPIENT=PUBLIC, BACKUP_SIGNING_KEY=signing.new_key()
    )
    remember(scene, FINE)
    return scene


def remember(scene: Scene, memory: Memory) -> None:
    put(scene.paths.backup_memory, index.dump(memory))


def test_all_is_well(scene: Scene) -> None:
    assert scene.found(backup.check) == []


def test_one_that_is_not_signed(scene: Scene) -> None:
    scene.settings = scene.settings.model_copy(update={"backup_signing_key": None})
    found = scene.only(backup.check)
    assert (found.id, found.level) == ("backup-unsigned", Level.WARN)
    assert "backup --new-signing-key" in found.fix
    scene.settings = scene.settings.model_copy(update={"backup_age_recipient": ()})
    assert scene.found(backup.check) == []


def test_none_is_made(scene: Scene) -> None:
    scene.settings = asked()
    [found] = scene.found(backup.check)
    assert (found.id, found.level) == ("no-backup", Level.INFO)


def test_nothing_was_pushed_yet(scene: Scene) -> None:
    remember(scene, Memory.new())
    assert scene.only(backup.check).id == "backup-never"
    scene.paths.backup_memory.write_text("{")
    assert scene.only(backup.check).id == "backup-never"


def test_a_failure_is_a_warning_and_after_a_day_it_fails(scene: Scene) -> None:
    trouble = Trouble("down", WHEN - 60, "git.example.com cannot be reached", "wait")
    remember(scene, replace(FINE, trouble=trouble))
    found = scene.only(backup.check)
    assert (found.id, found.level, found.fix) == ("backup-down", Level.WARN, "wait")
    remember(scene, replace(FINE, trouble=replace(trouble, since=WHEN - 86400)))
    assert scene.only(backup.check).level is Level.FAIL


def test_a_backup_that_does_not_restore_fails(scene: Scene) -> None:
    remember(scene, replace(FINE, checked=Checked(WHEN, "", "x differs")))
    found = scene.only(backup.check)
    assert (found.id, found.level) == ("backup-check", Level.FAIL)
    assert "x differs" in found.message


def test_what_is_left_out_is_told(scene: Scene) -> None:
    left = (LeftOut("reload/x", "it is a link"), LeftOut("domains/a/users", "x", broken=True))
    remember(scene, replace(FINE, left_out=left))
    found = scene.only(backup.check)
    assert (found.id, found.subject) == ("backup-left-out", "reload/x")


def test_one_that_nobody_looks_at(scene: Scene) -> None:
    old = WHEN - timedelta(days=3).total_seconds()
    remember(scene, replace(FINE, pushed_at=old))
    assert scene.only(backup.check).id == "backup-old"
    checked = Checked(WHEN - timedelta(days=15).total_seconds(), "1" * 40)
    remember(scene, replace(FINE, checked=checked))
    assert scene.only(backup.check).id == "backup-unchecked"
