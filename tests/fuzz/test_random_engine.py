"""A run follows from the seed and its number alone; what a campaign found does not depend on the number of jobs."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import fuzz.random_engine
from fuzz.driver import Divergence
from fuzz.random_engine import BATCH, RandomResult, plan_of, run_batch, run_random
from fuzz.results import EngineResult
from fuzz.swarm import POOL, variant
from fuzz.workers import HarnessFailure, Workers
from impl.runtime import Runtime
from model.limits import BOUNDS, SCOPES, Limits
from model.ops import Kind

EVERYTHING = SCOPES["everything"]
ROOT = Path(__file__).resolve().parents[2]


def without_time(result: RandomResult) -> RandomResult:
    return replace(result, seconds=0.0)


@pytest.mark.parametrize("scope", SCOPES.values(), ids=str)
def test_variant_0_is_the_scope_and_others_stay_within_it(scope: Limits) -> None:
    assert variant(scope, 0) is scope
    for number in range(1, 60):
        limits = variant(scope, number)
        assert limits.scope == scope.scope
        assert limits.kinds <= scope.kinds
        assert Kind.NEW in limits.kinds
        off = {name for name, bound in scope.numbers().items() if bound == 0} - {"quarantine"}
        assert {name for name, bound in limits.numbers().items() if bound == 0} - {"quarantine"} == off
        for name, (low, high) in BOUNDS.items():
            assert low <= getattr(limits, name) <= high


def test_variants_differ_and_are_the_same_again() -> None:
    pool = [variant(EVERYTHING, number) for number in range(1, POOL + 1)]
    assert len(set(pool)) == POOL
    variant.cache_clear()
    assert [variant(EVERYTHING, number) for number in range(1, POOL + 1)] == pool


def test_the_pool_covers_each_kind_and_large_and_small_chunks() -> None:
    pool = [variant(EVERYTHING, number) for number in range(1, POOL + 1)]
    assert frozenset[Kind]().union(*(limits.kinds for limits in pool)) == EVERYTHING.kinds
    assert {limits.chunk for limits in pool} >= {1, 2, 4, 8}
    assert {limits.chunk for limits in pool} & {64, 512}


def test_the_pool_has_variants_in_which_sets_grow() -> None:
    """A set grows with its fourth member, and a misplaced one shows with the fifth: so many have to be passed at once."""
    pool = [variant(EVERYTHING, number) for number in range(1, POOL + 1)]
    assert sum(limits.slots == limits.arguments == limits.objects == 8 and limits.chunk <= 3 for limits in pool) >= 3


def test_plans_mix_whole_scopes_variants_and_memories() -> None:
    plans = [plan_of(EVERYTHING, 7, index) for index in range(400)]
    assert 0.4 < sum(plan.limits is EVERYTHING for plan in plans) / 400 < 0.6
    assert 0.06 < sum(plan.checked for plan in plans) / 400 < 0.2
    assert 0.03 < sum(plan.operations_max == 1000 for plan in plans) / 400 < 0.2
    assert plans == [plan_of(EVERYTHING, 7, index) for index in range(400)]


def test_no_two_runs_have_the_same_seed() -> None:
    seeds = [plan_of(EVERYTHING, seed, index).seed for seed in (0, 1, 2, 2**32 - 1) for index in (0, 1, 2, 2**32 - 1)]
    assert len(set(seeds)) == len(seeds)


def test_the_same_seed_and_runs_give_the_same_totals_whatever_the_jobs() -> None:
    alone = run_random(EVERYTHING, seconds=None, runs=3 * BATCH + 5, seed=11)
    assert alone.finding is None
    assert alone.runs == 3 * BATCH + 5
    assert alone.operations == sum(alone.counts) > 1000
    with Workers(2) as workers:
        together = run_random(EVERYTHING, seconds=None, runs=3 * BATCH + 5, seed=11, workers=workers)
    assert without_time(together) == without_time(alone)


def test_another_seed_gives_other_runs() -> None:
    a, b = (run_random(EVERYTHING, seconds=None, runs=5, seed=seed) for seed in (1, 2))
    assert a.counts != b.counts


def test_the_runs_that_saw_something_are_counted() -> None:
    result = run_random(EVERYTHING, seconds=None, runs=20, seed=1)
    assert max(result.seen_counts) <= 20
    assert [count > 0 for count in result.seen_counts] == [bool(result.seen >> bit & 1) for bit in range(len(result.seen_counts))]


def test_time_bounds_a_campaign() -> None:
    start = time.monotonic()
    result = run_random(EVERYTHING, seconds=0.3, runs=None, seed=1)
    assert result.runs > 0
    assert time.monotonic() - start < 20
    assert run_random(EVERYTHING, seconds=0, runs=None, seed=1).runs == 0


def test_progress_is_told_after_each_run() -> None:
    seen: list[int] = []

    def report(result: EngineResult) -> None:
        seen.append(result.runs)

    run_random(EVERYTHING, seconds=None, runs=4, seed=1, report=report)
    assert seen == [1, 2, 3, 4]


def test_a_planted_defect_is_found_in_the_first_run_that_shows_it_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "gc", lambda _self: None)
    whole = run_random(EVERYTHING, seconds=None, runs=100, seed=5)
    assert whole.finding is not None
    assert whole.runs == whole.index + 1
    pieces = RandomResult(EVERYTHING)
    for first in range(100):
        pieces.merge(run_batch(EVERYTHING, 5, first, 1, float("inf")).opened())
        if pieces.finding is not None:
            break
    assert (pieces.finding.rows if pieces.finding else ()) == whole.finding.rows
    assert without_time(replace(pieces, finding=None)) == without_time(replace(whole, finding=None))


def test_a_run_that_does_not_end_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(_self: Runtime) -> None:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(Runtime, "gc", forever)
    monkeypatch.setattr(fuzz.random_engine, "_RUN_SECONDS_MAX", 0.5)
    result = run_random(EVERYTHING, seconds=None, runs=100, seed=5)
    assert result.finding is not None
    assert result.finding.verdict == "Hang"
    assert result.finding.rows[-1][0] == Kind.GC


def test_endless_recursion_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def deeper(self: Runtime) -> None:
        self.gc()

    monkeypatch.setattr(Runtime, "gc", deeper)
    result = run_random(EVERYTHING, seconds=None, runs=100, seed=5)
    assert result.finding is not None
    assert result.finding.verdict == "RecursionError"


def test_an_interruption_keeps_what_was_done() -> None:
    def interrupt(result: EngineResult) -> None:
        if result.runs == 3:
            raise KeyboardInterrupt

    result = run_random(EVERYTHING, seconds=None, runs=100, seed=1, report=interrupt)
    assert result.interrupted
    assert result.runs == 3
    with Workers(2) as workers:
        result = run_random(
            EVERYTHING, seconds=None, runs=10**6, seed=1, workers=workers, report=lambda _: signal.raise_signal(signal.SIGINT)
        )
    assert result.interrupted
    assert BATCH <= result.runs < 10**6


def test_a_finding_survives_the_way_between_processes() -> None:
    batch = fuzz.random_engine.Batch(RandomResult(EVERYTHING), ("Violation", "text", ((1, 2),), (0,), 1))
    found = batch.opened().finding
    assert isinstance(found, Divergence)
    assert (found.verdict, found.text, found.rows, found.depths, found.chosen) == ("Violation", "text", ((1, 2),), (0,), 1)


def _die() -> None:
    signal.raise_signal(signal.SIGKILL)


def test_a_worker_that_dies_is_a_failure_of_the_harness() -> None:
    with Workers(1) as workers, pytest.raises(HarnessFailure, match="worker process died"):
        workers.result(workers.submit(_die))


ORPHAN = """
import os, time
from fuzz.workers import Workers

if __name__ == "__main__":
    workers = Workers(1)
    print(workers.result(workers.submit(os.getpid)), flush=True)
    time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path, eventually: Callable[[Callable[[], bool]], None]) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    with subprocess.Popen(
        [sys.executable, script], env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.kill()
    eventually(lambda: not alive(worker))


def alive(pid: int) -> bool:
    """Say whether a process runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        for _ in range(200):
            if condition():
                return
            time.sleep(0.1)
        pytest.fail("it did not happen")

    return wait
