"""Each inspection takes one structure out of the words, says which blocks are its own, and refuses it if it contradicts itself.

The numbers of what is refused are those of `impl.invariants`. It trusts no address: one that leads out of the memory ends in
an IndexError or a ValueError, which is a verdict to the caller. What it found goes into a memo, together with all the bytes that
decided it: whoever finds those bytes again need not inspect again.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Final

from impl.activations_table import CHUNK, COLLECTING, OVER, PRECISE, SWEEPING, TABLE_WORDS
from impl.errors import InvariantViolated
from impl.externref import REF_COUNT, VALUE_PTR, VTABLE
from impl.hash_set import CAPACITY, CURSOR_SHIFT, SET_WORDS, set_contains
from impl.header import (
    CODE,
    DOORBELL,
    FRAME_POINTER,
    FREE_LIST,
    HEADER_WORDS,
    HEAP_END,
    HEAP_START,
    INSTANCES,
    POISON,
    QUARANTINE,
    QUARANTINE_ENTRIES,
    QUARANTINE_MAX,
    QUARANTINED_WORDS,
    REGISTRY,
    STACK_HIGH,
    STACK_LOW,
    TABLE,
    VTABLES,
)
from impl.instance import CELLS
from impl.layout import WORD_BYTES
from impl.memo import VALUES_MAX, Memo, Span, Value, Words, bytes_of, cut
from impl.stack import BASE, DROP, ENTRY, FRAME_HEADER, HOST, SIZE, WASM
from impl.stack_maps import ENTRY_WORDS, MODULE_WORDS, REGISTRY_WORDS

HEADER_USED: Final = QUARANTINE_ENTRIES + QUARANTINE_MAX * QUARANTINED_WORDS
SETS_MAX: Final = 1024
MODULES_MAX: Final = 256
SIZES_MAX: Final = 64
STACKS_MAX: Final = 1024
BLOB_WORDS: Final = 4096
POISON_BLOB: Final = bytes_of([POISON]) * BLOB_WORDS
# A free block up to this size is one piece.
SMALL: Final = 32


def read_header(memo: Memo) -> None:
    """Check the words of the header that never change (8). If they did, all else is found anew."""
    view = memo.view
    memo.forget()
    if view[DOORBELL] or any(view[HEADER_USED:HEADER_WORDS]):
        raise InvariantViolated(8, "the verdict or a reserved word of the header is not zero")
    if view[STACK_LOW] != HEADER_WORDS:
        raise InvariantViolated(8, f"the stack begins at {view[STACK_LOW]}, expected {HEADER_WORDS}")
    if view[HEAP_END] > len(view):
        raise InvariantViolated(8, f"the heap ends at {view[HEAP_END]}, and the memory at {len(view)}")
    constant_spans = (DOORBELL, FREE_LIST), (STACK_LOW, FRAME_POINTER), (TABLE, QUARANTINE_ENTRIES), (HEADER_USED, HEADER_WORDS)
    memo.addresses = cut(view, constant_spans)
    # As if one block had covered the heap in a check before this one.
    memo.opened, memo.closed = [view[HEAP_END]], [view[HEAP_START]]


def read_free(memo: Memo) -> None:
    """Check the free list and the poison in its blocks (8). It depends on the word `FREE_LIST` and the blocks' words."""
    view = memo.view
    starts: Words = []
    ends: Words = []
    pieces = cut(view, [(FREE_LIST, FREE_LIST + 1)])
    previous = 0
    heap_end = view[HEAP_END]
    block = view[FREE_LIST]
    while block:
        size = view[block]
        end = block + size
        if block <= previous or size < 2 or end > heap_end:
            text = f"free block {block}..{end} follows one that ends at {previous}: not sorted, not coalesced, or not in the heap"
            raise InvariantViolated(8, text)
        inside = view[block + 2 : end]
        if not POISON_BLOB.startswith(inside) and inside.tobytes() != poison(size - 2):
            raise InvariantViolated(8, poison_text(view, block + 2, end))
        if size <= SMALL:
            window = view[block:end]
            pieces.append((window.tobytes(), window))
        else:
            # What is compared with the one blob need not be remembered.
            window = view[block : block + 2]
            pieces += ((window.tobytes(), window), (POISON_BLOB if size <= BLOB_WORDS else poison(size - 2), inside))
        starts.append(block)
        ends.append(end)
        previous = end
        block = view[block + 1]
    memo.free.pieces = pieces
    memo.replace(memo.free, starts, ends)


@lru_cache(maxsize=SIZES_MAX)
def poison(words: int) -> bytes:
    """Return so many words of poison."""
    return bytes_of([POISON]) * words


def poison_text(view: memoryview[int], start: int, end: int) -> str:
    """Say which free word holds what."""
    for address in range(start, end):
        if view[address] != POISON:
            return f"free word {address} holds {view[address]:#x}, expected {POISON:#x}"
    return f"free words {start}..{end} are not in the heap"


def read_stack(memo: Memo) -> None:
    """Walk the stack (8, 9): words of host frames, objects under destruction, where the canary must be.

    It depends on the frame pointer, on the words of the stack, and on where they end, which is among the memo's addresses.
    """
    view = memo.view
    fp = view[FRAME_POINTER]
    high = view[STACK_HIGH]
    sp = fp - view[fp + SIZE]
    if sp < HEADER_WORDS or not bytes((sp - HEADER_WORDS) * WORD_BYTES).startswith(view[HEADER_WORDS:sp]):
        raise InvariantViolated(8, f"words {HEADER_WORDS}..{sp} below the stack pointer are not all zero")
    memo.in_flight, memo.dying, memo.canary = frames(view[sp:high].tobytes(), fp, sp, high)
    memo.held = None
    # What else the header holds below and above the frame pointer comes with it: two pieces are compared faster than six.
    used = HEADER_USED if view[QUARANTINE] else QUARANTINE_ENTRIES
    memo.stack.pieces = cut(view, [(DOORBELL, FREE_LIST), (STACK_LOW, QUARANTINE_ENTRIES), (used, high)])


@lru_cache(maxsize=STACKS_MAX)
def frames(row: bytes, fp: int, sp: int, high: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Walk the frames in the words from the stack pointer on (8, 9). A function of its arguments alone; see `read_stack`."""
    words = memoryview(row).cast("Q").tolist()
    in_flight: Words = []
    dying: Words = []
    canary = guards = guard = 0
    at = fp - sp
    while True:
        link, _pc, kind, size, extra = words[at : at + FRAME_HEADER]
        if kind == HOST:
            if size:
                in_flight += words[at - size : at]
        elif kind == DROP:
            dying.append(words[at - size])
        elif kind == ENTRY:
            canary = at - size + sp
            guard = extra
            guards += extra
        elif kind != WASM:
            break
        # A link to a younger frame fails as well: no size is negative.
        if link - words[link - sp + SIZE] - FRAME_HEADER != at + sp:
            raise InvariantViolated(8, f"the frame at {at + sp} does not lie below its caller at {link}")
        at = link - sp
    if kind != BASE or link or at + sp + FRAME_HEADER != high:
        raise InvariantViolated(8, f"the frame at {at + sp} has kind {kind}, link {link}, and ends no stack")
    if guards != (1 if canary else 0) or guard != guards:
        raise InvariantViolated(9, f"{guards} guards reset the canary, and the oldest entry frame's is {guard}; expected that one")
    return tuple(in_flight), tuple(dying), canary


def read_table(memo: Memo) -> None:
    """Check the activations table (3, 4, 6). It depends on the words of its struct, its chunk and its sets' buckets."""
    view = memo.view
    capacity = memo.config.chunk
    table = view[TABLE]
    fields = view[table : table + TABLE_WORDS].tolist()
    memo.chunk = read_chunk(view, fields, capacity)
    chunk = fields[CHUNK]
    starts = [chunk]
    ends = [chunk + capacity + (capacity & 1)]
    memo.over = read_set(view, fields[OVER : OVER + SET_WORDS], starts, ends)
    memo.precise = read_set(view, fields[PRECISE : PRECISE + SET_WORDS], starts, ends)
    memo.sweeping = read_set(view, fields[SWEEPING : SWEEPING + SET_WORDS], starts, ends)
    if not fields[COLLECTING] and (memo.precise or memo.sweeping or fields[SWEEPING + CAPACITY]):
        text = f"outside a collection: precise set {list(memo.precise)}, swept set {list(memo.sweeping)}; both must be empty"
        raise InvariantViolated(4, text)
    memo.held = None
    memo.table.pieces = cut(view, [(table, table + TABLE_WORDS), *zip(starts, ends, strict=True)])
    memo.replace(memo.table, starts, ends)


def read_chunk(view: memoryview[int], fields: Words, capacity: int) -> Words:
    """Check the bump chunk (3); return the entries in it."""
    following, end, start, length = fields[:4]
    if length != capacity or end != start + length or not start <= following <= end:
        text = f"chunk at {start} of {length} slots with finger {following} and end {end}; expected {capacity} slots"
        raise InvariantViolated(3, text)
    slots = view[start:end].tolist()
    if fields[COLLECTING]:
        if following != end:
            raise InvariantViolated(3, f"the finger is {following} during a sweep, expected the chunk's end {end}")
        return [entry for entry in slots if entry]
    entries = slots[: following - start]
    if 0 in entries or any(slots[following - start :]):
        raise InvariantViolated(3, f"chunk {slots} with {following - start} slots in use; those are full and the others null")
    return entries


def read_set(view: memoryview[int], fields: Words, starts: Words, ends: Words) -> tuple[int, ...]:
    """Check a set (6); return its members."""
    buckets, capacity, length, seed = fields
    if capacity == 0:
        if buckets or length:
            raise InvariantViolated(6, f"a set without buckets has {length} members and its buckets at {buckets}")
        return ()
    end = buckets + capacity
    starts.append(buckets)
    ends.append(end)
    return set_members(view[buckets:end].tobytes(), capacity, length, seed)


@lru_cache(maxsize=SETS_MAX)
def set_members(row: bytes, capacity: int, length: int, seed: int) -> tuple[int, ...]:
    """Check the contents of a set (6); return its members in bucket order. A function of its arguments alone."""
    buckets = memoryview(row).cast("Q").tolist()
    members = tuple(filter(None, buckets))
    if capacity & (capacity - 1) or length >= capacity or len(buckets) != capacity:
        raise InvariantViolated(6, f"a set of {length} members has {capacity} buckets, expected a larger power of two")
    if len(members) != length or len(set(members)) != length:
        raise InvariantViolated(6, f"a set says that it has {length} members and holds {list(members)}")
    mem = [SET_WORDS, capacity, length, seed, *buckets]
    lost = [key for key in members if not set_contains(mem, 0, key)]
    if lost:
        raise InvariantViolated(6, f"a set holds {list(members)} and does not find {lost}")
    if any(buckets[: seed >> CURSOR_SHIFT]):
        raise InvariantViolated(6, f"a set that is being drained has members below its cursor {seed >> CURSOR_SHIFT}")
    return members


def read_fixed(memo: Memo) -> None:
    """Check the blocks that a configuration determines (8): structs, list of instances, vtables and images.

    It depends on the words of vtables and images, and on addresses that are among the memo's.
    """
    view = memo.view
    config, plan = memo.config, memo.plan
    table, registry, instances, vtables, code = view[TABLE : CODE + 1].tolist()
    constants: list[Span] = []
    if vtables:
        constants.append(constant(view, vtables, plan.vtables))
    if code:
        images = view[code : code + len(plan.images)].tolist()
        constants.append(constant(view, code, bytes_of(images)))
        constants += [constant(view, image, row) for image, row in zip(images, plan.images, strict=True)]
    spans = [(start, end + (end - start & 1)) for start, end in constants]
    if instances:
        spans.append((instances, instances + config.instances + (config.instances & 1)))
    spans += ((registry, registry + REGISTRY_WORDS + (REGISTRY_WORDS & 1)), (table, table + TABLE_WORDS + (TABLE_WORDS & 1)))
    # The padding is compared as well, which is no harm: nobody writes it.
    memo.fixed.pieces = cut(view, sorted(spans[: len(constants)]))
    memo.replace(memo.fixed, [start for start, _ in spans], [end for _, end in spans])


def constant(view: memoryview[int], address: int, row: bytes) -> Span:
    """Check that the memory has this row at this address (8)."""
    end = address + len(row) // WORD_BYTES
    if view[address:end].tobytes() != row:
        raise InvariantViolated(8, f"the vtables or module image at {address} are not those of the configuration")
    return address, end


def read_registry(memo: Memo) -> None:
    """Check the registered modules (7). It depends on the words of the struct, the array and the modules' entries."""
    view = memo.view
    registry = view[REGISTRY]
    modules, count, capacity, _reserved = view[registry : registry + REGISTRY_WORDS].tolist()
    if count > capacity or (modules != 0) != (capacity != 0):
        raise InvariantViolated(7, f"the registry has {count} modules in room for {capacity} at {modules}")
    spans = [(modules, modules + capacity * MODULE_WORDS)] if capacity else []
    previous = 0
    for module in range(modules, modules + count * MODULE_WORDS, MODULE_WORDS):
        start, end, entries, entry_count = view[module : module + MODULE_WORDS].tolist()
        if start < previous:
            raise InvariantViolated(7, f"the module {start}..{end} follows one that ends at {previous}")
        previous = end
        size = entry_count * ENTRY_WORDS
        check_entries(start, end, view[entries : entries + size].tobytes())
        spans.append((entries, entries + size + (size & 1)))
    memo.registry.pieces = cut(view, sorted([(registry, registry + REGISTRY_WORDS), *spans]))
    memo.replace(memo.registry, [start for start, _ in spans], [end for _, end in spans])


@lru_cache(maxsize=MODULES_MAX)
def check_entries(start: int, end: int, row: bytes) -> None:
    """Check the entries of one registered module (7). A function of its arguments alone."""
    entries = memoryview(row).cast("Q").tolist()
    pcs = entries[::ENTRY_WORDS]
    if not pcs or not start <= pcs[0] or not pcs[-1] < end or any(a >= b for a, b in itertools.pairwise(pcs)):
        raise InvariantViolated(7, f"the module {start}..{end} has entries at {list(pcs)}; not sorted, or out of range")
    if any(bits >> mapped for mapped, bits in zip(entries[1::ENTRY_WORDS], entries[2::ENTRY_WORDS], strict=True)):
        raise InvariantViolated(7, f"the module {start}..{end} has a mask with bits outside its words")


def read_instances(memo: Memo) -> None:
    """Check the instances (8): all words in which they own a reference or null.

    It depends on the words of the array, the instances and their elements, and the configuration.
    """
    view = memo.view
    config = memo.config
    cells: Words = []
    spans: list[Span] = []
    array = view[INSTANCES]
    size = CELLS + config.globals + config.segment
    end = array + config.instances if array else 0
    instances = view[array:end].tolist()
    for instance in instances:
        if instance == 0:
            continue
        words = view[instance : instance + size].tolist()
        module, globals_count, elements, table_size, segment = words[:CELLS]
        if (
            module >= max(1, len(config.modules))
            or globals_count != config.globals
            or table_size > config.table_max
            or segment not in (0, config.segment)
        ):
            text = f"instance {instance} says module {module}, {globals_count} globals, table {table_size}, segment {segment}"
            raise InvariantViolated(8, text)
        cells += words[CELLS:]
        spans.append((instance, instance + size + (size & 1)))
        if table_size:
            cells += view[elements : elements + table_size].tolist()
            spans.append((elements, elements + table_size + (table_size & 1)))
    memo.cells = cells
    memo.held = None
    memo.instances.pieces = cut(view, [(array, end), *spans])
    memo.replace(memo.instances, [start for start, _ in spans], [end for _, end in spans])


def read_value(memo: Memo, externref: int) -> Value:
    """Check an object's footer and the alignment of its value (8).

    It depends on the words of the block but the count, on the shapes, and on an address that is among the memo's.
    """
    view = memo.view
    value = view[externref + VALUE_PTR]
    vtable = view[externref + VTABLE]
    shape = memo.plan.shapes.get(vtable - view[VTABLES])
    if shape is None:
        raise InvariantViolated(8, f"object {externref} has its vtable at {vtable}, where none is")
    footer, size, align_mask, fields = shape
    if value + footer != externref or value & align_mask:
        text = f"object {externref} has its value at {value}, expected {externref - footer} aligned to {align_mask + 1} words"
        raise InvariantViolated(8, text)
    spans = [(value, externref), (externref + REF_COUNT + 1, value + size)]
    found = Value(cut(view, spans), spans, (value, value + size), view[value : value + fields].tolist() if fields else [])
    if len(memo.values) >= VALUES_MAX:
        memo.values.clear()
    memo.values[externref] = found
    return found


def read_quarantine(memo: Memo) -> None:
    """Check the quarantined blocks (8). It depends on the words of the entries and of the blocks."""
    view = memo.view
    spans: list[Span] = []
    heap_end = view[HEAP_END]
    end = QUARANTINE_ENTRIES + view[QUARANTINE] * QUARANTINED_WORDS
    for entry in range(QUARANTINE_ENTRIES, end, QUARANTINED_WORDS):
        address, size, _align = view[entry : entry + QUARANTINED_WORDS].tolist()
        if address == 0:
            break
        if address + size > heap_end or view[address : address + size].tobytes() != poison(size):
            raise InvariantViolated(8, poison_text(view, address, address + size))
        spans.append((address, address + size + (size & 1)))
    memo.quarantine.pieces = cut(view, [(QUARANTINE_ENTRIES, end), *spans]) if view[QUARANTINE] else []
    memo.replace(memo.quarantine, [start for start, _ in spans], [end for _, end in spans])
