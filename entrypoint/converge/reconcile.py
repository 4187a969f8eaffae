"""State → Plan → apply: the one way in which anything on disk or in chasquid changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from entrypoint.common import locks, rpc
from entrypoint.common.errors import UserError
from entrypoint.common.findings import Finding, Level
from entrypoint.common.identity import Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import apply, pending, plan
from entrypoint.converge.pending import Ledger, Pending
from entrypoint.converge.plan import Effect
from entrypoint.dns import authoritative
from entrypoint.dns.authoritative import Absent, Found, Unknown
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import State

_SHORT = 5.0  # seconds
_SETTLE_WAIT = 2.0  # seconds

Exchangers = Callable[[Domain], Found[Domain] | Absent | Unknown]


def reconcile(settings: Settings, paths: Paths, ids: Ids) -> tuple[State, apply.Outcome]:
    """Bring the disk to what settings and volume ask for. Caller holds the edit lock."""
    for domain in settings.domains:
        # One that is gone with its folder is as gone as without: its good copies serve, and no new
        # key is made.
        apply.own_folder(paths.domain(domain), ids)
    current = load.load(paths)
    missing = plan.missing(settings, current, paths, datetime.now(UTC).date())
    made = apply.make(missing, ids)
    if made:
        current = load.load(paths)
    outcome = apply.apply(plan.build(settings, current, paths), ids, Ledger(paths, ids))
    return current, apply.Outcome((*made, *outcome.changed), outcome.effect)


def serve(paths: Paths, ids: Ids, effect: Effect) -> str:
    """Tell the socket holder what chasquid needs, and wait until it has it.

    Returns an empty string, or what to tell the person if the change is not in service yet. Caller
    does not hold the edit lock.
    """
    if effect is Effect.NONE:
        return ""
    left = _pending(paths, ids)
    try:
        command = "restart" if effect is Effect.RESTART else "reload"
        answer = rpc.request(paths.holder_socket, command)
    except rpc.AbsentError:
        _settle(paths, ids, left, Effect.RESTART)
        return "The mail server is not running; it will know this when it starts."
    except rpc.UnreachableError as error:
        return f"The mail server does not answer ({error}); it is told again in a minute."
    # Done or not: a chasquid that is not ready yet reads everything when it starts.
    _settle(paths, ids, left, effect)
    if not answer.get("done"):
        return f"chasquid has not taken it over yet; it said last: {answer.get('last_words')}"
    return ""


def serve_pending(paths: Paths, ids: Ids) -> Effect:
    """Tell chasquid of changes whose maker was killed before. Returns what it was told."""
    left = pending.read(paths)
    if not left or not left.is_abandoned():
        return Effect.NONE
    return Effect.NONE if serve(paths, ids, left.effect) else left.effect


def _pending(paths: Paths, ids: Ids) -> Pending | None:
    # Without the lock somebody may be half way through a change. It is worth a short wait alone:
    # what is not struck out is done twice.
    with suppress(UserError), locks.edit_lock(paths, ids, _SHORT):
        return pending.read(paths)
    return None


def _settle(paths: Paths, ids: Ids, left: Pending | None, served: Effect) -> None:
    with suppress(UserError), locks.edit_lock(paths, ids, _SHORT):
        pending.settle(paths, left, served)


def refresh_exchangers(
    settings: Settings, paths: Paths, ids: Ids, ask: Exchangers = authoritative.exchangers
) -> tuple[Finding, ...]:
    """Look up the real MX of each domain that receives elsewhere, and keep it on the volume.

    An unknown answer keeps what was known. Caller holds no lock; this takes it to write.
    """
    elsewhere = [domain for domain in settings.domains if domain not in settings.receiving]
    if not elsewhere:
        return ()
    known = dict(load.load(paths).exchangers)
    findings = []
    for domain in elsewhere:
        match ask(domain):
            case Found(servers):
                others = tuple(name for name in servers if name != settings.mail_hostname)
                if not others:
                    findings.append(_points_here(settings, domain))
                    continue
                known[domain] = others
            case Absent():
                known[domain] = ()
            case Unknown(reason):
                findings.append(_unknown(domain, reason, kept=domain in known))
    content = json.dumps({domain: list(known[domain]) for domain in sorted(known)}, indent=1)
    with locks.edit_lock(paths, ids):
        apply.write(paths.mx, content.encode(), ids)
    return tuple(findings)


def _points_here(settings: Settings, domain: Domain) -> Finding:
    return Finding(
        id="mx-points-here",
        level=Level.FAIL,
        message=f"The MX of {domain} is {settings.mail_hostname}, this server, but {domain} is "
        "not one of MAIL_RECEIVE: mail to it is refused for now (451).",
        fix=f"add {domain} to MAIL_RECEIVE, or point its MX at its mailbox provider",
        subject=domain,
    )


def _unknown(domain: Domain, reason: str, *, kept: bool) -> Finding:
    serves = "the one seen last is used" if kept else "mail to it is refused for now (451)"
    return Finding(
        id="mx-unknown",
        level=Level.WARN,
        message=f"The MX of {domain} could not be looked up ({reason}); {serves}.",
        fix="look at the name servers in /etc/resolv.conf of this host",
        subject=domain,
    )


def settle(paths: Paths) -> None:
    """Tell the policy service that chasquid has the users: who logged in before by a password that
    was changed must log in again. If it is down, the time of its rules stands for that."""
    with suppress(rpc.UnreachableError):
        rpc.request(paths.policy_door, "served", timeout=_SETTLE_WAIT)
