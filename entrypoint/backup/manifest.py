"""The signed manifest: which files a backup consists of, said by the server that made it.

age encrypts to a public key, so whoever knows that key can write files that decrypt. What tells the
server's own backup from such a one are two files in the tree of each commit:

`manifest`, text, a canonical form (there is one way to write it):

    tambo backup manifest 1
    host smtp.example.com
    server 1a2b3c4d
    number 17
    time 2026-01-31T12:00:00Z
    domains example.com example.org
    recipients age1…
    100644 <SHA-256> data/domains/example.com/aliases
    …

each other file of the tree, as git has it (encrypted, that is), by path in ascending order; and
`manifest.sig`, one line: the verification key, a space, the Ed25519 signature of `manifest` in
base64. So a file that is changed, added, removed, renamed, or has other rights is noticed, and so
is a tree of another server, or of another time, that is put where the newest one should be.

Who can forge, if what is known:
- the recipient, the verification key, access to the repository, or all three: nobody. They can
  remove, and put an older commit in front: its own time and number say so.
- the age identity: whoever reads the repository then has the signing key too, as it is among the
  settings that are secret. Then: backup --new-key, and a new repository.
- the signing key, or the server: everything from then on, as the server itself would.

Must never happen: that a tree counts as verified of which one octet was not compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from entrypoint.common import signing
from entrypoint.common.errors import shown
from entrypoint.common.names import Domain

NAME, SIGNATURE = "manifest", "manifest.sig"
NAMES = frozenset({NAME, SIGNATURE})
_FIRST = "tambo backup manifest 1"
_WHEN = "%Y-%m-%dT%H:%M:%SZ"
_SHOWN = 3  # paths that a message names


class UnverifiedError(ValueError):
    """Nobody known vouches for the tree: the text says why. `signed`: there is a signature."""

    def __init__(self, reason: str, *, signed: bool = True) -> None:
        super().__init__(reason)
        self.signed = signed


@dataclass(frozen=True)
class Manifest:
    """`files`: the line of each by its path, see `line`. `number` is that of the commit that it
    was made for, the repository's first being 1; `when` is in whole seconds since 1970."""

    host: Domain
    server: str
    number: int
    when: int
    domains: tuple[Domain, ...]
    recipients: tuple[str, ...]
    files: Mapping[str, str] = field(repr=False)

    def __str__(self) -> str:
        head = (
            _FIRST,
            f"host {self.host}",
            f"server {self.server}",
            f"number {self.number}",
            f"time {datetime.fromtimestamp(self.when, UTC).strftime(_WHEN)}",
            " ".join(("domains", *self.domains)),
            " ".join(("recipients", *self.recipients)),
        )
        rows = (f"{line} {path}" for path, line in sorted(self.files.items()))
        return "".join(f"{text}\n" for text in (*head, *rows))

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Raises ValueError for all that `str` does not write."""
        text = raw.decode()
        lines = text.split("\n")
        pattern = (
            r"host (\S+)\nserver ([0-9a-f]{1,64})\nnumber (\d{1,18})\ntime (\S{20})\n"
            r"domains((?: \S+)*)\nrecipients((?: \S+)*)"
        )
        head = re.fullmatch(pattern, "\n".join(lines[1:7]))
        if lines[0] != _FIRST or head is None:
            msg = "its head is none"
            raise ValueError(msg)
        files = {}
        for row in lines[7:-1]:
            match = re.fullmatch(r"(100(?:644|755) [0-9a-f]{64}) ([\x21-\x7e]+)", row)
            if match is None:
                msg = "a line is none"
                raise ValueError(msg)
            files[match[2]] = match[1]
        found = cls(
            Domain.parse(head[1]),
            head[2],
            int(head[3]),
            int(datetime.strptime(head[4], _WHEN).replace(tzinfo=UTC).timestamp()),
            tuple(Domain.parse(name) for name in head[5].split()),
            tuple(head[6].split()),
            files,
        )
        if str(found) != text:
            msg = "it is not in the canonical form"
            raise ValueError(msg)
        return found


def line(content: bytes, *, executable: bool) -> str:
    """What a manifest says of a file: git's mode, and SHA-256."""
    return f"{'100755' if executable else '100644'} {hashlib.sha256(content).hexdigest()}"


def sign(manifest: Manifest, signing_key: str) -> dict[str, bytes]:
    """The two files of the tree."""
    content = str(manifest).encode()
    key = signing.verification_key(signing_key)
    return {NAME: content, SIGNATURE: f"{key} {signing.sign(signing_key, content)}\n".encode()}


def verify(
    lines: Mapping[str, str], content: bytes | None, signature: bytes | None, keys: Sequence[str]
) -> Manifest:
    """See that the owner of one of the verification keys vouches for exactly this tree.

    `lines` are those of all files but for the two, `content` and `signature` the two as they are in
    the tree. Raises UnverifiedError.
    """
    if content is None or signature is None:
        msg = "it is not signed"
        raise UnverifiedError(msg, signed=False)
    match = re.fullmatch(rb"(tambo-verify-[a-z2-7]{56}) ([A-Za-z0-9+/=]{88})\n", signature)
    if match is None:
        msg = f"{SIGNATURE} is damaged"
        raise UnverifiedError(msg)
    key = match[1].decode()
    if key not in keys:
        msg = f"it is signed with another key: {key}"
        raise UnverifiedError(msg)
    if not signing.verifies(key, match[2].decode(), content):
        msg = f"{SIGNATURE} is not that of {NAME}"
        raise UnverifiedError(msg)
    try:
        found = Manifest.parse(content)
    except ValueError as error:  # signed by a newer version
        msg = f"{NAME} cannot be read by this version: {error}"
        raise UnverifiedError(msg) from None
    wrong = [
        *(f"{shown(path)} was added" for path in sorted(lines.keys() - found.files.keys())),
        *(f"{shown(path)} is missing" for path in sorted(found.files.keys() - lines.keys())),
        *(
            f"{shown(path)} was changed"
            for path, said in sorted(found.files.items())
            if path in lines and lines[path] != said
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        msg = f"it was changed after it was signed: {', '.join(wrong[:_SHOWN])}{more}"
        raise UnverifiedError(msg)
    return found
