"""What chasquid remembers of the TLS of other domains (internal/domaininfo): one file a domain.

A domain that once had TLS must go on having it: chasquid neither sends to it nor takes from it over
less than the best it has seen, and defers what it would send: "security level check failed". Read
only; chasquid holds all of it in memory, too, and only its user may look.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_plus

from entrypoint.chasquid import textproto
from entrypoint.chasquid.maillog import clean
from entrypoint.chasquid.queue import domain_key

PREFIX = "s:"
_MAX_SIZE = 64 << 10  # bytes
# SecLevel
LEVELS = ("no TLS", "TLS", "TLS with any certificate", "TLS with a valid certificate")


@dataclass(frozen=True)
class Remembered:
    """`file` is its name; `incoming` and `outgoing` are of LEVELS, or empty if it is damaged."""

    file: str
    domain: str
    incoming: str
    outgoing: str


def find(folder: Path, domain: str) -> tuple[Remembered, ...]:
    """What is remembered of a domain, in whatever form it is written. Raises OSError."""
    wanted = domain_key(domain)
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return ()
    found = []
    for name in names:
        known = unquote_plus(name.removeprefix(PREFIX))
        if name.startswith(PREFIX) and domain_key(known) == wanted:
            found.append(_read(folder / name, clean(known)))
    return tuple(found)


def _read(path: Path, domain: str) -> Remembered:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as stream:  # noqa: PTH123 (a descriptor)
            text = stream.read(_MAX_SIZE).decode(errors="replace")
        message = textproto.parse(text, textproto.DomainInfo)
        levels = dict(enumerate(LEVELS))
        incoming, outgoing = message.incoming_sec_level, message.outgoing_sec_level
        return Remembered(path.name, domain, levels[incoming], levels[outgoing])
    except (OSError, ValueError, KeyError):
        return Remembered(path.name, domain, "", "")
