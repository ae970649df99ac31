"""Each defect of the record is the protocol with one or two steps changed, and leads from the initial state to harm.

A defect changes a guard that the code of that time did not have, or an effect that it got wrong; all other steps are those that are proved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from impl import activations_table, collector, externref, instance, transfers
from proofs.protocol import (
    ALIVE,
    CLOSED,
    CONDEMNED,
    FAILED,
    FREED,
    IDLE,
    MERGE,
    OPENED,
    SWEEP,
    WALK,
    Property,
    State,
    Term,
    Truth,
    choose,
    either,
    entries,
    every,
    idle,
    implies,
    inside,
    mutating,
    on_stack,
    owners,
    sweeping,
)
from proofs.protocol_search import CAPS_USUAL, Taken, search
from proofs.protocol_steps import BY_NAME, STEPS, Step

# What a word of that time could hold, and what a search can reach.
WORD_VALUES: Final = 1 << 64
WORD_VALUES_SMALL: Final = 4

DANGLING: Final = Property(
    "use after free",
    "an object is condemned, under destruction or freed although somebody owns it or may read it",
    lambda s: every(s.life >= CONDEMNED, owners(s) + entries(s) + on_stack(s) >= 1),
)
DANGLING_ROOT: Final = Property(
    "use after free",
    "a walk puts an object that is freed into the precise set, and counts it",
    lambda s: every(s.life == FREED, s.owed == 1),
)
LEAKED: Final = Property(
    "leak",
    "an object is alive although nobody owns it, nobody can reach it, and no collection will find it",
    lambda s: every(s.life == ALIVE, s.phase == IDLE, owners(s) + entries(s) + on_stack(s) == 0),
)
HALF_SWEPT: Final = Property(
    "half-swept table",
    "no collection is under way, and a set that only collections use is not empty",
    lambda s: every(s.phase == IDLE, s.precise + s.sweeping >= 1),
)
BORROWED: Final = Property(
    "double borrow",
    "a destructor runs while the sets are borrowed and the chunk is full: if it inserts the object, that aborts",
    lambda s: every(s.depth >= 1, s.phase == MERGE, s.room == 0, s.held >= 1),
)


@dataclass(frozen=True)
class Defect:
    """The protocol with a defect.

    Args:
        name: Unique; lower case, words joined by hyphens.
        origin: An advisory, an issue of Wasmtime, or the place in the seed.
        says: What is wrong, in words.
        changed: Steps that replace those of the same name, or come on top; the first is the one that breaks the invariant.
        harm: What a reachable state shows.
        caps: Where the search has to look further, or need not look so far.
        life: What the object is where the invariant breaks.
        small: The steps that are searched instead of `changed`, where those cannot be followed to the end.
    """

    name: str
    origin: str
    says: str
    changed: tuple[Step, ...]
    harm: Property
    caps: Mapping[str, int] = field(default_factory=dict)
    life: int = ALIVE
    small: tuple[Step, ...] = ()

    @property
    def step(self) -> Step:
        """The step that breaks the invariant."""
        return self.changed[0]

    def steps(self) -> tuple[Step, ...]:
        """Return all steps of the protocol with this defect, as they are searched."""
        changed = {step.name: step for step in self.small or self.changed}
        return (*(changed.pop(step.name, step) for step in STEPS), *changed.values())

    def way(self) -> tuple[Taken, ...]:
        """Return a shortest way from the initial state to harm.

        Raises:
            ValueError: There is none within the bounds of the search.
        """
        way = search(self.steps(), self.harm.holds, {**CAPS_USUAL, **self.caps}).way
        if way is None:
            raise ValueError(f"{self.name}: no way leads to a {self.harm.name}")
        return way


def _but(name: str, says: str, **changes: object) -> Step:
    """Return a step of the protocol with another guard or effect."""
    return replace(BY_NAME[name], says=says, **changes)  # type: ignore[arg-type]


def _wrapping(values: int) -> Step:
    def effect(s: State) -> State:
        return s._replace(ref_count=choose(s.ref_count + 1 == values, 0, s.ref_count + 1), held=s.held + 1)

    def guard(s: State) -> Truth:
        return every(mutating(s), owners(s) + s.live + s.guest >= 1, s.ref_count < values)

    return _but("clone", "another reference is counted, in a word that wraps", guard=guard, effect=effect)


def _sweep_inside_a_sweep(s: State, others: Term, room: Term) -> State:
    """What is left after a collection that ran to its end inside a destructor of another; nothing of it is destroyed itself."""
    left = choose(others == 1, s.sweeping, s.over)
    released = s.chunk + choose(others == 1, s.over, s.sweeping)
    root = choose(s.live + s.guest >= 1, 1, s.precise)
    both = choose(every(root == 1, left == 1), 1, 0)
    count = s.ref_count - released + (root - s.precise) - both
    return s._replace(ref_count=count, chunk=0, over=choose(root + left >= 1, 1, 0), precise=0, sweeping=0, room=room + 1)


TRANSFER_DEFECTS: Final = (
    Defect(
        "collection-between-two-arguments",
        "CVE-2021-39216",
        "a full chunk starts a collection although a reference is in the table already and in no local yet",
        (
            _but(
                "collection-begins",
                "a collection begins between the two halves of a transfer",
                guard=lambda s: every(idle(s), either(s.window == 0, s.room == 0)),
                functions=(collector.insert_with_gc, transfers.move_into_table),
            ),
        ),
        DANGLING,
    ),
    Defect(
        "duplicate-keeps-its-count",
        "derived: a set taken for a multiset",
        "the count of a reference that the set has already is not given back",
        (
            _but(
                "insert-again",
                "a reference that the set has already is inserted",
                effect=lambda s: s._replace(held=s.held - 1, window=s.window + 1, touched=choose(s.phase == SWEEP, 1, s.touched)),
            ),
        ),
        LEAKED,
    ),
)

COUNTING_DEFECTS: Final = (
    Defect(
        "count-wraps",
        "the seed, `increment_ref_count`",
        "the count wraps to 0 when its word is full",
        (_wrapping(WORD_VALUES),),
        DANGLING,
        {"held": 5},
        small=(_wrapping(WORD_VALUES_SMALL),),
    ),
    Defect(
        "release-before-store",
        "wt#1923, wt#1969",
        "a store drops the old reference while the word still holds it",
        (
            Step(
                "released-in-place",
                "the last reference is dropped, and the word that owned it still holds it",
                lambda s: every(mutating(s), s.cells >= 1, s.ref_count == 1),
                lambda s: s._replace(ref_count=0, life=CONDEMNED),
                (instance.store_borrowed, instance.store_moved),
            ),
        ),
        DANGLING,
    ),
    Defect(
        "store-without-barrier",
        "wt#11416",
        "a reference is stored in a table and not counted",
        (
            Step(
                "stored-uncounted",
                "a word of a table holds it, and its count is as before",
                lambda s: every(mutating(s), owners(s) + s.live + s.guest >= 1),
                lambda s: s._replace(cells=s.cells + 1),
                (instance.replace_step, instance.init_table),
            ),
        ),
        DANGLING,
    ),
    Defect(
        "uninitialised-word-dropped",
        "CVE-2022-23636",
        "what tears down an instance drops a reference that a word never owned",
        (
            Step(
                "release-unowned",
                "a reference is dropped that was never counted",
                lambda s: every(mutating(s), s.ref_count >= 2),
                lambda s: s._replace(ref_count=s.ref_count - 1),
                (instance.dismantle, instance.build),
            ),
        ),
        DANGLING,
    ),
    Defect(
        "unrooting-does-nothing",
        "CVE-2025-61670",
        "the host gives a reference up, and its count stays",
        (
            _but(
                "release",
                "a reference is given up and not counted",
                guard=lambda s: every(mutating(s), s.held >= 1),
                effect=lambda s: s._replace(held=s.held - 1),
            ),
        ),
        LEAKED,
    ),
    Defect(
        "fields-not-released",
        "wt#10401",
        "destroying a value does not release what it owned",
        (
            _but(
                "unstore-from-value",
                "a value that owned it is gone, and its count is as before",
                effect=lambda s, number: s._replace(fields=s.fields - number),
                functions=(externref.drop_and_dealloc, externref.release_all),
            ),
        ),
        LEAKED,
    ),
)

WALK_DEFECTS: Final = (
    Defect(
        "stale-word-counted",
        "CVE-2021-39218, wt#2386",
        "a safepoint without a map is read with another's: a word that is no live local counts as a root",
        (
            _but(
                "root-found",
                "the walk finds it in a word that is no live local",
                guard=lambda s: every(s.phase == WALK, s.live + s.dead >= 1, s.precise == 0, s.owed == 0),
                functions=(collector.walk_frame, collector.scan_frame),
            ),
        ),
        DANGLING_ROOT,
        life=FREED,
    ),
    Defect(
        "map-misses-a-local",
        "CVE-2022-24791, CVE-2022-31146",
        "a safepoint with live locals has no map, or one that does not list them all",
        (
            _but(
                "chunk-closed",
                "the walk is complete, and has not found what a live local holds",
                guard=lambda s: every(s.phase == WALK, s.owed == 0, implies(s.precise == 1, s.live >= 1)),
                functions=(collector.walk_frame, collector.scan_frame),
            ),
        ),
        DANGLING,
    ),
    Defect(
        "sweep-after-failed-walk",
        "derived: the canary ignored",
        "a walk that did not reach the canary is swept after all",
        (
            _but(
                "chunk-closed",
                "the walk has ended early, and the sweep begins",
                guard=lambda s: either(s.phase == FAILED, every(s.phase == WALK, s.owed == 0, (s.precise == 1) == (s.live >= 1))),
                functions=(collector.gc,),
            ),
        ),
        DANGLING,
    ),
    Defect(
        "root-not-counted",
        "derived: a set that owns nothing",
        "the precise set takes no count of its own",
        (
            _but(
                "root-found",
                "the walk finds it, and its count is as before",
                effect=lambda s: s._replace(precise=1),
                functions=(activations_table.insert_precise_stack_root,),
            ),
        ),
        DANGLING,
    ),
)

SWEEP_DEFECTS: Final = (
    Defect(
        "sweep-inside-a-sweep",
        "derived: no guard against a nested collection",
        "a collection that a destructor asks for runs, and opens the chunk under the sweep that is under way",
        (
            _but(
                "nested-collection",
                "a destructor asks for a collection while one is under way, and it runs",
                guard=lambda s, others, room: every(
                    inside(s),
                    s.window == 0,
                    room >= 1,
                    others >= 0,
                    others <= 1,
                    implies(others == 0, s.over == 0),
                    _sweep_inside_a_sweep(s, others, room).ref_count >= 1,
                ),
                effect=_sweep_inside_a_sweep,
                bounds=(lambda _s, _bound: 1, lambda _s, bound: bound),
            ),
            _but(
                "chunk-opened",
                "the sweep ends, and forgets what was inserted into slots that it had passed",
                guard=lambda s, room: every(sweeping(s), s.sweeping == 0, room >= 1, either(s.chunk == 0, s.room >= 1)),
                effect=lambda s, room: s._replace(phase=OPENED, chunk=0, room=room),
            ),
        ),
        LEAKED,
        {"room": 2},
    ),
    Defect(
        "chunk-reset-in-place",
        "derived: the chunk opened before its slots are released",
        "an insertion by a destructor overwrites a slot that the sweep has yet to release",
        (
            _but(
                "chunk-closed",
                "the walk is complete; the chunk is opened, and its slots are yet to be released",
                effect=lambda s, room: s._replace(phase=CLOSED, room=room),
                guard=lambda s, room: every(s.phase == WALK, s.owed == 0, (s.precise == 1) == (s.live >= 1), room >= 1),
                bounds=(lambda _s, bound: bound,),
            ),
            Step(
                "slot-overwritten",
                "a destructor inserts another reference into the slot that holds it",
                lambda s: every(inside(s), s.chunk >= 1, s.room >= 1),
                lambda s: s._replace(chunk=s.chunk - 1, room=s.room - 1),
                (activations_table.try_insert, activations_table.sweep),
            ),
        ),
        LEAKED,
    ),
    Defect(
        "old-set-cleared-while-borrowed",
        "the seed, `sweep`",
        "the old set is released after the sets are exchanged, while the new one is borrowed",
        (
            _but(
                "other-destructor-begins",
                "the destructor of a member of the old set begins while the sets are borrowed",
                guard=lambda s: either(s.phase == SWEEP, s.phase == MERGE),
            ),
            _but(
                "others-insert",
                "other references fill slots of the chunk",
                guard=lambda s, number: every(either(mutating(s), s.depth >= 1), number >= 1, number <= s.room),
            ),
        ),
        BORROWED,
    ),
    Defect(
        "panic-leaves-the-sweep",
        "the seed, `sweep`",
        "a destructor's panic unwinds the sweep itself",
        (
            Step(
                "panic-escapes",
                "the sweep is left where it is, and the table counts as not collecting",
                inside,
                lambda s: s._replace(phase=IDLE, depth=0, guest=0, guest_dead=0, window=0),
                (activations_table.sweep_slot, activations_table.sweep_member, collector.gc),
            ),
        ),
        HALF_SWEPT,
    ),
    Defect(
        "merged-and-given-back",
        "derived: a member of two sets released twice",
        "what is merged into the table's set gives its count back as well",
        (
            _but(
                "newcomer-merged",
                "it is put into the table's set, and its count is given back",
                effect=lambda s: s._replace(over=1, carried=0, ref_count=s.ref_count - 1),
            ),
        ),
        DANGLING,
    ),
)

DEFECTS: Final = (*TRANSFER_DEFECTS, *COUNTING_DEFECTS, *WALK_DEFECTS, *SWEEP_DEFECTS)
