"""The golden cases of tests/cases that are sections in one file: acme, bad_env, dns, env.

A line `-- NAME --` begins a section, as in Go's txtar. Its text is every line up to the next such
line or the end, exactly as it stands: empty, or UTF-8 with LF at the end of each line. What each
kind means, and how other bytes are written, is in tests/cases/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

CASES = Path(__file__).parent.parent / "cases"
# What a case of each kind may hold; `folder/` is any path below it. GIVEN is written by hand,
# EXPECTED by `pytest --regenerate`.
GIVEN = {
    "acme": ("status", "missing", "output"),
    "bad_env": ("env",),
    "dns": ("env", "keys", "answers"),
    "env": ("env", "data/"),
}
EXPECTED = {"acme": ("said",), "bad_env": ("error",), "dns": ("findings",), "env": ("expected/",)}
_ESCAPE = re.compile(
    r"\\(?:(?P<repeat>\d+)\*\((?P<text>[^)]*)\)|u(?P<u>[0-9a-f]{4})|U(?P<U>[0-9a-f]{8})|(?P<one>.))"
)
_ONE = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\"}


def unescape(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match["repeat"]:
            return match["text"] * int(match["repeat"])
        if match["u"] or match["U"]:
            return chr(int(match["u"] or match["U"], 16))
        return _ONE[match["one"]]

    return _ESCAPE.sub(replace, text)


def parse(content: bytes, kind: str) -> dict[str, str]:
    """The sections by name, in their order. Raises ValueError for what is not of the format."""
    *lines, rest = content.decode().split("\n")
    if rest or b"\r" in content:
        msg = "every line has to end with LF, and none may hold CR"
        raise ValueError(msg)
    known = (*GIVEN[kind], *EXPECTED[kind])
    sections: dict[str, str] = {}
    for line in lines:
        if line.startswith("-- "):
            name = line.removeprefix("-- ").removesuffix(" --")
            if line != f"-- {name} --" or not _among(name, known):
                msg = f"{line!r} begins no section of {kind}, which has {', '.join(known)}"
                raise ValueError(msg)
            if name in sections:
                msg = f"{line!r} is there twice"
                raise ValueError(msg)
            sections[name] = ""
        elif not sections:
            msg = f"{line!r} is above the first section"
            raise ValueError(msg)
        else:
            sections[name] += f"{line}\n"
    return sections


def _among(name: str, known: Collection[str]) -> bool:
    folder, slash, path = name.partition("/")
    return f"{folder}{slash}" in known and bool(path) == bool(slash)


@dataclass(frozen=True)
class Case:
    """A file of tests/cases. It is read anew each time: `write` may have changed it."""

    path: Path

    @property
    def sections(self) -> dict[str, str]:
        try:
            return parse(self.path.read_bytes(), self.path.parent.name)
        except ValueError as error:
            msg = f"{self.path}: {error}"
            raise ValueError(msg) from error

    def below(self, folder: str) -> dict[str, str]:
        """The sections `folder/…`, by the path behind it."""
        return {
            name.removeprefix(f"{folder}/"): text
            for name, text in self.sections.items()
            if name.startswith(f"{folder}/")
        }

    def environ(self) -> tuple[dict[str, str], dict[str, bytes]]:
        """The environment, and the files that it speaks of, by name."""
        environ: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for line in self.sections["env"].splitlines():
            if not line or line.startswith("#"):
                continue
            name, _, value = line.partition("=")
            if name.startswith(">"):
                files[unescape(name[1:])] = unescape(value).encode(errors="surrogateescape")
            else:
                environ[unescape(name)] = unescape(value)
        return environ, files

    def write(self, expected: Mapping[str, str]) -> None:
        """Replace what is expected: each section in its place, new ones at the end.

        Raises ValueError, and writes nothing, for a text that would not be read again as it is.
        """
        kind = self.path.parent.name
        sections = {
            name: text
            for name, text in self.sections.items()
            if name in expected or not _among(name, EXPECTED[kind])
        } | dict(expected)
        content = "".join(f"-- {name} --\n{text}" for name, text in sections.items()).encode()
        if parse(content, kind) != sections:
            msg = f"{self.path}: a text would not be read again as it is: {expected}"
            raise ValueError(msg)
        self.path.write_bytes(content)


def cases(kind: str) -> list[Case]:
    """All of a folder, by name. Each file there is a case."""
    return [Case(path) for path in sorted((CASES / kind).iterdir())]


def case_id(case: Case) -> str:
    return case.path.name
