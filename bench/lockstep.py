"""What comparing costs: the implementation alone, the lockstep run with everything checked, and the same on checked memory."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from bench.alone import ImplAlone, ReplayMismatch
from bench.clock import Calibration, measure
from bench.report import Report
from fuzz.random_engine import Plan, RandomResult, Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.report import Cell
    from bench.workload import Workload

COLUMNS: Final = (
    "scope",
    "lockstep / impl",
    "checked / raw",
    "impl alone, op/s",
    "lockstep, op/s",
    "checked, op/s",
    "operations",
)
ALONE_REPEATS: Final = 4
"""The implementation alone is so much faster that one pass would be too short to time."""


def campaign(workload: Workload, *, checked: bool) -> Callable[[], None]:
    """Return a subject that does the workload's runs as the random engine does, time limit and counting included.

    Args:
        workload: the runs.
        checked: use the checked memory.

    Raises:
        Divergence: by the subject, if the two sides disagree.
        ReplayMismatch: by the subject, if it did not do what was recorded.
    """
    runner, size = Runner(), workload.size
    plans = [Plan(workload.limits, checked, size.operations_max, seed) for seed in range(size.runs)]

    def work() -> None:
        total = RandomResult(workload.limits)
        for index, plan in enumerate(plans):
            runner.run(plan, index, total)
            if total.finding is not None:
                raise total.finding
        if total.operations != workload.steps:
            raise ReplayMismatch(f"{total.operations} operations in lockstep, {workload.steps} recorded")

    return work


def run(found: dict[str, Workload]) -> Report:
    """Measure every workload.

    Raises:
        Divergence: the two sides disagree.
        ReplayMismatch: the implementation alone does something else than in lockstep.
    """
    rows: list[tuple[Cell, ...]] = []
    access: list[float] = []
    for scope, workload in found.items():
        alone, calibration = ImplAlone(workload.limits, workload.recordings), Calibration()
        alone.verify()

        def replay(alone: ImplAlone = alone) -> None:
            for _ in range(ALONE_REPEATS):
                alone.play()

        times = measure(
            {
                "access": calibration.accesses,
                "alone": replay,
                "raw": campaign(workload, checked=False),
                "checked": campaign(workload, checked=True),
            },
            workload.size.turns,
        )
        alone.verify_end()
        steps = workload.steps
        rows.append(
            (
                scope,
                times.ratio("raw", "alone") * ALONE_REPEATS,
                times.ratio("checked", "raw"),
                steps * ALONE_REPEATS / times.median("alone"),
                steps / times.median("raw"),
                steps / times.median("checked"),
                steps,
            )
        )
        access.append(calibration.nanoseconds(times.median("access")))
    claim = "The same operations by the implementation alone, in lockstep with the model with all checks, and on checked memory."
    return Report("lockstep", claim, COLUMNS, tuple(rows), statistics.median(access))
