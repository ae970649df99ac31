"""Values, calls and teardown of a whole runtime, told as stories that must end well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from impl.errors import Aborted, AllocationFailed, Panicked, StackExhausted, UseAfterFree
from impl.header import FRAME_POINTER, VERDICT, VERDICT_STACK_EXHAUSTED
from impl.runtime import RuntimeProtocol

if TYPE_CHECKING:
    from tests.impl.conftest import MakeStory, Story

SLOTS = 3
CODE = 0x1000


def test_runtime_is_a_runtime(make_story: MakeStory) -> None:
    story = make_story()
    rt: RuntimeProtocol = story.rt
    assert rt.lookup(story.at(0, 2)) == (SLOTS + 1, 0b1010)


def test_a_value_lives_until_its_last_reference_is_dropped(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    assert rt.raw_round_trip(rt.clone(a)) == a
    assert rt.strong_count(a) == 3
    story.check({a: 3})
    for _ in range(3):
        assert story.host.destroyed == []
        rt.drop(a)
    assert story.host.destroyed == [a]
    story.check({})


def test_a_value_owns_its_fields(story: Story) -> None:
    rt = story.rt
    a, b = rt.new(0), rt.new(1)
    owner = rt.new(2, (a,))
    assert owner * 8 % 32 == rt.value_of(owner) * 8 % 32 == 0
    rt.set_field(owner, 1, b)
    assert (rt.field(owner, 0), rt.field(owner, 1)) == (a, b)
    story.check({owner: 1, a: 1, b: 1})
    rt.drop(a)
    rt.drop(b)
    rt.set_field(owner, 0, 0)
    assert story.host.destroyed == [a]
    rt.drop(owner)
    assert story.host.destroyed == [a, owner, b]
    story.check({})


def test_a_layout_takes_no_more_fields_than_it_has(make_story: MakeStory) -> None:
    story = make_story()
    a = story.rt.new(1)
    with pytest.raises(ValueError, match="layout 1"):
        story.rt.new(1, (a,))


@pytest.mark.parametrize("failure", ["constructor", "allocation"])
def test_a_value_that_cannot_be_made_releases_its_fields(story: Story, failure: str) -> None:
    rt = story.rt
    a = rt.new(1)
    before = rt.snapshot()
    kept = rt.clone(a)
    if failure == "constructor":
        story.host.refuse = True
    else:
        rt.fail_allocation(0)
    with pytest.raises(Panicked if failure == "constructor" else AllocationFailed):
        rt.new(0, (a,))
    assert rt.strong_count(kept) == 1
    assert rt.snapshot() == before
    story.host.panic_in(kept)
    rt.fail_allocation(0)
    with pytest.raises(Panicked):
        rt.new(0, (kept,))
    rt.calm()
    assert story.host.destroyed == [kept]
    story.check({})


def test_arguments_that_fill_the_chunk_survive_their_own_transfer(story: Story) -> None:
    """CVE-2021-39216: the chunk has room for one of two arguments, which nobody else owns."""
    rt = story.rt
    old, a, b = rt.new(0), rt.new(0), rt.new(0)
    story.pass_and_return(old)
    assert story.filled() == (1, 0)
    rt.call_wasm(0, story.at(0, 1), (a, b))
    assert story.host.destroyed == [old]
    assert story.filled() == (2, 0)
    story.check({a: 0, b: 0}, (a, b))
    assert rt.return_to_host((1, 0)) == [b, a]
    story.check({a: 1, b: 1})


def test_more_arguments_than_the_chunk_holds_all_survive(story: Story) -> None:
    rt = story.rt
    refs = [rt.new(0) for _ in range(3)]
    rt.call_wasm(0, story.at(0, 1, 2), refs)
    assert story.filled() == (2, 1)
    story.check(dict.fromkeys(refs, 0), tuple(refs))
    assert rt.call_import(story.at(0, 1, 2), ()) == []
    rt.gc()
    assert story.filled() == (0, 3)
    story.check(dict.fromkeys(refs, 0), tuple(refs))
    assert story.host.destroyed == []


def test_results_of_an_import_that_fill_the_chunk_survive_their_own_transfer(story: Story) -> None:
    """CVE-2021-39216, towards Wasm by way of results."""
    rt = story.rt
    a, b = rt.new(0), rt.new(0)
    rt.call_wasm(0, CODE, (rt.new(0),))
    rt.call_import(story.at(), ())
    rt.return_from_import((a, b, 0), (2, 1, 0))
    assert len(story.host.destroyed) == 1
    story.check({a: 0, b: 0}, (a, b))
    assert rt.return_to_host((2, 1, 0)) == [a, b, 0]


def test_only_the_oldest_call_resets_the_canary(story: Story) -> None:
    rt = story.rt
    a, b = rt.new(0), rt.new(0)
    rt.call_wasm(0, CODE, (a,))
    rt.call_import(story.at(0), ())
    rt.call_wasm(0, CODE, (b,))
    rt.return_to_host(())
    rt.gc()
    assert story.host.destroyed == [b]
    story.check({a: 0}, (a,))
    rt.call_wasm(0, CODE, ())
    rt.unwind()
    story.check({a: 0}, (a,))
    rt.unwind()
    story.check({a: 0})
    with pytest.raises(Aborted):
        rt.unwind()


def test_a_destructor_cannot_unwind_the_call_that_it_runs_in(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    rt.call_wasm(0, CODE, ())
    rt.call_import(story.at(), ())

    def leave() -> None:
        with pytest.raises(Aborted):
            rt.unwind()
        rt.memory[VERDICT] = 0

    story.host.during[a] = leave
    rt.drop(a)
    rt.unwind()
    story.check({})


def test_a_panic_while_room_is_made_calls_the_call_off(story: Story) -> None:
    rt = story.rt
    a, b, c, d = (rt.new(0) for _ in range(4))
    rt.call_wasm(0, CODE, (a, b))
    rt.return_to_host(())
    before = rt.memory[FRAME_POINTER]
    story.host.panic_in(a)
    with pytest.raises(Panicked):
        rt.call_wasm(0, CODE, (c, d))
    assert rt.memory[FRAME_POINTER] == before
    assert story.host.destroyed == [a, b, c, d]
    story.check({})


def test_a_panic_while_an_import_returns_is_unwound(story: Story) -> None:
    rt = story.rt
    a, b, c = rt.new(0), rt.new(0), rt.new(0)
    rt.call_wasm(0, CODE, (a, b))
    rt.call_import(story.at(), ())
    story.host.panic_in(b)
    with pytest.raises(Panicked):
        rt.return_from_import((c,), (0,))
    rt.unwind()
    assert story.host.destroyed == [a, b, c]
    story.check({})


def test_a_torn_down_store_is_a_fresh_one(story: Story, make_story: MakeStory) -> None:
    rt = story.rt
    again = make_story(checked=not isinstance(rt.memory, memoryview)).rt
    again.teardown_store()
    expected = again.snapshot()
    refs = [rt.new(0) for _ in range(6)]
    rt.host_global_set(0, 0, rt.clone(refs[5]))
    rt.host_table_set(0, 0, rt.clone(refs[5]))
    rt.call_wasm(0, CODE, refs[:3])
    rt.call_import(story.at(0, 1, 2), ())
    rt.gc()
    rt.return_from_import((), ())
    rt.return_to_host(())
    rt.call_wasm(0, CODE, refs[3:5])
    rt.return_to_host(())
    story.host.panic_in(refs[1])
    with pytest.raises(Panicked):
        rt.teardown_store()
    assert sorted(story.host.destroyed) == refs[:5]
    story.check({refs[5]: 1})
    rt.drop(refs[5])
    rt.teardown_store()
    assert rt.snapshot() == expected


def test_a_store_in_use_is_not_torn_down(story: Story) -> None:
    rt = story.rt
    rt.call_wasm(0, CODE, ())
    before = rt.snapshot()
    with pytest.raises(Aborted):
        rt.teardown_store()
    rt.memory[VERDICT] = 0
    assert rt.snapshot() == before


def test_a_snapshot_restores_everything(story: Story) -> None:
    rt = story.rt
    a = rt.new(0)
    rt.call_wasm(0, CODE, (a,))
    state = rt.snapshot()
    rt.table_set(story.at(0), 0, 0, 0)
    rt.unwind()
    rt.gc()
    rt.teardown_store()
    rt.restore(state)
    assert rt.snapshot() == state
    story.check({a: 0}, (a,))
    assert rt.return_to_host((0,)) == [a]


def test_a_full_thread_stack_is_a_verdict_and_changes_nothing(make_story: MakeStory) -> None:
    story = make_story(stack_words=42)
    rt = story.rt
    rt.call_wasm(0, CODE, ())
    for _ in range(2):
        rt.call_function(CODE, 0, CODE, ())
    before = rt.snapshot()
    with pytest.raises(StackExhausted):
        rt.call_function(CODE, 0, CODE, ())
    assert rt.memory[VERDICT] == VERDICT_STACK_EXHAUSTED
    rt.memory[VERDICT] = 0
    assert rt.snapshot() == before


def test_the_checked_memory_sees_a_use_after_free(make_story: MakeStory) -> None:
    story = make_story()
    a = story.rt.new(0)
    story.rt.drop(a)
    with pytest.raises(UseAfterFree):
        story.rt.clone(a)
