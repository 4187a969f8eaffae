"""When a login's open sessions lose the right to send: new password, pause, removal. Pure.

chasquid asks for a password once a connection, and keeps the connection for up to twenty minutes.
So for half an hour after such a change, a message is taken only over a connection that logged in
after it.

That a password changed is seen by a fingerprint of how it is stored, which stands in the policy
service's rules. chasquid's user can read those, so a fingerprint must tell nothing of a password:
it covers the salt of the hash, 128 random bits that nobody has who has not the hash itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WINDOW = 1800.0  # seconds; chasquid closes a connection after 20 minutes (server.go)


@dataclass
class Changes:
    """What the logins' fingerprints were, and when each changed (seconds since 1970).

    `unsettled` are those of which chasquid may not have been told yet: until then it may let
    somebody in by the old password.
    """

    fingerprints: dict[str, str] | None = None  # None: none were ever seen
    changed: dict[str, float] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)

    def saw(self, fingerprints: Mapping[str, str], at: float) -> bool:
        """Compare with what is served since `at`; whether there is something to keep."""
        before = self.fingerprints
        if before == fingerprints:
            return False
        self.fingerprints = dict(fingerprints)
        for login, fingerprint in (before or {}).items():
            if fingerprints.get(login) != fingerprint:
                self.note([login], at)
                self.unsettled.add(login)
        return True

    def settle(self, now: float) -> bool:
        """chasquid has been told; whether there is something to keep."""
        self.note(self.unsettled, now)
        found = bool(self.unsettled)
        self.unsettled.clear()
        return found

    def note(self, logins: Iterable[str], at: float) -> None:
        for login in logins:
            self.changed[login] = max(at, self.changed.get(login, 0.0))

    def since(self, login: str, now: float) -> float | None:
        """The time after which a connection must have logged in; None: any may be."""
        at = self.changed.get(login)
        return at if at is not None and now - at < WINDOW else None

    def to_json(self, now: float) -> dict[str, Any]:
        changed = {login: at for login, at in self.changed.items() if now - at < WINDOW}
        return {"fingerprints": self.fingerprints, "changed": changed}

    def load(self, content: dict[str, Any]) -> None:
        """Raises ValueError, KeyError, TypeError or AttributeError for what `to_json` did not
        make; then nothing is taken from it."""
        found = content["fingerprints"]
        prints = None if found is None else {str(key): str(item) for key, item in found.items()}
        changed = {str(login): float(at) for login, at in content["changed"].items()}
        self.fingerprints, self.changed = prints, changed
