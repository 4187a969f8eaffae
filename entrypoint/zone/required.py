"""The one definition of what must stand in DNS, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address

from entrypoint.common.names import Address, Domain, organizational_domain
from entrypoint.dns.policies import Dmarc, Spf, TlsRpt
from entrypoint.dns.records import Record, RecordType
from entrypoint.keys.dkim import Algorithm, DkimKey
from entrypoint.settings.model import Settings
from entrypoint.state.load import State

A, AAAA, MX, TXT, SRV, PTR = (
    RecordType.A, RecordType.AAAA, RecordType.MX, RecordType.TXT, RecordType.SRV, RecordType.PTR,
)  # fmt: skip


# Mail may wait in queues for five days (RFC 5321 4.5.4.1), and be read some time later.
KEEP_RETIRED = timedelta(days=7)


# The name of a PTR record whose address is not known: what follows is what the interface has.
UNSEEN = "(what others see for "


@dataclass(frozen=True)
class Outbound:
    """One address of OUTBOUND_IPV4 or OUTBOUND_IPV6: as the interface has it, and as others see it,
    which is another one behind address translation; None: not known."""

    local: IPv4Address | IPv6Address
    seen: IPv4Address | IPv6Address | None


@dataclass(frozen=True)
class Addresses:
    """This server's public addresses, as `zone/address.py` finds them.

    `None`: not known. `has_*` is False when that family is not used at all. `outbound` are the
    addresses that mail is to leave from, if they are set.
    """

    ipv4: IPv4Address | None
    ipv6: IPv6Address | None
    has_ipv4: bool = True
    has_ipv6: bool = True
    # Who said so, in words that end a sentence.
    ipv4_from: str = field(default="", compare=False)
    ipv6_from: str = field(default="", compare=False)
    outbound: tuple[Outbound, ...] = ()

    @property
    def further(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Those that others see mail come from, besides `ipv4` and `ipv6`, which mail leaves from
        too while the gate cannot choose."""
        known = [item.seen for item in self.outbound if item.seen is not None]
        return tuple(dict.fromkeys(item for item in known if item not in (self.ipv4, self.ipv6)))

    @property
    def unseen(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Those of the interface for which it is not known what others see."""
        return tuple(item.local for item in self.outbound if item.seen is None)

    @property
    def sources(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """All that others may see mail come from, as far as they are known."""
        own = ((self.has_ipv4, self.ipv4), (self.has_ipv6, self.ipv6))
        return (*(item for used, item in own if used and item is not None), *self.further)


def required(settings: Settings, state: State, addresses: Addresses) -> tuple[Record, ...]:
    """Every record, domain by domain in the order of MAIL_DOMAINS; PTRs come last."""
    return (
        *_host(settings, addresses),
        *(record for domain in settings.domains for record in _domain(settings, state, domain)),
        *_pointers(settings, addresses),
    )


def report_addresses(
    setting: tuple[Address, ...] | None, name: str, domain: Domain, settings: Settings
) -> tuple[Address, ...]:
    """Where a domain's reports go: as set, else `name`@ a domain that is received here."""
    if setting is not None:
        return setting
    home = domain if domain in settings.receiving else settings.mail_hostname
    return (Address(f"{name}@{home}"),)


def _host(settings: Settings, addresses: Addresses) -> Iterator[Record]:
    host, zone = settings.mail_hostname, settings.host_zone
    if addresses.has_ipv4:
        value = str(addresses.ipv4) if addresses.ipv4 else None
        yield Record(zone, host, A, value, "The server's IPv4 address.")
    yield from _further(settings, addresses, 4)
    if addresses.has_ipv6:
        value = str(addresses.ipv6) if addresses.ipv6 else None
        yield Record(zone, host, AAAA, value, "The server's IPv6 address.")
    yield from _further(settings, addresses, 6)
    if host not in settings.domains:
        spf = Spf(("a",), settings.spf_all)
        yield Record(
            zone, host, TXT, str(spf),
            "SPF of the host name itself, which bounces are checked against.",
        )  # fmt: skip


def _further(settings: Settings, addresses: Addresses, version: int) -> Iterator[Record]:
    """The host's name leads to each address that mail leaves from (RFC 8601 2.7.3, iprev), and so
    SPF, which names the host, lets each of them send."""
    for address in addresses.further:
        if address.version == version:
            yield Record(
                settings.host_zone, settings.mail_hostname, A if version == 4 else AAAA,
                str(address), f"Mail leaves from this IPv{version} address too.",
            )  # fmt: skip


def _domain(settings: Settings, state: State, domain: Domain) -> Iterator[Record]:
    host = settings.mail_hostname
    if domain in settings.receiving:
        yield Record(domain, domain, MX, f"10 {host}.", f"Mail to {domain} comes to this server.")
    include = f"_spf.{domain}"
    terms = (
        *settings.spf_mechanisms,
        f"include:{include}",
        *(f"include:{name}" for name in settings.spf_include),
    )
    yield Record(
        domain, domain, TXT, str(Spf(terms, settings.spf_all)), f"SPF: who may send for {domain}."
    )
    yield Record(
        domain, include, TXT, str(Spf((f"a:{host}",), settings.spf_all)),
        "SPF: this server, which the record above includes.",
    )  # fmt: skip
    enabled = {Algorithm(word) for word in settings.dkim_keys}
    for key in state.domain(domain).keys:
        if key.algorithm in enabled:
            yield dkim_record(
                domain, key,
                f"DKIM: the public key ({key.algorithm.value}) that verifies our signatures.",
            )  # fmt: skip
    yield from _rotation(state, domain)
    yield from _dmarc(settings, domain)
    reports = report_addresses(settings.dmarc_rua or None, "rua", domain, settings)
    yield Record(
        domain, f"_smtp._tls.{domain}", TXT, str(TlsRpt(reports)),
        "TLS-RPT: where reports on TLS failures go.", optional=True,
    )  # fmt: skip
    for service, port in (("_submissions", 465), ("_submission", 587)):
        yield Record(
            domain, f"{service}._tcp.{domain}", SRV, f"0 1 {port} {host}.",
            f"Mail programs find port {port} by themselves.", optional=True,
        )  # fmt: skip


def _rotation(state: State, domain: Domain) -> Iterator[Record]:
    """Keys that do not sign yet, and those that no longer do."""
    have = state.domain(domain)
    for key in have.pending:
        if key.selector not in {active.selector for active in have.keys}:
            yield dkim_record(
                domain, key,
                f"DKIM: the next public key ({key.algorithm.value}); it signs once this stands.",
            )  # fmt: skip
    for key, when in have.retired:
        until = when + KEEP_RETIRED
        yield dkim_record(
            domain, key,
            f"DKIM: the last public key; keep it until {until:%Y-%m-%d}, for mail on its way.",
        )  # fmt: skip


def dkim_record(domain: Domain, key: DkimKey, purpose: str) -> Record:
    """The key's record at SELECTOR._domainkey.DOMAIN (RFC 6376 3.6.1)."""
    name = f"{key.selector}._domainkey.{domain}"
    return Record(domain, name, TXT, str(key.record), purpose)


def _dmarc(settings: Settings, domain: Domain) -> Iterator[Record]:
    rua = report_addresses(settings.dmarc_rua, "rua", domain, settings)
    ruf = report_addresses(settings.dmarc_ruf, "ruf", domain, settings)
    dmarc = Dmarc(settings.dmarc_policy, settings.dmarc_fo, rua, ruf)
    yield Record(
        domain, f"_dmarc.{domain}", TXT, str(dmarc),
        "DMARC: what receivers do with mail that fails, and where reports go.",
    )  # fmt: skip
    # RFC 7489 7.1: reports to another organization's address need that domain's consent.
    for target in dict.fromkeys(address.domain for address in (*rua, *ruf)):
        zone = organizational_domain(target)
        if zone != organizational_domain(domain):
            yield Record(
                zone, f"{domain}._report._dmarc.{target}", TXT, "v=DMARC1",
                f"{target} agrees to receive reports about {domain}.",
            )  # fmt: skip


def _pointers(settings: Settings, addresses: Addresses) -> Iterator[Record]:
    host = settings.mail_hostname
    for used, address, family in (
        (addresses.has_ipv4, addresses.ipv4, "IPv4"),
        (addresses.has_ipv6, addresses.ipv6, "IPv6"),
    ):
        if used:
            name = address.reverse_pointer if address else f"(this server's {family} address)"
            yield Record(
                None, name, PTR, f"{host}.",
                f"Reverse DNS of {address or family}; set it at the server's provider.",
            )  # fmt: skip
    for source in addresses.further:
        yield Record(
            None, source.reverse_pointer, PTR, f"{host}.",
            f"Reverse DNS of {source}, from which mail leaves too; set it at its provider.",
        )  # fmt: skip
    for source in addresses.unseen:
        yield Record(
            None, f"{UNSEEN}{source})", PTR, f"{host}.",
            f"Reverse DNS of the public address behind {source}, from which mail leaves too.",
        )  # fmt: skip
