"""A symbolic memory is any content of all words at once, with a log of which words were read and written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import z3

from proofs.words import Context, Operand, Word, every, some, term

WORD_BITS: Final = 64

# A term, an int, or a half-open range of addresses as a pair of them.
Place: TypeAlias = Any


class SymbolicMemory:
    """`mem[index]` and `mem[index] = word` on one path, at symbolic addresses.

    Args:
        path: The path that the words read are on.
        before: The content at first, an array of 64-bit words by 64-bit words.

    Attributes:
        now: The content as it is.
        reads: The addresses that were read, in order.
        writes: Address and word of each store, in order.
    """

    __slots__ = ("before", "now", "path", "reads", "writes")

    def __init__(self, path: Context, before: z3.ArrayRef) -> None:
        self.path = path
        self.before = before
        self.now = before
        self.reads: list[z3.BitVecRef] = []
        self.writes: list[tuple[z3.BitVecRef, z3.BitVecRef]] = []

    def __getitem__(self, index: Operand) -> Word:
        address = term(index)
        self.reads.append(address)
        return Word(z3.Select(self.now, address), self.path)

    def __setitem__(self, index: Operand, word: Operand) -> None:
        address = term(index)
        value = term(word)
        self.writes.append((address, value))
        self.now = z3.Store(self.now, address, value)

    def wrote_only(self, places: Sequence[Place]) -> z3.BoolRef:
        """Say that each store went to one of some places: single addresses, or half-open ranges of them."""
        return every(_among(address, places) for address, _ in self.writes)

    def read_only(self, places: Sequence[Place]) -> z3.BoolRef:
        """Say that each load came from one of some places."""
        return every(_among(address, places) for address in self.reads)

    def kept(self, address: z3.BitVecRef) -> z3.BoolRef:
        """Say that the word at an address is what it was at first."""
        return z3.Select(self.now, address) == z3.Select(self.before, address)


def fresh_memory(name: str = "memory") -> z3.ArrayRef:
    """Return the array that stands for an arbitrary content."""
    return z3.Array(name, z3.BitVecSort(WORD_BITS), z3.BitVecSort(WORD_BITS))


def at(memory: z3.ArrayRef, address: z3.BitVecRef | int) -> z3.BitVecRef:
    """Return the word at an address of a content."""
    return z3.Select(memory, z3.BitVecVal(address, WORD_BITS) if isinstance(address, int) else address)


def _among(address: z3.BitVecRef, places: Sequence[Place]) -> z3.BoolRef:
    """Say that an address is one of some places."""
    return some(
        z3.And(z3.ULE(place[0], address), z3.ULT(address, place[1])) if isinstance(place, tuple) else address == place for place in places
    )
