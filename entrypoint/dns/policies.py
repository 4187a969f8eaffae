"""The policies that mail keeps in TXT records, as types: `parse(str(x)) == x`.

Parsing is as lenient as the RFCs make receivers, so that what is judged is what they see.
"""

from __future__ import annotations

import re
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote

from entrypoint.common.errors import shown
from entrypoint.common.names import Address


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
        """Raises ValueError. Of several `all` the first one counts (RFC 7208 5.1); terms that
        stand behind it, which have no effect, are kept before it."""
        if not cls.is_one(text):
            msg = f"{shown(text)} does not start with v=spf1"
            raise ValueError(msg)
        words = text.split()[1:]
        ends = [word.lower() for word in words if _is_all(word)]
        terms = tuple(word for word in words if not _is_all(word))
        return cls(terms, ends[0] if ends else "")

    @property
    def lets_all_in(self) -> bool:
        return self.all in ("+all", "all")


def _is_all(word: str) -> bool:
    return word.lower() in ("all", "+all", "-all", "~all", "?all")


def tags(text: str) -> dict[str, str]:
    """`tag=value; …` as RFC 6376 3.2 has it, in order. Raises ValueError."""
    found: dict[str, str] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        name = name.strip()
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
            msg = f"v={shown(found['v'])} is not v=DKIM1"
            raise ValueError(msg)
        if "v" in found and next(iter(found)) != "v":
            msg = "v=DKIM1 does not stand first"
            raise ValueError(msg)
        if "p" not in found:
            msg = "the tag p, the key, is missing"
            raise ValueError(msg)
        if "h" in found and "sha256" not in _words(found["h"]):
            msg = f"h={shown(found['h'])} does not allow sha256, with which mail is signed"
            raise ValueError(msg)
        if "s" in found and not {"*", "email"}.intersection(_words(found["s"])):
            msg = f"s={shown(found['s'])} says that the key is not for e-mail"
            raise ValueError(msg)
        public = "".join(found["p"].split())  # folding white space may stand anywhere in it
        try:
            b64decode(public, validate=True)
        except ValueError:
            msg = "the key (p=) is not base64"
            raise ValueError(msg) from None
        return cls(found.get("k", "rsa").lower(), public)


def _words(value: str) -> list[str]:
    """A tag's value that is a list with colons."""
    return [word.strip() for word in value.split(":")]


@dataclass(frozen=True)
class Dmarc:
    """What receivers do with mail that fails, and whom they tell (RFC 9989 4.7).

    `subdomains` and `nonexistent` are policies too, empty where `policy` holds; `public_suffix` is
    y, n or empty.
    """

    policy: str
    failure_options: str = "1"
    rua: tuple[Address, ...] = ()
    ruf: tuple[Address, ...] = ()
    subdomains: str = ""
    nonexistent: str = ""
    public_suffix: str = ""
    testing: bool = False

    def __str__(self) -> str:
        found = ["v=DMARC1", f"p={self.policy}", f"fo={self.failure_options}"]
        if self.rua:
            found.append(f"rua={_mailto(self.rua)}")
        if self.ruf:
            found.append(f"ruf={_mailto(self.ruf)}")
        for name, value in (
            ("sp", self.subdomains), ("np", self.nonexistent), ("psd", self.public_suffix),
            ("t", "y" if self.testing else ""),
        ):  # fmt: skip
            if value:
                found.append(f"{name}={value}")
        return "; ".join(found)

    @classmethod
    def is_one(cls, text: str) -> bool:
        """Whether a TXT record is a DMARC record at all (RFC 7489 6.6.3)."""
        return bool(re.match(r"[vV][ \t]*=[ \t]*DMARC1[ \t]*(;|$)", text))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what receivers would ignore."""
        if not cls.is_one(text):
            msg = "it must begin with v=DMARC1"
            raise ValueError(msg)
        found = {name.lower(): value for name, value in tags(text).items()}
        policy = found.get("p", "").lower()
        if policy not in _POLICIES:
            msg = f"p={shown(found.get('p', ''))} is none of none, quarantine and reject"
            raise ValueError(msg)
        return cls(
            policy,
            found.get("fo", "0"),
            _from_mailto(found.get("rua", "")),
            _from_mailto(found.get("ruf", "")),
            _known(found.get("sp", ""), _POLICIES),
            _known(found.get("np", ""), _POLICIES),
            _known(found.get("psd", ""), ("y", "n")),
            testing=found.get("t", "").lower() == "y",
        )


_POLICIES = ("none", "quarantine", "reject")


def _known(value: str, values: tuple[str, ...]) -> str:
    """A tag's value; empty for one that receivers ignore."""
    return value.lower() if value.lower() in values else ""


@dataclass(frozen=True)
class TlsRpt:
    """Where receivers of our TLS report failures (RFC 8460 3)."""

    rua: tuple[Address, ...]

    def __str__(self) -> str:
        return f"v=TLSRPTv1; rua={_mailto(self.rua)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError. `rua` may be empty: reports may also go to https (RFC 8460 3)."""
        found = tags(text)
        if not cls.is_one(text):
            msg = "it must begin with v=TLSRPTv1"
            raise ValueError(msg)
        if "rua" not in found:
            msg = "the tag rua, where reports go, is missing"
            raise ValueError(msg)
        return cls(_from_mailto(found["rua"]))

    @classmethod
    def is_one(cls, text: str) -> bool:
        """Whether a TXT record is a TLS-RPT record at all (RFC 8460 3)."""
        return bool(re.match(r"v=TLSRPTv1[ \t]*(;|$)", text))


def _mailto(addresses: tuple[Address, ...]) -> str:
    # Percent-encoded is what would end or cut a URI: ! and , (RFC 7489 6.2), ? # & (RFC 6068 2).
    return ",".join(f"mailto:{quote(address, safe='@+')}" for address in addresses)


def _from_mailto(text: str) -> tuple[Address, ...]:
    """The addresses among URIs. Left out are size limits (`!10m`), other kinds of URI, and
    addresses that cannot be ours."""
    found = []
    for uri in text.split(","):
        scheme, _, rest = uri.strip().partition(":")
        if scheme.lower() == "mailto":
            with suppress(ValueError):
                found.append(Address.parse(unquote(rest.partition("!")[0])))
    return tuple(found)
