"""What an operation under way has in its hands, has let go of, and owes: the rules of may and must.

Destructors nest operations, so the books of those under way form a stack; the top one answers for a destruction.

* A value may die only inside an operation that took an owner from it, or inside a collection that is not nested; and only
  if nothing owns it and no activation can still read it.
* It must die when its last owner lets go and it was not passed to Wasm since the last complete collection (the host counts
  plainly), and when a complete collection ends that found it unowned and not live, unless it was taken up again meanwhile.
"""

from __future__ import annotations

from typing import Final

from model.limits import (
    BOOK_WORDS,
    COLLECTS,
    CONTEXT_AT,
    CONTEXT_OUTER,
    CONTEXT_WORDS,
    CUT,
    DEFERRED,
    DEPTH,
    DOOMED,
    DYING,
    FAIL,
    HELD,
    INNERMOST,
    KIND,
    LIVE,
    NESTED,
    ORDER,
    PANICKED,
    RELEASED,
    SEEN,
    STACKED,
    TOUCHED,
    UNDER_WAY,
    WASM_DEPTH,
    Limits,
)
from model.ops import NULL, Context, Kind
from model.properties import Sometimes
from model.state import (
    State,
    Violation,
    kept_by,
    on_stack,
    owned,
    owners_of,
    pop_context,
    push_context,
    stack_mask,
    unreachable,
)
from model.words import bits, lowest, put

SURELY: Final = 2
MAYBE: Final = 1
TRANSFERS: Final = 1 << Kind.CALL_WASM | 1 << Kind.RETURN_IMPORT | 1 << Kind.GLOBAL_GET | 1 << Kind.TABLE_GET
"""Mask of the kinds that pass references into Wasm."""


def see(state: State, what: Sometimes) -> None:
    """Note that a sometimes property has been seen."""
    state[SEEN] |= 1 << what


def collecting(state: State, limits: Limits) -> int:
    """Say whether a collection is under way: 0, MAYBE or SURELY.

    A destructor inside an operation that may collect and has nothing else to release can only have been run by a sweep. Once a
    destructor has panicked in a transfer, it may as well be the release of the arguments, after the sweep.
    """
    books = limits.shape.books
    answer = 0
    for index in range(state[UNDER_WAY]):
        book = books + index * BOOK_WORDS
        if state[book + COLLECTS]:
            if state[book + PANICKED] and TRANSFERS >> state[book + KIND] & 1:
                answer = answer or MAYBE
            else:
                return SURELY
    return answer


def open_book(state: State, limits: Limits, kind: int) -> int:
    """Begin the books of an operation that can release something; return their offset."""
    book = limits.shape.books + state[UNDER_WAY] * BOOK_WORDS
    state[book + KIND] = kind
    state[UNDER_WAY] += 1
    return book


def top_book(state: State, limits: Limits) -> int:
    """Return the offset of the innermost books."""
    return limits.shape.books + (state[UNDER_WAY] - 1) * BOOK_WORDS


def expect_collection(state: State, limits: Limits, book: int) -> None:
    """Note that an operation collects, unless the collection would be nested or its walk is cut short."""
    outer = _collecting_below(state, limits)
    gc = state[book + KIND] == Kind.GC
    if outer == SURELY:
        if gc:
            see(state, Sometimes.COLLECTION_NESTED)
    elif state[CUT] and state[WASM_DEPTH]:
        see(state, Sometimes.WALK_CUT)
        if state[CUT] > 2 and stack_mask(state, limits.shape):  # two frames are no activation's
            see(state, Sometimes.WALK_CUT_WITH_LIVE_REFERENCE)
    elif outer == MAYBE:
        state[book + COLLECTS] = MAYBE
    else:
        doom(state, limits, book)


def doom(state: State, limits: Limits, book: int) -> None:
    """Begin a complete collection: what must be dead when it ends."""
    books = limits.shape.books
    letting_go = 0
    for index in range(state[UNDER_WAY] - 1):
        letting_go |= state[books + index * BOOK_WORDS + RELEASED]
    state[book + COLLECTS] = SURELY
    stacked = stack_mask(state, limits.shape)
    state[book + STACKED] = stacked
    # What an operation around this one has yet to let go of is still counted for it.
    doomed = unreachable(state, limits, letting_go)
    state[book + DOOMED] = doomed
    if stacked:
        see(state, Sometimes.COLLECTION_WITH_LIVE_REFERENCE)
    if state[ORDER] and doomed & (doomed - 1):
        see(state, Sometimes.SWEEP_ORDERED)


def _collecting_below(state: State, limits: Limits) -> int:
    state[UNDER_WAY] -= 1
    answer = collecting(state, limits)
    state[UNDER_WAY] += 1
    return answer


def release(state: State, limits: Limits, name: int) -> None:
    """Note that the operation under way has taken an owner from a value. The cell must be cleared already."""
    state[top_book(state, limits) + RELEASED] |= 1 << name


def hold(state: State, limits: Limits, name: int) -> None:
    """Note that the operation under way has a reference in its hands."""
    state[top_book(state, limits) + HELD] |= 1 << name


def touch(state: State, limits: Limits, name: int) -> None:
    """Note that a value was taken up again: collections under way need not destroy it any more."""
    books = limits.shape.books
    for index in range(state[UNDER_WAY]):
        state[books + index * BOOK_WORDS + TOUCHED] |= 1 << name


def defer(state: State, limits: Limits, name: int) -> None:
    """Note that a value is passed to Wasm: its death is deferred to a collection."""
    state[DEFERRED] |= 1 << name
    if state[UNDER_WAY]:
        touch(state, limits, name)


def close_book(state: State, limits: Limits) -> None:
    """End an operation's books: whatever had to die must be dead.

    Raises:
        Violation: something that must be dead is not.
    """
    shape = limits.shape
    book = top_book(state, limits)
    doomed, touched = state[book + DOOMED], state[book + TOUCHED]
    if state[book + COLLECTS] == SURELY:
        if doomed & touched & state[LIVE]:
            see(state, Sometimes.COLLECTION_RESCUED)
        left = doomed & state[LIVE]
        if left and left & ~kept_by(state, limits, touched & state[LIVE]):
            name = lowest(left & ~kept_by(state, limits, touched & state[LIVE]))
            raise Violation(f"value {name} must be dead: nothing owned it and no activation could read it when the collection began")
        deferred = state[DEFERRED]
        state[DEFERRED] &= state[book + STACKED] | touched
        # Whose deferral this collection ends is kept by nothing but owners: a destructor of it may have taken the last one away.
        state[book + RELEASED] |= deferred & ~state[DEFERRED]
    released = state[book + RELEASED] & state[LIVE] & ~state[DEFERRED]
    if released:
        for index in range(state[UNDER_WAY] - 1):
            released &= ~state[shape.books + index * BOOK_WORDS + RELEASED]
        state[book + HELD] = 0
        for name in bits(released):
            if not owned(state, shape, name) and not on_stack(state, shape, name):
                raise Violation(f"value {name} must be dead: its last owner let go, and it is not deferred by any activation")
    put(state, book, book + BOOK_WORDS, 0)
    state[UNDER_WAY] -= 1


def destruction_begins(state: State, limits: Limits, name: int) -> bool:
    """A value's destructor is about to run. Return whether it may act (else it returns at once).

    Raises:
        Violation: the value may not die here and now.
    """
    shape = limits.shape
    bit = 1 << name
    if not state[LIVE] & bit:
        raise Violation(f"value {name} is destroyed, but it is {'being destroyed already' if state[DYING] & bit else 'dead already'}")
    if owned(state, shape, name) or on_stack(state, shape, name):
        raise Violation(f"value {name} is destroyed while it must live: held by {', '.join(owners_of(state, limits, name))}")
    if not state[UNDER_WAY]:
        raise Violation(f"value {name} is destroyed by an operation that can release nothing")
    book = top_book(state, limits)
    direct = state[book + RELEASED] & bit
    if not direct:
        if not state[book + COLLECTS] or _collecting_below(state, limits) == SURELY:
            raise Violation(f"value {name} is destroyed by an operation that neither let go of it nor may collect here")
        see(state, Sometimes.COLLECTION_KILLED)
        if TRANSFERS >> state[book + KIND] & 1:
            see(state, Sometimes.COLLECTION_IN_TRANSFER)
    state[LIVE] &= ~bit
    state[DYING] |= bit
    state[DEFERRED] &= ~bit
    # The name may be given to a new value while outer operations are still under way: their books speak of the old one.
    for index in range(state[UNDER_WAY]):
        at = shape.books + index * BOOK_WORDS
        state[at + RELEASED] &= ~bit
        state[at + DOOMED] &= ~bit
        state[at + TOUCHED] &= ~bit
        state[at + STACKED] &= ~bit
    state[CUT] = state[FAIL] = 0
    if state[NESTED] >= limits.destructors:
        return False
    if state[NESTED]:
        see(state, Sometimes.DESTRUCTOR_NESTED)
    push_context(state, limits, Context.DESTRUCTOR, name, limits.destructor_ops, state[INNERMOST])
    state[NESTED] += 1
    state[INNERMOST] = state[DEPTH] - 1
    return True


def destruction_ends(state: State, limits: Limits, name: int, *, acted: bool, panicked: bool) -> None:
    """A value's destructor body is over: what the value owned is let go of, and its name is free again."""
    shape = limits.shape
    if acted:
        at = shape.contexts + (state[DEPTH] - 1) * CONTEXT_WORDS
        state[INNERMOST] = state[at + CONTEXT_OUTER]
        state[NESTED] -= 1
        pop_context(state, limits)
    state[DYING] &= ~(1 << name)
    first = shape.fields + name * limits.fields
    for cell in range(first, first + limits.fields):
        owned_name = state[cell]
        if owned_name >= 0:
            state[cell] = NULL
            release(state, limits, owned_name)
            if not owned(state, shape, owned_name):
                see(state, Sometimes.DIED_WITH_OWNER)
    if panicked:
        see(state, Sometimes.DESTRUCTOR_PANICKED)
        if collecting(state, limits):
            see(state, Sometimes.DESTRUCTOR_PANICKED_IN_COLLECTION)
        book = top_book(state, limits)
        state[book + PANICKED] = 1
        # A transfer whose collection panics is not made: what it holds may be let go of from now on.
        state[book + RELEASED] |= state[book + HELD]
        state[book + HELD] = 0


def spend(state: State, limits: Limits) -> None:
    """Take one operation from the innermost destructor's budget."""
    innermost = state[INNERMOST]
    if innermost:
        state[limits.shape.contexts + innermost * CONTEXT_WORDS + CONTEXT_AT] -= 1
