"""A collection releases what no Wasm frame holds, or nothing: on the stories that made the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from impl.activations_table import COLLECTING
from impl.collector import reserve
from impl.errors import Aborted, Panicked
from impl.header import REGISTRY, TABLE

if TYPE_CHECKING:
    from tests.impl.conftest import MakeStory, Story

SLOTS = 3
CODE = 0x1000
CALLEE = 0x2000


def test_a_safepoint_without_a_map_keeps_nothing_alive_and_reads_nothing(make_story: MakeStory) -> None:
    """CVE-2021-39218: at an unmapped safepoint the words that the previous map lists are stale, or no references."""
    function = make_story().function(CODE, frozenset({0, 4}))
    story = make_story(modules=((function,),))
    rt = story.rt
    a = rt.new(0)
    rt.call_wasm(0, story.at(0), (a,))
    assert rt.lookup(story.at(0, 1)) == (SLOTS + 1, 0b0110)
    assert rt.lookup(story.at(2)) is None
    rt.spill(1)
    assert rt.call_import(story.at(2), ()) == []
    rt.gc()
    assert story.host.destroyed == [a]
    story.check({})
    rt.return_from_import((), ())
    rt.local_null(0)
    rt.local_null(1)
    rt.call_import(story.at(0, 1), ())
    rt.gc()
    story.check({})


def test_a_collection_keeps_what_is_live_in_any_frame_and_nothing_else(story: Story) -> None:
    rt = story.rt
    a, b, c = rt.new(0), rt.new(0), rt.new(0)
    rt.call_wasm(0, CODE, (a, b, c))
    rt.call_function(story.at(1), 0, CALLEE, (2, 2))
    assert rt.call_import(story.at(0, start=CALLEE), (1,)) == [c]
    rt.gc()
    assert story.host.destroyed == [a]
    story.check({b: 0, c: 1}, (b, c))
    rt.return_from_import((c,), (1,))
    rt.return_to_wasm((1,), (0,))
    story.check({b: 0, c: 0}, (b, c))
    rt.call_import(story.at(0), ())
    rt.gc()
    assert story.host.destroyed == [a, b]
    rt.return_from_import((), ())
    assert rt.return_to_host((0,)) == [c]
    rt.drop(c)
    rt.gc()
    assert story.host.destroyed == [a, b, c]
    story.check({})


@pytest.mark.parametrize(("frames", "survives"), [(0, True), (2, True), (3, False), (9, False)])
def test_a_walk_that_ends_before_the_canary_releases_nothing(story: Story, frames: int, survives: bool) -> None:
    rt = story.rt
    a = rt.new(0)
    rt.call_wasm(0, CODE, (a,))
    rt.call_import(story.at(), ())
    before = rt.snapshot()
    rt.cut_walk(frames)
    rt.gc()
    rt.calm()
    assert story.host.destroyed == ([] if survives else [a])
    if survives:
        assert rt.snapshot() == before
    story.check({a: 0} if survives else {})


def test_a_failed_walk_gives_back_the_counts_that_it_took(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    rt.call_wasm(0, CODE, (a,))
    rt.call_import(story.at(0), ())
    rt.cut_walk(2)
    rt.gc()
    rt.calm()
    assert rt.strong_count(a) == 1
    story.check({a: 0}, (a,))


def test_a_nested_collection_does_nothing(story: Story) -> None:
    rt = story.rt
    a, b = rt.new(0), rt.new(0)
    story.pass_and_return(a)
    story.pass_and_return(b)
    seen = []

    def collect() -> None:
        rt.gc()
        seen.append(list(story.host.destroyed))
        rt.check({b: 0}, (), nested=True)

    story.host.during[a] = collect
    rt.gc()
    assert seen == [[a]]
    assert story.host.destroyed == [a, b]
    story.check({})


def test_a_destructor_may_insert_more_than_the_chunk_holds_during_a_sweep(story: Story) -> None:
    """The value dies out of the set, having survived one collection, and passes capacity + 1 values to Wasm."""
    rt = story.rt
    x = rt.new(0)
    rt.call_wasm(0, CODE, (x,))
    rt.call_import(story.at(0), ())
    rt.gc()
    assert story.filled() == (0, 1)
    rt.return_from_import((), ())
    rt.return_to_host(())
    inserted: list[int] = []

    def insert() -> None:
        for _ in range(rt.config.chunk + 1):
            inserted.append(rt.new(0))
            rt.call_wasm(0, CODE, (rt.clone(inserted[-1]),))
            rt.check(dict.fromkeys(inserted, 1), (inserted[-1],), nested=True)
            rt.return_to_host(())

    story.host.during[x] = insert
    rt.gc()
    assert story.filled() == (0, 3)
    assert [rt.strong_count(ref) for ref in inserted] == [2, 2, 2]
    story.check(dict.fromkeys(inserted, 1))
    rt.gc()
    assert [rt.strong_count(ref) for ref in inserted] == [1, 1, 1]
    assert story.host.destroyed == [x]


def test_what_a_sweep_finds_twice_is_counted_once(story: Story) -> None:
    """A precise root that a destructor passes to Wasm again: the count of one of the two entries is given back."""
    rt = story.rt
    a, x = rt.new(0), rt.new(0)
    rt.call_wasm(0, CODE, (rt.clone(a), x))
    rt.call_import(story.at(0), ())

    def insert() -> None:
        rt.call_wasm(0, CODE, (rt.clone(a),))
        rt.return_to_host(())

    story.host.during[x] = insert
    rt.gc()
    assert rt.strong_count(a) == 2
    assert story.filled() == (0, 1)
    story.check({a: 1}, (a,))


def test_a_panic_in_a_sweep_loses_nothing_and_the_next_collection_works(story: Story) -> None:
    rt = story.rt
    a, b, c = rt.new(0), rt.new(0), rt.new(0)
    rt.call_wasm(0, CODE, (a, b, c))
    rt.return_to_host(())
    story.host.panic_in(a)
    story.host.panic_in(c)
    with pytest.raises(Panicked):
        rt.gc()
    assert story.host.destroyed == [a, b, c]
    story.check({})
    d = rt.new(0)
    story.pass_and_return(d)
    assert story.filled() == (1, 0)
    rt.gc()
    assert story.host.destroyed == [a, b, c, d]
    story.check({})


def test_a_panic_while_a_global_is_loaded_releases_the_clone(story: Story) -> None:
    rt = story.rt
    a, b, c = rt.new(0), rt.new(0), rt.new(0)
    rt.host_global_set(0, 0, rt.clone(c))
    rt.call_wasm(0, CODE, (a, b))
    story.host.panic_in(a)
    with pytest.raises(Panicked):
        rt.global_get(story.at(1), 0, 0, 2)
    assert story.host.destroyed == [a]
    assert rt.strong_count(c) == 2
    rt.unwind()
    story.check({b: 0, c: 1})


def test_a_load_that_collects_keeps_what_it_loads(story: Story) -> None:
    """The chunk is full, and a destructor overwrites the global in the middle of the load."""
    rt = story.rt
    a, b, c = rt.new(0), rt.new(0), rt.new(0)
    rt.host_global_set(0, 0, c)
    rt.call_wasm(0, CODE, (a, b))
    story.host.during[a] = lambda: rt.host_global_set(0, 0, 0)
    rt.global_get(story.at(1), 0, 0, 2)
    assert story.host.destroyed == [a]
    assert story.filled() == (0, 2)
    story.check({b: 0, c: 0}, (b, c))
    assert rt.return_to_host((2,)) == [c]


@pytest.mark.parametrize("order", range(6))
def test_the_order_of_a_sweep_is_a_choice(order: int, make_story: MakeStory) -> None:
    """All six codes give different orders of three members."""
    orders = []
    for code in range(6):
        story = make_story()
        rt = story.rt
        refs = [rt.new(0) for _ in range(3)]
        rt.call_wasm(0, CODE, refs)
        rt.call_import(story.at(0, 1, 2), ())
        rt.gc()
        rt.unwind()
        rt.sweep_order(code)
        rt.gc()
        rt.calm()
        story.check({})
        assert sorted(story.host.destroyed) == sorted(refs)
        orders.append(tuple(story.host.destroyed))
    assert len(set(orders)) == 6
    assert orders.index(orders[order]) == order


def test_a_verdict_in_a_destructor_is_no_panic_and_leaves_no_borrow_taken(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    story.pass_and_return(a)

    def abort() -> None:
        raise Aborted("found")

    story.host.during[a] = abort
    with pytest.raises(Aborted, match="found"):
        rt.gc()
    assert rt.memory[story.table + COLLECTING] == 0


def test_upstream_destructor_passes_a_reference_to_wasm_in_a_sweep(make_story: MakeStory) -> None:
    """The counts are 2, still 2 after the collection that ran the destructor, and 1 after the next."""
    story = make_story(chunk=512, heap_words=8000)
    rt = story.rt
    inner, x = rt.new(0), rt.new(0)
    story.host.during[x] = lambda: story.pass_and_return(rt.clone(inner))
    story.pass_and_return(x)
    counts = []
    for _ in range(2):
        rt.gc()
        counts.append(rt.strong_count(inner))
    assert counts == [2, 1]


def test_upstream_many_destructors_collect_and_each_runs_once(make_story: MakeStory) -> None:
    story = make_story(chunk=512, heap_words=40000)
    rt = story.rt
    refs = [rt.new(0) for _ in range(512)]
    for ref in refs:
        story.host.during[ref] = rt.gc
        story.pass_and_return(ref)
    rt.gc()
    assert story.host.destroyed == refs
    story.check({})


def test_upstream_many_reads_of_one_element_collect_by_themselves(make_story: MakeStory) -> None:
    story = make_story(chunk=512, heap_words=8000)
    rt = story.rt
    a = rt.new(0)
    rt.host_table_set(0, 0, a)
    rt.call_wasm(0, CODE, ())
    for _ in range(2000):
        rt.table_get(story.at(0), 0, 0, 0)
        assert rt.strong_count(a) <= 1 + 512 + 1
    rt.return_to_host(())
    rt.gc()
    assert rt.strong_count(a) == 1
    story.check({a: 0})


@pytest.mark.parametrize(("wanted", "collects"), [(0, False), (1, False), (2, False), (3, True)])
def test_room_is_made_only_if_there_is_not_enough(wanted: int, collects: bool, make_story: MakeStory) -> None:
    story = make_story(chunk=4)
    rt, mem = story.rt, story.rt.memory
    refs = (rt.new(0), rt.new(0))
    rt.call_wasm(0, CODE, refs)
    rt.return_to_host(())
    reserve(mem, story.host, mem[TABLE], mem[REGISTRY], wanted)
    assert story.host.destroyed == (list(refs) if collects else [])
