"""The boot: one path for the first time and every other. Killed anywhere, the next completes it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from entrypoint.backup import restore
from entrypoint.common import files, identity, locks, log, process, version
from entrypoint.common.errors import UserError
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.converge import apply, pending, reconcile
from entrypoint.services import gate, holder, keeper
from entrypoint.settings import environment
from entrypoint.settings.model import Settings
from entrypoint.state.load import State
from entrypoint.zone import address, render
from entrypoint.zone.required import required


@click.command("boot", hidden=True)
def boot() -> None:
    """Prepare everything, then become supervisord."""
    style = environment.log_style(os.environ)
    log.configure(style, "boot")
    asked = environment.load(os.environ)
    paths, ids = Paths(), Ids.image()
    locks.hold_instance(paths, ids)
    if restore.left(paths):
        log.log("boot", "completing a restore that was interrupted")
        complete_restore(paths, ids)
    restore.discard(paths)
    mend_rights(paths, ids)
    with suppress(FileNotFoundError):  # its folder may not be there yet
        files.remove(paths.policy / "running")  # by it the service knows that it had died
    reconcile.refresh_exchangers(asked, paths, ids)
    with locks.edit_lock(paths, ids):
        current, outcome = reconcile.reconcile(asked, paths, ids)
        pending.clear(paths)
    announce(asked, paths, current, outcome)
    words = (style, holder_options(asked).words(), gate_options(asked).words())
    process.replace([sys.executable, "-m", "entrypoint.services.init", *words], os.environ)


@click.command("run-keeper", hidden=True)
def run_keeper() -> int:
    """Runs as root under supervisord, until SIGTERM; reads the settings anew."""
    log.configure(environment.log_style(os.environ), "keeper")
    return keeper.main(environment.load(os.environ), Paths(), Ids.image())


def holder_options(asked: Settings) -> holder.Options:
    """What the holder may know of the settings, which hold credentials."""
    return holder.Options(
        ipv6=None if asked.public_ipv6 is None else asked.public_ipv6 != "none",
        rates=asked.rate_strangers,
        largest=asked.max_message_mb << 20,
        queue=asked.max_queue,
        keep=asked.events_keep_days,
    )


def gate_options(asked: Settings) -> gate.Options:
    """And the gate."""
    return gate.Options(
        share=asked.pace_share,
        ipv6=asked.public_ipv6 != "none",
        sources=tuple(map(str, (*asked.outbound_ipv4, *asked.outbound_ipv6))),
        warmup=asked.warmup == "on",
    )


def complete_restore(paths: Paths, ids: Ids) -> None:
    """As tambo, in a process of its own: the folders are tambo's, and root follows none of its
    links. Raises UserError if it cannot be completed."""
    if os.geteuid() == 0:
        identity.give(paths.data, ids.users[Owner.TAMBO], ids.groups[Owner.CHASQUID], 0o710)
    own = (paths.domains, paths.certs, paths.acme, paths.reload, paths.backup, paths.state)
    for folder in (*own, paths.restored, paths.replaced):
        identity.mend(folder, ids, Owner.TAMBO)
    status = identity.run_as(ids, Owner.TAMBO, lambda: restore.complete(paths, ids))
    if status:
        msg = "the restore that was interrupted cannot be completed: the lines above say why"
        raise UserError(msg, "mend that, and start again; nothing of it is lost")


def mend_rights(paths: Paths, ids: Ids) -> None:
    """Give everything to its owner, as after a restore by the host's root."""
    own = (paths.domains, paths.certs, paths.acme, paths.reload, paths.backup, paths.state)
    for folder in own:
        identity.mend(folder, ids, Owner.TAMBO)
    for folder in (paths.queue, paths.mail, paths.events, paths.policy):
        identity.mend(folder, ids, Owner.CHASQUID)


def announce(
    asked: Settings,
    paths: Paths,
    current: State,
    outcome: apply.Outcome,
) -> None:
    """Say what was done and what the owner has to do. What is wrong the keeper says, in seconds."""
    kept = [path for path in outcome.changed if path.is_relative_to(paths.data)]
    log.log("boot", f"tambo {version.text(paths)}: {asked.mail_hostname} for "
               f"{', '.join(asked.domains)}")  # fmt: skip
    changes = "1 change" if len(kept) == 1 else f"{len(kept) or 'no'} changes"
    log.log("boot", f"{changes} in {paths.data}")
    for path in kept:
        log.log("boot", f"  made {path}")
    log.log("boot", certificate_news(asked, current))
    show_records(asked, current)
    if not any(current.domain(domain).users for domain in asked.domains):
        log.log("boot", f"next: docker exec mail add-user i@{asked.domains[0]}")


def show_records(asked: Settings, current: State) -> None:
    """The table, to be read or pasted; where it would not survive the log's form, how to get it."""
    if log.is_json() or log.is_short():
        log.log("boot", "the DNS records that are needed: docker exec mail dns")
        return
    log.log("boot", "These DNS records are needed (again: docker exec mail dns):")
    click.echo()
    found = address.find(asked)  # no echo: it would hold up the start
    click.echo(render.table(required(asked, current, found)))
    click.echo(render.origins(found))


def certificate_news(asked: Settings, current: State) -> str:
    """One line on what clients will see, and how to get better."""
    real = [item for item in current.certificates.values() if item.covers(asked.mail_hostname)]
    if asked.tls_mode == "self-signed":
        return (
            "TLS: a self-signed certificate. Other mail servers take it, mail programs will warn. "
            "A trusted one comes by itself when ACME_DNS (DNS provider) or TLS=http (port 80) is "
            "set: docs/certificates.md"
        )
    if not real:
        return "TLS: a self-signed certificate, until the first one is issued (docker logs mail)"
    until = max(item.not_after for item in real)
    return f"TLS: the certificate of {asked.mail_hostname} is valid until {until:%Y-%m-%d}"
