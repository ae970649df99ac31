"""A whole run of a campaign in compiled code, and the digest of its operations by which the two readings are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fuzz.compiled.digest import step_first, step_second
from fuzz.compiled.joint import clear, copy
from fuzz.compiled.kernel import ready
from fuzz.compiled.world import ADDRESSES_AT, COUNTS_AT, REGISTERS, SAVED_COUNTS_AT, STATE_AT, WILD
from fuzz.driver import ALWAYS
from impl.header import VERDICT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from fuzz.driver import Driver
    from model.ops import Row

    Words: TypeAlias = Any
    """A row of signed 64-bit words."""

_NESTING: Final = REGISTERS["nesting"]
_VERDICT: Final = REGISTERS["verdict"]
_ROOT_AT: Final = REGISTERS["root_at"]
_STATE_WORDS: Final = REGISTERS["state_words"]
_STEPS_MAX: Final = REGISTERS["steps_max"]
_OPERATIONS_MAX: Final = REGISTERS["operations_max"]
_SEEDED: Final = REGISTERS["seeded"]
_DICE: Final = REGISTERS["dice"]
_THOROUGH: Final = REGISTERS["thorough"]
_RUN_LOW: Final = REGISTERS["run_low"]
_RUN_HIGH: Final = REGISTERS["run_high"]


def run(driver: Driver, mem: Words, w: Words, dice: int, operations_max: int) -> int:
    """Do one run from the first state to the end of its finale; return 0 if both sides agree.

    Args:
        dice: the state of the generator, `fuzz.choosers.Seeded.state`.
        operations_max: from here on nothing is drawn any more.
    """
    size = len(mem)
    root = w[_ROOT_AT]
    copy(mem, 0, w, root, size)
    copy(w, ADDRESSES_AT, w, root + size, STATE_AT + w[_STATE_WORDS] - ADDRESSES_AT)
    clear(w, COUNTS_AT, SAVED_COUNTS_AT - COUNTS_AT)
    ready(mem, w, ALWAYS)
    w[_SEEDED] = 1
    w[_DICE] = dice
    w[_OPERATIONS_MAX] = operations_max
    w[_THOROUGH] = 0
    w[_RUN_LOW] = 1
    w[_RUN_HIGH] = 2
    attempt(driver, w)
    if w[_VERDICT] != 0 or mem[VERDICT] != 0:
        return 1
    return 0


def attempt(driver: Driver, w: Words) -> None:
    """Run to the end, or to a verdict."""
    try:
        driver.run_to_end()
    except Exception:
        if w[_VERDICT] == 0:
            w[_VERDICT] = WILD


def note(w: Words, row: Words) -> None:
    """Take an operation into the digest of the run: how deep inside destructors it is, how many words it has, and these."""
    head = w[_NESTING] << 8 | len(row)
    low = step_first(w[_RUN_LOW], head)
    high = step_second(w[_RUN_HIGH], head)
    for word in row:
        low = step_first(low, word)
        high = step_second(high, word)
    w[_RUN_LOW] = low
    w[_RUN_HIGH] = high


def digest_of(rows: Sequence[Row], depths: Sequence[int]) -> tuple[int, int]:
    """Return the digest of a run that the plain reading did."""
    low, high = 1, 2
    for row, depth in zip(rows, depths, strict=True):
        for word in (depth << 8 | len(row), *row):
            low, high = step_first(low, word), step_second(high, word)
    return low, high
