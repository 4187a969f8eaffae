"""What settings exclude of each other, as a table of rules. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from entrypoint.common.names import (
    is_public_suffix,
)
from entrypoint.settings.model import Settings


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


def _unused(settings: Settings, version: int) -> Iterator[str]:
    """Addresses to send from, of a family that nothing leaves by."""
    public = settings.public_ipv4 if version == 4 else settings.public_ipv6
    sources = settings.outbound_ipv4 if version == 4 else settings.outbound_ipv6
    if sources and public == "none":
        yield (
            f"OUTBOUND_IPV{version}: mail is to leave from {sources[0]}, but "
            f"PUBLIC_IPV{version}=none keeps all mail from leaving by IPv{version}; remove one "
            "of the two"
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
    _Rule("OUTBOUND_IPV4", frozenset({"PUBLIC_IPV4"}), lambda settings: _unused(settings, 4)),
    _Rule("OUTBOUND_IPV6", frozenset({"PUBLIC_IPV6"}), lambda settings: _unused(settings, 6)),
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


def find(settings: Settings, ignore: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Problems between settings; those that `ignore` names are already known to be wrong."""
    origin = {"MAIL_DOMAINS"} if settings.mail_domains else {"MAIL_DOMAINS", "MAIL_HOSTNAME"}
    wrong = ignore | {_DOMAINS} if ignore & origin else ignore
    for rule in _RULES:
        if not rule.unless & wrong:
            for text in rule.problems(settings):
                yield rule.name, text
