"""A collection finds the references on Wasm frames through stack maps and sweeps the table, or does nothing at all.

It does nothing if one is already under way, and nothing if the walk ended before the frame that holds the canary: then
some Wasm frames were not seen, and a sweep would free what they hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from impl.activations_table import (
    COLLECTING,
    END,
    NEXT,
    STACK_CANARY,
    discard_precise_stack_roots,
    insert_precise_stack_root,
    insert_slow_without_gc,
    sweep,
    try_insert,
)
from impl.errors import Panicked
from impl.externref import drop
from impl.stack import HOST, RETURN_PC, SIZE, pop_frame, push_frame, walk_step
from impl.stack_maps import BITS, lookup_stack_map

if TYPE_CHECKING:
    from impl.externref import Host
    from impl.header import Memory


def scan_word(mem: Memory, table: int, address: int) -> None:
    """Take one word of a frame that a stack map lists: a root unless it is null."""
    externref = mem[address]
    if externref != 0:
        insert_precise_stack_root(mem, table, externref)


def scan_frame(mem: Memory, table: int, entry: int, sp: int) -> None:
    """Take every word of a frame that its stack map lists. Bit 0 is the lowest word, the one at `sp`."""
    bits = mem[entry + BITS]
    address = sp
    while bits != 0:
        if bits & 1 != 0:
            scan_word(mem, table, address)
        bits >>= 1
        address += 1


def walk_frame(mem: Memory, table: int, registry: int, fp: int) -> int:
    """Scan one frame of the backtrace, if its pc is a safepoint with a map.

    The walk knows nothing of a frame but its pc and its stack pointer, as an unwinder.

    Returns:
        The frame's stack pointer.
    """
    sp = fp - mem[fp + SIZE]
    pc = mem[fp + RETURN_PC]
    # Host frames have pc 0 here, which is in no module.
    if pc != 0:
        entry = lookup_stack_map(mem, registry, pc)
        if entry != 0:
            scan_frame(mem, table, entry, sp)
    return sp


def find_precise_stack_roots(mem: Memory, table: int, registry: int, canary: int) -> int:
    """Walk the stack from the youngest frame to the one that holds the canary.

    The frame that holds it is the first whose stack pointer is not below it, seen from a younger frame whose stack
    pointer is not above it.

    Args:
        mem: the memory.
        table: address of the activations table; its precise set receives the roots.
        registry: address of the registry.
        canary: address of the canary.

    Returns:
        1 if the canary was found, so that the roots are all there are; else 0.

    Source: seed `gc`.
    """
    visited = 0
    last_sp = 0
    fp = walk_step(mem, 0, 0)
    while fp != 0:
        sp = walk_frame(mem, table, registry, fp)
        if last_sp != 0 and last_sp <= canary <= sp:
            return 1
        last_sp = sp
        visited += 1
        fp = walk_step(mem, fp, visited)
    return 0


def gc(mem: Memory, host: Host, table: int, registry: int) -> None:
    """Release every entry of the table that no Wasm frame holds.

    Without a canary there is no Wasm frame on the stack, and nothing to walk for. A collection that a destructor asks
    for while one is under way does nothing: the outer one has priority.

    Args:
        mem: the memory.
        host: runs destructors.
        table: address of the activations table.
        registry: address of the registry; it must know the modules of all Wasm frames.

    Raises:
        Panicked: at the end, if a destructor panicked.

    Source: seed `gc`.
    """
    if mem[table + COLLECTING] != 0:
        return
    panicked = 0
    mem[table + COLLECTING] = 1
    try:
        canary = mem[table + STACK_CANARY]
        if canary == 0 or find_precise_stack_roots(mem, table, registry, canary) != 0:
            panicked = sweep(mem, host, table)
        else:
            discard_precise_stack_roots(mem, table)
    finally:
        mem[table + COLLECTING] = 0
    if panicked != 0:
        raise Panicked("a destructor panicked during a collection")


def insert_with_gc(mem: Memory, host: Host, table: int, registry: int, externref: int) -> None:
    """Put a reference into the table, and collect first if its chunk is full. The table takes over the caller's count.

    Raises:
        Panicked: a destructor panicked during the collection; the reference is released and not in the table.
        ArenaExhausted: the set has to grow and cannot.

    Source: seed `insert_with_gc`.
    """
    if try_insert(mem, table, externref) == 0:
        gc_and_insert_slow(mem, host, table, registry, externref)


def gc_and_insert_slow(mem: Memory, host: Host, table: int, registry: int, externref: int) -> None:
    """Collect, then put a reference into the set. It waits in a host frame: destructors run meanwhile.

    Raises:
        Panicked, ArenaExhausted: see `insert_with_gc`.

    Source: seed `gc_and_insert_slow`.
    """
    sp = push_frame(mem, HOST, 0, 1, 0)
    mem[sp] = externref
    panicked = 0
    try:
        gc(mem, host, table, registry)
    except Exception:
        panicked = 1
    pop_frame(mem)
    if panicked != 0:
        drop(mem, host, externref)
        raise Panicked("a destructor panicked while a reference was inserted")
    insert_slow_without_gc(mem, table, externref)


def reserve(mem: Memory, host: Host, table: int, registry: int, count: int) -> None:
    """Collect once, now, if the chunk has not room for so many references.

    A transfer of several references does this before the first one moves, so that none of them is in the table alone
    when a collection runs. It is no promise: what still does not fit goes into the set.

    Args:
        mem: the memory.
        host: runs destructors.
        table: address of the activations table.
        registry: address of the registry.
        count: references about to be inserted.

    Raises:
        Panicked: a destructor panicked during the collection.

    Source: mends CVE-2021-39216 of the seed.
    """
    if mem[table + END] - mem[table + NEXT] < count:
        gc(mem, host, table, registry)
