"""A run in compiled code is the run that the plain reading does: the same operations, as deep, with the same effects."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import drc
from fuzz.choosers import Seeded
from fuzz.compiled.runner import CompiledRunner
from fuzz.compiled.runs import digest_of
from fuzz.driver import Driver
from fuzz.random_engine import RandomResult, Runner, plan_of, run_random
from fuzz.workers import HarnessFailure, Workers
from model.limits import SCOPES, SEEN


@pytest.mark.parametrize("scope", SCOPES)
def test_a_run_has_the_same_digest_in_both_readings(scope: str) -> None:
    limits = SCOPES[scope]
    runner, driver = CompiledRunner(), Driver(limits)
    for seed in range(12):
        outcome = runner.run(limits, seed, 60)
        driver.reset()
        plain = driver.run(Seeded(seed), 60)
        assert outcome is not None
        assert runner.digest(limits) == digest_of(driver.rows, driver.depths)
        assert (outcome.steps, outcome.counts, outcome.seen) == (plain.steps, plain.counts, driver.state[SEEN])


def test_a_digest_depends_on_the_operations_on_their_order_and_on_how_deep_they_are() -> None:
    rows = [(0, 1), (3, 0), (20,)]
    found = {
        digest_of(rows, [0, 0, 0]),
        digest_of(rows, [0, 1, 0]),
        digest_of([rows[1], rows[0], rows[2]], [0, 0, 0]),
        digest_of([(0, 1), (3,), (0, 20)], [0, 0, 0]),
        digest_of(rows[:2], [0, 0]),
    }
    assert len(found) == 5


def without_time(result: RandomResult) -> RandomResult:
    return replace(result, seconds=0.0)


@pytest.mark.parametrize("scope", ["everything", "reentrancy"])
def test_a_campaign_counts_the_same_in_both_readings(scope: str) -> None:
    fast, plain = (run_random(SCOPES[scope], seconds=None, runs=40, seed=3, fast=fast) for fast in (True, False))
    assert without_time(fast) == without_time(plain)
    assert fast.operations > 4000


def test_a_campaign_counts_the_same_with_worker_processes() -> None:
    alone = run_random(SCOPES["calls"], seconds=None, runs=600, seed=4, fast=True)
    with Workers(2) as workers:
        together = run_random(SCOPES["calls"], seconds=None, runs=600, seed=4, fast=True, workers=workers)
    assert without_time(together) == without_time(alone)


def test_a_finding_of_one_reading_alone_is_a_failure_of_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_self: CompiledRunner, *_arguments: object) -> None:
        return None

    monkeypatch.setattr(CompiledRunner, "run", nothing)
    limits = SCOPES["calls"]
    with pytest.raises(HarnessFailure, match="run 7 of seed 1: the two readings differ"):
        Runner(fast=True).run(plan_of(limits, 1, 7), 7, RandomResult(limits))


def test_the_command_prints_the_same_in_both_readings(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for reading in ("--fast", "--no-fast"):
        assert drc.main(["fuzz", reading, "--runs", "20", "--seed", "7", "--scope", "storage", "--json"]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0] == printed[1]
