"""A hash set of addresses whose bytes depend on its contents and capacity alone, not on how they came about.

Open addressing with linear probing in which the smaller key wins a contested bucket, and deletion that shifts back: the layout
of a given set of keys in a given number of buckets is unique, so equal sets are equal bytes and the order of the buckets is
an order of the contents. The seed's `HashSet` has neither property; nothing in the seed relies on their absence.

Source: Amble and Knuth, *Ordered hash tables* (1974); Blelloch and Golovin, *Strongly history-independent hashing* (2007).
"""

from __future__ import annotations

from typing import Final

from impl.arena import alloc, dealloc
from impl.header import Memory

# Fields of a set.
BUCKETS: Final = 0
CAPACITY: Final = 1
LENGTH: Final = 2
# The seed in the low 31 bits; above them, while `set_pop` drains the set, the first bucket that may be occupied.
SEED: Final = 3
SET_WORDS: Final = 4

SEED_MAX: Final = 0x7FFF_FFFF
CURSOR_SHIFT: Final = 32
CAPACITY_MIN: Final = 4

# An odd number near 2**32 divided by the golden ratio. Its product with a key below 2**31 stays below 2**63.
MULTIPLIER: Final = 0x9E37_79B1
# Bits from here on depend on all lower bits of a key, and on more of them than an address has in a heap of any size that is used.
HASH_SHIFT: Final = 24

# Alignment of the bucket array in words.
BUCKETS_ALIGN: Final = 1


def capacity_for(items: int) -> int:
    """Return the number of buckets for so many members: 0, or the least power of two that is filled to three quarters at most."""
    if items == 0:
        return 0
    capacity = CAPACITY_MIN
    while 4 * items > 3 * capacity:
        capacity += capacity
    return capacity


def set_init(mem: Memory, s: int, capacity_items: int, seed: int) -> None:
    """Make an empty set at `s`, which has `SET_WORDS` words.

    Args:
        mem: The memory.
        s: The set.
        capacity_items: How many members must fit without another allocation; 0 allocates nothing.
        seed: Any number; its low 31 bits decide the order of the buckets.

    Raises:
        ArenaExhausted: No room for the buckets.
    """
    capacity = capacity_for(capacity_items)
    mem[s + BUCKETS] = new_buckets(mem, capacity)
    mem[s + CAPACITY] = capacity
    mem[s + LENGTH] = 0
    mem[s + SEED] = seed & SEED_MAX


def new_buckets(mem: Memory, capacity: int) -> int:
    """Allocate `capacity` empty buckets and return their address; 0 for none."""
    if capacity == 0:
        return 0
    buckets = alloc(mem, capacity, BUCKETS_ALIGN)
    for bucket in range(buckets, buckets + capacity):
        mem[bucket] = 0
    return buckets


def set_insert(mem: Memory, s: int, key: int) -> int:
    """Insert a key; return 1 if it was absent, 0 if it was a member already (then nothing changes).

    Args:
        mem: The memory.
        s: The set.
        key: Not 0, and less than ``2**31``.

    Raises:
        ArenaExhausted: No room for more buckets; nothing was changed.

    Complexity: constant on average, linear when the buckets double.
    """
    length = mem[s + LENGTH]
    capacity = mem[s + CAPACITY]
    seed = mem[s + SEED]
    if seed > SEED_MAX:
        # The new key may belong below the cursor.
        seed &= SEED_MAX
        mem[s + SEED] = seed
    if 4 * (length + 1) > 3 * capacity:
        if set_contains(mem, s, key) != 0:
            return 0
        grow(mem, s, capacity, seed)
        capacity = mem[s + CAPACITY]
    if place(mem, mem[s + BUCKETS], capacity - 1, seed, key) == 0:
        return 0
    mem[s + LENGTH] = length + 1
    return 1


def place(mem: Memory, buckets: int, mask: int, seed: int, key: int) -> int:
    """Put a key into buckets of which at least one is empty; return 1, or 0 if the key is there already.

    A smaller key takes the bucket of a larger one, which then looks for another.
    """
    index = (((key ^ seed) * MULTIPLIER) >> HASH_SHIFT) & mask
    found = mem[buckets + index]
    while found != 0:
        if found >= key:
            if found == key:
                return 0
            mem[buckets + index] = key
            key = found
        index = (index + 1) & mask
        found = mem[buckets + index]
    mem[buckets + index] = key
    return 1


def grow(mem: Memory, s: int, capacity: int, seed: int) -> None:
    """Double the buckets, or make the first ones.

    The old ones are freed after the new ones are filled; no exception can come between.
    """
    larger = CAPACITY_MIN
    if capacity != 0:
        larger = capacity + capacity
    new = new_buckets(mem, larger)
    if capacity != 0:
        old = mem[s + BUCKETS]
        for bucket in range(old, old + capacity):
            key = mem[bucket]
            if key != 0:
                place(mem, new, larger - 1, seed, key)
        dealloc(mem, old, capacity, BUCKETS_ALIGN)
    mem[s + BUCKETS] = new
    mem[s + CAPACITY] = larger


def find(mem: Memory, buckets: int, mask: int, seed: int, key: int) -> int:
    """Return the address of the key's bucket, or 0 if it is not there.

    The search ends at a larger key already: it would not hold the bucket if the smaller one had wanted it.
    """
    index = (((key ^ seed) * MULTIPLIER) >> HASH_SHIFT) & mask
    found = mem[buckets + index]
    while found != 0 and found < key:
        index = (index + 1) & mask
        found = mem[buckets + index]
    if found == key:
        return buckets + index
    return 0


def set_contains(mem: Memory, s: int, key: int) -> int:
    """Return 1 if `key` is a member, else 0."""
    capacity = mem[s + CAPACITY]
    if capacity == 0 or find(mem, mem[s + BUCKETS], capacity - 1, mem[s + SEED] & SEED_MAX, key) == 0:
        return 0
    return 1


def set_remove(mem: Memory, s: int, key: int) -> int:
    """Remove a key; return 1 if it was a member, 0 if not. The buckets keep their number."""
    capacity = mem[s + CAPACITY]
    if capacity == 0:
        return 0
    buckets = mem[s + BUCKETS]
    seed = mem[s + SEED] & SEED_MAX
    bucket = find(mem, buckets, capacity - 1, seed, key)
    if bucket == 0:
        return 0
    length = mem[s + LENGTH] - 1
    mem[s + LENGTH] = length
    if length == 0:
        # An empty set has no cursor: equal sets are equal bytes.
        mem[s + SEED] = seed
    close_gap(mem, buckets, capacity - 1, seed, bucket - buckets)
    return 1


def close_gap(mem: Memory, buckets: int, mask: int, seed: int, gap: int) -> None:
    """Empty the bucket with index `gap`, and move back what would rather be there.

    The first later key that may move is also the smallest of those that may: it has won its bucket against all others of them.
    """
    index = gap
    while True:
        index = (index + 1) & mask
        key = mem[buckets + index]
        if key == 0:
            break
        home = (((key ^ seed) * MULTIPLIER) >> HASH_SHIFT) & mask
        if ((index - home) & mask) >= ((index - gap) & mask):
            mem[buckets + gap] = key
            gap = index
    mem[buckets + gap] = 0


def set_take(mem: Memory, s: int, n: int) -> int:
    """Remove the n-th member in the order of the buckets, and return it.

    Args:
        mem: The memory.
        s: A set of more than `n` members.
        n: From 0.

    Complexity: linear in the capacity.
    """
    bucket = mem[s + BUCKETS]
    key = mem[bucket]
    while key == 0 or n != 0:
        if key != 0:
            n -= 1
        bucket += 1
        key = mem[bucket]
    set_remove(mem, s, key)
    return key


def set_pop(mem: Memory, s: int) -> int:
    """Remove the first member in the order of the buckets, and return it; the set is not empty.

    Complexity: constant, amortised over a drain: the upper half of `SEED` remembers how far the buckets are empty. An insertion,
    or the removal of the last member, forgets that.
    """
    buckets = mem[s + BUCKETS]
    capacity = mem[s + CAPACITY]
    word = mem[s + SEED]
    seed = word & SEED_MAX
    index = word >> CURSOR_SHIFT
    key = mem[buckets + index]
    while key == 0:
        index += 1
        key = mem[buckets + index]
    length = mem[s + LENGTH] - 1
    mem[s + LENGTH] = length
    if length == 0:
        mem[buckets + index] = 0
        mem[s + SEED] = seed
    else:
        close_gap(mem, buckets, capacity - 1, seed, index)
        mem[s + SEED] = (index << CURSOR_SHIFT) | seed
    return key


def set_free(mem: Memory, s: int) -> None:
    """Free the buckets; the set is empty, has capacity 0, and may be used again."""
    capacity = mem[s + CAPACITY]
    if capacity != 0:
        dealloc(mem, mem[s + BUCKETS], capacity, BUCKETS_ALIGN)
    mem[s + BUCKETS] = 0
    mem[s + CAPACITY] = 0
    mem[s + LENGTH] = 0
    mem[s + SEED] = mem[s + SEED] & SEED_MAX


def set_swap(mem: Memory, a: int, b: int) -> None:
    """Exchange two sets: four words each, whatever their size."""
    for field in range(SET_WORDS):
        word = mem[a + field]
        mem[a + field] = mem[b + field]
        mem[b + field] = word
