"""Runs of words are read by loops without an early exit, which a compiler turns into vector instructions.

Each takes a run as a view of its own: where both bounds of a loop are those of the array, compiled code needs no check within it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from impl.header import POISON

if TYPE_CHECKING:
    Words: TypeAlias = memoryview[int] | list[int]
    """Words that can be cut: a memory, a view of one, or a row of numbers."""


def any_set(run: Words) -> int:
    """Return all bits that are set in any word of a run; 0 if all its words are 0."""
    found = 0
    for index in range(len(run)):
        found |= run[index]
    return found


def any_but_poison(run: Words) -> int:
    """Return 0 if all words of a run are poison, and another number if not."""
    found = 0
    for index in range(len(run)):
        found |= run[index] ^ POISON
    return found


def any_different(run: Words, expected: Words) -> int:
    """Return 0 if two runs of one length are equal word by word, and another number if not."""
    found = 0
    for index in range(len(run)):
        found |= run[index] ^ expected[index]
    return found


def below(a: int, b: int) -> bool:
    """Return whether `a` is less than `b`, both read as unsigned words.

    Compiled words are signed. There, of two words with different signs the negative one is the larger.
    """
    return (a < b) == ((a < 0) == (b < 0))
