"""The allocator against a list of blocks: each block lies at the lowest address with room, and keeps what was written to it."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from fuzz.machines.findings import Component, agree, judged
from impl.arena import (
    FAIL_AFTER,
    HEADER_WORDS,
    HEAP_END,
    HEAP_START,
    POISON,
    QUARANTINE_MAX,
    VERDICT,
    CheckedMemory,
    alloc,
    dealloc,
    initialise,
    raw_memory,
    try_alloc,
)
from impl.errors import AllocationFailed, ArenaExhausted

STACK_WORDS: Final = 16
HEAP_WORDS: Final = 96
"""Small, so that the heap is full of holes soon, and exhausted now and then."""

SIZES: Final = st.integers(1, 14)
ALIGNS: Final = st.sampled_from([1, 2, 4, 8])
PICKS: Final = st.integers(0, 63)

Block = tuple[int, int, int]
"""Address, size and alignment, in words."""


class ArenaMachine(Component):
    """One small heap; `blocks` are in use, in the order of their allocation, and `kept` are in the quarantine."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self.kept: list[Block] = []
        self.start(0)

    def start(self, quarantine: int) -> None:
        """Format a heap."""
        self.quarantine = quarantine
        self.mem = CheckedMemory(raw_memory(HEADER_WORDS + STACK_WORDS + HEAP_WORDS))
        initialise(self.mem, STACK_WORDS, len(self.mem), quarantine)
        self.pristine = self.mem.words.tobytes()

    @initialize(quarantine=st.integers(0, QUARANTINE_MAX))
    def keep(self, quarantine: int) -> None:
        """Choose how many freed blocks are kept from reuse."""
        self.start(quarantine)

    def lowest(self, size: int, align: int) -> int | None:
        """Return where a block must lie, by trying every address; None if it fits nowhere."""
        words = size + size % 2
        taken = {word for address, count, _ in self.blocks + self.kept for word in range(address, address + count + count % 2)}
        for address in range(self.mem[HEAP_START], self.mem[HEAP_END] - words + 1):
            if address % 2 == 0 and address % align == 0 and taken.isdisjoint(range(address, address + words)):
                return address
        return None

    @rule(size=SIZES, align=ALIGNS)
    @judged
    def allocate(self, size: int, align: int) -> None:
        """Allocate a block, or hear that there is no room."""
        expected = self.lowest(size, align)
        try:
            address: int | None = alloc(self.mem, size, align)
        except ArenaExhausted:
            address = None
        agree(f"alloc of {size} words aligned to {align}", expected, address)
        if address is not None:
            agree("the words of a new block", {POISON}, set(self.mem.words[address : address + size]))
            self.use((address, size, align))

    @rule(size=SIZES, align=ALIGNS, after=st.integers(0, 2))
    @judged
    def allocate_while_armed(self, size: int, align: int, after: int) -> None:
        """Allocate fallibly while the environment lets an allocation fail; the one that fails changes nothing."""
        self.mem[FAIL_AFTER] = after + 1
        for left in range(after, -1, -1):
            expected = self.lowest(size, align) if left else -1
            try:
                address: int | None = try_alloc(self.mem, size, align)
            except ArenaExhausted:
                address = None
            except AllocationFailed:
                address = -1
            agree(f"try_alloc of {size} words aligned to {align}, {left} before the one that fails", expected, address)
            if address is not None and address > 0:
                self.use((address, size, align))
        agree("the environment, when it has let an allocation fail", 0, self.mem[FAIL_AFTER])

    def use(self, block: Block) -> None:
        """Take a block into use and write words to it that nobody else writes."""
        self.blocks.append(block)
        for word in range(block[0], block[0] + block[1]):
            self.mem[word] = word << 8

    @precondition(lambda self: self.blocks)
    @rule(pick=PICKS)
    @judged
    def free(self, pick: int) -> None:
        """Free some block; the quarantine may let an older one go in its place."""
        block = self.blocks.pop(pick % len(self.blocks))
        dealloc(self.mem, *block)
        self.kept.append(block)
        if len(self.kept) > self.quarantine:
            self.kept.pop(0)

    @invariant()
    @judged
    def blocks_keep_their_words(self) -> None:
        """Words in use are what was written, and all others of the heap but two of each free block are poison."""
        words = self.mem.words
        used = {word for address, size, _ in self.blocks for word in range(address, address + size)}
        for word in used:
            agree(f"word {word}", word << 8, words[word])
        for address, size, _ in self.kept:
            agree("the words of a block in the quarantine", {POISON}, set(words[address : address + size]))

    @judged
    def end(self) -> None:
        """When everything is free again, the heap is byte for byte as it was."""
        while self.blocks:
            self.free(0)
        # The verdict of an exhausted heap stays; it is about the past and no part of the heap.
        self.mem[VERDICT] = 0
        if not self.quarantine:
            agree("whether a memory without blocks is as it was", True, self.mem.words.tobytes() == self.pristine)
