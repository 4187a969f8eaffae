"""A stand-in for chasquid: its sockets, its words, its signals. Standard library, for speed.

    fake_chasquid.py FOLDER

FOLDER/behaviour says in JSON what is unusual this time (read at the start). It notes in FOLDER:
`starts`, one line each; `read`, what FOLDER/users held when it was read last.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

PLACE = Path(sys.argv[1])


def say(text: str) -> None:
    """As chasquid's own log writes to standard error: a level first."""
    os.write(2, f"{text}\n".encode(errors="surrogateescape"))


def behaviour() -> dict[str, Any]:
    path = PLACE / "behaviour"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def read_users() -> None:
    path = PLACE / "users"
    aside = PLACE / f"read.{os.getpid()}"
    aside.write_text(path.read_text() if path.exists() else "")
    aside.replace(PLACE / "read")


def serve(listeners: list[socket.socket], told: dict[str, Any]) -> None:
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for listener in listeners:
        if not told.get("mute"):
            say(f"_ server.go:335             Server listening on {listener.getsockname()} (SMTP)")
    by_number = {listener.fileno(): listener for listener in listeners}
    while True:
        ready, _, _ = select.select([awake, *by_number], [], [])
        for fd in set(ready) & set(by_number):
            connection, _ = by_number[fd].accept()
            connection.sendall(f"{os.getpid()}\n".encode())
            connection.close()
        if awake in ready:
            numbers = set(os.read(awake, 100))
            if signal.SIGHUP in numbers:
                say("_ chasquid.go:203           Received SIGHUP, reloading")
                if told.get("dies_of_reload"):
                    say("☠ server.go:295             Error reloading aliases: line 3: odd")
                    os._exit(1)  # as Go's os.Exit: no second signal gets in between
                time.sleep(0.04)  # between the words and the deed
                read_users()
            if signal.SIGTERM in numbers and not told.get("deaf"):
                say("_ chasquid.go:226           Got signal to exit: terminated")
                sys.exit(0)


def main() -> None:
    with (PLACE / "starts").open("a") as file:
        file.write(f"{os.getpid()} {time.monotonic()}\n")
    told = behaviour()
    say("_ chasquid.go:53            chasquid starting (version 1.19.0)")
    if "LISTEN_PID" in os.environ and os.environ["LISTEN_PID"] != str(os.getpid()):
        sys.exit(111)
    (PLACE / "environ").write_text(json.dumps(dict(os.environ)))
    for text in told.get("errors", []):
        say(text)
    if told.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "die" in told:
        sys.exit(told["die"])
    read_users()
    for text in told.get("mail", []):
        os.write(1, text.encode(errors="surrogateescape"))
    names = os.environ["LISTEN_FDNAMES"].split(":")
    serve([socket.socket(fileno=3 + index) for index in range(len(names))], told)


main()
