"""The random campaign: run number i under seed s is the same run on any machine, in any process, among any number of jobs.

Which variant, which memory and how long follow from (s, i) alone. Runs are handed out in batches by number and counted in that
order, up to the first finding, so that nothing but the speed depends on the number of jobs.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fuzz.choosers import Seeded
from fuzz.compiled.runner import CompiledRunner, unrepeated
from fuzz.driver import Divergence, Driver, HarnessBroken
from fuzz.results import EngineResult
from fuzz.swarm import POOL, variant
from fuzz.watchdog import Hang, time_limit
from fuzz.workers import HarnessFailure, Workers, stopping
from model.limits import Limits
from model.ops import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

BATCH: Final = 16
"""Runs that a worker is given at once."""
BATCH_FAST: Final = 256
"""The same where they are compiled."""
OPERATIONS_USUAL: Final = 200
OPERATIONS_MANY: Final = 1000
SEED_MAX: Final = (1 << 32) - 1
RUNS_MAX: Final = 1 << 32
LARGE_CHUNK: Final = 64
_RUN_SECONDS_MAX: Final = 20.0
"""Longer than this and a run is taken for one that never ends; ordinary ones take a tenth of a second."""
_DRIVERS_MAX: Final = 128
_PLAN_SALT: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: its bounds, its memory, its most operations, and the seed of its choices."""

    limits: Limits
    checked: bool
    operations_max: int
    seed: int


def plan_of(limits: Limits, seed: int, index: int) -> Plan:
    """Return the plan of a run. Different pairs of seed and index, both below 2^32, give different runs.

    Args:
        limits: the scope.
        seed: the campaign's.
        index: the run's number in the campaign.
    """
    run_seed = seed << 32 | index
    dice = Seeded(run_seed ^ _PLAN_SALT)
    swarmed, member, checked, long = dice.choose(2), dice.choose(POOL), dice.choose(8), dice.choose(16)
    bounds = variant(limits, 1 + seed * POOL + member if swarmed else 0)
    many = long == 0 or bounds.chunk >= LARGE_CHUNK
    return Plan(bounds, checked == 0, OPERATIONS_MANY if many else OPERATIONS_USUAL, run_seed)


@dataclass(slots=True)
class RandomResult(EngineResult):
    """The random engine's work.

    Args:
        index: number of the run with the finding; -1 without one.
    """

    index: int = -1

    def merge(self, part: RandomResult) -> None:
        """Count the work of a batch that comes next."""
        self.runs += part.runs
        self.operations += part.operations
        self.seen |= part.seen
        self.seen_counts = [a + b for a, b in zip(self.seen_counts, part.seen_counts, strict=True)]
        self.counts = [a + b for a, b in zip(self.counts, part.counts, strict=True)]
        if part.finding is not None:
            self.finding, self.limits, self.checked, self.index = part.finding, part.limits, part.checked, part.index


class Runner:
    """Does runs one after another in this process and keeps a driver for each variant and memory.

    Args:
        fast: do them in compiled code, on raw memory; see `fuzz.compiled.runner`.
    """

    def __init__(self, *, fast: bool = False) -> None:
        self._drivers: dict[tuple[Limits, bool], Driver] = {}
        self._compiled = CompiledRunner() if fast else None

    def run(self, plan: Plan, index: int, result: RandomResult) -> None:
        """Do one run and count it, finding or not.

        Raises:
            HarnessFailure: the model or the driver failed, and which run shows it.
        """
        if self._compiled is not None:
            outcome = self._compiled.run(plan.limits, plan.seed, plan.operations_max)
            if outcome is not None:
                result.add(outcome)
                return
            plan = replace(plan, checked=False)
        driver = self._driver(plan)
        try:
            with time_limit(_RUN_SECONDS_MAX):
                driver.run(Seeded(plan.seed), plan.operations_max)
        except Divergence as found:
            result.finding = found
        except Hang as hang:
            result.finding = driver.divergence("Hang", str(hang))
        except RecursionError as error:
            result.finding = driver.divergence("RecursionError", str(error))
        except HarnessBroken as error:
            message = f"run {index} of seed {plan.seed >> 32}: {error}"
            raise HarnessFailure(message) from error
        result.add(driver.outcome())
        if result.finding is None and self._compiled is not None:
            raise unrepeated(index, plan.seed >> 32)
        if result.finding is not None:
            result.limits, result.checked, result.index = plan.limits, plan.checked, index
            # The driver is in pieces.
            del self._drivers[plan.limits, plan.checked]

    def _driver(self, plan: Plan) -> Driver:
        key = (plan.limits, plan.checked)
        driver = self._drivers.get(key)
        if driver is None:
            if len(self._drivers) >= _DRIVERS_MAX:
                self._drivers.clear()
            driver = self._drivers[key] = Driver(plan.limits, checked=plan.checked)
        else:
            driver.reset()
        return driver


def run_random(
    limits: Limits,
    *,
    seconds: float | None,
    runs: int | None,
    seed: int,
    workers: Workers | None = None,
    report: Callable[[EngineResult], None] | None = None,
    fast: bool = False,
) -> RandomResult:
    """Do random runs until the time is over, their number is reached, or one finds something.

    Args:
        limits: the scope.
        seconds: time to spend; None for no bound.
        runs: most runs; None for no bound.
        seed: of the campaign, from 0 to `SEED_MAX`.
        workers: processes to use; None does everything in this one.
        report: called with the totals so far, often.
        fast: do the runs in compiled code. The totals are the same, but for what only the checked memory finds.

    Returns:
        The totals. With `runs` alone they depend on `limits`, `seed` and `runs` and on nothing else.

    Raises:
        HarnessFailure: a worker process died, or the harness itself failed.
    """
    start = time.monotonic()
    deadline = start + (math.inf if seconds is None else seconds)
    count = RUNS_MAX if runs is None else min(runs, RUNS_MAX)
    total = RandomResult(limits)
    if workers is None:
        _run_here(total, seed, count, deadline, report, fast=fast)
    else:
        _run_there(total, seed, count, deadline, report, workers, fast=fast)
    total.seconds = time.monotonic() - start
    return total


def _run_here(
    total: RandomResult, seed: int, count: int, deadline: float, report: Callable[[EngineResult], None] | None, *, fast: bool
) -> None:
    runner, limits = Runner(fast=fast), total.limits
    try:
        for index in range(count):
            if time.monotonic() >= deadline or total.finding is not None:
                break
            runner.run(plan_of(limits, seed, index), index, total)
            if report is not None:
                report(total)
    except KeyboardInterrupt:
        total.interrupted = True


def _run_there(
    total: RandomResult,
    seed: int,
    count: int,
    deadline: float,
    report: Callable[[EngineResult], None] | None,
    workers: Workers,
    *,
    fast: bool,
) -> None:
    limits = total.limits
    batches = iter(range(0, count, BATCH_FAST if fast else BATCH))
    pending: deque[Future[Batch]] = deque()
    try:
        _hand_out(pending, batches, limits, seed, count, deadline, workers, fast=fast)
        while pending and total.finding is None:
            total.merge(workers.result(pending[0]).opened())
            pending.popleft()
            _hand_out(pending, batches, limits, seed, count, deadline, workers, fast=fast)
            if report is not None:
                report(total)
    except KeyboardInterrupt:
        total.interrupted = True
        workers.stop()
        for future in pending:
            if total.finding is None and not future.cancel():
                total.merge(workers.result(future).opened())
    finally:
        for future in pending:
            future.cancel()


def _hand_out(
    pending: deque[Future[Batch]],
    batches: Iterator[int],
    limits: Limits,
    seed: int,
    count: int,
    deadline: float,
    workers: Workers,
    *,
    fast: bool,
) -> None:
    size = BATCH_FAST if fast else BATCH
    while len(pending) < 4 * workers.count and time.monotonic() < deadline:
        first = next(batches, None)
        if first is None:
            break
        pending.append(workers.submit(run_batch, limits, seed, first, min(size, count - first), deadline, fast=fast))


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's totals on their way between processes, where a Divergence cannot go as it is."""

    totals: RandomResult
    finding: tuple[str, str, tuple[Row, ...], tuple[int, ...], int] | None

    def opened(self) -> RandomResult:
        """Return the totals with the finding."""
        if self.finding is not None:
            self.totals.finding = Divergence(*self.finding)
        return self.totals


def run_batch(limits: Limits, seed: int, first: int, count: int, deadline: float, *, fast: bool = False) -> Batch:
    """Do some runs in a worker process, up to the first finding.

    Args:
        limits: the scope.
        seed: the campaign's.
        first: number of the first run.
        count: of runs.
        deadline: time of the monotonic clock, which all processes of a machine share.
        fast: do them in compiled code.
    """
    totals = RandomResult(limits)
    runner = _RUNNERS.get(fast)
    if runner is None:
        runner = _RUNNERS[fast] = Runner(fast=fast)
    for index in range(first, first + count):
        if time.monotonic() >= deadline or stopping() or totals.finding is not None:
            break
        runner.run(plan_of(limits, seed, index), index, totals)
    found, totals.finding = totals.finding, None
    return Batch(totals, None if found is None else (found.verdict, found.text, found.rows, found.depths, found.chosen))


_RUNNERS: Final[dict[bool, Runner]] = {}
"""A worker process's own."""

__all__ = ["Batch", "HarnessFailure", "Plan", "RandomResult", "Runner", "plan_of", "run_batch", "run_random"]
