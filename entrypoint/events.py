"""What happened to mail, asked of the store through the socket holder's door.

The store is chasquid's user's; verbs run as another, so they ask, and `services/reader.py` looks.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Self
from urllib.parse import quote, unquote

from entrypoint import control
from entrypoint.maillog import Event, Kind
from entrypoint.paths import Paths

_TIMEOUT = 12.0  # seconds; longer than the holder waits for its reader
MOST = 10_000  # events of one answer


@dataclass(frozen=True)
class Query:
    """What is asked: `history`, `logins` or `totals`. `since` is in seconds since 1970."""

    what: str
    id: str | None = None
    address: str | None = None
    since: float = 0.0
    kinds: tuple[Kind, ...] = ()
    limit: int = 1000

    @property
    def word(self) -> str:
        """JSON, percent-encoded: one word for the holder's door."""
        return quote(json.dumps(asdict(self)), safe="")

    @classmethod
    def parse(cls, word: str) -> Self:
        """Raises ValueError, KeyError or TypeError for what `word` did not make."""
        content = json.loads(unquote(word))
        kinds = tuple(Kind(item) for item in content.pop("kinds"))
        return cls(kinds=kinds, **content)


@dataclass(frozen=True)
class Total:
    """What became of mail to one domain, counted by recipients. A message that is deferred three
    times counts three times there."""

    destination: str
    sent: int
    deferred: int
    bounced: int


def history(
    paths: Paths,
    *,
    id: str | None = None,
    address: str | None = None,
    since: float = 0.0,
    kinds: Collection[Kind] = (),
    limit: int = 1000,
) -> list[Event]:
    """Events, the oldest first; if there are more than `limit` (at most 10,000), the newest ones.

    Of one message (`id`), or in which an address takes part as sender, recipient or login, in
    whatever case it is written. Raises control.UnreachableError.
    """
    query = Query("history", id, address, since, tuple(kinds), max(1, min(limit, MOST)))
    return [Event.from_json(item) for item in _ask(paths, query)["events"]]


def last_logins(paths: Paths) -> dict[str, float]:
    """When each login was last used with success, by its name in lower case, in seconds since 1970.

    Kept for longer than the events. Raises control.UnreachableError.
    """
    return {str(name): float(at) for name, at in _ask(paths, Query("logins"))["logins"].items()}


def totals(paths: Paths, since: float) -> list[Total]:
    """By destination, the busiest first. Raises control.UnreachableError."""
    return [Total(**item) for item in _ask(paths, Query("totals", since=since))["totals"]]


def _ask(paths: Paths, query: Query) -> dict[str, Any]:
    answer = control.request(paths.holder_socket, f"events {query.word}", _TIMEOUT)
    if "error" in answer:
        raise control.UnreachableError(str(answer["error"]))
    return answer
