"""Expressions of the translated text become C: words are 64-bit integers, and Python's order of evaluation is kept.

Where two parts of an expression could notice each other, the earlier one gets a name. Statement expressions are those of GCC and Clang.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from fuzz.compiled.inference import GLOBALS, NOTHING, VIEW, WORD, Function, Inference
from fuzz.compiled.rewriting import Untranslatable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BINARY: Final[dict[type[ast.operator], str]] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_CALLED: Final[dict[type[ast.operator], str]] = {ast.FloorDiv: "floor_div", ast.Mod: "floor_mod"}
_COMPARE: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_C_TYPES: Final = {WORD: "word", VIEW: "view", NOTHING: "void"}
_INLINE: Final = {"min": 2, "max": 2, "abs": 1}
"""How many words each takes."""
_TAKEN: Final = frozenset(
    {
        # Keywords of C, and what its dialect defines.
        *("asm", "auto", "case", "char", "const", "default", "do", "double", "enum", "extern", "float", "goto", "inline"),
        *("int", "linux", "long", "register", "restrict", "short", "signed", "sizeof", "static", "struct", "switch", "typedef", "typeof"),
        *("union", "unix", "unsigned", "void", "volatile"),
        # Names of the text's head and of each function's end, which a variable would hide.
        *("word", "words2", "words3", "view", "mem_words", "w_words", "raised", "landing", "landings", "leave", "end_run", "wild"),
        *(
            "memcpy",
            "within",
            "put",
            "lap",
            "floor_div",
            "floor_mod",
            "lowest_bit",
            "copy_words",
            "clear_words",
            "word_min",
            "word_max",
            "word_abs",
        ),
    }
)


def c_type(kind: str) -> str:
    """Return the C type of a kind of value."""
    return _C_TYPES.get(kind, kind)


def prototype(name: str, function: Function) -> str:
    """Return the head of a function's definition in C."""
    params = ", ".join(f"{c_type(function.names.get(param, WORD))} {local(param)}" for param in function.params)
    return f"static {c_type(function.returns)} {name}({params or 'void'})"


def local(name: str) -> str:
    """Return the name of a local variable in C: not a word that C has a meaning for."""
    return f"{name}_" if name in _TAKEN else name


class Expressions:
    """What turns expressions of one function into C.

    Args:
        known: all functions of the text.
        name: the function's.
        trusted: accesses are not checked, and writes leave no marks: it says itself what it changes.
        tables: constant tuples by name.
        intrinsics: what stands in for a function of a single expression, by its name.
    """

    def __init__(
        self, known: Inference, name: str, *, trusted: bool, tables: Mapping[str, tuple[int, ...]], intrinsics: Mapping[str, str]
    ) -> None:
        self.known = known
        self.name = name
        self.function = known.functions[name]
        self.trusted = trusted
        self.tables = tables
        self.intrinsics = intrinsics
        self.handlers: list[str] = []
        self.fresh = 0

    def fail(self, node: ast.AST, why: str) -> Untranslatable:
        """Return the error about a piece of the text."""
        return Untranslatable(f"{self.name}: {why}: {ast.unparse(node)[:100]}")

    def landing(self) -> str:
        """Return where an exception goes from here: to the handler around, or out of the function."""
        return self.handlers[-1] if self.handlers else "leave"

    def new(self, prefix: str = "t") -> str:
        """Return a name that is not taken."""
        self.fresh += 1
        return f"{prefix}{self.fresh}_"

    def store(self, target: ast.expr, value: str) -> str:
        """Return the statement that stores a value."""
        if isinstance(target, ast.Name):
            return f"{local(target.id)} = {value}"
        if not isinstance(target, ast.Subscript) or isinstance(target.slice, ast.Slice):
            raise self.fail(target, "no word to store to")
        index = self.value(target.slice)
        if isinstance(target.value, ast.Name) and target.value.id == "mem":
            if self.trusted:
                return f"({{ word v_ = {value}; mem[{index}] = v_; }})"
            return f"({{ word v_ = {value}; put({index}, v_); }})"
        return f"({{ word v_ = {value}; {self.array(target.value)}[{index}] = v_; }})"

    def array(self, node: ast.expr) -> str:
        """Return the C array of something that is subscripted."""
        if isinstance(node, ast.Name):
            if node.id in GLOBALS or node.id in self.tables:
                return node.id
            return f"{local(node.id)}.at"
        raise self.fail(node, "no array")

    def test(self, node: ast.expr) -> str:
        """Return a condition."""
        if isinstance(node, ast.BoolOp):
            sign = " && " if isinstance(node.op, ast.And) else " || "
            return "(" + sign.join(self.test(value) for value in node.values) + ")"
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return f"!{self.test(node.operand)}"
        return f"({self.value(node)})"

    def value(self, node: ast.expr) -> str:
        """Return an expression."""
        method: Callable[[ast.expr], str] | None = getattr(self, f"_say_{type(node).__name__}", None)
        if method is None:
            raise self.fail(node, "an expression that C has no word for")
        return method(node)

    def in_order(self, nodes: list[ast.expr]) -> tuple[list[str], list[str]]:
        """Return declarations and values: parts that could notice each other are computed from left to right.

        A part that calls something may change the words that parts before it read, and must not see what parts after it do.
        """
        calls = [number for number, node in enumerate(nodes) if any(isinstance(each, ast.Call) for each in ast.walk(node))]
        if not calls or len(nodes) == 1:
            return [], [self.value(node) for node in nodes]
        before, values = [], []
        for node in nodes:
            if isinstance(node, ast.Constant | ast.Name):
                values.append(self.value(node))
                continue
            name = self.new()
            before.append(f"{c_type(self.known.kind(self.function, node))} {name} = {self.value(node)}; ")
            values.append(name)
        return before, values

    def _joined(self, nodes: list[ast.expr], write: Callable[..., str]) -> str:
        before, values = self.in_order(nodes)
        return f"({{ {''.join(before)}{write(*values)}; }})" if before else f"({write(*values)})"

    def _say_Constant(self, node: ast.Constant) -> str:
        if isinstance(node.value, bool):
            return f"{int(node.value)}LL"
        if not isinstance(node.value, int):
            raise self.fail(node, "no word")
        if node.value >= 1 << 64:
            raise self.fail(node, "no word")
        if node.value >= 1 << 63:
            return f"((word){node.value}ULL)"
        return f"{node.value}LL"

    def _say_Name(self, node: ast.Name) -> str:
        if node.id == "mem":
            return "(view){mem, mem_words}"
        if node.id == "w":
            return "(view){w, w_words}"
        return local(node.id)

    def _say_Subscript(self, node: ast.Subscript) -> str:
        if isinstance(node.slice, ast.Slice):
            return self._cut(node.value, node.slice)
        index = self.value(node.slice)
        if isinstance(node.value, ast.Name) and node.value.id == "mem" and not self.trusted:
            return f"mem[within({index})]"
        return f"{self.array(node.value)}[{index}]"

    def _cut(self, node: ast.expr, part: ast.Slice) -> str:
        if part.step is not None:
            raise self.fail(node, "a view with steps")
        source, lower, upper = self.new(), self.new(), self.new()
        end = f"{source}.n" if part.upper is None else self.value(part.upper)
        start = "0" if part.lower is None else self.value(part.lower)
        return (
            f"({{ view {source} = {self.value(node)}; word {lower} = {start}, {upper} = {end}; "
            f"(view){{{source}.at + {lower}, {upper} > {lower} ? {upper} - {lower} : 0}}; }})"
        )

    def _say_BinOp(self, node: ast.BinOp) -> str:
        called = _CALLED.get(type(node.op))
        if called is not None:
            by_number = node.right.operand if isinstance(node.right, ast.UnaryOp) else node.right
            if isinstance(by_number, ast.Constant) and by_number.value != 0:
                return self._joined([node.left, node.right], lambda a, b: f"{called}({a}, {b})")
            # To a processor, a division by zero is no exception of the language.
            by = self.new()
            return self._joined(
                [node.left, node.right], lambda a, b: f"({{ word {by} = {b}; if ({by} == 0) wild(); {called}({a}, {by}); }})"
            )
        sign = _BINARY.get(type(node.op))
        if sign is None:
            raise self.fail(node, "an operator that C has no word for")
        return self._joined([node.left, node.right], lambda a, b: f"{a} {sign} {b}")

    def _say_UnaryOp(self, node: ast.UnaryOp) -> str:
        if isinstance(node.op, ast.Not):
            return f"(word)(!{self.test(node.operand)})"
        sign = {ast.USub: "-", ast.Invert: "~"}.get(type(node.op))
        if sign is None:
            raise self.fail(node, "an operator that C has no word for")
        return f"({sign}{self.value(node.operand)})"

    def _say_BoolOp(self, node: ast.BoolOp) -> str:
        # The value is that of the part that decides.
        found = self.value(node.values[-1])
        for part in reversed(node.values[:-1]):
            name = self.new()
            chosen = f"{name} ? ({found}) : {name}" if isinstance(node.op, ast.And) else f"{name} ? {name} : ({found})"
            found = f"({{ word {name} = {self.value(part)}; {chosen}; }})"
        return found

    def _say_Compare(self, node: ast.Compare) -> str:
        parts = [node.left, *node.comparators]
        signs = [_COMPARE.get(type(op)) for op in node.ops]
        if None in signs:
            raise self.fail(node, "a comparison that C has no word for")
        if len(parts) == 2:
            return self._joined(parts, lambda a, b: f"(word)({a} {signs[0]} {b})")
        # Each part is computed once, and none behind the first comparison that fails.
        names = [self.new() for _ in parts]
        found = f"{names[-2]} {signs[-1]} {names[-1]}"
        for index in range(len(parts) - 1, 1, -1):
            later = f"({{ word {names[index]} = {self.value(parts[index])}; {found}; }})"
            found = f"{names[index - 2]} {signs[index - 2]} {names[index - 1]} && {later}"
        first = "".join(f"word {names[index]} = {self.value(parts[index])}; " for index in (0, 1))
        return f"({{ {first}(word)({found}); }})"

    def _say_IfExp(self, node: ast.IfExp) -> str:
        return f"({self.test(node.test)} ? {self.value(node.body)} : {self.value(node.orelse)})"

    def _say_Call(self, node: ast.Call) -> str:
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise self.fail(node, "no plain call")
        name = node.func.id
        if name in ("len", "bool", "int") or name in _INLINE:
            return self._built_in(node, name)
        if name not in self.known.functions:
            raise self.fail(node, "a call of something that is not in the text")
        callee = self.known.functions[name]
        if callee.generator:
            raise self.fail(node, "a generator outside of the head of a loop")
        for param, value in zip(callee.definition.args.args, node.args, strict=True):
            if param.arg in GLOBALS and not (isinstance(value, ast.Name) and value.id == param.arg):
                raise self.fail(node, f"another array passed as {param.arg}")
        if name in self.intrinsics:
            return self._joined(self.known.arguments(node), self.intrinsics[name].format)
        before, values = self.in_order(self.known.arguments(node))
        call = f"{name}({', '.join(values)})"
        if not callee.raises:
            return f"({{ {''.join(before)}{call}; }})" if before else call
        check = f"if (__builtin_expect(raised, 0)) goto {self.landing()};"
        if callee.returns == NOTHING:
            return f"({{ {''.join(before)}{call}; {check} }})"
        result = self.new()
        return f"({{ {''.join(before)}{c_type(callee.returns)} {result} = {call}; {check} {result}; }})"

    def _built_in(self, node: ast.Call, name: str) -> str:
        if len(node.args) != _INLINE.get(name, 1):
            raise self.fail(node, "another number of arguments")
        if name == "len":
            return self._length(node.args[0])
        if name in _INLINE:
            return self._joined(node.args, lambda *values: f"word_{name}({', '.join(values)})")
        inside = self.value(node.args[0])
        return f"(word)(({inside}) != 0)" if name == "bool" else f"({inside})"

    def _length(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name) and node.id in GLOBALS:
            return f"{node.id}_words"
        if isinstance(node, ast.Name) and node.id in self.tables:
            return str(len(self.tables[node.id]))
        return f"({self.value(node)}).n"
