"""What the two readings of the model say differently means the same, for words and masks of every shape."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from fuzz.compiled import words_compiled
from fuzz.compiled.rows import Row
from model import words
from tests.native import call, row_of

# Masks of a compiled reading: no bit above 62.
MASKS = [
    0,
    *(1 << number for number in range(63)),
    *((1 << number) - 1 for number in range(1, 64)),
    *(((0x9E3779B97F4A7C15 * (number + 1)) >> 1 & ((1 << 63) - 1)) >> number for number in range(63)),
]
CELLS = [3, -1, 0, 3, -2, 3, 1 << 40, -1]
RANGES = [(first, last) for first in range(len(CELLS) + 1) for last in range(first, len(CELLS) + 1)]
SEAMS = {"ask"}
"""Whose stand-in is written by who compiles the draws themselves."""


def functions_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    return {name: value for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")}


@pytest.fixture(scope="module", params=["interpreted", "compiled"])
def twin(request: pytest.FixtureRequest) -> Callable[[str], Callable[..., Any]]:
    """The stand-in of a name: its text read by Python, and compiled. A generator is compiled with the loop around it alone."""
    functions = functions_of(words_compiled)
    if request.param == "compiled":
        functions = {name: _native(name) for name in functions if name != "bits"} | {"bits": words_compiled.bits}
    return functions.__getitem__


def _native(name: str) -> Callable[..., Any]:
    function = getattr(words, name)

    def called(*values: int | list[int]) -> int:
        rows = [row_of(value) if isinstance(value, list) else value for value in values]
        found = call(function, *rows)
        for row, value in zip(rows, values, strict=True):
            if isinstance(row, Row) and isinstance(value, list):
                value[:] = row.words.tolist()
        return found

    return called


def test_each_elementary_step_has_its_stand_in_with_the_same_parameters() -> None:
    wanted = {name: list(inspect.signature(function).parameters) for name, function in functions_of(words).items() if name not in SEAMS}
    wanted.pop("lru_cache", None)
    found = {name: list(inspect.signature(function).parameters) for name, function in functions_of(words_compiled).items()}
    assert found == wanted


def test_no_stand_in_calls_another() -> None:
    for name, function in functions_of(words_compiled).items():
        assert not set(function.__code__.co_names) - {"range"}, name


@pytest.mark.parametrize("name", ["popcount", "lowest"])
def test_masks_are_measured_alike(twin: Callable[[str], Callable[..., Any]], name: str) -> None:
    assert [twin(name)(mask) for mask in MASKS] == [getattr(words, name)(mask) for mask in MASKS]


def test_the_lowest_number_that_is_not_in_a_mask_is_found_alike(twin: Callable[[str], Callable[..., Any]]) -> None:
    assert [twin("lowest")(~mask) for mask in MASKS] == [words.lowest(~mask) for mask in MASKS]


def test_numbers_in_a_mask_are_listed_alike(twin: Callable[[str], Callable[..., Any]]) -> None:
    assert [list(twin("bits")(mask)) for mask in MASKS] == [list(words.bits(mask)) for mask in MASKS]


def test_numbers_in_a_mask_are_indexed_alike(twin: Callable[[str], Callable[..., Any]]) -> None:
    for mask in MASKS:
        size = words.popcount(mask)
        assert [twin("nth")(mask, n) for n in range(size)] == [words.nth(mask, n) for n in range(size)] == list(words.bits(mask))
        assert twin("nth")(mask, size) == -1


def test_submasks_are_the_same_in_the_same_order(twin: Callable[[str], Callable[..., Any]]) -> None:
    for mask in (0, 1, 0b101, 0b1101101, 1 << 62 | 1 << 31 | 1):
        size = 1 << words.popcount(mask)
        found = [twin("deposit")(n, mask) for n in range(size)]
        assert found == [words.deposit(n, mask) for n in range(size)]
        assert found == sorted({submask & mask for submask in found})
        assert len(found) == len(set(found)) == size


@pytest.mark.parametrize("name", ["within", "occurrences"])
def test_cells_are_searched_alike(twin: Callable[[str], Callable[..., Any]], name: str) -> None:
    function = twin(name)
    cells = list(CELLS)
    for first, last in RANGES:
        for word in {*CELLS, 7}:
            assert function(cells, first, last, word) == getattr(words, name)(CELLS, first, last, word)


def test_cells_are_written_alike(twin: Callable[[str], Callable[..., Any]]) -> None:
    for first, last in RANGES:
        cells, expected = list(CELLS), list(CELLS)
        twin("put")(cells, first, last, -2)
        words.put(expected, first, last, -2)
        assert list(cells) == expected
