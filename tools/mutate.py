"""Small wrong changes of a Python module, one at a time: what a good test notices. Pure.

Of each function and constant: `<` for `<=` and the like, `==` for `!=`, a part of `and` or `or`
left out, a condition turned round, another arithmetic operator, a number that is one larger, a word
with a character more, True for False, `break` for `continue`, None for what is returned, and a
statement left out (a call, `raise`, `del`, an assignment to what outlives the function).

Left alone is what says something to people (docstrings, f-strings, strings with a space in them),
annotations, decorators and the members of enumerations.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_TURNED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)  # these get a neighbour above, and are turned besides
_OF_CHARACTERS = ("decode", "encode", "strip", "lstrip", "rstrip")  # charsets, and sets of them
_EVERY_LINE = range(1, 1 << 20)
_SHOWN = 90  # characters of an expression that stands for its place
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Mutant:
    """`name` is the function (or `module`) and the change; it outlives changes of other lines.

    `lines` are those of which a test has to run one to notice it. `constant` is the name that gets
    another value, if the change is in no function.
    """

    name: str
    line: int
    lines: range
    constant: str
    _tree: ast.Module
    _old: ast.AST
    _new: ast.AST

    @property
    def is_in_no_function(self) -> bool:
        return self.lines == _EVERY_LINE

    def compiled(self, path: Path) -> CodeType:
        """The whole module, with the change."""
        with _changed(self._old, self._new):
            return compile(self._tree, str(path), "exec")


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            child.parent = parent  # type: ignore[attr-defined]
    seen: Counter[str] = Counter()
    found = [item for item in ast.walk(tree) if not _is_left_alone(item)]
    found.sort(key=lambda item: (getattr(item, "lineno", 0), getattr(item, "col_offset", 0)))
    for node in found:
        for old, new in _changes(node):
            name = f"{_function(old)}: {_change(old, new)}"
            seen[name] += 1
            if seen[name] > 1:
                name = f"{name} ({seen[name]})"
            line = getattr(old, "lineno", 0)
            yield Mutant(name, line, _lines(old), _constant(old), tree, old, new)


def _parents(node: ast.AST) -> Iterator[ast.AST]:
    while found := getattr(node, "parent", None):
        yield found
        node = found


def _is_left_alone(node: ast.AST) -> bool:
    child = node
    for parent in _parents(node):
        if isinstance(parent, ast.JoinedStr) and isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                return True
        elif isinstance(parent, (*_FUNCTIONS, ast.ClassDef)):
            if child in parent.decorator_list or child is getattr(parent, "returns", None):
                return True
        elif isinstance(parent, (ast.AnnAssign, ast.arg)) and child is parent.annotation:
            return True
        if isinstance(parent, ast.ClassDef) and isinstance(child, ast.Assign):
            return True  # a member of an enumeration, or what is like one
        child = parent
    return False


def _function(node: ast.AST) -> str:
    """The qualified name of what a node is in; `module` for what is in no function and class."""
    within = [node, *_parents(node)]
    names = [item.name for item in within if isinstance(item, (*_FUNCTIONS, ast.ClassDef))]
    return ".".join(reversed(names)) or "module"


def _statement(node: ast.AST) -> ast.stmt | None:
    return next((item for item in (node, *_parents(node)) if isinstance(item, ast.stmt)), None)


def _lines(node: ast.AST) -> range:
    """From a node's statement to the node's end; all of a function for what is in its head, and all
    of the module for what is in no function."""
    found = _statement(node)
    if found is None or not any(isinstance(item, _FUNCTIONS) for item in (found, *_parents(found))):
        return _EVERY_LINE
    if isinstance(found, _FUNCTIONS):
        return range(found.body[0].lineno, (found.end_lineno or found.lineno) + 1)
    return range(found.lineno, (getattr(node, "end_lineno", None) or found.lineno) + 1)


def _constant(node: ast.AST) -> str:
    """The name that gets its value where a node stands, outside of functions and classes."""
    found = _statement(node)
    if found is None or not isinstance(getattr(found, "parent", None), ast.Module):
        return ""
    match found:
        case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
            return name
    return ""


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """What may stand in a node's place."""
    match node:
        case ast.Compare():
            yield from _of_comparison(node)
        case ast.BoolOp():
            for number in range(len(node.values)):
                rest = node.values[:number] + node.values[number + 1 :]
                yield node, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node, node.operand
        case ast.BinOp() if type(node.op) in _COMPUTED:
            yield node, ast.BinOp(node.left, _COMPUTED[type(node.op)](), node.right)
        case ast.AugAssign() if type(node.op) in _COMPUTED:
            yield node, ast.AugAssign(node.target, _COMPUTED[type(node.op)](), node.value)
        case ast.Constant():
            yield from ((node, ast.Constant(item)) for item in _other_values(node))
        case ast.Break():
            yield node, ast.Continue()
        case ast.Continue():
            yield node, ast.Break()
        case ast.Return(value=ast.expr() as value) if not _is_nothing(value):
            yield node, ast.Return(ast.Constant(None))
    yield from _of_condition(node)
    if _can_go(node):
        yield node, ast.Pass()


def _of_comparison(node: ast.Compare) -> Iterator[tuple[ast.AST, ast.AST]]:
    for number, op in enumerate(node.ops):
        ops = [*node.ops[:number], _COMPARED[type(op)](), *node.ops[number + 1 :]]
        yield node, ast.Compare(node.left, ops, node.comparators)


def _of_condition(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    conditions: list[ast.expr] = []
    if isinstance(node, (ast.If, ast.While, ast.IfExp)):
        conditions = [node.test]
    elif isinstance(node, ast.comprehension):
        conditions = node.ifs
    for test in conditions:
        plain = isinstance(test, ast.Compare) and not isinstance(test.ops[0], _TURNED)
        if not plain and not isinstance(test, ast.UnaryOp):
            yield test, ast.UnaryOp(ast.Not(), test)


def _other_values(node: ast.Constant) -> Iterator[bool | float | str | bytes]:
    value = node.value
    match getattr(node, "parent", None):
        case ast.Expr():  # a docstring
            return
        case ast.Call(func=ast.Attribute(attr=name)) if name in _OF_CHARACTERS:
            return
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield value + 1
    elif isinstance(value, str) and " " not in value:
        yield value + "~"
    elif isinstance(value, bytes) and b" " not in value:
        yield value + b"~"


def _is_nothing(node: ast.expr) -> bool:
    """Whether it is as false as None: callers ask for no more, or mypy would have said so."""
    if isinstance(node, ast.Constant):
        return not node.value
    return isinstance(node, ast.Tuple) and not node.elts


def _can_go(node: ast.AST) -> bool:
    """Whether a statement may be left out: what only gives a name to a value may not."""
    if not any(isinstance(item, _FUNCTIONS) for item in _parents(node)):
        return False
    if isinstance(node, (ast.Raise, ast.Delete, ast.AugAssign)):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    lasting = (ast.Attribute, ast.Subscript)
    return isinstance(node, ast.Assign) and all(isinstance(item, lasting) for item in node.targets)


def _change(old: ast.AST, new: ast.AST) -> str:
    """`old → new`, within the expression around it while that is short."""
    around: ast.AST = old
    for parent in _parents(old):
        within = isinstance(parent, (ast.expr, ast.keyword, ast.comprehension))
        if not within or isinstance(parent, ast.FormattedValue) or len(_text(parent)) > _SHOWN:
            break
        around = parent
    before = _text(around)
    if around is old:
        return f"{before} → {_text(new)}"
    with _changed(old, new):
        return f"{before} → {_text(around)}"


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 2 * _SHOWN else f"{text[: 2 * _SHOWN]}…"


@contextmanager
def _changed(old: ast.AST, new: ast.AST) -> Iterator[None]:
    """While it lasts the one stands in the other's place."""
    parent = next(_parents(old))
    ast.fix_missing_locations(ast.copy_location(new, old))
    for name, value in ast.iter_fields(parent):
        if value is old:
            setattr(parent, name, new)
            yield
            setattr(parent, name, old)
            return
        if isinstance(value, list) and any(item is old for item in value):
            place = next(number for number, item in enumerate(value) if item is old)
            value[place] = new
            yield
            value[place] = old
            return
