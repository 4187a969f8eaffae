"""What tests of backup and restore share: keys, servers that are backed up, new machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.support.container import Result, checked, docker
from tests.support.gitserver import GitServer
from tests.support.server import HOST, IMAGE, Server
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from tests.image.conftest import Servers

PUSHED = 30.0  # seconds from a change to its commit at the remote


@dataclass(frozen=True)
class KeyPair:
    """Of SSH."""

    private: str
    public: str

    @classmethod
    def make(cls) -> KeyPair:
        key = ed25519.Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        return cls(private.decode(), public.decode())


@dataclass(frozen=True)
class Identity:
    """What an owner has of a backup: an age key pair and a signing key with its public half."""

    private: str
    public: str
    verification_key: str
    signing_key: str

    @property
    def kept(self) -> str:
        """The file, or the paper, that is elsewhere."""
        return f"{self.private}\n# {self.verification_key}\n"

    @classmethod
    def make(cls) -> Identity:
        """As its owner makes one: before there is any setting."""
        found = checked(docker("run", "--rm", IMAGE, "backup", "--new-key", "--json")).json()
        return cls(
            found["identity"], found["recipient"], found["verification_key"], found["signing_key"]
        )


_NUMBERS = count(1)


@dataclass
class Kit:
    """Makes servers that are backed up, and machines to restore them on."""

    git: GitServer
    servers: Servers
    key: KeyPair
    identity: Identity

    def repository(self) -> str:
        """A new, empty one; its name."""
        name = f"backup-{next(_NUMBERS)}"
        self.git.create(name)
        return name

    def settings(self, repository: str, **more: str) -> dict[str, str]:
        found = {
            "BACKUP_GIT_REMOTE": f"git@git.example.net:{repository}.git",
            "BACKUP_GIT_KEY_FILE": "/data/backup.key",
            "BACKUP_GIT_HOST_KEY": self.git.host_key,
            "BACKUP_AGE_RECIPIENT": self.identity.public,
            "BACKUP_SIGNING_KEY": self.identity.signing_key,
            **more,
        }
        return {name: value for name, value in found.items() if value}

    def server(
        self, repository: str, *, overlay: Mapping[str, Any] | None = None, **more: str
    ) -> Server:
        """Not started yet; its key is in place."""
        server = self.servers.make(self.settings(repository, **more), overlay=overlay)
        self.put_key(server.data)
        return server

    def put_key(self, data: Path) -> None:
        self.servers.machine.write(data / "backup.key", self.key.private)

    def new_machine(self) -> Path:
        """A data folder with the deploy key and nothing else."""
        folder = self.servers.base / f"machine-{next(_NUMBERS)}"
        folder.mkdir()
        self.put_key(folder)
        return folder

    def restore(
        self, data: Path, *argv: str, identity: str | None = None, options: tuple[str, ...] = ()
    ) -> Result:
        """`docker run --rm tambo restore …`, the identity on standard input."""
        return self.run(
            data, "restore", *argv, "--host-key", self.git.host_key, "--identity", "-", "--yes",
            input=self.identity.kept if identity is None else identity, options=options,
        )  # fmt: skip

    def run(self, data: Path, *argv: str, input: str = "", options: tuple[str, ...] = ()) -> Result:
        return docker(
            "run", "--rm", "--interactive", "--network", self.servers.world.network,
            "--volume", f"{self.servers.resolv_conf}:/etc/resolv.conf:ro",
            "--volume", f"{data}:/data", *options, IMAGE, *argv, input=input,
        )  # fmt: skip

    def wait_for(self, repository: str, *subjects: str, timeout: float = PUSHED) -> list[str]:
        """The remote's subjects, once these are among them."""
        return wait_until(
            lambda: found if set(subjects) <= set(found := self.git.subjects(repository)) else None,
            f"{subjects} at the remote",
            timeout=timeout,
            pause=0.3,
        )

    def first(self, repository: str) -> None:
        """Wait until the first backup is at the remote."""
        self.wait_for(repository, f"backup: the first of {HOST}")


def memory(server: Server) -> dict[str, Any]:
    """What the server remembers of its backup."""
    found = json.loads(server.machine.read(server.data / "state/backup.json"))
    assert isinstance(found, dict)
    return found


OWNED = ("domains", "certs", "acme", "reload")


def owned(server: Server, data: Path | None = None) -> dict[str, str]:
    """Checksums of all that a backup is of."""
    found: dict[str, str] = {}
    for name in OWNED:
        folder = (data or server.data) / name
        if name in server.machine.names(data or server.data):
            sums = server.machine.checksums(folder)
            found |= {f"{name}/{path}": digest for path, digest in sums.items()}
    return found
