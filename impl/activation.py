"""What compiled code does with its locals, and with globals and tables, while it borrows references.

Reading and writing a local counts nothing. Every operation that may reach a safepoint first stores its pc in the frame:
from then on the frame's stack map says what is live. A reference that is loaded from a global or a table is put into the
activations table before it is written to its local.

The youngest frame is the activation's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from impl.collector import insert_with_gc
from impl.externref import increment_ref_count
from impl.header import FRAME_POINTER, INSTANCES, REGISTRY, TABLE
from impl.instance import (
    CELLS,
    copy_table,
    elem_drop,
    element_cell,
    fill_table,
    grow_table,
    init_table,
    store_borrowed,
)
from impl.stack import RETURN_PC, SCALAR, SIZE

if TYPE_CHECKING:
    from impl.externref import Host
    from impl.header import Memory


def read_local(mem: Memory, slot: int) -> int:
    """The reference in a local, or 0; borrowed. Word 0 of the frame is a scalar, and the locals follow it."""
    fp = mem[FRAME_POINTER]
    return mem[fp - mem[fp + SIZE] + 1 + slot]


def write_local(mem: Memory, slot: int, word: int) -> None:
    """Write a borrowed reference, or a word that is none, to a local."""
    fp = mem[FRAME_POINTER]
    mem[fp - mem[fp + SIZE] + 1 + slot] = word


def local_copy(mem: Memory, source: int, target: int) -> None:
    """Copy a local to another. Counts nothing."""
    fp = mem[FRAME_POINTER]
    slots = fp - mem[fp + SIZE] + 1
    mem[slots + target] = mem[slots + source]


def spill(mem: Memory, target: int) -> None:
    """Overwrite a dead slot by something that is no reference."""
    write_local(mem, target, SCALAR)


def reach_safepoint(mem: Memory, pc: int) -> None:
    """Store the pc of the activation, whose stack map is valid from here on."""
    mem[mem[FRAME_POINTER] + RETURN_PC] = pc


def load_into_local(mem: Memory, host: Host, cell: int, target: int) -> None:
    """Clone the reference in a cell into the activations table, then borrow it for a local.

    Raises:
        Panicked: a destructor panicked in the collection that made room; the local is unchanged.
    """
    externref = mem[cell]
    if externref != 0:
        increment_ref_count(mem, externref)
        insert_with_gc(mem, host, mem[TABLE], mem[REGISTRY], externref)
    fp = mem[FRAME_POINTER]
    mem[fp - mem[fp + SIZE] + 1 + target] = externref


def global_get(mem: Memory, host: Host, pc: int, instance: int, index: int, target: int) -> None:
    """Load a global into a local.

    Raises:
        Panicked: see `load_into_local`.
    """
    mem[mem[FRAME_POINTER] + RETURN_PC] = pc
    load_into_local(mem, host, mem[mem[INSTANCES] + instance] + CELLS + index, target)


def global_set(mem: Memory, host: Host, pc: int, instance: int, index: int, source: int) -> None:
    """Store a local to a global.

    Raises:
        Panicked: the old reference's destructor panicked.
    """
    fp = mem[FRAME_POINTER]
    mem[fp + RETURN_PC] = pc
    externref = mem[fp - mem[fp + SIZE] + 1 + source]
    store_borrowed(mem, host, mem[mem[INSTANCES] + instance] + CELLS + index, externref)


def table_get_to_local(mem: Memory, host: Host, pc: int, instance: int, index: int, target: int) -> None:
    """Load a table element into a local.

    Raises:
        OutOfBounds: the table is smaller.
        Panicked: see `load_into_local`.
    """
    mem[mem[FRAME_POINTER] + RETURN_PC] = pc
    load_into_local(mem, host, element_cell(mem, instance, index), target)


def table_set_from_local(mem: Memory, host: Host, pc: int, instance: int, index: int, source: int) -> None:
    """Store a local to a table element.

    Raises:
        OutOfBounds: the table is smaller.
        Panicked: the old reference's destructor panicked.
    """
    fp = mem[FRAME_POINTER]
    mem[fp + RETURN_PC] = pc
    cell = element_cell(mem, instance, index)
    store_borrowed(mem, host, cell, mem[fp - mem[fp + SIZE] + 1 + source])


def table_grow_from_local(mem: Memory, pc: int, instance: int, delta: int, source: int, table_max: int) -> int:
    """Append elements that hold a local. See `impl.instance.grow_table`."""
    reach_safepoint(mem, pc)
    return grow_table(mem, instance, delta, read_local(mem, source), table_max)


def table_fill_from_local(mem: Memory, host: Host, pc: int, instance: int, start: int, source: int, count: int) -> None:
    """Store a local to a range of elements. See `impl.instance.fill_table`."""
    reach_safepoint(mem, pc)
    fill_table(mem, host, instance, start, read_local(mem, source), count, 0)


def table_copy_at(mem: Memory, host: Host, pc: int, to: int, from_: int, start: int, source: int, count: int) -> None:
    """See `impl.instance.copy_table`."""
    reach_safepoint(mem, pc)
    copy_table(mem, host, to, from_, start, source, count)


def table_init_at(mem: Memory, host: Host, pc: int, to: int, origin: int, start: int, source: int, count: int) -> None:
    """See `impl.instance.init_table`; `origin` is the index of the instance whose segment is read."""
    reach_safepoint(mem, pc)
    init_table(mem, host, to, origin, start, source, count)


def elem_drop_at(mem: Memory, host: Host, pc: int, instance: int) -> None:
    """See `impl.instance.elem_drop`."""
    reach_safepoint(mem, pc)
    elem_drop(mem, host, instance)
