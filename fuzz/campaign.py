"""A campaign is a list of tasks, each an engine on a scope, that share the time and end at the first finding."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fuzz.findings import Origin
from fuzz.random_engine import RandomResult, run_random
from fuzz.results import EngineResult
from fuzz.workers import HarnessFailure, Workers
from model.ops import SPECS, Kind
from model.properties import DESCRIPTIONS, Sometimes

if TYPE_CHECKING:
    from model.limits import Limits

ENGINES: Final = ("random", "hypothesis", "atheris")
JUDGED_SECONDS: Final = 30.0
JUDGED_RUNS: Final = 2000
"""From here on, a random task on everything must have done and seen everything."""
_FOREVER: Final = 1e9
_OVERHEADS: Final = {"random": 0.0, "hypothesis": 0.0, "atheris": 1.5}
"""Seconds that an engine takes beyond its time, to start; what it took is better known after its first task."""


@dataclass(frozen=True, slots=True)
class Task:
    """One engine on one scope."""

    engine: str
    limits: Limits

    def __str__(self) -> str:
        return f"{self.engine} engine, scope {self.limits.scope}"


@dataclass(frozen=True, slots=True)
class Part:
    """What came of a task."""

    task: Task
    result: EngineResult


@dataclass(slots=True)
class Campaign:
    """What came of all tasks.

    Args:
        seed: of the campaign.
        parts: in order; a finding is in the last one.
        interrupted: the user ended it.
        seconds: wall time.
        by_time: a time to spend was given, so what was done is no function of the seed.
    """

    seed: int
    parts: list[Part] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0
    by_time: bool = True

    @property
    def runs(self) -> int:
        """Runs begun."""
        return sum(part.result.runs for part in self.parts)

    @property
    def operations(self) -> int:
        """Operations executed."""
        return sum(part.result.operations for part in self.parts)

    @property
    def counts(self) -> list[int]:
        """Executions by kind."""
        return [sum(part.result.counts[kind] for part in self.parts) for kind in Kind]

    @property
    def seen_counts(self) -> list[int]:
        """Runs that saw each sometimes property; at least 1 if it was seen at all."""
        return [sum(max(part.result.seen_counts[what], part.result.seen >> what & 1) for part in self.parts) for what in Sometimes]

    @property
    def finding(self) -> Part | None:
        """The part with the finding."""
        return next((part for part in self.parts if part.result.finding is not None), None)

    def origin(self, part: Part) -> Origin:
        """Say where a part's finding comes from."""
        run = part.result.index if isinstance(part.result, RandomResult) else None
        return Origin(part.task.engine, part.task.limits.scope, self.seed, run)

    def missing(self) -> list[str]:
        """Name what a random task on everything ought to have done or seen by now and has not.

        Complexity: linear in kinds and properties.
        """
        found = []
        for part in self.parts:
            result, limits = part.result, part.task.limits
            long_enough = result.runs >= JUDGED_RUNS or (self.by_time and result.seconds >= JUDGED_SECONDS)
            if part.task.engine == "random" and limits.scope == "everything" and result.finding is None and long_enough:
                found += [f"never executed: {SPECS[kind].text}" for kind in sorted(limits.kinds) if not result.counts[kind]]
                found += [f"never seen: {DESCRIPTIONS[what]}" for what in Sometimes if not result.seen >> what & 1]
        return found


class Observer(Protocol):
    """Who is told how a campaign goes on."""

    def begin(self, task: Task, seconds: float | None) -> None:
        """A task begins; it has so many seconds."""

    def update(self, result: EngineResult) -> None:
        """The task has come so far."""

    def end(self, part: Part) -> None:
        """The task is over."""


def run_campaign(
    tasks: list[Task], *, seconds: float | None, runs: int | None, seed: int, jobs: int, observer: Observer, fast: bool = False
) -> Campaign:
    """Run tasks one after another until one finds something.

    Args:
        tasks: what to run.
        seconds: for all together; what a task leaves is shared by those after it. None for no bound.
        runs: most runs of each task; None for no bound.
        seed: of the campaign.
        jobs: processes of the random engine; 1 does its runs in this process.
        observer: who is told.
        fast: do random runs in compiled code.

    Raises:
        MissingExtra: an engine's package is not installed.
        HarnessFailure: a worker process died.
    """
    start = time.monotonic()
    campaign = Campaign(seed, by_time=seconds is not None)
    overheads = dict(_OVERHEADS)
    try:
        with ExitStack() as stack:
            workers = stack.enter_context(Workers(jobs)) if jobs > 1 and any(task.engine == "random" for task in tasks) else None
            for number, task in enumerate(tasks):
                share = None if seconds is None else _share(seconds, time.monotonic() - start, tasks, number, overheads)
                observer.begin(task, share)
                part = Part(task, _run(task, share, runs, seed, workers, observer, fast=fast))
                if share is not None:
                    overheads[task.engine] = max(0.0, part.result.seconds - share)
                campaign.parts.append(part)
                observer.end(part)
                campaign.interrupted |= part.result.interrupted
                if part.result.finding is not None or campaign.interrupted:
                    break
    except KeyboardInterrupt:
        campaign.interrupted = True
    campaign.seconds = time.monotonic() - start
    return campaign


def _share(seconds: float, elapsed: float, tasks: list[Task], number: int, overheads: dict[str, float]) -> float:
    """Return the time that a task may use: an equal part of what is left beside the overheads of all that follow."""
    left = tasks[number:]
    spare = seconds - elapsed - sum(overheads[task.engine] for task in left)
    # Whatever went before, the last one is run too.
    return max(spare / len(left), seconds / len(tasks) / 4)


def _run(
    task: Task, seconds: float | None, runs: int | None, seed: int, workers: Workers | None, observer: Observer, *, fast: bool
) -> EngineResult:
    if task.engine == "random":
        return run_random(task.limits, seconds=seconds, runs=runs, seed=seed, workers=workers, report=observer.update, fast=fast)
    bound = _FOREVER if seconds is None else seconds
    if task.engine == "hypothesis":
        from fuzz.machines.engine import run_hypothesis

        return run_hypothesis(task.limits, seconds=bound, runs=runs, seed=seed, max_steps=100)
    from fuzz.atheris_engine import TargetFailed, run_atheris

    with tempfile.TemporaryDirectory(prefix="drc-atheris-") as folder:
        try:
            return run_atheris(task.limits, seconds=bound, runs=runs, seed=seed, folder=Path(folder))
        except TargetFailed as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise HarnessFailure(" ".join(lines[:1] + lines[1:][-1:])) from error
