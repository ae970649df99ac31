"""Rows of words outside of the Python heap, which compiled code and forked processes share."""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

WORD_BYTES: Final = 8


class Row:
    """A row of signed 64-bit words, zero at first; a page takes memory from its first use on.

    Args:
        count: words, at least one.

    Attributes:
        words: the words; forked processes see each other's.
        address: where they lie.
    """

    def __init__(self, count: int) -> None:
        self._map = mmap.mmap(-1, max(1, count) * WORD_BYTES)
        self.words = memoryview(self._map).cast("q")
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def __len__(self) -> int:
        return len(self.words)

    def clear(self) -> None:
        """Make all words zero. That is much cheaper than a new row, of which every page would have to be found first."""
        ctypes.memset(self.address, 0, len(self) * WORD_BYTES)

    def larger(self) -> Row:
        """Return a row of twice as many words that begins with these."""
        found = Row(2 * len(self))
        found.words[: len(self)] = self.words
        return found
