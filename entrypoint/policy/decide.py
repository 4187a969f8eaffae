"""Who may send what, and as whom: the decisions. Pure.

Answers are those that chasquid can give for its post-data hook: 250, 554 or 451, and behind the
code an enhanced one (RFC 3463) and a text, which are the policy's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from entrypoint.common.errors import shown
from entrypoint.common.limit import Limit, Over
from entrypoint.common.names import Domain, organizational_domain
from entrypoint.policy import author, header, queueroom
from entrypoint.policy.backscatter import UNPROVEN
from entrypoint.policy.header import Field, HeaderError
from entrypoint.policy.queueroom import Shortage
from entrypoint.policy.routes import Route, leaves, received_elsewhere

SUFFIX = "+"  # chasquid's suffix_separators


class Code(IntEnum):
    """The reply codes (RFC 5321 4.2) that a post-data hook of chasquid's can bring about."""

    ACCEPT = 250
    LATER = 451
    REFUSE = 554


@dataclass(frozen=True)
class Answer:
    """`text` begins with the enhanced code; `counts`: whether it is held against the login's limit.

    `notes` is what the login should be told otherwise. `below` is the From domain, below one of
    ours, for which a stranger's message was refused.
    """

    code: Code
    text: str
    counts: bool = False
    notes: tuple[str, ...] = ()
    below: str = ""

    def __str__(self) -> str:
        return f"{int(self.code)} {self.text}"


def accept(why: str, *, counts: bool = False, notes: tuple[str, ...] = ()) -> Answer:
    """250: chasquid takes the message. `counts`: its recipients count against the limits."""
    return Answer(Code.ACCEPT, f"2.0.0 {why}", counts, notes)


def refuse(enhanced: str, why: str, *, counts: bool = False) -> Answer:
    """554: whoever sends does not try again. `enhanced` is a code of RFC 3463."""
    return Answer(Code.REFUSE, f"{enhanced} {why}", counts)


def later(enhanced: str, why: str) -> Answer:
    """451: whoever sends tries again. `enhanced` is a code of RFC 3463."""
    return Answer(Code.LATER, f"{enhanced} {why}")


@dataclass(frozen=True)
class Envelope:
    """What chasquid says of a message. `login` is empty for incoming mail; `spf` is that SPF
    passed for the domain of `sender`; `remote` is an IP address, perhaps with a port."""

    login: str = ""
    sender: str = "<>"
    recipients: tuple[str, ...] = ()
    remote: str = ""
    spf: bool = False

    @property
    def from_here(self) -> bool:
        """Whether this machine itself delivers it: what tambo tells the postmaster, say."""
        return self.remote.startswith(("127.", "[::1]"))


@dataclass(frozen=True)
class LoginRules:
    """What a login may send as: `addresses`, and any address of `domains`.

    `fingerprint` changes with its secret (revocation.py); `chosen`: a person chose it.
    """

    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    limit: Limit | None = None
    fingerprint: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Rules:
    """All that decisions need of settings and state; `dump` and `load` carry it to the service.

    `named` are the aliases with a suffix: not just another way to write the name before it.
    `organizations` are the organizational domains (RFC 9989) of `domains` and `host`: whatever is
    one of them, or below, is ours; left empty, they are found. `routes` are by domain.
    `forward_unproven`: also what nobody vouches for is forwarded.
    `max_queue` messages may wait. `mailbox_mb`: each local mailbox may have so many; 0: any number.
    """

    host: str
    domains: frozenset[str]
    logins: Mapping[str, LoginRules]
    limit: Limit = field(default_factory=Limit)
    named: frozenset[str] = frozenset()
    organizations: frozenset[str] = frozenset()
    routes: Mapping[str, Route] = field(default_factory=dict)
    forward_unproven: bool = False
    max_queue: int = 2000
    mailbox_mb: int = 0

    def __post_init__(self) -> None:
        if not self.organizations:
            found = frozenset(
                organizational_domain(Domain(name)) for name in {*self.domains, self.host}
            )
            object.__setattr__(self, "organizations", found)

    def limit_of(self, login: str) -> Limit:
        rules = self.logins.get(login)
        return self.limit if rules is None or rules.limit is None else rules.limit

    def may(self, login: str, address: str) -> bool:
        """Whether a login may send as an address, both in their canonical form."""
        rules = self.logins.get(login)
        if rules is None:
            return False
        if address in rules.addresses or address.rpartition("@")[2] in rules.domains:
            return True
        return address not in self.named and base(address) in rules.addresses


def dump(rules: Rules) -> str:
    """JSON; `load(dump(rules)) == rules`."""
    content = {
        "host": rules.host,
        "domains": sorted(rules.domains),
        "limit": str(rules.limit),
        "named": sorted(rules.named),
        "organizations": sorted(rules.organizations),
        "routes": {name: route.dump() for name, route in sorted(rules.routes.items())},
        "forward_unproven": rules.forward_unproven,
        "max_queue": rules.max_queue,
        "mailbox_mb": rules.mailbox_mb,
        "logins": {
            name: {
                "addresses": sorted(item.addresses),
                "domains": sorted(item.domains),
                "limit": None if item.limit is None else str(item.limit),
                "fingerprint": item.fingerprint,
                "chosen": item.chosen,
            }
            for name, item in sorted(rules.logins.items())
        },
    }
    return json.dumps(content, indent=1) + "\n"


def load(text: str) -> Rules:
    """Raises ValueError, KeyError or TypeError for what `dump` did not make."""
    content = json.loads(text)
    return Rules(
        host=content["host"],
        domains=frozenset(content["domains"]),
        limit=Limit.parse(content["limit"]),
        named=frozenset(content["named"]),
        # A file of the version before has none of these until the next reconcile.
        organizations=frozenset(content.get("organizations", ())),
        routes={name: Route.load(item) for name, item in content.get("routes", {}).items()},
        forward_unproven=bool(content.get("forward_unproven", False)),
        max_queue=int(content.get("max_queue", 2000)),
        mailbox_mb=int(content.get("mailbox_mb", 0)),
        logins={
            name: LoginRules(
                frozenset(item["addresses"]),
                frozenset(item["domains"]),
                None if item["limit"] is None else Limit.parse(item["limit"]),
                str(item["fingerprint"]),
                bool(item["chosen"]),
            )
            for name, item in content["logins"].items()
        },
    )


def base(address: str) -> str:
    """The address without its suffix: mail to i+anything@ reaches i@."""
    local, _, domain = address.rpartition("@")
    return f"{local.partition(SUFFIX)[0] or local}@{domain}"


def canonical(address: str) -> str:
    """An envelope's address: lower case, the domain as A-labels. Raises ValueError.

    Of two @ chasquid takes the first for the one before the domain, others the last.
    """
    if address.count("@") != 1:
        msg = f"{shown(address)} is not name@domain"
        raise ValueError(msg)
    local, _, name = address.partition("@")
    return f"{local.lower()}@{header.domain(name)}"


def submission(rules: Rules, envelope: Envelope, section: bytes) -> Answer:
    """Whether whoever logged in may send this message as it says (the limit is asked apart)."""
    login = login_of(envelope)
    if login not in rules.logins:
        return later("4.7.1", f"{shown(envelope.login)} is not known as a login here any more")
    try:
        fields = header.strict(section)
    except HeaderError as error:
        return refuse("5.6.0", f"not a message by RFC 5322: {error}", counts=True)
    return (
        _sender_rule(rules, login, envelope.sender, fields)
        or _form(fields)
        or accept(f"{login} may send this", counts=True, notes=_notes(fields))
    )


def login_of(envelope: Envelope) -> str:
    """The login in its canonical form; empty for incoming mail, and for what is none."""
    try:
        return canonical(envelope.login) if envelope.login else ""
    except ValueError:
        return ""


def _no(why: str) -> Answer:
    return refuse("5.7.1", why, counts=True)


def _sender_rule(
    rules: Rules, login: str, mail_from: str, fields: Sequence[Field]
) -> Answer | None:
    """Why a login may not send this; None if it may."""
    if mail_from == "<>":
        return _no(f"MAIL FROM:<> would go out unsigned; {login} has to name itself as the sender")
    try:
        sender = canonical(mail_from)
    except ValueError as error:
        return _no(f"MAIL FROM of {login}: {error}")
    if not rules.may(login, sender):
        return _no(f"{login} may not send as {_fit(sender)} (MAIL FROM)")
    values = [item.value for item in fields if item.name == "from"]
    if len(values) != 1:
        return _no(f"the message of {login} has {len(values) or 'no'} From headers, not one")
    try:
        mailboxes = header.mailboxes(values[0])
    except HeaderError as error:
        return _no(f"the From header of {login} has no certain meaning: {error}")
    for mailbox in mailboxes:
        if mailbox.domain not in rules.domains:
            return _no(
                f"{login} may not send as {_fit(mailbox)} (From): {mailbox.domain} is not served "
                "here"
            )
        if not rules.may(login, str(mailbox)):
            return _no(f"{login} may not send as {_fit(mailbox)} (From)")
        if not sender.endswith(f"@{mailbox.domain}"):
            return _no(
                f"{login}: From has the domain {mailbox.domain}, MAIL FROM {_fit(sender)}; they "
                "must be the same, since the signature is of the latter (DMARC)"
            )
    return _sender_header(rules, login, fields)


def _sender_header(rules: Rules, login: str, fields: Sequence[Field]) -> Answer | None:
    """RFC 5322 3.6.2: at most one Sender, of one mailbox."""
    values = [item.value for item in fields if item.name == "sender"]
    if len(values) > 1:
        return _no(f"the message of {login} has {len(values)} Sender headers")
    for value in values:
        try:
            mailboxes = header.mailboxes(value)
        except HeaderError as error:
            return _no(f"the Sender header of {login} has no certain meaning: {error}")
        if len(mailboxes) != 1:
            return _no(f"the Sender header of {login} has more than one address")
        if not rules.may(login, str(mailboxes[0])):
            return _no(f"{login} may not send as {_fit(mailboxes[0])} (Sender)")
    return None


def _form(fields: Sequence[Field]) -> Answer | None:
    """What else is wrong with a message that this server would sign as it is."""
    names = {item.name for item in fields}
    for name in ("bcc", "resent-bcc"):
        if name in names:
            text = f"a {name.title()} header would show everybody who was to stay unseen; leave it "
            return refuse("5.6.0", f"{text}out, and name them in the envelope alone", counts=True)
    if "date" not in names:
        return refuse("5.6.0", "no Date header (RFC 5322 3.6), and it is signed as it is",
                      counts=True)  # fmt: skip
    return None


def _notes(fields: Sequence[Field]) -> tuple[str, ...]:
    if any(item.name == "message-id" for item in fields):
        return ()
    return ("sends messages without Message-ID, which some receivers take for spam",)


def _fit(address: object) -> str:
    """An address fit for a reply line: as it is if it is plain, else quoted and escaped."""
    text = str(address)
    return text if re.fullmatch(r"[!-~]{1,100}", text) else shown(text)


NUL = refuse("5.6.0", "the message has a NUL in its body (RFC 5321 2.3.7)", counts=True)
_NUL_IN_HEADER = refuse("5.6.0", "the message has a NUL in its header (RFC 5321 2.3.7)")


# Limits, pause, admission


def over_limit(login: str, over: Over) -> Answer:
    """For now; for good if waiting will not help, as one message has more than the limit."""
    if over.wait is None:
        return refuse(
            "5.5.3", f"more recipients than {login} may reach in {over.span}, {over.most}",
            counts=True,
        )  # fmt: skip
    return later(
        "4.7.1",
        f"{login} has reached its limit of {over.most} recipients in {over.span}; "
        f"try again in {duration(over.wait)}",
    )


def paused(login: str, why: str) -> Answer:
    """For now: the client keeps the message until somebody resumes the login."""
    return later("4.7.1", f"{login} is paused: {why}; the postmaster can resume it")


def guessed_at(login: str) -> Answer:
    """For now: said where the login never came from, although the password was right."""
    return later(
        "4.7.1",
        f"somebody guesses at the password of {login}, and it never logged in from this address "
        "before; send from where it did, by a credential with a generated secret, or in an hour",
    )


def log_in_again(login: str) -> Answer:
    """For now: a session may outlive the right to it, as chasquid checks passwords but once."""
    return later(
        "4.7.0",
        f"{login} was changed or paused after this connection had logged in, or it is not known "
        "when it did; log in again",
    )


def duration(seconds: float) -> str:
    """Never less than it is: whoever comes back then is welcome."""
    if seconds >= 2 * 3600:
        return f"{-int(-seconds // 3600)} hours"
    if seconds >= 2 * 60:
        return f"{-int(-seconds // 60)} minutes"
    return f"{max(1, -int(-seconds // 1))} seconds"


@dataclass(frozen=True)
class Room:
    """What is left of disk and memory, in bytes; `memory` is None if nothing limits it.

    `disk_size` is the volume's whole size, `memory_limit` the container's limit.
    """

    disk: int
    inodes: int
    memory: int | None
    disk_size: int = 0
    memory_limit: int | None = None


DISK_FLOOR = 128 << 20  # bytes free on the volume
INODE_FLOOR = 1000
MEMORY_FLOOR = 48 << 20  # bytes left to the container
STRANGERS_DISK = 0.10  # of the volume: what is left below that is not for mail from outside


def admission(room: Room) -> Answer | None:
    """Why nothing can be taken just now. A queued message costs disk, and memory too."""
    if room.disk < DISK_FLOOR or room.inodes < INODE_FLOOR:
        return later("4.3.1", "the disk is nearly full; try again later")
    if room.memory is not None and room.memory < MEMORY_FLOOR:
        return later("4.3.1", "memory is nearly used up; try again in a few minutes")
    return None


def admission_of_strangers(room: Room) -> Answer | None:
    """Why no mail from outside can be taken just now, though logins may send."""
    if room.disk < STRANGERS_DISK * room.disk_size:
        percent = round(100 * STRANGERS_DISK)
        text = f"less than {percent} % of the disk is free, and the rest is for our own users"
        return later("4.3.1", f"{text}; try again later")
    return None


BOUNCES = later(
    "4.7.1",
    "too much mail that is forwarded from here was refused by the next server, or still waits, so "
    "none is taken now that might bounce to where it did not come from; try again later",
)


def may_bounce(rules: Rules | None, sender: str, recipients: Sequence[str]) -> bool:
    """Whether a bounce may come of a message from outside: it goes on to another server."""
    if sender == "<>":
        return False
    return rules is None or any(leaves(rules.routes, item) for item in recipients)


def proven(envelope: Envelope) -> str:
    """The organizational domain of the sender, if SPF passes for it; else backscatter.UNPROVEN."""
    if not envelope.spf:
        return UNPROVEN
    try:
        return organizational_domain(Domain.parse(_domain_of(envelope.sender)))
    except ValueError:
        return UNPROVEN


def is_report_box(recipient: str) -> bool:
    """Whether reports of DMARC or TLS come to it (RFC 7489, RFC 8460)."""
    return base(recipient.lower()).partition("@")[0] in ("rua", "ruf")


def short(shortage: Shortage) -> Answer:
    """What does not fit into the queue now may fit when some of it is delivered."""
    fits = (
        ""
        if shortage.fits is None
        else f"; messages up to {_megabytes(shortage.fits)} are taken now"
    )
    return later("4.3.1", f"{shortage.what}{fits}; try again in a few minutes")


def _megabytes(size: int) -> str:
    """Never more than it is."""
    tenths = size * 10 // queueroom.MB
    return f"{tenths // 10} MB" if tenths >= 100 else f"{tenths // 10}.{tenths % 10} MB"


# Incoming mail


@dataclass(frozen=True)
class Signature:
    """What chasquid found out about one DKIM signature (RFC 8601 2.7.1)."""

    result: str
    domain: str
    part: str = ""  # the first characters of its b=
    reason: str = ""

    @property
    def unknown(self) -> bool:
        """Whether it could not be told. chasquid calls a REFUSED of the resolver permanent."""
        return self.result == "temperror" or (
            self.result == "permerror"
            and self.reason.startswith("lookup ")
            and not self.reason.endswith("no such host")
        )


@dataclass(frozen=True)
class Results:
    """What chasquid found out about an incoming message."""

    spf: str = ""
    spf_reason: str = ""
    signatures: tuple[Signature, ...] = ()

    @property
    def spf_unknown(self) -> bool:
        return self.spf == "temperror" or (
            self.spf == "permerror" and self.spf_reason.startswith("lookup ")
        )


_RESULTS = b"Authentication-Results: "
_SPF = re.compile(r";spf=([a-z]+) \((.*)\)", re.DOTALL)
_DKIM = re.compile(
    r";dkim=(?P<result>[a-z]+)(?:  reason=\"(?P<reason>(?:[^\"\\]|\\.)*)\")?"
    r"(?:  header\.b=(?P<b>[A-Za-z0-9+/=]{1,12}))?  header\.d=(?P<d>[A-Za-z0-9._-]+)"
)


def results(section: bytes) -> Results:
    """What chasquid wrote on top of a message (internal/smtpsrv/conn.go, addReceivedHeader).

    Only the very first header is its own for certain; in any other place it may be the sender's.
    """
    if not section.startswith(_RESULTS):
        return Results()
    end = re.search(rb"\n(?![ \t])", section)
    value = section[len(_RESULTS) : end.start() if end else len(section)]
    clauses: list[str] = []
    for line in value.decode(errors="replace").split("\r\n\t"):
        if line.startswith(";") or not clauses:
            clauses.append(line)
        else:
            clauses[-1] += line
    found = Results()
    for clause in clauses[1:]:
        clause = clause.rstrip("\r\n")
        if (match := _SPF.fullmatch(clause)) and not found.spf:
            found = replace(found, spf=match[1], spf_reason=match[2])
        elif match := _DKIM.fullmatch(clause):
            signature = Signature(
                match["result"], match["d"].lower(), match["b"] or "", match["reason"] or ""
            )
            found = replace(found, signatures=(*found.signatures, signature))
    return found


def incoming(rules: Rules, envelope: Envelope, section: bytes) -> Answer:
    """Whether mail from outside may be taken: whose it says it is, and to whom it is.

    From may name a domain of ours, or one below, if SPF passed for that domain or a signature of it
    verified, as DMARC asks (relaxed alignment): another service that the owner lets send, a list
    that changed nothing. A From that has not one meaning may have nothing of ours in it.
    """
    if b"\0" in section:
        return _NUL_IN_HEADER
    if not envelope.from_here and (answer := _elsewhere(rules, envelope)):
        return answer
    fields = header.lenient(section, author.FIELDS)
    if sum(len(item.value) for item in fields if item.name == "from") > header.MAX_VALUE:
        return refuse("5.6.0", f"more than {header.MAX_VALUE // 1024} KiB of From")
    said = author.read(fields)
    claimed = sorted(
        name for name in said.domains if any(name.is_within(item) for item in rules.organizations)
    )
    if envelope.from_here:
        return accept("it is from this machine")
    if not claimed:
        return _doubt(rules, said) or accept("it is not from here, and does not say so")
    found = results(section)
    verdicts = [_aligned(rules, Domain(name), envelope, found, section) for name in claimed]
    wrong = [item for item in verdicts if item.code is Code.REFUSE]
    waits = [item for item in verdicts if item.code is Code.LATER]
    return (wrong or waits or verdicts)[0]


def _doubt(rules: Rules, said: author.Author) -> Answer | None:
    """Why a From cannot be taken that names nobody of ours by the grammar."""
    if not said.doubt:
        if name := author.shows_address(said.values, rules.organizations):
            return refuse(
                "5.6.0",
                f"some programs would read an address of {name} in the display name in From; put "
                f"it in quotes, or leave it out",
            )
        return None
    if sum(map(len, said.values)) > author.MAX_DOUBTFUL:
        return refuse(
            "5.6.0", f"{said.doubt}, and more than {author.MAX_DOUBTFUL // 1024} KiB of it"
        )
    if name := author.named(said.values, rules.organizations):
        return refuse(
            "5.6.0",
            f"it is not certain who this message is from, and {name}, which is served here, stands "
            f"in it: {said.doubt}",
        )
    return None


def _elsewhere(rules: Rules, envelope: Envelope) -> Answer | None:
    """Mail to a domain that receives elsewhere belongs to its MX, not to this server, which would
    send it on in the domain's own name."""
    for recipient in envelope.recipients:
        hosts = received_elsewhere(rules.routes, recipient)
        if hosts is not None:
            where = ", ".join(hosts[:3]) or "none"
            return refuse(
                "5.7.1",
                f"mail to {_fit(recipient)} is not received here; send it to the domain's MX: "
                f"{where}",
            )
    return None


def _aligned(
    rules: Rules, name: Domain, envelope: Envelope, found: Results, section: bytes
) -> Answer:
    by_spf = _related(_domain_of(envelope.sender), name)
    if envelope.spf and by_spf:
        return accept(f"SPF passes for {name}")
    signatures = [item for item in found.signatures if _related(item.domain, name)]
    for item in signatures:
        if item.result == "pass" and not _is_partial(item, section):
            return accept(f"a DKIM signature of {item.domain} verifies")
    if (by_spf and found.spf_unknown) or any(item.unknown for item in signatures):
        return later("4.7.5", f"DNS could not say whether this is from {name}; try again later")
    served = name in rules.domains or name == rules.host
    whose = "which is served here" if served else "which belongs to a domain served here"
    answer = refuse(
        "5.7.1",
        f"From names {name}, {whose}, but neither SPF nor a DKIM signature says that "
        "it is from there; to send from here, log in",
    )
    return answer if served else replace(answer, below=name)


def _domain_of(address: str) -> str:
    try:
        return canonical(address).rpartition("@")[2]
    except ValueError:
        return ""


def _related(one: str, other: Domain) -> bool:
    """Relaxed alignment (RFC 7489 3.1): the same organizational domain."""
    if one == other:
        return True
    try:
        return organizational_domain(Domain.parse(one)) == organizational_domain(other)
    except ValueError:
        return False


def _is_partial(signature: Signature, section: bytes) -> bool:
    """Whether it signs but a part of the body (l=), behind which anybody may write (RFC 6376
    8.2)."""
    for item in header.lenient(section, ("dkim-signature",)):
        tags = re.sub(r"[ \t\r\n]", "", item.value.decode(errors="replace")).split(";")
        values = dict(tag.partition("=")[::2] for tag in tags)
        if values.get("b", "").startswith(signature.part) and "l" in values:
            return True
    return False


def decide(rules: Rules, envelope: Envelope, section: bytes) -> Answer:
    """What a message alone says: all but limits, pause and admission."""
    if len(section) > header.MAX_HEADER:
        text = f"the header section is larger than {header.MAX_HEADER // 1024} KiB"
        return refuse("5.6.0", text, counts=bool(envelope.login))
    if envelope.login:
        return submission(rules, envelope, section)
    return incoming(rules, envelope, section)
