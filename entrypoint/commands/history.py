"""What happened to a message, or to mail of an address."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from entrypoint.chasquid.maillog import Event, Kind, iso
from entrypoint.commands.context import Context, TakesIds
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.rpc import UnreachableError
from entrypoint.history import client

_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_TRIES = (Kind.SENT, Kind.DEFERRED, Kind.BOUNCED)
_DAY = 86400.0
_WIDTH = 80


@dataclass(frozen=True)
class Message:
    """All that is known of one. `events` in their order; the log may tell of a try first."""

    id: str
    events: tuple[Event, ...]

    @property
    def received(self) -> Event | None:
        return next((event for event in self.events if event.kind is Kind.RECEIVED), None)

    @property
    def sender(self) -> str:
        return self.events[0].sender

    @property
    def tries(self) -> dict[str, list[Event]]:
        """By recipient, as it was after the aliases."""
        found: dict[str, list[Event]] = {}
        for event in self.events:
            if event.kind in _TRIES and event.recipients:
                found.setdefault(event.recipients[0], []).append(event)
        return found

    @property
    def last(self) -> Event:
        return self.events[-1]

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "events": [_readable(event) for event in self.events]}


@click.command("show-message", cls=TakesIds, context_settings=TakesIds.SETTINGS)
@click.argument("what", metavar="ID|ADDRESS")
@click.option(
    "--days", type=click.FloatRange(min=0), metavar="DAYS",
    help="Only of the last DAYS days. Default: all that is kept.",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(1, 500), default=20, show_default=True, metavar="N",
    help="Of an address, the last N messages and the last N other events.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
def show_message(what: str, days: float | None, limit: int, as_json: bool) -> int:
    """Show what happened to a message, with the words of the servers that it was brought to.

    ID is the one in the log (id=…) or in list-queue. ADDRESS is anybody's: a sender, a recipient,
    a login. Messages and log-ins are kept for EVENTS_KEEP_DAYS.

    Example: docker exec mail show-message bob@example.net
    """
    context = Context.enter()
    since = 0.0 if days is None else time.time() - days * _DAY
    try:
        messages, others = _find(context, what.strip(), since, limit)
    except UnreachableError as error:
        raise UserError(
            f"the history cannot be read: {error}",
            "see: docker exec mail status",
            exit_code=Exit.TRY_AGAIN,
        ) from None
    if as_json:
        found = {
            "messages": [message.to_json() for message in messages],
            "others": [_readable(event) for event in others],
        }
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif not messages and not others:
        kept = context.settings.events_keep_days
        click.echo(f"Nothing is known of {what!a}. Events are kept for {kept} days.")
    else:
        width = min(max(shutil.get_terminal_size((_WIDTH, 24)).columns, 60), 120)
        for message in messages:
            click.echo("\n".join(_lines(message, width)) + "\n")
        if others:
            click.echo("Without a message")
            for event in others:
                click.echo("\n".join(_other(event, width)))
    return Exit.OK if messages or others else Exit.WRONG


def _find(
    context: Context, what: str, since: float, limit: int
) -> tuple[list[Message], list[Event]]:
    """Raises UnreachableError."""
    paths = context.paths
    if "@" not in what:
        if not _ID.fullmatch(what):
            msg = f"{what!a} is neither an id of a message (11 characters) nor an address"
            raise UserError(msg, exit_code=Exit.USAGE)
        found = client.history(paths, id=what, since=since, limit=client.MOST)
        return ([Message(what, tuple(found))] if found else []), []
    found = client.history(paths, address=what, since=since, limit=client.MOST)
    ids = list(dict.fromkeys(event.id for event in reversed(found) if event.id))[:limit]
    whole = client.messages(paths, ids) if ids else {}
    messages = [Message(name, tuple(whole[name])) for name in reversed(ids) if whole[name]]
    return messages, [event for event in found if not event.id][-limit:]


def _readable(event: Event) -> dict[str, Any]:
    """With times as people and programs read them."""
    found = event.to_json()
    found["at"] = iso(event.at)
    if event.next:
        found["next"] = iso(event.next)
    return found


def _when(at: float) -> str:
    return iso(at).replace("T", " ").removesuffix("Z")


def _lines(message: Message, width: int) -> Iterator[str]:
    """One message; times are UTC."""
    received = message.received
    yield f"{message.id}  from {message.sender}"
    if received:
        by = f"logged in as {received.login}, " if received.login else ""
        yield f"  {_when(received.at)}  received, {by}from {received.peer}"
        yield from _wrapped(f"for {', '.join(received.recipients)}", " " * 23, width)
    elif message.sender == "<>":
        yield "  made here: it tells a sender that mail could not be delivered"
    for recipient, tries in message.tries.items():
        yield f"  to {recipient}{_origin(recipient, received)}"
        for event in tries:
            yield from _wrapped(
                f"{event.kind.value:<9} {event.text}", f"  {_when(event.at)}  ", width
            )
    yield f"  {_end(message)}"


def _origin(recipient: str, received: Event | None) -> str:
    """Where an alias led from, as far as that can be told."""
    given = received.recipients if received else ()
    if not given or recipient.lower() in {name.lower() for name in given}:
        return ""
    return f", an alias of {given[0]}" if len(given) == 1 else ", by an alias"


def _end(message: Message) -> str:
    last = message.last
    if last.kind is Kind.DROPPED:
        to = ", ".join(last.recipients)
        return f"{_when(last.at)}  dropped by drop-queued{f', for {to}' if to else ''}"
    if last.kind is Kind.DONE:
        failed = sum(tries[-1].kind is Kind.BOUNCED for tries in message.tries.values())
        told = " The sender was told." if failed and message.sender != "<>" else ""
        return f"{_when(last.at)}  done.{told}"
    if last.kind is Kind.WAITING:
        return f"waits; the next try is at {_when(last.next)} (docker exec mail list-queue)"
    return "under way"


def _other(event: Event, width: int) -> Iterator[str]:
    if event.kind is Kind.AUTH:
        how = "logged in" if event.ok else "failed to log in"
        text = f"{event.login} {how}, from {event.peer}"
    else:
        to = f" to {', '.join(event.recipients)}" if event.recipients else ""
        text = f"refused: from {event.sender or '?'}{to}, by {event.peer}: {event.text}"
    yield from _wrapped(text, f"  {_when(event.at)}  ", width)


def _wrapped(text: str, first: str, width: int) -> Sequence[str]:
    return textwrap.wrap(
        text.strip(), width, initial_indent=first, subsequent_indent=" " * len(first),
        break_on_hyphens=False,
    )  # fmt: skip
