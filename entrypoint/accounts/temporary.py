"""A temporary login: a credential for a minute, for a verb that submits mail as a client does.

It stands in what chasquid reads, and nowhere on the volume: in a file of the tmpfs with the time at
which it ends, which every reconcile heeds. It is taken back when the verb is done with it. If the
verb is killed first, the keeper takes it back within seconds of its end, and so does any other
change. The secret is 138 random bits, is never written down, and goes to this machine's own
chasquid alone, inside TLS.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import GENERATED_LOG_N, Scrypt
from entrypoint.common import locks
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids
from entrypoint.common.names import Address
from entrypoint.common.paths import Paths
from entrypoint.converge import apply, reconcile
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import Temporary

LIFE = 60.0  # seconds: two log-ins take half of one


@dataclass(frozen=True)
class Login:
    """What a client logs in with, at ports 465 and 587; served for LIFE seconds at most."""

    name: str
    password: str = field(repr=False)


@contextmanager
def login(settings: Settings, paths: Paths, ids: Ids, sender: Address) -> Iterator[Login]:
    """A log-in that may send as `sender`, until the block ends. Raises UserError if chasquid does
    not take it over.

    Its name is one of the sender's own by the rule for purposes: name+purpose@domain.
    """
    token = secrets.token_hex(6)
    password = userdb.generate()
    name = f"{sender.local}+test-{token}"
    users = {name: Scrypt.of(password, GENERATED_LOG_N)}
    path = paths.temporary / f"{token}.json"

    try:
        with locks.edit_lock(paths, ids):
            apply.own_folder(paths.temporary, ids)
            granted = Temporary(sender.domain, users, time.monotonic() + LIFE)
            apply.write(path, granted.dump(), ids)
            _, outcome = reconcile.reconcile(settings, paths, ids)
        note = reconcile.serve(paths, ids, outcome.effect)
        if note:
            msg = f"chasquid could not be given a log-in for the test: {note}"
            raise UserError(msg, "look at: docker logs mail", exit_code=Exit.TRY_AGAIN)
        yield Login(f"{name}@{sender.domain}", password)
    finally:
        with locks.edit_lock(paths, ids):
            apply.remove(path)
            _, outcome = reconcile.reconcile(settings, paths, ids)
        reconcile.serve(paths, ids, outcome.effect)


def sweep(paths: Paths, ids: Ids) -> bool:
    """Remove what has ended, whoever made it; whether there was any. Whoever calls reconciles."""
    ended = [
        path
        for path, login in load.temporary_logins(paths).items()
        if login is None or login.expired
    ]
    if ended:
        with locks.edit_lock(paths, ids):
            for path in ended:
                apply.remove(path)
    return bool(ended)
