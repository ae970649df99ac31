"""What a step of the compiled search leaves out, because it was done before, and the digest of where it leads."""

from __future__ import annotations

from typing import Any

import pytest

from fuzz import observe
from fuzz.check_scopes import CHECK_SCOPES, DEEP_SCOPES
from fuzz.compiled import joint
from fuzz.compiled.digest import FIRST_MULTIPLIER, SECOND_MULTIPLIER, signed
from fuzz.compiled.joint import mix, remix
from fuzz.compiled.machine import Machine
from fuzz.compiled.search import CompiledExplorer
from fuzz.compiled.world import ADDRESSES_AT, DIRTY_AT, DIRTY_SHIFT, REGISTERS, STATE_AT
from fuzz.driver import Driver
from fuzz.explore import Explorer
from fuzz.states import JointStates
from impl.audit_parts import SCRATCH_LAST
from model.choose import Chooser
from model.limits import Limits

_check_invariants = observe.check_invariants


class Looking(JointStates):
    """The plain search's system, which notes at how many different points inside destructors both sides were compared."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits, symmetry=False)
        self.opened = self.taken = self.in_finales = 0
        self.chooser: Any = None
        self.points: set[tuple[int, tuple[int, ...], int]] = set()

    def open(self, state: bytes) -> None:
        self.opened += 1
        super().open(state)

    def step(self, chooser: Chooser) -> int:
        self.chooser, self.taken = chooser, 0
        try:
            return super().step(chooser)
        finally:
            self.chooser = None

    def look(self, driver: Driver) -> None:
        if self.chooser is None:
            self.in_finales += 1
        else:
            # A step's part up to here follows from the state and from what was answered so far.
            self.points.add((self.opened, tuple(self.chooser.digits[: self.chooser.position]), self.taken))
            self.taken += 1
        _check_invariants(driver)


@pytest.mark.parametrize("scope", ["stores", "panics"])
def test_both_sides_are_compared_once_wherever_a_step_is_new(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once at each point inside destructors, once in each new state, and in finales as long as they lead to new states."""
    system = Looking(CHECK_SCOPES[scope])
    with monkeypatch.context() as patched:
        patched.setattr(observe, "check_invariants", system.look)
        plain = Explorer(system).run()
    explorer = CompiledExplorer(CHECK_SCOPES[scope], symmetry=False)
    found = explorer.run()
    assert (found.states, found.transitions) == (plain.states, plain.transitions)
    world, words = explorer.machine.w, len(explorer.machine.mem)
    # Each audit takes three numbers, each larger than the last by twice the words of the memory.
    audits = world[world[REGISTERS["scratch_at"]] + SCRATCH_LAST] // (6 * words)
    expected = len(system.points) + plain.states
    assert len(system.points) > 500
    assert expected + 20 < audits <= expected + system.in_finales - plain.states


def test_a_digest_is_that_of_the_words_that_differ() -> None:
    """Compiled code takes eight words at once, in an order of its own."""
    machine = Machine(DEEP_SCOPES["deep-destructors"])
    mem, world = machine.mem, machine.w
    words, noise = len(mem), 1
    low = high = 0
    for index in [*range(0, words, 7), words - 1, *range(words + STATE_AT - ADDRESSES_AT, words + STATE_AT - ADDRESSES_AT + 20, 3)]:
        noise = signed(noise * FIRST_MULTIPLIER + SECOND_MULTIPLIER)
        row, place = (mem, index) if index < words else (world, index - words + ADDRESSES_AT)
        gone = mix(index, row[place])
        row[place] = noise
        come = mix(index, noise)
        low += come - gone
        high += remix(come) - remix(gone)
        if index < words:
            world[DIRTY_AT + (index >> DIRTY_SHIFT + 6)] = -1
    machine.call(joint.identify)
    assert (world[REGISTERS["key_low"]], world[REGISTERS["key_high"]]) == (signed(low), signed(high))
