"""The invariants hold inside destructors too, whatever runs there, and a corruption there is reported under its number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from impl.activations_table import CHUNK, COLLECTING, NEXT, PRECISE, STACK_CANARY, SWEEPING
from impl.config import Config
from impl.errors import AllocationFailed, InvariantViolated, OutOfBounds, Panicked, RegistrationRefused
from impl.hash_set import BUCKETS, CAPACITY, LENGTH, SET_WORDS
from impl.header import HEAP_END, INSTANCES
from tests.impl.worlds import PC, SLOTS, Sound, World, configuration


@pytest.fixture(params=[0, 2], ids=["", "quarantine"])
def world(request: pytest.FixtureRequest) -> Sound:
    sound = Sound(configuration(quarantine=request.param))
    sound.check()
    return sound


# --- inside a destructor that a sweep runs


def finger_moves_during_the_sweep(world: Sound) -> None:
    world.words[world.table + NEXT] = world.words[world.table + CHUNK]


def dying_object_is_counted(world: Sound) -> None:
    world.words[world.dying] += 1


def dying_object_still_exists_for_the_model(world: Sound) -> None:
    world.owners[world.dying] = 0


def only_the_swept_set_has_the_live_local(world: Sound) -> None:
    table = world.table
    world.exchange(table + PRECISE, table + SWEEPING, SET_WORDS)


def swept_set_lost_a_member(world: Sound) -> None:
    words, sweeping = world.words, world.table + SWEEPING
    buckets = words[sweeping + BUCKETS]
    bucket = next(bucket for bucket in range(buckets, buckets + words[sweeping + CAPACITY]) if words[bucket])
    words[bucket] = 0
    words[sweeping + LENGTH] -= 1


def free_word_written_by_a_destructor(world: Sound) -> None:
    world.words[world.words[HEAP_END] - 1] = 1


def canary_lost_by_a_destructor(world: Sound) -> None:
    world.words[world.table + STACK_CANARY] = 0


@pytest.mark.parametrize(
    ("number", "corrupt"),
    [
        (1, dying_object_is_counted),
        (2, dying_object_still_exists_for_the_model),
        (1, swept_set_lost_a_member),
        (3, finger_moves_during_the_sweep),
        (5, only_the_swept_set_has_the_live_local),
        (8, free_word_written_by_a_destructor),
        (9, canary_lost_by_a_destructor),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_corruption_during_a_sweep_is_reported_under_its_number(world: Sound, number: int, corrupt: Callable[[Sound], None]) -> None:
    """The world dies in the first destructor of a sweep that has yet to release its set."""
    caught: list[int] = []

    def corrupt_and_check() -> None:
        world.check(nested=True)
        corrupt(world)
        with pytest.raises(InvariantViolated) as violation:
            world.check(nested=True)
        caught.append(violation.value.number)
        raise Finished

    world.rt.local_null(0)
    doomed = world.new(1)
    world.rt.call_import(PC)
    world.rt.call_wasm(0, PC, [world.moved(doomed)])
    world.rt.return_to_host()
    world.in_destructor = corrupt_and_check
    with pytest.raises(Finished):
        world.rt.gc()
    assert caught == [number]


class Finished(BaseException):
    """Ends a corrupted world at once."""


def test_between_operations_means_outside_destructors(world: Sound) -> None:
    """What is right inside a destructor is a borrow left taken outside."""
    seen: list[int] = []

    def look() -> None:
        world.check(nested=True)
        with pytest.raises(InvariantViolated) as caught:
            world.check(nested=False)
        seen.append(caught.value.number)

    world.in_destructor = look
    world.rt.drop(world.moved(world.held))
    assert seen == [9]
    world.check()


# --- any run


CONTEXTS_MAX = 5
OBJECTS_MAX = 9
DESTRUCTORS_MAX = 3


class Walk(World):
    """A run that a row of numbers chooses: operations of all contexts, some of which panic, inside destructors as well."""

    def __init__(self, config: Config, choices: bytes, *, checked: bool) -> None:
        super().__init__(config, checked=checked)
        self.choices = iter(choices)
        self.contexts: list[str] = []
        self.bases = [0]
        self.dying_now = 0
        self.armed = False
        self.closing = False
        self.seen: set[str] = set()
        self.in_destructor = self.destructor

    def choose(self, count: int) -> int:
        """Pick a number below `count`; 0 when there are no choices left."""
        return next(self.choices, 0) % count

    def construct(self, value: int, vtable: int) -> None:
        """Panic now and then."""
        if self.choose(16) == 1:
            raise Panicked("constructor")

    def destructor(self) -> None:
        """Do a few operations of a host in the destructor, and leave the stack as it was."""
        if self.dying_now == DESTRUCTORS_MAX:
            return
        self.dying_now += 1
        self.bases.append(len(self.contexts))
        self.check(nested=True)
        self.seen.add("collecting" if self.words[self.table + COLLECTING] else "destructor")
        for _ in range(self.choose(4)):
            self.step()
        while len(self.contexts) > self.bases[-1]:
            self.leave()
            self.check(nested=True)
        self.bases.pop()
        self.dying_now -= 1
        if self.choose(8) == 1:
            raise Panicked("destructor")

    def step(self) -> None:
        """Do one operation and check."""
        inside = len(self.contexts) > self.bases[-1]
        wasm = inside and self.contexts[-1] != "import"
        operations = WASM_OPERATIONS if wasm else HOST_OPERATIONS
        operation = operations[self.choose(len(operations))]
        try:
            operation(self)
            self.seen.add(operation.__name__)
        except Panicked:
            self.seen.add("panicked")
            if wasm:
                self.leave_by_unwinding()
        except (AllocationFailed, OutOfBounds, RegistrationRefused) as error:
            self.seen.add(type(error).__name__)
            if wasm:
                self.leave_by_unwinding()
        self.check(nested=self.dying_now > 0)

    def leave_by_unwinding(self) -> None:
        """Leave the innermost call from the host."""
        while self.contexts.pop() != "entry":
            pass
        self.rt.unwind()

    def leave(self) -> None:
        """Return from the youngest context, if it is one of ours."""
        if len(self.contexts) == self.bases[-1]:
            return
        context = self.contexts.pop()
        if context == "import":
            refs = [self.moved(self.some())]
            try:
                self.rt.return_from_import(refs, [self.slot()])
            except Panicked:
                self.leave_by_unwinding()
        elif context == "wasm":
            self.rt.return_to_wasm([self.slot()], [self.slot()])
        else:
            for ref in self.rt.return_to_host([self.slot(), self.slot()]):
                self.take(ref)

    def take(self, ref: int) -> int:
        """Note that the host was given a reference."""
        if ref:
            self.owners[ref] += 1
        return ref

    def some(self) -> int:
        """Pick a reference that the host holds, or null."""
        held = sorted(ref for ref, count in self.owners.items() if count)
        pick = self.choose(len(held) + 1)
        return held[pick - 1] if pick else 0

    def slot(self) -> int:
        """Pick a local."""
        return self.choose(SLOTS)

    def present(self) -> int:
        """Pick an instance that exists; OutOfBounds if there is none."""
        row = self.words[INSTANCES]
        found = [index for index in range(self.rt.config.instances) if self.words[row + index]]
        if not found:
            raise OutOfBounds("no instance")
        return found[self.choose(len(found))]


def op_new(walk: Walk) -> None:
    if len(walk.owners) < OBJECTS_MAX:
        layout = walk.choose(3)
        fields = [walk.moved(walk.some()) for _ in range(walk.rt.config.layouts[layout][2])]
        walk.owners[walk.rt.new(layout, fields)] = 1


def op_clone(walk: Walk) -> None:
    ref = walk.some()
    if ref:
        walk.take(walk.rt.clone(ref))


def op_drop(walk: Walk) -> None:
    ref = walk.moved(walk.some())
    if ref:
        walk.rt.drop(ref)


def op_gc(walk: Walk) -> None:
    walk.rt.gc()


def op_call_wasm(walk: Walk) -> None:
    if len(walk.contexts) < CONTEXTS_MAX and not walk.closing:
        instance = walk.present()
        walk.rt.call_wasm(instance, PC, [walk.moved(walk.some()) for _ in range(walk.choose(SLOTS + 1))])
        walk.contexts.append("entry")


def op_leave(walk: Walk) -> None:
    walk.leave()


def op_host_global(walk: Walk) -> None:
    instance = walk.present()
    walk.take(walk.rt.host_global_get(instance, 0))
    walk.rt.host_global_set(instance, 0, walk.moved(walk.some()))


def op_host_table(walk: Walk) -> None:
    instance = walk.present()
    walk.take(walk.rt.host_table_get(instance, walk.choose(4)))
    walk.rt.host_table_set(instance, walk.choose(4), walk.moved(walk.some()))


def op_host_bulk(walk: Walk) -> None:
    one, two = walk.present(), walk.present()
    start, source, count = walk.choose(4), walk.choose(4), walk.choose(4)
    match walk.choose(4):
        case 0:
            walk.rt.host_table_grow(one, count, walk.moved(walk.some()))
        case 1:
            walk.rt.host_table_fill(one, start, walk.moved(walk.some()), count)
        case 2:
            walk.rt.host_table_copy(one, two, start, source, count)
        case _:
            walk.rt.host_table_init(one, two, start, source, count)


def op_instantiate(walk: Walk) -> None:
    row = walk.words[INSTANCES]
    free = [index for index in range(2) if not walk.words[row + index]]
    if free:
        active = walk.choose(2)
        size = 2 + walk.choose(2) if active else walk.choose(3)
        walk.rt.instantiate(free[0], walk.choose(3), walk.moved(walk.some()), walk.choose(4), size, active)


def op_teardown(walk: Walk) -> None:
    if walk.contexts or walk.dying_now:
        return
    if walk.choose(4) == 0:
        # Destructors cannot call into a store that is torn down.
        walk.closing = True
        try:
            walk.rt.teardown_store()
        finally:
            walk.closing = False
            # The registry went with the store, and all safepoints of this walk are module 0's.
            walk.rt.register(0)
    else:
        walk.rt.teardown_instance(walk.present())


def op_register(walk: Walk) -> None:
    walk.rt.register(walk.choose(3))


def op_environment(walk: Walk) -> None:
    match walk.choose(4):
        case 0:
            walk.rt.cut_walk(walk.choose(4))
        case 1:
            walk.rt.fail_allocation(walk.choose(3))
        case 2:
            walk.rt.sweep_order(walk.choose(256))
        case _:
            walk.rt.calm()


def op_local(walk: Walk) -> None:
    if walk.choose(2):
        walk.rt.local_copy(walk.slot(), walk.slot())
    else:
        walk.rt.local_null(walk.slot())


def op_load(walk: Walk) -> None:
    if walk.choose(2):
        walk.rt.global_get(PC, walk.present(), 0, walk.slot())
    else:
        walk.rt.table_get(PC, walk.present(), walk.choose(4), walk.slot())


def op_store(walk: Walk) -> None:
    if walk.choose(2):
        walk.rt.global_set(PC, walk.present(), 0, walk.slot())
    else:
        walk.rt.table_set(PC, walk.present(), walk.choose(4), walk.slot())


def op_bulk(walk: Walk) -> None:
    one, two = walk.present(), walk.present()
    start, source, count = walk.choose(4), walk.choose(4), walk.choose(4)
    match walk.choose(5):
        case 0:
            walk.rt.table_grow(PC, one, count, walk.slot())
        case 1:
            walk.rt.table_fill(PC, one, start, walk.slot(), count)
        case 2:
            walk.rt.table_copy(PC, one, two, start, source, count)
        case 3:
            walk.rt.table_init(PC, one, two, start, source, count)
        case _:
            walk.rt.elem_drop(PC, one)


def op_call_function(walk: Walk) -> None:
    if len(walk.contexts) < CONTEXTS_MAX:
        walk.rt.call_function(PC, 0, PC, [walk.slot(), walk.slot()])
        walk.contexts.append("wasm")


def op_call_import(walk: Walk) -> None:
    if len(walk.contexts) < CONTEXTS_MAX:
        for ref in walk.rt.call_import(PC, [walk.slot()]):
            walk.take(ref)
        walk.contexts.append("import")


def op_trap(walk: Walk) -> None:
    walk.leave_by_unwinding()


HOST_OPERATIONS = (
    op_new,
    op_call_wasm,
    op_drop,
    op_gc,
    op_new,
    op_call_wasm,
    op_drop,
    op_leave,
    op_clone,
    op_host_global,
    op_host_table,
    op_host_bulk,
    op_instantiate,
    op_teardown,
    op_register,
    op_environment,
)
WASM_OPERATIONS = (
    op_load,
    op_store,
    op_local,
    op_call_import,
    op_leave,
    op_call_function,
    op_bulk,
    op_load,
    op_call_import,
    op_trap,
)


def run(choices: bytes, chunk: int, quarantine: int, *, checked: bool) -> set[str]:
    """Run a walk to the end of its choices; return what it has seen."""
    walk = Walk(configuration(chunk, quarantine), choices, checked=checked)
    walk.rt.instantiate(0, 0, 0, 0, 3, 0)
    for _ in range(len(choices) // 3):
        walk.step()
    return walk.seen


@given(st.binary(min_size=60, max_size=300), st.integers(1, 4), st.sampled_from([0, 3]))
def test_no_run_is_ever_reported(choices: bytes, chunk: int, quarantine: int) -> None:
    """Whatever the runtime does, in any order and inside destructors, keeps all invariants; the memory checks every access."""
    for name in run(choices, chunk, quarantine, checked=True):
        event(name)


def test_the_runs_reach_what_they_are_for() -> None:
    """Enough of them panic, collect inside destructors and execute every operation: a fixed sequence of choices shows it."""
    seen: set[str] = set()
    word = 1
    for _ in range(300):
        row = bytearray()
        for _ in range(200):
            word = word * 6364136223846793005 + 1442695040888963407 & 0xFFFF_FFFF_FFFF_FFFF
            row.append(word >> 56)
        seen |= run(bytes(row), 2, 0, checked=False)
    executed = {operation.__name__ for operation in HOST_OPERATIONS + WASM_OPERATIONS}
    rare = {"collecting", "destructor", "panicked", "AllocationFailed", "OutOfBounds", "RegistrationRefused"}
    assert executed | rare <= seen
