"""The parts of docs/clients.md that are marked as tested, as they stand there.

    **Tested**, as `~/.config/msmtp/config`:     the block below is that file
    **Tested**, run:                             the block below is typed into a shell
    **Tested**, for port 587:                    a diff of one of the blocks above

All of a section together make one recipe, which sends one message through port 465; without a
command it is a configuration, for programs that others call. The table of what each client says
when it fails is read here too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.server import HOST, ROOT

DOCUMENT = ROOT / "docs/clients.md"
_SECTION = re.compile(r"^#{2,3} (.+)\n((?:(?!^#{2,3} ).*\n)*)", re.MULTILINE)
_BLOCK = re.compile(r"^\*\*Tested\*\*, (.+):\n\n```\w*\n((?:(?!```).*\n)*)```$", re.MULTILINE)
_MARK = "**Tested**"


@dataclass(frozen=True)
class Recipe:
    """A client: the files that it reads, and the commands that have it send."""

    name: str
    files: Mapping[str, str]
    commands: tuple[str, ...]
    changes: tuple[tuple[str, str], ...]
    """What stands in it for port 465, and what instead of that for port 587."""

    def for_port_587(self) -> Recipe:
        """By STARTTLS. Raises ValueError for a diff that does not fit exactly once."""
        recipe = self
        for old, new in self.changes:
            texts = (*recipe.files.values(), *recipe.commands)
            if sum(text.count(old) for text in texts) != 1:
                message = f"{self.name}: not found exactly once:\n{old}"
                raise ValueError(message)
            recipe = recipe._rewritten(old, new)
        return recipe

    def for_host(self, name: str) -> Recipe:
        """The same with another server."""
        return self._rewritten(HOST, name)

    def _rewritten(self, old: str, new: str) -> Recipe:
        files = {path: text.replace(old, new) for path, text in self.files.items()}
        commands = tuple(text.replace(old, new) for text in self.commands)
        return replace(self, files=files, commands=commands)


def recipes(document: Path = DOCUMENT) -> list[Recipe]:
    """All that send. Raises ValueError for a mark that no block follows."""
    return [recipe for recipe in _all(document) if recipe.commands]


def configurations(document: Path = DOCUMENT) -> list[Recipe]:
    """The others. Raises ValueError for a mark that no block follows."""
    return [recipe for recipe in _all(document) if not recipe.commands]


def _all(document: Path) -> list[Recipe]:
    text = document.read_text(encoding="utf-8")
    found = [
        _recipe(name, blocks)
        for name, body in _SECTION.findall(text)
        if (blocks := _BLOCK.findall(body))
    ]
    used = sum(len(_BLOCK.findall(body)) for _, body in _SECTION.findall(text))
    if text.count(f"\n{_MARK}, ") != used:
        message = f"{document.name}: a line that begins with {_MARK} without its block"
        raise ValueError(message)
    return found


@dataclass(frozen=True)
class Words:
    """What a client says, in any of several ways."""

    certificate: tuple[str, ...]
    secret: tuple[str, ...]
    size: tuple[str, ...]


def words(document: Path = DOCUMENT) -> dict[str, Words]:
    """What each client says of a certificate, a secret and a message that will not do."""
    found = {}
    for line in document.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        quoted = [tuple(re.findall("`(.+?)`", cell)) for cell in cells]
        if line.startswith("| ") and len(cells) == 4 and all(quoted[1:]):
            found[cells[0]] = Words(*quoted[1:])
    return found


def _recipe(name: str, blocks: list[tuple[str, str]]) -> Recipe:
    files: dict[str, str] = {}
    commands: list[str] = []
    changes: list[tuple[str, str]] = []
    for what, text in blocks:
        if path := re.fullmatch("as `(.+)`", what):
            files[path[1]] = text
        elif what == "run":
            commands.append(text)
        elif what == "for port 587":
            old, new = (
                "".join(line[1:] for line in text.splitlines(keepends=True) if line[0] == sign)
                for sign in "-+"
            )
            changes.append((old, new))
        else:
            message = f"{name}: {_MARK}, {what}: means nothing"
            raise ValueError(message)
    return Recipe(name, files, tuple(commands), tuple(changes))
