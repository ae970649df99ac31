"""What each name of the translated text is in C: a word, a view of words or a tuple of words; and which functions may raise.

The text has no annotations that matter, and needs none. A name is a view if it is cut, measured, looped over or passed on as one;
what a function returns decides what a call is; everything else is a word. Both questions are answered for all functions at once,
by going round until nothing changes.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

WORD: Final = "word"
VIEW: Final = "view"
NOTHING: Final = "void"
GLOBALS: Final = ("mem", "w")
"""The two arrays of every function: no parameters in C."""
VERDICTS: Final = ("CompiledVerdict", "ValueError")
"""What ends a run: a jump, not an exception of the simulated language."""


def tuple_kind(count: int) -> str:
    """Return what a tuple of so many words is in C."""
    return f"words{count}"


@dataclass
class Function:
    """One function of the text.

    Args:
        definition: its text.
        params: its parameters in C, in order.
        names: what each of its names is.
        returns: what it returns.
        raises: whether an exception of the simulated language may leave it.
        generator: whether it yields words.
    """

    definition: ast.FunctionDef
    params: list[str]
    names: dict[str, str] = field(default_factory=dict)
    returns: str = NOTHING
    raises: bool = False
    generator: bool = False


class Inference:
    """The functions of a text, by name, with all that the emitter must know of them.

    Args:
        definitions: the text.
    """

    def __init__(self, definitions: Mapping[str, ast.FunctionDef]) -> None:
        self.functions = {
            name: Function(
                definition,
                [argument.arg for argument in definition.args.args if argument.arg not in GLOBALS],
                generator=any(isinstance(node, ast.Yield) for node in ast.walk(definition)),
            )
            for name, definition in definitions.items()
        }
        self._until_nothing_changes(self._infer_names)
        self._until_nothing_changes(self._infer_raising)

    def _until_nothing_changes(self, step: Callable[[Function], bool]) -> None:
        # Each function is asked each time: one that comes later may need what an earlier one learns.
        while any([step(function) for function in self.functions.values()]):  # noqa: C419
            pass

    def kind(self, function: Function, node: ast.expr) -> str:
        """Return what an expression is."""
        if isinstance(node, ast.Name):
            return VIEW if node.id in GLOBALS else function.names.get(node.id, WORD)
        if isinstance(node, ast.Subscript):
            return VIEW if isinstance(node.slice, ast.Slice) else WORD
        if isinstance(node, ast.Tuple):
            return tuple_kind(len(node.elts))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.functions:
            return self.functions[node.func.id].returns
        return WORD

    # Names.

    def _infer_names(self, function: Function) -> bool:
        before = (dict(function.names), function.returns)
        changed = False
        for node in ast.walk(function.definition):
            for name in self._viewed(node):
                function.names[name] = VIEW
            if isinstance(node, ast.Call) and _called(node) in self.functions:
                changed |= self._pass_on(function, node)
            if isinstance(node, ast.Assign):
                for target, value in assigned(node):
                    if isinstance(target, ast.Name) and self.kind(function, value) not in (WORD, NOTHING):
                        function.names[target.id] = self.kind(function, value)
            if isinstance(node, ast.Return) and node.value is not None and not function.generator:
                kind = self.kind(function, node.value)
                if kind == NOTHING:
                    # The value of a function that returns none: a dispatch returns what its entries do.
                    continue
                if function.returns in (NOTHING, WORD):
                    function.returns = kind
        return changed or before != (function.names, function.returns)

    def _pass_on(self, function: Function, node: ast.Call) -> bool:
        """What is passed as a view is one, even where the callee does nothing with it."""
        callee = self.functions[_called(node)]
        changed = False
        for param, value in zip(callee.params, self.arguments(node), strict=True):
            if self.kind(function, value) == VIEW and callee.names.get(param) != VIEW:
                callee.names[param] = VIEW
                changed = True
        return changed

    def _viewed(self, node: ast.AST) -> Iterator[str]:
        """Yield the names that a piece of the text uses as views."""
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            yield node.value.id
        elif isinstance(node, ast.For):
            looped = node.iter.args if isinstance(node.iter, ast.Call) and _called(node.iter) in ("zip", "enumerate") else [node.iter]
            yield from (each.id for each in looped if isinstance(each, ast.Name))
        elif isinstance(node, ast.Call):
            if _called(node) == "len":
                yield from (each.id for each in node.args if isinstance(each, ast.Name))
            callee = self.functions.get(_called(node))
            if callee is not None:
                for param, value in zip(callee.params, self.arguments(node), strict=True):
                    if isinstance(value, ast.Name) and callee.names.get(param) == VIEW:
                        yield value.id

    def arguments(self, node: ast.Call) -> list[ast.expr]:
        """Return the arguments that a call has in C: without the two arrays, where the callee takes them under their names."""
        callee = self.functions[_called(node)]
        params = [argument.arg for argument in callee.definition.args.args]
        return [value for param, value in zip(params, node.args, strict=True) if param not in GLOBALS]

    # Exceptions.

    def _infer_raising(self, function: Function) -> bool:
        if function.raises or not self._may_raise(function.definition.body):
            return False
        function.raises = True
        return True

    def _may_raise(self, body: list[ast.stmt]) -> bool:
        return any(self._statement_may_raise(statement) for statement in body)

    def _statement_may_raise(self, statement: ast.stmt) -> bool:
        if isinstance(statement, ast.Raise):
            return raised(statement) not in VERDICTS
        if isinstance(statement, ast.Try):
            inner = [] if statement.handlers else statement.body
            return self._may_raise([*inner, *statement.orelse, *statement.finalbody, *(s for h in statement.handlers for s in h.body)])
        for name, value in ast.iter_fields(statement):
            if name in ("body", "orelse"):
                if self._may_raise(value):
                    return True
            elif any(
                self.call_raises(node)
                for part in (value if isinstance(value, list) else [value])
                if isinstance(part, ast.AST)
                for node in ast.walk(part)
            ):
                return True
        return False

    def call_raises(self, node: ast.AST) -> bool:
        """Return whether a piece of the text is a call that may raise."""
        return isinstance(node, ast.Call) and _called(node) in self.functions and self.functions[_called(node)].raises


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def raised(node: ast.Raise) -> str:
    """Return the name of what a statement raises; empty if it passes on what was caught."""
    kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return kind.id if isinstance(kind, ast.Name) else ""


def assigned(node: ast.Assign) -> list[tuple[ast.expr, ast.expr]]:
    """Return the single assignments of a statement; an unpacked call stays whole."""
    found: list[tuple[ast.expr, ast.expr]] = []
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            found += zip(target.elts, node.value.elts, strict=True)
        else:
            found.append((target, node.value))
    return found
