"""What registration of stack maps must accept and what a lookup must find, by linear scan."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.code import Module


@lru_cache(maxsize=256)
def safepoints(module: Module) -> dict[int, tuple[int, int]] | None:
    """Return pc -> (words, bits) of a module, or None if the module contradicts itself.

    It does if a safepoint lies outside its function, if two functions share a pc, or if one pc has two maps.
    """
    found: dict[int, tuple[int, int]] = {}
    for number, (start, end, infos) in enumerate(module):
        for other_start, other_end, _ in module[:number]:
            # An empty function shares no pc with anything, wherever it lies.
            if max(start, other_start) < min(end, other_end):
                return None
        for offset, words, bits in infos:
            if offset >= end - start or found.get(start + offset, (words, bits)) != (words, bits):
                return None
            found[start + offset] = (words, bits)
    return found


def hull(module: Module) -> tuple[int, int]:
    """Return the range of pcs from the first function's start to the last one's end."""
    return min(start for start, _, _ in module), max(end for _, end, _ in module)


def accepts(registered: Sequence[Module], module: Module) -> bool:
    """Say whether a module must be accepted beside those registered.

    Accepted: consistent, and either without any map, or the same range and maps as one registered, or disjoint from all.
    """
    if not any(infos for _, _, infos in module):
        return True
    new = safepoints(module)
    if new is None:
        return False
    start, end = hull(module)
    for old in registered:
        if not safepoints(old):
            continue
        old_start, old_end = hull(old)
        if (old_start, old_end) == (start, end):
            return safepoints(old) == new
        if start < old_end and old_start < end:
            return False
    return True


def all_safepoints(registered: Sequence[Module]) -> dict[int, tuple[int, int]]:
    """Return pc -> (words, bits) of everything registered; what `find` answers for each pc."""
    found: dict[int, tuple[int, int]] = {}
    for module in reversed(registered):
        found.update(safepoints(module) or {})
    return found


def find(registered: Sequence[Module], pc: int) -> tuple[int, int] | None:
    """Return (words, bits) of the map of exactly this pc, or None."""
    for module in registered:
        found = (safepoints(module) or {}).get(pc)
        if found is not None:
            return found
    return None


@lru_cache(maxsize=256)
def interesting_pcs(module: Module) -> list[int]:
    """Return the pcs where lookups go wrong first: each boundary and safepoint, and its neighbours."""
    pcs = {pc for start, end, infos in module for pc in (start, end, *(start + offset for offset, _, _ in infos))}
    return sorted({near for pc in pcs for near in (pc - 1, pc, pc + 1) if near > 0})
