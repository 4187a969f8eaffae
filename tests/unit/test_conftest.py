"""The guards of tests/conftest.py, tried on small test suites of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest
from tests.conftest import NetworkError
from tests.support.server import ROOT
from tests.unit.kit import put

HEAD = "import pytest\n"
FINE = "def test_fine():\n    pass\n"
IN_WORKERS = ("-p", "xdist.plugin", "-n", "2", "-v")


SKIPS = {
    "mark": ("@pytest.mark.skip\ndef test_it():\n    pass\n", "skipped: test_mark.py::test_it"),
    "call": ("def test_it():\n    pytest.skip()\n", "skipped: test_call.py::test_it"),
    "module": ("pytest.skip(allow_module_level=True)\n", "skipped: test_module.py"),
    "import": ("pytest.importorskip('no_such_module')\n", "skipped: test_import.py"),
    "xfail": (
        "@pytest.mark.xfail\ndef test_it():\n    assert 0\n",
        "xfail: test_xfail.py::test_it",
    ),
    "xpass": ("@pytest.mark.xfail\ndef test_it():\n    pass\n", "xfail: test_xpass.py::test_it"),
}


def run(place: Path, *options: str, **environ: str) -> tuple[int, str]:
    (place / "conftest.py").write_bytes(Path(conftest.__file__).read_bytes())
    (place / "pytest.ini").write_text("[pytest]\nmarkers = image: x\n")
    base = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTEST_ADDOPTS")}
    quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "."],
        cwd=place, env={**base, **quick, **environ}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_what_runs_and_passes_is_fine(tmp_path: Path) -> None:
    put(tmp_path / "test_it.py", FINE)
    status, out = run(tmp_path)
    assert status == 0, out
    assert "not run" not in out


def test_one_test_that_does_not_run_makes_all_fail(tmp_path: Path) -> None:
    put(tmp_path / "test_fine.py", FINE)
    put(tmp_path / "test_mark.py", HEAD + SKIPS["mark"][0])
    status, out = run(tmp_path)
    assert status == 1, out
    assert "not run, which counts as failed" in out
    assert "1 passed, 1 skipped" in out


def test_each_way_not_to_run_is_seen(tmp_path: Path) -> None:
    for name, (text, _) in SKIPS.items():
        put(tmp_path / f"test_{name}.py", HEAD + text)
    status, out = run(tmp_path)
    assert status == 1
    listed = out.partition("not run, which counts as failed")[2].splitlines()
    for _, reason in SKIPS.values():
        assert reason in listed


def test_what_does_not_run_in_a_worker_is_seen(tmp_path: Path) -> None:
    put(tmp_path / "test_fine.py", FINE)
    for name in set(SKIPS) - {"module", "import"}:
        put(tmp_path / f"test_{name}.py", HEAD + SKIPS[name][0])
    status, out = run(tmp_path, *IN_WORKERS, PYTHONPATH=str(ROOT))
    assert status == 1, out
    assert "2 workers" in out
    listed = out.partition("not run, which counts as failed")[2].splitlines()
    for name in set(SKIPS) - {"module", "import"}:
        assert SKIPS[name][1] in listed


@pytest.mark.parametrize("name", ["module", "import"])
def test_a_module_that_no_worker_runs_is_seen(tmp_path: Path, name: str) -> None:
    put(tmp_path / "test_fine.py", FINE)
    put(tmp_path / f"test_{name}.py", HEAD + SKIPS[name][0])
    status, out = run(tmp_path, *IN_WORKERS, PYTHONPATH=str(ROOT))
    assert status == 1, out
    assert "not run, which counts as failed" in out
    assert SKIPS[name][1] in out.splitlines()


def test_workers_where_all_is_fine_are_fine(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        put(tmp_path / f"test_{name}.py", FINE)
    status, out = run(tmp_path, *IN_WORKERS, PYTHONPATH=str(ROOT))
    assert status == 0, out
    assert "3 passed" in out
    assert "not run" not in out


def test_a_module_is_run_by_one_worker(tmp_path: Path) -> None:
    text = "import pytest\nhere = set()\n@pytest.mark.parametrize('n', range(20))\n"
    text += "def test_it(n):\n    assert len(here) == n\n    here.add(n)\n"
    for name in ("one", "two", "three"):
        put(tmp_path / f"test_{name}.py", text)
    status, out = run(tmp_path, *IN_WORKERS, PYTHONPATH=str(ROOT))
    assert status == 0, out
    assert "60 passed" in out


def test_a_warning_in_a_worker_is_a_failure(tmp_path: Path) -> None:
    put(tmp_path / "test_it.py", "import warnings\ndef test_it():\n    warnings.warn('x')\n")
    status, out = run(tmp_path, *IN_WORKERS, "-W", "error", PYTHONPATH=str(ROOT))
    assert status == 1, out
    assert "1 failed" in out


def test_regenerating_reaches_the_workers(tmp_path: Path) -> None:
    put(tmp_path / "test_it.py", "def test_it(regenerate):\n    assert regenerate\n")
    assert run(tmp_path, *IN_WORKERS, "--regenerate", PYTHONPATH=str(ROOT))[0] == 0
    assert run(tmp_path, *IN_WORKERS, PYTHONPATH=str(ROOT))[0] == 1


def test_a_failure_stays_a_failure(tmp_path: Path) -> None:
    put(tmp_path / "test_it.py", "def test_it():\n    assert 0\n")
    status, out = run(tmp_path)
    assert status == 1
    assert "not run" not in out


def test_image_tests_are_marked_by_where_they_are(tmp_path: Path) -> None:
    put(tmp_path / "test_other.py", FINE)
    put(tmp_path / "image/test_it.py", FINE)
    status, out = run(tmp_path, "-m", "not image", "-v")
    assert status == 0, out
    assert "1 passed, 1 deselected" in out


def test_regenerating_is_refused_in_ci(tmp_path: Path) -> None:
    put(tmp_path / "test_it.py", FINE)
    status, out = run(tmp_path, "--regenerate", CI="true")
    assert status == 4
    assert "--regenerate is not for CI" in out
    assert run(tmp_path, "--regenerate")[0] == 0


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, ("192.0.2.1", 25)), (socket.AF_INET6, ("2001:db8::1", 25, 0, 0))],
)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_no_unit_test_reaches_the_network(
    family: socket.AddressFamily, kind: socket.SocketKind, address: tuple[str, int]
) -> None:
    with socket.socket(family, kind) as probe:
        for name in ("connect", "connect_ex"):
            with pytest.raises(NetworkError):
                getattr(probe, name)(address)
        with pytest.raises(NetworkError):
            probe.sendto(b"x", address)


def test_unix_sockets_are_fine(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as client:
        door.bind(str(tmp_path / "s"))
        door.listen()
        client.connect(str(tmp_path / "s"))
