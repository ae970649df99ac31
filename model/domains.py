"""Where each operand is drawn from: a domain is one int and a form, so that it is counted and indexed without a list.

| form | the int is | its values, in drawing order |
| --- | --- | --- |
| MEMBERS | a mask | NULL if bit 0 is set, then `v` for each bit `v + 1`, ascending |
| SUBSETS | a mask | its submasks, ascending: the empty one first |
| RANGE | a count | 0, 1, ... |

A domain's function is given the state, the limits and the row drawn so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.code import CODE_MODULES
from model.limits import (
    BOOK_WORDS,
    BUSY,
    CONTEXT_OF,
    CONTEXT_WORDS,
    DEPTH,
    INSTANCES,
    ROOTS_TOTAL,
    UNDER_WAY,
    Limits,
)
from model.ops import BY_KIND, NULL, Context, Domain, Kind
from model.state import State, dead_mask, root_mask
from model.words import ask, bits, deposit, nth, occurrences, popcount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.choose import Chooser

MEMBERS: Final = 0
SUBSETS: Final = 1
RANGE: Final = 2

_NULL_TOO: Final = 1  # NULL as a member
_WASM: Final = int(Context.WASM)
_SET_FIELD: Final = int(Kind.SET_FIELD)
_FILLS: Final = 1 << Kind.HOST_TABLE_FILL | 1 << Kind.TABLE_FILL
_INITS: Final = 1 << Kind.HOST_TABLE_INIT | 1 << Kind.TABLE_INIT
_SOURCE_POSITION: Final = 4


def draw_member(domain: int, chooser: Chooser) -> int:
    """Draw from a domain of the form MEMBERS."""
    size = popcount(domain)
    return nth(domain, ask(chooser, size) if size > 1 else 0) - 1


def draw_subset(domain: int, chooser: Chooser) -> int:
    """Draw from a domain of the form SUBSETS."""
    return deposit(ask(chooser, 1 << popcount(domain)), domain) if domain else 0


def draw_number(domain: int, chooser: Chooser) -> int:
    """Draw from a domain of the form RANGE."""
    return ask(chooser, domain) if domain > 1 else 0


DRAW: Final = (draw_member, draw_subset, draw_number)
"""How to draw from a domain, by its form."""


def values_of(domain: int, form: int) -> list[int]:
    """Return the values of a domain in drawing order. Nobody who draws needs it."""
    if form == MEMBERS:
        return [number - 1 for number in bits(domain)]
    if form == SUBSETS:
        return [deposit(n, domain) for n in range(1 << popcount(domain))]
    return list(range(domain))


def has(domain: int, form: int, value: int) -> bool:
    """Say whether a value is in a domain."""
    if form == MEMBERS:
        return value >= NULL and bool(domain >> (value + 1) & 1)
    if form == SUBSETS:
        return not value & ~domain
    return 0 <= value < domain


# What several domains and the needs ask of the state.


def roots_left(state: State, limits: Limits, row: Sequence[int], first: int, last: int) -> int:
    """Return the mask of the names that the host still holds when those in `row[first:last]` have been moved away."""
    left = root_mask(state, limits.shape)
    for index in range(first, last):
        name = row[index]
        if name >= 0 and state[limits.shape.roots + name] <= occurrences(row, first, last, name):
            left &= ~(1 << name)
    return left


def busy_instances(state: State, limits: Limits) -> int:
    """Return the mask of the instances that have an activation on the stack or are about to get one."""
    shape = limits.shape
    busy = 0
    at = shape.contexts
    for _ in range(state[DEPTH]):
        if state[at] == _WASM:
            busy |= 1 << state[at + CONTEXT_OF]
        at += CONTEXT_WORDS
    for index in range(state[UNDER_WAY]):
        busy |= 1 << state[shape.books + index * BOOK_WORDS + BUSY] >> 1
    return busy


def oldest_activation(state: State, limits: Limits) -> int:
    """Return the index of the oldest activation's context. A walk that ends before the frames of it has not found the canary."""
    at = limits.shape.contexts
    for index in range(state[DEPTH]):
        if state[at + index * CONTEXT_WORDS] == _WASM:
            return index
    return state[DEPTH]


def readable_mask(state: State, limits: Limits) -> int:
    """Return the mask of the top activation's slots that are not dead."""
    return ((1 << limits.slots) - 1) & ~dead_mask(state, limits, state[DEPTH] - 1)


def _source_size(state: State, limits: Limits, row: Sequence[int]) -> int:
    if _INITS >> row[0] & 1:
        return state[limits.shape.segment_lengths + row[2]]
    return state[limits.shape.table_sizes + row[2]]


# The domains, in the order of `Domain`.


def _layout(_state: State, limits: Limits, _row: Sequence[int]) -> int:
    return limits.layouts


def _root(state: State, limits: Limits, _row: Sequence[int]) -> int:
    return root_mask(state, limits.shape) << 1


def _root_or_null(state: State, limits: Limits, row: Sequence[int]) -> int:
    # The handle of the owner is in use while its field is set, so it cannot be what is moved in.
    return _NULL_TOO | roots_left(state, limits, row, 1, 2 if row[0] == _SET_FIELD else 1) << 1


def _field_index(_state: State, limits: Limits, _row: Sequence[int]) -> int:
    return limits.fields


def _own_field_index(state: State, limits: Limits, _row: Sequence[int]) -> int:
    shape = limits.shape
    name = state[shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS + CONTEXT_OF]
    first = shape.fields + name * limits.fields
    found = 0
    for index in range(limits.fields):
        if state[first + index] >= 0:
            found |= 2 << index
    return found


def _instance(state: State, _limits: Limits, _row: Sequence[int]) -> int:
    return state[INSTANCES] << 1


def _idle_instance(state: State, limits: Limits, _row: Sequence[int]) -> int:
    return (state[INSTANCES] & ~busy_instances(state, limits)) << 1


def _function(_state: State, limits: Limits, _row: Sequence[int]) -> int:
    return limits.functions


def _global(_state: State, limits: Limits, _row: Sequence[int]) -> int:
    return limits.globals


def _element(state: State, limits: Limits, row: Sequence[int]) -> int:
    return state[limits.shape.table_sizes + row[1]] + 1


def _start(state: State, limits: Limits, row: Sequence[int]) -> int:
    if len(row) == _SOURCE_POSITION:
        return _source_size(state, limits, row) + 1
    return state[limits.shape.table_sizes + row[1]] + 1


def _count(state: State, limits: Limits, row: Sequence[int]) -> int:
    size = state[limits.shape.table_sizes + row[1]]
    if _FILLS >> row[0] & 1:
        return size - row[2] + 2
    return min(size - row[3], _source_size(state, limits, row) - row[4]) + 2


def _delta(state: State, limits: Limits, row: Sequence[int]) -> int:
    return min(2, limits.table - state[limits.shape.table_sizes + row[1]]) + 2


def _module(_state: State, limits: Limits, _row: Sequence[int]) -> int:
    return limits.modules


def _code_module(_state: State, _limits: Limits, _row: Sequence[int]) -> int:
    return CODE_MODULES


def _initial(state: State, limits: Limits, _row: Sequence[int]) -> int:
    if not limits.globals:
        return _NULL_TOO
    return _NULL_TOO | root_mask(state, limits.shape) << 1 | state[INSTANCES] << (limits.objects + 1)


def _segment_mask(_state: State, limits: Limits, row: Sequence[int]) -> int:
    return 1 << limits.segment if row[2] != NULL else 1


def _flag(_state: State, limits: Limits, _row: Sequence[int]) -> int:
    return 2 if 0 < limits.segment <= limits.table else 1


def _readable_slot(state: State, limits: Limits, _row: Sequence[int]) -> int:
    return readable_mask(state, limits) << 1


def _target_slot(_state: State, limits: Limits, _row: Sequence[int]) -> int:
    return limits.slots


def _dead_slot(state: State, limits: Limits, _row: Sequence[int]) -> int:
    return dead_mask(state, limits, state[DEPTH] - 1) << 1


def _live(state: State, limits: Limits, _row: Sequence[int]) -> int:
    return readable_mask(state, limits)


def _live_but_target(state: State, limits: Limits, row: Sequence[int]) -> int:
    return readable_mask(state, limits) & ~(1 << row[3])


def _frames(state: State, limits: Limits, _row: Sequence[int]) -> int:
    return state[DEPTH] - oldest_activation(state, limits) + 1


def _after(_state: State, _limits: Limits, _row: Sequence[int]) -> int:
    return 2


def _order(_state: State, limits: Limits, _row: Sequence[int]) -> int:
    return limits.orders


def _owned_roots(state: State, limits: Limits, row: Sequence[int]) -> int:
    return roots_left(state, limits, row, 2, len(row)) << 1


def _moved_roots(state: State, limits: Limits, row: Sequence[int]) -> int:
    return _NULL_TOO | roots_left(state, limits, row, 3, len(row)) << 1


def _returned_roots(state: State, limits: Limits, row: Sequence[int]) -> int:
    return _NULL_TOO | roots_left(state, limits, row, 1, len(row)) << 1


_DOMAINS: Final[dict[Domain, tuple[Callable[[State, Limits, Sequence[int]], int], int]]] = {
    Domain.LAYOUT: (_layout, RANGE),
    Domain.ROOT: (_root, MEMBERS),
    Domain.ROOT_OR_NULL: (_root_or_null, MEMBERS),
    Domain.OWNER: (_root, MEMBERS),
    Domain.FIELD_INDEX: (_field_index, RANGE),
    Domain.OWN_FIELD_INDEX: (_own_field_index, MEMBERS),
    Domain.INSTANCE: (_instance, MEMBERS),
    Domain.IDLE_INSTANCE: (_idle_instance, MEMBERS),
    Domain.FUNCTION: (_function, RANGE),
    Domain.GLOBAL: (_global, RANGE),
    Domain.ELEMENT: (_element, RANGE),
    Domain.START: (_start, RANGE),
    Domain.COUNT: (_count, RANGE),
    Domain.DELTA: (_delta, RANGE),
    Domain.MODULE: (_module, RANGE),
    Domain.CODE_MODULE: (_code_module, RANGE),
    Domain.INITIAL: (_initial, MEMBERS),
    Domain.SEGMENT_MASK: (_segment_mask, RANGE),
    Domain.FLAG: (_flag, RANGE),
    Domain.READABLE_SLOT: (_readable_slot, MEMBERS),
    Domain.TARGET_SLOT: (_target_slot, RANGE),
    Domain.DEAD_SLOT: (_dead_slot, MEMBERS),
    Domain.LIVE: (_live, SUBSETS),
    Domain.LIVE_BUT_TARGET: (_live_but_target, SUBSETS),
    Domain.FRAMES: (_frames, RANGE),
    Domain.AFTER: (_after, RANGE),
    Domain.ORDER: (_order, RANGE),
    Domain.OWNED_ROOTS: (_owned_roots, MEMBERS),
    Domain.MOVED_ROOTS: (_moved_roots, MEMBERS),
    Domain.SLOTS_TO_WASM: (_readable_slot, MEMBERS),
    Domain.SLOTS_TO_HOST: (_readable_slot, MEMBERS),
    Domain.RETURNED_SLOTS: (_readable_slot, MEMBERS),
    Domain.RETURNED_ROOTS: (_returned_roots, MEMBERS),
}
DOMAINS: Final = tuple(_DOMAINS[domain] for domain in Domain)
"""The function and the form of each domain, by number; the table is complete or this module does not import."""


# The greatest lengths of lists.


def _owned_roots_max(state: State, limits: Limits) -> int:
    return min(limits.fields, state[ROOTS_TOTAL])


def _passed_to_wasm_max(_state: State, limits: Limits) -> int:
    return min(limits.arguments, limits.slots)


def _passed_to_host_max(state: State, limits: Limits) -> int:
    return min(limits.arguments, limits.roots - state[ROOTS_TOTAL])


def _returned_to_wasm_max(state: State, limits: Limits) -> int:
    return min(limits.arguments, popcount(dead_mask(state, limits, state[DEPTH] - 2)))


def _returned_max(state: State, limits: Limits) -> int:
    if state[limits.shape.contexts + (state[DEPTH] - 2) * CONTEXT_WORDS] == _WASM:
        return _returned_to_wasm_max(state, limits)
    return _passed_to_host_max(state, limits)


LONGEST: Final[dict[Domain, Callable[[State, Limits], int]]] = {
    Domain.OWNED_ROOTS: _owned_roots_max,
    Domain.MOVED_ROOTS: _passed_to_wasm_max,
    Domain.SLOTS_TO_WASM: _passed_to_wasm_max,
    Domain.SLOTS_TO_HOST: _passed_to_host_max,
    Domain.RETURNED_SLOTS: _returned_max,
    Domain.RETURNED_ROOTS: _returned_to_wasm_max,
}
"""The greatest length of each list operand."""

DRAWS: Final = tuple(
    (
        tuple(DOMAINS[domain] for _, domain in spec.operands),
        DOMAINS[spec.items[1]] if spec.items else None,
        LONGEST[spec.items[1]] if spec.items else None,
    )
    for spec in BY_KIND
)
"""For each kind: function and form of its operands, of an item of its list, and the function of the list's greatest length."""
