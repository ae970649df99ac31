"""Every bound has its range, every scope is within it, and the parts of the flat state do not overlap."""

from dataclasses import fields

import pytest

from model.limits import BOOK_WORDS, BOUNDS, CONTEXT_WORDS, HEADER, SCOPES, Limits, with_numbers
from model.ops import ALL_KINDS, Kind


def test_each_numeric_field_has_its_range() -> None:
    assert [item.name for item in fields(Limits) if item.name not in BOUNDS] == ["scope", "kinds"]
    assert list(Limits().numbers()) == list(BOUNDS)


@pytest.mark.parametrize("name", BOUNDS)
def test_values_outside_the_range_are_refused_by_name(name: str) -> None:
    low, high = BOUNDS[name]
    for value in (low, high):
        assert with_numbers(Limits(), {name: value}).numbers()[name] == value
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match=rf"^{name}={value} is not between {low} and {high}$"):
            with_numbers(Limits(), {name: value})


def test_what_is_no_bound_is_refused() -> None:
    for name in ("speed", "scope", "kinds"):
        with pytest.raises(ValueError, match=rf"^'{name}' is no bound"):
            with_numbers(Limits(), {name: 1})


def test_the_scopes_are_those_of_the_design() -> None:
    assert list(SCOPES) == ["counting", "calls", "storage", "reentrancy", "registry", "faults", "everything"]
    assert {name: limits.scope for name, limits in SCOPES.items()} == {name: name for name in SCOPES}
    assert SCOPES["everything"].kinds == ALL_KINDS


def test_each_kind_is_in_a_small_scope_too() -> None:
    """What only `everything` reaches is reached seldom."""
    small = frozenset[Kind]().union(*(limits.kinds for name, limits in SCOPES.items() if name != "everything"))
    assert ALL_KINDS - small == set()


@pytest.mark.parametrize("limits", [*SCOPES.values(), Limits(slots=1, table=0, segment=0, fields=0, globals=0, destructors=0)], ids=str)
def test_the_parts_of_the_state_lie_side_by_side(limits: Limits) -> None:
    shape = limits.shape
    depth = limits.contexts + limits.destructors
    parts = [
        (HEADER, shape.roots),
        (shape.roots + limits.objects, shape.fields),
        (shape.fields + limits.objects * limits.fields, shape.globals),
        (shape.globals + limits.instances * limits.globals, shape.elements),
        (shape.elements + limits.instances * limits.table, shape.segments),
        (shape.segments + limits.instances * limits.segment, shape.slots),
        (shape.slots + depth * limits.slots, shape.slots_end),
        (shape.slots_end, shape.table_sizes),
        (shape.table_sizes + limits.instances, shape.segment_lengths),
        (shape.segment_lengths + limits.instances, shape.modules),
        (shape.modules + limits.instances, shape.contexts),
        (shape.contexts + depth * CONTEXT_WORDS, shape.books),
        (shape.books + (limits.destructors + 2) * BOOK_WORDS, shape.size),
    ]
    assert [start for _, start in parts] == [end for end, _ in parts]
    assert shape.names == 2**limits.objects - 1
