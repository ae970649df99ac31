"""The driver makes the model and a runtime do the same operations, and is not content until both agree on everything.

It is the runtime's host: destructors come back to it in the middle of an operation, and each becomes the context that the
next operations are drawn from. A run is a function of its operations, and these of the choices.

What happens between a choice and a verdict (`perform`, `destroy`, what they call) is also compiled, from this text: it keeps its
state in rows of ints, and numbers that change in attributes that `fuzz.compiled.world` has a place for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from fuzz.bindings import bind
from fuzz.observe import note_room, observe, observe_coverage
from fuzz.outcome import Divergence, HarnessBroken, Outcome, raised_by_harness
from fuzz.setup import config_of
from impl.errors import AllocationFailed, HostBroken, OutOfBounds, Panicked, RegistrationRefused, Verdict
from impl.externref import VALUE_PTR, VTABLE, VTABLE_FIELDS, VTABLE_SIZE_BYTES
from impl.runtime import Runtime
from model.answers import ALLOCATION_FAILED, OUT_OF_BOUNDS, RAISED, REFUSED
from model.books import destruction_begins, destruction_ends
from model.choose import Exhausted, choose_op, impossible
from model.limits import (
    CONTEXT_KIND,
    CONTEXT_WORDS,
    DEPTH,
    INSTANCES,
    LIVE,
    NESTED,
    SEEN,
    UNDER_WAY,
    Limits,
)
from model.ops import BY_KIND, NULL, Context, Kind, Row
from model.state import State, Violation, initial
from model.step import (
    CAN_RELEASE,
    ENVIRONMENT,
    begin,
    check_end,
    closing_kind,
    closing_name,
    expects_panic,
    finish,
)
from model.words import lowest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.choose import Chooser

__all__ = ["Divergence", "Driver", "HarnessBroken", "Outcome"]

_INSERTING: Final = tuple(kind in {Kind.CALL_WASM, Kind.RETURN_IMPORT, Kind.GLOBAL_GET, Kind.TABLE_GET} for kind in Kind)
_PANIC: Final = int(Kind.PANIC)
NOT_AT_ALL: Final = 0
INSIDE_DESTRUCTORS: Final = 1
ALWAYS: Final = 2
"""When both sides are compared: after which operations."""
_OUTCOMES: Final = {
    ALLOCATION_FAILED: "an allocation fails",
    OUT_OF_BOUNDS: "out of bounds",
    REFUSED: "the registration is refused",
    RAISED: "the constructor raises",
}


class Driver:
    """One lockstep run at a time over one runtime; `reset` makes it as new in two copies.

    Args:
        limits: bounds of the run.
        checked: use the checked memory: errors are named at the access that commits them, at about three quarters of the speed.
        verify: call `check` and compare everything observable after each operation. Off only in benchmarks.
    """

    def __init__(self, limits: Limits, *, checked: bool = False, verify: bool = True) -> None:
        self.limits = limits
        self.verify = ALWAYS if verify else NOT_AT_ALL
        self.runtime = Runtime(config_of(limits), self, checked=checked)
        self._pristine = self.runtime.snapshot()
        self._dirty = False
        self.reset()

    def reset(self) -> None:
        """Go back to the state before the first operation."""
        if self._dirty:
            self.runtime.restore(self._pristine)
        self._dirty = True
        limits = self.limits
        self.state: State = initial(limits)
        # One more than there are names: the name of null is -1, which finds the last.
        self.addresses = [0] * (limits.objects + 1)
        self.forgotten = [0] * limits.objects
        # What is under destruction, and what operations under way are expected to answer: the first `nesting`, and up to `level`.
        self.dying = [0] * (limits.destructors + 2)
        self.expected = [0] * (limits.destructors + 3)
        self.nesting = 0
        self.level = 0
        self.rows: list[Row] = []
        self.depths: list[int] = []
        self.counts = [0] * len(Kind)
        self.skipped: list[tuple[int, str]] = []
        self.chosen = 0
        self.position = 0
        self.closing = False
        self.panicking = False
        self.armed = False
        self.thorough = False
        self._source: Callable[[State, Limits], Row] = _nothing
        self.on_step: Callable[[Row, int], None] | None = None

    # Runs.

    def run(self, chooser: Chooser, operations_max: int = 1 << 30) -> Outcome:
        """Draw operations until the chooser is exhausted or the bound is reached, then let go of everything.

        Raises:
            Divergence: the two sides disagree.
        """

        def draw(state: State, limits: Limits) -> Row:
            if len(self.rows) >= operations_max:
                raise Exhausted
            return choose_op(state, limits, chooser)

        return self.run_source(draw)

    def replay(self, rows: Sequence[Row]) -> Outcome:
        """Do the given operations, skipping those that are not possible when their turn comes, then let go of everything.

        Raises:
            Divergence: the two sides disagree.
        """
        self.thorough = True

        def draw(state: State, limits: Limits) -> Row:
            while self.position < len(rows):
                row = rows[self.position]
                self.position += 1
                reason = impossible(state, limits, row)
                if reason is None:
                    return row
                self.skipped.append((self.position - 1, reason))
            raise Exhausted

        return self.run_source(draw)

    def run_source(self, source: Callable[[State, Limits], Row]) -> Outcome:
        """Run operations from a source that raises `Exhausted` at its end; see `run`."""
        self._source = source
        try:
            self.run_to_end()
        except (Violation, Verdict, Exception) as error:
            raise self._judged(error) from error
        return self.outcome()

    def run_to_end(self) -> None:
        """Do operations until there are none, those of the finale included, and compare the end with the beginning."""
        while True:
            row = self.next_row()
            if len(row) == 0:
                break
            self.perform(row)
            self.panicking = False
        self._check_end()

    def step(self, row: Row, source: Callable[[State, Limits], Row]) -> None:
        """Do one possible operation of a run that is chosen from outside; what its destructors do comes from the source.

        Raises:
            Divergence: the two sides disagree.
        """
        self._source = source
        self.chosen = len(self.rows) + 1
        try:
            self.perform(row)
        except (Violation, Verdict, Exception) as error:
            raise self._judged(error) from error
        self.panicking = False

    def finale(self) -> Outcome:
        """End a run of steps: let go of everything and check that nothing is left.

        Raises:
            Divergence: the two sides disagree.
        """
        return self.run_source(_nothing)

    def _judged(self, error: BaseException) -> Divergence:
        """Make a Divergence of what came out of either side.

        Raises:
            HarnessBroken: it came out of the model or the chooser, and says nothing about the implementation.
        """
        origin = error.__cause__ if isinstance(error, HostBroken) and error.__cause__ is not None else error
        if isinstance(origin, Exception) and raised_by_harness(origin):
            message = f"the harness itself failed: {type(origin).__name__}: {origin}"
            raise HarnessBroken(message) from origin
        if isinstance(error, Violation | Verdict):
            return self.divergence(type(error).__name__, str(error))
        # Raw memory has no names for its errors: a wild address is an IndexError of the memory itself.
        return self.divergence(type(error).__name__, f"the implementation failed: {error}")

    def outcome(self) -> Outcome:
        """Return what was done so far."""
        return Outcome(
            tuple(self.rows[: self.chosen]),
            tuple(self.depths[: self.chosen]),
            len(self.rows),
            self.counts,
            self.state[SEEN],
            tuple(self.skipped),
        )

    def next_row(self) -> Row:
        """Return the next operation, from the source or of the finale; an empty row when all is done."""
        if not self.closing:
            try:
                row = self._source(self.state, self.limits)
            except Exhausted:
                self.closing = True
            else:
                self.chosen = len(self.rows) + 1
                return row
        return self.closing_row()

    def closing_row(self) -> Row:
        """Return the next operation of the finale, or an empty row at its end."""
        kind = closing_kind(self.state, self.limits)
        if kind == Kind.DROP:
            return (kind, closing_name(self.state, self.limits))
        if kind != NULL:
            return (kind,)
        # Always the last, so that what is left can be compared with the beginning.
        return () if self.rows and self.rows[-1][0] == Kind.TEARDOWN_STORE else (Kind.TEARDOWN_STORE,)

    def _check_end(self) -> None:
        check_end(self.state, self.limits)
        if self.nesting or self.state[UNDER_WAY] or self.state[DEPTH] != 1:
            self.diverge("the run is over but something is still under way")
        if not self.state[LIVE] and not self.limits.quarantine:
            self.compare_with_beginning()

    def compare_with_beginning(self) -> None:
        """Equal states are equal bytes: with everything gone, the memory must be as it was before the first operation."""
        self.runtime.calm()
        self.runtime.sweep_order(0)
        words = len(self.runtime.memory) * 8
        before, after = self._pristine[:words], self.runtime.snapshot()[:words]
        if before != after:
            index = next(i for i in range(0, words, 8) if before[i : i + 8] != after[i : i + 8])
            old, new = (int.from_bytes(data[index : index + 8], sys.byteorder) for data in (before, after))
            self.diverge(f"nothing is left, but word {index // 8} of the memory is {new:#x}, and it was {old:#x} in the beginning")

    # Steps.

    def perform(self, row: Row) -> None:
        """Do one possible operation on both sides and compare.

        Raises:
            Divergence: the two sides disagree.
            Violation, Verdict: the same; `run_source` turns them into a Divergence.
        """
        state, limits, kind = self.state, self.limits, row[0]
        self.rows.append(row)
        self.depths.append(self.nesting)
        self.counts[kind] += 1
        self.level += 1
        answer = 0
        if _INSERTING[kind]:
            note_room(self, row)
        try:
            bind(self, kind, row)
        except Panicked:
            answer = RAISED
        except OutOfBounds:
            answer = OUT_OF_BOUNDS
        except AllocationFailed:
            answer = ALLOCATION_FAILED
        except RegistrationRefused:
            answer = REFUSED
        result = self.expected[self.level]
        self.level -= 1
        panicked = bool(CAN_RELEASE[kind]) and expects_panic(state, limits)
        if answer != 0 or panicked or result < NULL:
            self._compare_outcome(kind, RAISED if panicked else min(result, 0), answer)
        if self.armed or ENVIRONMENT >> kind & 1:
            self._calm_after(kind)
        unwound = finish(state, limits, row, result, panicked=panicked)
        while unwound > 0:
            self.runtime.unwind()
            unwound -= 1
        if panicked or kind == _PANIC:
            self.panicking = True
        if self.on_step is not None:
            self.on_step(row, result)
        if self._is_observed():
            observe(self)

    def _is_observed(self) -> bool:
        """Say whether both sides are compared now. Compiled code knows besides what it has compared before."""
        return self.verify == ALWAYS or (self.verify == INSIDE_DESTRUCTORS and self.nesting > 0)

    def begin(self, row: Row) -> int:
        """Let the model begin the operation; return the result to expect of the runtime."""
        result = begin(self.state, self.limits, row)
        self.expected[self.level] = result
        return result

    def _calm_after(self, kind: int) -> None:
        """Faults shape the next operation only."""
        if ENVIRONMENT >> kind & 1:
            self.armed = True
        elif self.armed:
            self.armed = False
            self.runtime.calm()

    def _compare_outcome(self, kind: int, expected: int, answer: int) -> None:
        if expected == NULL:
            expected = 0
        if expected != answer:
            self.diverge(_outcome_text(kind, expected, answer))

    # What bindings use.

    def ref(self, name: int) -> int:
        """Return the reference of a name, 0 for null."""
        return self.addresses[name]

    def refs(self, names: Sequence[int]) -> list[int]:
        """Return the references of names."""
        addresses = self.addresses
        return [addresses[name] for name in names]

    def name_of(self, externref: int) -> int:
        """Return the name of a value that is not under destruction, NULL if a word is none's reference. Linear in the names."""
        addresses = self.addresses
        return addresses.index(externref) if externref and externref in addresses else NULL

    def top_slots(self, slots: Sequence[int]) -> list[int]:
        """Return the names in slots of the top activation."""
        first = self.limits.shape.slots + (self.state[DEPTH] - 1) * self.limits.slots
        return [self.state[first + slot] for slot in slots]

    def free_instance(self) -> int:
        """Return the smallest number that no instance has."""
        return lowest(~self.state[INSTANCES])

    def adopt(self, externref: int, name: int) -> None:
        """Note the reference of a new value."""
        if externref == 0 or self.name_of(externref) != NULL:
            self.diverge(f"the new value {name} got the reference {externref}, which is {self.say_ref(externref)}'s")
        if name < 0:
            self.diverge(f"new: the model says {_OUTCOMES.get(name)}, the implementation made a value")
        self.addresses[name] = externref

    def expect_ref(self, name: int, externref: int) -> None:
        """Compare a reference that the runtime returned with the name that the model expects."""
        if name >= NULL and externref != self.ref(name):
            self.diverge(f"the model says {self.say(name)}, the implementation returned {self.say_ref(externref)}")

    def expect_refs(self, names: Sequence[int], externrefs: Sequence[int]) -> None:
        """Compare several."""
        if len(names) != len(externrefs):
            self.diverge(f"the model says {len(names)} references, the implementation returned {len(externrefs)}")
        for index in range(len(names)):
            self.expect_ref(names[index], externrefs[index])

    def expect_number(self, expected: int, actual: int) -> None:
        """Compare a plain number."""
        if expected != actual:
            self.diverge(f"the model says {expected}, the implementation returned {actual}")

    def say(self, name: int) -> str:
        """Name a value in words."""
        return f"value {name}" if name >= 0 else "null"

    def say_ref(self, externref: int) -> str:
        """Name a reference in words."""
        if not externref:
            return "null"
        name = self.name_of(externref)
        return f"word {externref}, which is no value" if name < 0 else f"value {name}"

    def diverge(self, text: str) -> None:
        """Raise a Divergence about what can be observed."""
        raise self.divergence("Disagreement", text)

    def divergence(self, verdict: str, text: str) -> Divergence:
        """Make a Divergence with the trace so far."""
        return Divergence(verdict, text, self.rows, self.depths, self.chosen)

    # The host that the runtime calls back.

    def construct(self, value: int, vtable: int) -> None:
        """Write a value's payload, or raise as the operation says."""
        name = self.expected[self.level]
        if name == RAISED:
            raise Panicked
        memory = self.runtime.memory
        first = value + memory[vtable + VTABLE_FIELDS]
        for index in range(first, value + (memory[vtable + VTABLE_SIZE_BYTES] + 7 >> 3)):
            memory[index] = payload(name, index - value)

    def destroy(self, externref: int) -> None:
        """Run a destructor: ask the model whether the value may die here, then draw operations until it ends."""
        name = self.name_of(externref)
        if name < 0:
            self.diverge(f"the implementation destroys word {externref}, which is no value")
            return
        state, limits = self.state, self.limits
        self._check_payload(externref, name)
        acts = destruction_begins(state, limits, name)
        self._calm_after(Kind.END)
        self.addresses[name] = 0
        self.dying[self.nesting] = externref
        self.nesting += 1
        panicked = self._destructor_body() if acts else False
        self.nesting -= 1
        destruction_ends(state, limits, name, acted=acts, panicked=panicked)
        if panicked:
            raise Panicked

    def _destructor_body(self) -> bool:
        """Perform operations until the destructor ends; return whether it panicked."""
        while True:
            row = self.next_row()
            if len(row) == 0:
                self.diverge("the finale ended inside a destructor")
                return False
            if row[0] == Kind.END:
                self.end(row)
                return False
            self.perform(row)
            if self.panicking:
                self.panicking = False
                if self.state[self._top() + CONTEXT_KIND] == Context.DESTRUCTOR:
                    return True

    def end(self, row: Row) -> None:
        """End the body of a destructor: the one operation that reaches no runtime."""
        self.rows.append(row)
        self.depths.append(self.nesting)
        self.counts[Kind.END] += 1
        self.level += 1
        result = self.begin(row)
        self.level -= 1
        self._calm_after(Kind.END)
        finish(self.state, self.limits, row, result, panicked=False)

    def _top(self) -> int:
        return self.limits.shape.contexts + (self.state[DEPTH] - 1) * CONTEXT_WORDS

    def _check_payload(self, externref: int, name: int) -> None:
        memory = self.runtime.memory
        value = memory[externref + VALUE_PTR]
        vtable = memory[externref + VTABLE]
        first = memory[vtable + VTABLE_FIELDS]
        for index in range(first, memory[vtable + VTABLE_SIZE_BYTES] + 7 >> 3):
            if memory[value + index] != payload(name, index):
                self.diverge(f"the destructor of value {name} finds word {index} of its value overwritten")

    # States, for exhaustive search.

    def save(self) -> tuple[State, bytes, list[int], list[int]]:
        """Copy the joint state. Only between top-level operations: no destructor may be running."""
        if self.nesting or self.state[NESTED]:
            self.diverge("a state inside a destructor cannot be saved")
        return (list(self.state), self.runtime.snapshot(), list(self.addresses), list(self.forgotten))

    def load(self, saved: tuple[State, bytes, list[int], list[int]]) -> None:
        """Put back a joint state."""
        state, memory, addresses, forgotten = saved
        self.state[:] = state
        self.runtime.restore(memory)
        self.addresses[:] = addresses
        self.forgotten[:] = forgotten

    def coverage(self) -> None:
        """Note the sometimes properties that only the implementation can show."""
        observe_coverage(self)


def _outcome_text(kind: int, expected: int, answer: int) -> str:
    said = "a destructor panicked, so it must raise" if expected == RAISED else _OUTCOMES.get(expected, "success")
    got = "a panic" if answer == RAISED else _OUTCOMES.get(answer, "success")
    return f"{BY_KIND[kind].text}: the model says {said}, the implementation says {got}"


def payload(name: int, index: int) -> int:
    """Return the word that a value holds at an index, so that stray writes show."""
    return 0xD00D_0000 + name * 0x100 + (index & 0xFF)


def _nothing(_state: State, _limits: Limits) -> Row:
    raise Exhausted
