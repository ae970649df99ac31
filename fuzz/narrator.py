"""A replay that writes down what happens: each operation, what came of it, whom it destroyed, why it was skipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fuzz.driver import Divergence, Driver
from fuzz.watchdog import Hang, time_limit
from fuzz.words import UNKNOWN, did, values
from impl.errors import Panicked
from model.limits import CONTEXT_KIND, CONTEXT_WORDS, DEPTH, Limits
from model.ops import Context, Kind, Row
from model.state import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.trace import Trace

_SECONDS_MAX: Final = 60.0
_ROW_SECONDS_MAX: Final = 0.01
"""For each operation more. A hundredth of that is usual; what takes longer has no end."""


@dataclass(slots=True)
class Step:
    """One operation of a telling.

    Args:
        row: the operation.
        depth: destructors running around it.
        finale: it is not of the trace but of the finale.
        skipped: why it was not possible, or None.
        did: what it did, in words.
        destroyed: the values whose destructors it ran, in order.
        state: the model's state after it in words, if asked for.
        failed: the two sides disagree here.
    """

    row: Row
    depth: int
    finale: bool = False
    skipped: str | None = None
    did: str = ""
    destroyed: list[int] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    failed: bool = False

    def words(self) -> str:
        """Return what it did and whom it destroyed."""
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        return "; ".join(filter(None, (self.did, f"destroys {values(self.destroyed)}" if self.destroyed else "")))


@dataclass(slots=True)
class Telling:
    """A replay in words.

    Args:
        limits: of the trace.
        checked: which memory it ran on.
        steps: in the order in which they started.
        events: for each start and end of a step, in order: its index in `steps`, and whether it ended.
        divergence: where it ended, or None if both sides agree to the end.
    """

    limits: Limits
    checked: bool
    steps: list[Step] = field(default_factory=list)
    events: list[tuple[int, bool]] = field(default_factory=list)
    divergence: Divergence | None = None

    def failing(self) -> Step | None:
        """Return the step at which the two sides part."""
        return next((step for step in self.steps if step.failed), None)


def tell(trace: Trace, *, checked: bool, states: bool = False) -> Telling:
    """Replay a trace and its finale; return what happened, a divergence included.

    Args:
        trace: what to replay.
        checked: use the checked memory.
        states: describe the model's state after each step.
    """
    return _Narrator(trace.limits, checked=checked, states=states).tell(trace.rows)


def tell_unreplayed(trace: Trace, divergence: Divergence, *, checked: bool) -> Telling:
    """Return the bare operations of a divergence that does not show again."""
    rows = divergence.rows
    steps = [Step(row, depth, finale=i >= divergence.chosen) for i, (row, depth) in enumerate(zip(rows, divergence.depths, strict=True))]
    if steps:
        steps[-1].failed = True
    return Telling(trace.limits, checked, steps, [(index, False) for index in range(len(steps))], divergence)


class _Narrator(Driver):
    """Knows which steps are under way: destructors nest them."""

    def __init__(self, limits: Limits, *, checked: bool, states: bool) -> None:
        super().__init__(limits, checked=checked)
        self.states = states
        self.telling = Telling(limits, checked)
        self.under_way: list[tuple[int, list[int]]] = []
        self.latest = -1
        self.given: Sequence[Row] = ()

    def tell(self, rows: Sequence[Row]) -> Telling:
        telling = self.telling
        self.given = rows
        self.on_step = self._finishes
        try:
            with time_limit(_SECONDS_MAX + len(rows) * _ROW_SECONDS_MAX):
                self.replay(rows)
        except Divergence as found:
            telling.divergence = found
        except Hang as hang:
            telling.divergence = self.divergence("Hang", str(hang))
        if telling.divergence is not None and self.latest >= 0:
            telling.steps[self.latest].failed = True
        return telling

    def next_row(self) -> Row:
        before = len(self.skipped)
        row = super().next_row()
        for position, reason in self.skipped[before:]:
            self.telling.events.append((len(self.telling.steps), False))
            self.telling.steps.append(Step(self.given[position], self.nesting, skipped=reason))
        if len(row):
            self._starts(row, finale=self.closing)
        return row

    def destroy(self, externref: int) -> None:
        outer = self.under_way[-1][0] if self.under_way else self.latest
        name = self.name_of(externref)
        if name >= 0 and outer >= 0:
            self.telling.steps[outer].destroyed.append(name)
        self.latest = outer
        try:
            super().destroy(externref)
        except Panicked:
            self.latest = outer
            raise
        # Not after a verdict: there, the step inside the destructor is the one that failed.
        self.latest = outer

    def _starts(self, row: Row, *, finale: bool) -> None:
        step = Step(row, self.nesting, finale)
        self.latest = len(self.telling.steps)
        self.telling.steps.append(step)
        self.telling.events.append((self.latest, False))
        slots = self._slots()
        step.did = did(row, UNKNOWN, slots, self.limits)
        # The driver does not announce the end of a destructor.
        if row[0] != Kind.END:
            self.under_way.append((self.latest, slots))

    def _slots(self) -> list[int]:
        """Return what the top activation's slots hold."""
        state, limits = self.state, self.limits
        depth = state[DEPTH] - 1
        if state[limits.shape.contexts + depth * CONTEXT_WORDS + CONTEXT_KIND] != Context.WASM:
            return []
        first = limits.shape.slots + depth * limits.slots
        return state[first : first + limits.slots]

    def _finishes(self, row: Row, result: int) -> None:
        index, slots = self.under_way.pop()
        step = self.telling.steps[index]
        step.did = did(row, result, slots, self.limits, panicked=self.panicking and row[0] != Kind.PANIC)
        if self.states:
            step.state = describe(self.state, self.limits)
        self.telling.events.append((index, True))
        self.latest = index
