"""Certificates: which there are, and having one issued now."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from entrypoint.commands.context import Context
from entrypoint.common import tlsprobe
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.names import Domain
from entrypoint.converge.plan import Wanted, served_certificates, wanted
from entrypoint.keys.certs import Certificate
from entrypoint.renewal.renewer import Renewer, Result, renew_at
from entrypoint.state.load import Issue, State

_BUSY_TRIES = 10  # a second apart


@click.command("list-certs")
@click.option("--json", "as_json", is_flag=True, help="Print objects for programs.")
def list_certs(as_json: bool) -> int:
    """List the certificates: until when, served or not, next renewal, last error.

    Example: docker exec mail list-certs
    """
    context = Context.enter()
    rows = list(_rows(context, context.state()))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            _show(row)
    return Exit.OK if all(row["served"] and not row["error"] for row in rows) else Exit.WRONG


def _rows(context: Context, state: State) -> Iterator[dict[str, Any]]:
    certificates: dict[str, Certificate | None] = dict(served_certificates(context.settings, state))
    names = {want.name for want in wanted(context.settings)}
    for name in sorted(names - set(state.certificates)):
        certificates[name] = None  # yet to be issued
    now = datetime.now(UTC)
    for folder, certificate in certificates.items():
        own: Domain | None = next(
            (item for item, held in state.certificates.items() if held is certificate), None
        )
        if certificate is None:
            own = Domain(folder)
        issue = state.issues.get(own, Issue()) if own else Issue()
        row: dict[str, Any] = {
            "name": own or "self-signed",
            "names": [],
            "served": False,
            "error": issue.error,
            "fix": issue.fix,
            "next_try": _iso(datetime.fromtimestamp(issue.next_try, UTC)) if issue.error else None,
        }
        if certificate:
            automatic = own in names
            row |= {
                "names": list(certificate.names),
                "issuer": certificate.issuer,
                "expires": _iso(certificate.not_after),
                "days_left": (certificate.not_after - now).days,
                "served": _is_served(certificate),
                "renewal": _iso(renew_at(certificate, issue)) if automatic else None,
            }
        yield row


def _is_served(certificate: Certificate) -> bool:
    try:
        return all(
            tlsprobe.fingerprint(port, certificate.host) == certificate.fingerprint
            for port in tlsprobe.PORTS
        )
    except OSError:
        return False


def _show(row: dict[str, Any]) -> None:
    click.echo(row["name"])
    if row["names"]:
        click.echo(f"  for       {', '.join(row['names'])}")
        click.echo(f"  issuer    {row['issuer']}")
        click.echo(f"  expires   {row['expires']}, {row['days_left']} days left")
        click.echo(f"  served    {'yes, on 25, 465 and 587' if row['served'] else 'no'}")
        click.echo(f"  renewal   {row['renewal'] or 'not by tambo'}")
    else:
        click.echo("  not issued yet")
    if row["error"]:
        click.echo(f"  error     {row['error']}")
        click.echo(f"  fix       {row['fix']}")
        click.echo(f"  next try  {row['next_try']}")


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _attempt(renewer: Renewer, want: Wanted, *, force: bool) -> Result:
    """The keeper holds the lock for moments too, to ask when a renewal is due."""
    for _ in range(_BUSY_TRIES):
        result = renewer.attempt(want, force=force, patient=False)
        if result is not Result.BUSY:
            return result
        time.sleep(1)
    return Result.BUSY


@click.command("renew-cert")
@click.argument("domain", required=False)
@click.option("--force", is_flag=True, help="Also if it is not due.")
def renew_cert(domain: str | None, force: bool) -> int:
    """Have certificates issued now, DOMAIN's or all, and show the progress.

    Without --force only what is missing or due is issued, but no waiting time after a failure
    is kept.

    Example: docker exec mail renew-cert example.com --force
    """
    context = Context.enter()
    wants = wanted(context.settings)
    if not wants:
        msg = f"no certificates are issued here: TLS is {context.settings.tls_mode}"
        raise UserError(msg, "see docs/certificates.md for TLS=dns and TLS=http")
    if domain is not None:
        wants = tuple(want for want in wants if want.name == domain.lower())
        if not wants:
            names = ", ".join(want.name for want in wanted(context.settings))
            msg = f"there is no certificate of that name; there are: {names}"
            raise UserError(msg, exit_code=Exit.USAGE)
    started = time.monotonic()

    def show(text: str) -> None:
        click.echo(f"[{time.monotonic() - started:5.1f} s] {text}")

    renewer = Renewer(context.settings, context.paths, context.ids, show, progress=True)
    failed = False
    for want in wants:
        result = _attempt(renewer, want, force=force)
        if result is Result.NOT_DUE:
            show(f"{want.name}: not due; --force has one issued all the same")
        elif result is Result.BUSY:
            msg = "another issuing is going on"
            raise UserError(msg, "wait, and see: docker logs -f mail", exit_code=Exit.TRY_AGAIN)
        failed |= result is Result.FAILED
    renewer.reloads.run()
    return Exit.WRONG if failed else Exit.OK
