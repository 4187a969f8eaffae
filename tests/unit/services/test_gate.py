"""The gate between real sockets: receivers on 127.0.0.0/8, connections as chasquid makes them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.common.paths import Paths
from entrypoint.delivery import operators
from entrypoint.policy.decide import Envelope, LoginRules, Rules
from entrypoint.services import gate
from entrypoint.services.exchangers import Exchangers, Host, owner_of
from entrypoint.services.gate import Gate, Options
from entrypoint.services.pacing import Pacing

pytestmark = pytest.mark.loopback

GREETING = b"220 mx.example.net ESMTP\r\n"
BUSY = b"421 4.7.0 too many connections\r\n"


@dataclass
class Receiver:
    """A mail server at an address: takes `most` connections at once, each for `seconds`."""

    address: str
    most: int = 1000
    seconds: float = 0.0
    greeting: bytes = GREETING
    here: int = 0
    peak: int = 0
    served: int = 0
    refused: int = 0
    bytes: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.here >= self.most:
            self.refused += 1
            writer.write(BUSY)
            writer.close()
            return
        self.here += 1
        self.peak = max(self.peak, self.here)
        try:
            await asyncio.sleep(self.seconds)
            writer.write(self.greeting)
            while chunk := await reader.read(65536):
                self.bytes += len(chunk)
                if chunk.endswith(b"QUIT\r\n"):
                    writer.write(b"221 bye\r\n")
                    break
            await writer.drain()
            self.served += 1
        except OSError:
            pass
        finally:
            self.here -= 1
            writer.close()


@dataclass
class World:
    """A running gate, and the holder's end of its socket."""

    gate: Gate
    folder: Path
    port: int
    stack: AsyncExitStack
    reader: asyncio.StreamReader = field(init=False)
    writer: asyncio.StreamWriter = field(init=False)
    listening: asyncio.Task[None] = field(init=False)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)

    async def receiver(self, receiver: Receiver) -> Receiver:
        server = await asyncio.start_server(
            receiver.serve, receiver.address, self.port, backlog=1000
        )
        self.stack.callback(server.close)
        return receiver

    async def link(self) -> None:
        self.reader, self.writer = await asyncio.open_unix_connection(str(self.folder / "door"))
        self.writer.write(b'link {"ping": 1}\n')
        await self.reader.readline()
        self.listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while line := await self.reader.readline():
            said = json.loads(line)
            self.told.setdefault(said.get("address", ""), {}).update(said)

    def say(self, content: dict[str, Any]) -> None:
        self.writer.write(json.dumps(content).encode() + b"\n")

    async def hear(self, address: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What the gate has said of an address, once it is as wanted."""
        async with asyncio.timeout(10):
            while not wanted(self.told.setdefault(address, {})):
                await asyncio.sleep(0.01)
        return self.told[address]

    async def wanted(self, address: str) -> int:
        self.say({"connect": address})
        return int((await self.hear(address, lambda said: "port" in said))["port"])

    async def mail(self, address: str, content: bytes = b"") -> bytes:
        """The greeting, as a connection of chasquid's to an address gets it."""
        port = self.told.get(address, {}).get("port") or await self.wanted(address)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            greeting = await reader.readline()
            if greeting.startswith(b"220"):
                writer.write(content + b"QUIT\r\n")
                await reader.read()
            return greeting
        finally:
            writer.close()

    async def ask(self, command: str, content: Any = None) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "door"))
        writer.write(f"{command} {json.dumps(content)}\n".encode())
        found = json.loads(await reader.readline())
        writer.close()
        assert isinstance(found, dict)
        return found


def run(
    folder: Path,
    work: Callable[[World], Coroutine[Any, Any, None]],
    options: Options = Options(),  # noqa: B008 (frozen)
    hosts: dict[str, list[Host]] | None = None,
) -> Gate:
    """`hosts` are the exchangers by domain, as DNS would have them."""

    async def main() -> Gate:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        gate = Gate(options, folder / "receivers.json", port=port)
        gate.exchangers = Exchangers(gate._found, lambda domain: (hosts or {}).get(domain, []))
        door = socket.socket(socket.AF_UNIX)
        door.bind(str(folder / "door"))
        door.listen(64)
        async with AsyncExitStack() as stack:
            task = asyncio.create_task(gate.run(door))
            world = World(gate, folder, port, stack)
            await world.link()
            try:
                async with asyncio.timeout(60):
                    await work(world)
            finally:
                world.writer.close()
                world.listening.cancel()
                gate.stop.set()
                await task
                await asyncio.sleep(0.05)  # all connections are closed by then
        return gate

    return asyncio.run(main())


def test_no_more_connections_than_places_and_all_get_through(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        receiver = await world.receiver(Receiver("127.0.0.2", most=20, seconds=0.1))
        await world.wanted("127.0.0.2")
        greetings = await asyncio.gather(*(world.mail("127.0.0.2") for _ in range(300)))
        assert set(greetings) == {GREETING}
        assert receiver.served == 300
        assert receiver.peak <= 20
        assert receiver.refused <= 5

    run(tmp_path, work)


def test_a_receiver_that_hangs_holds_nobody_else_up(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await world.receiver(Receiver("127.0.0.2", seconds=30))
        await world.receiver(Receiver("127.0.1.3"))
        hanging = [asyncio.create_task(world.mail("127.0.0.2")) for _ in range(100)]
        await asyncio.sleep(0.5)
        begun = time.monotonic()
        assert await world.mail("127.0.1.3") == GREETING
        assert time.monotonic() - begun < 1
        for task in hanging:
            task.cancel()

    run(tmp_path, work)


def test_chasquid_that_gives_up_frees_its_place(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await world.receiver(Receiver("127.0.0.2", seconds=30))
        tasks = [asyncio.create_task(world.mail("127.0.0.2")) for _ in range(50)]
        await asyncio.sleep(0.5)
        (line,) = world.gate.lines.values()
        assert line.window.in_use == 10
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(5):
            while line.window.in_use or any(not item.gone for item in line.waiting):
                await asyncio.sleep(0.05)

    run(tmp_path, work)


def test_an_address_that_refuses_is_said_to_be_unreachable(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        await world.wanted("127.0.0.9")
        said = await world.hear("127.0.0.9", lambda said: "errno" in said)
        assert said["errno"] == 111  # ECONNREFUSED
        # Whoever is led there before that is known gets the reason.
        assert (await world.mail("127.0.0.9")).startswith(b"421 4.4.1 tambo: 127.0.0.9: ")

    run(tmp_path, work)


def test_mail_goes_to_no_address_but_the_one_that_was_asked_for(tmp_path: Path) -> None:
    """Whoever names a dead receiver's address beside his own gets nothing of its mail."""
    thief = Host("mx.example.net", None, ("127.0.0.9", "127.0.0.2"), "example.net")

    async def work(world: World) -> None:
        receiver = await world.receiver(Receiver("127.0.0.2"))
        await world.ask("admit", {"login": "i@example.com", "to": ["a@example.net"]})
        async with asyncio.timeout(5):
            while not world.gate.exchangers.addresses_for("example.net"):
                await asyncio.sleep(0.02)
        assert (await world.mail("127.0.0.9")).startswith(b"421 4.4.1 tambo: 127.0.0.9: ")
        assert receiver.here + receiver.served == 0

    run(tmp_path, work, hosts={"example.net": [thief]})


def test_nobody_moves_an_operator_s_address_into_a_line_of_his_own(tmp_path: Path) -> None:
    google = operators.get("google")
    real = Host("aspmx.l.google.com", google, ("127.0.0.2",), "google.com")
    claim = Host("mx.example.org", None, ("127.0.0.2", "127.0.9.3"), "example.org")
    other = Host("mx.example.net", None, ("127.0.9.3",), "example.net")

    async def work(world: World) -> None:
        for name in ("gmail.example", "example.org", "example.net"):
            await world.ask("admit", {"login": "i@example.com", "to": [f"a@{name}"]})
            async with asyncio.timeout(5):
                while not world.gate.exchangers.addresses_for(name):
                    await asyncio.sleep(0.02)
        assert world.gate._line_of("127.0.0.2").key == "google"
        assert world.gate._line_of("127.0.9.3").key == "127.0.9.0/24", "two claim it"
        assert world.gate.key_of("a@gmail.example") == "google"
        assert world.gate.key_of("a@example.org") == "example.org", "it is of several lines"

    hosts = {"gmail.example": [real], "example.org": [claim], "example.net": [other]}
    run(tmp_path, work, hosts=hosts)


def test_chasquid_that_is_gone_before_its_turn_has_begun_gives_its_place_back(
    tmp_path: Path,
) -> None:
    async def work(world: World) -> None:
        await world.receiver(Receiver("127.0.0.2"))
        port = await world.wanted("127.0.0.2")
        await world.mail("127.0.0.2")
        (line,) = world.gate.lines.values()
        for _ in range(30):
            with socket.socket() as client:
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.connect(("127.0.0.1", port))
        async with asyncio.timeout(5):
            while line.window.in_use or line.waiting:
                await asyncio.sleep(0.05)

    run(tmp_path, work)


def test_exchangers_of_one_operator_share_a_window(tmp_path: Path) -> None:
    google = operators.get("google")
    assert google is not None
    host = Host("mx1.google.com", google, ("127.0.0.2",))
    other = Host("mx2.google.com", google, ("127.0.9.3",))

    async def work(world: World) -> None:
        await world.receiver(Receiver("127.0.0.2", seconds=30))
        await world.receiver(Receiver("127.0.9.3", seconds=30))
        for name in ("example.net", "example.org"):
            await world.ask("admit", {"login": "i@example.com", "to": [f"a@{name}"]})
        async with asyncio.timeout(5):
            while not world.gate.exchangers.addresses_for("example.org"):
                await asyncio.sleep(0.02)
        tasks = [asyncio.create_task(world.mail(item))
                 for item in ("127.0.0.2", "127.0.9.3") for _ in range(60)]  # fmt: skip
        await asyncio.sleep(0.7)
        assert set(world.gate.lines) == {"google"}
        line = world.gate.lines["google"]
        assert line.title == google.title
        assert line.window.in_use == google.connections
        assert len(line.waiting) == 120 - google.connections
        for task in tasks:
            task.cancel()

    run(tmp_path, work, hosts={"example.net": [host], "example.org": [other]})


@pytest.mark.parametrize("has", [True, False])
def test_a_greeting_tells_the_operator_if_its_name_has_that_address(
    tmp_path: Path, has: bool
) -> None:
    async def work(world: World) -> None:
        world.gate.exchangers._addresses_of = lambda name: frozenset(
            ["127.0.0.2"] if has and name == "mx.google.com" else []
        )
        greeting = b"220 mx.google.com ESMTP x - gsmtp\r\n"
        await world.receiver(Receiver("127.0.0.2", greeting=greeting))
        await world.mail("127.0.0.2")
        async with asyncio.timeout(5):
            while world.gate.exchangers._asked:
                await asyncio.sleep(0.01)
        await world.mail("127.0.0.2")
        found = (await world.ask("receivers"))["receivers"]
        assert ("google" in {item["key"] for item in found}) is has

    run(tmp_path, work)


def test_who_waits_for_too_long_is_told_the_length_of_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_PATIENCE", 0.5)

    async def work(world: World) -> None:
        await world.receiver(Receiver("127.0.0.2", seconds=30))
        tasks = [asyncio.create_task(world.mail("127.0.0.2")) for _ in range(15)]
        await asyncio.sleep(2.5)
        done = [task.result() for task in tasks if task.done()]
        assert len(done) == 5
        assert all(item.startswith(b"421 4.3.2 tambo: ") for item in done)
        assert b"messages wait for 127.0.0.0/24" in done[0]
        for task in tasks:
            task.cancel()

    run(tmp_path, work)


def test_what_a_receiver_says_last_is_passed_on_to_who_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_PATIENCE", 0.5)

    async def work(world: World) -> None:
        receiver = await world.receiver(Receiver("127.0.0.2", most=0))
        greeting = await world.mail("127.0.0.2")
        assert greeting.startswith(b"421 4.3.2 tambo: ")
        assert b"its last word: 421 4.7.0 too many connections" in greeting
        assert receiver.refused >= 1

    run(tmp_path, work)


@pytest.mark.parametrize("size", [0, 1, 65536, 40 << 20])
def test_a_message_passes_byte_for_byte(tmp_path: Path, size: int) -> None:
    async def work(world: World) -> None:
        receiver = await world.receiver(Receiver("127.0.0.2"))
        await world.mail("127.0.0.2", bytes(size))
        assert receiver.bytes == size + len(b"QUIT\r\n")

    run(tmp_path, work)


def test_exchangers_below_one_domain_are_one_operators(tmp_path: Path) -> None:
    hosts = {
        name: [Host(f"mx.{name}", None, (address,), "hoster.example")]
        for name, address in (("example.net", "127.0.0.2"), ("example.org", "127.0.9.3"))
    }

    async def work(world: World) -> None:
        for name, (host,) in hosts.items():
            await world.receiver(Receiver(host.addresses[0]))
            await world.ask("admit", {"login": "i@example.com", "to": [f"a@{name}"]})
        async with asyncio.timeout(5):
            while not world.gate.exchangers.addresses_for("example.org"):
                await asyncio.sleep(0.02)
        for address in ("127.0.0.2", "127.0.9.3"):
            assert await world.mail(address) == GREETING
        (found,) = (await world.ask("receivers"))["receivers"]
        assert (found["name"], found["a_minute"]) == ("hoster.example", 2)

    run(tmp_path, work, hosts=hosts)


@pytest.mark.parametrize(
    ("name", "owner"),
    [("mx1.mail.example.co.uk", "example.co.uk"), ("MX.example.net", "example.net"), ("a b", "")],
)
def test_owner_of_an_exchanger_is_its_organizational_domain(name: str, owner: str) -> None:
    assert owner_of(name) == owner


def test_a_login_waits_for_its_share_and_another_goes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from entrypoint.services import submissions

    monkeypatch.setattr(submissions, "_HOLD", 0.4)
    (tmp_path / "run/tambo").mkdir(parents=True)
    rules = Rules("mx.example.com", frozenset({"example.com"}), {"i@example.com": LoginRules()})

    async def work(world: World) -> None:
        (tmp_path / "run/tambo/gate.sock").symlink_to(tmp_path / "door")
        pacing = Pacing(Paths(tmp_path).gate_socket)

        async def asked(login: str, to: str) -> str:
            answer = await pacing.refusal(rules, Envelope(login, login, (to,)))
            return str(answer or "")

        for number in range(10):
            assert await asked("i@example.com", f"{number}@example.net") == ""
        said = await asked("i@example.com", "10@example.net")
        assert said.startswith("451 4.7.1 10 messages of i@example.com wait for example.net")
        assert await asked("j@example.com", "j@example.net") == ""
        assert await asked("i@example.com", "i@example.org") == ""
        assert await asked("i@example.com", "j@example.com") == ""
        # An outcome makes room, also for one that is held.
        held = asyncio.create_task(asked("i@example.com", "10@example.net"))
        await asyncio.sleep(0.1)
        event = Event(Kind.SENT, time.time(), id="x", recipients=("3@example.net",))
        world.say({"event": event.to_json()})
        assert await held == ""
        # However its recipient is written.
        for one, other in (
            ("K@Example.NET", "k@example.net"),
            ("k@b\u00fccher.example", "k@xn--bcher-kva.example"),
        ):
            assert await asked("j@example.com", one) == ""
            number = len(world.gate.submissions.waiting)
            event = Event(Kind.SENT, time.time(), id="x", recipients=(other,))
            world.say({"event": event.to_json()})
            await asyncio.sleep(0.1)
            assert len(world.gate.submissions.waiting) == number - 1
        # What was refused after all waits for nobody.
        envelope = Envelope("i@example.com", "i@example.com", ("10@example.net",))
        await pacing.withdraw(rules, envelope)
        assert await asked("i@example.com", "11@example.net") == ""
        await pacing.close()

    run(tmp_path, work, Options(share=10))


def test_no_gate_is_no_reason_to_refuse_mail(tmp_path: Path) -> None:
    pacing = Pacing(tmp_path / "nobody")
    rules = Rules("mx.example.com", frozenset({"example.com"}), {})
    envelope = Envelope("i@example.com", "i@example.com", ("a@example.net",))
    assert asyncio.run(pacing.refusal(rules, envelope)) is None


def test_a_throttling_reply_in_a_session_shrinks_the_window(tmp_path: Path) -> None:
    host = Host("mx.example.net", None, ("127.0.0.2",))

    async def work(world: World) -> None:
        await world.receiver(Receiver("127.0.0.2"))
        await world.ask("admit", {"login": "i@example.com", "to": ["a@example.net"]})
        await world.mail("127.0.0.2")
        text = "421 4.7.28 Gmail has detected an unusual rate of mail"
        event = Event(Kind.DEFERRED, time.time(), id="x", recipients=("a@example.net",), text=text)
        world.say({"event": event.to_json()})
        await asyncio.sleep(0.1)
        (found,) = (await world.ask("receivers"))["receivers"]
        assert found["window"] == 5
        assert found["complaint"] == text

    run(tmp_path, work, hosts={"example.net": [host]})


@pytest.mark.parametrize(
    ("text", "throttling"),
    [
        ("421 4.7.28 unusual rate", True),
        ("451 4.7.1 try again later", True),
        ("450 too many connections", True),
        ("451 4.7.1 Greylisted, try again in 5 minutes", False),
        ("450 4.2.1 mailbox busy", False),
        ("could not dial: connection refused", False),
    ],
)
def test_what_asks_for_less_at_a_time(text: str, throttling: bool) -> None:
    assert gate.is_throttling(text) is throttling


def test_a_held_receiver_gets_nothing_until_it_is_released(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        receiver = await world.receiver(Receiver("127.0.0.2"))
        await world.mail("127.0.0.2")
        await world.ask("hold", {"name": "127.0.0.0/24", "seconds": 60})
        task = asyncio.create_task(world.mail("127.0.0.2"))
        await asyncio.sleep(0.5)
        assert receiver.served == 1
        await world.ask("release", {"name": "127.0.0.0/24"})
        assert await task == GREETING
        assert "error" in await world.ask("hold", {"name": "nobody", "seconds": 60})

    run(tmp_path, work)


def test_what_was_learned_is_known_after_a_restart(tmp_path: Path) -> None:
    async def learn(world: World) -> None:
        await world.receiver(Receiver("127.0.0.2", most=3, seconds=0.05))
        await asyncio.gather(*(world.mail("127.0.0.2") for _ in range(40)))
        world.gate._save()

    async def know(world: World) -> None:
        receiver = await world.receiver(Receiver("127.0.0.2", most=3, seconds=0.05))
        await asyncio.gather(*(world.mail("127.0.0.2") for _ in range(20)))
        assert receiver.refused <= 1

    run(tmp_path, learn)
    (tmp_path / "door").unlink()
    run(tmp_path, know)


def test_receivers_that_nobody_needs_are_forgotten_but_for_what_was_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_FEW_LINES", 2)

    async def work(world: World) -> None:
        gate = world.gate
        for number in range(10):
            gate._line(f"{number}.example")
        gate.lines["3.example"].window.complained(gate.clock(), "421 too many")
        gate.lines["4.example"].window.hold(gate.clock() + 60)
        gate._forget_lines(gate.clock())
        assert set(gate.lines) == {"4.example"}
        assert gate._line("3.example").window.size == 5

    run(tmp_path, work)


def test_what_is_not_foreseen_ends_the_gate(tmp_path: Path) -> None:
    async def fails() -> None:
        raise RuntimeError("not foreseen")

    async def work(world: World) -> None:
        world.gate._spawn(fails())
        await asyncio.sleep(0.1)

    with pytest.raises(RuntimeError, match="not foreseen"):
        run(tmp_path, work)


def test_options_survive_the_command_line() -> None:
    for options in (
        Options(),
        Options(share="none"),
        Options(50, ipv6=False, sources=("192.0.2.1", "2001:db8::1"), warmup=True),
    ):
        assert Options.parse(options.words().split()) == options
