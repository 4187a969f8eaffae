"""What holds for all tests: none is skipped in silence, and a unit test reaches no network."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
MARKED = {"image": pytest.mark.image, "image/breaches": pytest.mark.long}  # by folder
INTERNET = (socket.AF_INET, socket.AF_INET6)


class NetworkError(Exception):
    """A unit test reached for the network. No OSError: nothing may take it for a failed call."""


class NotRun:
    """Collects the tests that did not say whether what they test is right."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped or hasattr(report, "wasxfail"):
            kind = "xfail" if hasattr(report, "wasxfail") else "skipped"
            self.reasons.append(f"{kind}: {report.nodeid}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.reasons.append(f"skipped: {report.nodeid}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.reasons and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        cache = getattr(session.config, "cache", None)
        if cache and not hasattr(session.config, "workerinput"):
            # For tools/failed.py: no second run of what failed besides makes up for these.
            cache.set("tambo/not-run", self.reasons)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.reasons:
            terminalreporter.section("not run, which counts as failed", red=True)
            for reason in self.reasons:
                terminalreporter.line(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write what the cases of tests/cases expect anew; read the diff before committing it",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--regenerate") and os.environ.get("CI"):
        msg = "--regenerate is not for CI: there the expected files are what is tested against"
        raise pytest.UsageError(msg)
    config.pluginmanager.register(NotRun(), "not-run")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for folder, mark in MARKED.items():
            if HERE / folder in item.path.parents:
                item.add_marker(mark)
    if hasattr(config, "workerinput"):  # one of several
        items.sort(key=lambda item: parallel().rank(item.nodeid))


# Of pytest-xdist.


def parallel() -> ModuleType:
    """Imported by those who run in parallel only."""
    from tests.support import parallel

    return parallel


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # xdist reads it
    number: int = parallel().workers_here(image="not image" not in config.option.markexpr)
    return number


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return parallel().ByModule(config, log)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit tests may use unix sockets. Not even a UDP socket may be pointed at an address, but for
    those that are marked `loopback`, at 127.0.0.0/8."""
    if request.node.get_closest_marker("image"):
        return
    loopback = request.node.get_closest_marker("loopback")

    def guard(name: str) -> None:
        real = getattr(socket.socket, name)

        def guarded(self: socket.socket, *args: Any) -> Any:
            address = str(args[-1][0]) if isinstance(args[-1], tuple) else ""
            if self.family in INTERNET and not (loopback and address.startswith("127.")):
                msg = f"a unit test called {name}{args!r}"
                raise NetworkError(msg)
            return real(self, *args)

        monkeypatch.setattr(socket.socket, name, guarded)

    for name in ("connect", "connect_ex", "sendto", "sendmsg"):
        guard(name)


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """Whether this run writes anew what the cases expect."""
    return bool(request.config.getoption("--regenerate"))
