"""A recipe is what a program is made from: the model's operations in order, each with the form that its code takes.

A recipe with any item taken out is a recipe: what is not possible when its turn comes is left out. So it is what gets minimised.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from model.limits import Limits
from model.ops import Kind, Row
from model.trace import Trace, TraceError, format_row, header, parse, parse_row

CHURN: Final = -1
"""`(CHURN, source, index, count)`: Wasm loads one reference many times. Each load fills the activations table a little."""
FRESH: Final = -2
"""`(FRESH, results, count)`: Wasm asks an import for fresh references and hands them to another one, many times."""
GHOST: Final = -3
"""`(GHOST, references)`: code that is not executed, with references live over its calls."""
ACTS: Final = -4
"""`(ACTS, what, subject)`: the destructor of the value made last does something."""

RECURSE: Final = -5
"""`(RECURSE, depth)`: a function calls itself, the host collects at the bottom, and on the way up each frame hands over its arguments."""

OWN_TABLE: Final = 0
LINKED_TABLE: Final = 1
OWN_GLOBAL: Final = 2
LINKED_GLOBAL: Final = 3
SOURCES: Final = 4

WRAPS: Final = 8
"""Ways to put structured control flow around an instruction; 0 is none."""
PRESSURES: Final = 32
LAYOUTS: Final = 64

EXTRAS: Final[dict[int, tuple[str, int]]] = {
    CHURN: ("churn", 3),
    FRESH: ("fresh", 2),
    GHOST: ("ghost", 1),
    ACTS: ("acts", 2),
    RECURSE: ("recurse", 1),
}
"""Word and number of operands of what is no operation of the model."""
EXTRA_WORDS: Final = {word: (kind, count) for kind, (word, count) in EXTRAS.items()}
SEGMENTS_NONE: Final = 0
SEGMENTS_NULL: Final = 1
SEGMENTS_REFERENCES: Final = 2

SUPPORTED: Final = frozenset(
    {
        *(Kind.NEW, Kind.CLONE, Kind.DROP, Kind.CALL_WASM, Kind.HOST_GLOBAL_GET, Kind.HOST_GLOBAL_SET, Kind.HOST_TABLE_GET),
        *(Kind.HOST_TABLE_SET, Kind.HOST_TABLE_GROW, Kind.GC, Kind.INSTANTIATE, Kind.TEARDOWN_INSTANCE, Kind.PANIC),
        *(Kind.RETURN_IMPORT, Kind.LOCAL_COPY, Kind.LOCAL_NULL, Kind.GLOBAL_GET, Kind.GLOBAL_SET, Kind.TABLE_GET, Kind.TABLE_SET),
        *(Kind.TABLE_GROW, Kind.TABLE_FILL, Kind.TABLE_COPY, Kind.TABLE_INIT, Kind.ELEM_DROP, Kind.CALL_FUNCTION, Kind.CALL_IMPORT),
        *(Kind.RETURN, Kind.TRAP),
    }
)
"""What a real engine and its host can be asked to do. The rest is the model's alone: raw pointers, armed faults, sweep orders."""


@dataclass(frozen=True, slots=True)
class Item:
    """One operation and its form.

    Args:
        row: a row of the model, or one that begins with a negative kind of this module.
        form: how the code is written; 0 is plain. `wrap`, `pressure` and `layout` take it apart.
    """

    row: Row
    form: int = 0

    @property
    def wrap(self) -> int:
        """Control flow around the instruction."""
        return self.form % WRAPS

    @property
    def pressure(self) -> int:
        """Integers that are live all through the function that is entered."""
        return self.form // WRAPS % PRESSURES

    @property
    def layout(self) -> int:
        """Order in which the parts of the function that is entered stand in its text; 0 is that of execution."""
        return self.form // (WRAPS * PRESSURES) % LAYOUTS


def form_of(wrap: int, pressure: int = 0, layout: int = 0) -> int:
    """Put a form together.

    >>> item = Item((0,), form_of(3, 17, 5))
    >>> item.wrap, item.pressure, item.layout
    (3, 17, 5)
    """
    return wrap + WRAPS * (pressure + PRESSURES * layout)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a program is made from.

    Args:
        limits: bounds of the model.
        items: operations, in order.
        segments: which element segments the module may have: `SEGMENTS_NONE` and so on.
        collections: collections that the host does besides: 0 none, 1 before each of its actions, others before some.
    """

    limits: Limits
    items: tuple[Item, ...]
    segments: int = SEGMENTS_NONE
    collections: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object: the header of a trace, and a line and a form for each item."""
        return {
            "limits": header(self.limits),
            "segments": self.segments,
            "collections": self.collections,
            "items": [[_text(item.row, self.limits), item.form] for item in self.items],
        }


def _text(row: Row, limits: Limits) -> str:
    if row[0] >= 0:
        return format_row(row, limits)
    return " ".join([EXTRAS[row[0]][0], *map(str, row[1:])])


def from_json(data: object) -> Recipe:
    """Read a recipe.

    Raises:
        ValueError: it is none; one line says why.
    """
    if not isinstance(data, dict) or not isinstance(data.get("limits"), str) or not isinstance(data.get("items"), list):
        raise ValueError("a recipe has limits and items")  # noqa: TRY004  # the type of data is its value
    if data.get("segments") not in {SEGMENTS_NONE, SEGMENTS_NULL, SEGMENTS_REFERENCES}:
        raise ValueError("a recipe's segments are 0, 1 or 2")
    collections = data.get("collections", 0)
    if type(collections) is not int or not 0 <= collections < 1 << 32:
        raise ValueError("a recipe's collections are a number")
    try:
        limits = parse(data["limits"] + "\n").limits
        items = [_item(pair, limits, number) for number, pair in enumerate(data["items"], start=1)]
    except TraceError as error:
        raise ValueError(f"recipe, {error}") from None
    return Recipe(limits, tuple(items), data["segments"], collections)


def _item(pair: object, limits: Limits, number: int) -> Item:
    if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int and pair[1] >= 0):
        raise TraceError(number, "an item is a line and a form")
    word, *operands = pair[0].split()
    if word in EXTRA_WORDS:
        kind, count = EXTRA_WORDS[word]
        if len(operands) != count or not all(text.isascii() and text.isdigit() and len(text) < 7 for text in operands):
            raise TraceError(number, f"{word} has {count} small numbers")
        return Item((kind, *map(int, operands)), pair[1])
    return Item(parse_row(pair[0], limits, number), pair[1])


def of_trace(trace: Trace) -> Recipe:
    """Return the plain recipe of a trace. What an engine cannot be asked to do is left out."""
    rows = (row[:2] if row[0] == Kind.NEW else row for row in trace.rows if row[0] in SUPPORTED)
    return Recipe(trace.limits, tuple(Item(row) for row in rows), SEGMENTS_REFERENCES)


def dumps(recipe: Recipe) -> str:
    """Return it as one line of JSON."""
    return json.dumps(recipe.as_json(), separators=(",", ":"))
