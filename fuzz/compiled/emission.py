"""The translated text becomes C, statement by statement: words are 64-bit integers, and an exception is a flag that callers look at.

* `mem` and `w` are arrays of the library; no function is passed them.
* A word of the memory is read and written with a check of its bounds, unless the function is trusted; a wild access ends the run.
* A write to the memory leaves a mark in the world, so that what a step changed is found without a comparison of everything.
* What ends a run (a verdict) is a jump back to the nearest function that is a boundary.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from fuzz.compiled.expressions import Expressions, c_type, local, prototype
from fuzz.compiled.inference import NOTHING, VERDICTS, WORD, Inference, raised, tuple_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


MASK_GENERATOR: Final = "bits"
"""The only generator: the numbers in a mask, lowest first."""


def _number(node: ast.expr) -> int | None:
    """Return the number that an expression of constants is; None if it is none."""
    if any(not isinstance(each, ast.Constant | ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop) for each in ast.walk(node)):
        return None
    return int(eval(compile(ast.Expression(node), "", "eval"), {}))  # noqa: S307  # constants and operators alone


def _catches_all(handlers: list[ast.ExceptHandler]) -> bool:
    kind = handlers[0].type
    return len(handlers) == 1 and handlers[0].name is None and isinstance(kind, ast.Name) and kind.id == "Exception"


class Emission(Expressions):
    """One function on its way to C.

    Args:
        known: all functions of the text.
        name: the function's.
        trusted: accesses are not checked, and writes leave no marks: it says itself what it changes.
        boundary: its `try` is where verdicts land.
        tables: constant tuples by name.
        intrinsics: what stands in for a function of a single expression, by its name.
    """

    def __init__(
        self,
        known: Inference,
        name: str,
        *,
        trusted: bool,
        boundary: bool,
        tables: Mapping[str, tuple[int, ...]],
        intrinsics: Mapping[str, str],
    ) -> None:
        super().__init__(known, name, trusted=trusted, tables=tables, intrinsics=intrinsics)
        self.boundary = boundary
        self.lines: list[str] = []
        # For each loop around, how many handlers were around it.
        self.loops: list[int] = []
        self.depth = 1

    def text(self) -> str:
        """Return the definition in C."""
        function = self.function
        if self.name in self.intrinsics and function.returns == WORD:
            # So that a call of the function itself does what a call that was replaced does.
            return f"{prototype(self.name, function)} {{ return {self.intrinsics[self.name].format(*map(local, function.params))}; }}"
        self._block(function.definition.body)
        stored = {
            node.id
            for node in ast.walk(function.definition)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in function.params
        }
        head = [f"{prototype(self.name, function)} {{"]
        for name in sorted(stored):
            kind = function.names.get(name, WORD)
            head.append(f"    {c_type(kind)} {local(name)} = {'0' if kind == WORD else '{0}'};")
        tail = [f"    return{self._zero()};" if function.returns != NOTHING else "    return;"]
        if function.raises:
            tail += ["leave:", f"    return{self._zero()};"]
        return "\n".join([*head, *self.lines, *tail, "}"])

    def _zero(self) -> str:
        kind = self.function.returns
        return "" if kind == NOTHING else " 0" if kind == WORD else f" ({c_type(kind)}){{0}}"

    def _line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    # Statements.

    def _block(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            method: Callable[[ast.stmt], None] | None = getattr(self, f"_do_{type(statement).__name__}", None)
            if method is None:
                raise self.fail(statement, "a statement that C has no word for")
            method(statement)

    def _nested(self, body: Iterable[ast.stmt]) -> None:
        self.depth += 1
        self._block(body)
        self.depth -= 1

    def _do_Pass(self, _node: ast.Pass) -> None:
        self._line(";")

    def _loop(self, body: Iterable[ast.stmt]) -> None:
        self.loops.append(len(self.handlers))
        self._nested(body)
        self.loops.pop()
        self._line("}")

    def _do_Break(self, node: ast.Break) -> None:
        self._must_stay_inside(node, self.handlers[self.loops[-1] :])
        self._line("break;")

    def _do_Continue(self, node: ast.Continue) -> None:
        self._must_stay_inside(node, self.handlers[self.loops[-1] :])
        self._line("continue;")

    def _must_stay_inside(self, node: ast.stmt, left: list[str]) -> None:
        """Refuse a way out of a `try` that would skip what belongs to its end."""
        what = type(node).__name__.lower()
        if any(handler.startswith("final") for handler in left):
            raise self.fail(node, f"a {what} out of try and finally")
        if self.boundary and left:
            raise self.fail(node, f"a {what} out of a boundary")

    def _do_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self._line(f"{self.value(node.value)};")

    def _do_Return(self, node: ast.Return) -> None:
        self._must_stay_inside(node, self.handlers)
        if node.value is None:
            self._line(f"return{self._zero()};")
        elif self.known.kind(self.function, node.value) == NOTHING:
            self._line(f"{self.value(node.value)};")
            self._line(f"return{self._zero()};")
        elif isinstance(node.value, ast.Tuple):
            before, values = self.in_order(node.value.elts)
            kind = tuple_kind(len(node.value.elts))
            self._line(f"{{ {''.join(before)}return ({kind}){{{{{', '.join(values)}}}}}; }}")
        else:
            self._line(f"return {self.value(node.value)};")

    def _do_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if len(node.targets) > 1 and any(isinstance(each, ast.Tuple) for each in node.targets):
            raise self.fail(node, "a tuple among several targets")
        if isinstance(target, ast.Tuple):
            self._unpack(target, node.value)
        elif len(node.targets) > 1:
            name = self.new()
            self._line(f"{c_type(self.known.kind(self.function, node.value))} {name} = {self.value(node.value)};")
            for each in node.targets:
                self._line(f"{self.store(each, name)};")
        elif isinstance(target, ast.Name):
            self._line(f"{local(target.id)} = {self.value(node.value)};")
        else:
            self._line(f"{self.store(target, self.value(node.value))};")

    def _unpack(self, target: ast.Tuple, value: ast.expr) -> None:
        if isinstance(value, ast.Tuple):
            names = []
            for each in value.elts:
                names.append(self.new())
                self._line(f"{c_type(self.known.kind(self.function, each))} {names[-1]} = {self.value(each)};")
            for each, name in zip(target.elts, names, strict=True):
                self._line(f"{self.store(each, name)};")
            return
        name = self.new()
        self._line(f"{tuple_kind(len(target.elts))} {name} = {self.value(value)};")
        for index, each in enumerate(target.elts):
            self._line(f"{self.store(each, f'{name}.at[{index}]')};")

    def _do_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            old: ast.expr = ast.Name(node.target.id, ast.Load())
            self._line(f"{local(node.target.id)} = {self.value(ast.BinOp(old, node.op, node.value))};")
            return
        if not isinstance(node.target, ast.Subscript):
            raise self.fail(node, "no word")
        place, held = self.new(), self.new()
        self.function.names.setdefault(place, WORD)
        index = ast.Name(place, ast.Load())
        self._line(f"word {place} = {self.value(node.target.slice)};")
        read = ast.Subscript(node.target.value, index, ast.Load())
        self._line(f"word {held} = {self.value(read)};")
        result = self.value(ast.BinOp(ast.Name(held, ast.Load()), node.op, node.value))
        self._line(f"{self.store(ast.Subscript(node.target.value, index, ast.Store()), result)};")

    def _do_If(self, node: ast.If) -> None:
        self._line(f"if ({self.test(node.test)}) {{")
        self._nested(node.body)
        if node.orelse:
            self._line("} else {")
            self._nested(node.orelse)
        self._line("}")

    def _do_While(self, node: ast.While) -> None:
        if node.orelse:
            raise self.fail(node, "a loop with else")
        self._line(f"while ({self.test(node.test)}) {{")
        self._loop(node.body)

    def _do_For(self, node: ast.For) -> None:
        if node.orelse:
            raise self.fail(node, "a loop with else")
        call = node.iter if isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Name) else None
        name = "" if call is None else call.func.id  # type: ignore[attr-defined]
        if call is not None and name == "range":
            self._range(node, call)
        elif call is not None and name in self.known.functions and self.known.functions[name].generator:
            if name.rpartition("__")[2] != MASK_GENERATOR:
                raise self.fail(node, "a generator that C has no word for")
            mask = self.new()
            self._line(f"for (unsigned long long {mask} = {self.value(call.args[0])}; {mask}; {mask} &= {mask} - 1) {{")
            self._line(f"    {self.store(node.target, f'__builtin_ctzll({mask})')};")
            self._loop(node.body)
        elif call is not None and name == "zip" and isinstance(node.target, ast.Tuple) and len(call.args) == len(node.target.elts):
            self._over(call.args, node.target.elts, None, node.body)
        elif call is not None and name == "enumerate" and isinstance(node.target, ast.Tuple) and len(call.args) == 1:
            self._over(call.args, node.target.elts[1:], node.target.elts[0], node.body)
        else:
            self._over([node.iter], [node.target], None, node.body)

    def _range(self, node: ast.For, call: ast.Call) -> None:
        bounds = [self.value(each) for each in call.args]
        start, end = ("0LL", bounds[0]) if len(bounds) == 1 else (bounds[0], bounds[1])
        step = _number(call.args[2]) if len(bounds) == 3 else 1
        if not step or call.keywords:
            raise self.fail(node, "a range with a step that is no number")
        index, last = self.new(), self.new()
        sign = ">" if step < 0 else "<"
        self._line(f"for (word {index} = {start}, {last} = {end}; {index} {sign} {last}; {index} += {step}LL) {{")
        self._line(f"    {self.store(node.target, index)};")
        self._loop(node.body)

    def _over(self, views: list[ast.expr], targets: list[ast.expr], number: ast.expr | None, body: list[ast.stmt]) -> None:
        self._line("{")
        names = []
        for each in views:
            names.append(self.new())
            self._line(f"    view {names[-1]} = {self.value(each)};")
        index = self.new()
        bound = " && ".join(f"{index} < {name}.n" for name in names)
        self._line(f"    for (word {index} = 0; {bound}; {index}++) {{")
        self.depth += 1
        for target, name in zip(targets, names, strict=True):
            self._line(f"    {self.store(target, f'{name}.at[{index}]')};")
        if number is not None:
            self._line(f"    {self.store(number, index)};")
        self._loop(body)
        self.depth -= 1
        self._line("}")

    def _do_Raise(self, node: ast.Raise) -> None:
        if raised(node) in VERDICTS:
            self._line("end_run();" if raised(node) == VERDICTS[0] else "wild();")
        else:
            self._line(f"raised = 1; goto {self.landing()};")

    def _do_Try(self, node: ast.Try) -> None:
        if node.orelse or (node.handlers and node.finalbody):
            raise self.fail(node, "a try with else, or with both except and finally")
        if node.handlers and not _catches_all(node.handlers):
            raise self.fail(node, "an except that does not catch everything")
        if self.boundary:
            self._boundary(node)
            return
        landing = self.new("caught" if node.handlers else "final")
        after = self.new("after")
        self.handlers.append(landing)
        self._line("{")
        self._nested(node.body)
        self._line("}")
        self.handlers.pop()
        if node.handlers:
            self._line(f"goto {after};")
            self._line(f"{landing}: __attribute__((unused));")
            self._line("raised = 0;")
            self._block(node.handlers[0].body)
            self._line(f"{after}: ;")
            return
        held = self.new()
        self._line(f"{landing}: __attribute__((unused));")
        self._line(f"{{ word {held} = raised; raised = 0;")
        self._nested(node.finalbody)
        # What is caught further out in this function leaves the block all the same.
        leaves = self.handlers or self.function.raises
        self._line(f"if ({held}) {{ raised = 1; goto {self.landing()}; }} }}" if leaves else "}")

    def _boundary(self, node: ast.Try) -> None:
        """Verdicts land here; a jump keeps no local that the body changes, so the body may change none that is read after it."""
        if self.handlers or self.loops or not node.handlers:
            raise self.fail(node, "a boundary that is no plain try and except")
        inside = {id(each) for statement in node.body for each in ast.walk(statement)}
        names = [each for each in ast.walk(self.function.definition) if isinstance(each, ast.Name)]
        changed = {each.id for each in names if id(each) in inside and isinstance(each.ctx, ast.Store)}
        if changed & {each.id for each in names if id(each) not in inside and isinstance(each.ctx, ast.Load)}:
            raise self.fail(node, "a boundary that changes what is read outside of it")
        outside = self.new()
        landing, after = self.new("caught"), self.new("after")
        self._line(f"jmp_buf {outside}; memcpy({outside}, landing, sizeof landing); landings++;")
        self._line(f"if (_setjmp(landing) != 0) goto {landing};")
        self.handlers.append(landing)
        self._nested(node.body)
        self.handlers.pop()
        self._line(f"memcpy(landing, {outside}, sizeof landing); landings--; goto {after};")
        self._line(f"{landing}: ;")
        self._line(f"memcpy(landing, {outside}, sizeof landing); landings--; raised = 0;")
        self._nested(node.handlers[0].body)
        self._line(f"{after}: ;")
