"""A receiver that takes so many connections at once, each message for so long: what it saw.

    limited.py MOST SECONDS        on port 25 of all addresses

What is written to its port 9999, a JSON object, changes `most`, `seconds` and `reply` (to RCPT);
it answers with its counts. No TLS.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any


class Limited:
    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds, self.reply = most, seconds, ""
        self.here = self.peak = self.refused = 0
        self.subjects: list[str] = []
        self.times: list[float] = []
        self.peers: dict[str, int] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.here >= self.most:
            self.refused += 1
            writer.write(b"421 4.7.0 too many connections\r\n")
            writer.close()
            return
        self.here += 1
        self.peak = max(self.peak, self.here)
        peer = writer.get_extra_info("peername")[0]
        self.peers[peer] = self.peers.get(peer, 0) + 1
        try:
            writer.write(b"220 limited ESMTP\r\n")
            while line := await reader.readline():
                writer.write(await self.answer(line.upper(), reader, writer))
                if line.upper().startswith(b"QUIT"):
                    break
            await writer.drain()
        except OSError:
            pass
        finally:
            self.here -= 1
            writer.close()

    async def answer(
        self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        verb = line[:4]
        if verb == b"EHLO":
            return b"250-limited\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
        if verb == b"RCPT" and self.reply:
            return self.reply.encode() + b"\r\n"
        if verb == b"DATA":
            writer.write(b"354 go\r\n")
            subject = ""
            while (line := await reader.readline()) not in (b".\r\n", b""):
                if line.startswith(b"Subject: "):
                    subject = line[9:].decode().strip()
            await asyncio.sleep(self.seconds)
            self.subjects.append(subject)
            self.times.append(time.time())
            return b"250 ok\r\n"
        if verb == b"QUIT":
            return b"221 bye\r\n"
        return b"502 no\r\n" if verb == b"STAR" else b"250 ok\r\n"

    def counts(self) -> dict[str, Any]:
        return {
            "here": self.here, "peak": self.peak, "refused": self.refused,
            "subjects": self.subjects, "times": self.times, "peers": self.peers,
        }  # fmt: skip

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for name, value in json.loads(await reader.readline()).items():
            setattr(self, name, value)
        writer.write(json.dumps(self.counts()).encode() + b"\n")
        await writer.drain()
        writer.close()


async def main() -> None:
    limited = Limited(int(sys.argv[1]), float(sys.argv[2]))
    await asyncio.start_server(limited.serve, None, 25, backlog=4096)
    await asyncio.start_server(limited.control, None, 9999)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
