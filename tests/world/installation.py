"""tambo itself in a world, by its own compose.yaml. Standard library only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.world.world import World, WorldError

DOMAIN, HOST = "example.com", "smtp.example.com"
ROOT = Path(__file__).resolve().parents[2]


class InstallationError(Exception):
    """A command failed; the message holds what it said."""


class Installation:
    """The container `name`, its volume `name`-data, at the world's .10 and ::10.

    It serves example.com as smtp.example.com; tambo.yaml has the settings. Nothing else on this
    machine is touched. Every failure is an InstallationError.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world

    def create(self) -> None:
        """Create it without starting it."""
        self._acme_ca.write_text(self.world.acme_ca_bundle())
        if DOMAIN not in self.world.exec("authoritative", "pdnsutil", "list-all-zones").split():
            self.world.load_zone(DOMAIN, "")  # as a domain is when it has just been bought
        self.compose("up", "--no-start")

    def up(self) -> None:
        """Create and start it; returns when it is healthy."""
        self.create()
        self.compose("up", "-d", "--wait")

    def await_certificate(self) -> None:
        """Wait until the certificate is issued and served: chasquid restarts for it."""
        for _ in range(60):
            done = self.run("exec", self.name, "list-certs", "--json")
            if done.returncode == 0 and any(item["renewal"] for item in json.loads(done.stdout)):
                return
            time.sleep(1)
        self.tambo("renew-cert")  # once more: its failure says why

    def has_outlived(self, authority: str) -> bool:
        """Whether that container began anew since: its root is another one at each start."""
        created = self.run("inspect", "--format", "{{.Created}}", self.name).stdout[:19]
        started = self.docker("inspect", "--format", "{{.State.StartedAt}}", authority)[:19]
        return bool(created.strip()) and created < started

    def down(self) -> None:
        """Remove container and volume."""
        self.compose("down", "--volumes", "--timeout", "5")

    def stop(self) -> None:
        self.docker("stop", self.name)

    def start(self) -> None:
        self.docker("start", self.name)

    def tambo(self, *argv: str, input: str | None = None) -> str:
        """Run a verb in the container; returns what it printed."""
        interactive = ("-i",) if input is not None else ()
        return self.docker("exec", *interactive, self.name, *argv, input=input)

    def add_user(self, address: str) -> str:
        """Add a sender; returns the secret."""
        secret: str = json.loads(self.tambo("add-user", address, "--json"))["secret"]
        return secret

    def restart_chasquid(self) -> None:
        """Have the socket holder restart chasquid."""
        self.docker(
            "exec", "-u", "tambo", self.name, "/opt/tambo/bin/python", "-c",
            "from entrypoint.common import paths, rpc; "
            "rpc.request(paths.Paths().holder_socket, 'restart')",
        )  # fmt: skip

    def compose(self, *argv: str) -> str:
        """docker compose on tambo's own file with the world's laid over it."""
        environ = {
            **os.environ,
            "TAMBO_NAME": self.name,
            "TAMBO_NETWORK": self.world.network,
            "TAMBO_ACME_CA": str(self._acme_ca),
            "WORLD_NET4": self.world.net.net4,
            "WORLD_NET6": self.world.net.net6,
            "WORLD_RESOLV_CONF": str(self.world.resolv_conf),
            "WORLD_API_KEY": self.world.api_key,
        }
        files = ("-f", str(ROOT / "compose.yaml"), "-f", str(ROOT / "tests/world/tambo.yaml"))
        return self.docker("compose", "-p", f"{self.name}-mail", *files, *argv, environ=environ)

    def docker(
        self, *argv: str, environ: dict[str, str] | None = None, input: str | None = None
    ) -> str:
        done = self.run(*argv, environ=environ, input=input)
        if done.returncode:
            command = f"docker {' '.join(argv[:6])} …"
            msg = f"{command} ended with {done.returncode}:\n{done.stderr.strip()}"
            raise InstallationError(msg)
        return done.stdout

    def run(
        self, *argv: str, environ: dict[str, str] | None = None, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The docker command, whatever its status."""
        command = shutil.which("docker")
        if not command:
            msg = "the docker command is missing; run: make engine"
            raise WorldError(msg)
        return subprocess.run(  # noqa: S603 (no shell)
            [command, *argv], env=environ, input=input, text=True, capture_output=True,
            check=False, timeout=180,
        )  # fmt: skip

    @property
    def _acme_ca(self) -> Path:
        return self.world.resolv_conf.with_name("acme-ca.pem")
