"""One DNS record: the same object when it is printed, checked and published."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from entrypoint.common.names import Domain

MAX_STRING = 255  # octets of one character-string in a TXT record (RFC 1035 3.3)


class RecordType(Enum):
    """The types that mail needs (RFC 1035, RFC 3596, RFC 2782), called as in zone files."""

    A = "A"
    AAAA = "AAAA"
    MX = "MX"
    TXT = "TXT"
    SRV = "SRV"
    PTR = "PTR"


class Role(Enum):
    """What a record is for, and so how an answer is judged."""

    ADDRESS = "address"
    POINTER = "pointer"
    EXCHANGER = "exchanger"
    SERVICE = "service"
    SPF = "spf"
    DKIM = "dkim"
    DMARC = "dmarc"
    REPORTS = "reports"  # consent to another domain's DMARC reports (RFC 7489 7.1)
    TLSRPT = "tlsrpt"


_ROLES = {
    RecordType.A: Role.ADDRESS,
    RecordType.AAAA: Role.ADDRESS,
    RecordType.PTR: Role.POINTER,
    RecordType.MX: Role.EXCHANGER,
    RecordType.SRV: Role.SERVICE,
}
_TEXT_ROLES = {
    "v=spf1": Role.SPF,
    "v=DKIM1": Role.DKIM,
    "v=DMARC1; p=": Role.DMARC,
    "v=DMARC1": Role.REPORTS,
    "v=TLSRPTv1": Role.TLSRPT,
}


@dataclass(frozen=True)
class Record:
    """`value` is as a console's field takes it: a TXT's text whole and unquoted, else the RDATA.

    `zone` is the domain at whose DNS provider it is entered; None for a PTR, which the provider of
    the server sets. `value` is None while this server's own address is not known.
    """

    zone: Domain | None
    name: str
    type: RecordType
    value: str | None
    purpose: str
    ttl: int = 3600  # seconds
    optional: bool = False

    @property
    def strings(self) -> tuple[str, ...]:
        """A TXT's value as its character-strings, each of at most 255 octets."""
        text = self.value or ""
        return tuple(
            text[start : start + MAX_STRING] for start in range(0, len(text) or 1, MAX_STRING)
        )

    @property
    def role(self) -> Role:
        if self.type is not RecordType.TXT:
            return _ROLES[self.type]
        text = self.value or ""
        return next(role for prefix, role in _TEXT_ROLES.items() if text.startswith(prefix))

    @property
    def relative_name(self) -> str:
        """The name as most consoles want it: less the zone, `@` for the zone itself."""
        if self.zone is None:
            return self.name
        return "@" if self.name == self.zone else self.name.removesuffix(f".{self.zone}")

    @property
    def rdata(self) -> str:
        """The value as a zone file takes it (RFC 1035 5.1). Raises ValueError if unknown."""
        if self.value is None:
            msg = f"{self.name} {self.type.value}: the value is not known yet"
            raise ValueError(msg)
        if self.type is not RecordType.TXT:
            return self.value
        return " ".join(
            '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in self.strings
        )

    @property
    def zone_line(self) -> str:
        return f"{self.relative_name}\t{self.ttl}\tIN\t{self.type.value}\t{self.rdata}"
