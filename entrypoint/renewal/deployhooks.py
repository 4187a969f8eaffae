"""The owner's executables in data/reload, run after a certificate has changed.

Each runs once for each domain whose certificate changed, also if tambo is killed in between; one
that fails is tried again later and stops nobody else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from entrypoint.common import locks, process
from entrypoint.common.identity import Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import apply
from entrypoint.keys import certs

_TIMEOUT = 120.0  # seconds for one run
_FIRST_BACK_OFF, _LAST_BACK_OFF = 60.0, 6 * 3600.0  # seconds; doubles with each failure


@dataclass(frozen=True)
class Pending:
    """What one executable has yet to do. `next_try` is in seconds since 1970."""

    domains: tuple[str, ...] = ()
    failures: int = 0
    next_try: float = 0.0


@dataclass
class Reloads:
    """What is yet to be run. It outlives restarts, in a file; what fails is run again later.

    `now` is in seconds since 1970.
    """

    paths: Paths
    ids: Ids
    log: Callable[[str], None]
    now: Callable[[], float]

    def want(self, domain: Domain) -> None:
        """Have every executable run for `domain`."""
        with locks.edit_lock(self.paths, self.ids):
            pending = self.pending()
            for name in self._executables():
                domains = dict.fromkeys((*pending.get(name, Pending()).domains, str(domain)))
                pending[name] = Pending(domains=tuple(domains))
            self._keep(pending)

    def run(self) -> None:
        """Run what is due."""
        executables = self._executables()
        for name, item in self.pending().items():
            # A longer wait than there is was set by a clock that was wrong.
            if name in executables and 0 < item.next_try - self.now() <= _LAST_BACK_OFF:
                continue
            done = {
                domain
                for domain in item.domains
                if name not in executables or self._run(executables[name], domain)
            }
            self._settle(name, done, failed=len(done) < len(item.domains))

    def _settle(self, name: str, done: Collection[str], *, failed: bool) -> None:
        """Note how an executable fared; what was wanted meanwhile stays wanted."""
        with locks.edit_lock(self.paths, self.ids):
            pending = self.pending()
            item = pending.pop(name, Pending())
            left = tuple(domain for domain in item.domains if domain not in done)
            if left and not failed:
                pending[name] = Pending(left)
            elif left:
                wait = min(_FIRST_BACK_OFF * 2 ** min(item.failures, 10), _LAST_BACK_OFF)
                pending[name] = Pending(left, item.failures + 1, self.now() + wait)
            self._keep(pending)

    def pending(self) -> dict[str, Pending]:
        try:
            content = json.loads(self.paths.reloads.read_text())
            return {
                str(name): Pending(
                    tuple(map(str, item["domains"])), int(item["failures"]), float(item["next_try"])
                )
                for name, item in content.items()
            }
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            return {}

    def _run(self, path: Path, domain: str) -> bool:
        folder = self.paths.certs / domain
        environ = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",  # noqa: S108 (nothing is kept there)
            "DOMAIN": domain,
            "CERT_FULLCHAIN": str(folder / certs.CHAIN),
            "CERT_KEY": str(folder / certs.KEY),
        }
        lines: list[str] = []
        status = process.run([str(path)], environ, timeout=_TIMEOUT, on_line=lines.append)
        if status == 0:
            self.log(f"{domain}: reload/{path.name} done")
            return True
        last = f": {lines[-1][:200]}" if lines else ""
        self.log(
            f"warn: {domain}: reload/{path.name} ended with status {status}{last}; tried again"
        )
        return False

    def _executables(self) -> dict[str, Path]:
        if not self.paths.reload.is_dir():
            return {}
        return {
            path.name: path
            for path in sorted(self.paths.reload.iterdir())
            if path.is_file() and path.name[0] != "." and path.stat().st_mode & 0o100
        }

    def _keep(self, pending: Mapping[str, Pending]) -> None:
        """Caller holds the edit lock."""
        content = json.dumps({name: asdict(item) for name, item in pending.items()}, indent=1)
        apply.write(self.paths.reloads, content.encode(), self.ids)
