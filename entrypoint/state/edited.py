"""Files that people edit, and their last good copies below data/state/good: the one rule of both.

A file that is broken, or gone, is not served: its last good copy is, until the file is mended. A
copy is written by the plan (converge/plan.py) once its file has served, and goes only when somebody
says so: by a verb (`replace` with nothing, `remove`), never by an accident with the file.

Written by hand are, by domain, `users`, `aliases`, `senders`, and DKIM's private keys; the pairs in
data/certs have copies too. What must never happen: that whoever was taken out comes back since a
copy was left behind. So `remove` begins with the copy; killed in between, nothing has changed.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from entrypoint.common import files
from entrypoint.common.findings import Finding, Level
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths

_T = TypeVar("_T")

_EMPTY = "the file is empty; if it shall hold nothing, write a comment into it, such as # none"
# How to say that a file of people's should hold nothing.
_IF_MEANT = "if it shall hold nothing, put a file with the line # none there"
_MAX_FILE = 16 * 1024 * 1024  # bytes: some 50,000 users


def copy_of(paths: Paths, path: Path) -> Path:
    """Where the last good copy of a file or folder below data/domains or data/certs is."""
    parts = path.relative_to(paths.data).parts
    return paths.good.joinpath(*(parts[1:] if parts[0] == "domains" else parts))


def copies(paths: Paths) -> dict[str, bytes]:
    """The last good copies, by the path below /data of what they are copies of."""
    found = {}
    for path in sorted(paths.good.rglob("*")):
        parts = path.relative_to(paths.good).parts
        if path.is_file() and not any(part.startswith(".") for part in parts):
            name = "/".join(parts if parts[0] == "certs" else ("domains", *parts))
            with suppress(OSError):
                found[name] = path.read_bytes()
    return found


# --- changes by verbs


def replace(paths: Paths, ids: Ids, path: Path, content: bytes) -> None:
    """Write a file that people edit; with nothing in it, `remove` it: an empty file would count as
    damage. Caller holds the edit lock. Raises OSError."""
    if content.strip():
        owner = (ids.users[Owner.TAMBO], ids.groups[Owner.TAMBO])
        files.write(path, content, mode=0o600, owner=owner)
    else:
        remove(paths, path)


def remove(paths: Paths, path: Path) -> None:
    """Remove a file that people edit, and its last good copy, which else would serve. Caller holds
    the edit lock. Raises OSError."""
    with suppress(FileNotFoundError):  # the folder of copies: there is none
        files.remove(copy_of(paths, path))
    files.remove(path)


# --- what serves


def read(
    paths: Paths,
    path: Path,
    parse: Callable[[bytes], _T],
    empty: _T,
    findings: list[Finding],
    *,
    needed: bool = False,
) -> _T:
    """What `path` holds; if that is broken (or, if `needed`, gone), what its last good copy does,
    and a finding. `empty` if there is neither. `parse` raises ValueError."""
    gone, good = False, copy_of(paths, path)
    try:
        return parse(_content(path))
    except FileNotFoundError:
        if path.is_symlink():
            reason = "is a link to nothing"
        elif needed:
            reason, gone = "is gone", True
        else:
            return empty
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    except ValueError as error:
        reason = str(error)
    try:
        fallback, serves = parse(good.read_bytes()), "the last good copy serves"
        back = f"cp {shown(good)} {shown(path)}"
        fix = f"put it back: {back}" if gone else f"mend the file, or go back: {back}"
        if gone:
            fix += "" if path.name.startswith("dkim:") else f"; {_IF_MEANT}"
    except (OSError, ValueError):
        fallback, serves = empty, "nothing of it is served, as there is no good copy"
        fix = "mend the file"
    findings.append(
        Finding(
            id=f"broken-{path.name.partition(':')[0]}",
            level=Level.FAIL,
            message=f"{shown(path)}: {reason}. Until it is mended {serves}.",
            fix=fix,
            subject=str(path),
        )
    )
    return fallback


def read_entries(
    paths: Paths,
    path: Path,
    parse: Callable[[str], Mapping[str, _T]],
    findings: list[Finding],
) -> Mapping[str, _T]:
    """As `read`, of a text with entries: one that lost all it had, or is gone, is broken.

    Some editors save by removing the file, or all that is in it, first; and neither is a wish if it
    was an accident. What is meant can be said by a comment, and is said by `replace`.
    """

    def held() -> bool:
        try:
            return bool(parse(text(copy_of(paths, path).read_bytes())))
        except (OSError, ValueError):
            return False

    def checked(raw: bytes) -> Mapping[str, _T]:
        content = text(raw)
        if not content.strip() and held():
            raise ValueError(_EMPTY)
        return parse(content)

    needed = not path.exists() and held()
    return read(paths, path, checked, {}, findings, needed=needed)


def text(raw: bytes) -> str:
    """A file's text. Raises ValueError, with the line, if it is not UTF-8, or has a byte order
    mark."""
    if raw.startswith(codecs.BOM_UTF8):
        msg = "line 1: it begins with a byte order mark; save it as UTF-8 without one"
        raise ValueError(msg)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        msg = f"line {line}: not UTF-8 text"
        raise ValueError(msg) from None


def shown(path: Path) -> str:
    """A path below /data as its owner sees it, beside compose.yaml: `data/…`."""
    parts = path.parts
    return "/".join(parts[parts.index("data") :]) if "data" in parts else str(path)


def _content(path: Path) -> bytes:
    """What a file of people's holds; never waits for it. Raises OSError and ValueError."""
    with open(path, "rb", opener=_without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            msg = "is not a plain file"
            raise ValueError(msg)
        content = stream.read(_MAX_FILE + 1)
    if len(content) > _MAX_FILE:
        msg = f"is larger than {_MAX_FILE // 1024 // 1024} MB"
        raise ValueError(msg)
    return content


def _without_waiting(path: str, flags: int) -> int:
    """A FIFO is opened before it has a writer; for other files it makes no difference."""
    return os.open(path, flags | os.O_NONBLOCK)
