"""What each operation does to the model: `begin` before the implementation runs, `finish` after it.

Between the two, destructors may run and nest whole operations. Whatever a destructor may see must be in the state when
`begin` returns (a store is done before the old value is released); what happens only after a collection is left to `finish`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.answers import OUT_OF_BOUNDS
from model.books import close_book, expect_collection, open_book, see, spend, top_book
from model.calls import call_function, call_import, call_wasm, called_wasm, local_copy, local_null, return_, return_import, returned_import
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
    UNDER_WAY,
    Limits,
)
from model.ops import BY_KIND, NULL, Context, Kind, Row, by_kind
from model.properties import Sometimes
from model.state import State, Violation, bits, kept_by, mask_of
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
        if state[FULL] and kind in INSERTS and INSERTS[kind](state, limits, row):
            # Only what finds no room may collect, and it must.
            result = BEGIN[kind](state, limits, row)
            expect_collection(state, limits, book)
            return result
    return BEGIN[kind](state, limits, row)


def finish(state: State, limits: Limits, row: Row, result: int, *, panicked: bool) -> int:
    """Apply the rest of an operation; return how many calls from host to Wasm were unwound.

    Raises:
        Violation: something that must be dead is not.
    """
    kind = row[0]
    if result >= NULL and (not panicked or kind == _TEARDOWN_STORE):
        after = FINISH[kind]
        if after is not None:
            after(state, limits, row, result)
    if CAN_RELEASE[kind]:
        close_book(state, limits)
    if (state[CUT] or state[FAIL]) and kind not in ENVIRONMENT:
        state[CUT] = state[FAIL] = 0
    if result == OUT_OF_BOUNDS:
        see(state, Sometimes.OUT_OF_BOUNDS)
        if BY_KIND[kind].contexts[0] == Context.WASM and not panicked:
            return unwind_trap(state, limits)
    if kind == _PANIC or (panicked and BY_KIND[kind].unwinds_on_panic):
        return unwind_panic(state, limits)
    if kind == _TRAP:
        return unwind_trap(state, limits)
    return 0


def expects_panic(state: State, limits: Limits) -> bool:
    """Say whether a destructor has panicked inside the operation under way, so that it must raise."""
    return bool(state[UNDER_WAY]) and bool(state[top_book(state, limits) + PANICKED])


def _arm(word: int, offset: int) -> Callable[[State, Limits, Row], int]:
    def arm(state: State, _limits: Limits, row: Row) -> int:
        state[word] = row[1] + offset
        return 0

    return arm


def _quiet(_state: State, _limits: Limits, _row: Row) -> int:
    return 0


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
    Kind.CUT_WALK: _arm(CUT, 1),
    Kind.FAIL_ALLOCATION: _arm(FAIL, 1),
    Kind.SWEEP_ORDER: _arm(ORDER, 0),
}
BEGIN: Final = by_kind(_BEGIN, "model.step.BEGIN")

FINISH: Final = [
    {
        Kind.CALL_WASM: called_wasm,
        Kind.RETURN_IMPORT: returned_import,
        Kind.GLOBAL_GET: write_target,
        Kind.TABLE_GET: write_target,
        Kind.TEARDOWN_STORE: closed,
    }.get(kind)
    for kind in Kind
]
INSERTS: Final[dict[int, Callable[[State, Limits, Row], bool]]] = {
    Kind.CALL_WASM: lambda _s, _l, row: any(name >= 0 for name in row[3:]),
    Kind.RETURN_IMPORT: lambda _s, _l, row: any(name >= 0 for name in row[1:]),
    Kind.GLOBAL_GET: lambda s, limits, row: s[cell_of_global(limits, row[1], row[2])] >= 0,
    Kind.TABLE_GET: lambda s, limits, row: (cell := element(s, limits, row[1], row[2])) >= 0 and s[cell] >= 0,
}
"""Whether an operation has anything to insert; without that, it cannot collect."""
# Looking a member of an enumeration up costs more than most of these steps.
_PANIC: Final = int(Kind.PANIC)
_TRAP: Final = int(Kind.TRAP)
_TEARDOWN_STORE: Final = int(Kind.TEARDOWN_STORE)
CAN_RELEASE: Final = [spec.can_release for spec in BY_KIND]
_CLOSING: Final = [spec.closing for spec in BY_KIND]
ENVIRONMENT: Final = frozenset({Kind.CUT_WALK, Kind.FAIL_ALLOCATION})


def closing_op(state: State, limits: Limits) -> Row | None:
    """Return the next operation of the finale, in which everything is let go of; None when nothing is left to do."""
    context = state[top_at(state, limits) + CONTEXT_KIND]
    if context == Context.DESTRUCTOR:
        return (Kind.END,)
    if context == Context.IMPORT:
        return (Kind.RETURN_IMPORT,)
    if context == Context.WASM:
        return (Kind.RETURN,)
    shape = limits.shape
    for name, count in enumerate(state[shape.roots : shape.fields]):
        if count:
            return (Kind.DROP, name)
    if state[INSTANCES] or state[REGISTERED] or state[DEFERRED]:
        return (Kind.TEARDOWN_STORE,)
    return None


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
            owned_by_left |= mask_of(state[first : first + limits.fields])
        if owned_by_left & cyclic == cyclic:
            break
        cyclic &= owned_by_left
    if left:
        see(state, Sometimes.CYCLE_LEFT)
    if left & ~kept_by(state, limits, cyclic):
        name = bits(left & ~kept_by(state, limits, cyclic))[0]
        message = f"value {name} is left after everything was let go of, though it was not forgotten and is in no cycle"
        raise Violation(message)
