"""Bisection finds the map of exactly the pc that was asked for, or none, in tables of any length.

The classical triple for both bisections: the invariant holds at first, each round keeps it and makes the interval shorter, and at the
end it implies the answer. What the invariant says of all entries is said here of one arbitrary entry, `i`; what it is assumed of is
the entries that the round looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import z3

from impl.stack_maps import END as MODULE_END
from impl.stack_maps import (
    ENTRIES,
    ENTRY_COUNT,
    ENTRY_WORDS,
    MODULE_WORDS,
    MODULES,
    MODULES_COUNT,
    PC,
    entry_at,
    entry_bisect_step,
    lookup_stack_map,
    module_bisect_step,
    module_index,
)
from impl.stack_maps import START as MODULE_START
from proofs.cuts import Again, Cut, Left, with_contracts
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore

SUBJECT = "lookup"
SMALL = 1 << 32
ENTRY_MAX = 1 << 30

MEMORY = fresh_memory()
BASE, COUNT, LOW, HIGH, ITEM, WANTED, REGISTRY, INDEX = z3.BitVecs("base count low high i pc registry index", 64)
MIDDLE = z3.LShR(LOW + HIGH, 1)


def pc_of(entry: z3.BitVecRef, base: z3.BitVecRef = BASE) -> z3.BitVecRef:
    """Return the pc of an entry of the array at `base`."""
    return at(MEMORY, base + entry * ENTRY_WORDS + PC)


def start_of(module: z3.BitVecRef, base: z3.BitVecRef = BASE) -> z3.BitVecRef:
    """Return the start of a module of the array at `base`."""
    return at(MEMORY, base + module * MODULE_WORDS + MODULE_START)


def end_of(module: z3.BitVecRef, base: z3.BitVecRef = BASE) -> z3.BitVecRef:
    """Return the end of a module of the array at `base`."""
    return at(MEMORY, base + module * MODULE_WORDS + MODULE_END)


def _before(kind: str, item: z3.BitVecRef) -> z3.BoolRef:
    """Say that an item belongs below the place that is looked for."""
    return z3.ULE(end_of(item), WANTED) if kind == "module" else z3.ULT(pc_of(item), WANTED)


def _sorted(kind: str, item: z3.BitVecRef, other: z3.BitVecRef) -> z3.BoolRef:
    """Say that an item and another one are in order, whichever comes first."""
    if kind == "module":
        return z3.And(
            z3.Implies(z3.ULT(item, other), z3.ULT(end_of(item), end_of(other))),
            z3.Implies(z3.ULT(other, item), z3.ULT(end_of(other), end_of(item))),
        )
    return z3.And(
        z3.Implies(z3.ULT(item, other), z3.ULT(pc_of(item), pc_of(other))),
        z3.Implies(z3.ULT(other, item), z3.ULT(pc_of(other), pc_of(item))),
    )


def _invariant(kind: str, low: z3.BitVecRef, high: z3.BitVecRef, item: z3.BitVecRef = ITEM) -> z3.BoolRef:
    """Say of an item what the bisection keeps true of all: it belongs below `low`, or not below `high`, or nothing is known yet."""
    inside = z3.ULT(item, COUNT)
    return z3.And(
        z3.ULE(low, high),
        z3.ULE(high, COUNT),
        z3.Implies(z3.And(inside, z3.ULT(item, low)), _before(kind, item)),
        z3.Implies(z3.And(inside, z3.UGE(item, high)), z3.Not(_before(kind, item))),
    )


def _bounds() -> dict[str, z3.BoolRef]:
    return {"the table fits in the memory": z3.And(z3.ULT(BASE, SMALL), z3.ULT(COUNT, ENTRY_MAX))}


KINDS: dict[str, tuple[Any, Any]] = {"entry": (entry_at, entry_bisect_step), "module": (module_index, module_bisect_step)}


def _holds_initially(kind: str) -> Claim:
    """Before the first round nothing is said of any item, so the invariant holds."""
    function, _ = KINDS[kind]

    def run(path: Path) -> tuple[Any, Any]:
        reached = Cut(function).entry(path.mem, path.word(BASE), path.word(COUNT), path.word(WANTED))
        state: dict[str, Any] = getattr(reached, "state", {})
        return state["low"], state["high"]

    def promise(outcome: Outcome) -> z3.BoolRef:
        low, high = outcome.terms()
        return z3.And(low == 0, high == COUNT, _invariant(kind, low, high), outcome.mem.wrote_only([]))

    return Claim({}, always(explore(run), promise), part=f"{kind} table")


def _is_kept(kind: str) -> Claim:
    """A round keeps the invariant in a sorted table of any length, and leaves a shorter interval; the loop ends only with an empty one.

    The loop's own round, with the step that it calls.
    """
    function, _ = KINDS[kind]
    assumptions = {
        **_bounds(),
        "the invariant holds": _invariant(kind, LOW, HIGH),
        "the table is sorted (of i and the middle)": _sorted(kind, ITEM, MIDDLE),
    }

    def run(path: Path) -> object:
        state = {"mem": path.mem, ("entries" if kind == "entry" else "modules"): path.word(BASE), "count": path.word(COUNT)}
        return Cut(function).step({**state, "pc": path.word(WANTED), "low": path.word(LOW), "high": path.word(HIGH)})

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came = outcome.value
        if isinstance(came, Left):
            return z3.And(not came.broken, LOW == HIGH)
        if not isinstance(came, Again):
            return False
        low, high = came.state["low"].term, came.state["high"].term
        return z3.And(_invariant(kind, low, high), z3.ULT(high - low, HIGH - LOW))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise), part=f"{kind} table")


def _reads_inside(kind: str) -> Claim:
    """A round reads one word, inside the table, and writes none."""
    _, step = KINDS[kind]
    words = ENTRY_WORDS if kind == "entry" else MODULE_WORDS
    assumptions = {**_bounds(), "low < high <= count": z3.And(z3.ULT(LOW, HIGH), z3.ULE(HIGH, COUNT))}
    outcomes = explore(
        lambda path: step(path.mem, path.word(BASE), path.word(LOW), path.word(HIGH), path.word(WANTED)), assumptions.values()
    )

    def promise(outcome: Outcome) -> z3.BoolRef:
        return z3.And(outcome.mem.read_only([(BASE, BASE + COUNT * words)]), outcome.mem.wrote_only([]), len(outcome.mem.reads) == 1)

    return Claim(assumptions, always(outcomes, promise), part=f"{kind} table")


def _middle_is_inside(kind: str) -> Claim:
    """A round moves one end inwards and leaves at most half of the interval; no sum overflows."""
    _, step = KINDS[kind]
    assumptions = {**_bounds(), "low < high <= count": z3.And(z3.ULT(LOW, HIGH), z3.ULE(HIGH, COUNT))}
    outcomes = explore(
        lambda path: step(path.mem, path.word(BASE), path.word(LOW), path.word(HIGH), path.word(WANTED)), assumptions.values()
    )

    def promise(outcome: Outcome) -> z3.BoolRef:
        low, high = outcome.terms()
        return z3.And(
            z3.ULE(LOW, low),
            z3.ULE(low, high),
            z3.ULE(high, HIGH),
            z3.Or(low == LOW, high == HIGH),
            z3.ULE(high - low, z3.LShR(HIGH - LOW, 1)),
        )

    return Claim(assumptions, always(outcomes, promise), part=f"{kind} table")


def found_entry(path: Path, low: z3.BitVecRef) -> Any:
    """Run what `entry_at` does after its loop, which ended at `low`."""
    state = {"mem": path.mem, "entries": path.word(BASE), "count": path.word(COUNT), "pc": path.word(WANTED)}
    return Cut(entry_at).after({**state, "low": path.word(low), "high": path.word(low)})


def _entry_is_exact() -> Claim:
    """When the bisection has ended, the entry of exactly this pc is returned; none is returned only if no entry has this pc."""
    assumptions = {
        **_bounds(),
        # Address 0 is nobody's, so that 0 can mean "none".
        "the table is not at address 0": BASE != 0,
        "the invariant holds where the loop has ended (of the entry there)": _invariant("entry", LOW, LOW, LOW),
        "the invariant holds where the loop has ended (of i)": _invariant("entry", LOW, LOW),
        "the table is sorted (of i and the entry there)": _sorted("entry", ITEM, LOW),
    }

    def promise(outcome: Outcome) -> z3.BoolRef:
        found = outcome.term
        absent = z3.Implies(z3.ULT(ITEM, COUNT), pc_of(ITEM) != WANTED)
        there = z3.And(z3.ULT(LOW, COUNT), found == BASE + LOW * ENTRY_WORDS, at(MEMORY, found + PC) == WANTED)
        return z3.And(z3.If(found == 0, absent, there), outcome.mem.wrote_only([]))

    outcomes = explore(lambda path: found_entry(path, LOW), assumptions.values())
    return Claim(assumptions, always(outcomes, promise))


def _module_is_the_first_that_ends_later() -> Claim:
    """When the bisection has ended, the module found is the first that ends past the pc."""
    assumptions = {"the invariant holds where the loop has ended": _invariant("module", LOW, LOW)}

    def run(path: Path) -> Any:
        state = {"mem": path.mem, "modules": path.word(BASE), "count": path.word(COUNT), "pc": path.word(WANTED)}
        return Cut(module_index).after({**state, "low": path.word(LOW), "high": path.word(LOW)})

    def promise(outcome: Outcome) -> z3.BoolRef:
        first = z3.Implies(z3.And(z3.ULT(ITEM, COUNT), z3.ULT(WANTED, end_of(ITEM))), z3.UGE(ITEM, outcome.term))
        there = z3.Implies(z3.And(outcome.term == ITEM, z3.ULT(ITEM, COUNT)), z3.ULT(WANTED, end_of(ITEM)))
        return z3.And(first, there, z3.ULE(outcome.term, COUNT))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _lookup_asks_the_right_module() -> Claim:
    """A lookup asks the one module that contains the pc for exactly this pc, and answers none only if no module contains it.

    `lookup_stack_map` with contracts for the two bisections: what was proved of them.
    """
    modules, count = at(MEMORY, REGISTRY + MODULES), at(MEMORY, REGISTRY + MODULES_COUNT)
    answer = z3.BitVec("answer", 64)

    def contains(module: z3.BitVecRef) -> z3.BoolRef:
        return z3.And(z3.ULE(start_of(module, modules), WANTED), z3.ULT(WANTED, end_of(module, modules)))

    def ordered(a: z3.BitVecRef, b: z3.BitVecRef) -> z3.BoolRef:
        return z3.Implies(z3.And(z3.ULT(a, b), z3.ULT(b, count)), z3.ULE(end_of(a, modules), start_of(b, modules)))

    assumptions = {
        "the registry fits in the memory": z3.And(z3.ULT(REGISTRY, SMALL), z3.ULT(modules, SMALL), z3.ULT(count, ENTRY_MAX)),
        "module_index gives the first module that ends past the pc": z3.And(
            z3.ULE(INDEX, count),
            z3.Implies(z3.ULT(INDEX, count), z3.ULT(WANTED, end_of(INDEX, modules))),
            z3.Implies(z3.ULT(ITEM, INDEX), z3.ULE(end_of(ITEM, modules), WANTED)),
        ),
        "modules are disjoint and sorted (of i and the one found)": z3.And(ordered(ITEM, INDEX), ordered(INDEX, ITEM)),
    }

    def run(path: Path) -> tuple[Any, list[tuple[Any, ...]]]:
        asked: list[tuple[Any, ...]] = []

        def index(_mem: object, base: Any, number: Any, pc: Any) -> Any:
            asked.append(("index", base.term == modules, number.term == count, pc.term == WANTED))
            return path.word(INDEX)

        def entry(_mem: object, entries: Any, number: Any, pc: Any) -> Any:
            module = modules + INDEX * MODULE_WORDS
            right = entries.term == at(MEMORY, module + ENTRIES), number.term == at(MEMORY, module + ENTRY_COUNT)
            asked.append(("entry", *right, pc.term == WANTED))
            return path.word(answer)

        look = with_contracts(lookup_stack_map, module_index=index, entry_at=entry)
        return look(path.mem, path.word(REGISTRY), path.word(WANTED)), asked

    def promise(outcome: Outcome) -> z3.BoolRef:
        result, asked = outcome.value
        right = [z3.And(*conditions) for _, *conditions in asked]
        if [what for what, *_ in asked] == ["index", "entry"]:
            return z3.And(
                *right, result.term == answer, contains(INDEX), z3.Implies(z3.And(z3.ULT(ITEM, count), contains(ITEM)), ITEM == INDEX)
            )
        return z3.And(*right, len(asked) == 1, result == 0, z3.Implies(z3.ULT(ITEM, count), z3.Not(contains(ITEM))))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def obligations() -> list[Obligation]:
    """Return the obligations about lookups."""

    def both(build: Callable[[str], Claim]) -> Callable[[], list[Claim]]:
        def build_both() -> list[Claim]:
            return [build("entry"), build("module")]

        build_both.__doc__ = build.__doc__
        return build_both

    bisections = (entry_at, module_index, entry_bisect_step, module_bisect_step)
    steps = (entry_bisect_step, module_bisect_step)
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("bisection-invariant-holds-initially", both(_holds_initially), bisections),
        ("bisection-round-keeps-the-invariant", both(_is_kept), bisections),
        ("bisection-reads-inside-the-table", both(_reads_inside), steps),
        ("bisection-moves-one-end-inwards", both(_middle_is_inside), steps),
        ("entry-found-is-exact", _entry_is_exact, (entry_at,)),
        ("module-found-is-the-first-past-the-pc", _module_is_the_first_that_ends_later, (module_index,)),
        ("lookup-asks-the-module-of-the-pc", _lookup_asks_the_right_module, (lookup_stack_map,)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]
