"""Activations become Wasm functions: the same code gets the same function, and the module has only what is used.

A wrap puts control flow around an instruction that leaves what it computes as it is. What conditions test is a global that is always
zero, which no compiler can know. A layout takes the body apart into pieces that stand in the text in another order than they are executed
in, in the blocks of one `br_table`: safepoints are then met out of order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuzz.choosers import Seeded
from fuzz.releases.besides import around, globals_, keeping, owned
from fuzz.releases.recipe import SEGMENTS_REFERENCES, WRAPS
from fuzz.releases.woven import PLAIN, Emission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fuzz.releases.woven import Activation, Instruction
    from model.limits import Limits

INDENT: Final = "  "
CHUNKS_MAX: Final = 6
TOUCHES: Final = 600
"""Loads of one call of `touch`: more than the activations table of the old releases holds."""


class Module:
    """Writes the text of a program's module.

    Args:
        limits: sizes of tables, globals, locals.
        segments: `recipe.SEGMENTS_NONE` and so on.
        segment_mask, active: what the module's element segment holds, and whether it is an active one.
        initial: whether global 0 begins with the imported global "g", else with null.
        destructors_call: whether destructors need `touch` and `take`.
        emission: what the code has besides.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        segments: int,
        segment_mask: int,
        active: bool,
        initial: bool,
        destructors_call: bool,
        emission: Emission = PLAIN,
    ) -> None:
        self.limits = limits
        self.segments = segments
        self.segment_mask = segment_mask
        self.active = active
        self.initial = initial
        self.destructors_call = destructors_call
        self.emission = emission
        self.imports: dict[tuple[int, int], None] = {}
        self.used: dict[str, None] = {}
        self.functions: dict[str, str] = {}
        self.exports: dict[str, None] = {}
        self.recursions: dict[int, None] = {}
        self.links: dict[str, tuple[int, int]] = {}

    def use(self, name: str) -> str:
        """Note that a global, table or helper is used; return its name."""
        self.used[name] = None
        return name

    def host(self, parameters: int, results: int) -> str:
        """Return the name of an imported host function."""
        self.imports[parameters, results] = None
        return f"$h{parameters}_{results}"

    def linked(self, callee: Activation) -> str:
        """Return the name under which a function of the instance that this one is linked to is imported: its own, with an l in front."""
        self.links[callee.name] = callee.parameters, len(callee.results or ())
        self.exports[callee.name] = None
        return f"l{callee.name}"

    def add(self, activation: Activation) -> None:
        """Write an activation's function, unless there is one with the same text, and name the activation after it.

        Those that it calls must be named already.
        """
        body = Body(self, activation).text()
        name = self.functions.setdefault(body, f"f{len(self.functions)}")
        activation.name = name
        if activation.called_by_host:
            self.exports[name] = None

    def text(self, needs: Iterable[str]) -> str:
        """Return the module.

        Args:
            needs: names of globals and tables ("$g0", "$t", ...) that the host refers to.
        """
        for name in needs:
            self.use(name)
        if self.destructors_call:
            for name in ("$t", "$g0"):
                self.use(name)
        helpers = self._helpers()
        functions = [(name, owned(body, name)) for body, name in self.functions.items()]
        helpers[:0] = globals_([*(body for _, body in functions), *helpers])
        lines = ["(module"]
        lines += [INDENT + line for line in (*self._imported(), *self._own(), *helpers)]
        for name, body in reversed(functions) if self.emission.flipped else functions:
            export = f' (export "{name}")' if name in self.exports else ""
            lines += [INDENT + line for line in f"(func ${name}{export}{body})".split("\n")]
        return "\n".join(lines) + ")\n"

    def _imported(self) -> list[str]:
        found = [f'(import "host" "h{p}_{r}" (func $h{p}_{r}{_types("param", p)}{_types("result", r)}))' for p, r in sorted(self.imports)]
        if "$gi" in self.used or self.initial:
            found.append('(import "env" "g" (global $g externref))')
        if "$m" in self.used:
            found.append('(import "env" "m" (global $m (mut externref)))')
        if "$lt" in self.used:
            found.append('(import "env" "t" (table $lt 0 externref))')
        for name, (parameters, results) in self.links.items():
            found.append(f'(import "env" "{name}" (func $l{name}{_types("param", parameters)}{_types("result", results)}))')
        return found

    def _own(self) -> list[str]:
        limits = self.limits
        found = []
        segment = limits.segment and ("$seg" in self.used or self.active) and self.segments
        if "$t" in self.used or self.active or segment:
            size = limits.segment if self.active else min(1, limits.table)
            found.append(f'(table $t (export "t") {size} {limits.table} externref)')
        for index in range(limits.globals):
            start = "(global.get $g)" if self.initial and not index else "(ref.null extern)"
            if f"$g{index}" in self.used:
                found.append(f'(global $g{index} (export "g{index}") (mut externref) {start})')
        if "$gi" in self.used:
            found.append('(global $gi (export "gi") externref (global.get $g))')
        if segment:
            items = [
                "(global.get $g)"
                if self.segment_mask >> index & 1 and self.initial and self.segments == SEGMENTS_REFERENCES
                else "(ref.null extern)"
                for index in range(limits.segment)
            ]
            where = "(table $t) (i32.const 0) " if self.active else ""
            found.append(f"(elem $seg {where}externref {' '.join(f'(item {item})' for item in items)})")
        return found

    def _helpers(self) -> list[str]:
        found = []
        if "$zero" in self.used:
            found.append("(global $zero (mut i32) (i32.const 0))")
        if "$sink" in self.used:
            found.append("(global $sink (mut i32) (i32.const 0))")
        if "$nop" in self.used:
            found.append("(func $nop)")
        for count in sorted(self.recursions):
            arguments = "".join(f" (local.get {1 + index})" for index in range(count))
            found += self._helper(
                f"$rec{count} (param $n i32){_types('param', count)}",
                "(if (local.get $n)",
                f"  (then (call $rec{count} (i32.sub (local.get $n) (i32.const 1)){arguments})",
                f"    (call $h{count}_0{arguments}))",
                "  (else (call $h0_0)))",
            )
        if self.destructors_call:
            found.append('(func $take (export "take") (param externref))')
            found += self._helper(
                '$touch (export "touch") (local $n i32)',
                f"(local.set $n (i32.const {TOUCHES}))",
                "(loop $l",
                "  (drop (global.get $g0))",
                "  (if (table.size $t) (then (drop (table.get $t (i32.const 0)))))",
                "  (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))",
            )
        return found

    def _helper(self, head: str, *lines: str) -> list[str]:
        """Return a function without results."""
        locals_, before, after = around(self.emission, lines)
        body = [*before, *lines, *after]
        body[-1] += ")"
        return [" ".join([f"(func {head}", *locals_]), *(INDENT + line for line in body)]


def _types(word: str, count: int) -> str:
    return f" ({word}{' externref' * count})" if count else ""


class Body:
    """Writes one activation's function."""

    def __init__(self, module: Module, activation: Activation) -> None:
        self.module = module
        self.activation = activation
        self.slots: set[int] = set()
        self.integers: set[str] = set()
        self.labels = 0

    def text(self) -> str:
        """Return signature, locals and body; everything after the function's name."""
        activation, module = self.activation, self.module
        pieces = [self._wrapped(instruction) for instruction in activation.code]
        results = activation.results
        ending = ["(unreachable)"] if results is None else [self._get(slot) for slot in results]
        if results is None and activation.code and activation.code[-1] == ("trap", 0) and not activation.layout:
            # A plain trap at the end needs no second one to satisfy the validator.
            ending = []
        before, after = self._pressure(pieces)
        more, held, used = around(module.emission, [line for piece in pieces for line in piece] + ending)
        if more and activation.code and activation.code[-1][0] == "trap":
            # What stands behind a trap is not reached, and so keeps nothing alive.
            pieces[-1][:0] = used
            used = used if ending else []
        inner = keeping(module.emission, self._laid_out(pieces), activation.parameters)
        lines = [*held, *before, *inner, *after, *used, *ending]
        locals_ = [f"(local $s{slot} externref)" for slot in sorted(self.slots) if slot >= activation.parameters]
        locals_ += [f"(local ${name} {'externref' if name[0] == 'r' else 'i32'})" for name in sorted(self.integers)]
        locals_ += more
        parameters = "".join(f" (param $s{slot} externref)" for slot in range(activation.parameters))
        if results is not None:
            parameters += _types("result", len(results))
        if "$zero" not in module.used and any("$zero" in line for line in lines):
            module.use("$zero")
        return parameters + "".join("\n" + INDENT + line for line in [*([" ".join(locals_)] if locals_ else []), *lines])

    def _get(self, slot: int) -> str:
        self.slots.add(slot)
        return f"(local.get $s{slot})"

    def _set(self, slot: int, value: str) -> str:
        self.slots.add(slot)
        return f"(local.set $s{slot} {value})"

    def _label(self, letter: str) -> str:
        self.labels += 1
        return f"${letter}{self.labels}"

    def _pressure(self, pieces: list[list[str]]) -> tuple[list[str], list[str]]:
        """Integers that are live from the beginning to the end of the function, each changed now and then."""
        count = self.activation.pressure
        if not count:
            return [], []
        self.module.use("$sink")
        names = [f"x{number:02}" for number in range(count)]
        self.integers.update(names)
        before = [f"(local.set ${name} (i32.add (global.get $zero) (i32.const {3 * n + 1})))" for n, name in enumerate(names)]
        for number, piece in enumerate(pieces):
            name, other = names[number % count], names[(number * 7 + 1) % count]
            piece.append(f"(local.set ${name} (i32.add (i32.mul (local.get ${name}) (local.get ${other})) (i32.const {number})))")
        after = [f"(global.set $sink (i32.xor (global.get $sink) (local.get ${name})))" for name in names]
        return before, after

    def _laid_out(self, pieces: list[list[str]]) -> list[str]:
        """Return the pieces one after another, or in the blocks of a `br_table` in another order."""
        layout = self.activation.layout
        if not layout or len(pieces) < 2:
            return [line for piece in pieces for line in piece]
        chooser = Seeded(layout)
        count = 2 + chooser.choose(min(CHUNKS_MAX, len(pieces)) - 1)
        cuts = [len(pieces) * number // count for number in range(count + 1)]
        order = list(range(count))
        for index in range(count - 1, 0, -1):
            other = chooser.choose(index + 1)
            order[index], order[other] = order[other], order[index]
        position = {chunk: index for index, chunk in enumerate(order)}
        self.integers.add("pc")
        lines = [f"(local.set $pc (i32.const {position[0]}))", "(block $out", "(loop $next"]
        lines += [f"(block $c{index}" for index in reversed(range(count))]
        lines.append(f"(br_table {' '.join(f'$c{index}' for index in range(count))} (local.get $pc)))")
        for index, chunk in enumerate(order):
            lines += [INDENT + line for piece in pieces[cuts[chunk] : cuts[chunk + 1]] for line in piece]
            last = chunk == count - 1
            lines.append(INDENT + ("(br $out)" if last else f"(local.set $pc (i32.const {position[chunk + 1]})) (br $next)"))
            lines[-1] += ")" if index < count - 1 else "))"
        return lines

    def _wrapped(self, instruction: Instruction) -> list[str]:
        name: str = instruction[0]
        operands = instruction[1:-1]
        wrap: int = instruction[-1]
        lines: list[str] = _WRITE[name](self, *operands)
        if not lines:
            return []
        if wrap == 7 and name in _VALUED:
            target = operands[-1]
            value = lines[0].removeprefix(f"(local.set $s{target} ").removesuffix(")")
            return [self._set(target, f"(select (result externref) {value} (ref.null extern) (i32.eqz (global.get $zero)))")]
        if wrap == 6 and name in _VALUED:
            target = operands[-1]
            value = lines[0].removeprefix(f"(local.set $s{target} ").removesuffix(")")
            other = f"(call {self.module.host(0, 1)})"
            return [self._set(target, f"(if (result externref) (global.get $zero) (then {other}) (else {value}))")]
        return _WRAPS[wrap % len(_WRAPS)](self, lines)

    # Instructions.

    def table(self, owner: str) -> str:
        """Return the name of a table."""
        return self.module.use("$t" if owner == "own" else "$lt")

    def cell(self, owner: str, index: int) -> str:
        """Return the name of a global."""
        return self.module.use(f"$g{index}" if owner == "own" else "$m")

    def copy(self, source: int, target: int) -> list[str]:
        """Copy a slot."""
        return [self._set(target, self._get(source))]

    def null(self, target: int) -> list[str]:
        """Clear a slot."""
        return [self._set(target, "(ref.null extern)")]

    def global_get(self, owner: str, index: int, target: int) -> list[str]:
        """Load a global."""
        return [self._set(target, f"(global.get {self.cell(owner, index)})")]

    def global_set(self, owner: str, index: int, source: int) -> list[str]:
        """Store to a global."""
        return [f"(global.set {self.cell(owner, index)} {self._get(source)})"]

    def table_get(self, owner: str, index: int, target: int) -> list[str]:
        """Load an element."""
        return [self._set(target, f"(table.get {self.table(owner)} (i32.const {index}))")]

    def table_set(self, owner: str, index: int, source: int) -> list[str]:
        """Store to an element."""
        return [f"(table.set {self.table(owner)} (i32.const {index}) {self._get(source)})"]

    def table_grow(self, owner: str, delta: int, source: int) -> list[str]:
        """Grow a table."""
        return [f"(drop (table.grow {self.table(owner)} {self._get(source)} (i32.const {delta})))"]

    def table_fill(self, owner: str, start: int, count: int, source: int) -> list[str]:
        """Fill a range of a table."""
        return [f"(table.fill {self.table(owner)} (i32.const {start}) {self._get(source)} (i32.const {count}))"]

    def table_copy(self, to: str, source: str, start: int, offset: int, count: int) -> list[str]:
        """Copy a range of elements."""
        numbers = " ".join(f"(i32.const {number})" for number in (start, offset, count))
        return [f"(table.copy {self.table(to)} {self.table(source)} {numbers})"]

    def table_init(self, to: str, start: int, offset: int, count: int) -> list[str]:
        """Copy a range of the segment to a table."""
        if self.module.emission.fills:
            return [f"(table.fill {self.table(to)} (i32.const {start}) (ref.null extern) (i32.const {count}))"]
        numbers = " ".join(f"(i32.const {number})" for number in (start, offset, count))
        return [f"(table.init {self.table(to)} {self.module.use('$seg')} {numbers})"]

    def elem_drop(self) -> list[str]:
        """Drop the segment."""
        return [f"(elem.drop {self.module.use('$seg')})"]

    def call(self, owner: str, callee: Activation, arguments: tuple[int, ...], results: list[int]) -> list[str]:
        """Call a function of the module, of this instance or of the one that it is linked to."""
        name = callee.name if owner == "own" else self.module.linked(callee)
        call = f"(call ${name}{''.join(' ' + self._get(slot) for slot in arguments)})"
        if callee.results is not None and not results:
            return [call, *["(drop)"] * len(callee.results)]
        return [call, *(self._pop(slot) for slot in reversed(results))]

    def import_(self, arguments: tuple[int, ...], results: list[int]) -> list[str]:
        """Call the host."""
        call = f"(call {self.module.host(len(arguments), len(results))}{''.join(' ' + self._get(slot) for slot in arguments)})"
        return [call, *(self._pop(slot) for slot in reversed(results))]

    def _pop(self, slot: int) -> str:
        self.slots.add(slot)
        return f"(local.set $s{slot})"

    def churn(self, what: str, owner: str, index: int, count: int) -> list[str]:
        """Load one reference many times."""
        load = (
            f"(drop (table.get {self.table(owner)} (i32.const {index})))"
            if what == "table"
            else f"(drop (global.get {self.cell(owner, index)}))"
        )
        return self._repeat(count, [load])

    def fresh(self, results: int, count: int) -> list[str]:
        """Ask an import for references and hand them to another, many times."""
        return self._repeat(count, [f"(call {self.module.host(0, results)})", f"(call {self.module.host(results, 0)})"])

    def _repeat(self, count: int, lines: list[str]) -> list[str]:
        if count == 1:
            return lines
        self.integers.add("n")
        label = self._label("l")
        return [
            f"(local.set $n (i32.const {count}))",
            f"(loop {label}",
            *(INDENT + line for line in lines),
            f"  (br_if {label} (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))",
        ]

    def ghost(self, count: int) -> list[str]:
        """Code that is not executed: references live over two calls."""
        names = [f"r{number}" for number in range(count)]
        self.integers.update(names)
        host = self.module.host
        return [
            "(if (global.get $zero) (then",
            *(f"  (local.set ${name} (call {host(0, 1)}))" for name in names),
            f"  (call {host(0, 0)})",
            f"  (call {host(count, 0)} {' '.join(f'(local.get ${name})' for name in names)})))",
        ]

    def recurse(self, depth: int, slots: tuple[int, ...]) -> list[str]:
        """Call a function that calls itself."""
        count = len(slots)
        self.module.host(0, 0)
        self.module.host(count, 0)
        self.module.recursions[count] = None
        return [f"(call $rec{count} (i32.const {depth}){''.join(' ' + self._get(slot) for slot in slots)})"]

    def trap(self) -> list[str]:
        """Trap."""
        return ["(unreachable)"]

    # Wraps.

    def in_block(self, lines: list[str]) -> list[str]:
        """Leave the block early, never."""
        label = self._label("b")
        return [f"(block {label} (br_if {label} (global.get $zero))", *(INDENT + line for line in lines), ")"]

    def in_then(self, lines: list[str]) -> list[str]:
        """The branch that is always taken."""
        return ["(if (i32.eqz (global.get $zero)) (then", *(INDENT + line for line in lines), "))"]

    def in_else(self, lines: list[str]) -> list[str]:
        """The branch that is always taken, behind one that calls."""
        other = f"(call {self.module.use('$nop')})"
        return [f"(if (global.get $zero) (then {other}) (else", *(INDENT + line for line in lines), "))"]

    def in_loop(self, lines: list[str]) -> list[str]:
        """A loop that is not repeated."""
        label = self._label("l")
        return [f"(loop {label}", *(INDENT + line for line in lines), f"  (br_if {label} (global.get $zero)))"]

    def out_of_line(self, lines: list[str]) -> list[str]:
        """Behind a block that calls the host, and that is jumped over."""
        label = self._label("b")
        other = f"(call {self.module.host(0, 0)})"
        return [f"(block {label} (br_if {label} (i32.eqz (global.get $zero))) {other})", *lines]


_VALUED: Final = frozenset({"copy", "global_get", "table_get"})
"""Instructions whose last operand is the slot that gets their value."""
_WRITE: Final[dict[str, Callable[..., list[str]]]] = {
    "import": Body.import_,
    **{
        name: getattr(Body, name)
        for name in (
            *("copy", "null", "global_get", "global_set", "table_get", "table_set", "table_grow", "table_fill", "table_copy"),
            *("table_init", "elem_drop", "call", "churn", "fresh", "ghost", "recurse", "trap"),
        )
    },
}
_WRAPS: Final[tuple[Callable[[Body, list[str]], list[str]], ...]] = (
    lambda _b, lines: lines,
    Body.in_block,
    Body.in_then,
    Body.in_else,
    Body.in_loop,
    Body.out_of_line,
)
if len(_WRAPS) > WRAPS:
    raise ImportError("more wraps than a form can say")
