"""A sweep visits each slot that was filled and each precise root once, exchanges sets only where that is due, and reports any panic."""

from __future__ import annotations

from typing import Any

import z3

from impl.activations_table import (
    CHUNK,
    CHUNK_LENGTH,
    COLLECTING,
    END,
    NEXT,
    OVER,
    PRECISE,
    STACK_CANARY,
    SWEEPING,
    TABLE_WORDS,
    elements,
    sweep,
    table_init,
)
from impl.hash_set import BUCKETS, CAPACITY, LENGTH, SET_WORDS
from impl.header import SWEEP_ORDER
from impl.layout import WORD_BYTES, VMOffsets
from proofs.cuts import Again, Cut, Left, Reached, with_contracts
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore
from proofs.words import term

SUBJECT = "memory operations"
SMALL = 1 << 32

MEMORY = fresh_memory()
TABLE, ITEM, REFERENCE, ANSWER, PANICKED = z3.BitVecs("table i reference answer panicked", 64)
SMALL_TABLE = {"addresses are small": z3.ULT(TABLE, SMALL)}


def _fields_fill_the_table() -> Claim:
    """Fields and sets of a table are its words, each once, and compiled code looks for the first two where they are."""
    fields = [NEXT, END, CHUNK, CHUNK_LENGTH, STACK_CANARY, COLLECTING]
    words = sorted([*fields, *(first + word for first in (OVER, PRECISE, SWEEPING) for word in range(SET_WORDS))])
    offsets = VMOffsets(pointer_size=WORD_BYTES)
    built_in = (offsets.vm_extern_ref_activation_table_next(), offsets.vm_extern_ref_activation_table_end())
    right = words == list(range(TABLE_WORDS)) and built_in == (NEXT * WORD_BYTES, END * WORD_BYTES)
    return Claim({}, z3.BoolVal(right))


def _new_table_is_empty() -> Claim:
    """A new table has an empty chunk of its capacity, with the bump finger at its start, room for as many in two of its sets, none in the
    third, no canary, and no collection under way.

    `table_init` with contracts for the allocator and the sets. Of the loop that empties the slots, one arbitrary round, `i`.
    """
    capacity, seed, chunk = z3.BitVecs("capacity seed chunk", 64)
    assumptions = {
        "table and chunk fit in the memory": z3.And(z3.ULT(TABLE, SMALL), z3.ULT(chunk, SMALL), z3.ULT(capacity, SMALL)),
        "the chunk is apart from the table": z3.Or(z3.ULE(TABLE + TABLE_WORDS, chunk), z3.ULE(chunk + capacity, TABLE)),
    }
    inside = z3.And(z3.ULE(chunk, ITEM), z3.ULT(ITEM, chunk + capacity))

    def run(path: Path) -> tuple[list[z3.BoolRef], list[z3.BoolRef]]:
        given: list[z3.BoolRef] = []
        sets: list[z3.BoolRef] = []

        def allocate(_mem: object, size: Any, align: int) -> Any:
            given.append(z3.And(size.term == capacity, align == 1))
            return path.word(chunk)

        def emptied(start: Any, stop: Any) -> list[Any]:
            given.append(z3.And(start.term == chunk, stop.term == chunk + capacity))
            return [path.word(ITEM)] if path.take(inside) else []

        def make(_mem: object, place: Any, items: Any, number: Any) -> None:
            expected = ((OVER, capacity), (PRECISE, capacity), (SWEEPING, z3.BitVecVal(0, 64)))[len(sets)]
            sets.append(z3.And(place.term == TABLE + expected[0], term(items) == expected[1], number.term == seed))

        begun = with_contracts(table_init, alloc=allocate, range=emptied, set_init=make)
        begun(path.mem, path.word(TABLE), path.word(capacity), path.word(seed))
        return given, sets

    def promise(outcome: Outcome) -> z3.BoolRef:
        given, sets = outcome.value
        now = outcome.mem.now
        fields = {NEXT: chunk, END: chunk + capacity, CHUNK: chunk, CHUNK_LENGTH: capacity, STACK_CANARY: 0, COLLECTING: 0}
        return z3.And(
            len(given) == 2,
            len(sets) == 3,
            *given,
            *sets,
            *(at(now, TABLE + field) == value for field, value in fields.items()),
            z3.Implies(inside, at(now, ITEM) == 0),
            outcome.mem.wrote_only([*(TABLE + field for field in fields), (chunk, chunk + capacity)]),
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _elements_are_all_entries() -> Claim:
    """The entries of a table are the members of its over-approximated set and what its filled slots hold.

    `elements`. Of the loops over buckets and slots, one arbitrary round each, `i` and `j`.
    """
    other = z3.BitVec("j", 64)
    buckets, capacity = at(MEMORY, TABLE + OVER + BUCKETS), at(MEMORY, TABLE + OVER + CAPACITY)
    assumptions = {**SMALL_TABLE, "buckets fit in the memory": z3.And(z3.ULT(buckets, SMALL), z3.ULT(capacity, SMALL))}

    def run(path: Path) -> tuple[list[Any], list[z3.BoolRef]]:
        asked: list[z3.BoolRef] = []
        places = [ITEM, other]

        def over(start: Any, stop: Any) -> list[Any]:
            first = at(MEMORY, TABLE + CHUNK), at(MEMORY, TABLE + NEXT)
            expected = first if asked else (buckets, buckets + capacity)
            asked.append(z3.And(start.term == expected[0], stop.term == expected[1]))
            return [path.word(places[len(asked) - 1])]

        return list(with_contracts(elements, range=over)(path.mem, path.word(TABLE))), asked

    def promise(outcome: Outcome) -> z3.BoolRef:
        found, asked = outcome.value
        held = [at(MEMORY, ITEM), at(MEMORY, other)]
        none = [word == 0 for word in held]
        meanings = {
            0: z3.And(*none),
            1: z3.Or(*(z3.And(none[1 - n], z3.Not(none[n]), *(entry.term == held[n] for entry in found)) for n in range(2))),
            2: z3.And(z3.Not(z3.Or(*none)), *(entry.term == word for entry, word in zip(found, held, strict=False))),
        }
        return z3.And(len(asked) == 2, *asked, meanings[len(found)], outcome.mem.wrote_only([]))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


# --- the sweep


def _sweep_goes_over_what_was_filled() -> Claim:
    """A sweep goes over the slots that were filled when it began and over the set of that time, in the order asked for, with the chunk
    closed; then it opens the chunk and takes the precise set; a panic in the set is reported.

    `sweep` up to its second loop. The rounds of the first one are left out: they are what `each-filled-slot-is-swept` is about.
    """
    start, finger, end = at(MEMORY, TABLE + CHUNK), at(MEMORY, TABLE + NEXT), at(MEMORY, TABLE + END)
    old_is_empty = at(MEMORY, TABLE + OVER + LENGTH) == 0

    def run(path: Path) -> tuple[list[str], list[z3.BoolRef], Any]:
        calls: list[str] = []
        right: list[z3.BoolRef] = []

        def slots(first: Any, past_last: Any) -> list[Any]:
            calls.append("slots")
            right.append(z3.And(first.term == start, past_last.term == finger))
            return []

        def exchange(mem: Any, a: Any, b: Any) -> None:
            with_precise = "release" in calls
            calls.append("exchange")
            right.append(z3.And(a.term == TABLE + OVER, b.term == TABLE + (PRECISE if with_precise else SWEEPING)))
            right.append(at(mem.now, TABLE + NEXT) == (start if with_precise else end))

        def release(mem: Any, _host: object, members: Any, order: Any) -> Any:
            calls.append("release")
            right.append(z3.And(members.term == TABLE + SWEEPING, order.term == at(MEMORY, z3.BitVecVal(SWEEP_ORDER, 64))))
            right.append(at(mem.now, TABLE + NEXT) == end)
            return path.word(ANSWER)

        cut = Cut(sweep, 1, range=slots, set_swap=exchange, sweep_set=release)
        # The first loop is part of what comes before the second; without rounds it is its range alone.
        reached = cut.entry(path.mem, None, path.word(TABLE))
        if not isinstance(reached, Reached):
            raise TypeError("the sweep returned before it took the precise set")
        return calls, right, reached.state

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        calls, right, state = outcome.value
        meanings = {"slots release exchange": old_is_empty, "exchange slots release exchange": z3.Not(old_is_empty)}
        places = [state[name].term == TABLE + place for name, place in (("over", OVER), ("precise", PRECISE), ("sweeping", SWEEPING))]
        panicked = term(state["panicked"]) == z3.If(ANSWER != 0, z3.BitVecVal(1, 64), z3.BitVecVal(0, 64))
        return z3.And(
            meanings.get(" ".join(calls), False),
            *right,
            *places,
            panicked,
            at(outcome.mem.now, TABLE + NEXT) == start,
            outcome.mem.wrote_only([TABLE + NEXT]),
        )

    return Claim(SMALL_TABLE, always(explore(run, SMALL_TABLE.values()), promise))


def _each_filled_slot_is_swept() -> Claim:
    """A round of a sweep over the chunk sweeps its slot, once, and remembers a panic.

    One round of the first loop of `sweep`.
    """

    def run(path: Path) -> tuple[object, list[z3.BoolRef]]:
        swept: list[z3.BoolRef] = []

        def slot(_mem: object, _host: object, address: Any) -> Any:
            swept.append(address.term == ITEM)
            return path.word(ANSWER)

        state = {"mem": path.mem, "host": None, "slot": path.word(ITEM), "panicked": path.word(PANICKED)}
        return Cut(sweep, sweep_slot=slot).step(state), swept

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came, swept = outcome.value
        if not isinstance(came, Again):
            return False
        remembered = term(came.state["panicked"]) == z3.If(ANSWER != 0, z3.BitVecVal(1, 64), PANICKED)
        return z3.And(len(swept) == 1, *swept, remembered, outcome.mem.wrote_only([]))

    return Claim({}, always(explore(run), promise))


def _each_precise_root_is_taken_over() -> Claim:
    """A round over the precise set puts one of its members into the over-approximated set, and gives a count back if that has it already;
    the rounds end when the precise set is empty.

    One round of the second loop of `sweep`, with contracts for the sets.
    """
    over, precise = z3.BitVecs("over precise", 64)
    assumptions = {"addresses are small": z3.And(z3.ULT(over, SMALL), z3.ULT(precise, SMALL))}
    is_empty = at(MEMORY, precise + LENGTH) == 0

    def run(path: Path) -> tuple[object, list[str], list[z3.BoolRef]]:
        calls: list[str] = []
        given: list[z3.BoolRef] = []

        def pop(_mem: object, members: Any) -> Any:
            calls.append("pop")
            given.append(members.term == precise)
            return path.word(REFERENCE)

        def insert(_mem: object, members: Any, key: Any) -> Any:
            calls.append("insert")
            given.append(z3.And(members.term == over, key.term == REFERENCE))
            return path.word(ANSWER)

        def decrement(_mem: object, externref: Any) -> None:
            calls.append("decrement")
            given.append(externref.term == REFERENCE)

        state = {"mem": path.mem, "over": path.word(over), "precise": path.word(precise)}
        return Cut(sweep, 1, set_pop=pop, set_insert=insert, decrement_ref_count=decrement).step(state), calls, given

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came, calls, given = outcome.value
        meanings = {
            "": z3.And(is_empty, isinstance(came, Left)),
            "pop insert": z3.And(z3.Not(is_empty), ANSWER != 0, isinstance(came, Again)),
            "pop insert decrement": z3.And(z3.Not(is_empty), ANSWER == 0, isinstance(came, Again)),
        }
        return z3.And(meanings.get(" ".join(calls), False), *given, outcome.mem.wrote_only([]))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _larger_allocation_is_kept() -> Claim:
    """At its end a sweep frees the set it has emptied, if that has buckets, after it has exchanged them for the precise set's if they are
    more than those; it returns whether a destructor panicked.

    The part of `sweep` after its second loop, with contracts for the sets.
    """
    precise, sweeping = z3.BitVecs("precise sweeping", 64)
    assumptions = {"addresses are small": z3.And(z3.ULT(precise, SMALL), z3.ULT(sweeping, SMALL))}
    mine, other = at(MEMORY, sweeping + CAPACITY), at(MEMORY, precise + CAPACITY)

    def run(path: Path) -> tuple[Any, list[str], list[z3.BoolRef]]:
        calls: list[str] = []
        given: list[z3.BoolRef] = []

        def exchange(_mem: object, a: Any, b: Any) -> None:
            calls.append("exchange")
            given.append(z3.And(a.term == sweeping, b.term == precise))

        def free(_mem: object, members: Any) -> None:
            calls.append("free")
            given.append(members.term == sweeping)

        state = {"mem": path.mem, "precise": path.word(precise), "sweeping": path.word(sweeping), "panicked": path.word(PANICKED)}
        return Cut(sweep, 1, set_swap=exchange, set_free=free).after(state), calls, given

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        panicked, calls, given = outcome.value
        larger = z3.UGT(mine, other)
        meanings = {"": mine == 0, "free": z3.And(mine != 0, z3.Not(larger)), "exchange free": z3.And(mine != 0, larger)}
        return z3.And(meanings.get(" ".join(calls), False), *given, panicked.term == PANICKED, outcome.mem.wrote_only([]))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def obligations() -> list[Obligation]:
    """Return the obligations about the table's words and the loops of a sweep."""
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("fields-fill-the-table", _fields_fill_the_table, (table_init, VMOffsets.vm_extern_ref_activation_table_end)),
        ("new-table-is-empty", _new_table_is_empty, (table_init,)),
        ("elements-are-all-entries", _elements_are_all_entries, (elements,)),
        ("sweep-goes-over-what-was-filled", _sweep_goes_over_what_was_filled, (sweep,)),
        ("each-filled-slot-is-swept", _each_filled_slot_is_swept, (sweep,)),
        ("each-precise-root-is-taken-over", _each_precise_root_is_taken_over, (sweep,)),
        ("larger-allocation-is-kept", _larger_allocation_is_kept, (sweep,)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]
