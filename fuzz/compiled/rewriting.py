"""One function on its way from the plain reading to the compiled one; what changes is listed in `fuzz.compiled.translate`."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import textwrap
from enum import Enum
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from fuzz.compiled.lowering import LOWERED, lowered, params_of, tag_of
from fuzz.compiled.world import ALIASES, ARRAYS, DROPPED, NEVER, RAISES, REGISTERS, REPORTS, WILD, bound_at, config_at, outcome_of
from impl.header import VERDICT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fuzz.compiled.translate import Translator

_MISSING: Final = object()
_AFTER: Final = f"""
mem[{RAISES}] = 0
if w[{REGISTERS["verdict"]}] != 0 or mem[{VERDICT}] != 0:
    raise CompiledVerdict("")
"""
_AFTER_IN_MODEL: Final = f"""
if w[{REGISTERS["verdict"]}] != 0:
    raise CompiledVerdict("")
"""
"""The same, where there is no memory."""


class Untranslatable(Exception):
    """A function says something that has no compiled meaning; the message names it and its line."""


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements of a body without its docstring."""
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
        return body[1:] or [ast.Pass()]
    return body


def _number(node: int) -> ast.expr:
    return ast.Constant(node) if node >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-node))


def _name(word: str) -> ast.Name:
    return ast.Name(word, ast.Load())


def world_word(offset: int, index: ast.expr | None = None) -> ast.Subscript:
    """Return the expression of a word of the world: at an offset, plus an index."""
    where: ast.expr = _number(offset) if index is None else ast.BinOp(_number(offset), ast.Add(), index)
    return ast.Subscript(_name("w"), where, ast.Load())


class Rewriting(ast.NodeTransformer):
    """One function on its way from one reading to the other."""

    def __init__(self, translator: Translator, function: Callable[..., Any], name: str) -> None:
        self.translator = translator
        self.function = function
        self.name = name
        if not isinstance(function, FunctionType):
            raise Untranslatable(f"{name} is no plain function but {type(function).__name__}")
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        definition = tree.body[0]
        if not isinstance(definition, ast.FunctionDef):
            raise Untranslatable(f"{name} is no plain function")
        self.definition = definition
        self.globals = {**function.__globals__, **_imported(definition)}
        self.tags = {param: tag for param in params_of(function) if (tag := tag_of(function, param)) is not None}
        self.locals = set(params_of(function)) | {
            node.id for node in ast.walk(definition) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        self.lowered_params = lowered(function)

    def lowered(self) -> ast.Module:
        """Return the definition, rewritten."""
        definition = self.definition
        body = without_docstring(definition.body)
        dispatch = self._dispatch(body)
        if dispatch is not None:
            new_body = dispatch
        else:
            self._note_aliases(body)
            new_body = self._block(body) or [ast.Pass()]
        arguments = ast.arguments([], [ast.arg(param) for param in self.lowered_params], None, [], [], None, [])
        result = ast.FunctionDef(self.name, arguments, new_body, [], None)
        return ast.fix_missing_locations(ast.Module([result], []))

    def fail(self, node: ast.AST, why: str) -> Untranslatable:
        """Return the error about a piece of the text."""
        line = getattr(node, "lineno", 0)
        return Untranslatable(f"{self.function.__module__}.{self.function.__qualname__}, its line {line}: {why}: {ast.unparse(node)[:100]}")

    # What an expression stands for.

    def value_of(self, node: ast.expr) -> object:
        """Return the object that a name or a chain of attributes means outside of the function, or `_MISSING`.

        A cache around a function is for the plain reading: the function itself is meant.
        """
        if isinstance(node, ast.Name):
            if node.id in self.locals:
                return _MISSING
            value = self.globals.get(node.id, _MISSING)
            if value is _MISSING:
                builtin = getattr(builtins, node.id, None)
                return builtin if isinstance(builtin, type) and issubclass(builtin, BaseException) else _MISSING
            return getattr(value, "__wrapped__", value)
        if isinstance(node, ast.Attribute):
            base = self.value_of(node.value)
            if isinstance(base, ModuleType) or (isinstance(base, type) and issubclass(base, Enum)):
                return getattr(base, node.attr, _MISSING)
        return _MISSING

    def tag(self, node: ast.expr) -> str | None:
        """Return what kind of object an expression is, for those that live in the world."""
        if isinstance(node, ast.Name):
            return self.tags.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.tag(node.value)
            if base in ALIASES:
                return ALIASES[base].get(node.attr)
        return None

    def _note_aliases(self, body: list[ast.stmt]) -> None:
        """Find the local names that stand for a part of the world; a name means one thing throughout."""
        for statement in ast.walk(ast.Module(body, [])):
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                for target, value in _pairs(statement.targets[0], statement.value):
                    tag = self.tag(value)
                    if isinstance(target, ast.Name) and tag is not None:
                        self.tags[target.id] = tag

    # Statements.

    def visit_ImportFrom(self, _node: ast.ImportFrom) -> list[ast.stmt]:
        """What a function imports for itself is known already."""
        return []

    def _block(self, body: Iterable[ast.stmt]) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        for statement in body:
            new = self.visit(statement)
            if isinstance(new, list):
                found += new
            elif new is not None:
                found.append(new)
        return found

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | None:
        """Drop what only records."""
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Attribute):
            owner = call.func.value
            if self.tag(owner.value) == "driver" and owner.attr in DROPPED:
                return None
        return ast.Expr(self.visit(call))

    def visit_Delete(self, _node: ast.Delete) -> None:
        """Names are deleted to say that they are not used."""

    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt]:
        """Drop aliases of parts of the world."""
        if len(node.targets) != 1:
            value = self.visit(node.value)
            return [ast.Assign([self.visit(target) for target in node.targets], value)]
        kept = []
        for target, value in _pairs(node.targets[0], node.value):
            if isinstance(target, ast.Name) and self.tag(value) is not None:
                continue
            if isinstance(target, ast.Attribute) and self.tag(target.value) == "driver" and target.attr in DROPPED:
                continue
            kept.append((self.visit(target), self.visit(value)))
        if len(kept) > 1:
            targets, values = zip(*kept, strict=True)
            return [ast.Assign([ast.Tuple(list(targets), ast.Store())], ast.Tuple(list(values), ast.Load()))]
        return [ast.Assign([target], value) for target, value in kept]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> list[ast.stmt]:
        """Drop the annotation."""
        if node.value is None:
            return []
        return self.visit_Assign(ast.Assign([node.target], node.value))

    def visit_If(self, node: ast.If) -> list[ast.stmt] | ast.stmt:
        """Leave out what can never be."""
        test = self.visit(node.test)
        if isinstance(test, ast.Constant):
            return self._block(node.body if test.value else node.orelse)
        return ast.If(test, self._block(node.body) or [ast.Pass()], self._block(node.orelse))

    def visit_While(self, node: ast.While) -> ast.stmt:
        """Translate the body as a block."""
        return ast.While(self.visit(node.test), self._block(node.body) or [ast.Pass()], self._block(node.orelse))

    def visit_For(self, node: ast.For) -> ast.stmt:
        """Translate the body as a block."""
        return ast.For(node.target, self.visit(node.iter), self._block(node.body) or [ast.Pass()], self._block(node.orelse))

    def visit_Raise(self, node: ast.Raise) -> list[ast.stmt]:
        """Leave a number behind that says what was raised."""
        if node.exc is None:
            return [ast.Raise(None, None)]
        kind = self.value_of(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise self.fail(node, "raises something unknown")
        code = outcome_of(kind)
        found: list[ast.stmt] = []
        if code >= outcome_of(BaseException):
            if "w" in self.lowered_params:
                found.append(ast.Assign([_stored(world_word(REGISTERS["verdict"]))], _number(code)))
        elif "mem" in self.lowered_params:
            found.append(ast.Assign([_stored(ast.Subscript(_name("mem"), _number(RAISES), ast.Load()))], _number(code)))
        # What has neither raises only where the configuration is impossible; unnumbered, it counts as a wild exception.
        message = node.exc.args[0] if isinstance(node.exc, ast.Call) and node.exc.args else None
        text = message.value if isinstance(message, ast.Constant) else ""
        name = kind.__name__ if issubclass(kind, Exception) else "CompiledVerdict"
        return [*found, ast.Raise(ast.Call(_name(name), [ast.Constant(text)], []), None)]

    def visit_Try(self, node: ast.Try) -> list[ast.stmt]:
        """Catch everything, and tell apart by the number that was left. What is no exception of the language ends the run.

        A verdict is caught only where it lands, so a function that catches one must be a boundary (`fuzz.compiled.package`).
        """
        body, final, orelse = self._block(node.body), self._block(node.finalbody), self._block(node.orelse)
        handlers: list[ast.ExceptHandler] = []
        after: list[ast.stmt] = []
        if node.handlers:
            plain = len(node.handlers) == 1 and self._is_any(node.handlers[0])
            handlers = [ast.ExceptHandler(_name("Exception"), None, self._caught(node.handlers))]
            after = [] if plain else ast.parse(_AFTER if "mem" in self.lowered_params else _AFTER_IN_MODEL).body
        return [ast.Try(body or [ast.Pass()], handlers, orelse, final), *after]

    def _is_any(self, clause: ast.ExceptHandler) -> bool:
        return isinstance(clause.type, ast.Name) and clause.type.id == "Exception"

    def _caught(self, clauses: list[ast.ExceptHandler]) -> list[ast.stmt]:
        verdict = REGISTERS["verdict"]
        chain: list[ast.stmt] = ast.parse(f"if w[{verdict}] == 0:\n    w[{verdict}] = {WILD}").body
        for clause in reversed(clauses):
            if self._is_any(clause):
                chain = self._block(clause.body) or [ast.Pass()]
                continue
            kind = None if clause.type is None else self.value_of(clause.type)
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise self.fail(clause, "catches something unknown")
            code = outcome_of(kind)
            caught = self._block(clause.body) or [ast.Pass()]
            where: ast.expr = ast.Subscript(_name("mem"), _number(RAISES), ast.Load())
            if code >= outcome_of(BaseException):
                where = world_word(verdict)
                caught.insert(0, ast.Assign([_stored(world_word(verdict))], _number(0)))
            chain = [ast.If(ast.Compare(where, [ast.Eq()], [_number(code)]), caught, chain)]
        return chain

    def _dispatch(self, body: list[ast.stmt]) -> list[ast.stmt] | None:
        """Turn ``return TABLE[kind](...)`` over a table of functions into comparisons."""
        if len(body) != 1 or not isinstance(body[0], ast.Return | ast.Expr) or not isinstance(body[0].value, ast.Call):
            return None
        call = body[0].value
        if not isinstance(call.func, ast.Subscript):
            return None
        table = self.value_of(call.func.value)
        if not isinstance(table, list | tuple):
            return None
        entries = [(kind, entry) for kind, entry in enumerate(table) if entry is not None]
        return [self._tree(call.func.slice, call, entries)]

    def _tree(self, kind: ast.expr, call: ast.Call, entries: list[tuple[int, Any]]) -> ast.stmt:
        if len(entries) == 1:
            return ast.Return(self._call(entries[0][1], call))
        middle = len(entries) // 2
        test = ast.Compare(self.visit(kind), [ast.Lt()], [_number(entries[middle][0])])
        return ast.If(test, [self._tree(kind, call, entries[:middle])], [self._tree(kind, call, entries[middle:])])

    # Expressions.

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Fold what is constant, and name functions by their generated names."""
        if isinstance(node.ctx, ast.Store) or node.id in self.locals:
            tag = self.tags.get(node.id)
            if tag is not None and isinstance(node.ctx, ast.Load):
                return self._part(node, tag)
            return node
        value = self.value_of(node)
        return node if value is _MISSING else self._folded(node, value)

    def _part(self, node: ast.expr, tag: str) -> ast.expr:
        if tag in ARRAYS:
            return ast.Subscript(_name("w"), ast.Slice(_number(ARRAYS[tag]), None, None), ast.Load())
        if tag in LOWERED and len(LOWERED[tag]) == 1:
            return _name(LOWERED[tag][0])
        raise self.fail(node, f"a {tag} as a value")

    def _folded(self, node: ast.expr, value: object) -> ast.expr:
        if isinstance(value, bool):
            return ast.Constant(value)
        if isinstance(value, int):
            return _number(int(value))
        if isinstance(value, FunctionType):
            return _name(self.translator.add(value))
        if isinstance(value, tuple | list) and all(isinstance(word, int) for word in value):
            text = ast.unparse(node).replace(".", "__")
            owner = self.function.__module__.replace(".", "__")
            return _name(self.translator.table(f"TABLE__{owner}__{text}", tuple(int(word) for word in value)))
        if isinstance(value, type) and issubclass(value, BaseException):
            return node
        if value in (range, len, min, max, abs, int, bool, enumerate, zip):
            return node
        raise self.fail(node, f"a {type(value).__name__} has no compiled meaning")

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """Find a word of the world, a constant, or a part of the world that is passed on."""
        value = self.value_of(node)
        if value is not _MISSING:
            return self._folded(node, value)
        tag = self.tag(node)
        if tag is not None:
            return self._part(node, tag)
        base = self.tag(node.value)
        if base in ("limits", "shape"):
            return _in_context(world_word(bound_at(node.attr if base == "limits" else f"shape.{node.attr}")), node)
        if base == "config":
            return config_at(node.attr)
        if base in ("driver", "runtime"):
            if (base, node.attr) in NEVER:
                return ast.Constant(NEVER[base, node.attr])
            if node.attr in REGISTERS:
                return _in_context(world_word(REGISTERS[node.attr]), node)
        raise self.fail(node, "no word of the world")

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """Find a word of an array that lies in the world."""
        tag = self.tag(node.value)
        if tag in ARRAYS:
            return _in_context(_shifted(ARRAYS[tag], self, node.slice), node)
        return ast.Subscript(self.visit(node.value), self.visit(node.slice), node.ctx)

    def visit_Slice(self, node: ast.Slice) -> ast.expr:
        """Translate its bounds."""
        if node.step is not None:
            raise self.fail(node, "a view with steps")
        return ast.Slice(node.lower and self.visit(node.lower), node.upper and self.visit(node.upper), None)

    def visit_JoinedStr(self, _node: ast.JoinedStr) -> ast.expr:
        """Messages are for the plain reading."""
        return ast.Constant("")

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Decide what is known: what never is there is None."""
        new = ast.Compare(self.visit(node.left), node.ops, [self.visit(other) for other in node.comparators])
        if (
            isinstance(new.ops[0], ast.Is | ast.IsNot)
            and isinstance(new.left, ast.Constant)
            and isinstance(new.comparators[0], ast.Constant)
        ):
            same = new.left.value is new.comparators[0].value
            return ast.Constant(same == isinstance(new.ops[0], ast.Is))
        return new

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """Fold constants."""
        conjunction = isinstance(node.op, ast.And)
        values: list[ast.expr] = []
        for value in node.values:
            new = self.visit(value)
            if isinstance(new, ast.Constant) and isinstance(new.value, bool):
                if new.value != conjunction:
                    return ast.Constant(not conjunction)
                continue
            values.append(new)
        if not values:
            return ast.Constant(conjunction)
        return values[0] if len(values) == 1 else ast.BoolOp(node.op, values)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """Fold constants."""
        operand = self.visit(node.operand)
        if isinstance(node.op, ast.Not) and isinstance(operand, ast.Constant):
            return ast.Constant(not operand.value)
        return ast.UnaryOp(node.op, operand)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Call by the generated name, with the lowered arguments."""
        function = node.func
        if isinstance(function, ast.Name) and function.id == "isinstance" and isinstance(node.args[1], ast.Name):
            if node.args[1].id == "CheckedMemory":
                return ast.Constant(value=False)
            raise self.fail(node, "types are not known")
        value = self.value_of(function)
        if value is _MISSING and isinstance(function, ast.Attribute):
            tag = self.tag(function.value)
            if tag in self.translator.methods:
                method = inspect.getattr_static(self.translator.methods[tag], function.attr, None)
                value = method.__func__ if isinstance(method, staticmethod) else method
                if isinstance(value, FunctionType):
                    return self._call(value, node, receiver=not isinstance(method, staticmethod))
            raise self.fail(node, "no method that can be compiled")
        if isinstance(value, FunctionType):
            return self._call(value, node)
        # Views that are gone through side by side are of one length where this is said.
        if any(keyword.arg != "strict" for keyword in node.keywords):
            raise self.fail(node, "keywords for something that is not translated")
        arguments = [self.visit(argument) for argument in node.args]
        return ast.Call(self.visit(function), arguments, [])

    def _call(self, callee: Callable[..., Any], node: ast.Call, *, receiver: bool = False) -> ast.expr:
        params = params_of(callee)
        given: dict[str, ast.expr | None] = dict.fromkeys(params)
        positions = params[1:] if receiver else params
        given |= dict(zip(positions, node.args, strict=False))
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.fail(node, "arguments by a dictionary")
            given[keyword.arg] = keyword.value
        arguments: list[ast.expr] = []
        passed: set[str] = set()
        for param in params:
            tag = tag_of(callee, param)
            if tag is None and callee.__name__ in REPORTS:
                continue
            if tag is not None:
                for part in LOWERED[tag]:
                    if part not in passed:
                        passed.add(part)
                        arguments.append(_name(part))
            elif given[param] is not None:
                arguments.append(self.visit(given[param]))  # type: ignore[arg-type]
            else:
                default = inspect.signature(callee).parameters[param].default
                arguments.append(ast.Constant(default) if isinstance(default, bool) else _number(int(default)))
        for part in passed:
            if part not in self.lowered_params:
                raise self.fail(node, f"{callee.__qualname__} needs {part}, which is not here")
        return ast.Call(_name(self.translator.add(callee)), arguments, [])


def _shifted(offset: int, function: Rewriting, index: ast.expr) -> ast.Subscript:
    if isinstance(index, ast.Slice):
        lower = ast.BinOp(_number(offset), ast.Add(), function.visit(index.lower)) if index.lower else _number(offset)
        if index.upper is None:
            raise function.fail(index, "a part of the world has no end")
        upper = ast.BinOp(_number(offset), ast.Add(), function.visit(index.upper))
        return ast.Subscript(_name("w"), ast.Slice(lower, upper, None), ast.Load())
    return world_word(offset, function.visit(index))


def _in_context(word: ast.Subscript, node: ast.Attribute | ast.Subscript) -> ast.Subscript:
    return ast.Subscript(word.value, word.slice, node.ctx)


def _stored(word: ast.Subscript) -> ast.Subscript:
    return ast.Subscript(word.value, word.slice, ast.Store())


def _imported(definition: ast.FunctionDef) -> dict[str, object]:
    """Return what a function imports for itself, by its names there."""
    return {
        alias.asname or alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in ast.walk(definition)
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Take a parallel assignment apart where both sides show their items."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]
