"""What storing and loading does: globals, tables, segments, and who owns what before and after."""

from __future__ import annotations

from model.answers import OUT_OF_BOUNDS
from model.books import defer, hold, release, see
from model.contexts import settle, top_slot
from model.limits import FAIL, ROOTS_TOTAL, Limits
from model.ops import NULL, Kind, Row
from model.properties import Sometimes
from model.state import State


def root(state: State, limits: Limits, name: int) -> None:
    """Give the host one more reference."""
    if name >= 0:
        state[limits.shape.roots + name] += 1
        state[ROOTS_TOTAL] += 1


def unroot(state: State, limits: Limits, name: int) -> None:
    """Take a reference out of the host's hands without letting go of it."""
    if name >= 0:
        state[limits.shape.roots + name] -= 1
        state[ROOTS_TOTAL] -= 1


def let_go(state: State, limits: Limits, name: int) -> None:
    """Release a reference that the operation had in its hands."""
    if name >= 0:
        release(state, limits, name)


def store(state: State, limits: Limits, cell: int, name: int) -> None:
    """Write a cell; whatever stood there has lost an owner."""
    old = state[cell]
    state[cell] = name
    if old >= 0:
        release(state, limits, old)


def cell_of_global(limits: Limits, instance: int, index: int) -> int:
    """Return the cell of a global."""
    return limits.shape.globals + instance * limits.globals + index


def element(state: State, limits: Limits, table: int, index: int) -> int:
    """Return the cell of a table's element, or OUT_OF_BOUNDS."""
    if index >= state[limits.shape.table_sizes + table]:
        return OUT_OF_BOUNDS
    return limits.shape.elements + table * limits.table + index


def host_global_get(state: State, limits: Limits, row: Row) -> int:
    name = state[cell_of_global(limits, row[1], row[2])]
    root(state, limits, name)
    return name


def host_global_set(state: State, limits: Limits, row: Row) -> int:
    unroot(state, limits, row[3])
    store(state, limits, cell_of_global(limits, row[1], row[2]), row[3])
    return 0


def global_get(state: State, limits: Limits, row: Row) -> int:
    name = state[cell_of_global(limits, row[1], row[2])]
    return borrow(state, limits, name, row[4])


def borrow(state: State, limits: Limits, name: int, live: int) -> int:
    """Begin to load a reference into a local: it is held until it is there, and deferred from now on."""
    settle(state, limits, top_slot(state, limits), live)
    if name >= 0:
        hold(state, limits, name)
        defer(state, limits, name)
    return name


def write_target(state: State, limits: Limits, row: Row, result: int) -> None:
    state[top_slot(state, limits) + row[3]] = result


def global_set(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    name = state[slot + row[3]]
    settle(state, limits, slot, row[4])
    store(state, limits, cell_of_global(limits, row[1], row[2]), name)
    return 0


def host_table_get(state: State, limits: Limits, row: Row) -> int:
    cell = element(state, limits, row[1], row[2])
    if cell < 0:
        return cell
    root(state, limits, state[cell])
    return state[cell]


def host_table_set(state: State, limits: Limits, row: Row) -> int:
    unroot(state, limits, row[3])
    cell = element(state, limits, row[1], row[2])
    if cell < 0:
        let_go(state, limits, row[3])
        return cell
    store(state, limits, cell, row[3])
    return 0


def table_get(state: State, limits: Limits, row: Row) -> int:
    cell = element(state, limits, row[1], row[2])
    if cell < 0:
        settle(state, limits, top_slot(state, limits), row[4])
        return cell
    return borrow(state, limits, state[cell], row[4])


def table_set(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    name = state[slot + row[3]]
    settle(state, limits, slot, row[4])
    cell = element(state, limits, row[1], row[2])
    if cell < 0:
        return cell
    store(state, limits, cell, name)
    return 0


def grow(state: State, limits: Limits, table: int, delta: int, name: int) -> int:
    """Return the old size, or -1 if the table cannot grow so far."""
    shape = limits.shape
    size = state[shape.table_sizes + table]
    if delta and size + delta <= limits.table and state[FAIL] == 1:
        see(state, Sometimes.ALLOCATION_FAILED)
        return -1
    if size + delta > limits.table:
        return -1
    first = shape.elements + table * limits.table
    for cell in range(first + size, first + size + delta):
        state[cell] = name
    state[shape.table_sizes + table] = size + delta
    return size


def host_table_grow(state: State, limits: Limits, row: Row) -> int:
    unroot(state, limits, row[3])
    size = grow(state, limits, row[1], row[2], row[3])
    if size < 0 or not row[2]:
        let_go(state, limits, row[3])
    return size


def table_grow(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    name = state[slot + row[3]]
    settle(state, limits, slot, row[4])
    return grow(state, limits, row[1], row[2], name)


def fill(state: State, limits: Limits, table: int, start: int, count: int, name: int) -> int:
    """Store to a range of a table; return 0 or OUT_OF_BOUNDS."""
    shape = limits.shape
    if start + count > state[shape.table_sizes + table]:
        return OUT_OF_BOUNDS
    first = shape.elements + table * limits.table + start
    for cell in range(first, first + count):
        store(state, limits, cell, name)
    return 0


def host_table_fill(state: State, limits: Limits, row: Row) -> int:
    unroot(state, limits, row[4])
    result = fill(state, limits, row[1], row[2], row[3], row[4])
    if result < 0 or not row[3]:
        let_go(state, limits, row[4])
    return result


def table_fill(state: State, limits: Limits, row: Row) -> int:
    slot = top_slot(state, limits)
    name = state[slot + row[4]]
    settle(state, limits, slot, row[5])
    return fill(state, limits, row[1], row[2], row[3], name)


def copy_cells(state: State, limits: Limits, row: Row, source: int, size: int) -> int:
    """Store a run of cells to a table; return 0 or OUT_OF_BOUNDS."""
    shape = limits.shape
    to, start, offset, count = row[1], row[3], row[4], row[5]
    if start + count > state[shape.table_sizes + to] or offset + count > size:
        return OUT_OF_BOUNDS
    first, origin = shape.elements + to * limits.table + start, source + offset
    for index in range(count):
        # The ranges may overlap: a cell is read before it is written.
        at = index if origin >= first else count - 1 - index
        store(state, limits, first + at, state[origin + at])
    return 0


def table_copy(state: State, limits: Limits, row: Row) -> int:
    if row[0] == Kind.TABLE_COPY:
        settle(state, limits, top_slot(state, limits), row[6])
    shape = limits.shape
    return copy_cells(state, limits, row, shape.elements + row[2] * limits.table, state[shape.table_sizes + row[2]])


def table_init(state: State, limits: Limits, row: Row) -> int:
    if row[0] == Kind.TABLE_INIT:
        settle(state, limits, top_slot(state, limits), row[6])
    shape = limits.shape
    return copy_cells(state, limits, row, shape.segments + row[2] * limits.segment, state[shape.segment_lengths + row[2]])


def clear(state: State, limits: Limits, first: int, count: int) -> None:
    """Null cells."""
    for cell in range(first, first + count):
        store(state, limits, cell, NULL)


def elem_drop(state: State, limits: Limits, row: Row) -> int:
    settle(state, limits, top_slot(state, limits), row[2])
    clear(state, limits, limits.shape.segments + row[1] * limits.segment, limits.segment)
    state[limits.shape.segment_lengths + row[1]] = 0
    return 0
