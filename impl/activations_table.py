"""The activations table over-approximates the references that Wasm may have on the stack, and a sweep makes it precise.

A table is a bump chunk that admits duplicates, a set for what did not fit or survived a collection, and two more sets
that hold something only while a collection runs. Every entry owns one count of its reference.

Insertions that may collect are the collector's: see `impl.collector`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from impl.arena import alloc
from impl.errors import Panicked
from impl.externref import decrement_ref_count, drop, increment_ref_count
from impl.hash_set import (
    BUCKETS,
    CAPACITY,
    LENGTH,
    set_free,
    set_init,
    set_insert,
    set_pop,
    set_swap,
    set_take,
)
from impl.header import SWEEP_ORDER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from impl.externref import Host
    from impl.header import Memory

# Words of the table struct. Compiled code knows the first two: see `impl.layout`.
NEXT: Final = 0
END: Final = 1
CHUNK: Final = 2
CHUNK_LENGTH: Final = 3
OVER: Final = 4
PRECISE: Final = 8
SWEEPING: Final = 12
STACK_CANARY: Final = 16
COLLECTING: Final = 17
TABLE_WORDS: Final = 18


def table_init(mem: Memory, table: int, capacity: int, seed: int) -> None:
    """Make an empty table in an uninitialised struct.

    Args:
        mem: the memory.
        table: address of `TABLE_WORDS` words.
        capacity: slots of the bump chunk, at least 1; the over-approximated and the precise set have room for as many.
        seed: seed of the sets' hash.

    Raises:
        ArenaExhausted: the arena is too small.

    Source: seed `VMExternRefActivationsTable::new`.
    """
    chunk = alloc(mem, capacity, 1)
    for slot in range(chunk, chunk + capacity):
        mem[slot] = 0
    mem[table + NEXT] = chunk
    mem[table + END] = chunk + capacity
    mem[table + CHUNK] = chunk
    mem[table + CHUNK_LENGTH] = capacity
    set_init(mem, table + OVER, capacity, seed)
    set_init(mem, table + PRECISE, capacity, seed)
    set_init(mem, table + SWEEPING, 0, seed)
    mem[table + STACK_CANARY] = 0
    mem[table + COLLECTING] = 0


def try_insert(mem: Memory, table: int, externref: int) -> int:
    """Put a reference into the bump chunk if it has room; the table takes over the caller's count.

    Returns:
        1 if it was inserted, 0 if the chunk is full and the count is still the caller's.

    Source: seed `try_insert`.
    """
    slot = mem[table + NEXT]
    if slot == mem[table + END]:
        return 0
    mem[slot] = externref
    mem[table + NEXT] = slot + 1
    return 1


def insert_slow_without_gc(mem: Memory, table: int, externref: int) -> None:
    """Put a reference into the over-approximated set; the table takes over the caller's count.

    A set has each member once and owns one count of it. So the count of a duplicate is given back, which cannot be the
    last one.

    Raises:
        ArenaExhausted: the set has to grow and cannot.

    Source: seed `gc_and_insert_slow`.
    """
    if set_insert(mem, table + OVER, externref) == 0:
        decrement_ref_count(mem, externref)


def insert_without_gc(mem: Memory, table: int, externref: int) -> None:
    """Put a reference into the chunk, or into the set if the chunk is full, and never collect.

    Transfers of several references need this: a collection between two of them would free those that are already in
    the table and not yet on any frame.

    Raises:
        ArenaExhausted: the set has to grow and cannot.
    """
    if try_insert(mem, table, externref) == 0:
        insert_slow_without_gc(mem, table, externref)


def num_filled_in_bump_chunk(mem: Memory, table: int) -> int:
    """Number of slots of the chunk below the bump finger.

    While a sweep runs the finger is at the end, so that this is the whole chunk although its slots are being emptied.

    Source: seed `num_filled_in_bump_chunk`.
    """
    return mem[table + NEXT] - mem[table + CHUNK]


def elements(mem: Memory, table: int) -> Iterator[int]:
    """Visit every entry: the over-approximated set in bucket order, then the chunk. Duplicates come as often as they are.

    Source: seed `elements`.
    """
    buckets = mem[table + OVER + BUCKETS]
    for bucket in range(buckets, buckets + mem[table + OVER + CAPACITY]):
        if mem[bucket] != 0:
            yield mem[bucket]
    for slot in range(mem[table + CHUNK], mem[table + NEXT]):
        if mem[slot] != 0:
            yield mem[slot]


def insert_precise_stack_root(mem: Memory, table: int, externref: int) -> None:
    """Note that a frame holds this reference; the precise set takes a count of its own, one per member.

    Source: seed `insert_precise_stack_root`.
    """
    if set_insert(mem, table + PRECISE, externref) != 0:
        increment_ref_count(mem, externref)


def discard_precise_stack_roots(mem: Memory, table: int) -> None:
    """Empty the precise set after a walk that failed. Each member is in the table too, so no count can reach zero.

    Source: seed `gc`, the branch that skips the sweep.
    """
    precise = table + PRECISE
    while mem[precise + LENGTH] != 0:
        decrement_ref_count(mem, set_pop(mem, precise))


def sweep_slot(mem: Memory, host: Host, slot: int) -> int:
    """Empty one slot of the chunk, then release what it held, so that a destructor never meets its own entry.

    Returns:
        1 if a destructor panicked, else 0.
    """
    externref = mem[slot]
    mem[slot] = 0
    if externref != 0:
        try:
            drop(mem, host, externref)
        except Exception:
            return 1
    return 0


def sweep_member(mem: Memory, host: Host, members: int, index: int) -> int:
    """Take a member out of a set, then release it.

    Args:
        mem: the memory.
        host: runs the destructor.
        members: address of the set.
        index: which member, in bucket order.

    Returns:
        1 if a destructor panicked, else 0.
    """
    # Number 0 is by far the most frequent, and `set_pop` remembers how far the buckets are empty.
    if index == 0:
        externref = set_pop(mem, members)
    else:
        externref = set_take(mem, members, index)
    try:
        drop(mem, host, externref)
    except Exception:
        return 1
    return 0


def sweep_set(mem: Memory, host: Host, members: int, order: int) -> int:
    """Release every member of a set in a given order.

    The order of a hash set is arbitrary, so it is a choice of the run. Mixed-radix digits of `order` are the choices
    (a Lehmer code): among n members the next one is number `order mod n`, and `order div n` chooses the rest.

    Args:
        mem: the memory.
        host: runs the destructors.
        members: address of the set.
        order: the Lehmer code; 0 is the order of the buckets.

    Returns:
        1 if a destructor panicked, else 0.
    """
    panicked = 0
    remaining = mem[members + LENGTH]
    while remaining != 0:
        # Division is right here alone: the radixes of a permutation are no powers of two, and no proof depends on
        # which permutation is taken.
        index = 0
        if order != 0:
            index = order % remaining
            order = order // remaining
        if sweep_member(mem, host, members, index) != 0:
            panicked = 1
        remaining -= 1
    return panicked


def sweep(mem: Memory, host: Host, table: int) -> int:
    """Release all entries of the table and replace them by the precise set and by what was inserted meanwhile.

    Destructors run here and may pass references to Wasm again. While they do, the chunk counts as full, so that such
    references go to the over-approximated set, which is a fresh one: the old set is out of reach until it is empty.
    The chunk is opened again only when no destructor is left to run.

    Returns:
        1 if a destructor panicked, else 0. A panic stops nothing.

    Source: seed `sweep`, with the old set released before the new one is touched, and panics contained.
    """
    order = mem[SWEEP_ORDER]
    over = table + OVER
    precise = table + PRECISE
    sweeping = table + SWEEPING
    start = mem[table + CHUNK]
    filled = mem[table + NEXT]
    mem[table + NEXT] = mem[table + END]
    if mem[over + LENGTH] != 0:
        set_swap(mem, over, sweeping)
    panicked = 0
    for slot in range(start, filled):
        if sweep_slot(mem, host, slot) != 0:
            panicked = 1
    if sweep_set(mem, host, sweeping, order) != 0:
        panicked = 1
    mem[table + NEXT] = start
    set_swap(mem, over, precise)
    while mem[precise + LENGTH] != 0:
        externref = set_pop(mem, precise)
        if set_insert(mem, over, externref) == 0:
            decrement_ref_count(mem, externref)
    if mem[sweeping + CAPACITY] != 0:
        # Whichever allocation is larger serves the next collection.
        if mem[sweeping + CAPACITY] > mem[precise + CAPACITY]:
            set_swap(mem, sweeping, precise)
        set_free(mem, sweeping)
    return panicked


def table_teardown(mem: Memory, host: Host, table: int, capacity: int, seed: int) -> None:
    """Release every entry and make the table a fresh one in place.

    Nothing of Wasm may be on the stack, and destructors cannot call it any more: nothing is inserted meanwhile.

    Args:
        mem: the memory.
        host: runs the destructors.
        table: address of the table.
        capacity: members that the sets have room for, as given to `table_init`.
        seed: seed of the sets' hash.

    Raises:
        Panicked: at the end, if a destructor panicked.
        ArenaExhausted: the arena is too small.
    """
    mem[table + COLLECTING] = 1
    try:
        panicked = sweep(mem, host, table)
    finally:
        mem[table + COLLECTING] = 0
    # Both sets are freed before either is made again, so that they lie where those of a new table lie.
    set_free(mem, table + OVER)
    set_free(mem, table + PRECISE)
    set_init(mem, table + OVER, capacity, seed)
    set_init(mem, table + PRECISE, capacity, seed)
    if panicked != 0:
        raise Panicked("a destructor panicked while the store was torn down")


def set_stack_canary(mem: Memory, table: int, canary: int) -> int:
    """Remember the oldest host frame that called Wasm. Calls that are nested in it change nothing.

    Args:
        mem: the memory.
        table: address of the table.
        canary: address of a word in that frame.

    Returns:
        1 if the caller's guard has to reset the canary when its call is over, else 0.

    Source: seed `set_stack_canary`.
    """
    if mem[table + STACK_CANARY] != 0:
        return 0
    mem[table + STACK_CANARY] = canary
    return 1


def reset_stack_canary(mem: Memory, table: int) -> None:
    """Forget the canary: the last Wasm frame has left the stack.

    Source: seed `AutoResetCanary`.
    """
    mem[table + STACK_CANARY] = 0


class VMExternRefActivationsTable:
    """A handle on an activations table: a memory, the host that runs destructors, and two addresses.

    Args:
        mem: the memory.
        host: runs destructors.
        table: address of the table struct.
        registry: address of the registry struct that collections look stack maps up in.
    """

    __slots__ = ("_host", "_mem", "_registry", "_table")

    def __init__(self, mem: Memory, host: Host, table: int, registry: int) -> None:
        self._mem = mem
        self._host = host
        self._table = table
        self._registry = registry

    def try_insert(self, externref: int) -> bool:
        """See `try_insert`."""
        return try_insert(self._mem, self._table, externref) != 0

    def insert_without_gc(self, externref: int) -> None:
        """See `insert_without_gc`."""
        insert_without_gc(self._mem, self._table, externref)

    def insert_with_gc(self, externref: int) -> None:
        """See `impl.collector.insert_with_gc`."""
        from impl.collector import insert_with_gc  # the collector imports this module

        insert_with_gc(self._mem, self._host, self._table, self._registry, externref)

    def reserve(self, count: int) -> None:
        """See `impl.collector.reserve`."""
        from impl.collector import reserve  # the collector imports this module

        reserve(self._mem, self._host, self._table, self._registry, count)

    def gc(self) -> None:
        """See `impl.collector.gc`."""
        from impl.collector import gc  # the collector imports this module

        gc(self._mem, self._host, self._table, self._registry)

    def num_filled_in_bump_chunk(self) -> int:
        """See `num_filled_in_bump_chunk`."""
        return num_filled_in_bump_chunk(self._mem, self._table)

    def elements(self) -> list[int]:
        """See `elements`."""
        return list(elements(self._mem, self._table))

    def __contains__(self, externref: int) -> bool:
        """Whether the table has an entry for this reference. Linear in the number of entries."""
        return externref in elements(self._mem, self._table)
