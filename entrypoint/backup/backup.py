"""The backup: one commit a change, pushed to the remote, and proven to be there."""

from __future__ import annotations

import errno
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from entrypoint.backup import index, manifest
from entrypoint.backup.git import (
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
from entrypoint.backup.index import Checked, Memory, Trouble
from entrypoint.backup.manifest import Manifest
from entrypoint.backup.tree import ABOUT, Item, build
from entrypoint.common import identity, locks, signing
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.findings import Finding, Level
from entrypoint.common.identity import Capability, Ids
from entrypoint.common.paths import Paths
from entrypoint.converge import apply
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import LeftOut

_DAY = 86400.0
_WEEK = 7 * _DAY
_AGAIN = 3600.0  # seconds until a check that found something wrong is done again
_FIRST_BACK_OFF, _LAST_BACK_OFF = 15.0, 3600.0  # seconds; doubles with each failure
_LOCK_WAIT = 60.0  # seconds
_ACME_WAIT = 20.0  # seconds in which a verb waits for a certificate's issuing to end

Log = Callable[[str], None]
Signature = tuple[tuple[str, int, int, int], ...]


# --- what is wrong, for the log, the doctor and the health check


def findings(settings: Settings, paths: Paths, now: datetime) -> tuple[Finding, ...]:
    """What the owner should know; FAIL once nothing has reached the remote for a day."""
    if not settings.backup_git_remote:
        return ()
    memory = index.load(paths)
    if memory is None:
        return ()
    found = [
        Finding(
            id="backup-left-out",
            level=Level.WARN,
            message=f"data/{item.name} is not in the backup: {item.reason}.",
            fix="put a plain file with a plain name there, or keep it elsewhere",
            subject=item.name,
        )
        for item in memory.left_out
        if not item.broken  # else State has a finding of its own
    ]
    if memory.trouble:
        trouble = memory.trouble
        long = now.timestamp() - trouble.since >= _DAY
        since = datetime.fromtimestamp(trouble.since, UTC)
        found.append(
            Finding(
                id=f"backup-{trouble.id}",
                level=Level.FAIL if long else Level.WARN,
                message=f"The backup has failed since {since:%Y-%m-%d %H:%M} UTC: "
                f"{trouble.message}. "
                "Nothing is lost: it is tried again.",
                fix=trouble.fix,
                subject="backup",
            )
        )
    if memory.checked and memory.checked.wrong:
        found.append(
            Finding(
                id="backup-check",
                level=Level.FAIL,
                message=f"The backup was checked: {memory.checked.wrong}.",
                fix="docker exec mail backup, then: docker exec mail backup --check",
                subject="backup",
            )
        )
    return tuple(found)


# --- the work


@dataclass
class Backup:
    """The repository below data, and what is pushed of it to BACKUP_GIT_REMOTE.

    `now` is in seconds since 1970.
    """

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
            with identity.raised(Capability.DAC_OVERRIDE):
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
        with locks.backup_lock(self.paths, self.ids, _LOCK_WAIT):
            yield

    def _remember(self, memory: Memory) -> None:
        with locks.edit_lock(self.paths, self.ids):
            apply.write(self.paths.backup_memory, index.dump(memory), self.ids)

    def _memory(self) -> Memory:
        return index.load(self.paths) or Memory.new()

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
            with locks.acme_lock(self.paths, self.ids) as free:
                if free or time.monotonic() >= deadline:
                    with locks.edit_lock(self.paths, self.ids):
                        files, left_out = load.owned(self.paths)
                        remembered = load.remembered(self.paths)
                    break
            time.sleep(0.2)
        recipients = self.settings.backup_age_recipient
        today = build(self.settings, files, recipients=recipients, remembered=remembered)
        return today, left_out, free

    def _commit(
        self, access: Access, *, wait: float, whole: str = "", onto: str = ""
    ) -> tuple[Entry, ...]:
        """Commit what differs from the last commit; `whole` is the subject of one for all of it.

        `onto` is a commit of somebody else's to go on from, in one commit: nothing of its tree
        stays that is not of the last commit here, or of today.
        Raises UserError rather than let a secret reach git in clear unasked.
        """
        asked = self.settings
        self._see_that_secrets_stay(asked.backup_age_recipient)
        memory = self._memory()
        repository = self._open(access, memory)
        head = repository.head
        self._see_that_history_is_clean(repository, head)
        self._see_that_history_is_clean(repository, onto)
        tree = repository.tree(head)
        today, left_out, free = self._today(wait)
        made = index.Plan(memory, repository, tree, today, asked.backup_age_recipient).make(
            keep=index.kept(left_out, tree, free=free)
        )
        memory = replace(memory, left_out=left_out)
        if not head and not onto:
            whole = f"backup: the first of {asked.mail_hostname}"
        body = self._trailer(memory)
        commits = made.commits(whole, body) if made.groups or onto else []
        commits = self._signed(repository, tree, commits, memory, repository.count(onto or head))
        if onto:
            commits = [Commit(whole, body, _turn(repository.tree(onto), tree, commits))]
        if not commits:
            if memory != self._memory():
                self._remember(memory)
            return ()
        # Before the commit, with the digests of both: killed in between, neither is a surprise.
        memory = replace(memory, seals={**memory.seals, **made.seals})
        self._remember(memory)
        author = f"tambo <tambo@{asked.mail_hostname}>"
        head = repository.commit(commits, author, int(self.now()), onto or None)
        used = {node.oid for node in repository.tree(head).values()}
        known = {oid: seal for oid, seal in memory.seals.items() if oid in used}
        self._remember(replace(memory, seals=known))
        entries = repository.log(head, len(commits))
        for entry in reversed(entries):
            self.log(f"{entry.oid[:10]} {entry.subject}")
        return tuple(reversed(entries))

    def _see_that_secrets_stay(self, recipients: Sequence[str]) -> None:
        if not recipients and self.settings.backup_plaintext != "yes":
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

    def _see_that_history_is_clean(self, repository: Repository, commit: str) -> None:
        held = commit and repository.ever_held(ABOUT, '"secrets": "clear"', commit)
        if self.settings.backup_age_recipient and held:
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

    def _trailer(self, memory: Memory) -> str:
        return f"{TRAILER}: {self.settings.mail_hostname} {memory.server}"

    # --- signing

    @property
    def _signing_key(self) -> str:
        key = self.settings.backup_signing_key
        return key.get_secret_value() if key else ""

    def _signed(
        self,
        repository: Repository,
        tree: Mapping[str, Node],
        commits: Sequence[Commit],
        memory: Memory,
        number: int,
    ) -> list[Commit]:
        """The same commits with a manifest each; one for it alone if the last one has none of ours.

        What is signed is what is in data/backup and what is added now: whoever calls sees to it
        that the former is this server's. `number` is that of the commit before them.
        """
        key, body = self._signing_key, self._trailer(memory)
        if not key:
            gone = dict.fromkeys(manifest.NAMES & tree.keys())
            if gone:
                commits = commits or [Commit("backup: not signed any more", body, {})]
                first = replace(commits[0], changes={**commits[0].changes, **gone})
                commits = [first, *commits[1:]]
            return list(commits)
        contents = repository.read(node.oid for node in tree.values())
        keys = [signing.verification_key(key)]
        try:
            index.verify(tree, contents, keys)
        except manifest.UnverifiedError as error:
            subject = "backup: signed with another key" if error.signed else "backup: signed"
            commits = commits or [Commit(subject, body, {})]
        lines = index.signed_lines(tree, contents)
        signed = []
        for item in commits:
            for path, blob in item.changes.items():
                if blob is None:
                    lines.pop(path, None)
                else:
                    content = contents[blob.oid] if isinstance(blob, Node) else blob.content
                    lines[path] = manifest.line(content, executable=blob.executable)
            number += 1
            said = Manifest(
                self.settings.mail_hostname, memory.server, number, int(self.now()),
                self.settings.domains, self.settings.backup_age_recipient, dict(lines),
            )  # fmt: skip
            files = {name: Blob(raw) for name, raw in manifest.sign(said, key).items()}
            signed.append(replace(item, changes={**item.changes, **files}))
        return signed

    def _open(self, access: Access, memory: Memory) -> Repository:
        """The repository; if it is gone although it was pushed, as the remote has it."""
        repository = self.repository
        lost = not repository.exists and bool(memory.pushed)
        repository.prepare()
        if lost and memory.remote == access.remote:
            head = repository.fetch(access, self._session, self.ids)
            if head and self._is_ours(repository, head, memory):
                repository.set("refs/heads/main", head)
                self.log("data/backup was gone; it is back from the remote")
        return repository

    def _is_ours(self, repository: Repository, commit: str, memory: Memory) -> bool:
        """Whether this server made a commit of the remote's: by its signature, if we sign. What is
        taken for ours is signed with what comes next."""
        if self._signing_key:
            tree = repository.tree(commit)
            contents = repository.read(node.oid for node in tree.values())
            try:
                index.verify(tree, contents, [signing.verification_key(self._signing_key)])
            except manifest.UnverifiedError:
                return False
        return _made_by(repository.log(commit, 1)) == memory.server

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
            onto = ""
            if theirs and not (ours and repository.is_ancestor(theirs, ours)):
                if ours and not repository.is_ancestor(ours, theirs):
                    kept = f"refs/kept/{datetime.fromtimestamp(self.now(), UTC):%Y%m%dT%H%M%SZ}"
                    repository.set(kept, ours)
                onto = theirs
                self._remember(replace(memory, remote=access.remote, pushed=theirs))
            name = self.settings.mail_hostname
            made = self._commit(
                access, wait=_ACME_WAIT, whole=f"take-over: the state of {name} from here on",
                onto=onto,
            )  # fmt: skip
            self._push(access)
        return made

    # --- check

    def check(
        self,
        identities: Sequence[str] = (),
        keys: Sequence[str] = (),
        seen: Signature | None = None,
    ) -> str:
        """See that what the remote has restores to exactly what is here.

        Fetches into a scratch folder. Without identities a secret is proven by its digest: the
        object there is the one that was made here of today's file. `keys` are the verification
        keys that the owner keeps. Returns what was seen; raises
        UserError with what is wrong. Remembers the result, unless files have changed meanwhile
        (since `seen`), or the identity is to blame.
        """
        seen = signature(self.paths) if seen is None else seen
        access = self.access()
        with self._locked():
            commit = ""
            try:
                commit, text = self._compare(access, identities, keys)
            except GitError as error:
                if error.id in ("down", "timeout", "host-key", "refused"):
                    raise  # it says nothing about the backup
                self._note_check(commit, error.message)
                raise
            except index.IdentityError:
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
        plan = index.Plan(memory, repository, tree, today, self.settings.backup_age_recipient)
        made = plan.make(keep=index.kept(left_out, tree, free=free))
        commits = made.commits("", "") if made.groups else []
        return bool(self._signed(repository, tree, commits, memory, 0))

    def _note_check(self, commit: str, wrong: str) -> None:
        checked = Checked(self.now(), commit, wrong)
        self._remember(replace(self._memory(), checked=checked))

    def _compare(
        self, access: Access, identities: Sequence[str], keys: Sequence[str]
    ) -> tuple[str, str]:
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
            signed = self._verified(repository, tree, keys)
            wrong = list(index.differences(memory, repository, tree, today, left_out, identities))
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
        return head, f"The remote restores to what is here: {len(today)} files; {how}; {signed}."

    def _verified(
        self, repository: Repository, tree: Mapping[str, Node], keys: Sequence[str]
    ) -> str:
        """See that the remote's files are signed by this server, and with the key of which the
        owner keeps the public half (`keys`, if that was given). Returns what was seen."""
        if not self._signing_key:
            if keys:
                msg = (
                    "there is a verification key beside the identity, but the backup is not "
                    "signed: BACKUP_SIGNING_KEY is not set"
                )
                raise index.IdentityError(msg, "docs/backup.md#signing has the steps")
            return "it is not signed"
        ours = signing.verification_key(self._signing_key)
        if keys and ours not in keys:
            msg = (
                f"the verification key beside the identity is another one: {', '.join(keys)}. "
                f"The server signs with that of {ours}"
            )
            raise index.IdentityError(msg, f"write down {ours} in its place")
        contents = repository.read(node.oid for node in tree.values())
        try:
            found = index.verify(tree, contents, [ours])
        except manifest.UnverifiedError as error:
            msg = f"the remote's last commit is not signed by this server: {error}"
            raise UserError(
                msg, "find out who wrote to the repository; then docker exec mail backup"
            ) from None
        where = "; its key is the one beside the identity" if keys else ""
        return f"it is signed, number {found.number}{where}"

    # --- the keeper's rounds

    def due_in(self) -> float:
        """Seconds until a failure has been waited out, or the remote was not seen for
        BACKUP_INTERVAL; 0 if that is so now, or if the clock was wrong."""
        memory = index.load(self.paths)
        if memory is None:
            return 0.0
        if memory.trouble:
            left = memory.trouble.next_try - self.now()
            return left if 0 < left <= _LAST_BACK_OFF else 0.0
        return _rest(self.now() - memory.pushed_at, self.settings.backup_interval)

    def check_due_in(self) -> float:
        """Seconds until the remote is to be compared with what is here; without an end while
        nothing has been pushed, or the last push has failed."""
        memory = index.load(self.paths)
        if memory is None or memory.trouble or not memory.pushed_at:
            return math.inf
        last = memory.checked.when if memory.checked else 0.0
        wait = _AGAIN if memory.checked and memory.checked.wrong else _WEEK
        return _rest(self.now() - last, wait)


def _rest(passed: float, wait: float) -> float:
    """What is left of `wait`; a time that lies ahead is a clock's that was wrong: nothing."""
    return wait - passed if 0 <= passed < wait else 0.0


def _turn(
    there: Mapping[str, Node], ours: Mapping[str, Node], commits: Sequence[Commit]
) -> dict[str, Blob | Node | None]:
    """What makes of the tree that is there the one that the commits make of ours."""
    wanted: dict[str, Blob | Node | None] = {**ours}
    for item in commits:
        wanted |= item.changes
    return {
        path: wanted.get(path)
        for path in there.keys() | wanted.keys()
        if _node(wanted.get(path)) != there.get(path)
    }


def _node(item: Blob | Node | None) -> Node | None:
    return Node(item.oid, item.executable) if isinstance(item, Blob) else item


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


def signature(paths: Paths) -> Signature:
    """Names, sizes and times of the files that are backed up."""
    seen = []
    below = (sorted((paths.data / folder).rglob("*")) for folder in load.BACKED_UP)
    for group in (*below, (paths.selectors, paths.created)):
        for path in group:
            try:
                found = path.lstat()
            except OSError:
                continue  # gone meanwhile
            if not path.name.startswith("."):
                seen.append((str(path), found.st_size, found.st_ctime_ns, found.st_ino))
    return tuple(seen)
