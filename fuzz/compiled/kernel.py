"""The loops that never leave compiled code: one step from an opened state, the states of a block expanded, what they found merged.

This text is translated like that of the driver. The interpreted search is `fuzz.explore`, its oracle.

A *block* is a row of encoded states of one level (`fuzz.compiled.joint`). Workers *expand* parts of it side by side; each writes what
it takes for new to a row of its own. Then one process *merges* these rows in order: it alone writes the table of what is known, so
that no count and no number depends on how many workers there are.

An expansion has a *control* row of words, so that it can be left and taken up again at any step: when its row is full, when its
budget is spent, when something is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fuzz.bindings import check_lookups
from fuzz.compiled.joint import copy, count_step, encode, identify, lap, open_state, prefetch, reload_state
from fuzz.compiled.world import COUNTS_AT, DIGITS_AT, RADIXES_AT, RAISES, REGISTERS, ROWS_AT, SAVED_COUNTS_AT, STATE_AT, WILD
from fuzz.driver import ALWAYS, INSIDE_DESTRUCTORS
from fuzz.observe import observe
from impl.header import VERDICT
from model.limits import CUT, FAIL, FULL, SEEN
from model.ops import Kind
from model.words import lowest

if TYPE_CHECKING:
    from typing import TypeAlias

    from fuzz.driver import Driver

    Words: TypeAlias = Any
    """A row of signed 64-bit words."""

_NESTING: Final = REGISTERS["nesting"]
_LEVEL: Final = REGISTERS["level"]
_CLOSING: Final = REGISTERS["closing"]
_PANICKING: Final = REGISTERS["panicking"]
_ARMED: Final = REGISTERS["armed"]
_VERIFY: Final = REGISTERS["verify"]
_VERDICT: Final = REGISTERS["verdict"]
_DIGIT: Final = REGISTERS["digit"]
_DIGITS: Final = REGISTERS["digits"]
_REPEATS: Final = REGISTERS["repeats"]
_STEPS: Final = REGISTERS["steps"]
_LAST_KIND: Final = REGISTERS["last_kind"]
_ENCODED_MAX: Final = REGISTERS["encoded_max"]
_SHOWN: Final = REGISTERS["shown"]
_SYMMETRY: Final = REGISTERS["symmetry"]
_KEY_LOW: Final = REGISTERS["key_low"]
_KEY_HIGH: Final = REGISTERS["key_high"]

# The control row of an expansion.
POSITION: Final = 0  # of the state at hand in the block
END: Final = 1  # where this worker's part of the block ends
NUMBER: Final = 2  # of the state at hand
ORDINAL: Final = 3  # of the step to be taken next
MIDWAY: Final = 4  # whether some steps of the state at hand are taken already
TRANSITIONS: Final = 5
FOUND_END: Final = 6  # words of the row of what was found
BUDGET: Final = 7
FILTERED: Final = 8  # digests in the filter
STATUS: Final = 9
SHOWN: Final = 16
CONTROL_WORDS: Final = 64

# The control row of the search as a whole.
STATES: Final = 0
ARRIVING: Final = 1
FOLLOWING_END: Final = 2
MERGED: Final = 3  # how far the row at hand is merged

# How an expansion comes back.
PART_DONE: Final = 0
OUT_OF_ROOM: Final = 1
BUDGET_SPENT: Final = 2
VIOLATED: Final = 3
FILTER_FULL: Final = 4

# Parts of an expansion, for measurements.
OTHER: Final = 0
RESTORE: Final = 1
STEP: Final = 2
DIGEST: Final = 3
TABLE: Final = 4
ENCODE: Final = 5
CHECK: Final = 6

NO_STEP: Final = 0
STEPPED: Final = 1
BAD: Final = 2

# What was found: its digest, the state and the step that led to it, what its finale showed; then the state, encoded.
FOUND_PARENT: Final = 2
FOUND_ORDINAL: Final = 3
FOUND_SHOWN: Final = 4
FOUND_STATE: Final = 5
ORDINAL_BITS: Final = 24

_REGISTERING: Final = 1 << Kind.REGISTER | 1 << Kind.INSTANTIATE | 1 << Kind.TEARDOWN_STORE


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


def settle(driver: Driver, mem: Words, w: Words, table: Words, mask: int) -> int:
    """Look closely at a new state, then let go of everything; return BAD if anything disagrees. What that does is not counted.

    Letting go ends where it meets a state that is known already: that one was let go of when it was new, and goes on as this
    one would. What was shown is left in a register.
    """
    digits = w[_DIGIT]
    copy(w, SAVED_COUNTS_AT, w, COUNTS_AT, SAVED_COUNTS_AT - COUNTS_AT)
    w[_REPEATS] = 0
    try:
        if w[_SYMMETRY] == 0:
            observe(driver)
        if (_REGISTERING >> w[ROWS_AT]) & 1 != 0:
            for module in range(driver.limits.modules):
                check_lookups(driver, module)
        w[_CLOSING] = 1
        let_go(driver, mem, w, table, mask)
    except Exception:
        if w[_VERDICT] == 0:
            w[_VERDICT] = WILD
    copy(w, COUNTS_AT, w, SAVED_COUNTS_AT, SAVED_COUNTS_AT - COUNTS_AT)
    w[_DIGIT] = digits
    if w[_VERDICT] != 0 or mem[VERDICT] != 0:
        return BAD
    return STEPPED


def let_go(driver: Driver, mem: Words, w: Words, table: Words, mask: int) -> None:
    """Do the operations of the finale until all are done or a known state is met, which was looked at when it was new."""
    w[_SHOWN] = w[STATE_AT + SEEN]
    while True:
        row = driver.next_row()
        if len(row) == 0:
            driver._check_end()  # noqa: SLF001  # the driver's own end of a run
            w[_SHOWN] |= w[STATE_AT + SEEN]
            return
        driver.perform(row)
        w[_PANICKING] = 0
        w[_SHOWN] |= w[STATE_AT + SEEN]
        w[STATE_AT + SEEN] = 0
        w[STATE_AT + FULL] = 0
        identify(mem, w)
        if known(table, mask, w[_KEY_LOW], w[_KEY_HIGH]) != 0:
            return
        if w[_SYMMETRY] == 0:
            observe(driver)


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
    """Put a digest into a table; return 1 if it is new. The table has an empty bucket, and no digest's low word is 0."""
    bucket = low & mask
    while table[2 * bucket] != 0:
        if table[2 * bucket] == low and table[2 * bucket + 1] == high:
            return 0
        bucket = (bucket + 1) & mask
    table[2 * bucket] = low
    table[2 * bucket + 1] = high
    return 1


def known(table: Words, mask: int, low: int, high: int) -> int:
    """Return 1 if a digest is in a table."""
    bucket = low & mask
    while table[2 * bucket] != 0:
        if table[2 * bucket] == low and table[2 * bucket + 1] == high:
            return 1
        bucket = (bucket + 1) & mask
    return 0


def note_new(table: Words, mask: int, filter_: Words, recent: Words, low: int, high: int) -> int:
    """Put a digest into a filter if neither that nor a table has it; return 1 if so.

    Most states are come to several times from others nearby, and a look into a large table is a look into main memory. So a short
    row that stays near has what was asked for last: each digest in a bucket of its own, which another may take.
    """
    bucket = 2 * (low & (len(recent) // 2 - 1))
    if recent[bucket] == low and recent[bucket + 1] == high:
        return 0
    recent[bucket] = low
    recent[bucket + 1] = high
    if known(table, mask, low, high) != 0:
        return 0
    return insert(filter_, len(filter_) // 2 - 1, low, high)


def rehash(old: Words, table: Words, mask: int) -> None:
    """Put all digests of one table into another, which is empty."""
    for bucket in range(len(old) // 2):
        if old[2 * bucket] != 0:
            insert(table, mask, old[2 * bucket], old[2 * bucket + 1])


def show(control: Words, shown: int) -> None:
    """Count the sometimes properties in a mask."""
    while shown != 0:
        control[SHOWN + lowest(shown)] += 1
        shown &= shown - 1


def expand(
    driver: Driver,
    mem: Words,
    w: Words,
    block: Words,
    table: Words,
    mask: int,
    filter_: Words,
    recent: Words,
    found: Words,
    control: Words,
) -> int:
    """Take all steps from the states of one part of a block; leave in `found` those that lead to what the table does not know.

    Args:
        block: encoded states.
        table, mask: what was known before the block; only read.
        filter_: a table for what this worker found in this block, empty at first.
        recent: buckets for what was looked for last, empty when the filter is.
        found: room for what is found.
        control: where the expansion is.
    """
    room = w[_ENCODED_MAX] + FOUND_STATE
    filter_mask = len(filter_) // 2 - 1
    verify = INSIDE_DESTRUCTORS
    if w[_SYMMETRY] != 0:
        verify = ALWAYS
    lap(OTHER)
    while control[POSITION] < control[END]:
        open_state(mem, w, block, control[POSITION])
        lap(RESTORE)
        if control[MIDWAY] == 0:
            w[_DIGITS] = 0
            control[ORDINAL] = 0
            control[MIDWAY] = 1
        w[_REPEATS] = 0
        more = 1
        while more != 0:
            if control[FOUND_END] + room > len(found):
                return OUT_OF_ROOM
            if 4 * control[FILTERED] > 3 * filter_mask:
                return FILTER_FULL
            if control[BUDGET] <= 0:
                return BUDGET_SPENT
            control[BUDGET] -= 1
            count_step()
            ready(mem, w, verify)
            status = take_step(driver, mem, w)
            lap(STEP)
            if status == NO_STEP:
                break
            control[TRANSITIONS] += 1
            if status == BAD:
                return VIOLATED
            shown = w[STATE_AT + SEEN]
            w[STATE_AT + SEEN] = 0
            w[STATE_AT + FULL] = 0
            identify(mem, w)
            low = w[_KEY_LOW]
            high = w[_KEY_HIGH]
            lap(DIGEST)
            new = note_new(table, mask, filter_, recent, low, high)
            lap(TABLE)
            if new != 0 and take_up(driver, mem, w, table, mask, found, control, shown) == BAD:
                return VIOLATED
            show(control, shown)
            control[ORDINAL] += 1
            more = advance(w)
            w[_REPEATS] = w[_DIGITS]
            lap(OTHER)
            reload_state(mem, w)
            lap(RESTORE)
        control[MIDWAY] = 0
        control[NUMBER] += 1
        control[POSITION] += block[control[POSITION]]
    return PART_DONE


def take_up(driver: Driver, mem: Words, w: Words, table: Words, mask: int, found: Words, control: Words, shown: int) -> int:
    """Write a state that may be new to the row of what is found, and look at it; return BAD if anything disagrees."""
    control[FILTERED] += 1
    at = control[FOUND_END]
    found[at] = w[_KEY_LOW]
    found[at + 1] = w[_KEY_HIGH]
    found[at + FOUND_PARENT] = control[NUMBER]
    found[at + FOUND_ORDINAL] = control[ORDINAL]
    end = encode(mem, w, found, at + FOUND_STATE)
    lap(ENCODE)
    if settle(driver, mem, w, table, mask) == BAD:
        return BAD
    found[at + FOUND_SHOWN] = w[_SHOWN] & ~shown
    control[FOUND_END] = end
    lap(CHECK)
    return STEPPED


def merge(found: Words, end: int, table: Words, mask: int, parents: Words, following: Words, control: Words, shown: Words) -> int:
    """Take up what is new of a row of what was found, in order; return OUT_OF_ROOM if the block to come has no room for more.

    Args:
        found, end: the row and how many words it has.
        table, mask: what is known, with room for all of it.
        parents: for each state the one that it was found from and the step that led to it.
        following: the block to come.
        control: the search as a whole.
        shown: a control row, whose counts of sometimes properties are those of the search.
    """
    while control[MERGED] < end:
        at = control[MERGED]
        size = found[at + FOUND_STATE]
        later = at + FOUND_STATE + size
        if later < end:
            prefetch(table, 2 * (found[later] & mask))
        if control[FOLLOWING_END] + size > len(following):
            return OUT_OF_ROOM
        if insert(table, mask, found[at], found[at + 1]) != 0:
            parents[control[STATES]] = found[at + FOUND_PARENT] << ORDINAL_BITS | found[at + FOUND_ORDINAL]
            first = control[FOLLOWING_END]
            copy(following, first, found, at + FOUND_STATE, size)
            control[FOLLOWING_END] += size
            control[STATES] += 1
            control[ARRIVING] += 1
            show(shown, found[at + FOUND_SHOWN])
        control[MERGED] = later
    return PART_DONE


def begin(driver: Driver, mem: Words, w: Words, table: Words, mask: int, following: Words, control: Words, shown: Words) -> int:
    """Note the first state and look at it; return BAD if something disagrees there already."""
    # All digests are sums that begin with this one, whatever it is.
    w[_KEY_LOW] = 1
    w[_KEY_HIGH] = 0
    encode(mem, w, following, 0)
    open_state(mem, w, following, 0)
    ready(mem, w, ALWAYS)
    identify(mem, w)
    control[FOLLOWING_END] = encode(mem, w, following, 0)
    insert(table, mask, w[_KEY_LOW], w[_KEY_HIGH])
    control[STATES] = 1
    control[ARRIVING] = 1
    w[ROWS_AT] = 0
    status = settle(driver, mem, w, table, mask)
    show(shown, w[_SHOWN])
    return status


def skip(block: Words, position: int, count: int) -> int:
    """Return where the states that follow so many others begin."""
    for _ in range(count):
        position += block[position]
    return position
