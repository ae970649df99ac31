"""What crosses between contexts: arguments and results, borrowed inside Wasm, moved in, cloned out."""

from __future__ import annotations

from model.books import SURELY, collecting, defer, hold, see, top_book
from model.contexts import deliver, pop, push_wasm, settle, top_slot
from model.limits import BUSY, UNDER_WAY, Limits
from model.ops import NULL, Context, Row
from model.properties import Sometimes
from model.state import State, push_context
from model.storage import root, unroot


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


def nested_in_sweep(state: State, limits: Limits) -> bool:
    """Say whether a destructor that a sweep runs asked for this operation."""
    return state[UNDER_WAY] > 1 and collecting(state, limits) == SURELY


def called_wasm(state: State, limits: Limits, row: Row, _result: int) -> None:
    push_wasm(state, limits, row[1], row[2], row[3:])


def return_import(state: State, limits: Limits, row: Row) -> int:
    if any(name >= 0 for name in row[1:]):
        see(state, Sometimes.IMPORT_RETURNED_REFERENCE)
    hold_args(state, limits, row[1:])
    return 0


def returned_import(state: State, limits: Limits, row: Row, _result: int) -> None:
    pop(state, limits)
    deliver(state, limits, row[1:])


def call_function(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    args = tuple(state[slot + index] for index in row[4:])
    settle(state, limits, row[3])
    push_wasm(state, limits, row[1], row[2], args)
    return 0


def call_import(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    for index in row[2:]:
        root(state, limits, state[slot + index])
    settle(state, limits, row[1])
    push_context(state, limits, Context.IMPORT, 0, 0, 0)
    return 0


def return_(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    names = tuple(state[slot + index] for index in row[1:])
    if pop(state, limits):
        for name in names:
            root(state, limits, name)
    else:
        deliver(state, limits, names)
    return 0


def local_copy(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    state[slot + row[2]] = state[slot + row[1]]
    return 0


def local_null(state: State, limits: Limits, row: Row) -> int:
    state[top_slot(state, limits) + row[1]] = NULL
    return 0
