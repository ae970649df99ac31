"""Everything that can go wrong has one class here, and whether simulated code may catch it is its base class.

`SimulatedError` is an `Exception`: part of the simulated language, caught by ``except Exception`` as Rust code catches a panic.
`Verdict` is a `BaseException`: it says that a bug was found or that the machine is too small, and simulated code never swallows it.

Functions over a memory raise these with one constant message, which is all that compiled code can build. The checked memory is
not compiled, and names the address, the access and the likely cause.
"""

from __future__ import annotations


class SimulatedError(Exception):
    """Base of what simulated code may raise and catch."""


class Panicked(SimulatedError):
    """A destructor, a constructor or an operation panicked, and all its own work is done."""


class AllocationFailed(SimulatedError):
    """A fallible allocation failed: the environment said so, or the layout is too large for the pointer width."""


class OutOfBounds(SimulatedError):
    """A table, segment or index operand lies outside its bounds; nothing was changed."""


class RegistrationRefused(SimulatedError):
    """A module's stack maps contradict themselves or what is registered; nothing was changed."""


class Verdict(BaseException):
    """Base of what ends a run: a defect that was found, or a bound of the simulated machine that was reached."""


class MemoryVerdict(Verdict):
    """Base of what the checked memory finds, at the access that commits it."""


class UseAfterFree(MemoryVerdict):
    """A word of a free block was read or written."""


class DoubleFree(MemoryVerdict):
    """A block was deallocated that is free already."""


class AccessOutOfBounds(MemoryVerdict):
    """A word that belongs to nothing was accessed, or a value that is no 64-bit word was stored."""


class Misaligned(MemoryVerdict):
    """An index is not a whole number of words, or a block does not have the alignment that was asked for."""


class WrongLayout(MemoryVerdict):
    """A block was deallocated with another size or alignment than it was allocated with, or the layout is no layout."""


class UninitialisedRead(MemoryVerdict):
    """A word was read that nobody has written since its block was allocated."""


class Aborted(Verdict):
    """The process would abort: a reference count overflowed, or a count of zero was decremented."""


class HostBroken(Verdict):
    """The host raised something through the seam that the simulated language does not know: a bug of the harness."""


class InvariantViolated(Verdict):
    """A representation invariant does not hold.

    Args:
        number: The invariant's number, from 1.
        text: What was found, and what was expected.
    """

    def __init__(self, number: int, text: str) -> None:
        """Keep both arguments, so that the exception survives a process boundary."""
        super().__init__(number, text)
        self.number = number
        self.text = text

    def __str__(self) -> str:
        """Show the number before the text."""
        return f"invariant ({self.number}) violated: {self.text}"


class ArenaExhausted(Verdict):
    """The heap of the simulated machine is too small for this run; says nothing about the code under test."""


class StackExhausted(Verdict):
    """The simulated thread stack is too small for this run; says nothing about the code under test."""
