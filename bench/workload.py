"""The same runs for every benchmark: a size, and for each scope the recordings of its seeds, whose digest is the result."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from bench.recording import Recorder
from model.limits import SCOPES
from model.trace import Trace, format_trace

if TYPE_CHECKING:
    from bench.recording import Recording
    from model.limits import Limits


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Args:
        runs: of each scope, with the seeds from 0 on.
        operations_max: most operations of a run, its finale not included.
        turns: how often each subject is timed.
        examples: of the Hypothesis machine, for each turn.
        executions: of the atheris target, for each turn.
        engine_turns: how often each engine is timed.
    """

    runs: int
    operations_max: int
    turns: int
    examples: int
    executions: int
    engine_turns: int


FULL_SIZE: Final = Size(runs=20, operations_max=200, turns=9, examples=40, executions=150, engine_turns=3)
SMOKE_SIZE: Final = Size(runs=2, operations_max=40, turns=2, examples=2, executions=20, engine_turns=1)


class Workload:
    """The runs of one scope, recorded when first asked for.

    Args:
        limits: the scope.
        size: how many runs, and how long.
    """

    def __init__(self, limits: Limits, size: Size) -> None:
        self.limits = limits
        self.size = size

    @cached_property
    def recordings(self) -> tuple[Recording, ...]:
        """The runs.

        Raises:
            Divergence: the two sides disagree.
        """
        recorder = Recorder(self.limits)
        return tuple(recorder.record(seed, self.size.operations_max) for seed in range(self.size.runs))

    @cached_property
    def steps(self) -> int:
        """Operations of all runs, their finales included."""
        return sum(recording.outcome.steps for recording in self.recordings)

    @cached_property
    def digest(self) -> str:
        """A digest over what was done, and all states of both sides; the same in any process, on any machine of this byte order."""
        chain = hashlib.blake2b(digest_size=16)
        for recording in self.recordings:
            outcome = recording.outcome
            chain.update(format_trace(Trace(self.limits, outcome.rows), outcome.depths).encode())
            chain.update(repr((outcome.steps, outcome.counts, outcome.seen)).encode())
            chain.update(repr((recording.memory_digest, recording.state_digest, recording.state_end)).encode())
            chain.update(recording.memory_end)
        return chain.hexdigest()


def workloads(size: Size, scopes: tuple[str, ...] = tuple(SCOPES)) -> dict[str, Workload]:
    """Return the workloads of scopes, by name."""
    return {scope: Workload(SCOPES[scope], size) for scope in scopes}


def result_hash(found: dict[str, Workload]) -> str:
    """Return one digest of all workloads."""
    text = "\n".join(f"{scope} {workload.digest}" for scope, workload in sorted(found.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
