"""Which wrong changes of a module are tried, and how a module in use becomes another one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tools import mutants, mutate
from tools.mutate import Mutant

SOURCE = '''"""What it is."""
from functools import lru_cache

MOST = 3

class Box:
    """A box."""

    def __init__(self, size: int = 1) -> None:
        self.size = size

    @property
    def is_large(self) -> bool:
        return self.size > MOST

    @classmethod
    def two(cls):
        return cls(2)

@lru_cache(maxsize=8)
def near(a, b):
    """Words of a docstring."""
    if a < b and not a == 1:
        raise ValueError("two words")
    return f"{a + 1} words"
'''
NAMES = [
    "module: 3 → 4",
    "Box.__init__: 1 → 2",
    "Box.__init__: self.size = size → pass",
    "Box.is_large: return self.size > MOST → return None",
    "Box.is_large: self.size > MOST → self.size >= MOST",
    "Box.two: return cls(2) → return None",
    "Box.two: cls(2) → cls(3)",
    "near: a < b and (not a == 1) → not (a < b and (not a == 1))",
    "near: a < b and (not a == 1) → not a == 1",
    "near: a < b and (not a == 1) → a < b",
    "near: a < b and (not a == 1) → a <= b and (not a == 1)",
    "near: a < b and (not a == 1) → a < b and a == 1",
    "near: a < b and (not a == 1) → a < b and (not a != 1)",
    "near: a < b and (not a == 1) → a < b and (not a == 2)",
    "near: raise ValueError('two words') → pass",
    "near: return f'{a + 1} words' → return None",
    "near: a + 1 → a - 1",
    "near: a + 1 → a + 2",
]


def test_each_place_where_a_decision_is_made_is_changed_and_no_words() -> None:
    assert [item.name for item in mutate.mutants(SOURCE)] == NAMES


def test_a_name_outlives_a_change_of_the_lines_above() -> None:
    assert [
        item.name for item in mutate.mutants("import json\n\n" + SOURCE.partition("\n")[2])
    ] == NAMES


def test_the_same_change_in_two_places_has_two_names() -> None:
    names = [item.name for item in mutate.mutants("def f(a):\n    g(1)\n    g(1)\n")]
    assert names == [
        "f: g(1) → pass",
        "f: g(1) → g(2)",
        "f: g(1) → pass (2)",
        "f: g(1) → g(2) (2)",
    ]


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """One in use: `tests_user` has imported from it."""
    found, user = ModuleType("entrypoint_sample"), ModuleType("tests_user")
    sys.modules.update({item.__name__: item for item in (found, user)})
    exec(compile(SOURCE, "sample.py", "exec"), found.__dict__)  # noqa: S102
    user.__dict__.update(found.__dict__, __name__="tests_user")
    yield user
    for item in (found, user):
        del sys.modules[item.__name__]


def become(name: str) -> None:
    [mutant] = [item for item in mutate.mutants(SOURCE) if item.name == name]
    assert isinstance(mutant, Mutant)
    mutants._become(sys.modules["entrypoint_sample"], mutant.compiled(Path("sample.py")))


def test_whoever_imported_a_function_has_the_changed_one(module: ModuleType) -> None:
    assert module.near(3, 2) == "4 words"
    become("near: a + 1 → a - 1")
    assert module.near(3, 2) == "2 words", "and no result of before"


def test_whoever_imported_a_class_has_its_changed_methods(module: ModuleType) -> None:
    box = module.Box(3)
    become("Box.is_large: self.size > MOST → self.size >= MOST")
    assert box.is_large
    become("Box.two: cls(2) → cls(3)")
    assert module.Box.two().size == 3
    become("Box.__init__: 1 → 2")
    assert module.Box().size == 2


def test_whoever_imported_a_constant_has_the_changed_one(module: ModuleType) -> None:
    become("module: 3 → 4")
    assert module.MOST == 4
    assert not module.Box(4).is_large


def test_one_change_is_undone_by_the_next(module: ModuleType) -> None:
    become("near: a + 1 → a - 1")
    become("near: a + 1 → a + 2")
    assert module.near(3, 2) == "5 words"


def test_a_module_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main(["policy/nonesuch"]) == 2
    assert "policy/nonesuch is none of: policy/abuse" in capsys.readouterr().err
