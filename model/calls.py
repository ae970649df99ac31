"""What crosses between contexts: arguments and results, borrowed inside Wasm, moved in, cloned out."""

from __future__ import annotations

from model.books import SURELY, collecting, defer, hold, see, top_book
from model.contexts import pop, push_wasm, settle, top_slot
from model.limits import BUSY, CONTEXT_KIND, CONTEXT_WORDS, DEPTH, UNDER_WAY, Limits
from model.ops import NULL, Context, Row
from model.properties import Sometimes
from model.state import State, dead_mask, push_context
from model.storage import root, unroot
from model.words import lowest


def call_wasm(state: State, limits: Limits, row: Row) -> int:
    if collecting(state, limits) == SURELY:
        see(state, Sometimes.DESTRUCTOR_REENTERED_WASM_IN_SWEEP)
    state[top_book(state, limits) + BUSY] = row[1] + 1
    hold_args(state, limits, row[3:])
    return 0


def hold_args(state: State, limits: Limits, args: Row) -> None:
    """Take references from the host into the hands of the transfer."""
    for name in args:
        unroot(state, limits, name)
        if name >= 0:
            if nested_in_sweep(state, limits):
                see(state, Sometimes.DESTRUCTOR_INSERTED_IN_SWEEP)
            hold(state, limits, name)
            defer(state, limits, name)


def any_reference(names: Row) -> bool:
    """Say whether one of the names is no null."""
    for name in names:
        if name >= 0:
            return True
    return False


def nested_in_sweep(state: State, limits: Limits) -> bool:
    """Say whether a destructor that a sweep runs asked for this operation."""
    return state[UNDER_WAY] > 1 and collecting(state, limits) == SURELY


def called_wasm(state: State, limits: Limits, row: Row, _result: int) -> None:
    slot = push_wasm(state, limits, row[1], row[2])
    for name in row[3:]:
        state[slot] = name
        slot += 1


def return_import(state: State, limits: Limits, row: Row) -> int:
    if any_reference(row[1:]):
        see(state, Sometimes.IMPORT_RETURNED_REFERENCE)
    hold_args(state, limits, row[1:])
    return 0


def returned_import(state: State, limits: Limits, row: Row, _result: int) -> None:
    pop(state, limits)
    slot, vacant = top_slot(state, limits), dead_mask(state, limits, state[DEPTH] - 1)
    for name in row[1:]:
        state[slot + lowest(vacant)] = name
        vacant &= vacant - 1


def call_function(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    callee = push_wasm(state, limits, row[1], row[2])
    for index in row[4:]:
        state[callee] = state[slot + index]
        callee += 1
    settle(state, limits, slot, row[3])
    return 0


def call_import(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    for index in row[2:]:
        root(state, limits, state[slot + index])
    settle(state, limits, slot, row[1])
    push_context(state, limits, Context.IMPORT, 0, 0, 0)
    return 0


def return_(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    caller = state[DEPTH] - 2
    if state[limits.shape.contexts + caller * CONTEXT_WORDS + CONTEXT_KIND] == Context.WASM:
        target, vacant = slot - limits.slots, dead_mask(state, limits, caller)
        for index in row[1:]:
            state[target + lowest(vacant)] = state[slot + index]
            vacant &= vacant - 1
    else:
        for index in row[1:]:
            root(state, limits, state[slot + index])
    pop(state, limits)
    return 0


def local_copy(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    state[slot + row[2]] = state[slot + row[1]]
    return 0


def local_null(state: State, limits: Limits, row: Row) -> int:
    state[top_slot(state, limits) + row[1]] = NULL
    return 0
