"""Who answers the choices: recorded numbers, bytes, a seeded generator, an odometer; and wrappers that compose.

Every engine is a chooser over the same driver. None of them uses a clock, `random` or the order of a hash table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from model.choose import Exhausted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.choose import Chooser

_MASK: Final = (1 << 64) - 1
MULTIPLIER: Final = 6364136223846793005
INCREMENT: Final = 1442695040888963407


class HiddenState(BaseException):
    """A run was no function of its choices. No `Exception`: simulated code must not take it for a panic."""


class Recorded:
    """Answers from a list of numbers, folded into range; exhausted at its end.

    >>> chooser = Recorded([1, 7])
    >>> chooser.choose(3), chooser.choose(3)
    (1, 1)
    """

    def __init__(self, choices: Sequence[int]) -> None:
        self.choices = choices
        self.position = 0

    def choose(self, count: int) -> int:
        """Return the next recorded number modulo `count`."""
        if self.position >= len(self.choices):
            raise Exhausted
        choice = self.choices[self.position]
        self.position += 1
        return choice % count


class Bytes:
    """Answers from bytes, one for each choice (two where a byte cannot reach every alternative).

    Any bytes mean a run, so a coverage-guided fuzzer may mutate them freely.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def choose(self, count: int) -> int:
        """Return the next byte modulo `count`."""
        position = self.position
        if count > 256:  # what a byte can say
            self.position = position + 2
            if position + 2 > len(self.data):
                raise Exhausted
            return int.from_bytes(self.data[position : position + 2], "little") % count
        self.position = position + 1
        if position >= len(self.data):
            raise Exhausted
        return self.data[position] % count


class Seeded:
    """Answers from a 64-bit linear congruential generator; exhausted after `choices_max` answers.

    Args:
        seed: any int; different seeds give unrelated runs.
        choices_max: a bound, so that every run ends.
    """

    def __init__(self, seed: int, choices_max: int = 1 << 62) -> None:
        # One multiplication spreads neighbouring seeds over the whole range, two rounds decorrelate them.
        self.state = (seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) & _MASK
        self.left = choices_max
        for _ in range(2):
            self.state = ((self.state ^ self.state >> 29) * MULTIPLIER + INCREMENT) & _MASK

    def choose(self, count: int) -> int:
        """Return a number below `count`, close to uniform."""
        if self.left <= 0:
            raise Exhausted
        self.left -= 1
        self.state = state = (self.state * MULTIPLIER + INCREMENT) & _MASK
        return (state >> 32) * count >> 32


class Odometer:
    """Enumerates every sequence of answers, depth first, one after another.

    `choose` answers from the current sequence and extends it with zeros; `advance` moves on to the next one.

    >>> odometer = Odometer()
    >>> found = []
    >>> while True:
    ...     found.append((odometer.choose(2), odometer.choose(2)))
    ...     if not odometer.advance():
    ...         break
    >>> found
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """

    def __init__(self) -> None:
        self.digits: list[int] = []
        self.counts: list[int] = []
        self.position = 0

    def choose(self, count: int) -> int:
        """Return the current digit. Raise HiddenState if the same prefix led to another number of alternatives."""
        position = self.position
        self.position = position + 1
        if position == len(self.digits):
            self.digits.append(0)
            self.counts.append(count)
            return 0
        if self.counts[position] != count:
            message = (
                f"choice {position} had {self.counts[position]} alternatives and now has {count}: the run is no function of "
                "its choices; the most likely cause is state outside the arena and the model's row"
            )
            raise HiddenState(message)
        return self.digits[position]

    def advance(self) -> bool:
        """Go to the next sequence of answers; return whether there is one."""
        del self.digits[self.position :], self.counts[self.position :]
        while self.digits and self.digits[-1] + 1 == self.counts[-1]:
            self.digits.pop()
            self.counts.pop()
        self.position = 0
        if not self.digits:
            return False
        self.digits[-1] += 1
        return True


class Recording:
    """Passes choices through and writes down each answer and the number of alternatives that it was picked from."""

    def __init__(self, inner: Chooser) -> None:
        self.inner = inner
        self.answers: list[int] = []
        self.counts: list[int] = []

    def choose(self, count: int) -> int:
        """Return the inner chooser's answer."""
        answer = self.inner.choose(count)
        self.answers.append(answer)
        self.counts.append(count)
        return answer
