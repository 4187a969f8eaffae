"""DKIM keys change hands: pending → active → retired. Each step may be its last; the next run
goes on from what is on the volume.

The old key signs until every authoritative server shows the new one, and its record must stand
for a week longer, for mail on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from entrypoint import apply, plan, reconcile, state
from entrypoint.addresses import Addresses
from entrypoint.dkim import Algorithm, DkimKey
from entrypoint.dns.lookup import Ask
from entrypoint.dns.records import Record
from entrypoint.dns.required import KEEP_RETIRED, dkim_record
from entrypoint.dns.verify import Status, Verdict, judge
from entrypoint.names import Domain
from entrypoint.paths import Paths
from entrypoint.rights import Ids
from entrypoint.settings import Settings
from entrypoint.state import DomainState, State, retired_name

Log = Callable[[str], None]
_NOWHERE = Addresses(None, None)  # a key's record depends on no address


def begin(settings: Settings, paths: Paths, ids: Ids, domain: Domain) -> tuple[DkimKey, ...]:
    """Make the next keys of a domain, if none are pending already; returns the pending ones."""
    with apply.edit_lock(paths, ids):
        today = datetime.now(UTC).date()
        apply.make(plan.next_keys(settings, state.load(paths), paths, domain, today), ids)
        reconcile.reconcile(settings, paths, ids)
        return state.load(paths).domain(domain).pending


def pending_records(current: State, domain: Domain) -> tuple[Record, ...]:
    return tuple(
        dkim_record(domain, key, "DKIM: the next public key.")
        for key in current.domain(domain).pending
    )


def shown(current: State, domain: Domain, ask: Ask) -> tuple[Verdict, ...]:
    """What the authoritative servers show of the pending keys."""
    return tuple(judge(record, _NOWHERE, ask) for record in pending_records(current, domain))


def advance(
    settings: Settings, paths: Paths, ids: Ids, ask: Ask, log: Log, now: datetime | None = None
) -> None:
    """One step of every domain's rotation, as far as DNS and time allow."""
    now = now or datetime.now(UTC)
    for domain in settings.domains:
        current = state.load(paths)
        have = current.domain(domain)
        verdicts = shown(current, domain, ask)
        if verdicts and all(verdict.status is Status.OK for verdict in verdicts):
            _activate(settings, paths, ids, domain, now)
            names = ", ".join(str(key.selector) for key in have.pending)
            log(f"{domain}: every name server shows the new DKIM key: {names} signs from now on")
        _forget(paths, ids, domain, now, log)


def _activate(settings: Settings, paths: Paths, ids: Ids, domain: Domain, now: datetime) -> None:
    """New keys sign, old ones stop. Killed in between, both sign until this runs again."""
    with apply.edit_lock(paths, ids):
        have = state.load(paths).domain(domain)
        for key in have.pending:
            apply.write(paths.domain(domain) / key.file_name, key.pem, ids)
        for key in replaced(have):
            folder = paths.retired(domain)
            apply.own_folder(folder, ids)
            if key.selector not in {item.selector for item, _ in have.retired}:
                apply.write(folder / retired_name(key, now), key.pem, ids)
            # The copy first: without the file it would be taken for a key that was lost.
            apply.remove(paths.good / domain / key.file_name)
            apply.remove(paths.domain(domain) / key.file_name)
        for key in have.pending:
            apply.remove(paths.pending(domain) / key.file_name)
        _, outcome = reconcile.reconcile(settings, paths, ids)
    reconcile.serve(paths, outcome.effect)


def replaced(have: DomainState) -> tuple[DkimKey, ...]:
    """The active keys that the pending ones replace: those of the same algorithms."""
    algorithms: set[Algorithm] = {key.algorithm for key in have.pending}
    new = {key.selector for key in have.pending}
    return tuple(
        key for key in have.keys if key.algorithm in algorithms and key.selector not in new
    )


def _forget(paths: Paths, ids: Ids, domain: Domain, now: datetime, log: Log) -> None:
    """Remove keys whose time is over; what is left of them in DNS is the owner's to remove."""
    for key, when in state.load(paths).domain(domain).retired:
        if now < when + KEEP_RETIRED:
            continue
        with apply.edit_lock(paths, ids):
            apply.remove(paths.retired(domain) / retired_name(key, when))
        log(
            f"{domain}: the DKIM key {key.selector} is history; its record "
            f"{key.selector}._domainkey.{domain} may be removed from DNS"
        )
