"""A run is done twice from the same answers; if it is a function of its choices, nothing tells the two apart.

Whatever a run remembers outside the model's state and the arena shows here: a second run is offered other alternatives, or ends
in another state. A finding that does not repeat is worth nothing, so a campaign does this to some of its runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fuzz.choosers import HiddenState, Recording
from fuzz.driver import Divergence, Driver
from model.choose import Exhausted
from model.trace import format_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzz.driver import Outcome
    from model.choose import Chooser
    from model.ops import Row

_WORD_BYTES: Final = 8


@dataclass(slots=True)
class _Record:
    """Everything by which two runs can be told apart. `verdict` is empty for a run that did not diverge."""

    rows: tuple[Row, ...] = ()
    depths: tuple[int, ...] = ()
    counts: list[int] = field(default_factory=list)
    seen: int = 0
    verdict: str = ""
    state: list[int] = field(default_factory=list)
    memory: bytes = b""


class _Rehearsed:
    """Answers as recorded, and raises as soon as another number of alternatives is offered."""

    def __init__(self, recording: Recording, driver: Driver) -> None:
        self.answers = recording.answers
        self.counts = recording.counts
        self.driver = driver
        self.position = 0

    def choose(self, count: int) -> int:
        """Return the recorded answer. Raise HiddenState if it was picked from another number of alternatives."""
        position = self.position
        if position == len(self.answers):
            raise Exhausted
        if count != self.counts[position]:
            rows = self.driver.rows
            after = f"after {format_row(rows[-1], self.driver.limits)!r}" if rows else "at the start"
            raise HiddenState(
                f"choice {position}, for operation {len(rows)} or an operand of it, {after}: "
                f"{self.counts[position]} alternatives in the first run, {count} in the second"
            )
        self.position = position + 1
        return self.answers[position]


def run_twice(driver: Driver, chooser: Chooser, operations_max: int = 1 << 30) -> Outcome:
    """Do a run, do it again from the answers that it got, and compare everything.

    The same driver does both: what it fails to reset is hidden state as well.

    Args:
        driver: is reset before each run, and left as the second one ends.
        chooser: answers the first run.
        operations_max: see `Driver.run`.

    Raises:
        HiddenState: the runs differ; names the first difference.
        Divergence: both runs diverge alike.

    Complexity: two runs, and two copies of the arena.
    """
    recording = Recording(chooser)
    driver.reset()
    first, _ = _run(driver, recording, operations_max)
    driver.reset()
    rehearsed = _Rehearsed(recording, driver)
    second, result = _run(driver, rehearsed, operations_max)
    _compare(first, second, driver)
    if rehearsed.position != len(recording.answers):
        raise HiddenState(f"the first run asked for {len(recording.answers)} choices, the second for {rehearsed.position}")
    if isinstance(result, Divergence):
        raise result
    return result


def _run(driver: Driver, chooser: Chooser, operations_max: int) -> tuple[_Record, Outcome | Divergence]:
    """Run once; a divergence is a result here."""
    result: Outcome | Divergence
    verdict = ""
    try:
        result = driver.run(chooser, operations_max)
    except Divergence as found:
        result, verdict = found, str(found)
    record = _Record(
        tuple(driver.rows),
        tuple(driver.depths),
        list(driver.counts),
        driver.outcome().seen,
        verdict,
        list(driver.state),
        driver.runtime.snapshot(),
    )
    return record, result


def _compare(first: _Record, second: _Record, driver: Driver) -> None:
    """Raise HiddenState at the first difference: operations, then verdict, coverage, the model's state, the arena."""
    at = _first_difference(first.rows, second.rows)
    if at is not None:
        said = [format_row(rows[at], driver.limits) if at < len(rows) else "nothing" for rows in (first.rows, second.rows)]
        raise HiddenState(f"operation {at}: {said[0]!r} in the first run, {said[1]!r} in the second")
    if first.verdict != second.verdict:
        raise HiddenState(f"the first run ends with {first.verdict or 'agreement'!r}, the second with {second.verdict or 'agreement'!r}")
    for what, before, after in (
        ("the nesting of operation", first.depths, second.depths),
        ("the executions of kind", first.counts, second.counts),
        ("the sometimes properties", (first.seen,), (second.seen,)),
        ("the final state of the model, word", first.state, second.state),
        ("the final arena, word", _words(first.memory), _words(second.memory)),
    ):
        at = _first_difference(before, after)
        if at is not None:
            values = [str(side[at]) if at < len(side) else "nothing" for side in (before, after)]
            raise HiddenState(f"{what} {at}: {values[0]} in the first run, {values[1]} in the second")


def _first_difference(before: Sequence[object], after: Sequence[object]) -> int | None:
    if before == after:
        return None
    for index, (old, new) in enumerate(zip(before, after, strict=False)):
        if old != new:
            return index
    return min(len(before), len(after))


def _words(memory: bytes) -> memoryview[int]:
    return memoryview(memory[: len(memory) // _WORD_BYTES * _WORD_BYTES]).cast("Q")


__all__ = ["HiddenState", "run_twice"]
