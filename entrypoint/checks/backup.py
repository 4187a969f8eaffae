"""The backup: made at all, at the remote, and proven to restore."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from entrypoint.backup import backup, index
from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level

_WHY = (
    "Without the DKIM keys a new machine needs new DNS records, and without the users nobody can "
    "log in."
)
_LATE = 2  # intervals without a word from the remote
_WEEKS = 2  # weeks without a check


def check(context: CheckContext) -> list[Finding]:
    """From what the last backup remembers of itself: the remote is not asked."""
    memory = index.load(context.paths)
    pushed = datetime.fromtimestamp(memory.pushed_at if memory else 0.0, UTC)
    seen = f"last push: {pushed:%Y-%m-%d %H:%M} UTC" if memory and memory.pushed_at else "no push"
    return [
        *(
            replace(item, why=_WHY, seen=seen)
            for item in backup.findings(context.settings, context.paths, context.now)
        ),
        *_age(context),
    ]


def _age(context: CheckContext) -> Iterator[Finding]:
    settings = context.settings
    if not settings.backup_git_remote:
        yield Finding(
            id="no-backup",
            level=Level.INFO,
            message="No backup of the configuration is made.",
            fix="docs/backup.md has the five steps to one",
            seen="BACKUP_GIT_REMOTE is not set",
            why=_WHY,
        )
        return
    if settings.backup_age_recipient and not settings.backup_signing_key:
        yield Finding(
            id="backup-unsigned",
            level=Level.WARN,
            message="The backup is not signed: a restore cannot tell it from one that somebody "
            "else has written into the repository.",
            fix="docker exec mail backup --new-signing-key: write its first line beside the "
            "private half (AGE-SECRET-KEY-1...), put its second into .env, then: docker compose "
            "up -d",
            seen="BACKUP_SIGNING_KEY is not set",
            why="Whoever may write there could give a new machine logins, aliases and programs.",
        )
    memory = index.load(context.paths)
    if memory is None or not memory.pushed_at:
        yield Finding(
            id="backup-never",
            level=Level.WARN,
            message="Nothing has been pushed to the backup yet.",
            fix="see why: docker exec mail backup",
            seen="no push so far",
            why=_WHY,
        )
        return
    pushed = datetime.fromtimestamp(memory.pushed_at, UTC)
    if not memory.trouble and context.now - pushed > _LATE * timedelta(
        seconds=settings.backup_interval
    ):
        yield Finding(
            id="backup-old",
            level=Level.WARN,
            message="The backup has not been looked at for long.",
            fix="see why: docker exec mail backup, and the log of the keeper",
            seen=f"pushed last on {pushed:%Y-%m-%d %H:%M} UTC",
            why=_WHY,
        )
    checked = datetime.fromtimestamp(memory.checked.when if memory.checked else 0.0, UTC)
    if context.now - max(checked, pushed - timedelta(weeks=_WEEKS)) > timedelta(weeks=_WEEKS):
        yield Finding(
            id="backup-unchecked",
            level=Level.WARN,
            message="Nobody has seen for long that the backup restores.",
            fix="docker exec mail backup --check",
            seen="no check in the last two weeks",
            why=_WHY,
        )
