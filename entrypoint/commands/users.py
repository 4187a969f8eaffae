"""Senders: who may log in and send, each with as many credentials as there are uses of them."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import click

from entrypoint.accounts import permissions
from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import GENERATED_LOG_N, Denied, Scrypt, Secret
from entrypoint.commands.context import Context
from entrypoint.commands.options import GrantType
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.names import Address, Domain, Login, Purpose
from entrypoint.common.rpc import UnreachableError
from entrypoint.converge import apply, reconcile, routing
from entrypoint.history import client
from entrypoint.policy.grants import Grant
from entrypoint.state import edited
from entrypoint.state.load import State


class _LoginType(click.ParamType[Login]):
    name = "ADDRESS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Login:
        try:
            return Login.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _PurposeType(click.ParamType[Purpose]):
    name = "NAME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Purpose:
        try:
            return Purpose.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True)
class _Credential:
    """One of a user's: what logs in as `login` sends as `address`."""

    address: Login
    name: Purpose | None

    @property
    def local(self) -> str:
        """Its key in the users file."""
        return (
            f"{self.address.local}{userdb.SEPARATOR}{self.name}"
            if self.name
            else self.address.local
        )

    @property
    def domain(self) -> Domain:
        return self.address.domain

    @property
    def login(self) -> str:
        return f"{self.local}@{self.domain}"

    def __str__(self) -> str:
        return self.login

    @property
    def words(self) -> str:
        """As a verb's arguments."""
        return f"{self.address} --name {self.name}" if self.name else f"{self.address}"


_address = click.argument("address", type=_LoginType())
_name = click.option(
    "--name", type=_PurposeType(), help="What this one of several credentials is for."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")


def _password_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--password-stdin", is_flag=True, help="Read it from standard input."),
        click.option("--prompt", is_flag=True, help="Ask for one, twice."),
    ):
        command = option(command)
    return command


@click.command("add-user")
@_address
@_name
@click.option(
    "--may-send",
    type=GrantType(),
    multiple=True,
    help="Another address that it may send as, '*@example.org' for any; may be repeated.",
)
@_password_options
@_json
def add_user(
    address: Login,
    name: Purpose | None,
    may_send: tuple[Grant, ...],
    prompt: bool,
    password_stdin: bool,
    as_json: bool,
) -> None:
    """Let ADDRESS log in and send as itself. Its secret is made, and shown once.

    With --name it is one more credential of ADDRESS, with a login of its own: a program or device
    that has it can lose it without the others.

    Example: docker exec mail add-user i@example.com --name newsletter
    """
    context = Context.enter()
    credential = _credential(context, address, name)
    _absent(context.state().domain(address.domain).users, credential)
    permissions.check_served(context.settings, may_send)
    # Before the lock, as it may take a person's time.
    password, secret = _new_secret(prompt=prompt, from_stdin=password_stdin)
    with context.change() as state:
        users = _editable(context, state, address)
        _absent(users, credential)
        permissions.grant(
            context.paths, context.ids, state, address.domain, credential.local, may_send
        )
        _write(context, state, credential, {**users, credential.local: secret})
    _report(context, credential, "Added", password, as_json=as_json)


@click.command("set-password")
@_address
@_name
@_password_options
@_json
def set_password(
    address: Login, name: Purpose | None, prompt: bool, password_stdin: bool, as_json: bool
) -> None:
    """Give ADDRESS a new secret. The old one stops working at once, also over connections that are
    logged in: what they bring is refused for now, until they log in again.

    Example: docker exec -it mail set-password i@example.com --prompt
    """
    context = Context.enter()
    credential = _credential(context, address, name)
    _existing(context.state().domain(address.domain).users, credential)
    password, secret = _new_secret(prompt=prompt, from_stdin=password_stdin)
    with context.change() as state:
        users = _editable(context, state, address)
        _existing(users, credential)
        _write(context, state, credential, {**users, credential.local: secret})
    reconcile.settle(context.paths)
    _report(context, credential, "Changed", password, as_json=as_json)


@click.command("remove-user")
@_address
@_name
def remove_user(address: Login, name: Purpose | None) -> None:
    """Take ADDRESS's right to log in, with all its credentials; with --name, that one alone. Its
    aliases and its mail stay.

    Example: docker exec mail remove-user i@example.com --name newsletter
    """
    context = Context.enter()
    credential = _credential(context, address, name)
    with context.change() as state:
        users = _editable(context, state, address)
        if name:
            _existing(users, credential)
            gone = [credential.local]
        else:
            gone = [item for item in users if userdb.owner(item) == address.local]
            if not gone:
                _existing(users, credential)
        forgotten = {*gone, *(() if name else (address.local,))}
        permissions.drop(context.paths, context.ids, state, address.domain, forgotten)
        left = {item: users[item] for item in users if item not in gone}
        _write(context, state, credential, left)
        stranded = list(_stranded(context, state, address.domain, left))
    reconcile.settle(context.paths)
    if name:
        click.echo(f"Removed {credential}.")
        if address.local not in userdb.owners(left):
            click.echo(f"It was the last of {address}, which is no user any more.")
    else:
        names = sorted(filter(None, map(userdb.purpose, gone)))
        also = f", and its credentials: {', '.join(names)}" if names else ""
        click.echo(f"Removed {address}{also}.")
    for text in stranded:
        click.echo(f"warning: {text}", err=True)


@click.command("list-users")
@_json
def list_users(as_json: bool) -> None:
    """List who may log in, with each one's credentials.

    Example: docker exec mail list-users
    """
    context = Context.enter()
    state = context.state()
    try:
        used: Mapping[str, float] | None = _ascii_names(client.last_logins(context.paths))
    except UnreachableError:
        used = None
    found = [
        _listed(domain, owner, state, used)
        for domain in context.settings.domains
        for owner in sorted(userdb.owners(_senders(state, domain)))
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        click.echo("\n".join(_lines(found)))
    else:
        domain = context.settings.domains[0]
        click.echo(f"No users yet. Add one: docker exec mail add-user i@{domain}", err=True)
    if found and used is None:
        msg = "note: When they were last used is not known, as the mail server is not running."
        click.echo(msg, err=True)


@click.command("check-password")
@_address
@_name
@click.option("--password-stdin", is_flag=True, help="Read it from standard input.")
def check_password(address: Login, name: Purpose | None, password_stdin: bool) -> None:
    """Say whether a password is ADDRESS's. Exit status 1 if it is not.

    Example: docker exec -it mail check-password i@example.com
    """
    context = Context.enter()
    credential = _credential(context, address, name)
    secret = _existing(context.state().domain(address.domain).users, credential)
    password = _stdin_line() if password_stdin else _ask("Password", twice=False)
    if not secret.matches(password):
        msg = f"this is not the password of {credential}"
        raise UserError(msg)
    click.echo(f"This is the password of {credential}.")


def _senders(state: State, domain: Domain) -> userdb.Users:
    users = state.domain(domain).users
    return {name: users[name] for name in users if not isinstance(users[name], Denied)}


def _ascii_names(logins: Mapping[str, float]) -> dict[str, float]:
    """By login with its domain in A-labels: chasquid's log has the Unicode form."""
    found: dict[str, float] = {}
    for login, when in logins.items():
        local, _, domain = login.rpartition("@")
        try:
            found[f"{local}@{Domain.parse(domain)}"] = when
        except ValueError:
            continue  # a stranger's
    return found


def _listed(
    domain: Domain, owner: str, state: State, used: Mapping[str, float] | None
) -> dict[str, Any]:
    """A user for programs. `created` and `last_used` are RFC 3339, or null: made by hand, and not
    used yet. `last_used` is left out if it could not be found out."""
    credentials = []
    for name in sorted(_senders(state, domain)):
        if userdb.owner(name) != owner:
            continue
        login = f"{name}@{domain}"
        item: dict[str, Any] = {
            "name": userdb.purpose(name), "login": login,
            "created": _iso(state.created.get(login)),
        }  # fmt: skip
        if used is not None:
            item["last_used"] = _iso(used.get(login))
        credentials.append(item)
    return {"address": f"{owner}@{domain}", "credentials": credentials}


def _iso(when: float | None) -> str | None:
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _lines(found: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A user a block, a credential a line; times are UTC, to the minute."""
    rows = [item for user in found for item in user["credentials"]]
    width = max(len(_called(item)) for item in rows)
    for user in found:
        yield user["address"]
        for item in user["credentials"]:
            created = f"created {_minute(item['created']) or 'unknown':<16}"
            used = ""
            if "last_used" in item:
                when = _minute(item["last_used"])
                used = f"  used {when}" if when else "  not used yet"
            yield f"    {_called(item):<{width}}  {created}{used}".rstrip()
    yield "Times are UTC."


def _called(item: Mapping[str, Any]) -> str:
    return item["name"] or "(no name)"


def _minute(iso: str | None) -> str:
    return iso[:16].replace("T", " ") if iso else ""


def _stranded(context: Context, state: State, domain: Domain, left: userdb.Users) -> Iterator[str]:
    """Warnings for aliases that led to somebody, and now lead to nobody."""
    have = replace(state.domain(domain), users=left)
    changed = replace(state, domains={**state.domains, domain: have})
    before, after = (routing.load(context.settings, item) for item in (state, changed))
    for here in context.settings.domains:
        for name in state.domain(here).aliases:
            address = routing.probe(name, here)
            if before.loop(address):
                continue
            loop = after.loop(address)
            if loop:
                yield f"{name}@{here} goes round in a loop now: {' → '.join(loop)}"
                continue
            known = {way[-1] for way in before.nowhere(address)}
            for way in after.nowhere(address):
                if way[-1] not in known:
                    yield f"{name}@{here} leads to {way[-1]}, which is nobody now"


def _credential(context: Context, address: Login, name: Purpose | None) -> _Credential:
    domains = context.settings.domains
    if address.domain not in domains:
        msg = f"{address.domain} is not one of the domains served here ({', '.join(domains)})"
        raise UserError(
            msg,
            "check the spelling, or add it to MAIL_DOMAINS in .env and run: docker compose up -d",
        )
    credential = _Credential(address, name)
    try:
        Address.parse(credential.login)
    except ValueError:
        msg = f"{credential} is too long: a login has at most 64 characters before the @"
        raise UserError(msg, "choose a shorter --name", exit_code=Exit.USAGE) from None
    return credential


def _editable(context: Context, state: State, address: Login) -> userdb.Users:
    """The users of the address's domain; refuses to write over a file that a person must mend."""
    have = state.domain(address.domain)
    if "users" in have.broken:
        path = context.paths.domain(address.domain) / "users"
        reasons = [str(item) for item in state.findings if item.subject == str(path)]
        raise UserError(" ".join(reasons))
    return have.users


def _absent(users: userdb.Users, credential: _Credential) -> None:
    if credential.local in users:
        msg = f"{credential} exists already"
        raise UserError(
            msg, f"to give it a new secret: docker exec mail set-password {credential.words}"
        )


def _existing(users: userdb.Users, credential: _Credential) -> Secret:
    if credential.local not in users:
        what = "no credential of a user" if credential.name else "no user"
        if not credential.name and credential.local in userdb.owners(users):
            what = "a user, but has only credentials with a --name"
        msg = f"{credential} is {what}"
        raise UserError(msg, "see who is: docker exec mail list-users")
    return users[credential.local]


def _write(context: Context, state: State, credential: _Credential, users: userdb.Users) -> None:
    """The file, and when each credential was made. Caller holds the edit lock."""
    domain = credential.domain
    logins = {f"{name}@{domain}" for name in users}
    # One that went by hand is forgotten here, so that its name begins anew.
    kept = {
        login: when
        for login, when in state.created.items()
        if login in logins or Address(login).domain != domain
    }
    if credential.local in users and credential.local not in state.domain(domain).users:
        kept[credential.login] = datetime.now(UTC).timestamp()
    # Before the change itself: whatever fails, no credential is left whose secret was not shown.
    apply.write(context.paths.created, json.dumps(kept, indent=1).encode(), context.ids)
    path = context.paths.domain(domain) / "users"
    edited.replace(context.paths, context.ids, path, userdb.render(users).encode())


def _new_secret(*, prompt: bool, from_stdin: bool) -> tuple[str | None, Secret]:
    """The secret to store and, if it was made here, what to show."""
    if prompt and from_stdin:
        msg = "--prompt and --password-stdin exclude each other"
        raise click.UsageError(msg)
    if not (prompt or from_stdin):
        made = userdb.generate()
        return made, Scrypt.of(made, GENERATED_LOG_N)
    password = _stdin_line() if from_stdin else _ask("Password", twice=True)
    try:
        userdb.check_chosen(password)
    except ValueError as error:
        raise UserError(
            str(error),
            "choose a longer one, or leave the option out to have one made",
            exit_code=Exit.USAGE,
        ) from None
    return None, Scrypt.chosen(password)


def _stdin_line() -> str:
    """One line, as `echo` or a file gives it; what follows it must be nothing."""
    most = userdb.MAX_PASSWORD + 8
    raw = sys.stdin.buffer.read(most)
    try:
        # Where reading stopped a character may be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(raw, final=len(raw) < most)
        return text.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        msg = "the password is not UTF-8 text"
        raise UserError(msg, exit_code=Exit.USAGE) from None


def _ask(label: str, *, twice: bool) -> str:
    if not sys.stdin.isatty():
        msg = "there is no terminal to ask at"
        raise UserError(
            msg,
            "run: docker exec -it mail …, or give the password with --password-stdin",
            exit_code=Exit.USAGE,
        )
    answer: str = click.prompt(
        label, hide_input=True, default="", show_default=False, confirmation_prompt=twice
    )
    return answer


def _report(
    context: Context, credential: _Credential, done: str, password: str | None, *, as_json: bool
) -> None:
    host = context.settings.mail_hostname
    if as_json:
        result = {
            "address": credential.address, "user": credential.login, "secret": password,
            "host": host,
            "ports": {"tls": 465, "starttls": 587},
        }  # fmt: skip
        click.echo(json.dumps(result, indent=2))
        return
    who = f"{credential}, which sends as {credential.address}" if credential.name else credential
    if password:
        click.echo(f"{done} {who}. Its secret, which is shown only now:\n\n    {password}\n")
    else:
        click.echo(f"{done} {who}.\n")
    click.echo(
        "For a mail program or a web service:\n\n"
        f"    server      {host}\n"
        "    port        465 with SSL/TLS, or 587 with STARTTLS\n"
        f"    user name   {credential}\n"
        f"    password    {'the secret above' if password else 'the one you chose'}"
    )
