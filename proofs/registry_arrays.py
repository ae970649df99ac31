"""The registry's arrays: what is entered comes to its sorted place, and nothing that was there is lost."""

from __future__ import annotations

from typing import Any

import z3

from impl.stack_maps import (
    ENTRY_WORDS,
    INFO_BITS,
    INFO_MAPPED_WORDS,
    INFO_OFFSET,
    INFO_WORDS,
    MODULE_WORDS,
    MODULES,
    MODULES_CAPACITY,
    MODULES_COUNT,
    PC,
    insert_entry,
    insert_module,
    move_up,
    same_maps,
    write_entries,
)
from proofs.cuts import Cut, Left, Reached, Returned, with_contracts
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore

SUBJECT = "registry"
SMALL = 1 << 32
COUNT_MAX = 1 << 26

MEMORY = fresh_memory()
NEW_START, NEW_END, REGISTRY, INDEX, ITEM, J, X, PLACE, PC_WANTED = z3.BitVecs("start end registry index i j x place pc", 64)
FUNCTION, INFO, IMAGE = z3.BitVecs("function info image", 64)


def _moving_up_moves_each_word() -> Claim:
    """A round of moving words up moves one, and overwrites none that has yet to be moved.

    One round of `move_up` for word `x` of those above: it lies `distance` higher already, and stays there.
    """
    first, last, word, distance = z3.BitVecs("first last word distance", 64)
    moved = z3.Implies(z3.And(z3.ULE(word, X), z3.ULT(X, last)), at(MEMORY, X + distance) == z3.BitVec("original", 64))
    assumptions = {
        "addresses are small": z3.And(z3.ULT(last, SMALL), z3.ULT(X, SMALL), z3.ULT(distance, SMALL)),
        "the round is one of the loop": z3.And(z3.ULE(first, word), z3.ULE(word, last)),
        "words above were moved, those below are there yet (of x)": z3.And(
            moved, z3.Implies(z3.And(z3.ULE(first, X), z3.ULT(X, word)), at(MEMORY, X) == z3.BitVec("original", 64))
        ),
        "the distance is not 0": distance != 0,
    }

    def run(path: Path) -> object:
        state = {"mem": path.mem, "first": path.word(first), "last": path.word(last), "distance": path.word(distance)}
        return Cut(move_up).step(state | {"word": path.word(word)})

    def promise(outcome: Outcome) -> z3.BoolRef:
        came = outcome.value
        original, now = z3.BitVec("original", 64), outcome.mem.now
        if isinstance(came, Left):
            return z3.And(word == first, z3.Implies(z3.And(z3.ULE(first, X), z3.ULT(X, last)), at(now, X + distance) == original))
        lower = came.state["word"].term
        return z3.And(
            lower == word - 1,
            z3.ULE(first, lower),
            outcome.mem.wrote_only([(first + distance, last + distance)]),
            z3.Implies(z3.And(z3.ULE(lower, X), z3.ULT(X, last)), at(now, X + distance) == original),
            z3.Implies(z3.And(z3.ULE(first, X), z3.ULT(X, lower)), at(now, X) == original),
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _place_of_an_entry() -> Claim:
    """A round of the search for an entry's place keeps greater pcs above it, and ends below none.

    One round of the search in `insert_entry`: entry `i` at or above `place` has a greater pc.
    """
    entries, count = z3.BitVecs("entries count", 64)
    place = entries + J * ENTRY_WORDS
    below = at(MEMORY, place - ENTRY_WORDS + PC)
    greater = z3.UGT(at(MEMORY, entries + ITEM * ENTRY_WORDS + PC), PC_WANTED)
    assumptions = {
        "the entries fit in the memory": z3.And(z3.ULT(entries, SMALL), z3.ULT(count, COUNT_MAX), z3.ULE(J, count), z3.UGE(entries, 3)),
        "entries from the place on have greater pcs (of i)": z3.Implies(z3.And(z3.ULE(J, ITEM), z3.ULT(ITEM, count)), greater),
    }

    def run(path: Path) -> object:
        state = {"mem": path.mem, "entries": path.word(entries), "count": path.word(count), "pc": path.word(PC_WANTED)}
        return Cut(insert_entry).step(state | {"info": 0, "place": path.word(place), "last": 0})

    def promise(outcome: Outcome) -> z3.BoolRef:
        came = outcome.value
        if isinstance(came, Left):
            return z3.Or(J == 0, z3.ULE(below, PC_WANTED))
        lower = z3.And(came.state["place"].term == entries + (J - 1) * ENTRY_WORDS, J != 0)
        return z3.And(lower, z3.Implies(z3.And(z3.ULE(J - 1, ITEM), z3.ULT(ITEM, count)), greater))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _entry_is_inserted_in_order() -> Claim:
    """An entry is written between smaller and greater pcs, or not at all if its pc is there already.

    What `insert_entry` does before its loop, and where that ends at `place`: `move_up` is any function that leaves this place free.
    """
    entries, count = z3.BitVecs("entries count", 64)
    place = entries + J * ENTRY_WORDS
    below = at(MEMORY, place - ENTRY_WORDS + PC)
    assumptions = {
        "the entries fit in the memory": z3.And(z3.ULT(entries, SMALL), z3.ULT(count, COUNT_MAX), z3.ULE(J, count), z3.UGE(entries, 3)),
        "the entry below the place has no greater pc": z3.Implies(J != 0, z3.ULE(below, PC_WANTED)),
        "the safepoint lies in the memory, apart from the entry": z3.And(
            z3.ULT(INFO, SMALL), z3.Or(z3.ULE(INFO + INFO_WORDS, place), z3.ULE(place + ENTRY_WORDS, INFO))
        ),
    }

    def run(path: Path) -> tuple[Any, list[z3.BoolRef], Any]:
        moved: list[z3.BoolRef] = []
        contracts: dict[str, Any] = {
            "move_up": lambda _mem, first, last, distance: moved.append(
                z3.And(first.term == place, last.term == entries + count * ENTRY_WORDS, z3.BoolVal(distance == ENTRY_WORDS))
            )
        }
        cut = Cut(insert_entry, **contracts)
        arguments = path.mem, path.word(entries), path.word(count), path.word(PC_WANTED), path.word(INFO)
        reached = cut.entry(*arguments)
        if not isinstance(reached, Reached):
            raise TypeError("insert_entry returned before it searched")
        return cut.after({**reached.state, "place": path.word(place)}), moved, reached.state["place"]

    def promise(outcome: Outcome) -> z3.BoolRef:
        inserted, moved, first_place = outcome.value
        begun = first_place.term == entries + count * ENTRY_WORDS
        there = z3.And(J != 0, below == PC_WANTED)
        if inserted == 0:
            return z3.And(begun, there, outcome.mem.wrote_only([]), len(moved) == 0)
        now = outcome.mem.now
        return z3.And(
            begun,
            inserted == 1,
            z3.Not(there),
            len(moved) == 1,
            *moved,
            outcome.mem.wrote_only([(place, place + ENTRY_WORDS)]),
            at(now, place + PC) == PC_WANTED,
            at(now, place + 1) == at(MEMORY, INFO + INFO_MAPPED_WORDS),
            at(now, place + 2) == at(MEMORY, INFO + INFO_BITS),
            z3.Implies(J != 0, z3.ULT(below, at(now, place + PC))),
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _entries_are_written_from_each_safepoint() -> list[Claim]:
    """For each safepoint the entry of its own pc is inserted, or compared, and nothing else.

    One round of the inner loops of `write_entries` and `same_maps`: which entry is asked for or inserted.
    """
    start, count, entries = z3.BitVecs("function_start count entries", 64)
    answer = z3.BitVec("answer", 64)
    pc = start + at(MEMORY, INFO + INFO_OFFSET)
    assumptions = {
        "the safepoint lies in the memory": z3.ULT(INFO, SMALL),
        "the safepoint's pc is a word": z3.UGE(pc, start),
        "counts and entries are small": z3.And(z3.ULT(count, SMALL), z3.ULE(answer, 1)),
    }

    def writing(path: Path) -> tuple[Any, list[z3.BoolRef]]:
        asked: list[z3.BoolRef] = []

        def insert(_mem: object, base: Any, number: Any, wanted: Any, info: Any) -> Any:
            asked.append(z3.And(base.term == entries, number.term == count, wanted.term == pc, info.term == INFO))
            return path.word(answer)

        state = {"mem": path.mem, "entries": path.word(entries), "image": 0, "count": path.word(count), "function": 0}
        return Cut(write_entries, 1, insert_entry=insert).step({**state, "start": path.word(start), "info": path.word(INFO)}), asked

    def written(outcome: Outcome) -> z3.BoolRef:
        came, asked = outcome.value
        return z3.And(len(asked) == 1, *asked, came.state["count"].term == count + answer, came.state["info"].term == INFO + INFO_WORDS)

    entry = z3.BitVec("entry", 64)
    same = z3.And(entry != 0, *(at(MEMORY, entry + field) == at(MEMORY, INFO + field) for field in (1, 2)))
    comparing_assumptions = {
        "the safepoint lies in the memory": z3.ULT(INFO, SMALL),
        "the safepoint's pc is a word": z3.UGE(pc, start),
        "entries lie in the memory": z3.ULT(entry, SMALL),
    }

    def comparing(path: Path) -> tuple[Any, list[z3.BoolRef]]:
        asked: list[z3.BoolRef] = []

        def find(_mem: object, base: Any, number: Any, wanted: Any) -> Any:
            asked.append(z3.And(base.term == entries, number.term == count, wanted.term == pc))
            return path.word(entry)

        state = {"mem": path.mem, "module": 0, "image": 0, "entry_count": path.word(count), "entries": path.word(entries)}
        state |= {"function": 0, "start": path.word(start), "info": path.word(INFO)}
        return Cut(same_maps, 1, entry_at=find).step(state), asked

    def compared(outcome: Outcome) -> z3.BoolRef:
        came, asked = outcome.value
        if isinstance(came, Returned):
            return z3.And(len(asked) == 1, *asked, z3.Not(same), came.value == 0)
        return z3.And(len(asked) == 1, *asked, same, came.state["info"].term == INFO + INFO_WORDS)

    return [
        Claim(assumptions, always(explore(writing, assumptions.values()), written), part="write_entries"),
        Claim(comparing_assumptions, always(explore(comparing, comparing_assumptions.values()), compared), part="same_maps"),
    ]


def _module_gets_its_place() -> Claim:
    """A module is entered at its index, with the modules from there on moved up whole.

    `insert_module` where there is room, with `move_up` a function that leaves the place free.
    """
    modules, count = at(MEMORY, REGISTRY + MODULES), at(MEMORY, REGISTRY + MODULES_COUNT)
    assumptions = {
        "the registry fits in the memory": z3.And(z3.ULT(REGISTRY, SMALL), z3.ULT(modules, SMALL), z3.ULT(count, COUNT_MAX)),
        "the index is one of the array or past it": z3.ULE(INDEX, count),
        "there is room": count != at(MEMORY, REGISTRY + MODULES_CAPACITY),
    }

    def run(path: Path) -> tuple[Any, list[z3.BoolRef]]:
        moved: list[z3.BoolRef] = []

        def move(_mem: object, first: Any, last: Any, distance: int) -> None:
            whole = z3.And(first.term == modules + INDEX * MODULE_WORDS, last.term == modules + count * MODULE_WORDS)
            moved.append(z3.And(whole, z3.BoolVal(distance == MODULE_WORDS)))

        return with_contracts(insert_module, move_up=move)(path.mem, path.word(REGISTRY), path.word(INDEX)), moved

    def promise(outcome: Outcome) -> z3.BoolRef:
        place, moved = outcome.value
        return z3.And(
            len(moved) == 1,
            *moved,
            place.term == modules + INDEX * MODULE_WORDS,
            outcome.mem.wrote_only([REGISTRY + MODULES_COUNT]),
            at(outcome.mem.now, REGISTRY + MODULES_COUNT) == count + 1,
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def obligations() -> list[Obligation]:
    """Return the obligations about the registry's arrays."""
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("moving-up-moves-each-word", _moving_up_moves_each_word, (move_up,)),
        ("place-of-an-entry-is-found", _place_of_an_entry, (insert_entry,)),
        ("entries-stay-sorted", _entry_is_inserted_in_order, (insert_entry,)),
        ("safepoints-become-entries", _entries_are_written_from_each_safepoint, (write_entries, same_maps)),
        ("module-gets-its-place", _module_gets_its_place, (insert_module,)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]
