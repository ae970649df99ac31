"""The protocol's invariant holds always, its text means the same to z3 and to Python, and each defect of the record is seen to break it."""

from collections.abc import Callable
from itertools import islice

import pytest
import z3

from proofs.counting import formula, obligations, parameters, replayed, story
from proofs.obligations import Verdict, WitnessRefuted
from proofs.protocol import (
    ALIVE,
    EMPTY,
    INVARIANT,
    MERGE,
    SAFETY,
    SWEEP,
    Property,
    State,
    broken,
    choose,
    describe,
    either,
    every,
    implies,
    initial,
    invariant,
    mutating,
    sweeping,
    symbolic,
)
from proofs.protocol_defects import BORROWED, DANGLING, DANGLING_ROOT, DEFECTS, HALF_SWEPT, LEAKED
from proofs.protocol_search import CAPS_USUAL, START, Searched, TooManyStates, search
from proofs.protocol_steps import BY_NAME, STEPS, Step
from proofs.solving import discharge

# Shortest ways to harm. A change of the protocol that makes a defect easier or harder to reach shows here.
WAYS = {
    "collection-between-two-arguments": 7,
    "duplicate-keeps-its-count": 15,
    "count-wraps": 6,
    "release-before-store": 3,
    "store-without-barrier": 3,
    "uninitialised-word-dropped": 4,
    "unrooting-does-nothing": 2,
    "fields-not-released": 3,
    "stale-word-counted": 16,
    "map-misses-a-local": 8,
    "sweep-after-failed-walk": 9,
    "root-not-counted": 9,
    "sweep-inside-a-sweep": 13,
    "chunk-reset-in-place": 13,
    "old-set-cleared-while-borrowed": 8,
    "panic-leaves-the-sweep": 9,
    "merged-and-given-back": 16,
}


@pytest.fixture(scope="module")
def reachable() -> list[State]:
    """All states that can be reached within small bounds, in the order of the search."""
    states: list[State] = []

    def never(s: State) -> bool:
        states.append(s)
        return False

    search(STEPS, never)
    return states


def sat(*conditions: object) -> bool:
    solver = z3.Solver()
    solver.add(*conditions)
    answer = solver.check()
    assert answer != z3.unknown
    return bool(answer == z3.sat)


def test_every_obligation_comes_out_as_expected() -> None:
    results = [discharge(obligation) for obligation in obligations()]
    assert {result.name: (result.verdict, result.problems) for result in results if result.surprising} == {}
    verdicts = [result.verdict for result in results]
    assert (verdicts.count(Verdict.PROVED), verdicts.count(Verdict.REFUTED)) == (len(STEPS) + len(SAFETY) + 6, len(DEFECTS))


def test_the_search_finds_no_state_without_the_invariant_and_takes_every_step() -> None:
    """It needs no induction, so it would also see an invariant that holds nowhere."""
    searched = search(STEPS, lambda s: bool(broken(INVARIANT + SAFETY, s)))
    assert searched.way is None
    assert searched.states == 2447
    assert [name for name, times in searched.fired.items() if not times] == []


def test_no_harm_can_be_reached_without_a_defect() -> None:
    harms = (DANGLING, DANGLING_ROOT, LEAKED, HALF_SWEPT, BORROWED)
    assert search(STEPS, lambda s: any(harm.holds(s) is True for harm in harms), {**CAPS_USUAL, "held": 3, "live": 2}).way is None


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_leads_to_harm(defect: object) -> None:
    found = next(known for known in DEFECTS if known is defect)
    way = found.way()
    assert len(way) == WAYS[found.name]
    assert found.harm.holds(way[-1].state) is True
    assert all(found.harm.holds(taken.state) is False for taken in way[:-1])
    # The way is one of the defect's protocol, and goes through a step that is not the proved one.
    state = START
    proved = True
    for taken in way:
        assert taken.step.guard(state, *taken.arguments) is True
        state = taken.step.effect(state, *taken.arguments)
        assert state == taken.state
        proved = proved and taken.step is BY_NAME.get(taken.step.name)
    assert not proved


def test_what_is_claimed_of_a_step_is_the_whole_invariant() -> None:
    """A claim leaves out what the step does not change, which must be nothing but that."""
    s = symbolic()
    for step, obligation in zip(STEPS, (found for found in obligations() if found.name.startswith("counting-step-")), strict=True):
        assert obligation.name == f"counting-step-{step.name}"
        claims = obligation.claims()
        after = invariant(step.effect(s, *parameters(step)))
        # Without the guard, so that nothing can be proved here that a claim would have had to say.
        assert not sat(invariant(s), *(claim.goal for claim in claims), z3.Not(formula(after)))


@pytest.mark.parametrize("dropped", INVARIANT, ids=lambda part: part.name)
def test_no_part_of_the_invariant_is_superfluous(dropped: Property) -> None:
    """Without it, either another part is no longer kept by some step, or something that users rely on no longer follows."""
    kept = [part for part in INVARIANT if part is not dropped]
    s = symbolic()
    before = every(*(part.holds(s) for part in kept))
    lost = [part.name for part in SAFETY if sat(before, z3.Not(formula(part.holds(s))))]
    for step in STEPS:
        chosen = parameters(step)
        after = every(*(part.holds(step.effect(s, *chosen)) for part in kept))
        if sat(before, step.guard(s, *chosen), z3.Not(formula(after))):
            lost.append(step.name)
    assert lost


@pytest.mark.parametrize(
    ("name", "weaker"),
    [
        ("collection-begins", lambda s: s.phase == 0),
        ("chunk-opened", lambda s, room: every(sweeping(s), room >= 1)),
        ("slot-emptied", lambda s: every(s.phase == SWEEP, s.chunk >= 1, s.depth >= 0)),
        ("insert-into-chunk", lambda s: every(mutating(s), s.held >= 1)),
        ("collection-ends", lambda s: s.phase == MERGE),
        ("insert-again", lambda s: every(mutating(s), s.held >= 1)),
        ("store", lambda s, number: every(mutating(s), number >= 1)),
    ],
)
def test_a_step_with_a_weaker_guard_breaks_the_invariant_or_was_guarded_too_much(name: str, weaker: Callable[..., object]) -> None:
    s = symbolic()
    step = BY_NAME[name]
    chosen = parameters(step)
    breaks = sat(invariant(s), weaker(s, *chosen), z3.Not(formula(invariant(step.effect(s, *chosen)))))
    # Releasing an entry while a destructor runs would do no harm: the order of a sweep and of destructors is no part of its safety.
    assert breaks is (name != "slot-emptied")


def test_both_readings_of_the_text_agree(reachable: list[State]) -> None:
    s = symbolic()
    texts = [(part.name, formula(part.holds(s)), part.holds) for part in INVARIANT + SAFETY]
    for step in STEPS:
        chosen = parameters(step)
        texts.append((step.name, formula(step.guard(s, *chosen)), _first(step, step.guard)))
        after = State(*(z3.Int(f"{name} after") for name in State._fields))
        same = z3.And(*(now == then for now, then in zip(after, step.effect(s, *chosen), strict=True)))
        assert sat(same)
    for state in islice(reachable, 0, None, 150):
        values = [(variable, z3.IntVal(number)) for variable, number in zip(s, state, strict=True)]
        values += [(z3.Int(f"parameter {number}"), z3.IntVal(1)) for number in range(2)]
        for name, symbols, concrete in texts:
            said = z3.simplify(z3.substitute(symbols, *values))
            assert z3.is_true(said) or z3.is_false(said)
            assert (name, z3.is_true(said)) == (name, concrete(state))


def _first(step: Step, guard: Callable[..., object]) -> Callable[[State], object]:
    return lambda s: guard(s, *[1] * len(step.bounds))


def test_effects_read_alike(reachable: list[State]) -> None:
    s = symbolic()
    state = next(known for known in reachable if known.phase == SWEEP and known.life == ALIVE and known.guest and known.over)
    values = [(variable, z3.IntVal(number)) for variable, number in zip(s, state, strict=True)]
    for step in STEPS:
        chosen = [1] * len(step.bounds)
        symbols = step.effect(s, *chosen)
        numbers = [z3.simplify(z3.substitute(z3.IntVal(0) + term, *values)).as_long() for term in symbols]
        assert (step.name, State(*numbers)) == (step.name, step.effect(state, *chosen))


def test_truths_are_computed_where_they_can_be() -> None:
    x = z3.Int("x")
    assert (every(True, True), every(True, False), either(False, False), either(False, True)) == (True, False, False, True)
    assert (implies(False, x > 0), implies(True, False), choose(True, 1, 2), choose(False, 1, 2)) == (True, False, 1, 2)
    assert (every(x > 0, False), either(x > 0, True)) == (False, True)
    assert not sat(z3.Not(every(x > 0, True)), x > 0)
    assert not sat(z3.Not(either(x > 0, False)), x > 0)
    assert not sat(implies(x > 0, x > 1), x == 1)
    assert not sat(choose(x > 0, x, -x) < 0)


def test_the_initial_state_of_the_search_is_initial() -> None:
    assert initial(START) is True
    assert initial(EMPTY) is False


def test_a_search_that_meets_too_many_states_says_so() -> None:
    with pytest.raises(TooManyStates, match="more than 10 states"):
        search(STEPS, lambda s: False, states_max=10)
    assert search(STEPS, lambda s: s == START) == Searched(1, dict.fromkeys(BY_NAME, 0), ())


def values_of(state: State, *chosen: int) -> dict[str, int]:
    return {**state._asdict(), **{f"parameter {number}": value for number, value in enumerate(chosen)}}


def test_a_witness_that_shows_nothing_is_refused() -> None:
    barrier = next(defect for defect in DEFECTS if defect.name == "store-without-barrier")
    owned = EMPTY._replace(life=ALIVE, ref_count=1, held=1, room=1)
    assert "where it is not so that the count is the number of owners" in replayed(barrier, values_of(owned))
    with pytest.raises(WitnessRefuted, match="does not hold before"):
        replayed(barrier, values_of(owned._replace(ref_count=2)))
    with pytest.raises(WitnessRefuted, match="cannot be taken"):
        replayed(barrier, values_of(START))
    wraps = next(defect for defect in DEFECTS if defect.name == "count-wraps")
    with pytest.raises(WitnessRefuted, match="still holds"):
        replayed(wraps, values_of(owned))


def test_a_way_to_harm_is_told_in_the_terms_of_the_subject() -> None:
    told = story(next(defect for defect in DEFECTS if defect.name == "collection-between-two-arguments"))
    assert told == [
        "  1  new: alive, count 1, owned 1 by the host; no collection, room for 1",
        "  2  insert-into-chunk: alive, count 1, owned 1 in the chunk; copies on their way to Wasm: 1; no collection, room for 0",
        "  3  collection-begins: alive, count 1, owned 1 in the chunk; copies on their way to Wasm: 1; walking the stack, room for 0",
        "  4  chunk-closed: alive, count 1, owned 1 in the chunk; copies on their way to Wasm: 1; chunk closed, room for 0",
        "  5  old-set-put-aside: alive, count 1, owned 1 in the chunk; copies on their way to Wasm: 1; sweeping, room for 0",
        "  6  slot-emptied: alive, count 1, owned 1 by the host; copies on their way to Wasm: 1; sweeping, room for 0",
        "  7  release-last: condemned, count 0, owned by nobody; copies on their way to Wasm: 1; sweeping, room for 0",
    ]


def test_a_state_is_described_in_full() -> None:
    full = State(*[1] * len(State._fields))
    text = describe(full)
    assert all(
        word in text for word in ("alive", "by the host", "in values", "the old set", "stale words", "running inside: 1", "yet to follow")
    )
