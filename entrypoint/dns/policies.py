"""The policies that mail keeps in TXT records, as types whose text is the record's."""

from __future__ import annotations

from dataclasses import dataclass

from entrypoint.names import Address


@dataclass(frozen=True)
class Spf:
    """Who may send for a domain (RFC 7208). `terms` come before `all`, in order."""

    terms: tuple[str, ...]
    all: str = "~all"

    def __str__(self) -> str:
        return " ".join(["v=spf1", *self.terms, self.all])


@dataclass(frozen=True)
class DkimRecord:
    """A signer's public key (RFC 6376 3.6.1, RFC 8463 for ed25519), in base64."""

    key_type: str
    public: str

    def __str__(self) -> str:
        return f"v=DKIM1; k={self.key_type}; p={self.public}"


@dataclass(frozen=True)
class Dmarc:
    """What receivers do with mail that fails, and whom they tell (RFC 7489 6.3)."""

    policy: str
    failure_options: str = "1"
    rua: tuple[Address, ...] = ()
    ruf: tuple[Address, ...] = ()

    def __str__(self) -> str:
        tags = ["v=DMARC1", f"p={self.policy}"]
        if self.ruf:  # fo means nothing without ruf
            tags.append(f"fo={self.failure_options}")
        if self.rua:
            tags.append(f"rua={_mailto(self.rua)}")
        if self.ruf:
            tags.append(f"ruf={_mailto(self.ruf)}")
        return "; ".join(tags)


@dataclass(frozen=True)
class TlsRpt:
    """Where receivers of our TLS report failures (RFC 8460 3)."""

    rua: tuple[Address, ...]

    def __str__(self) -> str:
        return f"v=TLSRPTv1; rua={_mailto(self.rua)}"


def _mailto(addresses: tuple[Address, ...]) -> str:
    # RFC 7489 6.2: a comma or exclamation mark inside a URI must be percent-encoded.
    return ",".join(f"mailto:{address.replace('!', '%21')}" for address in addresses)
