"""Writes what is defined elsewhere for people to read.

.env.example and docs/settings.md from entrypoint/settings/model.py; docs/code-map.md from the
modules' docstrings and the layers in pyproject.toml; docs/receivers.md from
entrypoint/delivery/operators.py.
"""

from __future__ import annotations

import ast
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrypoint.delivery import operators
from entrypoint.settings.model import CREDENTIALS, Settings
from entrypoint.settings.values import BY_FILE, DURATION

SOURCE = Path(__file__).parent.parent
ROOT = SOURCE  # of what is written


def env_example() -> str:
    """A .env with every setting in a comment, but those that are required."""
    lines = [
        "# Settings of the mail server. Only MAIL_HOSTNAME is needed; all: docs/settings.md.",
        "# Quote values that hold a $ in single quotes: 'like $this'.",
    ]
    for name, description, example, required, _ in _settings():
        lines += ["", *textwrap.wrap(description, 98, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"{'' if required else '#'}{name}={example}")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Every setting with its description, default and example, in Markdown."""
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


def code_map() -> str:
    """Every room and module with the first sentence of its docstring, from the top row down."""
    contracts = tomllib.loads((SOURCE / "pyproject.toml").read_text())["tool"]["importlinter"]
    rows = contracts["contracts"][0]["layers"]
    lines = [
        "# Code map",
        "",
        "Made by `make generate` from the modules' docstrings. Rows from top to bottom: a module",
        "imports from its own room and from rows below, never upwards.",
    ]
    for row in rows:
        for name in row.split(" | "):
            room = SOURCE / "entrypoint" / name
            modules = sorted(room.glob("*.py")) or [room.with_suffix(".py")]
            first = _first(room / "__init__.py") if room.is_dir() else _first(modules[0])
            lines += ["", f"## {name}", "", *textwrap.wrap(first, 98)]
            if room.is_dir():
                lines += ["", "| Module | |", "| --- | --- |"]
                lines += [
                    f"| `{path.stem}` | {_first(path).replace('|', chr(92) + '|')} |"
                    for path in modules
                    if path.stem != "__init__"
                ]
    return "\n".join(lines) + "\n"


def receivers_page() -> str:
    """What is known of each large receiver, in Markdown."""
    lines = [
        "# Receivers",
        "",
        "Made by `make generate` from `entrypoint/delivery/operators.py`.",
        "",
        "What is known of those who receive mail for many domains: how many connections at once a",
        "sender begins with, what they publish and where, what they say when it is too much, and",
        f"where to ask for the end of a block. Others begin with {operators.DEFAULT_CONNECTIONS}.",
    ]
    for operator in operators.all():
        hourly = f"{operator.hourly:,} messages" if operator.hourly else "no figure"
        items = [
            f"Connections at first: {operator.connections}. In an hour: {hourly}.",
            f"Source: {operator.source}",
            f"Exchangers: {', '.join(f'`{end}`' for end in operator.exchangers)}",
            f"When it is too much: {operator.says or 'no words of its own are known'}.",
            f"To end a block: {operator.removal or 'no form is known'}.",
        ]
        lines += ["", f"## {operator.title}", ""]
        for item in items:
            lines += textwrap.wrap(
                item, 98, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False,
                break_long_words=False,
            )  # fmt: skip
    return "\n".join(lines) + "\n"


def _first(path: Path) -> str:
    """The first paragraph of a module's docstring, as one line."""
    text = ast.get_docstring(ast.parse(path.read_text()))
    if not text:
        sys.exit(f"{path} has no docstring")
    return " ".join(text.partition("\n\n")[0].split())


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
    """Write the files; with --check only compare, and end with status 1 if one differs."""
    files = {
        ROOT / ".env.example": env_example(),
        ROOT / "docs/settings.md": settings_page(),
        ROOT / "docs/code-map.md": code_map(),
        ROOT / "docs/receivers.md": receivers_page(),
    }
    if "--check" in sys.argv:
        stale = [
            path.name
            for path, text in files.items()
            if not path.exists() or path.read_text() != text
        ]
        if stale:
            sys.exit(f"{', '.join(stale)} differ from what is defined; run: make generate")
        return
    for path, text in files.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
