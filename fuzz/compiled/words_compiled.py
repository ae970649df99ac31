"""The elementary steps of `model.words` as compiled code says them: loops over signed 64-bit words, no lists.

Each function stands in for the one of its name, and a test compares the two. None calls another, so that its text can be taken
as it is. A loop that clears the lowest bit until none is left is how a compiler is told to count bits by one instruction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def bits(mask: int) -> Iterator[int]:
    """Yield the numbers in a mask, lowest first."""
    while mask != 0:
        rest = (mask & -mask) - 1
        mask &= mask - 1
        number = 0
        while rest != 0:
            rest &= rest - 1
            number += 1
        yield number


def nth(mask: int, n: int) -> int:
    """Return the n-th number in a mask, counted from 0; -1 if there are not so many."""
    for _ in range(n):
        mask &= mask - 1
    if mask == 0:
        return -1
    rest = (mask & -mask) - 1
    number = 0
    while rest != 0:
        rest &= rest - 1
        number += 1
    return number


def lowest(mask: int) -> int:
    """Return the lowest number in a mask, -1 if it is empty."""
    if mask == 0:
        return -1
    rest = (mask & -mask) - 1
    number = 0
    while rest != 0:
        rest &= rest - 1
        number += 1
    return number


def popcount(mask: int) -> int:
    """Return how many numbers are in a mask."""
    number = 0
    while mask != 0:
        mask &= mask - 1
        number += 1
    return number


def deposit(n: int, mask: int) -> int:
    """Return the n-th submask of a mask in ascending order."""
    found = 0
    while n != 0 and mask != 0:
        if n & 1:
            found |= mask & -mask
        mask &= mask - 1
        n >>= 1
    return found


def within(cells: list[int], first: int, last: int, word: int) -> bool:
    """Say whether a word stands in `cells[first:last]`."""
    for index in range(first, last):  # noqa: SIM110  # a generator expression cannot be compiled
        if cells[index] == word:
            return True
    return False


def occurrences(cells: list[int], first: int, last: int, word: int) -> int:
    """Return how often a word stands in `cells[first:last]`."""
    found = 0
    for index in range(first, last):
        if cells[index] == word:
            found += 1
    return found


def put(cells: list[int], first: int, last: int, word: int) -> None:
    """Write a word to each of `cells[first:last]`."""
    for index in range(first, last):
        cells[index] = word
