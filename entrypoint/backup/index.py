"""Which files of a backup are encrypted, what is to commit, and digests of encrypted files.

Secrets are encrypted to a public key whose private half is not here, and never the same twice. So
that an unchanged one makes no commit, a keyed digest of its plain text is kept on the volume for
each object that was made of it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from entrypoint.backup import manifest
from entrypoint.backup.git import Blob, Commit, GitError, Node, Repository
from entrypoint.backup.manifest import Manifest
from entrypoint.backup.tree import (
    ABOUT,
    SUFFIX,
    Change,
    Group,
    Item,
    group_of,
    parse_about,
    problems,
    subject,
)
from entrypoint.chasquid.maillog import clean
from entrypoint.common import age
from entrypoint.common.errors import Exit, UserError, shown
from entrypoint.common.paths import Paths
from entrypoint.state.load import LeftOut


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


def load(paths: Paths) -> Memory | None:
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


def dump(memory: Memory) -> bytes:
    """The memory as JSON, for `load`. It holds digests of secrets, so the file must be private."""
    return json.dumps(asdict(memory), indent=1).encode()


# --- from today's tree to commits


@dataclass(frozen=True)
class Made:
    """What a plan came to, for each group: a commit's blobs (None removes), and its subject."""

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
            Commit(self.subjects.get(group) or subject(group, self.changes[group]), body, blobs)
            for group, blobs in sorted(self.groups.items())
        ]


_SEALING = Group("secrets")


@dataclass
class Plan:
    """What has to be committed so that the branch holds `today`, where it now holds `tree`.

    Reads the repository; writes nothing.
    """

    memory: Memory
    repository: Repository
    tree: Mapping[str, Node]
    today: Mapping[str, Item]
    recipients: Sequence[str]

    def make(self, keep: Callable[[Group], bool]) -> Made:
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
            group = group_of(name)
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
        for path in sorted(self.tree.keys() - wanted - manifest.NAMES):
            name = path.removesuffix(SUFFIX)
            group = group_of(name)
            if not keep(group):
                note(group, path, None, Change(name, clear.get(path), None, removed=True))
        return Made(groups, changes, {_SEALING: self._sealing_subject(resealed)}, seals)

    def _resealed(self, about: bytes | None) -> bool:
        """Whether the secrets there are encrypted to somebody else."""
        if about is None or not self.recipients:
            return False
        try:
            return parse_about(about).recipients != tuple(self.recipients)
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
    return frozenset(group_of(path) for path in paths if path in names)


def kept(
    left_out: Iterable[LeftOut], tree: Mapping[str, Node], *, free: bool
) -> Callable[[Group], bool]:
    """Of which groups the files stay as they are; `free`: no certificate is being issued."""
    frozen = _frozen(left_out, tree)
    return lambda group: group in frozen or (not free and group.noun == "certs")


def differences(
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
    about = parse_about(contents[tree[ABOUT].oid] if ABOUT in tree else None)
    opened: dict[str, Item] = {}
    if identities or not about.encrypted:
        opened = open_tree(tree, contents, identities)
        yield from problems(opened)
    seen = set()
    for name, item in today.items():
        sealed = item.secret and about.encrypted
        path = f"{name}{SUFFIX}" if sealed else name
        seen.add(path)
        node = tree.get(path)
        if group_of(name) in frozen:
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
    for path in tree.keys() - seen - manifest.NAMES:
        if group_of(path.removesuffix(SUFFIX)) not in frozen:
            yield f"{path} is there and not here"


def signed_lines(tree: Mapping[str, Node], contents: Mapping[str, bytes]) -> dict[str, str]:
    """What a manifest of this tree has to say of its files."""
    return {
        path: manifest.line(contents[node.oid], executable=node.executable)
        for path, node in tree.items()
        if path not in manifest.NAMES
    }


def verify(
    tree: Mapping[str, Node], contents: Mapping[str, bytes], keys: Sequence[str]
) -> Manifest:
    """See that one of these verification keys vouches for a commit's files, as git has them.

    Raises UnverifiedError.
    """
    return manifest.verify(signed_lines(tree, contents), *_signed(tree, contents), keys)


def _signed(
    tree: Mapping[str, Node], contents: Mapping[str, bytes]
) -> tuple[bytes | None, bytes | None]:
    """A commit's manifest and its signature; None for one that is not there."""
    content, signature = (
        contents[tree[name].oid] if name in tree else None
        for name in (manifest.NAME, manifest.SIGNATURE)
    )
    return content, signature


_BATCH = 32  # commits that are looked at together


def verified(repository: Repository, head: str, keys: Sequence[str]) -> frozenset[str]:
    """Of the commits up to `head` those that one of these verification keys vouches for."""
    verifier = _Verifier(repository, keys)
    found: set[str] = set()
    batch: dict[str, Mapping[str, Node]] = {}
    for oid, tree in repository.trees(head):
        if tree is not None:
            batch[oid] = dict(tree)
        if len(batch) >= _BATCH:
            found |= set(verifier.judge(batch))
            batch = {}
    return frozenset(found | set(verifier.judge(batch)))


@dataclass
class _Verifier:
    """Verifies commits in batches. A file that several commits share is read and hashed once."""

    repository: Repository
    keys: Sequence[str]
    lines: dict[Node, str] = field(default_factory=dict)  # what a manifest says of it

    def judge(self, batch: Mapping[str, Mapping[str, Node]]) -> Iterator[str]:
        """The ids of those that are vouched for."""
        try:
            contents = self._read(batch)
        except GitError:  # there is more in it than any backup holds
            if len(batch) > 1:
                for oid, tree in batch.items():
                    yield from self.judge({oid: tree})
            return
        for oid, tree in batch.items():
            said = {
                path: self.lines[node] for path, node in tree.items() if path not in manifest.NAMES
            }
            with suppress(manifest.UnverifiedError):
                manifest.verify(said, *_signed(tree, contents), self.keys)
                yield oid

    def _read(self, batch: Mapping[str, Mapping[str, Node]]) -> Mapping[str, bytes]:
        """The contents that are needed, and the lines of the files among them. Raises GitError."""
        new, signed = set(), set()
        for tree in batch.values():
            for path, node in tree.items():
                if path in manifest.NAMES:
                    signed.add(node)
                elif node not in self.lines:
                    new.add(node)
        contents = self.repository.read(node.oid for node in new | signed)
        for node in new:
            self.lines[node] = manifest.line(contents[node.oid], executable=node.executable)
        return contents


class IdentityError(UserError):
    """The identity given is none, or another one."""


def open_tree(
    tree: Mapping[str, Node], contents: Mapping[str, bytes], identities: Sequence[str]
) -> dict[str, Item]:
    """A commit's files, decrypted. Raises UserError if they cannot be."""
    about = parse_about(contents[tree[ABOUT].oid] if ABOUT in tree else None)
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
        if about.encrypted and f"{path}{SUFFIX}" in tree:
            msg = f"{shown(path)} in the backup stands there twice, encrypted and in clear"
            raise UserError(msg, "take another commit: list-backups")
        if not path.endswith(SUFFIX) or not about.encrypted:
            opened[path] = Item(content, executable=node.executable)
            continue
        name = path.removesuffix(SUFFIX)
        try:
            plain = age.decrypt(content, identities)
        except ValueError as error:
            msg = f"{clean(path)} in the backup cannot be decrypted: {error}"
            raise UserError(msg, "take another commit: list-backups") from None
        opened[name] = Item(plain, secret=True, executable=node.executable)
    return opened
