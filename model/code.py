"""The simulated code: where functions lie, which safepoints they have, which words of a frame are references there.

It is what a compiler would hand over, so it belongs to the environment: plain numbers that both the model (by linear
scan) and the implementation (by registration) are given. A function has one safepoint for each set of live slots. The one
with nothing live lies in the middle and has *no* map, as in the compilers of the seed: whoever looks up the nearest
earlier map instead of the exact one reads words that nobody keeps alive (CVE-2021-39218).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from model.limits import Limits

Information = tuple[int, int, int]
"""Offset of a safepoint in its function (bytes), words of the frame that the map speaks of, and its bits."""
Function = tuple[int, int, tuple[Information, ...]]
"""First pc, pc after the last, safepoints."""
Module = tuple[Function, ...]

BASE: Final = 0x10000
STRIDE: Final = 16
FAR: Final = 0x4000000

CODE_MODULES: Final = 2
"""Modules 0 and 1 can be instantiated; they touch each other. The others exist to be registered or refused."""


def _function_bytes(slots: int) -> int:
    return STRIDE * ((1 << slots) + 1)


def _safepoint_offset(slots: int, live: int) -> int:
    count = 1 << slots
    return STRIDE * ((live + (count >> 1)) & (count - 1)) + STRIDE // 2


@lru_cache(maxsize=256)
def _code_module(slots: int, functions: int, module: int) -> Module:
    infos = tuple((_safepoint_offset(slots, live), slots + 1, live << 1) for live in range(1, 1 << slots))
    first = entry_pc(slots, functions, module, 0)
    length = _function_bytes(slots)
    return tuple((first + i * length, first + (i + 1) * length, infos) for i in range(functions))


@lru_cache(maxsize=256)
def module_images(slots: int, functions: int, modules: int) -> tuple[Module, ...]:
    """Return the shapes of all modules, by number.

    Args:
        slots: local slots of a function; a frame has one word more, the scalar at its lowest address.
        functions: functions of modules 0 and 1.
        modules: how many shapes; from number 2 on each is a case that registration has to decide.
    """
    first, second = (_code_module(slots, functions, module) for module in range(CODE_MODULES))
    start, end = first[0][0], first[-1][1]
    one: tuple[Information, ...] = ((8, slots + 1, 2),)
    shapes: tuple[Module, ...] = (
        first,
        second,
        # Ends strictly inside module 0 and begins before it.
        ((start - 0x100, start + STRIDE, one),),
        # Module 0's range with other maps.
        ((start, end, one),),
        # Module 0 again, to the letter: accepted, changes nothing.
        first,
        # Functions out of order.
        ((FAR + 0x3000, FAR + 0x3100, one), (FAR + 0x1000, FAR + 0x1100, one), (FAR + 0x2000, FAR + 0x2100, one)),
        # An existing module ends strictly inside the new range, in either order of registration.
        ((FAR + 0x5500, FAR + 0x5800, one),),
        ((FAR + 0x5000, FAR + 0x6000, one),),
        # An empty function, then one with a safepoint at its first pc.
        ((FAR + 0x7000, FAR + 0x7000, ()), (FAR + 0x7000, FAR + 0x7100, ((0, slots + 1, 2),))),
        # One pc twice with one map, infos unsorted: collapses.
        ((FAR + 0x8000, FAR + 0x8100, ((16, slots + 1, 2), (8, slots + 1, 2), (16, slots + 1, 2))),),
        # One pc with two maps: refused.
        ((FAR + 0x9000, FAR + 0x9100, ((16, slots + 1, 2), (16, slots + 1, 0))),),
        # A safepoint at the end of its function: refused.
        ((FAR + 0xA000, FAR + 0xA010, ((16, slots + 1, 2),)),),
        # Functions that overlap each other: refused.
        ((FAR + 0xB000, FAR + 0xB100, one), (FAR + 0xB080, FAR + 0xB180, one)),
        # No map at all: nothing to register.
        ((FAR + 0xC000, FAR + 0xC100, ()),),
        # Touches the module after next on its left side.
        ((FAR + 0x5800, FAR + 0x5900, one),),
        # Overlaps module 5 only by its hull.
        ((FAR + 0x2800, FAR + 0x2900, one),),
    )
    return shapes[:modules] if modules > CODE_MODULES else shapes[:CODE_MODULES]


def images(limits: Limits) -> tuple[Module, ...]:
    """Return the module shapes under these limits."""
    return module_images(limits.slots, limits.functions, limits.modules)


def entry_pc(slots: int, functions: int, module: int, function: int) -> int:
    """Return the first pc of a function. It is no safepoint."""
    return BASE + (module * functions + function) * _function_bytes(slots)


def safepoint_pc(slots: int, functions: int, module: int, function: int, live: int) -> int:
    """Return the return address at the safepoint where exactly the slots in the mask `live` are read afterwards."""
    return entry_pc(slots, functions, module, function) + _safepoint_offset(slots, live)
