"""Exhaustive search is breadth first over states, so the first violation that it meets is a shortest one.

One loop for whatever can be opened, stepped and told apart (`System`): from each state, all operations with all choices nested in
them, as an odometer counts them. A state is kept as its digest, the state that it was found from and the number of the step; only
the frontier is kept whole, and compressed. So a path is found again by counting.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import time
import zlib
from array import array
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from fuzz.choosers import Odometer
from fuzz.outcome import Divergence
from fuzz.watchdog import Hang, stall_limit, time_limit
from model.choose import Exhausted
from model.ops import Kind
from model.properties import Sometimes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.choose import Chooser
    from model.ops import Row

DIGEST_BYTES: Final = 16
MEGABYTE: Final = 1 << 20
BATCH: Final = 16
"""States of the frontier that are compressed together: siblings are much alike, and 16 of them fit into zlib's window."""
_LEVEL: Final = 6
NEVER: Final = float("inf")
STEP_SECONDS_MAX: Final = 30.0
"""A step that takes longer does not end: the slowest take milliseconds."""


class System(Protocol):
    """A transition system that is searched."""

    def root(self) -> bytes:
        """Return the first state as bytes. All states have as many."""

    def open(self, state: bytes) -> None:
        """Make a state the one that steps are taken from."""

    def reload(self) -> None:
        """Go back to the opened state."""

    def identity(self) -> bytes:
        """Return what tells the state that the last step led to from others."""

    def settle(self) -> tuple[bytes, int]:
        """Look closely at a new state; return it as bytes, and what it showed.

        Raises:
            Divergence: it violates something.
        """

    @property
    def counts(self) -> list[int]:
        """Executions by kind so far; may be written to."""


class Stepped(System, Protocol):
    """A system whose steps are functions of choices."""

    def step(self, chooser: Chooser) -> int:
        """Take a step from the opened state; return the mask of the sometimes properties that it showed.

        Raises:
            Exhausted: there is none.
            Divergence: it violates something.
        """

    def divergence(self, verdict: str, text: str) -> Divergence:
        """Make a violation of the step under way."""

    @property
    def rows(self) -> list[Row]:
        """What the last step did."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a search gives up. All are inclusive; None means no bound.

    Args:
        states: stop once so many distinct states were found and the state at hand is done with.
        depth: longest path in operations.
        seconds: real time.
        megabytes: resident memory of the process.
    """

    states: int | None = None
    depth: int | None = None
    seconds: float | None = None
    megabytes: int | None = None


@dataclass(slots=True)
class Search:
    """How far a search has come: all of it that is worth keeping.

    Args:
        seen: digests of the states found, or the whole identities of an exact search.
        parents: for each state, in the order found, the number of the one that it was found from; the first has itself.
        ordinals: for each state, which of that one's steps led to it.
        frontier: compressed batches of the states at `depth` that are not expanded yet, in the order found.
        done: how many of the frontier's first batch are expanded already.
        following: batches of the states found at `depth + 1`.
        waiting: states in the frontier that are not expanded yet.
        arriving: states in `following`.
        depth: operations from the first state to those that are being expanded.
        transitions: steps taken.
        counts: executions by kind.
        shown: steps and states that showed each sometimes property.
        exact: whether `seen` holds identities.
    """

    exact: bool = False
    seen: set[bytes] = field(default_factory=set)
    parents: array[int] = field(default_factory=lambda: array("q"))
    ordinals: array[int] = field(default_factory=lambda: array("I"))
    frontier: deque[bytes] = field(default_factory=deque)
    done: int = 0
    following: deque[bytes] = field(default_factory=deque)
    waiting: int = 0
    arriving: int = 0
    depth: int = 0
    transitions: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(Kind))
    shown: list[int] = field(default_factory=lambda: [0] * len(Sometimes))

    @property
    def states(self) -> int:
        """Distinct states found."""
        return len(self.parents)

    @property
    def queue(self) -> int:
        """States found and not expanded yet."""
        return self.waiting + self.arriving

    @property
    def complete(self) -> bool:
        """Whether every state that can be reached has been expanded."""
        return bool(self.parents) and not self.queue

    @property
    def deepest(self) -> int:
        """Operations to the states that are furthest from the first one."""
        return self.depth + (1 if self.arriving else 0)

    def collision_probability(self) -> float:
        """Return an upper estimate of the probability that some state was lost because two digests are equal.

        It takes digests for random numbers, as TLC's optimistic estimate does: pairs of states over the number of digests.
        """
        return 0.0 if self.exact else self.states**2 / 2.0 ** (8 * DIGEST_BYTES + 1)


@dataclass(frozen=True, slots=True)
class Violation:
    """A violation that was met: the steps to it.

    Args:
        rows: the operations of all steps; in the last step, those up to the violation.
        steps: how many operations these are without those inside destructors: no violation has fewer.
        divergence: what the system said.
        lines: the steps in words, where operations alone do not say them.
    """

    rows: tuple[Row, ...]
    steps: int
    divergence: Divergence
    lines: tuple[str, ...] = ()


@dataclass(slots=True)
class SearchLoop(abc.ABC):
    """The search loop: what is known, what waits, where to give up. How a state is expanded is left to subclasses.

    Args:
        system: what is searched.
        search: how far it has come; it goes on from there.
        bounds: where to give up.
        between: called after each state, when the search could be saved; it may take its time.
        record: called after each step with the number of the state that it was taken from and the key of the one that it led to;
            for the first state, with None and its key.
    """

    system: System
    search: Search = field(default_factory=Search)
    bounds: Bounds = field(default_factory=Bounds)
    between: Callable[[Search], None] | None = None
    record: Callable[[int | None, bytes], None] | None = None
    violation: Violation | None = None
    reached: str = ""
    """The bound that ended the search, in words; empty if none did."""
    interrupted: bool = False
    """To be set by whoever wants the search to end after the state at hand."""
    _dictionary: bytes = b""
    _batch: list[bytes] = field(default_factory=list)

    def run(self) -> Search:
        """Search until everything is seen, a bound is reached or a violation is met.

        Raises:
            HiddenState: a step was no function of its choices.
            HarnessBroken: the model or the driver failed.
        """
        search = self.search
        self._dictionary = self.system.root()
        self._batch = []
        if not search.parents and not self._begin():
            return search
        self.system.counts[:] = search.counts
        deadline = NEVER if self.bounds.seconds is None else time.monotonic() + self.bounds.seconds
        while search.waiting:
            self.reached = self._bound(deadline)
            if self.reached:
                break
            error = self._expand()
            if error is not None:
                self.violation = self._simplest(error)
                break
            if not search.waiting and search.arriving:
                search.frontier, search.following = search.following, search.frontier
                search.waiting, search.arriving = search.arriving, 0
                search.depth += 1
            if self.between is not None:
                self.between(search)
        return search

    def save(self, path: Path, described: dict[str, Any]) -> None:
        """Write the search to a checkpoint file. Raise OSError if it cannot be written."""
        from fuzz import checkpoint

        checkpoint.save(path, self.search, described)

    def _begin(self) -> bool:
        """Note the first state, and look at it."""
        system, search = self.system, self.search
        root = self._dictionary
        system.open(root)
        system.reload()
        key = self._key(system.identity())
        search.seen.add(key)
        if self.record is not None:
            self.record(None, key)
        search.parents.append(0)
        search.ordinals.append(0)
        try:
            _root, shown = system.settle()
        except Divergence as divergence:
            self.violation = Violation((), 0, divergence)
            return False
        self._show(shown)
        search.frontier.append(self._compressed([root]))
        search.waiting = 1
        return True

    def _compressed(self, states: Sequence[bytes]) -> bytes:
        # States are small differences to the first one, and to each other.
        packer = zlib.compressobj(_LEVEL, zdict=self._dictionary)
        return packer.compress(b"".join(states)) + packer.flush()

    def _decompressed(self, batch: bytes) -> bytes:
        return zlib.decompressobj(zdict=self._dictionary).decompress(batch)

    def _at_hand(self) -> bytes:
        """Return the next state of the frontier."""
        batch, search = self._batch, self.search
        if not batch:
            data = self._decompressed(search.frontier[0])
            size = len(self._dictionary)
            batch.extend(data[first : first + size] for first in range(0, len(data), size))
            del batch[: search.done]
        return batch[0]

    def _done(self, found: list[bytes]) -> None:
        """Take the state at hand off the frontier, and put what was found from it on the next one."""
        search = self.search
        for first in range(0, len(found), BATCH):
            search.following.append(self._compressed(found[first : first + BATCH]))
        search.arriving += len(found)
        search.waiting -= 1
        search.done += 1
        del self._batch[0]
        if not self._batch:
            search.frontier.popleft()
            search.done = 0

    def _bound(self, deadline: float) -> str:
        bounds, search = self.bounds, self.search
        if self.interrupted:
            return "an interruption"
        if bounds.states is not None and search.states >= bounds.states:
            return f"{bounds.states:,} states"
        if bounds.depth is not None and search.depth >= bounds.depth:
            return f"depth {bounds.depth}"
        if deadline is not NEVER and time.monotonic() >= deadline:
            return f"{bounds.seconds:g} seconds"
        if bounds.megabytes is not None and resident_bytes() >= bounds.megabytes * MEGABYTE:
            return f"{bounds.megabytes:,} MB of memory"
        return ""

    @abc.abstractmethod
    def _expand(self) -> Divergence | Hang | None:
        """Take all steps from the next state of the frontier; return the first violation, if there is one."""

    @abc.abstractmethod
    def _simplest(self, error: Divergence | Hang) -> Violation:
        """Return the violation that was met at the state at hand, with the path to it."""

    def _key(self, identity: bytes) -> bytes:
        if self.search.exact:
            return identity
        return hashlib.blake2b(identity, digest_size=DIGEST_BYTES).digest()

    def _show(self, mask: int, count: int = 1) -> None:
        shown = self.search.shown
        while mask:
            low = mask & -mask
            shown[low.bit_length() - 1] += count
            mask ^= low


@dataclass(slots=True)
class Explorer(SearchLoop):
    """The search loop over a system whose steps are functions of choices: an odometer goes through them."""

    system: Stepped

    def _expand(self) -> Divergence | Hang | None:
        """Take all steps from the next state of the frontier; return the first violation, if there is one."""
        with stall_limit(lambda: self.search.transitions, STEP_SECONDS_MAX):
            return self._take_all()

    def _take_all(self) -> Divergence | Hang | None:
        system, search = self.system, self.search
        seen, key, shows, record = search.seen, self._key, self._show, self.record
        number = search.states - search.queue
        system.open(self._at_hand())
        found: list[bytes] = []
        odometer = Odometer()
        ordinal = 0
        while True:
            try:
                shown = system.step(odometer)
                identity = key(system.identity())
                if record is not None:
                    record(number, identity)
                if identity not in seen:
                    seen.add(identity)
                    state, more = system.settle()
                    shown |= more
                    found.append(state)
                    search.parents.append(number)
                    search.ordinals.append(ordinal)
            except Exhausted:
                break
            except (Divergence, Hang) as error:
                search.transitions += 1
                # What was found on the way has no place in a frontier any more.
                search.arriving += len(found)
                search.counts[:] = system.counts
                return error
            search.transitions += 1
            if shown:
                shows(shown)
            if not odometer.advance():
                break
            ordinal += 1
        search.counts[:] = system.counts
        self._done(found)
        return None

    def _simplest(self, error: Divergence | Hang) -> Violation:
        """Return the simplest violation at the state at hand."""
        return self._simplest_of(self._at_hand(), self.search.states - self.search.queue, error)

    def _simplest_of(self, state: bytes, number: int, error: Divergence | Hang) -> Violation:
        """Among the violating steps of a state, choose the one with the least inside destructors; find the path to it."""
        system = self.system
        divergence = system.divergence("Hang", str(error)) if isinstance(error, Hang) else error
        best = divergence.rows[: divergence.chosen]
        counts = list(system.counts)
        system.open(state)
        odometer = Odometer()
        while True:
            # A step that hangs is no simpler one.
            with contextlib.suppress(Hang):
                try:
                    with time_limit(STEP_SECONDS_MAX):
                        system.step(odometer)
                        if len(system.rows) < len(best):
                            system.settle()
                except Divergence as other:
                    rows = other.rows[: other.chosen]
                    if len(rows) < len(best):
                        divergence, best = other, rows
            if not odometer.advance():
                break
        system.counts[:] = counts
        before, _state = self._path(number)
        return Violation((*(row for step in before for row in step), *best), len(before) + 1, divergence)

    def repeated(self, number: int, ordinal: int | None) -> Violation | None:
        """Repeat what another search found: a step from a state, or, with None, the first look at the first one.

        Returns:
            The violation; None if there is none.
        """
        system = self.system
        _steps, state = self._path(number)
        system.open(state)
        odometer = Odometer()
        try:
            with time_limit(STEP_SECONDS_MAX):
                if ordinal is None:
                    system.reload()
                    system.settle()
                    return None
                for _ in range(ordinal):
                    system.step(odometer)
                    odometer.advance()
                system.step(odometer)
                system.settle()
        except (Divergence, Hang) as error:
            if ordinal is None:
                return Violation((), 0, error) if isinstance(error, Divergence) else None
            return self._simplest_of(state, number, error)
        return None

    def path(self, number: int) -> list[tuple[Row, ...]]:
        """Return the steps to a state, by its number: for each the operation, and what destructors did in it.

        Complexity: the steps of all states on the path.
        """
        return self._path(number)[0]

    def _path(self, number: int) -> tuple[list[tuple[Row, ...]], bytes]:
        """Return the steps to a state, and the state."""
        search, system = self.search, self.system
        ordinals = []
        while number:
            ordinals.append(search.ordinals[number])
            number = search.parents[number]
        counts = list(system.counts)
        state = system.root()
        steps = []
        for ordinal in reversed(ordinals):
            system.open(state)
            odometer = Odometer()
            for _ in range(ordinal):
                system.step(odometer)
                odometer.advance()
            system.step(odometer)
            steps.append(tuple(system.rows))
            state, _shown = system.settle()
        system.counts[:] = counts
        return steps, state


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096
