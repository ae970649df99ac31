"""From the model's limits to the implementation's configuration: sizes, layouts, simulated code."""

from __future__ import annotations

from functools import lru_cache

from impl.runtime import Config
from model import code
from model.limits import Limits


@lru_cache(maxsize=64)
def config_of(limits: Limits) -> Config:
    """Return a configuration with room for everything that the limits allow.

    The layouts differ in size and alignment (in bytes), so that footers need padding, alignment gaps arise in the heap, and a
    value may be empty. All have room for the fields.
    """
    own = limits.fields * 8
    layouts = tuple(
        (own + extra, align, limits.fields) for extra, align in ((8, 8), (0, 1), (13, 16), (24, 64), (1, 2), (16, 32), (40, 8), (7, 4))
    )[: limits.layouts]
    modules = code.images(limits)
    maps = sum(2 + sum(3 + 3 * len(infos) for _, _, infos in module) for module in modules)
    value = 2 * (limits.fields + 5 + 3 + 8)
    sets = 8 * (limits.chunk + limits.objects + 8)
    instances = limits.instances * (8 + limits.globals + limits.segment + 2 * limits.table + 8)
    heap = 256 + 2 * maps + 64 * limits.instances + 8 * len(modules) + limits.objects * value + sets + 2 * limits.chunk + instances
    heap += limits.quarantine * (max(limits.chunk, limits.table) * 4 + maps + value)
    # Frames: activations with their entries and imports; a transfer and a bulk operation for each operation under way; a drop
    # frame for each value that is being destroyed, which may be more than have names, since those are free again early.
    bulk = limits.table + limits.segment + limits.globals + limits.arguments + limits.fields + 8
    stack = 64 + limits.contexts * (limits.slots + 20) + (limits.destructors + 2) * (bulk + limits.arguments + 12) + limits.objects * 12
    return Config(
        chunk=limits.chunk,
        layouts=layouts,
        instances=limits.instances,
        globals=limits.globals,
        table_max=limits.table,
        segment=limits.segment,
        slots=limits.slots,
        modules=modules,
        stack_words=stack + (stack & 1),
        heap_words=heap + (heap & 1),
        quarantine=limits.quarantine,
    )
