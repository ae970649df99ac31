"""A joint state in compiled code: encoded on a frontier, opened, gone back to after a step, and told from others by its digest.

A digest is a sum over the words that differ from the first state's, so that a step's digest follows from the opened state's and the
words that the step changed. Marks say which lines of the memory those are in; so neither restoring nor digesting reads the rest.
Under symmetry, the digest is that of the row that `fuzz.compiled.canonical` describes the state with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fuzz.compiled.canonical import describe
from fuzz.compiled.digest import digest
from fuzz.compiled.world import (
    ADDRESSES_AT,
    DIRTY_AT,
    DIRTY_SHIFT,
    FORGOTTEN_AT,
    REGISTERS,
    STATE_AT,
    bound_at,
)
from impl.scan import any_different
from model.words import lowest

if TYPE_CHECKING:
    from typing import TypeAlias

    Words: TypeAlias = Any
    """A row of signed 64-bit words."""

_STATE_WORDS: Final = REGISTERS["state_words"]
_ROOT_AT: Final = REGISTERS["root_at"]
_OPENED_AT: Final = REGISTERS["opened_at"]
_TERMS_AT: Final = REGISTERS["terms_at"]
_OPENED_LOW: Final = REGISTERS["opened_low"]
_OPENED_HIGH: Final = REGISTERS["opened_high"]
_KEY_LOW: Final = REGISTERS["key_low"]
_KEY_HIGH: Final = REGISTERS["key_high"]
_DIRTY_LINES: Final = REGISTERS["dirty_words"]
_SYMMETRY: Final = REGISTERS["symmetry"]
_DESCRIBED_AT: Final = REGISTERS["described_at"]
_RANKS_AT: Final = REGISTERS["ranks_at"]
_RANKS_END: Final = REGISTERS["opened_at"]
_OBJECTS: Final = bound_at("objects")

# Odd, with well-mixed bits: the fractional parts of the golden ratio and of square roots.
_M1: Final = -7046029254386353131
_M2: Final = -4417276706812531889
_M3: Final = -8663945395140668459
_LOW_35: Final = (1 << 35) - 1
_LOW_32: Final = (1 << 32) - 1
# In an encoded state, a word is 16 bits of its place and 48 of its value; a value that needs more follows.
PLACE_BITS: Final = 16
_VALUE_BITS: Final = 48
_VALUE_MAX: Final = (1 << 46) - 1
_ESCAPE: Final = 1 << 46
_LOW_VALUE: Final = (1 << 47) - 1
_LINE: Final = 1 << DIRTY_SHIFT


def mix(place: int, word: int) -> int:
    """Return 64 well-mixed bits of a place and what is in it."""
    x = word * _M1 + place * _M2 + _M3
    x ^= (x >> 32) & _LOW_32
    x *= _M2
    return x ^ ((x >> 29) & _LOW_35)


def remix(x: int) -> int:
    """Return other 64 bits, as far from the given ones as those from their source."""
    x = (x ^ _M3) * _M1
    return x ^ ((x >> 32) & _LOW_32)


def replace(w: Words, place: int, first: int, new: int) -> None:
    """Replace one word's term in the digest of the opened state; a word that is as in the first state has none."""
    terms = w[_TERMS_AT] + 2 * place
    w[_KEY_LOW] -= w[terms]
    w[_KEY_HIGH] -= w[terms + 1]
    if new != first:
        x = mix(place, new)
        w[_KEY_LOW] += x
        w[_KEY_HIGH] += remix(x)


def copy(target: Words, to: int, source: Words, start: int, count: int) -> None:
    """Copy words."""
    for index in range(count):
        target[to + index] = source[start + index]


def lap(_part: int) -> None:
    """What was done since the last lap belongs to this part. Only a library that is built to be timed takes notice."""


def count_step() -> None:
    """A step has come to its end: for the guard that notices those which do not."""


def clear(target: Words, start: int, count: int) -> None:
    """Set words to 0."""
    for index in range(start, start + count):
        target[index] = 0


# --- the three parts of the world that belong to a joint state: references, what was forgotten, the model's state


def any_changed(w: Words, start: int, count: int, behind: int) -> int:
    """Return 0 if a part of the world is as in a copy of it, which lies `behind` words further."""
    found = 0
    for index in range(start, start + count):
        found |= w[index] ^ w[behind + index]
    return found


def identify_part(mem: Words, w: Words, start: int, count: int) -> None:
    """Bring the digest up to date with one part of the world."""
    opened = w[_OPENED_AT] + len(mem) - ADDRESSES_AT
    if any_changed(w, start, count, opened) != 0:
        root = w[_ROOT_AT] + len(mem) - ADDRESSES_AT
        for index in range(start, start + count):
            if w[index] != w[opened + index]:
                replace(w, index - ADDRESSES_AT + len(mem), w[root + index], w[index])


def identify_lines(mem: Words, w: Words) -> None:
    """Bring the digest up to date with the lines of the memory that have marks."""
    size = len(mem)
    root = w[_ROOT_AT]
    opened = w[_OPENED_AT]
    for line in range(w[_DIRTY_LINES]):
        marks = w[DIRTY_AT + line]
        while marks != 0:
            first = (line << 6 + DIRTY_SHIFT) + (lowest(marks) << DIRTY_SHIFT)
            for index in range(first, min(first + _LINE, size)):
                if mem[index] != w[opened + index]:
                    replace(w, index, w[root + index], mem[index])
            marks &= marks - 1


def identify(mem: Words, w: Words) -> None:
    """Leave the digest of the joint state in its two registers. The low word is never 0: that is an empty bucket."""
    if w[_SYMMETRY] != 0:
        identify_described(mem, w)
    else:
        w[_KEY_LOW] = w[_OPENED_LOW]
        w[_KEY_HIGH] = w[_OPENED_HIGH]
        identify_lines(mem, w)
        identify_part(mem, w, ADDRESSES_AT, w[_OBJECTS])
        identify_part(mem, w, FORGOTTEN_AT, w[_OBJECTS])
        identify_part(mem, w, STATE_AT, w[_STATE_WORDS])
    if w[_KEY_LOW] == 0:
        w[_KEY_LOW] = 1


def identify_described(mem: Words, w: Words) -> None:
    """Leave the digest of what is the same for states that differ by a permutation of values."""
    at = w[_DESCRIBED_AT]
    row = w[at : w[_RANKS_AT]]
    ranks = w[w[_RANKS_AT] : w[_RANKS_END]]
    length = describe(mem, w, w[ADDRESSES_AT:FORGOTTEN_AT], w[FORGOTTEN_AT:STATE_AT], w, row, ranks)
    digest(w[at : at + length], w, _KEY_LOW)


# --- a state is opened, and gone back to


def reload_state(mem: Words, w: Words) -> None:
    """Go back to the opened state: the lines with marks, which are taken away, and the parts of the world."""
    size = len(mem)
    opened = w[_OPENED_AT]
    for line in range(w[_DIRTY_LINES]):
        marks = w[DIRTY_AT + line]
        w[DIRTY_AT + line] = 0
        while marks != 0:
            first = (line << 6 + DIRTY_SHIFT) + (lowest(marks) << DIRTY_SHIFT)
            for index in range(first, min(first + _LINE, size)):
                mem[index] = w[opened + index]
            marks &= marks - 1
    behind = opened + size - ADDRESSES_AT
    copy(w, ADDRESSES_AT, w, behind + ADDRESSES_AT, w[_OBJECTS])
    copy(w, FORGOTTEN_AT, w, behind + FORGOTTEN_AT, w[_OBJECTS])
    copy(w, STATE_AT, w, behind + STATE_AT, w[_STATE_WORDS])


def open_state(mem: Words, w: Words, source: Words, at: int) -> None:
    """Make an encoded state the one that steps are taken from."""
    size = len(mem)
    root = w[_ROOT_AT]
    opened = w[_OPENED_AT]
    joint = STATE_AT + w[_STATE_WORDS] - ADDRESSES_AT
    copy(w, opened, w, root, size + joint)
    terms = w[_TERMS_AT]
    clear(w, terms, 2 * (size + joint))
    low = 0
    high = 0
    index = at + 1
    end = at + source[at]
    while index < end:
        word = source[index]
        place = (word >> _VALUE_BITS) & ((1 << PLACE_BITS) - 1)
        if word & (_LOW_VALUE + 1):
            index += 1
            value = source[index]
        else:
            value = word & _LOW_VALUE
            if value & _ESCAPE:
                value -= _LOW_VALUE + 1
        w[opened + place] = value
        x = mix(place, value)
        y = remix(x)
        w[terms + 2 * place] = x
        w[terms + 2 * place + 1] = y
        low += x
        high += y
        index += 1
    w[_OPENED_LOW] = low
    w[_OPENED_HIGH] = high
    copy(mem, 0, w, opened, size)
    clear(w, DIRTY_AT, w[_DIRTY_LINES])
    copy(w, ADDRESSES_AT, w, opened + size, joint)


# --- a state is encoded


def encode(mem: Words, w: Words, out: Words, at: int) -> int:
    """Write a state to `out` from `at + 1` on as what differs from the first one, and its length to `out[at]`; return where it ends."""
    root = w[_ROOT_AT]
    size = len(mem)
    end = at + 1
    for first in range(0, size, _LINE):
        last = min(first + _LINE, size)
        if any_different(mem[first:last], w[root + first : root + last]) != 0:
            for index in range(first, last):
                if mem[index] != w[root + index]:
                    end = encode_word(out, end, index, mem[index])
    behind = root + size - ADDRESSES_AT
    for index in range(ADDRESSES_AT, STATE_AT + w[_STATE_WORDS]):
        if w[index] != w[behind + index]:
            end = encode_word(out, end, index - ADDRESSES_AT + size, w[index])
    out[at] = end - at
    return end


def encode_word(out: Words, end: int, place: int, word: int) -> int:
    """Write one word and its place; return where they end."""
    if -_VALUE_MAX < word < _VALUE_MAX:
        out[end] = (place << _VALUE_BITS) | (word & _LOW_VALUE)
        return end + 1
    out[end] = (place << _VALUE_BITS) | (_LOW_VALUE + 1)
    out[end + 1] = word
    return end + 2
