"""The model alone moves in small steps, so that a state is one flat row of ints and nothing waits on a Python stack.

An operation begins; while it may still kill, any value that may die is destroyed, one a step; a destructor that may act does operations
of its own until it ends; and the operation finishes as soon as all that must be dead is dead. What an implementation would decide (which
value dies when, whether the bump chunk has room) is open, so every implementation of these bounds that keeps to the model is covered.

An operation that released nothing and does not collect cannot kill, and is one step. The others are *pending* in between: the little
that their end needs is kept in words behind the model's own, a group for each of the model's books.

Functions over lists of ints: no closures, and no objects but the bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.answers import OUT_OF_BOUNDS
from model.books import SURELY, collecting, destruction_begins, destruction_ends, see
from model.limits import (
    BOOK_WORDS,
    COLLECTS,
    CONTEXT_KIND,
    CONTEXT_OF,
    CONTEXT_WORDS,
    DEFERRED,
    DEPTH,
    DYING,
    FULL,
    INNERMOST,
    KIND,
    LEAKED,
    LIVE,
    NESTED,
    PANICKED,
    RELEASED,
    UNDER_WAY,
)
from model.ops import NULL, Context, Kind, Row
from model.possible import possible_rows
from model.properties import Sometimes
from model.state import State, Violation, held_mask, initial, mask_of, root_mask, unreachable
from model.step import CAN_RELEASE, begin, check_end, closing_kind, closing_name, finish, inserts
from model.words import bits, lowest

if TYPE_CHECKING:
    from model.limits import Limits

Step = tuple[int, Row]
"""What is done, and the operation; of a destruction, the name alone."""

OPERATE: Final = 0
"""An operation that inserts into the activations table has room there."""
OPERATE_FULL: Final = 1
"""It finds the bump chunk full."""
DESTROY: Final = 2
FINISH: Final = 3

# Words of a pending operation. Names follow, so that all words with names are together.
WHERE: Final = 0  # instance
WHAT: Final = 1  # function, or target slot
COUNT: Final = 2  # names
PENDING_WORDS: Final = 3

_CALL_WASM: Final = int(Kind.CALL_WASM)
_RETURN_IMPORT: Final = int(Kind.RETURN_IMPORT)
_LOADS: Final = frozenset({Kind.GLOBAL_GET, Kind.TABLE_GET})
_PANIC: Final = int(Kind.PANIC)
_END: Final = int(Kind.END)
_DROP: Final = int(Kind.DROP)
_DESTRUCTOR: Final = int(Context.DESTRUCTOR)
_FINISH_STEP: Final[Step] = (FINISH, ())


def levels(limits: Limits) -> int:
    """Return how many operations can be pending at once."""
    return limits.destructors + 2


def names_width(limits: Limits) -> int:
    """Return how many names a pending operation keeps at most."""
    return max(limits.arguments, 1)


def names_at(limits: Limits) -> int:
    """Return the offset of the first pending operation's names; those of the others follow."""
    return limits.shape.size + levels(limits) * PENDING_WORDS


def size(limits: Limits) -> int:
    """Return how many words a state has."""
    return names_at(limits) + levels(limits) * names_width(limits)


def first_state(limits: Limits) -> State:
    """Return the state before the first operation."""
    count = levels(limits)
    return initial(limits) + [0] * (count * PENDING_WORDS) + [NULL] * (count * names_width(limits))


def pending(state: State) -> bool:
    """Say whether the innermost thing under way is an operation, and not a context that may begin one."""
    return state[UNDER_WAY] > state[NESTED]


def mortal(state: State, limits: Limits) -> int:
    """Return the mask of the values that may die now: what `destruction_begins` would not refuse."""
    shape = limits.shape
    if not state[UNDER_WAY]:
        return 0
    book = shape.books + (state[UNDER_WAY] - 1) * BOOK_WORDS
    candidates = state[LIVE]
    may_collect = state[book + COLLECTS]
    if may_collect and state[UNDER_WAY] > 1:
        state[UNDER_WAY] -= 1
        may_collect = collecting(state, limits) != SURELY
        state[UNDER_WAY] += 1
    if not may_collect:
        candidates &= state[book + RELEASED]
    if not candidates:
        return 0
    safe = state[LEAKED] | root_mask(state, shape) | held_mask(state, shape) | mask_of(state, shape.fields, shape.slots_end)
    return candidates & ~safe


def steps(state: State, limits: Limits) -> list[Step]:
    """Return what may be done in a state. A finish among it may turn out to be too early; see `take`."""
    if pending(state):
        found: list[Step] = [(DESTROY, (name,)) for name in bits(mortal(state, limits))]
        found.append(_FINISH_STEP)
        return found
    found = []
    for row in possible_rows(state, limits):
        found.append((OPERATE, row))
        if inserts(state, limits, row):
            found.append((OPERATE_FULL, row))
    return found


def take(state: State, limits: Limits, step: Step) -> bool:
    """Take a step in place; return whether it was allowed (if not, the state is of no use any more).

    Raises:
        Violation: an operation that can kill nothing must have killed something.
    """
    what, row = step
    if what == DESTROY:
        return _destroy(state, limits, row[0])
    if what == FINISH:
        return _finish(state, limits)
    state[FULL] = what  # OPERATE_FULL is 1
    result = begin(state, limits, row)
    state[FULL] = 0
    kind = row[0]
    if CAN_RELEASE[kind]:
        book = limits.shape.books + (state[UNDER_WAY] - 1) * BOOK_WORDS
        if state[book + RELEASED] or state[book + COLLECTS]:
            if result == OUT_OF_BOUNDS:
                see(state, Sometimes.OUT_OF_BOUNDS)
            _keep(state, limits, row, result)
            return True
    _complete(state, limits, row, result)
    return True


def _destroy(state: State, limits: Limits, name: int) -> bool:
    try:
        acts = destruction_begins(state, limits, name)
    except Violation:
        return False
    if not acts:
        destruction_ends(state, limits, name, acted=False, panicked=False)
    return True


def _finish(state: State, limits: Limits) -> bool:
    at = limits.shape.size + (state[UNDER_WAY] - 1) * PENDING_WORDS
    row, result = _kept(state, limits, at)
    _forget(state, limits)
    try:
        _complete(state, limits, row, result)
    except Violation:
        return False
    return True


def _complete(state: State, limits: Limits, row: Row, result: int) -> None:
    """End an operation, and the destructor that ends or panics with it."""
    kind = row[0]
    top = limits.shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS
    if kind == _END:
        finish(state, limits, row, result, panicked=False)
        destruction_ends(state, limits, state[top + CONTEXT_OF], acted=True, panicked=False)
        return
    panicked = False
    if CAN_RELEASE[kind]:
        panicked = state[limits.shape.books + (state[UNDER_WAY] - 1) * BOOK_WORDS + PANICKED] == 1
    finish(state, limits, row, result, panicked=panicked)
    if panicked or kind == _PANIC:
        top = limits.shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS
        if state[top + CONTEXT_KIND] == _DESTRUCTOR:
            destruction_ends(state, limits, state[top + CONTEXT_OF], acted=True, panicked=True)
            # The second half of what it panicked into is not made.
            _forget(state, limits)


def _keep(state: State, limits: Limits, row: Row, result: int) -> None:
    """Keep what the end of an operation needs to know of it."""
    kind = row[0]
    level = state[UNDER_WAY] - 1
    at = limits.shape.size + level * PENDING_WORDS
    names: Row
    if kind == _CALL_WASM:
        state[at + WHERE], state[at + WHAT], names = row[1], row[2], row[3:]
    elif kind == _RETURN_IMPORT:
        names = row[1:]
    elif kind in _LOADS and result != OUT_OF_BOUNDS:
        state[at + WHAT], names = row[3], (result,)
    else:
        return
    state[at + COUNT] = len(names)
    first = names_at(limits) + level * names_width(limits)
    for name in names:
        state[first] = name
        first += 1


def _kept(state: State, limits: Limits, at: int) -> tuple[Row, int]:
    """Return an operation's row, as far as its end looks at it, and its result."""
    level = state[UNDER_WAY] - 1
    kind = state[limits.shape.books + level * BOOK_WORDS + KIND]
    first = names_at(limits) + level * names_width(limits)
    names = tuple(state[first : first + state[at + COUNT]])
    if kind == _CALL_WASM:
        return (kind, state[at + WHERE], state[at + WHAT], *names), 0
    if kind in _LOADS:
        return (kind, 0, 0, state[at + WHAT], 0), names[0] if names else OUT_OF_BOUNDS
    return (kind, *names), 0


def _forget(state: State, limits: Limits) -> None:
    """Clear what is kept of the innermost pending operation, so that equal states are equal rows."""
    level = state[UNDER_WAY] - 1
    at = limits.shape.size + level * PENDING_WORDS
    if state[at + COUNT] or state[at + WHERE] or state[at + WHAT]:
        state[at : at + PENDING_WORDS] = [0] * PENDING_WORDS
        width = names_width(limits)
        first = names_at(limits) + level * width
        state[first : first + width] = [NULL] * width


# Properties of the model alone.


def broken(state: State, limits: Limits) -> str:
    """Name the property that a state breaks; empty if it breaks none.

    * Whoever is named lives: by the host, by storage, by a value, in a live slot, in the hands of an operation, or deferred.
    * As many values are dying as destructors act; at rest, with nothing under way, none is.
    * At rest, a value that nobody owns and no activation reads is deferred, or is owned by such a value: nothing else would ever free it.
    """
    shape = limits.shape
    live = state[LIVE]
    named = state[LEAKED] | state[DEFERRED] | root_mask(state, shape) | held_mask(state, shape)
    dead = (named | mask_of(state, shape.fields, shape.slots_end)) & ~live
    if dead:
        return f"value {lowest(dead)} is dead, and somebody still holds it"
    if state[DYING].bit_count() != state[NESTED]:
        return f"{state[DYING].bit_count()} values are dying, and {state[NESTED]} destructors act"
    if not state[UNDER_WAY]:
        if state[DYING] or state[INNERMOST]:
            return "a destructor acts, and no operation is under way"
        lost = unreachable(state, limits, state[DEFERRED]) if live & ~state[DEFERRED] else 0
        if lost:
            return f"value {lowest(lost)} is lost: nobody owns it, no activation reads it, and its death is not deferred"
    return ""


def finale(state: State, limits: Limits) -> str:
    """Let go of everything from a state at rest, in place; say what prevents it or is left behind. Destructors end at once.

    Returns:
        The broken promise in words; empty if nothing is left but what was forgotten or is cyclic.
    """
    try:
        while (kind := closing_kind(state, limits)) != NULL:
            row: Row = (kind, closing_name(state, limits)) if kind == _DROP else (kind,)
            take(state, limits, (OPERATE, row))
            while pending(state):
                mask = mortal(state, limits)
                if not mask:
                    if not _finish(state, limits):
                        return f"letting go of everything comes to a halt in {Kind(kind).name.lower()}"
                elif _destroy(state, limits, lowest(mask)) and not pending(state):
                    take(state, limits, (OPERATE, (_END,)))
        check_end(state, limits)
    except Violation as violation:
        return str(violation)
    return ""
