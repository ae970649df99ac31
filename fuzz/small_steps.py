"""The model alone moves in small steps, so that a state is one flat row of ints and nothing waits on a Python stack.

An operation begins; while it may still kill, any value that may die is destroyed, one a step; a destructor that may act does operations
of its own until it ends; and the operation finishes as soon as all that must be dead is dead. What an implementation would decide (which
value dies when, whether the bump chunk has room) is open, so every implementation of these bounds that keeps to the model is covered.

An operation that released nothing and does not collect cannot kill, and is one step. The others are *pending* in between: the little
that their end needs is kept in words behind the model's own, a group for each of the model's books.

Functions over lists of ints: no closures, and no objects but the bounds. All that a step does is also compiled (`fuzz.compiled.small`).
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
from model.words import bits, lowest, popcount, put

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
_LOADS: Final = 1 << Kind.GLOBAL_GET | 1 << Kind.TABLE_GET
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


def take(state: State, limits: Limits, what: int, row: Row) -> bool:
    """Take a step in place; return whether it was allowed (if not, the state is of no use any more).

    Raises:
        Violation: an operation that can kill nothing must have killed something.
    """
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
    allowed = True
    try:
        if not destruction_begins(state, limits, name):
            destruction_ends(state, limits, name, acted=False, panicked=False)
    except Violation:
        allowed = False
    return allowed


def _finish(state: State, limits: Limits) -> bool:
    result = _kept_result(state, limits)
    row = kept_row(state, limits)
    _forget(state, limits)
    allowed = True
    try:
        _complete(state, limits, row, result)
    except Violation:
        allowed = False
    return allowed


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
    first = names_at(limits) + level * names_width(limits)
    if _LOADS >> kind & 1:
        if result != OUT_OF_BOUNDS:
            state[at + WHAT] = row[3]
            state[at + COUNT] = 1
            state[first] = result
        return
    before = 1
    if kind == _CALL_WASM:
        state[at + WHERE] = row[1]
        state[at + WHAT] = row[2]
        before = 3
    elif kind != _RETURN_IMPORT:
        return
    for name in row[before:]:
        state[first + state[at + COUNT]] = name
        state[at + COUNT] += 1


def kept_row(state: State, limits: Limits) -> Row:
    """Return the row of the innermost pending operation, as far as its end looks at it."""
    level = state[UNDER_WAY] - 1
    kind = state[limits.shape.books + level * BOOK_WORDS + KIND]
    at = limits.shape.size + level * PENDING_WORDS
    first = names_at(limits) + level * names_width(limits)
    names = state[first : first + state[at + COUNT]]
    if kind == _CALL_WASM:
        return (kind, state[at + WHERE], state[at + WHAT], *names)
    if _LOADS >> kind & 1:
        return (kind, 0, 0, state[at + WHAT], 0)
    return (kind, *names)


def _kept_result(state: State, limits: Limits) -> int:
    """Return the result of the innermost pending operation: what it loaded, if it is a load."""
    level = state[UNDER_WAY] - 1
    if not _LOADS >> state[limits.shape.books + level * BOOK_WORDS + KIND] & 1:
        return 0
    if not state[limits.shape.size + level * PENDING_WORDS + COUNT]:
        return OUT_OF_BOUNDS
    return state[names_at(limits) + level * names_width(limits)]


def _forget(state: State, limits: Limits) -> None:
    """Clear what is kept of the innermost pending operation, so that equal states are equal rows."""
    level = state[UNDER_WAY] - 1
    at = limits.shape.size + level * PENDING_WORDS
    if state[at + COUNT] or state[at + WHERE] or state[at + WHAT]:
        put(state, at, at + PENDING_WORDS, 0)
        width = names_width(limits)
        first = names_at(limits) + level * width
        put(state, first, first + width, NULL)


# Properties of the model alone.


def check_properties(state: State, limits: Limits) -> None:
    """Look for the properties that a state must have.

    * Whoever is named lives: by the host, by storage, by a value, in a live slot, in the hands of an operation, or deferred.
    * As many values are dying as destructors act; at rest, with nothing under way, none is.
    * At rest, a value that nobody owns and no activation reads is deferred, or is owned by such a value: nothing else would ever free it.

    Raises:
        Violation: it lacks one; the message says which.
    """
    shape = limits.shape
    live = state[LIVE]
    named = state[LEAKED] | state[DEFERRED] | root_mask(state, shape) | held_mask(state, shape)
    dead = (named | mask_of(state, shape.fields, shape.slots_end)) & ~live
    if dead:
        raise Violation(f"value {lowest(dead)} is dead, and somebody still holds it")
    if popcount(state[DYING]) != state[NESTED]:
        raise Violation(f"{state[DYING].bit_count()} values are dying, and {state[NESTED]} destructors act")
    if not state[UNDER_WAY]:
        if state[DYING] or state[INNERMOST]:
            raise Violation("a destructor acts, and no operation is under way")
        if live & ~state[DEFERRED]:
            lost = unreachable(state, limits, state[DEFERRED])
            if lost:
                raise Violation(f"value {lowest(lost)} is lost: nobody owns it, no activation reads it, and its death is not deferred")


def broken(state: State, limits: Limits) -> str:
    """Name the property that a state breaks; empty if it breaks none."""
    try:
        check_properties(state, limits)
    except Violation as violation:
        return str(violation)
    return ""


def closing_row(state: State, limits: Limits) -> Row:
    """Return the next operation of the finale; empty when nothing is left to do."""
    kind = closing_kind(state, limits)
    if kind == NULL:
        return ()
    return (kind, closing_name(state, limits)) if kind == _DROP else (kind,)


def let_go(state: State, limits: Limits) -> None:
    """Let go of everything from a state at rest, in place. Destructors end at once.

    Raises:
        Violation: something prevents it, or is left behind that was not forgotten and is in no cycle.
    """
    while True:
        row = closing_row(state, limits)
        if len(row) == 0:
            break
        kind = row[0]
        take(state, limits, OPERATE, row)
        while pending(state):
            mask = mortal(state, limits)
            if not mask:
                if not _finish(state, limits):
                    raise Violation(f"letting go of everything comes to a halt in {Kind(kind).name.lower()}")
            elif _destroy(state, limits, lowest(mask)) and not pending(state):
                take(state, limits, OPERATE, closing_row(state, limits))
    check_end(state, limits)


def finale(state: State, limits: Limits) -> str:
    """Let go of everything from a state at rest, in place; say what prevents it or is left behind, empty if nothing."""
    try:
        let_go(state, limits)
    except Violation as violation:
        return str(violation)
    return ""
