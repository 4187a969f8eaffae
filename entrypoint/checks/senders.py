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
                    id="senders-nobody",
                    level=Level.WARN,
                    message=f"{login} has a line, but is no user.",
                    fix=f"mend or remove the line in data/domains/{domain}/senders",
                    subject=login,
                    seen=f"{len(logins)} users",
                    why=_WHY_NOBODY,
                )
            for grant in sender.grants:
                if grant.domain not in settings.domains:
                    yield Finding(
                        id="senders-elsewhere",
                        level=Level.WARN,
                        message=f"{login} may send as {grant}, whose domain is not served here.",
                        fix=f"add {grant.domain} to MAIL_DOMAINS, or remove it from "
                        f"data/domains/{domain}/senders",
                        subject=f"{login} {grant}",
                        seen=f"served: {', '.join(settings.domains)}",
                        why=_WHY_NOBODY,
                    )


def _service(context: CheckContext) -> Iterator[Finding]:
    try:
        answer = context.machine.policy("alarms")
    except UnreachableError as error:
        yield Finding(
            id="policy-down",
            level=Level.FAIL,
            message="The policy service does not answer.",
            fix="it starts again by itself; if it does not:\ndocker compose restart",
            seen=str(error),
            why=_WHY_DOWN,
        )
        return
    alarms, notes = list(map(str, answer.get("alarms", ()))), answer.get("notes", ())
    fixes = dict(answer.get("fixes", {}))
    for text in alarms:
        yield Finding(
            id="policy-alarm",
            level=Level.FAIL,
            message=text,
            fix="see why, and then:\ndocker exec mail list-senders",
            subject=text,
            seen="as the policy service says",
            why=_WHY_ALARM,
        )
    for text in map(str, notes):
        yield Finding(
            id="policy-note",
            level=Level.WARN,
            message=text,
            fix=fixes.get(text, "mend that program"),
            subject=text,
            seen="as the policy service says",
            why=_WHY_FULL if text in fixes else _WHY_NOTE,
        )
    if not alarms:
        yield Finding(
            id="policy",
            level=Level.INFO,
            message="Each message is judged before it is taken.",
            seen="the service answers, and nobody is paused",
            why=_WHY_DOWN,
        )
