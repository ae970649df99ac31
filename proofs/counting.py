"""Counting is right for any number of references, entries, frames and nested destructors, and each defect of the record breaks the proof.

For each step of the protocol: if the invariant holds before it, it holds after it. As it holds initially, it holds always, and what users
rely on follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import z3

from impl import activations_table, collector, externref
from impl.externref import COUNT_MAX
from proofs.obligations import Claim, Obligation, Verdict, WitnessRefuted
from proofs.protocol import (
    ALIVE,
    CONDEMNED,
    DYING,
    IDLE,
    INVARIANT,
    LIVES,
    SAFETY,
    SWEEP,
    Property,
    State,
    Term,
    Truth,
    broken,
    describe,
    either,
    every,
    implies,
    initial,
    invariant,
    owners,
    symbolic,
)
from proofs.protocol_defects import DEFECTS, Defect
from proofs.protocol_steps import BY_NAME, COLLECTION, STEPS, Step
from proofs.solving import conjuncts

Goal: TypeAlias = Callable[[State, State], Truth]

SUBJECT: Final = "counting"
HOLDS: Final = "the invariant holds"

# What a collection does by itself; the walk's failure is the environment's.
_COLLECTOR: Final = tuple(step for step in COLLECTION if step.name not in {"collection-begins", "nested-collection", "walk-fails"})
_WALKING: Final = (
    "root-found",
    "root-counted",
    "walk-fails",
    "root-discarded",
    "discarded-root-given-back",
    "collection-abandoned",
)


def obligations() -> list[Obligation]:
    """Return what is to be proved about counting, and the defects that are to be refuted."""
    return [
        _obligation("initial", "The invariant holds while nothing has happened.", _initial_claims, (activations_table.table_init,)),
        *(_kept(step) for step in STEPS),
        *(_safety(part) for part in SAFETY),
        _obligation(
            "only-the-last-release-reaches-zero",
            "No step but the drop of the last reference lets a count reach 0; in particular none that gives a count back without looking.",
            _zero_claim,
            (externref.drop, externref.decrement_ref_count),
        ),
        _obligation(
            "failed-walk-changes-nothing",
            "A collection whose walk fails changes no owner, no entry, no count and no life, whatever it had found.",
            _failed_walk_claim,
            (collector.gc, activations_table.discard_precise_stack_roots),
        ),
        _obligation(
            "complete-collection-leaves-what-is-needed",
            "After a complete collection the table holds what a live local holds or what was inserted meanwhile; what has neither, nor an "
            "owner, is not alive.",
            _complete_claim,
            (collector.gc, activations_table.sweep),
        ),
        _obligation(
            "sweep-is-not-prolonged",
            "No step, re-entrant insertions included, adds to what a sweep has yet to release, and each release takes one entry away.",
            _sweep_claims,
            (activations_table.sweep, activations_table.try_insert),
        ),
        _obligation(
            "collection-is-never-stuck",
            "A collection whose destructors are over can take its next step.",
            _stuck_claim,
            (collector.gc, activations_table.sweep),
        ),
        *(_refuted(defect) for defect in DEFECTS),
    ]


def _obligation(
    name: str, statement: str, build: Callable[[], Claim | list[Claim]], functions: tuple[Callable[..., object], ...]
) -> Obligation:
    return Obligation(f"{SUBJECT}-{name}", SUBJECT, statement, Verdict.PROVED, build, functions, "integers")


def parameters(step: Step) -> tuple[Term, ...]:
    """Return z3's integers for the parameters of a step."""
    return tuple(z3.Int(f"parameter {number}") for number in range(len(step.bounds)))


def _can(step: Step) -> str:
    return f"the step can be taken: {step.says}"


def _claim(step: Step, goal: Goal, part: str = "") -> Claim:
    """Return the claim that a step has a property if the invariant holds before it."""
    s, chosen = symbolic(), parameters(step)
    after = step.effect(s, *chosen)
    assumptions = {HOLDS: invariant(s), _can(step): formula(step.guard(s, *chosen))}
    return Claim(assumptions, formula(goal(s, after)), part=part)


def formula(truth: Truth) -> z3.BoolRef:
    """Return a truth as a formula, which it is not where all of it could be computed."""
    return z3.BoolVal(truth) if isinstance(truth, bool) else truth


def _initial_claims() -> list[Claim]:
    s = symbolic()
    return [Claim({"nothing has happened": initial(s)}, formula(part.holds(s)), part=part.name) for part in INVARIANT]


def _kept(step: Step) -> Obligation:
    return _obligation(f"step-{step.name}", f"The invariant is kept when {step.says}.", lambda: list(_kept_claims(step)), step.functions)


def _kept_claims(step: Step) -> Iterator[Claim]:
    """Yield a claim for each part of the invariant that says something about what the step changes."""
    s, chosen = symbolic(), parameters(step)
    after = step.effect(s, *chosen)
    assumptions = {HOLDS: invariant(s), _can(step): formula(step.guard(s, *chosen))}
    # Equal terms have equal numbers as long as they exist: what reads the same after the step is assumed already.
    before = list(conjuncts(formula(invariant(s))))
    same = {part.get_id() for part in before}
    untouched = True
    for part in INVARIANT:
        changed = [goal for goal in conjuncts(formula(part.holds(after))) if goal.get_id() not in same]
        if changed:
            untouched = False
            yield Claim(assumptions, z3.And(*changed), part=part.name)
    if untouched:
        yield Claim(assumptions, z3.And(*(now == then for now, then in zip(after, s, strict=True))), part="nothing changes")


def _safety(part: Property) -> Obligation:
    def build() -> Claim:
        s = symbolic()
        return Claim({HOLDS: invariant(s)}, formula(part.holds(s)))

    return _obligation(part.name, f"At any moment, {part.statement}.", build, (externref.drop, externref.clone, collector.gc))


def _any_step(steps: Iterable[Step], goal: Goal) -> Claim:
    """Return the claim that each of some steps has a property if the invariant holds before it: one formula for all."""
    s = symbolic()
    after = State(*(z3.Int(f"{name} after") for name in State._fields))
    taken = []
    for step in steps:
        chosen = parameters(step)
        same = (now == then for now, then in zip(after, step.effect(s, *chosen), strict=True))
        taken.append(every(step.guard(s, *chosen), *same))
    return Claim({HOLDS: invariant(s), "one of the steps is taken": either(*taken)}, formula(goal(s, after)))


def _zero_claim() -> Claim:
    others = (step for step in STEPS if step.name != "release-last")
    return _any_step(others, lambda before, after: implies(before.ref_count >= 1, after.ref_count >= 1))


def _failed_walk_claim() -> Claim:
    same = [name for name in State._fields if name not in {"ref_count", "precise", "carried", "owed", "phase"}]

    def goal(before: State, after: State) -> Truth:
        # What the precise set owns comes and goes; all else is as it was.
        own_before = before.ref_count + before.owed - before.precise - before.carried
        own_after = after.ref_count + after.owed - after.precise - after.carried
        kept = every(own_before == own_after, *(getattr(before, name) == getattr(after, name) for name in same))
        return every(kept, implies(after.phase == IDLE, after.precise + after.carried + after.owed == 0))

    return _any_step([BY_NAME[name] for name in _WALKING], goal)


def _complete_claim() -> Claim:
    def goal(_before: State, after: State) -> Truth:
        needed = either(after.live >= 1, after.touched == 1)
        unowned = every(owners(after) == 0, after.live == 0, after.touched == 0)
        return every(after.chunk == 0, implies(after.over == 1, needed), implies(unowned, after.life != ALIVE))

    return _claim(BY_NAME["collection-ends"], goal)


def _sweep_claims() -> list[Claim]:
    def left(s: State) -> Term:
        return s.chunk + s.sweeping

    def no_more(before: State, after: State) -> Truth:
        return implies(every(before.phase == SWEEP, after.phase == SWEEP), left(after) <= left(before))

    releases = [BY_NAME["slot-emptied"], BY_NAME["member-taken"]]
    return [
        replace(_any_step(STEPS, no_more), part="no step adds"),
        replace(_any_step(releases, lambda before, after: left(after) == left(before) - 1), part="each release takes one away"),
    ]


def _stuck_claim() -> Claim:
    s = symbolic()
    # Room is the only parameter: some chunk has at least one slot.
    guards = [step.guard(s, *[z3.IntVal(1)] * len(step.bounds)) for step in _COLLECTOR if not step.name.startswith("other-destructor")]
    assumptions = {
        HOLDS: invariant(s),
        "a collection is under way": s.phase != IDLE,
        "no destructor is": every(s.depth == 0, s.life != CONDEMNED, s.life != DYING),
        "the count has not reached its largest value": s.ref_count < COUNT_MAX,
    }
    return Claim(assumptions, formula(either(*guards)))


def _refuted(defect: Defect) -> Obligation:
    step = defect.step

    def build() -> Claim:
        s, chosen = symbolic(), parameters(step)
        assumptions = {
            HOLDS: invariant(s),
            _can(step): formula(step.guard(s, *chosen)),
            f"the object is {LIVES[defect.life]}": s.life == defect.life,
        }
        terms = {**s._asdict(), **{str(parameter): parameter for parameter in chosen}}
        return Claim(assumptions, formula(invariant(step.effect(s, *chosen))), terms, lambda values: replayed(defect, values))

    statement = f"If {defect.says}, the invariant is kept all the same ({defect.origin})."
    return Obligation(f"{SUBJECT}-defect-{defect.name}", SUBJECT, statement, Verdict.REFUTED, build, step.functions, "integers")


def replayed(defect: Defect, values: Mapping[str, int | bool]) -> str:
    """Take a defect's step on numbers, then look for a way from the initial state to harm, and tell both in one line.

    Args:
        defect: The defect.
        values: A state and parameters for which the invariant is said to hold before the step and not after it.

    Raises:
        WitnessRefuted: It does not show on numbers.
    """
    step = defect.step
    before = State(*(int(values[name]) for name in State._fields))
    arguments = [int(values[str(parameter)]) for parameter in parameters(step)]
    wrong = broken(INVARIANT, before)
    if wrong:
        raise WitnessRefuted(f"the invariant does not hold before the step: {wrong[0].statement}")
    if step.guard(before, *arguments) is not True:
        raise WitnessRefuted(f"the step {step.name} cannot be taken in: {describe(before)}")
    after = step.effect(before, *arguments)
    lost = broken(INVARIANT, after)
    if not lost:
        raise WitnessRefuted(f"the invariant still holds after {step.name}: {describe(after)}")
    try:
        way = defect.way()
    except ValueError as error:
        raise WitnessRefuted(str(error)) from error
    names = ", ".join(taken.step.name for taken in way)
    return (
        f"{step.name} takes [{describe(before)}] to [{describe(after)}], where it is not so that {lost[0].statement}; "
        f"from the initial state {len(way)} steps lead to a {defect.harm.name} [{describe(way[-1].state)}]: {names}"
    )


def story(defect: Defect) -> list[str]:
    """Tell a shortest way from the initial state to harm, a line for each step."""
    return [f"{number:3}  {taken.text()}" for number, taken in enumerate(defect.way(), 1)]
