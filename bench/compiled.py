"""The compiled reading against the plain one, which is its oracle: the same counts and digests, or there is nothing to time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from bench.clock import Calibration, measure, timed
from bench.report import Report
from bench.workload import SMOKE_SIZE
from fuzz.check_scopes import CHECK_SCOPES
from fuzz.choosers import Seeded
from fuzz.compiled.library import LIBRARY, CompilerFailed, build
from fuzz.compiled.runner import CompiledRunner
from fuzz.compiled.runs import digest_of
from fuzz.compiled.search import CompiledExplorer
from fuzz.driver import Driver
from fuzz.explore import Explorer
from fuzz.results import MissingExtra
from fuzz.states import JointStates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report import Cell
    from bench.workload import Size, Workload
    from fuzz.explore import Search
    from model.limits import Limits

CAMPAIGN_COLUMNS: Final = ("scope", "compiled / plain", "plain, op/s", "compiled, op/s", "runs with equal digests", "operations")
SEARCH_COLUMNS: Final = ("scope", "compiled / plain", "plain, steps/s", "compiled, steps/s", "states", "steps", "depth")
PART_COLUMNS: Final = ("scope", "ns a step", "restore %", "step %", "digest %", "table %", "encode %", "check %", "other %")
SEARCHED: Final = ("calls", "globals", "storage", "reentrancy", "counting", "registry")
DEEP: Final = ("deep-globals", "deep-storage", "deep-calls", "deep-destructors")
COMPILED_REPEATS: Final = 8
_ORDER: Final = (1, 2, 3, 4, 5, 6, 0)
"""Parts in the order of the columns: see `fuzz.compiled.kernel`."""


class ReadingsDiffer(Exception):
    """The two readings did not do the same."""


def _missing() -> str:
    try:
        build()
    except (MissingExtra, CompilerFailed) as error:
        return str(error)
    return ""


def run_campaigns(found: dict[str, Workload]) -> Report:
    """Do the runs of every workload in both readings.

    Raises:
        ReadingsDiffer: a run's operations, their order or their nesting differ, or how often each kind ran.
    """
    claim = "runs of a campaign in both readings, all checks on; a digest covers every operation and how deep it was"
    missing = _missing()
    calibration = Calibration()
    accesses = 0.0
    rows: list[tuple[Cell, ...]] = []
    for scope, workload in {} if missing else found.items():
        limits, size = workload.limits, workload.size
        runner, driver = CompiledRunner(), Driver(limits)

        def plain(driver: Driver = driver, size: Size = size) -> None:
            for seed in range(size.runs):
                driver.reset()
                driver.run(Seeded(seed), size.operations_max)

        def compiled(runner: CompiledRunner = runner, limits: Limits = limits, size: Size = size) -> None:
            for _ in range(COMPILED_REPEATS):
                for seed in range(size.runs):
                    runner.run(limits, seed, size.operations_max)

        times = measure({"plain": plain, "compiled": compiled, "accesses": calibration.accesses}, size.turns)
        equal = sum(_equal(scope, runner, driver, seed, size.operations_max) for seed in range(size.runs))
        accesses = calibration.nanoseconds(times.median("accesses"))
        rate = workload.steps / times.median("plain")
        fast = COMPILED_REPEATS * workload.steps / times.median("compiled")
        rows.append((scope, COMPILED_REPEATS * times.ratio("plain", "compiled"), rate, fast, equal, workload.steps))
    return Report("campaigns", claim, CAMPAIGN_COLUMNS, tuple(rows), accesses, missing)


def _equal(scope: str, runner: CompiledRunner, driver: Driver, seed: int, operations_max: int) -> int:
    outcome = runner.run(driver.limits, seed, operations_max)
    driver.reset()
    driver.run(Seeded(seed), operations_max)
    ours = (runner.digest(driver.limits), None if outcome is None else outcome.counts)
    theirs = (digest_of(driver.rows, driver.depths), driver.counts)
    if ours != theirs:
        raise ReadingsDiffer(f"scope {scope}, seed {seed}: compiled {ours}, plain {theirs}")
    return 1


def run_searches(found: dict[str, Workload]) -> Report:
    """Search some scopes of `drc check` in both readings, without symmetry.

    Raises:
        ReadingsDiffer: states, transitions, depth or executions by kind differ.
    """
    claim = "exhaustive search in both readings, one process, without symmetry, all checks on"
    missing = _missing()
    calibration = Calibration()
    accesses = 0.0
    rows: list[tuple[Cell, ...]] = []
    smoke = _is_smoke(found)
    for scope in () if missing else SEARCHED[2:3] if smoke else SEARCHED:
        limits = CHECK_SCOPES[scope]
        searches: dict[str, Search] = {}

        def plain(limits: Limits = limits, searches: dict[str, Search] = searches) -> None:
            searches["plain"] = Explorer(JointStates(limits, symmetry=False)).run()

        def compiled(limits: Limits = limits, searches: dict[str, Search] = searches) -> None:
            for _ in range(COMPILED_REPEATS):
                searches["compiled"] = CompiledExplorer(limits, symmetry=False).run()

        times = measure({"plain": plain, "compiled": compiled, "accesses": calibration.accesses}, 1)
        accesses = calibration.nanoseconds(times.median("accesses"))
        ours, oracle = searches["compiled"], searches["plain"]
        if _told(ours) != _told(oracle):
            raise ReadingsDiffer(f"scope {scope}: compiled {_told(ours)}, plain {_told(oracle)}")
        steps = oracle.transitions
        rate, fast = steps / times.median("plain"), COMPILED_REPEATS * steps / times.median("compiled")
        rows.append((scope, COMPILED_REPEATS * times.ratio("plain", "compiled"), rate, fast, oracle.states, steps, oracle.depth))
    return Report("searches", claim, SEARCH_COLUMNS, tuple(rows), accesses, missing)


def _told(search: Search) -> tuple[object, ...]:
    return search.states, search.transitions, search.depth, search.complete, search.counts


def _is_smoke(found: dict[str, Workload]) -> bool:
    return all(workload.size == SMOKE_SIZE for workload in found.values())


def run_parts(found: dict[str, Workload]) -> Report:
    """Say what share of a compiled search each of its parts has, by a library that is built to say so."""
    claim = "what a step of a compiled search costs, one process, without symmetry, and the share of each part"
    missing = _missing()
    calibration = Calibration()
    rows: list[tuple[Cell, ...]] = []
    for scope in () if missing else DEEP[1:2] if _is_smoke(found) else DEEP:
        environment = os.environ | {LIBRARY: str(build(timed=True))}
        line = [sys.executable, "-m", "bench.laps", scope]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)  # noqa: S603  # this interpreter
        told = json.loads(done.stdout)
        rows.append((scope, told["ns"], *_shares(told["laps"])))
    accesses = 0.0 if missing else calibration.nanoseconds(timed(calibration.accesses))
    return Report("steps", claim, PART_COLUMNS, tuple(rows), accesses, missing)


def _shares(laps: Sequence[int]) -> list[float]:
    whole = sum(laps) or 1
    return [100 * laps[part] / whole for part in _ORDER]
