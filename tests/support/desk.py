"""A computer with the mail clients of docs/clients.md, as somebody has it at home."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from docker import DockerClient

from tests.support.container import Container, checked, docker
from tests.support.recipes import Recipe
from tests.support.server import ROOT
from tests.world.world import World

IMAGE = os.environ.get("CLIENTS_IMAGE", "tambo-mail-clients")
"""CLIENTS_IMAGE builds and uses another name, beside somebody else's."""


@dataclass(frozen=True)
class Sent:
    """How a client ended, all that it said, and the SHA-256 of what it was to send."""

    status: int
    said: str
    digest: str

    def says_any_of(self, words: Iterable[str]) -> bool:
        return any(item in self.said for item in words)


def build(base: str) -> None:
    """Build the image on a Debian trixie base; quick when nothing changed."""
    folder = str(ROOT / "tests/clients")
    argv = ("build", "--quiet", "--build-arg", f"BASE={base}", "--tag", IMAGE, folder)
    checked(docker(*argv, timeout=900))


class Desk:
    """`trusted`: a root certificate for its trust store, beside those that Debian has."""

    def __init__(
        self, client: DockerClient, world: World, resolv_conf: Path, name: str, trusted: str = ""
    ) -> None:
        self.container = Container(client, f"{world.project}-{name}")
        checked(
            docker(
                "run", "--detach", "--init", "--name", self.container.name,
                "--network", world.network,
                "--volume", f"{resolv_conf}:/etc/resolv.conf:ro",
                IMAGE,
            )
        )  # fmt: skip
        if trusted:
            path = "/usr/local/share/ca-certificates/test.crt"
            self.as_root("tee", path, input=trusted)
            self.as_root("update-ca-certificates")

    def send(self, recipe: Recipe, secret: str, size: int = 1000) -> Sent:
        """Have a client send a report of `size` bytes."""
        order = {
            "files": recipe.files, "commands": recipe.commands, "secret": secret, "size": size
        }  # fmt: skip
        done = checked(self.container.exec("run_recipe.py", input=json.dumps(order), timeout=120))
        return Sent(*done.json())

    @property
    def ipv4(self) -> str:
        networks = self.container.model.attrs["NetworkSettings"]["Networks"].values()
        return str(next(iter(networks))["IPAddress"])

    def as_root(self, *argv: str, input: str = "") -> str:
        """The output of a command, whose status must be 0."""
        return checked(self.container.exec(*argv, input=input, user="root")).stdout

    def remove(self) -> None:
        self.container.remove()
