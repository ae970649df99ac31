"""A recipe is woven on the model: it becomes a host script, activations with code, and what has to be observed when they run.

The model runs alone here, without an implementation. Values die in it as soon as they may, so that names are free again; what a
program has to show does not depend on that. For each value, the last place is kept at which anything owned it: a destruction before
that place is early. Between two loads and stores of one activation nobody else need own a value that it uses later, and the later use
is what counts then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fuzz.releases import recipe
from fuzz.releases.program import ENTRY, Action, Place
from fuzz.releases.recipe import SUPPORTED, Item, Recipe
from fuzz.releases.steps import BEFORE, EXTRAS
from fuzz.releases.woven import PLAIN, Activation, Emission, Expected, HostPart
from model.answers import OUT_OF_BOUNDS
from model.books import destruction_begins, destruction_ends, top_book
from model.choose import impossible
from model.limits import COLLECTS, DEPTH, DOOMED, LIVE, RELEASED, TOUCHED, UNDER_WAY
from model.ops import NULL, Kind, Row
from model.state import State, held_mask, initial, mask_of, on_stack, owned, root_mask
from model.step import begin, closing_kind, closing_name, finish
from model.words import bits

if TYPE_CHECKING:
    from collections.abc import Sequence

_REACH: Final[dict[int, tuple[int, ...]]] = {
    Kind.GLOBAL_GET: (1,),
    Kind.GLOBAL_SET: (1,),
    Kind.TABLE_GET: (1,),
    Kind.TABLE_SET: (1,),
    Kind.TABLE_GROW: (1,),
    Kind.TABLE_FILL: (1,),
    Kind.TABLE_COPY: (1, 2),
    Kind.TABLE_INIT: (1,),
    Kind.CALL_FUNCTION: (1,),
}
"""Operands that name an instance which the code must be linked to."""
_OWN: Final[dict[int, int]] = {Kind.TABLE_INIT: 2, Kind.ELEM_DROP: 1}
"""Operands that name an instance which must be the code's own: segments are not imported."""
_GLOBALS: Final = (Kind.GLOBAL_GET, Kind.GLOBAL_SET)
_HOST_ELEMENTS: Final = (Kind.HOST_TABLE_GET, Kind.HOST_TABLE_SET)


class Weaver:
    """Executes items on the model, one at a time, and writes down what a real host and engine have to do.

    Args:
        recipe_: its limits and segments count; its items are not looked at.
        emission: what the program has besides.
    """

    def __init__(self, recipe_: Recipe, emission: Emission = PLAIN) -> None:
        self.emission = emission
        # What destructors do is the engine's host's business: the model's own return at once.
        self.limits = replace(recipe_.limits, destructors=0)
        self.segments = recipe_.segments
        self.state: State = initial(self.limits)
        self.expected = Expected()
        self.script: list[Action] = []
        self.imports: list[list[Action]] = []
        self.destructors: dict[int, tuple[Action, ...]] = {}
        self.activations: list[Activation] = []
        self.parts: list[HostPart | Activation] = [HostPart(("script",), self.script)]
        self.value: dict[int, int] = {}
        self.instances: dict[int, int] = {}
        self.instances_made = 0
        self.links: dict[int, int] = {}
        self.initials: dict[int, int] = {}
        self.shape_of_module: tuple[int, int] | None = None
        self.imports_initial = False
        self.rooms: list[Place] = []
        self.kept: set[int] = set()
        self.settled: set[int] = set()

    # What a recipe's item does.

    def why_not(self, row: Row) -> str | None:
        """Say why an operation is not possible now on a real engine, or None if it is."""
        if row[0] not in SUPPORTED:
            return "no engine can be asked for it"
        lacking = impossible(self.state, self.limits, row)
        return self._unlinked(row) if lacking is None else lacking

    def perform(self, item: Item) -> bool:
        """Execute an item; say whether it was possible. Complexity: linear in the model's cells."""
        row = item.row
        if row[0] < 0:
            return EXTRAS[row[0]](self, item)
        if self.why_not(row) is not None:
            return False
        self._execute(row, item)
        return True

    def close(self) -> None:
        """Leave all contexts, let go of everything, collect, and drop the store."""
        while (kind := closing_kind(self.state, self.limits)) not in (NULL, Kind.TEARDOWN_STORE):
            row: Row = (kind, closing_name(self.state, self.limits)) if kind == Kind.DROP else (kind,)
            self._execute(row, Item(row))
        self._execute((Kind.GC,), Item((Kind.GC,)))
        self.act(["drop_store"])

    def _execute(self, row: Row, item: Item) -> None:
        state, limits = self.state, self.limits
        before = BEFORE.get(row[0])
        after = before(self, row, item) if before is not None else None
        result = begin(state, limits, row)
        if result == OUT_OF_BOUNDS:
            self.trapped()
        self._destroy_what_may_die()
        finish(state, limits, row, result, panicked=False)
        if result != OUT_OF_BOUNDS and after is not None:
            after(result)
        del self.parts[state[DEPTH] :]
        self.note()

    def _destroy_what_may_die(self) -> None:
        state, limits = self.state, self.limits
        while state[UNDER_WAY]:
            book = top_book(state, limits)
            may = state[book + RELEASED] | (state[book + DOOMED] & ~state[book + TOUCHED] if state[book + COLLECTS] else 0)
            names = [n for n in bits(may & state[LIVE]) if not owned(state, limits.shape, n) and not on_stack(state, limits.shape, n)]
            if not names:
                return
            for name in names:
                destruction_begins(state, limits, name)
                destruction_ends(state, limits, name, acted=False, panicked=False)
                del self.value[name]

    # Places and what is needed there.

    def act(self, action: Action) -> Place:
        """Add an action to the host context on top; return its place. What ends an import is not announced as a place."""
        part = self.parts[-1]
        if not isinstance(part, HostPart):
            raise TypeError(f"{action[0]} is the host's, but Wasm is on top")
        place = (*part.place, len(part.actions))
        part.actions.append(action)
        if action[0] not in {"return", "raise"}:
            self.expected.places.append(place)
        return place

    def make_room(self, values: Sequence[int | None]) -> None:
        """Before values go to Wasm: collect, if several references go at once and that is asked for."""
        if self.emission.room and sum(value is not None for value in values) > 1:
            self.rooms.append(self.act(["gc"]))
            self.expected.collections.add(self.rooms[-1])

    def arrive(self, values: list[int | None]) -> HostPart:
        """Begin an import call; what it is given counts as got."""
        number = len(self.imports)
        self.imports.append([])
        place: Place = ("import", number, ENTRY)
        self.expected.places.append(place)
        self.expected.got[place] = values
        return HostPart(("import", number), self.imports[number])

    def note(self) -> None:
        """Write down who is owned here and now."""
        state, shape = self.state, self.limits.shape
        mask = root_mask(state, shape) | mask_of(state, shape.globals, shape.slots) | held_mask(state, shape)
        here = len(self.expected.places) - 1
        needed = self.expected.needed
        for name in bits(mask):
            needed[self.value[name]] = here
        for value in self.initials.values():
            needed[value] = here

    def new_value(self) -> int:
        """Return the number of a new value."""
        self.expected.needed.append(len(self.expected.places) - 1)
        return len(self.expected.needed) - 1

    def of(self, name: int) -> int | None:
        """Return the value of a name, None for null."""
        return None if name == NULL else self.value[name]

    def held(self, name: int) -> bool:
        """Say whether the host holds a name."""
        return name >= 0 and self.state[self.limits.shape.roots + name] > 0

    def slots(self) -> list[int]:
        """Return what the top activation's slots hold."""
        first = self.limits.shape.slots + (self.state[DEPTH] - 1) * self.limits.slots
        return self.state[first : first + self.limits.slots]

    def code(self, *instruction: Any) -> None:  # noqa: ANN401  # operands differ by instruction
        """Add an instruction to the activation on top."""
        part = self.parts[-1]
        if not isinstance(part, Activation):
            raise TypeError(f"{instruction[0]} is Wasm's, but the host is on top")
        part.code.append(instruction)

    def own(self) -> int:
        """Return the instance of the activation on top, -1 outside Wasm."""
        part = self.parts[-1]
        return part.instance if isinstance(part, Activation) else -1

    def owner(self, instance: int) -> str:
        """Return how the top activation names another instance's table or global: "own" or "linked"."""
        return "own" if instance == self.own() else "linked"

    def trapped(self) -> None:
        """A trap ends the activations down to the one that the host called, whose call reports it."""
        index = len(self.parts) - 1
        while isinstance(self.parts[index], Activation):
            index -= 1
        part = self.parts[index]
        if isinstance(part, HostPart):
            self.expected.traps.add((*part.place, len(part.actions) - 1))

    def _unlinked(self, row: Row) -> str | None:
        """Say why the modules, as they are, cannot do an operation that the model allows."""
        kind = row[0]
        if kind == Kind.TABLE_INIT and row[2] != self.own():
            return "another instance's"
        if kind == Kind.NEW and row[2:]:
            return "the host's values own nothing"
        if kind in _REACH:
            own = self.own()
            reach = {own, self.links.get(own, own)}
            if any(row[position] not in reach for position in _REACH[kind]):
                return "not linked"
            linked_global = kind in _GLOBALS and row[1] != own
            return "not exported" if linked_global and row[2] else None
        if kind in _OWN and row[_OWN[kind]] != self.own():
            return "another instance's"
        if kind == Kind.INSTANTIATE:
            return self._uninstantiable(row)
        if kind == Kind.TEARDOWN_INSTANCE and row[1] in self.links.values():
            return "linked to"
        if kind in _HOST_ELEMENTS and row[2] >= self.state[self.limits.shape.table_sizes + row[1]]:
            return "the host's own bounds check"
        calls = sum(isinstance(part, Activation) and part.called_by_host for part in self.parts)
        if kind == Kind.PANIC and (calls != 1 or not isinstance(self.parts[-1], HostPart)):
            return "a trap unwinds one call"
        return None

    def _uninstantiable(self, row: Row) -> str | None:
        if row[2] >= self.limits.objects:
            source = row[2] - self.limits.objects
            first = self.state[self.limits.shape.globals + source * self.limits.globals]
            if self.initials.get(source, NULL) != (NULL if first == NULL else self.value[first]):
                return "the global has changed"
        if self.shape_of_module is not None and self.shape_of_module[1] != row[4]:
            return "one module, one kind of segment"
        if self.segments == recipe.SEGMENTS_NONE and row[4]:
            return "no segments"
        mask = 0 if self.segments != recipe.SEGMENTS_REFERENCES else row[3]
        initial_null = row[2] == NULL
        if mask != row[3] and not initial_null:
            return "no references in segments"
        if self.shape_of_module is not None and not initial_null and self.shape_of_module[0] != mask:
            return "one module, one segment"
        return None
