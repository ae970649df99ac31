"""Each operator of a word means what it means on ints, or the word says that it does not."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import pytest
import z3

from proofs.words import Mask, NotAWord, Word, every, some, term

WIDTHS = (32, 64)


class OnePath:
    """A path on which all words are constants: nothing is to be decided by a solver."""

    def __init__(self, *, division: bool = True) -> None:
        self.division = division
        self.needs: list[bool] = []

    def take(self, condition: z3.BoolRef) -> bool:
        decided = z3.simplify(condition)
        assert z3.is_true(decided) or z3.is_false(decided)
        return bool(z3.is_true(decided))

    def require(self, what: str, condition: z3.BoolRef) -> None:
        assert what
        decided = z3.simplify(condition)
        assert z3.is_true(decided) or z3.is_false(decided)
        self.needs.append(bool(z3.is_true(decided)))


def boundaries(width: int) -> list[int]:
    largest = (1 << width) - 1
    return [
        0,
        1,
        2,
        3,
        width - 1,
        width,
        (1 << 31) - 1,
        1 << 31 if width > 32 else 1 << 30,
        (largest >> 1),
        (largest >> 1) + 1,
        largest - 1,
        largest,
    ]


def word(value: int, width: int, path: OnePath) -> Word:
    return Word(z3.BitVecVal(value, width), path)


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "<<": operator.lshift,
    ">>": operator.rshift,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}


def expected_of(function: Callable[[int, int], int], a: int, b: int, width: int) -> int | None:
    """What ints give, or none where the result is no word. A shift by a huge number is not computed, for want of memory."""
    if function is operator.lshift and b > 2 * width:
        return 0 if a == 0 else None
    if function in (operator.floordiv, operator.mod) and b == 0:
        return None
    result = function(a, b)
    return result if 0 <= result < 1 << width else None


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", list(ARITHMETIC))
def test_an_operator_gives_what_ints_give_or_its_requirement_fails(name: str, width: int) -> None:
    function = ARITHMETIC[name]
    cases = 0
    for a, b in itertools.product(boundaries(width), repeat=2):
        expected = expected_of(function, a, b, width)
        for left, right in ((True, True), (True, False), (False, True)):
            path = OnePath()
            result = function(word(a, width, path) if left else a, word(b, width, path) if right else b)
            assert all(path.needs) == (expected is not None), (a, b, left, right)
            if expected is not None:
                assert z3.simplify(result.term).as_long() == expected, (a, b, left, right)
            cases += 1
    assert cases == 3 * len(boundaries(width)) ** 2


COMPARISONS: list[Callable[[Any, Any], Any]] = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("function", COMPARISONS)
def test_a_comparison_is_unsigned_and_a_plain_truth_value(function: Callable[[Any, Any], bool], width: int) -> None:
    for a, b in itertools.product(boundaries(width), repeat=2):
        path = OnePath()
        assert function(word(a, width, path), word(b, width, path)) is function(a, b)
        assert function(word(a, width, path), b) is function(a, b)
        assert function(a, word(b, width, path)) is function(a, b)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_word_is_true_unless_it_is_zero(width: int) -> None:
    assert [bool(word(value, width, OnePath())) for value in boundaries(width)] == [bool(value) for value in boundaries(width)]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_complement_masks_and_does_nothing_else(width: int) -> None:
    for a, b in itertools.product(boundaries(width), repeat=2):
        path = OnePath()
        for masked in (
            word(a, width, path) & ~word(b, width, path),
            ~word(b, width, path) & word(a, width, path),
            a & ~word(b, width, path),
        ):
            assert z3.simplify(masked.term).as_long() == a & ~b
        assert z3.simplify((word(a, width, path) & ~b).term).as_long() == a & ~b
        assert z3.simplify((~~word(a, width, path)).term).as_long() == a
    assert isinstance(~word(1, width, OnePath()), Mask)
    mask: Any = ~word(1, width, OnePath())
    misuses: list[Callable[[], Any]] = [lambda: mask + 1, lambda: mask < 1, lambda: mask | 1, lambda: mask >> 1]
    for misuse in misuses:
        with pytest.raises(TypeError):
            misuse()
    with pytest.raises(NotAWord, match="complement"):
        assert mask == 1


def test_ints_that_are_no_words_are_refused() -> None:
    one = word(1, 32, OnePath())
    for misuse in (lambda: one + (1 << 32), lambda: one - (-1), lambda: one | -1, lambda: one < (1 << 32), lambda: one == -1):
        with pytest.raises(NotAWord, match="is no word of 32 bits"):
            misuse()
    with pytest.raises(NotAWord, match="meets one of 64 bits"):
        one + word(1, 64, OnePath())
    with pytest.raises(NotAWord, match="meets a str"):
        one + "1"  # type: ignore[operator]
    with pytest.raises(NotAWord, match="`range`"):
        range(one)
    with pytest.raises(TypeError):
        hash(one)


def test_division_is_refused_unless_it_is_allowed() -> None:
    one = word(1, 64, OnePath(division=False))
    misuses: list[Callable[[], Any]] = [lambda: one // 2, lambda: one % 2, lambda: 2 // one, lambda: 2 % one]
    for misuse in misuses:
        with pytest.raises(NotAWord, match="division"):
            misuse()


def test_a_term_is_that_of_a_word_or_of_an_int_that_fits() -> None:
    assert term(word(5, 64, OnePath())).as_long() == 5
    assert term(5, 32).size() == 32
    for misuse in (-1, 1 << 64, "5", 1.5):
        with pytest.raises(NotAWord):
            term(misuse)


def test_conjunctions_and_disjunctions_of_nothing_are_true_and_false() -> None:
    a, b = z3.Bools("a b")
    assert z3.is_true(every([]))
    assert z3.is_false(some([]))
    assert every([a, b]).eq(z3.And(a, b))
    assert some([a, b]).eq(z3.Or(a, b))


def test_a_message_about_a_word_tells_its_term() -> None:
    word = Word(z3.BitVec("bits", 64), OnePath())
    assert f"mask {word:#x} of {word}" == "mask bits of bits"
