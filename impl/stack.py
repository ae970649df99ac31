"""The simulated thread stack lies in the memory, and holds every reference that an operation has in its hands.

It grows downwards. A frame is a header at `fp` with the frame's words below it, in ``[sp, fp)`` with ``sp = fp - SIZE``::

    STACK_HIGH ->  | header of the base frame | word | header of the next | words ... |  <- stack pointer ... STACK_LOW

All words below the stack pointer are zero: `pop_frame` clears what it pops, so that a new frame's words are zero without a store
each, and states that are equal are equal byte for byte.
"""

from __future__ import annotations

from typing import Final

from impl.errors import StackExhausted
from impl.header import FRAME_POINTER, STACK_HIGH, STACK_LOW, VERDICT, VERDICT_STACK_EXHAUSTED, WALK_LIMIT, Memory

# Fields of a frame's header, as offsets from `fp`.
LINK: Final = 0
RETURN_PC: Final = 1
KIND: Final = 2
SIZE: Final = 3
EXTRA: Final = 4
FRAME_HEADER: Final = 5

# Kinds of frame.
BASE: Final = 1
HOST: Final = 2
ENTRY: Final = 3
WASM: Final = 4
DROP: Final = 5

# What compiled code leaves in a word that is no reference: odd and small, so never the address of a block.
SCALAR: Final = 7


def initialise_stack(mem: Memory) -> None:
    """Push the base frame (pc 0, one word) on an empty stack whose words are zero.

    Args:
        mem: A memory whose `STACK_LOW` and `STACK_HIGH` are set.

    Raises:
        StackExhausted: The stack has no room even for the base frame.
    """
    if mem[STACK_HIGH] - mem[STACK_LOW] < FRAME_HEADER + 1:
        raise StackExhausted("the stack has no room for the base frame")
    fp = mem[STACK_HIGH] - FRAME_HEADER
    mem[fp + KIND] = BASE
    mem[fp + SIZE] = 1
    mem[FRAME_POINTER] = fp


def push_frame(mem: Memory, kind: int, pc: int, size: int, extra: int) -> int:
    """Push a frame and return its stack pointer, the address of its word 0.

    Args:
        mem: The memory.
        kind: `HOST`, `ENTRY`, `WASM` or `DROP`.
        pc: The frame's current pc; a return address as soon as it has called something.
        size: Words of the frame, all zero at first.
        extra: What the kind wants to keep (`ENTRY`: whether to reset the canary; `WASM`: the instance's index).

    Raises:
        StackExhausted: The frame does not fit; nothing else was changed.
    """
    link = mem[FRAME_POINTER]
    top = link - mem[link + SIZE]
    if top < mem[STACK_LOW] + FRAME_HEADER + size:
        mem[VERDICT] = VERDICT_STACK_EXHAUSTED
        raise StackExhausted("the simulated thread stack is full")
    fp = top - FRAME_HEADER
    mem[fp] = link
    mem[fp + RETURN_PC] = pc
    mem[fp + KIND] = kind
    mem[fp + SIZE] = size
    mem[fp + EXTRA] = extra
    mem[FRAME_POINTER] = fp
    return fp - size


def pop_frame(mem: Memory) -> None:
    """Pop the youngest frame, and clear its words and its header.

    The references in its words are not released: whoever pops has moved them or never owned them.
    """
    fp = mem[FRAME_POINTER]
    mem[FRAME_POINTER] = mem[fp]
    for address in range(fp - mem[fp + SIZE], fp + FRAME_HEADER):
        mem[address] = 0


def current(mem: Memory) -> int:
    """Return the address of the youngest frame's header."""
    return mem[FRAME_POINTER]


def stack_pointer(mem: Memory) -> int:
    """Return the address of word 0 of the youngest frame."""
    fp = mem[FRAME_POINTER]
    return fp - mem[fp + SIZE]


def frame_pc(mem: Memory, fp: int) -> int:
    """Return the pc at which the frame continues when what it called returns."""
    return mem[fp + RETURN_PC]


def frame_sp(mem: Memory, fp: int) -> int:
    """Return the address of the frame's lowest word, which the lowest bit of a stack map describes."""
    return fp - mem[fp + SIZE]


def walk_step(mem: Memory, fp: int, visited: int) -> int:
    """Return the next frame of a walk from the youngest frame to the oldest, or 0 at its end.

    The walk ends after the base frame, or after as many frames as `WALK_LIMIT` allows: an unwinder that gets lost.

    Args:
        mem: The memory.
        fp: The frame that was visited last; not used for the first step.
        visited: How many frames were visited so far.

    Source: `backtrace::trace` as the seed's `gc` uses it.
    """
    limit = mem[WALK_LIMIT]
    if limit != 0 and visited + 1 >= limit:
        return 0
    if visited == 0:
        return mem[FRAME_POINTER]
    return mem[fp]
