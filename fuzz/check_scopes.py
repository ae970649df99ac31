"""Scopes for exhaustive search: a preset each, cut down to a few operations and the smallest bounds that still show something.

What matters is what they show together: every operation, and every sometimes property. Each is searched to its end in seconds.
The label in a trace's header stays that of the preset, since it is the bounds that a replay needs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from model.limits import SCOPES, Limits, with_numbers
from model.ops import Kind

_SMALLEST: Final = {
    "chunk": 1,
    "objects": 1,
    "roots": 1,
    "slots": 1,
    "functions": 1,
    "arguments": 1,
    "contexts": 2,
    "destructors": 0,
    "destructor_ops": 1,
    "instances": 1,
    "globals": 0,
    "table": 0,
    "segment": 0,
    "fields": 0,
    "layouts": 1,
    "leaks": 1,
    "orders": 2,
    "modules": 2,
}
_PASSING: Final = frozenset({Kind.NEW, Kind.INSTANTIATE, Kind.CALL_WASM, Kind.RETURN})


def _scope(preset: str, kinds: frozenset[Kind], **bounds: int) -> Limits:
    """Return a preset with exactly these operations, and the smallest bounds but for those that are given."""
    return replace(with_numbers(SCOPES[preset], _SMALLEST | bounds), kinds=kinds)


CHECK_SCOPES: Final[dict[str, Limits]] = {
    # Values that own each other, leaks, panics, failing allocations; no Wasm.
    "counting": _scope("counting", SCOPES["counting"].kinds, objects=2, roots=2, fields=1, destructors=1),
    # Blocks of several sizes and alignments beside each other.
    "layouts": _scope("counting", frozenset({Kind.NEW, Kind.DROP}), objects=3, roots=3, layouts=4),
    # Two activations: functions, imports, traps and panics through both, walks that are cut short.
    "calls": _scope(
        "calls",
        _PASSING
        | {Kind.DROP, Kind.CALL_FUNCTION, Kind.CALL_IMPORT, Kind.RETURN_IMPORT, Kind.LOCAL_NULL, Kind.SPILL, Kind.GC}
        | {Kind.TRAP, Kind.CUT_WALK, Kind.PANIC},
        contexts=3,
    ),
    # Two references cross from the host to Wasm in one transfer.
    "transfers": _scope("calls", _PASSING, objects=2, roots=2, slots=2, arguments=2),
    # Every store to a global and every load from it, compiled and by the host.
    "globals": _scope(
        "storage",
        _PASSING
        | {Kind.CLONE, Kind.DROP, Kind.GLOBAL_GET, Kind.GLOBAL_SET, Kind.HOST_GLOBAL_GET, Kind.HOST_GLOBAL_SET}
        | {Kind.GC, Kind.LOCAL_NULL, Kind.LOCAL_COPY},
        roots=2,
        globals=1,
    ),
    # The same for tables.
    "storage": _scope(
        "storage",
        _PASSING
        | {Kind.TABLE_GET, Kind.TABLE_SET, Kind.TABLE_GROW, Kind.TABLE_FILL}
        | {Kind.HOST_TABLE_GET, Kind.HOST_TABLE_SET, Kind.HOST_TABLE_FILL, Kind.HOST_TABLE_GROW},
        table=1,
    ),
    # A destructor looks at the slot that its value came from.
    "slots": _scope(
        "storage",
        _PASSING | {Kind.TABLE_SET, Kind.TABLE_FILL, Kind.GLOBAL_SET} | {Kind.HOST_TABLE_SET, Kind.HOST_TABLE_GET, Kind.HOST_GLOBAL_GET},
        destructors=1,
        globals=1,
        table=1,
    ),
    # A store releases another value, whose destructor looks at the counts in the middle of it.
    "stores": _scope(
        "storage",
        frozenset({Kind.NEW, Kind.INSTANTIATE, Kind.CALL_WASM, Kind.GLOBAL_SET, Kind.HOST_GLOBAL_SET}),
        objects=2,
        destructors=1,
        globals=1,
    ),
    # A destructor panics in the collection that makes room for a load.
    "panics": _scope(
        "faults",
        frozenset({Kind.NEW, Kind.INSTANTIATE, Kind.CALL_WASM, Kind.GLOBAL_GET, Kind.PANIC}),
        objects=2,
        destructors=1,
        globals=1,
    ),
    # Element segments and what is copied from them. A segment gets its references from the value that initialises a global.
    "segments": _scope(
        "storage",
        _PASSING | {Kind.DROP, Kind.TABLE_INIT, Kind.HOST_TABLE_INIT, Kind.ELEM_DROP} | {Kind.TABLE_COPY, Kind.HOST_TABLE_COPY},
        globals=1,
        table=1,
        segment=1,
        arguments=0,
    ),
    # Ranges of one table that overlap.
    "copies": _scope(
        "storage",
        frozenset({Kind.NEW, Kind.INSTANTIATE, Kind.HOST_TABLE_GROW, Kind.HOST_TABLE_COPY}),
        table=3,
        arguments=0,
    ),
    # One value whose destructor may do two operations of any kind, those of the Wasm that it calls included.
    "reentrancy": _scope("reentrancy", SCOPES["reentrancy"].kinds - {Kind.CLONE}, destructors=1, destructor_ops=2, globals=1),
    # Destructors inside destructors, and values that die with their owner.
    "nesting": _scope(
        "reentrancy",
        frozenset({Kind.NEW, Kind.DROP, Kind.GET_FIELD, Kind.GC, Kind.PANIC}),
        objects=2,
        roots=2,
        destructors=2,
        destructor_ops=2,
        fields=1,
    ),
    # A collection finds a value doomed, and a destructor that it runs takes the value up again.
    "rescue": _scope(
        "reentrancy",
        frozenset({Kind.NEW, Kind.INSTANTIATE, Kind.CALL_WASM, Kind.GC, Kind.GET_FIELD}),
        objects=2,
        roots=2,
        destructors=1,
        fields=1,
        arguments=1,
    ),
    # Two values die in one sweep, in either order.
    "sweeps": _scope(
        "faults",
        _PASSING | {Kind.GC, Kind.SWEEP_ORDER, Kind.CUT_WALK},
        chunk=2,
        objects=2,
        roots=2,
    ),
    # Modules that touch, overlap and repeat each other.
    "registry": _scope("registry", _PASSING | {Kind.REGISTER, Kind.GC, Kind.TEARDOWN_STORE}, modules=5),
    # A module that has the range of another, and other maps.
    "modules": _scope("registry", frozenset({Kind.REGISTER, Kind.TEARDOWN_STORE}), modules=4, slots=2),
    # Every allocation fails once: values, instances half-built, tables that cannot grow, constructors that raise.
    "faults": _scope(
        "faults",
        frozenset(
            {Kind.NEW, Kind.NEW_RAISING, Kind.DROP, Kind.FAIL_ALLOCATION, Kind.INSTANTIATE}
            | {Kind.TEARDOWN_INSTANCE, Kind.TEARDOWN_STORE, Kind.HOST_TABLE_GROW}
        ),
        destructors=1,
        globals=1,
        table=1,
    ),
    # What `bench/peers` says in TLA+ and Promela: one global, transfers that collect, destructors that act. Two values are 92,696 states.
    "peers": _scope(
        "reentrancy",
        _PASSING | {Kind.DROP, Kind.HOST_GLOBAL_GET, Kind.HOST_GLOBAL_SET, Kind.GLOBAL_GET, Kind.GLOBAL_SET, Kind.GC},
        destructors=1,
        globals=1,
    ),
}
"""By the name that `drc check --scope` knows."""

DEEP_SCOPES: Final[dict[str, Limits]] = {
    # Three activations deep, two values, every way through and out of them but cut walks.
    "deep-calls": _scope(
        "calls",
        _PASSING | {Kind.DROP, Kind.CALL_FUNCTION, Kind.CALL_IMPORT, Kind.RETURN_IMPORT, Kind.GC} | {Kind.TRAP, Kind.PANIC},
        contexts=4,
        objects=2,
        roots=2,
    ),
    # Two values in two globals, with copies in both hands of the host.
    "deep-globals": replace(CHECK_SCOPES["globals"], objects=2, roots=3, globals=2, chunk=2),
    # Two values, tables of two elements.
    "deep-storage": replace(CHECK_SCOPES["storage"], objects=2, roots=2, table=2),
    # Two values whose destructors act: insert, collect, load, store.
    "deep-destructors": replace(CHECK_SCOPES["peers"], objects=2, roots=2),
}
DEEP_SCOPES["vast-calls"] = replace(DEEP_SCOPES["deep-calls"], contexts=5, objects=3, roots=4)
DEEP_SCOPES["vast-contexts"] = replace(DEEP_SCOPES["deep-calls"], contexts=7, roots=3)
DEEP_SCOPES["vast-globals"] = replace(DEEP_SCOPES["deep-globals"], objects=3, globals=4)
DEEP_SCOPES["vast-destructors"] = replace(DEEP_SCOPES["deep-destructors"], objects=3, roots=3, globals=2)
"""Larger scopes; `make check-deep` searches them all."""

DEEP_WITHOUT_SYMMETRY: Final = frozenset({"vast-calls", "vast-contexts", "vast-globals", "vast-destructors"})
"""Those of them that `make check-deep` searches without symmetry, which is stricter."""
DEEP_COUNTS: Final[dict[str, tuple[int, int, int]]] = {
    "deep-calls": (81_748, 483_802, 24),
    "deep-globals": (107_650, 978_760, 20),
    "deep-storage": (126_063, 3_186_008, 22),
    "deep-destructors": (92_696, 677_398, 29),
    "vast-calls": (56_999_592, 357_065_130, 37),
    "vast-contexts": (64_544_924, 391_281_270, 36),
    "vast-globals": (89_662_620, 1_278_151_692, 29),
    "vast-destructors": (83_304_332, 1_664_107_296, 38),
}
"""States, transitions and depth of each."""
