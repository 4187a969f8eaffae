"""Aliases: where mail goes that is not simply kept for a user."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import click

from entrypoint.chasquid import aliases, userdb
from entrypoint.chasquid.aliases import CATCH_ALL, AliasError, EditError, Mailbox, Target, Via
from entrypoint.commands.context import Context
from entrypoint.common.errors import Exit, UserError, shown
from entrypoint.common.names import Address, Domain
from entrypoint.converge import routing
from entrypoint.converge.routing import REPORTS, Book, Way
from entrypoint.dns import authoritative
from entrypoint.dns.authoritative import Absent
from entrypoint.settings.model import Settings
from entrypoint.state import edited
from entrypoint.state.load import State

_WIDTH = 80


class _NameType(click.ParamType[Mailbox]):
    """A name that may have an alias, with its domain; `*` is whatever has no other."""

    name = "NAME@DOMAIN"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Mailbox:
        local, at, domain = str(value).strip().rpartition("@")
        try:
            if at and local == CATCH_ALL:
                return Mailbox(CATCH_ALL, Domain.parse(domain))
            address = Address.parse(value)
            return Mailbox(address.local, address.domain)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_name = click.argument("name", type=_NameType(), metavar="NAME@DOMAIN")
_json = click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")


@click.command("add-alias")
@_name
@click.argument("targets", nargs=-1, required=True, metavar="TARGET…")
@_json
def add_alias(name: Mailbox, targets: tuple[str, ...], as_json: bool) -> None:
    """Have mail to NAME@DOMAIN go to each TARGET, an address.

    A TARGET is added to those that are there. '*@example.com' is every name that has neither an
    alias nor a user.

    Example: docker exec mail add-alias '*@example.com' me@example.net
    """
    context = Context.enter()
    _check_domain(context, name)
    wanted = _targets(targets, name.domain)
    # Before the lock: a name server may take its time.
    warnings = list(_unheard_of(context, wanted))

    def edit(text: str) -> str:
        return aliases.add(text, name.local, wanted, name.domain)

    with context.change() as state:
        before = state.domain(name.domain).aliases.get(name.local, ())
        resolvers = _edit(context, state, name, edit)
    new = [target for target in wanted if target not in before]
    there = [target for target in wanted if target in before]
    if as_json:
        click.echo(json.dumps({
            "address": str(name), "added": list(map(str, new)), "there": list(map(str, there)),
            "ends": _ends_json(resolvers[1], name), "warnings": warnings,
        }, indent=2, ensure_ascii=False))  # fmt: skip
        return
    if new:
        click.echo(f"Added: {name} → {', '.join(map(str, new))}")
    if there:
        click.echo(f"There already: {name} → {', '.join(map(str, there))}")
    if new:
        _say_ends(*resolvers, name)
    for text in warnings:
        click.echo(f"warning: {text}", err=True)


@click.command("remove-alias")
@_name
@click.argument("targets", nargs=-1, metavar="[TARGET…]")
@_json
def remove_alias(name: Mailbox, targets: tuple[str, ...], as_json: bool) -> None:
    """Remove the alias of NAME@DOMAIN, or only these TARGETs of it.

    Example: docker exec mail remove-alias team@example.com bob@example.net
    """
    context = Context.enter()
    _check_domain(context, name)
    unwanted = _targets(targets, name.domain)

    def edit(text: str) -> str:
        return aliases.remove(text, name.local, unwanted, name.domain)

    with context.change() as state:
        have = state.domain(name.domain)
        if "aliases" not in have.broken and name.local not in have.aliases:
            raise _no_line(context.settings, state, name)
        before = have.aliases.get(name.local, ())
        resolvers = _edit(context, state, name, edit)
    gone = unwanted or before
    whole = all(target in gone for target in before)
    if as_json:
        click.echo(json.dumps({
            "address": str(name), "removed": list(map(str, gone)), "whole": whole,
            "ends": _ends_json(resolvers[1], name),
        }, indent=2, ensure_ascii=False))  # fmt: skip
        return
    click.echo(f"Removed: {name} → {', '.join(map(str, gone))}")
    _say_ends(*resolvers, name)


@click.command("list-aliases")
@_json
def list_aliases(as_json: bool) -> int:
    """List every address that exists, and where mail to it ends. Exit status 1 if something is
    wrong: a broken file, an alias loop, a target that does not exist.

    Example: docker exec mail list-aliases
    """
    context = Context.enter()
    state = context.state()
    resolver = routing.load(context.settings, state)
    found = list(_listed(context.settings, state, resolver))
    broken = [str(item) for item in state.findings if item.id == "broken-aliases"]
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(found)))
    for text in broken:
        click.echo(f"warning: {text}", err=True)
    wrong = {Way.LOOP.value, Way.NOBODY.value}
    ends = [end["kind"] for item in found for end in item["ends"]]
    return Exit.WRONG if broken or wrong.intersection(ends) else Exit.OK


def _check_domain(context: Context, name: Mailbox) -> None:
    domains = context.settings.domains
    if name.domain not in domains:
        msg = f"{name.domain} is not one of the domains served here ({', '.join(domains)})"
        raise UserError(
            msg,
            "check the spelling, or add it to MAIL_DOMAINS in .env and run: docker compose up -d",
        )


def _targets(texts: Sequence[str], domain: Domain) -> tuple[Mailbox | Via, ...]:
    """The targets; one argument may hold several, as a line of the file does."""
    found = []
    for text in texts:
        if text.lstrip().startswith("|"):
            msg = f"TARGET: {shown(text)} is a program, and a verb only takes addresses"
            raise UserError(
                msg,
                "write the line into the aliases file by hand, if it must be: any failure of the "
                "program returns the message to its sender",
                exit_code=Exit.USAGE,
            )
        for item in filter(str.strip, text.split(",")):
            try:
                found.append(aliases.parse_target(item, domain))
            except ValueError as error:
                msg = f"TARGET: {error}"
                raise UserError(msg, exit_code=Exit.USAGE) from None
    if texts and not found:
        msg = "TARGET: an address is missing"
        raise UserError(msg, exit_code=Exit.USAGE)
    return tuple(dict.fromkeys(found))


def _unheard_of(context: Context, targets: Iterable[Target]) -> Iterator[str]:
    """Warnings for targets whose domain DNS says does not exist; silence if DNS cannot say."""
    asked = {}
    for target in targets:
        if not isinstance(target, Mailbox) or target.domain in _ours(context.settings):
            continue
        if target.domain not in asked:
            asked[target.domain] = authoritative.exchangers(target.domain)
        if isinstance(asked[target.domain], Absent):
            yield (
                f"DNS says that {target.domain} does not exist, or takes no mail: what goes to "
                f"{target} will be returned"
            )


def _ours(settings: Settings) -> tuple[Domain, ...]:
    return (*settings.domains, Domain(settings.mail_hostname))


def _edit(
    context: Context, state: State, name: Mailbox, edit: Callable[[str], str]
) -> tuple[Book, Book]:
    """Write the file with one line changed, if what comes of it is right; returns what names
    resolved to before and after. Caller holds the edit lock."""
    domain = name.domain
    path = context.paths.domain(domain) / "aliases"
    have = state.domain(domain)
    if "aliases" in have.broken:
        # A person must mend it: an edit would be of text that nobody understands.
        raise UserError(" ".join(str(x) for x in state.findings if x.subject == str(path)))
    if path.is_symlink():
        msg = f"data/domains/{domain}/aliases is a link to another file, which a verb leaves alone"
        raise UserError(msg, "edit that file by hand, or put a copy of it in the link's place")
    try:
        text = edit(have.aliases_text)
        rules = aliases.parse(text, domain)
    except EditError as error:
        msg = f"data/domains/{domain}/aliases: {error}"
        raise UserError(msg, "see what is there: docker exec mail list-aliases") from None
    except AliasError as error:
        msg = f"with that, data/domains/{domain}/aliases would be wrong: {error}"
        raise UserError(msg, "give the name fewer targets") from None
    wanted = replace(state, domains={**state.domains, domain: replace(have, aliases=rules)})
    old, new = routing.load(context.settings, state), routing.load(context.settings, wanted)
    _check(old, new, name)
    if text != have.aliases_text:
        edited.replace(context.paths, context.ids, path, text.encode())
    return old, new


def _check(old: Book, new: Book, name: Mailbox) -> None:
    """Refuse what would lead mail astray. What was wrong already, elsewhere, is not in the way."""
    mine = routing.probe(name.local, name.domain)
    asked = {mine: str(name)}
    for text, served in new.domains.items():
        domain = Domain(text)
        for rule in served.rules:
            asked.setdefault(routing.probe(rule, domain), f"{rule}@{domain}")
    for address, spelling in asked.items():
        way = new.loop(address)
        if way:
            if address == mine or not old.loop(address):
                chain = _starred(" → ".join(way))
                if way[-1] in way[:-1]:
                    msg = f"mail to {spelling} would go round in a loop: {chain}"
                else:
                    msg = f"mail to {spelling} would take more than {routing.LIMIT} steps: {chain}"
                raise UserError(msg, "choose a target that does not lead back; nothing was changed")
            continue
        known = () if old.loop(address) else {path[-1] for path in old.nowhere(address)}
        for path in new.nowhere(address):
            if address == mine or path[-1] not in known:
                if len(path) == 1:
                    continue  # the alias is gone, and with it the address: chasquid refuses it
                msg = _starred(f"{path[-1]} does not exist here: {' → '.join(path)}")
                raise UserError(
                    msg,
                    "check the spelling, or give it a user or an alias first; nothing was changed",
                )


def _no_line(settings: Settings, state: State, name: Mailbox) -> UserError:
    path = f"data/domains/{name.domain}/aliases"
    msg = f"{name} has no line in {path}"
    served = routing.load(settings, state).domains[name.domain]
    if name.local in served.rules or name.local in served.users:
        return UserError(
            f"{msg}; it is there {_SOURCES[_source(settings, state, name)]}",
            f"to have its mail go elsewhere: docker exec mail add-alias '{name}' you@example.net",
        )
    return UserError(msg, "see what is there: docker exec mail list-aliases")


def _source(settings: Settings, state: State, name: Mailbox) -> str:
    """Who says where mail to this address goes: `file`, a setting, `user` or `tambo`."""
    have = state.domain(name.domain)
    if name.local in have.aliases:
        return "file"
    if name.domain not in settings.receiving:
        return "MAIL_RECEIVE"
    if settings.forward_to and name.local not in REPORTS:
        return "FORWARD_TO"
    return "user" if name.local in userdb.owners(have.users) else "tambo"


def _listed(settings: Settings, state: State, resolver: Book) -> Iterator[dict[str, Any]]:
    for domain in settings.domains:
        served = resolver.domains[domain]
        have = state.domain(domain)
        users = {userdb.owner(name) for name in served.users}
        names = sorted({*served.rules, *users}, key=lambda name: (name != CATCH_ALL, name))
        for local in names:
            name = Mailbox(local, domain)
            source = _source(settings, state, name)
            item: dict[str, Any] = {"address": str(name), "source": source}
            if source == "file":
                item["line"] = aliases.line_of(have.aliases_text, local) or None
                item["targets"] = list(map(str, have.aliases[local]))
            item["ends"] = _ends_json(resolver, name)
            yield item


def _ends_json(resolver: Book, name: Mailbox) -> list[dict[str, str]]:
    return [
        {"kind": end.way.value, "where": _starred(end.where)}
        for end in resolver.ends(routing.probe(name.local, name.domain))
    ]


def _starred(text: str) -> str:
    """With the catch-all's own name for the one that was asked about."""
    return text.replace(f"{routing.ANYBODY}@", f"{CATCH_ALL}@")


_WORDS = {
    Way.FORWARDED.value: "forwarded to",
    Way.KEPT.value: "kept in data/mail for",
    Way.NOBODY.value: "kept unread, as nobody is",
    Way.PROGRAM.value: "given to the program",
    Way.LOOP.value: "refused for now (451), as it goes round in a loop:",
    Way.REFUSED.value: "refused, as there is no",
}
_SOURCES = {
    "file": "by your line",
    "user": "as a user",
    "tambo": "by tambo itself",
    "FORWARD_TO": "by FORWARD_TO",
    "MAIL_RECEIVE": "as its mailbox is elsewhere",
}


def _lines(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Blocks of an address and its ends, no line over 80 columns but for one long word."""
    for item in found:
        source = _SOURCES[item["source"]]
        number = f" {item['line']}" if item.get("line") else ""
        yield f"{item['address']}  ({source}{number})"
        yield from _end_lines(item["ends"])


def _end_lines(ends: Iterable[dict[str, str]]) -> Iterator[str]:
    for end in ends:
        yield from textwrap.wrap(
            f"{_WORDS[end['kind']]} {end['where']}", _WIDTH, initial_indent="    ",
            subsequent_indent="        ", break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip


def _say_ends(old: Book, new: Book, name: Mailbox) -> None:
    before, after = _ends_json(old, name), _ends_json(new, name)
    click.echo(f"Mail to {name} is now")
    click.echo("\n".join(_end_lines(after)))
    gone = [end for end in before if end not in after and end["kind"] != Way.REFUSED.value]
    if gone:
        click.echo("and no longer")
        click.echo("\n".join(_end_lines(gone)))
