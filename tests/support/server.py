"""A tambo of the tests' own: the real compose.yaml, with as little as possible laid over it.

TAMBO_IMAGE names another image to test than `tambo`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker import DockerClient

from tests.support import smtp
from tests.support.container import Container, Process, Result, checked, docker
from tests.support.machine import Machine
from tests.support.smtp import Endpoint
from tests.support.wait import wait_until

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("TAMBO_IMAGE", "tambo")
HOST, DOMAIN = "smtp.example.com", "example.com"
# Lines that nobody should see unless a test provoked them. Findings begin with their level.
_TROUBLE = re.compile(r"\berror\b|\bwarning\b|\b(warn|fail):|Traceback|\bCRIT", re.IGNORECASE)
_STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\S+Z ")  # a line of the log, not of the table
_READY = 20.0  # seconds from `docker compose up` to a greeting


@dataclass(frozen=True)
class Place:
    """The network that a server is put into, and its addresses there."""

    network: str
    ipv4: str
    ipv6: str
    resolv_conf: Path


@dataclass
class LogWatch:
    """Reads a container's log once, and holds what is unexpected against the test."""

    container: Container
    _seen: int = 0
    _id: str = ""
    _unread: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)
    _tolerated: list[str] = field(default_factory=list)

    def expect(self, *patterns: str) -> None:
        """Lines of trouble that this test provokes; each must come."""
        self._expected += patterns

    def tolerate(self, *patterns: str) -> None:
        """Lines of trouble that this test may provoke."""
        self._tolerated += patterns

    def read(self) -> None:
        """Take what is new. To be called before a container is removed, too."""
        if not self.container.exists:
            return
        model = self.container.model
        if model.id != self._id:
            self._id, self._seen = str(model.id), 0
        lines = model.logs().decode(errors="replace").splitlines()
        self._unread += lines[self._seen :]
        self._seen = len(lines)

    def verdict(self) -> list[str]:
        """What is wrong with the log since the last verdict; forgets what was expected."""
        self.read()
        lines, self._unread = self._unread, []
        expected, self._expected = self._expected, []
        allowed = [*expected, *self._tolerated]
        self._tolerated = []
        wrong = [
            f"unexpected in the log: {line}"
            for line in lines
            if _TROUBLE.search(line) and not any(re.search(pattern, line) for pattern in allowed)
        ]
        wrong += [
            f"not in the log: {pattern}"
            for pattern in expected
            if not any(re.search(pattern, line) for line in lines)
        ]
        return wrong


class Server:
    """One project of docker compose with one container. Its folder holds all that is its own."""

    def __init__(
        self,
        client: DockerClient,
        machine: Machine,
        name: str,
        addresses: tuple[str, str],
        data: Path,
        files: Sequence[Path],
    ) -> None:
        self.name = name
        self.machine = machine
        self.container = Container(client, name)
        self.log = LogWatch(self.container)
        self.ipv4, self.ipv6 = addresses
        self.data = data
        self.removed = False
        self._files = files

    @classmethod
    def in_world(
        cls,
        client: DockerClient,
        machine: Machine,
        name: str,
        folder: Path,
        place: Place,
        settings: Mapping[str, str],
        *,
        data: Path | None = None,
        overlay: Mapping[str, Any] | None = None,
        mounts: Sequence[str] = (),
    ) -> Server:
        """`data`: another server's data folder. `overlay`: more of the service's compose keys.

        `mounts`: more volumes, as `docker run --volume` takes them.
        """
        folder.mkdir(parents=True)
        data = data or folder / "data"
        data.mkdir(exist_ok=True)
        env_file = folder / "env"
        env_file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        keys = {
            "image": IMAGE,
            "container_name": name,
            # As on a host: in a network of its own any process could bind port 25.
            "sysctls": {"net.ipv4.ip_unprivileged_port_start": "1024"},
            "networks": {"world": {"ipv4_address": place.ipv4, "ipv6_address": place.ipv6}},
            **(overlay or {}),
        }
        # JSON is YAML. The tags take away what the real file says of network, .env and ./data.
        lines = [f"{key}: {json.dumps(value)}" for key, value in keys.items() if value is not None]
        volumes = [f"{data}:/data", f"{place.resolv_conf}:/etc/resolv.conf:ro", *mounts]
        lines += [
            f"env_file: !override {json.dumps([str(env_file)])}",
            f"volumes: !override {json.dumps(volumes)}",
        ]
        if "network_mode" not in keys:
            lines.append("network_mode: !reset null")
        path = folder / "overlay.yaml"
        path.write_text(
            "".join(["services:\n  mail:\n", *(f"    {line}\n" for line in lines)])
            + f"networks: {{world: {{name: {place.network}, external: true}}}}\n"
        )
        addresses = (place.ipv4, place.ipv6)
        return cls(client, machine, name, addresses, data, (ROOT / "compose.yaml", path))

    @classmethod
    def as_shipped(
        cls,
        client: DockerClient,
        machine: Machine,
        name: str,
        folder: Path,
        addresses: tuple[str, str],
        network_mode: str,
    ) -> Server:
        """The real file in a folder with nothing else but a .env of one line."""
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "compose.yaml", folder)
        (folder / ".env").write_text(f"MAIL_HOSTNAME={HOST}\n")
        path = folder / "overlay.json"
        mail = {"image": IMAGE, "container_name": name, "network_mode": network_mode}
        path.write_text(json.dumps({"services": {"mail": mail}}))
        files = (folder / "compose.yaml", path)
        return cls(client, machine, name, addresses, folder / "data", files)

    # Life

    def compose(self, *argv: str) -> Result:
        """`docker compose …`, whose status must be 0."""
        files = [word for path in self._files for word in ("--file", str(path))]
        options = ("--env-file", os.devnull, "--project-name", self.name)
        return checked(docker("compose", *options, *files, *argv))

    def up(self, *, wait: bool = True) -> None:
        self.compose("up", "--detach", "--no-build")
        if wait:
            self.wait_until_it_serves()

    def down(self) -> None:
        self.log.read()
        self.compose("down", "--timeout", "5")

    def remove(self) -> None:
        """Gone, with its network endpoint; its folder is the session's to remove."""
        self.log.read()
        self.container.remove()
        self.removed = True

    def wait_until_healthy(self) -> None:
        wait_until(
            lambda: self.container.health == "healthy", "Docker calls it healthy", timeout=30
        )

    def wait_until_it_serves(self, timeout: float = _READY) -> None:
        """Until it greets on port 25."""
        try:
            wait_until(lambda: self.greets(), f"{self.name} greets", timeout=timeout)
        except AssertionError as error:
            error.add_note(self.container.log() if self.container.exists else "no container")
            raise

    def greets(self) -> bool:
        return smtp.greeting(self.ipv4).startswith("220 ")

    # What it says of itself

    def records_printed(self) -> str:
        """The table of DNS records that the last boot printed."""
        lines = self.last_boot().split("These DNS records are needed")[-1].splitlines()[1:]
        return "\n".join(line for line in lines if not _STAMPED.match(line)).strip()

    def last_boot(self) -> str:
        """The log from the last boot on."""
        log = self.container.log()
        return log[log.rindex(f": {HOST} for ") :]

    # What it is asked

    def verb(self, *argv: str, input: str = "") -> Result:
        """`docker exec mail VERB …`; any status is an answer."""
        return self.container.exec(*argv, input=input)

    def ok(self, *argv: str, input: str = "") -> str:
        """The standard output of a verb whose status must be 0."""
        return checked(self.verb(*argv, input=input)).stdout

    def add_user(self, address: str) -> str:
        """Adds a user; returns the secret."""
        secret = checked(self.verb("add-user", address, "--json")).json()["secret"]
        return str(secret)

    def control(self, command: str) -> Mapping[str, Any]:
        """One request to the socket holder, as the verbs make it."""
        code = (
            "import json, sys; from entrypoint.common import rpc;"
            "from entrypoint.common.paths import Paths;"
            "print(json.dumps(rpc.request(Paths().holder_socket, sys.argv[1])))"
        )
        answer = checked(self.container.exec("/opt/tambo/bin/python", "-c", code, command)).json()
        assert isinstance(answer, dict)
        return answer

    # What it is seen to be

    def endpoint(self, address: str = "") -> Endpoint:
        """For mail programs, over IPv4 unless an address is given."""
        chain = self.machine.read(self.data / "certs/self-signed/fullchain.pem")
        return Endpoint(address or self.ipv4, HOST, chain)

    def process(self, name: str) -> Process:
        """The one process of that name: chasquid, holder, keeper, recorder, policy, auth,
        gate, first."""
        [found] = self.processes(name)
        return found

    def processes(self, name: str) -> list[Process]:
        if name == "first":
            first = self.container.pid
            return [item for item in self.container.processes() if item.pid == first]
        part = {
            "chasquid": "/usr/bin/chasquid ",
            "holder": "-m entrypoint.services.holder",
            "keeper": "run-keeper",
            "recorder": "services.recorder",
            "policy": "-m entrypoint.services.policy",
            "auth": "-m entrypoint.services.auth",
            "gate": "-m entrypoint.services.gate",
        }[name]
        return [item for item in self.container.processes() if part in item.command]

    def keys(self, domain: str = DOMAIN) -> dict[str, str]:
        """The private DKIM keys on the volume by file name."""
        folder = self.data / "domains" / domain
        names = [name for name in self.machine.names(folder) if re.fullmatch(r"dkim:.*\.pem", name)]
        return {name: self.machine.read(folder / name) for name in names}

    def kept(self, address: str) -> list[str]:
        """The messages in an address's Maildir."""
        local, _, domain = address.partition("@")
        folder = self.data / "mail" / domain / local / "new"
        return [self.machine.read(folder / name) for name in self.machine.names(folder)]

    def queued(self) -> list[str]:
        """What waits to be delivered: chasquid's own files, as text."""
        folder = self.data / "chasquid/queue"
        names = [name for name in self.machine.names(folder) if name.startswith("m:")]
        return [self.machine.read(folder / name) for name in names]
