"""Where the time of the lockstep run goes, found by leaving out one part after another of the same runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from bench.alone import ImplAlone, ModelAlone, ReplayMismatch
from bench.clock import Calibration, measure
from bench.report import Report
from fuzz.choosers import Seeded
from fuzz.driver import Driver
from fuzz.setup import config_of
from impl.runtime import Runtime
from model.choose import Exhausted

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.clock import Times
    from bench.report import Cell
    from bench.workload import Workload
    from model.limits import Limits
    from model.ops import Row
    from model.state import State

COLUMNS: Final = ("scope", "part", "share, %", "us per operation")
PARTS: Final[dict[str, tuple[str, str]]] = {
    "choosing": ("unverified", "given"),
    "model": ("model", ""),
    "implementation": ("impl", ""),
    "driver": ("given", "model+impl"),
    "observing": ("unchecked", "unverified"),
    "checking": ("full", "unchecked"),
}
"""A part's time is the first subject's less the second's. `driver` is what is left: bindings, lookups, payloads."""


class _Unchecked(Runtime):
    """A runtime that never looks at its invariants."""

    __slots__ = ()

    def check(self, owners: Mapping[int, int], live: Sequence[int], nested: bool) -> None:
        """Do nothing."""


def _driver(limits: Limits, *, verify: bool, check: bool = True) -> Driver:
    driver = Driver(limits, verify=verify)
    if not check:
        driver.runtime = _Unchecked(config_of(limits), driver)
    return driver


def chosen(workload: Workload, driver: Driver) -> Callable[[], None]:
    """Return a subject that draws the workload's operations."""
    size = workload.size

    def work() -> None:
        steps = 0
        for seed in range(size.runs):
            driver.reset()
            steps += driver.run(Seeded(seed), size.operations_max).steps
        _compare(steps, workload)

    return work


def given(workload: Workload, driver: Driver) -> Callable[[], None]:
    """Return a subject that is given the workload's operations, and asks not even whether they are possible."""

    def work() -> None:
        steps = 0
        for recording in workload.recordings:
            following = iter(recording.outcome.rows).__next__

            def source(_state: State, _limits: Limits, following: Callable[[], Row] = following) -> Row:
                try:
                    return following()
                except StopIteration:
                    raise Exhausted from None

            driver.reset()
            steps += driver.run_source(source).steps
        _compare(steps, workload)

    return work


def _compare(steps: int, workload: Workload) -> None:
    if steps != workload.steps:
        raise ReplayMismatch(f"{steps} operations without some part, {workload.steps} recorded")


def shares(times: Times) -> dict[str, float]:
    """Return each part's seconds per turn: the median of differences, so that a slow turn is slow on both sides."""
    turns = {name: list(values) for name, values in times.seconds.items()}
    turns["model+impl"] = [model + impl for model, impl in zip(turns["model"], turns["impl"], strict=True)]
    turns[""] = [0.0] * len(turns["full"])
    return {
        part: statistics.median(whole - rest for whole, rest in zip(turns[with_it], turns[without], strict=True))
        for part, (with_it, without) in PARTS.items()
    }


def run(found: dict[str, Workload]) -> Report:
    """Measure every workload.

    Raises:
        Divergence: the two sides disagree.
        ReplayMismatch: a side alone does something else than in lockstep.
    """
    rows: list[tuple[Cell, ...]] = []
    access: list[float] = []
    for scope, workload in found.items():
        limits, calibration = workload.limits, Calibration()
        impl, model = ImplAlone(limits, workload.recordings), ModelAlone(limits, workload.recordings)
        impl.verify()
        model.verify()
        times = measure(
            {
                "access": calibration.accesses,
                "full": chosen(workload, _driver(limits, verify=True)),
                "unchecked": chosen(workload, _driver(limits, verify=True, check=False)),
                "unverified": chosen(workload, _driver(limits, verify=False)),
                "given": given(workload, _driver(limits, verify=False)),
                "impl": impl.play,
                "model": model.play,
            },
            workload.size.turns,
        )
        full = times.median("full")
        rows.extend((scope, part, 100 * seconds / full, 1e6 * seconds / workload.steps) for part, seconds in shares(times).items())
        rows.append((scope, "all", 100.0, 1e6 * full / workload.steps))
        access.append(calibration.nanoseconds(times.median("access")))
    claim = "Share of each part in the time of the lockstep run on raw memory."
    return Report("parts", claim, COLUMNS, tuple(rows), statistics.median(access))
