"""A witness is replayed on a memory of ints in which every word that nobody wrote is 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from proofs.obligations import WitnessRefuted


class SparseMemory(dict[int, int]):
    """Words by address, as many as a witness names.

    >>> mem = SparseMemory({5: 7})
    >>> mem[5], mem[1 << 40], len(mem)
    (7, 0, 1)
    """

    def __missing__(self, address: int) -> int:
        return 0


def needs(condition: bool, otherwise: str) -> None:
    """Insist on what a replay is to show.

    Args:
        condition: Whether it did.
        otherwise: What happened instead.

    Raises:
        WitnessRefuted: It did not.
    """
    if not condition:
        raise WitnessRefuted(otherwise)


Values: TypeAlias = Mapping[str, int | bool]
