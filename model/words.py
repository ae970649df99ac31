"""The elementary steps that each reading of the model says in its own words; the text of everything else is common to all.

A state, a row and the like are *cells*: a list or a tuple of ints when the text is interpreted, an array of machine words when it
is compiled. A mask is a set of small numbers: bit `n` is set if `n` is in it. Interpreted, masks are as wide as they must be;
compiled, they are signed words, so no bit above 62 may be asked for. Slices and methods of lists are fast in one reading and
unknown in the other: hence these functions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model.choose import Chooser


def ask(chooser: Chooser, count: int) -> int:
    """Let the chooser pick one of `count >= 2` alternatives, numbered from 0.

    Raises:
        Exhausted: it has no more answers.
    """
    return chooser.choose(count)


def bits(mask: int) -> Iterable[int]:
    """Return the numbers in a mask, lowest first. Good for nothing but one iteration.

    >>> list(bits(0b1010))
    [1, 3]
    """
    # Written out, for a call costs as much as what it does.
    if mask < _SMALL:
        return _NUMBERS[mask]
    return _numbers_in_word(mask) if mask < _WORD else _numbers_in(mask)


def nth(mask: int, n: int) -> int:
    """Return the n-th number in a mask, counted from 0; there must be so many.

    >>> nth(0b1010, 0), nth(0b1010, 1)
    (1, 3)
    """
    if mask < _SMALL:
        return _NUMBERS[mask][n]
    return (_numbers_in_word(mask) if mask < _WORD else _numbers_in(mask))[n]


def lowest(mask: int) -> int:
    """Return the lowest number in a mask, -1 if it is empty.

    >>> lowest(0b1010), lowest(0)
    (1, -1)
    """
    return (mask & -mask).bit_length() - 1


def popcount(mask: int) -> int:
    """Return how many numbers are in a mask.

    >>> popcount(0b1010)
    2
    """
    return mask.bit_count()


def deposit(n: int, mask: int) -> int:
    """Return the n-th submask of a mask in ascending order: bit `i` of `n` goes where the mask's i-th number is.

    >>> [deposit(n, 0b1010) for n in range(4)]
    [0, 2, 8, 10]
    """
    found = 0
    for bit in bits(mask):
        if n & 1:
            found |= 1 << bit
        n >>= 1
    return found


def within(cells: Sequence[int], first: int, last: int, word: int) -> bool:
    """Say whether a word stands in `cells[first:last]`."""
    return word in cells[first:last]


def occurrences(cells: Sequence[int], first: int, last: int, word: int) -> int:
    """Return how often a word stands in `cells[first:last]`."""
    return cells[first:last].count(word)


def put(cells: list[int], first: int, last: int, word: int) -> None:
    """Write a word to each of `cells[first:last]`; first must not be greater than last."""
    cells[first:last] = [word] * (last - first)


def _numbers_in(mask: int) -> tuple[int, ...]:
    """Return the numbers in a mask. Masks of one word are often the same few, so the answers for them are kept."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return tuple(found)


_numbers_in_word = lru_cache(maxsize=1 << 12)(_numbers_in)
_SMALL: Final = 1 << 10
_WORD: Final = 1 << 64
_NUMBERS: Final = tuple(_numbers_in(mask) for mask in range(_SMALL))
