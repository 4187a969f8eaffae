"""The world, started once by pytest-docker, and servers in it.

Of several workers each has its own: PROJECT tells them apart.

A test that uses a server fails on any line of trouble in that server's log which it did not
declare: server.log.expect(…).
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import docker
import pytest
from docker import DockerClient

from tests.support import parallel
from tests.support.backups import Identity, KeyPair, Kit
from tests.support.gitserver import GitServer
from tests.support.machine import Machine
from tests.support.server import HOST, ROOT, Place, Server
from tests.world.world import IMAGE, Net, World

PROJECT = f"tambo-test-{os.getpid()}"
TAMBO = 10  # the host number that the world keeps for the server whose mail is judged


@pytest.fixture(scope="session")
def client() -> Iterator[DockerClient]:
    with closing(docker.from_env()) as client:
        with parallel.lock("dead-sessions"):
            remove_what_dead_sessions_left(client)
        yield client


def remove_what_dead_sessions_left(client: DockerClient) -> None:
    """A killed session leaves its containers, and its network in the way of this one's."""

    def is_dead(name: str) -> bool:
        match = re.match(r"tambo-test-(\d+)", name)
        return match is not None and not Path("/proc", match[1]).exists()

    for container in client.containers.list(
        all=True, filters={"name": "tambo-test-"}, ignore_removed=True
    ):
        if is_dead(str(container.name)):
            container.remove(force=True, v=True)
    for network in client.networks.list(filters={"name": "tambo-test-"}):
        if is_dead(str(network.name)):
            network.remove()
    for folder in Path(tempfile.gettempdir()).glob("tambo-test-*"):
        if is_dead(folder.name):
            shutil.rmtree(folder, ignore_errors=True)  # another user's files stay


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """The session's folder: everything on disk that is the tests' own."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PROJECT}-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def net(client: DockerClient) -> Iterator[Net]:
    with free_net(client) as net:
        yield net


@contextmanager
def free_net(client: DockerClient) -> Iterator[Net]:
    """Addresses of RFC 2544 and RFC 3849 that no Docker network of this machine has.

    They are reserved from here on: until the network is made, Docker does not know that it will be.
    """
    taken = [
        ipaddress.ip_network(config["Subnet"])
        for network in client.networks.list()
        for config in network.attrs["IPAM"]["Config"] or []
    ]

    def is_free(net: Net) -> bool:
        wanted = (
            ipaddress.ip_network(f"{net.net4}.0/24"),
            ipaddress.ip_network(f"{net.net6}::/64"),
        )
        return not any(
            one.version == other.version and one.overlaps(other)
            for one in wanted
            for other in taken
        )

    for number in range(7, 100):
        net = Net(f"198.18.{number}", f"2001:db8:{number}")
        reserved = parallel.taken(f"net-{number}")
        if reserved is None:
            continue
        with reserved:
            if is_free(net):
                yield net
                return
    pytest.fail("no free network from 198.18.7.0/24 to 198.18.99.0/24: docker network ls")


@pytest.fixture(scope="session")
def resolv_conf(base: Path, net: Net) -> Path:
    path = base / "resolv.conf"
    path.write_text(f"nameserver {net.v4(53)}\noptions timeout:2 attempts:3\n")
    return path


# What pytest-docker starts and removes.


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(ROOT / "tests/world/compose.yaml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return PROJECT


@pytest.fixture(scope="session")
def docker_compose_command(base: Path, net: Net, resolv_conf: Path) -> str:
    environment = base / "world.env"
    environment.write_text(
        f"WORLD_NET4={net.net4}\nWORLD_NET6={net.net6}\nWORLD_RESOLV_CONF={resolv_conf}\n"
    )
    return f"docker compose --env-file {environment}"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up --detach --wait --wait-timeout 300"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down --volumes --timeout 2"]


@pytest.fixture(scope="session")
def base_image() -> str:
    """What the tests' own images are built on."""
    return os.environ.get("TAMBO_BASE") or subprocess.run(  # noqa: S603
        [ROOT / "tools/base-image.sh"], check=True, capture_output=True, text=True
    ).stdout.strip()  # fmt: skip


@pytest.fixture(scope="session")
def world_image(net: Net, base_image: str) -> str:
    with parallel.lock("world-image"):
        World(PROJECT, net).build(base_image)
    return IMAGE


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest, world_image: str, net: Net) -> World:
    """The small internet, up. What a test changes in its zones it changes back."""
    assert world_image == IMAGE, "it is built before it starts"
    request.getfixturevalue("docker_services")
    world = World(PROJECT, net)
    for address in (net.v4(TAMBO), net.v6(TAMBO)):
        world.set_ptr(address, HOST)
    return world


@pytest.fixture(scope="session")
def machine(client: DockerClient, world_image: str, base: Path) -> Iterator[Machine]:
    machine = Machine(client, f"{PROJECT}-machine", world_image, base)
    try:
        yield machine
        # Files of other users, which only the machine's root may remove.
        for path in base.iterdir():
            machine.delete(path)
    finally:
        machine.remove()


@dataclass
class Servers:
    """Makes servers, and remembers them: their logs are judged, and none is left behind."""

    client: DockerClient
    machine: Machine
    world: World
    base: Path
    resolv_conf: Path
    living: list[Server] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(100))

    def make(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        host: int = 0,
        data: Path | None = None,
        overlay: Mapping[str, Any] | None = None,
        resolv_conf: Path | None = None,
        mounts: Sequence[str] = (),
    ) -> Server:
        """A server that is not started yet, at host number `host` or at one of its own."""
        number = next(self._numbers)
        net = self.world.net
        used = {server.ipv4 for server in self.living if not server.removed}
        # From 128 on Docker gives addresses away itself.
        host = host or next(item for item in range(100, 128) if net.v4(item) not in used)
        v4, v6 = net.v4(host), net.v6(host)
        server = Server.in_world(
            self.client,
            self.machine,
            f"{PROJECT}-mail-{number}",
            self.base / f"mail-{number}",
            Place(self.world.network, v4, v6, resolv_conf or self.resolv_conf),
            {"MAIL_HOSTNAME": HOST, "PUBLIC_IPV4": v4, "PUBLIC_IPV6": v6, **(settings or {})},
            data=data,
            overlay=overlay,
            mounts=mounts,
        )
        self.living.append(server)
        return server

    def make_as_shipped(self, addresses: tuple[str, str], network_mode: str) -> Server:
        """The real compose.yaml with a .env of one line, not started yet."""
        number = next(self._numbers)
        name, folder = f"{PROJECT}-mail-{number}", self.base / f"mail-{number}"
        server = Server.as_shipped(self.client, self.machine, name, folder, addresses, network_mode)
        self.living.append(server)
        return server

    def discard_others(self, kept: Sequence[Server]) -> None:
        """Remove those made since `kept` were all: which they are, as others are forgotten."""
        known = {id(server) for server in kept}
        for server in self.living:
            if id(server) not in known:
                server.remove()

    def forget_removed(self) -> list[str]:
        """What is wrong in the logs; servers that are gone are judged for the last time."""
        wrong = [f"{item.name}: {text}" for item in self.living for text in item.log.verdict()]
        self.living[:] = [server for server in self.living if not server.removed]
        return wrong


@pytest.fixture(scope="session")
def all_servers(
    client: DockerClient, machine: Machine, world: World, base: Path, resolv_conf: Path
) -> Iterator[Servers]:
    servers = Servers(client, machine, world, base, resolv_conf)
    yield servers
    servers.discard_others(())


@pytest.fixture(autouse=True)
def no_unexpected_trouble_in_a_log(all_servers: Servers) -> Iterator[None]:
    yield
    wrong = all_servers.forget_removed()
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def servers(all_servers: Servers) -> Iterator[Servers]:
    """For servers of one test alone."""
    before = list(all_servers.living)
    yield all_servers
    all_servers.discard_others(before)


@pytest.fixture(scope="module")
def module_servers(all_servers: Servers) -> Iterator[Servers]:
    """For servers that a module's tests share."""
    before = list(all_servers.living)
    yield all_servers
    all_servers.discard_others(before)
    wrong = all_servers.forget_removed()
    assert not wrong, "\n".join(wrong)


# Backups: a git server, and what their owner has.


@pytest.fixture(scope="session")
def git(client: DockerClient, world: World, deploy_key: KeyPair) -> Iterator[GitServer]:
    server = GitServer(client, f"{PROJECT}-git", world)
    try:
        server.authorize(deploy_key.public)
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def deploy_key() -> KeyPair:
    return KeyPair.make()


@pytest.fixture(scope="session")
def identity(world: World) -> Identity:
    assert world.network
    return Identity.make()


@pytest.fixture(scope="module")
def kit(
    git: GitServer, all_servers: Servers, deploy_key: KeyPair, identity: Identity
) -> Iterator[Kit]:
    before = list(all_servers.living)
    yield Kit(git, all_servers, deploy_key, identity)
    all_servers.discard_others(before)
