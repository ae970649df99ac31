"""A joint state is what the model and the arena say together; here it is opened, left by a step, and told from others.

Two states are the same if nothing that can be done to them can tell them apart. Without symmetry, that is: equal rows of the
model, equal bytes of the arena, the same reference for each name. With symmetry, states that differ by a permutation of values
of one layout are one state: names, and the addresses behind them, are replaced by an order that does not depend on them.

What symmetry ignores: an implementation does two things with an address besides following it. The allocator's geometry (which
blocks are free, and which are values of which layout) is part of the identity. The bucket order of the hash set, in which a sweep
releases, is not. Where destructors cannot act, no order of a sweep can be observed, and symmetry loses nothing. Where they can,
a state stands for others whose sweeps release in another order; those are reached by `sweep_order` if the scope has it, and by
a search without symmetry in any case.
"""

from __future__ import annotations

import itertools
from array import array
from typing import TYPE_CHECKING, Final

from fuzz.bindings import check_lookups
from fuzz.driver import ALWAYS, INSIDE_DESTRUCTORS, Divergence, Driver
from fuzz.observe import observe
from impl.activations_table import CHUNK, CHUNK_LENGTH, OVER, TABLE_WORDS
from impl.checked import CheckedMemory
from impl.externref import REF_COUNT, VALUE_PTR, VTABLE
from impl.hash_set import BUCKETS, CAPACITY
from impl.header import (
    FAIL_AFTER,
    FRAME_POINTER,
    FREE_LIST,
    INSTANCES,
    REGISTRY,
    STACK_HIGH,
    SWEEP_ORDER,
    TABLE,
    VERDICT,
    WALK_LIMIT,
)
from impl.instance import CELLS, TABLE_ELEMENTS, TABLE_SIZE
from impl.stack import SIZE
from impl.stack_maps import MODULE_WORDS, MODULES, MODULES_COUNT, REGISTRY_WORDS
from model.choose import Exhausted, choose_op
from model.code import images
from model.limits import CUT, DEFERRED, FAIL, FULL, HEADER, LEAKED, LIVE, SEEN, Limits
from model.ops import Kind
from model.state import State, describe
from model.trace import format_row
from model.words import bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.choose import Chooser
    from model.ops import Row

OBJECTS_MAX: Final = 60
"""A mask of names is one signed 64-bit word of a packed state."""
_REGISTERING: Final = frozenset({Kind.REGISTER, Kind.INSTANTIATE, Kind.TEARDOWN_STORE})
"""After these, lookups may find something else than before."""
_NAME: Final = -3
"""Stands for a name, or a reference, where the order of names is not to be seen."""


class JointStates:
    """The driver as a transition system: open a state, take a step from it, ask where that leads.

    Args:
        limits: bounds of the search.
        symmetry: whether states that differ by a permutation of values count once.

    Raises:
        ValueError: more objects than a packed state has room for.
    """

    def __init__(self, limits: Limits, *, symmetry: bool) -> None:
        if limits.objects > OBJECTS_MAX:
            raise ValueError(f"objects={limits.objects}: a search has room for at most {OBJECTS_MAX}")
        self.limits = limits
        # One value has one name at a time, and where it lies belongs to the identity: nothing to save, and half the speed to lose.
        self.symmetry = symmetry and limits.objects > 1
        self.driver = Driver(limits)
        # A lookup that the driver would leave to a later run has no later run here.
        self.driver.thorough = True
        self._size = len(self.driver.state)
        self._words = len(self.driver.state) + 2 * limits.objects + 1
        self._root = self._raw()
        self._opened = self.driver.save()

    @property
    def counts(self) -> list[int]:
        """Executions by kind so far, those inside destructors included."""
        return self.driver.counts

    @property
    def rows(self) -> list[Row]:
        """What the last step did: the operation, then what destructors did in it."""
        return self.driver.rows

    def divergence(self, verdict: str, text: str) -> Divergence:
        """Make a violation of the step under way."""
        return self.driver.divergence(verdict, text)

    def described(self) -> list[str]:
        """Say the state that the last step led to in words."""
        return describe(self.driver.state, self.limits)

    def step_words(self) -> list[str]:
        """Say the last step: a line for each operation, with bars for destructors."""
        driver = self.driver
        return ["| " * depth + format_row(row, self.limits) for row, depth in zip(driver.rows, driver.depths, strict=True)]

    def root(self) -> bytes:
        """Return the state before the first operation: its words, then the bytes of the arena."""
        return self._root

    def open(self, state: bytes) -> None:
        """Make a state the one that steps are taken from."""
        words = array("q", state[: self._words * 8]).tolist()
        first = self._size + self.limits.objects + 1
        self._opened = (words[: self._size], state[self._words * 8 :], words[self._size : first], words[first:])

    def reload(self) -> None:
        """Go back to the opened state, whatever has happened since."""
        driver = self.driver
        driver.load(self._opened)
        state = driver.state
        driver.rows.clear()
        driver.depths.clear()
        driver.nesting = driver.level = 0
        driver.closing = driver.panicking = False
        driver.armed = bool(state[CUT] or state[FAIL])
        # Steps that lead to a known state need no second look; those inside destructors lead to no state and do.
        driver.verify = ALWAYS if self.symmetry else INSIDE_DESTRUCTORS

    def step(self, chooser: Chooser) -> int:
        """Do one operation of the opened state, and what destructors do in it, as the chooser says.

        Returns:
            The mask of the sometimes properties that it has shown.

        Raises:
            Exhausted: nothing is possible in the opened state.
            Divergence: the two sides disagree.
        """
        self.reload()
        driver = self.driver

        def draw(state: State, limits: Limits) -> Row:
            return choose_op(state, limits, chooser)

        driver.step(choose_op(driver.state, self.limits, chooser), draw)
        state = driver.state
        seen = state[SEEN]
        state[SEEN] = state[FULL] = 0
        return seen

    def settle(self) -> tuple[bytes, int]:
        """Return the state that the last step led to, and the sometimes properties that only its end shows.

        It is looked at closely first, and then everything is let go of: nothing may be left behind.

        Raises:
            Divergence: the two sides disagree.
        """
        driver = self.driver
        state = self._raw()
        counts = list(driver.counts)
        driver.verify = ALWAYS
        driver.run_source(self._look)
        driver.counts[:] = counts
        return state, driver.state[SEEN]

    def _look(self, _state: State, limits: Limits) -> Row:
        driver = self.driver
        if not self.symmetry:
            observe(driver)
        if driver.rows and driver.rows[0][0] in _REGISTERING:
            for module in range(len(images(limits))):
                check_lookups(driver, module)
        raise Exhausted

    def identity(self) -> bytes:
        """Return bytes that are equal for two states if and only if these are the same state."""
        return _canonical(self.driver) if self.symmetry else self._raw()

    def _raw(self) -> bytes:
        driver = self.driver
        return array("q", (*driver.state, *driver.addresses, *driver.forgotten)).tobytes() + driver.runtime.snapshot()


def _canonical(driver: Driver) -> bytes:
    """Describe the joint state without names and without the addresses of values."""
    limits, state, memory = driver.limits, driver.state, driver.runtime.memory
    if isinstance(memory, CheckedMemory):
        raise TypeError("symmetry reads the raw memory")
    shape = limits.shape
    live = list(bits(state[LIVE]))
    names = {driver.addresses[name]: name for name in live}
    # What is known of each value that does not depend on other values.
    marks = {
        name: [
            state[shape.roots + name],
            state[LEAKED] >> name & 1 | (state[DEFERRED] >> name & 1) << 1,
            driver.forgotten[name],
            memory[reference + VTABLE],
            memory[reference + REF_COUNT],
        ]
        for reference, name in names.items()
    }
    fixed = state[:HEADER]
    fixed[LIVE] = fixed[LEAKED] = fixed[DEFERRED] = 0
    for position, cell in enumerate(state[shape.globals : shape.slots_end]):
        if cell >= 0:
            marks[cell].append(position)
            fixed.append(_NAME)
        else:
            fixed.append(cell)
    fixed += state[shape.slots_end :]
    words = _words(memory, limits)
    for position, word in enumerate(words, start=1 << 20):
        holder = names.get(word)
        if holder is not None:
            marks[holder].append(position)
            words[position - (1 << 20)] = _NAME
    buckets = memory[TABLE] + OVER
    first = memory[buckets + BUCKETS]
    for word in memory[first : first + memory[buckets + CAPACITY]]:
        if word:
            marks[names[word]].append(-1)
    order = sorted(live, key=marks.__getitem__)
    described = [len(fixed), *fixed, len(words), *words, len(live)]
    for reference in sorted(names):
        described += (reference, memory[reference + VTABLE])
    for name in order:
        described += (len(marks[name]), *marks[name])
    if limits.fields and live:
        described += _fields(driver, order, marks)
    return array("q", described).tobytes()


def _words(memory: memoryview, limits: Limits) -> list[int]:
    """Return the words of the arena that say more than names do: stack, table, instances, registry, and what is free."""
    fp = memory[FRAME_POINTER]
    words = memory[fp - memory[fp + SIZE] : memory[STACK_HIGH]].tolist()
    table, registry, array_ = memory[TABLE], memory[REGISTRY], memory[INSTANCES]
    chunk = memory[table + CHUNK]
    words += memory[table : table + TABLE_WORDS].tolist()
    words += memory[chunk : chunk + memory[table + CHUNK_LENGTH]].tolist()
    cells = CELLS + limits.globals + limits.segment
    for address in memory[array_ : array_ + limits.instances]:
        words.append(address)
        if address:
            elements = memory[address + TABLE_ELEMENTS]
            words += memory[address : address + cells].tolist()
            words += memory[elements : elements + memory[address + TABLE_SIZE]].tolist()
    modules = memory[registry + MODULES]
    words += memory[registry : registry + REGISTRY_WORDS].tolist()
    words += memory[modules : modules + memory[registry + MODULES_COUNT] * MODULE_WORDS].tolist()
    words += (memory[FAIL_AFTER], memory[WALK_LIMIT], memory[SWEEP_ORDER], memory[VERDICT])
    block = memory[FREE_LIST]
    while block:
        # Negative: a size may be the same number as a reference.
        words += (-block, -memory[block])
        block = memory[block + 1]
    return words


def _fields(driver: Driver, order: Sequence[int], marks: dict[int, list[int]]) -> list[int]:
    """Describe who owns whom on both sides, by positions in the order; ties in it are broken so that the result is the least."""
    state, memory, shape, count = driver.state, driver.runtime.memory, driver.limits.shape, driver.limits.fields
    cells: dict[int, list[int]] = {}
    for name in order:
        first = shape.fields + name * count
        value = memory[driver.addresses[name] + VALUE_PTR]
        cells[name] = state[first : first + count]
        cells[name] += [driver.name_of(memory[value + index]) for index in range(count)]
    if all(cell < 0 for row in cells.values() for cell in row):
        return []
    ties = [tuple(group) for _, group in itertools.groupby(order, key=marks.__getitem__)]
    described: list[list[int]] = []
    for choice in itertools.product(*(itertools.permutations(group) for group in ties)):
        ranked = tuple(itertools.chain.from_iterable(choice))
        rank = {name: number for number, name in enumerate(ranked)}
        described.append([rank.get(cell, -1) for name in ranked for cell in cells[name]])
    return min(described)
