"""Exploration finds each feasible path once, and a symbolic memory is a memory."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import z3

from impl.arena import raw_memory
from impl.errors import Aborted, AllocationFailed, Panicked
from impl.hash_set import set_swap
from impl.layout import layout_for
from impl.stack import pop_frame, push_frame
from proofs import paths
from proofs.memory import SymbolicMemory, at, fresh_memory
from proofs.paths import Outcome, Path, TooManyPaths, always, explore, wrapped

A, B = z3.BitVecs("a b", 64)


def proves(claim: z3.BoolRef, *assumptions: z3.BoolRef) -> bool:
    solver = z3.Solver()
    solver.add(*assumptions, z3.Not(claim))
    return bool(solver.check() == z3.unsat)


def largest(path: Path) -> Any:
    a, b = path.word(A), path.word(B)
    return max(b, a)


def test_each_branch_is_a_path_and_together_they_are_the_function() -> None:
    outcomes = explore(largest)
    assert len(outcomes) == 2
    assert proves(always(outcomes, lambda outcome: z3.And(z3.UGE(outcome.term, A), z3.UGE(outcome.term, B))))
    assert not proves(always(outcomes, lambda outcome: outcome.term == A))


def test_an_infeasible_path_is_not_taken() -> None:
    assert len(explore(largest, [z3.UGT(A, B)])) == 1
    assert len(explore(lambda path: largest(path) if path.word(A) > 5 else path.word(A) > 6)) == 3


def test_a_path_that_was_forgotten_fails_the_proof() -> None:
    outcomes = explore(largest)
    assert not proves(always(outcomes[:1], lambda _outcome: True))
    assert proves(wrapped(outcomes[:1], lambda _outcome: True))


def test_paths_of_stronger_assumptions_do_not_prove_a_weaker_claim() -> None:
    outcomes = explore(largest, [z3.UGT(A, B)])
    assert proves(always(outcomes, lambda outcome: outcome.term == A), z3.UGT(A, B))
    assert not proves(always(outcomes, lambda outcome: outcome.term == A))


def test_a_requirement_holds_only_behind_the_decisions_before_it() -> None:
    def guarded(path: Path) -> Any:
        a = path.word(A)
        return a + 1 if a < 10 else a

    assert proves(always(explore(guarded), lambda _outcome: True))
    assert not proves(always(explore(lambda path: path.word(A) + 1), lambda _outcome: True))


def test_what_the_simulated_language_raises_is_an_outcome_and_anything_else_is_not() -> None:
    def raising(path: Path) -> int:
        if path.word(A) == 0:
            raise Panicked("on request")
        if path.word(A) == 1:
            raise Aborted("on request")
        return 7

    assert [type(outcome.raised).__name__ for outcome in explore(raising)] == ["Panicked", "Aborted", "NoneType"]
    with pytest.raises(ZeroDivisionError):
        explore(lambda _path: 1 // 0)


def test_an_endless_loop_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "DECISIONS_MAX", 8)

    def endless(path: Path) -> None:
        a = path.word(A)
        while a != 0:
            a = path.word(z3.FreshConst(z3.BitVecSort(64)))

    with pytest.raises(TooManyPaths, match="loop that was not cut"):
        explore(endless)


def test_exploration_is_the_same_each_time() -> None:
    def told() -> list[str]:
        return [
            f"{outcome.condition} {outcome.value} {outcome.raised}"
            for outcome in explore(lambda path: layout_for(path.word(A), path.word(B)), [B != 0])
        ]

    assert told() == told()


class Constant:
    """A path for constants."""

    division = False

    def take(self, condition: z3.BoolRef) -> bool:
        return bool(z3.is_true(z3.simplify(condition)))

    def require(self, what: str, condition: z3.BoolRef) -> None:
        assert z3.is_true(z3.simplify(condition)), what


WORDS = 128


def test_functions_leave_the_same_words_in_a_symbolic_and_in_a_raw_memory() -> None:
    raw = raw_memory(WORDS)
    array = fresh_memory()
    for index in range(WORDS):
        raw[index] = index * 3
        array = z3.Store(array, index, z3.BitVecVal(index * 3, 64))
    mem: Any = SymbolicMemory(Constant(), array)
    raw[8], mem[8] = 64, 64
    raw[10], mem[10] = 120, 120
    raw[123], mem[123] = 1, 1
    for memory in (raw, mem):
        set_swap(memory, 20, 24)
        push_frame(memory, 2, 99, 4, 5)
        push_frame(memory, 4, 98, 2, 6)
    assert [z3.simplify(at(mem.now, index)).as_long() for index in range(WORDS)] == list(raw)
    pop_frame(raw)
    assert raw[10] == 114


@pytest.mark.parametrize("address", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("stored", [0, 1, 1 << 63, (1 << 64) - 1])
def test_a_word_that_was_stored_is_read_back_at_every_boundary(address: int, stored: int) -> None:
    mem: Any = SymbolicMemory(Constant(), fresh_memory())
    mem[address] = stored
    assert z3.simplify(mem[address].term).as_long() == stored
    assert proves(z3.Implies(address != A, mem.kept(A)))
    assert [z3.simplify(index).as_long() for index, _ in mem.writes] == [address]
    assert [z3.simplify(index).as_long() for index in mem.reads] == [address]


def test_the_log_says_where_was_written_and_read() -> None:
    def run(path: Path) -> None:
        path.mem[path.word(A)] = path.mem[path.word(B)]

    (outcome,) = explore(run)
    assert proves(outcome.mem.wrote_only([A]))
    assert proves(outcome.mem.wrote_only([(A, A + 1)]), A != 2**64 - 1)
    assert not proves(outcome.mem.wrote_only([B]))
    assert not proves(outcome.mem.wrote_only([]))
    assert proves(outcome.mem.read_only([B]))
    assert not proves(outcome.mem.read_only([A]))


def test_a_store_of_what_was_there_is_a_store_all_the_same() -> None:
    def run(path: Path) -> None:
        path.mem[path.word(A)] = path.mem[path.word(A)]

    (outcome,) = explore(run)
    assert proves(outcome.mem.kept(B))
    assert not proves(outcome.mem.wrote_only([]))


def test_paths_agree_with_the_function_on_concrete_words() -> None:
    """Whatever words are put in, exactly one path is taken, and it ends as the function does."""
    outcomes = explore(lambda path: layout_for(path.word(A), path.word(B)), [B != 0, B & (B - 1) == 0])
    values = (0, 1, 7, 8, 9, (1 << 63) - 33, (1 << 63) - 32, (1 << 63) - 1, (1 << 64) - 1)
    for size, shift in itertools.product(values, (0, 3, 4, 62, 63)):
        taken = [outcome for outcome in outcomes if z3.is_true(put(outcome.condition, size, 1 << shift))]
        assert len(taken) == 1
        try:
            expected: object = layout_for(size, 1 << shift)
        except AllocationFailed:
            assert isinstance(taken[0].raised, AllocationFailed)
        else:
            assert tuple(put(value, size, 1 << shift).as_long() for value in taken[0].terms()) == expected


def put(formula: Any, a: int, b: int) -> Any:
    return z3.simplify(z3.substitute(formula, (A, z3.BitVecVal(a, 64)), (B, z3.BitVecVal(b, 64))))


def test_an_outcome_tells_its_terms() -> None:
    (outcome,) = explore(lambda path: (path.word(A), 5))
    assert isinstance(outcome, Outcome)
    assert outcome.terms()[0].eq(A)
    assert outcome.terms(64)[1].as_long() == 5
