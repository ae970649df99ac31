"""On any memory, each elementary operation of counts, chunk and sweep writes only where it may, and keeps what it must."""

from __future__ import annotations

from typing import Any

import z3

from impl.activations_table import (
    CHUNK,
    COLLECTING,
    END,
    NEXT,
    OVER,
    PRECISE,
    STACK_CANARY,
    SWEEPING,
    TABLE_WORDS,
    insert_precise_stack_root,
    insert_slow_without_gc,
    num_filled_in_bump_chunk,
    reset_stack_canary,
    set_stack_canary,
    sweep,
    sweep_slot,
    try_insert,
)
from impl.collector import gc, insert_with_gc, reserve
from impl.errors import Aborted, Panicked
from impl.externref import COUNT_MAX, clone, decrement_ref_count, drop, increment_ref_count
from impl.hash_set import LENGTH, SET_WORDS, set_swap
from impl.header import VERDICT
from proofs.cuts import Cut, Reached, with_contracts
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore

SUBJECT = "memory operations"
SMALL = 1 << 32

MEMORY = fresh_memory()
REFERENCE, TABLE, X = z3.BitVecs("reference table x", 64)


def raised(outcome: Outcome, kind: type[BaseException]) -> bool:
    """Say whether a path ended with an exception of this kind."""
    return isinstance(outcome.raised, kind)


def others_kept(outcome: Outcome, *addresses: z3.BitVecRef | int) -> z3.BoolRef:
    """Say that any word at none of these addresses is what it was."""
    return z3.Or(*(address == X for address in addresses), outcome.mem.kept(X))


# --- counts


def _increment_counts_or_aborts() -> list[Claim]:
    """Counting one reference more raises the count by one and writes nothing else; at the largest count it aborts and changes none."""
    count = at(MEMORY, REFERENCE)
    assumptions = {"the count is not the word of the verdict": REFERENCE != VERDICT}

    def promise(outcome: Outcome) -> z3.BoolRef:
        if raised(outcome, Aborted):
            return z3.And(z3.UGE(count, COUNT_MAX), outcome.mem.wrote_only([VERDICT]), outcome.mem.kept(REFERENCE))
        grown = at(outcome.mem.now, REFERENCE)
        return z3.And(grown == count + 1, z3.UGT(grown, count), z3.ULE(grown, COUNT_MAX), outcome.mem.wrote_only([REFERENCE]))

    def cloned(outcome: Outcome) -> z3.BoolRef:
        return promise(outcome) if outcome.raised is not None else z3.And(promise(outcome), outcome.term == REFERENCE)

    def explored(function: Any) -> list[Outcome]:
        return explore(lambda path: function(path.mem, path.word(REFERENCE)), assumptions.values())

    return [
        Claim(assumptions, always(explored(increment_ref_count), promise), part="increment_ref_count"),
        Claim(assumptions, always(explored(clone), cloned), part="clone"),
    ]


def _decrement_counts_or_aborts() -> Claim:
    """Counting one reference less lowers the count by one and writes nothing else; at zero it aborts."""
    count = at(MEMORY, REFERENCE)
    assumptions = {"the count is not the word of the verdict": REFERENCE != VERDICT}

    def promise(outcome: Outcome) -> z3.BoolRef:
        if raised(outcome, Aborted):
            return z3.And(count == 0, outcome.mem.wrote_only([VERDICT]), outcome.mem.kept(REFERENCE))
        less = at(outcome.mem.now, REFERENCE)
        return z3.And(less == count - 1, z3.ULT(less, count), outcome.mem.wrote_only([REFERENCE]))

    outcomes = explore(lambda path: decrement_ref_count(path.mem, path.word(REFERENCE)), assumptions.values())
    return Claim(assumptions, always(outcomes, promise))


def _drop_destroys_at_one() -> Claim:
    """Dropping a reference destroys the value if and only if the count was one, once, with the count at zero."""
    count = at(MEMORY, REFERENCE)

    def run(path: Path) -> list[z3.BoolRef]:
        destroyed: list[z3.BoolRef] = []

        def drop_and_dealloc(mem: Any, _host: object, externref: Any) -> None:
            destroyed.append(z3.And(externref.term == REFERENCE, at(mem.now, REFERENCE) == 0))

        with_contracts(drop, drop_and_dealloc=drop_and_dealloc)(path.mem, None, path.word(REFERENCE))
        return destroyed

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        if raised(outcome, Aborted):
            return z3.And(count == 0, outcome.mem.wrote_only([VERDICT]))
        written = z3.And(at(outcome.mem.now, REFERENCE) == count - 1, outcome.mem.wrote_only([REFERENCE]), count != 0)
        if outcome.value:
            return z3.And(len(outcome.value) == 1, outcome.value[0], count == 1, written)
        return z3.And(count != 1, written)

    return Claim({}, always(explore(run), promise))


# --- the chunk


def table_assumptions(memory: z3.ArrayRef = MEMORY, *, apart: bool = True, ordered: bool = True) -> dict[str, z3.BoolRef]:
    """Say of an activations table what holds between operations: invariant (3), and that its parts do not overlap.

    Args:
        memory: What the memory holds.
        apart: Whether to say that the chunk does not overlap the table.
        ordered: Whether to say that the bump finger is in the chunk or at its end.
    """
    start, end = at(memory, TABLE + CHUNK), at(memory, TABLE + END)
    assumptions = {"addresses are small": z3.And(z3.ULT(TABLE, SMALL), z3.ULT(start, SMALL), z3.ULT(end, SMALL))}
    if apart:
        assumptions["the chunk is apart from the table"] = z3.Or(z3.ULE(TABLE + TABLE_WORDS, start), z3.ULE(end, TABLE))
    if ordered:
        assumptions["start <= next <= end"] = in_range(memory)
    return assumptions


def in_range(memory: z3.ArrayRef) -> z3.BoolRef:
    """Say that the bump finger lies in the chunk or at its end."""
    finger = at(memory, TABLE + NEXT)
    return z3.And(z3.ULE(at(memory, TABLE + CHUNK), finger), z3.ULE(finger, at(memory, TABLE + END)))


def _try_insert_keeps_the_chunk() -> Claim:
    """An insertion writes the slot at the bump finger and the finger, in the chunk and never at or past its end; it is refused exactly
    when the chunk is full.
    """
    assumptions = table_assumptions()
    finger, start, end = at(MEMORY, TABLE + NEXT), at(MEMORY, TABLE + CHUNK), at(MEMORY, TABLE + END)

    def promise(outcome: Outcome) -> z3.BoolRef:
        if outcome.value == 0:
            return z3.And(finger == end, outcome.mem.wrote_only([]))
        now = outcome.mem.now
        return z3.And(
            outcome.mem.wrote_only([(start, end), TABLE + NEXT]),
            others_kept(outcome, finger, TABLE + NEXT),
            in_range(now),
            at(now, TABLE + NEXT) == finger + 1,
            at(now, finger) == REFERENCE,
            z3.ULT(finger, end),
        )

    outcomes = explore(lambda path: try_insert(path.mem, path.word(TABLE), path.word(REFERENCE)), assumptions.values())
    return Claim(assumptions, always(outcomes, promise))


def _fill_is_counted() -> Claim:
    """The number of filled slots grows by one with each insertion and never exceeds the chunk."""
    assumptions = table_assumptions()

    def run(path: Path) -> tuple[Any, Any, Any]:
        table = path.word(TABLE)
        before = num_filled_in_bump_chunk(path.mem, table)
        inserted = try_insert(path.mem, table, path.word(REFERENCE))
        return before, inserted, num_filled_in_bump_chunk(path.mem, table)

    def promise(outcome: Outcome) -> z3.BoolRef:
        before, inserted, after = outcome.terms()
        return z3.And(after == before + inserted, z3.ULE(after, at(MEMORY, TABLE + END) - at(MEMORY, TABLE + CHUNK)))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _collects_exactly_when_full() -> list[Claim]:
    """An insertion collects exactly when the chunk is full, and a reservation exactly when the room is less than what is wanted.

    `insert_with_gc` and `reserve`, with a contract for the collection that only notes that it was asked for.
    """
    assumptions = table_assumptions(apart=False)
    wanted = z3.BitVec("wanted", 64)
    room = at(MEMORY, TABLE + END) - at(MEMORY, TABLE + NEXT)
    asked: list[int] = []

    def note(*_arguments: object) -> None:
        asked.append(1)

    def inserting(path: Path) -> int:
        asked.clear()
        with_contracts(insert_with_gc, gc_and_insert_slow=note)(path.mem, None, path.word(TABLE), 0, path.word(REFERENCE))
        return len(asked)

    def reserving(path: Path) -> int:
        asked.clear()
        with_contracts(reserve, gc=note)(path.mem, None, path.word(TABLE), 0, path.word(wanted))
        return len(asked)

    def insert_promise(outcome: Outcome) -> z3.BoolRef:
        return z3.And(outcome.term == z3.If(room == 0, z3.BitVecVal(1, 64), z3.BitVecVal(0, 64)))

    def reserve_promise(outcome: Outcome) -> z3.BoolRef:
        exact = outcome.term == z3.If(z3.ULT(room, wanted), z3.BitVecVal(1, 64), z3.BitVecVal(0, 64))
        return z3.And(exact, outcome.mem.wrote_only([]))

    return [
        Claim(assumptions, always(explore(inserting, assumptions.values()), insert_promise), part="insert_with_gc"),
        Claim(assumptions, always(explore(reserving, assumptions.values()), reserve_promise), part="reserve"),
    ]


def _duplicate_gives_its_count_back() -> list[Claim]:
    """A set owns one count of each member: a duplicate of the over-approximated set gives its count back, which is never the last, and
    the precise set takes one only for a new member.

    A set owns one count of each member: for both insertions into sets, `set_insert` is any function that answers 0 or 1.
    """
    absent = z3.Bool("absent")
    count = at(MEMORY, REFERENCE)
    assumptions = {
        "the set and the caller own a count each": z3.And(z3.UGE(count, 2), z3.ULT(count, COUNT_MAX)),
    }

    def explored(function: Any, place: int) -> list[Outcome]:
        def run(path: Path) -> z3.BoolRef:
            asked: list[z3.BoolRef] = []

            def set_insert(_mem: object, members: Any, key: Any) -> int:
                asked.append(z3.And(members.term == TABLE + place, key.term == REFERENCE))
                return int(path.take(absent))

            with_contracts(function, set_insert=set_insert)(path.mem, path.word(TABLE), path.word(REFERENCE))
            return z3.And(len(asked) == 1, *asked)

        return explore(run, [*assumptions.values(), z3.ULT(TABLE, SMALL)])

    def over(outcome: Outcome) -> z3.BoolRef:
        now = at(outcome.mem.now, REFERENCE)
        return z3.And(outcome.value, now == z3.If(absent, count, count - 1), now != 0, others_kept(outcome, REFERENCE))

    def precise(outcome: Outcome) -> z3.BoolRef:
        now = at(outcome.mem.now, REFERENCE)
        return z3.And(outcome.value, now == z3.If(absent, count + 1, count), others_kept(outcome, REFERENCE))

    small = {**assumptions, "addresses are small": z3.ULT(TABLE, SMALL)}
    return [
        Claim(small, always(explored(insert_slow_without_gc, OVER), over), part="over-approximated set"),
        Claim(small, always(explored(insert_precise_stack_root, PRECISE), precise), part="precise set"),
    ]


def _sets_are_exchanged() -> Claim:
    """Exchanging two sets exchanges their words and writes nothing else."""
    a, b = z3.BitVecs("a b", 64)
    assumptions = {
        "addresses are small": z3.And(z3.ULT(a, SMALL), z3.ULT(b, SMALL)),
        "the sets do not overlap": z3.Or(z3.ULE(a + SET_WORDS, b), z3.ULE(b + SET_WORDS, a)),
    }

    def promise(outcome: Outcome) -> z3.BoolRef:
        now = outcome.mem.now
        swapped = [z3.And(at(now, a + i) == at(MEMORY, b + i), at(now, b + i) == at(MEMORY, a + i)) for i in range(4)]
        return z3.And(*swapped, outcome.mem.wrote_only([(a, a + 4), (b, b + 4)]))

    return Claim(assumptions, always(explore(lambda path: set_swap(path.mem, path.word(a), path.word(b)), assumptions.values()), promise))


# --- the sweep


def _sweep_slot_empties_first() -> Claim:
    """Sweeping a slot drops exactly what it held, once, with the slot already empty, whatever the destructor does; a panic goes no
    further.
    """
    slot = z3.BitVec("slot", 64)
    panics = z3.Bool("panics")
    held = at(MEMORY, slot)

    def run(path: Path) -> tuple[int, list[z3.BoolRef]]:
        dropped: list[z3.BoolRef] = []

        def contract(mem: Any, _host: object, externref: Any) -> None:
            dropped.append(z3.And(externref.term == held, at(mem.now, slot) == 0, z3.Or(slot == X, mem.kept(X))))
            # Whatever the destructor does.
            mem.now = fresh_memory("memory after the destructor")
            if path.take(panics):
                raise Panicked("on request")

        return with_contracts(sweep_slot, drop=contract)(path.mem, None, path.word(slot)), dropped

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        if outcome.raised is not None:
            return False
        panicked, dropped = outcome.value
        if dropped:
            return z3.And(len(dropped) == 1, dropped[0], held != 0, panics == (panicked == 1), outcome.mem.wrote_only([slot]))
        return z3.And(held == 0, panicked == 0, outcome.mem.wrote_only([slot]))

    return Claim({}, always(explore(run), promise))


def _chunk_is_closed_while_sweeping() -> Claim:
    """Before its first destructor a sweep closes the chunk: every insertion is refused, and no slot is written.

    The part of `sweep` before its first loop, and then any insertion.
    """
    assumptions = table_assumptions(ordered=False)
    start, finger, end = at(MEMORY, TABLE + CHUNK), at(MEMORY, TABLE + NEXT), at(MEMORY, TABLE + END)

    def run(path: Path) -> tuple[Any, Any, Any]:
        reached = Cut(sweep).entry(path.mem, None, path.word(TABLE))
        if not isinstance(reached, Reached):
            raise TypeError("the sweep returned before it swept")
        return reached.state["start"], reached.state["filled"], try_insert(path.mem, path.word(TABLE), path.word(REFERENCE))

    def promise(outcome: Outcome) -> z3.BoolRef:
        first, past_last, inserted = outcome.terms()
        sets = [(TABLE + OVER, TABLE + OVER + SET_WORDS), (TABLE + SWEEPING, TABLE + SWEEPING + SET_WORDS)]
        return z3.And(
            first == start,
            past_last == finger,
            inserted == 0,
            at(outcome.mem.now, TABLE + NEXT) == end,
            outcome.mem.wrote_only([TABLE + NEXT, *sets]),
            z3.Implies(z3.And(z3.ULE(start, X), z3.ULT(X, end)), outcome.mem.kept(X)),
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _chunk_is_open_and_empty_after_the_sweep() -> Claim:
    """After its last destructor a sweep opens the chunk, empty; the precise set takes the place of the over-approximated one and is left
    empty; a panic is reported.

    The part of `sweep` after its first loop. The set that is drained then empties in one round, whatever it held.
    """
    assumptions = table_assumptions(apart=False, ordered=False)
    start = at(MEMORY, TABLE + CHUNK)
    panics = z3.BitVec("a destructor panicked", 64)

    def pop(mem: Any, members: Any) -> Any:
        mem[members + LENGTH] = 0
        return mem.path.word(REFERENCE)

    def nothing(*_arguments: object) -> int:
        return 1

    def release_all(mem: Any, _host: object, members: Any, _order: object) -> Any:
        mem[members + LENGTH] = 0
        return mem.path.word(panics)

    def run(path: Path) -> Any:
        cut = Cut(sweep, set_pop=pop, set_insert=nothing, set_free=nothing, sweep_set=release_all)
        table = path.word(TABLE)
        state = {
            "mem": path.mem,
            "host": None,
            "table": table,
            "order": 0,
            "over": table + OVER,
            "precise": table + PRECISE,
            "sweeping": table + SWEEPING,
            "start": path.mem[table + CHUNK],
            "panicked": 0,
        }
        return cut.after(state)

    def promise(outcome: Outcome) -> z3.BoolRef:
        now = outcome.mem.now
        return z3.And(
            at(now, TABLE + NEXT) == start,
            at(now, TABLE + PRECISE + LENGTH) == 0,
            at(now, TABLE + OVER + LENGTH) == at(MEMORY, TABLE + PRECISE + LENGTH),
            (outcome.term != 0) == (panics != 0),
            outcome.mem.wrote_only([TABLE + NEXT, (TABLE + OVER, TABLE + STACK_CANARY)]),
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _collection_is_guarded() -> Claim:
    """A nested collection does nothing; another one sweeps exactly when there is no canary or the walk has found it, discards otherwise,
    and leaves the guard open even after a panic.
    """
    found, canary, collecting = z3.Bool("all roots were found"), at(MEMORY, TABLE + STACK_CANARY), at(MEMORY, TABLE + COLLECTING)
    panics = z3.Bool("a destructor panicked")
    assumptions = {"addresses are small": z3.ULT(TABLE, SMALL)}

    def run(path: Path) -> tuple[list[str], list[z3.BoolRef]]:
        calls: list[str] = []
        guarded: list[z3.BoolRef] = []

        def note(what: str, mem: Any, answer: z3.BoolRef) -> int:
            calls.append(what)
            guarded.append(at(mem.now, TABLE + COLLECTING) == 1)
            return int(path.take(answer))

        def walk(mem: Any, *_arguments: object) -> int:
            return note("walk", mem, found)

        def sweep_all(mem: Any, *_arguments: object) -> int:
            answer = note("sweep", mem, panics)
            mem.now = z3.Store(fresh_memory("memory after the sweep"), TABLE + COLLECTING, z3.BitVecVal(1, 64))
            return answer

        def discard(mem: Any, *_arguments: object) -> int:
            return note("discard", mem, z3.BoolVal(False))

        collect = with_contracts(gc, find_precise_stack_roots=walk, sweep=sweep_all, discard_precise_stack_roots=discard)
        try:
            collect(path.mem, None, path.word(TABLE), 0)
        except Panicked:
            calls.append("panic")
        return calls, guarded

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        calls, guarded = outcome.value
        ended = z3.And(*guarded, at(outcome.mem.now, TABLE + COLLECTING) == 0, collecting == 0)
        whole = z3.Or(canary == 0, found)
        meanings = {
            "": z3.And(collecting != 0, outcome.mem.wrote_only([])),
            "sweep": z3.And(ended, canary == 0, z3.Not(panics)),
            "sweep panic": z3.And(ended, canary == 0, panics),
            "walk sweep": z3.And(ended, canary != 0, whole, z3.Not(panics)),
            "walk sweep panic": z3.And(ended, canary != 0, whole, panics),
            "walk discard": z3.And(ended, z3.Not(whole)),
        }
        return meanings.get(" ".join(calls), False)

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _canary_belongs_to_the_oldest() -> Claim:
    """The oldest call sets the canary and resets it; a nested one does neither."""
    canary = z3.BitVec("canary", 64)
    assumptions = {"addresses are small": z3.ULT(TABLE, SMALL)}
    before = at(MEMORY, TABLE + STACK_CANARY)

    def run(path: Path) -> Any:
        table = path.word(TABLE)
        owns = set_stack_canary(path.mem, table, path.word(canary))
        kept = at(path.mem.now, TABLE + STACK_CANARY)
        # The guard of the call resets what it has set, and only that.
        if owns != 0:
            reset_stack_canary(path.mem, table)
        return owns, path.word(kept)

    def promise(outcome: Outcome) -> z3.BoolRef:
        owns, during = outcome.terms()
        return z3.And(
            (owns == 1) == (before == 0),
            during == z3.If(before == 0, canary, before),
            outcome.mem.kept(TABLE + STACK_CANARY),
            outcome.mem.wrote_only([TABLE + STACK_CANARY]),
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def obligations() -> list[Obligation]:
    """Return the obligations about counts, chunk, sweep and collection."""
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("increment-counts-one-or-aborts", _increment_counts_or_aborts, (increment_ref_count, clone)),
        ("decrement-counts-one-or-aborts", _decrement_counts_or_aborts, (decrement_ref_count,)),
        ("drop-destroys-at-exactly-one", _drop_destroys_at_one, (drop,)),
        ("try-insert-keeps-the-chunk", _try_insert_keeps_the_chunk, (try_insert,)),
        ("fill-count-follows-insertions", _fill_is_counted, (num_filled_in_bump_chunk, try_insert)),
        ("collects-exactly-when-there-is-no-room", _collects_exactly_when_full, (insert_with_gc, reserve, try_insert)),
        (
            "duplicates-give-their-count-back",
            _duplicate_gives_its_count_back,
            (insert_slow_without_gc, insert_precise_stack_root, increment_ref_count, decrement_ref_count),
        ),
        ("sets-are-exchanged-whole", _sets_are_exchanged, (set_swap,)),
        ("sweep-slot-empties-before-it-drops", _sweep_slot_empties_first, (sweep_slot,)),
        ("chunk-is-closed-while-sweeping", _chunk_is_closed_while_sweeping, (sweep, try_insert, set_swap)),
        ("chunk-is-open-after-the-sweep", _chunk_is_open_and_empty_after_the_sweep, (sweep, set_swap)),
        ("collection-is-guarded", _collection_is_guarded, (gc,)),
        ("canary-belongs-to-the-oldest-call", _canary_belongs_to_the_oldest, (set_stack_canary, reset_stack_canary)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]
