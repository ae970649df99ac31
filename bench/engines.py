"""What an engine costs on top of the runs that it steers: Hypothesis and atheris, beside the random engine on the same memory."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.clock import Calibration, measure
from bench.lockstep import campaign
from bench.report import Report
from fuzz.results import EngineResult, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.clock import Times
    from bench.report import Cell
    from bench.workload import Workload
    from model.limits import Limits

SECONDS_MAX: Final = 120.0
"""No turn of an engine takes longer."""
STEPS_MAX: Final = 100
"""Rules of one example of the state machine; as in a campaign."""
SEED: Final = 0

HYPOTHESIS_COLUMNS: Final = ("scope", "hypothesis / random", "hypothesis, op/s", "random, op/s", "examples", "operations")
HYPOTHESIS_CLAIM: Final = "The runtime's state machine, steered by Hypothesis, against the random engine; both on checked memory."
ATHERIS_COLUMNS: Final = ("scope", "atheris / random", "executions/s", "atheris, op/s", "random, op/s", "executions", "operations")
ATHERIS_CLAIM: Final = "The runtime's target, steered by atheris, against the random engine. What its process needs to start is taken off."


class _Engine:
    """Calls an engine and keeps what it did.

    Args:
        call: the engine, with the number of its runs bound.
    """

    def __init__(self, call: Callable[[], EngineResult]) -> None:
        self._call = call
        self.result: EngineResult | None = None

    def __call__(self) -> None:
        """Let it work. Raise Divergence if it found something."""
        self.result = self._call()
        if self.result.finding is not None:
            raise self.result.finding

    @property
    def runs(self) -> int:
        """Runs of the last call."""
        return self.result.runs if self.result else 0

    @property
    def operations(self) -> int:
        """Operations of the last call."""
        return self.result.operations if self.result else 0


def hypothesis_runs(limits: Limits, runs: int) -> EngineResult:
    """Do examples of the state machine.

    Raises:
        MissingExtra: Hypothesis is not installed.
    """
    from fuzz.machines.engine import run_hypothesis

    return run_hypothesis(limits, seconds=SECONDS_MAX, runs=runs, seed=SEED, max_steps=STEPS_MAX)


def atheris_runs(limits: Limits, runs: int) -> EngineResult:
    """Do executions of the target, in a process of its own.

    Raises:
        MissingExtra: atheris is not installed.
    """
    from fuzz.atheris_engine import run_atheris

    with tempfile.TemporaryDirectory(prefix="drc-bench-") as folder:
        return run_atheris(limits, seconds=SECONDS_MAX, runs=runs, seed=SEED, folder=Path(folder))


def run_hypothesis_steps(found: dict[str, Workload]) -> Report:
    """Measure the state machine of every workload's scope.

    Raises:
        Divergence: the two sides disagree.
    """

    def row(scope: str, workload: Workload) -> tuple[tuple[Cell, ...], Times]:
        engine = _Engine(lambda: hypothesis_runs(workload.limits, workload.size.examples))
        times = _measured(workload, {"engine": engine}, checked=True)
        speed = engine.operations / times.median("engine")
        base = workload.steps / times.median("random")
        return (scope, base / max(speed, 1e-9), speed, base, engine.runs, engine.operations), times

    return _report("hypothesis", HYPOTHESIS_CLAIM, HYPOTHESIS_COLUMNS, found, row)


def run_atheris_executions(found: dict[str, Workload]) -> Report:
    """Measure the target on every workload's scope.

    Raises:
        Divergence: the two sides disagree.
    """

    def row(scope: str, workload: Workload) -> tuple[tuple[Cell, ...], Times]:
        one = _Engine(lambda: atheris_runs(workload.limits, 1))
        many = _Engine(lambda: atheris_runs(workload.limits, workload.size.executions))
        times = _measured(workload, {"start": one, "engine": many}, checked=False)
        # A difference of two measurements: with few executions it may be nothing but noise.
        seconds = max(times.median("engine") - times.median("start"), 1e-3)
        executions, operations = many.runs - one.runs, many.operations - one.operations
        speed, base = operations / seconds, workload.steps / times.median("random")
        return (scope, base / max(speed, 1e-9), executions / seconds, speed, base, executions, operations), times

    return _report("atheris", ATHERIS_CLAIM, ATHERIS_COLUMNS, found, row)


def _measured(workload: Workload, engines: dict[str, _Engine], *, checked: bool) -> Times:
    subjects: dict[str, Callable[[], object]] = {"access": Calibration().accesses, "random": campaign(workload, checked=checked)}
    return measure(subjects | engines, workload.size.engine_turns)


def _report(
    name: str,
    claim: str,
    columns: tuple[str, ...],
    found: dict[str, Workload],
    row: Callable[[str, Workload], tuple[tuple[Cell, ...], Times]],
) -> Report:
    """Measure scope by scope; say what is missing if the engine is not installed."""
    rows: list[tuple[Cell, ...]] = []
    access: list[float] = []
    try:
        for scope, workload in found.items():
            cells, times = row(scope, workload)
            rows.append(cells)
            access.append(Calibration.nanoseconds(times.median("access")))
    except MissingExtra as error:
        return Report(name, claim, columns, (), missing=str(error))
    return Report(name, claim, columns, tuple(rows), statistics.median(access))
