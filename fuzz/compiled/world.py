"""Where everything that is not the simulated memory lies in the compiled reading: one array of words, the *world*.

The world has a part for each list of the driver, a word for each of its numbers, the bounds, and, last, the model's state, whose
size depends on them. All offsets are constants, so that compiled code has them built in.
"""

from __future__ import annotations

import ast
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from impl.errors import AllocationFailed, OutOfBounds, Panicked, RegistrationRefused
from impl.header import VERDICT
from model.choose import Exhausted
from model.limits import Limits, Shape
from model.ops import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

MEM_MAX: Final = 1 << 15
"""Most words of a memory."""
WORLD_MAX: Final = 1 << 20
"""Most words of a world."""
LAPS_MAX: Final = 8
"""Parts of a search that a library which is built for that tells apart; see `fuzz.compiled.kernel`."""
LEVELS: Final = 32
"""Most operations under way at once."""
ROW_WORDS: Final = 16
"""Most words of an operation."""
OBJECTS_MAX: Final = 60
DIGITS_MAX: Final = 1024
"""Most choices of one run or step."""
RELATIONS_MAX: Final = 16 * 16

# Numbers that change. The first are attributes of the driver and the runtime, by their names there.
_REGISTER_NAMES: Final = (
    "nesting",
    "level",
    "closing",
    "panicking",
    "armed",
    "verify",
    "thorough",
    "_cells",
    "_frame_words",
    # What ended the run; 0 while nothing has.
    "verdict",
    # The chooser.
    "digit",
    "digits",
    # Of a step, how many digits were given with it, if the last of them is all that differs from the step before; else 0.
    "repeats",
    "last_kind",
    "state_words",
    "memory_words",
    "steps",
    "steps_max",
    "operations_max",
    "seeded",
    "dice",
    # A campaign's run: two halves of the digest of its operations.
    "run_low",
    "run_high",
    # Offsets of what lies behind the state, because its size depends on the bounds.
    "plan_at",
    "owners_at",
    "live_at",
    "scratch_at",
    "lookups_at",
    "lookups_count",
    "pcs_at",
    "pcs_end",
    "root_at",
    "described_at",
    "ranks_at",
    "opened_at",
    "told_at",
    "small_at",
    "large_at",
    "world_words",
    # The search.
    "dirty_words",
    "encoded_max",
    "symmetry",
    "key_low",
    "key_high",
    "opened_low",
    "opened_high",
    "shown",
    # The search of the model alone: whether a list that was drawn found nothing more to take, and whether all is let go of.
    "cut_short",
    "finale",
)
REGISTERS: Final = {name: number for number, name in enumerate(_REGISTER_NAMES)}
REGISTERS_MAX: Final = 64

BOUND_NAMES: Final = (
    *(field.name for field in fields(Limits) if field.name not in ("scope", "kinds")),
    *(f"shape.{field.name}" for field in fields(Shape)),
    "needs_always",
    "kinds_mask",
)
BOUNDS_AT: Final = REGISTERS_MAX
BOUNDS_MAX: Final = 64
DIRTY_AT: Final = BOUNDS_AT + BOUNDS_MAX
DIRTY_SHIFT: Final = 3
"""A mark stands for eight words of the memory, a line of the cache."""
LINE: Final = 1 << DIRTY_SHIFT
DIRTY_WORDS: Final = (MEM_MAX >> DIRTY_SHIFT + 6) + 1
HELD_AT: Final = DIRTY_AT + DIRTY_WORDS
"""Marks of the lines in which the opened state may differ from the first one."""
LANES_AT: Final = HELD_AT + DIRTY_WORDS
"""What has changed in the two halves of the digest, summed up separately for each word of a line."""
DYING_AT: Final = LANES_AT + 2 * LINE
EXPECTED_AT: Final = DYING_AT + LEVELS
COUNTS_AT: Final = EXPECTED_AT + LEVELS
SAVED_COUNTS_AT: Final = COUNTS_AT + len(Kind)
RELATIONS_AT: Final = SAVED_COUNTS_AT + len(Kind)
DIGITS_AT: Final = RELATIONS_AT + RELATIONS_MAX
RADIXES_AT: Final = DIGITS_AT + DIGITS_MAX
ROWS_AT: Final = RADIXES_AT + DIGITS_MAX
# Short lists that an operation needs of references, names and slots: the compiled reading allocates nothing.
REFS_AT: Final = ROWS_AT + (LEVELS + 1) * ROW_WORDS
NAMES_AT: Final = REFS_AT + ROW_WORDS * (LEVELS + 1)
TARGETS_AT: Final = NAMES_AT + ROW_WORDS * (LEVELS + 1)
# What was drawn last in each turn of a step: the digits used until then, its length, the kinds that were possible, and the operation.
DRAWN_AT: Final = TARGETS_AT + (LEVELS + 1) * ROW_WORDS
DRAWN_MAX: Final = 16
DRAWN_ROW: Final = 3
DRAWN_WORDS: Final = DRAWN_ROW + ROW_WORDS
# The word before the addresses is the one that the name of null, -1, finds. From the addresses on, everything belongs to the joint state.
ADDRESSES_AT: Final = DRAWN_AT + DRAWN_MAX * DRAWN_WORDS + 1
FORGOTTEN_AT: Final = ADDRESSES_AT + OBJECTS_MAX
STATE_AT: Final = FORGOTTEN_AT + OBJECTS_MAX

ARRAYS: Final = {
    "state": STATE_AT,
    "addresses": ADDRESSES_AT,
    "forgotten": FORGOTTEN_AT,
    "dying": DYING_AT,
    "expected": EXPECTED_AT,
    "counts": COUNTS_AT,
    "relations": RELATIONS_AT,
}
"""Offsets of lists, by what the translator calls them."""
ALIASES: Final = {
    "driver": {
        "state": "state",
        "limits": "limits",
        "runtime": "runtime",
        "addresses": "addresses",
        "forgotten": "forgotten",
        "dying": "dying",
        "expected": "expected",
        "counts": "counts",
    },
    "runtime": {"memory": "mem", "host": "host", "config": "config"},
    "limits": {"shape": "shape", "relations": "relations"},
}
"""Which attributes of what are parts of the world."""
DROPPED: Final = frozenset({"rows", "depths", "skipped"})
"""Attributes of the driver that only record."""
NEVER: Final[dict[tuple[str, str], Any]] = {("driver", "on_step"): None}
"""Attributes whose value is always the same in compiled code."""
REPORTS: Final = frozenset({"diverge", "_diverge_in"})
"""Functions that do nothing but raise with a message: their arguments are not even computed."""

RAISES: Final = VERDICT + 1
"""The word of the memory in which a function without a world leaves what it raised. Zero between operations."""
_OUTCOMES: Final[dict[type[BaseException], int]] = {
    Panicked: 1,
    AllocationFailed: 2,
    OutOfBounds: 3,
    RegistrationRefused: 4,
    Exhausted: 5,
}
_VERDICT: Final = 16
WILD: Final = 17
"""What came out of the implementation is no exception of the simulated language: an index out of the memory, as a rule."""
DISAGREES: Final = 18
HANGS: Final = 19
BROKEN: Final = 32
"""An invariant is broken; its number is added."""


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function in the generated text."""
    return f"{function.__module__}.{function.__qualname__}".replace(".", "__").replace("<", "").replace(">", "")


def outcome_of(kind: type[BaseException]) -> int:
    """Return the number that stands for an exception: small ones for the simulated language's, larger ones for verdicts."""
    return _OUTCOMES.get(kind, _VERDICT)


def bound_at(name: str) -> int:
    """Return the offset of a bound.

    Raises:
        KeyError: there is none of this name.
    """
    if name not in BOUND_NAMES:
        raise KeyError(name)
    return BOUNDS_AT + BOUND_NAMES.index(name)


_CONFIGURED: Final = {"table_max": "table"}


def config_at(name: str) -> ast.expr:
    """Return the expression of a number of the configuration: most are bounds."""
    if name == "hash_seed":
        return ast.Constant(0)
    return ast.Subscript(ast.Name("w", ast.Load()), ast.Constant(bound_at(_CONFIGURED.get(name, name))), ast.Load())
