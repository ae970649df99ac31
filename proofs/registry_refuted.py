"""What the seed's registration gets wrong: overlaps that it misses, touching ranges that it refuses, functions out of order."""

from __future__ import annotations

from typing import Any

import z3

from impl.errors import RegistrationRefused
from impl.stack_maps import (
    ENTRY_WORDS,
    PC,
    StackMap,
    StackMapInformation,
    StackMapRegistry,
    entry_at,
    insert_entry,
    insert_module,
    move_up,
)
from proofs import defects
from proofs.cuts import Cut
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, explore, wrapped
from proofs.replays import SparseMemory, Values, needs

SUBJECT = "registry"
MEMORY = fresh_memory()
START, END, OLD_START, OLD_END, ENTRIES, WANTED = z3.BitVecs("start end old_start old_end entries pc", 64)
RANGES = {
    "both ranges are code somewhere": z3.And(
        z3.ULT(START, END),
        z3.ULT(OLD_START, OLD_END),
        z3.ULT(0, OLD_START),
        z3.ULT(0, START),
        z3.ULT(END, 1 << 16),
        z3.ULT(OLD_END, 1 << 16),
    )
}
RANGE_TERMS = {"start": START, "end": END, "old_start": OLD_START, "old_end": OLD_END}


def _seed_refuses(start: Any, end: Any, old_start: Any, old_end: Any) -> int:
    """Say whether the seed refuses a range where one module is registered: which neighbours it sees depends on their ends."""
    following_start, following_end = (old_start, old_end) if old_end >= end else (0, 0)
    previous_end = old_end if old_end <= start else 0
    try:
        defects.refuse_overlap_of_the_seed(start, end, following_start, following_end, previous_end)
    except RegistrationRefused:
        return 1
    return 0


def _impl_refuses(values: Values) -> bool:
    """Say whether `impl` refuses the range where the old one is registered."""
    registry = StackMapRegistry.create()
    infos = [StackMapInformation(0, StackMap.from_slice([True]))]
    registry.register_stack_maps([(range(values["old_start"], values["old_end"]), infos)])
    try:
        registry.register_stack_maps([(range(values["start"], values["end"]), infos)])
    except RegistrationRefused:
        return True
    return False


def _exploring() -> list[Outcome]:
    return explore(lambda path: _seed_refuses(*(path.word(term) for term in (START, END, OLD_START, OLD_END))), RANGES.values())


SHARES = z3.And(z3.ULT(START, OLD_END), z3.ULT(OLD_START, END))


def _seeds_overlap_test() -> Claim:
    """What the seed accepts shares no pc with the module that is registered."""

    def replay(values: Values) -> str:
        new, old = (values["start"], values["end"]), (values["old_start"], values["old_end"])
        needs(_seed_refuses(*new, *old) == 0 and _impl_refuses(values), "the seed refuses it, or impl accepts it")
        return f"[{new[0]:#x}, {new[1]:#x}) is accepted beside [{old[0]:#x}, {old[1]:#x}), which it covers in part; impl refuses it"

    goal = wrapped(_exploring(), lambda outcome: z3.BoolVal(True) if outcome.value == 1 else z3.Not(SHARES))
    return Claim(RANGES, goal, RANGE_TERMS, replay)


def _seeds_touching_ranges() -> Claim:
    """What the seed refuses shares a pc with the module that is registered, or is the same range."""

    def replay(values: Values) -> str:
        new, old = (values["start"], values["end"]), (values["old_start"], values["old_end"])
        needs(_seed_refuses(*new, *old) == 1 and not _impl_refuses(values), "the seed accepts it, or impl refuses it")
        return f"[{new[0]:#x}, {new[1]:#x}) touches [{old[0]:#x}, {old[1]:#x}) and is refused; impl accepts it"

    goal = wrapped(_exploring(), lambda outcome: SHARES if outcome.value == 1 else z3.BoolVal(True))
    return Claim(RANGES, goal, RANGE_TERMS, replay)


def _functions_out_of_order() -> Claim:
    """Two entries that are entered one behind the other are both found."""
    first = at(MEMORY, ENTRIES + PC)
    second = z3.BitVec("second", 64)
    assumptions = {
        "the entries lie in the memory": z3.And(z3.ULT(ENTRIES, 1 << 32), z3.UGT(ENTRIES, 64)),
        "the pc is that of one of them": z3.Or(first == WANTED, second == WANTED),
    }

    def run(path: Path) -> Any:
        defects.append_entry(path.mem, path.word(ENTRIES), 1, path.word(second))
        return entry_at(path.mem, path.word(ENTRIES), 2, path.word(WANTED))

    def replay(values: Values) -> str:
        entries, pc = values["entries"], values["pc"]
        mem = SparseMemory({entries + PC: values["first"]})
        defects.append_entry(mem, entries, 1, values["second"])
        needs(entry_at(mem, entries, 2, pc) == 0, "it is found")
        mem = SparseMemory({entries + PC: values["first"]})
        insert_entry(mem, entries, 1, values["second"], entries + 4 * ENTRY_WORDS)
        needs(entry_at(mem, entries, 2, pc) != 0, "insert_entry loses it too")
        return f"{values['first']:#x} was entered, then {values['second']:#x}: {pc:#x} is not found; with insert_entry it is"

    goal = wrapped(explore(run, assumptions.values()), lambda outcome: outcome.term != 0)
    return Claim(assumptions, goal, {"entries": ENTRIES, "first": first, "second": second, "pc": WANTED}, replay)


def _moved_from_the_first() -> Claim:
    """Words that are moved up from the first on are all there when their turn comes."""
    first, last, distance, later = z3.BitVecs("first last distance later", 64)
    assumptions = {
        "the words are few, and lie in the memory": z3.And(
            z3.UGT(first, 64), z3.ULT(first, last), z3.ULE(last - first, 8), z3.ULT(last, 1 << 32)
        ),
        "the distance is that of a module or of an entry": z3.Or(distance == 3, distance == 4),
        "another word's turn comes later": z3.And(z3.ULT(first, later), z3.ULT(later, last)),
        "it holds another word than the first": at(MEMORY, later) != at(MEMORY, first),
    }
    terms = {"first": first, "last": last, "distance": distance, "later": later, "held": at(MEMORY, later), "lowest": at(MEMORY, first)}

    def run(path: Path) -> object:
        state = {"mem": path.mem, "first": path.word(first), "last": path.word(last), "distance": path.word(distance)}
        return Cut(defects.move_up_from_the_first).step(state | {"word": path.word(first)})

    def moved(values: Values, move: Any) -> int:
        mem = SparseMemory({values["first"]: values["lowest"], values["later"]: values["held"]})
        move(mem, values["first"], values["last"], values["distance"])
        return mem[values["later"] + values["distance"]]

    def replay(values: Values) -> str:
        found = moved(values, defects.move_up_from_the_first)
        needs(found != values["held"], "it arrives")
        needs(moved(values, move_up) == values["held"], "move_up loses it too")
        return f"the word at {values['later']:#x} was overwritten before it was moved; move_up begins with the last"

    goal = wrapped(explore(run, assumptions.values()), lambda outcome: outcome.mem.kept(later))
    return Claim(assumptions, goal, terms, replay)


def _doubling_alone() -> Claim:
    """An array that is full has room for one more when its capacity is doubled."""
    capacity = z3.BitVec("capacity", 64)
    assumptions = {"the capacity is small": z3.ULT(capacity, 1 << 26)}

    def replay(values: Values) -> str:
        larger = defects.doubled(values["capacity"])
        needs(larger <= values["capacity"], f"{larger} is more than {values['capacity']}")
        registry = StackMapRegistry.create()
        registry.register_stack_maps([(range(16, 32), [StackMapInformation(0, StackMap.from_slice([True]))])])
        needs(registry.lookup_stack_map(16) is not None, "the first module is lost in impl too")
        return f"a capacity of {values['capacity']} becomes {larger}; in impl a first module finds room"

    goal = wrapped(explore(lambda path: defects.doubled(path.word(capacity)), assumptions.values()), lambda o: z3.UGT(o.term, capacity))
    return Claim(assumptions, goal, {"capacity": capacity}, replay)


def obligations() -> list[Obligation]:
    """Return what is refuted of the seed's registration."""
    refuted: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("seeds-overlap-test", _seeds_overlap_test, (defects.refuse_overlap_of_the_seed,)),
        ("seeds-touching-ranges", _seeds_touching_ranges, (defects.refuse_overlap_of_the_seed,)),
        ("words-moved-from-the-first", _moved_from_the_first, (defects.move_up_from_the_first, move_up)),
        ("doubling-alone-makes-room", _doubling_alone, (defects.doubled, insert_module)),
        ("functions-out-of-order", _functions_out_of_order, (defects.append_entry, entry_at)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.REFUTED, build, functions) for name, build, functions in refuted]
