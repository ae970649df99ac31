"""Bulk operations move whole ranges, also onto themselves."""

import pytest

from model.answers import OUT_OF_BOUNDS
from model.limits import Limits
from model.storage import copy_cells
from tests.model.world import INSTANCE, World, world

FOUR = f"{INSTANCE}{INSTANCE}host_table_grow table=0 delta=1 value=null\nhost_table_grow table=0 delta=2 value=null\n"


def filled() -> World:
    """A table of four elements that hold the values 0 to 3, and one of one element."""
    made = world(FOUR, table=4)
    for name in range(4):
        made.play(f"new layout=0\nhost_table_set table=0 element={name} value={name}")
    return made


def elements(made: World, table: int = 0) -> list[int]:
    limits: Limits = made.limits
    first = limits.shape.elements + table * limits.table
    return made.state[first : first + made.state[limits.shape.table_sizes + table]]


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("source", range(4))
def test_a_copy_within_a_table_reads_before_it_writes(start: int, source: int) -> None:
    for count in range(4 - max(start, source) + 1):
        made = filled()
        expected = [0, 1, 2, 3]
        expected[start : start + count] = expected[source : source + count]
        made.begin(f"host_table_copy to=0 from=0 start={start} source={source} count={count}")
        assert elements(made) == expected


def test_a_copy_between_tables_takes_the_range_that_it_names() -> None:
    made = filled()
    assert made.do("host_table_copy to=1 from=0 start=0 source=2 count=1") == 0
    assert (elements(made), elements(made, 1)) == ([0, 1, 2, 3], [2])


def test_a_copy_past_an_end_changes_nothing() -> None:
    made = filled()
    assert made.do("host_table_copy to=0 from=1 start=0 source=0 count=2") == OUT_OF_BOUNDS
    assert copy_cells(made.state, made.limits, (0, 0, 0, 4, 0, 1), made.limits.shape.elements, 4) == OUT_OF_BOUNDS
    assert elements(made) == [0, 1, 2, 3]
