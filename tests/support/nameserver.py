"""A second authoritative server of the world, which may lag behind the first."""

from __future__ import annotations

import time

from docker import DockerClient

from tests.support.container import Container, checked
from tests.support.wait import wait_until
from tests.world.world import IMAGE, World

_HOST = 3  # its number in the world


class NameServer(Container):
    """Serves what is loaded into it, and nothing of what is loaded into the first."""

    def __init__(self, client: DockerClient, name: str, world: World) -> None:
        super().__init__(client, name)
        self._world = world
        net = world.net
        self.addresses = (net.v4(_HOST), net.v6(_HOST))
        endpoint = client.api.create_endpoint_config(
            ipv4_address=self.addresses[0], ipv6_address=self.addresses[1]
        )
        client.containers.create(
            IMAGE,
            ["authoritative.sh"],
            name=name,
            network=world.network,
            networking_config={world.network: endpoint},
            environment={
                "WORLD_NET4": net.net4, "WORLD_NET6": net.net6, "WORLD_API_KEY": "unused",
            },
        )  # fmt: skip
        checked(self.docker("start"))
        wait_until(
            lambda: self.exec("healthy.sh", "authoritative").status == 0, f"{name} serves"
        )  # fmt: skip

    @property
    def delegation(self) -> str:
        """What makes it a server of a zone beside the first one, as lines of that zone."""
        return f"@ NS second\nsecond A {self.addresses[0]}\nsecond AAAA {self.addresses[1]}\n"

    def load_zone(self, origin: str, fragment: str) -> None:
        """The same as World.load_zone, here."""
        zone = (
            f"$ORIGIN {origin}.\n$TTL 60\n"
            f"@ SOA ns.example.net. hostmaster.example.net. {time.time():.0f} 3600 600 86400 60\n"
            f"@ NS ns.example.net.\n{fragment}\n"
        )
        checked(self.exec("load-zone.sh", f"{origin}.", input=zone))
