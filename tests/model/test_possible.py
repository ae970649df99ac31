"""What is listed is what could be drawn: the same operations, in the same order, each once."""

import pytest

from fuzz.choosers import Odometer, Seeded
from fuzz.driver import Driver
from model.choose import Exhausted, choose_op, impossible
from model.limits import SCOPES, Limits
from model.ops import Row
from model.possible import possible_rows
from model.state import State

DRAWS_MAX = 4000
"""Some states of the widest scopes have a hundred thousand operations."""


def drawn(state: State, limits: Limits) -> list[Row]:
    """Every row that an odometer draws, each at its first place; empty if there are too many."""
    odometer = Odometer()
    rows: dict[Row, None] = {}
    for _ in range(DRAWS_MAX):
        try:
            rows[choose_op(state, limits, odometer)] = None
        except Exhausted:
            break
        if not odometer.advance():
            return list(rows)
    return []


@pytest.mark.parametrize("scope", SCOPES)
def test_an_odometer_draws_what_is_listed(scope: str) -> None:
    limits = SCOPES[scope]
    driver = Driver(limits)
    compared: set[int] = set()

    def compare(_row: Row, _result: int) -> None:
        if len(driver.rows) % 5 == 0 and len(compared) < 8:
            state = list(driver.state)
            wanted = drawn(state, limits)
            if wanted:
                assert possible_rows(driver.state, limits) == wanted
                assert [row for row in wanted if impossible(state, limits, row) is not None] == []
                compared.add(len(wanted))
            assert driver.state == state

    for seed in range(6):
        driver.reset()
        driver.on_step = compare
        driver.run(Seeded(seed), 60)
    assert len(compared) > 2
