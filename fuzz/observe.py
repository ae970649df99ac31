"""What is compared after each operation: storage, locals, owners, and the implementation's own invariants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from impl.activations_table import COLLECTING, END, NEXT, OVER, elements
from impl.checked import CheckedMemory
from impl.hash_set import LENGTH
from impl.header import FRAME_POINTER, TABLE
from impl.header import INSTANCES as IMPL_INSTANCES
from impl.instance import CELLS, SEGMENT_LENGTH, TABLE_ELEMENTS, TABLE_SIZE
from impl.stack import SIZE
from model.limits import CONTEXT_KIND, CONTEXT_WORDS, DEPTH, FULL, INSTANCES, LIVE, SEEN
from model.ops import BY_KIND, NULL, Context
from model.properties import Sometimes
from model.words import bits

if TYPE_CHECKING:
    from fuzz.driver import Driver
    from model.ops import Row

_BOTH: Final = 1 << Sometimes.CHUNK_FULL | 1 << Sometimes.SET_POPULATED
_ITEMS_AT: Final = tuple(1 + len(spec.operands) if spec.items else 0 for spec in BY_KIND)
"""Where the list operand of each kind begins in its row; 0 if it has none."""


def observe(driver: Driver) -> None:
    """Compare both sides after an operation.

    Raises:
        Divergence: storage or locals differ.
        InvariantViolated: the implementation's representation is broken.
    """
    state, limits = driver.state, driver.limits
    if state[INSTANCES] != 0:
        _compare_storage(driver)
    depth = state[DEPTH]
    if depth > 1 and state[limits.shape.contexts + (depth - 1) * CONTEXT_WORDS + CONTEXT_KIND] == Context.WASM:
        _compare_locals(driver, limits.shape.slots + (depth - 1) * limits.slots)
    check_invariants(driver)
    if state[SEEN] & _BOTH != _BOTH:
        observe_coverage(driver)


def check_invariants(driver: Driver) -> None:
    """Check the implementation's representation against the owners that the model knows.

    Raises:
        InvariantViolated: it is broken.
    """
    state, limits, addresses = driver.state, driver.limits, driver.addresses
    shape = limits.shape
    live = [addresses[name] for name in state[shape.slots : shape.slots + state[DEPTH] * limits.slots] if name >= 0]
    roots, forgotten = shape.roots, driver.forgotten
    owners = {addresses[name]: state[roots + name] + forgotten[name] for name in bits(state[LIVE])}
    driver.runtime.check(owners, live, driver.nesting > 0)
    if live and isinstance(driver.runtime.memory, CheckedMemory):
        _compare_elements(driver, live)


def _compare_locals(driver: Driver, slot: int) -> None:
    """Compare the locals of the youngest activation with the model's, which begin at `slot`; what is dead may be anything."""
    state, addresses, memory = driver.state, driver.addresses, driver.runtime.memory
    fp = memory[FRAME_POINTER]
    word = fp - memory[fp + SIZE] + 1
    for index in range(driver.limits.slots):
        name = state[slot + index]
        if name >= NULL and memory[word + index] != addresses[name]:
            driver.diverge(
                f"slot {index} of the activation: the model says {driver.say(name)}, "
                f"the implementation has {driver.say_ref(memory[word + index])}"
            )


def _compare_elements(driver: Driver, live: list[int]) -> None:
    """Let the table itself say what it over-approximates; too slow to ask after every operation of a campaign."""
    memory = driver.runtime.memory
    table = memory[TABLE]
    if not memory[table + COLLECTING]:
        missing = set(live).difference(elements(memory, table))
        if missing:
            names = ", ".join(driver.say_ref(externref) for externref in sorted(missing))
            driver.diverge(f"the model says that activations can read {names}, the activations table does not have it")


def _compare_storage(driver: Driver) -> None:
    """Compare globals, tables and segments of all instances."""
    state, limits, memory, addresses = driver.state, driver.limits, driver.runtime.memory, driver.addresses
    shape = limits.shape
    array = memory[IMPL_INSTANCES]
    for instance in bits(state[INSTANCES]):
        address = memory[array + instance]
        size = state[shape.table_sizes + instance]
        length = state[shape.segment_lengths + instance]
        if address == 0 or memory[address + TABLE_SIZE] != size or memory[address + SEGMENT_LENGTH] != length:
            driver.diverge(f"instance {instance} is missing, or its table or segment has not the model's size {size}, {length}")
        cell = shape.globals + instance * limits.globals
        word = address + CELLS
        for name in state[cell : cell + limits.globals]:
            if memory[word] != addresses[name]:
                _diverge_in(driver, instance, "global", word - address - CELLS, name, memory[word])
            word += 1
        cell = shape.segments + instance * limits.segment
        for name in state[cell : cell + length]:
            if memory[word] != addresses[name]:
                _diverge_in(driver, instance, "segment entry", word - address - CELLS - limits.globals, name, memory[word])
            word += 1
        if size != 0:
            cell = shape.elements + instance * limits.table
            first = word = memory[address + TABLE_ELEMENTS]
            for name in state[cell : cell + size]:
                if memory[word] != addresses[name]:
                    _diverge_in(driver, instance, "element", word - first, name, memory[word])
                word += 1


def _diverge_in(driver: Driver, instance: int, what: str, index: int, name: int, word: int) -> None:
    """Say which word of an instance differs."""
    driver.diverge(
        f"{what} {index} of instance {instance}: the model says {driver.say(name)}, the implementation has {driver.say_ref(word)}"
    )


def note_room(driver: Driver, row: Row) -> None:
    """Tell the model whether the bump chunk has room for what an operation inserts: if not, a collection is due."""
    memory = driver.runtime.memory
    table = memory[TABLE]
    wanted = 1
    items = _ITEMS_AT[row[0]]
    if items != 0:
        wanted = 0
        for name in row[items:]:
            if name >= 0:
                wanted += 1
    driver.state[FULL] = int(memory[table + END] - memory[table + NEXT] < wanted)


def observe_coverage(driver: Driver) -> None:
    """Note what only the implementation can show: a full chunk, a populated set."""
    memory = driver.runtime.memory
    table = memory[TABLE]
    if not memory[table + COLLECTING]:
        if memory[table + NEXT] == memory[table + END]:
            driver.state[SEEN] |= 1 << Sometimes.CHUNK_FULL
        if memory[table + OVER + LENGTH]:
            driver.state[SEEN] |= 1 << Sometimes.SET_POPULATED
