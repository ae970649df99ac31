"""What would go wrong with lookups: previous entries, missing markers, closed ranges, unsorted tables, sums that wrap."""

from __future__ import annotations

from typing import Any

import z3

from impl.stack_maps import END, ENTRY_WORDS, PC, START, entry_bisect_step
from proofs import defects
from proofs.lookup import BASE, COUNT, ENTRY_MAX, HIGH, ITEM, LOW, MEMORY, MIDDLE, SMALL, WANTED, pc_of
from proofs.memory import at
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, explore, wrapped
from proofs.replays import SparseMemory, Values, needs

SUBJECT = "lookup"

FUNCTION_START = z3.BitVec("function_start", 64)
# What bisection has found: entries below `low` have smaller pcs, the one at `low` has not.
FOUND = {
    "the table fits in the memory": z3.And(z3.ULT(BASE, SMALL), z3.UGT(BASE, 0), z3.ULT(LOW, ENTRY_MAX)),
    "the bisection has ended (of both entries there)": z3.And(
        z3.ULE(WANTED, pc_of(LOW)), z3.Implies(LOW != 0, z3.ULT(pc_of(LOW - 1), WANTED))
    ),
    "the pc is in a function": z3.ULE(FUNCTION_START, WANTED),
}
# So that a person can follow the witness.
READABLE = {
    "pcs have four digits": z3.And(
        *(z3.And(z3.UGE(pc, 0x1000), z3.ULT(pc, 0x10000)) for pc in (WANTED, FUNCTION_START, pc_of(LOW - 1), pc_of(LOW)))
    )
}
FOUND |= READABLE | {"the table is short": z3.And(z3.ULT(LOW, 16), z3.ULT(BASE, 1 << 16))}
FOUND_TERMS = {
    "entries": BASE,
    "low": LOW,
    "pc": WANTED,
    "function": FUNCTION_START,
    "pc_before": pc_of(LOW - 1),
    "pc_there": pc_of(LOW),
}


def _found_memory(values: Values) -> SparseMemory:
    entry = values["entries"] + values["low"] * ENTRY_WORDS
    mem = SparseMemory({entry + PC: values["pc_there"]})
    if values["low"]:
        mem[entry - ENTRY_WORDS + PC] = values["pc_before"]
    return mem


def _missing_marker() -> Claim:
    """The entry at or before the place that bisection finds belongs to the function that the pc is in."""

    def replay(values: Values) -> str:
        mem = _found_memory(values)
        entry = defects.entry_or_previous(mem, values["entries"], values["low"], values["pc"])
        needs(entry != 0 and mem[entry + PC] < values["function"], f"entry {entry} is none of another function")
        return f"the map of {mem[entry + PC]:#x} answers for {values['pc']:#x}, whose function begins at {values['function']:#x}"

    outcomes = explore(lambda path: defects.entry_or_previous(path.mem, path.word(BASE), path.word(LOW), path.word(WANTED)), FOUND.values())

    def promise(outcome: Outcome) -> z3.BoolRef:
        return z3.Or(outcome.term == 0, z3.UGE(at(MEMORY, outcome.term + PC), FUNCTION_START))

    return Claim(FOUND, wrapped(outcomes, promise), FOUND_TERMS, replay)


def _previous_entry() -> Claim:
    """With markers between functions, the entry at or before the place that bisection finds is that of the pc."""

    def replay(values: Values) -> str:
        mem = _found_memory(values)
        entry = defects.marked_or_previous(mem, values["entries"], values["low"], values["pc"], values["function"])
        needs(entry != 0 and mem[entry + PC] != values["pc"], f"entry {entry} is right")
        return f"the map of {mem[entry + PC]:#x} answers for {values['pc']:#x}, which has none: dead words are taken for references"

    outcomes = explore(
        lambda path: defects.marked_or_previous(path.mem, *(path.word(term) for term in (BASE, LOW, WANTED, FUNCTION_START))),
        FOUND.values(),
    )

    def promise(outcome: Outcome) -> z3.BoolRef:
        return z3.Or(outcome.term == 0, at(MEMORY, outcome.term + PC) == WANTED)

    return Claim(FOUND, wrapped(outcomes, promise), FOUND_TERMS, replay)


def _module_end_inside() -> Claim:
    """A pc that is not below a module's start and not above its end is in the module."""
    start, end = at(MEMORY, BASE + START), at(MEMORY, BASE + END)
    assumptions = {
        "the module lies in the memory": z3.ULT(BASE, SMALL),
        "the module is not empty": z3.And(z3.ULT(start, end), z3.ULT(end, 1 << 16)),
    }
    outcomes = explore(lambda path: defects.in_module_to_its_end(path.mem, path.word(BASE), path.word(WANTED)), assumptions.values())

    def replay(values: Values) -> str:
        mem = SparseMemory({values["module"] + START: values["start"], values["module"] + END: values["end"]})
        inside = defects.in_module_to_its_end(mem, values["module"], values["pc"])
        needs(inside == 1 and not values["start"] <= values["pc"] < values["end"], "the answer is right")
        return f"{values['pc']:#x} is past the last pc of [{values['start']:#x}, {values['end']:#x}) and is said to be inside"

    def promise(outcome: Outcome) -> z3.BoolRef:
        inside = z3.And(z3.ULE(start, WANTED), z3.ULT(WANTED, end))
        return inside if outcome.value == 1 else z3.Not(inside)

    return Claim(assumptions, wrapped(outcomes, promise), {"module": BASE, "start": start, "end": end, "pc": WANTED}, replay)


def _unsorted_table() -> Claim:
    """A round of the bisection keeps its invariant in a table that is not sorted."""
    assumptions = {
        "the table fits in the memory": z3.And(z3.ULT(BASE, SMALL), z3.ULT(COUNT, 1 << 10)),
        "low < high <= count": z3.And(z3.ULT(LOW, HIGH), z3.ULE(HIGH, COUNT)),
        "entry i is the one that is looked for": z3.And(z3.ULE(LOW, ITEM), z3.ULT(ITEM, HIGH), pc_of(ITEM) == WANTED),
        "pcs have at most four digits": z3.And(z3.ULT(WANTED, 0x10000), z3.ULT(pc_of(MIDDLE), 0x10000), pc_of(MIDDLE) != WANTED),
    }
    outcomes = explore(
        lambda path: entry_bisect_step(path.mem, *(path.word(term) for term in (BASE, LOW, HIGH, WANTED))), assumptions.values()
    )

    def replay(values: Values) -> str:
        middle = (values["low"] + values["high"]) // 2
        mem = SparseMemory({values["entries"] + middle * ENTRY_WORDS + PC: values["pc_middle"]})
        mem[values["entries"] + values["i"] * ENTRY_WORDS + PC] = values["pc"]
        low, high = entry_bisect_step(mem, values["entries"], values["low"], values["high"], values["pc"])
        needs(not low <= values["i"] <= high, f"entry {values['i']} is still between {low} and {high}")
        return f"entry {values['i']} has the pc, and the search goes on from {low} to {high}: it misses it"

    def promise(outcome: Outcome) -> z3.BoolRef:
        low, high = outcome.terms()
        return z3.And(z3.ULE(low, ITEM), z3.ULE(ITEM, high))

    terms = {"entries": BASE, "low": LOW, "high": HIGH, "i": ITEM, "pc": WANTED, "pc_middle": pc_of(MIDDLE)}
    return Claim(assumptions, wrapped(outcomes, promise), terms, replay)


def _naive_midpoint() -> Claim:
    """Half of a sum of words lies between them."""
    assumptions = {"low < high": z3.ULT(LOW, HIGH)}
    outcomes = explore(lambda path: defects.midpoint_wrapping(path.word(LOW), path.word(HIGH)), assumptions.values())

    def replay(values: Values) -> str:
        middle = defects.midpoint_wrapping(values["low"], values["high"])
        needs(not values["low"] <= middle < values["high"], f"{middle} lies between them")
        return f"the middle of {values['low']:#x} and {values['high']:#x} is {middle:#x}"

    goal = wrapped(outcomes, lambda outcome: z3.And(z3.ULE(LOW, outcome.term), z3.ULT(outcome.term, HIGH)))
    return Claim(assumptions, goal, {"low": LOW, "high": HIGH}, replay)


def obligations() -> list[Obligation]:
    """Return what is refuted of lookups."""
    refuted: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("missing-marker", _missing_marker, (defects.entry_or_previous,)),
        ("previous-entry", _previous_entry, (defects.marked_or_previous, defects.entry_or_previous)),
        ("module-end-inside", _module_end_inside, (defects.in_module_to_its_end,)),
        ("unsorted-table", _unsorted_table, (entry_bisect_step,)),
        ("naive-midpoint", _naive_midpoint, (defects.midpoint_wrapping,)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.REFUTED, build, functions) for name, build, functions in refuted]
