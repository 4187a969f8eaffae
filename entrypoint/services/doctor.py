"""The doctor's daily run in the keeper: logs findings that are new, or gone, since the last."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from entrypoint.checks import memory
from entrypoint.checks.context import CheckContext
from entrypoint.checks.runner import run
from entrypoint.common.errors import UserError
from entrypoint.common.findings import Level
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.settings.model import Settings
from entrypoint.state import load

_DAY = timedelta(days=1)

Log = Callable[[str], None]


def is_due(paths: Paths, now: datetime) -> bool:
    """Whether the last look, a person's or a daily one, was a day ago. One that is yet to come was
    noted by a clock that was wrong."""
    last = memory.load(paths).when
    return last is None or not timedelta() <= now - last < _DAY


def look(settings: Settings, paths: Paths, ids: Ids, log: Log) -> None:
    """Run all checks now, and log what is new and what is mended; news alone (INFO) is not."""
    before = memory.load(paths)
    report = run(CheckContext.real(settings, load.load(paths), paths))
    changes, after = memory.compare(before, report)
    for finding in changes.new:
        if finding.level is not Level.INFO:
            log(f"{finding.level.value}: {finding.message} (docker exec mail doctor)")
    for known in changes.mended:
        log(f"mended: {known.message}")
    try:
        memory.remember(after, paths, ids)
    except (OSError, UserError) as error:
        log(f"error: cannot keep what was found: {error}")


def look_if_due(settings: Settings, paths: Paths, ids: Ids, log: Log) -> bool:
    """At most once a day; whether it was."""
    if not is_due(paths, datetime.now(UTC)):
        return False
    look(settings, paths, ids, log)
    return True
