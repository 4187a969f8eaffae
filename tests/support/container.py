"""One Docker container, whoever started it. Every answer is asked afresh."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from docker import DockerClient
from docker.errors import NotFound
from docker.models import containers

from tests.support.wait import wait_until


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Process:
    """A process of a container, with the host's numbers."""

    pid: int
    parent: int
    uid: int
    command: str


def docker(
    *argv: str, input: str = "", timeout: float = 180, environ: Mapping[str, str] | None = None
) -> Result:
    """The docker command, as a person types it. Any status is an answer."""
    done = subprocess.run(  # noqa: S603 (a list, no shell)
        ["docker", *argv],  # noqa: S607
        input=input,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env=environ,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def checked(result: Result) -> Result:
    """The result, if its status is 0."""
    assert result.status == 0, f"status {result.status}: {result.stderr or result.stdout}"
    return result


def at_a_terminal(*argv: str, answers: Sequence[str]) -> tuple[str, int]:
    """`docker ARGV…` at a terminal; types an answer at each prompt. What is seen, and how it
    ends."""
    terminal, other = os.openpty()
    left, seen = list(answers), ""
    with subprocess.Popen(["docker", *argv], stdin=other, stdout=other, stderr=other) as process:  # noqa: S603, S607
        os.close(other)
        # Reading raises OSError when the other side is closed.
        with suppress(OSError), open(terminal, "r+b", buffering=0) as stream:  # noqa: PTH123
            while chunk := stream.read(1000):
                seen += chunk.decode(errors="replace")
                if left and seen.rstrip(" ").endswith(":"):
                    stream.write(f"{left.pop(0)}\r".encode())
        return seen, process.wait(30)


class Container:
    """A container by its name; it may be replaced by another of that name meanwhile."""

    def __init__(self, client: DockerClient, name: str) -> None:
        self.client = client
        self.name = name

    @property
    def model(self) -> containers.Container:
        return self.client.containers.get(self.name)

    @property
    def exists(self) -> bool:
        with suppress(NotFound):
            return bool(self.model)
        return False

    @property
    def state(self) -> Mapping[str, Any]:
        """Docker's `State`: Status, Running, Pid, ExitCode, Health, …"""
        state: Mapping[str, Any] = self.model.attrs["State"]
        return state

    @property
    def running(self) -> bool:
        return bool(self.state["Running"])

    @property
    def health(self) -> str:
        """`starting`, `healthy` or `unhealthy`."""
        return str(self.state["Health"]["Status"])

    @property
    def pid(self) -> int:
        """PID 1's number on the host; 0 if it does not run."""
        return int(self.state["Pid"])

    @property
    def restarts(self) -> int:
        return int(self.model.attrs["RestartCount"])

    def log(self) -> str:
        return self.model.logs().decode(errors="replace")

    def exec(self, *argv: str, input: str = "", user: str = "", timeout: float = 180) -> Result:
        """`docker exec`."""
        options = ["--interactive"] if input else []
        options += ["--user", user] if user else []
        return docker("exec", *options, self.name, *argv, input=input, timeout=timeout)

    def type_in(self, *argv: str, answers: Sequence[str]) -> tuple[str, int]:
        """`docker exec -it`: see `at_a_terminal`."""
        return at_a_terminal("exec", "-it", self.name, *argv, answers=answers)

    def docker(self, verb: str, *options: str) -> Result:
        """`docker VERB …` on this container."""
        return docker(verb, *options, self.name)

    def processes(self) -> list[Process]:
        """All processes in it, as the host's root sees them."""
        top = self.model.top(ps_args="-eo pid,ppid,uid,args")
        return [
            Process(int(pid), int(parent), int(uid), command)
            for pid, parent, uid, command in top["Processes"] or []
        ]

    def wait_exit(self, timeout: float) -> int:
        """The exit status, once it has ended."""
        wait_until(lambda: not self.running, f"{self.name} ends", timeout=timeout)
        return int(self.state["ExitCode"])

    def remove(self) -> None:
        """Removed with its anonymous volumes, running or not; fine if there is none."""
        with suppress(NotFound):
            self.model.remove(force=True, v=True)
