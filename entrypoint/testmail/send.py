"""A test mail: made, submitted as a mail program does, followed to the receiver's answer, judged.

1  a log-in for a moment (accounts/temporary.py): a verb has no password
2  ports 465 and 587, each as a mail program uses it; TLS verified for MAIL_HOSTNAME
3  the message, once; its queue id and its text as chasquid signed it (services/watcher.py)
4  its DKIM signatures, verified with what DNS shows
5  what the store of events says of it, until nothing is left to wait for, or time is up
6  meanwhile, a look at the receiver's MX host (mxprobe.py)
"""

from __future__ import annotations

import base64
import html
import secrets
import smtplib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import Enum

from entrypoint.accounts import temporary
from entrypoint.chasquid.maillog import Event, Kind, clean
from entrypoint.common import rpc
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids
from entrypoint.common.names import Address, Domain
from entrypoint.common.paths import Paths
from entrypoint.common.rpc import UnreachableError
from entrypoint.converge import plan
from entrypoint.delivery.replies import Hint, explain
from entrypoint.dns import authoritative
from entrypoint.dns.authoritative import Absent, Answer, Ask, Authoritative, Found, Unknown, one
from entrypoint.history import client
from entrypoint.keys import dkim
from entrypoint.keys.dkim import Algorithm
from entrypoint.settings.model import Settings
from entrypoint.state.load import State
from entrypoint.testmail import mxprobe
from entrypoint.testmail.mxprobe import Look
from entrypoint.zone import address

WAIT = 120.0  # seconds for an answer
_TIMEOUT = 15.0  # seconds for each answer of our own chasquid
_POLL = (0.3, 1.5)  # seconds between looks at the events: at first, and later
_LOOK_WAIT = 5.0  # seconds that the look at the MX host may take longer than the delivery
_WATCH = 15.0  # seconds, more than the watcher takes
_HERE = "127.0.0.1"
_PORTS = (465, 587)
_STATES = {
    Kind.SENT: "sent", Kind.DEFERRED: "deferred", Kind.BOUNCED: "refused",
}  # fmt: skip


class Trust(Enum):
    """Who accepts the certificate that our ports serve."""

    PUBLIC = "trusted"  # everybody
    PRIVATE = "private"  # who has the root of a private authority
    SELF_SIGNED = "self-signed"  # nobody but who was told to
    NONE = "wrong"  # nobody: it has expired, or is for another name
    UNKNOWN = "unknown"  # no TLS was reached


@dataclass(frozen=True)
class Port:
    """One of our submission ports, as a mail program finds it. `error` is empty if mail goes."""

    number: int
    tls: str = ""
    trust: Trust = Trust.UNKNOWN
    distrust: str = ""
    logged_in: bool = False
    error: str = ""

    @property
    def works(self) -> bool:
        return self.logged_in and not self.error and self.trust is not Trust.NONE


@dataclass(frozen=True)
class Signature:
    """`ok` is None if DNS could not say."""

    algorithm: str
    selector: str
    domain: str
    ok: bool | None
    why: str = ""

    @property
    def name(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True)
class Fate:
    """What has become of one recipient, where aliases led. `state` is sent, deferred, refused or
    pending; `next` is when it is tried again, in seconds since 1970, 0 if that is not known."""

    address: str
    state: str = "pending"
    answer: str = ""
    at: float = 0.0
    tries: int = 0
    next: float = 0.0


@dataclass
class Report:
    """All that is known at the end. `refusal` is what our own chasquid refused with."""

    sender: Address
    to: Address
    message_id: str
    started: float
    loop: bool = False
    ports: list[Port] = field(default_factory=list)
    over: int = 0
    refusal: str = ""
    id: str = ""
    signatures: list[Signature] = field(default_factory=list)
    unsigned: str = ""  # why the signatures are of a message of our own, with the same keys
    fates: dict[str, Fate] = field(default_factory=dict)
    unfollowed: str = ""  # why the events could not be read
    look: Look | None = None
    seconds: float = 0.0

    @property
    def state(self) -> str:
        """delivered, refused, deferred, pending, or unsent."""
        states = {fate.state for fate in self.fates.values()}
        if not self.over or self.refusal:
            return "unsent"
        for name in ("refused", "deferred", "pending"):
            if name in states:
                return name
        return "delivered" if states else "pending"

    @property
    def wrong(self) -> list[str]:
        """What is wrong on our own side, whatever became of the message."""
        found = [
            f"port {port.number}: {port.error or port.distrust}"
            for port in self.ports
            if not port.works
        ]
        found += [f"DKIM: {item.name}: {item.why}" for item in self.signatures if item.ok is False]
        if self.id and not self.signatures and not self.unsigned:
            found.append("DKIM: the message was not signed")
        return found

    @property
    def status(self) -> Exit:
        if self.state in ("deferred", "pending"):
            return Exit.TRY_AGAIN
        if self.state == "unsent" and self.refusal.startswith("4"):
            return Exit.TRY_AGAIN
        return Exit.OK if self.state == "delivered" and not self.wrong else Exit.WRONG

    @property
    def hints(self) -> list[Hint]:
        """What the answers mean."""
        texts = [self.refusal, *(f.answer for f in self.fates.values() if f.state != "sent")]
        if self.state == "pending" and self.look:
            texts += [
                "Could not dial: i/o timeout" if why == mxprobe.SILENT else why
                for _, why in self.look.failed
            ]
        found = [hint for text in texts if text for hint in explain(text)]
        return list({hint.id: hint for hint in found}.values())


Say = Callable[[Report, str], None]


_TEXT = """
Hello,

this is a test mail. Somebody at the mail server {host} has run send-test, to see whether mail from
{sender} arrives at {to}. It was sent on {day} at {time} UTC.

If you expected it: look at how it was received. In Gmail, open the menu with the three dots and
choose "Show original"; SPF, DKIM and DMARC should each say PASS. Mail programs show the same in the
header Authentication-Results. If it was in the spam folder, mark it as not spam.

If you did not expect it: you need not do anything. There is only this one, and your address was
not kept.

An answer to this mail goes to {sender}, which tests the way back.
"""


def compose(sender: Address, to: Address, host: str, token: str, now: datetime) -> EmailMessage:
    """The message: text and HTML that say the same, no links, no images."""
    message = EmailMessage(policy=SMTP)
    message["From"] = str(sender)
    message["To"] = str(to)
    message["Subject"] = f"Test mail from {host}"
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{token}@{sender.domain}>"
    paragraphs = [
        paragraph.format(host=host, sender=sender, to=to, day=f"{now:%Y-%m-%d}", time=f"{now:%X}")
        for paragraph in _TEXT.strip().replace("\n", " ").split("  ")
    ]
    message.set_content("\n\n".join(paragraphs) + "\n")
    body = "\n".join(f"<p>{html.escape(text)}</p>" for text in paragraphs)
    message.add_alternative(
        f'<!DOCTYPE html>\n<html lang="en"><head><title>Test mail</title></head>\n'
        f"<body>\n{body}\n</body></html>\n",
        subtype="html",
    )
    return message


# --- Submission -----------------------------------------------------------------------------------


class _Submissions(smtplib.SMTP_SSL):
    """Port 465: TLS from the start. Connects to this machine, expects the certificate of a name."""

    def __init__(self, name: str, context: ssl.SSLContext) -> None:
        super().__init__(timeout=_TIMEOUT, context=context, local_hostname=name)
        self._host = name
        self.connect(_HERE, 465)


class _Submission(smtplib.SMTP):
    """Port 587: STARTTLS."""

    def __init__(self, name: str, context: ssl.SSLContext) -> None:
        super().__init__(timeout=_TIMEOUT, local_hostname=name)
        self._host = name
        self.connect(_HERE, 587)
        self.starttls(context=context)


def contexts(
    settings: Settings, paths: Paths, state: State
) -> Iterator[tuple[Trust, ssl.SSLContext]]:
    """What to trust, from what every mail program does to nothing."""
    yield Trust.PUBLIC, ssl.create_default_context()
    if settings.acme_ca_bundle and paths.ca_bundle.exists():
        yield Trust.PRIVATE, _trusting(cafile=str(paths.ca_bundle))
    # Our own, as it is: what is still judged is the name, and the time.
    served = plan.served_certificates(settings, state)
    for name, trust in ((plan.DEFAULT, Trust.PRIVATE), (plan.STAND_IN, Trust.SELF_SIGNED)):
        if name in served:
            own = _trusting(cadata=served[name].chain.decode())
            own.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            yield trust, own
    anything = ssl.create_default_context()
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    yield Trust.NONE, anything


def _trusting(*, cafile: str | None = None, cadata: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    # Private roots are seldom made to the letter (RFC 5280); Python 3.13 would insist.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def open_port(
    number: int,
    name: str,
    trusts: Iterator[tuple[Trust, ssl.SSLContext]],
    login: temporary.Login,
) -> tuple[Port, smtplib.SMTP | None]:
    """Connect and log in as a mail program does. The session is None if mail cannot go there."""
    port = Port(number)
    for trust, context in trusts:
        try:
            session = (_Submissions if number == 465 else _Submission)(name, context)
        except ssl.SSLCertVerificationError as error:
            port = replace(port, distrust=port.distrust or error.verify_message)
            continue
        except (OSError, smtplib.SMTPException) as error:
            return replace(port, error=_words(error)), None
        assert isinstance(session.sock, ssl.SSLSocket)  # noqa: S101 (both speak TLS by now)
        port = replace(port, trust=trust, tls=session.sock.version() or "")
        try:
            session.login(login.name, login.password)
        except (OSError, smtplib.SMTPException) as error:
            session.close()
            return replace(port, error=f"log-in failed: {_words(error)}"), None
        return replace(port, logged_in=True), session
    return replace(port, error=port.distrust or "no TLS"), None


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError) or str(error).endswith("timed out"):
        return mxprobe.SILENT
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, text = next(iter(error.recipients.values()))
        return clean(f"{code} {text.decode(errors='replace')}")
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        words = said if isinstance(said, str) else said.decode(errors="replace")
        return clean(f"{error.smtp_code} {words}")
    if isinstance(error, OSError) and error.strerror:
        return clean(error.strerror)
    return clean(str(error)) or type(error).__name__


# --- Signatures -----------------------------------------------------------------------------------


def signatures(message: bytes, ask: Ask) -> list[Signature]:
    """Each DKIM signature (RFC 6376) of a message, verified by dkimpy with the key that DNS shows.

    `message` has line ends of any kind; a signature holds for CRLF.
    """
    import dkim as dkimpy  # 0.1 s, and few need it

    raw = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    headers, _ = dkimpy.rfc822_parse(raw)
    found = [value for name, value in headers if name.lower() == b"dkim-signature"]
    return [_signature(raw, index, value, ask) for index, value in enumerate(found)]


def _signature(raw: bytes, index: int, value: bytes, ask: Ask) -> Signature:
    import dkim as dkimpy

    try:
        tags = dkimpy.util.parse_tag_value(value)
        words = [tags[name].decode("ascii") for name in (b"a", b"s", b"d")]
    except (dkimpy.util.InvalidTagValueList, KeyError, UnicodeDecodeError):
        return Signature("?", "?", "?", False, "the signature cannot be read")
    item = Signature(words[0], words[1], words[2], None)
    answer: Answer = one(ask(item.name, "TXT"))
    match answer:
        case Unknown(reason):
            return replace(item, why=reason)
        case Absent():
            return replace(item, ok=False, why="DNS has no such record")
        case Found(values):
            record = values[0].encode()

    def key(_name: bytes, **_: object) -> bytes:
        return record

    try:
        verified = bool(dkimpy.DKIM(raw).verify(index, dnsfunc=key))
    except Exception as error:  # noqa: BLE001 (dkimpy's, or of the libraries below it)
        return replace(item, ok=False, why=clean(str(error)))
    why = "" if verified else "the key in DNS is not the one that signed"
    return replace(item, ok=verified, why=why)


# --- The test -------------------------------------------------------------------------------------


@dataclass
class TestMail:
    """One test. `say` is told of each step: the report so far, and which of it is new."""

    __test__ = False  # it is none of pytest's

    settings: Settings
    state: State
    paths: Paths
    ids: Ids
    say: Say = lambda _report, _what: None
    ask: Ask = field(default_factory=Authoritative)

    _told_look: bool = False

    def run(
        self,
        sender: Address,
        to: Address,
        *,
        wait: float = WAIT,
        patient: bool = False,
        loop: bool = False,
    ) -> Report:
        """Send, and follow for `wait` seconds; only if `patient` also through deferrals.

        Raises UserError if chasquid does not run.
        """
        now = datetime.now(UTC)
        token = secrets.token_hex(12)
        message = compose(sender, to, self.settings.mail_hostname, token, now)
        report = Report(sender, to, str(message["Message-ID"]), now.timestamp(), loop)
        begun = time.monotonic()
        looking = self._look_meanwhile(report)
        login = self._submit(report, message, token)
        if report.over and not report.refusal:
            self.say(report, "queued")
            if report.signatures or report.unsigned:
                self.say(report, "dkim")
            self._follow(report, login, wait, patient)
        if looking and not report.refusal:
            looking.join(_LOOK_WAIT if report.state == "delivered" else mxprobe.LONGEST)
            self._tell_look(report)
        report.seconds = time.monotonic() - begun
        return report

    def _submit(self, report: Report, message: EmailMessage, token: str) -> str:
        """Try both ports, and send over the first that works; returns the log-in's name."""
        name = self.settings.mail_hostname
        with ExitStack() as stack:
            login = stack.enter_context(
                temporary.login(self.settings, self.paths, self.ids, report.sender)
            )
            sessions: dict[int, smtplib.SMTP] = {}
            for number in _PORTS:
                trusts = contexts(self.settings, self.paths, self.state)
                port, session = open_port(number, name, trusts, login)
                report.ports.append(port)
                self.say(report, "port")
                if session:
                    stack.callback(_leave, session)
                    sessions[number] = session
            if not sessions:
                return login.name
            report.over = next(iter(sessions))
            self._hand_over(report, sessions[report.over], message, token)
        return login.name

    def _hand_over(
        self, report: Report, session: smtplib.SMTP, message: EmailMessage, token: str
    ) -> None:
        """The message goes once, while somebody watches the queue for it."""
        with ExitStack() as stack:
            watched = rpc.follow(self.paths.holder_socket, f"watch {token}", _WATCH)
            stack.callback(watched.close)
            with suppress(UnreachableError):
                next(watched, None)  # it looks now
            try:
                session.sendmail(report.sender, [report.to], message.as_bytes())
            except (OSError, smtplib.SMTPException) as error:
                report.refusal = _words(error)
                return
            try:
                item = next(watched, {"error": "nobody could watch the queue"})
            except UnreachableError as error:
                item = {"error": str(error)}
        if "error" in item:
            report.unsigned = str(item["error"])
            report.signatures = list(self._own_signatures(report.sender.domain))
            return
        report.id = str(item["id"])
        recipients = item["recipients"]
        if isinstance(recipients, list):
            report.fates = {str(name): Fate(str(name)) for name in recipients}
        report.signatures = signatures(base64.b64decode(str(item["message"])), self.ask)

    def _own_signatures(self, domain: Domain) -> Iterator[Signature]:
        """The same keys on a message of our own: it proves DNS, and not that chasquid signed."""
        enabled = {Algorithm(word) for word in self.settings.dkim_keys}
        for key in self.state.domain(domain).keys:
            if key.algorithm in enabled:
                yield from signatures(dkim.signed(domain, key), self.ask)

    def _follow(self, report: Report, login: str, wait: float, patient: bool) -> None:
        """Read the events until each recipient's fate is known."""
        begun = time.monotonic()
        told: dict[str, Fate] = {}
        while True:
            over = False
            try:
                over = self._read_events(report, login, patient)
            except UnreachableError as error:
                report.unfollowed = str(error)
            for name, fate in report.fates.items():
                if fate != told.get(name) and fate.state != "pending":
                    self.say(report, f"fate {name}")
                told[name] = fate
            waited = time.monotonic() - begun
            if over or waited >= wait:
                return
            self._tell_look(report)
            self.say(report, "waiting")
            time.sleep(min(_POLL[waited > 10.0], max(0.0, wait - waited)))

    def _tell_look(self, report: Report) -> None:
        """Once, as soon as it is known."""
        if report.look and not self._told_look:
            self._told_look = True
            self.say(report, "look")

    def _read_events(self, report: Report, login: str, patient: bool) -> bool:
        """Whether there is nothing more to wait for: all is done, or the next try is far."""
        since = report.started - 1.0
        if not report.id:
            received = client.history(
                self.paths, address=login, since=since, kinds=(Kind.RECEIVED,)
            )
            if not received:
                return False
            report.id = received[-1].id
        told = client.history(self.paths, id=report.id, since=since)
        report.unfollowed = ""
        report.fates = fates(told, report.fates)
        ends = {Kind.DONE} if patient else {Kind.DONE, Kind.WAITING}
        return any(event.kind in ends for event in told)

    def _look_meanwhile(self, report: Report) -> threading.Thread | None:
        """Look at the receiver's MX host in a thread; None if the mail stays here."""
        domain = report.to.domain
        if domain in self.settings.receiving or domain == self.settings.mail_hostname:
            return None

        def work() -> None:
            report.look = self._look(domain)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def _look(self, domain: Domain) -> Look:
        known = self.state.exchangers.get(domain) if domain in self.settings.domains else None
        servers: Sequence[str]
        match Found(known) if known else authoritative.exchangers(domain, 5.0):
            case Found(values):
                servers = values
            case Absent():
                return Look(failed=((str(domain), "no such host"),))
            case Unknown(reason):
                return Look(failed=((str(domain), reason),))
        here = address.find(self.settings)
        families = [v for v, used in ((4, here.has_ipv4), (6, here.has_ipv6)) if used]
        return mxprobe.look(servers, self.settings.mail_hostname, families)


def fates(told: Sequence[Event], known: Mapping[str, Fate]) -> dict[str, Fate]:
    """What has become of each recipient, by a message's events, the oldest first."""
    found = {name: Fate(name) for name in known}
    for event in told:
        if event.kind in _STATES:
            [name] = event.recipients
            before = found.get(name, Fate(name))
            found[name] = Fate(name, _STATES[event.kind], event.text, event.at, before.tries + 1)
        elif event.kind is Kind.WAITING:
            for name, fate in found.items():
                if fate.state == "deferred":
                    found[name] = replace(fate, next=event.next)
    return found


def _leave(session: smtplib.SMTP) -> None:
    with suppress(smtplib.SMTPException, OSError):
        session.quit()
    session.close()


def default_sender(settings: Settings, state: State) -> Address:
    """The first user, in the order of MAIL_DOMAINS; else postmaster@ the first domain."""
    from entrypoint.chasquid.userdb import Denied

    for domain in settings.domains:
        for name, secret in sorted(state.domain(domain).users.items()):
            if not isinstance(secret, Denied) and "+" not in name:
                with suppress(ValueError):
                    return Address.parse(f"{name}@{domain}")
    return Address(f"postmaster@{settings.domains[0]}")


def check_sender(settings: Settings, sender: Address) -> None:
    """Raises UserError if mail from there could not be signed here."""
    if sender.domain not in settings.domains:
        msg = f"{sender.domain} is not one of the domains served here"
        raise UserError(
            msg, f"choose a sender of {', '.join(settings.domains)}", exit_code=Exit.USAGE
        )
