"""Programs are drawn through the model's own choices, biased to what fills frames and tables; one number gives one program."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fuzz.choosers import Seeded
from fuzz.releases import recipe, steps
from fuzz.releases.build import Built, finish
from fuzz.releases.recipe import LAYOUTS, PRESSURES, SUPPORTED, WRAPS, Item, Recipe, form_of
from fuzz.releases.weave import Weaver
from model.choose import Exhausted, choose_op, choose_operands, kinds_possible
from model.domains import DOMAINS, has, readable_mask, roots_left
from model.limits import DEPTH, INSTANCES, Limits
from model.ops import BY_KIND, NULL, Context, Domain, Kind, Row, Spec
from model.state import context_at
from model.words import bits

if TYPE_CHECKING:
    from collections.abc import Sequence

OPERATIONS_MAX: Final = 160
_SPINE: Final = frozenset(
    {Kind.NEW, Kind.DROP, Kind.CALL_WASM, Kind.CALL_IMPORT, Kind.RETURN_IMPORT, Kind.RETURN, Kind.INSTANTIATE, Kind.GC, Kind.TABLE_GET}
)
_RARE: Final = frozenset({Kind.TRAP, Kind.PANIC, Kind.TEARDOWN_INSTANCE, Kind.ELEM_DROP, Kind.CLONE})
"""These end things, or do little; they would come up as often as all others."""
_LIKED: Final[dict[Context, tuple[Kind, ...]]] = {
    Context.HOST: (Kind.NEW, Kind.CALL_WASM, Kind.CALL_WASM, Kind.HOST_TABLE_SET, Kind.HOST_GLOBAL_SET),
    Context.IMPORT: (Kind.NEW, Kind.RETURN_IMPORT, Kind.RETURN_IMPORT, Kind.GC, Kind.DROP),
    Context.WASM: (Kind.CALL_IMPORT, Kind.CALL_IMPORT, Kind.CALL_FUNCTION, Kind.TABLE_GET, Kind.TABLE_SET, Kind.GLOBAL_GET),
}
_TABLE_KINDS: Final = frozenset(kind for kind in SUPPORTED if "table" in BY_KIND[kind].text)
_INSTANCE_DOMAINS: Final = frozenset({Domain.INSTANCE})
_CHUNKS: Final = (512, 512, 512, 500, 1024, 64)
"""Capacities that activations tables have, or might have."""
_SLOTS: Final = frozenset({Domain.READABLE_SLOT, Domain.SLOTS_TO_WASM, Domain.SLOTS_TO_HOST, Domain.RETURNED_SLOTS})
_ROOTS: Final = frozenset({Domain.MOVED_ROOTS, Domain.RETURNED_ROOTS})
_ELEMENTS: Final = frozenset({Kind.TABLE_GET, Kind.TABLE_SET})
_LIVES: Final = frozenset({Domain.LIVE, Domain.LIVE_BUT_TARGET})


@dataclass(frozen=True, slots=True)
class Profile:
    """What programs may have.

    Args:
        segments: `recipe.SEGMENTS_NONE` and so on.
        acts: whether destructors act.
        fill: whether loops fill the activations table.
        tables: whether there are tables.
        initials: whether globals may begin with references.
    """

    segments: int = recipe.SEGMENTS_NULL
    acts: bool = False
    fill: bool = True
    initials: bool = True
    tables: bool = True


PROFILES: Final = (
    Profile(initials=False),
    Profile(segments=recipe.SEGMENTS_NONE),
    Profile(segments=recipe.SEGMENTS_REFERENCES),
    Profile(initials=False, acts=True),
    Profile(segments=recipe.SEGMENTS_NONE, tables=False, initials=False),
)
"""Taken in turn. What one release cannot do, or does wrong all the time, must not hide the rest."""


def generate(seed: int, profile: Profile, number: int = 0, operations: int = OPERATIONS_MAX) -> Built:
    """Return a program that is a pure function of its arguments.

    Args:
        seed: any int.
        profile: what it may have.
        number: its id.
        operations: most that are drawn after the first few.
    """
    chooser = Seeded(seed)
    drawn = _Drawn(chooser, profile, operations)
    with contextlib.suppress(Exhausted):
        drawn.run()
    return finish(drawn.weaver, tuple(drawn.items), number)


class _Drawn:
    """A program under way."""

    def __init__(self, chooser: Seeded, profile: Profile, operations: int) -> None:
        self.chooser = chooser
        self.operations = operations
        self.profile = profile
        self.limits = _limits(chooser, profile)
        self.weaver = Weaver(Recipe(self.limits, (), profile.segments))
        self.items: list[Item] = []
        self.pressure_usual = chooser.choose(2) * chooser.choose(PRESSURES)
        self.plain = chooser.choose(3) == 0

    def run(self) -> None:
        """Begin with a few values and an instance; then whatever comes."""
        choose = self.chooser.choose
        for _ in range(1 + choose(3)):
            self.kind(Kind.NEW)
        for _ in range(1 + choose(2)):
            self.kind(Kind.INSTANTIATE)
        for kind in (Kind.HOST_TABLE_GROW, Kind.HOST_TABLE_SET, Kind.HOST_GLOBAL_SET):
            if choose(2):
                self.kind(kind)
        for _ in range(10 + choose(1 + choose(self.operations))):
            self.next()

    def kind(self, kind: Kind) -> None:
        """Draw an operation of a kind, if that is possible now."""
        state = self.weaver.state
        if kind in self.limits.kinds and kind in kinds_possible(state, self.limits):
            self.take(choose_operands(kind, state, self.limits, self.chooser))

    def next(self) -> None:
        """Draw an operation."""
        weaver, choose = self.weaver, self.chooser.choose
        context = context_at(weaver.state, self.limits.shape, weaver.state[DEPTH] - 1)[0]
        if context == Context.WASM and choose(8) == 0:
            self.extra()
        elif choose(2) and weaver.state[INSTANCES]:
            liked = _LIKED[context]
            self.kind(liked[choose(len(liked))])
        else:
            row = choose_op(weaver.state, self.limits, self.chooser)
            if row[0] not in _RARE or choose(4) == 0:
                self.take(row)
        if self.profile.acts and self.items and self.items[-1].row[0] == Kind.NEW and choose(3) == 0:
            self.add(Item((recipe.ACTS, choose(steps.DESTRUCTIONS), choose(4))))

    def extra(self) -> None:
        """Draw what is no operation of the model."""
        choose = self.chooser.choose
        what = choose(5)
        if what == 4:
            self.add(Item((recipe.RECURSE, 1 + choose(6)), self.form()))
        elif what == 0:
            self.add(Item((recipe.GHOST, 1 + choose(max(1, self.limits.arguments))), self.form()))
        elif not self.profile.fill:
            return
        elif what == 1:
            self.add(Item((recipe.FRESH, 1 + choose(max(1, self.limits.arguments)), 1 + choose(12)), self.form()))
        else:
            chunk = _CHUNKS[choose(len(_CHUNKS))]
            count = max(1, chunk - choose(24)) if choose(3) else 1 + choose(chunk + 100)
            start = choose(recipe.SOURCES)
            for offset in range(recipe.SOURCES):
                if self.add(Item((recipe.CHURN, (start + offset) % recipe.SOURCES, choose(2), count), self.form())):
                    # What comes next in practice: the host hands over several at once.
                    if choose(2) and self.limits.arguments > 1:
                        self.add(Item((recipe.FRESH, 2 + choose(self.limits.arguments - 1), 4 + choose(12)), self.form()))
                    break

    def take(self, row: Row) -> None:
        """Add an operation, bent to what the modules can do and to what keeps references alive."""
        row = self.bent(row)
        form = self.form()
        if row[0] in {Kind.CALL_WASM, Kind.CALL_FUNCTION}:
            choose = self.chooser.choose
            pressure = self.pressure_usual if choose(2) else choose(3) * choose(12)
            layout = 0 if self.plain or choose(2) else choose(LAYOUTS)
            form = form_of(form, min(pressure, PRESSURES - 1), layout)
        elif row[0] == Kind.INSTANTIATE:
            form = self.chooser.choose(16)
        self.add(Item(row, form))

    def add(self, item: Item) -> bool:
        """Execute an item and keep it if it was possible."""
        if not self.weaver.perform(item):
            return False
        self.items.append(item)
        return True

    def form(self) -> int:
        """Draw a wrap; most code is plain."""
        return 0 if self.plain or self.chooser.choose(3) else self.chooser.choose(WRAPS)

    def bent(self, row: Row) -> Row:
        """Return an operation with instances that the code can reach, and mostly with all references live."""
        weaver, spec = self.weaver, BY_KIND[row[0]]
        own = weaver.own()
        bent = list(row)
        if own >= 0:
            reach = (own, own, weaver.links.get(own, own))
            for position, (_, domain) in enumerate(spec.operands, start=1):
                if domain in _INSTANCE_DOMAINS and row[position] not in reach:
                    bent[position] = reach[self.chooser.choose(3)]
            if row[0] == Kind.CALL_FUNCTION and self.chooser.choose(2):
                bent[1] = reach[2]
            self.within_bounds(bent)
            self.with_references(bent, spec)
            self.keep_alive(bent, spec.operands)
        else:
            if row[0] == Kind.CALL_WASM and weaver.links and self.chooser.choose(2):
                bent[1] = max(weaver.links)
            self.with_roots(bent, spec)
        if row[0] == Kind.INSTANTIATE:
            if not self.profile.initials:
                bent[2] = NULL
            mask, active = weaver.shape_of_module or (row[3], row[4])
            bent[3] = mask if bent[2] != NULL and self.profile.segments == recipe.SEGMENTS_REFERENCES else 0
            bent[4] = active if self.profile.segments else 0
        return tuple(bent)

    def within_bounds(self, row: list[int]) -> None:
        """Let most accesses be within bounds: a trap ends so much."""
        weaver = self.weaver
        if row[0] in _ELEMENTS and self.chooser.choose(12):
            size = weaver.state[self.limits.shape.table_sizes + row[1]]
            if size and row[2] >= size:
                row[2] = self.chooser.choose(size)

    def with_references(self, row: list[int], spec: Spec) -> None:
        """Let most slots that are read hold a reference."""
        slots = [index for index, name in enumerate(self.weaver.slots()) if name >= 0]
        if not slots:
            return
        domains = [domain for _, domain in spec.operands]
        domains += [spec.items[1]] * (len(row) - 1 - len(domains)) if spec.items else []
        for position, domain in enumerate(domains, start=1):
            if domain in _SLOTS and row[position] not in slots and self.chooser.choose(4):
                row[position] = slots[self.chooser.choose(len(slots))]

    def with_roots(self, row: list[int], spec: Spec) -> None:
        """Let most references that the host hands over be none that is null."""
        first = 1 + len(spec.operands)
        if spec.items is None or spec.items[1] not in _ROOTS:
            return
        for position in range(first, len(row)):
            others = row[first:position] + row[position + 1 :]
            left = list(bits(roots_left(self.weaver.state, self.limits, others, 0, len(others))))
            if row[position] == NULL and left and self.chooser.choose(3):
                row[position] = left[self.chooser.choose(len(left))]

    def keep_alive(self, row: list[int], operands: Sequence[tuple[str, Domain]]) -> None:
        """Let all slots that hold a reference stay live, mostly; slots with null are free for results."""
        if self.chooser.choose(5) == 0:
            return
        slots = self.weaver.slots()
        mask = sum(1 << index for index, name in enumerate(slots) if name >= 0)
        for position, (_, domain) in enumerate(operands, start=1):
            if domain in _LIVES:
                allowed = readable_mask(self.weaver.state, self.limits)
                if domain == Domain.LIVE_BUT_TARGET:
                    allowed &= ~(1 << row[3])
                row[position] = mask & allowed
                function, form = DOMAINS[domain]
                if not has(function(self.weaver.state, self.limits, row[:position]), form, row[position]):
                    raise ValueError("a mask of live slots is out of its domain")


def _limits(chooser: Seeded, profile: Profile) -> Limits:
    """Draw a scope: sizes, and which operations there are."""
    choose = chooser.choose
    kinds = set(_SPINE)
    share = 1 + choose(4)
    for kind in sorted(SUPPORTED - _SPINE):
        if choose(4) < share:
            kinds.add(kind)
    if not profile.tables:
        kinds -= _TABLE_KINDS
    objects = 4 + choose(12)
    segment = choose(3) if profile.segments else 0
    limits = Limits(
        chunk=512,
        objects=objects,
        roots=objects + 4,
        slots=2 + choose(8),
        functions=1,
        arguments=1 + choose(5),
        contexts=3 + choose(5),
        destructors=0,
        destructor_ops=0,
        instances=1 + choose(3),
        globals=1 + choose(3),
        table=max(segment, 1 + choose(6)) if profile.tables else 0,
        segment=segment,
        fields=0,
        layouts=1,
        leaks=0,
        orders=1,
        modules=2,
    )
    return replace(limits, kinds=frozenset(kinds))
