"""The simulated thread stack: frames, what is left of them, and walks that see too little."""

from __future__ import annotations

import pytest

from impl.arena import HEADER_WORDS, STACK_HIGH, WALK_LIMIT, CheckedMemory, Memory, initialise, raw_memory, snapshot
from impl.errors import StackExhausted
from impl.stack import (
    BASE,
    DROP,
    ENTRY,
    EXTRA,
    FRAME_HEADER,
    HOST,
    KIND,
    LINK,
    RETURN_PC,
    SIZE,
    WASM,
    current,
    frame_pc,
    frame_sp,
    pop_frame,
    push_frame,
    stack_pointer,
    walk_step,
)

WORDS = 256
STACK_WORDS = 64


def memory() -> CheckedMemory:
    mem = CheckedMemory(raw_memory(WORDS))
    initialise(mem, STACK_WORDS, WORDS, 0)
    return mem


def walk(mem: Memory) -> list[tuple[int, int]]:
    """The pc and sp of each frame that a walk sees."""
    seen: list[tuple[int, int]] = []
    fp = walk_step(mem, 0, 0)
    while fp:
        seen.append((frame_pc(mem, fp), frame_sp(mem, fp)))
        fp = walk_step(mem, fp, len(seen))
    return seen


def test_the_base_frame_is_there_from_the_start() -> None:
    mem = memory()
    fp = current(mem)
    assert fp == mem[STACK_HIGH] - FRAME_HEADER
    assert [mem[fp + field] for field in (LINK, RETURN_PC, KIND, SIZE, EXTRA)] == [0, 0, BASE, 1, 0]
    assert stack_pointer(mem) == fp - 1


def test_a_frame_lies_below_its_caller_and_its_words_are_zero() -> None:
    mem = memory()
    caller, top = current(mem), stack_pointer(mem)
    sp = push_frame(mem, WASM, 0x1234, 3, 9)
    fp = current(mem)
    assert (fp, sp, stack_pointer(mem)) == (top - FRAME_HEADER, fp - 3, sp)
    assert [mem[fp + field] for field in (LINK, RETURN_PC, KIND, SIZE, EXTRA)] == [caller, 0x1234, WASM, 3, 9]
    assert [mem[sp + word] for word in range(3)] == [0, 0, 0]


def test_popping_leaves_no_trace() -> None:
    mem = memory()
    push_frame(mem, ENTRY, 0, 1, 1)
    before = snapshot(mem)
    sp = push_frame(mem, WASM, 0x1234, 4, 9)
    for word in range(4):
        mem[sp + word] = 77
    push_frame(mem, HOST, 0, 0, 0)
    pop_frame(mem)
    pop_frame(mem)
    assert snapshot(mem) == before


def test_a_full_stack_refuses_a_frame_and_keeps_the_ones_it_has() -> None:
    mem = memory()
    room = stack_pointer(mem) - HEADER_WORDS
    state = [mem[address] for address in range(HEADER_WORDS, mem[STACK_HIGH])]
    with pytest.raises(StackExhausted):
        push_frame(mem, HOST, 0, room - FRAME_HEADER + 1, 0)
    assert [mem[address] for address in range(HEADER_WORDS, mem[STACK_HIGH])] == state
    assert push_frame(mem, HOST, 0, room - FRAME_HEADER, 0) == HEADER_WORDS


def test_a_walk_goes_from_the_youngest_frame_to_the_base() -> None:
    mem = memory()
    frames = [(0, stack_pointer(mem))]
    for kind, pc, size in ((ENTRY, 0, 1), (WASM, 0x1000, 3), (HOST, 0, 0), (DROP, 0, 1)):
        frames.append((pc, push_frame(mem, kind, pc, size, 0)))
    assert walk(mem) == frames[::-1]


@pytest.mark.parametrize("limit", range(6))
def test_a_limited_walk_ends_after_so_many_frames(limit: int) -> None:
    mem = memory()
    for pc in (1, 2, 3):
        push_frame(mem, WASM, pc, 1, 0)
    whole = walk(mem)
    mem[WALK_LIMIT] = limit + 1
    assert walk(mem) == whole[:limit]
