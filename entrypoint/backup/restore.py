"""A restore: all of a backup is put in place, or nothing is.

Everything is fetched, decrypted, checked and written to a folder aside first. Then one rename says
that it is whole; from there on it is completed, by this process or by the next start.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from entrypoint.backup import index, review
from entrypoint.backup.git import TRAILER, Access, Commit, Entry, Repository
from entrypoint.backup.index import Memory, open_tree
from entrypoint.backup.manifest import Manifest, UnverifiedError
from entrypoint.backup.tree import (
    ABOUT,
    SETTINGS,
    SUFFIX,
    Item,
    env_file,
    files_of,
    parse_about,
    parts_of,
    problems,
    remembered_in,
)
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import apply
from entrypoint.state import load

# What a restore replaces, below /data: what it brings, and what would contradict it.
_BROUGHT = (
    *load.BACKED_UP, "backup", "state/backup.json", "state/selectors.json",
    "state/credentials.json", "restored.env",
)  # fmt: skip
_CONTRADICTS = ("state/good", "state/certs", "state/reload.json", "state/doctor.json")
_PLAN, _NEW = "plan.json", "new"
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Found:
    """A backup, checked as a whole. `newest` is the remote's last commit, `number` that of the
    chosen one in its history, the first being 1.

    `manifest` is what the server that made it has signed; None if nobody vouches for it, and
    `unverified` says why.
    """

    chosen: Entry
    newest: Entry
    number: int
    host: Domain
    tree: Mapping[str, Item] = field(repr=False)
    manifest: Manifest | None = None
    unverified: str = ""

    @property
    def files(self) -> dict[str, load.Owned]:
        return files_of(self.tree)


def is_empty(paths: Paths) -> bool:
    """Whether nothing of an owner's would be replaced."""
    places = [paths.data / name for name in (*load.BACKED_UP, "state/good")]
    return not any(path.is_file() for place in places for path in place.rglob("*"))


def choose(repository: Repository, head: str, at: str) -> Entry:
    """The commit that `at` means: a commit, a date (its end, UTC), a moment, or nothing for the
    newest. Raises UserError."""
    entries = repository.log(head)
    if not at:
        return entries[0]
    fix = "see which there are: list-backups"
    moment = _moment(at)
    if moment is not None:
        found = next((entry for entry in entries if entry.when <= moment.timestamp()), None)
        if found is None:
            first = datetime.fromtimestamp(entries[-1].when, UTC)
            msg = f"there is no backup from before {at}; the first is of {first:%Y-%m-%d %H:%M} UTC"
            raise UserError(msg, fix)
        return found
    if not re.fullmatch(r"[0-9a-f]{4,40}", at.lower()):
        msg = f"{at!a} is neither a commit nor a date; write 2026-01-31 or 2026-01-31T12:00"
        raise UserError(msg, fix, exit_code=Exit.USAGE)
    matching = [entry for entry in entries if entry.oid.startswith(at.lower())]
    if len(matching) != 1:
        many = "several commits" if matching else "no commit of this backup"
        msg = f"{at} is {many}"
        raise UserError(msg, fix)
    return matching[0]


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    # A date such as 20260131 could be a commit's beginning: dates have hyphens here.
    if "-" not in text:
        return None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return (
        found + timedelta(days=1, seconds=-1) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else found
    )


def fetch(access: Access, paths: Paths, ids: Ids) -> Repository:
    """Get the remote's history into the folder aside, where nothing counts yet."""
    discard(paths)
    apply.own_folder(paths.restoring / _NEW, ids)
    repository = Repository(paths.restoring / _NEW / "backup")
    repository.prepare()
    head = repository.fetch(access, paths.run / "backup", ids)
    if not head:
        msg = f"{access.remote} holds no backup: it has no branch main"
        raise UserError(msg, "see that the address is right")
    repository.set("refs/heads/main", head)
    return repository


def look(
    repository: Repository,
    at: str,
    identities: Sequence[str],
    keys: Sequence[str] = (),
    *,
    unverified: bool = False,
) -> Found:
    """See whose backup it is, then decrypt and check it as a whole.

    `keys` are the verification keys that its owner keeps. If there is one, a backup that is not
    signed with it is refused, but for `unverified`. Raises UserError with all that is wrong.
    """
    chosen = choose(repository, repository.head, at)
    tree = repository.tree(chosen.oid)
    contents = repository.read(node.oid for node in tree.values())
    signed, reason = None, ""
    try:
        signed = index.verify(tree, contents, keys)
    except UnverifiedError as error:
        reason = str(error)
        if keys and not unverified:
            raise _refused(chosen, reason) from None
        if error.signed and not keys:
            reason = "it is signed, but no verification key was given to compare with"
    about = parse_about(contents[tree[ABOUT].oid] if ABOUT in tree else None)
    opened = open_tree(tree, contents, identities)
    remembered_in(opened)
    wrong = problems(opened)
    if wrong:
        lines = "\n".join(f"  {text}" for text in wrong)
        msg = f"this backup is not whole:\n{lines}"
        raise UserError(msg, "take an earlier one: list-backups, and restore --at COMMIT")
    return Found(
        chosen, repository.log(repository.head, 1)[0], repository.count(chosen.oid), about.host,
        opened, signed, reason,
    )  # fmt: skip


def _refused(chosen: Entry, reason: str) -> UserError:
    msg = (
        f"nothing was restored: the server whose verification key was given does not vouch for "
        f"commit {chosen.oid[:10]}: {reason}. Somebody else may have written it"
    )
    return UserError(
        msg,
        "list-backups with the same --identity says which are verified: restore --at COMMIT. If it "
        "is the server's own, from before it signed its backups: restore --unverified, which lists "
        "what is in it, and asks",
    )


def accepted(found: Found, names: Sequence[str], *, ciphered: bool) -> dict[str, str]:
    """What still has to be accepted by name, and why; `ciphered`: an identity was given, so the
    secrets should be encrypted, whatever the backup says of itself."""
    if found.manifest:
        return {}
    encrypted = ciphered or parse_about(found.tree[ABOUT].content).encrypted
    wanted = review.by_name(found.tree, encrypted=encrypted)
    return {name: why for name, why in wanted.items() if name not in names}


def recipients_of(repository: Repository, at: str) -> tuple[str, ...]:
    """Whom the chosen backup is encrypted to."""
    tree = repository.tree(choose(repository, repository.head, at).oid)
    contents = repository.read([tree[ABOUT].oid] if ABOUT in tree else [])
    found = parse_about(contents[tree[ABOUT].oid] if ABOUT in tree else None)
    return found.recipients if found.encrypted else ()


def stage(found: Found, access: Access, paths: Paths, ids: Ids, now: datetime) -> None:
    """Write all that is to be put in place, aside; then say, by one rename, that it is whole."""
    new = paths.restoring / _NEW
    for name, file in found.files.items():
        apply.write_owned(new / name, file.content, ids, executable=file.executable)
    for name in load.BACKED_UP:
        apply.own_folder(new / name, ids)
    repository = Repository(new / "backup")
    memory = Memory.new()
    if found.chosen.oid != found.newest.oid:
        _go_back(repository, found, memory, now)
    nodes = repository.tree(repository.head)
    known = {
        nodes[f"{name}{SUFFIX}"].oid: memory.seal(_with_parts(name, item))
        for name, item in found.tree.items()
        if f"{name}{SUFFIX}" in nodes
    }
    remote = "" if access.remote.startswith("/") else access.remote
    memory = Memory(memory.key, memory.server, known, remote, found.newest.oid)
    apply.own_folder(new / "state", ids)
    apply.write(new / "state/backup.json", index.dump(memory), ids)
    remembered = remembered_in(found.tree)
    selectors = {domain: set(names) for domain, names in remembered.selectors.items()}
    # Also those that came after an older backup: DNS, or somebody's cache, may still have them.
    for domain, names in load.remembered(paths).selectors.items():
        selectors.setdefault(domain, set()).update(names)
    said = {domain: sorted(names) for domain, names in sorted(selectors.items())}
    apply.write(new / "state/selectors.json", json.dumps(said, indent=1).encode(), ids)
    created = json.dumps(dict(remembered.created), indent=1)
    apply.write(new / "state/credentials.json", created.encode(), ids)
    env = env_file(found.tree, found.host)
    apply.write(new / "restored.env", env.encode(), ids)
    stamp = f"{now:{_STAMP}}"
    apply.write(paths.restoring / _PLAN, json.dumps({"aside": stamp}).encode(), ids)
    apply.sync_tree(paths.restoring)
    apply.move(paths.restoring, paths.restored)


def _with_parts(name: str, item: Item) -> Item:
    return Item(item.content, item.secret, item.executable, parts_of(name, item.content))


def _go_back(repository: Repository, found: Found, memory: Memory, now: datetime) -> None:
    """One commit on top of the newest says that the state is an older one's."""
    old = repository.tree(found.chosen.oid)
    newest = repository.tree(found.newest.oid)
    changes = {path: node for path, node in old.items() if newest.get(path) != node}
    gone = dict.fromkeys(newest.keys() - old.keys())
    when = datetime.fromtimestamp(found.chosen.when, UTC)
    subject = f"restore: back to {found.chosen.oid[:10]} of {when:%Y-%m-%d %H:%M} UTC"
    commit = Commit(subject, f"{TRAILER}: {found.host} {memory.server}", {**changes, **gone})
    repository.commit([commit], f"tambo <tambo@{found.host}>", int(now.timestamp()))


def complete(paths: Paths, ids: Ids) -> Path | None:
    """Put in place what a restore has prepared whole, and remove what one has not.

    Killed at any moment, it goes on where it was. Caller holds the instance lock, and is tambo:
    root would follow tambo's links. Returns the folder with what was there before, if there was
    something.
    """
    discard(paths)
    ready = paths.restored
    try:
        aside = paths.replaced / _stamp((ready / _PLAN).read_bytes())
    except FileNotFoundError:
        shutil.rmtree(ready, ignore_errors=True)
        return None
    for name in (*_BROUGHT, *_CONTRADICTS):
        new, place, old = ready / _NEW / name, paths.data / name, aside / name
        # Without a new one it has been put in place already, or there is none to put.
        stands = place.exists() or place.is_symlink()
        if stands and not old.exists() and (new.exists() or name in _CONTRADICTS):
            apply.own_folder(paths.replaced, ids)
            apply.own_folder(old.parent, ids)
            apply.move(place, old)
        if new.exists() and not new.is_symlink():
            apply.own_folder(place.parent, ids)
            apply.move(new, place)
    (ready / _PLAN).unlink()
    shutil.rmtree(ready)
    return aside if aside.is_dir() else None


def _stamp(plan: bytes) -> str:
    """It becomes a path: taken is what `stage` writes, and nothing else. Raises UserError."""
    try:
        stamp = json.loads(plan)["aside"]
        if f"{datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC):{_STAMP}}" == stamp:
            return str(stamp)
    except (ValueError, TypeError, KeyError):
        pass
    msg = "data/.restore.ready/plan.json is damaged, so the restore cannot be completed"
    fix = "remove data/.restore.ready, see what is in data/replaced, and restore again"
    raise UserError(msg, fix)


def discard(paths: Paths) -> None:
    """Remove what was being prepared: it counts for nothing."""
    shutil.rmtree(paths.restoring, ignore_errors=True)


def left(paths: Paths) -> bool:
    """Whether a restore is to be completed."""
    return paths.restored.is_dir()


def remove(path: Path) -> None:
    """Remove a scratch folder."""
    shutil.rmtree(path, ignore_errors=True)


def failed(error: OSError) -> UserError:
    """What to say when the volume does not take it: nothing in place was touched."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "the disk is full" if full else f"{error.strerror or error}: {error.filename}"
    fix = "make room on the volume's disk" if full else "see that the data folder can be written"
    return UserError(f"nothing was restored: {reason}", f"{fix}, and restore again")


# --- what a person is told


def contents(found: Found) -> list[str]:
    """A line for each domain, and for what else there is."""
    files = found.files
    lines = []
    for domain in sorted({name.split("/")[1] for name in files if name.startswith("domains/")}):
        users = parts_of(
            f"data/domains/{domain}/users",
            files.get(f"domains/{domain}/users", load.Owned(b"")).content,
        )
        keys = [name for name in files if re.match(rf"domains/{re.escape(domain)}/.*dkim:", name)]
        rules = "with aliases" if f"domains/{domain}/aliases" in files else "no aliases"
        lines.append(f"{domain}: {len(users)} users, {rules}, {len(keys)} DKIM keys")
    pairs = sorted({name.split("/")[1] for name in files if name.startswith("certs/")})
    homes = sorted({name.split("/")[1] for name in files if name.startswith("acme/")})
    lines += [f"certificates: {', '.join(pairs)}"] if pairs else []
    lines += [f"ACME accounts: {', '.join(homes)}"] if homes else []
    return lines


_MOUNTED = ("TLS_FILES", "ACME_CA_BUNDLE", "ACME_WEBROOT")


def mounts(found: Found) -> list[str]:
    """Settings that name what lies outside of the volume."""
    text = found.tree.get(SETTINGS, Item(b"")).content.decode(errors="replace")
    pairs = (line.partition("=") for line in text.splitlines())
    return [
        review.plain(f"{name}={value}")
        for name, _, value in pairs
        if name in _MOUNTED and not value.startswith("/data/")
    ]


def uses_key_file(found: Found) -> bool:
    """Whether that server's BACKUP_GIT_KEY came from data/backup.key, which no backup holds."""
    text = found.tree.get(SETTINGS, Item(b"")).content
    return b"BACKUP_GIT_KEY: secret (from the file /data/backup.key)" in text
