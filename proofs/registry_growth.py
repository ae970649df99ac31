"""The registry's array grows without losing a module, and what a registry has allocated is freed with the size it was allocated with."""

from __future__ import annotations

from typing import Any

import z3

from impl.stack_maps import (
    ENTRIES,
    ENTRY_COUNT,
    ENTRY_WORDS,
    MODULE_WORDS,
    MODULES,
    MODULES_CAPACITY,
    MODULES_COUNT,
    REGISTRY_WORDS,
    insert_module,
    registry_clear,
)
from proofs.cuts import with_contracts
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore
from proofs.words import term

SUBJECT = "registry"
SMALL = 1 << 32
COUNT_MAX = 1 << 26
# Modules that the first array has room for.
FIRST_ROOM = 4

MEMORY = fresh_memory()
REGISTRY, INDEX, ITEM, MOVED = z3.BitVecs("registry index i moved", 64)


def _apart(a: z3.BitVecRef, a_words: z3.BitVecRef | int, b: z3.BitVecRef, b_words: z3.BitVecRef | int) -> z3.BoolRef:
    """Say that two blocks do not overlap."""
    return z3.Or(z3.ULE(a + a_words, b), z3.ULE(b + b_words, a))


def _fields() -> tuple[z3.BitVecRef, z3.BitVecRef, z3.BitVecRef]:
    """Return a registry's array, the number of its modules and its capacity."""
    modules, count = at(MEMORY, REGISTRY + MODULES), at(MEMORY, REGISTRY + MODULES_COUNT)
    return modules, count, at(MEMORY, REGISTRY + MODULES_CAPACITY)


def _array_doubles() -> Claim:
    """Where there is no room for a module, twice the room is allocated, or room for four at first; each word of the old array is copied
    before that is freed, and the registry has the new one with the module's place free in it.

    `insert_module` where the array is full. Of the loop that copies, one arbitrary round, `i`: rounds write apart from what they read.
    """
    modules, count, capacity = _fields()
    larger = z3.If(capacity == 0, z3.BitVecVal(FIRST_ROOM, 64), 2 * capacity)
    assumptions = {
        "the registry fits in the memory": z3.And(z3.ULT(REGISTRY, SMALL), z3.ULT(modules, SMALL), z3.ULT(count, COUNT_MAX)),
        "there is no room": count == capacity,
        "the index is one of the array or past it": z3.ULE(INDEX, count),
        "the new array is apart from the registry and from the old one": z3.And(
            z3.ULT(MOVED, SMALL),
            _apart(MOVED, larger * MODULE_WORDS, REGISTRY, REGISTRY_WORDS),
            _apart(MOVED, larger * MODULE_WORDS, modules, count * MODULE_WORDS),
        ),
    }

    def run(path: Path) -> tuple[Any, list[str], list[z3.BoolRef]]:
        calls: list[str] = []
        given: list[z3.BoolRef] = []

        def allocate(_mem: object, size: Any, align: int) -> Any:
            calls.append("allocate")
            given.append(z3.And(term(size) == larger * MODULE_WORDS, align == 1))
            return path.word(MOVED)

        def copied(words: Any) -> list[Any]:
            calls.append("copy")
            given.append(words.term == count * MODULE_WORDS)
            return [path.word(ITEM)] if path.take(z3.ULT(ITEM, count * MODULE_WORDS)) else []

        def free(_mem: object, block: Any, size: Any, align: int) -> None:
            calls.append("free")
            given.append(z3.And(block.term == modules, term(size) == capacity * MODULE_WORDS, align == 1))

        def move(_mem: object, first: Any, last: Any, distance: int) -> None:
            calls.append("move")
            whole = z3.And(first.term == MOVED + INDEX * MODULE_WORDS, last.term == MOVED + count * MODULE_WORDS)
            given.append(z3.And(whole, distance == MODULE_WORDS))

        inserting = with_contracts(insert_module, alloc=allocate, range=copied, dealloc=free, move_up=move)
        return inserting(path.mem, path.word(REGISTRY), path.word(INDEX)), calls, given

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        place, calls, given = outcome.value
        meanings = {"allocate copy move": capacity == 0, "allocate copy free move": capacity != 0}
        now = outcome.mem.now
        return z3.And(
            meanings.get(" ".join(calls), False),
            *given,
            place.term == MOVED + INDEX * MODULE_WORDS,
            z3.Implies(z3.ULT(ITEM, count * MODULE_WORDS), at(now, MOVED + ITEM) == at(MEMORY, modules + ITEM)),
            outcome.mem.wrote_only([(REGISTRY, REGISTRY + REGISTRY_WORDS), MOVED + ITEM]),
            at(now, REGISTRY + MODULES) == MOVED,
            at(now, REGISTRY + MODULES_CAPACITY) == larger,
            at(now, REGISTRY + MODULES_COUNT) == count + 1,
            z3.UGT(larger, count),
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _all_is_freed() -> Claim:
    """Clearing a registry frees the entries of each module and then the array, if there is one, each with the size it was allocated with,
    and leaves the registry empty.

    Of the loop over the modules, one arbitrary round, `i`.
    """
    modules, count, capacity = _fields()
    module = modules + ITEM * MODULE_WORDS
    assumptions = {
        "the registry fits in the memory": z3.And(
            z3.ULT(REGISTRY, SMALL), z3.ULT(modules, SMALL), z3.ULT(count, COUNT_MAX), z3.ULT(capacity, COUNT_MAX)
        ),
        "the module's entries fit in the memory": z3.ULT(at(MEMORY, module + ENTRY_COUNT), COUNT_MAX),
    }

    def run(path: Path) -> tuple[list[str], list[z3.BoolRef]]:
        calls: list[str] = []
        given: list[z3.BoolRef] = []

        def each(start: Any, stop: Any, step: int) -> list[Any]:
            calls.append("each")
            given.append(z3.And(start.term == modules, stop.term == modules + count * MODULE_WORDS, step == MODULE_WORDS))
            return [path.word(module)] if path.take(z3.ULT(ITEM, count)) else []

        def free(_mem: object, block: Any, size: Any, align: int) -> None:
            entries = z3.And(block.term == at(MEMORY, module + ENTRIES), size.term == at(MEMORY, module + ENTRY_COUNT) * ENTRY_WORDS)
            array = z3.And(block.term == modules, size.term == capacity * MODULE_WORDS)
            given.append(z3.And(entries if path.take(z3.ULT(ITEM, count)) and calls == ["each"] else array, align == 1))
            calls.append("free")

        with_contracts(registry_clear, range=each, dealloc=free)(path.mem, path.word(REGISTRY))
        return calls, given

    def promise(outcome: Outcome) -> z3.BoolRef:
        calls, given = outcome.value
        freed = z3.If(z3.ULT(ITEM, count), z3.BitVecVal(1, 64), z3.BitVecVal(0, 64))
        freed += z3.If(modules != 0, z3.BitVecVal(1, 64), z3.BitVecVal(0, 64))
        empty = [at(outcome.mem.now, REGISTRY + word) == 0 for word in range(REGISTRY_WORDS)]
        return z3.And(calls[0] == "each", freed == len(calls) - 1, *given, *empty, outcome.mem.wrote_only([(REGISTRY, REGISTRY + 4)]))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def obligations() -> list[Obligation]:
    """Return the obligations about what a registry allocates and frees."""
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("array-of-modules-doubles", _array_doubles, (insert_module,)),
        ("registry-frees-what-it-allocated", _all_is_freed, (registry_clear,)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]
