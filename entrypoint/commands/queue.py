"""Mail that waits: seeing it, dropping it, and forgetting the TLS that a receiver once had."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from entrypoint.chasquid.backlog import PREFIX
from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.chasquid.queue import (
    Attempts,
    Destination,
    Listing,
    Recipient,
    Selection,
    Waiting,
    advice,
    estimate,
    is_id,
)
from entrypoint.checks.mail import age
from entrypoint.commands.context import Context, TakesIds
from entrypoint.common import rpc
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.names import Domain
from entrypoint.common.rpc import UnreachableError
from entrypoint.history import client

_LIMIT = 20  # messages
_HISTORIES = 500  # messages whose tries are looked up: what all others have is estimated
_WIDTH = 80
_ANSWER_LINES = 3
_DESTINATIONS = 20  # that are shown
_LOGGED = 5  # recipients of a message that was dropped
_LOOK_WAIT = 40.0  # seconds for the holder to answer
_CHANGE_WAIT = 120.0  # seconds for it to restart chasquid, perhaps for others before

_to_option = click.option(
    "--to", default="", metavar="DOMAIN|ADDRESS", help="Only what is for this one."
)
_from_option = click.option(
    "--from", "sender", default="", metavar="ADDRESS",
    help="Only what is from this one; '<>' are bounces.",
)  # fmt: skip


@click.command("list-queue")
@_to_option
@_from_option
@click.option(
    "--limit", type=click.IntRange(min=0), default=_LIMIT, show_default=True, metavar="N",
    help="So many messages at most, the oldest first. The totals are of all.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one object for programs.")
def list_queue(to: str, sender: str, limit: int, as_json: bool) -> int:
    """List the messages that wait to be delivered, with the receivers' last answers.

    Example: docker exec mail list-queue --to example.net
    """
    context = Context.enter()
    selection = Selection(to=_wanted(to), sender=_wanted(sender))
    found = _look(context, selection, limit)
    now = time.time()
    if as_json:
        click.echo(json.dumps(_listing_json(context, found, now), indent=2))
    else:
        click.echo("\n".join(_show(context, found, selection, now)))
    return Exit.OK


@click.command(
    "drop-queued", cls=TakesIds, context_settings=TakesIds.SETTINGS,
)  # fmt: skip
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_to_option
@_from_option
@click.option("--all", "every", is_flag=True, help="All that waits.")
@click.option("--yes", is_flag=True, help="Do it. Without this --to, --from and --all only show.")
@click.option("--json", "as_json", is_flag=True, help="Print one object for programs.")
def drop_queued(
    ids: Sequence[str], to: str, sender: str, every: bool, yes: bool, as_json: bool
) -> int:
    """Drop messages that wait: nobody gets them, and their senders are not told.

    chasquid is restarted for it, with no connection refused, and tries all that is left at once.
    With --to, a message that waits for others, too, is left alone: name its id.

    Example: docker exec mail drop-queued KcqGlVXoFcI
    """
    if sum((bool(ids), bool(to or sender), every)) != 1:
        msg = "say which: ids, or --to and --from, or --all"
        raise click.UsageError(msg)
    context = Context.enter()
    selection = Selection(tuple(dict.fromkeys(ids)), _wanted(to), _wanted(sender))
    found = _look(context, selection, None)
    _check_ids(selection, found)
    chosen = [item for item in found.items if ids or not item.others]
    spared = [item for item in found.items if item.others and not ids]
    files = {f"{PREFIX}{item.id}": _known(item) for item in chosen}
    files |= {f"{PREFIX}{name}": {} for name in found.damaged if ids or every}
    if not (ids or yes):
        if not as_json:
            click.echo("\n".join(_preview(chosen, spared, len(files))))
        else:
            click.echo(json.dumps(_dropped_json([], chosen, spared, ""), indent=2))
        return Exit.WRONG if files else Exit.OK
    gone, note = _remove(context, "queue", files)
    dropped = [item for item in chosen if f"{PREFIX}{item.id}" in gone]
    left = [item for item in chosen if f"{PREFIX}{item.id}" not in gone]
    if as_json:
        click.echo(json.dumps(_dropped_json(dropped, left, spared, note), indent=2))
    else:
        for name, known in files.items():
            said = f"dropped {_said(name, known)}"
            id_ = name.removeprefix(PREFIX)
            click.echo(said if name in gone else f"{id_} has gone by itself meanwhile")
        click.echo("\n".join((*_spared(spared), _number(len(gone), "dropped"))))
    if note:
        click.echo(f"note: {note}", err=True)
    return Exit.WRONG if note else Exit.OK


@click.command("forget-domain")
@click.argument("domain")
@click.option("--json", "as_json", is_flag=True, help="Print one object for programs.")
def forget_domain(domain: str, as_json: bool) -> int:
    """Forget the TLS that DOMAIN had, on which chasquid insists ever after.

    For mail that waits with "security level check failed": the receiver's TLS is worse than it was,
    as its certificate has expired, for instance. Ask its owner first: an attacker on the way looks
    the same. chasquid is restarted, and tries what waits at once.

    Example: docker exec mail forget-domain example.net
    """
    context = Context.enter()
    try:
        asked = Domain.parse(domain)
    except ValueError as error:
        raise UserError(str(error), exit_code=Exit.USAGE) from None
    files = _ask(context, "remembered", asked, _LOOK_WAIT)["files"]
    gone, note = _remove(context, "domaininfo", {item["file"]: {} for item in files})
    forgotten = [item for item in files if item["file"] in gone]
    if as_json:
        click.echo(json.dumps({"domain": asked, "forgotten": forgotten, "note": note}, indent=2))
    else:
        for item in forgotten:
            click.echo(f"Remembered of {asked}: {_remembered(item)}.")
        click.echo(
            "It is forgotten; what waits is being tried again." if forgotten
            else f"Nothing was remembered of {asked}."
        )  # fmt: skip
    if note:
        click.echo(f"note: {note}", err=True)
    return Exit.WRONG if note else Exit.OK


def _remembered(item: dict[str, Any]) -> str:
    if not item["outgoing"]:
        return "something unreadable"
    return f"mail to it went over {item['outgoing']}, mail from it came over {item['incoming']}"


# The holder


def _ask(context: Context, command: str, words: Any, timeout: float) -> dict[str, Any]:
    """Words are a string; anything else goes along as JSON. Raises UserError."""
    path = context.paths.holder_socket
    try:
        if isinstance(words, str):
            answer = rpc.request(path, f"{command} {words}", timeout)
        else:
            answer = rpc.ask(path, command, words, timeout)
    except UnreachableError as error:
        msg = f"the mail server does not answer: {error}"
        raise UserError(
            msg, "see docker logs mail, and list-queue afterwards", exit_code=Exit.TRY_AGAIN
        ) from None
    if "error" in answer and "removed" not in answer:
        msg = f"the mail server could not do it: {answer['error']}"
        raise UserError(msg, "see docker logs mail")
    return answer


def _look(context: Context, selection: Selection, limit: int | None) -> Listing:
    asked = {
        "ids": selection.ids, "to": selection.to, "sender": selection.sender, "limit": limit,
    }  # fmt: skip
    answer = _ask(context, "look", asked, _LOOK_WAIT)
    try:
        return Listing.from_json(answer)
    except (KeyError, TypeError, ValueError):
        msg = "the mail server's answer makes no sense"
        raise UserError(msg, "is the container as new as its image? docker compose up -d") from None


def _remove(
    context: Context, folder: str, files: Mapping[str, Mapping[str, Any]]
) -> tuple[set[str], str]:
    """The files that have gone, and what is not as it should be."""
    if not files:
        return set(), ""
    answer = _ask(context, "remove", {"folder": folder, "files": files}, _CHANGE_WAIT)
    note = ""
    if "error" in answer:
        note = f"the rest is still there: {answer['error']}"
    elif not answer.get("done"):
        note = f"chasquid has not come back yet; it said last: {answer.get('last_words')}"
    return set(answer["removed"]), note


# Words


def _wanted(text: str) -> str:
    """A domain or an address as the queue may have it."""
    return text.strip().removeprefix("@")


def _check_ids(selection: Selection, found: Listing) -> None:
    """Raises UserError for ids that are not there: all or nothing."""
    odd = [name for name in selection.ids if not is_id(name)]
    unknown = [*map(ascii, odd), *found.unknown]
    if unknown:
        few = ", ".join(unknown[:_LIMIT]) + (", …" if len(unknown) > _LIMIT else "")
        msg = f"no such message waits: {few}. Nothing was dropped."
        raise UserError(msg, "see which there are: docker exec mail list-queue")


def _histories(context: Context, items: Sequence[Waiting]) -> Mapping[str, Sequence[Event]]:
    """What the log said of these messages, as far as it is known."""
    try:
        return client.messages(context.paths, [item.id for item in items[:_HISTORIES]])
    except UnreachableError:
        return {}  # the files tell enough


def _attempts(item: Waiting, history: Sequence[Event], now: float) -> Attempts:
    """How often a message was tried and when it is next: what the log said of it, if all of that is
    known, else what its file tells."""
    rounds = [event for event in history if event.kind is Kind.WAITING]
    if not any(event.kind is Kind.RECEIVED for event in history):
        return estimate(item, now)
    following = rounds[-1].next if rounds else 0.0
    # After a restart it is tried at once, of which the log says nothing before it is over.
    return Attempts(len(rounds), following if following > now else None, exact=True)


def _known(item: Waiting) -> dict[str, Any]:
    """For the log: who waits, or the first of many."""
    return {
        "sender": item.sender,
        "recipients": [one.address for one in item.recipients[:_LOGGED]],
        "more": len(item.recipients[_LOGGED:]) + item.more,
    }


def _said(name: str, known: Mapping[str, Any]) -> str:
    """In the form in which the log has it."""
    event = Event(
        Kind.DROPPED, 0, name.removeprefix(PREFIX), known.get("sender", ""),
        tuple(known.get("recipients", ())),
    )  # fmt: skip
    more = f" and {known['more']} more" if known.get("more") else ""
    return f"{str(event).removeprefix(f'{Kind.DROPPED} ')}{more}"


def _number(many: int, done: str) -> str:
    return f"1 message {done}" if many == 1 else f"{many} messages {done}"


def _preview(chosen: Sequence[Waiting], spared: Sequence[Waiting], number: int) -> Iterator[str]:
    for item in chosen[:_LIMIT]:
        yield _said(item.id, _known(item))
    if len(chosen) > _LIMIT:
        yield f"and {len(chosen) - _LIMIT} more"
    yield from _spared(spared)
    if number:
        yield f"{_number(number, 'would be dropped')}. To do it, add --yes"
    else:
        yield "Nothing to drop."


def _spared(spared: Sequence[Waiting]) -> Iterator[str]:
    for item in spared[:_LIMIT]:
        yield f"{item.id} waits for others, too: left alone; to drop it for all, name its id"
    if len(spared) > _LIMIT:
        yield f"and {len(spared) - _LIMIT} more like that"


def _show(context: Context, found: Listing, selection: Selection, now: float) -> Iterator[str]:
    summary = found.summary
    histories = _histories(context, found.items)
    for item in found.items:
        yield from _message(item, _attempts(item, histories.get(item.id, ()), now), now)
    if found.items:
        yield ""
    is_part = bool(selection.to or selection.sender)
    if not found.meant:
        yield "No such message waits." if is_part and summary.depth else "No message waits."
    else:
        oldest = age(now - summary.oldest) if summary.oldest is not None else ""
        waits = "1 message waits" if found.meant == 1 else f"{found.meant} messages wait"
        shown = len(found.items)
        rest = f"; the {shown} oldest are shown (--limit)" if shown < found.meant else ""
        of_all = f" of {summary.depth} in the queue" if is_part else ""
        yield f"{waits}{of_all}, for up to {oldest}{rest}."
    if summary.looked_at < summary.depth:
        yield f"Only {summary.looked_at} of {summary.depth} files could be read in time."
    yield from _totals(summary.destinations, now)
    yield from _hints(found)


def _message(item: Waiting, tries: Attempts, now: float) -> Iterator[str]:
    about = "" if tries.exact else "about "
    if item.parked:
        fate = "parked until there is memory for it"
    elif not tries.tries:
        fate = "being tried for the first time"
    elif tries.next_try is None:
        fate = f"tried {about}{_times(tries.tries)}, and just now"
    else:
        fate = f"tried {about}{_times(tries.tries)}, next in {about}{age(tries.next_try - now)}"
    yield f"{item.id}  {age(now - item.created)} old, {fate}"
    yield from _wrapped(f"from  {item.sender}", 1)
    for one in item.recipients:
        yield from _recipient(one)
    if item.more:
        yield f"    and to {item.more} more"
    if item.others:
        yield "    and to others"


def _recipient(one: Recipient) -> Iterator[str]:
    same = one.original.lower() in ("", one.address.lower())
    way = "" if same else f", by way of {one.original}"
    yield from _wrapped(f"to    {one.address}{way}", 2)
    if one.answer:
        yield from _wrapped(f"      {one.answer}", _ANSWER_LINES)


def _wrapped(text: str, lines: int) -> list[str]:
    """Within the width, at so many lines at most; what follows the label stays below it."""
    label, rest = text[:6], text[6:]
    return textwrap.wrap(
        rest, _WIDTH, initial_indent=f"    {label}", subsequent_indent=" " * 10,
        max_lines=lines, placeholder=" …", break_on_hyphens=False,
    )  # fmt: skip


def _times(many: int) -> str:
    return {1: "once", 2: "twice"}.get(many, f"{many} times")


def _totals(destinations: Sequence[Destination], now: float) -> Iterator[str]:
    if not destinations:
        return
    yield ""
    yield "waiting  oldest  for"
    for item in destinations[:_DESTINATIONS]:
        answer = f": {item.answer}" if item.answer else ""
        line = f"{item.waiting:>7}  {age(now - item.oldest):<6}  {item.domain}{answer}"
        yield line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
    if len(destinations) > _DESTINATIONS:
        yield f"and {len(destinations) - _DESTINATIONS} destinations more (--json)"


def _hints(found: Listing) -> Iterator[str]:
    hints = dict.fromkeys(
        (
            *(item.advice for item in found.summary.destinations),
            *(
                advice(one.answer, one.destination)
                for item in found.items
                for one in item.recipients
            ),
        )
    )
    hints.pop("", None)
    if hints:
        yield ""
        yield from textwrap.wrap(
            "security level check failed: the receiver had better TLS before, and chasquid insists "
            "on it. If you know why it has not now, forget that it had:", _WIDTH,
        )  # fmt: skip
        yield from (f"  {hint}" for hint in hints)
    if found.damaged:
        yield ""
        yield f"{found.summary.damaged} files are no messages; chasquid leaves them alone:"
        yield from textwrap.wrap(
            f"docker exec mail drop-queued {' '.join(found.damaged)}", _WIDTH,
            initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False,
        )  # fmt: skip


def _stamp(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def _listing_json(context: Context, found: Listing, now: float) -> dict[str, Any]:
    rows = []
    histories = _histories(context, found.items)
    for item in found.items:
        tries = _attempts(item, histories.get(item.id, ()), now)
        rows.append(
            {
                **_item_json(item),
                "created": _stamp(item.created),
                "gives_up": _stamp(item.created + context.settings.give_up_after),
                "tries": tries.tries,
                "next_try": _stamp(tries.next_try),
                "exact": tries.exact,
            }
        )
    summary = found.summary
    return {
        "in_queue": summary.depth,
        "looked_at": summary.looked_at,
        "waiting": found.meant,
        "oldest": _stamp(summary.oldest),
        "messages": rows,
        "destinations": [
            {
                "domain": item.domain, "waiting": item.waiting, "oldest": _stamp(item.oldest),
                "answer": item.answer, "fix": item.advice,
            }
            for item in summary.destinations
        ],
        "damaged": {"number": summary.damaged, "ids": found.damaged},
    }  # fmt: skip


def _item_json(item: Waiting) -> dict[str, Any]:
    return {
        "id": item.id,
        "from": item.sender,
        "to": [
            {
                "address": one.address, "original": one.original, "answer": one.answer,
                "fix": advice(one.answer, one.destination),
            }
            for one in item.recipients
        ],
        "to_more": item.more,
        "parked": item.parked,
    }  # fmt: skip


def _dropped_json(
    dropped: Sequence[Waiting], left: Sequence[Waiting], spared: Sequence[Waiting], note: str
) -> dict[str, Any]:
    return {
        "dropped": [_item_json(item) for item in dropped],
        "not_dropped": [_item_json(item) for item in left],
        "waits_for_others": [_item_json(item) for item in spared],
        "note": note,
    }
