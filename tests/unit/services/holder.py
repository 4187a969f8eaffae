"""The socket holder with a chasquid of the tests' own.

    python -m tests.unit.services.holder FOLDER CONSTANTS

FOLDER gets its sockets; CONSTANTS is a JSON object of services/holder.py's names and shorter
times.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

from entrypoint.common import rpc
from entrypoint.common.identity import Ids, Owner
from entrypoint.history.buffer import Outbox
from entrypoint.services import holder

SOCKETS = (("smtp", "smtp4"), ("smtp", "smtp6"), ("submission", "submission"))
FAKE = Path(__file__).with_name("fake_chasquid.py")


def main() -> None:
    place = Path(sys.argv[1])
    for name, value in json.loads(sys.argv[2]).items():
        assert hasattr(holder, name), name
        setattr(holder, name, value)
    sockets = []
    for name, file in SOCKETS:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place / file))
        listener.listen(1000)
        sockets.append((name, listener))
    door = rpc.listen(place / "door", Ids.current(), Owner.TAMBO, 64)
    argv = (sys.executable, "-I", "-S", str(FAKE), str(place))
    environ = holder.environment(has_ipv6=False, memory_limit=1000)
    outbox = Outbox(place / "recorder", keep_days=30)
    asyncio.run(holder.Holder(argv, environ, sockets, outbox, place).run(door))


if __name__ == "__main__":
    main()
