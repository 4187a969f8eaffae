"""What would have to change in DNS, what of it may be changed by a program, and changing it.

A record is the owner's unless it is known to be ours, and what is not ours is never changed. Ours
are:

- a DKIM record, or what a console made of one, at a selector of ours;
- the SPF record at `_spf` of a domain, if it names hosts (`a:`) and nothing else; hosts that have
  an address stay in it, for they may be another server of the owner's;
- a DMARC record in the very form that we write, whose reports come to an address of ours.

All else is added where nothing of its kind stands, or left to be done by hand: an SPF record of the
owner's is to be merged, an MX is never put beside others, and an A or AAAA only beside those of
this very server.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain, groupby, repeat
from pathlib import Path

import dns.exception
import dns.resolver

from entrypoint.common.names import Address, Domain, is_public_suffix
from entrypoint.dns.authoritative import Absent, Answer, Answers, Ask, Found, Unknown
from entrypoint.dns.policies import DkimRecord, Dmarc, Spf
from entrypoint.dns.records import Record, RecordType, Role
from entrypoint.zone import judge, lexicon
from entrypoint.zone.judge import Status, Verdict
from entrypoint.zone.lexicon import ProviderError, Session, TooLateError
from entrypoint.zone.providers import Account, NoAccount
from entrypoint.zone.required import Addresses

_THREADS = 16
_PAUSES = (1.0, 1.0, 2.0, 3.0, 5.0, 10.0)  # seconds between looks at DNS; the last one repeats
# A label that nobody uses: what DNS says of it comes from a wildcard.
_NOBODY = "tambo-looks-for-wildcards"

FindZone = Callable[[str], "str | Unknown"]
FindAccount = Callable[[Domain], "Account | NoAccount"]
Tell = Callable[[str], None]


class Action(Enum):
    """What to do about a record. HAND: a program must not, or cannot."""

    ADD = "add"
    CHANGE = "change"
    LEAVE = "leave"  # optional, and another's stands there: nothing to do
    HAND = "by hand"
    WAIT = "wait"  # not known, or on its way: look again later


@dataclass(frozen=True)
class Step:
    """What to do about one record.

    `old` are exact values of ours that go, `kept` the others' at the same name and type, which
    stay; `beside` are more of ours that may stand there. `new` is what comes; None if only
    something has to go. What could be done by a program, but not here, has a `remedy` for that.
    """

    verdict: Verdict
    action: Action
    old: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    new: str | None = None
    reason: str = ""
    fix: str = ""
    remedy: str = ""
    zone: str = ""
    account: Account | None = None
    beside: tuple[str, ...] = ()

    @property
    def record(self) -> Record:
        """As it is to be."""
        return replace(self.verdict.record, value=self.new) if self.new else self.verdict.record

    @property
    def is_ours_to_do(self) -> bool:
        return self.action in (Action.ADD, Action.CHANGE)


@dataclass(frozen=True)
class Outcome:
    """What became of a step at the provider; `error` is empty if it took it."""

    step: Step
    error: str = ""


# --- the plan -------------------------------------------------------------------------------------


def plan(
    verdicts: Sequence[Verdict],
    host: Domain,
    addresses: Addresses,
    ask: Ask,
    find_zone: FindZone,
    find_account: FindAccount,
) -> tuple[Step, ...]:
    """A step for each record that is not as it must be, in order. Changes nothing."""
    ask = _remembering(ask)
    wrong = [verdict for verdict in verdicts if verdict.status is not Status.OK]
    with ThreadPoolExecutor(_THREADS) as pool:
        steps = list(pool.map(lambda item: _step(item, host, addresses, ask), wrong))
        zones = dict(
            zip(
                names := sorted({item.record.name for item in steps if item.is_ours_to_do}),
                pool.map(find_zone, names),
                strict=True,
            )
        )
    steps = [
        _placed(step, zones[step.record.name], find_account) if step.is_ours_to_do else step
        for step in steps
    ]
    # An SPF record that is right by itself, and fails for what it refers to, mends itself.
    rest = [step for step in steps if not _is_consequence(step)]
    has_cause = any(step.record.role in (Role.ADDRESS, Role.SPF) for step in rest)
    return tuple(rest if has_cause else steps)


def _step(verdict: Verdict, host: Domain, addresses: Addresses, ask: Ask) -> Step:
    record = verdict.record
    by_hand = Step(verdict, Action.HAND, reason=verdict.reason, fix=verdict.fix)
    if record.value is None or record.name.startswith("("):
        return by_hand
    if verdict.status is Status.UNKNOWN:
        return replace(by_hand, action=Action.WAIT)
    if record.zone is None:
        return by_hand
    answers = ask(record.name, record.type.value)
    if _is_right_somewhere(record, answers, addresses, ask):
        return replace(by_hand, action=Action.WAIT)
    found = _values(answers)
    alias = _values(ask(record.name, "CNAME"))
    kind, seen = ("CNAME", alias) if alias else (record.type.value, found)
    if record.name != record.zone and _is_wildcard(record.name, kind, seen, ask):
        reason = "what DNS shows at this name comes from a wildcard (*), which stays"
        return Step(verdict, Action.ADD, new=record.value, reason=reason)
    if alias:
        reason = f"the name is an alias (CNAME) of {alias[0]}, where it must be entered"
        return replace(by_hand, reason=reason, fix=f"{verdict.fix}; or remove the alias first")
    if verdict.status is Status.MISSING:
        if record.role is Role.TLSRPT and any("TLSRPT" in value for value in found):
            return replace(by_hand, action=Action.LEAVE, reason="there is another one")
        if record.role is Role.DKIM and found:
            return replace(by_hand, reason=f"another text stands there: {found[0][:80]}")
        return Step(
            verdict, Action.ADD, kept=found, beside=_beside(record, addresses), new=record.value
        )
    beside = _beside(record, addresses)
    if beside and {*found} <= {*beside}:
        return Step(verdict, Action.ADD, kept=found, beside=beside, new=record.value)
    replaced = _replacement(record, found, host, ask)
    if replaced:
        old, new, reason = replaced
        kept = tuple(value for value in found if value not in old)
        return Step(verdict, Action.CHANGE, old, kept, new, reason)
    return replace(by_hand, action=Action.LEAVE) if record.optional else by_hand


def _beside(record: Record, addresses: Addresses) -> tuple[str, ...]:
    """The other addresses of this server that belong at the same name."""
    if record.role is not Role.ADDRESS:
        return ()
    version = 6 if record.type is RecordType.AAAA else 4
    own = (str(item) for item in addresses.sources if item.version == version)
    return tuple(item for item in own if item != record.value)


def _replacement(
    record: Record, found: tuple[str, ...], host: Domain, ask: Ask
) -> tuple[tuple[str, ...], str | None, str] | None:
    """(values of ours that go, the one that comes, what to know of it), or None: not ours."""
    if record.role is Role.DKIM:
        return _dkim(record, found)
    if record.role is Role.SPF and record.name == f"_spf.{record.zone}":
        return _spf(record, found, ask)
    if record.role is Role.DMARC:
        return _dmarc(record, found, host)
    return None


def _dkim(record: Record, found: tuple[str, ...]) -> tuple[tuple[str, ...], str | None, str] | None:
    whole = "".join((record.value or "").split())

    def is_key(value: str) -> bool:
        """A key, or one of the pieces that a console has made of ours."""
        piece = "".join(value.split())
        other = re.match(r"\W*v\s*=\s*(?!DKIM1)", value)
        return ("p=" in value and not other) or (len(piece) > 20 and piece in whole)

    if not all(map(is_key, found)):
        return None
    right = [value for value in found if value == record.value]
    old = tuple(value for value in found if value not in right)
    reason = ""
    if any(_is_another_key(record, value) for value in old):
        reason = (
            "another key stands at this selector: what it signs will no longer verify; if another "
            "server uses it, give this one a DKIM_SELECTOR of its own"
        )
    return old, None if right else record.value, reason


def _is_another_key(record: Record, value: str) -> bool:
    expected = DkimRecord.parse(record.value or "")
    try:
        public = DkimRecord.parse(value).public
    except ValueError:
        return False
    return bool(public) and public not in expected.public


def _spf(
    record: Record, found: tuple[str, ...], ask: Ask
) -> tuple[tuple[str, ...], str | None, str] | None:
    """Ours is `v=spf1 a:HOST … ~all`: no right to send is taken from a host that exists."""
    old = [value for value in found if Spf.is_one(value)]
    ours = Spf.parse(record.value or "")
    if len(old) != 1 or not Spf.parse(old[0]).terms:
        return None
    terms = Spf.parse(old[0]).terms
    if str(Spf(terms, Spf.parse(old[0]).all)) != old[0]:
        return None
    if not all(term.startswith("a:") and "/" not in term for term in terms):
        return None
    others = tuple(
        term for term in terms if term not in ours.terms and _exists(term.removeprefix("a:"), ask)
    )
    new = str(Spf((*others, *ours.terms), ours.all))
    if new == old[0]:
        return None
    return (old[0],), new, "hosts that have an address keep their right to send" if others else ""


def _exists(name: str, ask: Ask) -> bool:
    """Whether a host has an address, or may have one."""
    answers = [*ask(name, "A").values(), *ask(name, "AAAA").values()]
    return any(not isinstance(answer, Absent) for answer in answers)


def _dmarc(
    record: Record, found: tuple[str, ...], host: Domain
) -> tuple[tuple[str, ...], str | None, str] | None:
    old = [value for value in found if Dmarc.is_one(value)]
    if len(old) != 1:
        return None
    expected = Dmarc.parse(record.value or "")
    try:
        parsed = Dmarc.parse(old[0])
    except ValueError:
        return None
    domain = record.name.removeprefix("_dmarc.")
    ours: set[Address] = {*expected.rua, *expected.ruf}
    ours |= {Address(f"{name}@{home}") for name in ("rua", "ruf") for home in (domain, host)}
    known = Dmarc(parsed.policy, parsed.failure_options, parsed.rua, parsed.ruf)
    if str(known) != old[0] or not parsed.rua or not ours.issuperset(parsed.rua + parsed.ruf):
        return None
    return (old[0],), record.value, ""


def _is_consequence(step: Step) -> bool:
    """Whether an SPF record has what it should, and is only wrong for what it refers to."""
    found = step.verdict.found
    if step.action is not Action.HAND or step.record.role is not Role.SPF or len(found) != 1:
        return False
    wanted = Spf.parse(step.record.value or "").terms
    needed = next((term for term in wanted if term.startswith("include:_spf.")), wanted[0])
    if not Spf.is_one(found[0]):
        return False
    parsed = Spf.parse(found[0])
    return needed in parsed.terms and parsed.all not in ("+all", "all")


def _placed(step: Step, zone: str | Unknown, find_account: FindAccount) -> Step:
    """The step with its zone and account; by hand if it cannot be done there."""
    record = step.record
    assert record.zone is not None  # noqa: S101 (a PTR is never ours to do)
    by_hand = replace(step, action=Action.HAND, fix=step.verdict.fix)
    if isinstance(zone, Unknown):
        return replace(step, action=Action.WAIT, reason=f"its zone is not known: {zone.reason}")
    outside = not record.zone.is_within(zone) and not zone.endswith(f".{record.zone}")
    if outside or is_public_suffix(zone):
        reason = f"DNS has no zone {record.zone}"
        remedy = "have it set up at a DNS provider, and its name servers entered at the registrar"
        return replace(by_hand, reason=reason, remedy=remedy)
    account = find_account(record.zone)
    step = replace(step, zone=zone)
    by_hand = replace(by_hand, zone=zone)
    if isinstance(account, NoAccount):
        return replace(by_hand, reason=account.reason, remedy=account.fix)
    driver = account.driver
    unable = f"dns-lexicon's driver for {driver.name} is not known to"
    if record.type not in driver.types:
        return replace(by_hand, reason=f"{unable} enter {record.type.value} records")
    if step.old and not driver.removes:
        return replace(by_hand, reason=f"{unable} change records")
    if (step.kept or step.beside) and not driver.beside:
        return replace(by_hand, reason=f"{unable} leave others beside it alone")
    return replace(step, account=account)


# --- what DNS says --------------------------------------------------------------------------------


def find_zone(name: str, timeout: float = 3.0) -> str | Unknown:
    """The zone that a name is in, by its SOA record; asked of the host's resolver."""
    try:
        resolver = dns.resolver.Resolver()
        zone = dns.resolver.zone_for_name(f"{name}.", resolver=resolver, lifetime=timeout)
    except (dns.exception.DNSException, OSError) as error:
        return Unknown(type(error).__name__)
    return zone.to_text(omit_final_dot=True).lower()


def _remembering(ask: Ask) -> Ask:
    """Each question once. Two threads may ask it twice: nobody minds."""
    known: dict[tuple[str, str], Answers] = {}

    def asked(name: str, kind: str) -> Answers:
        key = (name, kind)
        if key not in known:
            known[key] = ask(name, kind)
        return known[key]

    return asked


def _values(answers: Mapping[str, Answer]) -> tuple[str, ...]:
    """What any of the servers has."""
    found = (answer.values for answer in answers.values() if isinstance(answer, Found))
    return tuple(dict.fromkeys(value for values in found for value in values))


def _is_wildcard(name: str, kind: str, values: tuple[str, ...], ask: Ask) -> bool:
    """Whether a name has its values only from a wildcard: nothing stands at the name itself."""
    parent = name.partition(".")[2]
    return bool(values) and set(_values(ask(f"{_NOBODY}.{parent}", kind))) == set(values)


def _is_right_somewhere(record: Record, answers: Answers, addresses: Addresses, ask: Ask) -> bool:
    """Whether one of several servers has it right already."""
    if len(answers) < 2:
        return False

    def judged(server: str) -> Status:
        def only(name: str, kind: str) -> Answers:
            found = ask(name, kind)
            mine = (name, kind) == (record.name, record.type.value)
            return {server: found[server]} if mine else found

        return judge.judge(record, addresses, only).status

    return any(judged(server) is Status.OK for server in answers)


# --- the change -----------------------------------------------------------------------------------

# Addresses first, as others refer to them; what moves incoming mail comes last.
_ORDER = (Role.ADDRESS, Role.SPF, Role.DKIM, Role.REPORTS, Role.DMARC, Role.TLSRPT, Role.SERVICE,
          Role.EXCHANGER)  # fmt: skip


def apply(steps: Sequence[Step], tell: Tell, roots: Path | None = None) -> list[Outcome]:
    """Do what is ours to do, zone by zone. `roots`: certificate authorities, as in session.

    One that fails does not keep the others from being done.
    """
    mine = [step for step in steps if step.is_ours_to_do]
    outcomes: list[Outcome] = []
    for (zone, account), group in _by_zone(mine):
        assert account is not None  # noqa: S101 (what is ours to do has one)
        todo = sorted(group, key=_place)
        try:
            with lexicon.opened(account, zone, roots) as opened:
                outcomes += _do_all(opened, todo, tell)
        except ProviderError as error:
            outcomes += [Outcome(step, f"{account.driver.name}: {error}") for step in todo]
    return outcomes


def locked_out(steps: Sequence[Step], roots: Path | None = None) -> dict[str, str]:
    """By zone, why its provider would not let us change it. Changes nothing."""
    found = {}
    for (zone, account), _ in _by_zone([step for step in steps if step.is_ours_to_do]):
        assert account is not None  # noqa: S101 (what is ours to do has one)
        try:
            with lexicon.opened(account, zone, roots):
                pass
        except ProviderError as error:
            found[zone] = f"{account.driver.name}: {error}"
    return found


def _by_zone(
    steps: Sequence[Step],
) -> list[tuple[tuple[str, Account | None], list[Step]]]:
    def key(step: Step) -> tuple[str, str]:
        return step.zone, step.account.source if step.account else ""

    groups = [list(group) for _, group in groupby(sorted(steps, key=key), key=key)]
    return [((group[0].zone, group[0].account), group) for group in groups]


def _place(step: Step) -> tuple[int, bool, str]:
    """The domain's own SPF comes after the one that it includes."""
    record = step.record
    return _ORDER.index(record.role), record.name == record.zone, record.name


def _do_all(opened: Session, steps: Sequence[Step], tell: Tell) -> list[Outcome]:
    outcomes: list[Outcome] = []
    late = ""
    for step in steps:
        record = step.record
        error = late
        try:
            if not late:
                _do(opened, step)
        except ProviderError as problem:
            error = str(problem)
            late = error if isinstance(problem, TooLateError) else ""
        outcomes.append(Outcome(step, error))
        done = f"failed: {error}" if error else "changed" if step.old else "added"
        tell(f"{opened.zone}: {record.relative_name} {record.type.value}: {done}")
    return outcomes


def _do(opened: Session, step: Step) -> None:
    record = step.record
    held = opened.held(record)
    going = [item for item in held if item.value in step.old]
    staying = [item for item in held if item not in going]
    # DNS may not show yet what was entered a minute ago.
    rivals = [item.value for item in staying if _is_rival(record, item.value)]
    ours = [record, *(replace(record, value=value) for value in step.beside)]
    rivals = [value for value in rivals if not any(lexicon.is_same(r, value) for r in ours)]
    if step.new and rivals:
        msg = f"the provider has another one, which DNS does not show yet: {rivals[0][:80]}"
        raise ProviderError(msg)
    for item in going:
        opened.remove(record, item)
    if step.new and not any(lexicon.is_same(record, item.value) for item in staying):
        ttl = next((item.ttl for item in staying if item.ttl), record.ttl)
        try:
            opened.add(record, ttl)
        except ProviderError as error:
            _put_back(opened, record, going, error)
            raise


def _put_back(
    opened: Session, record: Record, gone: Sequence[lexicon.Held], error: ProviderError
) -> None:
    """Have what was there again, rather than nothing. Raises ProviderError if that fails too."""
    for item in gone:
        try:
            opened.add(replace(record, value=item.value), item.ttl or record.ttl)
        except ProviderError:
            msg = f"{error}; and what was removed could not be put back: {item.value}"
            raise ProviderError(msg) from error


def _is_rival(record: Record, value: str) -> bool:
    """Whether another value at the name is of the same kind, so that ours may not join it."""
    if record.type is not RecordType.TXT:
        return True
    return {
        Role.SPF: Spf.is_one(value),
        Role.DKIM: "p=" in value,
        Role.DMARC: Dmarc.is_one(value),
    }.get(record.role, False)


# --- afterwards -----------------------------------------------------------------------------------


def settle(
    records: Sequence[Record],
    addresses: Addresses,
    ask: Ask,
    done: Sequence[Step],
    seconds: float,
    tell: Tell,
) -> tuple[list[Verdict], list[Step]]:
    """Ask the authoritative servers until all of them show what was done, or `seconds` are over.

    Returns the last verdict on every record, and the steps that they do not show.
    """
    end = time.monotonic() + seconds
    pauses = chain(_PAUSES, repeat(_PAUSES[-1]))
    told = len(done) + 1
    while True:
        with ThreadPoolExecutor(_THREADS) as pool:
            shown = list(pool.map(lambda step: _is_served(step, ask), done))
        left = [step for step, is_shown in zip(done, shown, strict=True) if not is_shown]
        pause = next(pauses)
        if not left or time.monotonic() + pause > end:
            return judge.check(records, addresses, ask), left
        if len(left) < told:
            told = len(left)
            tell(f"waiting for the name servers to show {told} of {len(done)} records")
        time.sleep(pause)


def _is_served(step: Step, ask: Ask) -> bool:
    """Whether every name server that can be asked shows what was done."""
    record = step.record
    answers = ask(record.name, record.type.value).values()
    known = [answer for answer in answers if not isinstance(answer, Unknown)]
    return bool(known) and all(
        isinstance(answer, Found)
        and any(lexicon.is_same(record, lexicon.plain(record.type, v)) for v in answer.values)
        and not set(step.old) & set(answer.values)
        for answer in known
    )


def lost(steps: Sequence[Step], ask: Ask) -> list[tuple[Record, str]]:
    """Others' values that stood beside ours and that no name server shows any more."""
    found = []
    for step in steps:
        answers = ask(step.record.name, step.record.type.value) if step.kept else {}
        if answers and all(not isinstance(answer, Unknown) for answer in answers.values()):
            now = _values(answers)
            found += [(step.record, value) for value in step.kept if value not in now]
    return found
