"""DKIM: the keys that sign here and the records out there are two halves of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from entrypoint.checks import verdicts
from entrypoint.checks.context import CheckContext
from entrypoint.checks.records import KEYS
from entrypoint.common.findings import Finding, Level
from entrypoint.common.names import Domain
from entrypoint.common.parallel import every
from entrypoint.dns.authoritative import Found, Unknown, one
from entrypoint.keys import dkim
from entrypoint.keys.dkim import Algorithm, DkimKey
from entrypoint.zone.judge import Status

FILES = ("broken-dkim", "dkim-name")  # what State says of key files
_SECONDS = 10.0
_WHY = "Receivers verify the signature under each message with the key in DNS; large ones insist."


def check(context: CheckContext) -> list[Finding]:
    """Asks the authoritative servers for the record of each key: active, pending and retired."""
    own = [record for record in context.records if record.role in KEYS]
    judged = verdicts.ask(context, own)
    right = {item.record.name for item in judged if item.status is Status.OK}
    pending = {
        f"{key.selector}._domainkey.{domain}"
        for domain in context.settings.domains
        for key in context.state.domain(domain).pending
    }
    found = []
    for verdict in judged:
        finding = verdicts.finding(verdict, _WHY)
        if finding and finding.level is Level.FAIL and verdict.record.name in pending:
            # It does not sign yet, and waits for just this.
            finding = replace(finding, level=Level.WARN)
        if finding:
            found.append(finding)
    return [
        *(replace(item, why=_WHY) for item in context.state.findings if item.id in FILES),
        *_without(context),
        *found,
        *_signatures(context, right),
    ]


def _signing(context: CheckContext) -> Iterator[tuple[Domain, DkimKey]]:
    enabled = {Algorithm(word) for word in context.settings.dkim_keys}
    for domain in context.settings.domains:
        for key in context.state.domain(domain).keys:
            if key.algorithm in enabled:
                yield domain, key


def _without(context: CheckContext) -> Iterator[Finding]:
    signed = {domain for domain, _ in _signing(context)}
    for domain in context.settings.domains:
        if domain not in signed:
            yield Finding(
                id="no-key",
                level=Level.FAIL,
                message=f"No key signs the mail of {domain}.",
                fix="docker compose restart, which makes one",
                subject=domain,
                seen="no usable key",
                why=_WHY,
            )


def _signatures(context: CheckContext, right: set[str]) -> Iterator[Finding]:
    """Sign and verify as a receiver does; only where the record is right, as else it has its own
    finding."""
    keys = [
        (domain, key)
        for domain, key in _signing(context)
        if f"{key.selector}._domainkey.{domain}" in right
    ]
    found = every(keys, lambda item: _verified(context, *item), _SECONDS)
    for (domain, key), answer in zip(keys, found, strict=True):
        name = f"{key.selector}._domainkey.{domain}"
        if isinstance(answer, Unknown) or answer is None:
            reason = answer.reason if answer else "no answer in time"
            yield Finding(
                id="signature-unknown",
                level=Level.UNKNOWN,
                message=f"A test signature of {domain} ({key.algorithm.value}) could not be "
                "verified.",
                fix="",
                subject=name,
                seen=reason,
                why=_WHY,
            )
        elif not answer:
            yield Finding(
                id="signature-fails",
                level=Level.FAIL,
                message=f"A test signature of {domain} ({key.algorithm.value}) does not verify.",
                fix=f"docker exec mail rotate-dkim {domain}",
                subject=name,
                seen="the verifier said no",
                why=_WHY,
            )


def _verified(context: CheckContext, domain: Domain, key: DkimKey) -> bool | Unknown:
    class NoAnswerError(Exception):
        pass

    def txt(name: str) -> str | None:
        answer = one(context.ask(name, "TXT"))
        if isinstance(answer, Unknown):
            raise NoAnswerError(answer.reason)
        return answer.values[0] if isinstance(answer, Found) else None

    try:
        return dkim.verifies(dkim.signed(domain, key), txt)
    except NoAnswerError as error:
        return Unknown(str(error))
