"""The registry agrees with a linear scan over everything that was registered, for arbitrary sets of ranges."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from impl.arena import HEADER_WORDS, CheckedMemory, alloc, dealloc, initialise, raw_memory, snapshot
from impl.errors import RegistrationRefused
from impl.stack_maps import (
    BITS,
    END,
    ENTRIES,
    ENTRY_COUNT,
    ENTRY_WORDS,
    FIRST_CAPACITY,
    MAPPED_WORDS,
    MAPPED_WORDS_MAX,
    MODULE_WORDS,
    MODULES,
    MODULES_CAPACITY,
    MODULES_COUNT,
    PC,
    REGISTRY_WORDS,
    START,
    StackMap,
    StackMapInformation,
    StackMapRegistry,
    image_row,
    image_words,
    lookup_stack_map,
    register_stack_maps,
    registry_init,
    share_a_pc,
    write_image,
)

Info = tuple[int, int, int]
Function = tuple[int, int, tuple[Info, ...]]
Map = tuple[int, int]

ONE: Map = (2, 0b10)
TWO: Map = (3, 0b110)
NOTHING: Map = (2, 0)
PCS = 72


def function(start: int, end: int, *infos: tuple[int, Map]) -> Function:
    """Describe a function with its safepoints."""
    return start, end, tuple((offset, *the_map) for offset, the_map in infos)


class Subject:
    """A registry in a checked memory."""

    def __init__(self) -> None:
        words = HEADER_WORDS + 16 + 2048
        self.mem = CheckedMemory(raw_memory(words))
        initialise(self.mem, 16, words, 0)
        self.registry = alloc(self.mem, REGISTRY_WORDS, 1)
        registry_init(self.mem, self.registry)

    def register(self, *functions: Function) -> bool:
        """Register a module; say whether it was accepted. Fails if a refusal changed anything."""
        image = write_image(self.mem, functions)
        before = snapshot(self.mem)
        try:
            register_stack_maps(self.mem, self.registry, image)
        except RegistrationRefused:
            assert snapshot(self.mem) == before
            return False
        finally:
            dealloc(self.mem, image, image_words(functions), 1)
        return True

    def lookup(self, pc: int) -> Map | None:
        """Return the map at a pc."""
        entry = lookup_stack_map(self.mem, self.registry, pc)
        return (self.mem[entry + MAPPED_WORDS], self.mem[entry + BITS]) if entry else None

    def contents(self) -> list[tuple[int, int, list[tuple[int, int, int]]]]:
        """Return range and entries of each module, in the order of the registry."""
        mem = self.mem
        found = []
        for index in range(mem[self.registry + MODULES_COUNT]):
            module = mem[self.registry + MODULES] + index * MODULE_WORDS
            entries = [mem[module + ENTRIES] + entry * ENTRY_WORDS for entry in range(mem[module + ENTRY_COUNT])]
            rows = [(mem[entry + PC], mem[entry + MAPPED_WORDS], mem[entry + BITS]) for entry in entries]
            found.append((mem[module + START], mem[module + END], rows))
        return found


@dataclass
class LinearScan:
    """The oracle: sets of pcs, and no order anywhere."""

    modules: list[tuple[int, int, dict[int, Map]]] = field(default_factory=list)

    def register(self, *functions: Function) -> bool:
        """Register a module by brute force; say whether it may be accepted."""
        if not any(infos for _, _, infos in functions):
            return True
        pcs: list[int] = []
        maps: dict[int, Map] = {}
        for start, end, infos in functions:
            if end < start:
                return False
            pcs += range(start, end)
            for offset, mapped_words, bits in infos:
                if offset not in range(end - start):
                    return False
                if maps.setdefault(start + offset, (mapped_words, bits)) != (mapped_words, bits):
                    return False
        if len(set(pcs)) != len(pcs):
            return False
        low = min(start for start, _, _ in functions)
        high = max(end for _, end, _ in functions)
        for other_low, other_high, other_maps in self.modules:
            if (low, high) == (other_low, other_high):
                return maps == other_maps
            if set(range(low, high)) & set(range(other_low, other_high)):
                return False
        self.modules.append((low, high, maps))
        return True

    def lookup(self, pc: int) -> Map | None:
        """Return the map at a pc."""
        return next((maps[pc] for _, _, maps in self.modules if pc in maps), None)

    def contents(self) -> list[tuple[int, int, list[tuple[int, int, int]]]]:
        """Return what a sorted registry holds."""
        modules = sorted(self.modules, key=lambda module: module[0])
        return [(low, high, sorted((pc, *row) for pc, row in maps.items())) for low, high, maps in modules]


MAPS = st.sampled_from([ONE, TWO, NOTHING])


@st.composite
def functions_anywhere(draw: st.DrawFn) -> Function:
    """Draw a function that may be empty, backwards, or have safepoints past its end, but rarely."""
    start = draw(st.integers(0, 60))
    length = draw(st.integers(0, 10) | st.just(4))
    end = max(0, start - 1) if draw(st.integers(0, 30)) == 0 else start + length
    offsets = draw(st.lists(st.integers(0, max(0, length - 1)), max_size=4))
    if draw(st.integers(0, 20)) == 0:
        offsets.append(length)
    return function(start, end, *((offset, draw(MAPS)) for offset in offsets))


@st.composite
def functions_in_slots(draw: st.DrawFn) -> list[Function]:
    """Draw functions that share no pc, touching or apart, in any order; a safepoint may come twice with one map."""
    slots = draw(st.lists(st.integers(0, 11), unique=True, min_size=1, max_size=3))
    found = []
    for slot in slots:
        start = slot * 6
        end = start + draw(st.integers(1, 6))
        the_map = draw(MAPS)
        offsets = draw(st.lists(st.integers(0, end - start - 1), max_size=4))
        found.append(function(start, end, *((offset, the_map) for offset in offsets)))
    return found


MODULES_OF_CODE = st.lists(st.lists(functions_anywhere(), max_size=3) | functions_in_slots(), max_size=8)


@given(MODULES_OF_CODE)
def test_registry_agrees_with_a_linear_scan(modules: list[list[Function]]) -> None:
    """Same acceptances, same maps at all pcs, and sorted, after every registration."""
    subject, oracle = Subject(), LinearScan()
    for module in modules:
        accepted = oracle.register(*module)
        event(f"accepted: {accepted}")
        assert subject.register(*module) == accepted
        assert subject.contents() == oracle.contents()
        assert [subject.lookup(pc) for pc in range(PCS)] == [oracle.lookup(pc) for pc in range(PCS)]


@given(MODULES_OF_CODE)
def test_a_module_may_be_described_backwards(modules: list[list[Function]]) -> None:
    """Functions and safepoints in the opposite order register as the very same module, or are refused as well."""
    subject = Subject()
    for module in modules:
        backwards = [(start, end, infos[::-1]) for start, end, infos in module[::-1]]
        accepted = subject.register(*module)
        words = snapshot(subject.mem)
        assert subject.register(*backwards) == accepted
        assert snapshot(subject.mem) == words


@given(st.lists(st.integers(0, 12), min_size=4, max_size=4))
def test_ranges_share_a_pc_exactly_when_some_pc_is_in_both(ends: list[int]) -> None:
    """The test for overlap is the intersection of two sets of pcs."""
    start, end, other_start, other_end = ends
    expected = bool(set(range(start, end)) & set(range(other_start, other_end)))
    assert bool(share_a_pc(start, end, other_start, other_end)) == expected


def test_only_the_exact_pc_has_the_map() -> None:
    """Neither the pcs between two safepoints nor the ends of functions find a neighbour's map."""
    subject = Subject()
    assert subject.register(function(10, 20, (2, ONE), (9, TWO)), function(20, 30, (0, NOTHING)))
    assert [pc for pc in range(PCS) if subject.lookup(pc)] == [12, 19, 20]
    assert [subject.lookup(pc) for pc in (12, 19, 20)] == [ONE, TWO, NOTHING]


def test_a_safepoint_without_live_references_does_not_borrow_the_previous_map() -> None:
    """Three safepoints of which the middle one has no map (CVE-2021-39218)."""
    subject = Subject()
    assert subject.register(function(1000, 2000, (0x10, ONE), (0x30, TWO)))
    assert subject.lookup(1000 + 0x20) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param((0x1500, 0x1800), (0x1000, 0x2000), id="the old one inside the new one"),
        pytest.param((0x1000, 0x2000), (0x1500, 0x1800), id="the new one inside the old one"),
        pytest.param((0x1000, 0x2000), (0x1800, 0x2800), id="the new one's start inside"),
        pytest.param((0x1000, 0x2000), (0x0800, 0x1800), id="the new one's end inside"),
        pytest.param((0x1000, 0x2000), (0x1000, 0x1800), id="same start"),
        pytest.param((0x1000, 0x2000), (0x1800, 0x2000), id="same end"),
        pytest.param((0x1000, 0x2000), (0x1FFF, 0x2800), id="one pc in common"),
    ],
)
def test_overlaps_are_refused_whole(first: tuple[int, int], second: tuple[int, int]) -> None:
    """The second module is refused and the first one's maps are still found."""
    subject = Subject()
    assert subject.register(function(*first, (0, ONE)))
    assert not subject.register(function(*second, (1, TWO)))
    assert subject.contents() == [(*first, [(first[0], *ONE)])]


def test_touching_ranges_are_accepted_on_both_sides() -> None:
    """A pc at the common end belongs to the module that starts there."""
    subject = Subject()
    assert subject.register(function(2000, 3000, (0, ONE), (999, ONE)))
    assert subject.register(function(3000, 4000, (0, TWO)))
    assert subject.register(function(1000, 2000, (999, TWO)))
    assert [subject.lookup(pc) for pc in (1999, 2000, 2999, 3000, 4000)] == [TWO, ONE, ONE, TWO, None]


def test_functions_interleaved_with_those_of_another_module_are_refused() -> None:
    """A module's range covers the gaps between its functions."""
    subject = Subject()
    assert subject.register(function(10, 20, (0, ONE)), function(30, 40, (0, ONE)))
    assert not subject.register(function(20, 30, (0, ONE)))


def test_an_empty_function_hides_no_safepoint() -> None:
    """A function without code before one with a safepoint at its first pc leaves that one's map alone."""
    subject = Subject()
    assert subject.register(function(10, 10), function(10, 20, (0, ONE)))
    assert subject.lookup(10) == ONE


def test_the_same_module_again_changes_nothing_and_other_maps_are_refused() -> None:
    """Registering twice is idempotent; one range with two opinions is an error."""
    subject = Subject()
    module = function(10, 20, (1, ONE), (3, TWO))
    assert subject.register(module)
    words = snapshot(subject.mem)
    assert subject.register(module)
    assert snapshot(subject.mem) == words
    assert not subject.register(function(10, 20, (1, ONE)))
    assert not subject.register(function(10, 20, (1, ONE), (4, TWO)))
    assert not subject.register(function(10, 20, (1, ONE), (3, NOTHING)))


@pytest.mark.parametrize("ends", [(10, 30), (5, 20)])
def test_the_same_maps_in_a_range_that_only_begins_or_ends_alike_are_refused(ends: tuple[int, int]) -> None:
    """It is another module, and overlaps."""
    subject = Subject()
    assert subject.register(function(10, 20, (1, ONE)))
    start, end = ends
    assert not subject.register(function(start, end, (11 - start, ONE)))
    assert subject.contents() == [(10, 20, [(11, *ONE)])]


def test_the_same_maps_at_other_pcs_are_other_maps() -> None:
    subject = Subject()
    assert subject.register(function(10, 20, (1, ONE), (3, ONE)))
    assert not subject.register(function(10, 20, (1, ONE), (4, ONE)))
    assert not subject.register(function(10, 20, (0, ONE), (3, ONE)))


@pytest.mark.parametrize("other", [(2, 0b01), (3, 0b10)])
def test_the_same_module_with_a_map_that_differs_in_one_word_is_refused(other: Map) -> None:
    subject = Subject()
    assert subject.register(function(10, 20, (3, ONE)))
    assert not subject.register(function(10, 20, (3, other)))


@pytest.mark.parametrize("other", [(2, 0b01), (3, 0b10)])
def test_one_pc_with_two_maps_is_refused_whichever_word_they_differ_in(other: Map) -> None:
    subject = Subject()
    assert not subject.register(function(10, 20, (3, ONE), (3, other)))
    assert subject.register(function(10, 20, (3, ONE), (3, ONE)))


def test_a_function_that_ends_before_it_starts_is_refused_even_without_safepoints() -> None:
    subject = Subject()
    assert not subject.register(function(10, 20, (1, ONE)), function(30, 29))
    assert subject.register(function(10, 20, (1, ONE)), function(30, 30))


def test_a_module_without_safepoints_registers_nothing() -> None:
    """It is accepted wherever it lies, since it can answer no lookup."""
    subject = Subject()
    assert subject.register(function(10, 20, (0, ONE)))
    assert subject.register(function(15, 30))
    assert subject.register()
    assert subject.contents() == [(10, 20, [(10, *ONE)])]


def test_many_modules_in_any_order_end_sorted() -> None:
    """The array of modules grows as often as it must, and keeps its order."""
    subject = Subject()
    starts = [index * 7 % 40 * 10 for index in range(40)]
    for start in starts:
        assert subject.register(function(start, start + 10, (start // 10 % 10, ONE)))
    assert [start for start, _, _ in subject.contents()] == sorted(starts)
    assert all(subject.lookup(start + start // 10 % 10) == ONE for start in starts)


def test_pcs_of_a_real_machine_are_compared_unsigned_and_do_not_overflow() -> None:
    """Ranges at the top of a 63-bit address space work like any other."""
    top = 2**63 - 1
    subject = Subject()
    assert subject.register(function(top - 10, top, (9, ONE)))
    assert not subject.register(function(top - 20, top - 9, (0, ONE)))
    assert (subject.lookup(top - 1), subject.lookup(top), subject.lookup(0)) == (ONE, None, None)


@pytest.mark.parametrize("info", [(0, 64, 0), (0, 2, 4), (0, 2, -1), (0, -1, 0)])
def test_a_mask_that_is_no_mask_of_its_words_is_not_written(info: Info) -> None:
    """An image cannot claim bits outside the words that it maps."""
    with pytest.raises(ValueError, match=r"mask|covers"):
        write_image(Subject().mem, [(0, 10, (info,))])


def test_handles_speak_the_types_of_the_specification() -> None:
    """A map made of booleans comes back from the registry; the image is not left in the memory."""
    registry = StackMapRegistry.create()
    live = StackMap.from_slice([False, True, False])
    assert [live.get_bit(index) for index in range(live.mapped_words)] == [False, True, False]
    registry.register_stack_maps([(range(100, 200), [StackMapInformation(5, live)]), (range(200, 300), [])])
    before = snapshot(registry.memory)
    with pytest.raises(RegistrationRefused):
        registry.register_stack_maps([(range(250, 350), [StackMapInformation(5, live)])])
    assert snapshot(registry.memory) == before
    assert (registry.lookup_stack_map(105), registry.lookup_stack_map(205)) == (live, None)
    with pytest.raises(IndexError):
        live.get_bit(3)
    assert StackMap.from_slice([True] * 63) == StackMap(63, (1 << 63) - 1)
    with pytest.raises(ValueError, match="63"):
        StackMap.from_slice([True] * 64)


@pytest.mark.parametrize("mapped_words", [0, 1, MAPPED_WORDS_MAX])
def test_a_map_covers_any_number_of_words_up_to_its_bound(mapped_words: int) -> None:
    bits = (1 << mapped_words) - 1
    assert image_row([(8, 16, ((0, mapped_words, bits),))]) == [1, 8, 16, 1, 0, mapped_words, bits]


@pytest.mark.parametrize("mapped_words", [-1, MAPPED_WORDS_MAX + 1])
def test_a_map_covers_no_more_and_no_less(mapped_words: int) -> None:
    with pytest.raises(ValueError, match=f"a stack map covers 0 to 63 words, not {mapped_words}"):
        image_row([(8, 16, ((0, mapped_words, 0),))])


def test_the_room_for_modules_doubles() -> None:
    """What is more than doubled is wasted, what is less is copied too often."""
    subject = Subject()
    capacities = []
    for start in range(0, 90, 10):
        assert subject.register(function(start, start + 10, (0, ONE)))
        capacities.append(subject.mem[subject.registry + MODULES_CAPACITY])
    assert capacities == [FIRST_CAPACITY] * FIRST_CAPACITY + [2 * FIRST_CAPACITY] * FIRST_CAPACITY + [4 * FIRST_CAPACITY]


def test_a_handle_frees_an_image_with_the_layout_that_it_has() -> None:
    """The checked memory refuses another one."""
    subject = Subject()
    registry = StackMapRegistry(subject.mem, subject.registry)
    registry.register_stack_maps([(range(100, 200), [StackMapInformation(5, StackMap(*ONE))])])
    assert registry.lookup_stack_map(105) == StackMap(*ONE)
    assert subject.contents() == [(100, 200, [(105, *ONE)])]
