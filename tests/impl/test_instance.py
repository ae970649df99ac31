"""Stores to globals, tables and segments are whole barriers, and what fails half-way leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from impl.errors import AllocationFailed, OutOfBounds, Panicked, RegistrationRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.impl.conftest import MakeStory, Story

CODE = 0x1000
LENGTH_BYTES = 0x80


@pytest.mark.parametrize("place", ["host global", "host table", "global", "table", "fill"])
def test_a_destructor_that_reads_its_own_slot_sees_the_new_value(story: Story, place: str) -> None:
    rt = story.rt
    old, new = rt.new(0), rt.new(0)
    is_global = "global" in place
    seen: list[int] = []

    def look() -> None:
        seen.append(rt.host_global_get(0, 0) if is_global else rt.host_table_get(0, 0))

    story.host.during[old] = look
    if is_global:
        rt.host_global_set(0, 0, old)
    else:
        rt.host_table_set(0, 0, old)
    if place == "host global":
        rt.host_global_set(0, 0, rt.clone(new))
    elif place == "host table":
        rt.host_table_set(0, 0, rt.clone(new))
    else:
        rt.call_wasm(0, CODE, (rt.clone(new),))
        if place == "global":
            rt.global_set(story.at(), 0, 0, 0)
        elif place == "table":
            rt.table_set(story.at(), 0, 0, 0)
        else:
            rt.table_fill(story.at(), 0, 0, 0, 1)
        rt.return_to_host(())
    assert seen == [new]
    assert story.host.destroyed == [old]
    story.check({new: 2})


def test_storing_a_slot_to_itself_destroys_nothing(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    rt.host_table_set(0, 0, a)
    rt.call_wasm(0, CODE, ())
    rt.table_get(story.at(), 0, 0, 1)
    rt.table_set(story.at(1), 0, 0, 1)
    rt.table_copy(story.at(1), 0, 0, 0, 0, 2)
    rt.global_set(story.at(1), 0, 1, 1)
    rt.local_copy(1, 0)
    rt.global_set(story.at(1), 0, 1, 0)
    assert story.host.destroyed == []
    assert rt.strong_count(a) == 3
    story.check({a: 0}, (a,))


def test_a_destructor_in_a_bulk_operation_sees_all_of_it_done(story: Story) -> None:
    rt = story.rt
    x, y, new = rt.new(0), rt.new(0), rt.new(0)
    rt.host_table_set(0, 0, x)
    rt.host_table_set(0, 1, y)
    seen: list[int] = []

    def look() -> None:
        seen.extend((rt.host_table_get(0, 0), rt.host_table_get(0, 1)))

    story.host.during[x] = look
    story.host.panic_in(y)
    with pytest.raises(Panicked):
        rt.host_table_fill(0, 0, new, 2)
    assert seen == [new, new]
    assert story.host.destroyed == [x, y]
    story.check({new: 2})


def test_a_destructor_in_a_fill_finds_no_count_but_those_of_the_elements(story: Story) -> None:
    rt = story.rt
    old, new = rt.new(0), rt.new(0)
    rt.host_table_set(0, 1, old)
    counts: list[int] = []
    story.host.during[old] = lambda: counts.append(rt.strong_count(new))
    rt.host_table_fill(0, 0, new, 2)
    assert counts == [2]
    story.check({new: 0})


@pytest.mark.parametrize(("start", "source", "expected"), [(0, 1, "BCDD"), (1, 0, "AABC"), (0, 0, "ABCD")], ids=["down", "up", "in place"])
def test_a_copy_within_a_table_moves_as_if_all_was_read_first(story: Story, start: int, source: int, expected: str) -> None:
    rt = story.rt
    assert rt.host_table_grow(0, 2, 0) == 2
    names = {rt.new(0): letter for letter in "ABCD"}
    for index, ref in enumerate(names):
        rt.host_table_set(0, index, rt.clone(ref))
    count = 4 - max(start, source)
    rt.host_table_copy(0, 0, start, source, count)
    content = [rt.host_table_get(0, index) for index in range(4)]
    assert "".join(names[ref] for ref in content) == expected
    for ref in content:
        rt.drop(ref)
    story.check(dict.fromkeys(names, 1))


def test_out_of_bounds_changes_nothing_and_releases_what_was_moved(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    before = rt.snapshot()
    failing: list[Callable[[int], object]] = [
        lambda ref: rt.host_table_set(0, 2, ref),
        lambda ref: rt.host_table_fill(0, 1, ref, 2),
    ]
    for operation in failing:
        with pytest.raises(OutOfBounds):
            operation(rt.clone(a))
        assert rt.snapshot() == before
    with pytest.raises(OutOfBounds):
        rt.host_table_get(0, 2)
    with pytest.raises(OutOfBounds):
        rt.host_table_copy(0, 0, 1, 0, 2)
    with pytest.raises(OutOfBounds):
        rt.host_table_init(0, 0, 0, 1, 2)
    with pytest.raises(OutOfBounds):
        rt.host_table_init(0, 0, 1, 0, 2)
    assert rt.snapshot() == before
    for index, operation in enumerate(failing):
        b = rt.new(0)
        story.host.panic_in(b)
        with pytest.raises(Panicked):
            operation(b)
        assert len(story.host.destroyed) == index + 1
    story.check({a: 1})


def test_wasm_traps_out_of_bounds(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    traps: list[Callable[[], object]] = [
        lambda: rt.table_get(story.at(0), 0, 2, 1),
        lambda: rt.table_set(story.at(0), 0, 2, 0),
        lambda: rt.table_fill(story.at(0), 0, 2, 0, 1),
        lambda: rt.table_copy(story.at(0), 0, 0, 0, 2, 1),
        lambda: rt.table_init(story.at(0), 0, 0, 0, 2, 1),
    ]
    for trap in traps:
        rt.call_wasm(0, CODE, (rt.clone(a),))
        with pytest.raises(OutOfBounds):
            trap()
        rt.unwind()
    rt.gc()
    story.check({a: 1})


def test_a_table_grows_until_its_limit_or_until_memory_runs_out(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    rt.host_table_set(0, 1, rt.clone(a))
    assert rt.host_table_grow(0, 1, rt.clone(a)) == 2
    assert rt.strong_count(a) == 3
    assert [rt.host_table_get(0, index) for index in (0, 1, 2)] == [0, a, a]
    assert rt.host_table_grow(0, 2, rt.clone(a)) == -1
    assert rt.host_table_grow(0, 0, rt.clone(a)) == 3
    rt.fail_allocation(0)
    assert rt.host_table_grow(0, 1, rt.clone(a)) == -1
    rt.calm()
    assert rt.strong_count(a) == 5
    rt.call_wasm(0, CODE, (rt.clone(a),))
    assert rt.table_grow(story.at(0), 0, 1, 0) == 3
    assert rt.table_grow(story.at(0), 0, 1, 0) == -1
    assert rt.strong_count(a) == 7
    story.check({a: 3}, (a,))


def test_a_table_without_elements_grows_and_frees_nothing(make_story: MakeStory) -> None:
    story = make_story()
    rt = story.rt
    rt.instantiate(1, 0, 0, 0, 0, 0)
    a = rt.new(0)
    assert (rt.host_table_grow(1, 2, rt.clone(a)), rt.host_table_grow(1, 1, 0)) == (0, 2)
    story.check({a: 1})


def test_a_segment_owns_its_elements_until_it_is_dropped(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    rt.instantiate(1, 0, a, 0b10, 2, 0)
    assert rt.strong_count(a) == 2
    rt.host_global_set(1, 0, 0)
    story.check({a: 0})
    rt.call_wasm(0, CODE, ())
    rt.table_init(story.at(), 0, 1, 0, 0, 2)
    assert (rt.host_table_get(0, 0), rt.strong_count(a)) == (0, 2)
    rt.elem_drop(story.at(), 1)
    rt.elem_drop(story.at(), 1)
    assert rt.strong_count(a) == 1
    rt.table_init(story.at(), 0, 1, 0, 0, 0)
    with pytest.raises(OutOfBounds):
        rt.table_init(story.at(), 0, 1, 0, 0, 1)
    rt.unwind()
    story.check({a: 0})


def test_an_active_segment_initialises_the_table_and_is_gone(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    rt.instantiate(1, 0, a, 0b01, 3, 1)
    assert [rt.host_table_get(1, index) for index in range(3)] == [a, 0, 0]
    rt.drop(a)
    assert rt.strong_count(a) == 2
    with pytest.raises(OutOfBounds):
        rt.host_table_init(0, 1, 0, 0, 1)
    story.check({a: 0})


@pytest.mark.parametrize("after", [0, 1])
def test_a_half_failed_instantiation_leaves_nothing_behind(story: Story, after: int) -> None:
    """CVE-2022-23636: what was never initialised must not be dropped, and what was must be."""
    rt = story.rt
    empty = rt.snapshot()
    a = rt.new(0)
    rt.fail_allocation(after)
    with pytest.raises(AllocationFailed):
        rt.instantiate(1, 0, a, 0b11, 2, 1)
    rt.calm()
    assert story.host.destroyed == [a]
    assert rt.snapshot() == empty
    a = rt.new(0)
    story.host.panic_in(a)
    rt.fail_allocation(after)
    with pytest.raises(Panicked):
        rt.instantiate(1, 0, a, 0b11, 2, 1)
    rt.calm()
    assert rt.snapshot() == empty
    rt.instantiate(1, 0, rt.new(0), 0b11, 2, 1)


def test_a_module_that_is_refused_is_not_instantiated(make_story: MakeStory) -> None:
    function = make_story().function(CODE)
    story = make_story(modules=((function,), ((CODE, CODE + LENGTH_BYTES, ((8, 1, 0),)),)))
    rt = story.rt
    before = rt.snapshot()
    a = rt.new(0)
    with pytest.raises(RegistrationRefused):
        rt.register(1)
    with pytest.raises(RegistrationRefused):
        rt.instantiate(1, 1, a, 0, 1, 0)
    assert story.host.destroyed == [a]
    assert rt.snapshot() == before
    b = rt.new(0)
    story.host.panic_in(b)
    with pytest.raises(Panicked):
        rt.instantiate(1, 1, b, 0, 1, 0)
    assert rt.snapshot() == before


def test_operands_that_no_instance_can_have_are_refused(make_story: MakeStory) -> None:
    rt = make_story(globals=0).rt
    with pytest.raises(ValueError, match="global"):
        rt.instantiate(1, 0, rt.new(1), 0, 2, 0)
    with pytest.raises(ValueError, match="segment"):
        rt.instantiate(1, 0, 0, 0, 1, 1)


def test_an_instance_releases_everything_that_it_held(story: Story) -> None:
    rt = story.rt
    empty = rt.snapshot()
    a, b, c = rt.new(0), rt.new(0), rt.new(0)
    rt.instantiate(1, 0, rt.clone(a), 0b01, 1, 0)
    rt.host_table_set(1, 0, b)
    rt.host_global_set(1, 1, c)
    story.host.panic_in(b)
    with pytest.raises(Panicked):
        rt.teardown_instance(1)
    assert sorted(story.host.destroyed) == [b, c]
    story.check({a: 1})
    rt.drop(a)
    assert rt.snapshot() == empty
