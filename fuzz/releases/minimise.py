"""A finding is cut down by running smaller recipes on the release that showed it, until none that is tried still shows it.

Items are taken out in ever smaller pieces, then what is left is made plainer: no control flow around instructions, fewer
integers, fewer arguments, shorter loops. A smaller recipe counts if it shows a verdict of the same family.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Final

from fuzz.releases import oracle, recipe
from fuzz.releases.build import Built, build
from fuzz.releases.recipe import Item, Recipe, form_of
from model.ops import BY_KIND, NULL, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuzz.releases.oracle import Verdict

    Judge = Callable[[Built], Verdict | None]
    """Runs a program and judges it."""

MEMORY: Final = "memory"
"""The family of verdicts that say memory is, or would be, corrupt."""
RUNS_MAX: Final = 2000
"""Programs that minimising may run."""
HISTORY: Final = 8
"""Smaller programs that are tried again, the smallest first, when one does not show the finding each time."""
PAIRS_MAX: Final = 12
"""Most items of which each two are taken out together: a call goes with what it calls, a value with who names it."""
STEADY: Final = 2
"""Times that the smallest program has to show the finding again."""
_QUIET: Final = frozenset({oracle.LEAK, oracle.LATE, oracle.WRONG_SIZE, oracle.NO_TRAP})


def family(verdict: Verdict | None) -> str:
    """Return what a smaller recipe must show too: what corrupts memory may show in many ways, the rest in one.

    >>> from fuzz.releases.oracle import Verdict
    >>> family(Verdict("crash SIGSEGV", "")), family(Verdict("leak", "")), family(Verdict("refused", ""))
    ('memory', 'leak', '')
    """
    if verdict is None or not verdict.finding:
        return ""
    if verdict.kind in _QUIET:
        return verdict.kind
    return oracle.HANG if verdict.kind == oracle.HANG else MEMORY


@dataclass(slots=True)
class Minimised:
    """The smallest program found.

    Args:
        built: the program.
        verdict: what it shows.
        runs: programs run to find it.
    """

    built: Built
    verdict: Verdict
    runs: int

    @property
    def shown(self) -> tuple[Built, Verdict]:
        """The program and what it shows."""
        return self.built, self.verdict


def minimise(
    built: Built, verdict: Verdict, judge: Judge, *, again: Judge | None = None, stop: Callable[[], bool] = lambda: False
) -> Minimised:
    """Cut a program down.

    Args:
        built: shows the verdict.
        verdict: what it shows.
        judge: runs programs on the release.
        again: the same in a process that has run nothing before, as it will be when a person runs the program.
        stop: asked between runs; True ends the work with the smallest program so far.
    """
    return _Minimiser(Minimised(built, verdict, 0), judge, again or judge, stop).run()


class _Minimiser:
    """Work under way: the smallest program so far."""

    def __init__(self, best: Minimised, judge: Judge, again: Judge, stop: Callable[[], bool]) -> None:
        self.best = best
        self.judge = judge
        self.again = again
        self.stop = stop
        self.family = family(best.verdict)
        self.history = [(best.built, best.verdict)]

    def run(self) -> Minimised:
        self.prefix()
        while True:
            before = self.best.built.recipe
            self.without_pieces()
            self.to_the_end(_plainer)
            self.to_the_end(_smaller)
            if self.best.built.recipe == before and len(before.items) <= PAIRS_MAX:
                self.to_the_end(_without_pairs)
            if self.best.built.recipe == before or self.over():
                return self.steady()

    def steady(self) -> Minimised:
        """Return the smallest program that shows the finding twice more: what freed memory holds is chance, a little."""
        for built, verdict in reversed(self.history[-HISTORY:]):
            if all(family(self.again(built)) == self.family for _ in range(STEADY)):
                self.best.built, self.best.verdict = built, verdict
                break
        return self.best

    def prefix(self) -> None:
        """Find a short beginning that shows the finding, by halves: what comes after it happened is of no use."""
        low, high = 0, len(self.best.built.recipe.items)
        while low + 1 < high:
            middle = (low + high) // 2
            whole = self.best.built.recipe
            if self.shows(replace(whole, items=whole.items[:middle])):
                high = min(middle, len(self.best.built.recipe.items))
            else:
                low = middle

    def without_pieces(self) -> None:
        """Take out pieces of half the items, a quarter, and so on down to one, the last ones first."""
        size = max(1, len(self.best.built.recipe.items) // 2)
        while True:
            end = len(self.best.built.recipe.items)
            while end > 0 and not self.over():
                whole = self.best.built.recipe
                self.shows(replace(whole, items=whole.items[: max(0, end - size)] + whole.items[end:]))
                # What could not be done any more is gone as well.
                end = min(end - size, len(self.best.built.recipe.items))
            if size == 1:
                return
            size //= 2

    def to_the_end(self, ways: Callable[[Recipe], Iterator[Recipe]]) -> None:
        """Simplify for as long as anything helps."""
        while self.first(ways(self.best.built.recipe)):
            pass

    def first(self, candidates: Iterator[Recipe]) -> bool:
        """Keep the first candidate that shows the finding still; say whether there is one."""
        return any(self.shows(candidate) for candidate in candidates)

    def shows(self, candidate: Recipe) -> bool:
        """Keep a candidate if it is smaller and shows the finding still; say whether it is."""
        if self.over():
            return False
        built = build(candidate)
        if _weight(built.recipe) >= _weight(self.best.built.recipe):
            return False
        self.best.runs += 1
        verdict = self.judge(built)
        if verdict is None or family(verdict) != self.family:
            return False
        self.best.built, self.best.verdict = built, verdict
        self.history.append((built, verdict))
        return True

    def over(self) -> bool:
        """Say whether there is no time left."""
        return self.best.runs >= RUNS_MAX or self.stop()


def _weight(candidate: Recipe) -> tuple[int, ...]:
    """Order recipes by how much there is to read."""
    items = candidate.items
    extras = sum(sum(item.row[1:]) for item in items if item.row[0] < 0)
    loops = sum(item.row[-1] > 1 for item in items if item.row[0] in {recipe.CHURN, recipe.FRESH})
    words = sum(len(item.row) for item in items)
    forms = sum((item.wrap > 0) + item.pressure + (item.layout > 0) for item in items)
    return (
        candidate.collections > 0,
        len(items),
        forms,
        loops,
        words,
        extras,
        sum(max(0, number) for item in items for number in item.row[1:]),
        candidate.segments,
    )


def _without(whole: Recipe, size: int) -> Iterator[Recipe]:
    for start in range(0, len(whole.items), size):
        yield replace(whole, items=whole.items[:start] + whole.items[start + size :])


def _without_pairs(whole: Recipe) -> Iterator[Recipe]:
    for first, second in combinations(range(len(whole.items)), 2):
        yield replace(whole, items=(*whole.items[:first], *whole.items[first + 1 : second], *whole.items[second + 1 :]))


def _changed(whole: Recipe, index: int, item: Item) -> Recipe:
    return replace(whole, items=(*whole.items[:index], item, *whole.items[index + 1 :]))


def _plainer(whole: Recipe) -> Iterator[Recipe]:
    """Take forms away: of all items, then of each, then in part."""
    yield replace(whole, items=tuple(replace(item, form=0) for item in whole.items))
    for index, item in enumerate(whole.items):
        if item.form:
            yield _changed(whole, index, replace(item, form=0))
            for form in (
                form_of(0, item.pressure, item.layout),
                form_of(item.wrap, 0, item.layout),
                form_of(item.wrap, item.pressure // 2, item.layout),
                form_of(item.wrap, max(0, item.pressure - 1), item.layout),
                form_of(item.wrap, item.pressure, 0),
            ):
                if 0 < form < item.form:
                    yield _changed(whole, index, replace(item, form=form))


def _smaller(whole: Recipe) -> Iterator[Recipe]:
    """Make operands smaller: fewer segments, shorter loops, fewer references."""
    if whole.collections:
        yield replace(whole, collections=0)
        for index in range(len(whole.items), 0, -1):
            more = (*whole.items[:index], Item((Kind.GC,)), *whole.items[index:])
            yield replace(whole, collections=0, items=more)
    for segments in range(whole.segments):
        yield replace(whole, segments=segments)
    yield from _unrolled(whole)
    for index, item in enumerate(whole.items):
        row = item.row
        if row[0] < 0:
            for position in range(1, len(row)):
                for number in _steps(row[position], least=0 if row[0] == recipe.ACTS or position < len(row) - 1 else 1):
                    yield _changed(whole, index, replace(item, row=(*row[:position], number, *row[position + 1 :])))
            continue
        first = 1 + len(BY_KIND[row[0]].operands)
        if len(row) > first + 1:
            yield _changed(whole, index, replace(item, row=row[:first]))
        for position in range(first, len(row)):
            yield _changed(whole, index, replace(item, row=row[:position] + row[position + 1 :]))
            # A name counts the values before it, which are in the way of being taken out.
            for number in sorted({NULL, 0, row[position] - 1} - {row[position]}) if row[position] >= 0 else ():
                yield _changed(whole, index, replace(item, row=(*row[:position], number, *row[position + 1 :])))
        for position in range(1, first):
            if row[0] == Kind.INSTANTIATE and position == 2 and row[2] != NULL:
                yield _changed(whole, index, replace(item, row=(*row[:2], NULL, 0, *row[4:])))
            elif row[position] > 0:
                for number in {0, row[position] - 1}:
                    yield _changed(whole, index, replace(item, row=(*row[:position], number, *row[position + 1 :])))


def _unrolled(whole: Recipe) -> Iterator[Recipe]:
    """Let one loop fill what two have filled: rounds of fresh references become loads of an old one, all but one round."""
    rows = [item.row for item in whole.items]
    for fresh, (kind, *operands) in enumerate(rows):
        if kind != recipe.FRESH or operands[1] == 1:
            continue
        results, rounds = operands
        once = _changed(whole, fresh, replace(whole.items[fresh], row=(kind, results, 1)))
        for churn, row in enumerate(rows):
            if row[0] == recipe.CHURN:
                for more in range(-results, results + 1):
                    count = row[3] + results * (rounds - 1) + more
                    yield _changed(once, churn, replace(whole.items[churn], row=(*row[:3], count)))


def _steps(number: int, *, least: int) -> Iterator[int]:
    """Return smaller numbers, the smallest first: halves of the way down."""
    step = number - least
    while step > 0:
        yield number - step
        step //= 2
