"""A corruption of a sound memory between operations is reported under its own number."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from impl.activations_table import CHUNK, COLLECTING, END, NEXT, OVER, PRECISE, STACK_CANARY, SWEEPING
from impl.arena import alloc
from impl.config import Config
from impl.errors import InvariantViolated
from impl.externref import VALUE_PTR, VTABLE
from impl.hash_set import BUCKETS, CAPACITY, LENGTH, SET_WORDS, set_contains
from impl.header import (
    CODE,
    FRAME_POINTER,
    FREE_LIST,
    HEADER_WORDS,
    HEAP_END,
    QUARANTINE_ENTRIES,
    REGISTRY,
    STACK_LOW,
    TABLE,
    VTABLES,
)
from impl.instance import CELLS, GLOBALS_COUNT, SEGMENT_LENGTH, TABLE_ELEMENTS, TABLE_SIZE
from impl.invariants import PAIRS_FEW
from impl.stack import DROP, ENTRY, EXTRA, HOST, KIND, LINK, SIZE, push_frame, stack_pointer
from impl.stack_maps import BITS, ENTRIES, ENTRY_WORDS, MODULE_WORDS, MODULES, MODULES_COUNT, START
from impl.stack_maps import END as MODULE_END
from tests.impl.worlds import PC, Sound, World, configuration


@pytest.fixture(params=[0, 2], ids=["", "quarantine"])
def world(request: pytest.FixtureRequest) -> Sound:
    sound = Sound(configuration(quarantine=request.param))
    sound.check()
    return sound


# --- corruptions: each takes a sound world and breaks exactly one invariant


def count_one_more(world: Sound) -> None:
    world.words[world.x] += 1


def count_one_less(world: Sound) -> None:
    world.words[world.shared] -= 1


def global_overwritten_without_release(world: Sound) -> None:
    world.words[world.instance + CELLS] = 0


def element_stored_without_count(world: Sound) -> None:
    world.words[world.words[world.instance + TABLE_ELEMENTS] + 1] = world.held


def segment_word_is_no_reference(world: Sound) -> None:
    world.words[world.instance + CELLS + 2] = 7


def chunk_entry_twice(world: Sound) -> None:
    finger = world.words[world.table + NEXT]
    world.words[finger] = world.shared
    world.words[world.table + NEXT] = finger + 1


def field_lost(world: Sound) -> None:
    world.words[world.words[world.outer + VALUE_PTR]] = 0


def host_forgets(world: Sound) -> None:
    world.owners[world.held] = 0


def segment_word_is_a_freed_object(world: Sound) -> None:
    freed = world.new(1)
    world.rt.drop(world.moved(freed))
    world.words[world.instance + CELLS + 2] = freed


def count_zero_without_owner(world: Sound) -> None:
    leaked = world.new(1)
    world.words[leaked] = 0
    world.owners[leaked] = 0


def slot_beyond_finger(world: Sound) -> None:
    world.words[world.words[world.table + NEXT]] = world.x


def finger_one_back(world: Sound) -> None:
    world.words[world.table + NEXT] -= 1


def finger_past_end(world: Sound) -> None:
    world.words[world.table + NEXT] = world.words[world.table + END] + 1


def finger_before_start(world: Sound) -> None:
    world.words[world.table + NEXT] = world.words[world.table + CHUNK] - 1


def end_moved(world: Sound) -> None:
    world.words[world.table + END] += 1


def empty_slot_in_use(world: Sound) -> None:
    world.words[world.table + NEXT] += 1


def roots_left_in_the_precise_set(world: Sound) -> None:
    world.exchange(world.table + OVER, world.table + PRECISE, SET_WORDS)


def roots_left_in_the_swept_set(world: Sound) -> None:
    world.exchange(world.table + OVER, world.table + SWEEPING, SET_WORDS)


def live_local_not_in_the_table(world: Sound) -> None:
    finger = world.words[world.table + NEXT] - 1
    assert world.words[finger] == world.shared
    world.words[finger] = world.held
    world.words[world.held] += 1
    world.words[world.shared] -= 1


def member_in_the_wrong_bucket(world: Sound) -> None:
    words, over = world.words, world.table + OVER
    buckets = words[over + BUCKETS]
    capacity = words[over + CAPACITY]
    for bucket in range(buckets, buckets + capacity):
        for empty in range(buckets, buckets + capacity):
            if words[bucket] and not words[empty]:
                world.exchange(bucket, empty, 1)
                if not set_contains(words, over, words[empty]):
                    return
                world.exchange(bucket, empty, 1)
    pytest.fail("every bucket is the right one")


def member_twice(world: Sound) -> None:
    words, over = world.words, world.table + OVER
    buckets = words[over + BUCKETS]
    row = words[buckets : buckets + words[over + CAPACITY]].tolist()
    member = next(filter(None, row))
    words[buckets + row.index(0)] = member
    words[over + LENGTH] += 1
    words[member] += 1


def length_of_set_wrong(world: Sound) -> None:
    world.words[world.table + OVER + LENGTH] += 1


def members_without_buckets(world: Sound) -> None:
    world.words[world.table + SWEEPING + LENGTH] = 1


def modules_out_of_order(world: Sound) -> None:
    modules = world.words[world.words[REGISTRY] + MODULES]
    world.exchange(modules, modules + MODULE_WORDS, MODULE_WORDS)


def modules_overlap(world: Sound) -> None:
    modules = world.words[world.words[REGISTRY] + MODULES]
    world.words[modules + MODULE_END] += 1


def module_without_code(world: Sound) -> None:
    modules = world.words[world.words[REGISTRY] + MODULES]
    world.words[modules + START] = world.words[modules + MODULE_END]


def entries_out_of_order(world: Sound) -> None:
    entries = world.words[world.words[world.words[REGISTRY] + MODULES] + ENTRIES]
    world.exchange(entries, entries + ENTRY_WORDS, 1)


def entry_out_of_range(world: Sound) -> None:
    entries = world.words[world.words[world.words[REGISTRY] + MODULES] + ENTRIES]
    world.words[entries] -= 0x800


def mask_larger_than_its_frame(world: Sound) -> None:
    entries = world.words[world.words[world.words[REGISTRY] + MODULES] + ENTRIES]
    world.words[entries + BITS] = 0x800


def more_modules_than_room(world: Sound) -> None:
    world.words[world.words[REGISTRY] + MODULES_COUNT] = 9


def free_word_written(world: Sound) -> None:
    world.words[world.words[FREE_LIST] + 2] = 0


def last_free_word_written(world: Sound) -> None:
    world.words[world.words[HEAP_END] - 1] ^= 1


def free_block_lost(world: Sound) -> None:
    world.words[FREE_LIST] = world.words[world.words[FREE_LIST] + 1]


def free_blocks_not_sorted(world: Sound) -> None:
    words = world.words
    first = words[FREE_LIST]
    second = words[first + 1]
    third = words[second + 1]
    words[FREE_LIST], words[second + 1], words[first + 1] = second, first, third


def block_leaked(world: Sound) -> None:
    alloc(world.mem, 5, 1)


def object_unknown_to_the_model(world: Sound) -> None:
    world.new(1)
    world.owners.popitem()


def object_freed_too_early(world: Sound) -> None:
    externref = world.new(1)
    world.rt.drop(externref)
    world.owners[externref] = 1


def value_pointer_wrong(world: Sound) -> None:
    world.words[world.outer + VALUE_PTR] -= 2


def vtable_wrong(world: Sound) -> None:
    world.words[world.outer + VTABLE] += 1


def vtable_of_another_layout(world: Sound) -> None:
    world.words[world.held + VTABLE] = world.words[world.outer + VTABLE]


def vtable_overwritten(world: Sound) -> None:
    world.words[world.words[VTABLES] + 2] = 2


def image_overwritten(world: Sound) -> None:
    world.words[world.words[world.words[CODE]] + 1] += 1


def table_larger_than_its_elements(world: Sound) -> None:
    world.words[world.instance + TABLE_SIZE] = 5


def table_larger_than_allowed(world: Sound) -> None:
    world.words[world.instance + TABLE_SIZE] = 6


def instance_says_more_globals(world: Sound) -> None:
    world.words[world.instance + GLOBALS_COUNT] = 2


def segment_half_dropped(world: Sound) -> None:
    world.words[world.instance + SEGMENT_LENGTH] = 1


def word_below_the_stack_pointer(world: Sound) -> None:
    world.words[stack_pointer(world.words) - 1] = world.x


def stack_begins_elsewhere(world: Sound) -> None:
    world.words[STACK_LOW] += 2


def frame_size_wrong(world: Sound) -> None:
    world.words[world.words[world.words[FRAME_POINTER]] + SIZE] += 1


def frame_of_no_kind(world: Sound) -> None:
    world.words[world.words[FRAME_POINTER] + KIND] = 9


def frame_links_to_itself(world: Sound) -> None:
    fp = world.words[FRAME_POINTER]
    world.words[fp + LINK] = fp


def frame_pointer_wild(world: Sound) -> None:
    world.words[FRAME_POINTER] = 1 << 40


def reserved_header_word(world: Sound) -> None:
    world.words[HEADER_WORDS - 1] = 1


def table_address_wild(world: Sound) -> None:
    world.words[TABLE] = 1 << 50


def collection_never_ends(world: Sound) -> None:
    world.words[world.table + COLLECTING] = 1


def canary_reset_too_early(world: Sound) -> None:
    world.words[world.table + STACK_CANARY] = 0


def canary_left_behind(world: Sound) -> None:
    canary = world.words[world.table + STACK_CANARY]
    world.rt.unwind()
    world.words[world.table + STACK_CANARY] = canary


def canary_of_a_younger_call(world: Sound) -> None:
    world.rt.call_import(PC)
    world.rt.call_wasm(0, PC)
    fp = world.words[world.words[FRAME_POINTER]]
    assert world.words[fp + KIND] == ENTRY
    world.words[world.table + STACK_CANARY] = fp - 1


def guard_of_a_younger_call(world: Sound) -> None:
    world.rt.call_import(PC)
    world.rt.call_wasm(0, PC)
    world.words[world.words[world.words[FRAME_POINTER]] + EXTRA] = 1


def nobody_resets_the_canary(world: Sound) -> None:
    world.words[world.words[world.words[FRAME_POINTER]] + EXTRA] = 0


def reference_left_in_flight(world: Sound) -> None:
    world.words[push_frame(world.mem, HOST, 0, 1, 0)] = world.x
    world.words[world.x] += 1


def destruction_never_ends(world: Sound) -> None:
    dead = world.new(1)
    world.words[dead] = 0
    del world.owners[dead]
    world.words[push_frame(world.mem, DROP, 0, 1, 0)] = dead


CORRUPTIONS: dict[int, list[Callable[[Sound], None]]] = {
    1: [
        count_one_more,
        count_one_less,
        global_overwritten_without_release,
        element_stored_without_count,
        segment_word_is_no_reference,
        segment_word_is_a_freed_object,
        chunk_entry_twice,
        field_lost,
        host_forgets,
    ],
    2: [count_zero_without_owner],
    3: [
        slot_beyond_finger,
        finger_one_back,
        finger_past_end,
        finger_before_start,
        end_moved,
        empty_slot_in_use,
    ],
    4: [roots_left_in_the_precise_set, roots_left_in_the_swept_set],
    5: [live_local_not_in_the_table],
    6: [member_in_the_wrong_bucket, member_twice, length_of_set_wrong, members_without_buckets],
    7: [
        modules_out_of_order,
        modules_overlap,
        module_without_code,
        entries_out_of_order,
        entry_out_of_range,
        mask_larger_than_its_frame,
        more_modules_than_room,
    ],
    8: [
        free_word_written,
        last_free_word_written,
        free_block_lost,
        free_blocks_not_sorted,
        block_leaked,
        object_unknown_to_the_model,
        object_freed_too_early,
        value_pointer_wrong,
        vtable_wrong,
        vtable_of_another_layout,
        vtable_overwritten,
        image_overwritten,
        table_larger_than_its_elements,
        table_larger_than_allowed,
        instance_says_more_globals,
        segment_half_dropped,
        word_below_the_stack_pointer,
        stack_begins_elsewhere,
        frame_size_wrong,
        frame_of_no_kind,
        frame_links_to_itself,
        frame_pointer_wild,
        reserved_header_word,
        table_address_wild,
    ],
    9: [
        collection_never_ends,
        canary_reset_too_early,
        canary_left_behind,
        canary_of_a_younger_call,
        guard_of_a_younger_call,
        nobody_resets_the_canary,
        reference_left_in_flight,
        destruction_never_ends,
    ],
}


@pytest.mark.parametrize(
    ("number", "corrupt"),
    [pytest.param(number, corrupt, id=corrupt.__name__) for number, row in CORRUPTIONS.items() for corrupt in row],
)
def test_a_corruption_is_reported_under_its_number(world: Sound, number: int, corrupt: Callable[[Sound], None]) -> None:
    live = world.live()
    corrupt(world)
    with pytest.raises(InvariantViolated) as caught:
        world.rt.check(world.owners, live, False)
    assert (caught.value.number, caught.value.text != "") == (number, True), str(caught.value)


def test_every_invariant_has_a_corruption() -> None:
    assert list(CORRUPTIONS) == list(range(1, 10))


@pytest.mark.parametrize("checked", [False, True])
def test_the_shadow_of_a_checked_memory_does_not_matter(checked: bool) -> None:
    world = Sound(configuration(), checked=checked)
    world.check()
    world.words[world.x] += 1
    with pytest.raises(InvariantViolated, match=r"\(1\) violated: object \d+ has count 3, expected 2: 0 held by the host, 1 in"):
        world.check()


def test_a_write_to_a_quarantined_block_is_reported() -> None:
    world = Sound(configuration(quarantine=2))
    world.words[world.words[QUARANTINE_ENTRIES] + 1] = 0
    with pytest.raises(InvariantViolated, match=r"\(8\) violated: free word \d+ holds 0x0"):
        world.check()


def test_large_states_are_counted_by_a_table() -> None:
    config = Config(chunk=4, heap_words=2000, instances=0, globals=0)
    world = World(config)
    refs = [world.new(0) for _ in range(40)]
    for ref in refs:
        world.rt.call_wasm(0, PC, [world.moved(world.rt.clone(ref))])
        world.owners[ref] += 1
        world.rt.return_to_host()
    assert len(world.owners) ** 2 > PAIRS_FEW
    world.check()
    world.words[refs[-1]] += 1
    with pytest.raises(InvariantViolated, match=r"\(1\)"):
        world.check()
