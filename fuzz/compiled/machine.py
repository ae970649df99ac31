"""A machine is what compiled code runs on: the words of a runtime's memory and a world with the same bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from fuzz.compiled.package import load
from fuzz.compiled.world import (
    ADDRESSES_AT,
    BOUND_NAMES,
    BOUNDS_AT,
    BOUNDS_MAX,
    OBJECTS_MAX,
    REGISTERS,
    REGISTERS_MAX,
    RELATIONS_AT,
    RELATIONS_MAX,
    STATE_AT,
)
from fuzz.driver import Driver
from fuzz.setup import config_of
from impl.audit import plan_of, scratch_words
from model.code import images
from model.registry import interesting_pcs, safepoints

if TYPE_CHECKING:
    from model.limits import Limits

STEPS_MAX: Final = 1 << 20
"""More operations in one step or run than this are a hang."""


class Machine:
    """The two arrays, made from a driver between two operations.

    Args:
        limits: the bounds.

    Raises:
        ValueError: the bounds do not fit into words of 64 bits and the fixed places of the world.

    Attributes:
        driver: an interpreted driver over the same memory.
        mem: the words of its memory.
        w: the world.
        joint: how many words of the world belong to the joint state, from the addresses on.
    """

    def __init__(self, limits: Limits) -> None:
        import numpy as np

        if limits.objects + limits.instances + 1 > OBJECTS_MAX or limits.orders > 1 << 16:
            raise ValueError(f"objects={limits.objects}: the compiled reading has room for {OBJECTS_MAX - limits.instances - 1}")
        self.limits = limits
        self.driver = Driver(limits)
        self.mem: Any = np.frombuffer(cast("memoryview[int]", self.driver.runtime.memory), dtype=np.int64)
        state = self.driver.state
        self.joint = STATE_AT + len(state) - ADDRESSES_AT
        config = config_of(limits)
        lookups, pcs = _lookups(limits)
        tail = {
            "plan_at": plan_of(config),
            "owners_at": [0] * (2 * limits.objects + 2),
            "live_at": [0] * (limits.shape.slots_end - limits.shape.slots + 1),
            "scratch_at": [0] * scratch_words(config),
        }
        before = {"root_at": [0] * (len(self.mem) + self.joint), "lookups_at": lookups, "pcs_at": pcs}
        words = [0] * (STATE_AT + len(state))
        for name, row in (*before.items(), *tail.items()):
            words[REGISTERS[name]] = len(words)
            words += row
        words[REGISTERS["world_words"]] = len(words)
        words[REGISTERS["lookups_count"]] = len(lookups) // 4
        words[REGISTERS["pcs_count"]] = len(pcs) // 2
        words[REGISTERS["_cells"]] = limits.globals + limits.segment
        words[REGISTERS["_frame_words"]] = limits.slots + 1
        words[REGISTERS["thorough"]] = 1
        words[REGISTERS["state_words"]] = len(state)
        words[REGISTERS["steps_max"]] = STEPS_MAX
        words[REGISTERS["drop_at"]] = load().drop_at.address
        words[REGISTERS["perform_at"]] = load().perform_at.address
        words[BOUNDS_AT : BOUNDS_AT + len(BOUND_NAMES)] = [_bound(limits, name) for name in BOUND_NAMES]
        relations = limits.relations
        words[RELATIONS_AT : RELATIONS_AT + len(relations)] = relations
        words[STATE_AT : STATE_AT + len(state)] = state
        self.w: Any = np.array(words, dtype=np.int64)
        root = words[REGISTERS["root_at"]]
        self.w[root : root + len(self.mem)] = self.mem
        self.w[root + len(self.mem) : root + len(self.mem) + self.joint] = self.w[ADDRESSES_AT : ADDRESSES_AT + self.joint]


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
