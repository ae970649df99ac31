"""A finding is cut down to what it needs: fewer operations, then smaller operands, while the verdict stays.

Delta debugging first (Zeller and Hildebrandt, 2002), then single operations, pairs, operands and list items, again and again
until nothing changes. Deterministic; bounded by replays, not by time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fuzz.choosers import Seeded
from fuzz.driver import Divergence, Driver
from fuzz.watchdog import Hang, time_limit
from model.ops import BY_KIND, NULL, Kind, Row
from model.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPLAYS_MAX: Final = 6000
_SECONDS_MAX: Final = 5.0
SHORT: Final = 5
"""A trace of so few operations is short enough: nobody gains by looking for a shorter one."""
_REPLAYS_HUNT: Final = 300
_SHRINKS_HUNT: Final = 8


class Shrinker:
    """Cuts one finding down.

    Args:
        trace: limits and operations that diverge.
        checked: which memory to replay on (the verdict may depend on it).
        verdict: what must stay; a class name, see `Divergence`.
        replays_max: bound of the effort.
    """

    def __init__(self, trace: Trace, *, checked: bool, verdict: str, replays_max: int = REPLAYS_MAX) -> None:
        self.limits = trace.limits
        self.rows = trace.rows
        self.checked = checked
        self.verdict = verdict
        self.left = replays_max
        self.found: Divergence | None = None
        self._driver: Driver | None = None
        self._tried: set[tuple[Row, ...]] = set()

    def shrink(self) -> tuple[Trace, Divergence | None]:
        """Return the smallest trace found and its divergence (None if the finding did not show again)."""
        if not self._keep(self.rows):
            return Trace(self.limits, self.rows), None
        while self.left > 0:
            before = self.rows
            self._chunks()
            self._pairs()
            self._operands()
            if self.rows == before:
                break
        return Trace(self.limits, self.rows), self.found

    def _keep(self, rows: tuple[Row, ...]) -> bool:
        """Replay; if the verdict is the same, keep what was really executed and say so."""
        if rows in self._tried or self.left <= 0:
            return False
        self._tried.add(rows)
        self.left -= 1
        found = diverges(self._fresh(), rows)
        if found is None or found.verdict != self.verdict:
            if found is not None:
                self._driver = None
            return False
        # The driver is in pieces after a divergence.
        self._driver = None
        executed = found.rows[: found.chosen]
        self.rows = executed if len(executed) <= len(rows) else rows
        self.found = found
        return True

    def _fresh(self) -> Driver:
        if self._driver is None:
            self._driver = Driver(self.limits, checked=self.checked)
        else:
            self._driver.reset()
        return self._driver

    def _chunks(self) -> None:
        size = max(1, len(self.rows) // 2)
        while size:
            position = len(self.rows)
            while position > 0 and self.left > 0:
                start = max(0, position - size)
                self._keep(self.rows[:start] + self.rows[position:])
                position = min(start, len(self.rows))
            size //= 2

    def _pairs(self) -> None:
        """Take out two operations at once: a call and its return, a value and what names it."""
        if len(self.rows) > 60:  # quadratic
            return
        first = len(self.rows) - 1
        while first >= 0 and self.left > 0:
            for second in range(first + 1, len(self.rows)):
                rows = self.rows[:first] + self.rows[first + 1 : second] + self.rows[second + 1 :]
                if self._keep(rows) or self._keep(renamed(rows, self.rows[first], first)):
                    break
            first = min(first, len(self.rows)) - 1

    def _operands(self) -> None:
        position = 0
        while position < len(self.rows) and self.left > 0:
            for row in simpler(self.rows[position]):
                if self._keep((*self.rows[:position], row, *self.rows[position + 1 :])):
                    break
            else:
                position += 1
        for position in range(len(self.rows)):
            if position < len(self.rows):
                shifted = renamed(self.rows, self.rows[position], position)
                self._keep(shifted[:position] + shifted[position + 1 :])


def renamed(rows: Sequence[Row], removed: Row, position: int) -> tuple[Row, ...]:
    """Return rows in which later names are one smaller, as they are when a `new` is taken out."""
    if removed[0] != Kind.NEW:
        return tuple(rows)
    return tuple(row if i < position else _lowered(row) for i, row in enumerate(rows))


def _lowered(row: Row) -> Row:
    return (row[0], *(value - 1 if value > 0 else value for value in row[1:]))


def simpler(row: Row) -> Iterator[Row]:
    """Yield rows that say less: fewer items, smaller numbers, null."""
    spec = BY_KIND[row[0]]
    first_item = 1 + len(spec.operands)
    for index in range(first_item, len(row)):
        yield row[:index] + row[index + 1 :]
    for index in range(1, len(row)):
        value = row[index]
        for smaller in sorted({NULL, 0, value // 2, value - 1}):
            if NULL <= smaller < value:
                yield (*row[:index], smaller, *row[index + 1 :])


def diverges(driver: Driver, rows: Sequence[Row]) -> Divergence | None:
    """Replay rows; return the divergence, if any. A replay that does not end is one."""
    try:
        with time_limit(_SECONDS_MAX):
            driver.replay(rows)
    except Divergence as found:
        return found
    except Hang as hang:
        return driver.divergence("Hang", str(hang))
    except RecursionError as error:
        return driver.divergence("RecursionError", str(error))
    return None


def shrink_limits(trace: Trace, *, checked: bool, verdict: str) -> Trace:
    """Return the trace under the smallest chunk for which it still diverges."""
    for chunk in range(1, min(trace.limits.chunk, 4)):
        limits = replace(trace.limits, chunk=chunk)
        found = diverges(Driver(limits, checked=checked), trace.rows)
        if found is not None and found.verdict == verdict:
            return Trace(limits, trace.rows)
    return trace


def hunt(trace: Trace, *, checked: bool, verdict: str, runs: int = 600) -> Trace:
    """Look for a shorter trace with the same verdict by short random runs that use only what this one needed.

    Cutting down ends where no single change helps; a fresh start often ends lower. Deterministic: bounded by runs.

    Args:
        trace: cut down already.
        checked: on which memory.
        verdict: what must stay.
        runs: how many runs to try; each is a few times as long as the trace.
    """
    kinds = frozenset(Kind(row[0]) for row in trace.rows)
    best = trace
    left = _SHRINKS_HUNT
    for chunk in sorted({1, trace.limits.chunk}):
        limits = replace(trace.limits, kinds=kinds, chunk=chunk, objects=min(trace.limits.objects, 4), layouts=1, functions=1)
        driver = Driver(limits, checked=checked)
        for number in range(runs // 2):
            if len(best.rows) <= SHORT or not left:
                break
            driver.reset()
            found = _short_run(driver, number, 4 * len(best.rows))
            if found is None:
                continue
            if found.verdict == verdict:
                left -= 1
                short = Trace(limits, found.rows[: found.chosen])
                smaller, again = Shrinker(short, checked=checked, verdict=verdict, replays_max=_REPLAYS_HUNT).shrink()
                if again is not None and len(smaller.rows) < len(best.rows):
                    best = smaller
            driver = Driver(limits, checked=checked)
    return Trace(replace(best.limits, kinds=trace.limits.kinds), best.rows)


def _short_run(driver: Driver, number: int, operations_max: int) -> Divergence | None:
    try:
        with time_limit(_SECONDS_MAX):
            driver.run(Seeded(number), operations_max)
    except Divergence as found:
        return found
    except (Hang, RecursionError):
        return None
    return None
