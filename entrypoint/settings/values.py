"""Types of settings: from text to a checked value, each with words for what is wrong."""

from __future__ import annotations

import difflib
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
)

from entrypoint.common import age, signing
from entrypoint.common.errors import shown
from entrypoint.common.names import (
    Address,
    Domain,
    public_ip,
    source_ip,
)
from entrypoint.settings import acmehooks

_MAX_PREFIX = 40  # characters of DKIM_SELECTOR: a key's letter follows, and DNS stops at 63
_T = TypeVar("_T")


def path(value: Any) -> Any:
    """An absolute path in the container."""
    if isinstance(value, str):
        path = value.strip()
        if not re.fullmatch(r"/[A-Za-z0-9_./@+-]*", path) or ".." in path.split("/"):
            msg = f"{shown(value)} is not an absolute path of letters, digits and . _ / @ + -"
            raise ValueError(msg)
        return PurePosixPath(path)
    return value


def hook_name(value: Any) -> Any:
    """The name of a DNS hook of acme.sh, such as dns_cf."""
    if isinstance(value, str) and not re.fullmatch(r"[a-z0-9_]{1,40}", value := value.strip()):
        msg = f"{shown(value)} is not the name of an acme.sh hook, such as dns_cf"
        raise ValueError(msg)
    return value


def driver_name(value: Any) -> Any:
    """The name of a provider's driver of dns-lexicon."""
    if isinstance(value, str) and not re.fullmatch(r"[a-z0-9]{1,40}", value := _lower(value)):
        msg = f"{shown(value)} is not the name of a provider of dns-lexicon, such as hover"
        raise ValueError(msg)
    return value


def acme_server(value: Any) -> Any:
    """The directory URL of an authority (RFC 8555 7.1.1), or the name that acme.sh has for it."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if re.fullmatch(r"https://[A-Za-z0-9./:_-]{1,200}", value):
        return value
    if value.lower() in acmehooks.AUTHORITIES:
        return value.lower()
    near = difflib.get_close_matches(value.lower(), acmehooks.AUTHORITIES, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    msg = f"{shown(value)} is neither a name such as letsencrypt nor an https:// URL{hint}"
    raise ValueError(msg)


def acme_safe(value: Any) -> Any:
    """What acme.sh's configuration, a shell script, keeps as it is."""
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9_./+=-]{1,500}", value.strip()):
        msg = "holds a character that is none of letters, digits and _ . / + = -"
        raise ValueError(msg)
    return value.strip() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _words(value: Any) -> Any:
    """`a, b c` as a tuple."""
    if isinstance(value, str):
        words = tuple(word for word in re.split(r"[,\s]+", value) if word)
        if not words:
            msg = f"{shown(value)} is a list of nothing; leave the setting out for its default"
            raise ValueError(msg)
        return words
    return value


def _once(values: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(values))


def _words_or_none(value: Any) -> Any:
    return () if isinstance(value, str) and value.strip().lower() == "none" else _words(value)


def _mailto(value: Any) -> Any:
    words = _words_or_none(value)
    if isinstance(words, tuple):
        return tuple(
            word.removeprefix("mailto:") if isinstance(word, str) else word for word in words
        )
    return words


def ip(version: int) -> BeforeValidator:
    """A public address of that IP version, or `none`."""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            return "none" if value.strip().lower() == "none" else public_ip(value, version)
        return value

    return BeforeValidator(check)


def sources(version: int) -> BeforeValidator:
    """Addresses of that IP version that a machine can have and send from, each once."""

    def check(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found: list[IPv4Address | IPv6Address] = []
        for word in _words(value):
            address = source_ip(word, version)
            if address in found:
                msg = f"{address} stands there twice; name each address once"
                raise ValueError(msg)
            found.append(address)
        return tuple(found)

    return BeforeValidator(check)


def _whole_number(value: Any) -> Any:
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]{1,12}", value.strip()):
            msg = f"{shown(value)} is not a whole number"
            raise ValueError(msg)
        return int(value)
    return value


def number_or_none(value: Any) -> Any:
    """A whole number, or None for the word `none`."""
    return None if isinstance(value, str) and _lower(value) == "none" else _whole_number(value)


_MAX_SHARE = 1_000_000  # messages: as many as MAX_QUEUE may be


def share(value: Any) -> Any:
    """How many messages, or the word `none`."""
    if not isinstance(value, str):
        return value
    if _lower(value) == "none":
        return "none"
    number = _whole_number(value)
    if not 1 <= number <= _MAX_SHARE:
        msg = f"{number} is not between 1 and {_MAX_SHARE}; `none` sets no limit"
        raise ValueError(msg)
    return number


_UNITS = {"m": 60, "h": 3600, "d": 86400}
_MIN_SECONDS, _MAX_SECONDS = 3600, 14 * 86400


def _duration(value: Any) -> Any:
    """`90m`, `36h`, `5d` as seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,6})([mhd])", value.strip().lower())
        if not match:
            msg = f"{shown(value)} is not a duration; write a number and m, h or d, such as 5d"
            raise ValueError(msg)
        seconds = int(match[1]) * _UNITS[match[2]]
        if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
            msg = f"{shown(value)} is not between 1h and 14d"
            raise ValueError(msg)
        return seconds
    return value


_MECHANISM = re.compile(
    r"(a|mx)(:(?P<name>[^/]+))?(/(?P<length4>[0-9]{1,2}))?(//(?P<length6>[0-9]{1,3}))?"
    r"|include:(?P<include>.+)|ip4:(?P<ip4>.+)|ip6:(?P<ip6>.+)"
)


def mechanism(value: str) -> str:
    """One mechanism (RFC 7208 section 5). A wrong one would void the whole SPF record."""
    word = value.strip().lower()
    match = _MECHANISM.fullmatch(word)
    try:
        if not match or int(match["length4"] or 0) > 32 or int(match["length6"] or 0) > 128:
            raise ValueError
        if name := match["name"] or match["include"]:
            _underscored(name)
        if match["ip4"]:
            IPv4Network(match["ip4"], strict=False)
        if match["ip6"]:
            IPv6Network(match["ip6"], strict=False)
    except ValueError:
        msg = (
            f"{shown(value)} is not a mechanism that this takes; a, mx, a:HOST, mx:DOMAIN, "
            "ip4:ADDRESS, ip6:ADDRESS and include:DOMAIN are (RFC 7208 section 5)"
        )
        raise ValueError(msg) from None
    return word


def failure_options(value: Any) -> Any:
    """`fo` of a DMARC record (RFC 7489 6.3)."""
    value = _lower(value)
    if isinstance(value, str) and not re.fullmatch(r"[01ds](:[01ds]){0,3}", value):
        msg = f"{shown(value)} is not one or more of 0, 1, d, s joined by a colon"
        raise ValueError(msg)
    return value


def include(value: str) -> str:
    """An SPF include's target."""
    return _underscored(value.strip().lower().removeprefix("include:"))


def _underscored(text: str) -> str:
    """A domain whose labels may start with `_`, lower case."""
    name = text.removesuffix(".")
    Domain.parse(".".join(label.lstrip("_") for label in name.split(".")))
    if not name.isascii():
        msg = f"{shown(text)} is not ASCII; write its labels in their xn-- form"
        raise ValueError(msg)
    return name


_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
_REPOSITORY = r"[A-Za-z0-9_.~+/-]{1,300}"
_SSH_URL = re.compile(
    rf"ssh://(?:{_USER}@)?(?:{_NAME}|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?/{_REPOSITORY}"
    rf"|{_USER}@{_NAME}:(?!/?-){_REPOSITORY}"
)
_HTTPS_URL = re.compile(
    rf"https://(?:{_USER}@)?(?:{_NAME}|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?/{_REPOSITORY}"
)


def git_remote(value: Any) -> Any:
    """A git repository's address, over SSH or HTTPS, without a password. Raises ValueError."""
    if isinstance(value, str):
        value = value.strip()
        if re.match(r"[a-z]+://[^/@]*:[^/@]*@", value):
            msg = "holds a password; give that with BACKUP_GIT_TOKEN_FILE"
            raise ValueError(msg)
        if not (_SSH_URL.fullmatch(value) or _HTTPS_URL.fullmatch(value)):
            msg = (
                f"{shown(value)} is not the address of a git repository; write it as "
                "git@git.example.com:me/mail-backup.git, ssh://…/… or https://…/…"
            )
            raise ValueError(msg)
    return value


_HOST_KEY = re.compile(
    r"(?:^|\s)(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521))\s+([A-Za-z0-9+/]{40,}={0,2})(?=\s|$)"
)


def host_keys(value: Any) -> Any:
    """Public host keys, `TYPE BASE64`, of lines as ssh-keyscan prints them. Raises ValueError."""
    if isinstance(value, str):
        found = []
        for line in re.split(r"[,\n]", value):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = _HOST_KEY.search(line.strip())
            if not match:
                msg = (
                    f"{shown(line.strip())} is not a public host key; one looks like "
                    "ssh-ed25519 AAAA…, as ssh-keyscan -t ed25519 SERVER prints it"
                )
                raise ValueError(msg)
            found.append(f"{match[1]} {match[2]}")
        return tuple(dict.fromkeys(found))
    return value


def private_key(value: Any) -> Any:
    """A private SSH key. Never shows it."""
    if isinstance(value, str):
        value = value.strip()
        if not re.match(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n", value):
            msg = "is not a private key; it begins with -----BEGIN OPENSSH PRIVATE KEY-----"
            raise ValueError(msg)
    return value


def token(value: Any) -> Any:
    """An access token of a git server: one word of printable ASCII."""
    if isinstance(value, str):
        value = value.strip()
        if not re.fullmatch(r"[\x21-\x7e]{1,500}", value):
            msg = "is not a token of printable ASCII characters"
            raise ValueError(msg)
    return value


def signing_key(value: Any) -> Any:
    """The secret that a backup is signed with (common/signing.py)."""
    return signing.check_signing_key(value) if isinstance(value, str) else value


def prefix(value: Any) -> Any:
    """The beginning of the DKIM selectors."""
    if isinstance(value, str) and len(value.strip()) > _MAX_PREFIX:
        msg = f"{shown(value)} is longer than {_MAX_PREFIX} characters"
        raise ValueError(msg)
    return value


Many = Annotated[tuple[_T, ...], BeforeValidator(_words), AfterValidator(_once)]
ManyOrNone = Annotated[tuple[_T, ...], BeforeValidator(_words_or_none), AfterValidator(_once)]
Number = BeforeValidator(_whole_number)
Reports = Annotated[tuple[Address, ...], BeforeValidator(_mailto), AfterValidator(_once)]
Choice = BeforeValidator(_lower)
DURATION = "duration"  # marks a number of seconds that is written as 5d
BY_FILE = "by file"  # marks what is given as NAME_FILE: several lines, or a secret
Recipient = Annotated[str, AfterValidator(age.check_recipient)]
Seconds = Annotated[int, BeforeValidator(_duration), DURATION]
