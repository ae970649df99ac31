"""The hash set against Python's, and its promise that equal contents are equal bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impl.arena import CheckedMemory, alloc, initialise, raw_memory, snapshot
from impl.errors import ArenaExhausted
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

WORDS = 4096

KEYS = st.integers(1, 40).map(lambda n: n * 2) | st.integers(1, SEED_MAX)
SEEDS = st.integers(0, 2**40)
STEPS = st.lists(st.tuples(st.sampled_from(["insert", "insert", "insert", "remove", "take", "pop", "contains"]), KEYS), max_size=120)


def memory() -> CheckedMemory:
    mem = CheckedMemory(raw_memory(WORDS))
    initialise(mem, 16, WORDS, 0)
    return mem


def new_set(mem: CheckedMemory, items: int = 0, seed: int = 0) -> int:
    s = alloc(mem, SET_WORDS, 1)
    set_init(mem, s, items, seed)
    return s


def buckets_of(mem: CheckedMemory, s: int) -> list[int]:
    return [mem[mem[s + BUCKETS] + index] for index in range(mem[s + CAPACITY])]


def members_of(mem: CheckedMemory, s: int) -> list[int]:
    return [key for key in buckets_of(mem, s) if key]


@given(STEPS, SEEDS, st.integers(0, 20))
def test_the_set_agrees_with_pythons_set(steps: list[tuple[str, int]], seed: int, items: int) -> None:
    mem = memory()
    s = new_set(mem, items, seed)
    model: set[int] = set()
    for kind, key in steps:
        if kind == "insert":
            assert set_insert(mem, s, key) == (key not in model)
            model.add(key)
        elif kind == "remove":
            assert set_remove(mem, s, key) == (key in model)
            model.discard(key)
        elif kind == "contains":
            assert set_contains(mem, s, key) == (key in model)
        elif model:
            members = members_of(mem, s)
            n = key % len(members) if kind == "take" else 0
            taken = set_take(mem, s, n) if kind == "take" else set_pop(mem, s)
            assert taken == members[n]
            model.remove(taken)
        assert mem[s + LENGTH] == len(model)
        assert sorted(members_of(mem, s)) == sorted(model)
        assert all(set_contains(mem, s, member) for member in model)


@given(st.sets(KEYS, max_size=40), st.sets(KEYS, max_size=20), SEEDS, st.randoms(use_true_random=False))
def test_equal_contents_and_capacity_are_equal_bytes(keys: set[int], passing: set[int], seed: int, order: object) -> None:
    states = []
    for history in range(3):
        mem = memory()
        s = new_set(mem, 60, seed)
        guests = sorted(passing - keys)
        everyone = sorted(keys) + (guests if history else [])
        if history:
            order.shuffle(everyone)  # type: ignore[attr-defined]
        for key in everyone:
            set_insert(mem, s, key)
        if history:
            order.shuffle(guests)  # type: ignore[attr-defined]
            for key in guests:
                set_remove(mem, s, key)
        states.append(snapshot(mem))
    assert states[0] == states[1] == states[2]


@given(st.sets(KEYS, min_size=1), SEEDS)
def test_a_drain_goes_in_the_order_of_the_buckets_and_leaves_an_empty_set(keys: set[int], seed: int) -> None:
    mem = memory()
    drained, empty = new_set(mem, 100, seed), new_set(mem, 100, seed)
    for key in sorted(keys):
        set_insert(mem, drained, key)
    popped = [set_pop(mem, drained) for _ in keys]
    assert sorted(popped) == sorted(keys)
    for field in (CAPACITY, LENGTH, SEED):
        assert mem[drained + field] == mem[empty + field]
    assert buckets_of(mem, drained) == buckets_of(mem, empty)


def test_a_drain_looks_at_each_bucket_about_once() -> None:
    class Counting:
        reads = 0

        def __getitem__(self, index: int) -> int:
            self.reads += 1
            return mem[index]

        def __setitem__(self, index: int, word: int) -> None:
            mem[index] = word

    mem = memory()
    s = new_set(mem, 512)
    for key in range(2, 1026, 2):
        set_insert(mem, s, key)
    counting = Counting()
    for _ in range(512):
        set_pop(counting, s)
    assert mem[s + LENGTH] == 0
    assert counting.reads < 16 * mem[s + CAPACITY]


def test_an_insertion_in_the_middle_of_a_drain_is_found() -> None:
    mem = memory()
    s = new_set(mem, 12)
    for key in range(2, 20, 2):
        set_insert(mem, s, key)
    popped = [set_pop(mem, s) for _ in range(5)]
    assert mem[s + SEED] > SEED_MAX
    for key in popped:
        assert set_insert(mem, s, key) == 1
        assert mem[s + SEED] <= SEED_MAX
    assert sorted(set_pop(mem, s) for _ in range(9)) == list(range(2, 20, 2))


@pytest.mark.parametrize(("items", "capacity"), [(0, 0), (1, 4), (3, 4), (4, 8), (6, 8), (7, 16), (512, 1024), (768, 1024), (769, 2048)])
def test_buckets_are_filled_to_three_quarters_at_most(items: int, capacity: int) -> None:
    assert capacity_for(items) == capacity


def test_an_empty_set_of_no_capacity_has_no_buckets() -> None:
    mem = memory()
    s = new_set(mem)
    assert [mem[s + field] for field in range(SET_WORDS)] == [0, 0, 0, 0]
    assert set_contains(mem, s, 2) == 0
    assert set_remove(mem, s, 2) == 0


def test_growth_frees_the_old_buckets_and_freeing_frees_the_last() -> None:
    mem = memory()
    s = new_set(mem)
    live = mem.live_blocks()
    for key in range(2, 200, 2):
        set_insert(mem, s, key)
    assert len(mem.live_blocks()) == len(live) + 1
    set_free(mem, s)
    assert mem.live_blocks() == live
    assert set_insert(mem, s, 8) == 1


def test_a_duplicate_never_grows_the_buckets() -> None:
    mem = memory()
    s = new_set(mem, 3)
    for key in (2, 4, 6, 2, 4, 6):
        set_insert(mem, s, key)
    assert mem[s + CAPACITY] == 4


def test_a_set_that_cannot_grow_is_unchanged() -> None:
    mem = memory()
    s = new_set(mem, 3)
    for key in (2, 4, 6):
        set_insert(mem, s, key)
    while True:
        try:
            alloc(mem, 4, 1)
        except ArenaExhausted:
            break
    before = buckets_of(mem, s), mem[s + LENGTH]
    with pytest.raises(ArenaExhausted):
        set_insert(mem, s, 8)
    assert (buckets_of(mem, s), mem[s + LENGTH]) == before


def test_swapping_exchanges_contents_capacity_and_seed() -> None:
    mem = memory()
    a, b = new_set(mem, 3, 1), new_set(mem, 12, 2)
    set_insert(mem, a, 2)
    before = [mem[a + field] for field in range(SET_WORDS)], [mem[b + field] for field in range(SET_WORDS)]
    set_swap(mem, a, b)
    assert ([mem[b + field] for field in range(SET_WORDS)], [mem[a + field] for field in range(SET_WORDS)]) == before
    assert set_contains(mem, b, 2) == 1


def test_another_seed_is_another_order() -> None:
    mem = memory()
    orders = set()
    for seed in range(8):
        s = new_set(mem, 12, seed << 20)
        for key in range(100, 120, 2):
            set_insert(mem, s, key)
        orders.add(tuple(members_of(mem, s)))
    assert len(orders) > 4
