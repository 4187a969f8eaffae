"""Writes into a git repository what no honest program would: as whoever may push to it can."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.support.container import checked
from tests.support.gitserver import GitServer

PLAIN, EXECUTABLE, LINK, MODULE, FOLDER = "100644", "100755", "120000", "160000", "40000"

# Loose objects, written by hand: git's own programs check some of what they write.
_WRITE = """
import base64, hashlib, json, os, sys, zlib
root, asked = sys.argv[1], json.load(sys.stdin)
for kind, content, zeros in asked["objects"]:
    content = base64.b64decode(content)
    packed, digest = zlib.compressobj(), hashlib.sha1()
    head = b"%s %d\\0" % (kind.encode(), len(content) + zeros)
    data = b""
    chunks = [head, content] + [bytes(1 << 20)] * (zeros >> 20)
    for chunk in chunks:
        digest.update(chunk)
        data += packed.compress(chunk)
    data += packed.flush()
    name = digest.hexdigest()
    path = f"{root}/objects/{name[:2]}/{name[2:]}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.exists(path):
        open(path, "wb").write(data)
open(f"{root}/refs/heads/main", "w").write(asked["head"] + "\\n")
"""


Entry = tuple[str, bytes, str]  # mode, name, object


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """As git wants them: a folder's name counts as if it ended in a slash."""
    return sorted(entries, key=lambda item: item[1] + (b"/" if item[0] == FOLDER else b""))


@dataclass
class Forge:
    """A repository of the git server, by its name."""

    git: GitServer
    repository: str
    _objects: list[tuple[str, str, int]] = field(default_factory=list)

    def files(self) -> dict[str, tuple[str, str]]:
        """Mode and object of each file of the branch, by its path."""
        done = checked(self.git.exec("git", "-C", self._root, "ls-tree", "-r", "main", user="git"))
        rows = (line.partition("\t") for line in done.stdout.splitlines())
        return {path: (about.split()[0], about.split()[2]) for about, _, path in rows}

    def blob(self, content: bytes, *, zeros: int = 0) -> str:
        """The object's name; `zeros` octets, whole megabytes, follow the content."""
        return self._object("blob", content, zeros)

    def tree(self, entries: Iterable[Entry]) -> str:
        """Of mode, name and object, in the order given."""
        raw = b"".join(
            mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries
        )
        return self._object("tree", raw)

    def folders(self, files: Mapping[str, tuple[str, str]]) -> str:
        """The tree of ordinary paths."""
        here: dict[bytes, tuple[str, str]] = {}
        below: dict[str, dict[str, tuple[str, str]]] = {}
        for path, item in files.items():
            name, _, rest = path.partition("/")
            if rest:
                below.setdefault(name, {})[rest] = item
            else:
                here[name.encode()] = item
        entries = [(mode, name, oid) for name, (mode, oid) in here.items()]
        entries += [(FOLDER, name.encode(), self.folders(item)) for name, item in below.items()]
        return self.tree(in_order(entries))

    def publish(self, tree: str, *, message: str = "users: new", parent: str = "") -> None:
        """One commit, which becomes the branch's."""
        who = "tambo <tambo@smtp.example.com> 1767225600 +0000"
        above = f"parent {parent}\n" if parent else ""
        text = f"tree {tree}\n{above}author {who}\ncommitter {who}\n\n{message}\n\nServer: x 1\n"
        head = self._object("commit", text.encode())
        asked = json.dumps({"objects": self._objects, "head": head})
        script = ("python3", "-c", _WRITE, self._root)
        checked(self.git.exec(*script, user="git", input=asked))
        self._objects.clear()

    @property
    def _root(self) -> str:
        return f"/srv/git/{self.repository}.git"

    def _object(self, kind: str, content: bytes, zeros: int = 0) -> str:
        self._objects.append((kind, base64.b64encode(content).decode(), zeros))
        digest = hashlib.sha1(
            b"%s %d\0" % (kind.encode(), len(content) + zeros), usedforsecurity=False
        )
        digest.update(content)
        for _ in range(zeros >> 20):
            digest.update(bytes(1 << 20))
        return digest.hexdigest()
