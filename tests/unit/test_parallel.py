"""What runs together in several workers, in which order, and under which locks."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import parallel
from tests.support.server import ROOT

GB = 1 << 30


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_image_tests_begin_and_the_longest_of_them_first() -> None:
    ranks = [parallel.rank(f"{module}::test_x") for module in parallel.LONGEST_FIRST]
    assert ranks == sorted(set(ranks))
    image, unit = "tests/image/test_other.py::test_x", "tests/unit/test_other.py::test_x"
    assert max(ranks) < parallel.rank(image) < parallel.rank(unit)


def test_every_module_that_is_named_exists() -> None:
    for module in parallel.LONGEST_FIRST:
        assert (ROOT / module).is_file(), module


@pytest.mark.parametrize(
    ("cores", "memory", "image", "expected"),
    [
        (2, 16 * GB, False, 3), (8, 2 * GB, False, 9),
        (2, 16 * GB, True, 2), (1, 16 * GB, True, 1), (8, 6 * GB, True, 6), (4, GB // 2, True, 1),
    ],
)  # fmt: skip
def test_workers_are_as_many_as_cores_and_memory_bear(
    cores: int, memory: int, image: bool, expected: int
) -> None:
    assert parallel.workers(cores, memory, image=image) == expected


def test_what_is_taken_is_nobody_elses_until_it_is_given_back() -> None:
    mine = parallel.taken("it")
    assert mine is not None
    assert parallel.taken("it") is None
    other = parallel.taken("other")
    assert other is not None
    other.close()
    mine.close()
    again = parallel.taken("it")
    assert again is not None
    again.close()


def test_what_a_killed_process_had_is_free_again(tmp_path: Path) -> None:
    script = (
        "import tempfile; from tests.support import parallel; "
        f"tempfile.tempdir = {str(tmp_path)!r}; it = parallel.taken('it'); "
        "print(it is not None, flush=True); input()"
    )
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", script],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert parallel.taken("it") is None
        process.kill()
        process.wait(20)
    again = parallel.taken("it")
    assert again is not None
    again.close()


def test_under_the_lock_there_is_one_at_a_time() -> None:
    with parallel.lock("it"):
        assert parallel.taken("it") is None
    again = parallel.taken("it")
    assert again is not None
    again.close()
