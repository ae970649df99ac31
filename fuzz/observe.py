"""What is compared after each operation: storage, locals, owners, and the implementation's own invariants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impl.activations_table import COLLECTING, END, NEXT, OVER, elements
from impl.checked import CheckedMemory
from impl.hash_set import LENGTH
from impl.header import FRAME_POINTER, TABLE
from impl.header import INSTANCES as IMPL_INSTANCES
from impl.instance import CELLS, SEGMENT_LENGTH, TABLE_ELEMENTS, TABLE_SIZE
from impl.stack import SIZE
from model.limits import CONTEXT_KIND, CONTEXT_WORDS, DEPTH, FULL, INSTANCES, LIVE, SEEN
from model.ops import BY_KIND, Context
from model.properties import Sometimes
from model.state import bits

if TYPE_CHECKING:
    from fuzz.driver import Driver
    from model.ops import Row

_BOTH = 1 << Sometimes.CHUNK_FULL | 1 << Sometimes.SET_POPULATED


def observe(driver: Driver) -> None:
    """Compare both sides after an operation.

    Raises:
        Divergence: storage or locals differ.
        InvariantViolated: the implementation's representation is broken.
    """
    state, limits, runtime, addresses = driver.state, driver.limits, driver.runtime, driver.addresses
    shape, memory = limits.shape, runtime.memory
    if state[INSTANCES]:
        _compare_storage(driver)
    depth = state[DEPTH]
    live: list[int] = []
    if depth > 1:
        slots = shape.slots
        live = [addresses[name] for name in state[slots : slots + depth * limits.slots] if name >= 0]
        if state[shape.contexts + (depth - 1) * CONTEXT_WORDS + CONTEXT_KIND] == Context.WASM:
            _compare_locals(driver, slots + (depth - 1) * limits.slots)
    roots, forgotten = shape.roots, driver.forgotten
    owners = {addresses[name]: state[roots + name] + forgotten[name] for name in bits(state[LIVE])}
    runtime.check(owners, live, bool(driver.dying))
    if live and isinstance(memory, CheckedMemory):
        _compare_elements(driver, live)
    if state[SEEN] & _BOTH != _BOTH:
        observe_coverage(driver)


def _compare_locals(driver: Driver, slot: int) -> None:
    """Compare the locals of the youngest activation with the model's, which begin at `slot`; what is dead may be anything."""
    state, addresses, memory = driver.state, driver.addresses, driver.runtime.memory
    fp = memory[FRAME_POINTER]
    word = fp - memory[fp + SIZE] + 1
    for index, name in enumerate(state[slot : slot + driver.limits.slots]):
        if name >= -1 and memory[word + index] != (addresses[name] if name >= 0 else 0):
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
    state, limits, memory = driver.state, driver.limits, driver.runtime.memory
    shape = limits.shape
    # The name of null is -1, which finds the last.
    known = [*driver.addresses, 0]
    array = memory[IMPL_INSTANCES]
    for instance in bits(state[INSTANCES]):
        address = memory[array + instance]
        size = state[shape.table_sizes + instance]
        length = state[shape.segment_lengths + instance]
        if not address or memory[address + TABLE_SIZE] != size or memory[address + SEGMENT_LENGTH] != length:
            driver.diverge(f"instance {instance} is missing, or its table or segment has not the model's size {size}, {length}")
        cell = shape.globals + instance * limits.globals
        word = address + CELLS
        for name in state[cell : cell + limits.globals]:
            if memory[word] != known[name]:
                _diverge_in(driver, instance, "global", word - address - CELLS, name, memory[word])
            word += 1
        cell = shape.segments + instance * limits.segment
        for name in state[cell : cell + length]:
            if memory[word] != known[name]:
                _diverge_in(driver, instance, "segment entry", word - address - CELLS - limits.globals, name, memory[word])
            word += 1
        if size:
            cell = shape.elements + instance * limits.table
            first = word = memory[address + TABLE_ELEMENTS]
            for name in state[cell : cell + size]:
                if memory[word] != known[name]:
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
    spec = BY_KIND[row[0]]
    wanted = sum(name >= 0 for name in row[1 + len(spec.operands) :]) if spec.items else 1
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
