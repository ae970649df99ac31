"""The state of the model is one flat list of ints; these are the questions that one asks it."""

from __future__ import annotations

from model.limits import (
    BOOK_WORDS,
    CONTEXT_AT,
    CONTEXT_KIND,
    CONTEXT_OF,
    CONTEXT_OUTER,
    CONTEXT_WORDS,
    DEPTH,
    DYING,
    HELD,
    INSTANCES,
    LEAKED,
    LIVE,
    UNDER_WAY,
    Limits,
    Shape,
)
from model.ops import DEAD, NULL, Context
from model.words import bits, put, within

State = list[int]


class Violation(BaseException):
    """The implementation did what the model forbids, or did not do what it demands.

    It is no `Exception`: simulated code that catches panics must not catch it.
    """


def initial(limits: Limits) -> State:
    """Return the state before the first operation: the host alone, an open store without instances."""
    state = [0] * limits.shape.size
    begin_anew(state, limits)
    return state


def begin_anew(state: State, limits: Limits) -> None:
    """Write the state before the first operation over whatever is there."""
    shape = limits.shape
    put(state, 0, shape.size, 0)
    put(state, shape.fields, shape.slots_end, NULL)
    state[DEPTH] = 1
    state[shape.contexts + CONTEXT_KIND] = Context.HOST


def mask_of(state: State, first: int, last: int) -> int:
    """Return the mask of the names that stand in the cells from `first` up to `last`."""
    mask = 0
    for name in state[first:last]:
        if name >= 0:
            mask |= 1 << name
    return mask


def owned(state: State, shape: Shape, name: int) -> bool:
    """Say whether anything owns the value: the host, storage, another value, an operation under way, or a leak."""
    if state[shape.roots + name] or state[LEAKED] >> name & 1 or within(state, shape.fields, shape.slots, name):
        return True
    return held_mask(state, shape) >> name & 1 != 0


def on_stack(state: State, shape: Shape, name: int) -> bool:
    """Say whether the value stands in a live slot of any activation."""
    return within(state, shape.slots, shape.slots_end, name)


def held_mask(state: State, shape: Shape) -> int:
    """Return the names in the hands of operations under way."""
    mask = 0
    for i in range(state[UNDER_WAY]):
        mask |= state[shape.books + i * BOOK_WORDS + HELD]
    return mask


def stack_mask(state: State, shape: Shape) -> int:
    """Return the names in live slots of activations."""
    return mask_of(state, shape.slots, shape.slots_end)


def dead_mask(state: State, limits: Limits, context: int) -> int:
    """Return the mask of the dead slots of the activation at this context index."""
    slot = limits.shape.slots + context * limits.slots
    mask = 0
    for index in range(limits.slots):
        if state[slot + index] == DEAD:
            mask |= 1 << index
    return mask


def dead_slots(state: State, limits: Limits, context: int) -> list[int]:
    """Return the dead slots of the activation at this context index, lowest first."""
    return list(bits(dead_mask(state, limits, context)))


def root_mask(state: State, shape: Shape) -> int:
    """Return the names that the host holds."""
    mask = 0
    for name, count in enumerate(state[shape.roots : shape.fields]):
        if count:
            mask |= 1 << name
    return mask


def unreachable(state: State, limits: Limits, spared: int) -> int:
    """Return the names that a complete collection must destroy: unowned and not on a stack, and what only such own.

    Cycles are not among them: their members own each other.

    Args:
        spared: names that count as owned whatever the state says.

    Complexity: O(objects * fields) for each layer of ownership.
    """
    shape = limits.shape
    safe = spared | state[LEAKED] | root_mask(state, shape) | held_mask(state, shape)
    safe |= mask_of(state, shape.globals, shape.slots_end)
    candidates = state[LIVE] & ~safe
    if not candidates or not limits.fields:
        return candidates
    doomed = 0
    while True:
        kept = 0
        for name in bits((state[LIVE] | state[DYING]) & ~doomed):
            first = shape.fields + name * limits.fields
            kept |= mask_of(state, first, first + limits.fields)
        new = candidates & ~kept
        if new == doomed:
            return doomed
        doomed = new


def kept_by(state: State, limits: Limits, names: int) -> int:
    """Return the names and everything that they own, directly or not."""
    shape = limits.shape
    kept, frontier = names, names
    while frontier:
        found = 0
        for name in bits(frontier):
            first = shape.fields + name * limits.fields
            found |= mask_of(state, first, first + limits.fields)
        frontier = found & ~kept
        kept |= found
    return kept


def owners_of(state: State, limits: Limits, name: int) -> list[str]:
    """Name everything that keeps a value alive, for messages."""
    shape = limits.shape
    found = ["the host"] * (state[shape.roots + name] > 0) + ["a forgotten handle"] * (state[LEAKED] >> name & 1)
    found += [f"value {i // limits.fields}" for i, cell in enumerate(state[shape.fields : shape.globals]) if cell == name]
    found += [
        f"global {i % limits.globals} of instance {i // limits.globals}"
        for i, cell in enumerate(state[shape.globals : shape.elements])
        if cell == name
    ]
    found += [
        f"element {i % limits.table} of table {i // limits.table}"
        for i, cell in enumerate(state[shape.elements : shape.segments])
        if cell == name
    ]
    found += [f"element segment {i // limits.segment}" for i, cell in enumerate(state[shape.segments : shape.slots]) if cell == name]
    found += ["a transfer under way"] * (held_mask(state, shape) >> name & 1)
    found += [
        f"slot {i % limits.slots} of activation {i // limits.slots}"
        for i, cell in enumerate(state[shape.slots : shape.slots_end])
        if cell == name
    ]
    return found


def context_at(state: State, shape: Shape, index: int) -> tuple[Context, int, int]:
    """Return kind, instance or name, and function or budget of a context. Index 0 is the host."""
    at = shape.contexts + index * CONTEXT_WORDS
    return Context(state[at + CONTEXT_KIND]), state[at + CONTEXT_OF], state[at + CONTEXT_AT]


def push_context(state: State, limits: Limits, kind: int, of: int, at: int, outer: int) -> None:
    """Put a context on top of the stack; its slots are dead."""
    shape = limits.shape
    depth = state[DEPTH]
    first = shape.contexts + depth * CONTEXT_WORDS
    state[first + CONTEXT_KIND] = kind
    state[first + CONTEXT_OF] = of
    state[first + CONTEXT_AT] = at
    state[first + CONTEXT_OUTER] = outer
    state[DEPTH] = depth + 1


def pop_context(state: State, limits: Limits) -> None:
    """Take the top context off; clears its words, so that equal states are equal rows."""
    shape = limits.shape
    depth = state[DEPTH] - 1
    first = shape.contexts + depth * CONTEXT_WORDS
    put(state, first, first + CONTEXT_WORDS, 0)
    slot = shape.slots + depth * limits.slots
    put(state, slot, slot + limits.slots, NULL)
    state[DEPTH] = depth


def describe(state: State, limits: Limits) -> list[str]:
    """Say the state in words, a line for each thing that is there; for stories and `drc replay -v`."""
    shape = limits.shape
    lines = []
    dying = " ".join(f"{name}(dying)" for name in bits(state[DYING]))
    live = " ".join(map(str, bits(state[LIVE])))
    lines.append(f"values: {live} {dying}".rstrip())
    roots = [f"{name}x{count}" for name, count in enumerate(state[shape.roots : shape.fields]) if count]
    lines.append(f"host holds: {' '.join(roots) or 'nothing'}")
    for name in bits(state[LIVE] | state[DYING]):
        first = shape.fields + name * limits.fields
        cells = state[first : first + limits.fields]
        if any(cell != NULL for cell in cells):
            lines.append(f"value {name} owns: {_cells(cells)}")
    for instance in bits(state[INSTANCES]):
        first = shape.globals + instance * limits.globals
        globals_ = _cells(state[first : first + limits.globals])
        first = shape.elements + instance * limits.table
        elements = _cells(state[first : first + state[shape.table_sizes + instance]])
        first = shape.segments + instance * limits.segment
        segment = _cells(state[first : first + state[shape.segment_lengths + instance]])
        lines.append(f"instance {instance}: globals {globals_}, table {elements}, segment {segment}")
    for index in range(1, state[DEPTH]):
        kind, of, at = context_at(state, shape, index)
        if kind == Context.WASM:
            slot = shape.slots + index * limits.slots
            lines.append(f"activation of function {at}, instance {of}: slots {_cells(state[slot : slot + limits.slots])}")
        elif kind == Context.DESTRUCTOR:
            lines.append(f"destructor of value {of}")
        else:
            lines.append("host import")
    return lines


def _cells(cells: list[int]) -> str:
    words = {NULL: "null", DEAD: "dead"}
    return "[" + " ".join(words.get(cell, str(cell)) for cell in cells) + "]"
