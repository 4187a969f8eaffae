"""What several unit tests share: settings, a volume, the test keys, children, patience."""

from __future__ import annotations

import os
import select
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from entrypoint.common.names import Domain, Selector
from entrypoint.common.paths import Paths
from entrypoint.converge import plan
from entrypoint.converge.plan import MissingKey
from entrypoint.keys import dkim
from entrypoint.keys.dkim import Algorithm
from entrypoint.settings import environment
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import State
from tests.support.cases import CASES
from tests.support.wait import PATIENCE

HOST = "smtp.example.com"
EXAMPLE_COM = Domain("example.com")
EXAMPLE_ORG = Domain("example.org")
TODAY = date(2026, 1, 1)  # of the test keys' selectors


def asked(**environ: str) -> Settings:
    """Settings; only what differs from a plain server's needs saying."""
    return environment.load({"MAIL_HOSTNAME": HOST, **environ})


@cache
def key_pem(algorithm: Algorithm) -> bytes:
    return (CASES / "keys" / f"{algorithm.value}.pem").read_bytes()


def put_keys(wanted: Settings, paths: Paths) -> None:
    """The test keys, where a first boot would have put new ones."""
    for item in plan.missing(wanted, load.load(paths), paths, TODAY):
        if isinstance(item, MissingKey):
            put(item.path, key_pem(item.algorithm))


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_domain(paths: Paths, domain: Domain, **files: str) -> None:
    for name, content in files.items():
        put(paths.domain(domain) / name, content)


def loaded_key(algorithm: Algorithm, selector: str) -> dkim.DkimKey:
    return dkim.load(Selector(selector), key_pem(algorithm))


def fresh(paths: Paths) -> State:
    return load.load(paths)


@dataclass(frozen=True)
class Entry:
    """What stands at a path."""

    kind: str  # "file", "folder" or "link"
    mode: int
    content: bytes


def tree(root: Path) -> dict[str, Entry]:
    """All below `root`, by relative path."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        if path.is_symlink():
            entry = Entry("link", mode, str(path.readlink()).encode())
        elif path.is_dir():
            entry = Entry("folder", mode, b"")
        else:
            entry = Entry("file", mode, path.read_bytes())
        found[str(path.relative_to(root))] = entry
    return found


# Processes


def forked(work: Callable[[], object]) -> int:
    """Do `work` in a child that then exits at once, without any cleaning up; its exit status.

    0 if it returned, 99 if it raised. The parent may have threads; the child does not use them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 (the child must not return into pytest)
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition; fails if it does not come true in time."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.01)


def ends(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process, anybody's child, ends in time. It must have been alive at the start."""
    watch = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([watch], [], [], seconds * PATIENCE)
        return bool(ready)
    finally:
        os.close(watch)


def lines_of(texts: Mapping[str, str] | str) -> Iterator[str]:
    for text in [texts] if isinstance(texts, str) else texts.values():
        yield from text.splitlines()
