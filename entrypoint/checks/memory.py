"""What the doctor found the last time, and what is different now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from entrypoint.checks.runner import OVERRUN, Report
from entrypoint.common import locks
from entrypoint.common.findings import Finding, Level
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.converge import apply

_LOCK_WAIT = 5.0  # seconds

Key = tuple[str, str, str]  # theme, id, subject


@dataclass(frozen=True)
class Known:
    """A finding as it is remembered."""

    level: Level
    message: str


@dataclass(frozen=True)
class Memory:
    """`when` is None if nothing is remembered."""

    when: datetime | None = None
    findings: Mapping[Key, Known] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """`new` has what appeared or got another level, `mended` what was wrong and is known not to be
    any more, `known_again` what nobody could say and somebody now does."""

    since: datetime | None
    new: tuple[Finding, ...]
    mended: tuple[Known, ...]
    known_again: tuple[Known, ...]


def load(paths: Paths) -> Memory:
    """A memory that cannot be read is none: then everything is new."""
    try:
        content = json.loads(paths.doctor.read_text())
        return Memory(
            datetime.fromtimestamp(float(content["when"]), UTC),
            {
                (item["theme"], item["id"], item["subject"]): Known(
                    Level(item["level"]), item["message"]
                )
                for item in content["findings"]
            },
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Memory()


def compare(before: Memory, report: Report) -> tuple[Changes, Memory]:
    """What has changed, and what is to be remembered.

    Where nobody could say this time, what was known stays: it is neither mended nor forgotten.
    """
    now = {
        (result.theme.name, item.id, item.subject): item
        for result in report.results
        for item in result.findings
    }
    unknown = [key for key, item in now.items() if item.level is Level.UNKNOWN]
    gone = {key: known for key, known in before.findings.items() if key not in now}
    kept = {
        key: known
        for key, known in gone.items()
        if known.level is not Level.UNKNOWN and any(_hides(item, key) for item in unknown)
    }
    new = tuple(
        item
        for key, item in now.items()
        if key not in before.findings or before.findings[key].level is not item.level
    )
    settled = [known for key, known in gone.items() if key not in kept]
    remembered = {key: Known(item.level, item.message) for key, item in now.items()}
    changes = Changes(
        since=before.when,
        new=new,
        mended=tuple(known for known in settled if known.level in (Level.WARN, Level.FAIL)),
        known_again=tuple(known for known in settled if known.level is Level.UNKNOWN),
    )
    return changes, Memory(report.when, {**kept, **remembered})


def _hides(unknown: Key, other: Key) -> bool:
    """Whether "not known" is said of the very thing that another finding was about.

    `X-unknown` is the doubt about every X-…, of its subject and of what is named below it.
    """
    theme, name, subject = unknown
    if theme != other[0]:
        return False
    if name == OVERRUN:
        return True
    stem = name.removesuffix("-unknown")
    same = not subject or other[2] == subject or other[2].startswith(f"{subject} ")
    return stem != name and other[1].startswith(stem) and same


def remember(memory: Memory, paths: Paths, ids: Ids) -> None:
    """Keep it for the next time. Raises OSError and UserError."""
    content = {
        "when": memory.when.timestamp() if memory.when else 0.0,
        "findings": [
            {
                "theme": theme, "id": name, "subject": subject, "level": known.level.value,
                "message": known.message,
            }
            for (theme, name, subject), known in memory.findings.items()
        ],
    }  # fmt: skip
    with locks.edit_lock(paths, ids, wait=_LOCK_WAIT):
        apply.write(paths.doctor, json.dumps(content, indent=1).encode(), ids)
