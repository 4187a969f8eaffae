"""The real compose.yaml, on a host's network, with a .env that holds only MAIL_HOSTNAME.

Where another mail server, or another run of these tests, has the ports of this machine, the network
is a throw-away container's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient

from tests.image.conftest import PROJECT, Servers
from tests.support import parallel, smtp
from tests.support.container import Container, checked
from tests.support.server import DOMAIN, HOST, IMAGE, Server
from tests.support.smtp import Endpoint
from tests.support.wait import wait_until
from tests.world.world import World

REPOSITORY = Path(__file__).parents[2]
PORTS = (smtp.SMTP, smtp.SUBMISSIONS, smtp.SUBMISSION)
LISTENS = "0A"  # net/tcp_states.h


def ports_in_use() -> set[int]:
    """The TCP ports of this machine, in any family, at which somebody listens."""
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENS}


@dataclass(frozen=True)
class Network:
    """`mode` is compose's network_mode; the addresses are those at which it is reached."""

    mode: str
    addresses: tuple[str, str]


@pytest.fixture(scope="module")
def network(client: DockerClient, world: World, world_image: str) -> Iterator[Network]:
    """This machine's own network if it has the ports to give, and no other run has them now."""
    mine = parallel.taken("host-ports")
    if mine:
        with mine:
            if not ports_in_use() & set(PORTS):
                yield Network("host", ("127.0.0.1", "::1"))
                return
    host = Container(client, f"{PROJECT}-host")
    addresses = (world.net.v4(99), world.net.v6(99))
    try:
        client.containers.create(
            world_image,
            ["sleep", "infinity"],
            name=host.name,
            network=world.network,
            networking_config={
                world.network: client.api.create_endpoint_config(
                    ipv4_address=addresses[0], ipv6_address=addresses[1]
                )
            },
            sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"},
        )
        checked(host.docker("start"))
        yield Network(f"container:{host.name}", addresses)
    finally:
        host.remove()


@pytest.fixture(scope="module")
def server(network: Network, module_servers: Servers) -> Server:
    server = module_servers.make_as_shipped(network.addresses, network.mode)
    server.compose("up", "--detach", "--no-build")
    return server


def test_up_is_healthy(server: Server) -> None:
    server.wait_until_healthy()


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_it_listens_on_every_port_of_both_families(server: Server, family: str) -> None:
    address = {"ipv4": server.ipv4, "ipv6": server.ipv6}[family]
    assert smtp.greeting(address, smtp.SMTP).startswith(f"220 {HOST} ")
    assert smtp.greeting(address, smtp.SUBMISSION).startswith(f"220 {HOST} ")
    endpoint = server.endpoint(address)
    assert smtp.tls_greeting(endpoint).startswith(f"220 {HOST} ")
    for port in (smtp.SMTP, smtp.SUBMISSION):
        with smtp.mail_program(endpoint, port) as session:
            assert session.noop()[0] == 250, "STARTTLS works, with a certificate of that name"


def test_its_certificate_is_of_no_other_name(server: Server) -> None:
    """What was verified above could have failed."""
    wrong = Endpoint(server.ipv4, "other.example.com", server.endpoint().trusted)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        smtp.tls_greeting(wrong)


def test_it_prints_the_records(server: Server) -> None:
    printed = server.records_printed()
    assert re.search(rf"^MX    @ .*\n +10 {HOST}\.$", printed, re.MULTILINE)
    for words in (f"DNS of {DOMAIN}", "v=spf1", "v=DMARC1", "v=DKIM1", "Reverse DNS"):
        assert words in printed


def checksums(server: Server) -> dict[str, str]:
    """Of all on the volume but the history, which notes what happens."""
    found = server.machine.checksums(server.data)
    return {path: value for path, value in found.items() if not path.startswith("./events/")}


def test_a_second_up_changes_nothing_on_the_volume(server: Server) -> None:
    server.add_user(f"i@{DOMAIN}")
    # The policy service notes whom it serves, moments later.
    noted = server.data / "policy/logins.json"
    wait_until(lambda: f"i@{DOMAIN}" in server.machine.read(noted), "it is noted")
    records = server.records_printed()
    before = checksums(server)
    server.compose("up", "--detach", "--no-build")
    assert len(re.findall(f": {HOST} for ", server.container.log())) == 1, "it is left alone"
    server.log.read()
    server.compose("up", "--detach", "--no-build", "--force-recreate")
    server.wait_until_it_serves()
    assert "no changes in /data" in server.last_boot()
    assert server.records_printed() == records
    assert checksums(server) == before


def test_down_and_up_keep_users_and_keys(server: Server) -> None:
    secret = server.add_user(f"keep@{DOMAIN}")
    users, keys = server.ok("list-users"), server.keys()
    assert len(keys) == 1
    server.down()
    assert not server.container.exists
    server.up()
    assert "no changes in /data" in server.last_boot()
    assert server.ok("list-users") == users
    assert server.keys() == keys
    assert smtp.can_log_in(server.endpoint(), f"keep@{DOMAIN}", secret)


def test_it_runs_with_the_limits_of_the_file(server: Server) -> None:
    config = server.container.model.attrs["HostConfig"]
    assert config["ReadonlyRootfs"] is True
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["RestartPolicy"]["Name"] == "unless-stopped"
    assert config["Memory"] == 1 << 30
    assert config["PidsLimit"] == 2048
    assert config["LogConfig"]["Config"] == {"max-file": "5", "max-size": "20m"}
    limits = server.machine.limits(server.process("chasquid").pid)
    assert limits["Max open files"] == "16384"


def test_the_image_says_its_version_and_commit(client: DockerClient, server: Server) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    labels = client.images.get(IMAGE).labels
    version = labels["org.opencontainers.image.version"]
    revision = labels["org.opencontainers.image.revision"]
    assert version == project["version"]
    assert revision
    assert server.ok("tambo", "--version").strip() == f"tambo {version} ({revision})"
    assert f"tambo {version} ({revision}): " in server.container.log()
