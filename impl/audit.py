"""An audit finds what `impl.invariants.check` finds, from the words alone: no memo, no Python object, so that it can be compiled.

It answers with a number: 0 if the memory is sound, or that of the first invariant that is broken, in the order in which `check`
looks for them with an empty memo. Sound or not is the same answer always. The number is the same unless a member of a set has
all 64 bits (6 here, there 1 if its search happens to end well), or several words are wrong at once: a run that leaves the memory
is cut short there, which is noticed late, and not read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from impl.activations_table import CHUNK, COLLECTING, OVER, PRECISE, STACK_CANARY, SWEEPING, TABLE_WORDS
from impl.arena import block_words, snapshot
from impl.audit_parts import (
    PLAN_CHUNK,
    PLAN_HEAD,
    SCRATCH_BLOCKS,
    SCRATCH_CANARY,
    SCRATCH_COUNTS,
    SCRATCH_DYING,
    SCRATCH_ENDS,
    SCRATCH_IN_FLIGHT,
    SCRATCH_LAST,
    SCRATCH_SEEN,
    SCRATCH_SPANS,
    SHAPE_WORDS,
    add_span,
    audit_fixed,
    audit_free,
    audit_instances,
    audit_quarantine,
    audit_registry,
    audit_table,
    audit_tiling,
    audit_value,
)
from impl.externref import VTABLE, VTABLE_WORDS
from impl.hash_set import BUCKETS, CAPACITY
from impl.header import (
    CODE,
    DOORBELL,
    FRAME_POINTER,
    HEADER_WORDS,
    HEAP_END,
    HEAP_START,
    QUARANTINE_ENTRIES,
    QUARANTINE_MAX,
    QUARANTINED_WORDS,
    STACK_HIGH,
    STACK_LOW,
    TABLE,
    VTABLES,
)
from impl.layout import WORD_SHIFT, layout_for
from impl.scan import any_set
from impl.stack import BASE, DROP, ENTRY, EXTRA, FRAME_HEADER, HOST, KIND, LINK, SIZE
from impl.stack_maps import image_row
from impl.store import make_memory

if TYPE_CHECKING:
    from impl.config import Config
    from impl.scan import Words

HEADER_USED: Final = QUARANTINE_ENTRIES + QUARANTINE_MAX * QUARANTINED_WORDS
# Of every object that a caller may name, at least so many words lie in the heap.
OBJECT_WORDS_MIN: Final = VTABLE + 1


def plan_of(config: Config) -> list[int]:
    """Return what an audit must know of a configuration, as one row of words; `impl.audit_parts` names the first of them.

    Raises:
        AllocationFailed, ArenaExhausted, StackExhausted: No store has this configuration; see `impl.store.make_memory`.
    """
    mem = memoryview(snapshot(make_memory(config, checked=False))).cast("Q")
    start = fixed_end = mem[HEAP_START]
    if config.layouts:
        fixed_end = mem[VTABLES] + block_words(VTABLE_WORDS * len(config.layouts))
    if config.modules:
        fixed_end = mem[CODE] + block_words(len(config.modules))
    bounds = (config.chunk, config.instances, config.globals, config.segment, config.table_max, max(1, len(config.modules)))
    fixed = mem[start:fixed_end].tolist()
    vtables: list[int] = []
    shapes: list[int] = []
    for size_bytes, align_bytes, fields in config.layouts:
        block_bytes, block_align_bytes, footer_bytes = layout_for(size_bytes, align_bytes)
        vtables += (size_bytes, align_bytes, fields)
        block = block_words(block_bytes >> WORD_SHIFT)
        shapes += (footer_bytes >> WORD_SHIFT, block, (block_align_bytes >> WORD_SHIFT) - 1, fields)
        shapes += [-1] * (SHAPE_WORDS * (VTABLE_WORDS - 1))
    images = [image_row(module) for module in config.modules]
    vtables_at = PLAN_HEAD + len(fixed)
    spans_at = vtables_at + len(vtables)
    images_at = spans_at + 2 * len(images)
    spans: list[int] = []
    rows: list[int] = []
    for image in images:
        spans += (images_at + len(rows), len(image))
        rows += image
    head = [*bounds, len(images), len(vtables), start, mem[VTABLES], mem[CODE], fixed_end]
    head += (PLAN_HEAD, vtables_at, spans_at, images_at + len(rows))
    return head + fixed + vtables + spans + rows + shapes


def scratch_words(config: Config) -> int:
    """Return how many words of scratch an audit of this configuration needs."""
    memory = HEADER_WORDS + config.stack_words + (config.stack_words & 1) + config.heap_words
    # A mark for each word, then objects under destruction, then bounds of spans: one for each frame, each object, and two for
    # each instance. Frames and objects lie in the memory and have several words.
    return 4 * memory + 4 * config.instances


def audit(
    mem: Words,
    plan: Words,
    owners: Words,
    owners_count: int,
    live: Words,
    live_count: int,
    nested: int,
    scratch: Words,
) -> int:
    """Audit all invariants of a memory; see `impl.invariants`.

    Args:
        mem: A memory of the plan's configuration. It is only read.
        plan: `plan_of` the configuration.
        owners: For every object that should exist and is not under destruction its address, which no other has, and after that
            how many references the host holds, at least 0.
        owners_count: How many such pairs.
        live: Addresses in live locals of any activation, in any order; 0 and repetitions are allowed.
        live_count: How many of them.
        nested: Whether this is inside a destructor: 0 or 1.
        scratch: `scratch_words` words. They are zero before the first audit, and belong to audits of memories of this one
            configuration from then on. What is left in them changes no answer.

    Returns:
        0 if the memory is sound, else the number of the first invariant that is broken.

    Complexity: linear in the words of the memory.
    """
    bad = audit_header(mem)
    if bad == 0:
        bad = audit_stack(mem, scratch)
    if bad == 0:
        bad = audit_borrows(mem, nested, scratch)
    if bad == 0 and owners_count > len(mem) // OBJECT_WORDS_MIN:
        # They have no room in the memory.
        bad = 8
    if bad == 0 and scratch[SCRATCH_DYING] != 0:
        bad = audit_dying(mem, owners, owners_count, scratch)
    if bad == 0:
        bad = audit_free(mem, scratch)
    if bad == 0:
        bad = audit_table(mem, plan, scratch)
    if bad == 0:
        bad = audit_fixed(mem, plan, scratch)
    if bad == 0:
        bad = audit_registry(mem, scratch)
    if bad == 0:
        bad = audit_instances(mem, plan, scratch)
    if bad == 0:
        bad = audit_quarantine(mem, scratch)
    if bad == 0:
        bad = audit_values(mem, plan, owners, owners_count, scratch)
    if bad == 0:
        bad = audit_tiling(mem, scratch)
    if bad == 0:
        bad = audit_counts(mem, plan, owners, owners_count, live, live_count, scratch)
    return bad


def audit_header(mem: Words) -> int:
    """Audit the words of the header that never change (8)."""
    if mem[DOORBELL] != 0 or any_set(mem[HEADER_USED:HEADER_WORDS]) != 0 or mem[STACK_LOW] != HEADER_WORDS:
        return 8
    heap_start = mem[HEAP_START]
    heap_end = mem[HEAP_END]
    if heap_start < HEADER_WORDS or heap_end < heap_start or heap_end > len(mem):
        return 8
    return 0


def begin_marks(mem: Words, scratch: Words) -> None:
    """Choose the numbers of this audit's marks; none that is in the scratch has reached them."""
    # More than any address, and than words of stack and heap together that own a reference.
    step = 2 * len(mem)
    scratch[SCRATCH_SEEN] = scratch[SCRATCH_LAST] + step
    scratch[SCRATCH_ENDS] = scratch[SCRATCH_SEEN] + step
    scratch[SCRATCH_COUNTS] = scratch[SCRATCH_ENDS] + step
    scratch[SCRATCH_LAST] = scratch[SCRATCH_COUNTS]
    scratch[SCRATCH_BLOCKS] = 0
    scratch[SCRATCH_SPANS] = 0
    scratch[SCRATCH_DYING] = 0
    scratch[SCRATCH_CANARY] = 0
    scratch[SCRATCH_IN_FLIGHT] = 0


def audit_stack(mem: Words, scratch: Words) -> int:
    """Audit the frames (8, 9), and note what host frames own, what is under destruction and where the canary must be."""
    begin_marks(mem, scratch)
    high = mem[STACK_HIGH]
    at = mem[FRAME_POINTER]
    if high > len(mem) or high < HEADER_WORDS or at < HEADER_WORDS or at > high - FRAME_HEADER:
        return 8
    size = mem[at + SIZE]
    if size < 0 or size > at - HEADER_WORDS or any_set(mem[HEADER_WORDS : at - size]) != 0:
        return 8
    canary = guard = guards_younger = 0
    kind = mem[at + KIND]
    # All kinds but the base frame's, and no others.
    while HOST <= kind <= DROP:
        if kind == HOST and size != 0:
            add_span(mem, scratch, at - size, at)
            if any_set(mem[at - size : at]) != 0:
                scratch[SCRATCH_IN_FLIGHT] = 1
        elif kind == DROP:
            scratch[len(mem) + scratch[SCRATCH_DYING]] = mem[at - size]
            scratch[SCRATCH_DYING] += 1
        elif kind == ENTRY:
            guards_younger |= guard
            canary = at - size
            guard = mem[at + EXTRA]
        link = mem[at + LINK]
        if link < at + FRAME_HEADER or link > high - FRAME_HEADER:
            return 8
        size = mem[link + SIZE]
        if link - size - FRAME_HEADER != at:
            return 8
        at = link
        kind = mem[at + KIND]
    if kind != BASE or mem[at + LINK] != 0 or at + FRAME_HEADER != high:
        return 8
    if canary != 0 and (guard != 1 or guards_younger != 0):
        return 9
    scratch[SCRATCH_CANARY] = canary
    return 0


def audit_borrows(mem: Words, nested: int, scratch: Words) -> int:
    """Audit the canary, and what may be under way only inside a destructor (9)."""
    table = mem[TABLE]
    if table < 0 or table > len(mem) - TABLE_WORDS:
        return 8
    if mem[table + STACK_CANARY] != scratch[SCRATCH_CANARY]:
        return 9
    if nested == 0 and (mem[table + COLLECTING] != 0 or scratch[SCRATCH_DYING] != 0 or scratch[SCRATCH_IN_FLIGHT] != 0):
        return 9
    return 0


def audit_dying(mem: Words, owners: Words, owners_count: int, scratch: Words) -> int:
    """Audit that nothing under destruction is said to exist (2). Addresses that lie outside are left to others."""
    seen = scratch[SCRATCH_SEEN]
    for index in range(owners_count):
        externref = owners[2 * index]
        if HEADER_WORDS <= externref < len(mem):
            scratch[externref] = seen
    for index in range(scratch[SCRATCH_DYING]):
        externref = scratch[len(mem) + index]
        if HEADER_WORDS <= externref < len(mem) and scratch[externref] == seen:
            return 2
    return 0


def audit_values(mem: Words, plan: Words, owners: Words, owners_count: int, scratch: Words) -> int:
    """Audit the objects, those under destruction after the others (8)."""
    for index in range(owners_count):
        if audit_value(mem, plan, scratch, owners[2 * index]) != 0:
            return 8
    for index in range(scratch[SCRATCH_DYING]):
        if audit_value(mem, plan, scratch, scratch[len(mem) + index]) != 0:
            return 8
    return 0


def audit_counts(
    mem: Words,
    plan: Words,
    owners: Words,
    owners_count: int,
    live: Words,
    live_count: int,
    scratch: Words,
) -> int:
    """Audit counts (1, 2), that every owned word leads to an object (1), and that live locals are protected (5).

    Objects are known to lie in the heap and not to overlap, and so are the words that own them.
    """
    counts = scratch[SCRATCH_COUNTS]
    dying = len(mem)
    for index in range(owners_count):
        scratch[owners[2 * index]] = counts
    for index in range(scratch[SCRATCH_DYING]):
        scratch[scratch[dying + index]] = counts
    table = mem[TABLE]
    chunk = mem[table + CHUNK]
    # What the next sweep does not release comes first: so far, who has an owner is protected.
    lost = count_set(mem, scratch, table + OVER)
    if mem[table + COLLECTING] != 0:
        lost |= count_set(mem, scratch, table + PRECISE)
    else:
        lost |= count_span(mem, scratch, chunk, chunk + plan[PLAN_CHUNK])
    unprotected = 0
    for index in range(live_count):
        externref = live[index]
        if externref != 0 and (externref < HEADER_WORDS or externref >= len(mem) or scratch[externref] <= counts):
            unprotected = 1
    if mem[table + COLLECTING] != 0:
        lost |= count_span(mem, scratch, chunk, chunk + plan[PLAN_CHUNK]) | count_set(mem, scratch, table + SWEEPING)
    for index in range(scratch[SCRATCH_SPANS]):
        span = 2 * len(mem) + 2 * index
        lost |= count_span(mem, scratch, scratch[span], scratch[span + 1])

    for index in range(owners_count):
        externref = owners[2 * index]
        expected = scratch[externref] - counts + owners[2 * index + 1]
        if mem[externref] != expected:
            return 1
        if expected == 0:
            return 2
    for index in range(scratch[SCRATCH_DYING]):
        externref = scratch[dying + index]
        if mem[externref] != scratch[externref] - counts:
            return 1
    if lost != 0:
        return 1
    if unprotected != 0:
        return 5
    return 0


def count_set(mem: Words, scratch: Words, s: int) -> int:
    """Count the owners in a set's buckets; see `count_span`."""
    return count_span(mem, scratch, mem[s + BUCKETS], mem[s + BUCKETS] + mem[s + CAPACITY])


def count_span(mem: Words, scratch: Words, start: int, end: int) -> int:
    """Count each word in ``[start, end)`` that is not null as an owner; return 1 if one leads to no object, else 0."""
    counts = scratch[SCRATCH_COUNTS]
    lost = 0
    for address in range(start, end):
        externref = mem[address]
        if externref != 0:
            if HEADER_WORDS <= externref < len(mem) and scratch[externref] >= counts:
                scratch[externref] += 1
            else:
                lost = 1
    return lost
