"""What a login may do: as whom it sends, how much, and whether at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, BinaryIO

import click

from entrypoint.accounts import permissions
from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import Denied
from entrypoint.commands.context import Context
from entrypoint.commands.options import GrantType
from entrypoint.common import rpc
from entrypoint.common.errors import Exit, UserError, shown
from entrypoint.common.limit import Limit
from entrypoint.common.names import Address
from entrypoint.converge import plan
from entrypoint.policy import decide, header
from entrypoint.policy.decide import Code, Envelope
from entrypoint.policy.grants import Grant, Sender
from entrypoint.services.vouching import Vouching
from entrypoint.state.load import State

_NOT_ASKED = "The policy service does not answer, so limits and pauses are not known here."


class _LoginType(click.ParamType[Address]):
    """A login as it is written; also one with a suffix, if there is such a one."""

    name = "LOGIN"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        try:
            return Address.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _LimitType(click.ParamType[Limit | None]):
    name = "LIMIT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Limit | None:
        try:
            return None if str(value).lower() == "default" else Limit.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_login = click.argument("login", type=_LoginType())


@click.command("allow-sender")
@_login
@click.argument("addresses", type=GrantType(), nargs=-1, required=True, metavar="ADDRESS…")
@click.option("--remove", is_flag=True, help="Take the permission away instead.")
def allow_sender(login: Address, addresses: tuple[Grant, ...], remove: bool) -> None:
    """Let LOGIN send as other addresses too; '*@example.org' is any of a domain.

    Its own address, with any +suffix, and the aliases that lead to it need no permission.

    Example: docker exec mail allow-sender i@example.com '*@example.org'
    """
    context = Context.enter()
    if not remove:
        permissions.check_served(context.settings, addresses)

    def change(before: Sender) -> Sender:
        if not remove:
            return Sender(tuple(dict.fromkeys((*before.grants, *addresses))), before.limit)
        for item in addresses:
            if item not in before.grants:
                msg = f"{login} has no permission to send as {item}"
                raise UserError(msg, "see what it has: docker exec mail list-senders")
        return Sender(tuple(i for i in before.grants if i not in addresses), before.limit)

    after = _change(context, login, change)
    granted = ", ".join(map(str, after.grants))
    click.echo(
        f"{login} may send as itself and its aliases{f', and as {granted}' * bool(granted)}."
    )


@click.command("set-limit")
@_login
@click.argument("limit", type=_LimitType())
def set_limit(login: Address, limit: Limit | None) -> None:
    """Set how many recipients LOGIN may send to: 100/h,1000/d, or none, or default (SEND_LIMIT).

    Example: docker exec mail set-limit i@example.com 2000/h,10000/d
    """
    context = Context.enter()
    _change(context, login, lambda before: Sender(before.grants, limit))
    if limit is None:
        click.echo(f"The limit of {login} is SEND_LIMIT: {context.settings.send_limit}.")
    else:
        click.echo(f"The limit of {login} is {limit}.")


@click.command("list-senders")
@click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
def list_senders(as_json: bool) -> int:
    """List the logins: as whom each may send, how much it sent, whether it is paused.

    Exit status 1 if one is paused because of what it sent.

    Example: docker exec mail list-senders
    """
    context = Context.enter()
    rules = plan.rules(context.settings, context.state())
    try:
        status = rpc.request(context.paths.policy_door, "status", timeout=5.0)
    except rpc.UnreachableError:
        status = {}
        click.echo(f"note: {_NOT_ASKED}", err=True)
    found = {}
    for login in sorted(rules.logins):
        own = rules.logins[login]
        allowed = [*sorted(own.addresses), *(f"*@{name}" for name in sorted(own.domains))]
        used = status.get("logins", {}).get(login, {})
        found[login] = {"may_send": allowed, **used, "limit": str(rules.limit_of(login))}
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not found:
        domain = context.settings.domains[0]
        click.echo(f"No users yet. Add one: docker exec mail add-user i@{domain}", err=True)
    for login, item in found.items() if not as_json else ():
        click.echo("\n".join(_described(login, item)))
    paused = [item.get("paused") or {} for item in found.values()]
    return Exit.WRONG if any(item.get("by") == "tambo" for item in paused) else Exit.OK


def _described(login: str, item: Any) -> list[str]:
    others = [address for address in item["may_send"] if address != login]
    lines = [login]
    if others:
        lines.append(f"    may send as  {', '.join(others)}")
    sent = item.get("recipients")
    if sent:
        messages = item["messages"]
        lines.append(
            f"    sent         {sent['hour']} recipients ({messages['hour']} messages) in the last "
            f"hour, {sent['day']} ({messages['day']}) in the last day"
        )
    lines.append(f"    limit        {item['limit']}")
    if pause := item.get("paused"):
        lines.append(f"    PAUSED       {pause['why']}")
    lines += [f"    note         {text}" for text in item.get("notes", ())]
    return lines


@click.command("pause-user")
@_login
@click.option("--why", default="by hand", show_default=True, help="What the login is told.")
def pause_user(login: Address, why: str) -> None:
    """Keep LOGIN from sending until resume-user, with all its credentials; one that has a suffix,
    i+phone@example.com, alone. Its mail programs keep the mail (451).

    Example: docker exec mail pause-user i@example.com --why 'its laptop was stolen'
    """
    context = Context.enter()
    _existing(context.state(), login, owner=True)
    text = " ".join(why.split())
    if not text.isascii() or not text.isprintable() or not 1 <= len(text) <= 200:
        msg = "--why: 1 to 200 printable ASCII characters"
        raise click.UsageError(msg)
    _ask(context, f"pause {login} {text}")
    click.echo(f"Paused {login}. To let it send again: docker exec mail resume-user {login}")


@click.command("resume-user")
@_login
def resume_user(login: Address) -> None:
    """Let a paused LOGIN send again, with all its credentials; one that has a suffix alone. What
    was held against them is forgotten.

    Example: docker exec mail resume-user i@example.com
    """
    context = Context.enter()
    answer = _ask(context, f"resume {login}")
    if answer.get("still"):
        user = decide.base(login)
        click.echo(
            f"{login} is paused still, with {user}. To let it send again: docker exec mail "
            f"resume-user {user}"
        )
        return
    click.echo(f"{login} may send again." if answer["was_paused"] else f"{login} was not paused.")


@click.command("explain-policy")
@click.argument("message", type=click.File("rb", lazy=True), metavar="MESSAGE")
@click.option("--login", type=_LoginType(), help="Who has logged in. Without it: incoming mail.")
@click.option("--from", "sender", default="<>", help="MAIL FROM; default: the empty one.")
@click.option("--to", "recipients", multiple=True, required=True, help="RCPT TO; may be repeated.")
@click.option("--spf-pass", is_flag=True, help="Incoming: SPF passes for MAIL FROM.")
@click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
def explain_policy(
    message: BinaryIO,
    login: Address | None,
    sender: str,
    recipients: tuple[str, ...],
    spf_pass: bool,
    as_json: bool,
) -> int:
    """Say what would be answered to MESSAGE (a file, or - for standard input), and why.

    Nothing is sent or counted. Exit status 1 if it would be refused for good, 75 for now.

    Example: docker exec -i mail explain-policy - --login i@example.com --from i@example.com
    --to you@example.net < message.eml
    """
    context = Context.enter()
    rules = plan.rules(context.settings, context.state())
    section, has_nul, wrong = _section(message.read())
    envelope = Envelope(login or "", sender, recipients, spf=spf_pass)
    answer = decide.decide(rules, envelope, section)
    if unproven := asyncio.run(Vouching().refusal(rules, envelope, section)):
        answer = unproven
    if wrong:
        answer = decide.refuse("5.5.2", wrong)
    if has_nul and answer.code is Code.ACCEPT:
        answer = decide.NUL
    said, steps = str(answer), _steps(rules, envelope, section)
    if login and answer.code is Code.ACCEPT:
        try:
            room = rpc.request(
                context.paths.policy_door, f"room {login} {len(recipients)}", timeout=5.0
            )
            said = room["answer"] or said
        except rpc.UnreachableError:
            steps.append(_NOT_ASKED)
    if as_json:
        click.echo(json.dumps({"answer": said, "because": steps, "notes": answer.notes}, indent=2))
    else:
        click.echo("\n".join([said, *(f"  {step}" for step in steps)]))
        for note in answer.notes:
            click.echo(f"  note: {login} {note}")
    return {"250": Exit.OK, "451": Exit.TRY_AGAIN}.get(said[:3], Exit.WRONG)


def _section(raw: bytes) -> tuple[bytes, bool, str]:
    """The header section as chasquid gives it to the hook, whether a NUL follows, and what
    chasquid itself would refuse."""
    lines = raw.replace(b"\r\n", b"\n")
    wrong = "a bare CR: chasquid ends the connection (521)" if b"\r" in lines else ""
    end = header.end_of(lines)
    if end < 0:
        return lines, False, wrong
    return lines[:end], b"\0" in lines[end:], wrong


def _steps(rules: decide.Rules, envelope: Envelope, section: bytes) -> list[str]:
    """What was looked at."""
    values = [item.value for item in header.lenient(section) if item.name == "from"]
    steps = [f"From: {_read(value)}" for value in values] or ["From: none"]
    steps.append(f"MAIL FROM: {shown(envelope.sender)}")
    if envelope.login:
        own = rules.logins.get(decide.login_of(envelope), decide.LoginRules())
        allowed = [*sorted(own.addresses), *(f"*@{name}" for name in sorted(own.domains))]
        steps.append(
            f"{envelope.login} may send as {', '.join(allowed) or 'nobody: no such login'}"
        )
        steps.append(f"its limit is {rules.limit_of(envelope.login)}")
    else:
        steps.append(f"served here: {', '.join(sorted(rules.domains | {rules.host}))}")
        steps.append(f"ours, with all below: {', '.join(sorted(rules.organizations))}")
        found = decide.results(section)
        verdicts = [f"{item.result} for {item.domain}" for item in found.signatures]
        steps.append(f"SPF: {'pass' if envelope.spf else found.spf or 'not known'}")
        steps.append(f"DKIM, as chasquid found it: {', '.join(verdicts) or 'no signature'}")
    return steps


def _read(value: bytes) -> str:
    try:
        return ", ".join(map(str, header.mailboxes(value)))
    except header.HeaderError as error:
        return f"{shown(value.decode(errors='replace').strip())} has no certain meaning: {error}"


def _existing(state: State, login: Address, *, owner: bool = False) -> None:
    """`owner`: it may also have nothing but credentials with a name."""
    users = state.domain(login.domain).users
    if owner and any(
        userdb.owner(name) == login.local and not isinstance(secret, Denied)
        for name, secret in users.items()
    ):
        return
    secret = users.get(login.local)
    if secret is None or isinstance(secret, Denied):
        msg = f"{login} is no user"
        raise UserError(msg, "see who is: docker exec mail list-users")


def _change(context: Context, login: Address, change: Callable[[Sender], Sender]) -> Sender:
    """One login's line of the senders file, in service when this returns."""
    with context.change() as state:
        _existing(state, login)
        found = permissions.editable(context.paths, state, login.domain)
        after = change(found.get(login.local, Sender()))
        permissions.keep(context.paths, context.ids, login.domain, {**found, login.local: after})
    return after


def _ask(context: Context, question: str) -> dict[str, Any]:
    try:
        return rpc.request(context.paths.policy_door, question, timeout=5.0)
    except rpc.UnreachableError as error:
        msg = f"the policy service does not answer: {error}"
        raise UserError(
            msg, "it starts again by itself; look at: docker logs mail", exit_code=Exit.TRY_AGAIN
        ) from None
