"""Each obligation has the verdict that it should have, and an answer that is wrong in any way is noticed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import z3

from impl.layout import round_up_to_align
from proofs import solving
from proofs.obligations import Claim, Obligation, Verdict, WitnessRefuted, obligations, statement
from proofs.replays import Values, needs
from proofs.solving import check, conjuncts, discharge, value

A, B = z3.BitVecs("a b", 64)
EVERYTHING = obligations()


def test_there_are_as_many_obligations_as_promised() -> None:
    expected = Counter(obligation.expected for obligation in EVERYTHING)
    assert expected[Verdict.PROVED] + expected[Verdict.REFUTED] == len(EVERYTHING) >= 40
    assert expected[Verdict.REFUTED] >= 10
    assert {"layout", "memory operations", "lookup", "registry", "counting"} == {obligation.subject for obligation in EVERYTHING}


@pytest.mark.parametrize("obligation", EVERYTHING, ids=lambda obligation: obligation.name)
def test_an_obligation_has_its_verdict(obligation: Obligation) -> None:
    result = discharge(obligation)
    assert (result.verdict, result.problems) == (obligation.expected, ())
    # A step of the counting protocol is stated with its guard, whether its proof needs that or not.
    assert not result.unused or obligation.subject == "counting"
    for claim in result.claims:
        assert bool(claim.witness) == bool(claim.shown) == (obligation.expected is Verdict.REFUTED)


def obligation_of(claim: Claim | list[Claim], expected: Verdict = Verdict.PROVED) -> Obligation:
    return Obligation("one", "subject", "A statement.", expected, lambda: claim, (round_up_to_align,))


SMALL = {"a is small": z3.ULT(A, 10)}


def test_what_holds_is_proved_and_names_what_it_used() -> None:
    result = discharge(obligation_of(Claim(SMALL | {"b is small": z3.ULT(B, 10)}, z3.ULT(A, 20))))
    assert (result.verdict, result.unused, result.surprising) == (Verdict.PROVED, ("b is small",), False)
    assert result.claims[0].used == ("a is small",)


def test_what_fails_is_refuted_with_a_witness() -> None:
    claim = Claim(SMALL, z3.ULT(A, 5), {"a": A}, lambda values: f"a is {values['a']}")
    result = discharge(obligation_of(claim, Verdict.REFUTED))
    ((name, found),) = result.claims[0].witness
    assert (name, 5 <= found < 10, result.claims[0].shown, result.surprising) == ("a", True, f"a is {found}", False)


@pytest.mark.parametrize("expected", [Verdict.PROVED, Verdict.REFUTED])
def test_an_answer_that_was_not_expected_is_surprising(expected: Verdict) -> None:
    goal = z3.ULT(A, 5) if expected is Verdict.PROVED else z3.ULT(A, 20)
    result = discharge(obligation_of(Claim(SMALL, goal, {"a": A}, lambda _values: "shown"), expected))
    assert result.surprising
    assert {result.verdict, expected} == {Verdict.PROVED, Verdict.REFUTED}


def test_assumptions_that_contradict_each_other_are_a_problem() -> None:
    result = discharge(obligation_of(Claim(SMALL | {"a is large": z3.UGT(A, 10)}, z3.ULT(A, 5))))
    assert result.problems == ("the assumptions contradict each other",)
    assert result.surprising


def test_a_witness_that_shows_nothing_is_a_problem() -> None:
    def replay(values: Values) -> str:
        needs(values["a"] == 77, "a is not 77")
        return ""

    result = discharge(obligation_of(Claim(SMALL, z3.ULT(A, 5), {"a": A}, replay), Verdict.REFUTED))
    assert result.problems == ("the witness does not show it: a is not 77",)
    assert result.surprising
    with pytest.raises(WitnessRefuted):
        replay({"a": 1})


def test_a_model_that_is_none_is_a_problem() -> None:
    claim = Claim(SMALL, z3.ULT(A, 5), {"a": A}, lambda _values: "shown")
    wrong = z3.Solver()
    wrong.add(A == 3)
    assert wrong.check() == z3.sat
    found = solving._refuted(solving.ClaimResult("", Verdict.UNKNOWN, ()), claim, wrong.model())
    assert found.problem == "the solver's model is no model: an assumption fails in it, or the goal holds"
    assert found.verdict is Verdict.UNKNOWN


def test_a_solver_that_gives_up_is_unknown_and_nothing_else() -> None:
    factors = z3.And(z3.UGT(A, 1), z3.UGT(B, 1), z3.ULT(A, 1 << 31), z3.ULT(B, 1 << 31))
    claim = Claim({"both are factors": factors}, A * B != 2305843009213693951)
    result = discharge(obligation_of(claim), seconds=0.3)
    assert (result.verdict, result.surprising) == (Verdict.UNKNOWN, False)


def test_one_part_that_fails_is_enough() -> None:
    right, wrong = Claim(SMALL, z3.ULT(A, 20), part="right"), Claim(SMALL, z3.ULT(A, 5), part="wrong")
    assert discharge(obligation_of([right, wrong])).verdict is Verdict.REFUTED
    replayed = replace(wrong, terms={"a": A}, replay=lambda _values: "shown")
    assert (
        discharge(obligation_of([replayed, replace(right, terms={"a": A}, replay=lambda _values: "")], Verdict.REFUTED)).verdict
        is Verdict.PROVED
    )


def test_an_obligation_that_cannot_be_judged_is_refused() -> None:
    for claims, message in (
        ([], "no claim was built"),
        ([Claim({}, z3.BoolVal(True)), Claim({}, z3.BoolVal(True))], "two parts have one name"),
    ):
        with pytest.raises(ValueError, match=message):
            obligation_of(claims).claims()
    with pytest.raises(ValueError, match="neither told nor replayed"):
        obligation_of(Claim({}, z3.BoolVal(False)), Verdict.REFUTED).claims()
    with pytest.raises(ValueError, match="states nothing"):
        statement(lambda: None)


def test_a_goal_is_the_conjunction_of_its_parts() -> None:
    p, q, r, s = z3.Bools("p q r s")
    goal = z3.And(p, z3.Implies(q, z3.And(r, z3.Implies(s, z3.And(p, r)))), z3.BoolVal(True))
    parts = list(conjuncts(goal))
    assert len(parts) == 4
    different = z3.Solver()
    different.add(z3.And(*parts) != goal)
    assert different.check() == z3.unsat


def test_values_are_numbers_and_truth_values() -> None:
    assert [value(z3.BitVecVal(7, 8)), value(z3.IntVal(-3)), value(z3.BoolVal(True)), value(z3.BoolVal(False))] == [7, -3, True, False]
    with pytest.raises(ValueError, match="is no value"):
        value(A)


def test_a_question_that_is_answered_in_time_is_not_interrupted() -> None:
    asked = z3.Solver()
    asked.add(A == 5)
    assert check(asked, 30.0) == z3.sat
