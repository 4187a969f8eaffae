"""The policies that mail keeps in TXT records, as types: `parse(str(x)) == x`.

Parsing is as lenient as the RFCs make receivers, so that what is judged is what they see.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from typing import Self

from entrypoint.names import Address, shown


@dataclass(frozen=True)
class Spf:
    """Who may send for a domain (RFC 7208). `terms` come before `all`, in order.

    `all` is empty where the record does not end in one (a redirect, or an oversight).
    """

    terms: tuple[str, ...]
    all: str = "~all"

    def __str__(self) -> str:
        return " ".join(["v=spf1", *self.terms, *([self.all] if self.all else [])])

    @classmethod
    def is_one(cls, text: str) -> bool:
        """Whether a TXT record is an SPF record at all (RFC 7208 4.5)."""
        return text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError. What stands behind `all` has no effect and is kept as a term."""
        if not cls.is_one(text):
            msg = f"{shown(text)} does not start with v=spf1"
            raise ValueError(msg)
        words = text.split()[1:]
        last = next((word for word in reversed(words) if word.lstrip("+-~?").lower() == "all"), "")
        return cls(tuple(word for word in words if word is not last), last.lower())

    def including(self, name: str) -> Spf:
        """The record that also passes what `name` passes; the rest stays as it is."""
        term = f"include:{name}"
        return self if term in self.terms else Spf((*self.terms, term), self.all)


def tags(text: str) -> dict[str, str]:
    """`tag=value; …` as RFC 6376 3.2 has it, names in lower case. Raises ValueError."""
    found: dict[str, str] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if not equals or not name.isidentifier():
            msg = f"{shown(part.strip())} is not tag=value"
            raise ValueError(msg)
        if name in found:
            msg = f"the tag {name} stands twice"
            raise ValueError(msg)
        found[name] = value.strip()
    return found


@dataclass(frozen=True)
class DkimRecord:
    """A signer's public key (RFC 6376 3.6.1, RFC 8463 for ed25519), in base64."""

    key_type: str
    public: str

    def __str__(self) -> str:
        return f"v=DKIM1; k={self.key_type}; p={self.public}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what a verifier would not take. An empty key is a revoked one."""
        found = tags(text)
        if found.get("v", "DKIM1") != "DKIM1":
            msg = f"v={found['v']} is not v=DKIM1"
            raise ValueError(msg)
        if "p" not in found:
            msg = "the tag p, the key, is missing"
            raise ValueError(msg)
        public = "".join(found["p"].split())  # folding white space may stand anywhere in it
        try:
            b64decode(public, validate=True)
        except binascii.Error:
            msg = "the key (p=) is not base64"
            raise ValueError(msg) from None
        return cls(found.get("k", "rsa").lower(), public)


@dataclass(frozen=True)
class Dmarc:
    """What receivers do with mail that fails, and whom they tell (RFC 7489 6.3)."""

    policy: str
    failure_options: str = "1"
    rua: tuple[Address, ...] = ()
    ruf: tuple[Address, ...] = ()

    def __str__(self) -> str:
        found = ["v=DMARC1", f"p={self.policy}", f"fo={self.failure_options}"]
        if self.rua:
            found.append(f"rua={_mailto(self.rua)}")
        if self.ruf:
            found.append(f"ruf={_mailto(self.ruf)}")
        return "; ".join(found)

    @classmethod
    def is_one(cls, text: str) -> bool:
        """Whether a TXT record is a DMARC record at all (RFC 7489 6.6.3)."""
        return text.replace(" ", "").startswith("v=DMARC1")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what receivers would ignore."""
        found = tags(text)
        if found.get("v") != "DMARC1" or not cls.is_one(text):
            msg = "it must begin with v=DMARC1"
            raise ValueError(msg)
        policy = found.get("p", "").lower()
        if policy not in ("none", "quarantine", "reject"):
            msg = f"p={shown(found.get('p', ''))} is none of none, quarantine and reject"
            raise ValueError(msg)
        return cls(
            policy,
            found.get("fo", "0"),
            _from_mailto(found.get("rua", "")),
            _from_mailto(found.get("ruf", "")),
        )


@dataclass(frozen=True)
class TlsRpt:
    """Where receivers of our TLS report failures (RFC 8460 3)."""

    rua: tuple[Address, ...]

    def __str__(self) -> str:
        return f"v=TLSRPTv1; rua={_mailto(self.rua)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        found = tags(text)
        if found.get("v") != "TLSRPTv1":
            msg = "it must begin with v=TLSRPTv1"
            raise ValueError(msg)
        return cls(_from_mailto(found.get("rua", "")))


def _mailto(addresses: tuple[Address, ...]) -> str:
    # RFC 7489 6.2: a comma or exclamation mark inside a URI must be percent-encoded.
    return ",".join(f"mailto:{address.replace('!', '%21')}" for address in addresses)


def _from_mailto(text: str) -> tuple[Address, ...]:
    """The addresses among URIs; a size limit (`!10m`) and other kinds of URI are left out."""
    found = []
    for uri in text.split(","):
        scheme, _, rest = uri.strip().partition(":")
        if scheme.lower() == "mailto":
            found.append(Address.parse(rest.partition("!")[0].replace("%21", "!")))
    return tuple(found)
