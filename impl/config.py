"""Everything that decides how a runtime's memory looks before the first operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Safepoint: TypeAlias = tuple[int, int, int]
"""Offset of the pc in its function, number of frame words that the map covers, mask of those that are references."""
Function: TypeAlias = tuple[int, int, tuple[Safepoint, ...]]
"""First pc, the pc after the last, and the safepoints that have a map."""
Module: TypeAlias = tuple[Function, ...]
Layout: TypeAlias = tuple[int, int, int]
"""Size of a value in bytes, its alignment in bytes, and how many of its first words are references that it owns."""


@dataclass(frozen=True)
class Config:
    """The shape of a runtime.

    Args:
        chunk: slots of the activations table's bump chunk.
        layouts: layouts of values.
        instances: most instances at once.
        globals: globals of each instance.
        table_max: most elements of an instance's table.
        segment: length of each instance's element segment.
        slots: locals of each function.
        modules: code of each module.
        stack_words: size of the thread stack in words.
        heap_words: size of the heap in words; even.
        quarantine: freed blocks that are kept from reuse.
        hash_seed: seed of all hash sets.
    """

    chunk: int = 512
    layouts: tuple[Layout, ...] = ((8, 8, 1),)
    instances: int = 1
    globals: int = 1
    table_max: int = 4
    segment: int = 0
    slots: int = 2
    modules: tuple[Module, ...] = ()
    stack_words: int = 1024
    heap_words: int = 4096
    quarantine: int = 0
    hash_seed: int = 0
