"""Each state machine runs for a moment, and each has been seen to fail."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

import fuzz.machines.engine
import impl.activations_table
import impl.arena
import impl.hash_set
import impl.runtime
import impl.stack_maps
from fuzz.driver import Divergence, Driver, Outcome
from fuzz.machines.activations_table import ActivationsTableMachine
from fuzz.machines.arena import ArenaMachine
from fuzz.machines.engine import run_hypothesis
from fuzz.machines.findings import DivergenceFound, Finding
from fuzz.machines.hash_set import HashSetMachine
from fuzz.machines.registry import RegistryMachine
from fuzz.machines.runtime import RULES, LockstepMachine, RuntimeMachine, machine
from fuzz.results import MissingExtra
from impl.header import FREE_LIST
from model.limits import SCOPES
from model.ops import SPECS, Context, Kind
from model.trace import parse

GENERATE = (Phase.generate,)
SHRINK = (Phase.generate, Phase.shrink)

COMPONENTS = [ArenaMachine, HashSetMachine, ActivationsTableMachine, RegistryMachine]


def run(kind: type[RuleBasedStateMachine], examples: int, steps: int, phases: tuple[Phase, ...] = GENERATE) -> None:
    chosen = settings(max_examples=examples, stateful_step_count=steps, phases=phases, database=None, report_multiple_bugs=False)
    run_state_machine_as_test(seed(7)(kind), settings=chosen)


class Notes:
    """Remembers what examples did."""

    def __init__(self) -> None:
        self.begun = 0
        self.outcomes: list[Outcome] = []
        self.findings: list[Divergence] = []

    def begins(self) -> None:
        self.begun += 1

    def ended(self, outcome: Outcome, divergence: Divergence | None) -> None:
        self.outcomes.append(outcome)
        if divergence is not None:
            self.findings.append(divergence)


@pytest.mark.parametrize("kind", COMPONENTS)
def test_a_component_agrees_with_its_reference(kind: type[RuleBasedStateMachine]) -> None:
    run(kind, 30, 40)


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_the_runtime_agrees_with_the_model(scope: str) -> None:
    run(machine(SCOPES[scope]), 8, 40)


def test_there_is_a_rule_for_each_kind_that_can_begin_a_step() -> None:
    assert set(RULES) == {kind for kind in Kind if SPECS[kind].contexts != (Context.DESTRUCTOR,)}
    assert RuntimeMachine.limits is SCOPES["everything"]


def test_every_example_is_told_of_once_and_destructors_act_in_some() -> None:
    notes = Notes()
    run(machine(SCOPES["reentrancy"], record=notes), 40, 40)
    assert len(notes.outcomes) == notes.begun >= 40
    assert max(max(outcome.depths, default=0) for outcome in notes.outcomes) >= 1
    assert notes.findings == []


def test_limits_without_any_operation_make_examples_that_do_nothing() -> None:
    notes = Notes()
    run(machine(SCOPES["counting"].__class__(kinds=frozenset()), record=notes), 3, 5)
    assert all(outcome.rows == () for outcome in notes.outcomes)


def forgets_to_count(_mem: Any, externref: int) -> int:
    return externref


def test_a_clone_that_is_not_counted_shrinks_to_two_lines_that_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impl.runtime, "clone", forgets_to_count)
    with pytest.raises(DivergenceFound) as caught:
        run(machine(SCOPES["everything"]), 100, 40, SHRINK)
    trace = parse(caught.value.text)
    assert [row[0] for row in trace.rows] == [Kind.NEW, Kind.CLONE]
    assert caught.value.text in "\n".join(caught.value.__notes__)
    with pytest.raises(Divergence) as again:
        Driver(trace.limits, checked=True).replay(trace.rows)
    assert again.value.verdict == caught.value.divergence.verdict == "InvariantViolated"


def test_a_defect_inside_a_destructor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count of a field that a destructor reads is lost, which nothing outside destructors can show."""
    monkeypatch.setattr(impl.runtime.Runtime, "field", lambda self, ref, index: self.memory[self.value_of(ref) + index])
    with pytest.raises(DivergenceFound) as caught:
        run(machine(SCOPES["reentrancy"]), 400, 40)
    found = caught.value.divergence
    assert found.rows[-1][0] == Kind.GET_FIELD
    assert found.depths[-1] >= 1


def test_a_run_that_does_not_end_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def never_ends(_mem: Any, externref: int) -> int:
        while externref:
            pass
        return externref

    monkeypatch.setattr(impl.runtime, "clone", never_ends)
    monkeypatch.setattr("fuzz.machines.runtime.STEP_SECONDS_MAX", 0.05)
    with pytest.raises(DivergenceFound) as caught:
        run(machine(SCOPES["counting"]), 50, 40)
    assert caught.value.divergence.verdict == "Hang"


def counts_twice(mem: Any, table: int, externref: int) -> None:
    impl.hash_set.set_insert(mem, table + impl.activations_table.OVER, externref)


def never_coalesces(mem: Any, previous: int, address: int, words: int, following: int) -> None:
    mem[address] = words
    mem[address + 1] = following
    mem[previous + 1 if previous else FREE_LIST] = address


def leaves_a_gap(mem: Any, buckets: int, _mask: int, _seed: int, gap: int) -> None:
    mem[buckets + gap] = 0


def takes_the_neighbour(mem: Any, entries: int, count: int, pc: int) -> int:
    return entries if count and mem[entries] <= pc else 0


@pytest.mark.parametrize(
    ("kind", "module", "name", "defect"),
    [
        (ActivationsTableMachine, impl.activations_table, "insert_slow_without_gc", counts_twice),
        (ActivationsTableMachine, impl.activations_table, "increment_ref_count", lambda _mem, _externref: None),
        (ArenaMachine, impl.arena, "join", never_coalesces),
        (HashSetMachine, impl.hash_set, "close_gap", leaves_a_gap),
        (RegistryMachine, impl.stack_maps, "entry_at", takes_the_neighbour),
    ],
)
def test_a_component_with_a_defect_is_caught(
    kind: type[RuleBasedStateMachine], module: object, name: str, defect: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, defect)
    # The machine of the table has bound this name for itself.
    if hasattr(__import__(kind.__module__, fromlist=[name]), name):
        monkeypatch.setattr(f"{kind.__module__}.{name}", defect)
    with pytest.raises(Finding):
        run(kind, 400, 50)


def test_the_engine_does_as_many_runs_as_it_may_and_the_same_again() -> None:
    first, second = (run_hypothesis(SCOPES["everything"], seconds=60, runs=25, seed=5, max_steps=30) for _ in range(2))
    assert (first.runs, first.finding) == (25, None)
    assert (first.operations, first.counts, first.seen) == (second.operations, second.counts, second.seen)
    assert sum(first.counts) == first.operations


def test_the_engine_stops_when_its_time_is_up() -> None:
    result = run_hypothesis(SCOPES["counting"], seconds=0.0, runs=None, seed=5, max_steps=30)
    assert (result.runs, result.operations, result.finding) == (0, 0, None)
    assert run_hypothesis(SCOPES["counting"], seconds=0.3, runs=None, seed=5, max_steps=30).runs > 0


def test_the_engine_hands_back_the_smallest_finding_and_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impl.runtime, "clone", forgets_to_count)
    result = run_hypothesis(SCOPES["calls"], seconds=60, runs=100, seed=1, max_steps=40)
    found = result.finding
    assert found is not None
    assert [row[0] for row in found.rows[: found.chosen]] == [Kind.NEW, Kind.CLONE]
    with pytest.raises(Divergence):
        Driver(result.limits, checked=result.checked).replay(found.rows[: found.chosen])


def test_shrinking_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impl.runtime, "clone", forgets_to_count)
    monkeypatch.setattr(fuzz.machines.engine, "SHRINK_SECONDS_MAX", 0.0)
    result = run_hypothesis(SCOPES["calls"], seconds=60, runs=100, seed=1, max_steps=40)
    assert result.finding is not None


def test_a_failure_of_the_machine_itself_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: LockstepMachine) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(LockstepMachine, "look", broken)
    with pytest.raises(ZeroDivisionError):
        run_hypothesis(SCOPES["calls"], seconds=60, runs=3, seed=1, max_steps=5)


def test_without_hypothesis_the_engine_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz.machines.engine, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'drc-check\[fuzz\]'"):
        run_hypothesis(SCOPES["calls"], seconds=1, runs=1, seed=1, max_steps=5)


def test_an_interruption_keeps_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [0]
    real = fuzz.machines.engine._run_batch

    def interrupted(*args: Any, **names: Any) -> None:
        if batches[0]:
            raise KeyboardInterrupt
        batches[0] += 1
        real(*args, **names)

    monkeypatch.setattr(fuzz.machines.engine, "_run_batch", interrupted)
    result = run_hypothesis(SCOPES["counting"], seconds=60, runs=None, seed=5, max_steps=20)
    assert result.interrupted
    assert result.runs > 0
    assert sum(result.counts) == result.operations > 0
