"""Every step that changes what one object sees: of the host, of compiled code, of destructors, and of a collection.

A step is a guard and an effect. A guard says when the code can come to this point; it never says that a reference's object is alive, which
is what has to be proved. Each step names the functions of `impl` that take it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias

from impl import activation, activations_table, arena, collector, externref, instance, runtime, stack, store, transfers
from impl.externref import COUNT_MAX
from proofs.protocol import (
    ALIVE,
    CLOSED,
    CONDEMNED,
    DYING,
    FAILED,
    FREED,
    IDLE,
    MERGE,
    OPENED,
    SWEEP,
    UNBORN,
    WALK,
    State,
    Term,
    Truth,
    choose,
    either,
    every,
    idle,
    implies,
    inside,
    mutating,
    owners,
    sweeping,
)

Bound: TypeAlias = Callable[[State, int], Term]


@dataclass(frozen=True)
class Step:
    """One transition, for each choice of its parameters.

    Args:
        name: Unique; lower case, words joined by hyphens.
        says: What happens, in words.
        guard: Whether it can happen; of the state and the parameters.
        effect: The state afterwards.
        functions: Where `impl` does it.
        bounds: For each parameter, a concrete search tries 0 up to this number, which depends on the state and on a bound of the search.
    """

    name: str
    says: str
    guard: Callable[..., Truth]
    effect: Callable[..., State]
    functions: tuple[Callable[..., object], ...]
    bounds: tuple[Bound, ...] = ()

    def taken(self, s: State, bound: int) -> Iterator[tuple[tuple[int, ...], State]]:
        """Yield each choice of parameters that a concrete state allows, and the state afterwards."""
        if not self.bounds:
            if self.guard(s):
                yield (), self.effect(s)
            return
        for arguments in product(*(range(upper(s, bound) + 1) for upper in self.bounds)):
            if self.guard(s, *arguments):
                yield arguments, self.effect(s, *arguments)


def _up_to(name: str) -> Bound:
    return lambda s, _bound: getattr(s, name)


def _any(_s: State, bound: int) -> Term:
    return bound


def _any_less_one(_s: State, bound: int) -> Term:
    return bound - 1


def _flag(_s: State, _bound: int) -> Term:
    return 1


def _move(source: str, target: str) -> tuple[Callable[..., Truth], Callable[..., State], tuple[Bound]]:
    """Guard and effect of moving any number of references from one sort of owner to another, without counting."""

    def guard(s: State, number: Term) -> Truth:
        return every(mutating(s), number >= 1, number <= getattr(s, source))

    def effect(s: State, number: Term) -> State:
        return s._replace(**{source: getattr(s, source) - number, target: getattr(s, target) + number})

    return guard, effect, (_up_to(source),)


def _drops(s: State) -> Truth:
    """Whether a reference may be dropped: by foreign code, or by the sweep itself."""
    return every(s.held >= 1, either(s.phase == IDLE, s.phase == SWEEP))


def _inserting(s: State) -> Truth:
    return every(mutating(s), s.held >= 1)


def _touch(s: State) -> Term:
    return choose(s.phase == SWEEP, 1, s.touched)


def _leaves(s: State) -> Truth:
    """Whether a destructor of the sweep may end: what it entered is left again."""
    return every(inside(s), implies(s.depth == 1, every(s.guest == 0, s.guest_dead == 0, s.window == 0)))


# How often a word that is written had held the reference before: not at all, as a live local, as a dead word.
_DISPLACED: Final = (_flag, _flag)

HOST: Final = (
    Step(
        "new",
        "the object is made, and its reference is the host's; words of frames may hold its address already",
        lambda s, dead, guest_dead: every(
            mutating(s), s.life == UNBORN, dead >= 0, guest_dead >= 0, implies(s.depth == 0, guest_dead == 0)
        ),
        lambda s, dead, guest_dead: s._replace(life=ALIVE, ref_count=1, held=s.held + 1, dead=dead, guest_dead=guest_dead),
        (externref.new_with, store.new_owning),
        (_any_less_one, _any_less_one),
    ),
    Step(
        "clone",
        "somebody who can reach it counts another reference",
        lambda s: every(mutating(s), owners(s) + s.live + s.guest >= 1, s.ref_count < COUNT_MAX),
        lambda s: s._replace(ref_count=s.ref_count + 1, held=s.held + 1),
        (externref.clone, externref.increment_ref_count, transfers.clone_local, instance.load_cloned),
    ),
    Step(
        "release",
        "a reference is dropped, and it is not the last",
        lambda s: every(_drops(s), s.ref_count >= 2),
        lambda s: s._replace(ref_count=s.ref_count - 1, held=s.held - 1),
        (externref.drop, externref.release_all, instance.release_frame),
    ),
    Step(
        "release-last",
        "the last reference is dropped: the count reaches 0",
        lambda s: every(_drops(s), s.ref_count == 1),
        lambda s: s._replace(ref_count=0, held=s.held - 1, life=CONDEMNED),
        (externref.drop,),
    ),
    Step(
        "destructor-begins",
        "its destructor begins",
        lambda s: every(s.life == CONDEMNED, either(s.phase == IDLE, s.phase == SWEEP)),
        lambda s: s._replace(life=DYING, destroyed=s.destroyed + 1, depth=choose(s.phase == SWEEP, s.depth + 1, s.depth)),
        (externref.drop_and_dealloc, externref.run_destructor),
    ),
    Step(
        "destructor-ends",
        "its destructor ends, by a panic or not, and its block is freed",
        lambda s: every(s.life == DYING, either(s.phase == IDLE, _leaves(s))),
        lambda s: s._replace(life=FREED, depth=choose(s.phase == SWEEP, s.depth - 1, s.depth)),
        (externref.drop_and_dealloc, arena.dealloc),
    ),
)

_CELLS_IN = _move("held", "cells")
_CELLS_OUT = _move("cells", "held")
_FIELDS_IN = _move("held", "fields")
_FIELDS_OUT = _move("fields", "held")

STORAGE: Final = (
    Step(
        "store",
        "references are stored into globals, tables or segments, their counts with them",
        *_CELLS_IN[:2],
        (instance.store_moved, instance.store_borrowed, instance.grow_table, instance.fill_table, instance.replace_step, instance.build),
        _CELLS_IN[2],
    ),
    Step(
        "unstore",
        "words of globals, tables or segments that held it are overwritten or given up; their counts are now in hand",
        *_CELLS_OUT[:2],
        (instance.store_moved, instance.store_borrowed, instance.move_cells, instance.dismantle, instance.teardown_instance),
        _CELLS_OUT[2],
    ),
    Step(
        "store-into-value",
        "a value becomes an owner of it",
        *_FIELDS_IN[:2],
        (store.new_owning, instance.store_moved),
        _FIELDS_IN[2],
    ),
    Step(
        "unstore-from-value",
        "a value that owned it lets go of it, because it is destroyed or is given another",
        *_FIELDS_OUT[:2],
        (externref.release_all, instance.store_moved),
        _FIELDS_OUT[2],
    ),
)

TRANSFERS: Final = (
    Step(
        "insert-into-chunk",
        "a reference moves into the chunk, which has room; Wasm is about to get a copy",
        lambda s: every(_inserting(s), s.room >= 1),
        lambda s: s._replace(held=s.held - 1, chunk=s.chunk + 1, room=s.room - 1, window=s.window + 1, touched=_touch(s)),
        (activations_table.try_insert, activations_table.insert_without_gc, collector.insert_with_gc),
    ),
    Step(
        "insert-into-set",
        "a reference moves into the set; Wasm is about to get a copy",
        lambda s: every(_inserting(s), s.over == 0),
        lambda s: s._replace(held=s.held - 1, over=1, window=s.window + 1, touched=_touch(s)),
        (activations_table.insert_slow_without_gc, collector.gc_and_insert_slow),
    ),
    Step(
        "insert-again",
        "a reference that the set has already is inserted, and the count is given back; Wasm is about to get a copy",
        lambda s: every(_inserting(s), s.over == 1),
        lambda s: s._replace(held=s.held - 1, ref_count=s.ref_count - 1, window=s.window + 1, touched=_touch(s)),
        (activations_table.insert_slow_without_gc, externref.decrement_ref_count),
    ),
    Step(
        "others-insert",
        "other references fill slots of the chunk",
        lambda s, number: every(mutating(s), number >= 1, number <= s.room),
        lambda s, number: s._replace(room=s.room - number),
        (activations_table.try_insert,),
        (_up_to("room"),),
    ),
    Step(
        "land",
        "Wasm's copy is written to a local",
        lambda s, live, dead: every(s.phase == IDLE, s.window >= 1, live >= 0, dead >= 0, live + dead <= 1, live <= s.live, dead <= s.dead),
        lambda s, live, dead: s._replace(window=s.window - 1, live=s.live + 1 - live, dead=s.dead - dead),
        (activation.write_local, activation.load_into_local, runtime.Runtime.call_wasm),
        _DISPLACED,
    ),
    Step(
        "land-inside",
        "Wasm's copy is written to a local of an activation that a destructor of the sweep entered",
        lambda s, live, dead: every(
            inside(s), s.window >= 1, live >= 0, dead >= 0, live + dead <= 1, live <= s.guest, dead <= s.guest_dead
        ),
        lambda s, live, dead: s._replace(window=s.window - 1, guest=s.guest + 1 - live, guest_dead=s.guest_dead - dead),
        (activation.write_local, activation.load_into_local, runtime.Runtime.call_wasm),
        _DISPLACED,
    ),
)

LOCALS: Final = (
    Step(
        "copy",
        "a local is copied to another: to one of the same activation, of a callee, of the caller",
        lambda s, dead: every(idle(s), s.live >= 1, dead >= 0, dead <= 1, dead <= s.dead),
        lambda s, dead: s._replace(live=s.live + 1, dead=s.dead - dead),
        (activation.local_copy, transfers.return_local, runtime.Runtime.call_function),
        (_flag,),
    ),
    Step(
        "copy-inside",
        "the same in activations that a destructor of the sweep entered",
        lambda s, dead: every(inside(s), s.guest >= 1, dead >= 0, dead <= 1, dead <= s.guest_dead),
        lambda s, dead: s._replace(guest=s.guest + 1, guest_dead=s.guest_dead - dead),
        (activation.local_copy, transfers.return_local, runtime.Runtime.call_function),
        (_flag,),
    ),
    Step(
        "leave",
        "locals are overwritten, or their frames are left: by a return, a trap, or a panic that unwinds them",
        lambda s, live, dead: every(idle(s), live >= 0, dead >= 0, live + dead >= 1, live <= s.live, dead <= s.dead),
        lambda s, live, dead: s._replace(live=s.live - live, dead=s.dead - dead),
        (activation.write_local, activation.spill, stack.pop_frame, transfers.unwind, transfers.leave_wasm),
        (_up_to("live"), _up_to("dead")),
    ),
    Step(
        "leave-inside",
        "the same in activations that a destructor of the sweep entered",
        lambda s, live, dead: every(inside(s), live >= 0, dead >= 0, live + dead >= 1, live <= s.guest, dead <= s.guest_dead),
        lambda s, live, dead: s._replace(guest=s.guest - live, guest_dead=s.guest_dead - dead),
        (activation.write_local, activation.spill, stack.pop_frame, transfers.unwind, transfers.leave_wasm),
        (_up_to("guest"), _up_to("guest_dead")),
    ),
    Step(
        "fade",
        "a local has been read for the last time; the word stays",
        lambda s: every(idle(s), s.live >= 1),
        lambda s: s._replace(live=s.live - 1, dead=s.dead + 1),
        (activation.reach_safepoint,),
    ),
    Step(
        "fade-inside",
        "the same in an activation that a destructor of the sweep entered",
        lambda s: every(inside(s), s.guest >= 1),
        lambda s: s._replace(guest=s.guest - 1, guest_dead=s.guest_dead + 1),
        (activation.reach_safepoint,),
    ),
)

COLLECTION: Final = (
    Step(
        "collection-begins",
        "a collection begins; no transfer is between its two halves",
        lambda s: every(idle(s), s.window == 0),
        lambda s: s._replace(phase=WALK, touched=0),
        (collector.gc, collector.reserve, collector.gc_and_insert_slow, activations_table.table_teardown),
    ),
    Step(
        "nested-collection",
        "a destructor asks for a collection while one is under way, and nothing happens",
        inside,
        lambda s: s,
        (collector.gc,),
    ),
    Step(
        "root-found",
        "the walk finds it in a word that a stack map lists; it becomes a member of the precise set",
        lambda s: every(s.phase == WALK, s.live >= 1, s.precise == 0, s.owed == 0),
        lambda s: s._replace(precise=1, owed=1),
        (collector.scan_word, activations_table.insert_precise_stack_root),
    ),
    Step(
        "root-counted",
        "the precise set's count follows",
        lambda s: every(s.phase == WALK, s.owed == 1, s.ref_count < COUNT_MAX),
        lambda s: s._replace(ref_count=s.ref_count + 1, owed=0),
        (activations_table.insert_precise_stack_root, externref.increment_ref_count),
    ),
    Step(
        "walk-fails",
        "the walk ends before it has reached the canary",
        lambda s: every(s.phase == WALK, s.owed == 0),
        lambda s: s._replace(phase=FAILED),
        (collector.find_precise_stack_roots, collector.gc),
    ),
    Step(
        "root-discarded",
        "after a walk that failed, it is taken out of the precise set",
        lambda s: every(s.phase == FAILED, s.precise == 1),
        lambda s: s._replace(precise=0, carried=1),
        (activations_table.discard_precise_stack_roots,),
    ),
    Step(
        "discarded-root-given-back",
        "and its count is given back",
        lambda s: every(s.phase == FAILED, s.carried == 1),
        lambda s: s._replace(ref_count=s.ref_count - 1, carried=0),
        (activations_table.discard_precise_stack_roots, externref.decrement_ref_count),
    ),
    Step(
        "collection-abandoned",
        "the collection ends, and has released nothing",
        lambda s: every(s.phase == FAILED, s.precise == 0, s.carried == 0),
        lambda s: s._replace(phase=IDLE),
        (collector.gc,),
    ),
    Step(
        "chunk-closed",
        "the walk is complete, and found it exactly if a live local holds it; from now on the chunk counts as full",
        lambda s: every(s.phase == WALK, s.owed == 0, (s.precise == 1) == (s.live >= 1)),
        lambda s: s._replace(phase=CLOSED, room=0),
        (activations_table.sweep, collector.find_precise_stack_roots),
    ),
    Step(
        "old-set-put-aside",
        "the set is exchanged for an empty one",
        lambda s: s.phase == CLOSED,
        lambda s: s._replace(phase=SWEEP, sweeping=s.over, over=0),
        (activations_table.sweep,),
    ),
    Step(
        "slot-emptied",
        "the sweep takes it out of a slot of the chunk",
        lambda s: every(sweeping(s), s.chunk >= 1),
        lambda s: s._replace(chunk=s.chunk - 1, held=s.held + 1),
        (activations_table.sweep_slot,),
    ),
    Step(
        "member-taken",
        "the sweep takes it out of the old set",
        lambda s: every(sweeping(s), s.sweeping == 1),
        lambda s: s._replace(sweeping=0, held=s.held + 1),
        (activations_table.sweep_member,),
    ),
    Step(
        "other-destructor-begins",
        "the destructor of another object begins inside the sweep",
        lambda s: every(s.phase == SWEEP, s.life != CONDEMNED),
        lambda s: s._replace(depth=s.depth + 1),
        (externref.drop_and_dealloc,),
    ),
    Step(
        "other-destructor-ends",
        "the destructor of another object ends, by a panic or not; what it entered is left again",
        _leaves,
        lambda s: s._replace(depth=s.depth - 1),
        (externref.drop_and_dealloc,),
    ),
    Step(
        "chunk-opened",
        "every slot and the old set are empty, and no destructor is left to run: the chunk is opened again",
        lambda s, room: every(sweeping(s), s.chunk == 0, s.sweeping == 0, room >= 1),
        lambda s, room: s._replace(phase=OPENED, room=room),
        (activations_table.sweep,),
        (_any,),
    ),
    Step(
        "sets-exchanged",
        "the precise set becomes the table's; what was inserted meanwhile is yet to be merged",
        lambda s: s.phase == OPENED,
        lambda s: s._replace(phase=MERGE, over=s.precise, precise=s.over),
        (activations_table.sweep,),
    ),
    Step(
        "newcomer-taken",
        "what was inserted meanwhile is taken out of its set",
        lambda s: every(s.phase == MERGE, s.precise == 1, s.carried == 0),
        lambda s: s._replace(precise=0, carried=1),
        (activations_table.sweep,),
    ),
    Step(
        "newcomer-merged",
        "and put into the table's, its count with it",
        lambda s: every(s.phase == MERGE, s.carried == 1, s.over == 0),
        lambda s: s._replace(over=1, carried=0),
        (activations_table.sweep,),
    ),
    Step(
        "newcomer-given-back",
        "or its count is given back, since the table's set has it already",
        lambda s: every(s.phase == MERGE, s.carried == 1, s.over == 1),
        lambda s: s._replace(ref_count=s.ref_count - 1, carried=0),
        (activations_table.sweep, externref.decrement_ref_count),
    ),
    Step(
        "collection-ends",
        "the collection is complete",
        lambda s: every(s.phase == MERGE, s.precise == 0, s.carried == 0),
        lambda s: s._replace(phase=IDLE),
        (collector.gc, activations_table.sweep),
    ),
)

STEPS: Final = (*HOST, *STORAGE, *TRANSFERS, *LOCALS, *COLLECTION)
BY_NAME: Final = {step.name: step for step in STEPS}
