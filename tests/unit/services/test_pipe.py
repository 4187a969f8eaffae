"""Bytes between two sockets: whole, in order, each end passed on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from entrypoint.services import pipe
from entrypoint.services.pipe import Pipe

MEGABYTE = 1 << 20


class Ends:
    """Two parties whose sockets a pipe joins."""

    def __init__(self) -> None:
        self.client, one = socket.socketpair()
        other, self.server = socket.socketpair()
        for item in (self.client, one, other, self.server):
            item.setblocking(False)
        self.ended = 0
        self.pipe = Pipe(one, other, self._end)

    def _end(self) -> None:
        self.ended += 1


def joined(work: Callable[[Ends], Coroutine[Any, Any, None]]) -> Ends:
    async def main() -> Ends:
        ends = Ends()
        async with asyncio.timeout(20):
            await work(ends)
            await asyncio.sleep(0.05)
        for item in (ends.client, ends.server):
            item.close()
        return ends

    return asyncio.run(main())


async def read_all(source: socket.socket) -> bytes:
    found = b""
    while chunk := await asyncio.get_running_loop().sock_recv(source, MEGABYTE):
        found += chunk
    return found


def test_forty_megabytes_pass_each_way_unchanged() -> None:
    content, answer = os.urandom(40 * MEGABYTE), os.urandom(3 * MEGABYTE)

    async def work(ends: Ends) -> None:
        loop = asyncio.get_running_loop()

        async def say(target: socket.socket, what: bytes) -> None:
            await loop.sock_sendall(target, what)
            target.shutdown(socket.SHUT_WR)

        _, _, arrived, answered = await asyncio.gather(
            say(ends.client, content), say(ends.server, answer),
            read_all(ends.server), read_all(ends.client),
        )  # fmt: skip
        assert hashlib.sha256(arrived).digest() == hashlib.sha256(content).digest()
        assert answered == answer

    assert joined(work).ended == 1


def test_one_end_may_go_on_after_the_other_has_said_all() -> None:
    async def work(ends: Ends) -> None:
        loop = asyncio.get_running_loop()
        ends.client.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(ends.server, 10) == b""
        await loop.sock_sendall(ends.server, b"221 bye\r\n")
        assert await loop.sock_recv(ends.client, 100) == b"221 bye\r\n"
        assert ends.ended == 0
        ends.server.close()

    assert joined(work).ended == 1


def test_a_side_that_never_ends_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "_LINGER", 0.1)

    async def work(ends: Ends) -> None:
        ends.client.close()
        await asyncio.sleep(0.3)
        assert ends.ended == 1
        assert await read_all(ends.server) == b""

    joined(work)


def test_a_reader_that_does_not_read_holds_the_writer_up() -> None:
    async def work(ends: Ends) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(loop.sock_sendall(ends.client, bytes(40 * MEGABYTE)))
        await asyncio.sleep(0.3)
        assert not task.done()
        held = [len(content) for content in ends.pipe._unsent.values()]
        assert 0 < sum(held) <= pipe._CHUNK
        task.cancel()

    joined(work)


def test_closing_it_twice_ends_it_once() -> None:
    async def work(ends: Ends) -> None:
        ends.pipe.close()
        ends.pipe.close()

    assert joined(work).ended == 1
