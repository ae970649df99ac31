"""The search of the model alone in compiled code: its small steps taken from packed states, and what they found told apart.

This text is translated like that of the joint search (`fuzz.compiled.kernel`), whose blocks, control rows and tables it uses. What a
step does is `fuzz.small_steps`, which order they come in is `fuzz.small_steps.steps`, and the oracle is `fuzz.model_states`.

A packed state is its length and then eight words of the state in each word. Without symmetry, its digest is that of these words; with
symmetry, that of a description without names (`fuzz.compiled.nameless`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fuzz.compiled import digest
from fuzz.compiled.joint import copy, count_step
from fuzz.compiled.kernel import (
    ARRIVING,
    BAD,
    BUDGET,
    BUDGET_SPENT,
    END,
    FILTER_FULL,
    FILTERED,
    FOLLOWING_END,
    FOUND_END,
    FOUND_ORDINAL,
    FOUND_PARENT,
    FOUND_SHOWN,
    FOUND_STATE,
    MIDWAY,
    NO_STEP,
    NUMBER,
    ORDINAL,
    OUT_OF_ROOM,
    PART_DONE,
    POSITION,
    STATES,
    STEPPED,
    TRANSITIONS,
    VIOLATED,
    advance,
    insert,
    note_new,
    show,
)
from fuzz.compiled.nameless import describe
from fuzz.compiled.world import COUNTS_AT, REGISTERS, ROWS_AT, STATE_AT, WILD
from fuzz.small_steps import DESTROY, FINISH, OPERATE, OPERATE_FULL, check_properties, let_go, mortal, pending, take
from model.limits import SEEN, UNDER_WAY
from model.step import inserts
from model.words import lowest

if TYPE_CHECKING:
    from typing import TypeAlias

    from model.limits import Limits
    from model.ops import Row
    from model.state import State

    Words: TypeAlias = Any
    """A row of signed 64-bit words."""

_VERDICT: Final = REGISTERS["verdict"]
_ALLOWED: Final = REGISTERS["shown"]
"""Whether the step was allowed. The register has no other use here."""
_DIGITS: Final = REGISTERS["digits"]
_CUT_SHORT: Final = REGISTERS["cut_short"]
_FINALE: Final = REGISTERS["finale"]
_SYMMETRY: Final = REGISTERS["symmetry"]
_STATE_WORDS: Final = REGISTERS["state_words"]
_OPENED_AT: Final = REGISTERS["opened_at"]
_KEY_LOW: Final = REGISTERS["key_low"]
_KEY_HIGH: Final = REGISTERS["key_high"]

# Words of the control row that this expansion alone has: which step comes next.
WHAT: Final = 10
"""The kind of step, or that there is none."""
LEFT: Final = 11
"""Mask of the values whose destruction is still to be taken."""
LENGTH: Final = 12
"""Words of the operation at hand."""
NOTHING: Final = FINISH + 1

DEADLOCK: Final = -1
"""Stands for the number of the violating step where the state itself violates something."""
PACKED: Final = 8
"""Words of a state in one of a packed state."""


def pack(w: Words, out: Words, at: int) -> int:
    """Write the state to `out` from `at + 1` on, eight words in one, and its length to `out[at]`; return where it ends."""
    end = at + 1
    first = STATE_AT
    last = STATE_AT + w[_STATE_WORDS]
    while first + PACKED <= last:
        word = 0
        for index in range(8):
            word |= (w[first + index] & 255) << (8 * index)
        out[end] = word
        end += 1
        first += PACKED
    if first < last:
        word = 0
        for index in range(last - first):
            word |= (w[first + index] & 255) << (8 * index)
        out[end] = word
        end += 1
    out[at] = end - at
    return end


def unpack(w: Words, source: Words, at: int, target: int) -> None:
    """Write the words of a packed state to the world from `target` on."""
    for index in range(w[_STATE_WORDS]):
        byte = (source[at + 1 + (index >> 3)] >> (8 * (index & 7))) & 255
        w[target + index] = (byte ^ 128) - 128


def identify(state: State, limits: Limits, w: Words, packed: Words) -> None:
    """Leave the digest of the state in its two registers. The low word is never 0: that is an empty bucket."""
    if w[_SYMMETRY] != 0:
        describe(state, limits, w)
    else:
        digest.digest(packed, w, _KEY_LOW)
    if w[_KEY_LOW] == 0:
        w[_KEY_LOW] = 1


# --- steps


def draw_row(_state: State, _limits: Limits) -> Row:
    """Return the operation that the digits of the odometer say; empty if none is possible. A seam: compiled code draws into the world.

    Raises:
        NotImplementedError: in the plain reading, which lists operations (`model.possible`).
    """
    raise NotImplementedError


def choose_step(state: State, limits: Limits, w: Words, control: Words) -> int:
    """Return which step comes next, and leave its row in the world; NOTHING where an odometer draws what it has drawn already."""
    what: int = control[WHAT]
    if what == DESTROY:
        w[ROWS_AT] = lowest(control[LEFT])
        control[LENGTH] = 1
        control[LEFT] &= control[LEFT] - 1
        if control[LEFT] == 0:
            control[WHAT] = FINISH
        return what
    if what == FINISH:
        control[LENGTH] = 1
        control[WHAT] = NOTHING
        return what
    row = draw_row(state, limits)
    control[LENGTH] = len(row)
    if len(row) == 0:
        control[WHAT] = NOTHING
        return NOTHING
    if w[_CUT_SHORT] != 0:
        what = NOTHING
    elif what == OPERATE and inserts(state, limits, row):
        control[WHAT] = OPERATE_FULL
        return what
    control[WHAT] = OPERATE
    if advance(w) == 0:
        control[WHAT] = NOTHING
    return what


def attempt(state: State, limits: Limits, w: Words, what: int, row: Row) -> int:
    """Take a step; say whether it was allowed, and whether it violates something."""
    w[_VERDICT] = 0
    w[_ALLOWED] = 0
    try:
        w[_ALLOWED] = int(take(state, limits, what, row))
    except Exception:  # noqa: BLE001  # verdicts land here, and whatever else a defect raises
        if w[_VERDICT] == 0:
            w[_VERDICT] = WILD
    if w[_VERDICT] != 0:
        return BAD
    if w[_ALLOWED] == 0:
        return NO_STEP
    return STEPPED


def judge(state: State, limits: Limits, w: Words) -> int:
    """Look at a new state, and let go of everything from it if that is wanted; the state is of no use any more."""
    w[_VERDICT] = 0
    try:
        check_properties(state, limits)
        if w[_FINALE] != 0 and state[UNDER_WAY] == 0:
            let_go(state, limits)
    except Exception:  # noqa: BLE001  # verdicts land here, and whatever else a defect raises
        if w[_VERDICT] == 0:
            w[_VERDICT] = WILD
    if w[_VERDICT] != 0:
        return BAD
    return STEPPED


def open_state(state: State, limits: Limits, w: Words, block: Words, control: Words) -> None:
    """Make a packed state the one that steps are taken from; begin with the first one, unless some are taken already."""
    unpack(w, block, control[POSITION], w[_OPENED_AT])
    copy(w, STATE_AT, w, w[_OPENED_AT], w[_STATE_WORDS])
    if control[MIDWAY] == 0:
        control[MIDWAY] = 1
        control[ORDINAL] = 0
        control[WHAT] = OPERATE
        w[_DIGITS] = 0
        if pending(state):
            control[LEFT] = mortal(state, limits)
            control[WHAT] = DESTROY
            if control[LEFT] == 0:
                control[WHAT] = FINISH


def expand(
    state: State,
    limits: Limits,
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
        state, limits: parts of the world.
        block: packed states.
        table, mask: what was known before the block; only read.
        filter_: a table for what this worker found in this block, empty at first.
        recent: buckets for what was looked for last, empty when the filter is.
        found: room for what is found.
        control: where the expansion is.
    """
    room = (w[_STATE_WORDS] >> 3) + 2 + FOUND_STATE
    filter_mask = len(filter_) // 2 - 1
    while control[POSITION] < control[END]:
        open_state(state, limits, w, block, control)
        while control[WHAT] != NOTHING:
            if control[FOUND_END] + room > len(found):
                return OUT_OF_ROOM
            if 4 * control[FILTERED] > 3 * filter_mask:
                return FILTER_FULL
            if control[BUDGET] <= 0:
                return BUDGET_SPENT
            control[BUDGET] -= 1
            count_step()
            what = choose_step(state, limits, w, control)
            if what != NOTHING:
                status = attempt(state, limits, w, what, w[ROWS_AT : ROWS_AT + control[LENGTH]])
                if status != NO_STEP:
                    control[TRANSITIONS] += 1
                    if status == BAD or note(state, limits, w, what, table, mask, filter_, recent, found, control) == BAD:
                        return VIOLATED
                    control[ORDINAL] += 1
                copy(w, STATE_AT, w, w[_OPENED_AT], w[_STATE_WORDS])
        if control[ORDINAL] == 0 and pending(state):
            control[ORDINAL] = DEADLOCK
            return VIOLATED
        control[MIDWAY] = 0
        control[NUMBER] += 1
        control[POSITION] += block[control[POSITION]]
    return PART_DONE


def note(
    state: State,
    limits: Limits,
    w: Words,
    what: int,
    table: Words,
    mask: int,
    filter_: Words,
    recent: Words,
    found: Words,
    control: Words,
) -> int:
    """Count a step, and note the state that it leads to if it may be new; return BAD if that violates something."""
    show(control, state[SEEN])
    state[SEEN] = 0
    if what <= OPERATE_FULL:
        w[COUNTS_AT + w[ROWS_AT]] += 1
    at = control[FOUND_END]
    end = pack(w, found, at + FOUND_STATE)
    identify(state, limits, w, found[at + FOUND_STATE + 1 : end])
    low = w[_KEY_LOW]
    high = w[_KEY_HIGH]
    if note_new(table, mask, filter_, recent, low, high) == 0:
        return STEPPED
    control[FILTERED] += 1
    found[at] = low
    found[at + 1] = high
    found[at + FOUND_PARENT] = control[NUMBER]
    found[at + FOUND_ORDINAL] = control[ORDINAL]
    found[at + FOUND_SHOWN] = 0
    control[FOUND_END] = end
    return judge(state, limits, w)


def begin(state: State, limits: Limits, w: Words, table: Words, mask: int, following: Words, control: Words) -> int:
    """Note the first state."""
    end = pack(w, following, 0)
    identify(state, limits, w, following[1:end])
    insert(table, mask, w[_KEY_LOW], w[_KEY_HIGH])
    control[FOLLOWING_END] = end
    control[STATES] = 1
    control[ARRIVING] = 1
    return STEPPED
