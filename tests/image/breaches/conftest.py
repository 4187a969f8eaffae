"""What the attacks share: tambo as it is shipped, in the small internet, and two logins.

    def test_it(shipped: Shipped) -> None:
        secret = shipped.secrets[GENERATED]
        shipped.server …  shipped.world …

`shipped` is one server for each module: the real compose.yaml (1 GB, 2,048 processes), FORWARD_TO
set, at the address for which SPF and PTR hold, its own zone published. A module that needs other
settings defines a fixture `settings` (scope="module") of its own; one that needs none of this asks
for `module_servers`. `where` puts further machines of tests.support.peers into the world, at host
numbers 60 to 79. tests.support.wire sends what a mail library would not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient

from tests.image.conftest import TAMBO, Servers
from tests.support.container import checked
from tests.support.peers import Neighbourhood
from tests.support.server import DOMAIN, Server
from tests.world.world import World

FORWARD_TO = "me@example.net"
GENERATED, CHOSEN = f"i@{DOMAIN}", f"j@{DOMAIN}"
PASSWORD = "correct horse battery staple"  # what CHOSEN chose


@dataclass(frozen=True)
class Shipped:
    """A server under attack. `secrets` are by login: GENERATED and CHOSEN."""

    server: Server
    world: World
    secrets: Mapping[str, str]

    def publish(self, more: str = "", domain: str = DOMAIN) -> None:
        """Publish the server's own records of each domain; `more` goes behind those of one."""
        for name, text in self.zones().items():
            self.world.load_zone(name, text + (more if name == domain else ""))

    def zones(self) -> dict[str, str]:
        """The records that the server prints, by domain."""
        printed = self.server.ok("dns", "--format", "zone")
        _, *parts = re.split(r"(?m)^\$ORIGIN (\S+)\.\n", printed)
        return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """What the module's server gets besides FORWARD_TO."""
    return {}


@pytest.fixture(scope="module")
def shipped(
    module_servers: Servers, world: World, settings: Mapping[str, str]
) -> Iterator[Shipped]:
    server = module_servers.make({"FORWARD_TO": FORWARD_TO, **settings}, host=TAMBO)
    server.up()
    secrets = {GENERATED: server.add_user(GENERATED), CHOSEN: PASSWORD}
    checked(server.verb("add-user", CHOSEN, "--password-stdin", input=f"{PASSWORD}\n"))
    found = Shipped(server, world, secrets)
    found.publish()
    domains = list(found.zones())
    yield found
    for domain in domains:
        world.load_zone(domain, "")


@pytest.fixture(scope="module")
def where(client: DockerClient, world: World, resolv_conf: Path) -> Neighbourhood:
    return Neighbourhood(client, world, resolv_conf)
