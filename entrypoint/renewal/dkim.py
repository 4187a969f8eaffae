"""Rotation of a domain's DKIM keys: pending → active → retired.

Each step may be its last: the next run goes on from what is on the volume.

The old key signs until every authoritative server shows the new one, and its record must stand
for a week longer, for mail on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime

from entrypoint.common import locks
from entrypoint.common.identity import Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import apply, plan, reconcile
from entrypoint.dns.authoritative import Ask
from entrypoint.dns.records import Record
from entrypoint.keys.dkim import DkimKey
from entrypoint.settings.model import Settings
from entrypoint.state import edited, load
from entrypoint.state.load import DomainState, State, retired_name
from entrypoint.zone.judge import Status, Verdict, judge
from entrypoint.zone.required import KEEP_RETIRED, Addresses, dkim_record

Log = Callable[[str], None]
_NOWHERE = Addresses(None, None)  # a key's record depends on no address


def begin(settings: Settings, paths: Paths, ids: Ids, domain: Domain) -> tuple[DkimKey, ...]:
    """Make the next keys of a domain, if none are pending already; returns the pending ones."""
    with locks.edit_lock(paths, ids):
        today = datetime.now(UTC).date()
        apply.make(plan.next_keys(settings, load.load(paths), paths, domain, today), ids)
        reconcile.reconcile(settings, paths, ids)
        return load.load(paths).domain(domain).pending


def pending_records(current: State, domain: Domain) -> tuple[Record, ...]:
    """What must stand in DNS before the pending keys may sign: empty without a change under way."""
    return tuple(
        dkim_record(domain, key, "DKIM: the next public key.")
        for key in current.domain(domain).pending
    )


def shown(current: State, domain: Domain, ask: Ask) -> tuple[Verdict, ...]:
    """What the authoritative servers show of the pending keys: all of them, or it is unknown."""
    return tuple(
        judge(record, _NOWHERE, ask, every=True) for record in pending_records(current, domain)
    )


def advance(
    settings: Settings, paths: Paths, ids: Ids, ask: Ask, log: Log, now: datetime | None = None
) -> None:
    """One step of every domain's rotation, as far as DNS and time allow."""
    now = now or datetime.now(UTC)
    for domain in settings.domains:
        current = load.load(paths)
        verdicts = shown(current, domain, ask)
        if verdicts and all(verdict.status is Status.OK for verdict in verdicts):
            seen = current.domain(domain).pending
            names = _activate(settings, paths, ids, domain, seen, now)
            if names:
                log(
                    f"{domain}: every name server shows the new DKIM key; from now on mail is "
                    f"signed with {' and '.join(names)}"
                )
        _forget(paths, ids, domain, now, log)


def _activate(
    settings: Settings,
    paths: Paths,
    ids: Ids,
    domain: Domain,
    seen: Collection[DkimKey],
    now: datetime,
) -> list[str]:
    """New keys sign, old ones stop. Killed in between, both sign until this runs again.

    What is pending goes last, so that until all else is done this does run again. Returns
    the selectors of the keys that changed hands: those that were `seen` and are still pending.
    """
    with locks.edit_lock(paths, ids):
        have = load.load(paths).domain(domain)
        new = [key for key in have.pending if key in seen]
        if not new:
            return []
        for key in new:
            apply.write(paths.domain(domain) / key.file_name, key.pem, ids)
        folder = paths.retired(domain)
        apply.own_folder(folder, ids)
        for torn in folder.glob(".*.new"):  # of one that was killed, whose names had another time
            apply.remove(torn)
        for key in _replaced(have, new):
            if key.selector not in {item.selector for item, _ in have.retired}:
                apply.write(folder / retired_name(key, now), key.pem, ids)
            edited.remove(paths, paths.domain(domain) / key.file_name)
        _, outcome = reconcile.reconcile(settings, paths, ids)
    reconcile.serve(paths, ids, outcome.effect)
    reconcile.serve_pending(paths, ids)  # if whoever did all of this before was killed right here
    with locks.edit_lock(paths, ids):
        for key in new:
            apply.remove(paths.pending(domain) / key.file_name)
    return [str(key.selector) for key in new]


def _replaced(have: DomainState, new: Collection[DkimKey]) -> list[DkimKey]:
    """The active keys that new ones replace: those of the same algorithms."""
    algorithms = {key.algorithm for key in new}
    selectors = {key.selector for key in new}
    return [
        key for key in have.keys if key.algorithm in algorithms and key.selector not in selectors
    ]


def _forget(paths: Paths, ids: Ids, domain: Domain, now: datetime, log: Log) -> None:
    """Remove keys whose time is over; what is left of them in DNS is the owner's to remove."""
    for key, when in load.load(paths).domain(domain).retired:
        if now < when + KEEP_RETIRED:
            continue
        with locks.edit_lock(paths, ids):
            apply.remove(paths.retired(domain) / retired_name(key, when))
        log(
            f"{domain}: the DKIM key {key.selector} is history; its record "
            f"{key.selector}._domainkey.{domain} may be removed from DNS"
        )
