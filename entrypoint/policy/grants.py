"""data/domains/DOMAIN/senders: what logins may do beyond sending as themselves. Text to text.

    # login      what else it may send as         how much
    i            may-send=*@example.com           limit=1000/h,10000/d

One login a line, without its domain; each part may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from entrypoint.common.errors import shown
from entrypoint.common.limit import Limit
from entrypoint.common.names import Address, Domain

_LOGIN = re.compile(r"[a-z0-9_+-]+(\.[a-z0-9_+-]+)*")


@dataclass(frozen=True)
class Grant:
    """An address that a login may send as; `local` is None for any of the domain."""

    local: str | None
    domain: Domain

    @classmethod
    def parse(cls, text: str) -> Grant:
        """`x@example.com` or `*@example.com`. Raises ValueError."""
        local, at, domain = text.strip().rpartition("@")
        if at and local == "*":
            return cls(None, Domain.parse(domain))
        if "*" in local:
            msg = f"{shown(text)}: before the @ stands a whole name, or * alone for any"
            raise ValueError(msg)
        address = Address.parse(text)
        return cls(address.local, address.domain)

    def __str__(self) -> str:
        return f"{self.local or '*'}@{self.domain}"


@dataclass(frozen=True)
class Sender:
    """`limit` is None where SEND_LIMIT holds."""

    grants: tuple[Grant, ...] = ()
    limit: Limit | None = None


@dataclass(frozen=True)
class SenderError(ValueError):
    """A line that cannot be read. `line` counts from 1."""

    line: int
    reason: str = field(default="")

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


Senders = Mapping[str, Sender]


def parse(text: str) -> dict[str, Sender]:
    """By the login's local part. Raises SenderError (a ValueError) at the first line that is
    wrong."""
    found: dict[str, Sender] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            name, sender = _line(line)
            if name in found:
                msg = f"{shown(name)} stands twice"
                raise ValueError(msg)
        except ValueError as error:
            raise SenderError(number, str(error)) from None
        found[name] = sender
    return found


def _line(line: str) -> tuple[str, Sender]:
    name, *words = line.split()
    name = name.lower()
    if "@" in name:
        msg = f"{shown(name)}: a login stands here without its @domain"
        raise ValueError(msg)
    if not _LOGIN.fullmatch(name):
        msg = f"{shown(name)} is not a login's name"
        raise ValueError(msg)
    grants: tuple[Grant, ...] = ()
    limit = None
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key == "may-send":
            grants += tuple(Grant.parse(item) for item in value.split(",") if item)
        elif equals and key == "limit" and limit is None:
            limit = Limit.parse(value)
        else:
            msg = f"{shown(word)} is neither may-send=… nor limit=…"
            raise ValueError(msg)
    return name, Sender(tuple(dict.fromkeys(grants)), limit)


def render(senders: Senders) -> str:
    """The file's text, sorted by name; `parse(render(s)) == s`."""
    lines = []
    for name in sorted(senders):
        sender = senders[name]
        words = [name]
        if sender.grants:
            words.append(f"may-send={','.join(map(str, sender.grants))}")
        if sender.limit is not None:
            words.append(f"limit={sender.limit}")
        if len(words) > 1:
            lines.append(" ".join(words) + "\n")
    return "".join(lines)
