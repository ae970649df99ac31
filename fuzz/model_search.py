"""The search loop over the model alone: the same states in the same order, whatever the number of processes that expand them.

Worker processes only expand. What is known, the numbers of states and the frontier are with the loop, which takes expansions in the order
of the frontier. A worker leaves a state out only if it has told it before, and so earlier: nothing is numbered otherwise.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from fuzz.explore import SearchLoop, Violation
from fuzz.model_states import Expansion, ModelStates
from fuzz.outcome import Divergence
from fuzz.small_steps import DESTROY, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from fuzz.watchdog import Hang
    from fuzz.workers import Workers
    from model.limits import Limits

TASK_BATCHES: Final = 256
"""Batches of the frontier that a worker is given at once: a task takes some ten milliseconds, a hundred times what sending it costs."""
TASKS_AHEAD: Final = 3
"""Tasks that wait for each worker."""
TOLD_MAX: Final = 1 << 20
"""Keys that a worker remembers to have told. It is a filter only: when it is full, it begins anew."""


Task = tuple[int, "Limits", bool, bool, bool]
"""The number of the search in the process that asks, then limits, symmetry, exact and finale."""
_NUMBERS: Final = itertools.count()


@dataclass(slots=True)
class ModelExplorer(SearchLoop):
    """The search loop over states that are expanded whole.

    Args:
        workers: processes that expand states; None to expand them in this one.
    """

    system: ModelStates
    workers: Workers | None = None
    _number: int = field(default_factory=lambda: next(_NUMBERS), compare=False)
    _rest: Iterator[list[bytes]] = field(default_factory=lambda: iter(()))
    _ahead: deque[Future[list[Expansion]]] = field(default_factory=deque)
    _expanded: deque[Expansion] = field(default_factory=deque)
    _violating: int | None = None
    """The number of the step that violates something; None if the state at hand does."""

    def _compressed(self, states: Sequence[bytes]) -> bytes:
        # A state is hardly a hundred bytes, and a tenth of its time would go into making it less.
        return b"".join(states)

    def _decompressed(self, batch: bytes) -> bytes:
        return batch

    def _expand(self) -> Divergence | Hang | None:
        """Take all steps from the next state of the frontier; return the first violation, if there is one."""
        search, seen = self.search, self.search.seen
        number = search.states - search.queue
        state = self._at_hand()
        if self.record is not None:
            self._tell_record(number, state)
        expansion = self.system.expand(state, seen) if self.workers is None else self._from_workers(self.workers)
        told_before = self.workers is not None
        found: list[bytes] = []
        for ordinal, key, after in expansion.found:
            if told_before:
                if key in seen:
                    continue
                seen.add(key)
            found.append(after)
            search.parents.append(number)
            search.ordinals.append(ordinal)
        search.transitions += expansion.steps
        for kind, count in expansion.kinds.items():
            search.counts[kind] += count
        for mask, count in expansion.shown.items():
            self._show(mask, count)
        if expansion.violation is not None:
            # What was found on the way has no place in a frontier any more.
            search.arriving += len(found)
            self._violating, verdict, text = expansion.violation
            return Divergence(verdict, text, (), (), 0)
        self._done(found)
        return None

    def _from_workers(self, workers: Workers) -> Expansion:
        """Return the expansion of the state at hand; keep the workers busy with the states after it."""
        if not self._expanded:
            search = self.search
            skip = 0
            if not self._ahead:
                # The queue is empty at the end of a level, never within one.
                level = list(search.frontier)
                size = max(1, min(TASK_BATCHES, len(level) // (TASKS_AHEAD * workers.count)))
                self._rest = iter([level[first : first + size] for first in range(0, len(level), size)])
                skip = search.done
            system = self.system
            for batches in itertools.islice(self._rest, TASKS_AHEAD * workers.count - len(self._ahead)):
                task = (self._number, system.limits, system.symmetry, system.exact, system.finale)
                self._ahead.append(workers.submit(expand_batches, task, batches, skip))
                skip = 0
            expanded: list[Expansion] = workers.result(self._ahead.popleft())
            self._expanded.extend(expanded)
        return self._expanded.popleft()

    def _tell_record(self, number: int, data: bytes) -> None:
        """Tell who listens of each step from a state, with the system in the state that it leads to."""
        system = self.system
        system.open(data)
        for step, state in system.allowed():
            system.follow(step, state)
            if self.record is not None:
                self.record(number, self._key(system.identity()))

    def _simplest(self, error: Divergence | Hang) -> Violation:
        """Return the violation that was met at the state at hand: breadth first, none has fewer steps."""
        if not isinstance(error, Divergence):
            raise TypeError("no step of the model waits for anything")
        return self._violation_at(self.search.states - self.search.queue, self._violating, error.verdict, error.text)

    def _violation_at(self, number: int, ordinal: int | None, verdict: str, text: str) -> Violation:
        """Return a violation by a step from a state, or, with None, by the state itself, with the path to it."""
        system = self.system
        path = self.path(number)
        if ordinal is not None:
            path.append(system.allowed()[ordinal][0])
        rows = tuple(row for what, row in path if what < DESTROY)
        return Violation(rows, len(path), Divergence(verdict, text, rows, (0,) * len(rows), len(rows)), tuple(system.story(path)))

    def repeated(self, number: int, ordinal: int | None) -> Violation | None:
        """Repeat what another search found: a step from a state, or, with None, that something is wrong with the state itself.

        Returns:
            The violation; None if the first one here is not the same.
        """
        self.path(number)
        data, _shown = self.system.settle()
        violation = self.system.expand(data, set()).violation
        if violation is None or violation[0] != ordinal:
            return None
        return self._violation_at(number, *violation)

    def path(self, number: int) -> list[Step]:
        """Return the steps to a state, by its number. Complexity: the steps of all states on the path."""
        search, system = self.search, self.system
        ordinals = []
        while number:
            ordinals.append(search.ordinals[number])
            number = search.parents[number]
        found = []
        system.open(system.root())
        for ordinal in reversed(ordinals):
            step, state = system.allowed()[ordinal]
            system.follow(step, state)
            found.append(step)
        return found


# In a worker process.


@lru_cache(maxsize=1)
def _system(_number: int, limits: Limits, symmetry: bool, exact: bool, finale: bool) -> tuple[ModelStates, set[bytes]]:
    """Return the states of a search and the keys told so far. Another search, even of the same, has been told nothing."""
    return ModelStates(limits, symmetry=symmetry, exact=exact, finale=finale), set()


def expand_batches(task: Task, batches: list[bytes], skip: int) -> list[Expansion]:
    """Expand batches of states, in order.

    Args:
        task: the search.
        batches: of the frontier.
        skip: how many states of the first batch are expanded already.
    """
    system, told = _system(*task)
    size = len(system.root())
    found = []
    for batch in batches:
        for first in range(skip * size, len(batch), size):
            if len(told) > TOLD_MAX:
                told.clear()
            found.append(system.expand(batch[first : first + size], told))
        skip = 0
    return found
