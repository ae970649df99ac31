"""The compiled identity of a joint state is word for word the one of the search that Python does."""

from __future__ import annotations

import inspect
from array import array
from collections.abc import Callable, Sequence
from itertools import pairwise, permutations
from types import FunctionType
from typing import Any, NamedTuple

import pytest

from fuzz import states
from fuzz.check_scopes import CHECK_SCOPES
from fuzz.choosers import Seeded
from fuzz.compiled import canonical
from fuzz.compiled.canonical import canonical_scratch_words, describe, described_words, next_permutation
from fuzz.driver import Driver
from fuzz.explore import Bounds, Explorer
from fuzz.states import JointStates
from model.limits import NESTED, SCOPES, Limits
from model.ops import Row

Describe = Callable[..., int]


class CompiledShape(NamedTuple):
    """What a description reads of a shape."""

    roots: int
    fields: int
    globals: int
    slots_end: int
    size: int


class CompiledLimits(NamedTuple):
    """What a description reads of limits."""

    objects: int
    fields: int
    globals: int
    segment: int
    instances: int
    shape: CompiledShape


def bound(limits: Limits) -> CompiledLimits:
    shape = CompiledShape(*(getattr(limits.shape, name) for name in CompiledShape._fields))
    return CompiledLimits(limits.objects, limits.fields, limits.globals, limits.segment, limits.instances, shape)


@pytest.fixture(scope="module")
def compiled() -> Describe:
    """The description through numba; an access outside an array is an error."""
    numba: Any = pytest.importorskip("numba")
    space = dict(vars(canonical))
    for name, function in vars(canonical).items():
        if inspect.isfunction(function) and function.__module__ == canonical.__name__ and not name.endswith("_words"):
            space[name] = numba.njit(boundscheck=True, _nrt=False)(FunctionType(function.__code__, space, name))
    found: Describe = space["describe"]
    return found


class Describers:
    """Both readings of the description, for states under some limits."""

    def __init__(self, limits: Limits, compiled: Describe | None) -> None:
        self.limits = limits
        self.compiled = compiled
        words = len(Driver(limits).runtime.memory)
        self.out = [0] * described_words(limits, words)
        self.scratch = [0] * canonical_scratch_words(limits, words)
        self.numpy: Any = pytest.importorskip("numpy")
        self.out_array = self.array(self.out)
        self.scratch_array = self.array(self.scratch)

    def array(self, row: Sequence[int]) -> Any:
        return self.numpy.array(row, dtype="int64")

    def describe(self, driver: Driver) -> bytes:
        """Describe a driver's state, in both readings if both are there."""
        memory = driver.runtime.memory
        assert isinstance(memory, memoryview)
        rows = driver.state, driver.addresses, driver.forgotten
        length = describe(memory, *rows, self.limits, self.out, self.scratch)
        found = array("q", self.out[:length]).tobytes()
        if self.compiled is not None:
            mem = self.numpy.frombuffer(memory, dtype="int64")
            length = self.compiled(mem, *map(self.array, rows), bound(self.limits), self.out_array, self.scratch_array)
            assert self.out_array[:length].tobytes() == found
        return found


@pytest.mark.parametrize("scope", ["counting", "nesting", "rescue", "sweeps"])
def test_each_state_of_a_search_is_described_word_for_word(scope: str, compiled: Describe, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the numbers of states are the same, with symmetry."""
    limits = CHECK_SCOPES[scope]
    assert limits.objects > 1
    describers = Describers(limits, compiled)
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
def test_each_state_of_a_run_in_lockstep_is_described_word_for_word(scope: str, compiled: Describe) -> None:
    limits = SCOPES[scope]
    describers = Describers(limits, compiled)
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
