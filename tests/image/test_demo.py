"""`make demo` as a person types it, under another name and in another network.

Only the image is not built again (make -o image): the one under test is shown. A demo that runs on
this machine is left alone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest
from docker import DockerClient

from tests.image.conftest import PROJECT, free_net
from tests.support.container import checked, docker
from tests.support.server import IMAGE, ROOT

NAME = f"{PROJECT}-demo"
MOST = 400.0  # seconds for one run, on a machine with other work
Demo = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def run(client: DockerClient, world_image: str, base_image: str) -> Iterator[Demo]:
    """The target's exit status, and what it printed."""
    with free_net(client) as net:
        environ = {
            # As outside of this test's own environment: the demo needs the system's Python alone.
            "PATH": os.environ["PATH"].replace(f"{ROOT / '.venv/bin'}:", ""),
            "HOME": os.environ["HOME"],
            "DEMO_NAME": NAME,
            "DEMO_NET": f"{net.net4} {net.net6}",
            "TAMBO_IMAGE": IMAGE,
            "WORLD_IMAGE": world_image,
        }

        def run(*words: str) -> tuple[int, str]:
            argv = ["make", "-o", "image", "-o", "engine", f"BASE={base_image}", *words]
            done = subprocess.run(  # noqa: S603 (a list, no shell)
                argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=MOST, check=False,
            )  # fmt: skip
            return done.returncode, done.stdout

        yield run
        status, said = run("demo-down")
        assert status == 0, said
        assert "removed the demo's containers, network and volume" in said


def test_every_verdict_passes(run: Demo) -> None:
    status, said = run("demo")
    assert status == 0, said
    assert "every verdict passes" in said
    assert "14 ok, 0 missing, 0 different, 0 unknown" in said
    for title in ("send-test to you@v4", "forwarded to me@", "the answer, as i@example.com"):
        assert title in said


@pytest.mark.long
@pytest.mark.parametrize(
    ("broken", "verdict"),
    [("dkim", "dkim   fail"), ("spf", "spf    softfail"), ("ptr", "PTR    unknown")],
)
def test_what_is_broken_is_named(run: Demo, broken: str, verdict: str) -> None:
    status, said = run("demo", f"BREAK={broken}")
    assert (status, "Error 1" in said) == (2, True), said  # make's, and the demo's own
    lines = [line for line in said.splitlines() if verdict in line]
    assert lines, said
    assert all(line.endswith("FAILED") for line in lines)


@pytest.mark.long
def test_a_demo_whose_authority_began_anew_passes_again(run: Demo) -> None:
    """Its containers were left by an earlier run; the certificate that tambo has is of no use."""
    checked(docker("restart", "--time", "1", f"{NAME}-pebble-1"))
    status, said = run("demo")
    assert status == 0, said
    assert "every verdict passes" in said
