"""A memo hides nothing: whatever is corrupted after a sound check, in any part, is reported as it is by a check without memos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impl import memo
from impl.activations_table import CHUNK, OVER
from impl.arena import restore, snapshot
from impl.errors import InvariantViolated
from impl.externref import VALUE_PTR, VTABLE
from impl.hash_set import BUCKETS
from impl.header import CODE, FRAME_POINTER, FREE_LIST, HEADER_WORDS, HEAP_END, INSTANCES, QUARANTINE_ENTRIES, REGISTRY, VTABLES
from impl.instance import CELLS, TABLE_ELEMENTS
from impl.invariants import check
from impl.memo import MEMOS_MAX, Part, memo_for
from impl.stack import stack_pointer
from impl.stack_maps import ENTRIES, MODULES
from tests.impl.worlds import Sound, World, configuration


@pytest.fixture(params=[0, 2], ids=["", "quarantine"])
def world(request: pytest.FixtureRequest) -> Sound:
    sound = Sound(configuration(quarantine=request.param))
    sound.check()
    return sound


def verdict(world: World, live: Sequence[int] | None = None) -> str:
    """Check, and say what was found; empty if nothing was. A corrupted stack cannot be asked what is `live`."""
    try:
        world.rt.check(world.owners, world.live() if live is None else live, nested=False)
    except InvariantViolated as violation:
        return str(violation)
    return ""


def fresh_verdict(world: World, live: Sequence[int]) -> str:
    """Check a memory that no memo knows."""
    memo_for(world.words, world.rt.config).forget()
    return verdict(world, live)


def addresses(world: Sound) -> Iterator[tuple[str, int]]:
    """Name a word of every part."""
    words, table = world.words, world.table
    registry = words[REGISTRY]
    modules = words[registry + MODULES]
    yield "heap's end", HEAP_END
    yield "frame pointer", FRAME_POINTER
    yield "an address in the header", INSTANCES
    yield "reserved word of the header", HEADER_WORDS - 1
    yield "unused stack", HEADER_WORDS
    yield "below the stack pointer", stack_pointer(words) - 1
    yield "frame", words[FRAME_POINTER]
    yield "free list", FREE_LIST
    yield "free block", words[FREE_LIST]
    yield "poison", words[FREE_LIST] + 2
    yield "last word", words[HEAP_END] - 1
    yield "finger", table
    yield "chunk", words[table + CHUNK]
    yield "set", table + OVER
    yield "bucket", words[table + OVER + BUCKETS]
    yield "vtable", words[VTABLES]
    yield "image", words[words[CODE]]
    yield "registry", registry + 1
    yield "module", modules
    yield "entry", words[modules + ENTRIES] + 2
    yield "instances", words[INSTANCES]
    yield "instance", world.instance
    yield "cell", world.instance + CELLS
    yield "element", words[world.instance + TABLE_ELEMENTS]
    yield "count", world.held
    yield "footer", world.held + VALUE_PTR
    yield "vtable of an object", world.held + VTABLE
    yield "field", words[world.outer + VALUE_PTR]
    if world.rt.config.quarantine:
        yield "quarantine entry", QUARANTINE_ENTRIES
        yield "quarantined word", words[QUARANTINE_ENTRIES]


@pytest.mark.parametrize("other", [0, 1, 7, 1 << 33], ids=hex)
def test_a_word_of_any_part_is_noticed_after_a_sound_check(world: Sound, other: int) -> None:
    """The same objects, live locals and context before and after: nothing but one word differs."""
    unnoticed = []
    live = world.live()
    for name, address in addresses(world):
        word = world.words[address]
        world.words[address] = word ^ other if other != 7 else word + 2
        found = verdict(world, live)
        expected = fresh_verdict(world, live)
        if found != expected or (other > 7 and not found):
            unnoticed.append((name, found, expected))
        world.words[address] = word
        assert verdict(world) == ""
    assert unnoticed == []


@given(st.data())
def test_any_corruption_is_reported_as_without_a_memo(data: st.DataObject) -> None:
    """Several words, one after another, with and without a sound check in between; then everything is put back."""
    world = Sound(configuration(quarantine=data.draw(st.sampled_from([0, 2]))))
    sound = snapshot(world.mem)
    live = world.live()
    world.check()
    for _ in range(data.draw(st.integers(1, 6))):
        address = data.draw(st.integers(1, len(world.words) - 1))
        other = data.draw(st.sampled_from([0, 1, 7, world.x, world.held, world.table, 1 << 40]) | st.sampled_from(world.words.tolist()))
        world.words[address] = other
        found = verdict(world, live)
        assert found == fresh_verdict(world, live)
        if found and data.draw(st.booleans()):
            restore(world.mem, sound)
            world.check()
    restore(world.mem, sound)
    world.check()


def test_what_the_host_holds_is_noticed_in_an_unchanged_memory(world: Sound) -> None:
    world.owners[world.held] += 1
    assert verdict(world).startswith("invariant (1)")
    world.owners[world.held] -= 1
    assert verdict(world) == ""
    lost = world.owners.pop(world.held)
    assert verdict(world).startswith("invariant (")
    world.owners[world.held] = lost
    world.owners[world.words[FREE_LIST]] = 0
    assert verdict(world).startswith("invariant (8)")


def test_a_live_local_is_noticed_in_an_unchanged_memory(world: Sound) -> None:
    world.rt.check(world.owners, world.live(), nested=False)
    with pytest.raises(InvariantViolated, match=r"\(5\)"):
        world.rt.check(world.owners, [*world.live(), world.held], nested=False)


def test_exchanged_parts_are_noticed(world: Sound) -> None:
    """Two objects that look the same change places with their counts: each word was somewhere in the sound memory."""
    words = world.words
    words[world.x], words[world.held] = words[world.x] + 1, words[world.held] - 1
    assert verdict(world).startswith("invariant (1)")


def test_a_violation_leaves_nothing_believed(world: Sound) -> None:
    world.words[world.held] += 1
    first = verdict(world)
    known = memo_for(world.words, world.rt.config)
    assert (first != "", verdict(world) == first) == (True, True)
    assert [part.starts for part in known.parts] == [Part().starts] * len(known.parts)


def test_memories_of_one_configuration_do_not_know_each_other() -> None:
    config = configuration()
    one, two = Sound(config), Sound(config, checked=True)
    for _ in range(2):
        one.check()
        two.check()
        one.words[one.held] += 1
        assert verdict(two) == ""
        assert verdict(one).startswith("invariant (1)")
        one.words[one.held] -= 1


def test_one_memory_may_be_judged_by_two_configurations() -> None:
    world = Sound(configuration())
    for _ in range(2):
        world.check()
        with pytest.raises(InvariantViolated):
            check(world.mem, configuration(chunk=3), world.owners, world.live(), nested=False)


def test_the_memos_are_bounded() -> None:
    for _ in range(MEMOS_MAX + 3):
        Sound(configuration()).check()
    assert len(memo._memos) == MEMOS_MAX
