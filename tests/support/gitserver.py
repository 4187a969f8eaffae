"""A git server of the world: sshd and HTTPS, both with git's own programs behind them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from docker import DockerClient

from tests.support.container import Container, checked
from tests.support.wait import wait_until
from tests.world.world import IMAGE, World

_HOST = 22  # its number in the world
NAME = "git.example.net"


class GitServer(Container):
    """`git@git.example.net:NAME.git`; a repository is made by `create`."""

    def __init__(
        self, client: DockerClient, name: str, world: World, tmpfs: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(client, name)
        endpoint = client.api.create_endpoint_config(ipv4_address=world.net.v4(_HOST))
        client.containers.create(
            IMAGE,
            ["git.sh"],
            name=name,
            network=world.network,
            networking_config={world.network: endpoint},
            tmpfs=dict(tmpfs or {}),
        )
        self.start()

    def start(self) -> None:
        checked(self.docker("start"))
        wait_until(lambda: self.exec("healthy.sh", "git").status == 0, f"{self.name} serves")

    def stop(self) -> None:
        checked(self.docker("stop", "--time", "0"))

    # What its owner does

    def create(self, repository: str) -> str:
        """An empty repository; its address for SSH."""
        self._as_git("init", "--quiet", "--bare", "--initial-branch=main", f"{repository}.git")
        return f"git@{NAME}:{repository}.git"

    def authorize(self, *keys: str) -> None:
        """Let these public keys in, and no others."""
        checked(self.exec("tee", "/srv/authorized_keys", input="".join(f"{k}\n" for k in keys)))

    @property
    def host_key(self) -> str:
        return self._read("/srv/host_key.pub").strip()

    def change_host_key(self) -> None:
        script = (
            "rm -f /srv/host_key*; ssh-keygen -q -t ed25519 -N '' -C '' -f /srv/host_key;"
            "pkill -HUP -x sshd"
        )
        checked(self.exec("bash", "-c", script))

    def set_host_key(self, private: str, public: str) -> None:
        checked(self.exec("tee", "/srv/host_key", input=private))
        checked(self.exec("tee", "/srv/host_key.pub", input=public))
        checked(self.exec("pkill", "-HUP", "-x", "sshd"))

    def private_host_key(self) -> str:
        return self._read("/srv/host_key")

    @property
    def ca(self) -> str:
        return self._read("/srv/ca.pem")

    @property
    def token(self) -> str:
        return self._read("/srv/token").strip()

    # What is in it

    def subjects(self, repository: str) -> list[str]:
        """Of the branch's commits, the oldest first; nothing if there is no commit."""
        done = self.exec(
            "git", "-C", f"/srv/git/{repository}.git", "log", "--reverse", "--format=%s", "main",
            user="git",
        )  # fmt: skip
        return done.stdout.splitlines()

    def head(self, repository: str) -> str:
        return self._as_git("-C", f"{repository}.git", "rev-parse", "main").strip()

    def files(self, repository: str, commit: str = "main") -> list[str]:
        text = self._as_git("-C", f"{repository}.git", "ls-tree", "-r", "--name-only", commit)
        return text.splitlines()

    def show(self, repository: str, path: str, commit: str = "main") -> str:
        return self._as_git("-C", f"{repository}.git", "cat-file", "blob", f"{commit}:{path}")

    def everything(self, repository: str) -> bytes:
        """Every object that the repository has, reachable or not, one after the other."""
        argv = [
            "docker", "exec", "--user", "git", self.name, "git", "-C", f"/srv/git/{repository}.git",
            "cat-file", "--batch-all-objects", "--batch", "--unordered",
        ]  # fmt: skip
        return subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout  # noqa: S603

    def script(self, repository: str, text: str) -> str:
        """What a person does in a clone: a shell script, run in a fresh one as user git."""
        script = (
            "set -eu; work=$(mktemp -d); export HOME=$work; cd $work; "
            "git config --global user.name P; git config --global user.email p@example.org; "
            f"git clone --quiet /srv/git/{repository}.git clone; cd clone; {text}"
        )
        return checked(self.exec("bash", "-c", script, user="git")).stdout

    def _as_git(self, *argv: str) -> str:
        words = [re.sub(r"^([a-z0-9-]+\.git)$", r"/srv/git/\1", word) for word in argv]
        return checked(self.exec("git", *words, user="git")).stdout

    def _read(self, path: str) -> str:
        return checked(self.exec("cat", path)).stdout
