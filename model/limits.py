"""Every bound of a run is a field of `Limits`; a scope is a named set of bounds.

`Shape` says where each part of the model's flat state lies under given limits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Final

from model.code import module_images
from model.ops import ALL_KINDS, Kind, Need
from model.registry import relations

# Words of the state that come first, in this order.
LIVE: Final = 0  # mask of the names that exist and are not under destruction
LEAKED: Final = 1  # mask of forgotten names: owned by nobody who will ever let go
DEFERRED: Final = 2  # mask of names that were passed to Wasm since the last complete collection, or survived it
DYING: Final = 3  # mask of names whose destructor body is running
INSTANCES: Final = 4  # mask of instances
REGISTERED: Final = 5  # mask of modules whose stack maps are registered
DEPTH: Final = 6  # contexts on the stack, the host at the bottom included
CLOSED: Final = 7  # 1 while the store is torn down
CUT: Final = 8  # armed for the next operation: frames + 1 after which a walk ends
FAIL: Final = 9  # armed for the next operation: allocations + 1 after which one fails
ORDER: Final = 10  # the order of sweeps from now on
UNDER_WAY: Final = 11  # operations that are keeping books (destructors nest them)
ROOTS_TOTAL: Final = 12
NESTED: Final = 13  # destructor contexts on the stack
INNERMOST: Final = 14  # index of the innermost destructor context, 0 if none
WASM_DEPTH: Final = 15  # activations on the stack
SEEN: Final = 16  # mask of `sometimes` properties seen so far; not part of the state's identity
FULL: Final = 17  # set by the driver: the bump chunk has no room for what this operation inserts
HEADER: Final = 18

# Words of the books that an operation keeps while it is under way.
HELD: Final = 0  # in its hands: owned
RELEASED: Final = 1  # has lost an owner to it: may die now
DOOMED: Final = 2  # unowned and not live when a complete collection began: must die
TOUCHED: Final = 3  # owned or passed to Wasm again meanwhile: excepted
COLLECTS: Final = 4  # 0: no; 1: may collect; 2: is a collection
STACKED: Final = 5  # on the stack when a complete collection began
PANICKED: Final = 6  # a destructor panicked inside it
KIND: Final = 7
BUSY: Final = 8  # instance + 1 that is about to be entered, so that nobody tears it down
BOOK_WORDS: Final = 9

# Words of a context.
CONTEXT_KIND: Final = 0
CONTEXT_OF: Final = 1  # activation: instance; destructor: name
CONTEXT_AT: Final = 2  # activation: function; destructor: operations left
CONTEXT_OUTER: Final = 3  # destructor: the INNERMOST that it hides
CONTEXT_WORDS: Final = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """Offsets into the flat state. Owning cells are contiguous, stack slots follow them."""

    roots: int
    fields: int
    globals: int
    elements: int
    segments: int
    slots: int
    slots_end: int
    table_sizes: int
    segment_lengths: int
    modules: int
    contexts: int
    books: int
    size: int
    names: int
    """Mask of all names."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a run. All are counts; the smallest useful values are allowed (chunk 1, no tables, no destructors).

    Args:
        scope: label only.
        chunk: capacity of the bump chunk of the activations table.
        objects: values that exist at once.
        roots: references that the host holds at once.
        slots: reference locals of a function.
        functions: functions of a module.
        arguments: most references in one transfer.
        contexts: depth of the stack of contexts, destructors not counted.
        destructors: nesting of destructors that act; deeper ones return at once.
        destructor_ops: operations that one destructor may start, those of the Wasm it calls included.
        instances, globals: instances at once, globals of each.
        table: most elements of an instance's table. Tables begin with one element.
        segment: length of an instance's element segment.
        fields: references that a value may own.
        layouts: value layouts that are used.
        leaks: values that may be forgotten.
        orders: sweep orders to choose from.
        modules: module shapes that `register` may name (see `model.code`).
        quarantine: freed blocks that the heap keeps from being used again. Nothing to the model, but part of a run: where values lie
            decides the order in which sets are swept.
        kinds: operations enabled. Not part of a trace: a replay does what the trace says.
    """

    scope: str = "everything"
    chunk: int = 512
    objects: int = 6
    roots: int = 6
    slots: int = 3
    functions: int = 2
    arguments: int = 3
    contexts: int = 5
    destructors: int = 2
    destructor_ops: int = 4
    instances: int = 2
    globals: int = 2
    table: int = 3
    segment: int = 2
    fields: int = 2
    layouts: int = 4
    leaks: int = 1
    orders: int = 6
    modules: int = 2
    quarantine: int = 0
    kinds: frozenset[Kind] = field(default=ALL_KINDS, repr=False)

    @cached_property
    def shape(self) -> Shape:
        """Where everything lies in the flat state under these limits."""
        depth = self.contexts + self.destructors
        roots = HEADER
        fields_at = roots + self.objects
        globals_at = fields_at + self.objects * self.fields
        elements = globals_at + self.instances * self.globals
        segments = elements + self.instances * self.table
        slots = segments + self.instances * self.segment
        slots_end = slots + depth * self.slots
        table_sizes = slots_end
        segment_lengths = table_sizes + self.instances
        modules = segment_lengths + self.instances
        contexts = modules + self.instances
        books = contexts + depth * CONTEXT_WORDS
        # Each destructor that acts can have one operation under way above it; one that may not act still needs books.
        size = books + (self.destructors + 2) * BOOK_WORDS
        return Shape(
            roots,
            fields_at,
            globals_at,
            elements,
            segments,
            slots,
            slots_end,
            table_sizes,
            segment_lengths,
            modules,
            contexts,
            books,
            size,
            (1 << self.objects) - 1,
        )

    @cached_property
    def needs_always(self) -> int:
        """Needs that these limits meet once and for all, as a mask."""
        met = Need.SEGMENT if self.segment else Need.NOTHING
        if self.table:
            met |= Need.TABLE
        return int(met | Need.GLOBAL if self.globals else met)

    @cached_property
    def kinds_mask(self) -> int:
        """Kinds that may be drawn, as a mask: those enabled, and the ways out of a context, or a run could not finish."""
        mask = 1 << Kind.END | 1 << Kind.RETURN | 1 << Kind.RETURN_IMPORT
        for kind in self.kinds:
            mask |= 1 << kind
        return mask

    @cached_property
    def relations(self) -> tuple[int, ...]:
        """What registration of each module decides beside each other one, see `model.registry.accepted`."""
        return relations(module_images(self.slots, self.functions, self.modules))

    @cached_property
    def lookups_cache(self) -> dict[int, dict[int, tuple[int, int]]]:
        """What lookups must find, by the mask of registered modules: filled on demand, a pure function of these limits."""
        return {}

    def __post_init__(self) -> None:
        """Refuse bounds that make no sense.

        Raises:
            ValueError: names the field.
        """
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                message = f"{name}={value} is not between {low} and {high}"
                raise ValueError(message)

    def numbers(self) -> dict[str, int]:
        """Return the numeric bounds by name, in order."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name in BOUNDS}


BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "chunk": (1, 1 << 16),
    "objects": (1, 1 << 13),
    "roots": (1, 1 << 13),
    "slots": (1, 10),
    "functions": (1, 16),
    "arguments": (0, 10),
    "contexts": (2, 64),
    "destructors": (0, 16),
    "destructor_ops": (0, 1 << 13),
    "instances": (1, 8),
    "globals": (0, 16),
    "table": (0, 1 << 13),
    "segment": (0, 8),
    "fields": (0, 4),
    "layouts": (1, 8),
    "leaks": (0, 1 << 13),
    "orders": (1, 1 << 16),
    "modules": (1, 16),
    "quarantine": (0, 8),
}

ENVIRONMENT_KINDS: Final = {Kind.CUT_WALK, Kind.FAIL_ALLOCATION, Kind.SWEEP_ORDER}
_VALUES: Final = {Kind.NEW, Kind.CLONE, Kind.DROP}
_CALLS: Final = {Kind.CALL_WASM, Kind.RETURN, Kind.CALL_FUNCTION, Kind.CALL_IMPORT, Kind.RETURN_IMPORT}
_FLOW: Final = _CALLS | {Kind.LOCAL_COPY, Kind.LOCAL_NULL, Kind.SPILL, Kind.END, Kind.INSTANTIATE, Kind.GC}
_WASM_STORAGE: Final = {kind for kind in Kind if Kind.GLOBAL_GET <= kind <= Kind.ELEM_DROP}
_HOST_STORAGE: Final = {kind for kind in Kind if Kind.HOST_GLOBAL_GET <= kind <= Kind.HOST_TABLE_INIT}

SCOPES: Final[dict[str, Limits]] = {
    limits.scope: limits
    for limits in (
        Limits(
            scope="counting",
            chunk=2,
            instances=1,
            table=0,
            segment=0,
            globals=0,
            kinds=frozenset(
                _VALUES
                | {Kind.NEW_RAISING, Kind.FORGET, Kind.RAW_ROUND_TRIP, Kind.GET_FIELD, Kind.SET_FIELD, Kind.GC, Kind.END, Kind.PANIC}
                | {Kind.FAIL_ALLOCATION}
            ),
        ),
        Limits(
            scope="calls",
            chunk=2,
            destructors=0,
            table=0,
            segment=0,
            globals=1,
            instances=1,
            kinds=frozenset(_VALUES | _FLOW | {Kind.TRAP, Kind.PANIC, Kind.GLOBAL_GET, Kind.GLOBAL_SET, Kind.CUT_WALK}),
        ),
        Limits(
            scope="storage",
            chunk=3,
            destructors=1,
            destructor_ops=2,
            contexts=3,
            kinds=frozenset(
                _VALUES
                | _WASM_STORAGE
                | _HOST_STORAGE
                | {Kind.CALL_WASM, Kind.RETURN, Kind.END, Kind.INSTANTIATE, Kind.TEARDOWN_INSTANCE, Kind.GC, Kind.LOCAL_NULL, Kind.PANIC}
            ),
        ),
        Limits(
            scope="reentrancy",
            chunk=2,
            destructors=2,
            instances=1,
            globals=1,
            table=1,
            segment=0,
            kinds=frozenset(
                _VALUES
                | _FLOW
                | {Kind.GET_FIELD, Kind.PANIC, Kind.SWEEP_ORDER, Kind.GLOBAL_GET, Kind.GLOBAL_SET, Kind.TABLE_SET, Kind.HOST_TABLE_GET}
                | {Kind.TEARDOWN_STORE}
            ),
        ),
        Limits(
            scope="registry",
            chunk=2,
            modules=16,
            slots=2,
            destructors=0,
            table=0,
            segment=0,
            globals=1,
            kinds=frozenset(
                _VALUES | {Kind.REGISTER, Kind.INSTANTIATE, Kind.CALL_WASM, Kind.CALL_FUNCTION, Kind.RETURN, Kind.GLOBAL_GET, Kind.GC}
            ),
        ),
        Limits(
            scope="faults",
            chunk=2,
            destructors=1,
            kinds=frozenset(
                _VALUES
                | _FLOW
                | ENVIRONMENT_KINDS
                | {Kind.PANIC, Kind.TRAP, Kind.NEW_RAISING, Kind.GLOBAL_GET, Kind.GLOBAL_SET, Kind.TABLE_GROW, Kind.HOST_TABLE_GROW}
                | {Kind.TABLE_SET, Kind.TEARDOWN_INSTANCE, Kind.TEARDOWN_STORE}
            ),
        ),
        Limits(scope="everything", chunk=2, modules=16),
    )
}
"""The presets, by name."""


def with_numbers(limits: Limits, numbers: dict[str, int]) -> Limits:
    """Return `limits` with some bounds replaced.

    Raises:
        ValueError: a name is no bound, or a value is outside its range.
    """
    for name in numbers:
        if name not in BOUNDS:
            message = f"{name!r} is no bound (there are: {', '.join(BOUNDS)})"
            raise ValueError(message)
    return replace(limits, **numbers)  # type: ignore[arg-type]  # names were checked to be int fields
