"""`choose_op` is the single source of what is possible: engines enumerate it, sample it, or ask it whether a row fits.

First a kind among the kinds possible now, then each operand from its domain, then the items of the list. A draw among one
alternative is not drawn: no choice, no nondeterminism.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from model.code import CODE_MODULES
from model.limits import (
    BOOK_WORDS,
    BUSY,
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
from model.ops import BY_KIND, DEAD, NULL, SPECS, Context, Domain, Kind, Need, Row
from model.state import State, bits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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
    if state[LEAKED].bit_count() < limits.leaks:
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
        dead = state[slot : slot + limits.slots].count(DEAD)
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


def kinds_possible(state: State, limits: Limits) -> tuple[Kind, ...]:
    """Return the kinds of which at least one operation is possible now, in the order of `Kind`."""
    shape = limits.shape
    context = state[shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS + CONTEXT_KIND]
    met = needs_met(state, limits)
    cache = limits.kinds_cache
    key = met << 2 | context
    kinds = cache.get(key)
    if kinds is None:
        kinds = cache[key] = tuple(kind for kind in Kind if kind in limits.kinds | _ALWAYS and _fits(kind, Context(context), met))
    return kinds


def _fits(kind: Kind, context: Context, met: int) -> bool:
    spec = SPECS[kind]
    needs = spec.needs if spec.closing else spec.needs | Need.BUDGET
    return context in spec.contexts and not needs & ~met


def choose_op(state: State, limits: Limits, chooser: Chooser) -> Row:
    """Draw the next operation: its kind, its operands, its items.

    Raises:
        Exhausted: the chooser has no more answers, or nothing is possible.
    """
    kinds = kinds_possible(state, limits)
    if not kinds:
        raise Exhausted
    return choose_operands(kinds[chooser.choose(len(kinds)) if len(kinds) > 1 else 0], state, limits, chooser)


def choose_operands(kind: Kind, state: State, limits: Limits, chooser: Chooser) -> Row:
    """Draw the operands of an operation whose kind is settled (and possible)."""
    domains, items, longest = _DRAWS[kind]
    row = [int(kind)]
    choose = chooser.choose
    for domain in domains:
        values = domain(state, limits, row)
        count = len(values)
        row.append(values[choose(count)] if count > 1 else values[0])
    if items is not None and longest is not None:
        most = longest(state, limits)
        for _ in range(choose(most + 1) if most else 0):
            values = items(state, limits, row)
            count = len(values)
            if not count:
                break
            row.append(values[choose(count)] if count > 1 else values[0])
    return tuple(row)


def impossible(state: State, limits: Limits, row: Row) -> str | None:
    """Say why an operation is not possible now, or None if it is. Kinds that are not enabled are possible all the same."""
    spec = BY_KIND[row[0]]
    shape = limits.shape
    context = Context(state[shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS + CONTEXT_KIND])
    if context not in spec.contexts:
        return f"not in a {context.name.lower()} context"
    needs = spec.needs if spec.closing else spec.needs | Need.BUDGET
    lacking = Need(needs & ~needs_met(state, limits))
    if lacking:
        return f"needs {'|'.join(need.name or '' for need in lacking).lower()}"
    for position, (name, domain) in enumerate(spec.operands, start=1):
        if row[position] not in DOMAINS[domain](state, limits, row[:position]):
            return f"{name} is out of its domain"
    if spec.items is not None:
        name, domain = spec.items
        first = len(spec.operands) + 1
        if len(row) - first > LONGEST[domain](state, limits):
            return f"too many {name}"
        for position in range(first, len(row)):
            if row[position] not in DOMAINS[domain](state, limits, row[:position]):
                return f"{name} is out of its domain"
    return None


# Domains: functions of the state, the limits, and the row drawn so far.


def roots_left(state: State, limits: Limits, taken: Sequence[int]) -> list[int]:
    """Return the names that the host still holds when those taken have been moved away, in order."""
    shape = limits.shape
    counts = state[shape.roots : shape.fields]
    if not taken:
        return [name for name, count in enumerate(counts) if count]
    return [name for name, count in enumerate(counts) if count and count > taken.count(name)]


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
    slot = limits.shape.slots + (state[DEPTH] - 1) * limits.slots
    mask = 0
    for index in range(limits.slots):
        if state[slot + index] != DEAD:
            mask |= 1 << index
    return mask


def dead_slots(state: State, limits: Limits, context: int) -> list[int]:
    """Return the dead slots of the activation at this context index, lowest first."""
    slot = limits.shape.slots + context * limits.slots
    return [index for index in range(limits.slots) if state[slot + index] == DEAD]


@lru_cache(maxsize=1 << 11)
def submasks(mask: int) -> tuple[int, ...]:
    """Return all submasks of a mask, the empty one first."""
    found = [0]
    for bit in bits(mask):
        found += [old | 1 << bit for old in found]
    return tuple(found)


def _readable(state: State, limits: Limits, _row: Sequence[int]) -> list[int]:
    slot = limits.shape.slots + (state[DEPTH] - 1) * limits.slots
    return [index for index in range(limits.slots) if state[slot + index] != DEAD]


def _root_or_null(state: State, limits: Limits, row: Sequence[int]) -> list[int]:
    # The handle of the owner is in use while its field is set, so it cannot be what is moved in.
    return [NULL, *roots_left(state, limits, row[1:2] if row[0] == Kind.SET_FIELD else ())]


def _own_fields(state: State, limits: Limits, _row: Sequence[int]) -> list[int]:
    shape = limits.shape
    name = state[shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS + CONTEXT_OF]
    first = shape.fields + name * limits.fields
    return [index for index in range(limits.fields) if state[first + index] >= 0]


def _start(state: State, limits: Limits, row: Sequence[int]) -> range:
    if len(row) == _SOURCE_POSITION:
        return range(_source_size(state, limits, row) + 1)
    return range(state[limits.shape.table_sizes + row[1]] + 1)


def _source_size(state: State, limits: Limits, row: Sequence[int]) -> int:
    if row[0] in _INITS:
        return state[limits.shape.segment_lengths + row[2]]
    return state[limits.shape.table_sizes + row[2]]


def _count(state: State, limits: Limits, row: Sequence[int]) -> range:
    size = state[limits.shape.table_sizes + row[1]]
    if row[0] in _FILLS:
        return range(size - row[2] + 2)
    return range(min(size - row[3], _source_size(state, limits, row) - row[4]) + 2)


def _initial(state: State, limits: Limits, _row: Sequence[int]) -> list[int]:
    imports = [limits.objects + i for i in bits(state[INSTANCES])] if limits.globals else []
    return [NULL, *roots_left(state, limits, ()), *imports] if limits.globals else [NULL]


_FILLS: Final = (Kind.HOST_TABLE_FILL, Kind.TABLE_FILL)
_INITS: Final = (Kind.HOST_TABLE_INIT, Kind.TABLE_INIT)
_SOURCE_POSITION: Final = 4
_ALWAYS: Final = frozenset({Kind.END, Kind.RETURN, Kind.RETURN_IMPORT})
"""The ways out of a context are always enabled, or a run could not finish."""
_WASM: Final = int(Context.WASM)
_DESTRUCTOR: Final = int(Context.DESTRUCTOR)
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

_DOMAINS: Final[dict[Domain, Callable[[State, Limits, Sequence[int]], Sequence[int]]]] = {
    Domain.LAYOUT: lambda _s, limits, _r: range(limits.layouts),
    Domain.ROOT: lambda s, limits, _r: roots_left(s, limits, ()),
    Domain.ROOT_OR_NULL: _root_or_null,
    Domain.OWNER: lambda s, limits, _r: roots_left(s, limits, ()),
    Domain.FIELD_INDEX: lambda _s, limits, _r: range(limits.fields),
    Domain.OWN_FIELD_INDEX: _own_fields,
    Domain.INSTANCE: lambda s, _l, _r: bits(s[INSTANCES]),
    Domain.IDLE_INSTANCE: lambda s, limits, _r: bits(s[INSTANCES] & ~busy_instances(s, limits)),
    Domain.FUNCTION: lambda _s, limits, _r: range(limits.functions),
    Domain.GLOBAL: lambda _s, limits, _r: range(limits.globals),
    Domain.ELEMENT: lambda s, limits, row: range(s[limits.shape.table_sizes + row[1]] + 1),
    Domain.START: _start,
    Domain.COUNT: _count,
    Domain.DELTA: lambda s, limits, row: range(min(2, limits.table - s[limits.shape.table_sizes + row[1]]) + 2),
    Domain.MODULE: lambda _s, limits, _r: range(limits.modules),
    Domain.CODE_MODULE: lambda _s, _l, _r: range(CODE_MODULES),
    Domain.INITIAL: _initial,
    Domain.SEGMENT_MASK: lambda _s, limits, row: range(1 << limits.segment if row[2] != NULL else 1),
    Domain.FLAG: lambda _s, limits, _r: range(2 if 0 < limits.segment <= limits.table else 1),
    Domain.READABLE_SLOT: _readable,
    Domain.TARGET_SLOT: lambda _s, limits, _r: range(limits.slots),
    Domain.DEAD_SLOT: lambda s, limits, _r: dead_slots(s, limits, s[DEPTH] - 1),
    Domain.LIVE: lambda s, limits, _r: submasks(readable_mask(s, limits)),
    Domain.LIVE_BUT_TARGET: lambda s, limits, row: submasks(readable_mask(s, limits) & ~(1 << row[3])),
    Domain.FRAMES: lambda s, limits, _r: range(s[DEPTH] - oldest_activation(s, limits) + 1),
    Domain.AFTER: lambda _s, _l, _r: range(2),
    Domain.ORDER: lambda _s, limits, _r: range(limits.orders),
    Domain.OWNED_ROOTS: lambda s, limits, row: roots_left(s, limits, row[2:]),
    Domain.MOVED_ROOTS: lambda s, limits, row: [NULL, *roots_left(s, limits, row[3:])],
    Domain.SLOTS_TO_WASM: _readable,
    Domain.SLOTS_TO_HOST: _readable,
    Domain.RETURNED_SLOTS: _readable,
    Domain.RETURNED_ROOTS: lambda s, limits, row: [NULL, *roots_left(s, limits, row[1:])],
}
DOMAINS: Final = [_DOMAINS[domain] for domain in Domain]
"""The function of each domain, by number; the list is complete or this module does not import."""


def _returned(state: State, limits: Limits) -> int:
    caller = state[DEPTH] - 2
    if state[limits.shape.contexts + caller * CONTEXT_WORDS] == Context.WASM:
        return min(limits.arguments, len(dead_slots(state, limits, caller)))
    return min(limits.arguments, limits.roots - state[ROOTS_TOTAL])


LONGEST: Final[dict[Domain, Callable[[State, Limits], int]]] = {
    Domain.OWNED_ROOTS: lambda s, limits: min(limits.fields, s[ROOTS_TOTAL]),
    Domain.MOVED_ROOTS: lambda _s, limits: min(limits.arguments, limits.slots),
    Domain.SLOTS_TO_WASM: lambda _s, limits: min(limits.arguments, limits.slots),
    Domain.SLOTS_TO_HOST: lambda s, limits: min(limits.arguments, limits.roots - s[ROOTS_TOTAL]),
    Domain.RETURNED_SLOTS: _returned,
    Domain.RETURNED_ROOTS: lambda s, limits: min(limits.arguments, len(dead_slots(s, limits, s[DEPTH] - 2))),
}
"""The greatest length of each list operand."""

_DRAWS: Final = [
    (
        [DOMAINS[domain] for _, domain in spec.operands],
        DOMAINS[spec.items[1]] if spec.items else None,
        LONGEST[spec.items[1]] if spec.items else None,
    )
    for spec in BY_KIND
]
"""For each kind: the functions of its operands, of an item of its list, and of the list's greatest length."""
