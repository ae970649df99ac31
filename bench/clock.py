"""Subjects are measured in turns, A B C A B C, so that a machine that slows down slows all of them; medians over the turns.

Processor time, not wall time: what else the machine does then matters less. An engine in a process of its own counts as well.
"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from impl.arena import raw_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ACCESSES: Final = 20_000
_BLOCK: Final = 10


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of several subjects, one for each turn, in the order of the turns.

    Args:
        seconds: by subject.
    """

    seconds: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Return a subject's median in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Return the median, over the turns, of how many times longer than `base` a subject took in the same turn."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.seconds[name], self.seconds[base], strict=True))


def measure(subjects: Mapping[str, Callable[[], object]], turns: int) -> Times:
    """Time each subject once in each turn, after one turn that does not count.

    Args:
        subjects: what to call, by name; each call does the same work.
        turns: how many count, at least 1.
    """
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for work in subjects.values():
        work()
    # What was prepared for the measurement is no garbage, and would be looked at again and again.
    gc.collect()
    gc.freeze()
    try:
        for _ in range(turns):
            for name, work in subjects.items():
                gc.collect()
                seconds[name].append(timed(work))
    finally:
        gc.unfreeze()
    return Times({name: tuple(values) for name, values in seconds.items()})


def timed(work: Callable[[], object]) -> float:
    """Return the processor seconds of one call, never 0; those of processes that it started and waited for included."""
    start = _processor_seconds()
    work()
    return max(_processor_seconds() - start, 1e-9)


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Calibration:
    """What one access to a raw memory costs here and now: the unit in which machines differ.

    Its work is timed among the subjects of a measurement.
    """

    def __init__(self) -> None:
        self._memory = raw_memory(_BLOCK)

    def accesses(self) -> None:
        """Read and write words, with nothing but a loop around."""
        memory = self._memory
        for _ in range(_ACCESSES // (2 * _BLOCK)):
            memory[0] = memory[1]
            memory[1] = memory[2]
            memory[2] = memory[3]
            memory[3] = memory[4]
            memory[4] = memory[5]
            memory[5] = memory[6]
            memory[6] = memory[7]
            memory[7] = memory[8]
            memory[8] = memory[9]
            memory[9] = memory[0]

    @staticmethod
    def nanoseconds(seconds: float) -> float:
        """Return the cost of one access, given the time of `accesses`."""
        return seconds / _ACCESSES * 1e9
