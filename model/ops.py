"""The vocabulary is one table: each kind of operation, where it is possible, what it needs, and its operands.

An operation is a flat row of ints: its kind, its scalar operands, then the items of its list operand if it has one.
Everything else that has to know of each kind (choice, text, model, runtime binding) is a table over `Kind` that is
checked for completeness when it is imported, so that a new kind cannot be half there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final, TypeVar

Row = tuple[int, ...]

NULL: Final = -1
"""The operand, or the content of a cell, that is no reference."""
DEAD: Final = -2
"""The content of a local slot that nobody reads before it is written again."""


class Context(IntEnum):
    """Who acts. Contexts form a stack; the top one decides what is possible."""

    HOST = 0
    WASM = 1
    IMPORT = 2
    DESTRUCTOR = 3


class Kind(IntEnum):
    """Every kind of operation. The numbers are not kept anywhere: traces are text."""

    NEW = 0
    NEW_RAISING = 1
    CLONE = 2
    DROP = 3
    FORGET = 4
    RAW_ROUND_TRIP = 5
    GET_FIELD = 6
    SET_FIELD = 7
    CALL_WASM = 8
    HOST_GLOBAL_GET = 9
    HOST_GLOBAL_SET = 10
    HOST_TABLE_GET = 11
    HOST_TABLE_SET = 12
    HOST_TABLE_GROW = 13
    HOST_TABLE_FILL = 14
    HOST_TABLE_COPY = 15
    HOST_TABLE_INIT = 16
    GC = 17
    INSTANTIATE = 18
    TEARDOWN_INSTANCE = 19
    TEARDOWN_STORE = 20
    REGISTER = 21
    PANIC = 22
    RETURN_IMPORT = 23
    END = 24
    LOCAL_COPY = 25
    LOCAL_NULL = 26
    SPILL = 27
    GLOBAL_GET = 28
    GLOBAL_SET = 29
    TABLE_GET = 30
    TABLE_SET = 31
    TABLE_GROW = 32
    TABLE_FILL = 33
    TABLE_COPY = 34
    TABLE_INIT = 35
    ELEM_DROP = 36
    CALL_FUNCTION = 37
    CALL_IMPORT = 38
    RETURN = 39
    TRAP = 40
    CUT_WALK = 41
    FAIL_ALLOCATION = 42
    SWEEP_ORDER = 43


class Need(IntFlag):
    """What a kind needs before it is possible at all. Each need makes the first operand's domain non-empty."""

    NOTHING = 0
    ROOT = 1
    """The host holds a reference."""
    ROOT_ROOM = 2
    """The host may hold one more."""
    NAME_ROOM = 4
    """One more value may exist."""
    INSTANCE = 8
    """There is an instance (and the store is open)."""
    INSTANCE_ROOM = 16
    CONTEXT_ROOM = 32
    STORE = 64
    """The store is open: it is not being torn down."""
    READABLE = 128
    """The activation has a slot that is not dead."""
    DEAD_SLOT = 256
    LEAK_ROOM = 512
    IDLE_INSTANCE = 1024
    """Some instance has no activation on the stack."""
    NO_WASM = 2048
    """No activation and no destructor is on the stack."""
    CALM = 4096
    """No fault is armed."""
    WASM_BELOW = 8192
    """Some activation is on the stack."""
    UNWINDABLE = 16384
    """The context is not the bottom one."""
    OWN_FIELD = 32768
    """The value under destruction owns a reference."""
    FIELD = 65536
    """The host holds a value that has room for a reference of its own."""
    BUDGET = 131072
    """The innermost destructor may do one more operation (or no destructor is running)."""
    SEGMENT = 262144
    """Values may own segments: `Limits.segment` is not zero."""
    TABLE = 524288
    """`Limits.table` is not zero."""
    GLOBAL = 1048576


class Domain(IntEnum):
    """Where an operand is drawn from; `model.choose` has the function of each."""

    LAYOUT = 0
    ROOT = 1
    ROOT_OR_NULL = 2
    OWNER = 3
    FIELD_INDEX = 4
    OWN_FIELD_INDEX = 5
    INSTANCE = 6
    IDLE_INSTANCE = 7
    FUNCTION = 8
    GLOBAL = 9
    ELEMENT = 10
    START = 11
    COUNT = 12
    DELTA = 13
    MODULE = 14
    CODE_MODULE = 15
    INITIAL = 16
    SEGMENT_MASK = 17
    FLAG = 18
    READABLE_SLOT = 19
    TARGET_SLOT = 20
    DEAD_SLOT = 21
    LIVE = 22
    LIVE_BUT_TARGET = 23
    FRAMES = 24
    AFTER = 25
    ORDER = 26
    # Items of lists.
    OWNED_ROOTS = 27
    MOVED_ROOTS = 28
    SLOTS_TO_WASM = 29
    SLOTS_TO_HOST = 30
    RETURNED_SLOTS = 31
    RETURNED_ROOTS = 32


@dataclass(frozen=True, slots=True)
class Spec:
    """One row of the table.

    Args:
        text: the word that begins the operation's line in a trace.
        contexts: where it is possible.
        needs: what must be there, see `Need`.
        operands: name and domain of each scalar operand, in drawing order (later domains may depend on earlier operands).
        items: name and domain of the list operand, which comes last, or None.
        closing: leaves a context, so it is possible even when a destructor has used up its budget.
        can_release: may lead to a destruction, so the model keeps books while it is under way.
        may_collect: may start a collection.
        unwinds_on_panic: a destructor's panic inside it unwinds the context that asked for it.
    """

    text: str
    contexts: tuple[Context, ...]
    needs: Need = Need.NOTHING
    operands: tuple[tuple[str, Domain], ...] = ()
    items: tuple[str, Domain] | None = None
    closing: bool = False
    can_release: bool = False
    may_collect: bool = False
    unwinds_on_panic: bool = True


_OWNS: Final = ("owns", Domain.OWNED_ROOTS)
_H: Final = (Context.HOST, Context.IMPORT, Context.DESTRUCTOR)
_W: Final = (Context.WASM,)
_ALL: Final = (*_H, *_W)
_LIVE: Final = ("live", Domain.LIVE)
_HOST_TABLE: Final = Need.INSTANCE | Need.TABLE
_ELEMENT: Final = (("table", Domain.INSTANCE), ("element", Domain.ELEMENT))
_RANGE: Final = (("start", Domain.START), ("source", Domain.START), ("count", Domain.COUNT))
_COPY: Final = (("to", Domain.INSTANCE), ("from", Domain.INSTANCE), *_RANGE)
_INIT: Final = (("to", Domain.INSTANCE), ("segment", Domain.INSTANCE), *_RANGE)

SPECS: Final[dict[Kind, Spec]] = {
    Kind.NEW: Spec("new", _H, Need.NAME_ROOM | Need.ROOT_ROOM, (("layout", Domain.LAYOUT),), _OWNS, can_release=True),
    Kind.NEW_RAISING: Spec(
        "new_raising",
        _H,
        Need.NOTHING,
        (("layout", Domain.LAYOUT),),
        ("owns", Domain.OWNED_ROOTS),
        can_release=True,
        unwinds_on_panic=False,
    ),
    Kind.CLONE: Spec("clone", _H, Need.ROOT | Need.ROOT_ROOM, (("value", Domain.ROOT),)),
    Kind.DROP: Spec("drop", _H, Need.ROOT, (("value", Domain.ROOT),), can_release=True),
    Kind.FORGET: Spec("forget", _H, Need.ROOT | Need.LEAK_ROOM, (("value", Domain.ROOT),)),
    Kind.RAW_ROUND_TRIP: Spec("raw_round_trip", _H, Need.ROOT | Need.ROOT_ROOM, (("value", Domain.ROOT),)),
    Kind.GET_FIELD: Spec("get_field", (Context.DESTRUCTOR,), Need.OWN_FIELD | Need.ROOT_ROOM, (("field", Domain.OWN_FIELD_INDEX),)),
    Kind.SET_FIELD: Spec(
        "set_field",
        _H,
        Need.FIELD,
        (("owner", Domain.OWNER), ("field", Domain.FIELD_INDEX), ("value", Domain.ROOT_OR_NULL)),
        can_release=True,
    ),
    Kind.CALL_WASM: Spec(
        "call_wasm",
        _H,
        Need.INSTANCE | Need.CONTEXT_ROOM,
        (("instance", Domain.INSTANCE), ("function", Domain.FUNCTION)),
        ("args", Domain.MOVED_ROOTS),
        can_release=True,
        may_collect=True,
    ),
    Kind.HOST_GLOBAL_GET: Spec(
        "host_global_get", _H, Need.INSTANCE | Need.GLOBAL | Need.ROOT_ROOM, (("instance", Domain.INSTANCE), ("global", Domain.GLOBAL))
    ),
    Kind.HOST_GLOBAL_SET: Spec(
        "host_global_set",
        _H,
        Need.INSTANCE | Need.GLOBAL,
        (("instance", Domain.INSTANCE), ("global", Domain.GLOBAL), ("value", Domain.ROOT_OR_NULL)),
        can_release=True,
    ),
    Kind.HOST_TABLE_GET: Spec("host_table_get", _H, _HOST_TABLE | Need.ROOT_ROOM, _ELEMENT),
    Kind.HOST_TABLE_SET: Spec(
        "host_table_set",
        _H,
        _HOST_TABLE,
        (("table", Domain.INSTANCE), ("element", Domain.ELEMENT), ("value", Domain.ROOT_OR_NULL)),
        can_release=True,
    ),
    Kind.HOST_TABLE_GROW: Spec(
        "host_table_grow",
        _H,
        _HOST_TABLE,
        (("table", Domain.INSTANCE), ("delta", Domain.DELTA), ("value", Domain.ROOT_OR_NULL)),
        can_release=True,
    ),
    Kind.HOST_TABLE_FILL: Spec(
        "host_table_fill",
        _H,
        _HOST_TABLE,
        (("table", Domain.INSTANCE), ("start", Domain.START), ("count", Domain.COUNT), ("value", Domain.ROOT_OR_NULL)),
        can_release=True,
    ),
    Kind.HOST_TABLE_COPY: Spec("host_table_copy", _H, _HOST_TABLE, _COPY, can_release=True),
    Kind.HOST_TABLE_INIT: Spec("host_table_init", _H, _HOST_TABLE | Need.SEGMENT, _INIT, can_release=True),
    Kind.GC: Spec("gc", _H, Need.STORE, can_release=True, may_collect=True),
    Kind.INSTANTIATE: Spec(
        "instantiate",
        _H,
        Need.INSTANCE_ROOM,
        (("module", Domain.CODE_MODULE), ("initial", Domain.INITIAL), ("segment", Domain.SEGMENT_MASK), ("active", Domain.FLAG)),
        can_release=True,
    ),
    Kind.TEARDOWN_INSTANCE: Spec(
        "teardown_instance", _H, Need.INSTANCE | Need.IDLE_INSTANCE, (("instance", Domain.IDLE_INSTANCE),), can_release=True
    ),
    Kind.TEARDOWN_STORE: Spec("teardown_store", (Context.HOST,), Need.STORE | Need.NO_WASM, can_release=True, may_collect=True),
    Kind.REGISTER: Spec("register", _H, Need.STORE, (("module", Domain.MODULE),)),
    Kind.PANIC: Spec("panic", (Context.IMPORT, Context.DESTRUCTOR), Need.UNWINDABLE, closing=True),
    Kind.RETURN_IMPORT: Spec(
        "return_import",
        (Context.IMPORT,),
        Need.NOTHING,
        (),
        ("results", Domain.RETURNED_ROOTS),
        closing=True,
        can_release=True,
        may_collect=True,
    ),
    Kind.END: Spec("end", (Context.DESTRUCTOR,), closing=True),
    Kind.LOCAL_COPY: Spec("local_copy", _W, Need.READABLE, (("source", Domain.READABLE_SLOT), ("target", Domain.TARGET_SLOT))),
    Kind.LOCAL_NULL: Spec("local_null", _W, Need.NOTHING, (("target", Domain.TARGET_SLOT),)),
    Kind.SPILL: Spec("spill", _W, Need.DEAD_SLOT, (("target", Domain.DEAD_SLOT),)),
    Kind.GLOBAL_GET: Spec(
        "global_get",
        _W,
        Need.INSTANCE | Need.GLOBAL,
        (("instance", Domain.INSTANCE), ("global", Domain.GLOBAL), ("target", Domain.TARGET_SLOT), ("live", Domain.LIVE_BUT_TARGET)),
        can_release=True,
        may_collect=True,
    ),
    Kind.GLOBAL_SET: Spec(
        "global_set",
        _W,
        Need.INSTANCE | Need.GLOBAL | Need.READABLE,
        (("instance", Domain.INSTANCE), ("global", Domain.GLOBAL), ("source", Domain.READABLE_SLOT), _LIVE),
        can_release=True,
    ),
    Kind.TABLE_GET: Spec(
        "table_get",
        _W,
        _HOST_TABLE,
        (("table", Domain.INSTANCE), ("element", Domain.ELEMENT), ("target", Domain.TARGET_SLOT), ("live", Domain.LIVE_BUT_TARGET)),
        can_release=True,
        may_collect=True,
    ),
    Kind.TABLE_SET: Spec(
        "table_set",
        _W,
        _HOST_TABLE | Need.READABLE,
        (("table", Domain.INSTANCE), ("element", Domain.ELEMENT), ("source", Domain.READABLE_SLOT), _LIVE),
        can_release=True,
    ),
    Kind.TABLE_GROW: Spec(
        "table_grow",
        _W,
        _HOST_TABLE | Need.READABLE,
        (("table", Domain.INSTANCE), ("delta", Domain.DELTA), ("source", Domain.READABLE_SLOT), _LIVE),
    ),
    Kind.TABLE_FILL: Spec(
        "table_fill",
        _W,
        _HOST_TABLE | Need.READABLE,
        (("table", Domain.INSTANCE), ("start", Domain.START), ("count", Domain.COUNT), ("source", Domain.READABLE_SLOT), _LIVE),
        can_release=True,
    ),
    Kind.TABLE_COPY: Spec("table_copy", _W, _HOST_TABLE, (*_COPY, _LIVE), can_release=True),
    Kind.TABLE_INIT: Spec("table_init", _W, _HOST_TABLE | Need.SEGMENT, (*_INIT, _LIVE), can_release=True),
    Kind.ELEM_DROP: Spec("elem_drop", _W, Need.INSTANCE | Need.SEGMENT, (("segment", Domain.INSTANCE), _LIVE), can_release=True),
    Kind.CALL_FUNCTION: Spec(
        "call_function",
        _W,
        Need.INSTANCE | Need.CONTEXT_ROOM,
        (("instance", Domain.INSTANCE), ("function", Domain.FUNCTION), _LIVE),
        ("args", Domain.SLOTS_TO_WASM),
    ),
    Kind.CALL_IMPORT: Spec("call_import", _W, Need.CONTEXT_ROOM, (_LIVE,), ("args", Domain.SLOTS_TO_HOST)),
    Kind.RETURN: Spec("return", _W, Need.NOTHING, (), ("results", Domain.RETURNED_SLOTS), closing=True),
    Kind.TRAP: Spec("trap", _W, closing=True),
    Kind.CUT_WALK: Spec("cut_walk", _ALL, Need.CALM | Need.WASM_BELOW, (("frames", Domain.FRAMES),)),
    Kind.FAIL_ALLOCATION: Spec("fail_allocation", _ALL, Need.CALM, (("after", Domain.AFTER),)),
    Kind.SWEEP_ORDER: Spec("sweep_order", _ALL, Need.NOTHING, (("order", Domain.ORDER),)),
}

T = TypeVar("T")


def by_kind(table: dict[Kind, T], what: str) -> list[T]:
    """Turn a table over kinds into a list indexed by kind.

    Raises:
        ImportError: a kind is missing or foreign; raised at import, so an incomplete vocabulary cannot run.
    """
    missing = [kind.name for kind in Kind if kind not in table]
    if missing or len(table) != len(Kind):
        message = f"{what} knows {len(table)} kinds of {len(Kind)}; missing: {missing}"
        raise ImportError(message)
    return [table[kind] for kind in Kind]


BY_KIND: Final = by_kind(SPECS, "model.ops.SPECS")
BY_TEXT: Final = {spec.text: kind for kind, spec in SPECS.items()}
ALL_KINDS: Final = frozenset(Kind)
