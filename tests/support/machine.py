"""The root of the machine that the containers run on: sees and may do everything.

A privileged container, so that the tests need no root of their own, and so that what they look at
is looked at from outside of what they test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from docker import DockerClient

from tests.support.container import Container, Result, checked


@dataclass(frozen=True)
class Entry:
    """A file, folder, link or socket: `kind` is find's letter (f, d, l, s)."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int


class Machine:
    """`folder` is at the same path in it as for the test."""

    def __init__(self, client: DockerClient, name: str, image: str, folder: Path) -> None:
        self.container = Container(client, name)
        client.containers.run(
            image,
            # Not as PID 1: that would ignore SIGTERM.
            ["sleep", "infinity"],
            name=name,
            detach=True,
            privileged=True,
            pid_mode="host",
            network_mode="none",
            volumes={str(folder): {"bind": str(folder), "mode": "rw"}},
        )

    def remove(self) -> None:
        self.container.remove()

    def run(self, *argv: str, input: str = "") -> Result:
        return self.container.exec(*argv, input=input)

    def kill(self, *pids: int, signal: int = 9) -> None:
        """By the host's numbers."""
        checked(self.run("kill", f"-{int(signal)}", *map(str, pids)))

    def kill_when(self, paths: Sequence[Path], *pids: int) -> None:
        """With signal 9, within microseconds of the moment at which one of two paths exists."""
        script = 'until [ -e "$1" ] || [ -e "$2" ]; do :; done; shift 2; kill -9 "$@"'
        words = [*map(str, (paths[0], paths[-1])), *map(str, pids)]
        # Before all others: a busy machine's processor could be elsewhere at that moment.
        checked(self.run("nice", "-n", "-20", "timeout", "20", "sh", "-c", script, "sh", *words))

    def read(self, path: Path | PurePosixPath) -> str:
        return checked(self.run("cat", str(path))).stdout

    def write(self, path: Path, text: str) -> None:
        """As an editor does that keeps owner and mode; a new file is root's."""
        checked(
            self.run("tee", str(path), input=text)
            if text
            else self.run("cp", "/dev/null", str(path))
        )

    def delete(self, path: Path) -> None:
        """A file, or a folder with all that is in it."""
        checked(self.run("rm", "-rf", "--one-file-system", str(path)))

    def names(self, folder: Path) -> list[str]:
        """What stands in a folder, or nothing if there is none."""
        return sorted(self.run("ls", "-A", str(folder)).stdout.splitlines())

    def tree(self, folder: Path | PurePosixPath) -> dict[str, Entry]:
        """Everything below a folder by its path in it; the folder itself is `.`."""
        form = r"%y %m %U %G %s %P\n"
        found = checked(self.run("find", f"{folder}/", "-printf", form)).stdout
        entries = {}
        for line in found.splitlines():
            kind, mode, uid, gid, size, name = line.split(" ", 5)
            entries[name or "."] = Entry(kind, int(mode, 8), int(uid), int(gid), int(size))
        return entries

    def checksums(self, folder: Path) -> dict[str, str]:
        """The SHA-256 of every file below a folder."""
        script = 'cd "$1" && find . -type f -exec sha256sum {} +'
        lines = checked(self.run("sh", "-c", script, "sh", str(folder))).stdout.splitlines()
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}

    def status(self, pid: int) -> dict[str, str]:
        """/proc/PID/status by its keys."""
        text = self.read(PurePosixPath(f"/proc/{pid}/status"))
        return {
            key: value.strip()
            for key, _, value in (line.partition(":") for line in text.splitlines())
        }

    def limits(self, pid: int) -> dict[str, str]:
        """The soft limits of a process by their names in /proc/PID/limits."""
        lines = self.read(PurePosixPath(f"/proc/{pid}/limits")).splitlines()[1:]
        return {line[:26].strip(): line[26:].split()[0] for line in lines}

    def environ(self, pid: int) -> dict[str, str]:
        """The environment that a process was started with."""
        text = self.read(PurePosixPath(f"/proc/{pid}/environ"))
        return {
            key: value
            for key, _, value in (item.partition("=") for item in text.split("\0") if item)
        }
