"""Many clients: a steady stream of connections, each as far as the server's certificate."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from tests.support.certserver import PORTS, leaf


@dataclass(frozen=True)
class Sample:
    """One connection: when it was begun (seconds since 1970), and what became of it.

    If `error` is set, `fingerprint` is of the certificate that a second try saw.
    """

    begun: float
    port: int
    fingerprint: str
    error: str = ""
    refused: bool = False


class Load:
    """While it is entered, so many connections a second are made, to each port in turn."""

    def __init__(self, address: str, name: str, per_second: int) -> None:
        self._address, self._name, self._pause = address, name, 1 / per_second
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(per_second)
        self._futures: list[Future[Sample]] = []
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()

    @property
    def samples(self) -> list[Sample]:
        """What became of them, once it is left."""
        return [future.result() for future in self._futures]

    def _work(self) -> None:
        begun = time.monotonic()
        while not self._stop.wait(max(0.0, begun - time.monotonic())):
            port = PORTS[len(self._futures) % len(PORTS)]
            self._futures.append(self._pool.submit(self._connect, port))
            begun += self._pause

    def _connect(self, port: int) -> Sample:
        begun = time.time()
        try:
            return Sample(begun, port, leaf(self._address, port, self._name))
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            again = leaf(self._address, port, self._name)
            return Sample(begun, port, again, repr(error), refused)
