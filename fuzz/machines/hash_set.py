"""Two hash sets against Python's: the same answers, and bytes that depend on contents and capacity alone."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from fuzz.machines.findings import Component, agree, judged
from impl.arena import HEADER_WORDS, CheckedMemory, alloc, initialise, raw_memory
from impl.hash_set import (
    BUCKETS,
    CAPACITY,
    LENGTH,
    SEED,
    SEED_MAX,
    SET_WORDS,
    capacity_for,
    set_contains,
    set_free,
    set_init,
    set_insert,
    set_pop,
    set_remove,
    set_swap,
    set_take,
)

STACK_WORDS: Final = 16
HEAP_WORDS: Final = 1024

KEYS: Final = st.integers(1, 24) | st.integers(1, SEED_MAX)
SIDES: Final = st.integers(0, 1)


class HashSetMachine(Component):
    """Two sets of one seed, so that they may change places, and the Python sets of their members."""

    def __init__(self) -> None:
        super().__init__()
        self.mem = CheckedMemory(raw_memory(HEADER_WORDS + STACK_WORDS + HEAP_WORDS))
        initialise(self.mem, STACK_WORDS, len(self.mem), 0)
        self.sets = [alloc(self.mem, SET_WORDS, 1) for _ in range(3)]
        self.members: list[set[int]] = [set(), set()]
        self.seed = 0
        for s in self.sets[:2]:
            set_init(self.mem, s, 0, self.seed)

    @initialize(seed=st.integers(0, SEED_MAX), room=st.tuples(st.integers(0, 9), st.integers(0, 9)))
    @judged
    def make(self, seed: int, room: tuple[int, int]) -> None:
        """Make both sets, with room for so many members."""
        self.seed = seed
        for s, items in zip(self.sets, room, strict=False):
            set_init(self.mem, s, items, seed)

    @rule(side=SIDES, key=KEYS)
    @judged
    def insert(self, side: int, key: int) -> None:
        """Insert a key that may be a member already."""
        agree(f"insertion of {key}", key not in self.members[side], bool(set_insert(self.mem, self.sets[side], key)))
        self.members[side].add(key)

    @rule(side=SIDES, key=KEYS)
    @judged
    def remove(self, side: int, key: int) -> None:
        """Remove a key that may be absent."""
        agree(f"removal of {key}", key in self.members[side], bool(set_remove(self.mem, self.sets[side], key)))
        self.members[side].discard(key)

    @precondition(lambda self: self.members[0])
    @rule(pick=st.integers(0, 63))
    @judged
    def remove_member(self, pick: int) -> None:
        """Remove a member: random keys are seldom one."""
        key = sorted(self.members[0])[pick % len(self.members[0])]
        agree(f"removal of the member {key}", 1, set_remove(self.mem, self.sets[0], key))
        self.members[0].remove(key)

    @precondition(lambda self: self.members[0])
    @rule(pick=st.integers(0, 63))
    @judged
    def take(self, pick: int) -> None:
        """Take the n-th member in the order of the buckets."""
        n = pick % len(self.members[0])
        expected = self.in_order(0)[n]
        agree(f"member {n} of {self.in_order(0)}", expected, set_take(self.mem, self.sets[0], n))
        self.members[0].remove(expected)

    @precondition(lambda self: self.members[0])
    @rule()
    @judged
    def pop(self) -> None:
        """Take the first member; the cursor of a drain must miss none."""
        expected = self.in_order(0)[0]
        agree(f"the first of {self.in_order(0)}", expected, set_pop(self.mem, self.sets[0]))
        self.members[0].remove(expected)

    @rule()
    @judged
    def swap(self) -> None:
        """Exchange the sets."""
        set_swap(self.mem, self.sets[0], self.sets[1])
        self.members.reverse()

    @rule(side=SIDES)
    @judged
    def free(self, side: int) -> None:
        """Free the buckets; the set goes on as an empty one without capacity."""
        set_free(self.mem, self.sets[side])
        self.members[side].clear()
        agree("the capacity of a freed set", 0, self.mem[self.sets[side] + CAPACITY])

    @rule(side=SIDES, key=KEYS)
    @judged
    def ask(self, side: int, key: int) -> None:
        """Ask for a key."""
        agree(f"membership of {key}", key in self.members[side], bool(set_contains(self.mem, self.sets[side], key)))

    def buckets(self, s: int) -> list[int]:
        """Return all buckets of a set, empty ones included."""
        first = self.mem[s + BUCKETS]
        return [self.mem[bucket] for bucket in range(first, first + self.mem[s + CAPACITY])]

    def in_order(self, side: int) -> list[int]:
        """Return the members in the order of the buckets."""
        return [key for key in self.buckets(self.sets[side]) if key]

    @invariant()
    @judged
    def contents_are_all_that_matters(self) -> None:
        """The buckets are those of a set of this capacity into which the members were put in ascending order."""
        for s, members in zip(self.sets, self.members, strict=False):
            agree("the number of members", len(members), self.mem[s + LENGTH])
            capacity, buckets = self.mem[s + CAPACITY], self.buckets(s)
            if capacity < capacity_for(len(members)):
                agree("the capacity", f"at least {capacity_for(len(members))}", capacity)
            if capacity:
                fresh = self.sets[2]
                # The largest number of members that leads to this capacity.
                set_init(self.mem, fresh, 3 * capacity // 4, self.seed)
                for key in sorted(members):
                    set_insert(self.mem, fresh, key)
                agree("the buckets", self.buckets(fresh), buckets)
                set_free(self.mem, fresh)
            for key in members:
                agree(f"membership of the member {key}", 1, set_contains(self.mem, s, key))
            agree("the seed", self.seed, self.mem[s + SEED] & SEED_MAX)

    @judged
    def end(self) -> None:
        """Both sets drain to nothing."""
        for _ in range(2):
            while self.members[0]:
                self.pop()
            self.swap()
