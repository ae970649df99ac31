"""Runs of a campaign in compiled code, one after another; what they count is what the plain reading counts.

The memory is the raw one, with its bounds checked: the checked memory is for the plain reading. A run that finds something is done
again by the plain reading, which has the words for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuzz.choosers import Seeded
from fuzz.compiled import runs
from fuzz.compiled.machine import Machine
from fuzz.compiled.world import COUNTS_AT, REGISTERS, STATE_AT
from fuzz.outcome import Outcome
from fuzz.workers import HarnessFailure
from model.limits import SEEN
from model.ops import Kind

if TYPE_CHECKING:
    from model.limits import Limits

_MACHINES_MAX: Final = 128
_SIGN_SHIFT: Final = 63


class CompiledRunner:
    """Keeps a machine for each variant of limits."""

    def __init__(self) -> None:
        self._machines: dict[Limits, Machine] = {}

    def run(self, limits: Limits, seed: int, operations_max: int) -> Outcome | None:
        """Do one run.

        Args:
            limits: its bounds.
            seed: of its choices.
            operations_max: most operations that are drawn.

        Returns:
            What was done, without its operations; None if the two sides disagree.

        Raises:
            ValueError: the bounds do not fit into compiled code.
        """
        machine = self._machines.get(limits)
        if machine is None:
            if len(self._machines) >= _MACHINES_MAX:
                self._machines.clear()
            machine = self._machines[limits] = Machine(limits)
        dice = Seeded(seed).state
        if machine.call(runs.run, dice - (dice >> _SIGN_SHIFT << _SIGN_SHIFT + 1), operations_max) != 0:
            return None
        world = machine.w
        counts = world[COUNTS_AT : COUNTS_AT + len(Kind)].tolist()
        return Outcome((), (), sum(counts), counts, world[STATE_AT + SEEN], ())

    def digest(self, limits: Limits) -> tuple[int, int]:
        """Return the digest of the operations of the last run under these limits; see `fuzz.compiled.runs`."""
        world = self._machines[limits].w
        return world[REGISTERS["run_low"]], world[REGISTERS["run_high"]]


def unrepeated(index: int, seed: int) -> HarnessFailure:
    """Return the error that only one of the two readings finds something in a run."""
    message = "the two readings differ: compiled code finds a violation, the plain reading does not"
    return HarnessFailure(f"run {index} of seed {seed}: {message}")
