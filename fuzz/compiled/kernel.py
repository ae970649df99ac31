"""The loops that never leave compiled code: one step from a restored state, and the search that goes on from there.

This text is translated like that of the driver. The interpreted search is `fuzz.explore`, its oracle.

A search has a *control* row of words, so that it can be left and taken up again at any step: when a table is full, when time is up,
when something is found. Digests are sums of hashes of the words that differ from the first state's, so that what has not changed
costs a comparison only; states on the frontier are those words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fuzz.bindings import check_lookups
from fuzz.compiled.world import ADDRESSES_AT, COUNTS_AT, DIGITS_AT, RADIXES_AT, RAISES, REGISTERS, ROWS_AT, STATE_AT, WILD
from fuzz.driver import ALWAYS, INSIDE_DESTRUCTORS
from fuzz.observe import observe
from impl.header import VERDICT
from model.limits import CUT, FAIL, FULL, SEEN
from model.ops import Kind

if TYPE_CHECKING:
    from typing import TypeAlias

    from fuzz.driver import Driver

    Words: TypeAlias = Any
    """An array of signed 64-bit words."""

_NESTING: Final = REGISTERS["nesting"]
_LEVEL: Final = REGISTERS["level"]
_CLOSING: Final = REGISTERS["closing"]
_PANICKING: Final = REGISTERS["panicking"]
_ARMED: Final = REGISTERS["armed"]
_VERIFY: Final = REGISTERS["verify"]
_VERDICT: Final = REGISTERS["verdict"]
_DIGIT: Final = REGISTERS["digit"]
_DIGITS: Final = REGISTERS["digits"]
_STEPS: Final = REGISTERS["steps"]
_LAST_KIND: Final = REGISTERS["last_kind"]
_STATE_WORDS: Final = REGISTERS["state_words"]
_ROOT_AT: Final = REGISTERS["root_at"]

# The control row of a search.
STATES: Final = 0
TRANSITIONS: Final = 1
POSITION: Final = 2  # of the state at hand in the frontier
FRONTIER_END: Final = 3
FOLLOWING_END: Final = 4
WAITING: Final = 5
ARRIVING: Final = 6
ORDINAL: Final = 7  # of the step to be taken next
MIDWAY: Final = 8  # whether some steps of the state at hand are taken already
SYMMETRY: Final = 9
STATES_MAX: Final = 10
BUDGET: Final = 11
SHOWN: Final = 16
CONTROL_WORDS: Final = 64

# How a search comes back.
LEVEL_DONE: Final = 0
OUT_OF_ROOM: Final = 1
BUDGET_SPENT: Final = 2
VIOLATED: Final = 3

NO_STEP: Final = 0
STEPPED: Final = 1
BAD: Final = 2

_REGISTERING: Final = 1 << Kind.REGISTER | 1 << Kind.INSTANTIATE | 1 << Kind.TEARDOWN_STORE
# Odd, with well-mixed bits: the fractional parts of the golden ratio and of square roots.
_M1: Final = -7046029254386353131
_M2: Final = -4417276706812531889
_M3: Final = -8663945395140668459
_LOW_35: Final = (1 << 35) - 1
_LOW_32: Final = (1 << 32) - 1
# In a frontier, a word is 16 bits of its place and 48 of its value; a value that needs more follows.
PLACE_BITS: Final = 16
_VALUE_BITS: Final = 48
_VALUE_MAX: Final = (1 << 46) - 1
_ESCAPE: Final = 1 << 46
_LOW_VALUE: Final = (1 << 47) - 1


def mix(place: int, word: int) -> int:
    """Return 64 well-mixed bits of a place and what is in it."""
    x = word * _M1 + place * _M2 + _M3
    x ^= (x >> 29) & _LOW_35
    x *= _M2
    x ^= (x >> 32) & _LOW_32
    x *= _M1
    return x ^ ((x >> 29) & _LOW_35)


def remix(x: int) -> int:
    """Return other 64 bits, as far from the given ones as those from their source."""
    x = (x ^ _M3) * _M1
    x ^= (x >> 32) & _LOW_32
    return x * _M3


def digest(mem: Words, w: Words, found: Words) -> None:
    """Write the digest of the joint state to `found[0]` and `found[1]`."""
    low = 0
    high = 0
    root = w[_ROOT_AT]
    size = len(mem)
    for index in range(size):
        if mem[index] != w[root + index]:
            x = mix(index, mem[index])
            low += x
            high += remix(x)
    behind = root + size - ADDRESSES_AT
    for index in range(ADDRESSES_AT, STATE_AT + w[_STATE_WORDS]):
        if w[index] != w[behind + index]:
            x = mix(index + size, w[index])
            low += x
            high += remix(x)
    if low == 0:
        # An empty bucket.
        low = 1
    found[0] = low
    found[1] = high


def encode(mem: Words, w: Words, out: Words, at: int) -> int:
    """Write a state to `out` from `at + 1` on as what differs from the first one, and its length to `out[at]`; return where it ends."""
    root = w[_ROOT_AT]
    size = len(mem)
    end = at + 1
    for index in range(size):
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


def decode(mem: Words, w: Words, source: Words, at: int) -> None:
    """Make the memory and the world those of an encoded state."""
    root = w[_ROOT_AT]
    size = len(mem)
    first = ADDRESSES_AT
    joint = STATE_AT + w[_STATE_WORDS] - first
    copy(mem, 0, w, root, size)
    copy(w, first, w, root + size, joint)
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
        if place < size:
            mem[place] = value
        else:
            w[first + place - size] = value
        index += 1


def copy(target: Words, to: int, source: Words, start: int, count: int) -> None:
    """Copy words."""
    for index in range(count):
        target[to + index] = source[start + index]


def ready(mem: Words, w: Words, verify: int) -> None:
    """Make the driver's numbers those between two operations."""
    w[_NESTING] = 0
    w[_LEVEL] = 0
    w[_CLOSING] = 0
    w[_PANICKING] = 0
    w[_VERDICT] = 0
    w[_DIGIT] = 0
    w[_STEPS] = 0
    w[_LAST_KIND] = -1
    w[_VERIFY] = verify
    w[_ARMED] = 0
    if w[STATE_AT + CUT] != 0 or w[STATE_AT + FAIL] != 0:
        w[_ARMED] = 1
    mem[RAISES] = 0


def take_step(driver: Driver, mem: Words, w: Words) -> int:
    """Do one operation, and what its destructors do, as the digits of the chooser say."""
    try:
        row = driver.next_row()
        if w[_CLOSING] == 0:
            driver.perform(row)
            w[_PANICKING] = 0
    except Exception:
        if w[_VERDICT] == 0:
            w[_VERDICT] = WILD
    if w[_VERDICT] != 0 or mem[VERDICT] != 0:
        return BAD
    if w[_CLOSING] != 0:
        return NO_STEP
    mem[RAISES] = 0
    return STEPPED


def settle(driver: Driver, w: Words, look: int, counts: Words) -> int:
    """Look closely at a new state, then let go of everything; return BAD if anything disagrees. What that does is not counted."""
    digits = w[_DIGIT]
    copy(counts, 0, w, COUNTS_AT, len(counts))
    w[_VERIFY] = ALWAYS
    try:
        if look != 0:
            observe(driver)
        if (_REGISTERING >> w[ROWS_AT]) & 1 != 0:
            for module in range(driver.limits.modules):
                check_lookups(driver, module)
        w[_CLOSING] = 1
        driver.run_to_end()
    except Exception:
        if w[_VERDICT] == 0:
            w[_VERDICT] = WILD
    copy(w, COUNTS_AT, counts, 0, len(counts))
    w[_DIGIT] = digits
    if w[_VERDICT] != 0:
        return BAD
    return STEPPED


def advance(w: Words) -> int:
    """Turn the odometer to the next sequence of answers; return 0 if there is none."""
    digits = w[_DIGIT]
    while digits > 0:
        if w[DIGITS_AT + digits - 1] + 1 < w[RADIXES_AT + digits - 1]:
            w[DIGITS_AT + digits - 1] += 1
            w[_DIGITS] = digits
            return 1
        digits -= 1
    w[_DIGITS] = 0
    return 0


def insert(table: Words, mask: int, low: int, high: int) -> int:
    """Put a digest into the table of those seen; return 1 if it is new. The table has an empty bucket."""
    bucket = low & mask
    while table[2 * bucket] != 0:
        if table[2 * bucket] == low and table[2 * bucket + 1] == high:
            return 0
        bucket = (bucket + 1) & mask
    table[2 * bucket] = low
    table[2 * bucket + 1] = high
    return 1


def rehash(old: Words, table: Words, mask: int) -> None:
    """Put all digests of one table into another, which is empty."""
    for bucket in range(len(old) // 2):
        if old[2 * bucket] != 0:
            insert(table, mask, old[2 * bucket], old[2 * bucket + 1])


def show(control: Words, mask: int) -> None:
    """Count the sometimes properties that a step has shown."""
    property_ = 0
    while mask != 0:
        if mask & 1 != 0:
            control[SHOWN + property_] += 1
        mask >>= 1
        property_ += 1


def search(
    driver: Driver,
    mem: Words,
    w: Words,
    opened_mem: Words,
    opened_w: Words,
    table: Words,
    mask: int,
    parents: Words,
    ordinals: Words,
    frontier: Words,
    following: Words,
    control: Words,
    counts: Words,
    key: Words,
) -> int:
    """Expand states of the frontier until it is empty, room or the budget runs out, or something is found."""
    first = ADDRESSES_AT
    joint = STATE_AT + w[_STATE_WORDS] - first
    size = len(mem)
    room = 2 * (size + joint) + 1
    verify = INSIDE_DESTRUCTORS
    if control[SYMMETRY] != 0:
        verify = ALWAYS
    while control[POSITION] < control[FRONTIER_END]:
        decode(mem, w, frontier, control[POSITION])
        copy(opened_mem, 0, mem, 0, size)
        copy(opened_w, 0, w, first, joint)
        if control[MIDWAY] == 0:
            w[_DIGITS] = 0
            control[ORDINAL] = 0
            control[MIDWAY] = 1
        number = control[STATES] - control[WAITING] - control[ARRIVING]
        more = 1
        while more != 0:
            if control[STATES] >= control[STATES_MAX] or control[FOLLOWING_END] + room > len(following):
                return OUT_OF_ROOM
            if control[BUDGET] <= 0:
                return BUDGET_SPENT
            control[BUDGET] -= 1
            copy(mem, 0, opened_mem, 0, size)
            copy(w, first, opened_w, 0, joint)
            ready(mem, w, verify)
            status = take_step(driver, mem, w)
            if status == NO_STEP:
                break
            control[TRANSITIONS] += 1
            if status == BAD:
                return VIOLATED
            shown = w[STATE_AT + SEEN]
            w[STATE_AT + SEEN] = 0
            w[STATE_AT + FULL] = 0
            digest(mem, w, key)
            if insert(table, mask, key[0], key[1]) != 0:
                parents[control[STATES]] = number
                ordinals[control[STATES]] = control[ORDINAL]
                control[FOLLOWING_END] = encode(mem, w, following, control[FOLLOWING_END])
                control[STATES] += 1
                control[ARRIVING] += 1
                if settle(driver, w, 1 - control[SYMMETRY], counts) == BAD:
                    return VIOLATED
                shown |= w[STATE_AT + SEEN]
            show(control, shown)
            control[ORDINAL] += 1
            more = advance(w)
        control[MIDWAY] = 0
        control[WAITING] -= 1
        control[POSITION] += frontier[control[POSITION]]
    return LEVEL_DONE
