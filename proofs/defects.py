"""Defective variants of impl's functions, each with its origin: what the obligations must be able to refute.

They are functions over a memory and words, as those of `impl` are, and run on ints as well, so that a witness can be replayed.
Where the defect is a word that wraps round, the wrapping is written out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from impl.activations_table import CHUNK, NEXT
from impl.errors import RegistrationRefused
from impl.externref import drop
from impl.stack_maps import END as MODULE_END
from impl.stack_maps import ENTRY_WORDS, PC
from impl.stack_maps import START as MODULE_START

if TYPE_CHECKING:
    from impl.externref import Host
    from impl.header import Memory

WORD_MAX: Final = (1 << 64) - 1


def round_up_wrapping(n: int, align: int) -> int:
    """Round up without asking whether the sum fits.

    Source: derived from the seed's `round_up_to_align`, whose `checked_add` this leaves out.
    """
    mask = align - 1
    return (n + mask) & WORD_MAX & ~mask


def round_up_without_mask(n: int, align: int, limit: int) -> int:
    """Add what rounding adds, and forget to clear the low bits. Source: derived."""
    mask = align - 1
    if n > limit - mask:
        return limit
    return n + mask


def layout_unchecked(size_bytes: int, align_bytes: int, pointer_bytes: int) -> tuple[int, int, int]:
    """Lay out value and footer, and check nothing but the first sum.

    Source: seed `VMExternData::layout_for` in a release build, where the check of the whole is a debug assertion.
    """
    mask = pointer_bytes - 1
    word_max = (1 << (pointer_bytes << 3)) - 1
    footer_offset = (size_bytes + mask) & ~mask
    align = align_bytes
    align = max(align, pointer_bytes)
    return (footer_offset + pointer_bytes * 3) & word_max, align, footer_offset


def layout_aligned_as_the_value(size_bytes: int, align_bytes: int) -> tuple[int, int]:
    """Lay out value and footer in a block that is aligned as the value alone. Returns alignment and footer offset. Source: derived."""
    return align_bytes, (size_bytes + 7) & ~7


def increment_wrapping(mem: Memory, externref: int) -> None:
    """Count one more reference, and wrap. Source: seed `increment_ref_count`."""
    mem[externref] = (mem[externref] + 1) & WORD_MAX


def decrement_wrapping(mem: Memory, externref: int) -> None:
    """Count one reference less, and wrap. Source: seed `decrement_ref_count`."""
    mem[externref] = (mem[externref] - 1) & WORD_MAX


def try_insert_unchecked(mem: Memory, table: int, externref: int) -> int:
    """Put a reference into the bump chunk, whether it has room or not. Source: derived."""
    slot = mem[table + NEXT]
    mem[slot] = externref
    mem[table + NEXT] = slot + 1
    return 1


def begin_sweep_in_place(mem: Memory, table: int) -> int:
    """Reset the bump finger before the entries are released, so that destructors insert into the slots that are being swept.

    Returns the number of slots to sweep. Source: derived from the seed's `sweep`, which closes the chunk first.
    """
    filled = mem[table + NEXT] - mem[table + CHUNK]
    mem[table + NEXT] = mem[table + CHUNK]
    return filled


def sweep_slot_after_drop(mem: Memory, host: Host, slot: int) -> int:
    """Release what a slot holds, and empty it afterwards.

    Source: wt#1923, the same order in `table.set`: a destructor meets its own entry.
    """
    externref = mem[slot]
    if externref != 0:
        drop(mem, host, externref)
    mem[slot] = 0
    return 0


def midpoint_wrapping(low: int, high: int) -> int:
    """Halve a sum that may have wrapped. Source: the bisection of many a library until 2006; derived."""
    return ((low + high) & WORD_MAX) >> 1


def entry_or_previous(mem: Memory, entries: int, low: int, pc: int) -> int:
    """Return the entry at the place that bisection found, or the one before it.

    Source: seed `lookup_stack_map`, ``Err(n) => n - 1``, without markers between functions (wt#2386).
    """
    if mem[entries + low * ENTRY_WORDS + PC] == pc:
        return entries + low * ENTRY_WORDS
    if low == 0:
        return 0
    return entries + (low - 1) * ENTRY_WORDS


def marked_or_previous(mem: Memory, entries: int, low: int, pc: int, function_start: int) -> int:
    """Return the entry at the place that bisection found, or the one before it if that is in the same function.

    Source: seed `lookup_stack_map` with the markers that its `register_stack_maps` enters at the starts of functions (wt#2396).
    """
    found = entry_or_previous(mem, entries, low, pc)
    if found != 0 and mem[found + PC] < function_start:
        return 0
    return found


def in_module_to_its_end(mem: Memory, module: int, pc: int) -> int:
    """Say whether a pc is in a module, its end included. Source: seed `module_stack_maps`, ``*end < pc``."""
    if pc < mem[module + MODULE_START] or mem[module + MODULE_END] < pc:
        return 0
    return 1


def refuse_overlap_of_the_seed(start: int, end: int, following_start: int, following_end: int, previous_end: int) -> None:
    """Compare a new range with the module that ends first at or past its end, and with the one that ends last at or before its start.

    Args:
        start: Of the new range.
        end: Of the new range.
        following_start: Of the first module whose end is not below `end`.
        following_end: Of the same; 0 if there is none.
        previous_end: Of the last module whose end is not above `start`; 0 if there is none.

    Raises:
        RegistrationRefused: As the seed's assertions would fail.

    Source: seed `register_stack_maps`: a module that ends inside the new range is compared with nothing.
    """
    if following_end != 0 and following_start <= end:
        raise RegistrationRefused("the seed's first assertion")
    if previous_end != 0 and previous_end >= start:
        raise RegistrationRefused("the seed's second assertion")


def append_entry(mem: Memory, entries: int, count: int, pc: int) -> None:
    """Enter a pc behind all others, wherever it belongs. Source: seed `register_stack_maps`, functions out of order."""
    mem[entries + count * ENTRY_WORDS + PC] = pc


def move_up_from_the_first(mem: Memory, first: int, last: int, distance: int) -> None:
    """Move words up, those with the lowest addresses first. Derived: `impl.stack_maps.move_up` begins with the last."""
    word = first
    while word < last:
        mem[word + distance] = mem[word]
        word += 1


def doubled(capacity: int) -> int:
    """Return the capacity to which a full array grows, if doubling is all. Derived: `insert_module` has a first capacity."""
    return capacity * 2
