"""The doctor's checks: a module a theme, `check(CheckContext) -> list[Finding]`. None prints."""

from __future__ import annotations

from entrypoint.checks.runner import THEMES, Report, Result, Theme, run

__all__ = ["THEMES", "Report", "Result", "Theme", "run"]
