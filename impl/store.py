"""The life of a store: how its memory looks at first, values that own others, and how everything is given up at last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impl.activations_table import TABLE_WORDS, table_init, table_teardown
from impl.arena import CheckedMemory, alloc, initialise, raw_memory
from impl.errors import Aborted, AllocationFailed, Panicked
from impl.externref import VALUE_PTR, VTABLE_WORDS, new_with
from impl.header import (
    CODE,
    FAIL_AFTER,
    FRAME_POINTER,
    HEADER_WORDS,
    INSTANCES,
    REGISTRY,
    TABLE,
    VERDICT,
    VERDICT_ABORTED,
    VTABLES,
)
from impl.instance import move_cells, release_frame, teardown_instance
from impl.layout import layout_for
from impl.stack import BASE, KIND, SIZE, pop_frame
from impl.stack_maps import REGISTRY_WORDS, registry_clear, registry_init, write_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from impl.config import Config
    from impl.externref import Host
    from impl.header import Memory


def make_memory(config: Config, *, checked: bool) -> memoryview[int] | CheckedMemory:
    """Make the memory of a runtime in which nothing has happened.

    What lives as long as the runtime comes first, and the sets of the activations table, which move, last.

    Raises:
        AllocationFailed: a layout is too large for the pointer width.
        ArenaExhausted: the heap is too small.
        StackExhausted: the stack is too small.
    """
    for size_bytes, align_bytes, _fields in config.layouts:
        layout_for(size_bytes, align_bytes)
    words = HEADER_WORDS + config.stack_words + (config.stack_words & 1) + config.heap_words
    raw = raw_memory(words)
    mem: memoryview[int] | CheckedMemory = CheckedMemory(raw) if checked else raw
    initialise(mem, config.stack_words, words, config.quarantine)
    if config.layouts:
        mem[VTABLES] = write_row(mem, [word for layout in config.layouts for word in layout])
    if config.modules:
        mem[CODE] = write_row(mem, [write_image(mem, module) for module in config.modules])
    if config.instances:
        mem[INSTANCES] = write_row(mem, [0] * config.instances)
    mem[REGISTRY] = alloc(mem, REGISTRY_WORDS, 1)
    registry_init(mem, mem[REGISTRY])
    mem[TABLE] = alloc(mem, TABLE_WORDS, 1)
    table_init(mem, mem[TABLE], config.chunk, config.hash_seed)
    return mem


def write_row(mem: Memory, row: Sequence[int]) -> int:
    """Allocate as many words as `row` has, write them, and return their address."""
    address = alloc(mem, len(row), 1)
    for index, word in enumerate(row):
        mem[address + index] = word
    return address


def new_owning(mem: Memory, host: Host, layout: int) -> int:
    """Make a value whose fields are the references in the youngest frame, a host frame, which is popped.

    Raises:
        AllocationFailed: there is no value; the references are released.
        Panicked: the constructor panicked, or a destructor of those.
    """
    # Compiled code cannot tell one exception from another; layouts are known to be possible, so this is how.
    fails = mem[FAIL_AFTER]
    externref = 0
    try:
        externref = new_with(mem, host, mem[VTABLES] + layout * VTABLE_WORDS)
    except Exception:
        externref = 0
    if externref == 0:
        if release_frame(mem, host) != 0:
            raise Panicked("a destructor panicked after a value could not be made")
        if fails == 1:
            raise AllocationFailed("a value could not be allocated")
        raise Panicked("a constructor panicked")
    fp = mem[FRAME_POINTER]
    count = mem[fp + SIZE]
    move_cells(mem, fp - count, count, mem[externref + VALUE_PTR])
    pop_frame(mem)
    return externref


def teardown_store(mem: Memory, host: Host, instances_max: int, cells: int, capacity: int, seed: int) -> None:
    """Free all instances, empty the activations table and the registry; both are as in a new store afterwards.

    Args:
        mem: the memory.
        host: runs destructors.
        instances_max: number of words in the array of instances.
        cells: see `impl.instance.teardown_instance`.
        capacity: see `impl.activations_table.table_teardown`.
        seed: the same.

    Raises:
        Aborted: something other than the host is on the stack; nothing was changed.
        Panicked: at the end, if a destructor panicked.
    """
    if mem[mem[FRAME_POINTER] + KIND] != BASE:
        mem[VERDICT] = VERDICT_ABORTED
        raise Aborted("a store is torn down while it is in use")
    panicked = 0
    for index in range(instances_max):
        if mem[mem[INSTANCES] + index] != 0:
            panicked |= teardown_instance(mem, host, index, cells)
    try:
        table_teardown(mem, host, mem[TABLE], capacity, seed)
    except Exception:
        panicked = 1
    registry_clear(mem, mem[REGISTRY])
    if panicked != 0:
        raise Panicked("a destructor panicked while the store was torn down")
