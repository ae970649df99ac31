"""A lockstep run is written down call by call, so that either side can be run again without the other.

What a side is told depends on the run's choices alone: the same calls on the same memory return the same addresses, so
recorded arguments stay valid. A running digest over every state between two top-level calls makes a replay accountable.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from fuzz.choosers import Seeded
from fuzz.driver import Driver
from impl.errors import Panicked
from impl.externref import VTABLE_FIELDS, VTABLE_SIZE_BYTES
from impl.protocol import RuntimeProtocol
from model.limits import FULL, SEEN
from model.ops import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from fuzz.driver import Outcome
    from impl.runtime import Runtime
    from model.limits import Limits
    from model.ops import Row
    from model.state import State

QUERIES: Final = frozenset({"snapshot", "restore", "strong_count", "value_of", "lookup", "check"})
"""Methods of a runtime that only the checker calls: they change nothing, and are no work of the implementation."""
OPERATIONS: Final = tuple(name for name in vars(RuntimeProtocol) if not name.startswith("_") and name not in QUERIES)
"""The other methods, by which an operation is said to a runtime."""

CONSTRUCTED: Final = "constructed"
"""An event: the host wrote these pairs of index and word, or panicked (None)."""
DESTROYED: Final = "destroyed"
"""An event: a destructor's body is over; whether it panicked."""

BEGINS: Final = 0
FINISHES: Final = 1
DIES: Final = 2
DIED: Final = 3
"""Codes of the steps of a script: an operation's two halves, and those of a destruction."""

Event = tuple[str, tuple[object, ...] | bool | None]
"""The name of a method with its arguments, or one of the two above."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the model.

    Args:
        code: `BEGINS`, `FINISHES`, `DIES` or `DIED`.
        row: the operation of the first two.
        number: for `BEGINS` whether the bump chunk lacks room, for the last two the name of the value.
        panicked: for `DIED`, whether the destructor panicked.
    """

    code: int
    row: Row = ()
    number: int = 0
    panicked: bool = False


@dataclass(frozen=True, slots=True)
class Recording:
    """One run, told to each side.

    Args:
        events: the calls of the runtime in the order in which they started, with what its host did.
        script: the steps of the model, one list for each top-level operation.
        outcome: what the run did.
        memory_digest: over the memory after each top-level call.
        state_digest: over the model's state after each top-level operation.
        memory_end: the memory after the finale.
        state_end: the model's state after the finale.
    """

    events: tuple[Event, ...]
    script: tuple[tuple[Step, ...], ...]
    outcome: Outcome
    memory_digest: str
    state_digest: str
    memory_end: bytes
    state_end: tuple[int, ...]


class Chain:
    """A digest over a sequence of states."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def memory(self, snapshot: bytes) -> None:
        """Add a memory."""
        self._hash.update(snapshot)

    def state(self, state: State) -> None:
        """Add a state of the model."""
        self._hash.update(repr(comparable(state)).encode())

    def hexdigest(self) -> str:
        """Return the digest so far."""
        return self._hash.hexdigest()


def comparable(state: State) -> tuple[int, ...]:
    """Return a state without its coverage, some of which only the implementation can show."""
    return tuple(int(word) if index != SEEN else 0 for index, word in enumerate(state))


class _Spy:
    """Stands in for a driver's runtime and writes down the operations that it passes on.

    Args:
        runtime: the runtime.
        recorder: whose events and chain they go to.
    """

    def __init__(self, runtime: Runtime, recorder: Recorder) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._nesting = 0
        for name in OPERATIONS:
            setattr(self, name, self._listening(name, getattr(runtime, name)))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the runtime has
        return getattr(self._runtime, name)

    def _listening(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            recorder = self._recorder
            recorder.events.append((name, tuple(tuple(arg) if isinstance(arg, list) else arg for arg in args)))
            self._nesting += 1
            try:
                return method(*args)
            finally:
                self._nesting -= 1
                if not self._nesting:
                    recorder.memory_chain.memory(self._runtime.snapshot())

        return call


class Recorder(Driver):
    """A driver on raw memory that writes its runs down.

    Args:
        limits: bounds of the runs.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.runtime = cast("Runtime", _Spy(self.runtime, self))

    def record(self, seed: int, operations_max: int) -> Recording:
        """Do the run that a random engine does for a seed.

        Args:
            seed: of the choices.
            operations_max: most operations before the finale.

        Raises:
            Divergence: the two sides disagree.
        """
        self.reset()
        self.events: list[Event] = []
        self.memory_chain = Chain()
        self._state_chain = Chain()
        self._script: list[tuple[Step, ...]] = []
        self._steps: list[Step] = []
        self.on_step = self._finished
        outcome = self.run(Seeded(seed), operations_max)
        return Recording(
            tuple(self.events),
            tuple(self._script),
            outcome,
            self.memory_chain.hexdigest(),
            self._state_chain.hexdigest(),
            self.runtime.snapshot(),
            comparable(self.state),
        )

    def begin(self, row: Row) -> int:
        """Write down the first half of an operation."""
        self._steps.append(Step(BEGINS, row, self.state[FULL]))
        return super().begin(row)

    def _finished(self, row: Row, _result: int) -> None:
        if row[0] == Kind.END:
            # The end of a destructor's body has its second half at once.
            return
        self._steps.append(Step(FINISHES, row))
        if not self.nesting:
            self._script.append(tuple(self._steps))
            self._steps.clear()
            self._state_chain.state(self.state)

    def construct(self, value: int, vtable: int) -> None:
        """Write down what a constructor wrote."""
        try:
            super().construct(value, vtable)
        except Panicked:
            self.events.append((CONSTRUCTED, None))
            raise
        memory = self.runtime.memory
        written = range(value + memory[vtable + VTABLE_FIELDS], value + (memory[vtable + VTABLE_SIZE_BYTES] + 7 >> 3))
        self.events.append((CONSTRUCTED, tuple((index, memory[index]) for index in written)))

    def destroy(self, externref: int) -> None:
        """Write down where a destructor ended, and how."""
        name = self.name_of(externref)
        self._steps.append(Step(DIES, (), name))
        panicked = True
        try:
            super().destroy(externref)
            panicked = False
        finally:
            self.events.append((DESTROYED, panicked))
            self._steps.append(Step(DIED, (), name, panicked))
