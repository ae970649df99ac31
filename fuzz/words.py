"""What each kind of operation does, in words, for stories; a new kind does not import without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.answers import ALLOCATION_FAILED, OUT_OF_BOUNDS, RAISED, REFUSED
from model.ops import DEAD, NULL, SPECS, Context, Kind, Row, by_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.limits import Limits

UNKNOWN: Final = -100
"""The result of an operation that has not finished."""
_FAILURES: Final = {
    ALLOCATION_FAILED: "its allocation fails",
    REFUSED: "it is refused",
    RAISED: "its constructor raises",
}
_TRANSFERS: Final = frozenset({Kind.CALL_WASM, Kind.RETURN_IMPORT, Kind.GLOBAL_GET, Kind.TABLE_GET})


def did(row: Row, result: int, slots: Sequence[int], limits: Limits, *, panicked: bool = False) -> str:
    """Say what an operation did.

    Args:
        row: the operation.
        result: what the model says came of it; `UNKNOWN` while it has not finished.
        slots: what the top activation's slots held before it; empty outside Wasm.
        limits: of the run.
        panicked: a destructor's panic came out of it.
    """
    kind = Kind(row[0])
    if panicked and kind in _TRANSFERS:
        return "a destructor's panic stops it"
    if result == OUT_OF_BOUNDS:
        text = "out of bounds, so it traps" if SPECS[kind].contexts[0] == Context.WASM else "out of bounds"
    else:
        text = _FAILURES.get(result) or WORDS[kind](row, result, slots, limits)
    return f"{text}; a destructor's panic comes out of it" if panicked else text


def value(name: int) -> str:
    """Name a value, or what stands where one could."""
    if name >= 0:
        return f"value {name}"
    return {NULL: "null", DEAD: "a dead slot"}.get(name, "a value")


def values(names: Sequence[int]) -> str:
    """Name several, with their number if they are many.

    >>> values([1]), values([0, -1, 2])
    ('value 1', 'value 0, null and value 2')
    """
    found = [value(name) for name in names]
    if len(found) > 6:  # what one line can hold
        return f"{', '.join(found[:3])} and {len(found) - 3} more"
    return " and ".join(part for part in (", ".join(found[:-1]), found[-1]) if part) if found else "nothing"


def _in_slots(slots: Sequence[int], numbers: Sequence[int]) -> list[int]:
    return [slots[number] if number < len(slots) else UNKNOWN for number in numbers]


def _slot(slots: Sequence[int], number: int) -> str:
    return value(_in_slots(slots, (number,))[0])


def _new(row: Row, result: int, _slots: Sequence[int], _limits: Limits) -> str:
    owns = f", which owns {values(row[2:])}" if len(row) > 2 else ""
    return f"makes {value(result)}{owns}"


def _grow(row: Row, result: int, what: str) -> str:
    if result == UNKNOWN:
        return f"grows table {row[1]}"
    if result < 0:
        return f"table {row[1]} does not grow"
    return f"grows table {row[1]} to {result + row[2]} elements, new ones hold {what}"


def _instantiate(row: Row, result: int, _slots: Sequence[int], limits: Limits) -> str:
    what = f"global 0 of instance {row[2] - limits.objects}" if row[2] >= limits.objects else value(row[2])
    number = "an instance" if result == UNKNOWN else f"instance {result}"
    return f"makes {number}, global 0 holds {what}" if limits.globals else f"makes {number}"


def _range(row: Row, source: str) -> str:
    return f"copies {row[5]} from {source} {row[2]} to table {row[1]}"


def _enters(row: Row, names: Sequence[int]) -> str:
    return f"enters function {row[2]} with {values(names)}"


_WORDS: Final[dict[Kind, Callable[[Row, int, Sequence[int], Limits], str]]] = {
    Kind.NEW: _new,
    Kind.NEW_RAISING: lambda _r, _n, _s, _l: "its constructor raises",
    Kind.CLONE: lambda r, _n, _s, _l: f"the host holds {value(r[1])} once more",
    Kind.DROP: lambda r, _n, _s, _l: f"the host lets go of {value(r[1])}",
    Kind.FORGET: lambda r, _n, _s, _l: f"the host leaks {value(r[1])}",
    Kind.RAW_ROUND_TRIP: lambda r, _n, _s, _l: f"{value(r[1])} as a raw pointer and back",
    Kind.GET_FIELD: lambda _r, n, _s, _l: f"the destructor takes up {value(n)}",
    Kind.SET_FIELD: lambda r, _n, _s, _l: f"{value(r[1])} owns {value(r[3])}",
    Kind.CALL_WASM: lambda r, _n, _s, _l: _enters(r, r[3:]),
    Kind.HOST_GLOBAL_GET: lambda _r, n, _s, _l: f"the host reads {value(n)}",
    Kind.HOST_GLOBAL_SET: lambda r, _n, _s, _l: f"the global holds {value(r[3])}",
    Kind.HOST_TABLE_GET: lambda _r, n, _s, _l: f"the host reads {value(n)}",
    Kind.HOST_TABLE_SET: lambda r, _n, _s, _l: f"the element holds {value(r[3])}",
    Kind.HOST_TABLE_GROW: lambda r, n, _s, _l: _grow(r, n, value(r[3])),
    Kind.HOST_TABLE_FILL: lambda r, _n, _s, _l: f"{r[3]} elements hold {value(r[4])}",
    Kind.HOST_TABLE_COPY: lambda r, _n, _s, _l: _range(r, "table"),
    Kind.HOST_TABLE_INIT: lambda r, _n, _s, _l: _range(r, "segment"),
    Kind.GC: lambda _r, _n, _s, _l: "collects",
    Kind.INSTANTIATE: _instantiate,
    Kind.TEARDOWN_INSTANCE: lambda r, _n, _s, _l: f"takes instance {r[1]} down",
    Kind.TEARDOWN_STORE: lambda _r, _n, _s, _l: "takes the store down, collects",
    Kind.REGISTER: lambda r, _n, _s, _l: f"registers the stack maps of module {r[1]}",
    Kind.PANIC: lambda _r, _n, _s, _l: "panics",
    Kind.RETURN_IMPORT: lambda r, _n, _s, _l: f"returns to Wasm with {values(r[1:])}",
    Kind.END: lambda _r, _n, _s, _l: "the destructor returns",
    Kind.LOCAL_COPY: lambda r, _n, s, _l: f"slot {r[2]} holds {_slot(s, r[1])}",
    Kind.LOCAL_NULL: lambda r, _n, _s, _l: f"slot {r[1]} holds null",
    Kind.SPILL: lambda r, _n, _s, _l: f"dead slot {r[1]} holds a scalar",
    Kind.GLOBAL_GET: lambda r, n, _s, _l: f"slot {r[3]} borrows {value(n)}",
    Kind.GLOBAL_SET: lambda r, _n, s, _l: f"the global holds {_slot(s, r[3])}",
    Kind.TABLE_GET: lambda r, n, _s, _l: f"slot {r[3]} borrows {value(n)}",
    Kind.TABLE_SET: lambda r, _n, s, _l: f"the element holds {_slot(s, r[3])}",
    Kind.TABLE_GROW: lambda r, n, s, _l: _grow(r, n, _slot(s, r[3])),
    Kind.TABLE_FILL: lambda r, _n, s, _l: f"{r[3]} elements hold {_slot(s, r[4])}",
    Kind.TABLE_COPY: lambda r, _n, _s, _l: _range(r, "table"),
    Kind.TABLE_INIT: lambda r, _n, _s, _l: _range(r, "segment"),
    Kind.ELEM_DROP: lambda r, _n, _s, _l: f"drops segment {r[1]}",
    Kind.CALL_FUNCTION: lambda r, _n, s, _l: _enters(r, _in_slots(s, r[4:])),
    Kind.CALL_IMPORT: lambda r, _n, s, _l: f"enters the host with {values(_in_slots(s, r[2:]))}",
    Kind.RETURN: lambda r, _n, s, _l: f"returns {values(_in_slots(s, r[1:]))}",
    Kind.TRAP: lambda _r, _n, _s, _l: "traps",
    Kind.CUT_WALK: lambda r, _n, _s, _l: f"the next walk ends after {r[1]} frames",
    Kind.FAIL_ALLOCATION: lambda r, _n, _s, _l: f"the next operation's allocation {r[1]} fails",
    Kind.SWEEP_ORDER: lambda r, _n, _s, _l: f"the next sweep goes in order {r[1]}",
}
WORDS: Final = by_kind(_WORDS, "fuzz.words.WORDS")
