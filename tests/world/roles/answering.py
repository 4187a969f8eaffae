#!/usr/bin/env python3
"""answering.py NET4 NET6 FILE: the receivers that no mail server can be configured to be.

At .32 every recipient gets the reply that FILE (a JSON object) has for its local part; at .33 a
connection is accepted and never spoken to; at .34 nothing is answered at all.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from contextlib import suppress
from pathlib import Path

HELD: list[socket.socket] = []


async def answer(
    replies: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    def say(text: str) -> None:
        writer.write(f"{text}\r\n".encode())

    say("220 mx-answers.difficult.example ESMTP")
    with suppress(OSError, ValueError):
        while line := (await reader.readline()).decode(errors="replace").strip():
            verb = line[:4].upper()
            if verb == "RCPT":
                local = line.partition("<")[2].partition("@")[0]
                say(replies.get(local, "550 5.1.1 nobody of this name"))
            elif verb == "QUIT":
                say("221 2.0.0 bye")
                break
            elif verb in ("EHLO", "HELO", "MAIL", "RSET", "NOOP"):
                say("250 2.0.0 fine")
            else:
                say("503 5.5.1 not now")
            await writer.drain()
    writer.close()


async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while await reader.read(1000):
            pass
    writer.close()


def black_hole(address: str) -> None:
    """A listener whose queue is full: Linux then drops what asks for a connection."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, 25))
    listener.listen(0)
    HELD.append(listener)
    for _ in range(3):
        client = socket.socket(family)
        client.settimeout(0.3)
        with suppress(OSError):
            client.connect((address, 25))
        HELD.append(client)


async def main() -> None:
    net4, net6, file = sys.argv[1:]
    replies = json.loads(Path(file).read_text())
    for net in (f"{net4}.", f"{net6}::"):
        await asyncio.start_server(lambda r, w: answer(replies, r, w), f"{net}32", 25)
        await asyncio.start_server(keep_silent, f"{net}33", 25)
        black_hole(f"{net}34")
    print("answering", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
