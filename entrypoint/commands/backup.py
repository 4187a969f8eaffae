"""Backup and restore: what is kept, that it is, and how a new machine comes up from it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from entrypoint.backup import index, restore, review
from entrypoint.backup.backup import Backup
from entrypoint.backup.git import Access, Entry, Repository
from entrypoint.backup.restore import Found
from entrypoint.commands.context import Context
from entrypoint.common import age, locks, signing
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids, Owner, drop, give, mend
from entrypoint.common.paths import Paths
from entrypoint.settings import environment, values
from entrypoint.state import load

_json = click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
_identity = click.option(
    "--identity", metavar="FILE",
    help="What the owner keeps: the private half of the age key pair and the verification key; a "
    "file in the container, or - for standard input.",
)  # fmt: skip


@click.command("backup")
@click.option("--check", is_flag=True, help="See that what the remote has restores to this state.")
@click.option(
    "--new-key",
    is_flag=True,
    help="Make an age key pair and a signing key, and show them once.",
)
@click.option(
    "--new-signing-key", is_flag=True,
    help="Make a signing key alone, for an age key pair that there is.",
)  # fmt: skip
@click.option(
    "--take-over", is_flag=True,
    help="Go on from what the remote has, whoever put it there, with this server's state on top.",
)  # fmt: skip
@_identity
@_json
def make_backup(
    check: bool, new_key: bool, new_signing_key: bool, take_over: bool, identity: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Commit what has changed, and push it, now. The keeper does so by itself.

    --check fetches the remote's last commit into a scratch folder and compares it with what is
    here; with --identity every secret is decrypted for that too.

    Example: docker exec mail backup --check
    """
    if check + new_key + new_signing_key + take_over > 1:
        msg = "--check, --new-key, --new-signing-key and --take-over exclude each other"
        raise click.UsageError(msg)
    if identity and not check:
        msg = "--identity goes with --check"
        raise click.UsageError(msg)
    if new_key:
        _new_key(as_json=as_json)
        return Exit.OK
    if new_signing_key:
        _new_signing_key(as_json=as_json)
        return Exit.OK
    given = _read_identity(identity) if identity else Kept()  # as root: it is the owner's file
    context = Context.enter()
    work = Backup(context.settings, context.paths, context.ids)
    if check:
        text = work.check(given.identities, given.keys)
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
    if context.settings.backup_age_recipient and not context.settings.backup_signing_key:
        click.echo(
            "It is not signed, so a restore cannot tell it from a forged one: "
            "docker exec mail backup --new-signing-key", err=True,
        )  # fmt: skip
    return Exit.OK


def _new_key(*, as_json: bool) -> None:
    private, public = age.new_identity()
    signing_key = signing.new_key()
    verify = signing.verification_key(signing_key)
    if as_json:
        found = {"identity": private, "verification_key": verify, "recipient": public,
                 "signing_key": signing_key}  # fmt: skip
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(
        "Two lines to keep, which are shown only now. Put them where you will find them when this\n"
        "server is gone: into your password manager, and on paper.\n\n"
        f"    {private}\n"
        f"    # {verify}\n\n"
        "The first is the private half: without it nobody can read the secrets in the backup, and\n"
        "whoever has it can. The second, which is no secret, tells this server's backup from one\n"
        "that somebody else has put in its place.\n\n"
        "Two lines for .env; then: docker compose up -d\n\n"
        f"    BACKUP_AGE_RECIPIENT={public}\n"
        f"    BACKUP_SIGNING_KEY={signing_key}"
    )


def _new_signing_key(*, as_json: bool) -> None:
    signing_key = signing.new_key()
    verify = signing.verification_key(signing_key)
    if as_json:
        found = {"verification_key": verify, "signing_key": signing_key}
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(
        "A line to keep beside the private half (AGE-SECRET-KEY-1...), in the same file and on\n"
        "the same paper, in place of one that begins like it. It is no secret, and tells this\n"
        "server's backup from one that somebody else has put in its place.\n\n"
        f"    # {verify}\n\n"
        "A line for .env; then: docker compose up -d\n\n"
        f"    BACKUP_SIGNING_KEY={signing_key}"
    )


@dataclass(frozen=True)
class Kept:
    """What the owner keeps: age identities, and the keys that verify signatures."""

    identities: tuple[str, ...] = field(default=(), repr=False)
    keys: tuple[str, ...] = ()


def _read_identity(name: str) -> Kept:
    """From a file, standard input (`-`), or, if there is a terminal, by hand (``)."""
    try:
        if name:
            text = sys.stdin.read(65536) if name == "-" else environment.read_file(name)
            return Kept(age.identities(text), signing.verification_keys(text))
        answer: str = click.prompt("Private half (AGE-SECRET-KEY-1...)", hide_input=True)
        found = age.identities(answer)
        keys = signing.verification_keys(answer)
        if not keys:
            prompt = "Verification key (tambo-verify-...; nothing if there is none)"
            answer = click.prompt(prompt, default="", show_default=False).strip()
            keys = signing.verification_keys(answer)
            if answer and not keys:
                msg = "what was typed as verification key does not begin with tambo-verify-"
                raise UserError(msg, exit_code=Exit.USAGE)
    except ValueError as error:
        what = "standard input" if name == "-" else f"--identity {name}" if name else "this"
        msg = f"{what}: {error}"
        raise UserError(msg, exit_code=Exit.USAGE) from None
    return Kept(found, keys)


def _row(entry: Entry) -> dict[str, Any]:
    when = datetime.fromtimestamp(entry.when, UTC)
    return {"commit": entry.oid, "time": f"{when:%Y-%m-%dT%H:%M:%SZ}", "subject": entry.subject}


# --- access to a remote


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
    known = environment.load_access(os.environ)
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
        asked = values.git_remote(asked)
        default = paths.data / "backup.key"
        key = key or (str(default) if not known.key and default.is_file() else None)
        found = Access(
            asked,
            values.private_key(environment.read_file(key)) if key else known.key,
            values.host_keys(host_key) if host_key else known.host_keys,
            environment.read_file(token_file) if token_file else known.token,
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
            give(path, ids.users[Owner.TAMBO], ids.groups[group], mode)
        folders = [
            *(paths.data / name for name in ("domains", "certs", "acme", "reload", "backup"))
        ]
        for folder in (*folders, paths.state, paths.restoring, paths.restored, paths.replaced):
            mend(folder, ids, Owner.TAMBO)
    drop(ids, Owner.TAMBO)


@click.command("list-backups")
@_door
@_identity
@_json
def list_backups(
    remote: str | None, key: str | None, host_key: str | None, token_file: str | None,
    identity: str | None, as_json: bool,
) -> int:  # fmt: skip
    """List the backups, the newest first: commit, time (UTC), whether it is signed, what changed.

    Without REMOTE those of this server; with it, those that the remote has. `verified` means that
    each file is signed with the key of BACKUP_SIGNING_KEY, or of the verification key in
    --identity; `unverified`, that nobody known vouches for it; `?`, that no key is known here.

    Example: docker exec mail list-backups
    """
    paths, ids = Paths(), Ids.image()
    keys = _verification_keys(identity)
    access = _access(remote, key, host_key, token_file, paths) if remote else None
    _become_tambo(paths, ids)
    if access:
        with locks.backup_lock(paths, ids, 60.0):
            repository = Repository(paths.backup_scratch)
            try:
                repository.prepare()
                head = repository.fetch(access, paths.run / "backup", ids)
                entries = repository.log(head)
                verified = index.verified(repository, head, keys) if keys else frozenset()
            finally:
                restore.remove(paths.backup_scratch)
    else:
        repository = Repository(paths.backup)
        head = repository.head if repository.exists else ""
        entries = repository.log(head) if head else []
        verified = index.verified(repository, head, keys) if keys and head else frozenset()
    if as_json:
        rows = [
            {**_row(entry), "verified": entry.oid in verified if keys else None}
            for entry in entries
        ]
        click.echo(json.dumps(rows, indent=2))
        return Exit.OK
    for entry in entries:
        when = datetime.fromtimestamp(entry.when, UTC)
        word = ("verified" if entry.oid in verified else "unverified") if keys else "?"
        click.echo(f"{entry.oid[:10]}  {when:%Y-%m-%d %H:%M:%S}  {word:<10}  {entry.subject}")
    if not entries:
        click.echo("There is no backup yet.", err=True)
    return Exit.OK


def _verification_keys(identity: str | None) -> tuple[str, ...]:
    """Those in --identity, else that of this server's own signing key. As root."""
    if identity:
        try:
            text = sys.stdin.read(65536) if identity == "-" else environment.read_file(identity)
            return signing.verification_keys(text)
        except ValueError as error:
            what = "standard input" if identity == "-" else f"--identity {identity}"
            msg = f"{what}: {error}"
            raise UserError(msg, exit_code=Exit.USAGE) from None
    return _own_key()


def _own_key() -> tuple[str, ...]:
    """The verification key of this server's own signing key, if it has one."""
    own = environment.load_access(os.environ).signing_key
    return (signing.verification_key(own),) if own else ()


# --- restore


@click.command("restore")
@_door
@click.option(
    "--at", metavar="COMMIT|DATE", default="",
    help="An earlier backup: a commit, a date (its end), or a moment (UTC).",
)  # fmt: skip
@_identity
@click.option("--replace", is_flag=True, help="Replace what is here; it is kept in data/replaced.")
@click.option(
    "--unverified", is_flag=True,
    help="Take a backup that nobody vouches for: one from before it was signed.",
)  # fmt: skip
@click.option(
    "--accept", metavar="NAME", multiple=True,
    help="With --unverified: take this program, pipe or file in clear. May be given several times.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore_backup(
    remote: str | None, key: str | None, host_key: str | None, token_file: str | None, at: str,
    identity: str | None, replace: bool, unverified: bool, accept: tuple[str, ...], yes: bool,
) -> int:  # fmt: skip
    """Bring a backup into an empty data folder: users, aliases, keys, certificates, settings.

    It sees whether your server signed the backup, says what it will do and asks. Every file is
    checked before any is put in place. The server must not run on the data folder. Queue and kept
    mail are in no backup.

    Example: docker run --rm -it -v ./data:/data tambo restore git@git.example.com:me/backup.git
    """
    paths, ids = Paths(), Ids.image()
    access = _access(remote, key, host_key, token_file, paths)
    given = _read_identity(identity) if identity else Kept()
    own = _own_key()  # on the same machine the server's own key vouches too
    if os.geteuid() == 0:
        paths.data.mkdir(exist_ok=True)
    locks.hold_instance(paths, ids)
    _become_tambo(paths, ids)
    if restore.left(paths):
        click.echo("Completing a restore that was interrupted.", err=True)
        restore.complete(paths, ids)
    if not restore.is_empty(paths) and not replace:
        msg = "the data folder is not empty: there are keys, users or certificates in it"
        raise UserError(
            msg, "restore into an empty one, or say --replace, which keeps these in data/replaced"
        )
    try:
        repository = restore.fetch(access, paths, ids)
        if not given.identities and restore.recipients_of(repository, at) and sys.stdin.isatty():
            given = _read_identity("")
        found = restore.look(
            repository, at, given.identities, given.keys or own, unverified=unverified
        )
        _describe(found, paths, replace=replace)
        names = restore.accepted(found, accept, ciphered=bool(given.identities))
        if not _agreed(found, names, yes=yes, unverified=unverified):
            click.echo("Nothing was changed.", err=True)
            return Exit.WRONG
        restore.stage(found, access, paths, ids, datetime.now(UTC))
    except OSError as error:
        raise restore.failed(error) from None
    finally:
        restore.discard(paths)
    _next(found, restore.complete(paths, ids), paths)
    return Exit.OK


_LINES, _ALL_LINES = 20, 500  # lines of a kind; of a backup that nobody vouches for


def _describe(found: Found, paths: Paths, *, replace: bool) -> None:
    """What was found; all of it read from the backup just now, and printable."""
    signed = found.manifest
    when = datetime.fromtimestamp(signed.when if signed else found.chosen.when, UTC)
    click.echo(f"Backup of {found.host}, {when:%Y-%m-%d %H:%M} UTC.")
    said = review.plain(found.chosen.subject)
    click.echo(
        f"  (commit {found.chosen.oid[:10]}, whose subject, which is not signed, is: {said})"
    )
    if found.chosen.oid != found.newest.oid:
        newest = datetime.fromtimestamp(found.newest.when, UTC)
        subject = review.plain(found.newest.subject)
        click.echo(f"  (the newest is of {newest:%Y-%m-%d %H:%M} UTC: {subject})")
    if signed:
        click.echo(
            f"Verified: signed by this server on {when:%Y-%m-%d %H:%M} UTC as number "
            f"{signed.number}, for {', '.join(signed.domains)}."
        )
        if signed.number != found.number:
            click.echo(
                f"  It stands at place {found.number} of the history: an older backup was put in "
                "front again, by a restore or by somebody who may write there."
            )
    else:
        click.echo(
            f"Nobody vouches for this backup: {found.unverified}. Whoever could write to the\n"
            "repository may have made all of it, also what is encrypted, also its date."
        )
    for line in restore.contents(found):
        click.echo(f"  {line}")
    here = {} if restore.is_empty(paths) else load.owned(paths)[0]
    click.echo("What changes here (+ new, - gone, ~ differs):")
    most = _LINES if signed else _ALL_LINES
    for kind in review.changes(here, found.tree):
        click.echo(f"  {kind.title}:")
        for line in kind.lines[:most]:
            click.echo(f"    {line}")
        if len(kind.lines) > most:
            click.echo(f"    and {len(kind.lines) - most} more")
    click.echo(f"All {len(found.files)} files were read and are whole. They go into {paths.data}.")
    if replace and not restore.is_empty(paths):
        click.echo("What is there now is moved to data/replaced. Queue and kept mail stay.")


def _agreed(found: Found, names: dict[str, str], *, yes: bool, unverified: bool) -> bool:
    """Ask; raises UserError where nobody can be asked, and what is needed was not said before."""
    asked = sys.stdin.isatty()
    if found.manifest:
        if yes:
            return True
        if not asked:
            msg = "there is no terminal to ask at"
            raise UserError(msg, "add --yes, or run it with docker run -it", exit_code=Exit.USAGE)
        return click.confirm("Put it in place?", default=False)
    if not asked and not (yes and unverified):
        msg = f"nothing was restored: nobody vouches for this backup ({found.unverified})"
        raise UserError(
            msg,
            "give the file with the verification key as --identity; without one, read what is "
            "listed above, and add --unverified --yes, or run it with docker run -it",
        )
    if names and not asked:
        lines = "".join(f"\n  {name}: {why}" for name, why in names.items())
        options = " ".join(f"--accept {shlex.quote(name)}" for name in names)
        msg = f"nothing was restored: nobody vouches for this backup, and in it is{lines}"
        raise UserError(msg, f"if each of these is yours: {options}")
    for name, why in names.items():
        typed = click.prompt(f"{name}: {why}. Type its name to take it", default="",
                             show_default=False)  # fmt: skip
        if typed.strip() != name:
            return False
    if yes and unverified:
        return True
    typed = click.prompt("Put in place what nobody vouches for? Type yes", default="",
                         show_default=False)  # fmt: skip
    return bool(typed.strip() == "yes")


def _next(found: Found, aside: Path | None, paths: Paths) -> None:
    click.echo("\nDone.")
    if aside:
        click.echo(f"What was there before is in data/replaced/{aside.name}.")
    mounts = restore.mounts(found)
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
    if not (paths.data / "backup.key").exists() and restore.uses_key_file(found):
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
