"""The compiled search, block by block: Python makes room, hands out parts, and stops; everything else stays in compiled code.

States, transitions, depth, executions and the first violation are those of `fuzz.explore.Explorer`, which is asked to repeat a
violation, because it has the words for it. How often a finale showed something is not: here a finale ends at a state that is known.

Which states a block has follows from the states before it. So nothing that is counted depends on the number of workers, on bounds
or on interruptions: a block that was not finished is as if it had not been begun.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, overload

from fuzz.compiled import keeping, kernel
from fuzz.compiled.crew import FOUND_WORDS, Crew, Part
from fuzz.compiled.frontier import Frontier
from fuzz.compiled.machine import Machine
from fuzz.compiled.rows import WORD_BYTES, Row
from fuzz.explore import MEGABYTE, NEVER, Bounds, Explorer, Search, resident_bytes
from fuzz.states import JointStates
from fuzz.workers import HarnessFailure
from model.ops import Kind
from model.properties import Sometimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fuzz.explore import Violation
    from model.limits import Limits

BLOCK_STATES_MIN: Final = 64
BLOCK_STATES_MAX: Final = 1 << 14
_BLOCK_SHARE: Final = 8
"""A block has at most this part of the states known, so that a small search can be stopped finely."""
_FIRST_STATES: Final = 1 << 14
_MANY_STATES: Final = 1 << 14
"""With fewer states, one worker does everything."""


class Numbers:
    """One of two numbers in each word of a row: parents and ordinals, read like a list.

    Args:
        row: the row, which may be replaced by a longer one.
        length: how many words of it count.
        shift, mask: where in a word the number is.
    """

    def __init__(self, row: Callable[[], Row], length: Callable[[], int], shift: int, mask: int) -> None:
        self._row, self._length, self._shift, self._mask = row, length, shift, mask

    def __len__(self) -> int:
        return self._length()

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        words = self._row().words[index]
        if isinstance(words, int):
            return words >> self._shift & self._mask
        return [word >> self._shift & self._mask for word in words]

    def __iter__(self) -> Iterator[int]:
        return (self[index] for index in range(len(self)))


@dataclass(slots=True)
class Known:
    """What a search knows of the states that it found.

    Args:
        table: digests, two words each, in buckets.
        parents: for each state, in the order found, the number of the one that it was found from, and which step led to it.
        states: how many.
    """

    table: Row = field(default_factory=lambda: Row(4 * _FIRST_STATES))
    parents: Row = field(default_factory=lambda: Row(_FIRST_STATES))
    states: int = 0

    def make_room(self, machine: Machine, more: int) -> bool:
        """Grow until so many more states find room; return whether the table is another one now."""
        wanted = self.states + more
        while len(self.parents) < wanted:
            self.parents = self.parents.larger()
        size = len(self.table)
        while 3 * size < 8 * wanted:
            size *= 2
        if size == len(self.table):
            return False
        table = Row(size)
        machine.call(kernel.rehash, self.table, table, size // 2 - 1)
        self.table = table
        return True


class CompiledExplorer:
    """A search over joint states by compiled code; to its callers much like `fuzz.explore.Explorer`.

    Args:
        limits: the bounds of the scope.
        symmetry: whether states that differ by a permutation of values count once.
        bounds: where to give up; looked at between blocks.
        jobs: workers.
        memory_max: words of frontier to keep in memory; the rest goes to files.
        folder: where these files are; None for the system's folder of temporary files.

    Raises:
        ValueError: the limits do not fit into the compiled reading.
        MissingExtra, CompilerFailed: there is no compiled code.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        symmetry: bool,
        bounds: Bounds | None = None,
        jobs: int = 1,
        memory_max: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self._prepare(limits, symmetry=symmetry)
        self.bounds = bounds or Bounds()
        self.known = Known()
        self.frontier = Frontier(memory_max, folder)
        self.following = Frontier(memory_max, folder)
        self.parts = [Part() for _ in range(jobs)]
        self.search = Search()
        # The interpreted search's lists, read out of compiled rows.
        low = (1 << kernel.ORDINAL_BITS) - 1
        for name, shift, mask in (("parents", kernel.ORDINAL_BITS, (1 << 63) - 1), ("ordinals", 0, low)):
            setattr(self.search, name, Numbers(lambda: self.known.parents, lambda: self.known.states, shift, mask))
        self.between: Callable[[Search], None] | None = None
        self.violation: Violation | None = None
        self.reached = ""
        self.interrupted = False
        self._control = Row(kernel.CONTROL_WORDS)
        self.shown = Row(kernel.CONTROL_WORDS)
        self._block = Row(FOUND_WORDS)
        self._crew: Crew | None = None
        self._deadline = NEVER

    def _prepare(self, limits: Limits, *, symmetry: bool) -> None:
        """Make what the search is over: the plain reading of it, a machine, and the entry that expands states."""
        self.system = JointStates(limits, symmetry=symmetry)
        self.machine = Machine(limits, symmetry=self.system.symmetry)
        self._entry: Callable[..., int] = kernel.expand

    def save(self, path: Path, described: dict[str, Any]) -> None:
        """Write the search to a checkpoint file. Raise OSError if it cannot be written."""
        keeping.save(path, self, described)

    def run(self) -> Search:
        """Search until everything is seen, a bound is reached or a violation is met.

        Raises:
            HarnessFailure: a worker died, or the interpreted reading does not repeat what this one found.
        """
        self._deadline = NEVER if self.bounds.seconds is None else time.monotonic() + self.bounds.seconds
        try:
            if not self.known.states:
                self._begin()
            while self.violation is None and self.search.waiting:
                self.reached = self._bound()
                if self.reached or not self._expand_block():
                    break
                self._next_level()
                if self.between is not None:
                    self.between(self.search)
        finally:
            self._close_crew()
        if not self.violation and self.search.waiting and not self.reached:
            self.reached = self._bound() or "an interruption"
        return self.search

    def _begin(self) -> None:
        control, machine = self._control, self.machine
        control.words[kernel.FOLLOWING_END] = 0
        status = machine.call(kernel.begin, self.known.table, len(self.known.table) // 2 - 1, self.frontier.room, control, self.shown)
        self.known.states = 1
        if status == kernel.BAD:
            self.violation = self._repeated(0, None)
            return
        self.frontier.wrote(control.words[kernel.FOLLOWING_END], 1)
        self.frontier.flush()
        self._note_shown()
        self.search.waiting = 1

    def _bound(self) -> str:
        bounds, search = self.bounds, self.search
        if self.interrupted:
            return "an interruption"
        if bounds.states is not None and search.states >= bounds.states:
            return f"{bounds.states:,} states"
        if bounds.depth is not None and search.depth >= bounds.depth:
            return f"depth {bounds.depth}"
        if time.monotonic() >= self._deadline:
            return f"{bounds.seconds:g} seconds"
        if bounds.megabytes is not None and resident_bytes() >= bounds.megabytes * MEGABYTE:
            return f"{bounds.megabytes:,} MB of memory"
        return ""

    def _stop(self) -> bool:
        return self.interrupted or time.monotonic() >= self._deadline

    # One block.

    def _expand_block(self) -> bool:
        """Expand the next block and take up what it found; return False, and leave all as it was, if it had to be left."""
        search = self.search
        most = min(BLOCK_STATES_MAX, max(BLOCK_STATES_MIN, search.states // _BLOCK_SHARE))
        position, count = self.frontier.load(self._block, most, self._skipped)
        # Processes that are not worth their start are not started.
        parts = self.parts if search.states >= _MANY_STATES else self.parts[:1]
        if self._crew is not None and len(self._crew.parts) != len(parts):
            self._close_crew()
        if self._crew is None:
            self._crew = Crew(self.machine, self._block, self.known.table, parts, self._entry)
        first = search.states - search.queue
        self._hand_out(parts, position, count, first)
        wanted = list(range(len(parts)))
        while wanted:
            self._crew.expand(wanted, self._stop)
            if any(self.parts[number].status == kernel.BUDGET_SPENT for number in wanted):
                return False
            wanted = [number for number in wanted if self.parts[number].status == kernel.OUT_OF_ROOM]
            for number in wanted:
                part = self.parts[number]
                end = part.control.words[kernel.FOUND_END]
                part.earlier.append(bytes(part.found.words[:end]))
                part.control.words[kernel.FOUND_END] = 0
        violating = self._take_up(parts)
        if violating is None:
            self.frontier.done(count)
            search.waiting -= count
        else:
            # As in the interpreted search, the state that it is met at is not done with.
            search.waiting -= violating - first
        return True

    def _skipped(self, position: int, count: int) -> int:
        return self.machine.call(kernel.skip, self._block, position, count)

    def _hand_out(self, parts: list[Part], position: int, count: int, number: int) -> None:
        first = 0
        for worker, part in enumerate(parts, start=1):
            last = count * worker // len(parts)
            end = self._skipped(position, last - first) if worker < len(parts) else self.frontier.next
            part.begin(position, end, number + first)
            position, first = end, last

    def _take_up(self, parts: list[Part]) -> int | None:
        """Merge what the parts found, in order, up to the first violation; return the number of the state that it is met at, if any."""
        search = self.search
        for part in parts:
            words = part.control.words
            for piece in part.earlier:
                row = Row(len(piece) // WORD_BYTES)
                row.words[:] = memoryview(piece).cast("q")
                self._merge(row, len(row))
            self._merge(part.found, words[kernel.FOUND_END])
            search.transitions += words[kernel.TRANSITIONS]
            for index in range(len(Kind)):
                search.counts[index] += part.counts.words[index]
            for index in range(len(Sometimes)):
                self.shown.words[kernel.SHOWN + index] += words[kernel.SHOWN + index]
            if part.status == kernel.VIOLATED:
                self._note_shown()
                self.violation = self._repeated(words[kernel.NUMBER], words[kernel.ORDINAL])
                return words[kernel.NUMBER]
        self._note_shown()
        return None

    def _merge(self, found: Row, end: int) -> None:
        known, control = self.known, self._control.words
        if known.make_room(self.machine, end // (kernel.FOUND_STATE + 1)):
            # Workers know where the old table lies.
            self._close_crew()
        control[kernel.MERGED] = 0
        following = self.following
        while True:
            before = control[kernel.STATES] = known.states
            control[kernel.FOLLOWING_END] = following.used
            status = self.machine.call(
                *(kernel.merge, found, end, known.table, len(known.table) // 2 - 1),
                *(known.parents, following.room, self._control, self.shown),
            )
            known.states = control[kernel.STATES]
            following.wrote(control[kernel.FOLLOWING_END], known.states - before)
            self.search.arriving += known.states - before
            if status == kernel.PART_DONE:
                return
            following.flush()

    def _note_shown(self) -> None:
        self.search.shown[:] = self.shown.words[kernel.SHOWN : kernel.SHOWN + len(Sometimes)].tolist()

    def _next_level(self) -> None:
        search = self.search
        if not search.waiting and search.arriving:
            self.following.flush()
            self.frontier, self.following = self.following, self.frontier
            search.waiting, search.arriving = search.arriving, 0
            search.depth += 1

    def _close_crew(self) -> None:
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    # A violation.

    def _repeated(self, number: int, ordinal: int | None) -> Violation:
        """Let the interpreted reading repeat a violation.

        Raises:
            HarnessFailure: it does not.
        """
        explorer = Explorer(self.system, self.search)
        found = explorer.repeated(number, ordinal)
        if found is None:
            step = "its first look" if ordinal is None else f"step {ordinal}"
            raise HarnessFailure(
                f"the two readings differ: compiled code finds a violation in state {number}, {step}, and the plain reading does not"
            )
        return found
