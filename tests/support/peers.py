"""Machines of the world that only some tests need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import DockerClient

from tests.support import smtp
from tests.support.ca import Authority
from tests.support.container import Container, checked, docker
from tests.support.wait import wait_until
from tests.world.world import IMAGE, World

HERE = Path(__file__).parent
_LIFETIME = 90 * 86400  # seconds, of Pebble's certificates


@dataclass(frozen=True)
class Neighbourhood:
    """Where such a machine is put."""

    client: DockerClient
    world: World
    resolv_conf: Path


class Peer:
    """A container of the world's image at host number `host`."""

    def __init__(
        self,
        where: Neighbourhood,
        name: str,
        host: int,
        command: Iterable[str],
        *,
        folder: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` is at /peer in it."""
        self.world = where.world
        net = self.world.net
        self.ipv4, self.ipv6 = net.v4(host), net.v6(host)
        self.container = Container(where.client, f"{self.world.project}-{name}")
        options = [
            "--detach", "--name", self.container.name,
            "--network", self.world.network, "--ip", self.ipv4, "--ip6", self.ipv6,
            "--volume", f"{where.resolv_conf}:/etc/resolv.conf:ro",
        ]  # fmt: skip
        if folder:
            options += ["--volume", f"{folder}:/peer"]
        for key, value in (environ or {}).items():
            options += ["--env", f"{key}={value}"]
        checked(docker("run", *options, IMAGE, *command))

    def serves(self, *probe: str) -> bool:
        return self.container.exec(*probe).status == 0

    def remove(self) -> None:
        self.container.remove()


class Pebble(Peer):
    """An ACME server with options of its own; `url` is its directory."""

    def __init__(
        self,
        where: Neighbourhood,
        name: str,
        host: int,
        folder: Path,
        authority: Authority,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        net = where.world.net
        folder.mkdir()
        pair = authority.issue("localhost", addresses=(net.v4(host), net.v6(host)))
        (folder / "cert.pem").write_text(pair.chain)
        (folder / "key.pem").write_text(pair.key)
        keys = {
            "listenAddress": "[::]:14000",
            "managementListenAddress": "[::]:15000",
            "certificate": "/peer/cert.pem",
            "privateKey": "/peer/key.pem",
            "httpPort": 80,
            "tlsPort": 443,
            "retryAfter": {"authz": 1, "order": 1},
            "certificateValidityPeriod": _LIFETIME,
            **(options or {}),
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": keys}))
        environ = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        dns = f"{net.v4(53)}:53"
        command = ("pebble", "-config", "/peer/pebble.json", "-dnsserver", dns)
        super().__init__(where, name, host, command, folder=folder, environ=environ)
        self.url = f"https://{self.ipv4}:14000/dir"
        probe = ("curl", "-skf", "https://localhost:14000/dir")
        wait_until(lambda: self.serves(*probe), "Pebble serves")

    def roots(self) -> str:
        """What vouches for the certificates that it issues."""
        probe = ("curl", "-skf", "https://localhost:15000/roots/0")
        return checked(self.container.exec(*probe)).stdout

    def log(self) -> str:
        return self.container.log()


class Front(Peer):
    """The world's Pebble, seen through ports that can be in trouble: see front.py."""

    def __init__(self, where: Neighbourhood, host: int, folder: Path, authority: Authority) -> None:
        self._modes = folder / "modes"
        self._modes.mkdir(parents=True)
        pair = authority.issue("localhost", addresses=(where.world.net.v4(host),))
        (folder / "cert.pem").write_text(pair.chain)
        (folder / "key.pem").write_text(pair.key)
        (folder / "front.py").write_text((HERE / "front.py").read_text())
        command = (
            "python3", "/peer/front.py", "/peer/cert.pem", "/peer/key.pem",
            where.world.net.v4(14), "/peer/modes",
        )  # fmt: skip
        super().__init__(where, "front", host, command, folder=folder)

    def open(self, port: int, mode: str = "up") -> str:
        """Have a port behave as `mode` says; returns the directory's URL there."""
        (self._modes / str(port)).write_text(mode)
        url = f"https://{self.ipv4}:{port}/dir"
        code = "000" if mode == "down" else "200"
        argv = ("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url)
        wait_until(lambda: self.container.exec(*argv).stdout == code, f"port {port} is {mode}")
        return url

    def orders(self, port: int) -> int:
        """How many certificates were ordered at a port so far."""
        lines = self.container.log().splitlines()
        return sum(line.startswith(f"order {port} ") for line in lines)


class NameServer(Peer):
    """A second PowerDNS with its own API key."""

    def __init__(self, where: Neighbourhood, host: int, api_key: str) -> None:
        environ = {
            "WORLD_NET4": where.world.net.net4,
            "WORLD_NET6": where.world.net.net6,
            "WORLD_API_KEY": api_key,
        }
        super().__init__(where, "second", host, ("authoritative.sh",), environ=environ)
        self.url = f"http://{self.ipv4}:8081"
        wait_until(lambda: self.serves("healthy.sh", "authoritative"), "the second one serves")

    def add_zone(self, zone: str) -> None:
        """A zone with nothing in it, which nobody looks for here before it is delegated."""
        name = f"ns.{zone}."
        text = f"{zone}. 60 SOA {name} {name} 1 60 60 60 60\n{zone}. 60 NS {name}\n"
        text += f"{name} 60 A {self.ipv4}\n"
        checked(self.container.exec("load-zone.sh", f"{zone}.", input=text))

    def delegate(self, zone: str) -> None:
        """The world's root names this server for `zone`."""
        for name, kind, value in ((zone, "NS", f"ns.{zone}."), (f"ns.{zone}", "A", self.ipv4)):
            command = ("pdnsutil", "add-record", ".", name, kind, "60", value)
            self.world.exec("authoritative", *command)

    def take_back(self, zone: str) -> None:
        for name, kind in ((zone, "NS"), (f"ns.{zone}", "A")):
            self.world.exec("authoritative", "pdnsutil", "delete-rrset", ".", name, kind)


class Liar(Peer):
    """A receiver that refuses, in words that look like another server's log: see liar.py."""

    def __init__(self, where: Neighbourhood, domain: str, host: int, folder: Path) -> None:
        folder.mkdir()
        (folder / "liar.py").write_text((HERE / "liar.py").read_text())
        super().__init__(where, "liar", host, ("python3", "/peer/liar.py"), folder=folder)
        zone = f"@ MX 10 mx.{domain}.\nmx A {self.ipv4}\nmx AAAA {self.ipv6}\n"
        self.world.load_zone(domain, zone)
        wait_until(lambda: smtp.greeting(self.ipv4).startswith("220 "), "it greets")
