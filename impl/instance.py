"""Globals, tables and segments own what they hold, and every store to one of them is a complete barrier.

The order of a barrier is: check bounds, load the old reference, count the new one, store it, release the old one. An
operation on a range first stores everything, and keeps the old references in a host frame meanwhile; only then does it
release them. So a destructor sees the new value in its own slot, and never a range that is half done.

If an operation fails and a destructor panics while it gives up what was moved to it, it is the panic that is raised, as
it would be in Rust.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from impl.arena import dealloc, try_alloc
from impl.errors import AllocationFailed, OutOfBounds, Panicked, RegistrationRefused
from impl.externref import drop, increment_ref_count, release_all
from impl.header import CODE, FRAME_POINTER, INSTANCES, REGISTRY
from impl.stack import HOST, SIZE, pop_frame, push_frame
from impl.stack_maps import register_stack_maps

if TYPE_CHECKING:
    from impl.externref import Host
    from impl.header import Memory

# Words of the instance struct: globals from `CELLS` on, then the words of the element segment.
MODULE: Final = 0
GLOBALS_COUNT: Final = 1
TABLE_ELEMENTS: Final = 2
TABLE_SIZE: Final = 3
SEGMENT_LENGTH: Final = 4
CELLS: Final = 5


def release_frame(mem: Memory, host: Host) -> int:
    """Release what the youngest frame, a host frame, has in flight, and pop it.

    Returns:
        1 if a destructor panicked, else 0.
    """
    fp = mem[FRAME_POINTER]
    size = mem[fp + SIZE]
    panicked = release_all(mem, host, fp - size, size)
    pop_frame(mem)
    return panicked


def store_moved(mem: Memory, host: Host, cell: int, externref: int) -> None:
    """Store a reference whose count the caller gives away, and release the old one.

    Raises:
        Panicked: the old reference's destructor panicked.
    """
    old = mem[cell]
    mem[cell] = externref
    if old != 0:
        drop(mem, host, old)


def store_borrowed(mem: Memory, host: Host, cell: int, externref: int) -> None:
    """Store a reference that the caller only borrows, and release the old one.

    Raises:
        Panicked: the old reference's destructor panicked.
    """
    old = mem[cell]
    if externref != 0:
        increment_ref_count(mem, externref)
    mem[cell] = externref
    if old != 0:
        drop(mem, host, old)


def load_cloned(mem: Memory, cell: int) -> int:
    """A clone of the reference in a cell, or 0."""
    externref = mem[cell]
    if externref != 0:
        increment_ref_count(mem, externref)
    return externref


def global_cell(mem: Memory, instance: int, index: int) -> int:
    """Address of a global. Validation has checked the index."""
    return mem[mem[INSTANCES] + instance] + CELLS + index


def element_cell(mem: Memory, instance: int, index: int) -> int:
    """Address of a table element.

    Raises:
        OutOfBounds: the table is smaller.
    """
    address = mem[mem[INSTANCES] + instance]
    if index >= mem[address + TABLE_SIZE]:
        raise OutOfBounds("a table element is out of bounds")
    return mem[address + TABLE_ELEMENTS] + index


def host_set_element(mem: Memory, host: Host, instance: int, index: int, externref: int) -> None:
    """Store a moved reference into a table element.

    Raises:
        OutOfBounds: the table is smaller; the reference is released.
        Panicked: a destructor panicked.
    """
    address = mem[mem[INSTANCES] + instance]
    if index < mem[address + TABLE_SIZE]:
        store_moved(mem, host, mem[address + TABLE_ELEMENTS] + index, externref)
    else:
        if externref != 0:
            drop(mem, host, externref)
        raise OutOfBounds("a table element is out of bounds")


def grow_table(mem: Memory, instance: int, delta: int, externref: int, table_max: int) -> int:
    """Append `delta` elements that hold a borrowed reference.

    Args:
        mem: the memory.
        instance: index of the instance.
        delta: number of new elements.
        externref: what they hold, or 0.
        table_max: most elements that a table may have.

    Returns:
        The old size, or -1 if the table would be too large or cannot be reallocated; then nothing was changed.
    """
    address = mem[mem[INSTANCES] + instance]
    size = mem[address + TABLE_SIZE]
    if size + delta > table_max:
        return -1
    if delta == 0:
        return size
    try:
        elements = try_alloc(mem, size + delta, 1)
    except Exception:
        return -1
    old = mem[address + TABLE_ELEMENTS]
    for index in range(size):
        mem[elements + index] = mem[old + index]
    for index in range(size, size + delta):
        if externref != 0:
            increment_ref_count(mem, externref)
        mem[elements + index] = externref
    mem[address + TABLE_ELEMENTS] = elements
    mem[address + TABLE_SIZE] = size + delta
    if size != 0:
        dealloc(mem, old, size, 1)
    return size


def host_grow_table(mem: Memory, host: Host, instance: int, delta: int, externref: int, table_max: int) -> int:
    """Append `delta` elements that hold a moved reference. See `grow_table`.

    Raises:
        Panicked: the table could not grow, or by nothing, and the reference's destructor panicked.
    """
    size = grow_table(mem, instance, delta, externref, table_max)
    if externref != 0:
        drop(mem, host, externref)
    return size


def fill_table(mem: Memory, host: Host, instance: int, start: int, externref: int, count: int, moved: int) -> None:
    """Store one reference into a range of table elements.

    Args:
        mem: the memory.
        host: runs the destructors of what was there.
        instance: index of the instance.
        start: first element.
        externref: the reference, or 0.
        count: number of elements.
        moved: 1 if the caller gives its own count away, 0 if it only borrows the reference.

    Raises:
        OutOfBounds: the table ends before the range does; nothing was changed, a moved reference is released.
        Panicked: a destructor panicked.
    """
    address = mem[mem[INSTANCES] + instance]
    if start + count > mem[address + TABLE_SIZE]:
        if moved != 0 and externref != 0:
            drop(mem, host, externref)
        raise OutOfBounds("a table range is out of bounds")
    kept = push_frame(mem, HOST, 0, moved + count, 0)
    if moved != 0:
        # The caller's own count goes first: the elements have theirs, and no destructor may find one too many.
        mem[kept] = externref
        kept += 1
    first = mem[address + TABLE_ELEMENTS] + start
    for index in range(count):
        old = mem[first + index]
        if externref != 0:
            increment_ref_count(mem, externref)
        mem[first + index] = externref
        mem[kept + index] = old
    if release_frame(mem, host) != 0:
        raise Panicked("a destructor panicked in a table fill")


def replace_step(mem: Memory, target: int, source: int, kept: int) -> None:
    """Store a clone of one cell into another, and keep the old reference in flight."""
    old = mem[target]
    externref = mem[source]
    if externref != 0:
        increment_ref_count(mem, externref)
    mem[target] = externref
    mem[kept] = old


def replace_range(mem: Memory, host: Host, target: int, source: int, count: int) -> None:
    """Store clones of `count` cells from address `source` to address `target`; the ranges may overlap.

    Raises:
        Panicked: a destructor of what was there panicked.
    """
    kept = push_frame(mem, HOST, 0, count, 0)
    if target <= source:
        for index in range(count):
            replace_step(mem, target + index, source + index, kept + index)
    else:
        for index in range(count - 1, -1, -1):
            replace_step(mem, target + index, source + index, kept + index)
    if release_frame(mem, host) != 0:
        raise Panicked("a destructor panicked in a bulk operation")


def copy_table(mem: Memory, host: Host, to: int, from_: int, start: int, source: int, count: int) -> None:
    """Copy a range of one table's elements to another table, or within one.

    Args:
        mem: the memory.
        host: runs the destructors of what was there.
        to: index of the instance whose table is written.
        from_: index of the instance whose table is read.
        start: first element written.
        source: first element read.
        count: number of elements.

    Raises:
        OutOfBounds: either table ends before its range does; nothing was changed.
        Panicked: a destructor panicked.
    """
    instances = mem[INSTANCES]
    target = mem[instances + to]
    origin = mem[instances + from_]
    if start + count > mem[target + TABLE_SIZE] or source + count > mem[origin + TABLE_SIZE]:
        raise OutOfBounds("a table range is out of bounds")
    replace_range(mem, host, mem[target + TABLE_ELEMENTS] + start, mem[origin + TABLE_ELEMENTS] + source, count)


def init_table(mem: Memory, host: Host, to: int, segment_instance: int, start: int, source: int, count: int) -> None:
    """Copy a range of an instance's element segment to a table. A dropped segment has length zero.

    Args:
        mem: the memory.
        host: runs the destructors of what was there.
        to: index of the instance whose table is written.
        segment_instance: index of the instance whose segment is read.
        start: first element written.
        source: first word of the segment read.
        count: number of elements.

    Raises:
        OutOfBounds: the table or the segment ends before its range does; nothing was changed.
        Panicked: a destructor panicked.
    """
    instances = mem[INSTANCES]
    target = mem[instances + to]
    origin = mem[instances + segment_instance]
    if start + count > mem[target + TABLE_SIZE] or source + count > mem[origin + SEGMENT_LENGTH]:
        raise OutOfBounds("a table or segment range is out of bounds")
    segment = origin + CELLS + mem[origin + GLOBALS_COUNT]
    replace_range(mem, host, mem[target + TABLE_ELEMENTS] + start, segment + source, count)


def move_cells(mem: Memory, first: int, count: int, kept: int) -> None:
    """Move the references of `count` cells from `first` on to `kept`, and leave null behind."""
    for index in range(count):
        mem[kept + index] = mem[first + index]
        mem[first + index] = 0


def elem_drop(mem: Memory, host: Host, instance: int) -> None:
    """Empty an instance's element segment. Doing it again changes nothing.

    Raises:
        Panicked: a destructor panicked.
    """
    address = mem[mem[INSTANCES] + instance]
    length = mem[address + SEGMENT_LENGTH]
    if length == 0:
        return
    kept = push_frame(mem, HOST, 0, length, 0)
    move_cells(mem, address + CELLS + mem[address + GLOBALS_COUNT], length, kept)
    mem[address + SEGMENT_LENGTH] = 0
    if release_frame(mem, host) != 0:
        raise Panicked("a destructor panicked in elem.drop")


def build(mem: Memory, host: Host, module: int, initial: int, globals_count: int, segment: int, mask: int, size: int) -> int:
    """Allocate an instance and give it its first references.

    Every cell is initialised before the next allocation can fail, so that giving up is the same as tearing down.

    Args:
        mem: the memory.
        host: runs destructors if an allocation fails.
        module: index of the module.
        initial: moved reference that global 0 is initialised with, or 0. Not 0 only if there is a global.
        globals_count: number of globals; all but the first begin as null.
        segment: length of the element segment.
        mask: bit `k` says that element `k` of the segment is a clone of `initial`; the others are null.
        size: first size of the table, whose elements begin as null.

    Returns:
        The address of the instance struct.

    Raises:
        AllocationFailed: there is no instance, and `initial` is released.
        Panicked: the same, and its destructor panicked.
    """
    cells = globals_count + segment
    address = 0
    try:
        address = try_alloc(mem, CELLS + cells, 1)
    except Exception:
        address = 0
    if address == 0:
        if initial != 0:
            drop(mem, host, initial)
        raise AllocationFailed("an instance could not be allocated")
    mem[address + MODULE] = module
    mem[address + GLOBALS_COUNT] = globals_count
    mem[address + TABLE_ELEMENTS] = 0
    mem[address + TABLE_SIZE] = 0
    mem[address + SEGMENT_LENGTH] = segment
    for cell in range(address + CELLS, address + CELLS + cells):
        mem[cell] = 0
    if globals_count != 0:
        mem[address + CELLS] = initial
    if initial != 0:
        for index in range(segment):
            if (mask >> index) & 1 != 0:
                increment_ref_count(mem, initial)
                mem[address + CELLS + globals_count + index] = initial
    if size != 0:
        elements = 0
        try:
            elements = try_alloc(mem, size, 1)
        except Exception:
            elements = 0
        if elements == 0:
            if dismantle(mem, host, address, cells) != 0:
                raise Panicked("a destructor panicked after a failed instantiation")
            raise AllocationFailed("a table could not be allocated")
        for cell in range(elements, elements + size):
            mem[cell] = 0
        mem[address + TABLE_ELEMENTS] = elements
        mem[address + TABLE_SIZE] = size
    return address


def dismantle(mem: Memory, host: Host, address: int, cells: int) -> int:
    """Free an instance and its table, then release everything that they held.

    Args:
        mem: the memory.
        host: runs destructors.
        address: address of the instance struct, which is no longer listed among the instances.
        cells: number of its globals and segment words, dropped ones included.

    Returns:
        1 if a destructor panicked, else 0.
    """
    size = mem[address + TABLE_SIZE]
    elements = mem[address + TABLE_ELEMENTS]
    kept = push_frame(mem, HOST, 0, cells + size, 0)
    move_cells(mem, address + CELLS, cells, kept)
    move_cells(mem, elements, size, kept + cells)
    dealloc(mem, address, CELLS + cells, 1)
    if size != 0:
        dealloc(mem, elements, size, 1)
    return release_frame(mem, host)


def instantiate(
    mem: Memory,
    host: Host,
    instance: int,
    module: int,
    initial: int,
    globals_count: int,
    segment: int,
    mask: int,
    size: int,
    active: int,
) -> None:
    """Register a module's stack maps and make an instance of it. See `build` for the arguments.

    Args:
        mem: the memory.
        host: runs destructors if it fails.
        instance: index of the instance; it must be free.
        module: index of the module.
        initial: moved.
        globals_count: see `build`.
        segment: see `build`.
        mask: see `build`.
        size: see `build`.
        active: 1 if the segment is copied to the start of the table, which must have room, and then dropped.

    Raises:
        RegistrationRefused: the module's stack maps contradict others.
        AllocationFailed: an allocation failed.
        Panicked: one of these, and a destructor panicked.
    """
    refused = 0
    try:
        register_stack_maps(mem, mem[REGISTRY], mem[mem[CODE] + module])
    except Exception:
        refused = 1
    if refused != 0:
        if initial != 0:
            drop(mem, host, initial)
        raise RegistrationRefused("a module cannot be instantiated: its stack maps contradict others")
    mem[mem[INSTANCES] + instance] = build(mem, host, module, initial, globals_count, segment, mask, size)
    if active != 0:
        init_table(mem, host, instance, instance, 0, 0, segment)
        elem_drop(mem, host, instance)


def teardown_instance(mem: Memory, host: Host, instance: int, cells: int) -> int:
    """Free an instance and release what it held. No activation of it may be on the stack.

    Args:
        mem: the memory.
        host: runs destructors.
        instance: index of the instance.
        cells: number of its globals and segment words.

    Returns:
        1 if a destructor panicked, else 0.
    """
    entry = mem[INSTANCES] + instance
    address = mem[entry]
    mem[entry] = 0
    return dismantle(mem, host, address, cells)
