"""The identity of a joint state under symmetry, as a row of words that compiled code can write.

It is the row that `fuzz.states` describes a state with, word for word: what both sides say without names and without the addresses
of values, then the values in an order that depends on neither. `fuzz.states` says why that is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from impl.activations_table import CHUNK, CHUNK_LENGTH, OVER, TABLE_WORDS
from impl.arena import FREE_NEXT
from impl.externref import REF_COUNT, VALUE_PTR, VTABLE
from impl.hash_set import BUCKETS, CAPACITY
from impl.header import (
    FAIL_AFTER,
    FRAME_POINTER,
    FREE_LIST,
    HEADER_WORDS,
    INSTANCES,
    REGISTRY,
    STACK_HIGH,
    SWEEP_ORDER,
    TABLE,
    VERDICT,
    WALK_LIMIT,
)
from impl.instance import CELLS, TABLE_ELEMENTS, TABLE_SIZE
from impl.stack import SIZE
from impl.stack_maps import MODULE_WORDS, MODULES, MODULES_COUNT, REGISTRY_WORDS
from model.limits import DEFERRED, HEADER, LEAKED, LIVE, Limits

if TYPE_CHECKING:
    from impl.scan import Words

NAME: Final = -3
"""Stands for a name, or a reference, where the order of names is not to be seen."""
MEMORY_POSITION: Final = 1 << 20
"""Positions of words of the memory begin here, and those of the model's cells at 0."""
IN_SET: Final = -1
"""The position of whatever is a member of the over-approximated set: the order of its buckets is not to be seen."""
KNOWN: Final = 5
"""What is known of a value that does not depend on others: roots, leaked and deferred, forgotten, vtable, count."""

# Words of the scratch. Behind them it has, for each address, a mark that says which value lies there: the value's name above `BASE`,
# which is larger than all marks of earlier descriptions. Behind the marks, the rows that `places` names.
BASE: Final = 0
SEEN_COUNT: Final = 1


def described_words(limits: Limits, memory_words: int) -> int:
    """Return how many words a description has at most."""
    size = limits.shape.size + memory_words + 4 * limits.instances
    return 2 * size + (KNOWN + 4 + 2 * limits.fields) * limits.objects + 8


def canonical_scratch_words(limits: Limits, memory_words: int) -> int:
    """Return how many words of scratch `describe` needs."""
    size = limits.shape.size + memory_words + 4 * limits.instances
    return memory_words + 3 * size + (KNOWN + 8 + 6 * limits.fields) * limits.objects


def describe(mem: Words, state: Words, addresses: Words, forgotten: Words, limits: Limits, out: Words, scratch: Words) -> int:
    """Write what is the same of two joint states exactly if they differ by a permutation of values alone.

    Args:
        mem: A sound memory, between two operations.
        state: The model's state.
        addresses: For each name its reference; only those of living values are read.
        forgotten: For each name how often the host has forgotten it.
        limits: Bounds of the run.
        out: `described_words` words.
        scratch: `canonical_scratch_words` words, zero at first, and used for descriptions under these limits alone.

    Returns:
        How many words of `out` were written.

    Complexity: linear in the words in use, and quadratic in the living values. If values own values, also linear in the orders
    of those that nothing else tells apart.
    """
    base = scratch[BASE] + limits.objects
    scratch[BASE] = base
    scratch[SEEN_COUNT] = 0
    for name in range(limits.objects):
        if state[LIVE] >> name & 1 != 0:
            scratch[addresses[name]] = base + name
    length = put_state(mem, state, limits, out, scratch)
    length = put_memory(mem, limits, out, length, scratch)
    see_set(mem, scratch)
    count = put_blocks(mem, state, addresses, limits, out, length, scratch)
    length += 1 + 2 * count
    list_marks(mem, state, addresses, forgotten, limits, scratch)
    order_names(mem, state, limits, scratch)
    starts = starts_at(mem, limits)
    lists = lists_at(mem, limits)
    order = order_at(mem, limits)
    for rank in range(count):
        name = scratch[order + rank]
        first = scratch[starts + name]
        size = scratch[starts + name + 1] - first
        out[length] = size
        for index in range(size):
            out[length + 1 + index] = scratch[lists + first + index]
        length += 1 + size
    if limits.fields != 0 and count != 0:
        length = put_fields(mem, state, addresses, limits, count, out, length, scratch)
    return length


# --- rows of the scratch


def starts_at(mem: Words, limits: Limits) -> int:
    """Where the scratch has, for each name, the index of its first mark; behind the pairs of a name and a position."""
    return len(mem) + 2 * (limits.shape.size + len(mem) + 4 * limits.instances)


def lists_at(mem: Words, limits: Limits) -> int:
    """Where the scratch has the marks of all values, name by name."""
    return starts_at(mem, limits) + limits.objects + 1


def order_at(mem: Words, limits: Limits) -> int:
    """Where the scratch has the order of the living values, then the rank of each name, then what they own, and the best of that."""
    return lists_at(mem, limits) + limits.shape.size + len(mem) + 4 * limits.instances + (KNOWN + 1) * limits.objects


# --- what does not depend on names


def see(mem: Words, scratch: Words, name: int, position: int) -> None:
    """Note that a value was seen at a position."""
    pair = len(mem) + 2 * scratch[SEEN_COUNT]
    scratch[pair] = name
    scratch[pair + 1] = position
    scratch[SEEN_COUNT] += 1


def put_state(mem: Words, state: Words, limits: Limits, out: Words, scratch: Words) -> int:
    """Write the model's state without names; return the length so far."""
    shape = limits.shape
    for index in range(HEADER):
        out[1 + index] = state[index]
    out[1 + LIVE] = 0
    out[1 + LEAKED] = 0
    out[1 + DEFERRED] = 0
    length = 1 + HEADER
    for index in range(shape.globals, shape.slots_end):
        cell = state[index]
        if cell >= 0:
            see(mem, scratch, cell, index - shape.globals)
            cell = NAME
        out[length] = cell
        length += 1
    for index in range(shape.slots_end, shape.size):
        out[length] = state[index]
        length += 1
    out[0] = length - 1
    return length


def put_run(mem: Words, start: int, end: int, first: int, out: Words, length: int, scratch: Words) -> int:
    """Write the words ``[start, end)`` of the memory without references; `first` is where the memory's words begin in `out`."""
    base = scratch[BASE]
    for address in range(start, end):
        word = mem[address]
        if HEADER_WORDS <= word < len(mem) and scratch[word] >= base:
            see(mem, scratch, scratch[word] - base, MEMORY_POSITION + length - first)
            word = NAME
        out[length] = word
        length += 1
    return length


def put_memory(mem: Words, limits: Limits, out: Words, length: int, scratch: Words) -> int:
    """Write the words of the memory that say more than names do: stack, table, instances, registry, and what is free."""
    first = length + 1
    fp = mem[FRAME_POINTER]
    table = mem[TABLE]
    chunk = mem[table + CHUNK]
    registry = mem[REGISTRY]
    modules = mem[registry + MODULES]
    array = mem[INSTANCES]
    cells = CELLS + limits.globals + limits.segment
    at = put_run(mem, fp - mem[fp + SIZE], mem[STACK_HIGH], first, out, first, scratch)
    at = put_run(mem, table, table + TABLE_WORDS, first, out, at, scratch)
    at = put_run(mem, chunk, chunk + mem[table + CHUNK_LENGTH], first, out, at, scratch)
    for slot in range(array, array + limits.instances):
        at = put_run(mem, slot, slot + 1, first, out, at, scratch)
        instance = mem[slot]
        if instance != 0:
            elements = mem[instance + TABLE_ELEMENTS]
            at = put_run(mem, instance, instance + cells, first, out, at, scratch)
            at = put_run(mem, elements, elements + mem[instance + TABLE_SIZE], first, out, at, scratch)
    at = put_run(mem, registry, registry + REGISTRY_WORDS, first, out, at, scratch)
    at = put_run(mem, modules, modules + mem[registry + MODULES_COUNT] * MODULE_WORDS, first, out, at, scratch)
    at = put_run(mem, FAIL_AFTER, FAIL_AFTER + 1, first, out, at, scratch)
    at = put_run(mem, WALK_LIMIT, WALK_LIMIT + 1, first, out, at, scratch)
    at = put_run(mem, SWEEP_ORDER, SWEEP_ORDER + 1, first, out, at, scratch)
    at = put_run(mem, VERDICT, VERDICT + 1, first, out, at, scratch)
    block = mem[FREE_LIST]
    while block != 0:
        # Negative: a size may be the same number as a reference.
        out[at] = -block
        out[at + 1] = -mem[block]
        at += 2
        block = mem[block + FREE_NEXT]
    out[length] = at - first
    return at


def see_set(mem: Words, scratch: Words) -> None:
    """Note who is a member of the over-approximated set."""
    over = mem[TABLE] + OVER
    buckets = mem[over + BUCKETS]
    for bucket in range(buckets, buckets + mem[over + CAPACITY]):
        if mem[bucket] != 0:
            see(mem, scratch, scratch[mem[bucket]] - scratch[BASE], IN_SET)


def put_blocks(mem: Words, state: Words, addresses: Words, limits: Limits, out: Words, length: int, scratch: Words) -> int:
    """Write where values lie, of which layout, in the order of their addresses; return how many values live."""
    order = order_at(mem, limits)
    count = 0
    for name in range(limits.objects):
        if state[LIVE] >> name & 1 != 0:
            place = order + count
            while place > order and scratch[place - 1] > addresses[name]:
                scratch[place] = scratch[place - 1]
                place -= 1
            scratch[place] = addresses[name]
            count += 1
    out[length] = count
    for index in range(count):
        out[length + 1 + 2 * index] = scratch[order + index]
        out[length + 2 + 2 * index] = mem[scratch[order + index] + VTABLE]
    return count


# --- the order of values


def list_marks(mem: Words, state: Words, addresses: Words, forgotten: Words, limits: Limits, scratch: Words) -> None:
    """List for each living value what is known of it and where it was seen, in the order in which it was seen."""
    starts = starts_at(mem, limits)
    lists = lists_at(mem, limits)
    ends = order_at(mem, limits)
    objects = limits.objects
    for name in range(objects):
        scratch[ends + name] = 0
    for index in range(scratch[SEEN_COUNT]):
        scratch[ends + scratch[len(mem) + 2 * index]] += 1
    start = 0
    for name in range(objects):
        size = scratch[ends + name]
        scratch[starts + name] = start
        if state[LIVE] >> name & 1 != 0:
            mark = lists + start
            scratch[mark] = state[limits.shape.roots + name]
            scratch[mark + 1] = state[LEAKED] >> name & 1 | (state[DEFERRED] >> name & 1) << 1
            scratch[mark + 2] = forgotten[name]
            scratch[mark + 3] = mem[addresses[name] + VTABLE]
            scratch[mark + 4] = mem[addresses[name] + REF_COUNT]
            start += KNOWN
        scratch[ends + name] = start
        start += size
    scratch[starts + objects] = start
    for index in range(scratch[SEEN_COUNT]):
        pair = len(mem) + 2 * index
        end = ends + scratch[pair]
        scratch[lists + scratch[end]] = scratch[pair + 1]
        scratch[end] += 1


def compare(mem: Words, limits: Limits, scratch: Words, a: int, b: int) -> int:
    """Compare the marks of two values as rows of numbers: below 0 if those of `a` come first, 0 if they are equal."""
    starts = starts_at(mem, limits)
    lists = lists_at(mem, limits)
    first_a = scratch[starts + a]
    first_b = scratch[starts + b]
    size_a = scratch[starts + a + 1] - first_a
    size_b = scratch[starts + b + 1] - first_b
    for index in range(min(size_a, size_b)):
        difference = scratch[lists + first_a + index] - scratch[lists + first_b + index]
        if difference != 0:
            return difference
    return size_a - size_b


def order_names(mem: Words, state: Words, limits: Limits, scratch: Words) -> None:
    """Sort the names of living values by their marks, and equal ones by name."""
    order = order_at(mem, limits)
    count = 0
    for name in range(limits.objects):
        if state[LIVE] >> name & 1 != 0:
            place = order + count
            while place > order and compare(mem, limits, scratch, scratch[place - 1], name) > 0:
                scratch[place] = scratch[place - 1]
                place -= 1
            scratch[place] = name
            count += 1


# --- who owns whom


def put_fields(mem: Words, state: Words, addresses: Words, limits: Limits, count: int, out: Words, length: int, scratch: Words) -> int:
    """Write who owns whom on both sides, by ranks in the order; ties in it are broken so that the result is the least."""
    if any_owned(mem, state, addresses, limits, count, scratch) == 0:
        return length
    size = count * 2 * limits.fields
    rank_fields(mem, limits, count, out, length, scratch)
    best = order_at(mem, limits) + 2 * limits.objects + 2 * limits.fields * limits.objects
    while next_order(mem, limits, count, scratch) != 0:
        for index in range(size):
            scratch[best + index] = out[length + index]
        rank_fields(mem, limits, count, out, length, scratch)
        index = 0
        while index < size and out[length + index] == scratch[best + index]:
            index += 1
        if index < size and out[length + index] > scratch[best + index]:
            for back in range(size):
                out[length + back] = scratch[best + back]
    return length + size


def any_owned(mem: Words, state: Words, addresses: Words, limits: Limits, count: int, scratch: Words) -> int:
    """List the names that each living value owns, those that the model says and those in the memory; return 1 if there is any."""
    order = order_at(mem, limits)
    owned = order + 2 * limits.objects
    base = scratch[BASE]
    found = 0
    for rank in range(count):
        name = scratch[order + rank]
        row = owned + name * 2 * limits.fields
        value = mem[addresses[name] + VALUE_PTR]
        for index in range(limits.fields):
            scratch[row + index] = state[limits.shape.fields + name * limits.fields + index]
            word = mem[value + index]
            scratch[row + limits.fields + index] = -1
            if HEADER_WORDS <= word < len(mem) and scratch[word] >= base:
                scratch[row + limits.fields + index] = scratch[word] - base
            if scratch[row + index] >= 0 or scratch[row + limits.fields + index] >= 0:
                found = 1
    return found


def rank_fields(mem: Words, limits: Limits, count: int, out: Words, length: int, scratch: Words) -> None:
    """Write the rank of each owned value, owner by owner in their order; -1 for none."""
    order = order_at(mem, limits)
    ranks = order + limits.objects
    owned = ranks + limits.objects
    width = 2 * limits.fields
    for name in range(limits.objects):
        scratch[ranks + name] = -1
    for rank in range(count):
        scratch[ranks + scratch[order + rank]] = rank
    for rank in range(count):
        row = owned + scratch[order + rank] * width
        for index in range(width):
            name = scratch[row + index]
            out[length + rank * width + index] = scratch[ranks + name] if name >= 0 else -1


def next_order(mem: Words, limits: Limits, count: int, scratch: Words) -> int:
    """Go on to the next order in which equal values are permuted; return 0 after the last, and the first is there again."""
    order = order_at(mem, limits)
    end = count
    while end > 0:
        start = end - 1
        while start > 0 and compare(mem, limits, scratch, scratch[order + start - 1], scratch[order + start]) == 0:
            start -= 1
        if next_permutation(scratch, order + start, order + end) != 0:
            return 1
        end = start
    return 0


def next_permutation(row: Words, start: int, end: int) -> int:
    """Permute ``[start, end)`` of different numbers to the next larger order; return 0 if there is none, and the least is there."""
    pivot = end - 2
    while pivot >= start and row[pivot] > row[pivot + 1]:
        pivot -= 1
    if pivot >= start:
        larger = end - 1
        while row[larger] < row[pivot]:
            larger -= 1
        row[pivot], row[larger] = row[larger], row[pivot]
    low = pivot + 1
    high = end - 1
    while low < high:
        row[low], row[high] = row[high], row[low]
        low += 1
        high -= 1
    if pivot >= start:
        return 1
    return 0
