"""PID 1 after the boot: supervisord, with an exit status that tells whether it was asked to end.

    init STYLE HOLDER GATE      STYLE as log.configure takes it; the others are the options of
                                these programs, a word of our command line each

supervisord exits 0 however it ends; monitoring and `restart: on-failure` want to know. Its own
lines take the form of the others, and what state each program is in is written down for `status`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from supervisor import events, loggers, poller, states, supervisord

from entrypoint.common import files, log
from entrypoint.common.paths import Paths

_SOFTWARE = 70  # EX_SOFTWARE
# Seconds between its looks at what to start, restart or stop. Its own one second would pass before
# the first program starts, and again before a killed one is back.
_PATIENCE = 0.1
# Mail goes on without these.
_EXTRAS = frozenset({"recorder", "policy", "auth", "gate"})


class _Poller(poller.Poller):  # type: ignore[misc]
    def poll(self, timeout: float) -> Any:
        return super().poll(min(timeout, _PATIENCE))


class _Lines:
    """Where supervisord's own log goes."""

    def write(self, content: bytes | str) -> None:
        text = content.decode(errors="replace") if isinstance(content, bytes) else content
        for line in text.splitlines():
            log.log("init", line)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Watch:
    """Told of each change of a program's state."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fatal = False
        self._started = time.time()
        self._programs: dict[str, dict[str, Any]] = {}

    def changed(self, event: Any) -> None:
        name = str(event.process.config.name)
        state = states.getProcessStateDescription(event.process.state).lower()
        self._programs[name] = {"state": state, "since": time.time(), "pid": event.process.pid}
        self._write()
        if state == "fatal":
            self._end(name)

    def _write(self) -> None:
        content = json.dumps({"started": self._started, "programs": self._programs}).encode()
        try:
            files.write(self.path, content, mode=0o644)  # only its readers may enter the folder
        except OSError as error:  # mail goes on; `status` will not know
            log.log("init", f"error: {self.path} cannot be written: {error.strerror}")

    def _end(self, name: str) -> None:
        """A program that cannot be kept running ends the container: its restart policy tries
        afresh, and monitoring sees it."""
        said = f"error: {name} cannot be kept running; its reason is above."
        if name in _EXTRAS:
            log.log("init", f"{said} Mail goes on without it.")
            return
        log.log("init", f"{said} Ending the container.")
        self.fatal = True
        os.kill(os.getpid(), signal.SIGTERM)


class _Supervisor(supervisord.Supervisor):  # type: ignore[misc]
    def __init__(self, options: Any, watch: Watch) -> None:
        super().__init__(options)
        self._watch = watch

    def runforever(self) -> None:
        # Not earlier: all subscriptions are dropped before.
        events.subscribe(events.ProcessStateEvent, self._watch.changed)
        super().runforever()


def main() -> int:
    """Supervises until it is told to end. Status 70 (EX_SOFTWARE) if a program gave up for good."""
    style = sys.argv[1]
    log.configure(style, "init")
    paths = Paths()
    watch = Watch(paths.programs)
    poller.Poller = _Poller
    supervisord.Supervisor = lambda options: _Supervisor(options, watch)
    # For supervisord.conf:
    os.environ.update(TAMBO_LOG=style, TAMBO_SMTP=sys.argv[2], TAMBO_GATE=sys.argv[3])
    loggers.handle_stdout = _handle_stdout
    supervisord.main(["-c", str(paths.lib / "supervisord.conf")])
    return _SOFTWARE if watch.fatal else 0


def _handle_stdout(logger: Any, _format: str) -> None:
    """supervisord's handler of its own log while it is in the foreground."""
    handler = loggers.StreamHandler(_Lines())
    handler.setFormat("%(levelname)s %(message)s\n")
    handler.setLevel(logger.level)
    logger.addHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
