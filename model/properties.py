"""`Sometimes` properties: what a campaign must have seen at least once before its silence means anything.

Upstream's fuzzer spent months without ever collecting while a reference was live on the stack. Bits of the word `SEEN`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Sometimes(IntEnum):
    """Each says in words what was seen."""

    COLLECTION_WITH_LIVE_REFERENCE = 0
    COLLECTION_NESTED = 1
    COLLECTION_KILLED = 2
    COLLECTION_RESCUED = 3
    COLLECTION_IN_TRANSFER = 4
    CHUNK_FULL = 5
    SET_POPULATED = 6
    DESTRUCTOR_REENTERED_WASM_IN_SWEEP = 7
    DESTRUCTOR_INSERTED_IN_SWEEP = 8
    DESTRUCTOR_PANICKED = 9
    DESTRUCTOR_PANICKED_IN_COLLECTION = 10
    DESTRUCTOR_NESTED = 11
    WALK_CUT = 12
    SWEEP_ORDERED = 13
    CONSTRUCTOR_RAISED = 14
    ALLOCATION_FAILED = 15
    INSTANCE_HALF_BUILT = 16
    REGISTRATION_REFUSED = 17
    OUT_OF_BOUNDS = 18
    PANIC_UNWOUND_WASM = 19
    TRAP_UNWOUND_SEVERAL = 20
    DIED_WITH_OWNER = 21
    CYCLE_LEFT = 22
    STORE_TORN_DOWN_WITH_VALUES = 23
    IMPORT_RETURNED_REFERENCE = 24
    DEAD_SLOT_AT_COLLECTION = 25
    UNMAPPED_SAFEPOINT_WALKED = 26
    WALK_CUT_WITH_LIVE_REFERENCE = 27


DESCRIPTIONS: Final[dict[Sometimes, str]] = {
    Sometimes.COLLECTION_WITH_LIVE_REFERENCE: "a collection found a live reference on the stack",
    Sometimes.COLLECTION_NESTED: "a destructor asked for a collection during a collection",
    Sometimes.COLLECTION_KILLED: "a collection destroyed a value",
    Sometimes.COLLECTION_RESCUED: "a doomed value was passed to Wasm or owned again during the collection",
    Sometimes.COLLECTION_IN_TRANSFER: "a transfer from host to Wasm had to collect first",
    Sometimes.CHUNK_FULL: "the bump chunk was full",
    Sometimes.SET_POPULATED: "the over-approximated set held a reference",
    Sometimes.DESTRUCTOR_REENTERED_WASM_IN_SWEEP: "a destructor called Wasm during a sweep",
    Sometimes.DESTRUCTOR_INSERTED_IN_SWEEP: "a destructor passed a reference to Wasm during a sweep",
    Sometimes.DESTRUCTOR_PANICKED: "a destructor panicked",
    Sometimes.DESTRUCTOR_PANICKED_IN_COLLECTION: "a destructor panicked during a collection",
    Sometimes.DESTRUCTOR_NESTED: "a destructor ran inside a destructor",
    Sometimes.WALK_CUT: "a sweep was skipped because the walk did not reach the canary",
    Sometimes.SWEEP_ORDERED: "a sweep released in another order than the default",
    Sometimes.CONSTRUCTOR_RAISED: "a constructor raised",
    Sometimes.ALLOCATION_FAILED: "an allocation failed",
    Sometimes.INSTANCE_HALF_BUILT: "an instance failed half-built",
    Sometimes.REGISTRATION_REFUSED: "a registration of stack maps was refused",
    Sometimes.OUT_OF_BOUNDS: "a table access was out of bounds",
    Sometimes.PANIC_UNWOUND_WASM: "a panic unwound a Wasm activation",
    Sometimes.TRAP_UNWOUND_SEVERAL: "a trap unwound two or more activations",
    Sometimes.DIED_WITH_OWNER: "a value died because its owner did",
    Sometimes.CYCLE_LEFT: "a cycle of values was left, as it must be",
    Sometimes.STORE_TORN_DOWN_WITH_VALUES: "the store was torn down while it owned values",
    Sometimes.IMPORT_RETURNED_REFERENCE: "a host import returned a reference to Wasm",
    Sometimes.DEAD_SLOT_AT_COLLECTION: "a collection walked a frame with a dead slot",
    Sometimes.WALK_CUT_WITH_LIVE_REFERENCE: "a walk was cut short after it could find a live reference",
    Sometimes.UNMAPPED_SAFEPOINT_WALKED: "a collection walked a frame at a safepoint without a map",
}

if len(DESCRIPTIONS) != len(Sometimes):
    message = "each sometimes property needs its words"
    raise ImportError(message)
