"""How contexts are entered, left and unwound, and what becomes of the slots of an activation."""

from __future__ import annotations

from typing import Final

from model.books import see
from model.limits import CONTEXT_KIND, CONTEXT_WORDS, DEPTH, WASM_DEPTH, Limits
from model.ops import DEAD, NULL, Context
from model.properties import Sometimes
from model.state import State, pop_context, push_context
from model.words import put

WASM: Final = int(Context.WASM)
_DESTRUCTOR: Final = int(Context.DESTRUCTOR)


def top_at(state: State, limits: Limits) -> int:
    """Return the offset of the top context."""
    return limits.shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS


def top_slot(state: State, limits: Limits) -> int:
    """Return the offset of the top context's first slot."""
    return limits.shape.slots + (state[DEPTH] - 1) * limits.slots


def pop(state: State, limits: Limits) -> bool:
    """Pop a context; say whether it was an activation that the host had called."""
    at = top_at(state, limits)
    wasm = state[at + CONTEXT_KIND] == WASM
    below = state[at - CONTEXT_WORDS + CONTEXT_KIND]
    if wasm:
        state[WASM_DEPTH] -= 1
    pop_context(state, limits)
    return wasm and below != WASM


def unwind_trap(state: State, limits: Limits) -> int:
    """Pop the activations down to the one that the host called; return 1, the calls from host to Wasm that were left."""
    depth = state[WASM_DEPTH]
    while not pop(state, limits):
        pass
    if depth - state[WASM_DEPTH] > 1:
        see(state, Sometimes.TRAP_UNWOUND_SEVERAL)
    return 1


def unwind_panic(state: State, limits: Limits) -> int:
    """Pop contexts down to a destructor or the bottom; return how many calls from host to Wasm were left."""
    unwound = 0
    while state[DEPTH] > 1 and state[top_at(state, limits) + CONTEXT_KIND] != _DESTRUCTOR:
        unwound += pop(state, limits)
    if unwound:
        see(state, Sometimes.PANIC_UNWOUND_WASM)
    return unwound


def push_wasm(state: State, limits: Limits, instance: int, function: int) -> int:
    """Enter an activation with null in all slots; return the offset of its first slot."""
    push_context(state, limits, WASM, instance, function, 0)
    state[WASM_DEPTH] += 1
    slot = top_slot(state, limits)
    put(state, slot, slot + limits.slots, NULL)
    return slot


def settle(state: State, limits: Limits, slot: int, live: int) -> None:
    """Mark the slots of an activation dead that nobody reads after this safepoint.

    Args:
        slot: offset of its first slot.
        live: mask of the slots that are read.
    """
    for index in range(limits.slots):
        if not live >> index & 1:
            state[slot + index] = DEAD
