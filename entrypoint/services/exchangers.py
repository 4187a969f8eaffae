"""Whose an address is: the exchangers (MX hosts) of the domains that mail goes to.

The gate sees addresses alone. So it looks up the exchangers of each recipient's domain by itself
(RFC 5321 5.1), in threads of its own, and keeps what it found for a while; a greeting tells too.
Nothing depends on it but how receivers are grouped: without an answer an address is its own.

Anybody may name somebody else's address as his own exchanger's. So the operators that are known by
name come first (nobody else has names below theirs), and an address that several domains claim is
nobody's: it counts with its network.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from entrypoint.common import log
from entrypoint.delivery import operators
from entrypoint.delivery.operators import Operator

_V = TypeVar("_V")
_LIFE = 1800.0  # seconds for which a look-up holds
_MOST = 20_000  # domains, and addresses, that are remembered
_MOST_WAITING = 2000  # domains to be looked up
_MOST_ASKED = 64  # greetings that are proven at once
_THREADS = 4
_HOSTS = 6  # exchangers of a domain whose addresses are looked up
_ADDRESSES = 16  # of an exchanger that are looked at
_DISPUTED = ""  # the owner of an address that several claim


@dataclass(frozen=True)
class Host:
    """An exchanger, who operates it, and its addresses.

    `owner` is the organizational domain of its name: all exchangers below it are taken to be one
    operator's.
    """

    name: str
    operator: Operator | None
    addresses: tuple[str, ...]
    owner: str = ""


def addresses_of(name: str) -> frozenset[str]:
    """The addresses of a host; empty if that cannot be told."""
    from entrypoint.dns.authoritative import Found
    from entrypoint.dns.resolver import Resolver

    answers = [Resolver()(name, kind) for kind in ("AAAA", "A")]
    found = (answer.values for answer in answers if isinstance(answer, Found))
    return frozenset(address for values in found for address in values)


def look_up(domain: str) -> list[Host]:
    """The exchangers of a domain, the most preferred first; empty if that cannot be told."""
    from entrypoint.dns.authoritative import Found
    from entrypoint.dns.resolver import Resolver

    resolve = Resolver()
    answer = resolve(domain, "MX")
    found = answer.values if isinstance(answer, Found) else ()
    ranked = sorted((int(item.split()[0]), item.split()[1].rstrip(".")) for item in found)
    hosts = []
    for name in [name for _, name in ranked][:_HOSTS] or [domain]:
        addresses: list[str] = []
        for kind in ("AAAA", "A"):
            answer = resolve(name, kind)
            addresses += answer.values if isinstance(answer, Found) else ()
        known = operators.of_exchanger(name)
        hosts.append(Host(name, known, tuple(addresses[:_ADDRESSES]), owner_of(name)))
    return hosts


def owner_of(name: str) -> str:
    """The organizational domain of a host's name; empty if it is no name."""
    from entrypoint.common.names import Domain, organizational_domain

    try:
        return str(organizational_domain(Domain.parse(name)))
    except ValueError:
        return ""


class Exchangers:
    """For one asyncio loop. `found` is told each address that is known from now on; `look_up` a
    domain's exchangers is called in a thread."""

    def __init__(
        self,
        found: Callable[[str], None],
        look_up: Callable[[str], list[Host]] = look_up,
        addresses_of: Callable[[str], frozenset[str]] = addresses_of,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = found
        self._look_up = look_up
        self._addresses_of = addresses_of
        self._clock = clock
        # When a domain was looked up, and the addresses of its exchangers.
        self._domains: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._owners: OrderedDict[str, str] = OrderedDict()  # by address
        self._operators: OrderedDict[str, Operator] = OrderedDict()  # by address
        self._asked: set[str] = set()  # addresses whose greeting is being proven
        self._wanted: asyncio.Queue[str] = asyncio.Queue(_MOST_WAITING)
        self._threads = ThreadPoolExecutor(_THREADS, "exchangers")

    def want(self, domain: str) -> None:
        """Mail goes to this domain: look it up soon, if that was not done of late."""
        name = domain.lower()
        known = self._domains.get(name)
        if (known and self._clock() - known[0] < _LIFE) or self._wanted.full():
            return
        self._remember(self._domains, name, (self._clock(), known[1] if known else ()))
        self._wanted.put_nowait(name)

    async def run(self) -> None:
        """Look up what is wanted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_THREADS):
                group.create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            domain = await self._wanted.get()
            try:
                hosts = await loop.run_in_executor(self._threads, self._look_up, domain)
            except Exception as error:  # noqa: BLE001 (what a stranger's zone can bring about)
                log.log("gate", f"warning: {domain} could not be looked up: {error!r}")
                continue
            addresses = tuple(address for host in hosts for address in host.addresses)
            self._remember(self._domains, domain, (self._clock(), addresses))
            for host in hosts:
                for address in host.addresses:
                    self._learn(address, host)
                    self._tell(address)

    def _learn(self, address: str, host: Host) -> None:
        if host.operator:
            self._remember(self._operators, address, host.operator)
        elif self._owners.get(address, host.owner) != host.owner:
            self._remember(self._owners, address, _DISPUTED)
        else:
            self._remember(self._owners, address, host.owner)

    @staticmethod
    def _remember(table: OrderedDict[str, _V], key: str, value: _V) -> None:
        table[key] = value
        table.move_to_end(key)
        if len(table) > _MOST:
            table.popitem(last=False)

    def greeted(self, address: str, greeting: str) -> None:
        """What an address said when it was dialled, where no look-up tells whose it is.

        Anybody may greet as somebody else, and then refuse, to have that one's window shrink: so
        the name in it counts only if it has that address.
        """
        if address in self._owners or address in self._operators or address in self._asked:
            return
        words = greeting[4:].split()
        operator = operators.of_greeting(greeting)
        if operator and words and len(self._asked) < _MOST_ASKED:
            self._asked.add(address)
            work = self._threads.submit(self._addresses_of, words[0])
            asyncio.wrap_future(work).add_done_callback(
                lambda answer: self._proven(address, operator, answer)
            )

    def _proven(
        self, address: str, operator: Operator, answer: asyncio.Future[frozenset[str]]
    ) -> None:
        self._asked.discard(address)
        if not answer.cancelled() and not answer.exception() and address in answer.result():
            self._remember(self._operators, address, operator)
            self._tell(address)

    def operator_of(self, address: str) -> Operator | None:
        """By its exchanger's name, else by its greeting."""
        return self._operators.get(address)

    def owner_of(self, address: str) -> str:
        """The organizational domain of its exchanger's name; empty if that is not known."""
        return self._owners.get(address, "")

    def addresses_for(self, domain: str) -> tuple[str, ...]:
        """Where mail to a domain goes, as far as that is known."""
        known = self._domains.get(domain)
        return known[1] if known else ()
