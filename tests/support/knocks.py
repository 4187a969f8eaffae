"""Those who connect all the time, whatever the server is at."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle

from tests.support import smtp
from tests.support.server import Server

RATE = 50  # connections a second


@dataclass
class Knocks:
    """Connections at a steady rate, in turn to every port of both families."""

    server: Server
    outcomes: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _connect(self, address: str, port: int) -> None:
        since = time.monotonic()
        try:
            with socket.create_connection((address, port), timeout=10) as connection:
                outcome = "connected"
                if port != smtp.SUBMISSIONS:
                    greeting = connection.recv(1000)
                    outcome = "greeted" if greeting.startswith(b"220 ") else "cut off"
        except ConnectionRefusedError:
            outcome = "refused"
        except ConnectionResetError:
            outcome = "cut off"
        except TimeoutError:
            outcome = "timed out"
        self.outcomes[outcome] += 1
        self.longest = max(self.longest, time.monotonic() - since)

    def _run(self) -> None:
        targets = cycle(
            (address, port)
            for port in (smtp.SMTP, smtp.SUBMISSION, smtp.SUBMISSIONS)
            for address in (self.server.ipv4, self.server.ipv6)
        )
        due = time.monotonic()
        while not self._stop.is_set():
            thread = threading.Thread(target=self._connect, args=next(targets))
            thread.start()
            self._threads.append(thread)
            due += 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))

    @contextmanager
    def going_on(self) -> Iterator[None]:
        runner = threading.Thread(target=self._run)
        runner.start()
        try:
            yield
        finally:
            self._stop.set()
            runner.join()
            for thread in self._threads:
                thread.join()
