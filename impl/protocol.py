"""A runtime of another make takes part in every engine if it has these methods.

References are non-zero integers that name values; 0 is null. "Moved" means that the caller's reference is gone whatever
happens. If an operation fails and a destructor panics while it gives up what was moved to it, `Panicked` is raised.

Every operation may raise `Panicked` if it releases a reference; it has done all of its own work by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RuntimeProtocol(Protocol):
    """One method per operation."""

    def snapshot(self) -> bytes:
        """Copy the whole state; equal states are equal bytes."""

    def restore(self, state: bytes) -> None:
        """Put back what `snapshot` has copied."""

    # The host.

    def new(self, layout: int, fields: Sequence[int]) -> int:
        """Make a value of a layout that owns `fields`, which are moved, from its first field on.

        Raises:
            AllocationFailed: there is no value; the fields are released.
            Panicked: the constructor panicked; the same.
        """

    def clone(self, ref: int) -> int:
        """Count one more reference."""

    def drop(self, ref: int) -> None:
        """Give a reference up."""

    def raw_round_trip(self, ref: int) -> int:
        """Turn a reference into a raw pointer and clone it from that."""

    def strong_count(self, ref: int) -> int:
        """Read the count, table entries included."""

    def field(self, ref: int, index: int) -> int:
        """Clone a reference that a value owns, or return 0."""

    def set_field(self, ref: int, index: int, value: int) -> None:
        """Move a reference, or null, into a field of a value, and release what was there."""

    def call_wasm(self, instance: int, pc: int, args: Sequence[int]) -> None:
        """Begin an activation at `pc` with moved arguments in its first locals; the other locals are null.

        Raises:
            Panicked: a destructor panicked when room was made; there is no activation, and the arguments are released.
        """

    def host_global_get(self, instance: int, index: int) -> int:
        """Clone the reference in a global, or return 0."""

    def host_global_set(self, instance: int, index: int, ref: int) -> None:
        """Move a reference into a global."""

    def host_table_get(self, instance: int, index: int) -> int:
        """Clone the reference in a table element, or return 0. Raise OutOfBounds if there is no such element."""

    def host_table_set(self, instance: int, index: int, ref: int) -> None:
        """Move a reference into a table element. Raise OutOfBounds if there is no such element."""

    def host_table_grow(self, instance: int, delta: int, ref: int) -> int:
        """Append elements that hold a moved reference; return the old size, or -1 and change nothing."""

    def host_table_fill(self, instance: int, start: int, ref: int, count: int) -> None:
        """Store a moved reference in a range of elements. Raise OutOfBounds, and store nothing, if it is too long."""

    def host_table_copy(self, to: int, from_: int, start: int, source: int, count: int) -> None:
        """Copy elements from `source` on to `start` on. Raise OutOfBounds, and store nothing, if a range is too long."""

    def host_table_init(self, to: int, segment_instance: int, start: int, source: int, count: int) -> None:
        """Copy from a segment to a table. Raise OutOfBounds, and store nothing, if a range is too long."""

    def gc(self) -> None:
        """Collect, unless a collection is under way."""

    def instantiate(self, instance: int, module: int, initial: int, segment_mask: int, table_size: int, active: int) -> None:
        """Make an instance; see `impl.instance.build`. If `active`, its segment is copied to its table and dropped.

        Raises:
            RegistrationRefused: the module's stack maps contradict others.
            AllocationFailed: memory ran out half-way. In both cases there is no instance, and `initial` is released.
        """

    def teardown_instance(self, instance: int) -> None:
        """Free an instance that has no activation, and release what it held."""

    def teardown_store(self) -> None:
        """Free all instances and empty the activations table. Nothing of Wasm is on the stack, and no destructor runs."""

    def register(self, module: int) -> None:
        """Register a module's stack maps. Raise RegistrationRefused, and change nothing, if they contradict others."""

    def lookup(self, pc: int) -> tuple[int, int] | None:
        """Return the mapped words and the mask of the safepoint at exactly `pc`, if there is one."""

    # A host function that Wasm has called.

    def return_from_import(self, refs: Sequence[int], destinations: Sequence[int]) -> None:
        """Return moved references to locals of the activation that called.

        Raises:
            Panicked: a destructor panicked when room was made; the references are released, and the call is to be unwound.
        """

    def unwind(self) -> None:
        """Leave the innermost call from host to Wasm, whatever is on the stack above it: a trap, or a panic."""

    # Wasm. `pc` is the safepoint of the operation in the youngest activation.

    def local_copy(self, source: int, target: int) -> None:
        """Copy a local."""

    def local_null(self, target: int) -> None:
        """Null a local."""

    def spill(self, target: int) -> None:
        """Overwrite a dead local by a word that is no reference."""

    def global_get(self, pc: int, instance: int, index: int, target: int) -> None:
        """Load a global into a local."""

    def global_set(self, pc: int, instance: int, index: int, source: int) -> None:
        """Store a local to a global."""

    def table_get(self, pc: int, instance: int, index: int, target: int) -> None:
        """Load an element into a local. Raise OutOfBounds if there is no such element."""

    def table_set(self, pc: int, instance: int, index: int, source: int) -> None:
        """Store a local to an element. Raise OutOfBounds if there is no such element."""

    def table_grow(self, pc: int, instance: int, delta: int, source: int) -> int:
        """Append elements that hold a local; return the old size, or -1 and change nothing."""

    def table_fill(self, pc: int, instance: int, start: int, source: int, count: int) -> None:
        """Store a local in a range of elements. Raise OutOfBounds, and store nothing, if it is too long."""

    def table_copy(self, pc: int, to: int, from_: int, start: int, source: int, count: int) -> None:
        """See `host_table_copy`."""

    def table_init(self, pc: int, to: int, segment_instance: int, start: int, source: int, count: int) -> None:
        """See `host_table_init`."""

    def elem_drop(self, pc: int, instance: int) -> None:
        """Empty an instance's segment."""

    def call_function(self, pc: int, instance: int, callee_pc: int, slots: Sequence[int]) -> None:
        """Call from Wasm to Wasm; the caller's `slots` become the callee's first locals."""

    def call_import(self, pc: int, slots: Sequence[int]) -> list[int]:
        """Call a host function; return clones of the `slots` for it, 0 for null."""

    def return_to_wasm(self, slots: Sequence[int], destinations: Sequence[int]) -> None:
        """Return from an activation that Wasm called: its `slots` go to the caller's `destinations`."""

    def return_to_host(self, slots: Sequence[int]) -> list[int]:
        """Return from an activation that the host called; return clones of its `slots`, 0 for null."""

    # The environment. What is armed stays so until `calm`.

    def cut_walk(self, frames: int) -> None:
        """Let walks of the stack end after so many frames."""

    def fail_allocation(self, after: int) -> None:
        """Let one fallible allocation fail, after so many successes."""

    def sweep_order(self, code: int) -> None:
        """Choose the order in which sweeps release their set."""

    def calm(self) -> None:
        """Disarm everything."""

    def check(self, owners: Mapping[int, int], live: Sequence[int], nested: bool) -> None:
        """Check every representation invariant.

        Args:
            owners: for each value that exists and is not under destruction, the number of references the host holds.
            live: references in live locals, of all activations.
            nested: whether a destructor is running.

        Raises:
            InvariantViolated: one does not hold.
        """
