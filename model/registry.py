"""What registration of stack maps must accept and what a lookup must find, by linear scan."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from model.code import CODE_MODULES
from model.words import bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.code import Module
    from model.limits import Limits

OPEN: Final = 0
ACCEPTED: Final = 1
REFUSED: Final = 2
"""What one registered module decides about the registration of another: nothing, or that it is accepted or refused."""


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
        for offset, words, marked in infos:
            if offset >= end - start or found.get(start + offset, (words, marked)) != (words, marked):
                return None
            found[start + offset] = (words, marked)
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
    if safepoints(module) is None:
        return False
    for old in registered:
        decided = _beside(old, module)
        if decided != OPEN:
            return decided == ACCEPTED
    return True


def _beside(old: Module, module: Module) -> int:
    """Return what a registered module decides about a consistent one that has maps."""
    if not safepoints(old):
        return OPEN
    (old_start, old_end), (start, end) = hull(old), hull(module)
    if (old_start, old_end) == (start, end):
        return ACCEPTED if safepoints(old) == safepoints(module) else REFUSED
    return REFUSED if start < old_end and old_start < end else OPEN


def accepted(limits: Limits, registered: int, module: int) -> bool:
    """Say whether a module must be accepted beside those registered, by number: `accepts` of the module shapes of these limits.

    Args:
        limits: of the run.
        registered: mask of modules.
        module: number of a module.
    """
    relations = limits.relations
    modules = max(limits.modules, CODE_MODULES)
    for old in bits(registered):
        decided = relations[module * modules + old]
        if decided != OPEN:
            return decided == ACCEPTED
    return relations[module * modules + module] == ACCEPTED


@lru_cache(maxsize=256)
def relations(modules: tuple[Module, ...]) -> tuple[int, ...]:
    """Return what registration of each module decides, as the table that `accepted` reads: `accepts` of any of these modules.

    A module's row has an entry for each module that may be registered already. Its own entry says what is decided if no other
    one decides: it may stand for "already registered" as well, for what is registered has been accepted and is so again.
    Complexity: O(modules ** 2) comparisons of safepoints.
    """
    table = []
    for number, module in enumerate(modules):
        alone = accepts((), module)
        mapped = any(infos for _, _, infos in module)
        row = [_beside(old, module) if alone and mapped else OPEN for old in modules]
        row[number] = ACCEPTED if alone else REFUSED
        table += row
    return tuple(table)


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
