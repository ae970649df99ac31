"""The activations table against counted entries: every count is accounted for, and a sweep destroys what nobody holds.

The reference is a list for the chunk, a set for what did not fit, and how often the host holds each value. Precise roots are
given by hand, without a stack; destructors act, and pass references to the table in the middle of a sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from fuzz.machines.findings import Component, Finding, agree, judged
from impl.activations_table import (
    CHUNK,
    COLLECTING,
    END,
    NEXT,
    OVER,
    PRECISE,
    STACK_CANARY,
    TABLE_WORDS,
    discard_precise_stack_roots,
    elements,
    insert_precise_stack_root,
    insert_slow_without_gc,
    insert_without_gc,
    num_filled_in_bump_chunk,
    sweep,
    table_init,
    table_teardown,
    try_insert,
)
from impl.arena import HEADER_WORDS, CheckedMemory, alloc, initialise, raw_memory
from impl.collector import gc, insert_with_gc
from impl.errors import Panicked, Verdict
from impl.externref import VTABLE_ALIGN_BYTES, VTABLE_FIELDS, VTABLE_SIZE_BYTES, VTABLE_WORDS, clone, drop, new_with, strong_count
from impl.hash_set import LENGTH
from impl.header import SWEEP_ORDER
from impl.stack_maps import REGISTRY_WORDS, registry_init

STACK_WORDS: Final = 256
HEAP_WORDS: Final = 1024
ACTS_MAX: Final = 3
"""What one destructor does at most."""

VALUES_MAX: Final = 8

PICKS: Final = st.integers(0, 63)
ACTS: Final = st.sampled_from(["end", "insert", "drop", "new", "gc", "panic"])


class Broken(Verdict):
    """The host disagrees in the middle of an operation; simulated code must not take it for a panic."""


class ActivationsTableMachine(Component):
    """A table with a small chunk, and the host of its values.

    Attributes:
        held: how often the host holds each value that is not destroyed.
        chunk, over: the entries of the table, when no sweep is running.
        before: the entries that a running sweep releases.
        roots: the members of the precise set while a sweep runs.
        inserted: what was put into the table while a sweep runs.
        closing: the table is being torn down, so that nobody can call Wasm.
        waiting: what is to be put into the table as soon as the sweep is over, 0 for nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.chunk: list[int] = []
        self.over: set[int] = set()
        self.before: list[int] = []
        self.roots: set[int] = set()
        self.inserted: set[int] = set()
        self.waiting = 0
        self.sweeping = False
        self.closing = False
        self.panicked = False
        self.capacity = 0

    @initialize(capacity=st.integers(1, 4), seed=st.integers(0, 7), data=st.data())
    @judged
    def make(self, capacity: int, seed: int, data: st.DataObject) -> None:
        """Make the table; destructors draw what they do from `data`."""
        self.data = data
        self.capacity, self.seed = capacity, seed
        self.mem = CheckedMemory(raw_memory(HEADER_WORDS + STACK_WORDS + HEAP_WORDS))
        initialise(self.mem, STACK_WORDS, len(self.mem), 0)
        self.vtable = alloc(self.mem, VTABLE_WORDS, 1)
        for field, word in ((VTABLE_SIZE_BYTES, 8), (VTABLE_ALIGN_BYTES, 8), (VTABLE_FIELDS, 0)):
            self.mem[self.vtable + field] = word
        self.registry = alloc(self.mem, REGISTRY_WORDS, 1)
        registry_init(self.mem, self.registry)
        self.table = alloc(self.mem, TABLE_WORDS, 1)
        table_init(self.mem, self.table, capacity, seed)

    # The host.

    def construct(self, value: int, vtable: int) -> None:
        """Write the value's one word."""
        self.mem[value] = vtable

    def destroy(self, externref: int) -> None:
        """Judge a destruction, then let the destructor act."""
        if self.held.get(externref) != 0:
            raise Broken(f"value {externref} is destroyed, though the host holds it {self.held.get(externref)} times (None: never made)")
        if externref == self.waiting:
            if self.mem[self.table + COLLECTING]:
                raise Broken(f"value {externref} is destroyed, though it waits to be inserted")
            # A panic lets go of what waits, after the sweep.
            self.waiting = 0
            del self.held[externref]
            self.end_sweep()
        else:
            if externref in self.roots or externref in self.inserted:
                raise Broken(f"value {externref} is destroyed, though it is a root or was inserted during the sweep")
            del self.held[externref]
        if not self.sweeping and (externref in self.chunk or externref in self.over):
            raise Broken(f"value {externref} is destroyed, though the table has an entry for it")
        for _ in range(ACTS_MAX):
            act = self.data.draw(ACTS)
            if act == "end":
                return
            self.act(act)

    def act(self, act: str) -> None:
        """Do one thing that a destructor does."""
        if act == "panic":
            self.panicked = True
            raise Panicked("destructor")
        if act == "gc":
            # Nested, so that it must do nothing; elsewhere there is a rule for it.
            if self.mem[self.table + COLLECTING]:
                gc(self.mem, self, self.table, self.registry)
        elif act == "new":
            if len(self.held) < VALUES_MAX:
                self.make_value()
        elif mine := self.mine():
            self.give_up(mine[self.data.draw(PICKS) % len(mine)], insert=act == "insert" and not self.closing)

    def mine(self) -> list[int]:
        """Return the values that the host holds."""
        return [externref for externref, count in self.held.items() if count]

    def make_value(self) -> None:
        """Make a value that the host holds once."""
        externref = new_with(self.mem, self, self.vtable)
        if externref in self.held:
            raise Broken(f"a new value lies where value {externref} is")
        self.held[externref] = 1

    def give_up(self, externref: int, *, insert: bool) -> None:
        """Move one of the host's references into the table without collecting, or drop it."""
        self.held[externref] -= 1
        if insert:
            self.note_insertion(externref)
            insert_without_gc(self.mem, self.table, externref)
        else:
            drop(self.mem, self, externref)

    def note_insertion(self, externref: int) -> None:
        """Let the reference take an entry: into the chunk if it has room, which it never has during a sweep."""
        if self.sweeping:
            self.inserted.add(externref)
        elif len(self.chunk) < self.capacity:
            self.chunk.append(externref)
        else:
            self.over.add(externref)

    def pick(self, number: int) -> int:
        """Return some value that the host holds."""
        mine = self.mine()
        return mine[number % len(mine)]

    # Rules.

    @precondition(lambda self: len(self.held) < VALUES_MAX)
    @rule()
    @judged
    def new(self) -> None:
        """Make a value."""
        self.make_value()

    @precondition(lambda self: self.mine())
    @rule(pick=PICKS)
    @judged
    def clone(self, pick: int) -> None:
        """Count one more reference of the host."""
        externref = self.pick(pick)
        clone(self.mem, externref)
        self.held[externref] += 1

    @precondition(lambda self: self.mine())
    @rule(pick=PICKS)
    @judged
    def drop(self, pick: int) -> None:
        """Drop a reference of the host."""
        self.calm(lambda: self.give_up(self.pick(pick), insert=False))

    @precondition(lambda self: self.mine())
    @rule(pick=PICKS)
    @judged
    def try_insert(self, pick: int) -> None:
        """Move a reference into the chunk, or hear that it is full."""
        externref = self.pick(pick)
        room = len(self.chunk) < self.capacity
        agree("whether there was room in the chunk", int(room), try_insert(self.mem, self.table, externref))
        if room:
            self.held[externref] -= 1
            self.chunk.append(externref)

    @precondition(lambda self: self.mine())
    @rule(pick=PICKS)
    @judged
    def insert_slow(self, pick: int) -> None:
        """Move a reference into the set; one that is there already is counted once."""
        externref = self.pick(pick)
        self.held[externref] -= 1
        self.over.add(externref)
        insert_slow_without_gc(self.mem, self.table, externref)

    @precondition(lambda self: self.mine())
    @rule(pick=PICKS)
    @judged
    def insert(self, pick: int) -> None:
        """Move a reference into the table without a collection."""
        self.give_up(self.pick(pick), insert=True)

    @precondition(lambda self: self.mine())
    @rule(pick=PICKS)
    @judged
    def insert_with_gc(self, pick: int) -> None:
        """Move a reference into the table, which collects first if the chunk is full; nothing is on the stack."""
        externref = self.pick(pick)
        if len(self.chunk) < self.capacity:
            self.held[externref] -= 1
            self.chunk.append(externref)
            insert_with_gc(self.mem, self, self.table, self.registry, externref)
            return
        self.begin_sweep(set())
        self.waiting = externref
        self.held[externref] -= 1
        panicked = self.calm(lambda: insert_with_gc(self.mem, self, self.table, self.registry, externref))
        if not panicked:
            self.inserted.add(externref)
        elif self.waiting:
            self.before.append(externref)
        self.waiting = 0
        if self.sweeping:
            self.end_sweep()

    @rule()
    @judged
    def collect(self) -> None:
        """Collect while no frame is on the stack."""
        self.begin_sweep(set())
        self.calm(lambda: gc(self.mem, self, self.table, self.registry))
        self.end_sweep()

    @rule(mask=st.integers(0, 255), order=st.integers(0, 23))
    @judged
    def sweep(self, mask: int, order: int) -> None:
        """Sweep with precise roots among the entries, in some order."""
        self.mem[SWEEP_ORDER] = order
        self.begin_sweep(self.some_roots(mask))
        self.mem[self.table + COLLECTING] = 1
        result = sweep(self.mem, self, self.table)
        self.mem[self.table + COLLECTING] = 0
        self.mem[SWEEP_ORDER] = 0
        agree("whether a destructor panicked", int(self.panicked), result)
        self.panicked = False
        self.end_sweep()

    @rule(mask=st.integers(0, 255))
    @judged
    def walk_that_fails(self, mask: int) -> None:
        """Find precise roots and discard them: nothing changes."""
        self.some_roots(mask)
        discard_precise_stack_roots(self.mem, self.table)

    @rule()
    @judged
    def tear_down(self) -> None:
        """Make the table a fresh one."""
        self.begin_sweep(set())
        self.closing = True
        self.calm(lambda: table_teardown(self.mem, self, self.table, self.capacity, self.seed))
        self.closing = False
        self.end_sweep()

    # Sweeps.

    def some_roots(self, mask: int) -> set[int]:
        """Put some entries into the precise set, each twice, which must make no difference."""
        entries = sorted({*self.chunk, *self.over})
        roots = {externref for number, externref in enumerate(entries) if mask >> number & 1}
        for externref in (*roots, *roots):
            insert_precise_stack_root(self.mem, self.table, externref)
        agree("the number of precise roots", len(roots), self.mem[self.table + PRECISE + LENGTH])
        return roots

    def begin_sweep(self, roots: set[int]) -> None:
        """Let every entry be released, and the roots stay."""
        self.sweeping = True
        self.before = [*self.chunk, *self.over]
        self.roots = roots
        self.inserted = set()

    def end_sweep(self) -> None:
        """What was released and is not held by anybody must be gone."""
        self.sweeping = False
        self.chunk = []
        self.over = self.roots | self.inserted
        for externref in self.before:
            if self.held.get(externref) == 0 and externref not in self.over and externref != self.waiting:
                raise Finding(f"value {externref} survives the sweep, though nobody holds it")
        self.roots = set()

    def calm(self, work: Callable[[], None]) -> bool:
        """Do something that may let a destructor panic; return whether it did, which both sides must say."""
        try:
            work()
            raised = False
        except Panicked:
            raised = True
        agree("whether a destructor panicked", self.panicked, raised)
        self.panicked = False
        return raised

    @invariant()
    @judged
    def every_count_is_accounted_for(self) -> None:
        """Each count is that of the host plus that of the entries, and the entries are as many as they should be."""
        if not self.capacity:
            return
        agree("the entries of the table", sorted([*self.chunk, *self.over]), sorted(elements(self.mem, self.table)))
        agree("the entries of the chunk", len(self.chunk), num_filled_in_bump_chunk(self.mem, self.table))
        agree("the members of the set", len(self.over), self.mem[self.table + OVER + LENGTH])
        agree("the members of the precise set", 0, self.mem[self.table + PRECISE + LENGTH])
        agree("the canary", 0, self.mem[self.table + STACK_CANARY])
        agree("the size of the chunk", self.capacity, self.mem[self.table + END] - self.mem[self.table + CHUNK])
        agree("the slots from the bump finger on", {0}, {0, *self.mem.words[self.mem[self.table + NEXT] : self.mem[self.table + END]]})
        for externref, count in self.held.items():
            expected = count + self.chunk.count(externref) + (externref in self.over)
            agree(f"the count of value {externref}", expected, strong_count(self.mem, externref))
