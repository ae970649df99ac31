"""`choose_op` is the single source of what is possible: engines enumerate it, sample it, or ask it whether a row fits.

First a kind among the kinds possible now, then each operand from its domain, then the items of the list. A draw among one
alternative is not drawn: no choice, no nondeterminism.
"""

from __future__ import annotations

from typing import Final, Protocol

from model.domains import DOMAINS, DRAW, DRAWS, LONGEST, busy_instances, has
from model.limits import (
    CLOSED,
    CONTEXT_AT,
    CONTEXT_KIND,
    CONTEXT_OF,
    CONTEXT_WORDS,
    CUT,
    DEPTH,
    DYING,
    FAIL,
    INNERMOST,
    INSTANCES,
    LEAKED,
    LIVE,
    NESTED,
    ROOTS_TOTAL,
    UNDER_WAY,
    WASM_DEPTH,
    Limits,
)
from model.ops import BY_KIND, DEAD, Context, Kind, Need, Row
from model.state import State
from model.words import ask, bits, nth, occurrences, popcount


class Exhausted(Exception):  # it ends a run and is no error
    """A chooser has no more answers: the run ends here."""


class Chooser(Protocol):
    """Who answers. The only source of nondeterminism."""

    def choose(self, count: int) -> int:
        """Pick one of `count >= 1` alternatives, numbered from 0. Raise `Exhausted` to end the run."""


def needs_met(state: State, limits: Limits) -> int:
    """Return which `Need`s are met now, as a mask. Complexity: O(slots + names / word)."""
    shape = limits.shape
    depth = state[DEPTH]
    top = shape.contexts + (depth - 1) * CONTEXT_WORDS
    kind = state[top + CONTEXT_KIND]
    total = state[ROOTS_TOTAL]
    met = limits.needs_always
    if total:
        met |= _ROOT_FIELD if limits.fields else _ROOT
    if total < limits.roots:
        met |= _ROOT_ROOM
    if (state[LIVE] | state[DYING]) != shape.names:
        met |= _NAME_ROOM
    if depth - state[NESTED] < limits.contexts:
        met |= _CONTEXT_ROOM
    if popcount(state[LEAKED]) < limits.leaks:
        met |= _LEAK_ROOM
    if not (state[CUT] or state[FAIL]):
        met |= _CALM
    if depth > 1:
        met |= _UNWINDABLE
        if state[WASM_DEPTH]:
            met |= _WASM_BELOW
    else:
        met |= _NO_WASM
    innermost = state[INNERMOST]
    if not innermost or state[shape.contexts + innermost * CONTEXT_WORDS + CONTEXT_AT] > 0:
        met |= _BUDGET
    if not state[CLOSED]:
        met |= _STORE
        instances = state[INSTANCES]
        if instances:
            met |= _INSTANCE
            if not (state[WASM_DEPTH] or state[UNDER_WAY]) or instances & ~busy_instances(state, limits):
                met |= _IDLE
        if instances != (1 << limits.instances) - 1:
            met |= _INSTANCE_ROOM
    if kind == _WASM:
        slot = shape.slots + (depth - 1) * limits.slots
        dead = occurrences(state, slot, slot + limits.slots, DEAD)
        if dead:
            met |= _DEAD_SLOT
        if dead < limits.slots:
            met |= _READABLE
    elif kind == _DESTRUCTOR:
        first = shape.fields + state[top + CONTEXT_OF] * limits.fields
        for cell in state[first : first + limits.fields]:
            if cell >= 0:
                met |= _OWN_FIELD
    return met


def kinds_mask(state: State, limits: Limits) -> int:
    """Return the mask of the kinds of which at least one operation is possible now."""
    context = state[limits.shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS + CONTEXT_KIND]
    return fitting(needs_met(state, limits), context, limits.kinds_mask)


def fitting(met: int, context: int, enabled: int) -> int:
    """Return the mask of the enabled kinds that are possible in a context when these needs are met."""
    return enabled & _POSSIBLE_IN[context] & _FITTING[met & 127] & _FITTING[128 + (met >> 7 & 127)] & _FITTING[256 + (met >> 14)]


def kinds_possible(state: State, limits: Limits) -> tuple[Kind, ...]:
    """Return the kinds of which at least one operation is possible now, in the order of `Kind`."""
    return tuple(Kind(kind) for kind in bits(kinds_mask(state, limits)))


def choose_op(state: State, limits: Limits, chooser: Chooser) -> Row:
    """Draw the next operation: its kind, its operands, its items.

    Raises:
        Exhausted: the chooser has no more answers, or nothing is possible.
    """
    kinds = kinds_mask(state, limits)
    count = popcount(kinds)
    if not count:
        raise Exhausted
    return choose_operands(nth(kinds, ask(chooser, count) if count > 1 else 0), state, limits, chooser)


def choose_operands(kind: int, state: State, limits: Limits, chooser: Chooser) -> Row:
    """Draw the operands of an operation whose kind is settled (and possible)."""
    domains, items, longest = DRAWS[kind]
    row = [int(kind)]
    for domain, form in domains:
        row.append(DRAW[form](domain(state, limits, row), chooser))
    if items is not None and longest is not None:
        domain, form = items
        most = longest(state, limits)
        for _ in range(ask(chooser, most + 1) if most else 0):
            values = domain(state, limits, row)
            if not values:
                break
            row.append(DRAW[form](values, chooser))
    return tuple(row)


def impossible(state: State, limits: Limits, row: Row) -> str | None:
    """Say why an operation is not possible now, or None if it is. Kinds that are not enabled are possible all the same."""
    spec = BY_KIND[row[0]]
    shape = limits.shape
    context = Context(state[shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS + CONTEXT_KIND])
    if context not in spec.contexts:
        return f"not in a {context.name.lower()} context"
    lacking = Need(_NEEDS[row[0]] & ~needs_met(state, limits))
    if lacking:
        return f"needs {'|'.join(need.name or '' for need in lacking).lower()}"
    for position, (name, domain) in enumerate(spec.operands, start=1):
        function, form = DOMAINS[domain]
        if not has(function(state, limits, row[:position]), form, row[position]):
            return f"{name} is out of its domain"
    if spec.items is not None:
        name, domain = spec.items
        first = len(spec.operands) + 1
        if len(row) - first > LONGEST[domain](state, limits):
            return f"too many {name}"
        function, form = DOMAINS[domain]
        for position in range(first, len(row)):
            if not has(function(state, limits, row[:position]), form, row[position]):
                return f"{name} is out of its domain"
    return None


_WASM: Final = int(Context.WASM)
_DESTRUCTOR: Final = int(Context.DESTRUCTOR)
_POSSIBLE_IN: Final = tuple(sum(1 << kind for kind in Kind if context in BY_KIND[kind].contexts) for context in Context)
"""For each context: mask of the kinds that are possible in it."""
_NEEDS: Final = tuple(int(spec.needs if spec.closing else spec.needs | Need.BUDGET) for spec in BY_KIND)
"""For each kind: what it needs, as a mask."""
_FITTING: Final = tuple(
    sum(1 << kind for kind in Kind if not _NEEDS[kind] & (127 ^ met) << shift & 127 << shift) for shift in (0, 7, 14) for met in range(128)
)
"""For each seven of the needs in turn and each way to meet them: mask of the kinds that none of these seven stands in the way of."""
# Plain ints: an IntFlag operation costs a microsecond.
_ROOT: Final = int(Need.ROOT)
_ROOT_FIELD: Final = int(Need.ROOT | Need.FIELD)
_ROOT_ROOM: Final = int(Need.ROOT_ROOM)
_NAME_ROOM: Final = int(Need.NAME_ROOM)
_CONTEXT_ROOM: Final = int(Need.CONTEXT_ROOM)
_LEAK_ROOM: Final = int(Need.LEAK_ROOM)
_CALM: Final = int(Need.CALM)
_UNWINDABLE: Final = int(Need.UNWINDABLE)
_WASM_BELOW: Final = int(Need.WASM_BELOW)
_NO_WASM: Final = int(Need.NO_WASM)
_BUDGET: Final = int(Need.BUDGET)
_STORE: Final = int(Need.STORE)
_INSTANCE: Final = int(Need.INSTANCE)
_IDLE: Final = int(Need.IDLE_INSTANCE)
_INSTANCE_ROOM: Final = int(Need.INSTANCE_ROOM)
_DEAD_SLOT: Final = int(Need.DEAD_SLOT)
_READABLE: Final = int(Need.READABLE)
_OWN_FIELD: Final = int(Need.OWN_FIELD)
