"""A machine is what compiled code runs on: the words of a runtime's memory, and a world with the same bounds.

The library has one memory and one world. Of several machines, the one that was used last lies in them; the others keep theirs.
"""

from __future__ import annotations

import ctypes
from array import array
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fuzz.compiled.canonical import canonical_scratch_words, described_words
from fuzz.compiled.inference import VIEW, WORD
from fuzz.compiled.joint import encoded_max
from fuzz.compiled.library import load, signatures
from fuzz.compiled.rows import Row
from fuzz.compiled.world import (
    ADDRESSES_AT,
    BOUND_NAMES,
    BOUNDS_AT,
    BOUNDS_MAX,
    DIRTY_SHIFT,
    LINE,
    MEM_MAX,
    OBJECTS_MAX,
    REGISTERS,
    REGISTERS_MAX,
    RELATIONS_AT,
    RELATIONS_MAX,
    STATE_AT,
    WORLD_MAX,
    name_of,
)
from fuzz.driver import Driver
from fuzz.setup import config_of
from impl.audit import plan_of, scratch_words
from impl.header import HEADER_WORDS
from model.code import images
from model.registry import interesting_pcs, safepoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.limits import Limits

STEPS_MAX: Final = 1 << 20
"""More operations in one step or run than this are a hang."""
_SIGN: Final = 1 << 63


class Machine:
    """The two arrays, made from a driver before the first operation.

    Args:
        limits: the bounds.
        symmetry: whether states that differ by a permutation of values are the same.
        state: the model's state, if it is another than a driver has; it begins with as many words.

    Raises:
        ValueError: the bounds do not fit into words of 64 bits and the fixed places of the world.
        MissingExtra, CompilerFailed: there is no library.
    """

    _at_hand: ClassVar[Machine | None] = None

    def __init__(self, limits: Limits, *, symmetry: bool = False, state: list[int] | None = None) -> None:
        if not fits(limits):
            raise ValueError("these bounds do not fit into the compiled reading")
        self.limits = limits
        library = load()
        self._mem = (ctypes.c_int64 * MEM_MAX).in_dll(library, "mem")
        self._w = (ctypes.c_int64 * WORLD_MAX).in_dll(library, "w")
        self._sizes = tuple(ctypes.c_int64.in_dll(library, name) for name in ("mem_words", "w_words"))
        driver = Driver(limits)
        memory = bytes(driver.runtime.memory)  # type: ignore[arg-type]  # raw memory is a memoryview
        world, self._rest = _world(limits, state or driver.state, array("q", memory), symmetry=symmetry)
        self._kept = (array("q", memory), array("q", world))

    @property
    def mem(self) -> memoryview[int]:
        """The words of the memory, and this machine in the library."""
        self.occupy()
        return memoryview(self._mem).cast("B").cast("q")[: len(self._kept[0])]

    @property
    def w(self) -> memoryview[int]:
        """The words of the world, and this machine in the library."""
        self.occupy()
        return memoryview(self._w).cast("B").cast("q")[: len(self._kept[1]) + self._rest]

    def occupy(self) -> None:
        """Put this machine into the library, if it is not there."""
        there = Machine._at_hand
        if there is self:
            return
        if there is not None:
            there.leave()
        for place, kept, size in zip((self._mem, self._w), self._kept, self._sizes, strict=True):
            ctypes.memmove(place, kept.buffer_info()[0], len(kept) * 8)
            size.value = len(kept)
        self._sizes[1].value += self._rest
        ctypes.memset(ctypes.byref(self._w, len(self._kept[1]) * 8), 0, self._rest * 8)
        Machine._at_hand = self

    def leave(self) -> None:
        """Take what is in the library back, because another machine comes."""
        for place, kept in zip((self._mem, self._w), self._kept, strict=True):
            ctypes.memmove(kept.buffer_info()[0], place, len(kept) * 8)

    def call(self, function: Callable[..., Any], *values: Row | int) -> int:
        """Call an entry on this machine. Other Python code may run meanwhile, but none that uses the library.

        Args:
            function: the entry, by its plain twin.
            values: what it takes besides memory and world: rows and words.
        """
        self.occupy()
        return int(_entry(function)(*(word for value in values for word in _words(value))) or 0)


def fits(limits: Limits) -> bool:
    """Say whether these bounds fit into words of 64 bits and into the arrays of compiled code."""
    config = config_of(limits)
    words = HEADER_WORDS + config.stack_words + (config.stack_words & 1) + config.heap_words
    return limits.objects + limits.instances + 1 <= OBJECTS_MAX and limits.orders <= 1 << 16 and words <= MEM_MAX


def _words(value: Row | int) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else (value.address, len(value))


_ENTRIES: Final[dict[Any, Any]] = {}


def _entry(function: Callable[..., Any]) -> Any:  # noqa: ANN401  # a ctypes function
    found = _ENTRIES.get(function)
    if found is None:
        found = getattr(load(), f"entry_{name_of(function)}")
        types: list[Any] = []
        kinds, returns = signatures()[name_of(function)]
        for kind in kinds:
            types += [ctypes.c_void_p, ctypes.c_int64] if kind == VIEW else [ctypes.c_int64]
        found.argtypes = types
        found.restype = ctypes.c_int64 if returns == WORD else None
        _ENTRIES[function] = found
    return found


def _world(limits: Limits, state: list[int], memory: array[int], *, symmetry: bool) -> tuple[list[int], int]:
    """Return the words of the world that are to be kept, and how many follow, which are as good as zero between two calls."""
    config = config_of(limits)
    lookups, pcs = _lookups(limits)
    joint = STATE_AT + len(state) - ADDRESSES_AT
    mem_words = len(memory)
    lines = (mem_words >> DIRTY_SHIFT + 6) + 1
    rows = {"lookups_at": lookups, "pcs_at": pcs, "plan_at": plan_of(config)}
    # Behind each there is room for what a line has more.
    rows = {name: [0] * (mem_words + joint + LINE) for name in ("root_at", "opened_at")} | rows
    scratch = {
        "owners_at": 2 * limits.objects + 2,
        "live_at": limits.shape.slots_end - limits.shape.slots + 1,
        "scratch_at": scratch_words(config),
        "described_at": described_words(limits, mem_words) if symmetry else 0,
        "ranks_at": canonical_scratch_words(limits, mem_words) if symmetry else 0,
        "told_at": 4 * OBJECTS_MAX,
        "small_at": mem_words + joint + 2,
        "large_at": 2 * (mem_words + joint),
    }
    words = [0] * (STATE_AT + len(state) + LINE)
    for name, row in rows.items():
        words[REGISTERS[name]] = len(words)
        words += row
    end = len(words)
    for name, size in scratch.items():
        words[REGISTERS[name]] = end
        end += size
    numbers = {
        "world_words": end,
        "lookups_count": len(lookups) // 4,
        "_cells": limits.globals + limits.segment,
        "_frame_words": limits.slots + 1,
        "thorough": 1,
        "state_words": len(state),
        "steps_max": STEPS_MAX,
        "operations_max": STEPS_MAX,
        "dirty_words": lines,
        "encoded_max": encoded_max(mem_words + joint, lines),
        "symmetry": int(symmetry),
    }
    numbers["pcs_end"] = words[REGISTERS["pcs_at"]] + len(pcs)
    for name, number in numbers.items():
        words[REGISTERS[name]] = number
    words[BOUNDS_AT : BOUNDS_AT + len(BOUND_NAMES)] = [_bound(limits, name) for name in BOUND_NAMES]
    relations = limits.relations
    words[RELATIONS_AT : RELATIONS_AT + len(relations)] = relations
    words[STATE_AT : STATE_AT + len(state)] = state
    for name in ("root_at", "opened_at"):
        first = words[REGISTERS[name]]
        words[first : first + mem_words] = memory
        words[first + mem_words : first + mem_words + joint] = words[ADDRESSES_AT : ADDRESSES_AT + joint]
    return [word - 2 * (word & _SIGN) if word > 0 else word for word in words], end - len(words)


def _bound(limits: Limits, name: str) -> int:
    if name.startswith("shape."):
        return int(getattr(limits.shape, name.removeprefix("shape.")))
    return int(getattr(limits, name))


def _lookups(limits: Limits) -> tuple[list[int], list[int]]:
    """Return what lookups must find, `(module, pc, words, bits)` in the order of modules, and which pcs to ask for, `(module, pc)`."""
    found: list[int] = []
    pcs: list[int] = []
    for number, module in enumerate(images(limits)):
        for pc, (words, bits) in (safepoints(module) or {}).items():
            found += (number, pc, words, bits)
        for pc in interesting_pcs(module):
            pcs += (number, pc)
    return found, pcs


if len(BOUND_NAMES) > BOUNDS_MAX or len(REGISTERS) > REGISTERS_MAX or RELATIONS_MAX < 1:
    raise ImportError("the world has no room for its bounds or registers")
