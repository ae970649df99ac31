"""What host operations do to values, instances, the store and the registry."""

from __future__ import annotations

from model.answers import ALLOCATION_FAILED, RAISED, REFUSED
from model.books import SURELY, doom, expect_collection, release, see, top_book, touch
from model.contexts import top_at
from model.limits import (
    CLOSED,
    COLLECTS,
    CONTEXT_OF,
    CONTEXT_WORDS,
    DEFERRED,
    DEPTH,
    DOOMED,
    DYING,
    FAIL,
    INSTANCES,
    LEAKED,
    LIVE,
    REGISTERED,
    RELEASED,
    Limits,
)
from model.ops import NULL, Context, Kind, Row
from model.properties import Sometimes
from model.registry import accepted
from model.state import State, dead_mask
from model.storage import cell_of_global, clear, let_go, root, store, unroot
from model.words import bits, lowest, popcount


def free_name(state: State, limits: Limits) -> int:
    """Return the smallest name that no value has."""
    return lowest(limits.shape.names & ~(state[LIVE] | state[DYING]))


def free_instance(state: State) -> int:
    """Return the smallest number that no instance has."""
    return lowest(~state[INSTANCES])


def new(state: State, limits: Limits, row: Row) -> int:
    for name in row[2:]:
        unroot(state, limits, name)
    if state[FAIL] == 1 or row[0] == Kind.NEW_RAISING:
        for name in row[2:]:
            release(state, limits, name)
        failed = state[FAIL] == 1
        see(state, Sometimes.ALLOCATION_FAILED if failed else Sometimes.CONSTRUCTOR_RAISED)
        return ALLOCATION_FAILED if failed else RAISED
    new = free_name(state, limits)
    state[LIVE] |= 1 << new
    cell = limits.shape.fields + new * limits.fields
    for name in row[2:]:
        state[cell] = name
        cell += 1
    root(state, limits, new)
    return new


def clone(state: State, limits: Limits, row: Row) -> int:
    root(state, limits, row[1])
    return row[1]


def drop(state: State, limits: Limits, row: Row) -> int:
    unroot(state, limits, row[1])
    release(state, limits, row[1])
    return 0


def forget(state: State, limits: Limits, row: Row) -> int:
    unroot(state, limits, row[1])
    state[LEAKED] |= 1 << row[1]
    return 0


def get_field(state: State, limits: Limits, row: Row) -> int:
    dying = state[top_at(state, limits) + CONTEXT_OF]
    name = state[limits.shape.fields + dying * limits.fields + row[1]]
    root(state, limits, name)
    touch(state, limits, name)
    return name


def set_field(state: State, limits: Limits, row: Row) -> int:
    unroot(state, limits, row[3])
    store(state, limits, limits.shape.fields + row[1] * limits.fields + row[2], row[3])
    return 0


def gc(state: State, limits: Limits, _row: Row) -> int:
    book = top_book(state, limits)
    expect_collection(state, limits, book)
    if state[book + COLLECTS] == SURELY:
        for index in range(1, state[DEPTH]):
            if state[limits.shape.contexts + index * CONTEXT_WORDS] == Context.WASM:
                dead = popcount(dead_mask(state, limits, index))
                if dead:
                    see(state, Sometimes.DEAD_SLOT_AT_COLLECTION)
                if dead == limits.slots:
                    see(state, Sometimes.UNMAPPED_SAFEPOINT_WALKED)
    return 0


def register(state: State, limits: Limits, row: Row) -> int:
    return take_in(state, limits, row[1])


def take_in(state: State, limits: Limits, module: int) -> int:
    """Register a module's stack maps; return 0 or REFUSED."""
    if not accepted(limits, state[REGISTERED], module):
        see(state, Sometimes.REGISTRATION_REFUSED)
        return REFUSED
    state[REGISTERED] |= 1 << module
    return 0


def initial_table_size(limits: Limits, active: int) -> int:
    """Return how many elements a new instance's table has."""
    return limits.segment if active else min(1, limits.table)


def instantiate(state: State, limits: Limits, row: Row) -> int:
    shape = limits.shape
    module, initial, segment_mask, active = row[1], row[2], row[3], row[4]
    imported = initial >= limits.objects
    name = state[cell_of_global(limits, initial - limits.objects, 0)] if imported else initial
    if not imported:
        unroot(state, limits, name)
    result = 0 if state[REGISTERED] >> module & 1 else take_in(state, limits, module)
    allocations = 1 + (initial_table_size(limits, active) > 0)
    if result == 0 and 0 < state[FAIL] <= allocations:
        see(state, Sometimes.ALLOCATION_FAILED)
        if state[FAIL] > 1:
            see(state, Sometimes.INSTANCE_HALF_BUILT)
        result = ALLOCATION_FAILED
    if result < 0:
        let_go(state, limits, name)
        return result
    instance = free_instance(state)
    state[INSTANCES] |= 1 << instance
    state[shape.modules + instance] = module
    if limits.globals:
        state[cell_of_global(limits, instance, 0)] = name
    cell = shape.elements + instance * limits.table if active else shape.segments + instance * limits.segment
    for index in range(limits.segment):
        state[cell + index] = name if segment_mask >> index & 1 else NULL
    if not active:
        state[shape.segment_lengths + instance] = limits.segment
    state[shape.table_sizes + instance] = initial_table_size(limits, active)
    return instance


def dissolve(state: State, limits: Limits, instance: int) -> None:
    """Take an instance away; all that it owned is let go of."""
    shape = limits.shape
    state[INSTANCES] &= ~(1 << instance)
    clear(state, limits, shape.globals + instance * limits.globals, limits.globals)
    clear(state, limits, shape.elements + instance * limits.table, limits.table)
    clear(state, limits, shape.segments + instance * limits.segment, limits.segment)
    state[shape.table_sizes + instance] = 0
    state[shape.segment_lengths + instance] = 0
    state[shape.modules + instance] = 0


def teardown_instance(state: State, limits: Limits, row: Row) -> int:
    dissolve(state, limits, row[1])
    return 0


def teardown_store(state: State, limits: Limits, _row: Row) -> int:
    for instance in bits(state[INSTANCES]):
        dissolve(state, limits, instance)
    state[CLOSED] = 1
    state[REGISTERED] = 0
    book = top_book(state, limits)
    doom(state, limits, book)
    if state[book + DOOMED]:
        see(state, Sometimes.STORE_TORN_DOWN_WITH_VALUES)
    return 0


def closed(state: State, limits: Limits, _row: Row, _result: int) -> None:
    state[CLOSED] = 0
    # The activations table is gone: from here on owners alone keep a value alive.
    state[top_book(state, limits) + RELEASED] |= state[DEFERRED]
    state[DEFERRED] = 0
