"""The identity of a state of the model alone under symmetry, in compiled code: a digest that no permutation of values changes.

Each value is described by a sum of terms for the places where it stands, and the identity is a sum over the values and over what has no
names, so that neither depends on an order. Who owns whom is said by places in the order of the descriptions; where these are equal, by
the least that any order says. `fuzz.model_states.blind` describes the same in bytes, and is the oracle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fuzz.compiled import digest
from fuzz.compiled.joint import clear, mix, remix
from fuzz.compiled.world import REGISTERS
from fuzz.small_steps import names_at, size
from model.limits import (
    BOOK_WORDS,
    COLLECTS,
    CONTEXT_KIND,
    CONTEXT_OF,
    CONTEXT_WORDS,
    DEPTH,
    DYING,
    LIVE,
    STACKED,
    UNDER_WAY,
)
from model.ops import NULL, Context
from model.words import bits

if TYPE_CHECKING:
    from typing import TypeAlias

    from model.limits import Limits
    from model.state import State

    Words: TypeAlias = Any
    """A row of signed 64-bit words."""

_SCRATCH_AT: Final = REGISTERS["told_at"]
_KEY_LOW: Final = REGISTERS["key_low"]
_KEY_HIGH: Final = REGISTERS["key_high"]
_DESTRUCTOR: Final = int(Context.DESTRUCTOR)

# Kinds of terms of a description: none is the place of a word.
_OWNERS_PLACE: Final = 1 << 20
# Behind two words for each value's description in the scratch: values in order, and the place of each in it.
_ORDER: Final = 16
_RANKS: Final = 24


def describe(state: State, limits: Limits, w: Words) -> None:
    """Leave the digest of the state without names in its two registers."""
    shape = limits.shape
    w[_KEY_LOW] = 0
    w[_KEY_HIGH] = 0
    clear(w, w[_SCRATCH_AT], 2 * limits.objects)
    for place in range(DYING + 1):
        mark_all(w, state[place], place)
    for place in range(DYING + 1, shape.roots):
        tell(w, place, state[place])
    for name in range(limits.objects):
        if state[shape.roots + name] != 0:
            mark(w, name, shape.roots, state[shape.roots + name])
    describe_cells(state, w, shape.globals, shape.slots_end)
    describe_cells(state, w, names_at(limits), size(limits))
    for place in range(shape.slots_end, shape.contexts):
        tell(w, place, state[place])
    describe_contexts(state, limits, w)
    for index in range(state[UNDER_WAY]):
        book = shape.books + index * BOOK_WORDS
        for place in range(book, book + BOOK_WORDS):
            if place < book + COLLECTS or place == book + STACKED:
                mark_all(w, state[place], place)
            else:
                tell(w, place, state[place])
    for place in range(shape.size, names_at(limits)):
        tell(w, place, state[place])
    if limits.fields != 0:
        describe_owners(state, limits, w)
    for name in range(limits.objects):
        low = w[w[_SCRATCH_AT] + 2 * name]
        high = w[w[_SCRATCH_AT] + 2 * name + 1]
        w[_KEY_LOW] += digest.mix(digest.mix(low) ^ high)
        w[_KEY_HIGH] += digest.mix(digest.mix(high + 1) + low)


def describe_contexts(state: State, limits: Limits, w: Words) -> None:
    """Describe the stack of contexts; that a destructor is a value's own says something of this value."""
    first = limits.shape.contexts
    for index in range(state[DEPTH]):
        at = first + index * CONTEXT_WORDS
        for place in range(at, at + CONTEXT_WORDS):
            if place == at + CONTEXT_OF and state[at + CONTEXT_KIND] == _DESTRUCTOR:
                mark(w, state[place], place, 1)
            else:
                tell(w, place, state[place])


def describe_cells(state: State, w: Words, first: int, last: int) -> None:
    """Describe cells that hold names, or something else."""
    for place in range(first, last):
        if state[place] >= 0:
            mark(w, state[place], place, 1)
        elif state[place] != NULL:
            tell(w, place, state[place])


def tell(w: Words, place: int, word: int) -> None:
    """Take up a word that is no name; what is 0 is not told."""
    if word != 0:
        x = mix(place, word)
        w[_KEY_LOW] += x
        w[_KEY_HIGH] += remix(x)


def mark(w: Words, name: int, place: int, word: int) -> None:
    """Take up a word about a value in its description."""
    at = w[_SCRATCH_AT] + 2 * name
    x = mix(place, word)
    w[at] += x
    w[at + 1] += remix(x)


def mark_all(w: Words, names: int, place: int) -> None:
    """Take up in the descriptions of some values that they are in a mask."""
    for name in bits(names):
        mark(w, name, place, 1)


def describe_owners(state: State, limits: Limits, w: Words) -> None:
    """Describe who owns whom by places in an order of the descriptions: of all orders that sort them, what is least."""
    shape = limits.shape
    owned = 0
    for cell in range(shape.fields, shape.globals):
        if state[cell] >= 0:
            owned = 1
    if owned == 0:
        return
    order = w[_SCRATCH_AT] + _ORDER
    count = 0
    for name in bits(state[LIVE] | state[DYING]):
        at = order + count
        while at > order and compare(w, name, w[at - 1]) < 0:
            w[at] = w[at - 1]
            at -= 1
        w[at] = name
        count += 1
    least_low = 0
    least_high = 0
    first = 1
    while True:
        low, high = owners(state, limits, w, count)
        if first != 0 or low < least_low or (low == least_low and high < least_high):
            least_low = low
            least_high = high
        first = 0
        if next_order(w, count) == 0:
            break
    w[_KEY_LOW] += least_low
    w[_KEY_HIGH] += least_high


def compare(w: Words, one: int, other: int) -> int:
    """Compare the descriptions of two values: below 0, 0 or above."""
    at = w[_SCRATCH_AT] + 2 * one
    to = w[_SCRATCH_AT] + 2 * other
    if w[at] != w[to]:
        return 1 if w[at] > w[to] else -1
    if w[at + 1] != w[to + 1]:
        return 1 if w[at + 1] > w[to + 1] else -1
    return 0


def owners(state: State, limits: Limits, w: Words, count: int) -> tuple[int, int]:
    """Return the digest of who owns whom by places in the order at hand."""
    order = w[_SCRATCH_AT] + _ORDER
    ranks = w[_SCRATCH_AT] + _RANKS
    for place in range(count):
        w[ranks + w[order + place]] = place
    low = 0
    high = 0
    for place in range(count):
        cell = limits.shape.fields + w[order + place] * limits.fields
        for index in range(limits.fields):
            if state[cell + index] >= 0:
                x = mix(_OWNERS_PLACE + place * limits.fields + index, w[ranks + state[cell + index]] + 1)
                low += x
                high += remix(x)
    return low, high


def next_order(w: Words, count: int) -> int:
    """Go on to the next order that sorts the descriptions; return 0, at the first one again, if there is none.

    Values with equal descriptions are a group. The last group whose names are not in falling order is put into its next permutation.
    """
    order = w[_SCRATCH_AT] + _ORDER
    end = count
    while end > 0:
        first = end - 1
        while first > 0 and compare(w, w[order + first - 1], w[order + first]) == 0:
            first -= 1
        if next_permutation(w, order + first, order + end) != 0:
            return 1
        end = first
    return 0


def next_permutation(w: Words, first: int, last: int) -> int:
    """Put names into their next permutation; return 0, and put them in rising order, after the last one."""
    falling = last - 1
    while falling > first and w[falling - 1] > w[falling]:
        falling -= 1
    found = 0
    if falling > first:
        found = 1
        larger = last - 1
        while w[larger] < w[falling - 1]:
            larger -= 1
        swap(w, falling - 1, larger)
    if last - first > 1:
        low = falling
        high = last - 1
        while low < high:
            swap(w, low, high)
            low += 1
            high -= 1
    return found


def swap(w: Words, one: int, other: int) -> None:
    """Exchange two words."""
    word = w[one]
    w[one] = w[other]
    w[other] = word
