"""The allocator against a naive list of blocks, and each named error of the checked memory, provoked."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impl.arena import (
    DOORBELL,
    FAIL_AFTER,
    FREE_LIST,
    FREE_NEXT,
    HEADER_WORDS,
    HEAP_START,
    POISON,
    QUARANTINE_ENTRIES,
    QUARANTINED_WORDS,
    STACK_HIGH,
    CheckedMemory,
    alloc,
    block_words,
    dealloc,
    initialise,
    raw_memory,
    restore,
    snapshot,
    try_alloc,
)
from impl.checked import FREE
from impl.errors import (
    AccessOutOfBounds,
    AllocationFailed,
    ArenaExhausted,
    DoubleFree,
    MemoryVerdict,
    Misaligned,
    StackExhausted,
    UninitialisedRead,
    UseAfterFree,
    WrongLayout,
)

STACK_WORDS = 32
HEAP = HEADER_WORDS + STACK_WORDS
END = HEAP + 128


def checked_memory(quarantine: int = 0) -> CheckedMemory:
    mem = CheckedMemory(raw_memory(END + 8))
    initialise(mem, STACK_WORDS, END, quarantine)
    return mem


def both_memories() -> tuple[memoryview[int], CheckedMemory]:
    raw = raw_memory(END + 8)
    initialise(raw, STACK_WORDS, END, 0)
    return raw, checked_memory()


class Blocks:
    """The naive allocator: a set of live blocks, and a search over all addresses."""

    def __init__(self) -> None:
        self.live: list[tuple[int, int, int]] = []

    def used(self) -> set[int]:
        return {word for address, size, _ in self.live for word in range(address, address + block_words(size))}

    def alloc(self, size: int, align: int) -> int | None:
        used = self.used()
        for address in range(HEAP, END - block_words(size) + 1, 2):
            if address % align == 0 and not used.intersection(range(address, address + block_words(size))):
                self.live.append((address, size, align))
                return address
        return None

    def heap(self, contents: dict[int, int]) -> list[int]:
        """The words of the heap, as they follow from the live blocks and what was written to them."""
        used = self.used()
        words = [contents.get(word, POISON) for word in range(HEAP, END)]
        starts = [word for word in range(HEAP, END) if word not in used and (word == HEAP or word - 1 in used)]
        for start, following in zip(starts, [*starts[1:], 0], strict=True):
            size = next((word for word in range(start, END) if word in used), END) - start
            words[start - HEAP] = size
            words[start - HEAP + FREE_NEXT] = following
        return words


STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 1000)), max_size=60)


@given(STEPS)
def test_the_allocator_agrees_with_a_search_over_all_addresses(steps: list[tuple[int, int, int, int]]) -> None:
    raw, checked = both_memories()
    model = Blocks()
    contents: dict[int, int] = {}
    for kind, size, align, pick in steps:
        if kind < 2:
            expected = model.alloc(size, align)
            for mem in (raw, checked):
                if expected is None:
                    with pytest.raises(ArenaExhausted):
                        alloc(mem, size, align)
                else:
                    assert alloc(mem, size, align) == expected
                    mem[expected + size - 1] = pick
            if expected is not None:
                contents[expected + size - 1] = pick
        elif model.live:
            address, was, aligned = model.live.pop(pick % len(model.live))
            contents.pop(address + was - 1)
            for mem in (raw, checked):
                dealloc(mem, address, was, aligned)
    expected_heap = model.heap(contents)
    assert raw[HEAP:END].tolist() == expected_heap
    assert checked.words[HEAP:END].tolist() == expected_heap
    assert raw[DOORBELL] == checked.words[DOORBELL] == 0
    assert checked.live_blocks() == {address: (size, align) for address, size, align in model.live}


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_histories_that_end_alike_leave_equal_bytes(sizes: list[int], order: Any) -> None:
    raw, _ = both_memories()
    before = snapshot(raw)
    blocks = [(alloc(raw, size, 1), size) for size in sizes]
    order.shuffle(blocks)
    for address, size in blocks:
        dealloc(raw, address, size, 1)
    assert snapshot(raw) == before


def test_the_first_word_is_aligned_to_64_bytes() -> None:
    for words in (64, 100, 333):
        memory = raw_memory(words)
        assert ctypes.addressof(ctypes.c_char.from_buffer(memory)) % 64 == 0
        assert len(memory) == words


def test_a_heap_too_small_and_a_stack_too_small_are_refused() -> None:
    raw = raw_memory(128)
    with pytest.raises(ArenaExhausted):
        initialise(raw, 64, 128, 0)
    with pytest.raises(ArenaExhausted):
        initialise(raw, 32, 128, 9)
    with pytest.raises(StackExhausted):
        initialise(raw, 5 - 1, 128, 0)


def test_initialise_rounds_the_stack_up_to_a_granule() -> None:
    raw = raw_memory(128)
    initialise(raw, 31, 128, 0)
    assert (raw[HEAP_START], raw[STACK_HIGH]) == (96, 96)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_armed_failure_fails_once_after_so_many_successes(after: int) -> None:
    raw, _ = both_memories()
    raw[FAIL_AFTER] = after + 1
    for _ in range(after):
        try_alloc(raw, 2, 1)
    before = raw[FREE_LIST]
    with pytest.raises(AllocationFailed):
        try_alloc(raw, 2, 1)
    assert raw[FREE_LIST] == before
    assert raw[FAIL_AFTER] == 0
    try_alloc(raw, 2, 1)


def test_alloc_is_deaf_to_an_armed_failure() -> None:
    raw, _ = both_memories()
    raw[FAIL_AFTER] = 1
    alloc(raw, 2, 1)
    assert raw[FAIL_AFTER] == 1


def test_the_quarantine_keeps_the_latest_blocks_from_reuse_and_releases_the_oldest() -> None:
    mem = checked_memory(quarantine=2)
    a, b, c = (alloc(mem, size, 1) for size in (3, 4, 5))
    dealloc(mem, a, 3, 1)
    dealloc(mem, b, 4, 1)
    assert [mem[QUARANTINE_ENTRIES + i] for i in range(2 * QUARANTINED_WORDS)] == [a, 3, 1, b, 4, 1]
    assert alloc(mem, 1, 1) == c + 6
    with pytest.raises(UseAfterFree):
        mem[b]
    with pytest.raises(DoubleFree):
        dealloc(mem, a, 3, 1)
    dealloc(mem, c, 5, 1)
    assert [mem[QUARANTINE_ENTRIES + i] for i in range(2 * QUARANTINED_WORDS)] == [b, 4, 1, c, 5, 1]
    assert alloc(mem, 4, 1) == a


def test_a_snapshot_brings_back_words_shadow_and_layouts() -> None:
    mem = checked_memory()
    a = alloc(mem, 3, 4)
    mem[a] = 17
    state = snapshot(mem)
    dealloc(mem, a, 3, 4)
    alloc(mem, 8, 1)
    restore(mem, state)
    assert snapshot(mem) == state
    assert mem[a] == 17
    with pytest.raises(UninitialisedRead):
        mem[a + 1]
    dealloc(mem, a, 3, 4)
    with pytest.raises(ValueError, match="cannot take a state"):
        restore(mem, bytes(8))


def test_a_raw_snapshot_is_one_copy_of_the_words() -> None:
    raw, _ = both_memories()
    state = snapshot(raw)
    assert len(state) == 8 * (END + 8)
    alloc(raw, 3, 4)
    assert snapshot(raw) != state
    restore(raw, state)
    assert snapshot(raw) == state


def allocated(mem: CheckedMemory) -> int:
    address = alloc(mem, 3, 2)
    mem[address] = 1
    return address


def free_twice(mem: CheckedMemory, address: int) -> None:
    dealloc(mem, address, 3, 2)
    dealloc(mem, address, 3, 2)


def read_freed(mem: CheckedMemory, address: int) -> None:
    dealloc(mem, address, 3, 2)
    mem[address]


def write_freed(mem: CheckedMemory, address: int) -> None:
    dealloc(mem, address, 3, 2)
    mem[address + 2] = 1


def forge(*requests: int) -> Callable[[CheckedMemory, int], None]:
    def ring(mem: CheckedMemory, address: int) -> None:
        for request in requests:
            mem[DOORBELL] = request

    return ring


# What is done, which verdict it earns, and words that the verdict's text must have.
CRIMES: list[tuple[str, Callable[[CheckedMemory, int], Any], type[MemoryVerdict], str]] = [
    ("read of a freed block", read_freed, UseAfterFree, "read of word"),
    ("write to a freed block", write_freed, UseAfterFree, "write of word"),
    ("read of free space", lambda mem, _: mem[END - 1], UseAfterFree, "nearest live block"),
    ("double free", free_twice, DoubleFree, "free already"),
    ("free of free space", lambda mem, _: dealloc(mem, END - 4, 2, 1), DoubleFree, "free already"),
    ("free with another size", lambda mem, a: dealloc(mem, a, 4, 2), WrongLayout, "size 3, align 2"),
    ("free with another alignment", lambda mem, a: dealloc(mem, a, 3, 1), WrongLayout, "size 3, align 2"),
    ("free of an inner word", lambda mem, a: dealloc(mem, a + 1, 2, 1), WrongLayout, "no block"),
    ("free of a word of the header", lambda mem, _: dealloc(mem, HEADER_WORDS, 2, 1), WrongLayout, "no block"),
    ("allocation of nothing", forge(1, HEAP << 32, 1 << 3 | 2), WrongLayout, "no layout"),
    ("alignment that is no power of two", lambda mem, _: alloc(mem, 2, 3), WrongLayout, "no layout"),
    ("answer out of line", forge(1, (HEAP + 2) << 32 | 2, 4 << 3 | 2), Misaligned, "aligned to 4"),
    ("answer in use", forge(1, HEAP << 32 | 4, 1 << 3 | 2), AccessOutOfBounds, "not all free"),
    ("request without meaning", forge(7), AccessOutOfBounds, "no meaning"),
    ("negative request", forge(-1), AccessOutOfBounds, "unsigned 64-bit"),
    ("request that is no word", forge(1, "x"), AccessOutOfBounds, "unsigned 64-bit"),  # type: ignore[arg-type]
    ("read of an unwritten word", lambda mem, a: mem[a + 1], UninitialisedRead, "nobody has written"),
    ("read of the padding", lambda mem, a: mem[a + 3], AccessOutOfBounds, "nearest live block"),
    ("write to the padding", lambda mem, a: mem.__setitem__(a + 3, 0), AccessOutOfBounds, "nearest live block"),
    ("read through null", lambda mem, _: mem[0], AccessOutOfBounds, "null reference"),
    ("write through null", lambda mem, _: mem.__setitem__(0, 1), AccessOutOfBounds, "null reference"),
    ("read at a negative index", lambda mem, _: mem[-1], AccessOutOfBounds, "word -1"),
    ("write at a negative index", lambda mem, _: mem.__setitem__(-5, 1), AccessOutOfBounds, "word -5"),
    ("read past the heap", lambda mem, _: mem[END], AccessOutOfBounds, "memory of"),
    ("read past the memory", lambda mem, _: mem[END + 8], AccessOutOfBounds, "memory of"),
    ("read far past the memory", lambda mem, _: mem[1 << 70], AccessOutOfBounds, "memory of"),
    ("read between words", lambda mem, _: mem[2.5], Misaligned, "2.5"),  # type: ignore[index]
    ("write between words", lambda mem, _: mem.__setitem__(2.5, 1), Misaligned, "2.5"),  # type: ignore[index]
    ("negative word", lambda mem, a: mem.__setitem__(a, -1), AccessOutOfBounds, "unsigned 64-bit"),
    ("word too large", lambda mem, a: mem.__setitem__(a + 1, 1 << 64), AccessOutOfBounds, "unsigned 64-bit"),
    ("word that is none", lambda mem, a: mem.__setitem__(a, "x"), AccessOutOfBounds, "unsigned 64-bit"),  # type: ignore[assignment]
]


@pytest.mark.parametrize(("what", "crime", "verdict", "text"), CRIMES, ids=[crime[0] for crime in CRIMES])
def test_each_crime_earns_its_verdict(
    what: str, crime: Callable[[CheckedMemory, int], Any], verdict: type[MemoryVerdict], text: str
) -> None:
    del what
    mem = checked_memory()
    address = allocated(mem)
    with pytest.raises(verdict, match=text):
        crime(mem, address)


def test_a_refused_deallocation_changes_nothing() -> None:
    mem = checked_memory()
    address = allocated(mem)
    before = snapshot(mem)
    with pytest.raises(WrongLayout):
        dealloc(mem, address, 4, 2)
    assert snapshot(mem) == before
    dealloc(mem, address, 3, 2)


def test_only_the_allocator_may_touch_a_free_block() -> None:
    mem = checked_memory()
    first = mem[FREE_LIST]
    with pytest.raises(UseAfterFree):
        mem[first]
    mem[DOORBELL] = 1
    assert mem.is_open()
    assert mem[first] == END - HEAP
    mem[DOORBELL] = 0
    assert not mem.is_open()
    with pytest.raises(UseAfterFree):
        mem[first]
    with pytest.raises(ArenaExhausted):
        alloc(mem, 500, 1)
    assert not mem.is_open()


def test_every_word_of_a_freed_block_is_out_of_reach_at_once() -> None:
    mem = checked_memory()
    address = allocated(mem)
    dealloc(mem, address, 3, 2)
    assert mem._shadow[address : address + 4] == bytes([FREE]) * 4
