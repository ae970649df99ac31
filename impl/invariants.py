"""Nine numbered invariants say what a memory looks like after every operation, and `check` finds the first that is broken.

1. The count of a reference is the number of its owners: the host, references in flight, values, globals, segments, tables, and
   one for each entry of the activations table, as multisets. An owner owns something that exists.
2. No count is zero outside the destruction of its value, and what is under destruction exists no more.
3. Slots of the chunk are in use up to the bump finger and null from there on, and the finger stays at the end during a sweep.
4. The precise set, and the one that a sweep empties, are empty outside a collection.
5. Every live local is in the chunk or in a set that the next sweep does not release.
6. Sets have no duplicates, count their members, and find what they hold.
7. Registered ranges are disjoint and sorted, and so are the entries of each module, which lie in its range.
8. The heap is exactly tiled by free blocks and known allocations, which are aligned and say what they are; free words are
   poisoned, and words below the stack pointer are zero.
9. No borrow is left taken: no collection, no reference in flight and no destruction between operations, and a canary
   exactly while a frame from which the host called Wasm is on the stack.

The check reads the words by itself and shares with the functions that it checks only the names of fields, and the search of
a set in (6), which is what (6) is about.
Most operations change few words, so each part of a memory is read again only if its words differ from those in which it was last
found sound; see `impl.memo`. What is found is a function of the arguments alone.
Inside a destructor, `nested`, the rules are those of a sweep under way: the finger is at the end, the precise set is the next
table, and what the sweep has yet to release keeps nothing alive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from impl.activations_table import COLLECTING, STACK_CANARY
from impl.checked import CheckedMemory
from impl.config import Config
from impl.errors import InvariantViolated
from impl.header import HEAP_END, HEAP_START, TABLE
from impl.inspection import (
    read_fixed,
    read_free,
    read_header,
    read_instances,
    read_quarantine,
    read_registry,
    read_stack,
    read_table,
    read_value,
)
from impl.memo import Memo, Span, Words, cut, memo_for, unchanged

# Up to this many pairs of an object and an owned word, searching the list beats building a table of counts.
PAIRS_FEW: Final = 600

# How to read the parts of a memo, in their order.
READERS: Final = (read_free, read_table, read_fixed, read_registry, read_instances, read_quarantine)

# The parts of what `check_counts` counts, in its order.
PART_NAMES: Final = (
    "in flight",
    "in globals, tables and segments",
    "in values",
    "in the chunk",
    "in the over-approximated set",
    "in the precise set",
    "in the set being swept",
)


def check(
    mem: memoryview[int] | CheckedMemory,
    config: Config,
    owners: Mapping[int, int],
    live: Sequence[int],
    nested: bool,
) -> None:
    """Check all invariants of a memory.

    Args:
        mem: A memory that a `Runtime` of this configuration uses. It is only read, below the shadow of a checked one.
        config: The configuration.
        owners: For every object that should exist and is not under destruction, how many references the host holds.
        live: Addresses in live locals of any activation, in any order; null ones may be left out.
        nested: Whether this is inside a destructor.

    Raises:
        InvariantViolated: The first invariant that does not hold, with what was found and what was expected.

    Complexity: linear in the words of the memory, with a very small factor for those that have not changed since they were sound.
    """
    view = mem.words if isinstance(mem, CheckedMemory) else mem
    memo = memo_for(view, config)
    try:
        check_words(memo, owners, live, nested)
    except (IndexError, ValueError):
        memo.forget()
        raise InvariantViolated(8, "a word that should be an address leads out of the memory in use") from None
    except BaseException:
        # Some parts have been read again, and others not: together they are no sound memory.
        memo.forget()
        raise


def check_words(memo: Memo, owners: Mapping[int, int], live: Sequence[int], nested: bool) -> None:
    """Check all invariants; see `check`. An address that leads out of the memory is an IndexError or a ValueError."""
    view = memo.view
    if not unchanged(memo.stack.pieces):
        if not unchanged(memo.addresses):
            read_header(memo)
        read_stack(memo)

    table = view[TABLE]
    collecting = view[table + COLLECTING]
    dying = memo.dying
    if view[table + STACK_CANARY] != memo.canary:
        text = f"the canary is {view[table + STACK_CANARY]}, expected {memo.canary}: the oldest entry frame's, or none"
        raise InvariantViolated(9, text)
    if not nested and (collecting or dying or any(memo.in_flight)):
        raise InvariantViolated(9, borrows_text(collecting, memo.in_flight, dying))
    if dying and not owners.keys().isdisjoint(dying):
        raise InvariantViolated(2, f"of {list(dying)}, which are under destruction, some are said to exist")

    # The loop of `unchanged`, without a call for each part. Each part depends on its own pieces and on the addresses alone.
    parts = memo.parts
    for part in parts:
        for piece, window in part.pieces:
            if not piece.startswith(window):
                READERS[parts.index(part)](memo)
                break
    externrefs = [*owners, *dying]
    if externrefs != memo.externrefs or not unchanged(memo.objects.pieces):
        read_values(memo, externrefs)
    if memo.opened:
        check_tiling(memo)

    check_counts(memo, owners)
    if live:
        unprotected = set(live).difference(memo.over, memo.precise if collecting else memo.chunk)
        unprotected.discard(0)
        if unprotected:
            raise InvariantViolated(5, f"live locals hold {sorted(unprotected)}, which the next sweep may release")


def read_values(memo: Memo, externrefs: Words) -> None:
    """Check the objects (8), those of them that have changed or were none before."""
    owned: Words = []
    words: list[Span] = []
    starts: Words = []
    ends: Words = []
    find = memo.values.get
    for externref in externrefs:
        value = find(externref)
        if value is None or not unchanged(value.pieces):
            value = read_value(memo, externref)
        words += value.spans
        start, end = value.span
        starts.append(start)
        ends.append(end)
        owned += value.fields
    memo.externrefs = externrefs
    memo.objects.pieces = cut(memo.view, words)
    memo.replace(memo.objects, starts, ends)
    if owned != memo.owned:
        memo.owned = owned
        memo.held = None


def check_tiling(memo: Memo) -> None:
    """Check that the blocks cover the heap and no word twice (8).

    As every block ends after it starts, they do exactly if all starts and the heap's end are the same multiset as all ends and
    the heap's start. That was so of the blocks of the last check, so it is so of these if and only if the starts of new blocks
    and the ends of those that are gone are the same multiset as the ends of new blocks and the starts of those that are gone.
    """
    view = memo.view
    opened, closed = memo.opened, memo.closed
    opened.sort()
    closed.sort()
    if opened == closed:
        memo.opened, memo.closed = [], []
        return
    expected = view[HEAP_START]
    for start, end in memo.spans():
        if start != expected:
            break
        expected = end
    else:
        start = view[HEAP_END]
    if start > expected:
        raise InvariantViolated(8, f"words {expected}..{start} of the heap are neither free nor anybody's")
    raise InvariantViolated(8, f"the block at {start} begins inside one that ends at {expected}, or out of the heap")


def check_counts(memo: Memo, owners: Mapping[int, int]) -> None:
    """Check that each count is the number of owners (1) and not zero (2), and that every owned word leads to an object (1)."""
    view = memo.view
    dying = memo.dying
    held = memo.held
    if held is None:
        held = memo.held = [*memo.in_flight, *memo.cells, *memo.owned, *memo.chunk, *memo.over, *memo.precise, *memo.sweeping]
    if len(owners) * len(held) <= PAIRS_FEW:
        count = held.count
    else:
        count = Counter(held).__getitem__
    known = count(0)
    for externref, by_host in owners.items():
        entries = count(externref)
        known += entries
        expected = entries + by_host
        if view[externref] != expected:
            raise InvariantViolated(1, count_text(memo, externref, by_host))
        if not expected:
            raise InvariantViolated(2, f"object {externref} has count 0, no owner, and is not under destruction")
    for externref in dying:
        entries = count(externref)
        known += entries
        if view[externref] != entries:
            raise InvariantViolated(1, count_text(memo, externref, 0))
    if known != len(held):
        dangling = sorted(set(held) - {0} - owners.keys() - set(dying))
        raise InvariantViolated(1, f"{dangling} are owned as references, and no such objects exist")


def count_text(memo: Memo, externref: int, by_host: int) -> str:
    """Say where the owners of an object are."""
    view = memo.view
    parts = (memo.in_flight, memo.cells, memo.owned, memo.chunk, memo.over, memo.precise, memo.sweeping)
    found = [(list(part).count(externref), name) for part, name in zip(parts, PART_NAMES, strict=True)]
    expected = by_host + sum(count for count, _ in found)
    where = [f"{by_host} held by the host", *(f"{count} {name}" for count, name in found if count)]
    return f"object {externref} has count {view[externref]}, expected {expected}: {', '.join(where)}"


def borrows_text(collecting: int, in_flight: Sequence[int], dying: Sequence[int]) -> str:
    """Say what is under way between two operations."""
    flying = [word for word in in_flight if word]
    return f"between operations: collecting {collecting}, in flight {flying}, under destruction {list(dying)}; expected nothing"
