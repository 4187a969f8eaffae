"""connect(2) of a real child, answered by the holder's part with a real gate beside it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common import seccomp
from entrypoint.services import outgoing
from entrypoint.services.outgoing import _AWAY, _MOST_CHECKED, Outgoing
from tests.unit.services import test_gate
from tests.unit.services.test_gate import GREETING, Receiver, World

pytestmark = pytest.mark.loopback

REPOSITORY = Path(__file__).parents[3]


def sockaddr(address: str, port: int) -> bytes:
    if ":" in address:
        return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + socket.inet_pton(
            socket.AF_INET6, address
        ) + bytes(4)  # fmt: skip
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(
        address
    ) + bytes(8)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (sockaddr("198.51.100.7", 25), "198.51.100.7"),
        (sockaddr("2001:db8::7", 25), "2001:db8::7"),
        (sockaddr("::ffff:198.51.100.7", 25), "198.51.100.7"),
        (sockaddr("198.51.100.7", 53), None),
        (sockaddr("2001:db8::7", 587), None),
        (struct.pack("=H", socket.AF_UNIX) + b"\0\x19/run/x".ljust(26, b"\0"), None),
        (b"", None),
        (sockaddr("198.51.100.7", 25)[:15], None),
        (sockaddr("2001:db8::7", 25)[:23], None),
        (struct.pack("=H", socket.AF_NETLINK) + b"\0\x19" + bytes(12), None),
    ],
)
def test_only_port_25_is_a_destination(name: bytes, found: str | None) -> None:
    assert outgoing.destination(name) == found


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::7"])
def test_what_is_led_keeps_its_family_and_length(address: str) -> None:
    name = sockaddr(address, 25)
    led = outgoing.led(name, 4711)
    assert (led[:2], len(led)) == (name[:2], len(name))
    assert struct.unpack("!H", led[2:4]) == (4711,)
    assert outgoing.destination(outgoing.led(name, 25)) == "127.0.0.1"


class Calls:
    """The holder's part for a child: connects to addresses and hands their calls to `outgoing`."""

    def __init__(self, outgoing: Outgoing) -> None:
        self.outgoing = outgoing

    async def connect(self, *addresses: str) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.unit.services.connector", str(theirs.fileno()), *addresses,
            cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, pass_fds=(theirs.fileno(),),
        )  # fmt: skip
        theirs.close()
        with ours:
            listener = await asyncio.to_thread(seccomp.receive_listener, ours, 20.0)
        loop.add_reader(listener, self._called, listener)
        try:
            output, _ = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            loop.remove_reader(listener)
            self.outgoing.forget()
            listener.close()
        return [json.loads(line) for line in output.splitlines()]

    def _called(self, listener: seccomp.Listener) -> None:
        try:
            while call := listener.receive():
                self.outgoing.called(listener, call)
        except EOFError:
            asyncio.get_running_loop().remove_reader(listener)


Work = Callable[[World, Outgoing, Calls], Coroutine[Any, Any, None]]


def run(folder: Path, work: Work, *, ipv6: bool = True) -> list[str]:
    """`work` with a gate and the holder's part; the lines that this logged."""
    lines: list[str] = []

    async def inner(world: World) -> None:
        outgoing = Outgoing(folder / "door", ipv6, lambda _, line: lines.append(line))
        task = asyncio.create_task(outgoing.run())
        try:
            await work(world, outgoing, Calls(outgoing))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.05)  # its connection is closed by then

    test_gate.run(folder, inner)
    return lines


async def linked(outgoing: Outgoing) -> None:
    async with asyncio.timeout(5):
        while not outgoing.status()["gate"]:
            await asyncio.sleep(0.01)


def test_a_connection_to_port_25_goes_through_the_gate(tmp_path: Path) -> None:
    async def work(world: World, outgoing: Outgoing, calls: Calls) -> None:
        receiver = await world.receiver(Receiver("127.0.0.2"))
        await linked(outgoing)
        found = await calls.connect(*["127.0.0.2"] * 5)
        assert {item["greeting"] for item in found} == {GREETING.decode()}
        assert {item["peer"] for item in found} == {"127.0.0.1"}
        assert receiver.peak >= 1
        assert outgoing.status()["unpaced"] == 0

    run(tmp_path, work)


def test_an_ipv6_socket_is_led_too(tmp_path: Path) -> None:
    async def work(world: World, outgoing: Outgoing, calls: Calls) -> None:
        await world.receiver(Receiver("127.0.0.2"))
        await linked(outgoing)
        (found,) = await calls.connect("::ffff:127.0.0.2")
        assert found["greeting"] == GREETING.decode()
        assert found["peer"] == "::ffff:127.0.0.1"

    run(tmp_path, work)


def test_an_address_that_refuses_gives_its_errno_at_once(tmp_path: Path) -> None:
    async def work(_: World, outgoing: Outgoing, calls: Calls) -> None:
        await linked(outgoing)
        begun = time.monotonic()
        assert [item["error"] for item in await calls.connect("127.0.0.9")] == ["ECONNREFUSED"]
        assert [item["error"] for item in await calls.connect("127.0.0.9")] == ["ECONNREFUSED"]
        assert time.monotonic() - begun < 8

    run(tmp_path, work)


def test_nothing_leaves_by_ipv6_where_there_is_none(tmp_path: Path) -> None:
    async def work(_: World, outgoing: Outgoing, calls: Calls) -> None:
        await linked(outgoing)
        (found,) = await calls.connect("2001:db8::7")
        assert found["error"] == "ENETUNREACH"
        assert outgoing.status()["ipv6_refused"] == 1

    run(tmp_path, work, ipv6=False)


def test_without_a_gate_calls_wait_for_two_seconds_and_go_on(tmp_path: Path) -> None:
    async def work(_: World, outgoing: Outgoing, calls: Calls) -> None:
        outgoing.path = tmp_path / "nobody"
        begun = time.monotonic()
        found = await calls.connect("127.0.0.9", "127.0.0.8")
        # Nobody listens on port 25 there: what matters is that the kernel was asked.
        assert {item["error"] for item in found} == {"ECONNREFUSED"}
        assert time.monotonic() - begun >= _AWAY
        assert outgoing.status()["unpaced"] == 2
        await asyncio.sleep(0.3)

    assert any("2 connections went out unpaced" in line for line in run(tmp_path, work))


def test_a_gate_that_is_stopped_counts_as_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "_SILENCE", 0.6)

    async def work(_: World, outgoing: Outgoing, calls: Calls) -> None:
        mute = socket.socket(socket.AF_UNIX)
        mute.bind(str(tmp_path / "mute"))
        mute.listen(8)  # the kernel takes connections, and nobody answers
        outgoing.path = tmp_path / "mute"
        (found,) = await calls.connect("127.0.0.9")
        assert found["error"] == "ECONNREFUSED"
        assert outgoing.status() == {**outgoing.status(), "gate": False, "unpaced": 1}
        mute.close()

    run(tmp_path, work)


def test_a_gate_that_comes_back_is_asked_again(tmp_path: Path) -> None:
    async def work(world: World, outgoing: Outgoing, calls: Calls) -> None:
        await world.receiver(Receiver("127.0.0.2"))
        outgoing.path = tmp_path / "later"
        await asyncio.sleep(0.5)
        task = asyncio.create_task(calls.connect("127.0.0.2"))
        await asyncio.sleep(0.5)
        (tmp_path / "later").symlink_to(tmp_path / "door")
        (found,) = await task
        assert found["greeting"] == GREETING.decode()

    run(tmp_path, work)


def test_forty_calls_at_once_to_an_address_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many wait for its first connection as may, the others are led at once."""
    monkeypatch.setattr(outgoing, "_CHECK", 1.0)

    async def work(world: World, outgoing: Outgoing, calls: Calls) -> None:
        # Its queue of one is full, so that nobody's connection is taken.
        deaf = socket.socket()
        deaf.bind(("127.0.0.3", world.port))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.3", world.port))
        await linked(outgoing)
        task = asyncio.create_task(calls.connect(*["127.0.0.3"] * 40))
        most = 0
        async with asyncio.timeout(20):
            while (
                len(world.gate.lines) == 0
                or sum(len(line.waiting) + line.window.in_use for line in world.gate.lines.values())
                < 40
            ):
                most = max(most, outgoing.status()["waiting"])
                await asyncio.sleep(0.01)
        assert 0 < most <= _MOST_CHECKED
        deaf.close()
        for filler in fillers:
            filler.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(tmp_path, work)
