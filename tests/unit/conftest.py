"""Fixtures of the unit tests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths

# The same examples in each run: a test that fails now and then is ignored soon.
hypothesis.settings.register_profile(
    "tambo", deadline=None, derandomize=True, max_examples=150, database=None
)
# For looking for more: HYPOTHESIS_PROFILE=search
hypothesis.settings.register_profile(
    "search", deadline=None, max_examples=3000, database=None, print_blob=True
)
# For tools/mutants.py: the first example that fails is enough, and a slow one is none.
hypothesis.settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    max_examples=150,
    database=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    suppress_health_check=tuple(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tambo"))


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An empty machine: nothing but the folders that an image brings."""
    (tmp_path / "data").mkdir()
    (tmp_path / "run").mkdir()
    return Paths(tmp_path)


@pytest.fixture
def ids() -> Ids:
    """Everything belongs to whoever runs the tests."""
    return Ids.current()


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power; that fsync is called, and when, is tested by counting its calls."""

    def fsync(fd: int) -> None:
        os.fstat(fd)  # it fails for what is no descriptor

    monkeypatch.setattr(os, "fsync", fsync)
