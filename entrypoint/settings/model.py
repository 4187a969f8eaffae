"""The only reader of the environment: names, types, defaults, and every problem at once.

A setting is a field of `Settings`: `.env.example` and docs/settings.md are generated from it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from entrypoint.common import age, log, signing
from entrypoint.common.errors import Exit, UserError, shown
from entrypoint.common.limit import Limit
from entrypoint.common.names import (
    Address,
    Domain,
    Hostname,
    Selector,
    is_public_suffix,
    organizational_domain,
    public_ip,
)
from entrypoint.common.rates import Rates
from entrypoint.settings import acmehooks

_MAX_VALUE = 8192  # characters; a value that long is a file pasted by mistake
_MAX_FILE = 65536  # bytes of a NAME_FILE
_MAX_PREFIX = 40  # characters of DKIM_SELECTOR: a key's letter follows, and DNS stops at 63
_T = TypeVar("_T")


def _path(value: Any) -> Any:
    if isinstance(value, str):
        path = value.strip()
        if not re.fullmatch(r"/[A-Za-z0-9_./@+-]*", path) or ".." in path.split("/"):
            msg = f"{shown(value)} is not an absolute path of letters, digits and . _ / @ + -"
            raise ValueError(msg)
        return PurePosixPath(path)
    return value


def _hook_name(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[a-z0-9_]{1,40}", value := value.strip()):
        msg = f"{shown(value)} is not the name of an acme.sh hook, such as dns_cf"
        raise ValueError(msg)
    return value


def _driver_name(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[a-z0-9]{1,40}", value := _lower(value)):
        msg = f"{shown(value)} is not the name of a provider of dns-lexicon, such as hover"
        raise ValueError(msg)
    return value


def _acme_server(value: Any) -> Any:
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


def _acme_safe(value: Any) -> Any:
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


def _ip(version: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, str):
            return "none" if value.strip().lower() == "none" else public_ip(value, version)
        return value

    return BeforeValidator(check)


def _whole_number(value: Any) -> Any:
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]{1,12}", value.strip()):
            msg = f"{shown(value)} is not a whole number"
            raise ValueError(msg)
        return int(value)
    return value


def _number_or_none(value: Any) -> Any:
    return None if isinstance(value, str) and _lower(value) == "none" else _whole_number(value)


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


def _mechanism(value: str) -> str:
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


def _failure_options(value: Any) -> Any:
    value = _lower(value)
    if isinstance(value, str) and not re.fullmatch(r"[01ds](:[01ds]){0,3}", value):
        msg = f"{shown(value)} is not one or more of 0, 1, d, s joined by a colon"
        raise ValueError(msg)
    return value


def _include(value: str) -> str:
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


def _token(value: Any) -> Any:
    if isinstance(value, str):
        value = value.strip()
        if not re.fullmatch(r"[\x21-\x7e]{1,500}", value):
            msg = "is not a token of printable ASCII characters"
            raise ValueError(msg)
    return value


def _signing_key(value: Any) -> Any:
    return signing.check_signing_key(value) if isinstance(value, str) else value


def _prefix(value: Any) -> Any:
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


@dataclass(frozen=True)
class Given:
    """One variable as the owner set it. `file` is what NAME_FILE named; the value is its content.

    `kept` is False for what only gives access to the backup itself.
    """

    name: str
    value: str = field(repr=False)
    secret: bool
    file: str = field(default="", compare=False)
    kept: bool = True


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
        "only). The others keep their mailbox provider: no MX is asked for, your logins' mail "
        "to them goes to their real MX, and strangers' mail to them is refused. Default: all of "
        "MAIL_DOMAINS.",
        examples=["example.com"],
    )] = None  # fmt: skip
    public_ipv4: Annotated[IPv4Address | Literal["none"] | None, _ip(4), Field(
        description="This server's public IPv4 address, or `none`. Default: found on the "
        "network interface; if that has a private one, asked of a DNS echo.",
        examples=["203.0.113.10"],
    )] = None  # fmt: skip
    public_ipv6: Annotated[IPv6Address | Literal["none"] | None, _ip(6), Field(
        description="This server's public IPv6 address, or `none`: then nothing leaves by IPv6. "
        "Default: found on the network interface.",
        examples=["2001:db8::10"],
    )] = None  # fmt: skip
    forward_to: Annotated[Address | None, Field(
        description="The mailbox that all incoming mail is forwarded to. Default: none; mail is "
        "kept under data/mail, for users, postmaster and abuse alone.",
        examples=["me@example.net"],
    )] = None  # fmt: skip
    forward_unproven: Annotated[Literal["refuse", "forward"], Choice, Field(
        description="Strangers' mail that would be forwarded, for which neither SPF nor a DKIM "
        "signature passes and whose From domain asks to refuse such mail (DMARC reject or "
        "quarantine): `refuse` it, or `forward` it all the same, at the cost of this server's "
        "name.",
        examples=["forward"],
    )] = "refuse"  # fmt: skip
    tls: Annotated[Literal["auto", "dns", "http", "files", "self-signed"], Choice, Field(
        description="Where certificates come from: `dns` (acme.sh, DNS-01, with wildcards), "
        "`http` (acme.sh, through port 80, MAIL_HOSTNAME alone), `files` (TLS_FILES), "
        "`self-signed`, or `auto`: dns if ACME_DNS is set, else self-signed.",
        examples=["dns"],
    )] = "auto"  # fmt: skip
    tls_files: Annotated[PurePosixPath | None, BeforeValidator(_path), Field(
        description="For TLS=files: a folder in the container with fullchain.pem and "
        "privkey.pem, or with folders that hold them.",
        examples=["/certificates"],
    )] = None  # fmt: skip
    acme_dns: Annotated[str | None, BeforeValidator(_hook_name), Field(
        description="The acme.sh hook of the DNS provider; its own variables are set beside it, "
        "and data/domains/DOMAIN/acme.env overrides them for one domain. See "
        "docs/certificates.md.",
        examples=["dns_cf"],
    )] = None  # fmt: skip
    acme_email: Annotated[Address | None, Field(
        description="Where the certificate authority may write to.",
        examples=["me@example.net"],
    )] = None  # fmt: skip
    acme_server: Annotated[str, BeforeValidator(_acme_server), Field(
        description="The certificate authority: a name that acme.sh knows (`letsencrypt`, "
        "`letsencrypt_test`, `zerossl`, `google`, …) or the URL of its directory.",
        examples=["letsencrypt_test"],
    )] = "letsencrypt"  # fmt: skip
    acme_eab_kid: Annotated[str | None, BeforeValidator(_acme_safe), Field(
        description="External account binding, where the authority wants it: the key's id.",
        examples=["kid-1"],
    )] = None  # fmt: skip
    acme_eab_hmac_key: Annotated[SecretStr | None, BeforeValidator(_acme_safe), Field(
        description="External account binding: the key.", examples=["zWNDZM6eQGHWpSRTPal5"],
    )] = None  # fmt: skip
    acme_challenge_alias: Annotated[Domain | None, Field(
        description="A domain to put challenges into instead, if the real ones' DNS has no API: "
        "_acme-challenge of each points there by CNAME.",
        examples=["challenges.example.net"],
    )] = None  # fmt: skip
    acme_ca_bundle: Annotated[PurePosixPath | None, BeforeValidator(_path), Field(
        description="Root certificates (PEM, a file in the container) of a private authority, "
        "trusted besides the public ones.",
        examples=["/run/secrets/ca.pem"],
    )] = None  # fmt: skip
    acme_dns_sleep: Annotated[int | None, Field(
        description="Seconds to wait for a challenge to show in DNS. Default: acme.sh looks "
        "itself until it does.",
        examples=["60"], ge=1, le=1800,
    )] = None  # fmt: skip
    acme_webroot: Annotated[PurePosixPath | None, BeforeValidator(_path), Field(
        description="For TLS=http beside a web server of your own: the folder in the container "
        "that the web server serves. Default: tambo answers on port 80 while it is needed.",
        examples=["/webroot"],
    )] = None  # fmt: skip
    lexicon_provider: Annotated[str | None, BeforeValidator(_driver_name), Field(
        description="For publish-dns, where ACME_DNS is not set or not known to it: the DNS "
        "provider by dns-lexicon's name. Its options are set beside it, in dns-lexicon's own form, "
        "such as LEXICON_HOVER_AUTH_USERNAME.",
        examples=["hover"],
    )] = None  # fmt: skip
    dkim_keys: Annotated[Many[Literal["rsa2048", "ed25519"]], Field(
        description="The DKIM keys that sign: `rsa2048`, or `rsa2048,ed25519`.",
        examples=["rsa2048,ed25519"], min_length=1,
    )] = ("rsa2048",)  # fmt: skip
    dkim_selector: Annotated[Selector | None, BeforeValidator(_prefix), Field(
        description="The prefix of the selectors of keys made from now on. Default: of the day "
        "on which the first key is made.",
        examples=["t20260101"],
    )] = None  # fmt: skip
    spf_include: Annotated[
        Many[Annotated[str, BeforeValidator(_include)]], Field(
        description="Other services that may send for these domains, as SPF includes.",
        examples=["_spf.google.com"],
    )] = ()  # fmt: skip
    spf_mechanisms: Annotated[Many[Annotated[str, BeforeValidator(_mechanism)]], Field(
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
    dmarc_rua: Annotated[Reports | None, Field(
        description="Where aggregate reports go, or `none`. Default: rua@ the domain, which "
        "exists here.",
        examples=["reports@example.org"],
    )] = None  # fmt: skip
    dmarc_ruf: Annotated[Reports | None, Field(
        description="Where failure reports go, or `none`. Default: ruf@ the domain, which "
        "exists here.",
        examples=["none"],
    )] = None  # fmt: skip
    max_message_mb: Annotated[int, Number, Field(
        description="The largest message, in megabytes.", examples=["50"], ge=1, le=200,
    )] = 25  # fmt: skip
    max_queue: Annotated[int, Number, Field(
        description="How many messages may wait to be delivered; each is held in memory too.",
        examples=["10000"], ge=10, le=1_000_000,
    )] = 2000  # fmt: skip
    mailbox_mb: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000)] | None, BeforeValidator(_number_or_none), Field(
        description="How many megabytes each mailbox under data/mail may have, or `none`. A "
        "message whose recipients all have full ones is refused. postmaster and abuse are never "
        "full.",
        examples=["500"],
    )] = None  # fmt: skip
    give_up_after: Annotated[Seconds, Field(
        description="How long an undeliverable message is tried before it is returned "
        "(RFC 5321 4.5.4.1: 4 to 5 days); a number and m, h or d.",
        examples=["3d"],
    )] = 5 * 86400  # fmt: skip
    send_limit: Annotated[Limit, Field(
        description="How many recipients a login may send to in an hour and in a day, or `none`. "
        "What was refused counts too. `set-limit` sets another one for a login.",
        examples=["1000/h,10000/d"],
    )] = Limit(500, 5000)  # fmt: skip
    rate_strangers: Annotated[Rates, Field(
        description="What an address may do from which nobody logged in within a week: connections "
        "at once, messages an hour, recipients an hour that do not exist, failed log-ins an hour; "
        "or `none`. An address is an IPv4 address or an IPv6 /64.",
        examples=["50/conn,500/h,100/unknown,5/auth"],
    )] = Rates(20, 60, 100, 5)  # fmt: skip
    events_keep_days: Annotated[int, Number, Field(
        description="How many days the history of messages and log-ins is kept (show-message, "
        "status).",
        examples=["90"], ge=1, le=3650,
    )] = 30  # fmt: skip
    log_format: Annotated[Literal["text", "json"], Choice, Field(
        description="The container's log: readable `text`, or one `json` object a line.",
        examples=["json"],
    )] = "text"  # fmt: skip
    log_privacy: Annotated[Literal["off", "on"], Choice, Field(
        description="`on` shortens every e-mail address in the log, as i…@example.com. The "
        "history keeps them.",
        examples=["on"],
    )] = "off"  # fmt: skip
    backup_git_remote: Annotated[str | None, BeforeValidator(git_remote), Field(
        description="The private git repository that the configuration is pushed to, over SSH or "
        "HTTPS. Default: none, and no backup is made. See docs/backup.md.",
        examples=["git@git.example.com:me/mail-backup.git"],
    )] = None  # fmt: skip
    backup_git_key: Annotated[SecretStr | None, BeforeValidator(private_key), BY_FILE, Field(
        description="For SSH: the private key that may write there. It has several lines, so it "
        "is given as a file.",
        examples=["/data/backup.key"],
    )] = None  # fmt: skip
    backup_git_host_key: Annotated[tuple[str, ...], BeforeValidator(host_keys), Field(
        description="For SSH: the git server's public host key, the only one that is believed; "
        "several with commas between them. It is what ssh-keyscan prints; compare it with what "
        "the server's owner publishes.",
        examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExample"],
    )] = ()  # fmt: skip
    backup_git_token: Annotated[SecretStr | None, BeforeValidator(_token), BY_FILE, Field(
        description="For HTTPS: the token that may write there. The user's name, if the server "
        "wants a certain one, stands in BACKUP_GIT_REMOTE: https://NAME@….",
        examples=["/data/backup.token"],
    )] = None  # fmt: skip
    backup_age_recipient: Annotated[Many[Recipient], Field(
        description="Whom the secrets in the backup are encrypted to, by age: the public half of "
        "what backup --new-key makes. Without it nothing is pushed.",
        examples=["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"],
    )] = ()  # fmt: skip
    backup_signing_key: Annotated[SecretStr | None, BeforeValidator(_signing_key), BY_FILE, Field(
        description="What the backup is signed with, so that a restore takes nobody else's: what "
        "backup --new-key shows for it. Without it a restore has to ask about every login.",
        examples=["/data/backup.sign"],
    )] = None  # fmt: skip
    backup_plaintext: Annotated[Literal["yes", "no"], Choice, Field(
        description="`yes`: without BACKUP_AGE_RECIPIENT, push private keys, password hashes and "
        "credentials as they are. Whoever can read the repository has them then.",
        examples=["yes"],
    )] = "no"  # fmt: skip
    backup_interval: Annotated[Seconds, Field(
        description="How often the repository is looked at when nothing changes; changes are "
        "pushed within seconds.",
        examples=["12h"],
    )] = 86400  # fmt: skip

    # Variables of the provider's hook, from the environment; never a setting's name.
    provider: dict[str, SecretStr] = Field(default_factory=dict, repr=False)
    # LEXICON_<LEXICON_PROVIDER>_<OPTION>, likewise.
    lexicon: dict[str, SecretStr] = Field(default_factory=dict, repr=False)
    # What was set, as it was set: for the backup.
    given: tuple[Given, ...] = Field(default=(), repr=False)

    @property
    def tls_mode(self) -> str:
        """TLS with `auto` resolved."""
        if self.tls == "auto":
            return "dns" if self.acme_dns else "self-signed"
        return self.tls

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The sending domains, the default resolved; never empty."""
        return self.mail_domains or (Domain(self.mail_hostname.parent),)

    @property
    def host_zone(self) -> Domain:
        """The domain whose DNS holds MAIL_HOSTNAME."""
        above = [domain for domain in self.domains if self.mail_hostname.is_within(domain)]
        return max(above, key=len, default=organizational_domain(self.mail_hostname))

    @property
    def receiving(self) -> tuple[Domain, ...]:
        """The domains whose MX is this server."""
        return self.domains if self.mail_receive is None else self.mail_receive


# Names that start like ours are ours: a misspelt one must not pass in silence.
_PREFIXES = (
    "ACME_",
    "TLS_FILE",
    "MAIL_",
    "MAILBOX_",
    "PUBLIC_IP",
    "FORWARD_",
    "DKIM_",
    "SPF_",
    "DMARC_",
    "MAX_",
    "GIVE_UP_",
    "RATE_",
    "SEND_",
    "BACKUP_",
    "LEXICON_",
    "EVENTS_",
    "LOG_",
)
# Not read from a variable of their own name.
CREDENTIALS = frozenset({"provider", "lexicon", "given"})
_NAMES = {name.upper(): name for name in Settings.model_fields if name not in CREDENTIALS}
# By their type: one that is forgotten here would stand in the backup in clear.
_SECRET = frozenset(
    name.upper()
    for name, info in Settings.model_fields.items()
    if SecretStr in get_args(info.annotation)
)
_DOOR = frozenset({"BACKUP_GIT_KEY", "BACKUP_GIT_TOKEN"})
# Stands in for a missing or wrong MAIL_HOSTNAME while the rest is checked (RFC 2606).
_NO_HOSTNAME = "missing.invalid"


def load(environ: Mapping[str, str], hooks: Path = acmehooks.FOLDER) -> Settings:
    """Settings from environment variables and the files that NAME_FILE variables name.

    An empty value counts as not set. Raises UserError (Exit.SETTINGS) that lists every problem;
    what a NAME_FILE holds is not shown, unless it is a valid name that another setting excludes.
    """
    problems: dict[str, str] = {}
    raw: dict[str, str] = {}
    from_file: set[str] = set()
    for name, key in _NAMES.items():
        try:
            raw[key] = _value(environ, name)
        except ValueError as error:
            problems[name] = str(error)
        if environ.get(f"{name}_FILE"):
            from_file.add(name)
    hook = _hook(raw.get("acme_dns", ""), hooks, problems)
    lexicon, wrong = _lexicon_options(environ, raw.get("lexicon_provider", ""))
    theirs = hook.variables if hook else frozenset()
    unknown, meant = _unknown(environ, theirs | lexicon.keys() | wrong.keys())
    problems |= wrong | unknown
    raw = {key: value for key, value in raw.items() if value.strip()}
    provider: dict[str, SecretStr] = {}
    if hook:
        provider, wrong = provider_variables(environ, hook)
        problems |= wrong

    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        unread = frozenset(problems)
        for item in error.errors(include_url=False, include_input=False):
            name = str(item["loc"][0]).upper()
            # A name whose value could not even be read has its problem already.
            if name not in unread:
                _add(problems, name, _explain(name, item, secret=name in from_file))
        # What remains is checked as a whole too, so that nobody mends one problem to meet the next.
        rest = {key: value for key, value in raw.items() if key.upper() not in problems}
        settings = Settings.model_validate({"mail_hostname": _NO_HOSTNAME, **rest})
    for name, text in tuple(_conflicts(settings, ignore=frozenset(problems) | meant)):
        _add(problems, name, text)
    if problems:
        lines = [f"  {text}" for _, texts in sorted(problems.items()) for text in texts.split("\n")]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise UserError(
            "\n".join([f"The settings have {count}:", *lines]),
            "correct .env, then: docker compose up -d. All settings: docs/settings.md",
            exit_code=Exit.SETTINGS,
        )
    given = (
        *(
            Given(
                name, raw[key].strip(), name in _SECRET, environ.get(f"{name}_FILE", ""),
                kept=name not in _DOOR,
            )
            for name, key in _NAMES.items()
            if key in raw
        ),
        *(
            Given(name, value.get_secret_value(), True, environ.get(f"{name}_FILE", ""))
            for name, value in sorted((provider | lexicon).items())
        ),
    )  # fmt: skip
    return settings.model_copy(update={"provider": provider, "lexicon": lexicon, "given": given})


@dataclass(frozen=True)
class BackupAccess:
    """The part of the settings that gives access to the backup: all that a restore has."""

    remote: str = ""
    key: str = field(default="", repr=False)
    host_keys: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    signing_key: str = field(default="", repr=False)


def load_access(environ: Mapping[str, str]) -> BackupAccess:
    """What is set of it; a new machine may have no other settings yet. Raises UserError."""
    names: dict[str, Callable[[Any], Any]] = {
        "BACKUP_GIT_REMOTE": git_remote,
        "BACKUP_GIT_KEY": private_key,
        "BACKUP_GIT_HOST_KEY": host_keys,
        "BACKUP_GIT_TOKEN": _token,
        "BACKUP_SIGNING_KEY": _signing_key,
    }
    found: dict[str, Any] = {}
    for name, check in names.items():
        try:
            value = _value(environ, name)
        except ValueError as error:
            raise UserError(str(error), exit_code=Exit.SETTINGS) from None
        try:
            if value.strip():
                found[name] = check(value)
        except ValueError as error:
            msg = f"{name}: {error}"
            raise UserError(msg, exit_code=Exit.SETTINGS) from None
    return BackupAccess(
        found.get("BACKUP_GIT_REMOTE", ""), found.get("BACKUP_GIT_KEY", ""),
        found.get("BACKUP_GIT_HOST_KEY", ()), found.get("BACKUP_GIT_TOKEN", ""),
        found.get("BACKUP_SIGNING_KEY", ""),
    )  # fmt: skip


def log_style(environ: Mapping[str, str]) -> str:
    """How to log (see log.configure), also while the settings have problems; never raises.

    What LOG_PRIVACY may mean by another word than `off` is taken for `on`.
    """
    values = {}
    for name in ("LOG_FORMAT", "LOG_PRIVACY"):
        value = environ.get(name, "")
        with suppress(ValueError):
            value = _value(environ, name)
        values[name] = value.strip().lower()
    style = log.JSON if values["LOG_FORMAT"] == "json" else log.TEXT
    private = values["LOG_PRIVACY"] not in ("", "off")
    return f"{style},{log.SHORT}" if private else style


def _add(problems: dict[str, str], name: str, text: str) -> None:
    """Several problems of one setting stand on lines of their own."""
    lines = [*problems.get(name, "").split("\n"), text]
    problems[name] = "\n".join(dict.fromkeys(line for line in lines if line))


def _hook(name: str, folder: Path, problems: dict[str, str]) -> acmehooks.Hook | None:
    """The provider's hook, if there is such a one."""
    try:
        return acmehooks.load(_hook_name(name), folder) if name.strip() else None
    except ValueError as error:
        problems["ACME_DNS"] = f"ACME_DNS: {error}"
        return None


def provider_variables(
    environ: Mapping[str, str], hook: acmehooks.Hook
) -> tuple[dict[str, SecretStr], dict[str, str]]:
    """The hook's variables that are set, each perhaps as NAME_FILE; and the problems by name."""
    found: dict[str, SecretStr] = {}
    problems: dict[str, str] = {}
    for name in sorted(hook.variables):
        is_own = f"{name}_FILE" in hook.variables  # a variable of the hook's, and no file for us
        try:
            value = (environ.get(name, "") if is_own else _value(environ, name)).strip()
            acmehooks.check(name, value)
        except ValueError as error:
            problems[name] = str(error)
            continue
        if value:
            found[name] = SecretStr(value)
    return found, problems


def _lexicon_options(
    environ: Mapping[str, str], provider: str
) -> tuple[dict[str, SecretStr], dict[str, str]]:
    """The options of dns-lexicon's provider that are set, each perhaps as NAME_FILE; and the
    problems by name. What each is called is checked when they are used."""
    found: dict[str, SecretStr] = {}
    problems: dict[str, str] = {}
    provider = provider.strip().upper()
    if not re.fullmatch(r"[A-Z0-9]+", provider):
        return found, problems
    for variable in environ:
        if not re.fullmatch(rf"LEXICON_{provider}_[A-Z0-9_]{{1,60}}", variable):
            continue
        name = variable.removesuffix("_FILE")
        try:
            found[name] = SecretStr(_value(environ, name).strip())
        except ValueError as error:
            problems[name] = str(error)
    return found, problems


def _value(environ: Mapping[str, str], name: str) -> str:
    """What NAME is set to, or what the file that NAME_FILE names holds; empty if neither is set.

    Raises ValueError, which says all and never shows the content.
    """
    value, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
    if value and path:
        msg = f"both {name} and {name}_FILE are set; keep one of them"
        raise ValueError(msg)
    try:
        return read_file(path) if path else value
    except ValueError as error:
        msg = f"{name}_FILE: {error}"
        raise ValueError(msg) from None


def read_file(path: str) -> str:
    """What a file of the owner's holds. Raises ValueError, which never shows the content."""
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
        text = content.decode().strip()
    except UnicodeDecodeError:
        msg = f"{shown(path)} is not UTF-8 text"
        raise ValueError(msg) from None
    if not text:
        msg = f"{shown(path)} is empty"
        raise ValueError(msg)
    return text


def _unknown(
    environ: Mapping[str, str], provider: frozenset[str]
) -> tuple[dict[str, str], frozenset[str]]:
    """The problems of names that are no settings, and the settings that were probably meant."""
    problems = {}
    meant = set()
    for name in environ:
        base = name.removesuffix("_FILE")
        if base in _NAMES or base in provider:
            continue
        near = difflib.get_close_matches(base, _NAMES, n=1, cutoff=0.8)
        near = near or difflib.get_close_matches(base, provider, n=1, cutoff=0.85)
        if name.startswith(_PREFIXES) or near:
            hint = f"; did you mean {near[0]}?" if near else ""
            if name.startswith("LEXICON_") and not near:
                hint = "; only options of LEXICON_PROVIDER are, with its name after LEXICON_"
            plain = re.fullmatch(r"\w{1,60}", name, re.ASCII)
            problems[name] = f"{name if plain else shown(name)} is not a setting{hint}"
            meant.update(near)
    return problems, frozenset(meant)


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
    if kind == "string_unicode":
        return f"{name}: is not UTF-8 text"
    if kind == "greater_than_equal":
        return f"{name}: must be {context['ge']} or more"
    if kind == "less_than_equal":
        return f"{name}: must be {context['le']} or less"
    return f"{name}: {item['msg'][0].lower()}{item['msg'][1:]}"


@dataclass(frozen=True)
class _Rule:
    """What settings must be to each other. It is not judged while one of `unless` is wrong itself:
    a name of a setting, or `_DOMAINS`."""

    name: str  # the setting to correct
    unless: frozenset[str]
    problems: Callable[[Settings], Iterable[str]]


_DOMAINS = "domains"  # the domains served, from MAIL_DOMAINS, else MAIL_HOSTNAME


def _suffixes_listed(settings: Settings) -> Iterator[str]:
    for domain in settings.domains if settings.mail_domains else ():
        if is_public_suffix(domain):
            yield f"MAIL_DOMAINS: {domain} is a registry's suffix, nobody's own domain"


def _suffix_above(settings: Settings) -> Iterator[str]:
    host = settings.mail_hostname
    for domain in () if settings.mail_domains else settings.domains:
        if is_public_suffix(domain):
            yield (
                f"MAIL_HOSTNAME: {host} has the parent {domain}, which is a registry's suffix "
                f"and cannot send mail; use a name below your domain, such as smtp.{host}, "
                "or set MAIL_DOMAINS"
            )


def _received_but_not_served(settings: Settings) -> Iterator[str]:
    for domain in settings.receiving:
        if domain not in settings.domains:
            yield (
                f"MAIL_RECEIVE: {domain} is not one of MAIL_DOMAINS "
                f"({', '.join(settings.domains)}); add it there, or remove it here"
            )


def _forwarded_to(settings: Settings, domains: Iterable[str]) -> Iterator[str]:
    if settings.forward_to and settings.forward_to.domain in domains:
        yield (
            f"FORWARD_TO: {settings.forward_to} is received by this very server, so mail "
            "would go round in a loop; name a mailbox elsewhere"
        )


def _is_half_an_account(settings: Settings) -> bool:
    return bool(settings.acme_eab_kid) != bool(settings.acme_eab_hmac_key)


def _has_remote(settings: Settings, *, https: bool) -> bool:
    remote = settings.backup_git_remote or ""
    return bool(remote) and remote.startswith("https://") == https


def _rule(name: str, unless: Iterable[str], when: Callable[[Settings], Any], text: str) -> _Rule:
    return _Rule(name, frozenset(unless), lambda settings: [text] if when(settings) else [])


_RULES = (
    _Rule("MAIL_DOMAINS", frozenset({_DOMAINS}), _suffixes_listed),
    _Rule("MAIL_HOSTNAME", frozenset({_DOMAINS}), _suffix_above),
    _Rule("MAIL_RECEIVE", frozenset({_DOMAINS, "MAIL_RECEIVE"}), _received_but_not_served),
    _Rule(
        "FORWARD_TO",
        frozenset({_DOMAINS}),
        lambda settings: _forwarded_to(settings, {settings.mail_hostname}),
    ),
    _Rule(
        "FORWARD_TO",
        frozenset({_DOMAINS, "MAIL_RECEIVE"}),
        lambda settings: _forwarded_to(settings, {*settings.receiving} - {settings.mail_hostname}),
    ),
    _rule(
        "ACME_DNS",
        ["ACME_DNS"],
        lambda settings: settings.tls_mode == "dns" and not settings.acme_dns,
        "TLS=dns needs ACME_DNS, the acme.sh hook of your DNS provider, such as dns_cf",
    ),
    _rule(
        "TLS_FILES",
        ["TLS", "TLS_FILES"],
        lambda settings: (settings.tls_mode == "files") != (settings.tls_files is not None),
        "TLS=files and TLS_FILES, the folder of the certificates, go together",
    ),
    _rule(
        "ACME_WEBROOT",
        ["TLS", "ACME_WEBROOT"],
        lambda settings: settings.acme_webroot and settings.tls_mode != "http",
        "ACME_WEBROOT is for TLS=http only; remove it, or set that",
    ),
    _rule(
        "ACME_EAB_KID",
        ["ACME_EAB_KID", "ACME_EAB_HMAC_KEY"],
        _is_half_an_account,
        "ACME_EAB_KID and ACME_EAB_HMAC_KEY go together; one of them is missing",
    ),
    _rule(
        "PUBLIC_IPV4",
        [],
        lambda settings: settings.public_ipv4 == "none" and settings.public_ipv6 == "none",
        "PUBLIC_IPV4 and PUBLIC_IPV6 are both none; a mail server needs one of them",
    ),
    _rule(
        "BACKUP_SIGNING_KEY",
        ["BACKUP_AGE_RECIPIENT"],
        lambda settings: settings.backup_signing_key and not settings.backup_age_recipient,
        "BACKUP_SIGNING_KEY goes with BACKUP_AGE_RECIPIENT: it is itself in the backup, and "
        "without a recipient everybody could read it there",
    ),
    _rule(
        "BACKUP_GIT_TOKEN",
        ["BACKUP_GIT_TOKEN"],
        lambda settings: _has_remote(settings, https=True) and not settings.backup_git_token,
        "BACKUP_GIT_TOKEN: BACKUP_GIT_REMOTE is an https:// address, which needs a token "
        "that may write there; name its file: BACKUP_GIT_TOKEN_FILE=/data/backup.token",
    ),
    _rule(
        "BACKUP_GIT_KEY",
        ["BACKUP_GIT_KEY"],
        lambda settings: _has_remote(settings, https=False) and not settings.backup_git_key,
        "BACKUP_GIT_KEY: BACKUP_GIT_REMOTE is reached by SSH, which needs a key that may "
        "write there; name its file: BACKUP_GIT_KEY_FILE=/data/backup.key",
    ),
    _rule(
        "BACKUP_GIT_HOST_KEY",
        ["BACKUP_GIT_HOST_KEY"],
        lambda settings: _has_remote(settings, https=False) and not settings.backup_git_host_key,
        "BACKUP_GIT_HOST_KEY: BACKUP_GIT_REMOTE is reached by SSH, so the server's public "
        "host key is needed; ssh-keyscan -t ed25519 SERVER prints it, and the server's "
        "owner publishes it or its fingerprint to compare with",
    ),
)


def _conflicts(settings: Settings, ignore: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Problems between settings; those that `ignore` names are already known to be wrong."""
    origin = {"MAIL_DOMAINS"} if settings.mail_domains else {"MAIL_DOMAINS", "MAIL_HOSTNAME"}
    wrong = ignore | {_DOMAINS} if ignore & origin else ignore
    for rule in _RULES:
        if not rule.unless & wrong:
            for text in rule.problems(settings):
                yield rule.name, text
