"""The compiled identity of a joint state is word for word the one of the search that Python does."""

from __future__ import annotations

from array import array
from itertools import pairwise, permutations

import pytest

from fuzz import states
from fuzz.check_scopes import CHECK_SCOPES
from fuzz.choosers import Seeded
from fuzz.compiled.canonical import canonical_scratch_words, describe, described_words, next_permutation
from fuzz.compiled.machine import Machine
from fuzz.compiled.world import STATE_AT
from fuzz.driver import Driver
from fuzz.explore import Bounds, Explorer
from fuzz.states import JointStates
from model.limits import NESTED, SCOPES, Limits
from model.ops import Row
from tests.native import row_of


class Describers:
    """Both readings of the description, for states under some limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.machine = Machine(limits, symmetry=True)
        words = len(Driver(limits).runtime.memory)
        self.out = [0] * described_words(limits, words)
        self.scratch = [0] * canonical_scratch_words(limits, words)
        self.out_row, self.scratch_row = row_of(self.out), row_of(self.scratch)

    def describe(self, driver: Driver) -> bytes:
        """Describe a driver's state, in both readings."""
        memory = driver.runtime.memory
        assert isinstance(memory, memoryview)
        length = describe(memory, driver.state, driver.addresses, driver.forgotten, self.limits, self.out, self.scratch)
        found = array("q", self.out[:length]).tobytes()
        mem, world = self.machine.mem, self.machine.w
        mem[:] = array("q", bytes(memory))
        world[STATE_AT : STATE_AT + len(driver.state)] = array("q", driver.state)
        rows = (row_of(driver.addresses), row_of(driver.forgotten), self.out_row, self.scratch_row)
        assert self.machine.call(describe, *rows) == length
        assert self.out_row.words[:length].tobytes() == found
        return found


@pytest.mark.parametrize("scope", ["counting", "nesting", "rescue", "sweeps"])
def test_each_state_of_a_search_is_described_word_for_word(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the numbers of states are the same, with symmetry."""
    limits = CHECK_SCOPES[scope]
    assert limits.objects > 1
    describers = Describers(limits)
    compared = [0]
    python = states._canonical

    def described(driver: Driver) -> bytes:
        found = python(driver)
        assert describers.describe(driver) == found
        compared[0] += 1
        return found

    monkeypatch.setattr(states, "_canonical", described)
    Explorer(JointStates(limits, symmetry=True), bounds=Bounds(depth=5)).run()
    assert compared[0] > 100


@pytest.mark.parametrize("scope", SCOPES)
def test_each_state_of_a_run_in_lockstep_is_described_word_for_word(scope: str) -> None:
    limits = SCOPES[scope]
    describers = Describers(limits)
    driver = Driver(limits)
    found: set[bytes] = set()

    def compare(_row: Row, _result: int) -> None:
        if driver.state[NESTED] == 0:
            described = describers.describe(driver)
            assert described == states._canonical(driver)
            found.add(described)

    for seed in range(4):
        driver.reset()
        driver.on_step = compare
        driver.run(Seeded(seed), 80)
    assert len(found) > 50


@pytest.mark.parametrize("count", range(1, 6))
def test_permutations_come_in_order_and_begin_again(count: int) -> None:
    row = [9, *range(count), -9]
    found = [tuple(row[1:-1])]
    while next_permutation(row, 1, count + 1) != 0:
        found.append(tuple(row[1:-1]))
    assert found == list(permutations(range(count)))
    assert all(a < b for a, b in pairwise(found))
    assert row == [9, *range(count), -9]
