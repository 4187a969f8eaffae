"""Do DNS's answers mean what they must? Judged by meaning, never by text. Pure but for `ask`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from ipaddress import ip_address
from itertools import permutations

from entrypoint.dns import spf
from entrypoint.dns.authoritative import Absent, Answer, Answers, Ask, Found, Unknown, one
from entrypoint.dns.policies import DkimRecord, Dmarc, Spf, TlsRpt, tags
from entrypoint.dns.records import Record, RecordType, Role
from entrypoint.zone.required import UNSEEN, Addresses

_THREADS = 16
# No server's address (RFC 1112 4): SPF that lets it in lets everybody in.
_NOBODY = "240.0.0.1"


class Status(Enum):
    """How what DNS says compares with what it must. DIFFERENT: there, and of another meaning."""

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
    """A verdict for each record, in order. Asks in parallel, the same thing once."""
    asked = cache(ask)
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda record: judge(record, addresses, asked), records))


def judge(record: Record, addresses: Addresses, ask: Ask, *, every: bool = False) -> Verdict:
    """Every authoritative server must have it right: a resolver may ask any of them.

    A server that cannot be asked is noted if the others have it right; with `every`, it makes the
    verdict unknown.
    """
    if record.value is None or record.name.startswith("("):
        if record.name.startswith(UNSEEN):
            return Verdict(
                record, Status.UNKNOWN,
                reason="no DNS echo says which public address others see for it",
                fix="docker exec mail doctor says whether this machine has the address at all",
            )  # fmt: skip
        is_6 = record.type is RecordType.AAAA or "IPv6" in record.name
        return _address_unknown(record, "6" if is_6 else "4")
    answers = ask(record.name, record.type.value)
    verdicts = {
        server: _judge_one(record, answer, addresses, ask) for server, answer in answers.items()
    }
    silent = [item for item in verdicts.values() if item.status is Status.UNKNOWN]
    fine = [server for server, item in verdicts.items() if item.status is Status.OK]
    behind = {server: item for server, item in verdicts.items() if item.status in _WRONG}
    if behind:
        worst = max(behind.values(), key=lambda item: item.status is Status.MISSING)
        return _not_everywhere(worst, behind, fine) if fine else worst
    if silent and (every or not fine):
        return silent[0]
    right = verdicts[fine[0]]
    if silent:
        note = f"not every name server could be asked: {silent[0].reason}"
        return replace(right, note=f"{right.note}; {note}" if right.note else note)
    return right


_WRONG = (Status.MISSING, Status.DIFFERENT)


def _not_everywhere(verdict: Verdict, behind: Iterable[str], fine: Iterable[str]) -> Verdict:
    return replace(
        verdict,
        reason=f"right at {', '.join(fine)}, but not at {', '.join(behind)}",
        fix="wait some minutes; if it stays so, ask the DNS provider why its servers differ",
    )


def _address_unknown(record: Record, version: str) -> Verdict:
    return Verdict(
        record,
        Status.UNKNOWN,
        reason=f"this server's public IPv{version} address is not known",
        fix=f"set PUBLIC_IPV{version} in .env",
    )


def _judge_one(record: Record, answer: Answer, addresses: Addresses, ask: Ask) -> Verdict:
    if isinstance(answer, Unknown):
        return Verdict(record, Status.UNKNOWN, reason=answer.reason)
    if isinstance(answer, Absent):
        return _missing(record)
    values = answer.values
    match record.role:
        case Role.ADDRESS:
            return _address(record, values, addresses, ask)
        case Role.POINTER:
            return _pointer(record, values, addresses, ask)
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


def _missing(record: Record) -> Verdict:
    """Other records may stand at the same name; they are no news."""
    if record.type is RecordType.PTR:
        return Verdict(record, Status.MISSING, fix=_set_pointer(record))
    return Verdict(record, Status.MISSING, fix=f"enter in {record.zone}: {_entry(record)}")


def _entry(record: Record) -> str:
    return f"{record.relative_name} {record.type.value} {record.value}"


def _set_pointer(record: Record) -> str:
    return f"set the reverse DNS to {record.value} at the server's provider"


def _different(record: Record, found: Iterable[str], reason: str, fix: str = "") -> Verdict:
    fix = fix or f"change it in {record.zone} to: {_entry(record)}"
    return Verdict(record, Status.DIFFERENT, tuple(found), reason, fix)


def _address(record: Record, values: tuple[str, ...], addresses: Addresses, ask: Ask) -> Verdict:
    own = {str(item) for item in addresses.sources}
    if record.value not in values:
        if _is_further(record.value, addresses):
            return _unlisted(record, values, ask)
        if own & {*values}:
            reason = "it does not lead to this address of the server"
            return _different(record, values, reason, f"add in {record.zone}: {_entry(record)}")
        return _different(record, values, "it points to another machine")
    others = [value for value in values if value not in own]
    note = f"it also points to {', '.join(others)}: mail and logins go there too"
    return Verdict(record, Status.OK, values, note=note if others else "")


def _is_further(value: str | None, addresses: Addresses) -> bool:
    return value in {str(item) for item in addresses.further}


def _unlisted(record: Record, values: tuple[str, ...], ask: Ask) -> Verdict:
    """Mail leaves from this address, and the host's name does not lead to it: so another has to."""
    pointer = ip_address(record.value or "").reverse_pointer
    answer = one(ask(pointer, "PTR"))
    if isinstance(answer, Unknown):
        return Verdict(record, Status.UNKNOWN, reason=f"its PTR is not known: {answer.reason}")
    names = answer.values if isinstance(answer, Found) else ()
    name = _leading_back(names, record.value or "", ask)
    if name:
        note = f"it does not lead to {record.value}, whose own name is {name}"
        return Verdict(record, Status.OK, values, note=note)
    return _different(
        record, values, f"it does not lead to {record.value}, from which mail leaves too",
        f"add in {record.zone}: {_entry(record)}",
    )  # fmt: skip


def _leading_back(names: Iterable[str], address: str, ask: Ask) -> str:
    """The first of an address's names that leads back to it (RFC 8601 2.7.3); else empty."""
    for name in names:
        host = name.lower().removesuffix(".")
        answer = one(ask(host, "AAAA" if ":" in address else "A"))
        if isinstance(answer, Found) and address in answer.values:
            return host
    return ""


def _pointer(record: Record, values: tuple[str, ...], addresses: Addresses, ask: Ask) -> Verdict:
    names = [value.lower() for value in values]
    if record.value not in names:
        further = (item for item in addresses.further if item.reverse_pointer == record.name)
        address = next(map(str, further), "")
        own = _leading_back(names, address, ask) if address else ""
        if own:
            host = (record.value or "").removesuffix(".")
            note = f"{own} leads back, but the server greets as {host}: some receivers compare them"
            return Verdict(record, Status.OK, values, note=note)
        return _different(record, values, "it names another host", _set_pointer(record))
    note = "several names: some receivers look at one of them alone" if len(names) > 1 else ""
    return Verdict(record, Status.OK, values, note=note)


def _exchanger(record: Record, values: tuple[str, ...]) -> Verdict:
    hosts = {}  # with their preference: the lowest is tried first
    for value in values:
        preference, _, host = value.lower().partition(" ")
        hosts[host] = int(preference) if preference.isdecimal() else 0
    ours = (record.value or "").partition(" ")[2]
    if ours not in hosts:
        null = set(hosts) == {"."}
        return _different(
            record, values,
            "it says that the domain takes no mail (a null MX)" if null
            else "mail goes to another server",
            "if that is to stay so, leave the domain out of MAIL_RECEIVE; else put in its place, "
            f"in {record.zone}: {_entry(record)}",
        )  # fmt: skip
    before = sorted(host for host in hosts if hosts[host] < hosts[ours])
    behind = sorted(host for host in hosts if host not in (ours, *before))
    notes = [f"mail goes to {_names(before)} first, as the number is lower"] if before else []
    notes += [f"mail also goes to {_names(behind)}"] if behind else []
    return Verdict(record, Status.OK, values, note="; ".join(notes))


def _names(hosts: Iterable[str]) -> str:
    return ", ".join(host.removesuffix(".") for host in hosts)


def _service(record: Record, values: tuple[str, ...]) -> Verdict:
    def end(value: str) -> list[str]:
        return value.lower().split()[2:]  # port and host; priority and weight are free

    if not any(end(value) == end(record.value or "") for value in values):
        return _different(record, values, "it names another port or host")
    return Verdict(record, Status.OK, values)


def _spf(record: Record, values: tuple[str, ...], addresses: Addresses, ask: Ask) -> Verdict:
    found = [value for value in values if Spf.is_one(value)]
    if not found:
        return _no_spf(record, values)
    change = _change(record, _merged(found, record))
    if len(found) > 1:
        return _different(
            record, found, "several SPF records: receivers then take none of them",
            f"replace them by one, in {record.zone}: "
            f"{record.relative_name} TXT {_merged(found, record)}",
        )  # fmt: skip
    if Spf.parse(found[0]).lets_all_in:
        return _different(record, found, _OPEN, change)

    def with_these(name: str, kind: str) -> Answers:
        # What this server says of the record: the others may say something else.
        mine = (name, kind) == (record.name, "TXT")
        return {"it": Found(values)} if mine else ask(name, kind)

    ours = _as_we_are_seen(record, found, addresses, with_these)
    return ours or _as_others_see_it(record, found, with_these)


def _no_spf(record: Record, values: tuple[str, ...]) -> Verdict:
    garbled = next((value for value in values if "v=spf1" in value.lower()), None)
    if garbled:
        return _different(
            record, (garbled,),
            "it must begin with v=spf1 and a space, with nothing before: no quotes, no space",
            _change(record, _merged(_meant(garbled), record)),
        )  # fmt: skip
    return _missing(record)


def _as_we_are_seen(
    record: Record, found: list[str], addresses: Addresses, ask: Ask
) -> Verdict | None:
    """What receivers make of mail from this server's addresses; None if each of them passes."""
    change = _change(record, _merged(found, record))
    unknown: Verdict | None = None
    for version, used, address in (
        ("4", addresses.has_ipv4, addresses.ipv4),
        ("6", addresses.has_ipv6, addresses.ipv6),
    ):
        if used and address is None:
            unknown = unknown or _address_unknown(record, version)
    for source in addresses.sources:
        result, reason = spf.evaluate(str(source), record.name, ask)
        if result == "temperror":
            reason = f"what it refers to could not be looked up: {reason}"
            unknown = unknown or Verdict(record, Status.UNKNOWN, reason=reason)
        elif result == "permerror":
            reason, fix = _explained(reason, found[0], record)
            return _different(record, found, f"receivers cannot use it: {reason}", fix)
        elif result != "pass":
            if _is_complete(found[0], record):
                change = _leave_it(record)
                if source in addresses.further and not _key_term(record).startswith("include:"):
                    change += f"; or add ip{source.version}:{source} to it, at the front"
            reason = f"mail from {source} gets {result}, not pass"
            return _different(record, found, reason, change)
    return unknown


def _change(record: Record, to: Spf) -> str:
    return f"change it in {record.zone} to: {record.relative_name} TXT {to}"


def _meant(garbled: str) -> list[str]:
    """The SPF record that somebody wanted to enter, if it can be made out."""
    text = garbled[garbled.lower().index("v=spf1") :]
    text = re.sub(r"[\s\"',;]+", " ", text).strip()
    return [text] if Spf.is_one(text) else []


_OPEN = "it lets every server in the world send for the domain"


def _as_others_see_it(record: Record, found: list[str], ask: Ask) -> Verdict:
    """What a good record says of servers that are not in it."""
    result, reason = spf.evaluate(_NOBODY, record.name, ask)
    if result == "pass":
        fix = "take out the term that matches every address, or the include that has one"
        return _different(record, found, _OPEN, fix)
    note = ""
    if result == "permerror":
        reason, fix = _explained(reason, found[0], record)
        note = f"mail from other servers in it may fail: {reason}; {fix}"
    elif result == "neutral":
        note = "it says nothing against other servers: let it end in ~all"
    return Verdict(record, Status.OK, tuple(found), note=note)


def _key_term(record: Record) -> str:
    """The term of ours by which our mail passes: `include:_spf.…`, `a:…` or `a`."""
    terms = Spf.parse(record.value or "").terms
    include = f"include:_spf.{record.zone}"
    return include if include in terms else terms[0]


def _is_complete(text: str, record: Record) -> bool:
    """Whether that term is in it, and nothing before it can deny what it allows."""
    terms = [term.lower().removeprefix("+") for term in Spf.parse(text).terms]
    ours = _key_term(record)
    return ours in terms and not any(term[0] in "-~?" for term in terms[: terms.index(ours)])


def _leave_it(record: Record) -> str:
    kind, _, name = _key_term(record).partition(":")
    what = "the SPF record" if kind == "include" else "the addresses"
    return f"leave it as it is, and mend what it refers to: {what} of {name or record.name}"


def _merged(found: Sequence[str], record: Record) -> Spf:
    """One record that passes what ours does and all that the owner's do, with the owner's ending.

    Ours comes first, so that our mail passes whatever else is wrong.
    """
    parsed = [Spf.parse(text) for text in found]
    ours = Spf.parse(record.value or "")
    needed = [term for term in ours.terms if term.startswith("include:")] or ours.terms
    terms = dict.fromkeys(needed)
    for item in parsed:
        for term in item.terms:
            if len(parsed) > 1 and term.lower().startswith("redirect="):
                # One record has one ending: the other's is included (RFC 7208 6.1).
                if item.all:
                    continue
                term = f"include:{term.partition('=')[2]}"
            if len(parsed) > 1 and term.lower().startswith("exp=") and _has(terms, "exp="):
                continue
            if term.lower().removeprefix("+") not in needed:
                terms[term] = None
    endings = [item.all for item in parsed if item.all and not item.lets_all_in]
    if not endings and _has(terms, "redirect="):
        return Spf(tuple(terms), "")  # with `all` it would have no effect
    # Of several the softest: nobody's mail is to fail for being merged.
    return Spf(tuple(terms), max(endings, key=lambda item: "-~?".index(item[0]), default=ours.all))


def _has(terms: Iterable[str], start: str) -> bool:
    return any(term.lower().startswith(start) for term in terms)


# pyspf's words for what makes a record useless, in ours, with the fix.
_LESS = (
    "take out what is not used any more; include, a, mx, ptr, exists and redirect are a look-up "
    "each, also within an include (RFC 7208 4.6.4)"
)
_ELSEWHERE = "or have its owner mend it"
_PERMANENT = (
    (r"Too many DNS lookups|More than \d+ DNS", "it needs more than ten look-ups", _LESS),
    (r"Void lookup limit", "more than two of its look-ups find nothing", _LESS),
    (r"More than \d+ MX records", "an mx in it stands for too many servers", _LESS),
    (
        r"Two or more type TXT",
        "a domain that it includes has several SPF records",
        f"take that include out, {_ELSEWHERE}",
    ),
    (
        r"No valid SPF record for included domain: (\S+):",
        "it includes {0}, which has no SPF record",
        f"take out include:{{0}}, {_ELSEWHERE}",
    ),
    (
        r"redirect domain has no SPF record: (\S+)",
        "it redirects to {0}, which has no SPF record",
        f"take out redirect={{0}}, {_ELSEWHERE}",
    ),
    (
        r"with commas",
        "there is a comma between its terms",
        "separate them by spaces alone",
    ),
)


def _explained(reason: str, text: str, record: Record) -> tuple[str, str]:
    """(what is wrong, the fix), where pyspf says permerror."""
    for pattern, words, fix in _PERMANENT:
        match = re.search(pattern, reason)
        if match:
            included = f"include:{''.join(match.groups()).lower()}"
            known = included == _key_term(record)
            fix = _leave_it(record) if known else fix.format(*match.groups())
            return words.format(*match.groups()), fix
    if re.search(r"[^ ][-~?+]all( |$)", text):
        return "there is no space before its last term", "put one there"
    reason = reason[:1].lower() + reason[1:]
    if reason.rpartition(": ")[2].lower() in text.lower():
        return reason, "correct that term, and keep the others"
    return reason, f"take out the include that has this term, {_ELSEWHERE}"


def _dkim(record: Record, values: tuple[str, ...]) -> Verdict:
    expected = DkimRecord.parse(record.value or "")
    found = [value for value in values if "p=" in value or "DKIM1" in value]
    if not found:
        return _missing(record)
    strings = f"in {record.zone}: {record.relative_name} TXT {record.rdata}"
    if len(values) > 1:
        return _different(
            record, values,
            "the key is split into several records: verifiers take one of them for the whole"
            if _is_split(values, record)
            else "several records at one selector: verifiers may take any of them",
            f"make it one record, {strings}",
        )  # fmt: skip
    [text] = found
    for sign, what in (('"', "quotes"), ("\\", "backslashes")):
        if sign in text:
            fix = f"enter it without {what}, in {record.zone}: {_entry(record)}"
            return _different(record, found, f"there are {what} in the text itself", fix)
    try:
        has = tags(text)
        public = "".join(has.get("p", "").split())
        if public != expected.public and public and expected.public.startswith(public):
            reason = f"the key is cut off, after {len(text)} characters of the text"
            return _different(
                record, found, reason, f"enter it in pieces, as one record, {strings}"
            )
        parsed = DkimRecord.parse(text)
    except ValueError as error:
        return _different(record, found, f"verifiers do not take it: {error}")
    if not parsed.public:
        return _different(record, found, "the key is empty, which means: revoked")
    if parsed.public != expected.public:
        return _different(record, found, "it is another key")
    if parsed.key_type != expected.key_type:
        reason = f"its k must be {expected.key_type}: the key is taken for {parsed.key_type}"
        return _different(record, found, reason)
    is_test = "y" in has.get("t", "").replace(" ", "").split(":")
    note = "t=y says that this is a test: some receivers then ignore the signature"
    return Verdict(record, Status.OK, tuple(found), note=note if is_test else "")


def _is_split(values: tuple[str, ...], record: Record) -> bool:
    whole = "".join((record.value or "").split())
    return len(values) <= 4 and any(
        "".join("".join(parts).split()) == whole for parts in permutations(values)
    )


_POLICIES = ("none", "quarantine", "reject")  # the stricter the later


def _dmarc(record: Record, values: tuple[str, ...]) -> Verdict:
    expected = Dmarc.parse(record.value or "")
    found = [value for value in values if Dmarc.is_one(value)]
    if not found:
        garbled = next((value for value in values if "DMARC" in value.upper()), None)
        if garbled:
            return _different(
                record, (garbled,),
                "it must begin with v=DMARC1 and a semicolon, with nothing before: no quotes, "
                "no space",
            )  # fmt: skip
        return _missing(record)
    if len(found) > 1:
        return _different(
            record, found, "several DMARC records: receivers then take none of them",
            f"leave one in {record.zone}: {_entry(record)}",
        )  # fmt: skip
    try:
        parsed = Dmarc.parse(found[0])
    except ValueError as error:
        return _different(record, found, f"receivers do not take it: {error}")
    setting = f"DMARC_POLICY={expected.policy}"
    stricter = _POLICIES.index(parsed.policy) - _POLICIES.index(expected.policy)
    if stricter < 0:
        return _different(
            record, found, f"its policy, {parsed.policy}, is weaker than {setting}",
            f"set DMARC_POLICY={parsed.policy} in .env, or change it in {record.zone} to: "
            f"{_entry(record)}",
        )  # fmt: skip
    missing = [address for address in expected.rua if address not in parsed.rua]
    if missing:
        uris = ",".join(f"mailto:{address}" for address in missing)
        return _different(
            record, found, f"reports do not go to {', '.join(missing)}",
            f"add {uris} to its rua, or set DMARC_RUA={','.join(parsed.rua) or 'none'} in .env",
        )  # fmt: skip
    share = {name.lower(): value for name, value in tags(found[0]).items()}.get("pct", "100")
    notes = [f"its policy, {parsed.policy}, is stricter than {setting}"] if stricter else []
    notes += [f"pct={share}: receivers apply the policy to that share of mail"] * (share != "100")
    return Verdict(record, Status.OK, tuple(found), note="; ".join(notes))


def _reports(record: Record, values: tuple[str, ...]) -> Verdict:
    if not any(Dmarc.is_one(value) for value in values):
        return _missing(record)
    return Verdict(record, Status.OK, values)


def _tlsrpt(record: Record, values: tuple[str, ...]) -> Verdict:
    found = [value for value in values if TlsRpt.is_one(value)]
    if not found:
        return _missing(record)
    if len(found) > 1:
        return _different(
            record, found, "several TLS-RPT records: senders then take none of them",
            f"leave one in {record.zone}: {_entry(record)}",
        )  # fmt: skip
    try:
        TlsRpt.parse(found[0])
    except ValueError as error:
        return _different(record, found, f"senders do not take it: {error}")
    return Verdict(record, Status.OK, values)
