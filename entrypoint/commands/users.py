"""Senders: who may log in and send."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from entrypoint import apply, granting, userdb
from entrypoint.context import Context
from entrypoint.errors import Exit, UserError
from entrypoint.names import Login
from entrypoint.senders import Grant
from entrypoint.state import State
from entrypoint.userdb import CHOSEN_LOG_N, GENERATED_LOG_N, Denied, Scrypt, Secret


class _LoginType(click.ParamType[Login]):
    name = "ADDRESS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Login:
        try:
            return Login.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_address = click.argument("address", type=_LoginType())
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
@click.option(
    "--may-send",
    type=granting.GrantType(),
    multiple=True,
    help="Another address that it may send as, '*@example.org' for any; may be repeated.",
)
@_password_options
@_json
def add_user(
    address: Login, may_send: tuple[Grant, ...], prompt: bool, password_stdin: bool, as_json: bool
) -> None:
    """Let ADDRESS log in and send as itself. Its secret is made, and shown once.

    Example: docker exec mail add-user i@example.com
    """
    context = Context.enter()
    _check_domain(context, address)
    granting.check_served(context, may_send)
    _absent(context.state().domain(address.domain).users, address)
    # Before the lock, as it may take a person's time.
    password, secret = _new_secret(prompt=prompt, from_stdin=password_stdin)
    with context.change() as state:
        users = _editable(context, state, address)
        _absent(users, address)
        granting.grant(context, state, address.domain, address.local, may_send)
        _write(context, address, {**users, address.local: secret})
    _report(context, address, "Added", password, as_json=as_json)


@click.command("set-password")
@_address
@_password_options
@_json
def set_password(address: Login, prompt: bool, password_stdin: bool, as_json: bool) -> None:
    """Give ADDRESS a new secret. The old one stops working at once.

    Example: docker exec -it mail set-password i@example.com --prompt
    """
    context = Context.enter()
    _check_domain(context, address)
    _existing(context.state().domain(address.domain).users, address)
    password, secret = _new_secret(prompt=prompt, from_stdin=password_stdin)
    with context.change() as state:
        users = _editable(context, state, address)
        _existing(users, address)
        _write(context, address, {**users, address.local: secret})
    _report(context, address, "Changed", password, as_json=as_json)


@click.command("remove-user")
@_address
def remove_user(address: Login) -> None:
    """Take ADDRESS's right to log in. Its aliases and its mail stay.

    Example: docker exec mail remove-user i@example.com
    """
    context = Context.enter()
    _check_domain(context, address)
    with context.change() as state:
        users = _editable(context, state, address)
        _existing(users, address)
        granting.drop(context, state, address.domain, {address.local})
        _write(context, address, {name: users[name] for name in users if name != address.local})
    click.echo(f"Removed {address}.")


@click.command("list-users")
@_json
def list_users(as_json: bool) -> None:
    """List who may log in.

    Example: docker exec mail list-users
    """
    context = Context.enter()
    state = context.state()
    found = [
        f"{name}@{domain}"
        for domain in context.settings.domains
        for name, secret in sorted(state.domain(domain).users.items())
        if not isinstance(secret, Denied)
    ]
    if as_json:
        click.echo(json.dumps([{"address": address} for address in found], indent=2))
    elif found:
        click.echo("\n".join(found))
    else:
        domain = context.settings.domains[0]
        click.echo(f"No users yet. Add one: docker exec mail add-user i@{domain}", err=True)


@click.command("check-password")
@_address
@click.option("--password-stdin", is_flag=True, help="Read it from standard input.")
def check_password(address: Login, password_stdin: bool) -> None:
    """Say whether a password is ADDRESS's. Exit status 1 if it is not.

    Example: docker exec -it mail check-password i@example.com
    """
    context = Context.enter()
    _check_domain(context, address)
    secret = _existing(context.state().domain(address.domain).users, address)
    password = _stdin_line() if password_stdin else _ask("Password", twice=False)
    if not secret.matches(password):
        msg = f"this is not the password of {address}"
        raise UserError(msg)
    click.echo(f"This is the password of {address}.")


def _check_domain(context: Context, address: Login) -> None:
    domains = context.settings.domains
    if address.domain not in domains:
        msg = f"{address.domain} is not one of the domains served here ({', '.join(domains)})"
        raise UserError(
            msg,
            "check the spelling, or add it to MAIL_DOMAINS in .env and run: docker compose up -d",
        )


def _editable(context: Context, state: State, address: Login) -> userdb.Users:
    """The users of the address's domain; refuses to write over a file that a person must mend."""
    have = state.domain(address.domain)
    if "users" in have.broken:
        path = context.paths.domain(address.domain) / "users"
        reasons = [str(item) for item in state.findings if item.subject == str(path)]
        raise UserError(" ".join(reasons))
    return have.users


def _absent(users: userdb.Users, address: Login) -> None:
    if address.local in users:
        msg = f"{address} exists already"
        raise UserError(msg, f"to give it a new secret: docker exec mail set-password {address}")


def _existing(users: userdb.Users, address: Login) -> Secret:
    if address.local not in users:
        msg = f"{address} is no user"
        raise UserError(msg, "see who is: docker exec mail list-users")
    return users[address.local]


def _write(context: Context, address: Login, users: userdb.Users) -> None:
    path = context.paths.domain(address.domain) / "users"
    if users:
        apply.write(path, userdb.render(users).encode(), context.ids)
    else:
        apply.remove(path)
        # Else a broken file would let the last user in again.
        apply.remove(context.paths.good / address.domain / "users")


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
    return None, Scrypt.of(password, CHOSEN_LOG_N)


def _stdin_line() -> str:
    """One line, as `echo` or a file gives it; what follows it must be nothing."""
    raw = sys.stdin.buffer.read(userdb.MAX_PASSWORD + 3)
    try:
        return raw.decode().removesuffix("\n").removesuffix("\r")
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
    context: Context, address: Login, done: str, password: str | None, *, as_json: bool
) -> None:
    host = context.settings.mail_hostname
    if as_json:
        result = {
            "address": address, "user": address, "secret": password, "host": host,
            "ports": {"tls": 465, "starttls": 587},
        }  # fmt: skip
        click.echo(json.dumps(result, indent=2))
        return
    if password:
        click.echo(f"{done} {address}. Its secret, which is shown only now:\n\n    {password}\n")
    else:
        click.echo(f"{done} {address}.\n")
    click.echo(
        "For a mail program or a web service:\n\n"
        f"    server      {host}\n"
        "    port        465 with SSL/TLS, or 587 with STARTTLS\n"
        f"    user name   {address}\n"
        f"    password    {'the secret above' if password else 'the one you chose'}"
    )
