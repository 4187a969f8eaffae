"""The verbs send-test, and mail-settings: what a mail program has to be set to."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import click

from entrypoint.chasquid.userdb import Denied, owner
from entrypoint.commands.context import Context
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.names import Address, Domain, Login
from entrypoint.converge import routing
from entrypoint.converge.routing import End, Way
from entrypoint.testmail import send
from entrypoint.testmail.mxprobe import Look
from entrypoint.testmail.send import Fate, Port, Report, TestMail, Trust

_WIDTH = 80
_LABEL = 10  # columns


class _AddressType(click.ParamType[Address]):
    name = "ADDRESS"

    def __init__(self, kind: type[Address]) -> None:
        self.kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        try:
            return self.kind.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


# --- send-test ------------------------------------------------------------------------------------


@click.command("send-test")
@click.argument("to", type=_AddressType(Address), required=False)
@click.option("--from", "sender", type=_AddressType(Login), help="Send as this address.")
@click.option("--loop", is_flag=True, help="Send to an address of this server: TO, or the sender.")
@click.option(
    "--wait",
    type=click.IntRange(0, 86400),
    metavar="SECONDS",
    help="Wait that long, also through later tries. Default: 120, to the first answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
def send_test(
    to: Address | None, sender: Address | None, loop: bool, wait: int | None, as_json: bool
) -> int:
    """Send one message to TO, follow it to the receiver's answer, and say what that means.

    It is submitted on 465 and 587 as a mail program would, by a log-in that lasts for this test
    alone, as the first user unless --from says otherwise. The exit status is 0 if it was delivered,
    1 if it was refused or something is wrong here, 75 if it is still on its way.

    Example: docker exec mail send-test you@gmail.com
    """
    context = Context.enter()
    state = context.state()
    sender = sender or send.default_sender(context.settings, state)
    send.check_sender(context.settings, sender)
    to = _recipient(context, to, sender, loop=loop)
    shown = _Shown(quiet=as_json)
    test = TestMail(context.settings, state, context.paths, context.ids, shown)
    if not as_json:
        click.echo(f"From {sender} to {to}")
    report = test.run(
        sender, to, wait=send.WAIT if wait is None else wait, patient=wait is not None,
        loop=loop,
    )  # fmt: skip
    shown.end()
    if as_json:
        click.echo(json.dumps(_as_json(report), indent=2))
    else:
        click.echo("\n".join(_verdict(report)))
    return report.status


def _recipient(context: Context, to: Address | None, sender: Address, *, loop: bool) -> Address:
    if to is None and not loop:
        msg = "to whom? Give an address, or --loop for one of this server"
        raise click.UsageError(msg)
    to = to or sender
    receiving = context.settings.receiving
    if loop and to.domain not in receiving:
        have = ", ".join(receiving) or "none: MAIL_RECEIVE=none"
        msg = f"mail to {to.domain} does not come to this server ({have})"
        raise UserError(msg, "leave --loop out, and send to a mailbox elsewhere",
                        exit_code=Exit.USAGE)  # fmt: skip
    return to


@dataclass
class _Shown:
    """Prints each step when it is known, and on a terminal what is being waited for."""

    quiet: bool
    _began: float = field(default_factory=time.monotonic)
    _transient: bool = False

    def __call__(self, report: Report, what: str) -> None:
        if self.quiet:
            return
        step, _, name = what.partition(" ")
        if step == "waiting":
            self._wait()
            return
        self.end()
        lines: Iterator[str] = iter(())
        if step == "port":
            lines = _port(report.ports[-1])
        elif step == "queued":
            lines = _row("queued", f"as {report.id or '(id not seen)'}, over port {report.over}")
        elif step == "dkim":
            lines = _signatures(report)
        elif step == "fate":
            lines = _fate(report, report.fates[name])
        elif step == "look" and report.look:
            lines = _look(report.look)
        for line in lines:
            click.echo(line)

    def _wait(self) -> None:
        if sys.stderr.isatty():
            seconds = time.monotonic() - self._began
            text = f"waiting for the receiver's answer, {seconds:.0f} s (Ctrl-C: the mail goes on)"
            click.echo(f"\r\033[K{text[: _WIDTH - 1]}", err=True, nl=False)
            self._transient = True

    def end(self) -> None:
        if self._transient:
            click.echo("\r\033[K", err=True, nl=False)
            self._transient = False


def _row(label: str, text: str) -> Iterator[str]:
    start = f"  {label:<{_LABEL}}"
    wrapped = textwrap.wrap(
        text, _WIDTH - len(start), break_long_words=False, break_on_hyphens=False
    )
    for line in wrapped or [""]:
        yield f"{start}{line}".rstrip()
        start = " " * len(start)


_TRUST = {
    Trust.PUBLIC: "its certificate is trusted for this name",
    Trust.PRIVATE: "its certificate is of a private authority: mail programs must be told its root",
    Trust.SELF_SIGNED: "its certificate is self-signed: mail programs refuse it; see docker exec "
    "mail list-certs",
    Trust.NONE: "its certificate is NOT VALID",
    Trust.UNKNOWN: "no TLS",
}


def _port(port: Port) -> Iterator[str]:
    words = []
    if port.tls:
        words += [port.tls, _TRUST[port.trust]]
        if port.trust is Trust.NONE:
            words[-1] += f" ({port.distrust})"
    words.append(f"FAILED: {port.error}" if port.error else "log-in accepted")
    yield from _row(str(port.number), "; ".join(words))


def _signatures(report: Report) -> Iterator[str]:
    if report.unsigned:
        instead = "; so these are of a message of our own, with the same keys:"
        yield from _row("DKIM", report.unsigned + (instead if report.signatures else ""))
    elif not report.signatures:
        yield from _row("DKIM", "NOT SIGNED")
    for item in report.signatures:
        result = {True: "verifies", False: "FAILS", None: "could not be verified"}[item.ok]
        why = f": {item.why}" if item.why else " with the key in DNS"
        yield from _row("DKIM", f"{item.algorithm}, {item.name} {result}{why}")


def _fate(report: Report, fate: Fate) -> Iterator[str]:
    where = f"{fate.address}, after {max(0.0, fate.at - report.started):.1f} s"
    said = f": {fate.answer}" if fate.answer else ""
    again = ""
    if fate.state == "deferred":
        again = f" (next try {_when(fate.next)})" if fate.next else " (it is tried again)"
    yield from _row(fate.state, f"{where}{said}{again}")


def _when(at: float) -> str:
    seconds = at - time.time()
    if seconds < 5:
        return "now"
    text = f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    return f"in about {text}"


def _look(look: Look) -> Iterator[str]:
    for address, why in look.failed:
        yield from _row("MX host", f"{address}: {why}")
    if not look.address:
        return
    words = [f"{look.server}, {look.family} {look.address}"]
    if look.tls:
        words.append(look.tls)
        trusted = f"certificate trusted for {look.server}"
        words.append(trusted if look.trusted else f"certificate not trusted: {look.distrust}")
    elif look.banner and not look.error:
        words.append("STARTTLS FAILS" if look.offers_tls else "offers no TLS: mail goes in clear")
    if look.error:
        words.append(look.error)
    words.append("(by a connection of our own, not the mail's)")
    yield from _row("MX host", "; ".join(words[:-1]) + f" {words[-1]}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _verdict(report: Report) -> Iterator[str]:
    """The summary: what happened, what is wrong, what to do."""
    yield ""
    yield from _wrapped(_outcome(report))
    for text in report.wrong:
        yield from _wrapped(f"Wrong here: {text}")
    for hint in report.hints:
        yield ""
        yield from _row("means", hint.cause)
        yield from _row("fix", hint.fix)
    if any(item.ok is False for item in report.signatures):
        yield from _row("fix", "docker exec mail dns --check")
    if report.id and report.state != "delivered":
        yield ""
        # An id may begin like an option.
        name = f"-- {report.id}" if report.id.startswith("-") else report.id
        yield from _wrapped(f"To see more later: docker exec mail show-message {name}")


def _outcome(report: Report) -> str:
    domain = report.to.domain
    if report.state == "unsent":
        if report.refusal:
            return f"Not sent: this server refused it: {report.refusal}"
        return "Not sent: neither port takes mail."
    if report.state == "delivered":
        if report.loop:
            return _loop_outcome(report)
        return (
            f"Delivered: the server of {domain} has taken it. Look for it in the mailbox, and in "
            'the spam folder; "Show original" (Gmail) or the header Authentication-Results shows '
            "what was thought of it."
        )
    if report.state == "refused":
        return f"Refused: {report.to} does not get it. The sender is told by mail."
    if report.state == "deferred":
        return "Deferred: it was not taken yet. It stays in the queue and is tried again."
    waited = f"{report.seconds:.0f} s"
    why = f" The events could not be read ({report.unfollowed})." if report.unfollowed else ""
    return (
        f"Pending: there is no answer after {waited}. It stays in the queue; a try may take a "
        f"minute to connect and ten until it is given up, and then it is tried again.{why}"
    )


def _loop_outcome(report: Report) -> str:
    ends = list(report.fates)
    away = [name for name in ends if _domain(name) != report.to.domain]
    text = (
        f"Delivered: submitted, signed, queued and delivered to {', '.join(ends)}. "
    )  # fmt: skip
    if away:
        return f"{text}So forwarding works, and mail leaves this machine."
    return (
        f"{text}It did not leave this machine: the way out (port 25, DNS, reputation) is seen "
        "only by a test to a mailbox elsewhere."
    )


def _domain(address: str) -> str:
    """As A-labels, which chasquid's log does not have."""
    name = address.rpartition("@")[2]
    try:
        return Domain.parse(name)
    except ValueError:
        return name


def _as_json(report: Report) -> dict[str, Any]:
    def time_of(at: float) -> str | None:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" if at else None

    return {
        "result": report.state,
        "from": report.sender,
        "to": report.to,
        "message_id": report.message_id,
        "id": report.id or None,
        "time": time_of(report.started),
        "seconds": round(report.seconds, 2),
        "ports": [
            {
                "port": port.number, "tls": port.tls or None, "certificate": port.trust.value,
                "distrust": port.distrust or None, "logged_in": port.logged_in,
                "error": port.error or None,
            }
            for port in report.ports
        ],
        "submitted_over": report.over or None,
        "refusal": report.refusal or None,
        "dkim_unseen": report.unsigned or None,
        "dkim": [
            {
                "algorithm": item.algorithm, "record": item.name, "domain": item.domain,
                "verifies": item.ok, "why": item.why or None,
            }
            for item in report.signatures
        ],
        "recipients": [
            {
                "address": fate.address, "state": fate.state, "answer": fate.answer or None,
                "time": time_of(fate.at), "tries": fate.tries, "next": time_of(fate.next),
            }
            for fate in report.fates.values()
        ],
        "exchanger": asdict(report.look) if report.look else None,
        "wrong": report.wrong,
        "hints": [asdict(hint) for hint in report.hints],
    }  # fmt: skip


# --- mail-settings --------------------------------------------------------------------------------


@click.command("mail-settings")
@click.argument("address", type=_AddressType(Login))
@click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
def mail_settings(address: Address, as_json: bool) -> int:
    """Say what a mail program has to be told for ADDRESS, and how Gmail sends as it.

    The exit status is 1 if ADDRESS is no user, or if nothing leads the confirmation code to you.

    Example: docker exec mail mail-settings i@example.com
    """
    context = Context.enter()
    if address.domain not in context.settings.domains:
        msg = f"{address.domain} is not one of the domains served here"
        raise UserError(msg, f"choose one of {', '.join(context.settings.domains)}")
    found = _advice(context, address)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        click.echo("\n".join(_settings(found)))
    return Exit.OK if found.is_user and found.arrives else Exit.WRONG


@dataclass(frozen=True)
class _Advice:
    """`logins` send as the address; `ends` is where mail to it goes, if it is received here."""

    address: Address
    host: str
    logins: tuple[str, ...]
    receives: bool
    ends: tuple[End, ...]

    @property
    def is_user(self) -> bool:
        return bool(self.logins)

    @property
    def login(self) -> str:
        """What to log in as: the address itself, if that is possible."""
        return self.address if self.address in self.logins or not self.logins else self.logins[0]

    @property
    def targets(self) -> tuple[str, ...]:
        """Where somebody reads it: other servers and programs."""
        return tuple(end.where for end in self.ends if end.way in (Way.FORWARDED, Way.PROGRAM))

    @property
    def arrives(self) -> bool:
        """Whether somebody can read a confirmation code."""
        return not self.receives or bool(self.targets)

    def to_json(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "user": self.login,
            "is_user": self.is_user,
            "logins": list(self.logins),
            "host": self.host,
            "ports": [
                {"port": 465, "security": "TLS"},
                {"port": 587, "security": "STARTTLS"},
            ],
            "authentication": "PLAIN",
            "receives": self.receives,
            "goes_to": list(self.targets),
            "kept": any(end.way is Way.KEPT for end in self.ends),
        }


def _advice(context: Context, address: Address) -> _Advice:
    settings, state = context.settings, context.state()
    logins = [
        f"{name}@{address.domain}"
        for name, secret in state.domain(address.domain).users.items()
        if owner(name) == owner(address.local) and not isinstance(secret, Denied)
    ]
    receives = address.domain in settings.receiving
    ends = routing.load(settings, state).ends(address) if receives else ()
    host = str(settings.mail_hostname)
    return _Advice(address, host, tuple(sorted(logins)), receives, ends)


def _settings(found: _Advice) -> Iterator[str]:
    address, host = found.address, found.host
    if not found.is_user:
        yield f"{address} is no user yet, so it cannot send. Add it:"
        yield ""
        yield f"    docker exec mail add-user {address}"
        yield ""
    yield "For a mail program or a web service that sends:"
    yield ""
    yield f"    server           {host}"
    yield "    port, security   465 with SSL/TLS, or 587 with STARTTLS"
    yield f"    user name        {found.login}"
    yield "    password         what add-user or set-password showed or took"
    yield '    authentication   PLAIN: "normal password", "plain", or left to the program.'
    yield '                     "LOGIN", CRAM-MD5, NTLM and OAuth are not offered'
    yield ""
    yield "This server sends only; there is no IMAP or POP to enter."
    yield ""
    yield f"In Gmail, to send as {address}:"
    yield ""
    steps = [
        (
            "Settings (the gear), See all settings, Accounts and Import, Send mail as, Add another "
            "email address."
        ),
        f'Your name, {address}, leave "Treat as an alias" on. Next step.',
        (
            f"SMTP server {host}, port 465 and SSL (or 587 and TLS); user name {found.login}, its "
            "password. Add account. The certificate must be a trusted one: docker exec mail "
            "list-certs."
        ),
        f"Gmail mails a code to {address}. {_code(found)}",
        (
            'Enter it. Then: make default if you like, and choose "Reply from the same address the '
            'message was sent to".'
        ),
    ]
    for number, step in enumerate(steps, start=1):
        start = f"  {number}. "
        for line in textwrap.wrap(step, _WIDTH - len(start), break_on_hyphens=False,
                                  break_long_words=False):  # fmt: skip
            yield f"{start}{line}"
            start = " " * len(start)


def _code(found: _Advice) -> str:
    if not found.receives:
        return f"It comes to the mailbox of {found.address.domain}, which is not here."
    if found.targets:
        return f"It comes to you by the alias that exists: {', '.join(found.targets)}."
    add = f"docker exec mail add-alias {found.address} you@gmail.com"
    match found.ends[0]:
        case End(Way.KEPT, where):
            why = f"NOTHING FORWARDS IT: it would be kept in data/mail here, for {where}."
        case End(Way.NOBODY, where):
            why = f"IT WOULD BE LOST: an alias leads to {where}, which does not exist."
        case End(Way.LOOP, where):
            why = f"IT WOULD NOT ARRIVE: the aliases are a loop, {where}."
        case _:
            why = "IT WOULD BE REFUSED: no alias takes it."
    return f"{why} First: {add} (or FORWARD_TO in .env)."
