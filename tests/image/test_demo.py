"""`make demo`, under another name and in another network: one that is running is left alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from docker import DockerClient

from tests.image.conftest import PROJECT, free_net
from tests.world import demo

Demo = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def run(client: DockerClient, world_image: str) -> Iterator[Demo]:
    """Its exit status, and what it printed."""
    assert world_image
    patch = pytest.MonkeyPatch()
    patch.setattr(demo, "NAME", f"{PROJECT}-demo")

    def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
        patch.setattr(sys, "argv", ["demo", *argv])
        status = demo.main()
        return status, capsys.readouterr().out

    with free_net(client) as net:
        patch.setattr(demo, "NET", net)
        yield run
        patch.setattr(sys, "argv", ["demo", "--down"])
        assert demo.main() == 0
    patch.undo()


def test_every_verdict_passes(run: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run(capsys)
    assert status == 0, said
    assert "every verdict passes" in said
    assert "14 ok, 0 missing, 0 different, 0 unknown" in said
    for title in ("send-test to you@v4", "forwarded to me@", "the answer, as i@example.com"):
        assert title in said


@pytest.mark.parametrize(
    ("broken", "verdict"),
    [("dkim", "dkim   fail"), ("spf", "spf    softfail"), ("ptr", "PTR    unknown")],
)
def test_what_is_broken_is_named(
    run: Demo, capsys: pytest.CaptureFixture[str], broken: str, verdict: str
) -> None:
    status, said = run(capsys, "--break", broken)
    assert status == 1
    lines = [line for line in said.splitlines() if verdict in line]
    assert lines, said
    assert all(line.endswith("FAILED") for line in lines)
