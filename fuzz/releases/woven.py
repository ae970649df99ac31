"""What weaving makes of a recipe: activations with code, host contexts with actions, and what has to be observed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from fuzz.releases.program import Action, Place

HELD_OVER: Final = "over"
HELD_BEFORE: Final = "before"
HELD_AFTER: Final = "after"
KEPT_VALUE: Final = "value"
KEPT_NULL: Final = "null"

Instruction = tuple[Any, ...]
"""Name, operands, and last the wrap."""


@dataclass(frozen=True, slots=True)
class Emission:
    """What a program has besides, or instead, for a control experiment (`fuzz.releases.controls`). None of it changes what it must show.

    Args:
        held: `HELD_OVER`: each function that has a safepoint holds one more reference, always null, that is live from its beginning to its
            end. `HELD_BEFORE`, `HELD_AFTER`: the same lines, but all of them stand before, or after, what else the function does.
        padding: each such function has so many more integers that are live from its beginning to its end, so that its frame is another one.
        kept: `KEPT_VALUE`: what a function gets into a slot is stored in a global of its own too, which nobody reads. `KEPT_NULL`: the same
            stores, but of null.
        flipped: the functions stand in the opposite order, each as it is.
        room: the host collects before it passes several references to Wasm at once.
        fills: `table.fill` with null stands for `table.init`; they are the same where the segment holds nothing but nulls.
    """

    held: str = ""
    padding: int = 0
    kept: str = ""
    flipped: bool = False
    room: bool = False
    fills: bool = False


PLAIN: Final = Emission()


@dataclass(slots=True)
class Activation:
    """One activation: what its function must do.

    Args:
        instance: of the model.
        parameters: references that it is entered with.
        called_by_host: needs an export.
        pressure, layout: of the function, see `recipe.Item`.
        code: its instructions in the order of execution.
        results: slots that it returns; None when a trap ended it.
        name: of its function, set when the text is written.
    """

    instance: int
    parameters: int
    called_by_host: bool
    pressure: int
    layout: int
    code: list[Instruction] = field(default_factory=list)
    results: tuple[int, ...] | None = None
    name: str = ""


@dataclass(slots=True)
class HostPart:
    """A host context: the script, or an import under way."""

    place: Place
    actions: list[Action]


@dataclass(slots=True)
class Expected:
    """What has to be observed.

    Args:
        places: host places in the order in which they are reached, destructors' own apart.
        got: what the engine hands over at a place.
        sizes: of tables, at a place.
        traps: places whose call traps.
        needed: for each value, the number of the last place at which something owned it; -1 if it is never made.
        optional: values that are made by a destructor, hence perhaps never.
        collections: places that ask for a collection, which the oldest interfaces cannot.
        due: values that a complete collection at a place, with no Wasm on the stack, has to have destroyed.
    """

    places: list[Place] = field(default_factory=list)
    got: dict[Place, list[int | None]] = field(default_factory=dict)
    sizes: dict[Place, int] = field(default_factory=dict)
    traps: set[Place] = field(default_factory=set)
    needed: list[int] = field(default_factory=list)
    collections: set[Place] = field(default_factory=set)
    optional: set[int] = field(default_factory=set)
    due: dict[int, tuple[int, ...]] = field(default_factory=dict)
