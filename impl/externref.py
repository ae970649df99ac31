"""A reference is the address of a count behind a value; the last one to be dropped destroys the value, once.

A block holds the value, then its footer `VMExternData`: the count, the address of the value, and that of the value's vtable. A
vtable says the value's size and alignment in bytes, and how many of its first words are references that it owns.

Exactly two functions reach the host: `run_destructor` and `run_constructor`. Compiled code replaces these two names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from impl.arena import CheckedMemory, alloc, dealloc, initialise, raw_memory, try_alloc
from impl.errors import Aborted, HostBroken, Panicked, SimulatedError
from impl.header import VERDICT, VERDICT_ABORTED, Memory
from impl.layout import WORD_SHIFT, layout_for
from impl.stack import DROP, pop_frame, push_frame

T = TypeVar("T")

# Fields of `VMExternData`. The count comes first: the address of a reference is the address of its count.
REF_COUNT: Final = 0
VALUE_PTR: Final = 1
VTABLE: Final = 2
EXTERN_DATA_WORDS: Final = 3

# Fields of a vtable record.
VTABLE_SIZE_BYTES: Final = 0
VTABLE_ALIGN_BYTES: Final = 1
VTABLE_FIELDS: Final = 2
VTABLE_WORDS: Final = 3

# The largest count. Half of what a word holds, as in `Rc`: a signed reading of the word stays right.
COUNT_MAX: Final = (1 << 63) - 1


class Host(Protocol):
    """Whoever constructs and destroys values."""

    def construct(self, value: int, vtable: int) -> None:
        """Write the value at `value`; its owned fields are null. Raise `Panicked` to fail."""

    def destroy(self, externref: int) -> None:
        """Run the body of the value's destructor. Raise `Panicked` to panic. Leave the thread stack as it was."""


def run_destructor(mem: Memory, host: Host, externref: int) -> None:
    """Let the host run the body of a destructor, which may panic.

    Raises:
        HostBroken: It raised an `Exception` that is no `SimulatedError`; simulated code would take it for a panic.
    """
    del mem
    try:
        host.destroy(externref)
    except SimulatedError:
        raise
    except Exception as error:
        text = f"destructor of {externref} raised {error!r}"
        raise HostBroken(text) from error


def run_constructor(mem: Memory, host: Host, value: int, vtable: int) -> None:
    """Let the host write a value, which may panic.

    Raises:
        HostBroken: It raised an `Exception` that is no `SimulatedError`.
    """
    del mem
    try:
        host.construct(value, vtable)
    except SimulatedError:
        raise
    except Exception as error:
        text = f"constructor of a value at {value} raised {error!r}"
        raise HostBroken(text) from error


def new_with(mem: Memory, host: Host, vtable: int) -> int:
    """Allocate a value, let the host construct it in place, and return the only reference to it.

    Raises:
        AllocationFailed: The layout is too large, or the environment let the allocation fail.
        Panicked: The constructor panicked; the block is freed.

    Source: seed `VMExternRef::new_with`, where a panic leaks the block.
    """
    size_bytes, align_bytes, footer_bytes = layout_for(mem[vtable], mem[vtable + VTABLE_ALIGN_BYTES])
    value = try_alloc(mem, size_bytes >> WORD_SHIFT, align_bytes >> WORD_SHIFT)
    for field in range(value, value + mem[vtable + VTABLE_FIELDS]):
        mem[field] = 0
    panicked = 0
    try:
        run_constructor(mem, host, value, vtable)
    except Exception:
        panicked = 1
    if panicked != 0:
        dealloc(mem, value, size_bytes >> WORD_SHIFT, align_bytes >> WORD_SHIFT)
        raise Panicked("the constructor of a value panicked")
    externref = value + (footer_bytes >> WORD_SHIFT)
    mem[externref] = 1
    mem[externref + VALUE_PTR] = value
    mem[externref + VTABLE] = vtable
    return externref


def get_ref_count(mem: Memory, externref: int) -> int:
    """Return the count. Source: seed `VMExternData::get_ref_count`."""
    return mem[externref]


def increment_ref_count(mem: Memory, externref: int) -> None:
    """Count one more reference.

    Raises:
        Aborted: The count would overflow; it was not changed.

    Source: seed `VMExternData::increment_ref_count`, where the count wraps.
    """
    count = mem[externref]
    if count >= COUNT_MAX:
        mem[VERDICT] = VERDICT_ABORTED
        raise Aborted("a reference count overflowed")
    mem[externref] = count + 1


def decrement_ref_count(mem: Memory, externref: int) -> None:
    """Count one reference less; the caller sees to what follows if none is left.

    Raises:
        Aborted: The count is 0 already; it was not changed.

    Source: seed `VMExternData::decrement_ref_count`.
    """
    count = mem[externref]
    if count == 0:
        mem[VERDICT] = VERDICT_ABORTED
        raise Aborted("a reference count of zero was decremented")
    mem[externref] = count - 1


def clone(mem: Memory, externref: int) -> int:
    """Count one more reference, and return it: the same address.

    Raises:
        Aborted: The count would overflow.

    Source: seed `Clone for VMExternRef`.
    """
    count = mem[externref]
    if count >= COUNT_MAX:
        mem[VERDICT] = VERDICT_ABORTED
        raise Aborted("a reference count overflowed")
    mem[externref] = count + 1
    return externref


def as_raw(mem: Memory, externref: int) -> int:
    """Return the untyped address of a reference, and count nothing. Source: seed `as_raw`."""
    del mem
    return externref


def clone_from_raw(mem: Memory, raw: int) -> int:
    """Make a counted reference of what `as_raw` returned while some other reference keeps the value alive.

    Raises:
        Aborted: The count would overflow.

    Source: seed `clone_from_raw`.
    """
    return clone(mem, raw)


def strong_count(mem: Memory, externref: int) -> int:
    """Return the count, which includes what the activations table holds. Source: seed `strong_count`."""
    return mem[externref]


def eq(mem: Memory, a: int, b: int) -> int:
    """Return 1 if both refer to the same allocation, whatever the values. Source: seed `VMExternRef::eq`."""
    del mem
    if a == b:
        return 1
    return 0


def hash_(mem: Memory, externref: int) -> int:
    """Return the hash of the address, not of the value. Source: seed `VMExternRef::hash`."""
    del mem
    return externref


def cmp(mem: Memory, a: int, b: int) -> int:
    """Compare addresses: -1 for less, 0 for equal, 1 for greater. Source: seed `VMExternRef::cmp`."""
    del mem
    if a < b:
        return -1
    if a == b:
        return 0
    return 1


def drop(mem: Memory, host: Host, externref: int) -> None:
    """Count one reference less, and destroy and free the value if it was the last.

    Raises:
        Panicked: A destructor panicked; everything is freed all the same.
        Aborted: The count is 0 already.

    Source: seed `Drop for VMExternRef`.
    """
    count = mem[externref]
    if count > 1:
        mem[externref] = count - 1
        return
    if count == 0:
        mem[VERDICT] = VERDICT_ABORTED
        raise Aborted("a reference count of zero was decremented")
    mem[externref] = 0
    drop_and_dealloc(mem, host, externref)


def drop_and_dealloc(mem: Memory, host: Host, externref: int) -> None:
    """Run the destructor of a value whose count is 0, release what the value owns, and free the block.

    While that happens the reference is word 0 of a `DROP` frame. The layout is read before the body runs.

    Raises:
        Panicked: The body or an owned reference's destructor panicked; all of them ran, and the block is freed.

    Source: seed `VMExternData::drop_and_dealloc`, where a panic leaks the block.
    """
    value = mem[externref + VALUE_PTR]
    vtable = mem[externref + VTABLE]
    size_bytes, align_bytes, _footer_bytes = layout_for(mem[vtable], mem[vtable + VTABLE_ALIGN_BYTES])
    mem[push_frame(mem, DROP, 0, 1, 0)] = externref
    panicked = 0
    try:
        run_destructor(mem, host, externref)
    except Exception:
        panicked = 1
    fields = mem[vtable + VTABLE_FIELDS]
    if fields != 0:
        panicked |= release_all(mem, host, value, fields)
    pop_frame(mem)
    dealloc(mem, value, size_bytes >> WORD_SHIFT, align_bytes >> WORD_SHIFT)
    if panicked != 0:
        raise Panicked("a destructor panicked")


def release_all(mem: Memory, host: Host, address: int, count: int) -> int:
    """Take each reference out of ``[address, address + count)`` and drop it; null words are passed over.

    A word is null before its reference is dropped, so that a destructor that looks there does not find itself. Returns 1 if any
    destructor panicked, else 0; all words are released in either case.
    """
    panicked = 0
    for word in range(address, address + count):
        externref = mem[word]
        if externref != 0:
            mem[word] = 0
            try:
                drop(mem, host, externref)
            except Exception:
                panicked = 1
    return panicked


# Words of a `Heap` unless its maker says otherwise: some 40,000 live values in 2 MiB.
HEAP_WORDS: Final = 1 << 18
HEAP_STACK_WORDS: Final = 1 << 12


class Heap:
    """A memory for boxed Python objects, and the host that keeps the objects and drops them.

    Args:
        words: Size of the memory in words; even.
        checked: Whether every access is checked.

    Raises:
        ArenaExhausted: `words` is too small for a stack of `HEAP_STACK_WORDS` and a heap.
    """

    def __init__(self, words: int = HEAP_WORDS, *, checked: bool = False) -> None:
        raw = raw_memory(words)
        # One vtable for all: a value is the number of its object's slot.
        self.memory: memoryview[int] | CheckedMemory = CheckedMemory(raw) if checked else raw
        initialise(self.memory, HEAP_STACK_WORDS, words, 0)
        self.vtable = alloc(self.memory, VTABLE_WORDS, 1)
        self.memory[self.vtable + VTABLE_SIZE_BYTES] = 8
        self.memory[self.vtable + VTABLE_ALIGN_BYTES] = 8
        self.memory[self.vtable + VTABLE_FIELDS] = 0
        self._slots: list[tuple[object, Callable[[object], None] | None]] = []
        self._slots_free: list[int] = []
        self._making: list[tuple[Callable[[], object], Callable[[object], None] | None]] = []
        self._cause: Exception | None = None

    def box(self, make_value: Callable[[], object], on_drop: Callable[[object], None] | None) -> int:
        """Make a value and return the only reference to it.

        Raises:
            Panicked: `make_value` raised, which is the cause.
        """
        self._making.append((make_value, on_drop))
        try:
            return new_with(self.memory, self, self.vtable)
        except Panicked as panic:
            raise panic from self._take_cause()

    def release(self, externref: int) -> None:
        """Drop a reference.

        Raises:
            Panicked: An `on_drop` raised, which is the cause; the value is freed all the same.
        """
        try:
            drop(self.memory, self, externref)
        except Panicked as panic:
            raise panic from self._take_cause()

    def value(self, externref: int) -> object:
        """Return the object that a reference boxes."""
        return self._slots[self.memory[self.memory[externref + VALUE_PTR]]][0]

    def construct(self, value: int, vtable: int) -> None:
        """Make the object, and write the number of its slot. See `Host`."""
        del vtable
        make_value, on_drop = self._making.pop()
        try:
            boxed = (make_value(), on_drop)
        except Exception as error:
            self._cause = error
            raise Panicked("a constructor raised") from error
        if self._slots_free:
            slot = self._slots_free.pop()
            self._slots[slot] = boxed
        else:
            slot = len(self._slots)
            self._slots.append(boxed)
        self.memory[value] = slot

    def destroy(self, externref: int) -> None:
        """Call the object's `on_drop`, and let the object go. See `Host`."""
        slot = self.memory[self.memory[externref + VALUE_PTR]]
        value, on_drop = self._slots[slot]
        try:
            if on_drop is not None:
                on_drop(value)
        except Exception as error:
            self._cause = error
            raise Panicked("an on_drop raised") from error
        finally:
            self._slots[slot] = (None, None)
            self._slots_free.append(slot)

    def _take_cause(self) -> Exception | None:
        """Return what was raised last in a constructor or an `on_drop`, once."""
        cause = self._cause
        self._cause = None
        return cause


@cache
def default_heap() -> Heap:
    """Return the heap in which values live whose maker names none: one for the process."""
    return Heap()


class VMExternRef:
    """A counted reference to a boxed Python object: a thin handle of a heap and the address of a reference that it takes over.

    Dropping is explicit, as everything about counts is here: call `drop`, or use the handle as a context manager.

    >>> dropped = []
    >>> with VMExternRef.new("a file", dropped.append) as a:
    ...     b = a.clone()
    ...     a.strong_count(), VMExternRef.eq(a, b), a.downcast_ref(str), a.is_(int)
    (2, True, 'a file', False)
    >>> b.strong_count(), dropped
    (1, [])
    >>> b.drop()
    >>> dropped
    ['a file']
    >>> b.strong_count()
    Traceback (most recent call last):
    ValueError: this VMExternRef was dropped or moved

    Source: seed `VMExternRef`.
    """

    __slots__ = ("_address", "heap")

    def __init__(self, heap: Heap, address: int) -> None:
        self.heap = heap
        self._address = address

    @classmethod
    def new(cls, value: object, on_drop: Callable[[object], None] | None = None, heap: Heap | None = None) -> Self:
        """Box a value.

        Args:
            value: Any object.
            on_drop: The destructor's body, called once with the value.
            heap: Where the box lives; `default_heap` if none is given.
        """
        return cls.new_with(lambda: value, on_drop, heap)

    @classmethod
    def new_with(cls, make_value: Callable[[], object], on_drop: Callable[[object], None] | None = None, heap: Heap | None = None) -> Self:
        """Box what `make_value` returns; see `new`.

        Raises:
            Panicked: `make_value` raised, which is the cause; nothing is leaked.
        """
        home = default_heap() if heap is None else heap
        return cls(home, home.box(make_value, on_drop))

    @classmethod
    def clone_from_raw(cls, raw: int, heap: Heap | None = None) -> Self:
        """Make another reference of what `as_raw` returned; some reference must have kept the value alive meanwhile."""
        home = default_heap() if heap is None else heap
        return cls(home, clone_from_raw(home.memory, raw))

    def clone(self) -> VMExternRef:
        """Make another reference to the same value."""
        return VMExternRef(self.heap, clone(self.heap.memory, self.as_raw()))

    def drop(self) -> None:
        """Drop this reference, and with the last one the value.

        Raises:
            Panicked: The value's `on_drop` raised, which is the cause; the value is freed all the same.
        """
        self.heap.release(self.into_raw())

    def as_raw(self) -> int:
        """Return the address, and count nothing.

        Raises:
            ValueError: The handle was dropped or moved.
        """
        if self._address == 0:
            raise ValueError("this VMExternRef was dropped or moved")
        return self._address

    def into_raw(self) -> int:
        """Move the reference out of the handle: whoever takes the address sees to its count."""
        address = self.as_raw()
        self._address = 0
        return address

    def strong_count(self) -> int:
        """Return how many references there are."""
        return strong_count(self.heap.memory, self.as_raw())

    def deref(self) -> object:
        """Return the boxed value."""
        return self.heap.value(self.as_raw())

    def is_(self, kind: type) -> bool:
        """Say whether the value is a `kind`."""
        return isinstance(self.deref(), kind)

    def downcast_ref(self, kind: type[T]) -> T | None:
        """Return the value if it is a `kind`, else `None`."""
        value = self.deref()
        return value if isinstance(value, kind) else None

    @staticmethod
    def eq(a: VMExternRef, b: VMExternRef) -> bool:
        """Say whether both refer to the same box, whatever the values."""
        return a.heap is b.heap and eq(a.heap.memory, a.as_raw(), b.as_raw()) != 0

    @staticmethod
    def hash(externref: VMExternRef) -> int:
        """Hash the address, not the value."""
        return hash_(externref.heap.memory, externref.as_raw())

    @staticmethod
    def cmp(a: VMExternRef, b: VMExternRef) -> int:
        """Compare addresses: -1, 0 or 1."""
        return cmp(a.heap.memory, a.as_raw(), b.as_raw())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._address != 0:
            self.drop()

    def __repr__(self) -> str:
        if self._address == 0:
            return "VMExternRef(dropped)"
        return f"VMExternRef({self._address}: {self.deref()!r})"
