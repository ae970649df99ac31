"""A runtime is a memory and its configuration; every operation is one method, and each is a thin call of functions.

Operands are the caller's business: instances and locals exist, lists fit. What may fail in the simulated language (bounds,
allocations, registration, panics) is checked by the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from impl import activation, collector, store, transfers
from impl import instance as instances
from impl.activation import write_local
from impl.arena import restore, snapshot
from impl.config import Config, Function, Layout, Module, Safepoint
from impl.errors import Panicked
from impl.externref import (
    VALUE_PTR,
    VTABLE_FIELDS,
    VTABLE_WORDS,
    clone,
    clone_from_raw,
    drop,
    new_with,
    strong_count,
)
from impl.header import (
    CODE,
    FAIL_AFTER,
    REGISTRY,
    SWEEP_ORDER,
    TABLE,
    VTABLES,
    WALK_LIMIT,
)
from impl.invariants import check
from impl.protocol import RuntimeProtocol
from impl.stack import pop_frame
from impl.stack_maps import (
    BITS,
    MAPPED_WORDS,
    lookup_stack_map,
    register_stack_maps,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from impl.externref import Host

__all__ = ["Config", "Function", "Layout", "Module", "Runtime", "RuntimeProtocol", "Safepoint"]


class Runtime:
    """The optimised implementation. Methods are described by `RuntimeProtocol`.

    Args:
        config: the shape.
        host: constructs and destroys values.
        checked: whether every access is checked, at the cost of speed.

    Attributes:
        config: the shape.
        host: constructs and destroys values; may be replaced.
        memory: all state.

    Raises:
        ArenaExhausted: the heap is too small.
        StackExhausted: the stack is too small.
    """

    __slots__ = ("_cells", "_frame_words", "config", "host", "memory")

    def __init__(self, config: Config, host: Host, *, checked: bool = False) -> None:
        self.config = config
        self.host = host
        self.memory = store.make_memory(config, checked=checked)
        self._cells = config.globals + config.segment
        self._frame_words = config.slots + 1

    def snapshot(self) -> bytes:
        """Copy the whole state."""
        return snapshot(self.memory)

    def restore(self, state: bytes) -> None:
        """Put back a copied state."""
        restore(self.memory, state)

    def new(self, layout: int, fields: Sequence[int] = ()) -> int:
        """Make a value that owns `fields`; ValueError if the layout has not so many."""
        mem = self.memory
        vtable = mem[VTABLES] + layout * VTABLE_WORDS
        if len(fields) == 0:
            return new_with(mem, self.host, vtable)
        if len(fields) > mem[vtable + VTABLE_FIELDS]:
            raise ValueError(f"layout {layout} has fewer than {len(fields)} fields")
        self._stage(fields, len(fields))
        return store.new_owning(mem, self.host, layout)

    def clone(self, ref: int) -> int:
        """Count one more reference."""
        return clone(self.memory, ref)

    def drop(self, ref: int) -> None:
        """Give a reference up."""
        drop(self.memory, self.host, ref)

    def raw_round_trip(self, ref: int) -> int:
        """Clone through a raw pointer."""
        return clone_from_raw(self.memory, ref)

    def strong_count(self, ref: int) -> int:
        """Read the count."""
        return strong_count(self.memory, ref)

    def value_of(self, ref: int) -> int:
        """Address of the value behind a reference."""
        return self.memory[ref + VALUE_PTR]

    def field(self, ref: int, index: int) -> int:
        """Clone an owned reference."""
        mem = self.memory
        return instances.load_cloned(mem, mem[ref + VALUE_PTR] + index)

    def set_field(self, ref: int, index: int, value: int) -> None:
        """Move a reference into a value."""
        mem = self.memory
        instances.store_moved(mem, self.host, mem[ref + VALUE_PTR] + index, value)

    def call_wasm(self, instance: int, pc: int, args: Sequence[int] = ()) -> None:
        """Begin an activation."""
        mem = self.memory
        if len(args) != 0:
            self._move_into_table(args)
        slot = transfers.enter_wasm(mem, pc, instance, self._frame_words)
        for ref in args:
            mem[slot] = ref
            slot += 1

    def host_global_get(self, instance: int, index: int) -> int:
        """Clone a global."""
        mem = self.memory
        return instances.load_cloned(mem, instances.global_cell(mem, instance, index))

    def host_global_set(self, instance: int, index: int, ref: int) -> None:
        """Move into a global."""
        mem = self.memory
        instances.store_moved(mem, self.host, instances.global_cell(mem, instance, index), ref)

    def host_table_get(self, instance: int, index: int) -> int:
        """Clone an element."""
        mem = self.memory
        return instances.load_cloned(mem, instances.element_cell(mem, instance, index))

    def host_table_set(self, instance: int, index: int, ref: int) -> None:
        """Move into an element."""
        instances.host_set_element(self.memory, self.host, instance, index, ref)

    def host_table_grow(self, instance: int, delta: int, ref: int) -> int:
        """Append elements."""
        return instances.host_grow_table(self.memory, self.host, instance, delta, ref, self.config.table_max)

    def host_table_fill(self, instance: int, start: int, ref: int, count: int) -> None:
        """Move into a range of elements."""
        instances.fill_table(self.memory, self.host, instance, start, ref, count, 1)

    def host_table_copy(self, to: int, from_: int, start: int, source: int, count: int) -> None:
        """Copy elements."""
        instances.copy_table(self.memory, self.host, to, from_, start, source, count)

    def host_table_init(self, to: int, segment_instance: int, start: int, source: int, count: int) -> None:
        """Copy from a segment."""
        instances.init_table(self.memory, self.host, to, segment_instance, start, source, count)

    def gc(self) -> None:
        """Collect."""
        mem = self.memory
        collector.gc(mem, self.host, mem[TABLE], mem[REGISTRY])

    def instantiate(self, instance: int, module: int, initial: int, segment_mask: int, table_size: int, active: int) -> None:
        """Make an instance; ValueError if operands do not fit the configuration."""
        config = self.config
        if (initial and not config.globals) or (active and table_size < config.segment) or table_size > config.table_max:
            raise ValueError("an initial value needs a global, an active segment needs its elements, a table has a limit")
        instances.instantiate(
            self.memory,
            self.host,
            instance,
            module,
            initial,
            config.globals,
            config.segment,
            segment_mask,
            table_size,
            active,
        )

    def teardown_instance(self, instance: int) -> None:
        """Free an instance."""
        if instances.teardown_instance(self.memory, self.host, instance, self._cells) != 0:
            raise Panicked("a destructor panicked while an instance was torn down")

    def teardown_store(self) -> None:
        """Free all instances and empty the table."""
        config = self.config
        store.teardown_store(self.memory, self.host, config.instances, self._cells, config.chunk, config.hash_seed)

    def register(self, module: int) -> None:
        """Register stack maps."""
        mem = self.memory
        register_stack_maps(mem, mem[REGISTRY], mem[mem[CODE] + module])

    def lookup(self, pc: int) -> tuple[int, int] | None:
        """Look a stack map up."""
        mem = self.memory
        entry = lookup_stack_map(mem, mem[REGISTRY], pc)
        return (mem[entry + MAPPED_WORDS], mem[entry + BITS]) if entry else None

    def return_from_import(self, refs: Sequence[int], destinations: Sequence[int]) -> None:
        """Return from host to Wasm."""
        mem = self.memory
        if len(refs) != 0:
            self._move_into_table(refs)
        pop_frame(mem)
        for ref, destination in zip(refs, destinations, strict=True):
            write_local(mem, destination, ref)

    def unwind(self) -> None:
        """Leave the innermost call into Wasm."""
        transfers.unwind(self.memory)

    def local_copy(self, source: int, target: int) -> None:
        """Copy a local."""
        activation.local_copy(self.memory, source, target)

    def local_null(self, target: int) -> None:
        """Null a local."""
        write_local(self.memory, target, 0)

    def spill(self, target: int) -> None:
        """Overwrite a dead local."""
        activation.spill(self.memory, target)

    def global_get(self, pc: int, instance: int, index: int, target: int) -> None:
        """Load a global."""
        activation.global_get(self.memory, self.host, pc, instance, index, target)

    def global_set(self, pc: int, instance: int, index: int, source: int) -> None:
        """Store to a global."""
        activation.global_set(self.memory, self.host, pc, instance, index, source)

    def table_get(self, pc: int, instance: int, index: int, target: int) -> None:
        """Load an element."""
        activation.table_get_to_local(self.memory, self.host, pc, instance, index, target)

    def table_set(self, pc: int, instance: int, index: int, source: int) -> None:
        """Store to an element."""
        activation.table_set_from_local(self.memory, self.host, pc, instance, index, source)

    def table_grow(self, pc: int, instance: int, delta: int, source: int) -> int:
        """Append elements."""
        return activation.table_grow_from_local(self.memory, pc, instance, delta, source, self.config.table_max)

    def table_fill(self, pc: int, instance: int, start: int, source: int, count: int) -> None:
        """Store to a range of elements."""
        activation.table_fill_from_local(self.memory, self.host, pc, instance, start, source, count)

    def table_copy(self, pc: int, to: int, from_: int, start: int, source: int, count: int) -> None:
        """Copy elements."""
        activation.table_copy_at(self.memory, self.host, pc, to, from_, start, source, count)

    def table_init(self, pc: int, to: int, segment_instance: int, start: int, source: int, count: int) -> None:
        """Copy from a segment."""
        activation.table_init_at(self.memory, self.host, pc, to, segment_instance, start, source, count)

    def elem_drop(self, pc: int, instance: int) -> None:
        """Empty a segment."""
        activation.elem_drop_at(self.memory, self.host, pc, instance)

    def call_function(self, pc: int, instance: int, callee_pc: int, slots: Sequence[int] = ()) -> None:
        """Call Wasm from Wasm."""
        mem = self.memory
        local = transfers.enter_callee(mem, pc, instance, callee_pc)
        for slot in slots:
            mem[local] = transfers.caller_local(mem, slot)
            local += 1

    def call_import(self, pc: int, slots: Sequence[int] = ()) -> list[int]:
        """Call the host from Wasm."""
        mem = self.memory
        refs = [transfers.clone_local(mem, slot) for slot in slots]
        transfers.enter_import(mem, pc)
        return refs

    def return_to_wasm(self, slots: Sequence[int], destinations: Sequence[int]) -> None:
        """Return to Wasm."""
        mem = self.memory
        for slot, destination in zip(slots, destinations, strict=True):
            transfers.return_local(mem, slot, destination)
        pop_frame(mem)

    def return_to_host(self, slots: Sequence[int] = ()) -> list[int]:
        """Return to the host."""
        mem = self.memory
        refs = [transfers.clone_local(mem, slot) for slot in slots]
        transfers.leave_wasm(mem)
        return refs

    def cut_walk(self, frames: int) -> None:
        """Cut walks short."""
        self.memory[WALK_LIMIT] = frames + 1

    def fail_allocation(self, after: int) -> None:
        """Let an allocation fail."""
        self.memory[FAIL_AFTER] = after + 1

    def sweep_order(self, code: int) -> None:
        """Choose the order of sweeps."""
        self.memory[SWEEP_ORDER] = code

    def calm(self) -> None:
        """Disarm everything."""
        mem = self.memory
        mem[WALK_LIMIT] = 0
        mem[FAIL_AFTER] = 0

    def check(self, owners: Mapping[int, int], live: Sequence[int], nested: bool) -> None:
        """Check every invariant."""
        check(self.memory, self.config, owners, live, nested)

    def _stage(self, refs: Sequence[int], count: int) -> None:
        """Push a host frame with references that are about to move: those of `count` that are not null."""
        mem = self.memory
        address = transfers.stage(mem, count)
        for ref in refs:
            if ref != 0:
                mem[address] = ref
                address += 1

    def _move_into_table(self, refs: Sequence[int]) -> None:
        """Let the activations table take over references that the host gives away."""
        mem = self.memory
        moving = 0
        for ref in refs:
            if ref != 0:
                moving += 1
        if transfers.room(mem) >= moving:
            # Nothing else runs before the last one is in the table, so none has to wait in a frame.
            for ref in refs:
                if ref != 0:
                    transfers.move_one(mem, ref)
        else:
            self._stage(refs, moving)
            transfers.move_into_table(mem, self.host)
