"""The only reader of the environment: names, types, defaults, and every problem at once.

A setting is a field of `Settings`: `.env.example` and docs/settings.md are generated from it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from entrypoint.errors import Exit, UserError
from entrypoint.names import (
    Address,
    Domain,
    Hostname,
    Selector,
    is_public_suffix,
    public_ip,
    shown,
)

_MAX_VALUE = 8192  # characters; a value that long is a file pasted by mistake
_MAX_FILE = 65536  # bytes of a NAME_FILE
_T = TypeVar("_T")


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _words(value: Any) -> Any:
    """`a, b c` as a tuple, without repetition."""
    if isinstance(value, str):
        return tuple(dict.fromkeys(word for word in re.split(r"[,\s]+", value) if word))
    return value


def _words_or_none(value: Any) -> Any:
    return () if isinstance(value, str) and value.strip().lower() == "none" else _words(value)


def _mailto(value: Any) -> Any:
    words = _words_or_none(value)
    if isinstance(words, tuple):
        return tuple(
            word.removeprefix("mailto:") if isinstance(word, str) else word for word in words
        )
    return words


def _ip(version: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, str):
            return "none" if value.strip().lower() == "none" else public_ip(value, version)
        return value

    return BeforeValidator(check)


_UNITS = {"m": 60, "h": 3600, "d": 86400}


def _duration(value: Any) -> Any:
    """`90m`, `36h`, `5d` as seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d{1,6})([mhd])", value.strip().lower())
        if not match:
            msg = f"{shown(value)} is not a duration; write a number and m, h or d, such as 5d"
            raise ValueError(msg)
        return int(match[1]) * _UNITS[match[2]]
    return value


_MECHANISM = re.compile(
    r"(a|mx)(:[a-z0-9_.-]{1,253})?(/\d{1,2})?(//\d{1,3})?"
    r"|include:[a-z0-9_.-]{1,253}|ip4:[0-9.]{7,15}(/\d{1,2})?|ip6:[0-9a-f:.]{2,45}(/\d{1,3})?"
)


def _mechanisms(value: Any) -> Any:
    words = _words(value)
    if isinstance(words, tuple):
        words = tuple(word.lower() for word in words if isinstance(word, str))
        for word in words:
            if not _MECHANISM.fullmatch(word):
                msg = (
                    f"{shown(word)} is not a mechanism that this takes; a, mx, a:HOST, mx:DOMAIN, "
                    "ip4:ADDRESS, ip6:ADDRESS and include:DOMAIN are (RFC 7208 section 5)"
                )
                raise ValueError(msg)
    return words


def _failure_options(value: Any) -> Any:
    value = _lower(value)
    if isinstance(value, str) and not re.fullmatch(r"[01ds](:[01ds]){0,3}", value):
        msg = f"{shown(value)} is not one or more of 0, 1, d, s joined by a colon"
        raise ValueError(msg)
    return value


def _include(value: str) -> str:
    """An SPF include's target: a domain whose labels may start with `_`."""
    name = value.strip().lower().removeprefix("include:").removesuffix(".")
    Domain.parse(".".join(label.lstrip("_") for label in name.split(".")))
    return name


Many = Annotated[tuple[_T, ...], BeforeValidator(_words)]
ManyOrNone = Annotated[tuple[_T, ...], BeforeValidator(_words_or_none)]
Choice = BeforeValidator(_lower)
DURATION = "duration"  # marks a number of seconds that is written as 5d
Seconds = Annotated[int, BeforeValidator(_duration), Field(ge=3600, le=14 * 86400), DURATION]


class Settings(BaseModel):
    """What the owner asked for. Immutable, complete, checked; made by `load` alone."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, str_max_length=_MAX_VALUE
    )

    mail_hostname: Annotated[Hostname, Field(
        description="The name of this server, which PTR, A, AAAA, MX and EHLO share.",
        examples=["smtp.example.com"],
    )]  # fmt: skip
    mail_domains: Annotated[Many[Domain], Field(
        description="The domains that mail is sent from. Default: the parent of MAIL_HOSTNAME.",
        examples=["example.com, example.org"],
    )] = ()  # fmt: skip
    mail_receive: Annotated[ManyOrNone[Domain] | None, Field(
        description="Those of MAIL_DOMAINS whose incoming mail comes here too (`none`: send "
        "only). The others keep their mailbox provider: no MX is asked for, and mail to them "
        "goes to their real MX. Default: all of MAIL_DOMAINS.",
        examples=["example.com"],
    )] = None  # fmt: skip
    public_ipv4: Annotated[IPv4Address | Literal["none"] | None, _ip(4), Field(
        description="This server's public IPv4 address, or `none`. Default: found on the "
        "network interfaces.",
        examples=["203.0.113.10"],
    )] = None  # fmt: skip
    public_ipv6: Annotated[IPv6Address | Literal["none"] | None, _ip(6), Field(
        description="This server's public IPv6 address, or `none`: then nothing leaves by IPv6. "
        "Default: found on the network interfaces.",
        examples=["2001:db8::10"],
    )] = None  # fmt: skip
    forward_to: Annotated[Address | None, Field(
        description="The mailbox that all incoming mail is forwarded to. Default: none; mail is "
        "kept under data/mail, for users, postmaster and abuse alone.",
        examples=["me@example.net"],
    )] = None  # fmt: skip
    dkim_keys: Annotated[Many[Literal["rsa2048", "ed25519"]], Field(
        description="The DKIM keys that sign: `rsa2048`, or `rsa2048,ed25519`.",
        examples=["rsa2048,ed25519"], min_length=1,
    )] = ("rsa2048",)  # fmt: skip
    dkim_selector: Annotated[Selector | None, Field(
        description="The prefix of the selectors of keys made from now on. Default: of the day "
        "on which the first key is made.",
        examples=["t20260101"],
    )] = None  # fmt: skip
    spf_include: Annotated[
        Many[Annotated[str, BeforeValidator(_include)]], Field(
        description="Other services that may send for these domains, as SPF includes.",
        examples=["_spf.google.com"],
    )] = ()  # fmt: skip
    spf_mechanisms: Annotated[tuple[str, ...], BeforeValidator(_mechanisms), Field(
        description="SPF mechanisms to put first: `a,mx` gives the longer, classic record.",
        examples=["a,mx"],
    )] = ()  # fmt: skip
    spf_all: Annotated[Literal["~all", "-all", "?all"], Choice, Field(
        description="How the SPF records end.", examples=["-all"],
    )] = "~all"  # fmt: skip
    dmarc_policy: Annotated[Literal["none", "quarantine", "reject"], Choice, Field(
        description="What receivers should do with mail that fails DMARC.", examples=["reject"],
    )] = "quarantine"  # fmt: skip
    dmarc_fo: Annotated[str, BeforeValidator(_failure_options), Field(
        description="Which failures are reported: 0, 1, d, s, joined by `:` (RFC 7489 6.3).",
        examples=["1:d:s"],
    )] = "1"  # fmt: skip
    dmarc_rua: Annotated[tuple[Address, ...] | None, BeforeValidator(_mailto), Field(
        description="Where aggregate reports go, or `none`. Default: rua@ the domain, which "
        "exists here.",
        examples=["reports@example.org"],
    )] = None  # fmt: skip
    dmarc_ruf: Annotated[tuple[Address, ...] | None, BeforeValidator(_mailto), Field(
        description="Where failure reports go, or `none`. Default: ruf@ the domain, which "
        "exists here.",
        examples=["none"],
    )] = None  # fmt: skip
    max_message_mb: Annotated[int, Field(
        description="The largest message, in megabytes.", examples=["50"], ge=1, le=200,
    )] = 25  # fmt: skip
    max_queue: Annotated[int, Field(
        description="How many messages may wait to be delivered; each is held in memory too.",
        examples=["10000"], ge=10, le=1_000_000,
    )] = 2000  # fmt: skip
    give_up_after: Annotated[Seconds, Field(
        description="How long an undeliverable message is tried before it is returned "
        "(RFC 5321 4.5.4.1: 4 to 5 days); a number and m, h or d.",
        examples=["3d"],
    )] = 5 * 86400  # fmt: skip

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The sending domains, the default resolved; never empty."""
        return self.mail_domains or (Domain(self.mail_hostname.parent),)

    @property
    def receiving(self) -> tuple[Domain, ...]:
        """The domains whose MX is this server."""
        return self.domains if self.mail_receive is None else self.mail_receive


# Names that start like ours are ours: a misspelt one must not pass in silence.
_PREFIXES = ("MAIL_", "PUBLIC_IP", "FORWARD_", "DKIM_", "SPF_", "DMARC_", "MAX_", "GIVE_UP_")
_NAMES = {field.upper(): field for field in Settings.model_fields}


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables and the files that NAME_FILE variables name.

    An empty value counts as not set. Raises UserError (Exit.SETTINGS) that lists every problem;
    values of NAME_FILE files are never shown.
    """
    problems: dict[str, str] = {}
    raw: dict[str, str] = {}
    from_file: set[str] = set()
    for name, field in _NAMES.items():
        value, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
        if value and path:
            problems[name] = f"both {name} and {name}_FILE are set; keep one of them"
        elif path:
            try:
                raw[field] = _read(path)
                from_file.add(name)
            except ValueError as error:
                problems[name] = f"{name}_FILE: {error}"
        elif value:
            raw[field] = value
    problems |= _unknown(environ)
    raw = {field: value for field, value in raw.items() if value.strip()}

    settings: Settings | None = None
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            name = str(item["loc"][0]).upper()
            # A name whose value could not even be read has its problem already.
            problems.setdefault(name, _explain(name, item, secret=name in from_file))
        # What remains is checked as a whole too, so that nobody mends one problem to meet the next.
        rest = {field: value for field, value in raw.items() if field.upper() not in problems}
        if "mail_hostname" in rest:
            settings = Settings.model_validate(rest)
    if settings:
        for name, text in _conflicts(settings, ignore=problems.keys()):
            problems.setdefault(name, text)
    if problems:
        lines = [f"  {text}" for _, text in sorted(problems.items())]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise UserError(
            "\n".join([f"The settings have {count}:", *lines]),
            "correct .env, then: docker compose up -d. All settings: docs/settings.md",
            exit_code=Exit.SETTINGS,
        )
    assert settings is not None  # noqa: S101 (no problem means that validation passed)
    return settings


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        msg = f"cannot read {shown(path)}: {reason}"
        raise ValueError(msg) from None
    if len(content) > _MAX_FILE:
        msg = f"{shown(path)} is larger than {_MAX_FILE} bytes"
        raise ValueError(msg)
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        msg = f"{shown(path)} is not UTF-8 text"
        raise ValueError(msg) from None


def _unknown(environ: Mapping[str, str]) -> dict[str, str]:
    problems = {}
    for name in environ:
        base = name.removesuffix("_FILE")
        if base in _NAMES:
            continue
        near = difflib.get_close_matches(base, _NAMES, n=1, cutoff=0.8)
        if name.startswith(_PREFIXES) or near:
            hint = f"; did you mean {near[0]}?" if near else ""
            problems[name] = f"{shown(name)[1:-1]} is not a setting{hint}"
    return problems


def _explain(name: str, item: Mapping[str, Any], *, secret: bool) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing":
        return f"{name} is missing; set it to this server's full name, such as smtp.example.com"
    if secret:
        return f"{name}: the content of {name}_FILE is not valid"
    if kind == "value_error":
        return f"{name}: {context['error']}"
    if kind == "literal_error":
        return f"{name}: must be {context['expected']}"
    if kind == "string_too_long":
        return f"{name}: is longer than {_MAX_VALUE} characters"
    return f"{name}: {item['msg'][0].lower()}{item['msg'][1:]}"


def _conflicts(settings: Settings, ignore: Any) -> Iterator[tuple[str, str]]:
    """Problems between settings; those that `ignore` names are already known to be wrong."""
    host, domains = settings.mail_hostname, settings.domains
    if "MAIL_DOMAINS" not in ignore:
        for domain in filter(is_public_suffix, domains):
            if settings.mail_domains:
                yield (
                    "MAIL_DOMAINS",
                    f"MAIL_DOMAINS: {domain} is a registry's suffix, nobody's own domain",
                )
            else:
                text = (
                    f"MAIL_HOSTNAME: {host} has the parent {domain}, which is a registry's suffix "
                    f"and cannot send mail; use a name below your domain, such as smtp.{host}, "
                    "or set MAIL_DOMAINS"
                )
                yield "MAIL_HOSTNAME", text
        if "MAIL_RECEIVE" not in ignore:
            for domain in settings.receiving:
                if domain not in domains:
                    text = (
                        f"MAIL_RECEIVE: {domain} is not one of MAIL_DOMAINS "
                        f"({', '.join(domains)}); add it there, or remove it here"
                    )
                    yield "MAIL_RECEIVE", text
        if settings.forward_to and settings.forward_to.domain in {*settings.receiving, host}:
            text = (
                f"FORWARD_TO: {settings.forward_to} is received by this very server, so mail "
                "would go round in a circle; name a mailbox elsewhere"
            )
            yield "FORWARD_TO", text
    if settings.public_ipv4 == "none" and settings.public_ipv6 == "none":
        text = "PUBLIC_IPV4 and PUBLIC_IPV6 are both none; a mail server needs one of them"
        yield "PUBLIC_IPV4", text
