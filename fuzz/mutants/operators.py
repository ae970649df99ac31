"""Every single change of an operator, a constant, a condition or a statement of a module, as a text.

The usual libraries do not fit. cosmic-ray knows no deleted statements and no forced conditions, and brings a database and a web
client; mutmut makes a function and its mutants one function with a switch, which no reading of `impl` but the interpreted one
could run. What they do to a syntax tree is the least of it, and `ast` says where everything is.

What compiles to the same code as the original, or as an earlier change, is left out. So are texts for people (docstrings, messages,
annotations), a difference instead of a sum with a field's offset that is zero, and other numbers than 0 and 1 for a flag.
"""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fuzz.mutants.catalogue import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import CodeType

IMPLEMENTATION: Final = ROOT / "impl"

_COMPARISONS: Final[dict[type[ast.cmpop], tuple[str, tuple[str, ...]]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
_BINARIES: Final[dict[type[ast.operator], tuple[str, str]]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "%"),
    ast.Mod: ("%", "//"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}
_DELETED: Final = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Raise, ast.Return, ast.Break, ast.Continue)


@dataclass(frozen=True, slots=True)
class Change:
    """One changed text of a module.

    Args:
        line: number of the first line that differs, from 1.
        function: name of the function around it; empty at the top.
        before: the part that is replaced.
        after: what it becomes.
        text: the module's text.
    """

    line: int
    function: str
    before: str
    after: str
    text: str

    def diff(self, original: str, name: str) -> str:
        """Return it as a unified diff without context."""
        lines = (original.splitlines(keepends=True), self.text.splitlines(keepends=True))
        return "".join(difflib.unified_diff(*lines, fromfile=name, tofile=f"{name} (line {self.line}, {self.function})", n=0))

    def brief(self, original: str) -> str:
        """Return the lines that it takes away and adds, in one line: what it is recognised by in a list."""
        lines = self.diff(original, "").splitlines()[3:]
        return f"{self.function}: " + " ".join(f"{line[0]} {line[1:].strip()}" for line in lines)


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    after: str
    function: str


def changes(text: str) -> list[Change]:
    """Return all changes of a module in the order of its lines.

    Args:
        text: of the module.
    """
    data = text.encode()
    starts = [0]
    for row in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    seen = {_fingerprint(text)}
    found: list[Change] = []
    tree = ast.parse(text)
    for edit in sorted(
        _Edits(data, starts, zero_names(tree, IMPLEMENTATION)).of(tree), key=lambda edit: (edit.start, edit.end, edit.after)
    ):
        result = (data[: edit.start] + edit.after.encode() + data[edit.end :]).decode()
        try:
            fingerprint = _fingerprint(result)
        except SyntaxError:
            # A statement that cannot go, for instance.
            continue
        if fingerprint in seen:
            continue
        seen.add(fingerprint)
        line = data[: edit.start].count(b"\n") + 1
        found.append(Change(line, edit.function, data[edit.start : edit.end].decode(), edit.after, result))
    return found


def zero_names(tree: ast.Module, folder: Path) -> frozenset[str]:
    """Return the constants of a module that are zero, its own and those that it imports from its package.

    Args:
        tree: the module.
        folder: of its package.
    """
    found = {
        node.target.id
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Constant)
        if node.value.value == 0 and not isinstance(node.value.value, bool)
    }
    for node in tree.body:
        path = folder / f"{node.module.rpartition('.')[2]}.py" if isinstance(node, ast.ImportFrom) and node.module else None
        if isinstance(node, ast.ImportFrom) and path is not None and path.is_file():
            known = zero_names(ast.parse(path.read_text(encoding="utf-8")), folder)
            found |= {alias.asname or alias.name for alias in node.names if alias.name in known}
    return frozenset(found)


def _fingerprint(text: str) -> object:
    return _code(compile(text, "", "exec", dont_inherit=True))


def _code(code: CodeType) -> tuple[object, ...]:
    """Return what a code object does, without line numbers."""
    constants = tuple(_code(const) if hasattr(const, "co_code") else (type(const).__name__, const) for const in code.co_consts)
    return code.co_name, code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_exceptiontable


class _Edits:
    """Finds the edits of one module.

    Args:
        data: its text as bytes, which columns count.
        starts: position of each line.
        zeros: names of zero.
    """

    def __init__(self, data: bytes, starts: list[int], zeros: frozenset[str]) -> None:
        self.zeros = zeros
        self.data = data
        self.starts = starts
        self.function = ""

    def of(self, tree: ast.Module) -> Iterator[_Edit]:
        """Return the edits, in no particular order."""
        for statement in tree.body:
            yield from self._statement(statement)

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0),
        )

    def _replaced(self, node: ast.expr | ast.stmt, after: str) -> _Edit:
        return _Edit(*self._span(node), after, self.function)

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[_Edit]:
        """Replace the operator between two operands; brackets and spaces may surround it."""
        start, end = self._span(left)[1], self._span(right)[0]
        pattern = re.escape(old).replace(r"\ ", r"\s+")
        match = re.search(
            rf"(?<![\w<>=!]){pattern}(?![\w<>=])".encode() if old[0].isalpha() else re.escape(old).encode(), self.data[start:end]
        )
        if match is not None:
            yield _Edit(start + match.start(), start + match.end(), new, self.function)

    def _statement(self, node: ast.stmt) -> Iterator[_Edit]:
        if isinstance(node, ast.FunctionDef):
            outer, self.function = self.function, node.name
            for inner in node.body:
                yield from self._statement(inner)
            self.function = outer
            return
        if isinstance(node, ast.ClassDef):
            outer, self.function = self.function, node.name
            for inner in node.body:
                yield from self._statement(inner)
            self.function = outer
            return
        if isinstance(node, ast.Import | ast.ImportFrom) or _for_people(node):
            return
        value = getattr(node, "value", None)
        if self.function and isinstance(node, ast.Assign | ast.Return) and isinstance(value, ast.Constant) and value.value == 1:
            # A flag: whoever reads it asks whether it is 0.
            yield self._replaced(value, "0")
            yield self._replaced(node, "pass")
            return
        if self.function and isinstance(node, _DELETED) and not (isinstance(node, ast.AnnAssign) and node.value is None):
            yield self._replaced(node, "pass")
        if isinstance(node, ast.AugAssign) and type(node.op) in _BINARIES:
            old, new = _BINARIES[type(node.op)]
            yield from self._between(node.target, node.value, f"{old}=", f"{new}=")
        if isinstance(node, ast.If | ast.While):
            yield from (self._replaced(node.test, word) for word in ("True", "False"))
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield from self._statement(child)
            elif isinstance(child, ast.ExceptHandler):
                for inner in child.body:
                    yield from self._statement(inner)
            elif isinstance(child, ast.expr) and child is not getattr(node, "annotation", None):
                yield from self._expression(child)

    def _expression(self, node: ast.expr) -> Iterator[_Edit]:
        if isinstance(node, ast.Constant):
            yield from self._constant(node)
        elif isinstance(node, ast.Compare):
            for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                old, news = _COMPARISONS[type(operator)]
                for new in news:
                    yield from self._between(left, right, old, new)
        elif isinstance(node, ast.BinOp) and type(node.op) in _BINARIES:
            if not (isinstance(node.right, ast.Name) and node.right.id in self.zeros):
                yield from self._between(node.left, node.right, *_BINARIES[type(node.op)])
        elif isinstance(node, ast.BoolOp):
            words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from self._between(left, right, *words)
        elif isinstance(node, ast.UnaryOp):
            yield self._replaced(node, self.data[slice(*self._span(node.operand))].decode())
        elif isinstance(node, ast.IfExp):
            yield from (self._replaced(node.test, word) for word in ("True", "False"))
        elif isinstance(node, ast.JoinedStr | ast.Lambda):
            return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from self._expression(child)
            elif isinstance(child, ast.keyword):
                yield from self._expression(child.value)
            elif isinstance(child, ast.comprehension):
                yield from self._expression(child.iter)
                for test in child.ifs:
                    yield from self._expression(test)

    def _constant(self, node: ast.Constant) -> Iterator[_Edit]:
        value = node.value
        if isinstance(value, bool):
            yield self._replaced(node, str(not value))
        elif isinstance(value, int):
            yield self._replaced(node, str(value + 1))
            if value:
                yield self._replaced(node, str(value - 1))


def _for_people(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, a list of names, a message on its own, or for type checkers alone."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.JoinedStr):
        return True
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.startswith("__"):
        return True
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
