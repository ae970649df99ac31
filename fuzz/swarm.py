"""Runs differ more when each may do less: a variant of a scope has some of its kinds and other bounds.

What is switched off cannot get in the way: a run without `teardown_store` keeps its instances, one without `gc` fills the
chunk (Groce et al., Swarm Testing, 2012). Half of a campaign's runs use the scope as it is, because some findings need everything.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from fuzz.choosers import Seeded
from model.limits import Limits, with_numbers
from model.ops import Kind

POOL: Final = 48
"""Variants that one campaign draws from, besides the scope itself."""

_SALT: Final = 0x5741_524D
_SPINE: Final = frozenset({Kind.NEW, Kind.CALL_WASM, Kind.INSTANTIATE, Kind.END, Kind.RETURN, Kind.RETURN_IMPORT})
"""Without these a run says nothing."""
_DISRUPTIVE: Final = frozenset(
    {
        Kind.PANIC,
        Kind.TRAP,
        Kind.TEARDOWN_STORE,
        Kind.TEARDOWN_INSTANCE,
        Kind.FAIL_ALLOCATION,
        Kind.SWEEP_ORDER,
        Kind.NEW_RAISING,
        Kind.REGISTER,
        Kind.FORGET,
    }
)
"""They end contexts, undo work or change nothing, so most variants go without most of them."""
_THEMES: Final = (
    # Deep stacks that are walked while references are live on them.
    {Kind.CALL_FUNCTION, Kind.CALL_IMPORT, Kind.CUT_WALK, Kind.GC, Kind.DROP, Kind.GLOBAL_SET, Kind.GLOBAL_GET},
    # Sweeps whose destructors act.
    {Kind.GC, Kind.GET_FIELD, Kind.SWEEP_ORDER, Kind.PANIC, Kind.CLONE, Kind.DROP, Kind.CALL_IMPORT, Kind.TEARDOWN_STORE},
    # Counting alone.
    {Kind.CLONE, Kind.DROP, Kind.FORGET, Kind.RAW_ROUND_TRIP, Kind.SET_FIELD, Kind.GET_FIELD, Kind.NEW_RAISING, Kind.GC},
    # Barriers of compiled code and of the host.
    {Kind.DROP, Kind.GC} | {kind for kind in Kind if Kind.GLOBAL_GET <= kind <= Kind.ELEM_DROP},
    {Kind.DROP, Kind.GC} | {kind for kind in Kind if Kind.HOST_GLOBAL_GET <= kind <= Kind.HOST_TABLE_INIT},
    # Many references at once: sets that grow, collide and are drained; see `_MANY`.
    {Kind.GC},
    # What fails half-way.
    {Kind.FAIL_ALLOCATION, Kind.NEW_RAISING, Kind.TABLE_GROW, Kind.HOST_TABLE_GROW, Kind.TEARDOWN_INSTANCE, Kind.REGISTER, Kind.TRAP},
)
"""Kinds that belong together: among few kinds, long combinations come up by chance."""
_RANGES: Final = {
    "objects": (2, 8),
    "roots": (2, 8),
    "slots": (1, 4),
    "functions": (1, 2),
    "arguments": (1, 4),
    "contexts": (3, 8),
    "destructors": (1, 3),
    "destructor_ops": (1, 8),
    "globals": (1, 2),
    "table": (1, 4),
    "segment": (1, 2),
    "fields": (1, 2),
    "orders": (1, 6),
}
"""Bounds that vary, unless the scope has switched them off with a zero."""
_MANY_THEME: Final = 5
_MANY: Final = {"objects": 8, "roots": 8, "slots": 8, "arguments": 8, "instances": 1, "destructors": 1, "fields": 1}
"""Bounds of the theme of many references: a set has to hold four to grow, and five before a misplaced one shows.

Nothing but new values and calls: values that own each other, and all that lets go of one, keep the host from having five at once.
"""
_MANY_CHUNK_MAX: Final = 3
_LARGE_CHUNKS: Final = (64, 512)


@lru_cache(maxsize=512)
def variant(limits: Limits, number: int) -> Limits:
    """Return a variant of a scope; number 0 is the scope itself. A pure function of both.

    Args:
        limits: the scope.
        number: from 0; any two numbers give unrelated variants.
    """
    if number == 0:
        return limits
    chooser = Seeded(number ^ _SALT << 32)
    numbers = {name: _between(chooser, low, high) for name, (low, high) in _RANGES.items() if chooser.choose(2) and getattr(limits, name)}
    numbers["chunk"] = _chunk(chooser)
    if number & 1 and (number >> 1) % len(_THEMES) == _MANY_THEME:
        numbers |= {name: bound for name, bound in _MANY.items() if getattr(limits, name)}
        # What stays in the chunk is in no set.
        numbers["chunk"] = _between(chooser, 1, _MANY_CHUNK_MAX)
    if chooser.choose(4) == 0:
        # Where blocks lie decides the order of sweeps, and a block that stays away shows who still holds its address.
        numbers["quarantine"] = _between(chooser, 1, 8)
    if chooser.choose(2):
        # Registration is checked against every module shape: two are enough for all but its own defects.
        numbers["modules"] = min(2, limits.modules)
    return with_numbers(replace(limits, kinds=_kinds(chooser, limits, number)), numbers)


def _kinds(chooser: Seeded, limits: Limits, number: int) -> frozenset[Kind]:
    """Return a theme's kinds, or any: a quarter, a half or three quarters of them.

    Themes take turns instead of being drawn, so that each pool has all of them.
    """
    if number & 1:
        return limits.kinds & (_SPINE | _THEMES[(number >> 1) % len(_THEMES)])
    quarters = 1 + chooser.choose(3)
    kinds = set(_SPINE & limits.kinds)
    for kind in sorted(limits.kinds - _SPINE):
        if chooser.choose(4) < (1 if kind in _DISRUPTIVE else quarters):
            kinds.add(kind)
    return frozenset(kinds)


def _between(chooser: Seeded, low: int, high: int) -> int:
    return low + chooser.choose(high - low + 1)


def _chunk(chooser: Seeded) -> int:
    """Small chunks fill up and collect; now and then a large one, as in practice."""
    if chooser.choose(12) == 0:
        return _LARGE_CHUNKS[chooser.choose(len(_LARGE_CHUNKS))]
    return _between(chooser, 1, 8)
