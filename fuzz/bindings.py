"""How each kind of operation is said to a runtime, and what of its answer can be compared.

A binding works out what it needs of the state before the operation, lets the model begin, calls the runtime, and
compares the answer. It returns nothing: a wrong answer is a `Divergence`.

All of it is also compiled, from this text; see `fuzz.compiled.translate` for what it may say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from impl.header import FRAME_POINTER
from impl.stack import LINK, RETURN_PC, SCALAR, SIZE
from model import code
from model.hosting import initial_table_size
from model.limits import CONTEXT_AT, CONTEXT_KIND, CONTEXT_OF, CONTEXT_WORDS, DEPTH, REGISTERED
from model.ops import DEAD, Context, Kind, Row, by_kind
from model.registry import all_safepoints, interesting_pcs
from model.words import bits

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.driver import Driver


def _pc(driver: Driver, live: int) -> int:
    """Return the pc of the top activation's safepoint for these live slots."""
    state, limits = driver.state, driver.limits
    at = limits.shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS
    module = state[limits.shape.modules + state[at + CONTEXT_OF]]
    return code.safepoint_pc(limits.slots, limits.functions, module, state[at + CONTEXT_AT], live)


def _expect_pc(driver: Driver, fp: int, pc: int) -> None:
    """Compare the return address in a frame with the safepoint that compiled code has reached.

    A walk that begins in a destructor of this very operation would read the wrong map, but seldom one that matters.
    """
    found = driver.runtime.memory[fp + RETURN_PC]
    if found != pc:
        driver.diverge(f"the activation is at the safepoint {pc:#x}, but its frame says {found:#x}")


def _expect_frame(driver: Driver) -> None:
    """Check the word of a new frame that is no reference: a map that is off by one word must meet something else than null."""
    memory = driver.runtime.memory
    fp = memory[FRAME_POINTER]
    if memory[fp - memory[fp + SIZE]] != SCALAR:
        driver.diverge("the lowest word of a new activation's frame is not the scalar")


def _entry(driver: Driver, instance: int, function: int) -> int:
    limits = driver.limits
    module = driver.state[limits.shape.modules + instance]
    return code.entry_pc(limits.slots, limits.functions, module, function)


def targets(driver: Driver, context: int, count: int) -> list[int]:
    """Return the dead slots of an activation that so many results go to: the lowest."""
    state = driver.state
    first = driver.limits.shape.slots + context * driver.limits.slots
    return [index for index in range(driver.limits.slots) if state[first + index] == DEAD][:count]


def _new(driver: Driver, row: Row) -> None:
    fields = driver.refs(row[2:])
    name = driver.begin(row)
    driver.adopt(driver.runtime.new(row[1], fields), name)


def _clone(driver: Driver, row: Row) -> None:
    driver.expect_ref(driver.begin(row), driver.runtime.clone(driver.ref(row[1])))


def _drop(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.drop(driver.ref(row[1]))


def _forget(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.forgotten[row[1]] += 1


def _raw_round_trip(driver: Driver, row: Row) -> None:
    driver.expect_ref(driver.begin(row), driver.runtime.raw_round_trip(driver.ref(row[1])))


def _get_field(driver: Driver, row: Row) -> None:
    dying = driver.dying[driver.nesting - 1]
    driver.expect_ref(driver.begin(row), driver.runtime.field(dying, row[1]))


def _set_field(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.set_field(driver.ref(row[1]), row[2], driver.ref(row[3]))


def _call_wasm(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.call_wasm(row[1], _entry(driver, row[1], row[2]), driver.refs(row[3:]))
    _expect_frame(driver)


def _host_global_get(driver: Driver, row: Row) -> None:
    driver.expect_ref(driver.begin(row), driver.runtime.host_global_get(row[1], row[2]))


def _host_global_set(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.host_global_set(row[1], row[2], driver.ref(row[3]))


def _host_table_get(driver: Driver, row: Row) -> None:
    driver.expect_ref(driver.begin(row), driver.runtime.host_table_get(row[1], row[2]))


def _host_table_set(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.host_table_set(row[1], row[2], driver.ref(row[3]))


def _host_table_grow(driver: Driver, row: Row) -> None:
    driver.expect_number(driver.begin(row), driver.runtime.host_table_grow(row[1], row[2], driver.ref(row[3])))


def _host_table_fill(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.host_table_fill(row[1], row[2], driver.ref(row[4]), row[3])


def _host_table_copy(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.host_table_copy(row[1], row[2], row[3], row[4], row[5])


def _host_table_init(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.host_table_init(row[1], row[2], row[3], row[4], row[5])


def _gc(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.gc()


def _instantiate(driver: Driver, row: Row) -> None:
    limits = driver.limits
    module, initial, active = row[1], row[2], row[4]
    free = driver.free_instance()
    # An import is read by the host and handed over, as instantiation does.
    imported = initial >= limits.objects
    ref = driver.runtime.host_global_get(initial - limits.objects, 0) if imported else driver.ref(initial)
    driver.begin(row)
    driver.runtime.instantiate(free, module, ref, row[3], initial_table_size(limits, active), active)
    check_lookups(driver, module)


def _teardown_instance(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.teardown_instance(row[1])


def _teardown_store(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.teardown_store()


def _register(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.register(row[1])
    check_lookups(driver, row[1])


def _return_import(driver: Driver, row: Row) -> None:
    slots = targets(driver, driver.state[DEPTH] - 2, len(row) - 1)
    driver.begin(row)
    driver.runtime.return_from_import(driver.refs(row[1:]), slots)


def _silent(driver: Driver, row: Row) -> None:
    driver.begin(row)


def _local_copy(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.local_copy(row[1], row[2])


def _local_null(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.local_null(row[1])


def _spill(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.spill(row[1])
    memory = driver.runtime.memory
    fp = memory[FRAME_POINTER]
    if memory[fp - memory[fp + SIZE] + 1 + row[1]] != SCALAR:
        driver.diverge(f"slot {row[1]} was spilled over, but the frame does not hold the scalar there")


def _global_get(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[4])
    driver.begin(row)
    driver.runtime.global_get(pc, row[1], row[2], row[3])
    _expect_pc(driver, driver.runtime.memory[FRAME_POINTER], pc)


def _global_set(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[4])
    driver.begin(row)
    driver.runtime.global_set(pc, row[1], row[2], row[3])
    _expect_pc(driver, driver.runtime.memory[FRAME_POINTER], pc)


def _table_get(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[4])
    driver.begin(row)
    driver.runtime.table_get(pc, row[1], row[2], row[3])
    _expect_pc(driver, driver.runtime.memory[FRAME_POINTER], pc)


def _table_set(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[4])
    driver.begin(row)
    driver.runtime.table_set(pc, row[1], row[2], row[3])
    _expect_pc(driver, driver.runtime.memory[FRAME_POINTER], pc)


def _table_grow(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[4])
    driver.expect_number(driver.begin(row), driver.runtime.table_grow(pc, row[1], row[2], row[3]))
    _expect_pc(driver, driver.runtime.memory[FRAME_POINTER], pc)


def _table_fill(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[5])
    driver.begin(row)
    driver.runtime.table_fill(pc, row[1], row[2], row[4], row[3])
    _expect_pc(driver, driver.runtime.memory[FRAME_POINTER], pc)


def _table_copy(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[6])
    driver.begin(row)
    driver.runtime.table_copy(pc, row[1], row[2], row[3], row[4], row[5])
    _expect_pc(driver, driver.runtime.memory[FRAME_POINTER], pc)


def _table_init(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[6])
    driver.begin(row)
    driver.runtime.table_init(pc, row[1], row[2], row[3], row[4], row[5])
    _expect_pc(driver, driver.runtime.memory[FRAME_POINTER], pc)


def _elem_drop(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[2])
    driver.begin(row)
    driver.runtime.elem_drop(pc, row[1])
    _expect_pc(driver, driver.runtime.memory[FRAME_POINTER], pc)


def _call_function(driver: Driver, row: Row) -> None:
    pc = _pc(driver, row[3])
    driver.begin(row)
    driver.runtime.call_function(pc, row[1], _entry(driver, row[1], row[2]), row[4:])
    memory = driver.runtime.memory
    _expect_pc(driver, memory[memory[FRAME_POINTER] + LINK], pc)
    _expect_frame(driver)


def _call_import(driver: Driver, row: Row) -> None:
    pc, names = _pc(driver, row[1]), driver.top_slots(row[2:])
    driver.begin(row)
    driver.expect_refs(names, driver.runtime.call_import(pc, row[2:]))
    memory = driver.runtime.memory
    _expect_pc(driver, memory[memory[FRAME_POINTER] + LINK], pc)


def _return(driver: Driver, row: Row) -> None:
    state, limits = driver.state, driver.limits
    caller = state[DEPTH] - 2
    if state[limits.shape.contexts + caller * CONTEXT_WORDS + CONTEXT_KIND] == Context.WASM:
        slots = targets(driver, caller, len(row) - 1)
        driver.begin(row)
        driver.runtime.return_to_wasm(row[1:], slots)
    else:
        names = driver.top_slots(row[1:])
        driver.begin(row)
        driver.expect_refs(names, driver.runtime.return_to_host(row[1:]))


def _cut_walk(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.cut_walk(row[1])


def _fail_allocation(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.fail_allocation(row[1])


def _sweep_order(driver: Driver, row: Row) -> None:
    driver.begin(row)
    driver.runtime.sweep_order(row[1])


def check_lookups(driver: Driver, module: int) -> None:
    """Compare lookups that could go wrong with a linear scan over the registered modules.

    A module has too many interesting pcs to look at all of them each time, so a window of them wanders with the run. A replay looks
    at all: what a campaign has seen must not depend on the window when operations are taken away.
    """
    limits, mask = driver.limits, driver.state[REGISTERED]
    images = code.images(limits)
    wanted = limits.lookups_cache.get(mask)
    if wanted is None:
        wanted = limits.lookups_cache[mask] = all_safepoints([images[number] for number in bits(mask)])
    lookup = driver.runtime.lookup
    for number in (module, len(driver.rows) % len(images)):
        pcs = interesting_pcs(images[number])
        window = len(pcs) if driver.thorough else WINDOW
        first = len(driver.rows) * WINDOW % len(pcs)
        for pc in (pcs + pcs)[first : first + window]:
            found = lookup(pc)
            if wanted.get(pc) != found:
                driver.diverge(f"the map of pc {pc:#x} is {wanted.get(pc)} by linear scan, but the registry finds {found}")


WINDOW: Final = 4
_BINDINGS: Final[dict[Kind, Callable[[Driver, Row], None]]] = {
    Kind.NEW: _new,
    Kind.NEW_RAISING: _new,
    Kind.CLONE: _clone,
    Kind.DROP: _drop,
    Kind.FORGET: _forget,
    Kind.RAW_ROUND_TRIP: _raw_round_trip,
    Kind.GET_FIELD: _get_field,
    Kind.SET_FIELD: _set_field,
    Kind.CALL_WASM: _call_wasm,
    Kind.HOST_GLOBAL_GET: _host_global_get,
    Kind.HOST_GLOBAL_SET: _host_global_set,
    Kind.HOST_TABLE_GET: _host_table_get,
    Kind.HOST_TABLE_SET: _host_table_set,
    Kind.HOST_TABLE_GROW: _host_table_grow,
    Kind.HOST_TABLE_FILL: _host_table_fill,
    Kind.HOST_TABLE_COPY: _host_table_copy,
    Kind.HOST_TABLE_INIT: _host_table_init,
    Kind.GC: _gc,
    Kind.INSTANTIATE: _instantiate,
    Kind.TEARDOWN_INSTANCE: _teardown_instance,
    Kind.TEARDOWN_STORE: _teardown_store,
    Kind.REGISTER: _register,
    Kind.PANIC: _silent,
    Kind.RETURN_IMPORT: _return_import,
    Kind.END: _silent,
    Kind.LOCAL_COPY: _local_copy,
    Kind.LOCAL_NULL: _local_null,
    Kind.SPILL: _spill,
    Kind.GLOBAL_GET: _global_get,
    Kind.GLOBAL_SET: _global_set,
    Kind.TABLE_GET: _table_get,
    Kind.TABLE_SET: _table_set,
    Kind.TABLE_GROW: _table_grow,
    Kind.TABLE_FILL: _table_fill,
    Kind.TABLE_COPY: _table_copy,
    Kind.TABLE_INIT: _table_init,
    Kind.ELEM_DROP: _elem_drop,
    Kind.CALL_FUNCTION: _call_function,
    Kind.CALL_IMPORT: _call_import,
    Kind.RETURN: _return,
    Kind.TRAP: _silent,
    Kind.CUT_WALK: _cut_walk,
    Kind.FAIL_ALLOCATION: _fail_allocation,
    Kind.SWEEP_ORDER: _sweep_order,
}
BINDINGS: Final = by_kind(_BINDINGS, "fuzz.bindings.BINDINGS")


def bind(driver: Driver, kind: int, row: Row) -> None:
    """Do an operation on both sides, and compare what it answers."""
    BINDINGS[kind](driver, row)
