"""A `Word` is an unsigned symbolic word: what impl's pure functions do with ints, they do with words.

Bare solver terms would not do: their `<` and `>>` are signed, and the truth of `x == y` is always false. A word's operators are unsigned;
what would leave the range of a word becomes a *requirement* of the path; and a truth value *forks* the path. So a function means
on words what it means on ints, wherever its requirements hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeAlias

import z3


class NotAWord(TypeError):
    """An operand or an operator that has no meaning on words. The message says which."""


class Context(Protocol):
    """What words need of the path that they are on."""

    division: bool

    def take(self, condition: z3.BoolRef) -> bool:
        """Decide a truth value, and remember the decision."""

    def require(self, what: str, condition: z3.BoolRef) -> None:
        """Note a condition without which words and ints differ from here on."""


class Word:
    """An unsigned word of fixed width on one path.

    Args:
        term: A bit vector; its size is the width.
        path: The path that the word is used on.
    """

    __slots__ = ("path", "term")

    # A hash would have to agree with `==`, which depends on the path.
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, term: z3.BitVecRef, path: Context) -> None:
        self.term = term
        self.path = path

    @property
    def width(self) -> int:
        """The number of bits."""
        return int(self.term.size())

    @property
    def largest(self) -> int:
        """The largest word of this width."""
        return (1 << self.width) - 1

    def lift(self, other: Operand) -> z3.BitVecRef:
        """Return the term of an operand of the same width.

        Raises:
            NotAWord: An int that does not fit, another width, or something else altogether.
        """
        if isinstance(other, Word):
            if other.width != self.width:
                raise NotAWord(f"a word of {self.width} bits meets one of {other.width} bits")
            return other.term
        if not isinstance(other, int):
            raise NotAWord(f"a word meets a {type(other).__name__}")
        if not 0 <= other <= self.largest:
            raise NotAWord(f"{other} is no word of {self.width} bits")
        return z3.BitVecVal(other, self.width)

    def _make(self, term: z3.BitVecRef) -> Word:
        return Word(term, self.path)

    # Arithmetic: each operator says when its result is no word.

    def _sum(self, a: z3.BitVecRef, b: z3.BitVecRef) -> Word:
        self.path.require("a sum fits in a word", z3.ULE(a, ~b))
        return self._make(a + b)

    def _difference(self, a: z3.BitVecRef, b: z3.BitVecRef) -> Word:
        self.path.require("a difference is not negative", z3.UGE(a, b))
        return self._make(a - b)

    def _product(self, a: z3.BitVecRef, b: z3.BitVecRef) -> Word:
        for constant, other in ((a, b), (b, a)):
            if z3.is_bv_value(constant):
                factor = constant.as_long()
                fits = z3.BoolVal(True) if factor == 0 else z3.ULE(other, self.largest // factor)
                break
        else:
            wide = z3.ZeroExt(self.width, a) * z3.ZeroExt(self.width, b)
            fits = z3.Extract(2 * self.width - 1, self.width, wide) == 0
        self.path.require("a product fits in a word", fits)
        return self._make(a * b)

    def _shifted_left(self, a: z3.BitVecRef, b: z3.BitVecRef) -> Word:
        shifted = a << b
        self.path.require("a shift to the left loses no bit", z3.LShR(shifted, b) == a)
        return self._make(shifted)

    def _divided(self, a: z3.BitVecRef, b: z3.BitVecRef, quotient: bool) -> Word:
        if not self.path.division:
            raise NotAWord("division of symbolic words: solvers take a thousand times as long as for a mask or a shift")
        self.path.require("a divisor is not zero", b != 0)
        return self._make(z3.UDiv(a, b) if quotient else z3.URem(a, b))

    def __add__(self, other: Operand) -> Word:
        return self._sum(self.term, self.lift(other))

    def __radd__(self, other: Operand) -> Word:
        return self._sum(self.lift(other), self.term)

    def __sub__(self, other: Operand) -> Word:
        return self._difference(self.term, self.lift(other))

    def __rsub__(self, other: Operand) -> Word:
        return self._difference(self.lift(other), self.term)

    def __mul__(self, other: Operand) -> Word:
        return self._product(self.term, self.lift(other))

    def __rmul__(self, other: Operand) -> Word:
        return self._product(self.lift(other), self.term)

    def __floordiv__(self, other: Operand) -> Word:
        return self._divided(self.term, self.lift(other), quotient=True)

    def __rfloordiv__(self, other: Operand) -> Word:
        return self._divided(self.lift(other), self.term, quotient=True)

    def __mod__(self, other: Operand) -> Word:
        return self._divided(self.term, self.lift(other), quotient=False)

    def __rmod__(self, other: Operand) -> Word:
        return self._divided(self.lift(other), self.term, quotient=False)

    def __lshift__(self, other: Operand) -> Word:
        return self._shifted_left(self.term, self.lift(other))

    def __rlshift__(self, other: Operand) -> Word:
        return self._shifted_left(self.lift(other), self.term)

    def __rshift__(self, other: Operand) -> Word:
        return self._make(z3.LShR(self.term, self.lift(other)))

    def __rrshift__(self, other: Operand) -> Word:
        return self._make(z3.LShR(self.lift(other), self.term))

    # Bits. A negative int is an infinity of ones, which is a mask and nothing else.

    def __and__(self, other: Operand | Mask) -> Word:
        if isinstance(other, Mask):
            return other & self
        if isinstance(other, int) and -self.largest - 1 <= other < 0:
            other &= self.largest
        return self._make(self.term & self.lift(other))

    __rand__ = __and__

    def __or__(self, other: Operand) -> Word:
        return self._make(self.term | self.lift(other))

    __ror__ = __or__

    def __xor__(self, other: Operand) -> Word:
        return self._make(self.term ^ self.lift(other))

    __rxor__ = __xor__

    def __invert__(self) -> Mask:
        return Mask(self)

    # Truth forks the path.

    def __bool__(self) -> bool:
        return self.path.take(self.term != 0)

    def __eq__(self, other: object) -> bool:
        return self.path.take(self.term == self.lift(other))  # type: ignore[arg-type]

    def __ne__(self, other: object) -> bool:
        return self.path.take(self.term != self.lift(other))  # type: ignore[arg-type]

    def __lt__(self, other: Operand) -> bool:
        return self.path.take(z3.ULT(self.term, self.lift(other)))

    def __le__(self, other: Operand) -> bool:
        return self.path.take(z3.ULE(self.term, self.lift(other)))

    def __gt__(self, other: Operand) -> bool:
        return self.path.take(z3.UGT(self.term, self.lift(other)))

    def __ge__(self, other: Operand) -> bool:
        return self.path.take(z3.UGE(self.term, self.lift(other)))

    def __index__(self) -> int:
        raise NotAWord("a symbolic word is not one number: `range` and sequences cannot use it")

    def __repr__(self) -> str:
        return f"Word({self.term})"

    def __format__(self, spec: str) -> str:
        """Return the term, in whichever way a message wants its numbers written."""
        return str(self.term)


class Mask:
    """The complement of a word: as an int it is negative, so it may mask a word and nothing else.

    Args:
        word: What it is the complement of.
    """

    __slots__ = ("word",)

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, word: Word) -> None:
        self.word = word

    def __and__(self, other: Operand) -> Word:
        return Word(self.word.lift(other) & ~self.word.term, self.word.path)

    __rand__ = __and__

    def __invert__(self) -> Word:
        return self.word

    def __eq__(self, other: object) -> bool:
        raise NotAWord(f"a complement is compared with a {type(other).__name__}; it can only mask a word")


Operand: TypeAlias = Word | int


def term(value: object, width: int = 64) -> z3.BitVecRef:
    """Return the term of a word or of an int that fits in `width` bits.

    Raises:
        NotAWord: It is neither.
    """
    if isinstance(value, Word):
        return value.term
    if isinstance(value, int) and 0 <= value < 1 << width:
        return z3.BitVecVal(value, width)
    raise NotAWord(f"{value!r} is no word of {width} bits")


def every(conditions: Iterable[z3.BoolRef]) -> z3.BoolRef:
    """Say that all conditions hold; true if there are none."""
    listed = list(conditions)
    return z3.And(*listed) if listed else z3.BoolVal(True)


def some(conditions: Iterable[z3.BoolRef]) -> z3.BoolRef:
    """Say that one of the conditions holds; false if there are none."""
    listed = list(conditions)
    return z3.Or(*listed) if listed else z3.BoolVal(False)
