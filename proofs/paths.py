"""A function on symbolic words is the list of its paths: when each is taken, what it needs, and what it returns or raises.

The conditions of all paths together cover everything that the assumptions allow, and `always` makes that part of what is to be proved:
that no path was forgotten is not for the explorer to promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import z3

from impl.errors import SimulatedError, Verdict
from proofs.memory import SymbolicMemory, fresh_memory
from proofs.words import Word, every, some, term

PATHS_MAX: Final = 256
DECISIONS_MAX: Final = 256
# Work of one question, whether a path is feasible, in the solver's own unit: a limit of time would make results depend on the machine.
FEASIBILITY_WORK_MAX: Final = 20_000_000


class TooManyPaths(Exception):
    """A function has more paths, or a longer one, than are explored: a loop should have been cut."""


@dataclass(frozen=True)
class Requirement:
    """A condition under which the words of a path are the ints that they stand for.

    Args:
        what: In words.
        condition: The condition.
        decisions: How many decisions of the path came before it.
    """

    what: str
    condition: z3.BoolRef
    decisions: int


class Path:
    """One path through a function: its decisions, its requirements and its memory.

    Args:
        solver: Knows the assumptions; receives the decisions.
        prefix: The first decisions, known to be feasible.
        memory: What the memory holds at first.
        division: Whether words may be divided.
    """

    def __init__(self, solver: z3.Solver, prefix: tuple[bool, ...], memory: z3.ArrayRef, division: bool) -> None:
        self.solver = solver
        self.prefix = prefix
        self.division = division
        self.mem: Any = SymbolicMemory(self, memory)
        self.decisions: list[bool] = []
        self.open: list[int] = []
        self.taken: list[z3.BoolRef] = []
        self.requirements: list[Requirement] = []

    def word(self, name: str | z3.BitVecRef, width: int = 64) -> Any:
        """Return the word of this name, or of this term: a `Word`, where functions say `int`."""
        return Word(z3.BitVec(name, width) if isinstance(name, str) else name, self)

    def take(self, condition: z3.BoolRef) -> bool:
        """Decide a truth value: as the prefix says, or so that the path stays feasible, true first."""
        condition = z3.simplify(condition)
        if z3.is_true(condition):
            return True
        if z3.is_false(condition):
            return False
        position = len(self.decisions)
        if position >= DECISIONS_MAX:
            raise TooManyPaths(f"a path has more than {DECISIONS_MAX} decisions: is there a loop that was not cut?")
        negated = z3.Not(condition)
        if position < len(self.prefix):
            choice = self.prefix[position]
        # A question that the solver gives up on counts as a yes: a path too many costs time, a path too few would be wrong.
        elif self.solver.check(condition) == z3.unsat:
            choice = False
        else:
            choice = True
            if self.solver.check(negated) != z3.unsat:
                self.open.append(position)
        self.solver.add(condition if choice else negated)
        self.decisions.append(choice)
        self.taken.append(condition if choice else negated)
        return choice

    def require(self, what: str, condition: z3.BoolRef) -> None:
        """Note a requirement, unless it holds by itself."""
        condition = z3.simplify(condition)
        if not z3.is_true(condition):
            self.requirements.append(Requirement(what, condition, len(self.taken)))


@dataclass(frozen=True)
class Outcome:
    """What came of one path.

    Args:
        taken: Its decisions, as conditions.
        requirements: What it needs for its words to be ints.
        mem: Its memory, with what it read and wrote.
        value: What the function returned; none if it raised.
        raised: What the function raised: part of the simulated language, or a verdict.
    """

    taken: tuple[z3.BoolRef, ...]
    requirements: tuple[Requirement, ...]
    mem: SymbolicMemory
    value: Any
    raised: BaseException | None

    @property
    def condition(self) -> z3.BoolRef:
        """When this path is taken."""
        return every(self.taken)

    @property
    def sound(self) -> z3.BoolRef:
        """Whether its words are ints: each requirement holds whenever the decisions before it were taken."""
        return every(z3.Implies(every(self.taken[: need.decisions]), need.condition) for need in self.requirements)

    @property
    def term(self) -> z3.BitVecRef:
        """The returned word's term."""
        return term(self.value)

    def terms(self, width: int = 64) -> tuple[z3.BitVecRef, ...]:
        """The terms of the returned tuple, whose ints become words of this width."""
        return tuple(term(value, width) for value in self.value)


def explore(
    run: Callable[[Path], Any],
    assumptions: Iterable[z3.BoolRef] = (),
    *,
    memory: z3.ArrayRef | None = None,
    division: bool = False,
) -> list[Outcome]:
    """Take every feasible path through a function.

    Args:
        run: Calls the function on words that it makes of the path, and on the path's memory; the same each time.
        assumptions: What is assumed of the words and of the memory.
        memory: What the memory holds at first; anything by default.
        division: Whether words may be divided: few functions may, because it is slow to reason about.

    Raises:
        TooManyPaths: There is no end of them.
    """
    before = fresh_memory() if memory is None else memory
    solver = z3.Solver()
    solver.set("rlimit", FEASIBILITY_WORK_MAX)
    solver.add(*assumptions)
    outcomes: list[Outcome] = []
    prefixes: list[tuple[bool, ...]] = [()]
    while prefixes:
        if len(outcomes) >= PATHS_MAX:
            raise TooManyPaths(f"more than {PATHS_MAX} paths: is there a loop that was not cut?")
        solver.push()
        path = Path(solver, prefixes.pop(), before, division)
        value, raised = None, None
        try:
            value = run(path)
        except (SimulatedError, Verdict) as error:
            raised = error
        solver.pop()
        prefixes += [(*path.decisions[:position], False) for position in path.open]
        outcomes.append(Outcome(tuple(path.taken), tuple(path.requirements), path.mem, value, raised))
    return outcomes


def always(outcomes: list[Outcome], promise: Callable[[Outcome], z3.BoolRef | bool]) -> z3.BoolRef:
    """Say that the paths cover everything, that words are ints on each, and that each keeps a promise.

    Args:
        outcomes: All paths of a function.
        promise: What is to hold at the end of a path.
    """
    return z3.And(
        some(outcome.condition for outcome in outcomes),
        *(outcome.sound for outcome in outcomes),
        *(z3.Implies(outcome.condition, promise(outcome)) for outcome in outcomes),
    )


def wrapped(outcomes: list[Outcome], promise: Callable[[Outcome], z3.BoolRef | bool]) -> z3.BoolRef:
    """Say that each path keeps a promise, in a language whose words wrap round silently.

    Args:
        outcomes: All paths of a function.
        promise: What is to hold at the end of a path.
    """
    return every(z3.Implies(outcome.condition, promise(outcome)) for outcome in outcomes)
