"""The settings: names, types, defaults, descriptions.

A setting is a field of `Settings`: `.env.example` and docs/settings.md are generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
)

from entrypoint.common.limit import Limit
from entrypoint.common.names import (
    Address,
    Domain,
    Hostname,
    Selector,
    organizational_domain,
)
from entrypoint.common.rates import Rates
from entrypoint.settings import values
from entrypoint.settings.values import (
    BY_FILE,
    Choice,
    Many,
    ManyOrNone,
    Number,
    Recipient,
    Reports,
    Seconds,
)

_MAX_VALUE = 8192  # characters; a value that long is a file pasted by mistake


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
    public_ipv4: Annotated[IPv4Address | Literal["none"] | None, values.ip(4), Field(
        description="This server's public IPv4 address, or `none`. Default: found on the "
        "network interface; if that has a private one, asked of a DNS echo.",
        examples=["203.0.113.10"],
    )] = None  # fmt: skip
    public_ipv6: Annotated[IPv6Address | Literal["none"] | None, values.ip(6), Field(
        description="This server's public IPv6 address, or `none`: then nothing leaves by IPv6. "
        "Default: found on the network interface.",
        examples=["2001:db8::10"],
    )] = None  # fmt: skip
    outbound_ipv4: Annotated[tuple[IPv4Address, ...], values.sources(4), Field(
        description="The IPv4 addresses of this machine that mail leaves from; each receiver's "
        "operator sees one of them. A private one is for a machine whose router translates it. "
        "Default: the one that the kernel chooses. Each needs DNS: see docs/dns.md.",
        examples=["203.0.113.11, 203.0.113.12"],
    )] = ()  # fmt: skip
    outbound_ipv6: Annotated[tuple[IPv6Address, ...], values.sources(6), Field(
        description="The IPv6 addresses of this machine that mail leaves from, likewise.",
        examples=["2001:db8::11, 2001:db8::12"],
    )] = ()  # fmt: skip
    warmup: Annotated[Literal["off", "on"], Choice, Field(
        description="`on`: an address that is new in OUTBOUND_IPV4 or OUTBOUND_IPV6 begins with "
        "few messages a day for each receiver's operator, and more from day to day.",
        examples=["on"],
    )] = "off"  # fmt: skip
    pace_share: Annotated[
        Annotated[int, Field(ge=1)] | Literal["none"] | None,
        BeforeValidator(values.share), Field(
        description="How many messages of one login may wait for one receiver's operator at "
        "once, or `none` for no limit. Default: as many as that operator takes in 5 seconds.",
        examples=["50"],
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
    tls_files: Annotated[PurePosixPath | None, BeforeValidator(values.path), Field(
        description="For TLS=files: a folder in the container with fullchain.pem and "
        "privkey.pem, or with folders that hold them.",
        examples=["/certificates"],
    )] = None  # fmt: skip
    acme_dns: Annotated[str | None, BeforeValidator(values.hook_name), Field(
        description="The acme.sh hook of the DNS provider; its own variables are set beside it, "
        "and data/domains/DOMAIN/acme.env overrides them for one domain. See "
        "docs/certificates.md.",
        examples=["dns_cf"],
    )] = None  # fmt: skip
    acme_email: Annotated[Address | None, Field(
        description="Where the certificate authority may write to.",
        examples=["me@example.net"],
    )] = None  # fmt: skip
    acme_server: Annotated[str, BeforeValidator(values.acme_server), Field(
        description="The certificate authority: a name that acme.sh knows (`letsencrypt`, "
        "`letsencrypt_test`, `zerossl`, `google`, …) or the URL of its directory.",
        examples=["letsencrypt_test"],
    )] = "letsencrypt"  # fmt: skip
    acme_eab_kid: Annotated[str | None, BeforeValidator(values.acme_safe), Field(
        description="External account binding, where the authority wants it: the key's id.",
        examples=["kid-1"],
    )] = None  # fmt: skip
    acme_eab_hmac_key: Annotated[SecretStr | None, BeforeValidator(values.acme_safe), Field(
        description="External account binding: the key.", examples=["zWNDZM6eQGHWpSRTPal5"],
    )] = None  # fmt: skip
    acme_challenge_alias: Annotated[Domain | None, Field(
        description="A domain to put challenges into instead, if the real ones' DNS has no API: "
        "_acme-challenge of each points there by CNAME.",
        examples=["challenges.example.net"],
    )] = None  # fmt: skip
    acme_ca_bundle: Annotated[PurePosixPath | None, BeforeValidator(values.path), Field(
        description="Root certificates (PEM, a file in the container) of a private authority, "
        "trusted besides the public ones.",
        examples=["/run/secrets/ca.pem"],
    )] = None  # fmt: skip
    acme_dns_sleep: Annotated[int | None, Field(
        description="Seconds to wait for a challenge to show in DNS. Default: acme.sh looks "
        "itself until it does.",
        examples=["60"], ge=1, le=1800,
    )] = None  # fmt: skip
    acme_webroot: Annotated[PurePosixPath | None, BeforeValidator(values.path), Field(
        description="For TLS=http beside a web server of your own: the folder in the container "
        "that the web server serves. Default: tambo answers on port 80 while it is needed.",
        examples=["/webroot"],
    )] = None  # fmt: skip
    lexicon_provider: Annotated[str | None, BeforeValidator(values.driver_name), Field(
        description="For publish-dns, where ACME_DNS is not set or not known to it: the DNS "
        "provider by dns-lexicon's name. Its options are set beside it, in dns-lexicon's own form, "
        "such as LEXICON_HOVER_AUTH_USERNAME.",
        examples=["hover"],
    )] = None  # fmt: skip
    dkim_keys: Annotated[Many[Literal["rsa2048", "ed25519"]], Field(
        description="The DKIM keys that sign: `rsa2048`, or `rsa2048,ed25519`.",
        examples=["rsa2048,ed25519"], min_length=1,
    )] = ("rsa2048",)  # fmt: skip
    dkim_selector: Annotated[Selector | None, BeforeValidator(values.prefix), Field(
        description="The prefix of the selectors of keys made from now on. Default: of the day "
        "on which the first key is made.",
        examples=["t20260101"],
    )] = None  # fmt: skip
    spf_include: Annotated[
        Many[Annotated[str, BeforeValidator(values.include)]], Field(
        description="Other services that may send for these domains, as SPF includes.",
        examples=["_spf.google.com"],
    )] = ()  # fmt: skip
    spf_mechanisms: Annotated[Many[Annotated[str, BeforeValidator(values.mechanism)]], Field(
        description="SPF mechanisms to put first: `a,mx` gives the longer, classic record.",
        examples=["a,mx"],
    )] = ()  # fmt: skip
    spf_all: Annotated[Literal["~all", "-all", "?all"], Choice, Field(
        description="How the SPF records end.", examples=["-all"],
    )] = "~all"  # fmt: skip
    dmarc_policy: Annotated[Literal["none", "quarantine", "reject"], Choice, Field(
        description="What receivers should do with mail that fails DMARC.", examples=["reject"],
    )] = "quarantine"  # fmt: skip
    dmarc_fo: Annotated[str, BeforeValidator(values.failure_options), Field(
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
        Annotated[int, Field(ge=1, le=1_000_000)] | None,
        BeforeValidator(values.number_or_none), Field(
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
    backup_git_remote: Annotated[str | None, BeforeValidator(values.git_remote), Field(
        description="The private git repository that the configuration is pushed to, over SSH or "
        "HTTPS. Default: none, and no backup is made. See docs/backup.md.",
        examples=["git@git.example.com:me/mail-backup.git"],
    )] = None  # fmt: skip
    backup_git_key: Annotated[SecretStr | None, BeforeValidator(values.private_key), BY_FILE, Field(
        description="For SSH: the private key that may write there. It has several lines, so it "
        "is given as a file.",
        examples=["/data/backup.key"],
    )] = None  # fmt: skip
    backup_git_host_key: Annotated[tuple[str, ...], BeforeValidator(values.host_keys), Field(
        description="For SSH: the git server's public host key, the only one that is believed; "
        "several with commas between them. It is what ssh-keyscan prints; compare it with what "
        "the server's owner publishes.",
        examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExample"],
    )] = ()  # fmt: skip
    backup_git_token: Annotated[SecretStr | None, BeforeValidator(values.token), BY_FILE, Field(
        description="For HTTPS: the token that may write there. The user's name, if the server "
        "wants a certain one, stands in BACKUP_GIT_REMOTE: https://NAME@….",
        examples=["/data/backup.token"],
    )] = None  # fmt: skip
    backup_age_recipient: Annotated[Many[Recipient], Field(
        description="Whom the secrets in the backup are encrypted to, by age: the public half of "
        "what backup --new-key makes. Without it nothing is pushed.",
        examples=["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"],
    )] = ()  # fmt: skip
    backup_signing_key: Annotated[
        SecretStr | None, BeforeValidator(values.signing_key), BY_FILE, Field(
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


# Not read from a variable of their own name.
CREDENTIALS = frozenset({"provider", "lexicon", "given"})
