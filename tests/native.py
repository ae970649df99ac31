"""Single functions of the compiled reading, for tests that compare them with what Python makes of the same text."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from fuzz.compiled import machine
from fuzz.compiled.library import load
from fuzz.compiled.machine import Machine
from fuzz.compiled.rows import Row
from fuzz.compiled.world import MEM_MAX

SIGN = 1 << 63


def signed(words: Sequence[int]) -> list[int]:
    """Words as compiled code has them."""
    return [word - 2 * (word & SIGN) if word > 0 else word for word in words]


def row_of(words: Sequence[int]) -> Row:
    """A row that begins with these words. It has at least one word: of an empty row, pass its length as well."""
    row = Row(len(words))
    for index, word in enumerate(signed(words)):
        row.words[index] = word
    return row


def call(function: Callable[..., Any], *values: Row | int | tuple[Row, int], mem: memoryview[int] | None = None) -> int:
    """Call an entry.

    Args:
        function: by its plain twin.
        values: rows, or rows of which only so many words count, and words.
        mem: what is in the memory; nothing in particular by default.
    """
    if Machine._at_hand is not None:
        Machine._at_hand.leave()
        Machine._at_hand = None
    library = load()
    if mem is not None:
        place = (ctypes.c_int64 * MEM_MAX).in_dll(library, "mem")
        ctypes.memmove(place, bytes(mem), len(mem) * 8)
        ctypes.c_int64.in_dll(library, "mem_words").value = len(mem)
    words: list[int] = []
    for value in values:
        if isinstance(value, tuple):
            words += (value[0].address, value[1])
        else:
            words += (value,) if isinstance(value, int) else (value.address, len(value))
    return int(machine._entry(function)(*words) or 0)
