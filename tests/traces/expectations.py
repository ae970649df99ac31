"""A kept trace says in strict comments what must be true at its lines, and `story` replays it and holds it to that.

After the header come a sentence or more on what the trace is, its source, and what must be observed::

    # drc trace v1 scope=calls chunk=2 ...
    # A collection finds nothing that a frame still reads.
    # source: wt#1
    # must: the argument is alive until the call returns.

Between operations, `# expect:` states facts about the moment when everything above it has happened (inside a destructor, when
the operation above it is finished). There are no others than these:

    # expect: alive=0 2          the values that exist; of those whose destructor is running, none
    # expect: destroyed=1024     how many values were destroyed so far
    # expect: order=1 0          which, in this order
    # expect: count 3=2          the count of value 3
    # expect: result=refused     what the last operation answered: a number, or ok, null, refused, out_of_bounds,
                                 allocation_failed, raised
    # expect: seen=chunk_full    sometimes properties that were seen so far
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fuzz.driver import Driver
from model.answers import ALLOCATION_FAILED, OUT_OF_BOUNDS, RAISED, REFUSED
from model.choose import Exhausted, impossible
from model.code import images
from model.limits import LIVE, REGISTERED, SEEN
from model.ops import NULL, Kind
from model.properties import Sometimes
from model.registry import find, interesting_pcs
from model.state import State
from model.trace import Trace, TraceError, format_row, header, parse
from model.words import bits

if TYPE_CHECKING:
    from model.limits import Limits
    from model.ops import Row

_EXPECT: Final = re.compile(r"# expect: (alive|destroyed|order|result|seen|count \d+)=([a-z0-9_ ]*)")
_PROPERTIES: Final = {what.name.lower() for what in Sometimes}
_RESULTS: Final = {
    OUT_OF_BOUNDS: "out_of_bounds",
    ALLOCATION_FAILED: "allocation_failed",
    REFUSED: "refused",
    RAISED: "raised",
    NULL: "null",
}


class Unmet(BaseException):
    """The trace is no story, or an expectation does not hold. The message begins with the line number.

    It is no `Exception`: it passes through simulated code, which catches these.
    """


@dataclass(frozen=True)
class Expectation:
    """One fact: the line that states it, how many operations stand above it, what it is about, and the value."""

    line: int
    position: int
    what: str
    value: str


@dataclass(frozen=True)
class Story:
    """A trace with its words and its facts; `lines` are the numbers of its operations' lines."""

    trace: Trace
    text: str
    lines: tuple[int, ...]
    expectations: tuple[Expectation, ...]


@dataclass
class Ending:
    """What a replay of a story did: values destroyed before the finale in order, and operations executed in all."""

    order: list[int] = field(default_factory=list)
    steps: int = 0


def story(text: str) -> Story:
    """Read a story.

    Raises:
        TraceError: it is no trace.
        Unmet: it lacks its words, or an expectation cannot be read.
    """
    trace = parse(text)
    lines: list[int] = []
    expectations = []
    texts = text.splitlines()
    for number, line in enumerate(texts[1:], start=2):
        words = line.lstrip("| ")
        if not words.startswith("#"):
            lines.append(number)
        elif "expect" in words.split(":", 1)[0]:
            match = _EXPECT.fullmatch(words)
            if match is None:
                raise Unmet(f"line {number}: no expectation: {words!r}")
            if match[1] == "seen" and not set(match[2].split()) <= _PROPERTIES:
                raise Unmet(f"line {number}: no sometimes property: {match[2]!r}")
            expectations.append(Expectation(number, len(lines), match[1], match[2]))
    if len(lines) != len(trace.rows):
        raise Unmet(f"line 1: {len(lines)} lines of operations, but {len(trace.rows)} operations: blank lines are not kept")
    _check_words(texts)
    return Story(trace, text, tuple(lines), tuple(expectations))


def _check_words(texts: list[str]) -> None:
    """Raise Unmet unless the words after the header are a description, `source:` and `must:`."""
    head = []
    for line in texts[1:]:
        if not line.startswith("# ") or line.startswith("# expect:"):
            break
        head.append(line[2:])
    starts = [next((i for i, line in enumerate(head) if line.startswith(word)), 0) for word in ("source: ", "must: ")]
    if not 0 < starts[0] < starts[1]:
        raise Unmet("line 2: after the header come a description, '# source: ...' and '# must: ...'")


def canonical(told: Story, depths: tuple[int, ...]) -> list[str]:
    """Return the line that each operation should have, header first."""
    trace = told.trace
    rows = zip(depths, trace.rows, strict=True)
    return [header(trace.limits), *("| " * depth + format_row(row, trace.limits) for depth, row in rows)]


class _Witness(Driver):
    """A driver that remembers who died, and in which order, and looks at each lookup that could go wrong."""

    def __init__(self, limits: Limits, *, checked: bool, verify: bool) -> None:
        super().__init__(limits, checked=checked, verify=verify)
        self.order: list[int] = []
        self.result = 0
        self.drawn = 0
        self.on_step = self._note

    def _note(self, row: Row, result: int) -> None:
        self.result = result
        if row[0] in {Kind.REGISTER, Kind.INSTANTIATE}:
            self._look_everything_up()

    def _look_everything_up(self) -> None:
        """Compare all interesting lookups with a linear scan; the driver itself compares some each time."""
        modules = images(self.limits)
        registered = [modules[number] for number in bits(self.state[REGISTERED])]
        for pc in sorted({pc for module in modules for pc in interesting_pcs(module)}):
            wanted, got = find(registered, pc), self.runtime.lookup(pc)
            if wanted != got:
                self.diverge(f"the map of pc {pc:#x} is {wanted} by linear scan, but the registry finds {got}")

    def destroy(self, externref: int) -> None:
        name = self.name_of(externref)
        if name >= 0:
            self.order.append(name)
        super().destroy(externref)


def hold(told: Story, *, checked: bool, verify: bool = True) -> tuple[Ending, tuple[int, ...]]:
    """Replay a story and hold it to its expectations; return its ending and how deep each operation was nested.

    Raises:
        Divergence: the two sides disagree.
        Unmet: an operation was not possible, or an expectation does not hold.
    """
    rows = told.trace.rows
    driver = _Witness(told.trace.limits, checked=checked, verify=verify)
    due: dict[int, list[Expectation]] = {}
    for expectation in told.expectations:
        due.setdefault(expectation.position, []).append(expectation)
    ending = Ending()

    def draw(state: State, limits: Limits) -> Row:
        position = driver.drawn
        for expectation in due.pop(position, ()):
            _check(driver, expectation)
        if position == len(rows):
            ending.order = list(driver.order)
            raise Exhausted
        driver.drawn = position + 1
        reason = impossible(state, limits, rows[position])
        if reason is not None:
            raise Unmet(f"line {told.lines[position]}: not possible: {reason}")
        return rows[position]

    outcome = driver.run_source(draw)
    ending.steps = outcome.steps
    return ending, outcome.depths


def _check(driver: _Witness, expectation: Expectation) -> None:
    """Raise Unmet unless the expectation holds now."""
    what, value = expectation.what, expectation.value
    state = driver.state
    if what == "alive":
        found = " ".join(map(str, bits(state[LIVE])))
    elif what == "destroyed":
        found = str(len(driver.order))
    elif what == "order":
        found = " ".join(map(str, driver.order))
    elif what == "result":
        found = _RESULTS.get(driver.result, "ok" if value == "ok" and driver.result == 0 else str(driver.result))
    elif what == "seen":
        driver.coverage()
        found = " ".join(word for word in value.split() if state[SEEN] >> Sometimes[word.upper()] & 1)
    else:
        name = int(what.removeprefix("count "))
        found = str(driver.runtime.strong_count(driver.ref(name))) if state[LIVE] >> name & 1 else "dead"
    if found != value:
        raise Unmet(f"line {expectation.line}: {what} is {found or 'nothing'}, expected {value or 'nothing'}")


__all__ = ["Ending", "Expectation", "Story", "TraceError", "Unmet", "canonical", "hold", "story"]
