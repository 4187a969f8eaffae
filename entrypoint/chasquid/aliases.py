"""chasquid's aliases file (internal/aliases/aliases.go): read, write, validate.

Stricter than chasquid where its leniency ends in lost mail; what passes here loads there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from entrypoint.common.errors import shown
from entrypoint.common.names import Address, Domain

CATCH_ALL = "*"
_MAX_LINE = 65535  # bytes; chasquid's scanner ends at 64 KiB
_NAME = re.compile(r"[^\s:,@]{1,64}")


@dataclass(frozen=True)
class Mailbox:
    """Mail goes on to an address; a local part of `*` stands for the original one."""

    local: str
    domain: Domain

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


@dataclass(frozen=True)
class Via:
    """Mail goes to `mailbox` through these servers, not through its domain's MX."""

    mailbox: Mailbox
    servers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.mailbox} via {'/'.join(self.servers)}"


@dataclass(frozen=True)
class Pipe:
    """Mail goes to a program's input. Any failure of it bounces the message (chasquid)."""

    command: str

    def __str__(self) -> str:
        return f"| {self.command}"


Target = Mailbox | Via | Pipe
Aliases = Mapping[str, tuple[Target, ...]]


class AliasError(ValueError):
    """What is wrong with the file, and on which line (1 is the first)."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


def parse(text: str, domain: Domain) -> dict[str, tuple[Target, ...]]:
    """Targets by local part. Raises AliasError at the first line that is wrong."""
    aliases: dict[str, tuple[Target, ...]] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            name, targets = _line(line, domain)
            # As chasquid will read it, with the domains filled in.
            if len(render({name: targets}).encode()) > _MAX_LINE:
                msg = f"{shown(name)} has too many targets: more than {_MAX_LINE} bytes"
                raise ValueError(msg)
            if name in aliases:
                msg = f"{shown(name)} stands twice; put all its targets on one line"
                raise ValueError(msg)
        except ValueError as error:
            raise AliasError(number, str(error)) from None
        aliases[name] = targets
    return aliases


def _line(line: str, domain: Domain) -> tuple[str, tuple[Target, ...]]:
    name, colon, value = line.partition(":")
    name, value = name.strip().lower(), value.strip()
    if not colon:
        msg = f"{shown(line)} has no colon; write it as name: address"
        raise ValueError(msg)
    if "@" in name:
        msg = f"{shown(name)}: left of the colon stands the part before the @ alone"
        raise ValueError(msg)
    if not _NAME.fullmatch(name) or not name.isprintable():
        msg = f"{shown(name)} is not a name; it is 1 to 64 characters without spaces or commas"
        raise ValueError(msg)
    if value.startswith("|"):
        command = value[1:].strip()
        if not command or not command.isprintable():
            msg = f"{name}: the command after | is missing or not printable"
            raise ValueError(msg)
        return name, (Pipe(command),)
    targets = tuple(_target(item.strip(), domain) for item in value.split(",") if item.strip())
    if not targets:
        msg = f"{name}: no address after the colon"
        raise ValueError(msg)
    return name, targets


def _target(text: str, domain: Domain) -> Target:
    address, via, servers = text.partition(" via ")
    mailbox = _mailbox(address.strip(), domain)
    if not via:
        return mailbox
    return Via(mailbox, tuple(Domain.parse(server) for server in servers.split("/")))


def _mailbox(text: str, domain: Domain) -> Mailbox:
    local, at, target_domain = text.rpartition("@")
    if not at:
        local, target_domain = text, domain
    if local == CATCH_ALL:
        return Mailbox(CATCH_ALL, Domain.parse(target_domain))
    address = Address.parse(f"{local}@{target_domain}")
    return Mailbox(address.local, address.domain)


def render(aliases: Aliases) -> str:
    """The file's text, sorted by name; `parse(render(a), d) == a`."""
    return "".join(
        f"{name}: {', '.join(str(target) for target in aliases[name])}\n"
        for name in sorted(aliases)
    )


# Edits by the verbs. The file is its owner's: they change the text of one line, or add one, and
# leave every other byte as it is.


class EditError(ValueError):
    """Why a line cannot be changed as it was asked."""


@dataclass(frozen=True)
class _Place:
    """A name's line: `start` and `end` in the text, without the line's end; `value` is where the
    targets begin."""

    number: int
    start: int
    value: int
    end: int


def _places(text: str) -> dict[str, _Place]:
    """Where each name stands, also in a file that is not valid as a whole."""
    found: dict[str, _Place] = {}
    start = 0
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        name, colon, _ = raw.partition(":")
        if line and not line.startswith("#") and colon:
            end = start + len(raw.rstrip())
            place = _Place(number, start, start + len(name) + 1, end)
            found.setdefault(name.strip().lower(), place)
        start += len(raw) + 1
    return found


def line_of(text: str, name: str) -> int:
    """The number of the line on which a name stands; 0 if it does not."""
    place = _places(text).get(name)
    return place.number if place else 0


def parse_target(text: str, domain: Domain) -> Mailbox | Via:
    """An address to be a target, as it is written in the file. Raises ValueError."""
    target = _target(text.strip(), domain)
    assert isinstance(target, (Mailbox, Via))  # noqa: S101 (programs are not of one target's form)
    return target


def add(text: str, name: str, targets: Sequence[Target], domain: Domain) -> str:
    """The file's text with these targets at `name`, as far as they are not there yet.

    `text` must be valid. Raises EditError if the name runs a program.
    """
    place = _places(text).get(name)
    wanted = tuple(dict.fromkeys(targets))
    if place is None:
        end = "\r\n" if text.endswith("\r\n") else "\n"
        before = end if text and not text.endswith("\n") else ""
        return f"{text}{before}{name}: {', '.join(map(str, wanted))}{end}"
    have = parse(text, domain)[name]
    if any(isinstance(item, Pipe) for item in have):
        msg = f"line {place.number}: {name} runs a program, beside which no address can stand"
        raise EditError(msg)
    new = ", ".join(str(item) for item in wanted if item not in have)
    if not new:
        return text
    between = " " if text[: place.end].endswith(",") else ", "
    return f"{text[: place.end]}{between}{new}{text[place.end :]}"


def remove(text: str, name: str, targets: Sequence[Target], domain: Domain) -> str:
    """The file's text without these targets of `name`; without its line if none is left, or if
    `targets` is empty.

    `text` must be valid and have the name. Raises EditError if a target is not there.
    """
    place = _places(text)[name]
    have = parse(text, domain)[name]
    for target in targets:
        if target not in have:
            msg = f"line {place.number}: {name} does not lead to {target}"
            raise EditError(msg)
    if not targets or all(item in targets for item in have):
        rest = text.find("\n", place.end)
        return text[: place.start] + (text[rest + 1 :] if rest >= 0 else "")
    value = text[place.value : place.end]
    lead = value[: len(value) - len(value.lstrip())]
    kept = [
        item
        for item in value.split(",")
        if not item.strip() or _target(item.strip(), domain) not in targets
    ]
    return f"{text[: place.value]}{lead}{','.join(kept).strip()}{text[place.end :]}"
