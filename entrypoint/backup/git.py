"""git: the backup's repository, here and at the remote; and what git's words mean.

Nothing secret is in an argument: a key goes through a file of tambo's in memory, a token through
the environment. No configuration but ours is read, no hook is run, and nothing is ever forced.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.chasquid.maillog import clean
from entrypoint.common import process
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids
from entrypoint.converge import apply

BRANCH = "main"
_GIT = "/usr/bin/git"
_LOCAL, _REMOTE = 60.0, 180.0  # seconds for one command
_REMOTE_HEAD = "refs/remote/main"  # what was fetched last
_ASIDE = "refs/aside/main"  # commits that are being made on top of another branch's
# What a repository may be: somebody else may have written it, to fill memory or disk.
_MAX_FILE = 8 << 20  # bytes of one file
_MAX_FILES = 20_000  # in one commit
_MAX_TOTAL = 256 << 20  # bytes of all files of one commit
_TOGETHER = 64 << 20  # bytes that one command is asked for, and one file more
_MAX_OUTPUT = 128 << 20  # bytes that one command puts out
_LIMITS = (
    "/usr/bin/prlimit", f"--as={2 << 30}", f"--fsize={1 << 30}", "--core=0", "--",
)  # fmt: skip
_SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Access:
    """How the remote is reached. `roots` are trusted besides the public ones (PEM)."""

    remote: str
    key: str = field(default="", repr=False)
    host_keys: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    roots: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Node:
    """A file of a commit: `oid` names its content."""

    oid: str
    executable: bool = False


@dataclass(frozen=True)
class Blob:
    """A file to commit."""

    content: bytes = field(repr=False)
    executable: bool = False

    @property
    def oid(self) -> str:
        """The name that git will give it."""
        raw = b"blob %d\0" % len(self.content) + self.content
        return hashlib.sha1(raw, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A commit to make: None removes a file."""

    subject: str
    body: str
    changes: Mapping[str, Blob | Node | None]


@dataclass(frozen=True)
class Entry:
    """A commit that is there. `when` is in seconds since 1970."""

    oid: str
    when: int
    subject: str
    server: str  # who made it, by its trailer; empty if that was not tambo


class GitError(UserError):
    """`id` tells what kind of failure it is: scripts and findings may match it."""

    def __init__(self, id: str, message: str, fix: str) -> None:
        kind = Exit.TRY_AGAIN if id in ("down", "timeout") else Exit.WRONG
        super().__init__(message, fix, exit_code=kind)
        self.id = id


class RejectedError(GitError):
    """The remote has commits that are not here."""


TRAILER = "Server"
_PLAIN = ("100644", "100755")  # git's modes of plain files


class Repository:
    """A bare repository. One process works on it at a time: the caller holds the backup lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        return (self.path / "HEAD").is_file() and (self.path / "objects").is_dir()

    def prepare(self) -> None:
        """Make it if it is missing; remove what a killed git, or a full disk, left behind."""
        if not self.exists:
            self._empty()  # half of a repository has no commit
            self._git("init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(self.path))
        for pattern in ("*.lock", "refs/**/*.lock", "objects/info/**/*.lock", "objects/**/tmp_*"):
            for path in self.path.glob(pattern):
                if path.is_file():
                    path.unlink(missing_ok=True)
                else:
                    shutil.rmtree(path, ignore_errors=True)

    def _empty(self) -> None:
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    # --- what is there

    def resolve(self, name: str) -> str:
        """The commit that a name means; an empty string if there is none."""
        answer = self._run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return answer.output.decode().strip() if answer.status == 0 else ""

    @property
    def head(self) -> str:
        return self.resolve(f"refs/heads/{BRANCH}")

    @property
    def remote_head(self) -> str:
        """Of the last fetch."""
        return self.resolve(_REMOTE_HEAD)

    def tree(self, commit: str) -> dict[str, Node]:
        """The files of a commit by path. Raises GitError."""
        if not commit:
            return {}
        found = {}
        for line in self._git("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0"):
            if line:
                about, _, path = line.partition(b"\t")
                mode, kind, oid = about.decode().split(" ")
                if kind != "blob" or mode not in _PLAIN:
                    msg = f"{clean(path.decode(errors='replace'))} in the backup is no plain file"
                    raise _strange(msg)
                found[path.decode(errors="replace")] = Node(oid, mode == "100755")
        if len(found) > _MAX_FILES:
            msg = f"there are {len(found)} files in the backup, and no backup has more than 20,000"
            raise _strange(msg)
        return found

    def trees(self, commit: str) -> Iterator[tuple[str, dict[str, Node] | None]]:
        """The commits up to one, the oldest first, each with its files; None if there is one that
        is no plain file. The dictionary is the same one, changed: nothing may keep it."""
        form = ("--format=%x01%H", "--raw", "--no-abbrev", "--no-renames", "--root", "-r", "-z")
        raw = self._git(
            "log", "--reverse", "--first-parent", "--diff-merges=first-parent", *form, commit
        ) if commit else b""  # fmt: skip
        tree: dict[str, Node] = {}
        strange: set[str] = set()
        for record in raw.split(b"\x01")[1:]:
            words = record.split(b"\0")
            oid = words[0].decode().strip()
            changes = [word.strip(b"\n") for word in words[1:]]
            for about, name in zip(changes[::2], changes[1::2], strict=False):
                _, mode, _, blob, _ = about.decode().split(" ")
                path = name.decode(errors="replace")
                tree.pop(path, None)
                strange.discard(path)
                if mode in _PLAIN:
                    tree[path] = Node(blob, mode == "100755")
                elif mode != "000000":
                    strange.add(path)
            yield oid, None if strange else tree

    def sizes(self, oids: Iterable[str]) -> dict[str, int]:
        """In bytes, by name; what is missing or no file's content is left out."""
        names = "".join(f"{oid}\n" for oid in dict.fromkeys(oids)).encode()
        rows = self._git("cat-file", "--batch-check", input=names).decode().splitlines()
        words = (row.split(" ") for row in rows)
        return {item[0]: int(item[2]) for item in words if len(item) == 3 and item[1] == "blob"}

    def read(self, oids: Iterable[str]) -> dict[str, bytes]:
        """Contents by their names. Raises GitError if one is missing, or too large."""
        wanted = list(dict.fromkeys(oids))
        sizes = self.sizes(wanted) if wanted else {}
        if max(sizes.values(), default=0) > _MAX_FILE or sum(sizes.values()) > _MAX_TOTAL:
            msg = (
                f"there is a file in the backup that is larger than {_MAX_FILE >> 20} MB, or all "
                f"are larger than {_MAX_TOTAL >> 20} MB together"
            )
            raise _strange(msg)
        found: dict[str, bytes] = {}
        group, size = [], 0
        for oid in wanted:
            group.append(oid)
            size += sizes.get(oid, 0)
            if size >= _TOGETHER:
                found |= self._read(group)
                group, size = [], 0
        return found | (self._read(group) if group else {})

    def _read(self, wanted: Sequence[str]) -> dict[str, bytes]:
        raw = self._git("cat-file", "--batch", input="".join(f"{o}\n" for o in wanted).encode())
        found, at = {}, 0
        for oid in wanted:
            end = raw.find(b"\n", at)
            words = raw[at:end].split()
            if len(words) != 3 or words[1] != b"blob":
                msg = f"object {oid} is missing"
                raise _damaged(msg)
            size = int(words[2])
            found[oid] = raw[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
        return found

    def log(self, commit: str, limit: int = 0) -> list[Entry]:
        """The commits up to one, the newest first."""
        if not commit:
            return []
        form = f"%H%x00%ct%x00%s%x00%(trailers:key={TRAILER},valueonly,separator=%x2C)%x01"
        many = [f"--max-count={limit}"] if limit else []
        raw = self._git("log", "--first-parent", f"--format={form}", *many, commit).decode(
            errors="replace"
        )
        found = []
        for record in raw.split("\x01"):
            if record.strip():
                oid, when, subject, server = record.strip("\n").split("\0")
                found.append(Entry(oid, int(when), clean(subject), clean(server.strip())))
        return found

    def count(self, commit: str) -> int:
        """How many commits there are up to one, as `log` lists them."""
        if not commit:
            return 0
        return int(self._git("rev-list", "--count", "--first-parent", commit))

    def is_ancestor(self, one: str, other: str) -> bool:
        return self._run("merge-base", "--is-ancestor", one, other).status == 0

    def related(self, one: str, other: str) -> bool:
        return self._run("merge-base", one, other).status == 0

    def ever_held(self, path: str, pattern: str, commit: str = "") -> bool:
        """Whether any version of a file in the history had a line that matches; in that of the
        branch, or of `commit`."""
        commit = commit or self.head
        if not commit:
            return False
        return bool(self._git("log", "--format=%H", f"-G{pattern}", commit, "--", path).strip())

    # --- changing it

    def commit(
        self, commits: Sequence[Commit], author: str, now: int, parent: str | None = None
    ) -> str:
        """Make commits, one after the other: all of them or none. Returns the last one.

        They follow the branch's last commit, or `parent`, which need not be of the branch.
        """
        stream: list[bytes] = [b"feature done\n"]
        ref = f"refs/heads/{BRANCH}" if parent is None else _ASIDE
        parent = self.head if parent is None else parent
        for index, item in enumerate(commits):
            stream.append(f"commit {ref}\n".encode())
            stream.append(f"committer {author} {now} +0000\n".encode())
            message = f"{item.subject}\n\n{item.body}\n".encode()
            stream.append(b"data %d\n%s\n" % (len(message), message))
            if index == 0 and parent:
                stream.append(f"from {parent}\n".encode())
            for path, blob in sorted(item.changes.items()):
                name = _quoted(path)
                if blob is None:
                    stream.append(f"D {name}\n".encode())
                    continue
                mode = "100755" if blob.executable else "100644"
                if isinstance(blob, Node):
                    stream.append(f"M {mode} {blob.oid} {name}\n".encode())
                    continue
                stream.append(f"M {mode} inline {name}\ndata {len(blob.content)}\n".encode())
                stream.append(blob.content + b"\n")
            stream.append(b"\n")
        stream.append(b"done\n")
        # --force: of a ref that was left aside by a killed process nothing has to be kept.
        force = ("--force",) if ref == _ASIDE else ()
        self._git(
            "fast-import", "--quiet", *force, "--date-format=raw", "--done",
            input=b"".join(stream),
        )  # fmt: skip
        if ref == _ASIDE:
            self.set(f"refs/heads/{BRANCH}", self.resolve(_ASIDE))
            self._git("update-ref", "-d", _ASIDE)
        return self.head

    def set(self, name: str, commit: str) -> None:
        self._git("update-ref", name, commit)

    def tidy(self) -> None:
        """Pack what is loose, now and then."""
        self._run("-c", "gc.auto=500", "gc", "--auto", "--quiet")

    # --- the remote

    def push(self, access: Access, folder: Path, ids: Ids) -> None:
        """Bring the branch to the remote. Raises RejectedError if that has something else."""
        refs = f"refs/heads/{BRANCH}:refs/heads/{BRANCH}"
        with session(access, folder, ids) as environ:
            answer = self._run(
                "push", "--porcelain", access.remote, refs, environ=environ, timeout=_REMOTE
            )
        if answer.status == 0:
            return
        text = answer.output.decode(errors="replace")
        if re.search(r"^!\t.*\[rejected\]", text, re.MULTILINE):
            msg = "the remote has commits that are not here"
            msg_0 = "rejected"
            raise RejectedError(msg_0, msg, "docker exec mail backup")
        raise explain(answer.status, f"{text}\n{answer.words}", access)

    def fetch(self, access: Access, folder: Path, ids: Ids) -> str:
        """Get the remote's branch; the commit, or an empty string if it has no such branch."""
        with session(access, folder, ids) as environ:
            answer = self._run(
                "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", access.remote,
                f"+refs/heads/{BRANCH}:{_REMOTE_HEAD}", environ=environ, timeout=_REMOTE,
            )  # fmt: skip
        if answer.status == 0:
            return self.remote_head
        if "couldn't find remote ref" in answer.words:
            return ""
        raise explain(answer.status, answer.words, access)

    # --- git itself

    def _git(self, *argv: str, input: bytes = b"") -> bytes:
        answer = self._run(*argv, input=input)
        if answer.status != 0:
            raise explain(answer.status, answer.words, None)
        return answer.output

    def _run(
        self,
        *argv: str,
        input: bytes = b"",
        environ: Mapping[str, str] | None = None,
        timeout: float = _LOCAL,
    ) -> process.Answer:
        full = {**environment(), "GIT_DIR": str(self.path), **(environ or {})}
        answer = process.exchange(
            [*_LIMITS, _GIT, *argv], full, timeout=timeout, most=_MAX_OUTPUT, input=input
        )
        if answer.cut:
            msg = "the repository is larger than any backup of tambo's"
            raise _strange(msg)
        return answer


_CONFIG = {
    "advice.pushUpdateRejected": "false",
    "core.bigFileThreshold": "8m",  # larger ones are not taken into memory
    "core.fsync": "all",
    "core.hooksPath": "/dev/null",
    "fetch.fsckObjects": "true",
    "fastimport.unpackLimit": "10000",
    "gc.auto": "0",
    "gc.autoDetach": "false",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "protocol.file.allow": "always",  # only a restore takes a path
    "protocol.https.allow": "always",
    "protocol.ssh.allow": "always",
    "safe.directory": "*",
    "transfer.credentialsInUrl": "die",
}


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """git's whole environment; `more` is configuration that no argument may hold."""
    config = {**_CONFIG, **(more or {})}
    environ = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for number, (name, value) in enumerate(config.items()):
        environ |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return environ


@contextmanager
def session(access: Access, folder: Path, ids: Ids) -> Iterator[dict[str, str]]:
    """git's environment for the remote. What it needs as files is there for that long only."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        apply.own_folder(folder, ids)
        config: dict[str, str] = {}
        environ: dict[str, str] = {}
        if access.remote.startswith("https://"):
            if access.token:
                host = re.sub(r"^(https://)(?:[^/@]*@)?([^/]+)/.*", r"\1\2/", access.remote)
                user = re.match(r"https://([^/@]+)@", access.remote)
                pair = f"{user[1] if user else 'git'}:{access.token}".encode()
                header = f"Authorization: Basic {base64.b64encode(pair).decode()}"
                config[f"http.{host}.extraHeader"] = header
            if access.roots:
                roots = folder / "roots.pem"
                apply.write(roots, _SYSTEM_ROOTS.read_bytes() + b"\n" + access.roots, ids)
                config["http.sslCAInfo"] = str(roots)
        elif not access.remote.startswith("/"):
            apply.write(folder / "key", f"{access.key}\n".encode(), ids)
            known = "".join(f"{_ALIAS} {item}\n" for item in access.host_keys)
            apply.write(folder / "known_hosts", known.encode(), ids)
            apply.write(folder / "ssh_config", _ssh_config(folder).encode(), ids)
            environ["GIT_SSH_COMMAND"] = f"/usr/bin/ssh -F {folder / 'ssh_config'}"
            environ["GIT_SSH_VARIANT"] = "ssh"
        yield {**environment(config), **environ}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_ALIAS = "backup"  # one name for the server, whatever it is called and whichever port it has


def _ssh_config(folder: Path) -> str:
    return f"""\
IdentityFile {folder}/key
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
HostKeyAlias {_ALIAS}
StrictHostKeyChecking yes
UpdateHostKeys no
CheckHostIP no
BatchMode yes
PreferredAuthentications publickey
ConnectTimeout 20
ServerAliveInterval 10
ServerAliveCountMax 3
"""


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _strange(words: str) -> GitError:
    return GitError("strange", words, "choose another commit: list-backups")


def _damaged(words: str) -> GitError:
    return GitError(
        "damaged",
        f"the repository in data/backup is damaged ({words})",
        "mv data/backup data/backup.damaged; the next backup gets it back from the remote",
    )


def _where(access: Access | None) -> str:
    if access is None:
        return "the server"
    found = re.match(r"(?:[a-z]+://)?(?:[^/@]*@)?(\[[^]]+\]|[^/:]+)(?::(\d+))?", access.remote)
    return f"{found[1]}{f' port {found[2]}' if found[2] else ''}" if found else "the server"


_FULL = r"No space left on device|Disk quota exceeded|[Oo]ut of disk ?space|disk full"

# What git and ssh print, what kind it is, what it means, what mends it; the first that matches.
_CAUSES = (
    (
        rf"remote: .*({_FULL})|unpacker error.*({_FULL})|\(.*unpacker error.*\)",
        "remote-full",
        "{where} cannot store it: its disk may be full",
        "make room at the git server; what is not pushed is kept in data/backup",
    ),
    (
        _FULL,
        "full",
        "the disk is full",
        "make room on the volume's disk; the backup is tried again by itself",
    ),
    (
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED|[Hh]ost key for .* has changed"
            "|No .* host key is known|Host key verification failed"
        ),
        "host-key",
        (
            "{where} does not have the host key of BACKUP_GIT_HOST_KEY{fingerprint}: it has a new "
            "one, or somebody stands in between. Nothing was sent"
        ),
        (
            "ask the server's owner, or see what they publish; if the key is really theirs, put it "
            "into BACKUP_GIT_HOST_KEY"
        ),
    ),
    (
        r"Load key .*(invalid format|error in libcrypto|incorrect passphrase|bad permissions)",
        "bad-key",
        "the key of BACKUP_GIT_KEY cannot be used: it is damaged or has a passphrase",
        "make one without: ssh-keygen -t ed25519 -N '' -f data/backup.key",
    ),
    (
        (
            r"marked as read.only|[Ww]rite access to repository not granted|deploy key.*(not|read)"
            r"|protected branch|pre-receive hook declined|remote rejected|not allowed to push"
            r"|[Rr]epository (was|is) archived|insufficient permission for adding an object"
        ),
        "read-only",
        "{where} lets nobody write with this key or token",
        (
            "allow it to write (a deploy key has a switch for that), and see that the branch main "
            "is not protected"
        ),
    ),
    (
        (
            r"Permission denied \(|Too many authentication failures|sign_and_send_pubkey"
            r"|Authentication failed|could not read (Username|Password)|returned error: 40[13]"
            r"|HTTP Basic: Access denied|terminal prompts disabled"
        ),
        "refused",
        "{where} refuses the key or token",
        (
            "enter the public half of the key there as a deploy key that may write "
            "(ssh-keygen -y -f data/backup.key shows it), or make a new token"
        ),
    ),
    (
        (
            r"[Rr]epository .*not found|does not appear to be a git repository|returned error: 404"
            r"|not a git repository: '|[Pp]roject .*not be found|No such file or directory'?$"
        ),
        "no-repository",
        "{where} has no such repository, or does not show it to this key",
        (
            "see that BACKUP_GIT_REMOTE is right, that the repository exists, and that the key or "
            "token is meant for it"
        ),
    ),
    (
        r"SSL certificate problem|server certificate verification failed|certificate verify failed",
        "certificate",
        "the certificate of {where} is signed by nobody who is known here",
        "for a private certificate authority set ACME_CA_BUNDLE to its root certificate",
    ),
    (
        r"returned error: 30[1278]|redirect",
        "moved",
        "{where} sends elsewhere",
        "set BACKUP_GIT_REMOTE to the repository's new address",
    ),
    (
        (
            r"Could not resolve host|Name or service not known|Temporary failure in name resolution"
            r"|Connection (refused|timed out|reset|closed)|No route to host|Network is unreachable"
            r"|Failed to connect|Couldn't connect|[Tt]imed out|kex_exchange_identification"
            r"|returned error: 5\d\d|Broken pipe|Timeout, server|unexpected disconnect"
        ),
        "down",
        "{where} cannot be reached",
        "see that it is up and that this server reaches it; it is tried again by itself",
    ),
    (
        (
            r"bad object|object file .* is empty|loose object .* is corrupt|missing blob"
            r"|unable to read tree|not a git repository|inflate: |index file .* is too small"
            r"|does not point to a valid object|unable to resolve reference|bad tree|broken"
            r"|could not (read|parse)|Could not read|missing (tree|commit)|reference broken"
        ),
        "damaged",
        "the repository in data/backup is damaged",
        "mv data/backup data/backup.damaged; the next backup gets it back from the remote",
    ),
)


def explain(status: int, words: str, access: Access | None) -> GitError:
    """What went wrong, with git's own telling words, and the fix."""
    if status == 124:
        text = f"git did not end in time with {_where(access)}" if access else "git did not end"
        return GitError("timeout", text, "it is tried again by itself")
    if access and access.token:
        words = words.replace(access.token, "[secret]")
    lines = [line for line in (clean(raw).strip() for raw in words.splitlines()) if line]
    telling = [
        line
        for line in lines
        if re.search(r"(?i)fatal|error|denied|refused|fail|reject|full", line)
    ]
    ours = (r"Please make sure you have|Could not read from remote|failed to push some refs",)
    telling = [line for line in telling if not re.search(ours[0], line)] or telling or lines
    said = telling[0][:200] if telling else f"status {status}"
    fingerprint = re.search(r"SHA256:[A-Za-z0-9+/]{43}", words)
    for pattern, kind, meaning, fix in _CAUSES:
        if re.search(pattern, words, re.MULTILINE):
            shown = f" (it has {fingerprint[0]})" if fingerprint else ""
            text = meaning.format(where=_where(access), fingerprint=shown)
            if kind in ("host-key", "full", "bad-key"):
                return GitError(kind, text, fix)
            return GitError(kind, f"{text} (git: {said})", fix)
    return GitError("git", f"git ended with status {status}: {said}", "see the words of git above")
