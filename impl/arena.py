"""Memories of words over one ctypes block, and the allocator in them: lowest address first, freed words poisoned.

The free list is sorted by address, its neighbours are coalesced, and it is linked through the free blocks themselves, so it is a
function of the set of live blocks: histories that end alike leave equal bytes. A free block is ``[words, next, POISON, ...]``.
Blocks are whole granules of two words, so that every free block has room for its two fields; the padding word of a block of odd
size stays poisoned.

The allocator announces itself to the checked memory by stores to the word `DOORBELL`. A request is a kind in the low three
bits, with an alignment above it where the kind has one; a block's address and size go ahead of it, in one word that is larger
than any request. To any other memory these are stores to a word that nobody reads.

=========== =================== ============================================================
request     sent                meaning
=========== =================== ============================================================
CLOSE       last                the allocator is done: free words belong to nobody again
OPEN        first in `alloc`    the allocator may touch the words of free blocks
ALLOCATED   after the block     the block is in use now, and its words are uninitialised
DEALLOCATE  after the block     the block is about to become free; opens as well
FORMATTED   in `initialise`     the heap is one free block
=========== =================== ============================================================
"""

from __future__ import annotations

import ctypes
from typing import Final

from impl.checked import CheckedMemory
from impl.errors import AllocationFailed, ArenaExhausted
from impl.header import (
    CODE,
    DOORBELL,
    FAIL_AFTER,
    FRAME_POINTER,
    FREE_LIST,
    HEADER_WORDS,
    HEAP_END,
    HEAP_START,
    INSTANCES,
    NULL,
    POISON,
    QUARANTINE,
    QUARANTINE_ENTRIES,
    QUARANTINE_MAX,
    QUARANTINED_ADDRESS,
    QUARANTINED_ALIGN,
    QUARANTINED_SIZE,
    QUARANTINED_WORDS,
    REGISTRY,
    REQUEST_ALIGN_SHIFT,
    REQUEST_ALLOCATED,
    REQUEST_BLOCK_SHIFT,
    REQUEST_CLOSE,
    REQUEST_DEALLOCATE,
    REQUEST_FORMATTED,
    REQUEST_OPEN,
    STACK_HIGH,
    STACK_LOW,
    SWEEP_ORDER,
    TABLE,
    VERDICT,
    VERDICT_ARENA_EXHAUSTED,
    VTABLES,
    WALK_LIMIT,
    Memory,
)
from impl.stack import initialise_stack

__all__ = [
    "CODE",
    "DOORBELL",
    "FAIL_AFTER",
    "FRAME_POINTER",
    "FREE_LIST",
    "FREE_NEXT",
    "FREE_WORDS",
    "HEADER_WORDS",
    "HEAP_END",
    "HEAP_START",
    "INSTANCES",
    "NULL",
    "POISON",
    "QUARANTINE",
    "QUARANTINED_ADDRESS",
    "QUARANTINED_ALIGN",
    "QUARANTINED_SIZE",
    "QUARANTINED_WORDS",
    "QUARANTINE_ENTRIES",
    "QUARANTINE_MAX",
    "REGISTRY",
    "STACK_HIGH",
    "STACK_LOW",
    "SWEEP_ORDER",
    "TABLE",
    "VERDICT",
    "VTABLES",
    "WALK_LIMIT",
    "CheckedMemory",
    "Memory",
    "alloc",
    "block_words",
    "carve",
    "dealloc",
    "initialise",
    "join",
    "quarantine_exchange",
    "raw_memory",
    "restore",
    "snapshot",
    "try_alloc",
]

# Fields of a free block.
FREE_WORDS: Final = 0
FREE_NEXT: Final = 1

# Alignment of word 0 of a block in bytes: a cache line, and the largest alignment that the compiled reading may assume.
BASE_ALIGN_BYTES: Final = 64
WORD_BYTES: Final = 8


def raw_memory(words: int) -> memoryview[int]:
    """Make a memory of `words` zero words over one ctypes block, whose word 0 is 64-byte aligned.

    The view keeps the block alive, and so does anything made from the view.
    """
    spare = BASE_ALIGN_BYTES // WORD_BYTES
    block = (ctypes.c_uint64 * (words + spare))()
    start = (-ctypes.addressof(block) % BASE_ALIGN_BYTES) // WORD_BYTES
    return memoryview(block).cast("B").cast("Q")[start : start + words]


def snapshot(mem: memoryview[int] | CheckedMemory) -> bytes:
    """Copy the whole state of a memory; the words come first."""
    if isinstance(mem, CheckedMemory):
        return mem.snapshot()
    return mem.tobytes()


def restore(mem: memoryview[int] | CheckedMemory, state: bytes) -> None:
    """Put back the state that `snapshot` of a memory of this size and sort has copied."""
    if isinstance(mem, CheckedMemory):
        mem.restore(state)
    else:
        mem[:] = memoryview(state).cast("Q")


def initialise(mem: Memory, stack_words: int, heap_end: int, quarantine: int) -> None:
    """Lay out a memory: header, stack with its base frame, and a heap that is one free block.

    Args:
        mem: A memory of at least `heap_end` words.
        stack_words: Size of the thread stack in words, rounded up to a whole granule.
        heap_end: Where the heap ends; even.
        quarantine: How many freed blocks are kept from reuse, 0 to `QUARANTINE_MAX`.

    Raises:
        ArenaExhausted: There is no room for a heap, or the quarantine is too large.
        StackExhausted: The stack has no room even for the base frame.
    """
    heap_start = HEADER_WORDS + stack_words + (stack_words & 1)
    if heap_start + 2 > heap_end or quarantine > QUARANTINE_MAX:
        raise ArenaExhausted("the memory is too small for its stack and a heap, or the quarantine is too large")
    for address in range(DOORBELL, heap_start):
        mem[address] = 0
    for address in range(heap_start, heap_end):
        mem[address] = POISON
    mem[HEAP_START] = heap_start
    mem[HEAP_END] = heap_end
    mem[FREE_LIST] = heap_start
    mem[heap_start + FREE_WORDS] = heap_end - heap_start
    mem[heap_start + FREE_NEXT] = 0
    mem[QUARANTINE] = quarantine
    mem[STACK_LOW] = HEADER_WORDS
    mem[STACK_HIGH] = heap_start
    mem[DOORBELL] = REQUEST_FORMATTED
    mem[DOORBELL] = REQUEST_CLOSE
    initialise_stack(mem)


def block_words(size: int) -> int:
    """Return how many words a block of `size` words occupies: whole granules of two words."""
    return size + (size & 1)


def alloc(mem: Memory, size: int, align: int) -> int:
    """Allocate a block at the lowest possible address, and return that; its words are POISON.

    Args:
        mem: The memory.
        size: Words, at least 1.
        align: Alignment in words, a power of two.

    Raises:
        ArenaExhausted: No free block is large enough.

    Complexity: linear in the number of free blocks.
    """
    words = size + (size & 1)
    mask = align - 1
    skip = 0
    link = FREE_LIST
    mem[DOORBELL] = REQUEST_OPEN
    block = mem[FREE_LIST]
    while block != 0:
        skip = (align - (block & mask)) & mask
        if skip + words <= mem[block]:
            break
        link = block + FREE_NEXT
        block = mem[link]
    if block == 0:
        mem[DOORBELL] = REQUEST_CLOSE
        mem[VERDICT] = VERDICT_ARENA_EXHAUSTED
        raise ArenaExhausted("no free block of the simulated heap is large enough")
    address = carve(mem, link, block, skip, words)
    mem[DOORBELL] = (address << REQUEST_BLOCK_SHIFT) | size
    mem[DOORBELL] = (align << REQUEST_ALIGN_SHIFT) | REQUEST_ALLOCATED
    mem[DOORBELL] = REQUEST_CLOSE
    return address


def carve(mem: Memory, link: int, block: int, skip: int, words: int) -> int:
    """Take `words` words out of a free block, `skip` words after its start; return their address.

    What is left on either side stays free. The words that are taken are POISON afterwards.

    Args:
        mem: The memory.
        link: The address of the word that holds `block`: `FREE_LIST`, or the free block before it.
        block: A free block of at least ``skip + words`` words.
        skip: Words to leave free in front, for the alignment; even.
        words: Words to take; even, and not 0.
    """
    address = block + skip
    rest = mem[block] - skip - words
    following = mem[block + FREE_NEXT]
    if rest != 0:
        tail = address + words
        mem[tail] = rest
        mem[tail + FREE_NEXT] = following
        following = tail
    if skip != 0:
        mem[block] = skip
        mem[block + FREE_NEXT] = following
    else:
        mem[link] = following
        mem[block] = POISON
        mem[block + FREE_NEXT] = POISON
    return address


def try_alloc(mem: Memory, size: int, align: int) -> int:
    """Allocate as `alloc` does, unless the environment has decided that this allocation fails.

    Raises:
        AllocationFailed: `FAIL_AFTER` has run down; it is disarmed by that.
        ArenaExhausted: No free block is large enough.
    """
    armed = mem[FAIL_AFTER]
    if armed != 0:
        mem[FAIL_AFTER] = armed - 1
        if armed == 1:
            raise AllocationFailed("the environment let this allocation fail")
    return alloc(mem, size, align)


def dealloc(mem: Memory, address: int, size: int, align: int) -> None:
    """Free a block, with the layout that it was allocated with; poison its words.

    Raises:
        DoubleFree, WrongLayout: In the checked memory only, before anything changes.

    Complexity: linear in the block's size and in the number of free blocks.
    """
    mem[DOORBELL] = (address << REQUEST_BLOCK_SHIFT) | size
    mem[DOORBELL] = (align << REQUEST_ALIGN_SHIFT) | REQUEST_DEALLOCATE
    for word in range(address, address + size):
        mem[word] = POISON
    if mem[QUARANTINE] != 0:
        address, size = quarantine_exchange(mem, address, size, align)
    if address != 0:
        previous = 0
        following = mem[FREE_LIST]
        while following != 0 and following < address:
            previous = following
            following = mem[following + FREE_NEXT]
        join(mem, previous, address, size + (size & 1), following)
    mem[DOORBELL] = REQUEST_CLOSE


def join(mem: Memory, previous: int, address: int, words: int, following: int) -> None:
    """Link poisoned words into the free list, and coalesce them with their neighbours.

    Args:
        mem: The memory.
        previous: The last free block below `address`, or 0.
        address: Where the words begin.
        words: How many they are; even, and not 0.
        following: The first free block above `address`, or 0: the successor of `previous`.
    """
    after = following
    if address + words == following:
        words += mem[following]
        after = mem[following + FREE_NEXT]
        mem[following] = POISON
        mem[following + FREE_NEXT] = POISON
    if previous == 0:
        mem[FREE_LIST] = address
    else:
        before = mem[previous]
        if previous + before == address:
            mem[previous] = before + words
            mem[previous + FREE_NEXT] = after
            return
        mem[previous + FREE_NEXT] = address
    mem[address] = words
    mem[address + FREE_NEXT] = after


def quarantine_exchange(mem: Memory, address: int, size: int, align: int) -> tuple[int, int]:
    """Put a freed block into the quarantine; return address and size of the one that leaves it, or ``(0, 0)``.

    Args:
        mem: A memory whose quarantine has a capacity.
        address: The freed block.
        size: Its size in words.
        align: Its alignment in words.

    Complexity: linear in the capacity. Entries move up rather than a finger round, so that equal contents are equal bytes.
    """
    end = QUARANTINE_ENTRIES + QUARANTINED_WORDS * mem[QUARANTINE]
    entry = QUARANTINE_ENTRIES
    while entry < end and mem[entry] != 0:
        entry += QUARANTINED_WORDS
    oldest = 0
    oldest_size = 0
    if entry >= end:
        oldest = mem[QUARANTINE_ENTRIES + QUARANTINED_ADDRESS]
        oldest_size = mem[QUARANTINE_ENTRIES + QUARANTINED_SIZE]
        entry = end - QUARANTINED_WORDS
        for word in range(QUARANTINE_ENTRIES, entry):
            mem[word] = mem[word + QUARANTINED_WORDS]
    mem[entry + QUARANTINED_ADDRESS] = address
    mem[entry + QUARANTINED_SIZE] = size
    mem[entry + QUARANTINED_ALIGN] = align
    return oldest, oldest_size
