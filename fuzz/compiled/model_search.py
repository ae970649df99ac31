"""The compiled search of the model alone: the blocks, workers and files of the search over joint states, over small steps.

States, transitions, depth, executions, sometimes properties and the first violation are those of `fuzz.model_search.ModelExplorer`,
which is asked to repeat a violation, because it has the words for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.compiled import kernel, small
from fuzz.compiled.machine import Machine
from fuzz.compiled.search import CompiledExplorer
from fuzz.compiled.world import REGISTERS
from fuzz.model_search import ModelExplorer
from fuzz.model_states import ModelStates
from fuzz.small_steps import first_state
from fuzz.workers import HarnessFailure

if TYPE_CHECKING:
    from pathlib import Path

    from fuzz.explore import Bounds, Violation
    from model.limits import Limits


class CompiledModelExplorer(CompiledExplorer):
    """A search of the model alone by compiled code; to its callers much like `fuzz.model_search.ModelExplorer`.

    Args:
        finale: whether everything is let go of from each new state at rest, to see that nothing is left behind.
        limits, symmetry, bounds, jobs, memory_max, folder: see `CompiledExplorer`.

    Raises:
        ValueError: the limits do not fit into the compiled reading, or into a packed state.
        MissingExtra, CompilerFailed: there is no compiled code.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        symmetry: bool,
        finale: bool = False,
        bounds: Bounds | None = None,
        jobs: int = 1,
        memory_max: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self._finale = finale
        super().__init__(limits, symmetry=symmetry, bounds=bounds, jobs=jobs, memory_max=memory_max, folder=folder)

    def _prepare(self, limits: Limits, *, symmetry: bool) -> None:
        self.model = ModelStates(limits, symmetry=symmetry, finale=self._finale)
        self.machine = Machine(limits, symmetry=self.model.symmetry, state=first_state(limits))
        self.machine.w[REGISTERS["finale"]] = int(self._finale)
        self._entry = small.expand

    def _begin(self) -> None:
        control, known = self._control, self.known
        self.machine.call(small.begin, known.table, len(known.table) // 2 - 1, self.frontier.room, control)
        known.states = 1
        self.frontier.wrote(control.words[kernel.FOLLOWING_END], 1)
        self.frontier.flush()
        self.search.waiting = 1

    def _repeated(self, number: int, ordinal: int | None) -> Violation:
        """Let the interpreted reading repeat a violation.

        Raises:
            HarnessFailure: it does not.
        """
        if ordinal == small.DEADLOCK:
            ordinal = None
        found = ModelExplorer(self.model, self.search).repeated(number, ordinal)
        if found is None:
            step = "the state itself" if ordinal is None else f"step {ordinal}"
            raise HarnessFailure(
                f"the two readings differ: compiled code finds a violation in state {number}, {step}, and the plain reading does not"
            )
        return found
