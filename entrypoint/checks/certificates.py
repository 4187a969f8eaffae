"""Certificates: renewed in time, served as they are on the volume, trusted by mail programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from entrypoint.checks.context import CheckContext
from entrypoint.common import tlsprobe
from entrypoint.common.findings import Finding, Level
from entrypoint.common.parallel import every
from entrypoint.converge.plan import STAND_IN, served_certificates
from entrypoint.keys.certs import Certificate
from entrypoint.renewal import renewer

FILES = ("broken-certificate", "broken-acme-env")  # what State says of these files
_SECONDS = 10.0
_WHY = "Mail programs refuse a certificate that is out of date or not for the server's name."
_WHY_TRUST = (
    "Other mail servers take it, but mail programs warn, and services such as Gmail refuse to "
    "send through it."
)


def check(context: CheckContext) -> list[Finding]:
    """Makes TLS handshakes with this server's own ports; the rest is from settings and state."""
    found = [
        *(item for item in context.state.findings if item.id in FILES),
        *renewer.findings(context.settings, context.state, context.now),
    ]
    return [
        *(replace(item, why=_WHY) for item in found),
        *_trusted(context),
        *_served(context),
    ]


def _trusted(context: CheckContext) -> Iterator[Finding]:
    settings, state = context.settings, context.state
    if STAND_IN not in served_certificates(settings, state):
        return
    fix = "wait, or see what became of it: docker exec mail list-certs"
    if settings.tls_mode == "self-signed":
        fix = (
            "in .env set ACME_DNS and the variables of your DNS provider (docs/certificates.md), "
            "or, if port 80 reaches this server:\nTLS=http"
        )
    yield Finding(
        id="self-signed",
        level=Level.WARN,
        message="The certificate in use is self-signed.",
        fix=fix,
        seen=f"TLS={settings.tls_mode}",
        why=_WHY_TRUST,
    )


def _served(context: CheckContext) -> Iterator[Finding]:
    """By a handshake on each port, for each certificate."""
    certificates = served_certificates(context.settings, context.state)
    asked = [(item, port) for item in certificates.values() for port in tlsprobe.PORTS]

    def one(item: tuple[Certificate, int]) -> bool | str:
        certificate, port = item
        try:
            return context.machine.fingerprint(port, certificate.host) == certificate.fingerprint
        except OSError as error:
            return error.strerror or str(error)

    for (certificate, port), answer in zip(asked, every(asked, one, _SECONDS), strict=True):
        name = certificate.host
        subject = f"{name} port {port}"
        if answer is False:
            yield Finding(
                id="certificate-not-served",
                level=Level.FAIL,
                message=f"Port {port} serves another certificate for {name} than the one in place.",
                fix="docker compose restart",
                subject=subject,
                seen="another one",
                why=_WHY,
            )
        elif answer is not True:
            yield Finding(
                id="certificate-unknown",
                level=Level.UNKNOWN,
                message=f"What port {port} serves for {name} could not be seen.",
                fix="see what the theme host says",
                subject=subject,
                seen=answer or "no answer in time",
                why=_WHY,
            )
