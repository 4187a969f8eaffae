"""Do DNS's answers mean what they must? Judged by meaning, never by text. Pure but for `ask`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

from entrypoint.addresses import Addresses
from entrypoint.dns import spfcheck
from entrypoint.dns.lookup import Absent, Answer, Ask, Unknown
from entrypoint.dns.policies import DkimRecord, Dmarc, Spf, TlsRpt
from entrypoint.dns.records import Record, RecordType, Role

_THREADS = 16


class Status(Enum):
    OK = "ok"
    MISSING = "missing"
    DIFFERENT = "different"
    UNKNOWN = "unknown"  # nobody could say: neither right nor wrong


@dataclass(frozen=True)
class Verdict:
    """What was found for one record. `fix` is what to enter, or to do; `note` is worth knowing."""

    record: Record
    status: Status
    found: tuple[str, ...] = ()
    reason: str = ""
    fix: str = ""
    note: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether something must be done about it."""
        return self.status in (Status.MISSING, Status.DIFFERENT) and not self.record.optional


def check(records: Sequence[Record], addresses: Addresses, ask: Ask) -> list[Verdict]:
    """A verdict for each record, in order. Asks in parallel."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda record: judge(record, addresses, ask), records))


def judge(record: Record, addresses: Addresses, ask: Ask) -> Verdict:
    """Every authoritative server must have it right: a resolver may ask any of them."""
    if record.value is None or record.name.startswith("("):
        reason = "this server's public address is not known"
        fix = "set PUBLIC_IPV4 or PUBLIC_IPV6 in .env"
        return Verdict(record, Status.UNKNOWN, reason=reason, fix=fix)
    answers = ask(record.name, record.type.value)
    verdicts = {
        server: _judge_one(record, answer, addresses, ask) for server, answer in answers.items()
    }
    known = {name: item for name, item in verdicts.items() if item.status is not Status.UNKNOWN}
    if not known:
        return next(iter(verdicts.values()))
    worst = max(known.values(), key=lambda item: _RANK[item.status])
    if len({item.status for item in known.values()}) == 1:
        return worst
    behind = [name for name, item in known.items() if item.status is not Status.OK]
    fine = [name for name, item in known.items() if item.status is Status.OK]
    return Verdict(
        record,
        worst.status,
        worst.found,
        f"{', '.join(behind)} does not have it right, {', '.join(fine)} does",
        "wait some minutes: the name servers of the zone are not all up to date",
    )


_RANK = {Status.OK: 0, Status.UNKNOWN: 0, Status.DIFFERENT: 1, Status.MISSING: 2}


def _judge_one(record: Record, answer: Answer, addresses: Addresses, ask: Ask) -> Verdict:
    if isinstance(answer, Unknown):
        return Verdict(record, Status.UNKNOWN, reason=answer.reason)
    if isinstance(answer, Absent):
        return Verdict(record, Status.MISSING, fix=_enter(record))
    values = answer.values
    match record.role:
        case Role.ADDRESS:
            return _address(record, values)
        case Role.POINTER:
            return _pointer(record, values)
        case Role.EXCHANGER:
            return _exchanger(record, values)
        case Role.SERVICE:
            return _service(record, values)
        case Role.SPF:
            return _spf(record, values, addresses, ask)
        case Role.DKIM:
            return _dkim(record, values)
        case Role.DMARC:
            return _dmarc(record, values)
        case Role.REPORTS:
            return _reports(record, values)
        case Role.TLSRPT:
            return _tlsrpt(record, values)


def _enter(record: Record) -> str:
    if record.type is RecordType.PTR:
        return f"set the reverse DNS to {record.value} at the server's provider"
    return f"enter it: {record.relative_name} {record.type.value} {record.value}"


def _different(record: Record, found: Iterable[str], reason: str, fix: str = "") -> Verdict:
    fix = fix or _enter(record).replace("enter it", "change it to", 1)
    return Verdict(record, Status.DIFFERENT, tuple(found), reason, fix)


def _address(record: Record, values: tuple[str, ...]) -> Verdict:
    if record.value not in values:
        return _different(record, values, "it points to another machine")
    others = [value for value in values if value != record.value]
    note = f"it also points to {', '.join(others)}, from which mail must then be sent too"
    return Verdict(record, Status.OK, values, note=note if others else "")


def _pointer(record: Record, values: tuple[str, ...]) -> Verdict:
    names = [value.lower() for value in values]
    if record.value not in names:
        return _different(record, values, "it names another host", _enter(record))
    note = "several names: some receivers look at the first alone" if len(names) > 1 else ""
    return Verdict(record, Status.OK, values, note=note)


def _exchanger(record: Record, values: tuple[str, ...]) -> Verdict:
    hosts = {}
    for value in values:
        preference, _, host = value.partition(" ")
        hosts[host.lower()] = int(preference)
    ours = (record.value or "").partition(" ")[2]
    if set(hosts) == {"."}:
        return _different(record, values, "a null MX: it says that the domain takes no mail")
    if ours not in hosts:
        return _different(
            record, values, "mail goes to another server",
            f"{_enter(record)}, and remove the others; or, if that provider is to keep the "
            "domain's mail, leave the domain out of MAIL_RECEIVE",
        )  # fmt: skip
    others = sorted(host for host in hosts if host != ours)
    note = f"{', '.join(others)} also takes mail for the domain" if others else ""
    return Verdict(record, Status.OK, values, note=note)


def _service(record: Record, values: tuple[str, ...]) -> Verdict:
    def end(value: str) -> list[str]:
        return value.lower().split()[2:]  # port and host; priority and weight are free

    if not any(end(value) == end(record.value or "") for value in values):
        return _different(record, values, "it names another port or host")
    return Verdict(record, Status.OK, values)


def _spf(record: Record, values: tuple[str, ...], addresses: Addresses, ask: Ask) -> Verdict:
    found = [value for value in values if Spf.is_one(value)]
    if not found:
        garbled = next((value for value in values if "v=spf1" in value.lower()), None)
        if garbled:
            return _different(
                record, (garbled,), "it does not begin with v=spf1; are there quotes?"
            )
        return Verdict(record, Status.MISSING, fix=_enter(record))
    if len(found) > 1:
        merged = _merged(found, record)
        return _different(
            record, found, "several SPF records: receivers then take none of them",
            f"replace them by one: {merged}",
        )  # fmt: skip
    [text] = found
    parsed = Spf.parse(text)
    if parsed.all in ("+all", "all"):
        return _different(
            record, found, "it lets every server in the world send for the domain",
            f"change it to: {Spf(parsed.terms, '~all')}",
        )  # fmt: skip
    for address in (addresses.ipv4, addresses.ipv6):
        if address is None:
            continue
        result, reason = spfcheck.evaluate(str(address), record.name, ask)
        if result == "pass":
            continue
        if result == "temperror":
            return Verdict(record, Status.UNKNOWN, tuple(found), reason)
        if result == "permerror":
            return _different(
                record, found, f"receivers cannot use it: {reason}", _mend(reason, record)
            )
        return _different(
            record, found, f"mail from {address} gets {result}, not pass",
            f"change it to: {_merged(found, record)}",
        )  # fmt: skip
    return Verdict(record, Status.OK, tuple(found))


def _merged(found: Sequence[str], record: Record) -> Spf:
    """One record that passes all that the owner's pass, and what ours does; the owner's ending."""
    terms: dict[str, None] = {}
    ending = ""
    for text in found:
        parsed = Spf.parse(text)
        terms.update(dict.fromkeys(parsed.terms))
        ending = ending or parsed.all
    ours = Spf.parse(record.value or "")
    # `a` and `mx` of ours would be the owner's to decide: what we need is the include.
    terms.update(dict.fromkeys(term for term in ours.terms if term.startswith(("include:", "a"))))
    return Spf(tuple(terms), ours.all if ending in ("", "+all", "all") else ending)


def _mend(reason: str, record: Record) -> str:
    if re.search(r"(?i)too many|void", reason):
        return (
            "take out includes that are no longer used; each include, a, mx and redirect is a "
            "look-up, and ten are the limit (RFC 7208 4.6.4)"
        )
    return f"mend it; it may read: {record.value}"


def _dkim(record: Record, values: tuple[str, ...]) -> Verdict:
    expected = DkimRecord.parse(record.value or "")
    found = [value for value in values if "p=" in value or "DKIM1" in value]
    if not found:
        return Verdict(record, Status.MISSING, fix=_enter(record))
    if len(found) > 1 or len(values) > 1:
        return _different(
            record, values, "several records at one selector: verifiers may take any of them",
            f"leave one, whole: {record.value}",
        )  # fmt: skip
    [text] = found
    for sign, what in (('"', "quotes"), ("\\", "backslashes")):
        if sign in text:
            return _different(record, found, f"the console has put {what} into the text")
    try:
        parsed = DkimRecord.parse(text)
    except ValueError as error:
        return _different(record, found, f"verifiers cannot read it: {error}")
    if not parsed.public:
        return _different(record, found, "the key is empty, which means: revoked")
    if parsed.public != expected.public or parsed.key_type != expected.key_type:
        short = expected.public.startswith(parsed.public) or parsed.public in expected.public
        reason = "the key is cut off" if short else "it is another key"
        return _different(record, found, reason)
    flags = re.search(r"(?:^|;)\s*t\s*=\s*([a-z:]*)", text)
    note = "t=y says that this is a test: some receivers then ignore it"
    return Verdict(
        record, Status.OK, tuple(found),
        note=note if flags and "y" in flags[1].split(":") else "",
    )  # fmt: skip


def _dmarc(record: Record, values: tuple[str, ...]) -> Verdict:
    expected = Dmarc.parse(record.value or "")
    found = [value for value in values if Dmarc.is_one(value)]
    if not found:
        garbled = next((value for value in values if "DMARC" in value.upper()), None)
        if garbled:
            return _different(record, (garbled,), "it does not begin with v=DMARC1")
        return Verdict(record, Status.MISSING, fix=_enter(record))
    if len(found) > 1:
        return _different(
            record, found, "several DMARC records: receivers then take none of them",
            f"leave one: {record.value}",
        )  # fmt: skip
    try:
        parsed = Dmarc.parse(found[0])
    except ValueError as error:
        return _different(record, found, f"receivers cannot read it: {error}")
    if parsed.policy != expected.policy:
        return _different(
            record, found, f"the policy is {parsed.policy}, not {expected.policy}",
            f"change it to: {record.value}; or set DMARC_POLICY={parsed.policy} in .env",
        )  # fmt: skip
    missing = [address for address in expected.rua if address not in parsed.rua]
    if missing:
        return _different(record, found, f"reports do not go to {', '.join(missing)}")
    return Verdict(record, Status.OK, tuple(found))


def _reports(record: Record, values: tuple[str, ...]) -> Verdict:
    if not any(Dmarc.is_one(value) for value in values):
        return Verdict(record, Status.MISSING, values, fix=_enter(record))
    return Verdict(record, Status.OK, values)


def _tlsrpt(record: Record, values: tuple[str, ...]) -> Verdict:
    for value in values:
        try:
            TlsRpt.parse(value)
        except ValueError:
            continue
        return Verdict(record, Status.OK, values)
    return Verdict(record, Status.MISSING, values, fix=_enter(record))
