"""A child under the filter, that connects as chasquid does: for test_outgoing.py.

    connector FD ADDRESS…      FD is a socket that the listener is sent over

Connects to port 25 of each address at once, a thread each, and prints a JSON object a line: the
address, the greeting or the name of the error, and the peer.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import threading

from entrypoint.common import seccomp
from entrypoint.services.outgoing import SMTP


def connect(address: str, lock: threading.Lock) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    said = {"address": address}
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        try:
            connection.connect((address, SMTP))
            said["peer"] = connection.getpeername()[0]
            said["greeting"] = connection.recv(1000).decode()
        except OSError as error:
            said["error"] = errno.errorcode.get(error.errno or 0, str(error))
    with lock:
        print(json.dumps(said), flush=True)


def main() -> None:
    machine = seccomp.architecture()
    with socket.socket(fileno=int(sys.argv[1])) as to:
        seccomp.install_and_send(seccomp.Filter((machine.connect,), 1 << 30), to)
    lock = threading.Lock()
    threads = [threading.Thread(target=connect, args=(item, lock)) for item in sys.argv[2:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
