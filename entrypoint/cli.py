"""The verbs, from one table; the only catcher of errors and the only place of exit statuses."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NoReturn

import click

from entrypoint.common import log, version
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.paths import Paths

# verb: module of entrypoint, function. A verb's module is imported when it runs.
VERBS = {
    "add-user": ("commands.users", "add_user"),
    "remove-user": ("commands.users", "remove_user"),
    "list-users": ("commands.users", "list_users"),
    "set-password": ("commands.users", "set_password"),
    "check-password": ("commands.users", "check_password"),
    "add-alias": ("commands.aliases", "add_alias"),
    "remove-alias": ("commands.aliases", "remove_alias"),
    "list-aliases": ("commands.aliases", "list_aliases"),
    "allow-sender": ("commands.senders", "allow_sender"),
    "set-limit": ("commands.senders", "set_limit"),
    "list-senders": ("commands.senders", "list_senders"),
    "pause-user": ("commands.senders", "pause_user"),
    "resume-user": ("commands.senders", "resume_user"),
    "explain-policy": ("commands.senders", "explain_policy"),
    "list-blocked": ("commands.blocks", "list_blocked"),
    "unblock": ("commands.blocks", "unblock"),
    "list-receivers": ("commands.receivers", "list_receivers"),
    "hold-receiver": ("commands.receivers", "hold_receiver"),
    "release-receiver": ("commands.receivers", "release_receiver"),
    "dns": ("commands.dns", "dns"),
    "publish-dns": ("commands.publish", "publish_dns"),
    "doctor": ("commands.doctor", "doctor"),
    "send-test": ("commands.sendtest", "send_test"),
    "mail-settings": ("commands.sendtest", "mail_settings"),
    "rotate-dkim": ("commands.dkim", "rotate_dkim"),
    "show-message": ("commands.history", "show_message"),
    "status": ("commands.status", "status"),
    "list-certs": ("commands.certs", "list_certs"),
    "renew-cert": ("commands.certs", "renew_cert"),
    "list-queue": ("commands.queue", "list_queue"),
    "drop-queued": ("commands.queue", "drop_queued"),
    "forget-domain": ("commands.queue", "forget_domain"),
    "backup": ("commands.backup", "make_backup"),
    "list-backups": ("commands.backup", "list_backups"),
    "restore": ("commands.backup", "restore_backup"),
}
# Not for people: what the container itself runs.
INTERNAL = {
    "boot": ("boot", "boot"),
    "run-keeper": ("boot", "run_keeper"),
    "health": ("commands.health", "health"),
}


class _Verbs(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        found = VERBS.get(name) or INTERNAL.get(name)
        if not found:
            return super().get_command(ctx, name)
        module = importlib.import_module(f"entrypoint.{found[0]}")
        command: click.Command = getattr(module, found[1])
        return command


def _version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(f"tambo {version.text(Paths())}")
        ctx.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version,
              help="Show the version and the commit, and end.")  # fmt: skip
def tambo() -> None:
    """The mail server's verbs. Run them as: docker exec mail VERB …"""  # noqa: D415 (the words of the verb follow)


@tambo.command(hidden=True)
def verbs() -> None:
    """List the verbs, for the image's links."""
    click.echo("\n".join(VERBS))


def main() -> NoReturn:
    """`tambo VERB …`, or a link named like the verb."""
    name = Path(sys.argv[0]).name
    arguments = sys.argv[1:] if name == "tambo" else [name, *sys.argv[1:]]
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Run one verb; returns its exit status."""
    try:
        result = tambo.main(arguments, prog_name="tambo", standalone_mode=False)
    except UserError as error:
        log.complain(f"error: {error}")
        return error.exit_code
    except click.ClickException as error:
        log.complain(f"error: {error.format_message()}")
        if isinstance(error, click.UsageError) and error.ctx:
            click.echo(f"  usage: {error.ctx.command.get_usage(error.ctx)[7:]}", err=True)
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        log.complain(f"error: {where}{error.strerror or error}")
        return Exit.WRONG
    except (click.Abort, KeyboardInterrupt):
        click.echo("aborted", err=True)
        return 130
    return result if isinstance(result, int) else Exit.OK
