"""Counted references: what is destroyed, when, how often, and what a panic leaves behind."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest

from impl import externref as ref
from impl.arena import FAIL_AFTER, VERDICT, CheckedMemory, alloc, initialise, raw_memory, snapshot
from impl.errors import Aborted, AllocationFailed, HostBroken, Panicked, UseAfterFree
from impl.externref import (
    COUNT_MAX,
    EXTERN_DATA_WORDS,
    VALUE_PTR,
    VTABLE,
    VTABLE_ALIGN_BYTES,
    VTABLE_FIELDS,
    VTABLE_SIZE_BYTES,
    VTABLE_WORDS,
    Heap,
    VMExternRef,
    default_heap,
)
from impl.header import VERDICT_ABORTED
from impl.stack import DROP, KIND, current, pop_frame, push_frame, stack_pointer

WORDS = 1024


class Recorder:
    """A host that records destructions, and does in each what a test asks for."""

    def __init__(self, mem: CheckedMemory) -> None:
        self.mem = mem
        self.destroyed: list[int] = []
        self.during: dict[int, Callable[[], None]] = {}
        self.constructing: Callable[[int], None] | None = None

    def construct(self, value: int, vtable: int) -> None:
        if self.constructing is not None:
            self.constructing(value)

    def destroy(self, externref: int) -> None:
        assert self.mem[current(self.mem) + KIND] == DROP
        assert self.mem[stack_pointer(self.mem)] == externref
        assert self.mem[externref] == 0
        self.destroyed.append(externref)
        if externref in self.during:
            self.during[externref]()


def panic() -> None:
    raise Panicked("on request")


class World:
    def __init__(self) -> None:
        self.mem = CheckedMemory(raw_memory(WORDS))
        initialise(self.mem, 128, WORDS, 0)
        self.host = Recorder(self.mem)
        self.vtables = {fields: self.vtable(8 * fields + 4, 8 if fields else 64, fields) for fields in range(3)}
        self.empty = snapshot(self.mem)

    def vtable(self, size_bytes: int, align_bytes: int, fields: int) -> int:
        address = alloc(self.mem, VTABLE_WORDS, 1)
        for field, word in enumerate((size_bytes, align_bytes, fields)):
            self.mem[address + field] = word
        return address

    def new(self, *fields: int) -> int:
        externref = ref.new_with(self.mem, self.host, self.vtables[len(fields)])
        for index, field in enumerate(fields):
            self.mem[self.mem[externref + VALUE_PTR] + index] = field
        return externref

    def drop(self, externref: int) -> None:
        ref.drop(self.mem, self.host, externref)


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_value_has_one_reference_and_its_own_layout(world: World) -> None:
    a = world.new()
    value = world.mem[a + VALUE_PTR]
    assert (ref.strong_count(world.mem, a), value % 8, a - value) == (1, 0, 1)
    b = world.new(0, 0)
    assert b - world.mem[b + VALUE_PTR] == 3
    assert [world.mem[world.mem[b + VALUE_PTR] + field] for field in range(2)] == [0, 0]


def test_the_last_drop_destroys_once_and_frees_everything(world: World) -> None:
    a = world.new()
    assert ref.clone(world.mem, a) == a
    assert ref.clone_from_raw(world.mem, ref.as_raw(world.mem, a)) == a
    counts = []
    for _ in range(3):
        counts.append((ref.get_ref_count(world.mem, a), list(world.host.destroyed)))
        world.drop(a)
    assert counts == [(3, []), (2, []), (1, [])]
    assert world.host.destroyed == [a]
    assert snapshot(world.mem) == world.empty
    with pytest.raises(UseAfterFree):
        world.drop(a)


def test_what_a_value_owns_is_released_after_its_body_in_order(world: World) -> None:
    a, b = world.new(), world.new()
    outer = world.new(a, b)
    seen: list[list[int]] = []
    world.host.during[outer] = lambda: seen.append([ref.strong_count(world.mem, a), ref.strong_count(world.mem, b)])
    world.drop(outer)
    assert seen == [[1, 1]]
    assert world.host.destroyed == [outer, a, b]
    assert snapshot(world.mem) == world.empty


def test_a_field_is_null_before_its_reference_is_dropped(world: World) -> None:
    a, b = world.new(), world.new()
    outer = world.new(a, b)
    value = world.mem[outer + VALUE_PTR]
    seen: list[tuple[int, int]] = []
    world.host.during[a] = lambda: seen.append((world.mem[value], world.mem[value + 1]))
    world.drop(outer)
    assert seen == [(0, b)]


@pytest.mark.parametrize("culprits", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_panic_interrupts_no_release_and_frees_every_block(world: World, culprits: tuple[int, ...]) -> None:
    a, b = world.new(), world.new()
    outer = world.new(a, b)
    for culprit in culprits:
        world.host.during[(outer, a, b)[culprit]] = panic
    with pytest.raises(Panicked):
        world.drop(outer)
    assert world.host.destroyed == [outer, a, b]
    assert snapshot(world.mem) == world.empty


def test_releasing_a_range_takes_each_word_and_reports_a_panic(world: World) -> None:
    a, b = world.new(), world.new()
    sp = push_frame(world.mem, 2, 0, 4, 0)
    for word, externref in ((0, a), (2, b), (3, ref.clone(world.mem, b))):
        world.mem[sp + word] = externref
    world.host.during[a] = panic
    assert ref.release_all(world.mem, world.host, sp, 4) == 1
    assert world.host.destroyed == [a, b]
    assert [world.mem[sp + word] for word in range(4)] == [0, 0, 0, 0]
    assert ref.release_all(world.mem, world.host, sp, 4) == 0
    pop_frame(world.mem)
    assert snapshot(world.mem) == world.empty


def test_a_constructor_that_panics_leaks_nothing(world: World) -> None:
    def construct(value: int) -> None:
        world.mem[value] = 1
        panic()

    world.host.constructing = construct
    with pytest.raises(Panicked):
        world.new()
    assert snapshot(world.mem) == world.empty
    assert world.host.destroyed == []


def test_a_failed_allocation_constructs_nothing(world: World) -> None:
    world.host.constructing = lambda _: pytest.fail("constructed without memory")
    world.mem[FAIL_AFTER] = 1
    with pytest.raises(AllocationFailed):
        world.new()
    assert snapshot(world.mem) == world.empty


def test_a_value_too_large_for_any_layout_is_refused(world: World) -> None:
    huge = world.vtable(2**63 - 9, 8, 0)
    with pytest.raises(AllocationFailed):
        ref.new_with(world.mem, world.host, huge)


def test_a_count_of_zero_that_is_given_up_aborts(world: World) -> None:
    """Compiled code cannot tell an abort from a panic but by the word `VERDICT`."""
    a = world.new()
    world.mem[a] = 0
    attempts: list[Callable[[], None]] = [
        lambda: ref.decrement_ref_count(world.mem, a),
        lambda: ref.drop(world.mem, world.host, a),
    ]
    for attempt in attempts:
        world.mem[VERDICT] = 0
        with pytest.raises(Aborted):
            attempt()
        assert (world.mem[a], world.mem[VERDICT], world.host.destroyed) == (0, VERDICT_ABORTED, [])


def test_an_overflowing_count_aborts_and_is_not_caught_as_a_panic(world: World) -> None:
    a = world.new()
    world.mem[a] = COUNT_MAX - 1
    ref.increment_ref_count(world.mem, a)
    for attempt in (ref.clone, ref.increment_ref_count, ref.clone_from_raw):
        world.mem[VERDICT] = 0
        with pytest.raises(Aborted):
            attempt(world.mem, a)
        assert world.mem[VERDICT] == VERDICT_ABORTED
    assert world.mem[a] == COUNT_MAX
    outer = world.new(0)
    world.host.during[outer] = lambda: ref.increment_ref_count(world.mem, a)
    with pytest.raises(Aborted):
        world.drop(outer)


def test_a_count_of_zero_is_never_decremented(world: World) -> None:
    a = world.new()
    ref.decrement_ref_count(world.mem, a)
    with pytest.raises(Aborted):
        ref.decrement_ref_count(world.mem, a)
    with pytest.raises(Aborted):
        world.drop(a)


@pytest.mark.parametrize("field", ["during", "constructing"])
def test_an_error_of_the_host_itself_is_no_panic(world: World, field: str) -> None:
    def broken(*_: int) -> None:
        raise KeyError("a bug of the harness")

    a = world.new()
    if field == "during":
        world.host.during[a] = broken
        with pytest.raises(HostBroken, match="a bug of the harness"):
            world.drop(a)
    else:
        world.host.constructing = broken
        with pytest.raises(HostBroken, match="a bug of the harness"):
            world.new()


def test_identity_is_that_of_the_allocation(world: World) -> None:
    a, b = sorted((world.new(), world.new()))
    assert [ref.eq(world.mem, x, y) for x, y in ((a, a), (a, b))] == [1, 0]
    assert [ref.cmp(world.mem, x, y) for x, y in ((a, b), (a, a), (b, a))] == [-1, 0, 1]
    assert ref.hash_(world.mem, a) != ref.hash_(world.mem, b)


@pytest.mark.parametrize("checked", [False, True])
def test_a_handle_boxes_any_object_until_its_last_reference_goes(checked: bool) -> None:
    heap = Heap(1 << 14, checked=checked)
    before = snapshot(heap.memory)
    dropped: list[object] = []
    with VMExternRef.new([1, 2], dropped.append, heap) as a:
        b = a.clone()
        c = VMExternRef.clone_from_raw(a.as_raw(), heap)
        assert a.strong_count() == 3
        assert a.deref() is c.deref()
        assert (a.is_(list), a.is_(str), a.downcast_ref(list), a.downcast_ref(str)) == (True, False, [1, 2], None)
        assert VMExternRef.eq(a, b)
        assert VMExternRef.cmp(a, b) == 0
        assert VMExternRef.hash(a) == VMExternRef.hash(b)
        c.drop()
    assert dropped == []
    assert repr(b) == f"VMExternRef({b.as_raw()}: [1, 2])"
    b.drop()
    assert dropped == [[1, 2]]
    assert repr(b) == "VMExternRef(dropped)"
    assert snapshot(heap.memory) == before
    for use in (b.drop, b.clone, b.deref, b.as_raw, b.strong_count):
        with pytest.raises(ValueError, match="dropped or moved"):
            use()


@pytest.mark.parametrize("checked", [False, True])
def test_a_heap_checks_if_asked_to_and_its_values_are_one_word(checked: bool) -> None:
    heap = Heap(1 << 14, checked=checked)
    assert isinstance(heap.memory, CheckedMemory) == checked
    fields = (VTABLE_SIZE_BYTES, VTABLE_ALIGN_BYTES, VTABLE_FIELDS)
    assert [heap.memory[heap.vtable + field] for field in fields] == [8, 8, 0]


def test_the_head_of_a_value_ends_behind_its_vtable() -> None:
    assert EXTERN_DATA_WORDS == VTABLE + 1


def test_the_largest_count_is_the_largest_signed_word() -> None:
    assert COUNT_MAX == 2**63 - 1


def test_equal_values_in_two_boxes_are_not_equal() -> None:
    heap = Heap(1 << 14)
    with VMExternRef.new("x", heap=heap) as a, VMExternRef.new("x", heap=heap) as b:
        assert not VMExternRef.eq(a, b)


def test_a_destructor_may_use_its_heap_and_a_slot_is_used_again() -> None:
    heap = Heap(1 << 14, checked=True)
    dropped: list[object] = []
    inner = VMExternRef.new("inner", dropped.append, heap)

    def on_drop(value: object) -> None:
        VMExternRef.new("made meanwhile", dropped.append, heap).drop()
        inner.drop()
        dropped.append(value)

    VMExternRef.new("outer", on_drop, heap).drop()
    assert dropped == ["made meanwhile", "inner", "outer"]
    assert len(heap._slots) == 3
    VMExternRef.new("later", heap=heap)
    assert len(heap._slots) == 3


def test_what_a_python_destructor_or_constructor_raises_is_the_cause_of_the_panic() -> None:
    heap = Heap(1 << 14, checked=True)
    before = snapshot(heap.memory)

    def fail(*_: object) -> object:
        raise KeyError("why")

    with pytest.raises(Panicked) as caught:
        VMExternRef.new_with(fail, heap=heap)
    assert isinstance(caught.value.__cause__, KeyError)
    a = VMExternRef.new("x", fail, heap)  # type: ignore[arg-type]
    with pytest.raises(Panicked) as caught:
        a.drop()
    assert isinstance(caught.value.__cause__, KeyError)
    assert snapshot(heap.memory) == before


def test_a_slot_that_is_used_again_holds_the_new_object_and_lets_the_old_one_go() -> None:
    heap = Heap(1 << 14, checked=True)
    old = Recorder(CheckedMemory(raw_memory(WORDS)))
    gone = weakref.ref(old)
    box = VMExternRef.new(old, heap=heap)
    del old
    box.drop()
    assert gone() is None
    with VMExternRef.new("new", heap=heap) as again:
        assert (again.deref(), len(heap._slots)) == ("new", 1)


def test_the_cause_of_a_panic_is_told_once() -> None:
    heap = Heap(1 << 14)

    def fail() -> object:
        raise KeyError("why")

    with pytest.raises(Panicked):
        VMExternRef.new_with(fail, heap=heap)
    assert heap._take_cause() is None


def test_values_live_in_one_common_heap_unless_their_maker_names_another() -> None:
    own = Heap(1 << 14)
    with VMExternRef.new("a") as a, VMExternRef.new_with(lambda: "b") as b, VMExternRef.new("c", heap=own) as c:
        assert (a.heap, b.heap, c.heap) == (default_heap(), default_heap(), own)
        again = VMExternRef.clone_from_raw(a.as_raw())
        assert (again.heap, again.deref(), a.strong_count()) == (default_heap(), "a", 2)
        again.drop()
        other = VMExternRef.clone_from_raw(c.as_raw(), own)
        assert (other.heap, other.deref()) == (own, "c")
        other.drop()


def test_a_handle_hashes_the_address() -> None:
    with VMExternRef.new("a", heap=Heap(1 << 14)) as a:
        assert VMExternRef.hash(a) == ref.hash_(a.heap.memory, a.as_raw())


def test_a_context_manager_has_nothing_to_drop_if_its_handle_was_dropped_or_moved() -> None:
    dropped: list[object] = []
    heap = Heap(1 << 14)
    with VMExternRef.new("a", dropped.append, heap) as a:
        a.drop()
    with VMExternRef.new("b", dropped.append, heap) as b:
        address = b.into_raw()
    assert dropped == ["a"]
    VMExternRef(heap, address).drop()
    assert dropped == ["a", "b"]


def test_a_moved_reference_belongs_to_whoever_has_its_address() -> None:
    heap = Heap(1 << 14)
    a = VMExternRef.new("x", heap=heap)
    address = a.into_raw()
    with pytest.raises(ValueError, match="dropped or moved"):
        a.deref()
    with VMExternRef(heap, address) as again:
        assert (again.deref(), again.strong_count()) == ("x", 1)
