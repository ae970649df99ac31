"""What would go wrong with counts, chunk and sweep if they were written otherwise: claims that a solver refutes, with a witness."""

from __future__ import annotations

from typing import Any

import z3

from impl.activations_table import CHUNK, END, NEXT, sweep_slot, try_insert
from impl.externref import VALUE_PTR, VTABLE, increment_ref_count
from proofs import defects
from proofs.cuts import with_contracts
from proofs.memory import at, fresh_memory
from proofs.memory_operations import REFERENCE, TABLE, table_assumptions
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Path, always, explore, wrapped
from proofs.replays import SparseMemory, Values, needs

SUBJECT = "memory operations"
MEMORY = fresh_memory()


def _count_that_wraps() -> Claim:
    """A count that is incremented without a check grows."""
    count = at(MEMORY, REFERENCE)
    outcomes = explore(lambda path: defects.increment_wrapping(path.mem, path.word(REFERENCE)))

    def replay(values: Values) -> str:
        mem = SparseMemory({values["reference"]: values["count"]})
        defects.increment_wrapping(mem, values["reference"])
        after = mem[values["reference"]]
        needs(after < values["count"], f"the count is {after}")
        return f"one more reference makes the count {after}: the next drop of any of them destroys the value"

    goal = wrapped(outcomes, lambda outcome: z3.UGT(at(outcome.mem.now, REFERENCE), count))
    return Claim({}, goal, {"reference": REFERENCE, "count": count}, replay)


def _count_below_zero() -> Claim:
    """A count that is decremented without a check shrinks."""
    count = at(MEMORY, REFERENCE)
    outcomes = explore(lambda path: defects.decrement_wrapping(path.mem, path.word(REFERENCE)))

    def replay(values: Values) -> str:
        mem = SparseMemory({values["reference"]: values["count"]})
        defects.decrement_wrapping(mem, values["reference"])
        after = mem[values["reference"]]
        needs(after > values["count"], f"the count is {after}")
        return f"one reference less makes the count {after:#x}: the value is never destroyed"

    goal = wrapped(outcomes, lambda outcome: z3.ULT(at(outcome.mem.now, REFERENCE), count))
    return Claim({}, goal, {"reference": REFERENCE, "count": count}, replay)


def _count_of_any_width() -> Claim:
    """Counting one reference more never aborts."""
    count = at(MEMORY, REFERENCE)
    outcomes = explore(lambda path: increment_ref_count(path.mem, path.word(REFERENCE)))

    def replay(values: Values) -> str:
        mem = SparseMemory({values["reference"]: values["count"]})
        try:
            increment_ref_count(mem, values["reference"])
        except BaseException as verdict:  # noqa: BLE001 - a verdict is no Exception
            return f"increment_ref_count raises {type(verdict).__name__}: {verdict}"
        needs(False, "it did not abort")
        return ""

    return Claim({}, always(outcomes, lambda outcome: outcome.raised is None), {"reference": REFERENCE, "count": count}, replay)


CHUNK_TERMS = {
    "table": TABLE,
    "reference": REFERENCE,
    "start": at(MEMORY, TABLE + CHUNK),
    "next": at(MEMORY, TABLE + NEXT),
    "end": at(MEMORY, TABLE + END),
}


# So that a person can follow the witness.
READABLE = {
    "all addresses have four digits": z3.And(*(z3.And(z3.UGE(term, 0x1000), z3.ULT(term, 0x10000)) for term in CHUNK_TERMS.values()))
}


def _table_memory(values: Values) -> SparseMemory:
    table = values["table"]
    return SparseMemory({table + CHUNK: values["start"], table + NEXT: values["next"], table + END: values["end"]})


def _insertion_past_the_end() -> Claim:
    """An insertion that does not compare `next` with `end` stays in the chunk."""
    assumptions = table_assumptions() | READABLE
    outcomes = explore(lambda path: defects.try_insert_unchecked(path.mem, path.word(TABLE), path.word(REFERENCE)), assumptions.values())

    def replay(values: Values) -> str:
        mem = _table_memory(values)
        mem[values["end"]] = marker = values["reference"] ^ 1
        defects.try_insert_unchecked(mem, values["table"], values["reference"])
        needs(mem[values["end"]] != marker, "the word at the end is what it was")
        return f"the chunk ends at {values['end']:#x}, and the word there was written"

    chunk = (at(MEMORY, TABLE + CHUNK), at(MEMORY, TABLE + END))
    return Claim(assumptions, wrapped(outcomes, lambda outcome: outcome.mem.wrote_only([chunk, TABLE + NEXT])), CHUNK_TERMS, replay)


def _chunk_reset_in_place() -> Claim:
    """If a sweep resets `next` before it releases the entries, a destructor's insertion spares the slots that are yet to be swept."""
    slot = z3.BitVec("slot", 64)
    held = at(MEMORY, slot)
    assumptions = {
        **table_assumptions(),
        **READABLE,
        "the slot is one that is yet to be swept": z3.And(z3.ULE(at(MEMORY, TABLE + CHUNK), slot), z3.ULT(slot, at(MEMORY, TABLE + NEXT))),
        "it holds another reference": z3.And(held != REFERENCE, z3.UGE(held, 0x1000), z3.ULT(held, 0x10000)),
    }

    def run(path: Path) -> Any:
        defects.begin_sweep_in_place(path.mem, path.word(TABLE))
        return try_insert(path.mem, path.word(TABLE), path.word(REFERENCE))

    def replay(values: Values) -> str:
        mem = _table_memory(values)
        mem[values["slot"]] = held = values["held"]
        defects.begin_sweep_in_place(mem, values["table"])
        inserted = try_insert(mem, values["table"], values["reference"])
        needs(inserted == 1 and mem[values["slot"]] != held, "the slot holds what it held")
        return f"the slot held {held:#x}, and holds {mem[values['slot']]:#x} before it was swept: a reference is lost, and its value leaks"

    goal = wrapped(explore(run, assumptions.values()), lambda outcome: outcome.mem.kept(slot))
    return Claim(assumptions, goal, {**CHUNK_TERMS, "slot": slot, "held": held}, replay)


class _Witness:
    """A host whose destructor looks at one word.

    Args:
        mem: The memory.
        slot: Where it looks.
    """

    def __init__(self, mem: SparseMemory, slot: int) -> None:
        self.mem = mem
        self.slot = slot
        self.seen = 0

    def construct(self, value: int, vtable: int) -> None:
        """Construct nothing: no value is made here."""

    def destroy(self, externref: int) -> None:
        """Look at the slot."""
        del externref
        self.seen = self.mem[self.slot]


def _slot_emptied_after_the_drop() -> Claim:
    """If a slot is emptied after what it held is dropped, the destructor finds it empty all the same."""
    slot = z3.BitVec("slot", 64)
    held = at(MEMORY, slot)
    # Where the replay has room for a value, a vtable and a stack.
    assumptions = {
        "the slot holds a reference": z3.And(held == 1000),
        "the slot is not a word of the stack or of the value": z3.And(z3.UGT(slot, 2000), z3.ULT(slot, 1 << 16)),
    }

    def run(path: Path) -> list[z3.BoolRef]:
        seen: list[z3.BoolRef] = []

        def contract(mem: Any, _host: object, _externref: Any) -> None:
            seen.append(at(mem.now, slot) == 0)

        with_contracts(defects.sweep_slot_after_drop, drop=contract)(path.mem, None, path.word(slot))
        return seen

    def replay(values: Values) -> str:
        found = []
        for function in (defects.sweep_slot_after_drop, sweep_slot):
            mem = SparseMemory({values["slot"]: values["held"], values["held"]: 1})
            mem[values["held"] + VALUE_PTR] = values["held"] - 1
            mem[values["held"] + VTABLE] = 900
            mem |= {900: 8, 901: 8, 8: 100, 9: 800, 10: 790}
            host = _Witness(mem, values["slot"])
            function(mem, host, values["slot"])
            found.append(host.seen)
        needs(found == [values["held"], 0], f"the destructors saw {found}")
        return f"the destructor of {values['held']} finds itself in the slot; with sweep_slot it finds the slot empty"

    goal = wrapped(explore(run, assumptions.values()), lambda outcome: z3.And(*outcome.value) if outcome.value else z3.BoolVal(True))
    return Claim(assumptions, goal, {"slot": slot, "held": held}, replay)


def obligations() -> list[Obligation]:
    """Return what is refuted of counts, chunk and sweep."""
    refuted: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("count-that-wraps", _count_that_wraps, (defects.increment_wrapping,)),
        ("count-below-zero", _count_below_zero, (defects.decrement_wrapping,)),
        ("counting-never-aborts", _count_of_any_width, (increment_ref_count,)),
        ("insertion-past-the-end", _insertion_past_the_end, (defects.try_insert_unchecked,)),
        ("chunk-reset-in-place", _chunk_reset_in_place, (defects.begin_sweep_in_place, try_insert)),
        ("slot-emptied-after-the-drop", _slot_emptied_after_the_drop, (defects.sweep_slot_after_drop, sweep_slot)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.REFUTED, build, functions) for name, build, functions in refuted]
