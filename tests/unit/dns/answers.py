"""What DNS says in a case of tests/cases/dns; the format is in tests/cases/README.md."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from entrypoint.common.names import Selector
from entrypoint.dns.authoritative import Absent, Answer, Answers, Found, Unknown
from entrypoint.dns.records import Record
from entrypoint.keys import dkim
from tests.support.cases import CASES, unescape

_KEY = re.compile(r"<([a-z0-9-]+)(?:\[(\d*):(\d*)\])?>")
_SERVER = "ns1.example.net"


@cache
def public_key(name: str) -> str:
    """The public half of a key of tests/cases/keys, in base64."""
    pem = (CASES / "keys" / f"{name}.pem").read_bytes()
    return dkim.load(Selector("any"), pem).record.public


def _filled(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        start, end = (int(part) if part else None for part in (match[2], match[3]))
        return public_key(match[1])[start:end]

    return _KEY.sub(replace, unescape(text))


@dataclass
class Asked:
    """Answers as a case says, and otherwise as `OTHERS` says. Call it as lookup.Authoritative."""

    servers: tuple[str, ...] = (_SERVER,)
    others: Answer | None = None  # None: as it is wanted
    lines: dict[tuple[str, str], dict[str, Answer]] = field(default_factory=dict)
    wanted: Mapping[tuple[str, str], Answer] = field(default_factory=dict)
    asked: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, name: str, kind: str) -> Answers:
        key = (name.lower().removesuffix("."), kind)
        alias = self.lines.get((key[0], "CNAME"))
        if alias and kind != "CNAME":
            self.asked.add((key[0], "CNAME"))
            [target] = {value for item in alias.values() for value in _values(item)}
            return {f"{server} (for {target})": item for server, item in self(target, kind).items()}
        self.asked.add(key)
        said = self.lines.get(key, {})
        return {
            server: said.get(server) or said.get("") or self._other(key) for server in self.servers
        }

    def _other(self, key: tuple[str, str]) -> Answer:
        return self.others or self.wanted.get(key, Absent())

    @property
    def never_asked(self) -> set[tuple[str, str]]:
        return set(self.lines) - self.asked


def _values(answer: Answer) -> tuple[str, ...]:
    return answer.values if isinstance(answer, Found) else ()


def parse(text: str, records: Iterable[Record]) -> Asked:
    """`records` are what is right."""
    right: dict[tuple[str, str], tuple[str, ...]] = {}
    for record in records:
        if record.value is not None:
            key = (record.name, record.type.value)
            right[key] = (*right.get(key, ()), record.value)
    found = Asked(wanted={key: Found(values) for key, values in right.items()})
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "SERVERS":
            found.servers = tuple(rest.split())
        elif word == "OTHERS":
            found.others = None if rest == "RIGHT" else _answer("TXT", rest)
        else:
            match = re.match(r"(?:(\S+)> +)?(\S+) +(\S+) +(.*)", line)
            assert match, line
            server, name, kind, value = match.groups(default="")
            assert server in ("", *found.servers), line
            _add(found.lines.setdefault((_owner(name, kind), kind), {}), server, kind, value)
    return found


def _owner(name: str, kind: str) -> str:
    return ipaddress.ip_address(name).reverse_pointer if kind == "PTR" else name


def _add(said: dict[str, Answer], server: str, kind: str, value: str) -> None:
    before, more = said.get(server), _answer(kind, value)
    if isinstance(before, Found) and isinstance(more, Found):
        more = Found(tuple(sorted((*before.values, *more.values))))
    else:
        assert before is None, f"{value}: something is said before"
    said[server] = more


def _answer(kind: str, value: str) -> Answer:
    if value == "ABSENT":
        return Absent()
    word, _, reason = value.partition(" ")
    if word == "UNKNOWN":
        return Unknown(reason)
    return Found((_filled(value) if kind == "TXT" else value,))
