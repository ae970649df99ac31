"""A verdict is believed only after a second look: models are evaluated again, witnesses replayed, assumptions shown to be satisfiable."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import z3

from proofs.obligations import Claim, Obligation, Verdict, WitnessRefuted
from proofs.words import every

# For one question to the solver. A whole run takes less.
SECONDS_USUAL: Final = 60.0
# Work of one question, which assumptions a proof used, in the solver's own unit: a limit of time would make the answer depend on
# the machine.
CORE_WORK_MAX: Final = 500_000
WATCH_SECONDS: Final = 0.2


@dataclass(frozen=True)
class ClaimResult:
    """What the solver said of one claim.

    Args:
        part: The part's name.
        verdict: What it said.
        assumptions: Their names.
        used: Those that a proof needed, in the same order; empty if there is no proof.
        witness: Values of the claim's terms where the goal fails, if it does.
        shown: What the concrete function did with the witness.
        problem: What is wrong with the claim itself or with the answer; empty if nothing is.
    """

    part: str
    verdict: Verdict
    assumptions: tuple[str, ...]
    used: tuple[str, ...] = ()
    witness: tuple[tuple[str, int | bool], ...] = ()
    shown: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """What came of one obligation.

    Args:
        name, subject, statement, expected: As in the obligation.
        verdict: `expected` if each claim says so; `UNKNOWN` if one is unknown; else the opposite.
        claims: One for each part.
        seconds: Processor time to build, solve and replay.
    """

    name: str
    subject: str
    statement: str
    expected: Verdict
    verdict: Verdict
    claims: tuple[ClaimResult, ...]
    seconds: float

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The names of all parts' assumptions."""
        return tuple(dict.fromkeys(name for claim in self.claims for name in claim.assumptions))

    @property
    def unused(self) -> tuple[str, ...]:
        """Assumptions that no part's proof needed; none where nothing was proved."""
        if self.verdict is not Verdict.PROVED:
            return ()
        used = {name for claim in self.claims for name in claim.used}
        return tuple(name for name in self.assumptions if name not in used)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, other than an unexpected verdict."""
        return tuple(f"{claim.part}: {claim.problem}" if claim.part else claim.problem for claim in self.claims if claim.problem)

    @property
    def surprising(self) -> bool:
        """Whether this is an answer, and not the one that was expected."""
        return bool(self.problems) or (self.verdict is not self.expected and self.verdict is not Verdict.UNKNOWN)


def discharge(obligation: Obligation, seconds: float = SECONDS_USUAL) -> Result:
    """Ask the solver about an obligation.

    Args:
        obligation: The obligation.
        seconds: Limit of each question, in processor time.
    """
    began = time.process_time()
    claims = tuple(_judge(claim, seconds) for claim in obligation.claims())
    verdicts = {claim.verdict for claim in claims}
    if Verdict.UNKNOWN in verdicts:
        verdict = Verdict.UNKNOWN
    elif verdicts == {obligation.expected}:
        verdict = obligation.expected
    else:
        verdict = Verdict.REFUTED if obligation.expected is Verdict.PROVED else Verdict.PROVED
    return Result(
        obligation.name, obligation.subject, obligation.statement, obligation.expected, verdict, claims, time.process_time() - began
    )


def check(asked: z3.Solver, seconds: float) -> z3.CheckSatResult:
    """Ask a solver, and interrupt it after so much processor time: on a busy machine a limit of real time would be a lottery.

    Args:
        asked: A solver that is asked once. It chooses its logic itself: one that is named and does not fit has been answered wrongly.
        seconds: Processor time of this process.
    """
    ends = time.process_time() + seconds
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            if time.process_time() > ends:
                asked.interrupt()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return asked.check()
    except z3.Z3Exception as error:
        # An interruption that comes at once is reported as an error.
        if "cancel" in str(error) or "interrupt" in str(error):
            return z3.unknown
        raise
    finally:
        done.set()
        watcher.join()


def _judge(claim: Claim, seconds: float) -> ClaimResult:
    """Ask about one claim: first whether its assumptions can hold at all."""
    result = ClaimResult(claim.part, Verdict.UNKNOWN, tuple(claim.assumptions))
    possible = z3.Solver()
    possible.add(*claim.assumptions.values())
    answer = check(possible, seconds)
    if answer == z3.unsat:
        return replace(result, problem="the assumptions contradict each other")
    if answer == z3.unknown:
        return result
    used: set[str] = set()
    for part in conjuncts(claim.goal):
        asked = z3.Solver()
        asked.add(*claim.assumptions.values(), z3.Not(part))
        answer = check(asked, seconds)
        if answer == z3.unknown:
            return result
        if answer == z3.sat:
            return _refuted(result, claim, asked.model())
        if len(used) < len(claim.assumptions):
            used |= _core(claim.assumptions, part)
    return replace(result, verdict=Verdict.PROVED, used=tuple(name for name in claim.assumptions if name in used))


def _core(assumptions: dict[str, z3.BoolRef], part: z3.BoolRef) -> set[str]:
    """Return the assumptions that a proof used; all of them if that takes too much work to find out.

    Tracking costs the solver its best methods, so this is a question of its own, asked after the answer is known.
    """
    tracked = z3.Solver()
    tracked.set("rlimit", CORE_WORK_MAX)
    tracked.add(z3.Not(part))
    marks = {}
    for index, (name, condition) in enumerate(assumptions.items()):
        mark = z3.Bool(f"assumption {index}")
        marks[str(mark)] = name
        tracked.assert_and_track(condition, mark)
    if tracked.check() != z3.unsat:
        return set(assumptions)
    return {marks[str(mark)] for mark in tracked.unsat_core()}


def conjuncts(goal: z3.BoolRef, under: tuple[z3.BoolRef, ...] = ()) -> Iterator[z3.BoolRef]:
    """Split a goal into goals that together are the same: several small questions are answered much faster than a large one.

    Args:
        goal: Conjunctions are split, also behind implications.
        under: What the parts are implied by.
    """
    if z3.is_and(goal):
        for part in goal.children():
            yield from conjuncts(part, under)
    elif z3.is_implies(goal):
        condition, consequence = goal.children()
        yield from conjuncts(consequence, (*under, condition))
    elif not z3.is_true(goal):
        yield z3.Implies(every(under), goal) if under else goal


def _refuted(result: ClaimResult, claim: Claim, model: z3.ModelRef) -> ClaimResult:
    """Look at a model again, and replay it."""
    holds = model.eval(every(claim.assumptions.values()), model_completion=True)
    fails = model.eval(z3.Not(claim.goal), model_completion=True)
    if not (z3.is_true(holds) and z3.is_true(fails)):
        return replace(result, problem="the solver's model is no model: an assumption fails in it, or the goal holds")
    values = {name: value(model.eval(term, model_completion=True)) for name, term in claim.terms.items()}
    result = replace(result, verdict=Verdict.REFUTED, witness=tuple(values.items()))
    if claim.replay is None:
        return result
    try:
        return replace(result, shown=claim.replay(values))
    except WitnessRefuted as error:
        return replace(result, problem=f"the witness does not show it: {error}")


def value(term: z3.ExprRef) -> int | bool:
    """Return the number or the truth value that a term without variables is."""
    if z3.is_bv_value(term) or z3.is_int_value(term):
        return int(term.as_long())
    if z3.is_true(term) or z3.is_false(term):
        return bool(z3.is_true(term))
    raise ValueError(f"{term} is no value")
