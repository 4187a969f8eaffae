"""What happened to mail, asked of the store through the holder's control socket.

The store is chasquid's user's; verbs run as another, so they ask, and `services/reader.py` looks.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Self
from urllib.parse import quote, unquote

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common import rpc
from entrypoint.common.paths import Paths

_TIMEOUT = 12.0  # seconds; longer than the holder waits for its reader
MOST = 10_000  # events of one answer


@dataclass(frozen=True)
class Query:
    """What is asked: `history`, `logins`, `totals` or `deliveries`.

    `since` is in seconds since 1970. `ids` of None are those of any message, and none.
    """

    what: str
    ids: tuple[str, ...] | None = None
    address: str | None = None
    since: float = 0.0
    kinds: tuple[Kind, ...] = ()
    limit: int = 1000

    @property
    def word(self) -> str:
        """JSON, percent-encoded: one word for the holder's control socket."""
        return quote(json.dumps(asdict(self)), safe="")

    @classmethod
    def parse(cls, word: str) -> Self:
        """Raises ValueError, KeyError or TypeError for what `word` did not make."""
        content = json.loads(unquote(word))
        kinds = tuple(Kind(item) for item in content.pop("kinds"))
        ids = content.pop("ids")
        return cls(kinds=kinds, ids=None if ids is None else tuple(map(str, ids)), **content)


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
    whatever case it is written; WAITING and DONE are found by the id alone. Raises
    control.UnreachableError.
    """
    ids = None if id is None else (id,)
    return _history(paths, Query("history", ids, address, since, tuple(kinds), limit))


def messages(paths: Paths, ids: Collection[str]) -> dict[str, list[Event]]:
    """All that is known of each of these messages, by id. Raises control.UnreachableError."""
    found: dict[str, list[Event]] = {name: [] for name in ids}
    for event in _history(paths, Query("history", tuple(ids), limit=MOST)):
        found[event.id].append(event)
    return found


def _history(paths: Paths, query: Query) -> list[Event]:
    query = replace(query, limit=max(1, min(query.limit, MOST)))
    return [Event.from_json(item) for item in _ask(paths, query)["events"]]


def last_logins(paths: Paths) -> dict[str, float]:
    """When each login was last used with success, by its name in lower case, in seconds since 1970.

    Kept for longer than the events. Raises control.UnreachableError.
    """
    return {str(name): float(at) for name, at in _ask(paths, Query("logins"))["logins"].items()}


def totals(paths: Paths, since: float) -> list[Total]:
    """By destination, the busiest first. Raises control.UnreachableError."""
    return totals_of(_ask(paths, Query("totals", since=since)))


def totals_of(answer: dict[str, Any]) -> list[Total]:
    """Raises KeyError or TypeError for what is no answer to that question."""
    return [Total(**item) for item in answer["totals"]]


def last_deliveries(paths: Paths, since: float) -> dict[str, float]:
    """When mail last went out to each domain. Raises control.UnreachableError."""
    found = _ask(paths, Query("deliveries", since=since))["deliveries"]
    return {str(name): float(at) for name, at in found.items()}


def _ask(paths: Paths, query: Query) -> dict[str, Any]:
    answer = rpc.request(paths.holder_socket, f"events {query.word}", _TIMEOUT)
    if "error" in answer:
        raise rpc.UnreachableError(str(answer["error"]))
    return answer
