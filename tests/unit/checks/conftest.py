"""Fixtures of the checks' tests."""

from __future__ import annotations

import pytest

from entrypoint.common.paths import Paths
from tests.unit.checks.kit import Scene


@pytest.fixture
def scene(paths: Paths) -> Scene:
    return Scene(paths)
