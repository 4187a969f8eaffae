"""Backup and restore: what is kept, that it is, and how a new machine comes up from it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from entrypoint.backup import backup as backups
from entrypoint.backup import restore as restores
from entrypoint.backup.git import Access, Entry, Repository
from entrypoint.backup.restore import Found
from entrypoint.commands.context import Context
from entrypoint.common import age
from entrypoint.common import identity as rights
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.converge import apply
from entrypoint.settings import model

_json = click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
_identity = click.option(
    "--identity", metavar="FILE",
    help="The private half of the age key pair: a file in the container, or - for standard input.",
)  # fmt: skip


@click.command("backup")
@click.option("--check", is_flag=True, help="See that what the remote has restores to this state.")
@click.option("--new-key", is_flag=True, help="Make an age key pair, and show it once.")
@click.option(
    "--take-over", is_flag=True,
    help="Go on from what the remote has, whoever put it there, with this server's state on top.",
)  # fmt: skip
@_identity
@_json
def backup(check: bool, new_key: bool, take_over: bool, identity: str | None, as_json: bool) -> int:
    """Commit what has changed, and push it, now. The keeper does so by itself.

    --check fetches the remote's last commit into a scratch folder and compares it with what is
    here; with --identity every secret is decrypted for that too.

    Example: docker exec mail backup --check
    """
    if check + new_key + take_over > 1:
        msg = "--check, --new-key and --take-over exclude each other"
        raise click.UsageError(msg)
    if identity and not check:
        msg = "--identity goes with --check"
        raise click.UsageError(msg)
    if new_key:
        _new_key(as_json=as_json)
        return Exit.OK
    given = _read_identity(identity) if identity else ()  # as root: it is the owner's file
    context = Context.enter()
    work = backups.Backup(context.settings, context.paths, context.ids)
    if check:
        text = work.check(given)
        click.echo(json.dumps({"ok": True, "text": text}, indent=2) if as_json else text)
        return Exit.OK
    made = work.take_over() if take_over else work.run(patient=False)
    if as_json:
        rows = [_row(entry) for entry in made]
        click.echo(json.dumps({"commits": rows, "pushed": True}, indent=2))
        return Exit.OK
    for entry in made:
        click.echo(f"{entry.oid[:10]}  {entry.subject}")
    remote = context.settings.backup_git_remote
    click.echo(f"{'Pushed to' if made else 'Nothing has changed; all of it is at'} {remote}.")
    return Exit.OK


def _new_key(*, as_json: bool) -> None:
    private, public = age.new_identity()
    if as_json:
        click.echo(json.dumps({"identity": private, "recipient": public}, indent=2))
        return
    click.echo(
        "The private half, which is shown only now and kept nowhere. Put it where you will find\n"
        "it when this server is gone: into your password manager, and on paper. Without it nobody\n"
        "can read the secrets in the backup.\n\n"
        f"    {private}\n\n"
        "The public half, for .env; then: docker compose up -d\n\n"
        f"    BACKUP_AGE_RECIPIENT={public}"
    )


def _read_identity(name: str) -> tuple[str, ...]:
    """From a file, standard input (`-`), or, if there is a terminal, by hand (``)."""
    try:
        if name == "-":
            return age.identities(sys.stdin.read(65536))
        if name:
            return age.identities(model.read_file(name))
        answer: str = click.prompt("Private half (AGE-SECRET-KEY-1…)", hide_input=True)
        return age.identities(answer)
    except ValueError as error:
        what = "standard input" if name == "-" else f"--identity {name}" if name else "this"
        msg = f"{what}: {error}"
        raise UserError(msg, exit_code=Exit.USAGE) from None


def _row(entry: Entry) -> dict[str, Any]:
    when = datetime.fromtimestamp(entry.when, UTC)
    return {"commit": entry.oid, "time": f"{when:%Y-%m-%dT%H:%M:%SZ}", "subject": entry.subject}


# --- the door to a remote


def _door(command: Any) -> Any:
    for option in (
        click.option("--token-file", metavar="FILE", help="For HTTPS: the file with the token."),
        click.option(
            "--host-key", metavar="KEY",
            help="For SSH: the server's public host key, as ssh-keyscan prints it.",
        ),
        click.option(
            "--key", metavar="FILE",
            help="For SSH: the private key. Default: data/backup.key, if it is there.",
        ),
        click.argument("remote", required=False),
    ):  # fmt: skip
        command = option(command)
    return command


def _access(
    remote: str | None, key: str | None, host_key: str | None, token_file: str | None, paths: Paths
) -> Access:
    """What was given, else what the environment says. As root, before the drop."""
    known = model.load_access(os.environ)
    try:
        asked = remote or known.remote
        if not asked:
            msg = "say which repository: its address as the first argument"
            raise UserError(
                msg, "for example: restore git@git.example.com:me/mail-backup.git",
                exit_code=Exit.USAGE,
            )  # fmt: skip
        if asked.startswith("/"):
            return Access(asked)
        asked = model.git_remote(asked)
        default = paths.data / "backup.key"
        key = key or (str(default) if not known.key and default.is_file() else None)
        found = Access(
            asked,
            model.private_key(model.read_file(key)) if key else known.key,
            model.host_keys(host_key) if host_key else known.host_keys,
            model.read_file(token_file) if token_file else known.token,
        )
    except ValueError as error:
        raise UserError(str(error), exit_code=Exit.USAGE) from None
    if asked.startswith("https://"):
        return found
    if not found.key:
        msg = f"{asked} is reached by SSH, which needs a private key"
        raise UserError(
            msg, "put it into data/backup.key, or name it: --key FILE (a file in the container)",
            exit_code=Exit.USAGE,
        )  # fmt: skip
    if not found.host_keys:
        msg = f"{asked} is reached by SSH, and the server's host key is not known"
        raise UserError(
            msg, "get it with ssh-keyscan -t ed25519 SERVER, compare it with what the server's "
            "owner publishes, and give it: --host-key 'ssh-ed25519 AAAA…'",
            exit_code=Exit.USAGE,
        )  # fmt: skip
    return found


def _become_tambo(paths: Paths, ids: Ids) -> None:
    """Make the folders that work needs, of a volume that may be new; then stop being root."""
    if os.geteuid() == 0:
        for path, mode in ((paths.data, 0o710), (paths.state, 0o700), (paths.run, 0o750)):
            path.mkdir(parents=True, exist_ok=True)
            group = Owner.TAMBO if path == paths.state else Owner.CHASQUID
            rights.give(path, ids.users[Owner.TAMBO], ids.groups[group], mode)
        folders = [
            *(paths.data / name for name in ("domains", "certs", "acme", "reload", "backup"))
        ]
        for folder in (*folders, paths.state, paths.restoring, paths.restored, paths.replaced):
            rights.mend(folder, ids, Owner.TAMBO)
    rights.drop(ids, Owner.TAMBO)


@click.command("list-backups")
@_door
@_json
def list_backups(
    remote: str | None, key: str | None, host_key: str | None, token_file: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """List the backups, the newest first: commit, time (UTC), what changed.

    Without REMOTE those of this server; with it, those that the remote has.

    Example: docker exec mail list-backups
    """
    paths, ids = Paths(), Ids.image()
    if remote:
        access = _access(remote, key, host_key, token_file, paths)
        _become_tambo(paths, ids)
        with apply.backup_lock(paths, ids, 60.0):
            repository = Repository(paths.backup_scratch)
            try:
                repository.prepare()
                head = repository.fetch(access, paths.run / "backup", ids)
                entries = repository.log(head)
            finally:
                restores.remove(paths.backup_scratch)
    else:
        _become_tambo(paths, ids)
        repository = Repository(paths.backup)
        entries = repository.log(repository.head) if repository.exists else []
    if as_json:
        click.echo(json.dumps([_row(entry) for entry in entries], indent=2))
        return Exit.OK
    for entry in entries:
        when = datetime.fromtimestamp(entry.when, UTC)
        click.echo(f"{entry.oid[:10]}  {when:%Y-%m-%d %H:%M:%S}  {entry.subject}")
    if not entries:
        click.echo("There is no backup yet.", err=True)
    return Exit.OK


# --- restore


@click.command("restore")
@_door
@click.option(
    "--at", metavar="COMMIT|DATE", default="",
    help="An earlier backup: a commit, a date (its end), or a moment (UTC).",
)  # fmt: skip
@_identity
@click.option("--replace", is_flag=True, help="Replace what is here; it is kept in data/replaced.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(
    remote: str | None, key: str | None, host_key: str | None, token_file: str | None, at: str,
    identity: str | None, replace: bool, yes: bool,
) -> int:  # fmt: skip
    """Bring a backup into an empty data folder: users, aliases, keys, certificates, settings.

    It says what it will do and asks. Every file is checked before any is put in place. The server
    must not run on the data folder. Queue and kept mail are in no backup.

    Example: docker run --rm -it -v ./data:/data tambo restore git@git.example.com:me/backup.git
    """
    paths, ids = Paths(), Ids.image()
    access = _access(remote, key, host_key, token_file, paths)
    given = _read_identity(identity) if identity else ()
    if os.geteuid() == 0:
        paths.data.mkdir(exist_ok=True)
    apply.hold_instance(paths, ids)
    _become_tambo(paths, ids)
    if restores.left(paths):
        click.echo("Completing a restore that was interrupted.", err=True)
        restores.complete(paths, ids)
    if not restores.is_empty(paths) and not replace:
        msg = "the data folder is not empty: there are keys, users or certificates in it"
        raise UserError(
            msg, "restore into an empty one, or say --replace, which keeps these in data/replaced"
        )
    try:
        found = _fetch(access, paths, ids, at, given)
        _describe(found, paths, replace=replace)
        if not yes and not _agreed():
            click.echo("Nothing was changed.", err=True)
            return Exit.WRONG
        restores.stage(found, access, paths, ids, datetime.now(UTC))
    except OSError as error:
        raise restores.failed(error) from None
    finally:
        restores.discard(paths)
    _next(found, restores.complete(paths, ids), paths)
    return Exit.OK


def _fetch(access: Access, paths: Paths, ids: Ids, at: str, given: Sequence[str]) -> Found:
    repository = restores.fetch(access, paths, ids)
    if not given and restores.recipients_of(repository, at) and sys.stdin.isatty():
        given = _read_identity("")
    return restores.look(repository, at, given)


def _describe(found: Found, paths: Paths, *, replace: bool) -> None:
    when = datetime.fromtimestamp(found.chosen.when, UTC)
    click.echo(f"Backup of {found.host}, {when:%Y-%m-%d %H:%M} UTC: {found.chosen.subject}")
    if found.chosen.oid != found.newest.oid:
        newest = datetime.fromtimestamp(found.newest.when, UTC)
        click.echo(f"  (the newest is of {newest:%Y-%m-%d %H:%M} UTC: {found.newest.subject})")
    for line in restores.contents(found):
        click.echo(f"  {line}")
    click.echo(f"All {len(found.files)} files were read and are whole. They go into {paths.data}.")
    if replace and not restores.is_empty(paths):
        click.echo("What is there now is moved to data/replaced. Queue and kept mail stay.")


def _agreed() -> bool:
    if not sys.stdin.isatty():
        msg = "there is no terminal to ask at"
        raise UserError(msg, "add --yes, or run it with docker run -it", exit_code=Exit.USAGE)
    return click.confirm("Put it in place?", default=False)


def _next(found: Found, aside: Path | None, paths: Paths) -> None:
    click.echo("\nDone.")
    if aside:
        click.echo(f"What was there before is in data/replaced/{aside.name}.")
    mounts = restores.mounts(found)
    steps = [
        (
            "The settings that were in force are in data/restored.env, secrets too. See them, then:"
            "\n"
            "     mv data/restored.env .env"
        ),
    ]
    if mounts:
        steps.append(
            "These settings name files or folders outside of data/, to be mounted again:\n     "
            + "\n     ".join(mounts)
        )
    if not (paths.data / "backup.key").exists() and restores.uses_key_file(found):
        steps.append("Put the key that may push to the backup into data/backup.key.")
    steps += [
        "See that the old server does not run any more: two would push to one backup.",
        "docker compose up -d",
        (
            f"Point A and AAAA of {found.host}, and the PTR of the new addresses, to this machine:"
            "\n"
            "     docker exec mail dns --check says what is missing. No other record changes."
        ),
    ]
    click.echo("\nWhat to do next:")
    for number, step in enumerate(steps, start=1):
        click.echo(f"  {number}. {step}")
