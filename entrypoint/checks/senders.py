"""Who may send as whom: lines that mean nobody, and what the policy service has to say."""

from __future__ import annotations

from collections.abc import Iterator

from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding, Level
from entrypoint.common.rpc import UnreachableError
from entrypoint.converge.plan import rules
from entrypoint.policy import decide

_WHY_NOBODY = "Perhaps a name is misspelt: whom it was meant for does not have it."
_WHY_DOWN = "Without it no mail is taken: it is refused for now, in both directions."
_WHY_NOTE = "Receivers count such things."
_WHY_FULL = "Mail to full mailboxes alone is refused."
_WHY_ALARM = "Perhaps a password is in other hands."


def check(context: CheckContext) -> list[Finding]:
    """From the senders files and the policy service; unknown if the latter says nothing."""
    return [*_lines(context), *_service(context)]


def _lines(context: CheckContext) -> Iterator[Finding]:
    """What data/domains/DOMAIN/senders gives to nobody, or cannot give."""
    settings = context.settings
    logins = rules(settings, context.state).logins
    known = {*logins, *map(decide.base, logins)}
    for domain in settings.domains:
        for name, sender in sorted(context.state.domain(domain).senders.items()):
            login = f"{name}@{domain}"
            if login not in known:
                yield Finding(
                    "senders-nobody", Level.WARN, f"{login} has a line, but is no user.",
                    f"mend or remove the line in data/domains/{domain}/senders", login,
                    f"{len(logins)} users", _WHY_NOBODY,
                )  # fmt: skip
            for grant in sender.grants:
                if grant.domain not in settings.domains:
                    yield Finding(
                        "senders-elsewhere", Level.WARN,
                        f"{login} may send as {grant}, whose domain is not served here.",
                        f"add {grant.domain} to MAIL_DOMAINS, or remove it from "
                        f"data/domains/{domain}/senders", f"{login} {grant}",
                        f"served: {', '.join(settings.domains)}", _WHY_NOBODY,
                    )  # fmt: skip


def _service(context: CheckContext) -> Iterator[Finding]:
    try:
        answer = context.machine.policy("alarms")
    except UnreachableError as error:
        yield Finding(
            "policy-down", Level.FAIL, "The policy service does not answer.",
            "it starts again by itself; if it does not:\ndocker compose restart",
            seen=str(error), why=_WHY_DOWN,
        )  # fmt: skip
        return
    alarms, notes = list(map(str, answer.get("alarms", ()))), answer.get("notes", ())
    fixes = dict(answer.get("fixes", {}))
    for text in alarms:
        yield Finding(
            "policy-alarm", Level.FAIL, text,
            "see why, and then:\ndocker exec mail list-senders", text,
            "as the policy service says", _WHY_ALARM,
        )  # fmt: skip
    for text in map(str, notes):
        yield Finding(
            "policy-note", Level.WARN, text, fixes.get(text, "mend that program"), text,
            "as the policy service says", _WHY_FULL if text in fixes else _WHY_NOTE,
        )  # fmt: skip
    if not alarms:
        yield Finding(
            "policy", Level.INFO, "Each message is judged before it is taken.",
            seen="the service answers, and nobody is paused", why=_WHY_DOWN,
        )  # fmt: skip
