"""What each operation does to the model: `begin` before the implementation runs, `finish` after it.

Between the two, destructors may run and nest whole operations. Whatever a destructor may see must be in the state when
`begin` returns (a store is done before the old value is released); what happens only after a collection is left to `finish`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.answers import OUT_OF_BOUNDS
from model.books import close_book, expect_collection, open_book, see, spend, top_book
from model.calls import (
    any_reference,
    call_function,
    call_import,
    call_wasm,
    called_wasm,
    local_copy,
    local_null,
    return_,
    return_import,
    returned_import,
)
from model.contexts import top_at, unwind_panic, unwind_trap
from model.hosting import (
    clone,
    closed,
    drop,
    forget,
    gc,
    get_field,
    instantiate,
    new,
    register,
    set_field,
    teardown_instance,
    teardown_store,
)
from model.limits import (
    CONTEXT_KIND,
    CUT,
    DEFERRED,
    FAIL,
    FULL,
    INNERMOST,
    INSTANCES,
    LEAKED,
    LIVE,
    ORDER,
    PANICKED,
    REGISTERED,
    ROOTS_TOTAL,
    UNDER_WAY,
    Limits,
)
from model.ops import BY_KIND, NULL, Context, Kind, Row, by_kind
from model.properties import Sometimes
from model.state import State, Violation, kept_by, mask_of, root_mask
from model.storage import (
    cell_of_global,
    elem_drop,
    element,
    global_get,
    global_set,
    host_global_get,
    host_global_set,
    host_table_fill,
    host_table_get,
    host_table_grow,
    host_table_set,
    table_copy,
    table_fill,
    table_get,
    table_grow,
    table_init,
    table_set,
    write_target,
)
from model.words import bits, lowest

if TYPE_CHECKING:
    from collections.abc import Callable


def begin(state: State, limits: Limits, row: Row) -> int:
    """Apply an operation up to the point where destructors may run; return the result to expect.

    Args:
        row: an operation that is possible now (`choose.impossible` is None).
    """
    kind = row[0]
    if state[INNERMOST] and not _CLOSING[kind]:
        spend(state, limits)
    if CAN_RELEASE[kind]:
        book = open_book(state, limits, kind)
        if state[FULL] and inserts(state, limits, row):
            # Only what finds no room may collect, and it must.
            result = _begin(kind, state, limits, row)
            expect_collection(state, limits, book)
            return result
    return _begin(kind, state, limits, row)


def _begin(kind: int, state: State, limits: Limits, row: Row) -> int:
    return BEGIN[kind](state, limits, row)


def inserts(state: State, limits: Limits, row: Row) -> bool:
    """Say whether an operation has anything to insert into the activations table; without that, it cannot collect."""
    kind = row[0]
    if kind == _GLOBAL_GET:
        return state[cell_of_global(limits, row[1], row[2])] >= 0
    if kind == _TABLE_GET:
        cell = element(state, limits, row[1], row[2])
        return cell >= 0 and state[cell] >= 0
    if kind == _CALL_WASM:
        return any_reference(row[3:])
    return kind == _RETURN_IMPORT and any_reference(row[1:])


def finish(state: State, limits: Limits, row: Row, result: int, *, panicked: bool) -> int:
    """Apply the rest of an operation; return how many calls from host to Wasm were unwound.

    Raises:
        Violation: something that must be dead is not.
    """
    kind = row[0]
    if result >= NULL and (not panicked or kind == _TEARDOWN_STORE):
        _finish(kind, state, limits, row, result)
    if CAN_RELEASE[kind]:
        close_book(state, limits)
    if (state[CUT] or state[FAIL]) and not ENVIRONMENT >> kind & 1:
        state[CUT] = state[FAIL] = 0
    if result == OUT_OF_BOUNDS:
        see(state, Sometimes.OUT_OF_BOUNDS)
        if _IN_WASM[kind] and not panicked:
            return unwind_trap(state, limits)
    if kind == _PANIC or (panicked and _UNWINDS_ON_PANIC[kind]):
        return unwind_panic(state, limits)
    if kind == _TRAP:
        return unwind_trap(state, limits)
    return 0


def _finish(kind: int, state: State, limits: Limits, row: Row, result: int) -> None:
    return FINISH[kind](state, limits, row, result)


def expects_panic(state: State, limits: Limits) -> bool:
    """Say whether a destructor has panicked inside the operation under way, so that it must raise."""
    return state[UNDER_WAY] > 0 and state[top_book(state, limits) + PANICKED] != 0


def _cut_walk(state: State, _limits: Limits, row: Row) -> int:
    state[CUT] = row[1] + 1
    return 0


def _fail_allocation(state: State, _limits: Limits, row: Row) -> int:
    state[FAIL] = row[1] + 1
    return 0


def _sweep_order(state: State, _limits: Limits, row: Row) -> int:
    state[ORDER] = row[1]
    return 0


def _quiet(_state: State, _limits: Limits, _row: Row) -> int:
    return 0


def _nothing_more(_state: State, _limits: Limits, _row: Row, _result: int) -> None:
    pass


_BEGIN: Final[dict[Kind, Callable[[State, Limits, Row], int]]] = {
    Kind.NEW: new,
    Kind.NEW_RAISING: new,
    Kind.CLONE: clone,
    Kind.DROP: drop,
    Kind.FORGET: forget,
    Kind.RAW_ROUND_TRIP: clone,
    Kind.GET_FIELD: get_field,
    Kind.SET_FIELD: set_field,
    Kind.CALL_WASM: call_wasm,
    Kind.HOST_GLOBAL_GET: host_global_get,
    Kind.HOST_GLOBAL_SET: host_global_set,
    Kind.HOST_TABLE_GET: host_table_get,
    Kind.HOST_TABLE_SET: host_table_set,
    Kind.HOST_TABLE_GROW: host_table_grow,
    Kind.HOST_TABLE_FILL: host_table_fill,
    Kind.HOST_TABLE_COPY: table_copy,
    Kind.HOST_TABLE_INIT: table_init,
    Kind.GC: gc,
    Kind.INSTANTIATE: instantiate,
    Kind.TEARDOWN_INSTANCE: teardown_instance,
    Kind.TEARDOWN_STORE: teardown_store,
    Kind.REGISTER: register,
    Kind.PANIC: _quiet,
    Kind.RETURN_IMPORT: return_import,
    Kind.END: _quiet,
    Kind.LOCAL_COPY: local_copy,
    Kind.LOCAL_NULL: local_null,
    Kind.SPILL: _quiet,
    Kind.GLOBAL_GET: global_get,
    Kind.GLOBAL_SET: global_set,
    Kind.TABLE_GET: table_get,
    Kind.TABLE_SET: table_set,
    Kind.TABLE_GROW: table_grow,
    Kind.TABLE_FILL: table_fill,
    Kind.TABLE_COPY: table_copy,
    Kind.TABLE_INIT: table_init,
    Kind.ELEM_DROP: elem_drop,
    Kind.CALL_FUNCTION: call_function,
    Kind.CALL_IMPORT: call_import,
    Kind.RETURN: return_,
    Kind.TRAP: _quiet,
    Kind.CUT_WALK: _cut_walk,
    Kind.FAIL_ALLOCATION: _fail_allocation,
    Kind.SWEEP_ORDER: _sweep_order,
}
BEGIN: Final = tuple(by_kind(_BEGIN, "model.step.BEGIN"))

_FINISH: Final[dict[Kind, Callable[[State, Limits, Row, int], None]]] = {
    Kind.CALL_WASM: called_wasm,
    Kind.RETURN_IMPORT: returned_import,
    Kind.GLOBAL_GET: write_target,
    Kind.TABLE_GET: write_target,
    Kind.TEARDOWN_STORE: closed,
}
FINISH: Final = tuple(_FINISH.get(kind, _nothing_more) for kind in Kind)
# Looking a member of an enumeration up costs more than most of these steps.
_PANIC: Final = int(Kind.PANIC)
_TRAP: Final = int(Kind.TRAP)
_TEARDOWN_STORE: Final = int(Kind.TEARDOWN_STORE)
_CALL_WASM: Final = int(Kind.CALL_WASM)
_RETURN_IMPORT: Final = int(Kind.RETURN_IMPORT)
_GLOBAL_GET: Final = int(Kind.GLOBAL_GET)
_TABLE_GET: Final = int(Kind.TABLE_GET)
CAN_RELEASE: Final = tuple(spec.can_release for spec in BY_KIND)
_CLOSING: Final = tuple(spec.closing for spec in BY_KIND)
_IN_WASM: Final = tuple(spec.contexts[0] == Context.WASM for spec in BY_KIND)
_UNWINDS_ON_PANIC: Final = tuple(spec.unwinds_on_panic for spec in BY_KIND)
ENVIRONMENT: Final = 1 << Kind.CUT_WALK | 1 << Kind.FAIL_ALLOCATION
"""Mask of the kinds that shape the next operation alone."""


def closing_kind(state: State, limits: Limits) -> int:
    """Return the kind of the next operation of the finale, in which everything is let go of; NULL when nothing is left to do.

    A `drop` of the finale has `closing_name` as its operand; the others have no operands and empty lists.
    """
    context = state[top_at(state, limits) + CONTEXT_KIND]
    if context == Context.DESTRUCTOR:
        return Kind.END
    if context == Context.IMPORT:
        return Kind.RETURN_IMPORT
    if context == Context.WASM:
        return Kind.RETURN
    if state[ROOTS_TOTAL]:
        return Kind.DROP
    if state[INSTANCES] or state[REGISTERED] or state[DEFERRED]:
        return Kind.TEARDOWN_STORE
    return NULL


def closing_name(state: State, limits: Limits) -> int:
    """Return the value that the finale drops next: the lowest that the host holds."""
    return lowest(root_mask(state, limits.shape))


def check_end(state: State, limits: Limits) -> None:
    """After the finale nothing may be left but what was forgotten, what such own, and cycles with what they own.

    Raises:
        Violation: something else is left.
    """
    left = state[LIVE] & ~kept_by(state, limits, state[LEAKED])
    cyclic = left
    while True:
        owned_by_left = 0
        for name in bits(cyclic):
            first = limits.shape.fields + name * limits.fields
            owned_by_left |= mask_of(state, first, first + limits.fields)
        if owned_by_left & cyclic == cyclic:
            break
        cyclic &= owned_by_left
    if left:
        see(state, Sometimes.CYCLE_LEFT)
    if left & ~kept_by(state, limits, cyclic):
        name = lowest(left & ~kept_by(state, limits, cyclic))
        raise Violation(f"value {name} is left after everything was let go of, though it was not forgotten and is in no cycle")
