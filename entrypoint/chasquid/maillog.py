"""chasquid's mail log (internal/maillog/maillog.go): each thing that it tells, as a typed event.

Most of a line came from somebody else: addresses, user names, what a remote server answered, and
any of these may imitate a line or hold one. So a line is never looked for: chasquid writes each
with one write(2), and what is read here is one such piece, whatever newlines it has. Within a line
only what cannot be in the part before it ends a part: chasquid takes no address with a space.
"""

from __future__ import annotations

import ipaddress
import re
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

_MAX_TEXT = 2000  # characters of what a remote said that are kept
_MAX_NAME = 400  # characters of an address or a login; chasquid takes 256 bytes of an address
_MAX_LOGINS = 4096  # connections whose log-in is remembered
_LOGIN_LIFE = 1260.0  # seconds; chasquid closes a connection after 20 minutes (server.go)
_MAX_PENDING = 10_000  # messages whose deferrals are remembered
_GIVEN_UP = "given up; the last answer was: "
# What the hook says for want of an answer begins so (hook/post-data.c).
_UNJUDGED = "4.3.0 the policy service "
# Only a hook that could not be started, or was killed, leaves chasquid without a word.
_NO_HOOK = f"{_UNJUDGED}cannot be asked: its hook could not be run"


class Kind(StrEnum):
    """What happened. RECEIVED is on the disk: from there on it is not lost."""

    RECEIVED = "received"  # a message, with all its recipients as they were given
    SENT = "sent"  # to one recipient, or into its Maildir
    DEFERRED = "deferred"  # one recipient: it is tried again
    BOUNCED = "bounced"  # one recipient, for good: the sender is told by mail
    REFUSED = "refused"  # while whoever brought it was still connected
    AUTH = "auth"  # somebody logged in, or failed to
    WAITING = "waiting"  # some recipients of a message are left; `next` says when they are tried
    DONE = "done"  # nothing is left to do for a message
    # A message that waited, by the owner: nobody gets it any more, and its sender is not told.
    DROPPED = "dropped"
    OTHER = "other"  # of no message: `text` is the line


@dataclass(frozen=True)
class Event:
    """One event. Times are in seconds since 1970; what does not apply is empty.

    `id` is chasquid's queue id, the same through all events of a message. A message that chasquid
    makes itself, to tell a sender of a bounce, has no RECEIVED; its sender is `<>`.

    `recipients` of RECEIVED and REFUSED are those of the envelope; SENT, DEFERRED and BOUNCED have
    the one that was tried, which is where the aliases led. chasquid's log does not say which of
    several it came from. DROPPED has those who waited, or the first few.

    `login` of AUTH is what the client gave, lower case as chasquid makes it; of RECEIVED and
    REFUSED, who had logged in on the same connection (the same address and port, within the twenty
    minutes that a connection may last). `peer` is the IP address, without the port. `text` is what
    the remote server said, or why chasquid refused; several lines are joined by ` | `. `ok` is
    False for a log-in that failed, and for nothing else.
    """

    kind: Kind
    at: float
    id: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    peer: str = ""
    login: str = ""
    text: str = ""
    ok: bool = True
    next: float = 0.0

    @property
    def is_unjudged(self) -> bool:
        """Whether a message was refused for now because the policy service gave no answer."""
        return self.kind is Kind.REFUSED and self.text.startswith(_UNJUDGED)

    def to_json(self) -> dict[str, Any]:
        """Without what is empty; `ok` for log-ins alone."""
        found: dict[str, Any] = {"kind": self.kind.value, "at": self.at}
        for name in ("id", "sender", "recipients", "peer", "login", "text", "next"):
            value = getattr(self, name)
            if value:
                found[name] = value
        if self.kind is Kind.AUTH:
            found["ok"] = self.ok
        return found

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what to_json did not make."""
        rest = {name: value for name, value in content.items() if name not in _CONVERTED}
        recipients = tuple(str(item) for item in content.get("recipients", ()))
        return cls(Kind(content["kind"]), float(content["at"]), recipients=recipients, **rest)

    def __str__(self) -> str:
        """One line, readable; what came from others is last, or quoted if it could mislead."""
        words: list[str] = [self.kind.value]
        if self.kind is Kind.AUTH:
            words = ["auth", "ok" if self.ok else "failed"]
        elif self.kind is Kind.OTHER:
            return self.text
        pairs = (
            ("id", self.id),
            ("from", self.sender),
            ("to", ",".join(map(_quoted, self.recipients))),
            ("login", self.login),
            ("peer", self.peer),
            ("next", iso(self.next) if self.next else ""),
        )
        words += [
            f"{name}={value if name == 'to' else _quoted(value)}" for name, value in pairs if value
        ]
        line = " ".join(words)
        return f"{line}: {self.text}" if self.text else line


_CONVERTED = frozenset({"kind", "at", "recipients"})


def _quoted(value: str) -> str:
    """An address as it is, unless it holds what separates the parts of a line."""
    if "," not in value and '"' not in value and " " not in value:
        return value
    return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'


def iso(at: float) -> str:
    """A time as RFC 3339 has it, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# No \s: it would match characters that an address may have (RFC 6531).
_WORD = r"[^ \n]+"
_ID = r"(?P<id>[A-Za-z0-9_-]{11})"  # base64 of eight bytes
_PEER = r"(?P<peer>[0-9A-Fa-f.:\[\]%]+:[0-9]{1,5})"
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) ", re.ASCII)


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.ASCII | re.DOTALL)


_AUTH = _pattern(rf"{_PEER} auth (?P<how>succeeded|failed) for (?P<login>.*)")
_REFUSED = _pattern(
    rf"{_PEER} rejected(?: from=(?P<sender>{_WORD}))?(?: to=\[(?P<to>[^\n]*?)\])? - (?P<text>.*)"
)
_RECEIVED = _pattern(rf"{_ID} from=(?P<sender>{_WORD}) queued ip={_PEER} to=\[(?P<to>[^\n]*)\]")
_TRIED = _pattern(
    rf"{_ID} from=(?P<sender>{_WORD}) to=(?P<to>{_WORD}) "
    r"(?:sent|failed \((?P<how>temporary|permanent)\): (?P<text>.*))"
)
# An alias may lead to a program, whose command has spaces.
_RUN = _pattern(
    rf"{_ID} from=(?P<sender>{_WORD}) to=(?P<to>[^\n]+?) "
    r"(?:sent|failed \((?P<how>temporary|permanent)\): (?P<text>.*))"
)
_WAITING = _pattern(
    rf"{_ID} from=(?P<sender>{_WORD}) completed loop, next in (?P<delay>[0-9.]+[0-9hms.]*s)"
)
_DONE = _pattern(rf"{_ID} from=(?P<sender>{_WORD}) all done")
_DURATION = re.compile(r"([0-9.]+)(h|ms|m|s)")  # Go's time.Duration
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse(line: str, now: float) -> tuple[Event, str]:
    """One line, with whatever newlines are in it, and the connection it is of (address and port).

    `now` (seconds since 1970) is for a line without a time of its own.
    """
    stamp = _STAMP.match(line)
    at, said = now, line.removesuffix("\n")
    if stamp:
        said = said[stamp.end() :]
        try:
            found = datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
            at = found.timestamp()
        except ValueError:
            pass
    for pattern in (_TRIED, _RECEIVED, _DONE, _WAITING, _AUTH, _REFUSED, _RUN):
        if match := pattern.fullmatch(said):
            parts = {name: value or "" for name, value in match.groupdict().items()}
            if (event := _event(pattern, parts, at)) is not None:
                return event, parts.get("peer", "")
    return Event(Kind.OTHER, at, text=clean(_joined(said))), ""


def _event(pattern: re.Pattern[str], parts: dict[str, str], at: float) -> Event | None:
    """None if it is not what it looked like."""
    peer = _address(parts["peer"]) if "peer" in parts else ""
    if peer is None:
        return None
    event = Event(
        Kind.DONE,
        at,
        id=parts.get("id", ""),
        sender=clean(parts.get("sender", ""), _MAX_NAME),
        peer=peer,
        text=clean(_joined(_unquoted(parts.get("text", "")))),
    )
    if pattern is _AUTH:
        login = clean(parts["login"], _MAX_NAME)
        return replace(event, kind=Kind.AUTH, login=login, ok=parts["how"] == "succeeded")
    if pattern in (_RECEIVED, _REFUSED):
        kind = Kind.RECEIVED if pattern is _RECEIVED else Kind.REFUSED
        # Go writes a list as [a b]; only a space can be between two addresses.
        names = tuple(clean(name, _MAX_NAME) for name in parts["to"].split(" ") if name)
        text = _NO_HOOK if kind is Kind.REFUSED and not event.text else event.text
        return replace(event, kind=kind, recipients=names, text=text)
    if pattern in (_TRIED, _RUN):
        how = {"": Kind.SENT, "temporary": Kind.DEFERRED, "permanent": Kind.BOUNCED}
        return replace(event, kind=how[parts["how"]], recipients=(clean(parts["to"], _MAX_NAME),))
    if pattern is _WAITING:
        try:
            delay = sum(
                float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(parts["delay"])
            )
        except ValueError:
            return None
        return replace(event, kind=Kind.WAITING, next=at + delay)
    return event


def _address(peer: str) -> str | None:
    """`203.0.113.7:4711` or `[2001:db8::7]:4711` without the port; None if it is neither."""
    try:
        return str(ipaddress.ip_address(peer.rpartition(":")[0].strip("[]")))
    except ValueError:
        return None


# A server's answer as Go quotes it, its lines separated by \\n: 550 "5.1.1 no such user".
_QUOTED = re.compile(
    r'(?P<before>.*\b[2-5][0-9]{2} )"(?P<words>(?:[^"\\]|\\.)*)"', re.ASCII | re.DOTALL
)
_ESCAPES = {r"\n": "\n", r"\"": '"', r"\\": "\\"}


def _unquoted(text: str) -> str:
    """The server's own words out of their quotes, if there are any."""
    if match := _QUOTED.fullmatch(text):
        words = re.sub(r"\\.", lambda found: _ESCAPES.get(found[0], found[0]), match["words"])
        return match["before"] + words
    return text


def _joined(text: str) -> str:
    """What a remote said in several lines, in one."""
    return " | ".join(part.strip("\r") for part in text.strip("\n").split("\n"))


@dataclass
class Reader:
    """Reads one chasquid's log line by line, and remembers what a later line needs of one before.

    chasquid gives up on a message by age without a word about its recipients: they are those whose
    last try was deferred, and are BOUNCED here. Its log names whoever logged in once, and what
    they bring afterwards by the same address and port. `connection` is that of the last line.
    """

    connection: str = ""
    _logins: OrderedDict[str, tuple[float, str]] = field(default_factory=OrderedDict)
    _pending: OrderedDict[str, dict[str, str]] = field(default_factory=OrderedDict)

    def feed(self, raw: bytes, now: float) -> list[Event]:
        """The events that a line tells of, in their order; one, but for a message given up."""
        event, self.connection = parse(raw.decode(errors="replace"), now)
        connection = self.connection
        match event.kind:
            case Kind.AUTH if event.ok:
                self._logins[connection] = (event.at, event.login)
                self._logins.move_to_end(connection)
                while len(self._logins) > _MAX_LOGINS:
                    self._logins.popitem(last=False)
            case Kind.RECEIVED | Kind.REFUSED:
                at, login = self._logins.get(connection, (0.0, ""))
                if login and 0 <= event.at - at <= _LOGIN_LIFE:
                    return [replace(event, login=login)]
            case Kind.DEFERRED:
                self._pending.setdefault(event.id, {})[event.recipients[0]] = event.text
                self._pending.move_to_end(event.id)
                while len(self._pending) > _MAX_PENDING:
                    self._pending.popitem(last=False)
            case Kind.SENT | Kind.BOUNCED:
                self._pending.get(event.id, {}).pop(event.recipients[0], None)
            case Kind.DONE:
                left = self._pending.pop(event.id, {})
                return [*(_given_up(event, name, text) for name, text in left.items()), event]
        return [event]


def _given_up(done: Event, recipient: str, text: str) -> Event:
    words = clean(f"{_GIVEN_UP}{text}")
    return replace(done, kind=Kind.BOUNCED, recipients=(recipient,), text=words)


def clean(text: str, most: int = _MAX_TEXT) -> str:
    """What a remote may have said, without a way to move a terminal's cursor."""
    cut = text[: most + 1]
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut
    )
    return shown if len(shown) <= most else f"{shown[:most]}…"
