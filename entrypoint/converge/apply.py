"""Makes the disk as planned: compares, writes (common/files.py), removes.

Killed at any moment, a file is the old one or the new one, and the next run completes the plan.
Who calls it holds a lock (common/locks.py).
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from entrypoint.common import files, identity
from entrypoint.common.identity import Ids, Owner
from entrypoint.converge.plan import (
    Effect,
    File,
    Folder,
    Link,
    MissingCertificate,
    MissingKey,
    Plan,
)
from entrypoint.keys import certs, dkim


@dataclass(frozen=True)
class Outcome:
    """What changed, and what chasquid needs because of it."""

    changed: tuple[Path, ...] = ()
    effect: Effect = Effect.NONE


Owe = Callable[[Effect], None]


def _nobody(_effect: Effect) -> None:
    """For files that chasquid does not read."""


def apply(plan: Plan, ids: Ids, owe: Owe = _nobody) -> Outcome:
    """Make the disk as planned. Caller holds the edit lock.

    `owe` is told of an effect before anything changes that has it.
    """
    changed: list[tuple[Path, Effect]] = []
    for folder in plan.folders:
        if _folder(folder, ids, owe):
            changed.append((folder.path, folder.effect))
    for file in plan.files:
        if _file(file, ids, owe):
            changed.append((file.path, file.effect))
    for link in plan.links:
        if _link(link, ids, owe):
            changed.append((link.path, link.effect))
    changed += _remove_others(plan, owe)
    return Outcome(
        changed=tuple(path for path, _ in changed),
        effect=max((effect for _, effect in changed), default=Effect.NONE),
    )


def make(missing: Iterable[MissingKey | MissingCertificate], ids: Ids) -> tuple[Path, ...]:
    """Make key material and keep it. A DKIM key is proven against its record first."""
    made: list[Path] = []

    def keep(path: Path, content: bytes) -> None:
        own_folder(path.parent, ids)
        write(path, content, ids)
        made.append(path)

    for item in missing:
        if isinstance(item, MissingKey):
            pem = dkim.make(item.algorithm)
            dkim.prove(item.domain, dkim.load(item.selector, pem))
            keep(item.path, pem)
        else:
            certificate = certs.self_signed(item.names)
            keep(item.folder / certs.KEY, certificate.key)
            keep(item.folder / certs.CHAIN, certificate.chain)
    return tuple(made)


def write(path: Path, content: bytes, ids: Ids) -> None:
    """One file of tambo's own, 0600. Caller holds the edit lock."""
    _file(File(path, content, Owner.TAMBO, Owner.TAMBO, 0o600), ids)


def own_folder(path: Path, ids: Ids) -> None:
    """A folder of tambo's own, 0700, with what is above it."""
    _folder(Folder(path, Owner.TAMBO, Owner.TAMBO, 0o700), ids)


def install_pair(folder: Path, chain: bytes, key: bytes, ids: Ids) -> None:
    """Put a certificate and its key in place together. Caller holds the edit lock.

    Whoever opens the folder finds the old pair or the new one: the two folders change places in
    one step, where the file system can do that; else the files follow each other.
    """
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    for path in (aside, folder):
        own_folder(path, ids)
    for name, content in ((certs.CHAIN, chain), (certs.KEY, key)):
        write(aside / name, content, ids)
    if not _exchange(aside, folder):
        for name in (certs.KEY, certs.CHAIN):
            files.move(aside / name, folder / name)
    files.sync(folder.parent)
    shutil.rmtree(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders' names (renameat2(2), RENAME_EXCHANGE); False if that cannot be done."""
    libc = ctypes.CDLL(None, use_errno=True)
    at_cwd, exchange = -100, 2
    return bool(libc.renameat2(at_cwd, bytes(one), at_cwd, bytes(other), exchange) == 0)


def remove(path: Path) -> None:
    """Remove one file of tambo's own, for good. Caller holds the edit lock."""
    files.remove(path)


def _folder(folder: Folder, ids: Ids, owe: Owe = _nobody) -> bool:
    try:
        with files.folder(folder.path):
            changed = False
    except FileNotFoundError:
        owe(folder.effect)
        changed = files.make_folder(folder.path)
    return _rights(folder, ids, owe) or changed


def _rights(item: Folder | File, ids: Ids, owe: Owe) -> bool:
    """Owner and mode as planned; whether anything was changed."""
    changed = _give(item.path, ids, item.owner, item.group, item.mode)
    if changed:
        owe(item.effect)
    return changed


def _give(path: Path, ids: Ids, owner: Owner, group: Owner, mode: int | None) -> bool:
    with files.folder(path.parent) as fd:
        return identity.give(path.name, ids.users[owner], ids.groups[group], mode, dir_fd=fd)


def _file(file: File, ids: Ids, owe: Owe = _nobody) -> bool:
    if files.read(file.path) == file.content:
        return _rights(file, ids, owe)
    owe(file.effect)
    owner = (ids.users[file.owner], ids.groups[file.group])
    files.write(file.path, file.content, mode=file.mode, owner=owner)
    return True


def _link(link: Link, ids: Ids, owe: Owe) -> bool:
    if not link.path.is_symlink() or link.path.readlink() != link.target:
        owe(link.effect)
        owner = (ids.users[link.owner], ids.groups[link.group])
        files.link(link.path, link.target, owner)
        return True
    return _give(link.path, ids, link.owner, link.group, None)


def _remove_others(plan: Plan, owe: Owe) -> list[tuple[Path, Effect]]:
    planned = {
        path
        for items in (plan.folders, plan.files, plan.links)
        for path in (item.path for item in items)
    }
    effects = {"users": Effect.RELOAD, "aliases": Effect.RELOAD}
    removed = []
    for folder, names, others in os.walk(plan.exclusive, topdown=False):
        for name in (*others, *names):
            path = Path(folder, name)
            if path in planned:
                continue
            effect = effects.get(name, Effect.RESTART)
            owe(effect)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append((path, effect))
    return removed


def write_owned(path: Path, content: bytes, ids: Ids, *, executable: bool) -> None:
    """One file of the owner's. Its folders are made; the caller syncs them."""
    own_folder(path.parent, ids)
    mode = 0o700 if executable else 0o600
    _file(File(path, content, Owner.TAMBO, Owner.TAMBO, mode), ids)


def sync_tree(root: Path) -> None:
    """Make all below a folder survive a power cut."""
    for folder, _, names in os.walk(root):
        for name in names:
            fd = os.open(Path(folder, name), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        files.sync(Path(folder))


def move(source: Path, target: Path) -> None:
    """Rename a file or folder within the volume, for good."""
    files.move(source, target)
