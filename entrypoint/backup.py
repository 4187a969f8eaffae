"""The backup: one commit a change, pushed to the remote, and proven to be there.

Secrets are encrypted to a public key whose private half is not here, and never the same twice. So
that an unchanged one makes no commit, a keyed digest of its plain text is kept on the volume for
each object that was made of it.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from entrypoint import age, apply, archive, rights, state
from entrypoint.archive import ABOUT, SUFFIX, Change, Group, Item
from entrypoint.errors import Exit, UserError
from entrypoint.findings import Finding, Level
from entrypoint.git import (
    TRAILER,
    Access,
    Blob,
    Commit,
    Entry,
    GitError,
    Node,
    RejectedError,
    Repository,
)
from entrypoint.paths import Paths
from entrypoint.rights import Capability, Ids
from entrypoint.settings import Settings
from entrypoint.state import LeftOut

_DAY = 86400.0
_WEEK = 7 * _DAY
_AGAIN = 3600.0  # seconds until a check that found something wrong is done again
_FIRST_BACK_OFF, _LAST_BACK_OFF = 15.0, 3600.0  # seconds; doubles with each failure
_LOCK_WAIT = 60.0  # seconds
_ACME_WAIT = 20.0  # seconds in which a verb waits for a certificate's issuing to end

Log = Callable[[str], None]
Signature = tuple[tuple[str, int, int, int], ...]


# --- what is remembered


@dataclass(frozen=True)
class Seal:
    """What an encrypted object was made of: keyed digests of the whole and of its parts."""

    digest: str
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trouble:
    """A failure that lasts. Times are seconds since 1970."""

    id: str
    since: float
    message: str
    fix: str
    count: int = 1
    next_try: float = 0.0


@dataclass(frozen=True)
class Checked:
    """How the last check ended: `wrong` is empty if all was right."""

    when: float
    commit: str
    wrong: str = ""


@dataclass(frozen=True)
class Memory:
    """`server` tells this volume from every other that pushes. `pushed` is the commit that the
    remote was last known to have, `remote` which remote that was, `pushed_at` when."""

    key: str
    server: str
    seals: Mapping[str, Seal] = field(default_factory=dict)
    remote: str = ""
    pushed: str = ""
    pushed_at: float = 0.0
    trouble: Trouble | None = None
    checked: Checked | None = None
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def new(cls) -> Memory:
        return cls(secrets.token_hex(32), secrets.token_hex(4))

    def digest(self, content: bytes) -> str:
        return hmac.new(bytes.fromhex(self.key), content, hashlib.sha256).hexdigest()

    def seal(self, item: Item) -> Seal:
        parts = {name: self.digest(content) for name, content in item.parts.items()}
        return Seal(self.digest(item.content), parts)


def load_memory(paths: Paths) -> Memory | None:
    """None if there is none, or if it cannot be read."""
    try:
        found = json.loads(paths.backup_memory.read_text())
        trouble, checked = found.pop("trouble"), found.pop("checked")
        return Memory(
            **{
                **found,
                "seals": {oid: Seal(**item) for oid, item in found["seals"].items()},
                "trouble": Trouble(**trouble) if trouble else None,
                "checked": Checked(**checked) if checked else None,
                "left_out": tuple(LeftOut(**item) for item in found["left_out"]),
            }
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def dump_memory(memory: Memory) -> bytes:
    return json.dumps(asdict(memory), indent=1).encode()


# --- what is wrong, for the log, the doctor and the health check


def findings(settings: Settings, paths: Paths, now: datetime) -> tuple[Finding, ...]:
    """What the owner should know; FAIL once nothing has reached the remote for a day."""
    if not settings.backup_git_remote:
        return ()
    memory = load_memory(paths)
    if memory is None:
        return ()
    found = [
        Finding(
            "backup-left-out", Level.WARN,
            f"data/{item.name} is not in the backup: {item.reason}.",
            "put a plain file with a plain name there, or keep it elsewhere", item.name,
        )
        for item in memory.left_out
        if not item.broken  # else State has a finding of its own
    ]  # fmt: skip
    if memory.trouble:
        trouble = memory.trouble
        long = now.timestamp() - trouble.since >= _DAY
        since = datetime.fromtimestamp(trouble.since, UTC)
        found.append(
            Finding(
                f"backup-{trouble.id}", Level.FAIL if long else Level.WARN,
                f"The backup has failed since {since:%Y-%m-%d %H:%M} UTC: {trouble.message}. "
                "Nothing is lost: it is tried again.",
                trouble.fix, "backup",
            )
        )  # fmt: skip
    if memory.checked and memory.checked.wrong:
        found.append(
            Finding(
                "backup-check", Level.FAIL,
                f"The backup was checked: {memory.checked.wrong}.",
                "docker exec mail backup, then: docker exec mail backup --check", "backup",
            )
        )  # fmt: skip
    return tuple(found)


# --- the work


@dataclass(frozen=True)
class Status:
    """How the backup stands. `unpushed` is how many commits the remote does not have yet."""

    commits: tuple[Entry, ...]
    unpushed: int


@dataclass
class Backup:
    settings: Settings
    paths: Paths
    ids: Ids
    log: Log = lambda _text: None
    now: Callable[[], float] = time.time

    @property
    def repository(self) -> Repository:
        return Repository(self.paths.backup)

    @property
    def _session(self) -> Path:
        return self.paths.run / "backup"

    def access(self) -> Access:
        """Raises UserError if no remote is set."""
        asked = self.settings
        if not asked.backup_git_remote:
            msg = "no backup is made: BACKUP_GIT_REMOTE is not set"
            raise UserError(msg, "docs/backup.md has the five steps to a backup")
        roots = b""
        if asked.acme_ca_bundle and asked.backup_git_remote.startswith("https://"):
            with rights.raised(Capability.DAC_OVERRIDE):
                roots = Path(asked.acme_ca_bundle).read_bytes()
        key, token = asked.backup_git_key, asked.backup_git_token
        return Access(
            asked.backup_git_remote,
            key.get_secret_value() if key else "",
            asked.backup_git_host_key,
            token.get_secret_value() if token else "",
            roots,
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with apply.backup_lock(self.paths, self.ids, _LOCK_WAIT):
            yield

    def _remember(self, memory: Memory) -> None:
        with apply.edit_lock(self.paths, self.ids):
            apply.write(self.paths.backup_memory, dump_memory(memory), self.ids)

    def _memory(self) -> Memory:
        return load_memory(self.paths) or Memory.new()

    # --- run: what the keeper and the verb do

    def run(self, *, patient: bool = True) -> tuple[Entry, ...]:
        """Commit what has changed, and push. Returns the new commits, the oldest first.

        A failure is remembered, and raised (UserError, OSError). Not `patient`: waits for the
        issuing of a certificate; else what belongs to that is left for the next time.
        """
        access = self.access()
        with self._locked():
            try:
                made = self._commit(access, wait=0.0 if patient else _ACME_WAIT)
                self._push(access)
            except (UserError, OSError) as error:
                self._failed(error)
                raise
        return made

    def _failed(self, error: Exception) -> None:
        memory = self._memory()
        id, message, fix = words(error)
        before = memory.trouble
        count = before.count + 1 if before else 1
        wait = min(_FIRST_BACK_OFF * 2.0 ** min(count - 1, 10), _LAST_BACK_OFF)
        trouble = Trouble(
            id, before.since if before else self.now(), message, fix, count, self.now() + wait
        )
        try:
            self._remember(replace(memory, trouble=trouble))
        except (OSError, UserError) as second:
            self.log(f"warn: cannot note that the backup failed: {second}")

    # --- commit

    def _today(self, wait: float) -> tuple[dict[str, Item], tuple[LeftOut, ...], bool]:
        """The tree of this moment, and whether no certificate is being issued."""
        deadline = time.monotonic() + wait
        while True:
            with apply.acme_lock(self.paths, self.ids) as free:
                if free or time.monotonic() >= deadline:
                    with apply.edit_lock(self.paths, self.ids):
                        files, left_out = state.owned(self.paths)
                    break
            time.sleep(0.2)
        recipients = self.settings.backup_age_recipient
        return archive.build(self.settings, files, recipients=recipients), left_out, free

    def _commit(self, access: Access, *, wait: float, whole: str = "") -> tuple[Entry, ...]:
        """Commit what differs from the last commit; `whole` is the subject of one for all of it.

        Raises UserError rather than let a secret reach git in clear unasked.
        """
        asked = self.settings
        if not asked.backup_age_recipient and asked.backup_plaintext != "yes":
            msg = (
                "nothing is pushed: without BACKUP_AGE_RECIPIENT private keys, password hashes "
                "and credentials would be sent in clear"
            )
            msg_0 = "refused-clear"
            raise RefusedError(
                msg_0, msg,
                "docker exec mail backup --new-key makes a key pair: set BACKUP_AGE_RECIPIENT to "
                "its public half (or, if you want it in clear, BACKUP_PLAINTEXT=yes)",
            )  # fmt: skip
        memory = self._memory()
        repository = self._open(access, memory)
        head = repository.head
        tree = repository.tree(head)
        if asked.backup_age_recipient and repository.ever_held(ABOUT, '"secrets": "clear"'):
            msg = (
                "nothing is pushed: the history in data/backup, and what was pushed of it, holds "
                "secrets in clear from when BACKUP_PLAINTEXT=yes was set"
            )
            msg_0 = "clear-history"
            raise RefusedError(
                msg_0, msg,
                "make a new, empty repository for BACKUP_GIT_REMOTE, mv data/backup "
                "data/backup.clear, and delete the old repository",
            )  # fmt: skip
        today, left_out, free = self._today(wait)
        made = _Plan(memory, repository, tree, today, asked.backup_age_recipient).make(
            keep=_kept(left_out, tree, free=free)
        )
        memory = replace(memory, left_out=left_out)
        if not made.groups:
            if memory != self._memory():
                self._remember(memory)
            return ()
        first = not head
        if first:
            whole = f"backup: the first of {asked.mail_hostname}"
        body = f"{TRAILER}: {asked.mail_hostname} {memory.server}"
        commits = made.commits(whole, body)
        # Before the commit, with the digests of both: killed in between, neither is a surprise.
        memory = replace(memory, seals={**memory.seals, **made.seals})
        self._remember(memory)
        author = f"tambo <tambo@{asked.mail_hostname}>"
        head = repository.commit(commits, author, int(self.now()))
        used = {node.oid for node in repository.tree(head).values()}
        seals = {oid: seal for oid, seal in memory.seals.items() if oid in used}
        self._remember(replace(memory, seals=seals))
        entries = repository.log(head, len(commits))
        for entry in reversed(entries):
            self.log(f"{entry.oid[:10]} {entry.subject}")
        return tuple(reversed(entries))

    def _open(self, access: Access, memory: Memory) -> Repository:
        """The repository; if it is gone although it was pushed, as the remote has it."""
        repository = self.repository
        lost = not repository.exists and bool(memory.pushed)
        repository.prepare()
        if lost and memory.remote == access.remote:
            head = repository.fetch(access, self._session, self.ids)
            if head and _made_by(repository.log(head, 1)) == memory.server:
                repository.set("refs/heads/main", head)
                self.log("data/backup was gone; it is back from the remote")
        return repository

    # --- push

    def _push(self, access: Access) -> None:
        repository, memory = self.repository, self._memory()
        try:
            repository.push(access, self._session, self.ids)
        except RejectedError:
            raise self._estranged(access, memory) from None
        head = repository.head
        if head != memory.pushed or memory.trouble:
            self.log(f"pushed {head[:10]}")
        self._remember(
            replace(
                memory, remote=access.remote, pushed=head, pushed_at=self.now(), trouble=None
            )
        )  # fmt: skip
        repository.tidy()

    def _estranged(self, access: Access, memory: Memory) -> GitError:
        """Why the remote has commits that are not here."""
        repository = self.repository
        theirs = repository.fetch(access, self._session, self.ids)
        newest = repository.log(theirs, 1)
        if not newest:
            return GitError(
                "rejected", "the remote took nothing, and has nothing", "docker exec mail backup"
            )
        return estranged(
            repository, memory, newest[0], self.settings.mail_hostname,
            memory.pushed if memory.remote == access.remote else "",
        )  # fmt: skip

    def take_over(self) -> tuple[Entry, ...]:
        """Go on from what the remote has now, with this server's state on top; nothing is forced.

        What is here and not there is kept, as refs/kept/….
        """
        access = self.access()
        with self._locked():
            repository, memory = self.repository, self._memory()
            repository.prepare()
            theirs = repository.fetch(access, self._session, self.ids)
            ours = repository.head
            if theirs and not (ours and repository.is_ancestor(theirs, ours)):
                if ours and not repository.is_ancestor(ours, theirs):
                    kept = f"refs/kept/{datetime.fromtimestamp(self.now(), UTC):%Y%m%dT%H%M%SZ}"
                    repository.set(kept, ours)
                repository.set("refs/heads/main", theirs)
                self._remember(replace(memory, remote=access.remote, pushed=theirs))
            name = self.settings.mail_hostname
            made = self._commit(
                access, wait=_ACME_WAIT, whole=f"take-over: the state of {name} from here on"
            )
            self._push(access)
        return made

    # --- check

    def check(self, identities: Sequence[str] = (), seen: Signature | None = None) -> str:
        """See that what the remote has restores to exactly what is here.

        Fetches into a scratch folder. Without identities a secret is proven by its digest: the
        object there is the one that was made here of today's file. Returns what was seen; raises
        UserError with what is wrong. Remembers the result, unless files have changed meanwhile
        (since `seen`), or the identity is to blame.
        """
        seen = signature(self.paths) if seen is None else seen
        access = self.access()
        with self._locked():
            commit = ""
            try:
                commit, text = self._compare(access, identities)
            except GitError as error:
                if error.id in ("down", "timeout", "host-key", "refused"):
                    raise  # it says nothing about the backup
                self._note_check(commit, error.message)
                raise
            except IdentityError:
                raise
            except UserError as error:
                if signature(self.paths) != seen:
                    msg = "files were changed while they were compared"
                    raise UserError(msg, "try again", exit_code=Exit.TRY_AGAIN) from None
                if self._pending():
                    msg = f"{error.message} (not all is pushed yet)"
                    raise UserError(msg, error.fix, exit_code=Exit.TRY_AGAIN) from None
                self._note_check(commit, error.message)
                raise
            self._note_check(commit, "")
        return text

    def _pending(self) -> bool:
        """Whether the next run would have something to commit or to push."""
        repository, memory = self.repository, self._memory()
        if not repository.exists or repository.head != memory.pushed:
            return True
        tree = repository.tree(repository.head)
        today, left_out, free = self._today(0.0)
        plan = _Plan(memory, repository, tree, today, self.settings.backup_age_recipient)
        return bool(plan.make(keep=_kept(left_out, tree, free=free)).groups)

    def _note_check(self, commit: str, wrong: str) -> None:
        checked = Checked(self.now(), commit, wrong)
        self._remember(replace(self._memory(), checked=checked))

    def _compare(self, access: Access, identities: Sequence[str]) -> tuple[str, str]:
        memory = self._memory()
        scratch = self.paths.backup_scratch
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            repository = Repository(scratch)
            repository.prepare()
            head = repository.fetch(access, self._session, self.ids)
            if not head:
                msg = "the remote holds no backup"
                raise UserError(msg, "docker exec mail backup")
            tree = repository.tree(head)
            today, left_out, _ = self._today(_ACME_WAIT)
            wrong = list(_differences(memory, repository, tree, today, left_out, identities))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            msg = f"the remote does not restore to what is here: {'; '.join(wrong[:5])}{more}"
            raise UserError(msg, "docker exec mail backup, then check again")
        hidden = sum(item.secret for item in today.values())
        if self.settings.backup_age_recipient:
            how = (
                f"{hidden} secrets were decrypted with the identity given"
                if identities
                else f"{hidden} secrets are, by their digests, the ones that were encrypted here"
            )
        else:
            how = "nothing in it is encrypted"
        return head, f"The remote restores to what is here: {len(today)} files; {how}."

    # --- the keeper's rounds

    def due(self) -> bool:
        """Whether a failure has been waited out, or the repository was not seen for long."""
        memory = load_memory(self.paths)
        if memory is None:
            return True
        if memory.trouble:
            return not 0 < memory.trouble.next_try - self.now() <= _LAST_BACK_OFF
        return not 0 <= self.now() - memory.pushed_at < self.settings.backup_interval

    def check_due(self) -> bool:
        memory = load_memory(self.paths)
        if memory is None or memory.trouble or not memory.pushed_at:
            return False
        last = memory.checked.when if memory.checked else 0.0
        wait = _AGAIN if memory.checked and memory.checked.wrong else _WEEK
        return not 0 <= self.now() - last < wait


class IdentityError(UserError):
    """The identity given is none, or another one."""


class RefusedError(GitError):
    """tambo itself does not push."""


def estranged(
    repository: Repository, memory: Memory, newest: Entry, host: str, pushed: str
) -> GitError:
    """What is behind a remote whose newest commit is not ours to add to."""
    when = f"{datetime.fromtimestamp(newest.when, UTC):%Y-%m-%d %H:%M} UTC"
    server = newest.server.rpartition(" ")[2]
    last = f"its last commit is of {when}: {newest.subject}"
    go_on = "to go on from there with this server's state: docker exec mail backup --take-over"
    if pushed and not repository.is_ancestor(pushed, newest.oid):
        return GitError(
            "rewritten",
            "the history at the remote was rewritten: what was pushed from here is not in it any "
            f"more; {last}. Nothing was pushed, and everything is kept in data/backup",
            f"find out who did it, and forbid forced pushes there; {go_on}",
        )
    if newest.server and server != memory.server:
        other = newest.server.rpartition(" ")[0]
        return GitError(
            "two-servers",
            f"another server pushes to this remote ({other}; this is {host} with another data "
            f"folder); {last}. Nothing was pushed",
            "stop the other one, or give each a repository of its own; if this one is to have it, "
            "docker exec mail backup --take-over; if it is to become the other one: restore",
        )
    if newest.server:
        return GitError(
            "older-data",
            f"the remote has commits of this server that data/backup lacks: data/ is an older copy "
            f"of itself; {last}. Nothing was pushed",
            f"to have the newer state back: restore --replace; {go_on}",
        )
    return GitError(
        "foreign-commit",
        f"somebody else has put commits into the remote; {last}. Nothing was pushed",
        f"use a repository that is empty and tambo's alone; {go_on}",
    )


def _made_by(entries: Sequence[Entry]) -> str:
    return entries[0].server.rpartition(" ")[2] if entries else ""


def words(error: Exception) -> tuple[str, str, str]:
    """A failure's id, message and fix."""
    if isinstance(error, GitError):
        return error.id, error.message, error.fix
    if isinstance(error, UserError):
        return "failed", error.message, error.fix
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "full", "the disk is full",
            "make room on the volume's disk; the backup is tried again by itself",
        )  # fmt: skip
    return "failed", str(error), "see that data/backup can be written"


# --- from today's tree to commits


@dataclass(frozen=True)
class _Made:
    groups: Mapping[Group, Mapping[str, Blob | Node | None]]
    changes: Mapping[Group, Sequence[Change]]
    subjects: Mapping[Group, str]
    seals: Mapping[str, Seal]

    def commits(self, whole: str, body: str) -> list[Commit]:
        if whole:
            together = {
                path: blob for group in self.groups.values() for path, blob in group.items()
            }
            return [Commit(whole, body, together)]
        return [
            Commit(
                self.subjects.get(group) or archive.subject(group, self.changes[group]), body, blobs
            )
            for group, blobs in sorted(self.groups.items())
        ]


_SEALING = Group("secrets")


@dataclass
class _Plan:
    memory: Memory
    repository: Repository
    tree: Mapping[str, Node]
    today: Mapping[str, Item]
    recipients: Sequence[str]

    def make(self, keep: Callable[[Group], bool]) -> _Made:
        before = self.repository.read(
            node.oid for path, node in self.tree.items() if not path.endswith(SUFFIX)
        )
        clear = {path: before[node.oid] for path, node in self.tree.items() if node.oid in before}
        resealed = self._resealed(clear.get(ABOUT))
        groups: dict[Group, dict[str, Blob | Node | None]] = {}
        changes: dict[Group, list[Change]] = {}
        seals: dict[str, Seal] = {}

        def note(group: Group, path: str, blob: Blob | Node | None, change: Change) -> None:
            groups.setdefault(group, {})[path] = blob
            changes.setdefault(group, []).append(change)

        wanted: set[str] = set()
        for name, item in sorted(self.today.items()):
            group = archive.group_of(name)
            if keep(group):
                continue
            sealed = item.secret and bool(self.recipients)
            path = f"{name}{SUFFIX}" if sealed else name
            wanted.add(path)
            node = self.tree.get(path)
            if not sealed:
                blob = Blob(item.content, item.executable)
                if node != Node(blob.oid, item.executable):
                    old = clear.get(name)
                    into = _SEALING if resealed and name in (ABOUT, "README.md") else group
                    note(into, path, blob, Change(name, old, item.content, added=node is None))
                continue
            seal = self.memory.seal(item)
            known = self.memory.seals.get(node.oid) if node else None
            if node and known and known.digest == seal.digest and not resealed:
                if node.executable != item.executable:
                    note(group, path, Node(node.oid, item.executable), Change(name, None, None))
                continue
            parts = tuple(
                part for part, digest in seal.parts.items()
                if known is None or known.parts.get(part) != digest
            )  # fmt: skip
            blob = Blob(age.encrypt(item.content, self.recipients), item.executable)
            seals[blob.oid] = seal
            # Not known whether it has changed: all of these together, and the subject says so.
            into = _SEALING if node and (known is None or resealed) else group
            change = Change(name, None, None, added=node is None, parts=parts)
            note(into, path, blob, change)
        for path in sorted(self.tree.keys() - wanted):
            name = path.removesuffix(SUFFIX)
            group = archive.group_of(name)
            if not keep(group):
                note(group, path, None, Change(name, clear.get(path), None, removed=True))
        return _Made(groups, changes, {_SEALING: self._sealing_subject(resealed)}, seals)

    def _resealed(self, about: bytes | None) -> bool:
        """Whether the secrets there are encrypted to somebody else."""
        if about is None or not self.recipients:
            return False
        try:
            return archive.about(about).recipients != tuple(self.recipients)
        except UserError:
            return True

    def _sealing_subject(self, resealed: bool) -> str:
        if resealed:
            return "secrets: encrypted to another recipient"
        return "secrets: encrypted anew, as it was not remembered what they were"


def _frozen(left_out: Iterable[LeftOut], tree: Mapping[str, Node]) -> frozenset[Group]:
    """What is broken here, and stays as an earlier backup has it."""
    names = {path.removesuffix(SUFFIX) for path in tree}
    paths = (f"data/{item.name}" for item in left_out if item.broken)
    return frozenset(archive.group_of(path) for path in paths if path in names)


def _kept(
    left_out: Iterable[LeftOut], tree: Mapping[str, Node], *, free: bool
) -> Callable[[Group], bool]:
    """Of which groups the files stay as they are; `free`: no certificate is being issued."""
    frozen = _frozen(left_out, tree)
    return lambda group: group in frozen or (not free and group.noun == "certs")


def _differences(
    memory: Memory,
    repository: Repository,
    tree: Mapping[str, Node],
    today: Mapping[str, Item],
    left_out: Iterable[LeftOut],
    identities: Sequence[str],
) -> Iterator[str]:
    """What of the remote's tree would not restore to today's."""
    frozen = _frozen(left_out, tree)
    contents = repository.read(node.oid for node in tree.values())
    about = archive.about(contents[tree[ABOUT].oid] if ABOUT in tree else None)
    opened: dict[str, Item] = {}
    if identities or not about.encrypted:
        opened = open_tree(tree, contents, identities)
        yield from archive.problems(opened)
    seen = set()
    for name, item in today.items():
        sealed = item.secret and about.encrypted
        path = f"{name}{SUFFIX}" if sealed else name
        seen.add(path)
        node = tree.get(path)
        if archive.group_of(name) in frozen:
            continue
        if node is None:
            yield f"{name} is missing there"
        elif node.executable != item.executable:
            yield f"{name} has other rights there"
        elif opened or not sealed:
            there = opened[name].content if opened else contents[node.oid]
            if there != item.content:
                yield f"{name} differs"
        else:
            known = memory.seals.get(node.oid)
            if known is None:
                yield f"{name} there was not encrypted here, as far as is remembered"
            elif known.digest != memory.digest(item.content):
                yield f"{name} differs"
    for path in tree.keys() - seen:
        if archive.group_of(path.removesuffix(SUFFIX)) not in frozen:
            yield f"{path} is there and not here"


def open_tree(
    tree: Mapping[str, Node], contents: Mapping[str, bytes], identities: Sequence[str]
) -> dict[str, Item]:
    """A commit's files, decrypted. Raises UserError if they cannot be."""
    about = archive.about(contents[tree[ABOUT].oid] if ABOUT in tree else None)
    if about.encrypted:
        mine = {age.recipient_of(item) for item in identities}
        if not mine:
            msg = f"the backup is encrypted to {', '.join(about.recipients)}"
            raise IdentityError(
                msg, "give the private half of that: --identity FILE", exit_code=Exit.USAGE
            )
        if not mine & set(about.recipients):
            msg = (
                f"this is the wrong identity: its public half is {', '.join(sorted(mine))}, and "
                f"the backup is encrypted to {', '.join(about.recipients)}"
            )
            raise IdentityError(msg, "find the private half that belongs to that one")
    opened = {}
    for path, node in tree.items():
        content = contents[node.oid]
        if not path.endswith(SUFFIX) or not about.encrypted:
            opened[path] = Item(content, executable=node.executable)
            continue
        name = path.removesuffix(SUFFIX)
        try:
            plain = age.decrypt(content, identities)
        except ValueError as error:
            msg = f"{path} in the backup cannot be decrypted: {error}"
            raise UserError(msg, "take another commit: list-backups") from None
        opened[name] = Item(plain, secret=True, executable=node.executable)
    return opened


# --- the keeper's thread


def signature(paths: Paths) -> Signature:
    """Names, sizes and times of the files that are backed up."""
    seen = []
    for folder in state.BACKED_UP:
        for path in sorted((paths.data / folder).rglob("*")):
            try:
                found = path.lstat()
            except OSError:
                continue  # gone meanwhile
            if not path.name.startswith("."):
                seen.append((str(path), found.st_size, found.st_ctime_ns, found.st_ino))
    return tuple(seen)


_QUIET = 1.5  # seconds without a change after which a commit is made
_REST = 5.0  # seconds after a failure in which nothing is tried
_LONGEST = 6.0  # seconds after the first change at which one is made all the same


@dataclass
class Keeping:
    """The keeper's part: a commit soon after each change, a push, a check now and then."""

    backup: Backup
    clock: Callable[[], float] = time.monotonic

    _seen: Signature | None = None
    _first: float = 0.0
    _last: float = 0.0
    _waiting: bool = True  # after a start all is looked at
    _rest_until: float = 0.0  # if a failure cannot even be noted, it is not tried in a loop

    def tick(self) -> None:
        """One look. Failures of the backup are logged and remembered, not raised."""
        seen, now = signature(self.backup.paths), self.clock()
        if self._seen is not None and seen != self._seen:
            self._last = now
            if not self._waiting:
                self._waiting, self._first = True, now
        self._seen = seen
        changed = self._waiting and (now - self._last >= _QUIET or now - self._first >= _LONGEST)
        if now < self._rest_until:
            return
        if changed or self.backup.due():
            self._waiting = False
            self._run()
        elif not self._waiting and self.backup.check_due():
            self._check(seen)

    def _run(self) -> None:
        try:
            self.backup.run()
        except (UserError, OSError):
            # Remembered: the keeper says it, and says when it is mended.
            self._rest_until = self.clock() + _REST

    def _check(self, seen: Signature) -> None:
        try:
            self.backup.log(f"checked: {self.backup.check(seen=seen)}")
        except (UserError, OSError) as error:
            _, message, _ = words(error)
            if isinstance(error, UserError) and error.exit_code == Exit.TRY_AGAIN:
                return  # the remote is down, or somebody is at work
            self.backup.log(f"warn: checked: {message}")


def keep(settings: Settings, paths: Paths, ids: Ids, log: Log, stop: threading.Event) -> None:
    """Work until `stop`; returns at once if no remote is set."""
    if not settings.backup_git_remote:
        return
    keeping = Keeping(Backup(settings, paths, ids, log))
    while not stop.wait(_TICK):
        try:
            keeping.tick()
        except Exception as error:  # the next look may go better
            log(f"error: {type(error).__name__}: {error}")


_TICK = 1.0  # seconds
