"""A joint state in compiled code: encoded on a frontier, opened, gone back to after a step, and told from others by its digest.

A digest is a sum over all words, so that a step's digest follows from the opened state's and the words that the step changed. Marks say
which lines of the memory those are in, and others in which lines the opened state differs from the first one; so neither restoring
nor digesting, neither opening nor encoding reads the rest.
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
    HELD_AT,
    LANES_AT,
    LINE,
    REGISTERS,
    STATE_AT,
    bound_at,
)
from model.words import lowest

if TYPE_CHECKING:
    from typing import TypeAlias

    Words: TypeAlias = Any
    """A row of signed 64-bit words."""

_STATE_WORDS: Final = REGISTERS["state_words"]
_ROOT_AT: Final = REGISTERS["root_at"]
_OPENED_AT: Final = REGISTERS["opened_at"]
_OPENED_LOW: Final = REGISTERS["opened_low"]
_OPENED_HIGH: Final = REGISTERS["opened_high"]
_KEY_LOW: Final = REGISTERS["key_low"]
_KEY_HIGH: Final = REGISTERS["key_high"]
_DIRTY_LINES: Final = REGISTERS["dirty_words"]
_SYMMETRY: Final = REGISTERS["symmetry"]
_DESCRIBED_AT: Final = REGISTERS["described_at"]
_RANKS_AT: Final = REGISTERS["ranks_at"]
_SMALL_AT: Final = REGISTERS["small_at"]
_LARGE_AT: Final = REGISTERS["large_at"]
_RANKS_END: Final = REGISTERS["told_at"]
_OBJECTS: Final = bound_at("objects")

# Odd, with well-mixed bits: the fractional parts of the golden ratio and of square roots.
M1: Final = -7046029254386353131
M2: Final = -4417276706812531889
M3: Final = -8663945395140668459
_LOW_35: Final = (1 << 35) - 1
_LOW_32: Final = (1 << 32) - 1
# An encoded state begins with its length, its digest, how many of its words are small, and marks of the lines that it has words of.
# Then come the small words, two in one, each 16 bits of its place and 16 of its value; then the others, 16 and 48 bits, or, if
# that is too little, with the value behind it.
PLACE_BITS: Final = 16
_SMALL_BITS: Final = 16
_SMALL_SIGN: Final = 1 << _SMALL_BITS - 1
_PLACE: Final = (1 << PLACE_BITS) - 1
_VALUE_BITS: Final = 48
_VALUE_MAX: Final = (1 << 46) - 1
_ESCAPE: Final = 1 << 46
_LOW_VALUE: Final = (1 << 47) - 1
_SMALLS: Final = 3
_MARKS: Final = 4


def mix(place: int, word: int) -> int:
    """Return 64 well-mixed bits of a place and what is in it."""
    x = word * M1 + place * M2 + M3
    x ^= (x >> 32) & _LOW_32
    x *= M2
    return x ^ ((x >> 29) & _LOW_35)


def remix(x: int) -> int:
    """Return other 64 bits, as far from the given ones as those from their source."""
    x = (x ^ M3) * M1
    return x ^ ((x >> 32) & _LOW_32)


def copy(target: Words, to: int, source: Words, start: int, count: int) -> None:
    """Copy words."""
    for index in range(count):
        target[to + index] = source[start + index]


def copy_line(target: Words, to: int, source: Words, start: int) -> None:
    """Copy a line."""
    for index in range(LINE):
        target[to + index] = source[start + index]


def copy_lines(w: Words, to: int, start: int, count: int) -> None:
    """Copy the lines of the world that hold so many words."""
    for index in range(0, count, LINE):
        copy_line(w, to + index, w, start + index)


def copy_of_line(mem: Words, first: int, w: Words, start: int) -> None:
    """Copy a line of the memory, of which those words that it has not are left out."""
    if first + LINE <= len(mem):
        copy_line(mem, first, w, start)
    else:
        copy(mem, first, w, start, len(mem) - first)


def prefetch(_row: Words, _index: int) -> None:
    """A word of a row will be wanted soon: for compiled code, which need not wait for it then."""


def lap(_part: int) -> None:
    """What was done since the last lap belongs to this part. Only a library that is built to be timed takes notice."""


def count_step() -> None:
    """A step has come to its end: for the guard that notices those which do not."""


def clear(target: Words, start: int, count: int) -> None:
    """Set words to 0."""
    for index in range(start, start + count):
        target[index] = 0


def differing(run: Words, start: int, other: Words, at: int) -> int:
    """Return a mask of the words of a line that differ from those of another: one instruction in compiled code."""
    return differing_end(run, start, other, at, LINE)


def differing_end(run: Words, start: int, other: Words, at: int, count: int) -> int:
    """Return a mask of the words that differ, of a line at most."""
    found = 0
    for index in range(count):
        if run[start + index] != other[at + index]:
            found |= 1 << index
    return found


def line_of(run: Words, start: int, end: int, other: Words, at: int) -> int:
    """Return a mask of the words that differ in a line, of which those from `end` on do not belong to the run."""
    if start + LINE <= end:
        return differing(run, start, other, at)
    return differing_end(run, start, other, at, end - start)


# --- the three parts of the world that belong to a joint state: references, what was forgotten, the model's state. Each is read and
# written in whole lines: what a last line has more is the same always.


def exchange(w: Words, changed: int, run: Words, start: int, other: Words, at: int, place: int) -> None:
    """Exchange words of a line in the digest: those in a mask. Compiled code works on all eight at once."""
    while changed != 0:
        index = lowest(changed)
        gone = mix(place + index, other[at + index])
        come = mix(place + index, run[start + index])
        w[LANES_AT + index] += come - gone
        w[LANES_AT + LINE + index] += remix(come) - remix(gone)
        changed &= changed - 1


def identify_part(mem: Words, w: Words, start: int, count: int) -> None:
    """Bring the digest up to date with one part of the world."""
    behind = w[_OPENED_AT] + len(mem) - ADDRESSES_AT
    for first in range(start, start + count, LINE):
        changed = differing(w, first, w, behind + first)
        if changed != 0:
            exchange(w, changed, w, first, w, behind + first, first - ADDRESSES_AT + len(mem))


def identify_lines(mem: Words, w: Words) -> None:
    """Bring the digest up to date with the lines of the memory that have marks."""
    size = len(mem)
    opened = w[_OPENED_AT]
    for line in range(w[_DIRTY_LINES]):
        marks = w[DIRTY_AT + line]
        differ = 0
        while marks != 0:
            first = (line << 6 + DIRTY_SHIFT) + (lowest(marks) << DIRTY_SHIFT)
            changed = line_of(mem, first, size, w, opened + first)
            if changed != 0:
                exchange(w, changed, mem, first, w, opened + first, first)
                differ |= marks & -marks
            marks &= marks - 1
        w[DIRTY_AT + line] = differ


def total(w: Words, at: int) -> int:
    """Return the sum of a line."""
    found = 0
    for index in range(LINE):
        found += w[at + index]
    return found


def identify(mem: Words, w: Words) -> None:
    """Leave the digest of the joint state in its two registers.

    The low word is never 0: that is an empty bucket. One state in 2**64 is therefore told by the digest of another.
    """
    if w[_SYMMETRY] != 0:
        identify_described(mem, w)
    else:
        clear(w, LANES_AT, 2 * LINE)
        identify_lines(mem, w)
        identify_part(mem, w, ADDRESSES_AT, w[_OBJECTS])
        identify_part(mem, w, FORGOTTEN_AT, w[_OBJECTS])
        identify_part(mem, w, STATE_AT, w[_STATE_WORDS])
        w[_KEY_LOW] = w[_OPENED_LOW] + total(w, LANES_AT)
        w[_KEY_HIGH] = w[_OPENED_HIGH] + total(w, LANES_AT + LINE)
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
            copy_of_line(mem, first, w, opened + first)
            marks &= marks - 1
    behind = opened + size - ADDRESSES_AT
    copy_lines(w, ADDRESSES_AT, behind + ADDRESSES_AT, w[_OBJECTS])
    copy_lines(w, FORGOTTEN_AT, behind + FORGOTTEN_AT, w[_OBJECTS])
    copy_lines(w, STATE_AT, behind + STATE_AT, w[_STATE_WORDS])


def forget_state(mem: Words, w: Words) -> None:
    """Go back to the first state."""
    reload_state(mem, w)
    size = len(mem)
    root = w[_ROOT_AT]
    opened = w[_OPENED_AT]
    for line in range(w[_DIRTY_LINES]):
        marks = w[HELD_AT + line]
        w[HELD_AT + line] = 0
        while marks != 0:
            first = (line << 6 + DIRTY_SHIFT) + (lowest(marks) << DIRTY_SHIFT)
            copy_of_line(mem, first, w, root + first)
            # What follows the memory there is overwritten below.
            copy_line(w, opened + first, w, root + first)
            marks &= marks - 1
    copy(w, opened + size, w, root + size, STATE_AT + w[_STATE_WORDS] - ADDRESSES_AT)


def open_state(mem: Words, w: Words, source: Words, at: int) -> None:
    """Make an encoded state the one that steps are taken from."""
    forget_state(mem, w)
    size = len(mem)
    opened = w[_OPENED_AT]
    w[_OPENED_LOW] = source[at + 1]
    w[_OPENED_HIGH] = source[at + 2]
    smalls = source[at + _SMALLS]
    copy(w, HELD_AT, source, at + _MARKS, w[_DIRTY_LINES])
    first = at + _MARKS + w[_DIRTY_LINES]
    for index in range(smalls):
        word = source[first + (index >> 1)] >> ((index & 1) << 5)
        place = (word >> _SMALL_BITS) & _PLACE
        value = ((word & (2 * _SMALL_SIGN - 1)) ^ _SMALL_SIGN) - _SMALL_SIGN
        w[opened + place] = value
        if place < size:
            mem[place] = value
    index = first + (smalls + 1 >> 1)
    end = at + source[at]
    while index < end:
        word = source[index]
        place = (word >> _VALUE_BITS) & _PLACE
        if word & (_LOW_VALUE + 1):
            index += 1
            value = source[index]
        else:
            value = word & _LOW_VALUE
            if value & _ESCAPE:
                value -= _LOW_VALUE + 1
        w[opened + place] = value
        if place < size:
            mem[place] = value
        index += 1
    copy(w, ADDRESSES_AT, w, opened + size, STATE_AT + w[_STATE_WORDS] - ADDRESSES_AT)


# --- a state is encoded


def encode(mem: Words, w: Words, out: Words, at: int) -> int:
    """Write a state to `out` as what differs from the first one; return where it ends.

    Args:
        mem, w: the state, and its digest in the two registers.
        out: where to.
        at: from here on.
    """
    root = w[_ROOT_AT]
    size = len(mem)
    small = w[_SMALL_AT]
    large = w[_LARGE_AT]
    for line in range(w[_DIRTY_LINES]):
        marks = w[DIRTY_AT + line] | w[HELD_AT + line]
        held = 0
        while marks != 0:
            first = (line << 6 + DIRTY_SHIFT) + (lowest(marks) << DIRTY_SHIFT)
            changed = line_of(mem, first, size, w, root + first)
            if changed != 0:
                held |= marks & -marks
            while changed != 0:
                index = first + lowest(changed)
                word = mem[index]
                if -_SMALL_SIGN <= word < _SMALL_SIGN:
                    w[small] = (index << _SMALL_BITS) | (word & (2 * _SMALL_SIGN - 1))
                    small += 1
                else:
                    large = encode_large(w, large, index, word)
                changed &= changed - 1
            marks &= marks - 1
        out[at + _MARKS + line] = held
    behind = root + size - ADDRESSES_AT
    last = STATE_AT + w[_STATE_WORDS]
    for first in range(ADDRESSES_AT, last, LINE):
        changed = differing(w, first, w, behind + first)
        while changed != 0:
            index = first + lowest(changed)
            word = w[index]
            if -_SMALL_SIGN <= word < _SMALL_SIGN:
                w[small] = ((index - ADDRESSES_AT + size) << _SMALL_BITS) | (word & (2 * _SMALL_SIGN - 1))
                small += 1
            else:
                large = encode_large(w, large, index - ADDRESSES_AT + size, word)
            changed &= changed - 1
    return assemble(w, out, at, small, large)


def encode_large(w: Words, end: int, place: int, word: int) -> int:
    """Write a word that is not small, and its place; return where they end."""
    if -_VALUE_MAX < word < _VALUE_MAX:
        w[end] = (place << _VALUE_BITS) | (word & _LOW_VALUE)
        return end + 1
    w[end] = (place << _VALUE_BITS) | (_LOW_VALUE + 1)
    w[end + 1] = word
    return end + 2


def assemble(w: Words, out: Words, at: int, small: int, large: int) -> int:
    """Write an encoded state whose small words end at `small` and whose others end at `large`; return where it ends."""
    first = w[_SMALL_AT]
    w[small] = 0
    end: int = at + _MARKS + w[_DIRTY_LINES]
    pairs: int = small - first + 1 >> 1
    for index in range(pairs):
        out[end + index] = w[first + 2 * index] | (w[first + 2 * index + 1] << 32)
    others: int = large - w[_LARGE_AT]
    copy(out, end + pairs, w, w[_LARGE_AT], others)
    out[at] = end + pairs + others - at
    out[at + 1] = w[_KEY_LOW]
    out[at + 2] = w[_KEY_HIGH]
    out[at + _SMALLS] = small - first
    return end + pairs + others


def encoded_max(words: int, lines: int) -> int:
    """Return how many words an encoded state may have.

    Args:
        words: of a joint state.
        lines: words that marks need.
    """
    return _MARKS + lines + 2 * words
