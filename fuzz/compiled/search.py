"""The compiled search, level by level: Python makes room, swaps frontiers and stops; everything else stays in compiled code.

States, transitions, depth and all counts are those of `fuzz.explore.Explorer` over the same states without symmetry. Not there yet:
symmetry (`fuzz.compiled.canonical` has its identity), bounds but the number of states, checkpoints, both processors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fuzz.compiled import kernel
from fuzz.compiled.machine import Machine
from fuzz.compiled.package import compiled
from fuzz.compiled.world import ADDRESSES_AT, COUNTS_AT, REGISTERS
from fuzz.driver import ALWAYS
from fuzz.states import JointStates
from model.ops import Kind
from model.properties import Sometimes

if TYPE_CHECKING:
    from model.limits import Limits

_FIRST_STATES: Final = 1 << 16
_FIRST_WORDS: Final = 1 << 20
_BUDGET: Final = 1 << 20
"""Steps between two returns to Python, so that an interruption is heard."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a compiled search has found.

    Args:
        states, transitions, depth: as in `fuzz.explore.Search`.
        complete: whether every state that can be reached has been expanded.
        counts: executions by kind.
        shown: steps and states that showed each sometimes property.
        violation: the number of the state from which a step violates something, and that step's ordinal; None if none does.
        verdict: the number of the violation's verdict, see `fuzz.compiled.world`.
    """

    states: int
    transitions: int
    depth: int
    complete: bool
    counts: list[int] = field(repr=False)
    shown: list[int] = field(repr=False)
    violation: tuple[int, int] | None = None
    verdict: int = 0


def search(limits: Limits, *, states_max: int = 1 << 40) -> Found:
    """Search all states within these limits, without symmetry.

    Args:
        limits: the bounds.
        states_max: where to give up.

    Raises:
        MissingExtra: numba is not installed.
        ValueError: the limits do not fit into the compiled reading.
    """
    import numpy as np

    def zeros(words: int) -> Any:  # noqa: ANN401  # numpy's types would be needed without numpy
        return np.zeros(words, dtype=np.int64)

    machine = Machine(limits)
    mem, w = machine.mem, machine.w
    table, parents, ordinals = zeros(4 * _FIRST_STATES), zeros(_FIRST_STATES), zeros(_FIRST_STATES)
    frontier, following = zeros(_FIRST_WORDS), zeros(_FIRST_WORDS)
    control, counts, key = zeros(kernel.CONTROL_WORDS), zeros(len(Kind)), zeros(2)
    opened_mem, opened_w = mem.copy(), w[ADDRESSES_AT : ADDRESSES_AT + machine.joint].copy()
    compiled(kernel.ready)(mem, w, ALWAYS)
    compiled(kernel.digest)(mem, w, key)
    compiled(kernel.insert)(table, len(table) // 2 - 1, key[0], key[1])
    control[kernel.FRONTIER_END] = compiled(kernel.encode)(mem, w, frontier, 0)
    control[kernel.STATES] = control[kernel.WAITING] = 1
    control[kernel.STATES_MAX] = len(parents)
    depth = 0
    complete, status = False, kernel.LEVEL_DONE
    while control[kernel.STATES] < states_max:
        control[kernel.BUDGET] = _BUDGET
        status = compiled(kernel.search)(
            *(mem, w, opened_mem, opened_w, table, len(table) // 2 - 1, parents, ordinals, frontier, following, control, counts, key)
        )
        if status == kernel.VIOLATED:
            break
        if status == kernel.LEVEL_DONE:
            if control[kernel.ARRIVING] == 0:
                complete = True
                break
            frontier, following = following, frontier
            control[kernel.FRONTIER_END], control[kernel.FOLLOWING_END] = control[kernel.FOLLOWING_END], 0
            control[kernel.WAITING], control[kernel.ARRIVING] = control[kernel.ARRIVING], 0
            control[kernel.POSITION] = 0
            depth += 1
        elif status == kernel.OUT_OF_ROOM:
            if control[kernel.STATES] >= control[kernel.STATES_MAX]:
                parents, ordinals = (np.concatenate([row, zeros(len(row))]) for row in (parents, ordinals))
                control[kernel.STATES_MAX] = len(parents)
                larger = zeros(2 * len(table))
                compiled(kernel.rehash)(table, larger, len(larger) // 2 - 1)
                table = larger
            else:
                following = np.concatenate([following, zeros(len(following))])
    shown = [int(word) for word in control[kernel.SHOWN : kernel.SHOWN + len(Sometimes)]]
    _show_the_first(limits, shown)
    number = int(control[kernel.STATES] - control[kernel.WAITING] - control[kernel.ARRIVING])
    return Found(
        int(control[kernel.STATES]),
        int(control[kernel.TRANSITIONS]),
        depth,
        complete,
        [int(count) for count in w[COUNTS_AT : COUNTS_AT + len(Kind)]],
        shown,
        (number, int(control[kernel.ORDINAL])) if status == kernel.VIOLATED else None,
        int(w[REGISTERS["verdict"]]) if status == kernel.VIOLATED else 0,
    )


def _show_the_first(limits: Limits, shown: list[int]) -> None:
    """Look at the first state, which no step leads to, with the interpreted reading.

    Raises:
        Divergence: it violates something.
    """
    system = JointStates(limits, symmetry=False)
    system.open(system.root())
    system.reload()
    _state, mask = system.settle()
    for number in range(len(Sometimes)):
        shown[number] += mask >> number & 1
