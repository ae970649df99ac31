"""Each part of a memory is read once, word by word: it is sound and says which blocks are its own, or it breaks an invariant.

These are the inspections of `impl.inspection` without Python objects, for compiled code; `impl.audit` says in which order they
run and what they share. Each returns 0, or the number of the invariant that is broken. Any word may be anything: each address is
compared with the bounds of the memory before it is followed, and each loop ends within them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from impl.activations_table import CHUNK, CHUNK_LENGTH, COLLECTING, END, NEXT, OVER, PRECISE, SWEEPING, TABLE_WORDS
from impl.arena import FREE_NEXT
from impl.externref import VALUE_PTR, VTABLE
from impl.hash_set import BUCKETS, CAPACITY, CURSOR_SHIFT, LENGTH, SEED, SEED_MAX, find
from impl.header import (
    CODE,
    FREE_LIST,
    HEAP_END,
    HEAP_START,
    INSTANCES,
    QUARANTINE,
    QUARANTINE_ENTRIES,
    QUARANTINE_MAX,
    QUARANTINED_SIZE,
    QUARANTINED_WORDS,
    REGISTRY,
    TABLE,
    VTABLES,
)
from impl.instance import CELLS, GLOBALS_COUNT, MODULE, SEGMENT_LENGTH, TABLE_ELEMENTS, TABLE_SIZE
from impl.scan import any_but_poison, any_different, any_set, below
from impl.stack_maps import (
    BITS,
    ENTRIES,
    ENTRY_COUNT,
    ENTRY_WORDS,
    MAPPED_WORDS,
    MODULE_WORDS,
    MODULES,
    MODULES_CAPACITY,
    MODULES_COUNT,
    PC,
    REGISTRY_WORDS,
    START,
)
from impl.stack_maps import END as MODULE_END

if TYPE_CHECKING:
    from impl.scan import Words

# Words of a plan, which `impl.audit.plan_of` makes: bounds of the configuration,
PLAN_CHUNK: Final = 0
PLAN_INSTANCES: Final = 1
PLAN_GLOBALS: Final = 2
PLAN_SEGMENT: Final = 3
PLAN_TABLE_MAX: Final = 4
PLAN_MODULES: Final = 5
PLAN_IMAGES: Final = 6
PLAN_VTABLE_WORDS: Final = 7
# where a new store has its vtables and its array of images, and where what it never changes ends in the heap,
PLAN_HEAP_START: Final = 8
PLAN_VTABLES: Final = 9
PLAN_CODE: Final = 10
PLAN_FIXED_END: Final = 11
# and where in the plan there are: the row of all that; vtables; first word and length of each image; shapes by vtable offset.
PLAN_FIXED_ROW: Final = 12
PLAN_VTABLES_ROW: Final = 13
PLAN_IMAGE_ROWS: Final = 14
PLAN_SHAPES: Final = 15
PLAN_HEAD: Final = 16

# A shape: where the footer begins, or -1 where no vtable begins; words of the block; alignment less one; owned words.
SHAPE_FOOTER: Final = 0
SHAPE_BLOCK: Final = 1
SHAPE_ALIGN_MASK: Final = 2
SHAPE_FIELDS: Final = 3
SHAPE_WORDS: Final = 4

# Words of the scratch. From `HEADER_WORDS` on it has a mark for each address, and behind those what was found on the way.
# A mark belongs to an audit, and to a purpose in it, by its size, so that nothing has to be cleared:
# every mark that was ever made before is smaller than the number that the next purpose begins with.
SCRATCH_LAST: Final = 0
SCRATCH_SEEN: Final = 1
SCRATCH_ENDS: Final = 2
SCRATCH_COUNTS: Final = 3
SCRATCH_BLOCKS: Final = 4
SCRATCH_SPANS: Final = 5
SCRATCH_DYING: Final = 6
SCRATCH_CANARY: Final = 7
SCRATCH_IN_FLIGHT: Final = 8

SIGN_SHIFT: Final = 63


def add_block(mem: Words, scratch: Words, start: int, end: int) -> int:
    """Note that a block begins at `start` and ends before `end`; 8 if it is empty, leaves the heap, or another begins there."""
    if start < mem[HEAP_START] or start >= end or end > mem[HEAP_END]:
        return 8
    ends = scratch[SCRATCH_ENDS]
    if scratch[start] > ends:
        return 8
    scratch[start] = ends + end
    scratch[SCRATCH_BLOCKS] += 1
    return 0


def add_span(mem: Words, scratch: Words, start: int, end: int) -> None:
    """Note that each word in ``[start, end)`` owns a reference or is null."""
    span = 2 * len(mem) + 2 * scratch[SCRATCH_SPANS]
    scratch[span] = start
    scratch[span + 1] = end
    scratch[SCRATCH_SPANS] += 1


def audit_free(mem: Words, scratch: Words) -> int:
    """Audit the free list and the poison in its blocks (8)."""
    heap_end = mem[HEAP_END]
    previous = 0
    block = mem[FREE_LIST]
    while block != 0:
        if block <= previous or block > heap_end - 2:
            return 8
        size = mem[block]
        if size < 2 or size > heap_end - block:
            return 8
        end = block + size
        if any_but_poison(mem[block + 2 : end]) != 0 or add_block(mem, scratch, block, end) != 0:
            return 8
        previous = end
        block = mem[block + FREE_NEXT]
    return 0


def audit_table(mem: Words, plan: Words, scratch: Words) -> int:
    """Audit the activations table (3, 4, 6)."""
    table = mem[TABLE]
    bad = audit_chunk(mem, plan[PLAN_CHUNK], table)
    if bad == 0:
        bad = audit_set(mem, table + OVER)
    if bad == 0:
        bad = audit_set(mem, table + PRECISE)
    if bad == 0:
        bad = audit_set(mem, table + SWEEPING)
    if bad != 0:
        return bad
    if mem[table + COLLECTING] == 0 and (
        mem[table + PRECISE + LENGTH] != 0 or mem[table + SWEEPING + LENGTH] != 0 or mem[table + SWEEPING + CAPACITY] != 0
    ):
        return 4
    for s in range(table + OVER, table + SWEEPING + 1, PRECISE - OVER):
        capacity = mem[s + CAPACITY]
        if capacity != 0:
            bad |= add_block(mem, scratch, mem[s + BUCKETS], mem[s + BUCKETS] + capacity)
    chunk = mem[table + CHUNK]
    return bad | add_block(mem, scratch, chunk, chunk + plan[PLAN_CHUNK] + (plan[PLAN_CHUNK] & 1))


def audit_chunk(mem: Words, capacity: int, table: int) -> int:
    """Audit the bump chunk (3)."""
    following = mem[table + NEXT]
    end = mem[table + END]
    start = mem[table + CHUNK]
    if mem[table + CHUNK_LENGTH] != capacity or start < 0 or start > len(mem) - capacity or end != start + capacity:
        return 3
    if following < start or following > end:
        return 3
    if mem[table + COLLECTING] != 0:
        if following != end:
            return 3
        return 0
    for slot in range(start, following):
        if mem[slot] == 0:
            return 3
    if any_set(mem[following:end]) != 0:
        return 3
    return 0


def audit_set(mem: Words, s: int) -> int:
    """Audit the set at `s` (6).

    That each member's search ends at its own bucket says two things at once: it is found, and no other bucket has it.
    """
    buckets = mem[s + BUCKETS]
    capacity = mem[s + CAPACITY]
    length = mem[s + LENGTH]
    if capacity == 0:
        if buckets != 0 or length != 0:
            return 6
        return 0
    if capacity < 0 or capacity > len(mem) or capacity & (capacity - 1) != 0 or length < 0 or length >= capacity:
        return 6
    if buckets < 0 or buckets > len(mem) - capacity:
        return 6
    # Any seed will do for the cursor of a set without members.
    cursor = (mem[s + SEED] >> CURSOR_SHIFT) & 0xFFFF_FFFF
    members = 0
    for index in range(capacity):
        key = mem[buckets + index]
        if key != 0:
            # A key of 64 bits has not one order in all readings.
            if index < cursor or key >> SIGN_SHIFT != 0:
                return 6
            members += 1
    if members != length:
        return 6
    # A bucket is empty, so that every search ends.
    if members != 0:
        seed = mem[s + SEED] & SEED_MAX
        for bucket in range(buckets, buckets + capacity):
            if mem[bucket] != 0 and find(mem, buckets, capacity - 1, seed, mem[bucket]) != bucket:
                return 6
    return 0


def audit_fixed(mem: Words, plan: Words, scratch: Words) -> int:
    """Audit the blocks that a configuration determines (8): table, list of instances, vtables and images."""
    start = plan[PLAN_HEAP_START]
    end = plan[PLAN_FIXED_END]
    if (
        mem[HEAP_START] == start
        and mem[VTABLES] == plan[PLAN_VTABLES]
        and mem[CODE] == plan[PLAN_CODE]
        and end <= mem[HEAP_END]
        and any_different(mem[start:end], plan[plan[PLAN_FIXED_ROW] : plan[PLAN_FIXED_ROW] + end - start]) == 0
    ):
        # As in a new store, padding included: many blocks in one.
        bad = 0
        if start < end:
            bad = add_block(mem, scratch, start, end)
    else:
        bad = audit_rows(mem, plan, scratch)
    if mem[INSTANCES] != 0 and plan[PLAN_INSTANCES] != 0:
        bad |= add_block(mem, scratch, mem[INSTANCES], mem[INSTANCES] + plan[PLAN_INSTANCES] + (plan[PLAN_INSTANCES] & 1))
    return bad | add_block(mem, scratch, mem[TABLE], mem[TABLE] + TABLE_WORDS + (TABLE_WORDS & 1))


def audit_rows(mem: Words, plan: Words, scratch: Words) -> int:
    """Audit vtables and images wherever they lie (8)."""
    bad = 0
    if mem[VTABLES] != 0:
        bad = audit_row(mem, plan, scratch, mem[VTABLES], plan[PLAN_VTABLES_ROW], plan[PLAN_VTABLE_WORDS])
    code = mem[CODE]
    images = plan[PLAN_IMAGES]
    if code == 0 or bad != 0:
        return bad
    if code < 0 or code > len(mem) - images:
        return 8
    if images != 0:
        bad = add_block(mem, scratch, code, code + images + (images & 1))
    for image in range(images):
        row = plan[PLAN_IMAGE_ROWS] + 2 * image
        bad |= audit_row(mem, plan, scratch, mem[code + image], plan[row], plan[row + 1])
    return bad


def audit_row(mem: Words, plan: Words, scratch: Words, address: int, row: int, size: int) -> int:
    """Audit one block that has the words of the plan from `row` on (8)."""
    if size == 0:
        return 0
    if address < 0 or address > len(mem) - size:
        return 8
    if any_different(mem[address : address + size], plan[row : row + size]) != 0:
        return 8
    return add_block(mem, scratch, address, address + size + (size & 1))


def audit_registry(mem: Words, scratch: Words) -> int:
    """Audit the registered modules (7)."""
    registry = mem[REGISTRY]
    if registry < 0 or registry > len(mem) - REGISTRY_WORDS:
        return 8
    modules = mem[registry + MODULES]
    count = mem[registry + MODULES_COUNT]
    capacity = mem[registry + MODULES_CAPACITY]
    if below(capacity, count) or (modules != 0) != (capacity != 0):
        return 7
    bad = add_block(mem, scratch, registry, registry + REGISTRY_WORDS + (REGISTRY_WORDS & 1))
    if capacity == 0:
        return bad
    if capacity < 0 or capacity > len(mem):
        bad = 8
    else:
        bad |= add_block(mem, scratch, modules, modules + capacity * MODULE_WORDS)
    previous = 0
    module = modules
    index = 0
    while index != count:
        if module < 0 or module > len(mem) - MODULE_WORDS:
            return 8
        if below(mem[module + START], previous) or audit_entries(mem, module) != 0:
            return 7
        previous = mem[module + MODULE_END]
        entries = mem[module + ENTRIES]
        size = mem[module + ENTRY_COUNT] * ENTRY_WORDS
        bad |= add_block(mem, scratch, entries, entries + size + (size & 1))
        module += MODULE_WORDS
        index += 1
    return bad


def audit_entries(mem: Words, module: int) -> int:
    """Audit the entries of one registered module (7)."""
    first = mem[module + ENTRIES]
    count = mem[module + ENTRY_COUNT]
    if count <= 0 or count > len(mem) or first < 0 or first > len(mem) - count * ENTRY_WORDS:
        return 7
    last = first + (count - 1) * ENTRY_WORDS
    if below(mem[first + PC], mem[module + START]) or not below(mem[last + PC], mem[module + MODULE_END]):
        return 7
    for entry in range(first, last, ENTRY_WORDS):
        if not below(mem[entry + PC], mem[entry + ENTRY_WORDS + PC]):
            return 7
    for entry in range(first, last + 1, ENTRY_WORDS):
        mapped = mem[entry + MAPPED_WORDS]
        # No mask has bits outside 64 words, and a machine shifts by less than that.
        if 0 <= mapped <= SIGN_SHIFT and mem[entry + BITS] >> mapped != 0:
            return 7
    return 0


def audit_instances(mem: Words, plan: Words, scratch: Words) -> int:
    """Audit the instances (8): all words in which they own a reference or null."""
    array = mem[INSTANCES]
    count = plan[PLAN_INSTANCES]
    if array == 0:
        return 0
    if array < 0 or array > len(mem) - count:
        return 8
    size = CELLS + plan[PLAN_GLOBALS] + plan[PLAN_SEGMENT]
    for slot in range(array, array + count):
        instance = mem[slot]
        if instance != 0:
            if instance < 0 or instance > len(mem) - size:
                return 8
            module = mem[instance + MODULE]
            table_size = mem[instance + TABLE_SIZE]
            segment = mem[instance + SEGMENT_LENGTH]
            if module < 0 or module >= plan[PLAN_MODULES] or mem[instance + GLOBALS_COUNT] != plan[PLAN_GLOBALS]:
                return 8
            if table_size < 0 or table_size > plan[PLAN_TABLE_MAX] or (segment != 0 and segment != plan[PLAN_SEGMENT]):
                return 8
            if add_block(mem, scratch, instance, instance + size + (size & 1)) != 0:
                return 8
            add_span(mem, scratch, instance + CELLS, instance + size)
            if table_size != 0:
                elements = mem[instance + TABLE_ELEMENTS]
                if elements < 0 or elements > len(mem) - table_size:
                    return 8
                if add_block(mem, scratch, elements, elements + table_size + (table_size & 1)) != 0:
                    return 8
                add_span(mem, scratch, elements, elements + table_size)
    return 0


def audit_quarantine(mem: Words, scratch: Words) -> int:
    """Audit the quarantined blocks (8)."""
    heap_end = mem[HEAP_END]
    count = mem[QUARANTINE]
    if count < 0 or count > QUARANTINE_MAX:
        # The word after the last entry that there can be is 0.
        count = QUARANTINE_MAX
    for entry in range(QUARANTINE_ENTRIES, QUARANTINE_ENTRIES + count * QUARANTINED_WORDS, QUARANTINED_WORDS):
        address = mem[entry]
        size = mem[entry + QUARANTINED_SIZE]
        if address == 0:
            return 0
        if size < 0 or size > heap_end or address < 0 or address > heap_end - size:
            return 8
        if any_but_poison(mem[address : address + size]) != 0:
            return 8
        if size != 0 and add_block(mem, scratch, address, address + size + (size & 1)) != 0:
            return 8
    return 0


def audit_value(mem: Words, plan: Words, scratch: Words, externref: int) -> int:
    """Audit an object's footer and the alignment of its value (8)."""
    if externref < mem[HEAP_START] or externref > mem[HEAP_END] - (VTABLE + 1):
        return 8
    offset = mem[externref + VTABLE] - mem[VTABLES]
    if offset < 0 or offset >= plan[PLAN_VTABLE_WORDS]:
        return 8
    shape = plan[PLAN_SHAPES] + offset * SHAPE_WORDS
    footer = plan[shape + SHAPE_FOOTER]
    value = externref - footer
    if footer < 0 or mem[externref + VALUE_PTR] != value or value & plan[shape + SHAPE_ALIGN_MASK] != 0:
        return 8
    if plan[shape + SHAPE_FIELDS] != 0:
        add_span(mem, scratch, value, value + plan[shape + SHAPE_FIELDS])
    return add_block(mem, scratch, value, value + plan[shape + SHAPE_BLOCK])


def audit_tiling(mem: Words, scratch: Words) -> int:
    """Audit that the blocks cover the heap and no word twice (8).

    They do exactly if each begins where another ends, so that the way from the heap's start to its end visits them all.
    """
    ends = scratch[SCRATCH_ENDS]
    heap_end = mem[HEAP_END]
    address = mem[HEAP_START]
    visited = 0
    while address < heap_end:
        if scratch[address] <= ends:
            return 8
        address = scratch[address] - ends
        visited += 1
    if visited != scratch[SCRATCH_BLOCKS]:
        return 8
    return 0
