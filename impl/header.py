"""The first 64 words of every memory: what each fixed address holds.

All state is in the memory, so that a snapshot is one copy. What has no better place has an address here.
"""

from __future__ import annotations

from typing import Final, Protocol


class Memory(Protocol):
    """Words by index: all that a function over a memory may use.

    An index is an address. Words are unsigned and have 64 bits.
    """

    def __getitem__(self, index: int, /) -> int:
        """Read one word."""

    def __setitem__(self, index: int, word: int, /) -> None:
        """Write one word."""


# Address 0 is the null reference, and is never a word of anybody's.
NULL: Final = 0
# A store here is a request to the checked memory, and means nothing to any other. Zero between calls of the allocator.
DOORBELL: Final = 1
# The heap is [HEAP_START, HEAP_END); both are even.
HEAP_START: Final = 2
HEAP_END: Final = 3
# The free block with the lowest address, or 0.
FREE_LIST: Final = 4
# 0: not armed. k + 1: after k more successes the next fallible allocation fails.
FAIL_AFTER: Final = 5
# 0: no limit. j + 1: a walk of the stack ends after j frames.
WALK_LIMIT: Final = 6
# The order in which a sweep releases its set, as a Lehmer code; 0 is the order of the buckets.
SWEEP_ORDER: Final = 7
# The thread stack is [STACK_LOW, STACK_HIGH), and grows downwards.
STACK_LOW: Final = 8
STACK_HIGH: Final = 9
# The youngest frame's header.
FRAME_POINTER: Final = 10
# Addresses of what a runtime allocates once, 0 while there is none.
TABLE: Final = 11
REGISTRY: Final = 12
INSTANCES: Final = 13
VTABLES: Final = 14
CODE: Final = 15
# Capacity of the quarantine in blocks, 0 to QUARANTINE_MAX; the entries follow it, oldest first.
QUARANTINE: Final = 16
QUARANTINE_ENTRIES: Final = 17
QUARANTINE_MAX: Final = 8
# Which verdict was raised, 0 while there is none. Compiled code has no `BaseException`: its `except` catches a verdict too, and
# whoever runs it looks here.
VERDICT: Final = 41
VERDICT_ARENA_EXHAUSTED: Final = 1
VERDICT_STACK_EXHAUSTED: Final = 2
VERDICT_ABORTED: Final = 3

HEADER_WORDS: Final = 64

# An entry of the quarantine; its address is 0 if the entry is empty, and then all later ones are empty as well.
QUARANTINED_ADDRESS: Final = 0
QUARANTINED_SIZE: Final = 1
QUARANTINED_ALIGN: Final = 2
QUARANTINED_WORDS: Final = 3

# What free words hold, and words that are allocated but not written yet. Odd, so never an address of a block, and positive as
# a signed word.
POISON: Final = 0x5BAD_F00D_5BAD_F00D

# Requests to the checked memory; `impl.arena` says what each means.
REQUEST_CLOSE: Final = 0
REQUEST_OPEN: Final = 1
REQUEST_ALLOCATED: Final = 2
REQUEST_DEALLOCATE: Final = 3
REQUEST_FORMATTED: Final = 4
REQUEST_KIND_MASK: Final = 7
REQUEST_ALIGN_SHIFT: Final = 3
# A block's address above its size: more than any request, because no address is 0.
REQUEST_BLOCK_SHIFT: Final = 32
