"""What is seen of an object, one change at a time, must be what some run of the proved protocol would show.

Not all of a state can be seen in a memory: which locals will be read again, or what a function has in its hands, cannot. So all states
that fit what was seen so far are carried along, and something is wrong as soon as there is none.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from impl.errors import Verdict
from proofs.protocol import (
    CLOSED,
    DYING,
    FAILED,
    FREED,
    IDLE,
    MERGE,
    OPENED,
    SWEEP,
    WALK,
    State,
    describe,
)
from proofs.protocol_steps import STEPS, Step

# What can be seen of a phase: outside; collecting; since the chunk was closed; since it was opened again.
OUTSIDE: Final = 0
LOOKING: Final = 1
RELEASING: Final = 2
MERGING: Final = 3
SEEN_OF_PHASE: Final = {
    IDLE: OUTSIDE,
    WALK: LOOKING,
    FAILED: LOOKING,
    CLOSED: RELEASING,
    SWEEP: RELEASING,
    OPENED: MERGING,
    MERGE: MERGING,
}
SEEN_NAMES: Final = ("no collection", "collecting", "releasing entries", "merging sets")

# What can be seen of a life.
WHOLE: Final = 0
FALLING: Final = 1  # a destructor's frame has it
GONE: Final = 2
STAGE_NAMES: Final = ("exists", "is under destruction", "is destroyed")

# Remembered answers; a handful of objects in a small scope needs some thousands.
ANSWERS_MAX: Final = 200_000


class Nonconforming(Verdict):
    """The implementation did something that no run of the protocol does: the proof is not about this code."""


class Seen(NamedTuple):
    """What a memory shows of one object, and of the collector.

    Attributes:
        stage: One of `WHOLE` to `GONE`.
        near: Words of activations that hold its address; during a collection: of those that it found on the stack.
        far: The same of activations that were entered meanwhile.
        phase: One of `OUTSIDE` to `MERGING`.
        ref_count, cells, fields, chunk, over, precise, sweeping, depth, room: As in `State`.
    """

    stage: int
    ref_count: int
    cells: int
    fields: int
    chunk: int
    over: int
    precise: int
    sweeping: int
    near: int
    far: int
    phase: int
    depth: int
    room: int

    def text(self) -> str:
        """Say it in words."""
        places = ((self.cells, "globals, tables and segments"), (self.fields, "values"), (self.chunk, "slots of the chunk"))
        sets = ((self.over, "the set"), (self.precise, "the precise set"), (self.sweeping, "the old set"))
        frames = ((self.near, "words of activations"), (self.far, "words of a destructor's activations"))
        where = ", ".join(f"{number} in {name}" for number, name in (*places, *sets, *frames) if number) or "nowhere"
        inside = f", destructors running inside: {self.depth}" if self.depth else ""
        return f"{STAGE_NAMES[self.stage]}, count {self.ref_count}, {where}; {SEEN_NAMES[self.phase]}{inside}, room for {self.room}"


def seen_of(s: State) -> Seen:
    """Return what can be seen of a state."""
    stage = FALLING if s.life == DYING else GONE if s.life == FREED else WHOLE
    return Seen(
        stage,
        s.ref_count,
        s.cells,
        s.fields,
        s.chunk,
        s.over,
        s.precise,
        s.sweeping,
        s.live + s.dead,
        s.guest + s.guest_dead,
        SEEN_OF_PHASE[s.phase],
        s.depth,
        s.room,
    )


class Simulation:
    """Runs the protocol along with what is seen.

    Args:
        steps: The protocol's steps; other ones to see a simulation fail.

    Attributes:
        taken: How often each step was the only explanation of what was seen, by name. Those that do not show are not counted.
        possible: How often each step was one of several explanations.
        changes: How many changes were explained.
    """

    def __init__(self, steps: tuple[Step, ...] = STEPS) -> None:
        self.steps = steps
        self.taken = {step.name: 0 for step in steps}
        self.possible = {step.name: 0 for step in steps}
        self.changes = 0
        self._answers: dict[tuple[frozenset[State], Seen], tuple[frozenset[State], frozenset[str]]] = {}
        self._settled: dict[tuple[frozenset[State], int, int], frozenset[State]] = {}

    def begin(self, state: State, seen: Seen) -> frozenset[State]:
        """Return the states in which an object may be that has just been made.

        Args:
            state: An unborn object, with what it can see of the collector.
            seen: What is seen of it now.

        Raises:
            Nonconforming: There is none.
        """
        return self.follow(frozenset({state}), seen)

    def follow(self, states: frozenset[State], seen: Seen) -> frozenset[State]:
        """Return the states after one step that shows as `seen`, and any number that do not show.

        Raises:
            Nonconforming: There is none.
        """
        answer = self._answers.get((states, seen))
        if answer is None:
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            after, names = self._after(states, seen)
            answer = self._answers[states, seen] = self._silently(after, seen), frozenset(names)
        after_all, explanations = answer
        if not after_all:
            before = describe(min(states))
            raise Nonconforming(f"no step of the protocol explains this: it was [{before}], and now it {seen.text()}")
        self.changes += 1
        counter = self.taken if len(explanations) == 1 else self.possible
        for name in explanations:
            counter[name] += 1
        return after_all

    def _after(self, states: frozenset[State], seen: Seen) -> tuple[set[State], set[str]]:
        bound = max(seen.room, seen.near + 1, seen.far + 1)
        found: set[State] = set()
        names: set[str] = set()
        for state in states:
            for step in self.steps:
                for _arguments, after in step.taken(state, bound):
                    if seen_of(after) == seen:
                        found.add(after)
                        names.add(step.name)
        return found, names

    def _silently(self, states: set[State], seen: Seen) -> frozenset[State]:
        """Add what can be reached by steps that do not show."""
        reached = set(states)
        new = reached
        while new:
            new = self._after(frozenset(new), seen)[0] - reached
            reached |= new
        return frozenset(reached)

    def narrow(self, states: frozenset[State], live: int) -> frozenset[State]:
        """Return the states that fit what the stack maps say when a collection begins.

        Args:
            states: What fits what was seen.
            live: Words that hold it and that the map of their frame's safepoint lists.

        Raises:
            Nonconforming: There is none.
        """
        fit = frozenset(s for s in states if s.live == live)
        if not fit:
            guesses = sorted({s.live for s in states})
            raise Nonconforming(f"stack maps list it {live} times; by what was seen, the locals that may be read are one of {guesses}")
        return fit

    def settle(self, states: frozenset[State], held: int, live: int) -> frozenset[State]:
        """Return the states that fit what is known between two operations, and those that they lead to without showing it.

        Args:
            states: What fits what was seen.
            held: References that the host holds or has in flight.
            live: Locals of any activation that hold it and may be read.

        Raises:
            Nonconforming: There is none.
        """
        answer = self._settled.get((states, held, live))
        if answer is None:
            fit = {s for s in states if s.held == held and s.live + s.guest == live and s.window == 0}
            if not fit:
                guesses = sorted({(s.held, s.live + s.guest, s.window) for s in states})
                raise Nonconforming(
                    f"the host holds it {held} times, and {live} locals that may be read; what was seen says (held, in such locals, on the "
                    f"way to Wasm) in {guesses}"
                )
            if len(self._settled) >= ANSWERS_MAX:
                self._settled.clear()
            answer = self._settled[states, held, live] = self._silently(fit, seen_of(min(fit)))
        return answer
