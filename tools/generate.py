"""Writes .env.example and docs/settings.md from the definitions in entrypoint/settings/model.py."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrypoint.settings.model import BY_FILE, CREDENTIALS, DURATION, Settings

ROOT = Path(__file__).parent.parent


def env_example() -> str:
    lines = [
        "# Settings of the mail server. Only MAIL_HOSTNAME is needed; all: docs/settings.md.",
        "# Quote values that hold a $ in single quotes: 'like $this'.",
    ]
    for name, description, example, required, _ in _settings():
        lines += ["", *textwrap.wrap(description, 98, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"{'' if required else '#'}{name}={example}")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Made by `make generate` from `entrypoint/settings/model.py`.",
        "",
        "They are environment variables, given in `.env`; `docker compose up -d` puts a change",
        "into service. Instead of any of them `NAME_FILE` may name a file that holds the value. An",
        "empty value counts as not set. A misspelt name is an error.",
    ]
    for name, description, example, required, default in _settings():
        lines += ["", f"## {name}", "", *textwrap.wrap(description, 98), ""]
        if required:
            lines.append("Required.")
        elif "Default:" not in description:
            lines.append(f"Default: {default}.")
        lines.append(f"Example: `{name}={example}`")
    return "\n".join(lines) + "\n"


def _settings() -> Iterator[tuple[str, str, str, bool, str]]:
    for field, info in Settings.model_fields.items():
        if field in CREDENTIALS:  # no settings of ours: the providers' own variables
            continue
        if not info.description or not info.examples:
            sys.exit(f"{field} has no description or no example")
        yield (
            f"{field.upper()}_FILE" if BY_FILE in info.metadata else field.upper(),
            info.description,
            str(info.examples[0]),
            info.is_required(),
            _default(info.default, duration=DURATION in info.metadata),
        )


def _default(value: Any, *, duration: bool) -> str:
    if duration:
        return f"`{value // 86400}d`"
    if value is None or value == ():
        return "none"
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def main() -> None:
    files = {ROOT / ".env.example": env_example(), ROOT / "docs/settings.md": settings_page()}
    if "--check" in sys.argv:
        stale = [path.name for path, text in files.items() if path.read_text() != text]
        if stale:
            sys.exit(f"{', '.join(stale)} differ from the settings; run: make generate")
        return
    for path, text in files.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
