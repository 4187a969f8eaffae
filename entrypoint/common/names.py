"""Checked names. A value of one of these types is safe in a path, a DNS record and a config file.

All of them are plain ASCII strings in their canonical form, so they compare, sort and print as
such; nothing else in the package checks a name again.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Any, Self

import idna
from publicsuffixlist import PublicSuffixList
from pydantic_core import CoreSchema, core_schema

from entrypoint.common.errors import shown
from entrypoint.common.ranges import is_reachable, is_translated

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# RFC 5321 4.1.2 Dot-string, less what a shell, a path or chasquid's aliases file could trip over:
# there a leading | is a command, and * means any name.
_LOCAL = re.compile(r"[a-z0-9!#&'+=?^_{}~-]+(\.[a-z0-9!#&'+=?^_{}~-]+)*")
_LOGIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PURPOSE = re.compile(r"(?=.{1,24}\Z)[a-z0-9_-]+(\.[a-z0-9_-]+)*")


class _Name(str):
    """A string that exists only if `parse` accepted it."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check and canonicalize. Raises ValueError, whose text says what is wrong."""
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())


class Domain(_Name):
    """A DNS domain as A-labels (RFC 5890), lower case, without the final dot."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        name = text.strip().removesuffix(".").lower()
        if not name:
            msg = "a domain name is missing"
            raise ValueError(msg)
        if "@" in name or "/" in name or ":" in name:
            msg = f"{shown(text)} is not a domain name; write it as example.com"
            raise ValueError(msg)
        if not name.isascii():
            try:
                name = idna.encode(name, uts46=True).decode("ascii")
            except idna.IDNAError:
                msg = f"{shown(text)} is not a valid internationalized domain name (IDNA 2008)"
                raise ValueError(msg) from None
        labels = name.split(".")
        bad = next((label for label in labels if not _LABEL.fullmatch(label)), None)
        if bad is not None:
            msg = (
                f"{shown(text)} is not a domain name: the label {shown(bad)} must be 1 to 63 "
                "letters, digits or hyphens, with no hyphen at its ends"
            )
            raise ValueError(msg)
        for label in labels:
            if label.startswith("xn--"):
                try:
                    idna.decode(label)
                except idna.IDNAError:
                    msg = f"{shown(text)}: {shown(label)} is not the xn-- form of any name"
                    raise ValueError(msg) from None
        if len(name) > 253:
            msg = f"{shown(text)} is longer than a domain name's 253 characters"
            raise ValueError(msg)
        if len(labels) < 2:
            msg = f"{shown(text)} has no dot; a full domain name is needed, such as example.com"
            raise ValueError(msg)
        if labels[-1].isdigit():
            msg = f"{shown(text)} is an IP address or ends in a number; a domain name is needed"
            raise ValueError(msg)
        return cls(name)

    @property
    def parent(self) -> str:
        """The name less its first label; may be a single label."""
        return self.partition(".")[2]

    @property
    def unicode(self) -> str:
        """As U-labels, which is how chasquid says it."""
        return ".".join(
            idna.decode(label) if label.startswith("xn--") else label for label in self.split(".")
        )

    def is_within(self, other: str) -> bool:
        """Whether this is `other` or a name below it."""
        return self == other or self.endswith(f".{other}")


class Hostname(Domain):
    """The name of one machine: what PTR, A, AAAA, MX and EHLO share."""

    __slots__ = ()


class Address(_Name):
    """A mailbox `local@domain` (RFC 5321 4.1.2), ASCII, no quoted local part, lower case.

    RFC 5321 lets a local part be case-sensitive; chasquid and every large provider fold it.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        local, at, domain = text.strip().rpartition("@")
        if not at or not local:
            msg = f"{shown(text)} is not an e-mail address; write it as i@example.com"
            raise ValueError(msg)
        if "@" in local:
            msg = f"{shown(text)} has more than one @; one address is needed, such as i@example.com"
            raise ValueError(msg)
        local = local.lower()
        if len(local) > 64 or not _LOCAL.fullmatch(local):
            msg = (
                f"{shown(text)} has a part before the @ that this server does not take: 1 to 64 "
                "ASCII letters, digits and . _ - + are always fine"
            )
            raise ValueError(msg)
        return cls(f"{local}@{Domain.parse(domain)}")

    @property
    def local(self) -> str:
        return self.rpartition("@")[0]

    @property
    def domain(self) -> Domain:
        return Domain(self.rpartition("@")[2])


class Login(Address):
    """An address that may log in here. Narrower than Address: chasquid cuts a local part at `+`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        address = Address.parse(text)
        if "+" in address.local:
            msg = (
                f"{shown(text)} has a + before the @. Mail to name+anything@ reaches name@ "
                "already; give the plain address, and --name for one credential of several"
            )
            raise ValueError(msg)
        if not _LOGIN.fullmatch(address.local):
            msg = f"{shown(text)}: a sender's name is made of letters, digits and . _ -"
            raise ValueError(msg)
        return cls(address)


class Purpose(_Name):
    """What one of a user's credentials is for: what follows the + in its login."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        name = text.strip().lower()
        if not _PURPOSE.fullmatch(name):
            msg = (
                f"{shown(text)} does not name a credential: 1 to 24 letters, digits and . _ -, "
                "such as newsletter"
            )
            raise ValueError(msg)
        return cls(name)


class Selector(_Name):
    """A DKIM selector (RFC 6376 3.1) of one DNS label."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        name = text.strip().lower()
        if not _LABEL.fullmatch(name):
            msg = (
                f"{shown(text)} is not a selector: 1 to 63 letters, digits or hyphens, with no "
                "hyphen at its ends"
            )
            raise ValueError(msg)
        return cls(name)


def public_ip(text: str, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """A unicast address that others can reach. Raises ValueError with what is wrong.

    The documentation ranges (RFC 5737, RFC 3849) pass: tests and manuals use them.
    """
    address = _plain_ip(text, version)
    if not is_reachable(address):
        msg = f"{shown(text)} cannot be reached from the internet"
        raise ValueError(msg)
    return address


def source_ip(text: str, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address that a machine sends to the internet from. Raises ValueError with what is wrong.

    A private IPv4 address (RFC 1918, RFC 6598) passes, since a router may translate it.
    """
    address = _plain_ip(text, version)
    if not is_reachable(address) and not is_translated(address):
        msg = (
            f"{shown(text)} is no address that mail can leave from; name one of those that "
            "`ip address` shows"
        )
        raise ValueError(msg)
    return address


def _plain_ip(text: str, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of that version, whatever it is good for. Raises ValueError."""
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        msg = f"{shown(text)} is not an IP address"
        raise ValueError(msg) from None
    if address.version != version:
        msg = f"{shown(text)} is an IPv{address.version} address; an IPv{version} one is needed"
        raise ValueError(msg)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            msg = f"{shown(text)} names an interface (after %); only the address is needed"
            raise ValueError(msg)
        if address.ipv4_mapped is not None:
            msg = f"{shown(text)} is an IPv4 address written as IPv6"
            raise ValueError(msg)
    return address


@functools.cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def is_public_suffix(name: str) -> bool:
    """Whether a registry hands out names right below this one (publicsuffix.org)."""
    return "." not in name or bool(_suffixes().is_public(name))


def organizational_domain(domain: Domain) -> Domain:
    """The domain that DMARC looks for above a name (RFC 7489 3.2)."""
    return Domain(_suffixes().privatesuffix(domain) or domain)
