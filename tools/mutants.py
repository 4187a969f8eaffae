"""Does a unit test notice when a decision is wrong? `make mutants` says which changes none does.

mutants.py [MODULE…]: of the modules (policy/decide, converge/routing; else of all of them) each
mutant of tools/mutate.py is tried: the tests that run a line of it, in a child of a process that
has imported everything, with the changed functions in the place of the others. The tests are those
of `TESTS`, and coverage tells which run what.

A mutant that no test kills has to be explained in tests/mutants.toml by a reason: that it changes
nothing, say. One that is not, and a reason for what is no mutant or is killed, is status 1.

No part of `make test`, since it takes long. mutmut is not used: it leaves alone properties and what
stands outside of functions, such as limits, and it knows no reasons.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import pickle
import re
import resource
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import coverage
import pytest

from tools.mutate import Mutant, mutants

ROOT = Path(__file__).parent.parent
EXPLAINED = ROOT / "tests/mutants.toml"
MODULES = (
    *(f"policy/{path.stem}" for path in sorted((ROOT / "entrypoint/policy").glob("[!_]*.py"))),
    "converge/routing",
)
TESTS = (
    "tests/unit/policy",
    "tests/unit/converge/test_routing.py",
    "tests/unit/services/test_policy.py",
)
_PATIENCE = 5.0  # times as long as the tests take may it be; then the mutant runs in circles
_LEAST = 5.0  # seconds, of that
_MEMORY = 2 << 30  # bytes that a child may have: some mutants grow without an end
_PLAIN = (bool, int, float, str, bytes, tuple, frozenset, re.Pattern, type(None))


@dataclass(frozen=True)
class Covered:
    """Which tests run which line of a module's file, and the seconds of CPU that each takes."""

    by_line: Mapping[str, Mapping[int, frozenset[str]]]
    seconds: Mapping[str, float]


class Hunt:
    """A plugin of pytest: the mutants are tried where it would run the tests."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.failed: str | None = None
        self.status: int | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = f"{report.nodeid}\n{report.longreprtext}"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            print(f"mutants: {report.longreprtext}", file=sys.stderr)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined] # noqa: SLF001
        gc.freeze()  # children share what is there
        items = {item.nodeid: item for item in session.items}
        wrong = _in_child(lambda: self.run(items.values()), 600.0)
        covered = wrong or _in_child(lambda: self.cover(items.values()), 1200.0)
        if not isinstance(covered, Covered):
            print(f"mutants: a test fails without any: {covered}", file=sys.stderr)
            self.status = 1
            return True
        explained = tomllib.loads(EXPLAINED.read_text())
        self.status = max(
            self.hunt(name, items, covered, explained.get(name, {})) for name in self.names
        )
        return True

    def run(self, items: Iterable[pytest.Item]) -> str | None:
        """Tests up to the first that fails, and what it says; None if all pass."""
        for item, following in _with_next(items):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                return self.failed
        return None

    def cover(self, items: Iterable[pytest.Item]) -> Covered:
        paths = {str(ROOT / f"entrypoint/{name}.py") for name in MODULES}
        seconds = {}
        watch = coverage.Coverage(data_file=None, include=sorted(paths), config_file=False)
        watch.start()
        cached = [
            found
            for name in MODULES
            for found in vars(_module(name)).values()
            if getattr(found, "__module__", "") == _module(name).__name__
            and hasattr(found, "cache_clear")
        ]
        for item, following in _with_next(items):
            for function in cached:  # else the first test alone would run it
                function.cache_clear()
            watch.switch_context(item.nodeid)
            began = time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds[item.nodeid] = time.process_time() - began
        watch.stop()
        data = watch.get_data()
        by_line = {
            path: {
                line: frozenset(names) - {""}
                for line, names in data.contexts_by_lineno(path).items()
            }
            for path in paths
        }
        return Covered(by_line, seconds)

    def hunt(
        self,
        name: str,
        items: Mapping[str, pytest.Item],
        covered: Covered,
        explained: Mapping[str, str],
    ) -> int:
        """Try all mutants of a module, and print what came of it; 1 if something is not right."""
        path = ROOT / f"entrypoint/{name}.py"
        source = path.read_text()
        module = _module(name)
        survivors = []
        began = time.monotonic()
        tried = list(mutants(source))
        for mutant in tried:
            tests = _tests(mutant, source, covered, path)
            if not self.killed(module, path, mutant, [items[item] for item in tests], covered):
                survivors.append(mutant)
        names = [mutant.name for mutant in survivors]
        open_ = [mutant for mutant in survivors if mutant.name not in explained]
        stale = [item for item in explained if item not in names]
        print(
            f"{name}: {len(tried)} mutants, {len(tried) - len(names)} killed, "
            f"{len(names) - len(open_)} explained, {len(open_)} survived "
            f"({time.monotonic() - began:.0f} s)"
        )
        for mutant in open_:
            print(f"  line {mutant.line}: {json.dumps(mutant.name, ensure_ascii=False)}")
        for item in stale:
            print(f"  explained, but killed or no mutant: {json.dumps(item, ensure_ascii=False)}")
        sys.stdout.flush()
        return int(bool(open_ or stale))

    def killed(
        self,
        module: ModuleType,
        path: Path,
        mutant: Mutant,
        tests: Sequence[pytest.Item],
        covered: Covered,
    ) -> bool:
        """Whether a test fails with it, or comes to no end."""

        def tried() -> str | None:
            try:
                _become(module, mutant.compiled(path))
            except Exception as error:  # noqa: BLE001 (a module that cannot be imported is noticed)
                return f"import: {error!r}"
            return self.run(tests)

        if not tests:
            return False
        usual = sum(covered.seconds[item.nodeid] for item in tests)
        return bool(_in_child(tried, max(_LEAST, _PATIENCE * usual)))


def _module(name: str) -> ModuleType:
    return import_module(f"entrypoint.{name.replace('/', '.')}")


def _with_next(items: Iterable[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    todo = list(items)
    yield from zip_longest(todo, todo[1:])


def _in_child(work: Callable[[], Any], seconds: float) -> Any:
    """What `work` returns in a child that may take so many seconds of CPU; else why it ended."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 1))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        with open(os.devnull, "r+b") as nothing:  # noqa: PTH123 (a descriptor for each stream)
            for stream in (0, 1, 2):
                os.dup2(nothing.fileno(), stream)
        try:
            said = pickle.dumps(work())
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is told)
            said = pickle.dumps(f"it ended with {error!r}")
        with open(send, "wb") as stream_back:  # noqa: PTH123
            stream_back.write(said)
        os._exit(0)
    os.close(send)
    with open(receive, "rb") as stream_here:  # noqa: PTH123
        said = stream_here.read()
    os.waitpid(child, 0)
    return pickle.loads(said) if said else "it took too long"  # noqa: S301 (our own child's)


def _tests(mutant: Mutant, source: str, covered: Covered, path: Path) -> list[str]:
    """The tests that run a line of a mutant: the module's own first, and quick ones.

    For what is in no function all of the module's own, too: no line tells who looks at a figure.
    """
    lines = set(mutant.lines)
    if mutant.constant:
        lines = _uses(ast.parse(source), mutant.constant)
    by_line = covered.by_line[str(path)]
    found = {item for line, items in by_line.items() if line in lines for item in items}
    module = f"/test_{path.stem}.py"
    if mutant.is_in_no_function:
        found |= {item for item in covered.seconds if item.partition("::")[0].endswith(module)}
    cost: dict[str, float] = {}
    for item in found:
        file = item.partition("::")[0]
        cost[file] = cost.get(file, 0.0) + covered.seconds[item]

    def order(item: str) -> tuple[bool, float, str, float]:
        file = item.partition("::")[0]
        return not file.endswith(module), cost[file], file, covered.seconds[item]

    return sorted(found, key=order)


def _uses(tree: ast.Module, constant: str) -> set[int]:
    """Lines in functions that use a constant, or another one that is made of it."""
    names = {constant}
    for statement in tree.body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and names & _names(statement):
            names |= _names(statement, ast.Store)
    inside = [item for item in ast.walk(tree) if isinstance(item, ast.FunctionDef)]
    return {
        line
        for function in inside
        for statement in ast.walk(function)
        if isinstance(statement, ast.stmt) and names & _names(statement)
        for line in range(statement.lineno, statement.lineno + 1)
    }


def _names(node: ast.AST, context: type[ast.expr_context] = ast.expr_context) -> set[str]:
    return {
        item.id
        for item in ast.walk(node)
        if isinstance(item, ast.Name) and isinstance(item.ctx, context)
    }


# A module becomes another one: whoever imported something from it has that.


def _become(module: ModuleType, code: CodeType) -> None:
    """Give a module's functions and constants those of the code."""
    other: dict[str, Any] = {"__name__": module.__name__, "__file__": code.co_filename}
    exec(code, other)  # noqa: S102 (a change of our own module)
    for name, new in other.items():
        old = module.__dict__.get(name)
        if name.startswith("__") or new is old:
            continue
        if isinstance(old, type):
            for attribute, value in vars(new).items():
                _change_class(old, attribute, vars(old).get(attribute), value)
        elif not _change_function(old, new):
            _change_constant(name, old, new)


def _change_class(owner: type, name: str, old: Any, new: Any) -> None:
    if _change_function(old, new) or name.startswith("__"):
        return
    if isinstance(old, _PLAIN) and isinstance(new, _PLAIN) and old != new:
        setattr(owner, name, new)  # the default of a field


def _change_function(old: Any, new: Any) -> bool:
    """Whether both are functions; then the old one is as the new one."""
    before, after = _function(old), _function(new)
    if before is None or after is None:
        return False
    before.__code__ = after.__code__
    before.__defaults__, before.__kwdefaults__ = after.__defaults__, after.__kwdefaults__
    if hasattr(old, "cache_clear"):
        old.cache_clear()
    return True


def _change_constant(name: str, old: Any, new: Any) -> None:
    if is_dataclass(old):
        for item in fields(old):
            if getattr(new, item.name) != getattr(old, item.name):
                object.__setattr__(old, item.name, getattr(new, item.name))
    elif isinstance(old, _PLAIN) and old != new:
        for user in list(sys.modules.values()):
            ours = getattr(user, "__name__", "").startswith(("entrypoint", "tests"))
            if ours and user.__dict__.get(name) is old:
                setattr(user, name, new)


def _function(found: Any) -> FunctionType | None:
    """The function of a property, a class method or what remembers its results."""
    for name in ("fget", "__func__", "__wrapped__"):
        found = getattr(found, name, found)
    return found if isinstance(found, FunctionType) else None


def main(arguments: Sequence[str]) -> int:
    """Status 1 if a mutant survives that is not explained, 2 for a module that is none."""
    if unknown := [name for name in arguments if name not in MODULES]:
        print(f"mutants: {unknown[0]} is none of: {' '.join(MODULES)}", file=sys.stderr)
        return 2
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    hunt = Hunt(arguments or MODULES)
    with tempfile.TemporaryDirectory() as folder:
        plugins = ("terminal", "cacheprovider", "xdist", "pytest_cov", "faulthandler")
        options = [f"-pno:{name}" for name in plugins]
        options += [
            "-s",
            "-o",
            "addopts=",
            "-m",
            "not image and not long",
            f"--basetemp={folder}/tests",
        ]
        options += ["-o", "timeout=0", "-o", "tmp_path_retention_policy=none"]
        status = pytest.main([*options, *TESTS], plugins=[hunt])
    return int(status) if hunt.status is None else hunt.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
