"""A healthy server for the checks: DNS, machine and volume that answer as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, TypeVar

from entrypoint.checks.context import CheckContext
from entrypoint.checks.machine import Disk, Machine
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.common.rpc import UnreachableError
from entrypoint.dns.authoritative import Absent, Answer, Answers, Found, Unknown
from entrypoint.dns.blocklists import LISTS
from entrypoint.dns.records import Record
from entrypoint.dns.resolver import Security
from entrypoint.keys import certs
from entrypoint.keys.dkim import Algorithm
from entrypoint.settings.model import Settings
from entrypoint.state.load import DomainState, State
from entrypoint.zone.required import Addresses, required
from tests.unit.kit import EXAMPLE_COM, HOST, asked, loaded_key

V4, V6 = IPv4Address("203.0.113.10"), IPv6Address("2001:db8::10")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAILED = Unknown("no answer in time")
RECEIVERS = ("big.example", "large.example")
RECEIVER4, RECEIVER6 = "198.51.100.25", "2001:db8:25::25"
MB = 1 << 20

_T = TypeVar("_T")
Check = Callable[[CheckContext], list[Finding]]


@dataclass
class Dns:
    """Answers by name and type; what nobody set is absent. `failing`: no answer to anything."""

    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    failing: bool = False
    secure: Security | Unknown = Security.INSECURE
    # What the lists' own servers say to those whom they answer, if that is something else.
    own: dict[tuple[str, str], Answer] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def set(self, name: str, kind: str, *values: str) -> None:
        self.answers[name, kind] = Found(values) if values else Absent()

    def fail(self, name: str, kind: str) -> None:
        self.answers[name, kind] = FAILED

    def load(self, records: tuple[Record, ...]) -> None:
        """A zone that has what must be there."""
        values: dict[tuple[str, str], list[str]] = {}
        for record in records:
            values.setdefault((record.name, record.type.value), []).append(record.value or "")
        for (name, kind), found in values.items():
            self.set(name, kind, *found)

    def resolve(self, name: str, kind: str) -> Answer:
        self.asked.append((name, kind))
        return FAILED if self.failing else self.answers.get((name, kind), Absent())

    def ask(self, name: str, kind: str) -> Answers:
        return {"ns.example.net": self.resolve(name, kind)}

    def direct(self, name: str, kind: str, _zone: str) -> Answer:
        if (name, kind) in self.own:
            return self.own[name, kind]
        return self.resolve(name, kind)

    def security(self, _zone: str) -> Security | Unknown:
        return FAILED if self.failing else self.secure


SELF_SIGNED = certs.self_signed([Domain(HOST)])

PROC_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000 10025        0 1
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2
   2: 0A71CB00:0019 0100007F:D431 01 00000000:00000000 00:00000000 00000000 10025        0 3
"""
FILES = {
    "/proc/net/tcp": PROC_TCP,
    "/proc/net/tcp6": PROC_TCP.replace("00000000:0019 0", f"{'0' * 32}:0019 0"),
    "/proc/net/route": "Iface\tDestination\tGateway\nens3\t00000000\t0100A8C0\n",
    "/proc/net/if_inet6": (
        "20010db8000000000000000000000010 02 40 00 80     ens3\n"
        "fe80000000000000000000000000000a 02 40 20 80     ens3\n"
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    ),
    "/proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n",
    "/proc/sys/net/ipv6/conf/ens3/disable_ipv6": "0\n",
    "/proc/meminfo": "MemTotal:        8000000 kB\nMemAvailable:    6000000 kB\n",
    "/sys/fs/cgroup/memory.max": f"{1024 * MB}\n",
    "/sys/fs/cgroup/memory.events": "low 0\noom 0\noom_kill 0\n",
    "/proc/42/limits": "Limit  Soft\nMax open files            16384                16384  files\n",
}
QUEUE: Mapping[str, Any] = {
    "depth": 0, "looked_at": 0, "damaged": 0, "oldest": None, "destinations": [],
}  # fmt: skip
REPORTS: Mapping[str, Any] = {
    "messages": 2, "unreadable": 0, "skipped": 0, "reports": 2, "reporters": ["big", "large"],
    "passed": 40, "failed": 0,
    "sources": [{"domain": "example.com", "address": str(V4), "passed": 40, "failed": 0}],
}  # fmt: skip
EVENTS: Mapping[str, Any] = {"totals": [], "deliveries": {}}
STATUS: Mapping[str, Any] = {"ready": True, "pid": 42, "last_words": ""}


@dataclass
class Box:
    """The machine. An exception as a value is raised."""

    files: dict[str, str | OSError] = field(default_factory=lambda: dict(FILES))
    disks: dict[str, Disk | OSError] = field(default_factory=dict)
    holder: dict[str, Any] = field(
        default_factory=lambda: {
            "status": STATUS,
            "queue": QUEUE,
            "reports": REPORTS,
            "events": EVENTS,
        }
    )
    policy: dict[str, Any] | UnreachableError = field(
        default_factory=lambda: {"alarms": [], "notes": []}
    )
    banners: dict[str, str | OSError] = field(
        default_factory=lambda: {
            "127.0.0.1": f"220 {HOST} ESMTP chasquid",
            RECEIVER4: "220 mx.big.example ESMTP",
            RECEIVER6: "220 mx.big.example ESMTP",
        }
    )
    sources: dict[int, IPv4Address | IPv6Address | None] = field(
        default_factory=lambda: {4: V4, 6: V6}
    )
    seen: dict[int, IPv4Address | IPv6Address] = field(default_factory=dict)  # by an echo
    banners_from: dict[IPv4Address | IPv6Address, str | OSError] = field(default_factory=dict)
    unbound: dict[IPv4Address | IPv6Address, OSError] = field(default_factory=dict)
    clock_is_kept: bool | None = True
    skew: timedelta | OSError = field(default_factory=lambda: OSError("nobody was to be asked"))
    served: str | OSError = SELF_SIGNED.fingerprint
    commands: list[str] = field(default_factory=list)

    def machine(self) -> Machine:
        return Machine(
            holder=self._holder,
            policy=lambda command: dict(_or_raise({"alarms": self.policy}[command])),
            read=lambda path: _or_raise(self.files.get(path, FileNotFoundError(2, "No such file"))),
            disk=self._disk,
            clock_is_kept=lambda: self.clock_is_kept,
            date_of=lambda _url: NOW - _or_raise(self.skew),
            source=lambda target: self.sources[ip_address(target).version],
            banner=lambda address, _port: _or_raise(
                self.banners.get(address, TimeoutError(110, "Connection timed out"))
            ),
            banner_from=lambda address, _port, source: _or_raise(
                self.unbound.get(source) or self.banners_from.get(source) or self.banners[address]
            ),
            bind=lambda address: _or_raise(self.unbound.get(address)),
            fingerprint=lambda _port, _name: _or_raise(self.served),
        )

    def _holder(self, command: str) -> dict[str, Any]:
        self.commands.append(command)
        return dict(_or_raise(self.holder[command.split()[0]]))

    def _disk(self, path: Path) -> Disk:
        return _or_raise(self.disks.get(path.name, Disk(1, 40_000 * MB, 20_000 * MB, 1000, 900)))


def _or_raise(value: _T | OSError | UnreachableError) -> _T:
    if isinstance(value, Exception):
        raise value
    return value


@dataclass
class Scene:
    """A healthy server; a test breaks one thing and looks."""

    paths: Paths
    settings: Settings = field(default_factory=asked)
    state: State = field(
        default_factory=lambda: State(
            domains={EXAMPLE_COM: DomainState(keys=(loaded_key(Algorithm.RSA, "t1r"),))},
            self_signed=SELF_SIGNED,
        )
    )
    addresses: Addresses = field(default_factory=lambda: Addresses(V4, V6))
    dns: Dns = field(default_factory=Dns)
    box: Box = field(default_factory=Box)

    def __post_init__(self) -> None:
        self.publish()
        self.dns.set("", "NS", "ns.example.net.")
        for receiver in RECEIVERS:
            self.dns.set(receiver, "MX", f"20 other.{receiver}.", f"5 mx.{receiver}.")
            self.dns.set(f"mx.{receiver}", "A", RECEIVER4)
            self.dns.set(f"mx.{receiver}", "AAAA", RECEIVER6)
        for item in LISTS:
            if item.test:
                self.dns.set(item.entry(item.test), "A", "127.0.0.2")

    def publish(self) -> None:
        self.dns.load(required(self.settings, self.state, self.addresses))

    def with_domain(self, domain: Domain = EXAMPLE_COM, **changes: Any) -> None:
        have = replace(self.state.domain(domain), **changes)
        self.state = replace(self.state, domains={**self.state.domains, domain: have})

    def context(self) -> CheckContext:
        return CheckContext(
            settings=self.settings,
            state=self.state,
            paths=self.paths,
            addresses=self.addresses,
            machine=self.box.machine(),
            ask=self.dns.ask,
            resolve=self.dns.resolve,
            direct=self.dns.direct,
            security=self.dns.security,
            echo=self.box.seen.get,
            now=NOW,
            receivers=RECEIVERS,
        )

    def found(self, check: Check) -> list[Finding]:
        """What a theme finds. All that is wrong must say why and what was seen."""
        findings = check(self.context())
        for item in findings:
            assert item.why.endswith("."), item
            assert item.message.endswith("."), item
            assert item.seen, item
            assert item.fix or item.level in (Level.INFO, Level.UNKNOWN), item
            assert len({(other.id, other.subject) for other in findings}) == len(findings)
        return findings

    def ids(self, check: Check, *levels: Level) -> list[str]:
        """The ids of what a theme finds, at these levels or above INFO."""
        wanted = levels or (Level.UNKNOWN, Level.WARN, Level.FAIL)
        return [item.id for item in self.found(check) if item.level in wanted]

    def only(self, check: Check, *levels: Level) -> Finding:
        """The one thing that a theme finds, at these levels or above INFO."""
        wanted = levels or (Level.UNKNOWN, Level.WARN, Level.FAIL)
        [found] = [item for item in self.found(check) if item.level in wanted]
        return found
