"""The simulated code has each safepoint where it says, and the linear scan decides each case of registration."""

import pytest

from model.code import BASE, CODE_MODULES, STRIDE, entry_pc, images, module_images, safepoint_pc
from model.limits import Limits
from model.registry import ACCEPTED, OPEN, REFUSED, accepted, accepts, find, hull, interesting_pcs, relations, safepoints

IMAGES = module_images(2, 2, 16)


@pytest.mark.parametrize("slots", [1, 2, 3, 6])
def test_each_live_set_has_its_safepoint_and_the_empty_one_has_no_map(slots: int) -> None:
    module = module_images(slots, 2, 2)[1]
    found = safepoints(module) or {}
    assert len(found) == 2 * (2**slots - 1)
    for function in range(2):
        start, end, _ = module[function]
        assert entry_pc(slots, 2, 1, function) == start
        for live in range(2**slots):
            pc = safepoint_pc(slots, 2, 1, function, live)
            assert start < pc < end - STRIDE
            # Word 0 of a frame is a scalar, so slot 0 is bit 1.
            assert found.get(pc) == ((slots + 1, live << 1) if live else None)


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_safepoint_without_a_map_lies_behind_one_with_a_map(slots: int) -> None:
    """Otherwise a lookup of the nearest earlier map would do no harm."""
    module = module_images(slots, 1, 2)[0]
    empty = safepoint_pc(slots, 1, 0, 0, 0)
    earlier = {pc: entry for pc, entry in (safepoints(module) or {}).items() if pc < empty}
    assert earlier[max(earlier)] == (slots + 1, (2**slots - 1) << 1)


def test_the_two_modules_that_can_be_instantiated_touch() -> None:
    assert hull(IMAGES[0])[0] == BASE
    assert hull(IMAGES[0])[1] == hull(IMAGES[1])[0]


def test_there_are_as_many_modules_as_the_limits_say_and_at_least_two() -> None:
    assert [len(images(Limits(modules=count))) for count in (1, 2, 3, 16)] == [CODE_MODULES, 2, 3, 16]


def test_modules_that_contradict_themselves_have_no_safepoints() -> None:
    assert [number for number, module in enumerate(IMAGES) if safepoints(module) is None] == [10, 11, 12]
    assert [number for number, module in enumerate(IMAGES) if safepoints(module) == {}] == [13]


@pytest.mark.parametrize(
    ("registered", "module", "accepted"),
    [
        ([], 0, True),
        ([0], 1, True),
        ([1], 0, True),
        ([0], 0, True),
        ([0], 2, False),
        ([2], 0, False),
        ([0], 3, False),
        ([3], 0, False),
        ([0], 4, True),
        ([], 5, True),
        ([6], 7, False),
        ([7], 6, False),
        ([], 8, True),
        ([], 9, True),
        ([], 10, False),
        ([], 11, False),
        ([], 12, False),
        ([0, 5, 13], 13, True),
        ([6], 14, True),
        ([14], 6, True),
        ([7], 14, False),
        ([5], 15, False),
        ([15], 5, False),
        ([0, 1], 1, True),
        ([0, 1], 3, False),
    ],
)
def test_a_module_is_accepted_or_refused_beside_others(registered: list[int], module: int, accepted: bool) -> None:
    assert accepts([IMAGES[number] for number in registered], IMAGES[module]) is accepted


@pytest.mark.parametrize("modules", [1, 2, 16])
def test_registration_by_number_decides_as_the_linear_scan_does(modules: int) -> None:
    """Beside everything that can be registered, in whatever order it was: the table of pairs loses nothing."""
    limits = Limits(modules=modules, slots=2)
    shapes = images(limits)
    frontier, known = {0}, {0}
    while frontier:
        found = set()
        for registered in frontier:
            olds = [shape for number, shape in enumerate(shapes) if registered >> number & 1]
            decided = {number for number in range(len(shapes)) if accepted(limits, registered, number)}
            assert decided == {number for number, shape in enumerate(shapes) if accepts(olds, shape)}
            found |= {registered | 1 << number for number in decided}
        frontier = found - known
        known |= found
    assert len(known) > modules


def test_pairs_of_modules_are_open_unless_one_decides_about_the_other() -> None:
    one, same, other, unmapped = (
        ((0x10, 0x20, ((0, 1, 1),)),),
        ((0x10, 0x20, ((0, 1, 1), (0, 1, 1))),),
        ((0x10, 0x20, ((1, 1, 1),)),),
        ((0x10, 0x20, ()),),
    )
    assert relations((one, same, other, unmapped)) == (
        *(ACCEPTED, ACCEPTED, REFUSED, OPEN),
        *(ACCEPTED, ACCEPTED, REFUSED, OPEN),
        *(REFUSED, REFUSED, ACCEPTED, OPEN),
        *(OPEN, OPEN, OPEN, ACCEPTED),
    )


def test_a_module_without_maps_stands_in_nobodys_way() -> None:
    assert accepts([((0x10, 0x20, ()),)], ((0x10, 0x20, ((0, 1, 1),)),))


def test_a_map_is_found_at_its_pc_and_nowhere_else() -> None:
    module = ((0x10, 0x20, ((4, 2, 2), (0, 2, 1))), (0x20, 0x20, ()), (0x20, 0x30, ((0, 2, 3),)))
    assert {pc: find([module], pc) for pc in range(0x0E, 0x32) if find([module], pc)} == {0x10: (2, 1), 0x14: (2, 2), 0x20: (2, 3)}


def test_interesting_pcs_are_boundaries_safepoints_and_their_neighbours() -> None:
    assert interesting_pcs(((1, 8, ((4, 1, 1),)),)) == [1, 2, 4, 5, 6, 7, 8, 9]
