"""The Hypothesis engine: batches of examples of the runtime machine until the time is up, the runs are done, or something is found.

This file imports nothing of Hypothesis until it is needed, so that its absence can be said in words.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Final

from fuzz.driver import Divergence, Outcome
from fuzz.results import EngineResult, MissingExtra
from fuzz.swarm import POOL, variant
from model.limits import Limits

BATCH: Final = 100
"""Examples of one seed. Hypothesis remembers all of them, and builds on what it remembers."""
SHRINK_SECONDS_MAX: Final = 20.0
"""Hypothesis alone would go on for five minutes; the smallest example so far counts."""
_SEED_FACTOR: Final = 1 << 32


class _Enough(BaseException):
    """Leaves Hypothesis at once. No `Exception`, which would be a failure to shrink."""


class _Recorder:
    """Counts examples, keeps the smallest finding, and says when it is enough.

    Args:
        result: where to count.
        end: when to stop looking, as `time.monotonic` tells it.
        runs: most examples.
        shrink_seconds: how long a finding is shrunk.
    """

    def __init__(self, result: EngineResult, end: float, runs: int | None, shrink_seconds: float) -> None:
        self.result = result
        self.shrink_seconds = shrink_seconds
        self.end = end
        self.runs = runs
        self.limits = result.limits
        self.left = False

    def begins(self) -> None:
        """Leave Hypothesis when the time is up."""
        if self.done():
            self.left = True
            raise _Enough

    def done(self) -> bool:
        """Whether there is no time left, or nothing to do."""
        enough = self.runs is not None and self.result.finding is None and self.result.runs >= self.runs
        return enough or time.monotonic() >= self.end

    def ended(self, outcome: Outcome, divergence: Divergence | None) -> None:
        """Count an example; those of shrinking are not counted."""
        smallest = self.result.finding
        if smallest is None:
            self.result.add(outcome)
        if divergence is None:
            return
        if smallest is None:
            self.result.limits = self.limits
            self.end = time.monotonic() + self.shrink_seconds
        if smallest is None or (divergence.verdict == smallest.verdict and _size(divergence) < _size(smallest)):
            self.result.finding = divergence


def _size(divergence: Divergence) -> tuple[int, int]:
    rows = divergence.rows[: divergence.chosen]
    return len(rows), sum(value for row in rows for value in row[1:]) + sum(map(len, rows))


def run_hypothesis(
    limits: Limits,
    *,
    seconds: float,
    runs: int | None,
    seed: int,
    max_steps: int,
    checked: bool = True,
    shrink_seconds: float = SHRINK_SECONDS_MAX,
) -> EngineResult:
    """Run the runtime machine; a finding is shrunk for some seconds more.

    The first batch uses the limits as they are, every other one a variant of them. What a batch does follows from the seed
    and the number of the batch, so without a bound of time the whole result does.

    Args:
        limits: the scope.
        seconds: time to look for a finding.
        runs: most examples; None for no bound.
        seed: any int.
        max_steps: most rules in an example.
        checked: whether to use the checked memory.
        shrink_seconds: how long a finding is shrunk at most.

    Raises:
        MissingExtra: Hypothesis is not installed.
    """
    if find_spec("hypothesis") is None:
        raise MissingExtra("hypothesis", "fuzz")
    start = time.monotonic()
    result = EngineResult(limits, checked=checked)
    recorder = _Recorder(result, start + seconds, runs, shrink_seconds)
    batch = 0
    try:
        while result.finding is None and not recorder.done():
            recorder.limits = variant(limits, 1 + seed * POOL + batch % POOL if batch % 2 else 0)
            _run_batch(recorder, seed * _SEED_FACTOR + batch, max_steps, checked=checked)
            batch += 1
    except KeyboardInterrupt:
        result.interrupted = True
    result.seconds = time.monotonic() - start
    return result


def _run_batch(recorder: _Recorder, seed: int, max_steps: int, *, checked: bool) -> None:
    """Let Hypothesis run and shrink examples of one seed."""
    import hypothesis
    from hypothesis import HealthCheck, Phase, Verbosity
    from hypothesis.stateful import run_state_machine_as_test

    from fuzz.machines.runtime import machine

    settings = hypothesis.settings(
        max_examples=BATCH,
        stateful_step_count=max_steps,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
    )
    seeded = hypothesis.seed(seed)(machine(recorder.limits, checked=checked, record=recorder))
    try:
        run_state_machine_as_test(seeded, settings=settings)
    except _Enough:
        pass
    except Exception:
        # With a finding this is how Hypothesis reports it, or its doubts whether it can be reproduced; and it takes an example
        # that was left at once for a flaky one.
        if recorder.result.finding is None and not recorder.left:
            raise
