"""The digest is the same in both readings, and rows that differ a little have digests that differ in half of their bits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fuzz.choosers import Seeded
from fuzz.compiled.digest import DIGEST_WORDS, digest, mix, signed
from tests.native import call, row_of

SIGN = 1 << 63
ONES = (1 << 64) - 1
EXTREMES = (0, 1, SIGN - 1, -SIGN, -1, 0x5BAD_F00D_5BAD_F00D, 1 << 31, -(1 << 32))


def plain(row: Sequence[int]) -> tuple[int, int]:
    out = [0] * (DIGEST_WORDS + 1)
    digest(list(row), out, 1)
    assert out[0] == 0
    return out[1], out[2]


def noise(chooser: Seeded) -> int:
    return signed(chooser.choose(1 << 32) << 32 | chooser.choose(1 << 32))


def rows() -> list[list[int]]:
    chooser = Seeded(1)
    found = [[noise(chooser) for _ in range(size)] for size in range(40)]
    return found + [[EXTREMES[chooser.choose(len(EXTREMES))] for _ in range(size)] for size in range(40)]


def test_both_readings_give_the_same_digest() -> None:
    out = row_of([0, 0, 0])
    for row in rows():
        call(digest, (row_of(row), len(row)), out, 1)
        assert (out.words[1], out.words[2]) == plain(row)
        assert plain([word & ONES for word in row]) == plain(row), "signed or unsigned, it is the same word"
        assert all(-SIGN <= word < SIGN for word in plain(row))


@pytest.mark.parametrize("half", [0, 1])
def test_no_two_rows_of_structure_collide_in_either_half(half: int) -> None:
    """Zeros of all lengths, single bits, and all pairs of small numbers in two places, many of which share a lane."""
    found: set[int] = set()
    count = 0
    out = row_of([0, 0])
    native = row_of([0] * 80)
    row = native.words
    for size in range(81):
        call(digest, (native, size), out, 0)
        found.add(out.words[half])
        count += 1
    for bit in range(40 * 64):
        row[bit // 64] = signed(1 << bit % 64)
        call(digest, native, out, 0)
        row[bit // 64] = 0
        found.add(out.words[half])
        count += 1
    for first, second in ((0, 1), (0, 4), (3, 7), (2, 38), (8, 12), (36, 39)):
        for pair in range(48 * 48):
            # Higher than those above, so that no row comes twice.
            row[first], row[second] = 256 * (1 + pair // 48) + 3, 1 + pair % 48
            call(digest, native, out, 0)
            found.add(out.words[half])
            count += 1
        row[first] = row[second] = 0
    assert len(found) == count


def test_each_bit_of_a_row_changes_half_of_the_digest() -> None:
    """Of 128 bits, and over many rows each of them about every other time."""
    chooser = Seeded(2)
    flips = [0] * 128
    trials = 0
    for base in ([0] * 9, [noise(chooser) for _ in range(9)], [1 << 40] * 9):
        before = plain(base)
        for bit in range(len(base) * 64):
            changed = list(base)
            changed[bit // 64] = signed((changed[bit // 64] & ONES) ^ 1 << bit % 64)
            difference = [(old ^ new) & ONES for old, new in zip(before, plain(changed), strict=True)]
            assert all(12 <= half.bit_count() <= 52 for half in difference), bit
            for place in range(128):
                flips[place] += difference[place // 64] >> place % 64 & 1
            trials += 1
    assert all(0.44 < count / trials < 0.56 for count in flips)


def test_the_last_step_loses_nothing() -> None:
    words = [*EXTREMES, *range(100)]
    assert len({mix(word) for word in words}) == len(set(words))
