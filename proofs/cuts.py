"""Functions are proved in pieces that are cut from their own text: before a loop, once round it, after it; callees may become contracts.

A loop of unbounded length has no finite list of paths. What is proved of it is the classical triple: the part before the loop
establishes an invariant, one round keeps it, and together with the end of the loop it implies what the rest needs. The pieces are
made from the syntax tree of the function that runs, so a change to its text changes what is proved.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final, TypeAlias

State: TypeAlias = dict[str, Any]


class CannotCut(ValueError):
    """A function has no such loop, or one of a shape that is not cut."""


@dataclass(frozen=True)
class Reached:
    """The loop was reached: the local variables there."""

    state: State


@dataclass(frozen=True)
class Again:
    """One round was made: the local variables after it."""

    state: State


@dataclass(frozen=True)
class Left:
    """The loop was left, because its condition failed or by `break`: the local variables there."""

    state: State
    broken: bool


@dataclass(frozen=True)
class Returned:
    """The function returned."""

    value: Any


_HELPERS: Final = {"_Reached": Reached, "_Again": Again, "_Left": Left, "_Returned": Returned}


class _Returns(ast.NodeTransformer):
    """Mark what is returned, so that it differs from a piece's own end."""

    def visit_Return(self, node: ast.Return) -> ast.Return:
        value = node.value or ast.Constant(None)
        return ast.Return(ast.Call(ast.Name("_Returned", ast.Load()), [value], []))


def _tree(function: Callable[..., object]) -> ast.FunctionDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise CannotCut(f"{function.__name__} is no plain function")
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:]
    return tree


def _compiled(name: str, parameters: list[str], body: list[ast.stmt], space: dict[str, Any]) -> Callable[..., Any]:
    """Make a function of statements, in a namespace of its own."""
    arguments = ast.arguments([], [ast.arg(parameter) for parameter in parameters], None, [], [], None, [])
    definition = ast.FunctionDef(name, arguments, body, [], None)
    if "type_params" in ast.FunctionDef._fields:
        definition.type_params = []  # type: ignore[attr-defined, unused-ignore]
    module = ast.fix_missing_locations(ast.Module([definition], []))
    exec(compile(module, f"<cut of {name}>", "exec"), space)  # noqa: S102 - the text is that of a function of this project
    made: Callable[..., Any] = space[name]
    return made


def _end(kind: str, *more: ast.expr) -> ast.Return:
    state = ast.Call(ast.Name("locals", ast.Load()), [], [])
    return ast.Return(ast.Call(ast.Name(kind, ast.Load()), [state, *more], []))


class Cut:
    """A function cut at one of its loops.

    Args:
        function: A function of this project.
        loop: Which loop, counted from 0 in the order in which they begin; inner ones count.
        within: The loop around it, if what comes before and after it is to be a part of that one's round; else the function is cut.
        contracts: What to put in the place of functions that it calls, by name.

    Raises:
        CannotCut: There is no such loop, or it has an `else` or a `continue`.
    """

    def __init__(self, function: Callable[..., object], loop: int = 0, within: int | None = None, **contracts: Callable[..., Any]) -> None:
        self.function = function
        self.within = within
        self.contracts = contracts
        tree = _Returns().visit(_tree(function))
        self._parameters = [argument.arg for argument in tree.args.args]
        loops = sorted(
            (node for node in ast.walk(tree) if isinstance(node, ast.While | ast.For)), key=lambda node: (node.lineno, node.col_offset)
        )
        if max(loop, within or 0) >= len(loops):
            raise CannotCut(f"{function.__name__} has {len(loops)} loops")
        self._loop = loops[loop]
        if self._loop.orelse or any(isinstance(node, ast.Continue) for node in ast.walk(self._loop)):
            raise CannotCut(f"loop {loop} of {function.__name__} has an `else` or a `continue`")
        self._body: list[ast.stmt] = tree.body if within is None else loops[within].body

    def _space(self) -> dict[str, Any]:
        space = dict(self.function.__globals__)
        return space | _HELPERS | self.contracts

    def _split(self) -> int:
        if self._loop not in self._body:
            raise CannotCut(f"the loop of {self.function.__name__} lies inside another statement")
        return self._body.index(self._loop)

    def entry(self, *arguments: Any) -> Reached | Returned:
        """Run what comes before the loop, from the function's arguments."""
        return self.before(dict(zip(self._parameters, arguments, strict=True)))

    def before(self, state: State) -> Reached | Returned:
        """Run what comes before the loop; if it is cut within another one's round, from where that begins."""
        reached: Reached | Returned = self._run("entry", state, [*self._body[: self._split()], _end("_Reached")])
        return reached

    def bounds(self, state: State) -> tuple[Any, ...]:
        """Return what the `range` of the loop is made of, where the loop begins: its rounds, or where they start and stop.

        Raises:
            CannotCut: The loop is none over a `range`.
        """
        source = self._loop.iter if isinstance(self._loop, ast.For) else None
        if not (isinstance(source, ast.Call) and isinstance(source.func, ast.Name) and source.func.id == "range"):
            raise CannotCut(f"the loop of {self.function.__name__} is none over a range")
        made: tuple[Any, ...] = self._run("bounds", state, [ast.Return(ast.Tuple(list(source.args), ast.Load()))])
        return made

    def step(self, state: State) -> Again | Left | Returned:
        """Ask the loop's condition, and go round once.

        For a loop over a range, the variable is part of the state, and there is no condition to ask.
        """
        once: list[ast.stmt] = [ast.While(ast.Constant(True), [*self._loop.body, _end("_Again")], [])]
        if isinstance(self._loop, ast.While):
            leave = ast.If(ast.UnaryOp(ast.Not(), self._loop.test), [_end("_Left", ast.Constant(False))], [])
            once = [leave, *once]
        came: Again | Left | Returned = self._run("step", state, [*once, _end("_Left", ast.Constant(True))])
        return came

    def after(self, state: State) -> Any:
        """Run what comes after the loop, and return what the function returns.

        If the loop is cut within another one's round, return what came of that: `Again` with the local variables, or `Returned`.
        """
        came = self._run("after", state, [*self._body[self._split() + 1 :], _end("_Reached" if self.within is None else "_Again")])
        if self.within is not None:
            return came
        return came.value if isinstance(came, Returned) else None

    def _run(self, piece: str, state: State, body: list[ast.stmt]) -> Any:
        made = _compiled(f"{self.function.__name__}_{piece}", list(state), body, self._space())
        return made(**state)


def with_contracts(function: Callable[..., object], **contracts: Callable[..., Any]) -> Callable[..., Any]:
    """Return the code of a function with other functions in the place of some that it calls.

    Args:
        function: A function of this project.
        contracts: By name, what stands for a function: it returns anything that keeps the promise that was proved of that one.

    Raises:
        CannotCut: It calls nothing of such a name.
    """
    code = function.__code__
    absent = sorted(set(contracts) - set(code.co_names))
    if absent:
        raise CannotCut(f"{function.__name__} does not call {', '.join(absent)}")
    return FunctionType(code, function.__globals__ | contracts, function.__name__)
