"""The activations table owns one count per entry, whatever is inserted, found on the stack, swept or given up."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impl.activations_table import (
    CHUNK,
    CHUNK_LENGTH,
    COLLECTING,
    END,
    NEXT,
    OVER,
    PRECISE,
    STACK_CANARY,
    SWEEPING,
    TABLE_WORDS,
    VMExternRefActivationsTable,
    discard_precise_stack_roots,
    elements,
    insert_precise_stack_root,
    insert_without_gc,
    num_filled_in_bump_chunk,
    reset_stack_canary,
    set_stack_canary,
    sweep,
    sweep_set,
    sweep_slot,
    table_init,
    table_teardown,
    try_insert,
)
from impl.arena import CheckedMemory, alloc, initialise, raw_memory
from impl.errors import Panicked
from impl.externref import clone, drop, get_ref_count, new_with
from impl.hash_set import BUCKETS, CAPACITY, LENGTH, set_insert
from impl.header import SWEEP_ORDER
from impl.stack_maps import REGISTRY_WORDS, registry_init

if TYPE_CHECKING:
    from collections.abc import Callable

CAPACITY_SLOTS = 3
OBJECTS = 4


class Bench:
    """A table and a few values in a checked memory, each with one reference of ours."""

    def __init__(self) -> None:
        self.mem = mem = CheckedMemory(raw_memory(1000))
        initialise(mem, 200, 1000, 0)
        vtable = alloc(mem, 3, 1)
        mem[vtable], mem[vtable + 1], mem[vtable + 2] = 8, 8, 0
        self.registry = alloc(mem, REGISTRY_WORDS, 1)
        registry_init(mem, self.registry)
        self.table = alloc(mem, TABLE_WORDS, 1)
        self.destroyed: list[int] = []
        self.during: dict[int, Callable[[], object]] = {}
        self.refs = [new_with(mem, self, vtable) for _ in range(OBJECTS)]
        table_init(mem, self.table, CAPACITY_SLOTS, 0)

    def construct(self, value: int, vtable: int) -> None:
        pass

    def destroy(self, externref: int) -> None:
        self.destroyed.append(externref)
        self.during.pop(externref, lambda: None)()

    def word(self, *offsets: int) -> int:
        return self.mem[self.table + sum(offsets)]

    def put(self, ref: int) -> None:
        insert_without_gc(self.mem, self.table, clone(self.mem, ref))

    def give(self, ref: int) -> None:
        """Put our own reference into the table."""
        insert_without_gc(self.mem, self.table, ref)

    def content(self) -> list[int]:
        return list(elements(self.mem, self.table))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_fresh_table_is_empty_and_has_room(bench: Bench) -> None:
    chunk = bench.word(CHUNK)
    assert (bench.word(NEXT), bench.word(END)) == (chunk, chunk + CAPACITY_SLOTS)
    assert bench.word(CHUNK_LENGTH) == CAPACITY_SLOTS
    assert bench.content() == []
    assert bench.word(OVER, CAPACITY) == bench.word(PRECISE, CAPACITY) >= CAPACITY_SLOTS
    assert bench.word(SWEEPING, CAPACITY) == bench.word(STACK_CANARY) == bench.word(COLLECTING) == 0


def test_the_chunk_admits_duplicates_until_it_is_full_and_then_nothing(bench: Bench) -> None:
    mem, table, ref = bench.mem, bench.table, bench.refs[0]
    for filled in range(1, CAPACITY_SLOTS + 1):
        assert try_insert(mem, table, clone(mem, ref)) == 1
        assert num_filled_in_bump_chunk(mem, table) == filled
    before = mem.snapshot()
    assert try_insert(mem, table, ref) == 0
    assert mem.snapshot() == before
    assert bench.content() == [ref] * CAPACITY_SLOTS


def test_the_set_gives_the_count_of_a_duplicate_back(bench: Bench) -> None:
    a, b = bench.refs[:2]
    for _ in range(CAPACITY_SLOTS + 2):
        bench.put(a)
    bench.put(b)
    assert get_ref_count(bench.mem, a) == 1 + CAPACITY_SLOTS + 1
    assert get_ref_count(bench.mem, b) == 2
    assert sorted(bench.content()) == sorted([a] * CAPACITY_SLOTS + [a, b])


def test_a_canary_is_set_once_and_reset_by_who_set_it(bench: Bench) -> None:
    mem, table = bench.mem, bench.table
    assert set_stack_canary(mem, table, 100) == 1
    assert set_stack_canary(mem, table, 90) == 0
    assert bench.word(STACK_CANARY) == 100
    reset_stack_canary(mem, table)
    assert bench.word(STACK_CANARY) == 0


def test_a_precise_root_is_counted_once_and_can_be_given_back(bench: Bench) -> None:
    mem, table, ref = bench.mem, bench.table, bench.refs[0]
    insert_precise_stack_root(mem, table, ref)
    insert_precise_stack_root(mem, table, ref)
    assert get_ref_count(mem, ref) == 2
    discard_precise_stack_roots(mem, table)
    assert get_ref_count(mem, ref) == 1
    assert bench.word(PRECISE, LENGTH) == 0


def test_a_destructor_never_meets_its_own_slot(bench: Bench) -> None:
    mem, table = bench.mem, bench.table
    slot = bench.word(CHUNK)
    bench.give(bench.refs[0])
    seen = []
    bench.during[bench.refs[0]] = lambda: seen.append(mem[slot])
    assert sweep_slot(mem, bench, slot) == 0
    assert seen == [0]
    assert sweep_slot(mem, bench, slot) == 0
    assert table == bench.table


def test_a_sweep_replaces_the_table_by_the_precise_set(bench: Bench) -> None:
    mem, table = bench.mem, bench.table
    a, b, c, d = bench.refs
    for ref in (a, b, c, d):
        bench.give(ref)
    insert_precise_stack_root(mem, table, b)
    insert_precise_stack_root(mem, table, d)
    assert sweep(mem, bench, table) == 0
    assert bench.destroyed == [a, c]
    assert sorted(bench.content()) == [b, d]
    assert get_ref_count(mem, b) == get_ref_count(mem, d) == 1
    assert num_filled_in_bump_chunk(mem, table) == 0
    assert bench.word(PRECISE, LENGTH) == bench.word(SWEEPING, CAPACITY) == 0


def test_the_larger_allocation_serves_the_next_collection(bench: Bench) -> None:
    mem, table = bench.mem, bench.table
    for _ in range(CAPACITY_SLOTS):
        bench.put(bench.refs[0])
    bench.put(bench.refs[1])
    old = bench.word(OVER)
    bench.during[bench.refs[0]] = lambda: None
    sweep(mem, bench, table)
    assert bench.word(PRECISE) == old
    assert bench.word(PRECISE, CAPACITY) == bench.word(OVER, CAPACITY)


def test_an_allocation_that_is_no_larger_does_not_serve_the_next_collection(bench: Bench) -> None:
    """The set that destructors have filled meanwhile has as many buckets as the old one: there is nothing to exchange."""
    mem, table = bench.mem, bench.table
    a, b, c, _ = bench.refs
    for _ in range(CAPACITY_SLOTS):
        bench.put(c)
    old = bench.word(OVER)
    bench.give(a)
    bench.during[a] = lambda: bench.put(b)
    sweep(mem, bench, table)
    assert bench.content() == [b]
    assert bench.word(PRECISE, CAPACITY) == bench.word(OVER, CAPACITY)
    assert old not in {bench.word(PRECISE), bench.word(OVER)}


def test_a_full_chunk_is_what_destructors_find_during_a_sweep(bench: Bench) -> None:
    mem, table = bench.mem, bench.table
    a, b, c, _ = bench.refs
    for ref in (c, c, c):
        bench.put(ref)
    bench.give(a)
    seen = []

    def insert() -> None:
        seen.append((bench.word(NEXT) == bench.word(END), bench.word(SWEEPING, LENGTH), try_insert(mem, table, b)))
        bench.put(b)

    bench.during[a] = insert
    sweep(mem, bench, table)
    assert seen == [(True, 0, 0)]
    assert bench.content() == [b]
    assert get_ref_count(mem, b) == 2


def test_every_reference_is_released_although_all_destructors_panic(bench: Bench) -> None:
    def panic() -> None:
        raise Panicked("destructor")

    for ref in bench.refs:
        bench.during[ref] = panic
        bench.give(ref)
    assert sweep(bench.mem, bench, bench.table) == 1
    assert bench.destroyed == bench.refs
    assert bench.content() == []
    assert try_insert(bench.mem, bench.table, 0) == 1


@pytest.mark.parametrize("panics", [False, True])
def test_teardown_leaves_a_fresh_table(bench: Bench, panics: bool) -> None:
    mem, table = bench.mem, bench.table
    a, b, *_ = bench.refs
    # Where the buckets lie depends on what else is alive.
    offsets = sorted(set(range(TABLE_WORDS)) - {OVER + BUCKETS, PRECISE + BUCKETS})
    fresh = [bench.word(offset) for offset in offsets]
    for ref in (a, b, b, b, b):
        bench.put(ref)
    drop(mem, bench, a)

    def act() -> None:
        if panics:
            raise Panicked("destructor")

    bench.during[a] = act
    if panics:
        with pytest.raises(Panicked):
            table_teardown(mem, bench, table, CAPACITY_SLOTS, 0)
    else:
        table_teardown(mem, bench, table, CAPACITY_SLOTS, 0)
    assert bench.content() == []
    assert get_ref_count(mem, b) == 1
    assert [bench.word(offset) for offset in offsets] == fresh


def test_the_handle_does_what_the_functions_do(bench: Bench) -> None:
    mem = bench.mem
    handle = VMExternRefActivationsTable(mem, bench, bench.table, bench.registry)
    a, b, c, d = bench.refs
    assert handle.try_insert(a)
    handle.insert_without_gc(b)
    handle.reserve(1)
    assert handle.num_filled_in_bump_chunk() == 2
    handle.insert_with_gc(c)
    assert (handle.elements(), a in handle, d in handle) == ([a, b, c], True, False)
    handle.insert_with_gc(d)
    assert (bench.destroyed, handle.elements()) == ([a, b, c], [d])
    handle.reserve(CAPACITY_SLOTS)
    assert handle.elements() == [d]
    handle.gc()
    assert bench.destroyed == [a, b, c, d]


def test_reserving_more_room_than_there_is_collects_and_what_fits_does_not(bench: Bench) -> None:
    handle = VMExternRefActivationsTable(bench.mem, bench, bench.table, bench.registry)
    a = bench.refs[0]
    assert handle.try_insert(a)
    handle.reserve(CAPACITY_SLOTS - 1)
    assert (bench.destroyed, handle.elements()) == ([], [a])
    handle.reserve(CAPACITY_SLOTS)
    assert (bench.destroyed, handle.elements()) == ([a], [])


def test_each_order_of_a_sweep_is_another_permutation() -> None:
    destroyed = []
    refs = Bench().refs
    for order in range(math.factorial(OBJECTS)):
        bench = Bench()
        members = bench.table + OVER
        for ref in bench.refs:
            set_insert(bench.mem, members, ref)
        assert sweep_set(bench.mem, bench, members, order) == 0
        destroyed.append(tuple(bench.destroyed))
    assert sorted(destroyed) == sorted(itertools.permutations(refs))


OBJECT = st.integers(0, OBJECTS - 1)
STEP = st.one_of(
    st.tuples(st.just("insert"), OBJECT),
    st.tuples(st.just("sweep"), st.tuples(st.sets(OBJECT), st.integers(0, 23))),
    st.tuples(st.just("discard"), st.sets(OBJECT)),
)


def apply(bench: Bench, chunk: list[int], over: set[int], step: tuple[str, Any]) -> tuple[list[int], set[int]]:
    """Do a step to the table and to plain Python collections."""
    mem, table = bench.mem, bench.table
    kind, operand = step
    if kind == "insert":
        ref = bench.refs[operand]
        bench.put(ref)
        return ([*chunk, ref], over) if len(chunk) < CAPACITY_SLOTS else (chunk, over | {ref})
    roots = {bench.refs[index] for index in (operand[0] if kind == "sweep" else operand)} & (set(chunk) | over)
    for ref in sorted(roots):
        insert_precise_stack_root(mem, table, ref)
    if kind == "discard":
        discard_precise_stack_roots(mem, table)
        return chunk, over
    mem[SWEEP_ORDER] = operand[1]
    assert sweep(mem, bench, table) == 0
    return [], roots


@given(st.lists(STEP, max_size=30))
def test_counts_are_those_of_a_list_and_a_set(steps: list[tuple[str, Any]]) -> None:
    bench = Bench()
    chunk: list[int] = []
    over: set[int] = set()
    for step in steps:
        chunk, over = apply(bench, chunk, over, step)
        owners = Counter(bench.refs) + Counter(chunk) + Counter(over)
        assert {ref: get_ref_count(bench.mem, ref) for ref in bench.refs} == owners
        assert Counter(bench.content()) == Counter(chunk) + Counter(over)
        assert bench.word(OVER, LENGTH) == len(over)
        assert bench.word(PRECISE, LENGTH) == bench.word(SWEEPING, CAPACITY) == 0
    assert bench.destroyed == []


def test_slots_that_a_sweep_has_emptied_are_no_entries() -> None:
    """While a sweep runs the finger is at the end, and slots below it are null."""
    bench = Bench()
    a = bench.refs[0]
    assert try_insert(bench.mem, bench.table, a) == 1
    bench.mem[bench.table + NEXT] = bench.word(END)
    assert list(elements(bench.mem, bench.table)) == [a]
